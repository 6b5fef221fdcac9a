/* The most costly loops of reading a Philips file: Base64, decompression of LZW with 10-bit codes, summation of differences, and
   the limb leads that are stored as residuals.

   In: a text; one lead's compressed bytes. Out: bytes, and the samples from them. `_base64` of `reader.py`, and `_codes`, `_expand`,
   `_integrate` and `restore_limb_leads` of `xli.py` are the same in Python, and are used if this module is not built; all results
   and errors are the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#define N_LITERALS 256
#define END_CODE 1023

/* The code at a bit of the payload; every code begins at an even bit, so that it is within two bytes. */
static unsigned code_at(const unsigned char *payload, Py_ssize_t bit)
{
    const unsigned char *at = payload + (bit >> 3);
    return (((unsigned)at[0] << 8 | at[1]) >> (6 - (bit & 7))) & 1023;
}

/* Check the codes up to the end code, and sum the lengths of their strings. */
static int measure(const unsigned char *payload, Py_ssize_t n_codes, unsigned short *lengths, Py_ssize_t *n_used,
                   Py_ssize_t *n_bytes)
{
    Py_ssize_t i, total = 0;
    unsigned previous = 0;
    int possible = 1;
    for (i = 0; i < N_LITERALS; i++)
        lengths[i] = 1;
    for (i = 0; i < n_codes; i++) {
        unsigned code = code_at(payload, 10 * i);
        if (code == END_CODE)
            break;
        /* Every code but the first adds a string, and may be the code of that string. */
        if (i > 0 && N_LITERALS + i - 1 < END_CODE && possible)
            lengths[N_LITERALS + i - 1] = lengths[previous] + 1;
        if ((Py_ssize_t)code >= N_LITERALS + i)
            possible = 0;
        if (possible)
            total += lengths[code];
        previous = code;
    }
    *n_used = i;
    *n_bytes = total;
    return possible;
}

/* Every added string is in the output already, at the place of the previous code, and one byte longer than its string. */
static void write_out(const unsigned char *payload, Py_ssize_t n_codes, const unsigned short *lengths,
                      unsigned char *out, Py_ssize_t n_bytes)
{
    Py_ssize_t begins[END_CODE];
    Py_ssize_t at = 0, i;
    for (i = 0; i < n_codes; i++) {
        unsigned code = code_at(payload, 10 * i);
        Py_ssize_t length = lengths[code], k;
        if (N_LITERALS + i < END_CODE)
            begins[N_LITERALS + i] = at;
        if (code < N_LITERALS) {
            out[at] = (unsigned char)code;
        } else if (at - begins[code] >= 8 && at + length + 7 <= n_bytes) {
            /* eight bytes at once; excess bytes are overwritten by the next code */
            for (k = 0; k < length; k += 8)
                memcpy(out + at + k, out + begins[code] + k, 8);
        } else { /* forwards, byte by byte: the string may overlap the bytes being written */
            for (k = 0; k < length; k++)
                out[at + k] = out[begins[code] + k];
        }
        at += length;
    }
}

static PyObject *expand(PyObject *module, PyObject *arguments)
{
    Py_buffer payload;
    Py_ssize_t most_bytes, many_codes, n_used, n_bytes;
    unsigned short lengths[END_CODE];
    PyObject *text = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn:expand", &payload, &most_bytes, &many_codes))
        return NULL;
    /* The number of complete codes of 10 bits, computed without overflow. */
    if (!measure(payload.buf, payload.len / 5 * 4 + payload.len % 5 * 8 / 10, lengths, &n_used, &n_bytes)) {
        if (n_used < 2)
            text = PyBytes_FromStringAndSize(NULL, 0);
        else
            PyErr_SetString(PyExc_IndexError, "an impossible LZW code");
    } else if (n_used < 2) {
        text = PyBytes_FromStringAndSize(NULL, 0);
    } else if (n_used > many_codes && n_bytes > most_bytes) {
        PyErr_SetString(PyExc_OverflowError, "more bytes than were announced");
    } else {
        text = PyBytes_FromStringAndSize(NULL, n_bytes);
        if (text != NULL)
            write_out(payload.buf, n_used, lengths, (unsigned char *)PyBytes_AsString(text), n_bytes);
    }
    PyBuffer_Release(&payload);
    return text;
}

/* Samples modulo 2^16 from words whose high bytes precede their low bytes; the second difference at 2 is minus `first`. */
static PyObject *integrate(PyObject *module, PyObject *arguments)
{
    Py_buffer text, out;
    int first;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*iw*:integrate", &text, &first, &out))
        return NULL;
    if (text.len != out.len || text.len % 2) {
        PyErr_SetString(PyExc_ValueError, "two bytes for each sample are needed");
    } else {
        const Py_ssize_t n_samples = text.len / 2;
        const unsigned char *high = text.buf, *low = high + n_samples;
        unsigned char *samples = out.buf;
        unsigned before = 0, sample = 0, step = 0, difference = 0u - (unsigned)first;
        Py_ssize_t i;
        for (i = 0; i < n_samples; i++) {
            const unsigned word = (unsigned)high[i] << 8 | low[i];
            if (i < 2) {
                sample = word;
                step = word - before;
            } else {
                step += difference;
                sample += step;
                difference = 64 - word;
            }
            before = sample;
            samples[2 * i] = (unsigned char)sample;
            samples[2 * i + 1] = (unsigned char)(sample >> 8);
        }
    }
    PyBuffer_Release(&text);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

#define BLANK 64
#define PADDING 65
#define OTHER 66

/* The digit of each byte, or what it is instead. */
static void fill_digits(unsigned char digits[256])
{
    static const char alphabet[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    int i;
    memset(digits, OTHER, 256);
    for (i = 0; i < 64; i++)
        digits[(unsigned char)alphabet[i]] = (unsigned char)i;
    digits[' '] = digits['\t'] = digits['\r'] = digits['\n'] = BLANK;
    digits['='] = PADDING;
}

/* Decode groups of four digits with blanks anywhere; the number of bytes, or -1 for anything that is not plainly Base64. */
static Py_ssize_t decode(const unsigned char *text, Py_ssize_t n, const unsigned char digits[256], unsigned char *out)
{
    const unsigned char *start = out;
    unsigned group = 0;
    int n_digits = 0, n_padding = 0;
    Py_ssize_t i = 0;
    while (i < n) {
        unsigned digit;
        if (n_digits == 0 && i + 4 <= n) {
            const unsigned a = digits[text[i]], b = digits[text[i + 1]], c = digits[text[i + 2]], d = digits[text[i + 3]];
            if ((a | b | c | d) < 64) {
                *out++ = (unsigned char)(a << 2 | b >> 4);
                *out++ = (unsigned char)(b << 4 | c >> 2);
                *out++ = (unsigned char)(c << 6 | d);
                i += 4;
                if (n_padding)
                    return -1;
                continue;
            }
        }
        digit = digits[text[i++]];
        if (digit == BLANK)
            continue;
        if (digit == OTHER || (digit == PADDING && n_digits < 2) || (digit != PADDING && n_padding))
            return -1;
        n_padding += digit == PADDING;
        group = group << 6 | (digit & 63);
        if (++n_digits == 4) {
            *out++ = (unsigned char)(group >> 16);
            *out++ = (unsigned char)(group >> 8);
            *out++ = (unsigned char)group;
            n_digits = 0;
        }
    }
    return n_digits == 0 && n_padding <= 2 ? out - start - n_padding : -1;
}

static PyObject *base64(PyObject *module, PyObject *text)
{
    unsigned char digits[256];
    const char *characters;
    Py_ssize_t n, n_bytes;
    unsigned char *out;
    PyObject *bytes;
    (void)module;
    if ((characters = PyUnicode_AsUTF8AndSize(text, &n)) == NULL) {
        if (!PyErr_ExceptionMatches(PyExc_UnicodeEncodeError))
            return NULL;
        PyErr_Clear();
        return Py_NewRef(Py_None);
    }
    if ((out = PyMem_Malloc((size_t)n / 4 * 3 + 3)) == NULL)
        return PyErr_NoMemory();
    fill_digits(digits);
    n_bytes = decode((const unsigned char *)characters, n, digits, out);
    bytes = n_bytes < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)out, n_bytes);
    PyMem_Free(out);
    return bytes;
}

/* Half of a number, rounded down. */
static int halved(int number)
{
    return (number - (number & 1)) / 2;
}

enum { LEAD_I, LEAD_II, LEAD_III, LEAD_AVR, LEAD_AVL, LEAD_AVF, N_LIMB };

static PyObject *restore(PyObject *module, PyObject *arguments)
{
    Py_buffer counts, rows;
    Py_ssize_t n_leads, n = 0, i;
    int is_sound, k;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "w*ny*:restore", &counts, &n_leads, &rows))
        return NULL;
    is_sound = n_leads > 0 && counts.itemsize == sizeof(short) && rows.len == N_LIMB * (Py_ssize_t)sizeof(long long);
    if (is_sound) {
        n = counts.len / (Py_ssize_t)sizeof(short) / n_leads;
        for (k = 0; k < N_LIMB; k++)
            is_sound &= ((const long long *)rows.buf)[k] >= -1 && ((const long long *)rows.buf)[k] < n_leads;
        is_sound &= n * n_leads * (Py_ssize_t)sizeof(short) == counts.len;
    }
    if (!is_sound) {
        PyErr_SetString(PyExc_ValueError, "int16 [n_leads, n_samples] and six rows are needed");
    } else {
        short *lead[N_LIMB];
        for (k = 0; k < N_LIMB; k++) {
            const long long row = ((const long long *)rows.buf)[k];
            lead[k] = row < 0 ? NULL : (short *)counts.buf + row * n;
        }
        /* In this order, because the last two are restored from III. */
        for (i = 0; i < n && lead[LEAD_III] && lead[LEAD_I] && lead[LEAD_II]; i++)
            lead[LEAD_III][i] = (short)(lead[LEAD_II][i] - lead[LEAD_I][i] - lead[LEAD_III][i]);
        for (i = 0; i < n && lead[LEAD_AVR] && lead[LEAD_I] && lead[LEAD_II]; i++)
            lead[LEAD_AVR][i] = (short)(-halved(lead[LEAD_I][i] + lead[LEAD_II][i]) - lead[LEAD_AVR][i]);
        for (i = 0; i < n && lead[LEAD_AVL] && lead[LEAD_I] && lead[LEAD_III]; i++)
            lead[LEAD_AVL][i] = (short)(halved(lead[LEAD_I][i] - lead[LEAD_III][i]) - lead[LEAD_AVL][i]);
        for (i = 0; i < n && lead[LEAD_AVF] && lead[LEAD_II] && lead[LEAD_III]; i++)
            lead[LEAD_AVF][i] = (short)(halved(lead[LEAD_II][i] + lead[LEAD_III][i]) - lead[LEAD_AVF][i]);
    }
    PyBuffer_Release(&counts);
    PyBuffer_Release(&rows);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyMethodDef methods[] = {
    {"base64", base64, METH_O,
     "base64(text) -> bytes or None\n\n"
     "The bytes of Base64 in a str with blanks anywhere. None if it is not plainly that, and perhaps damaged."},
    {"expand", expand, METH_VARARGS,
     "expand(payload, most_bytes, many_codes) -> bytes\n\n"
     "What 10-bit LZW codes stand for. IndexError: an impossible code. OverflowError: of more than `many_codes` codes,\n"
     "more than `most_bytes` bytes."},
    {"integrate", integrate, METH_VARARGS,
     "integrate(text, first_difference, samples) -> None\n\n"
     "Fill `samples`, 16-bit words in little-endian order, from the high and low bytes of `text`."},
    {"restore", restore, METH_VARARGS,
     "restore(counts, n_leads, rows) -> None\n\n"
     "Replace residuals in `counts` (int16 [n_leads, n_samples]) by the leads III, aVR, aVL and aVF; `rows` (int64 [6]) has the\n"
     "rows of I, II, III, aVR, aVL and aVF, -1 for one that is not there. A lead that needs one that is not there stays."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_xli", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__xli(void)
{
    return PyModuleDef_Init(&definition);
}
