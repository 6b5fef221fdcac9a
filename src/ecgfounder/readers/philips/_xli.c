/* The most costly loops of reading a Philips file: Base64, and XLI data to millivolts.

   In: a text; the bytes of XLI data. Out: bytes; samples. What is not plainly sound is left to `_base64` of `reader.py` and to
   `xli.py`, which are the same in Python, and say what is wrong with it. They are used too if this module is not built. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "../../_wide.h"

#define N_LITERALS 256
#define END_CODE 1023
#define N_CODES 1024
#define HEADER 8 /* bytes: the payload's size, a word that is not used, the first second difference */
#define AT_ONCE 16
#define MAX_JUMP (3 << 14)

typedef struct {
    const unsigned char *data;
    Py_ssize_t n_bytes, n_leads, largest;
    double duration;
    float resolution;
    Py_ssize_t n_samples;
    unsigned char *text;
    short *counts;
} Xli;

/* The code at a bit of the payload; every code begins at an even bit, so that it is within two bytes. */
INLINE unsigned code_at(const unsigned char *payload, Py_ssize_t bit)
{
    const unsigned char *at = payload + (bit >> 3);
    return (((unsigned)at[0] << 8 | at[1]) >> (6 - (bit & 7))) & 1023;
}

/* Write what the codes stand for into `text`, behind the literals that it begins with: at most `most` bytes, and less than
   `AT_ONCE` that do not count. The number of bytes, or -1 for impossible codes, for one alone, and for too many bytes.

   The string added with code k is that of code k - 1 and one byte more: both are in the text already, at the place of code k - 1. */
static Py_ssize_t expand(const unsigned char *payload, Py_ssize_t n_codes, unsigned char *text, Py_ssize_t most)
{
    int begins[N_CODES], lengths[N_CODES];
    Py_ssize_t at = N_LITERALS, i;
    int k;
    for (k = 0; k < N_LITERALS; k++) {
        begins[k] = k;
        lengths[k] = 1;
    }
    most += N_LITERALS;
    for (i = 0; i < n_codes; i++) {
        const unsigned code = code_at(payload, 10 * i);
        const unsigned char *from;
        int length;
        if (code == END_CODE)
            break;
        if ((Py_ssize_t)code >= N_LITERALS + i)
            return -1;
        length = lengths[code];
        from = text + begins[code];
        if (at + length > most)
            return -1;
        if (N_LITERALS + i < END_CODE) {
            begins[N_LITERALS + i] = (int)at;
            lengths[N_LITERALS + i] = length + 1;
        }
        if (text + at - from >= length) {
            for (k = 0; k < length; k += AT_ONCE) { /* excess bytes are overwritten by the next code */
                unsigned char some[AT_ONCE];
                memcpy(some, from + k, AT_ONCE);
                memcpy(text + at + k, some, AT_ONCE);
            }
        } else { /* the string overlaps the bytes being written */
            for (k = 0; k < length; k++)
                text[at + k] = from[k];
        }
        at += length;
    }
    return i < 2 ? -1 : at - N_LITERALS;
}

/* Samples modulo 2^16, from words whose high bytes precede their low bytes; the second difference at 2 is minus `first`. */
static void integrate(const unsigned char *high, Py_ssize_t n, unsigned first, short *samples)
{
    const unsigned char *low = high + n;
    unsigned sample = 0, step = 0, difference = 0u - first;
    Py_ssize_t i;
#define NEXT                                              \
    do {                                                  \
        step += difference;                               \
        sample += step;                                   \
        samples[i] = (short)(unsigned short)sample;       \
        difference = 64 - ((unsigned)high[i] << 8 | low[i]); \
    } while (0)
    for (i = 0; i < n && i < 2; i++) {
        const unsigned word = (unsigned)high[i] << 8 | low[i];
        step = word - sample;
        sample = word;
        samples[i] = (short)(unsigned short)sample;
    }
    for (; i < n && i < 3; i++)
        NEXT;
#ifdef __SSE2__
    {
        const __m128i offset = _mm_set1_epi16(64), ordinals = _mm_set_epi16(8, 7, 6, 5, 4, 3, 2, 1);
        __m128i steps = _mm_set1_epi16((short)step), sums = _mm_set1_epi16((short)sample);
        for (; i + 8 <= n; i += 8) {
            const __m128i lows = _mm_loadl_epi64((const __m128i *)(low + i - 1));
            const __m128i highs = _mm_loadl_epi64((const __m128i *)(high + i - 1));
            __m128i once = _mm_sub_epi16(offset, _mm_unpacklo_epi8(lows, highs)), twice;
            once = _mm_add_epi16(once, _mm_slli_si128(once, 2));
            once = _mm_add_epi16(once, _mm_slli_si128(once, 4));
            once = _mm_add_epi16(once, _mm_slli_si128(once, 8));
            twice = _mm_add_epi16(once, _mm_slli_si128(once, 2));
            twice = _mm_add_epi16(twice, _mm_slli_si128(twice, 4));
            twice = _mm_add_epi16(twice, _mm_slli_si128(twice, 8));
            twice = _mm_add_epi16(_mm_add_epi16(twice, _mm_mullo_epi16(steps, ordinals)), sums);
            once = _mm_add_epi16(once, steps);
            _mm_storeu_si128((__m128i *)(samples + i), twice);
            once = _mm_shufflehi_epi16(once, 0xff);
            twice = _mm_shufflehi_epi16(twice, 0xff);
            steps = _mm_unpackhi_epi64(once, once);
            sums = _mm_unpackhi_epi64(twice, twice);
        }
        if (i > 3) {
            sample = (unsigned short)samples[i - 1];
            step = sample - (unsigned short)samples[i - 2];
            difference = 64 - ((unsigned)high[i - 1] << 8 | low[i - 1]);
        }
    }
#endif
    for (; i < n; i++)
        NEXT;
#undef NEXT
}

/* Half of a number, rounded down. */
INLINE int halved(int number)
{
    return number >> 1; /* of negative ones too, with every compiler that is used */
}

enum { LEAD_I, LEAD_II, LEAD_III, LEAD_AVR, LEAD_AVL, LEAD_AVF, N_LIMB };

/* Replace residuals by leads; a lead whose row is -1 is not there. In this order, because the last two are restored from III. */
INLINE void restore_any(short *counts, Py_ssize_t n, const long long *rows)
{
    short *lead[N_LIMB];
    Py_ssize_t i;
    int k;
    for (k = 0; k < N_LIMB; k++)
        lead[k] = rows[k] < 0 ? NULL : counts + rows[k] * n;
    for (i = 0; i < n && lead[LEAD_III]; i++)
        lead[LEAD_III][i] = (short)(lead[LEAD_II][i] - lead[LEAD_I][i] - lead[LEAD_III][i]);
    for (i = 0; i < n && lead[LEAD_AVR]; i++)
        lead[LEAD_AVR][i] = (short)(-halved(lead[LEAD_I][i] + lead[LEAD_II][i]) - lead[LEAD_AVR][i]);
    for (i = 0; i < n && lead[LEAD_AVL]; i++)
        lead[LEAD_AVL][i] = (short)(halved(lead[LEAD_I][i] - lead[LEAD_III][i]) - lead[LEAD_AVL][i]);
    for (i = 0; i < n && lead[LEAD_AVF]; i++)
        lead[LEAD_AVF][i] = (short)(halved(lead[LEAD_II][i] + lead[LEAD_III][i]) - lead[LEAD_AVF][i]);
}
FOR_BOTH(void, restore, (short *counts, Py_ssize_t n, const long long *rows), (counts, n, rows))

/* Counts to millivolts; whether no count is far from the one before it. */
INLINE int fill_any(const short *counts, Py_ssize_t n, float resolution, float *out)
{
    short least = 32767, most = -32768;
    Py_ssize_t i;
    int jump = 0;
    for (i = 0; i < n; i++) {
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
    }
    for (i = 0; i < n; i++)
        out[i] = (float)counts[i] * resolution / 1000.0f;
    if (most - least > MAX_JUMP)
        for (i = 1; i < n; i++) {
            const int change = counts[i] > counts[i - 1] ? counts[i] - counts[i - 1] : counts[i - 1] - counts[i];
            jump = change > jump ? change : jump;
        }
    return jump <= MAX_JUMP;
}
FOR_BOTH(int, fill, (const short *counts, Py_ssize_t n, float resolution, float *out), (counts, n, resolution, out))

/* Decode all leads; 0 if something is wrong with them. */
static int decode(Xli *xli, Py_ssize_t most_bytes, const long long *rows, float *out)
{
    Py_ssize_t at = 0, lead;
    for (lead = 0; lead < xli->n_leads; lead++) {
        const unsigned char *header = xli->data + at;
        Py_ssize_t n_bytes, n;
        long long size;
        if (xli->n_bytes - at < HEADER)
            return 0;
        size = header[0] | header[1] << 8 | header[2] << 16 | (long long)header[3] << 24;
        at += HEADER;
        if (size == 0 || size > xli->largest || size > xli->n_bytes - at)
            return 0;
        /* The number of complete codes of 10 bits, computed without overflow. */
        n_bytes = expand(xli->data + at, size / 5 * 4 + size % 5 * 8 / 10, xli->text, most_bytes);
        n = (n_bytes + 1) / 2;
        if (n_bytes < 0 || n - xli->duration >= 1 || xli->duration - n >= 1 || (lead > 0 && n != xli->n_samples))
            return 0;
        if (n_bytes % 2) /* the last byte is never used, and may be missing */
            xli->text[N_LITERALS + n_bytes] = 0;
        xli->n_samples = n;
        integrate(xli->text + N_LITERALS, n, header[6] | (unsigned)header[7] << 8, xli->counts + lead * n);
        at += (Py_ssize_t)size;
    }
    restore(xli->counts, xli->n_samples, rows);
    for (lead = 0; lead < xli->n_leads; lead++)
        if (!fill(xli->counts + lead * xli->n_samples, xli->n_samples, xli->resolution, out + lead * xli->n_samples))
            return 0;
    return 1;
}

/* Whether each of the leads is in one of the rows, with the two that it is restored from. */
static int are_rows(const long long *rows, Py_ssize_t n_leads)
{
    int k;
    for (k = 0; k < N_LIMB; k++)
        if (rows[k] < -1 || rows[k] >= n_leads)
            return 0;
    return (rows[LEAD_III] < 0 || (rows[LEAD_I] >= 0 && rows[LEAD_II] >= 0)) &&
           (rows[LEAD_AVR] < 0 || (rows[LEAD_I] >= 0 && rows[LEAD_II] >= 0)) &&
           (rows[LEAD_AVL] < 0 || (rows[LEAD_I] >= 0 && rows[LEAD_III] >= 0)) &&
           (rows[LEAD_AVF] < 0 || (rows[LEAD_II] >= 0 && rows[LEAD_III] >= 0));
}

static PyObject *millivolts(PyObject *module, PyObject *arguments)
{
    Py_buffer data, rows, out;
    Xli xli = {0};
    Py_ssize_t most_samples, n_samples = -1;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nndfy*w*:millivolts", &data, &xli.n_leads, &xli.largest, &xli.duration, &xli.resolution,
                          &rows, &out))
        return NULL;
    most_samples = xli.n_leads > 0 ? out.len / (Py_ssize_t)sizeof(float) / xli.n_leads : 0;
    /* lengths are at most the duration rounded up, for which there is room */
    if (!(xli.duration > 0 && xli.duration <= most_samples) || most_samples > 0x3fffffff ||
        rows.len != N_LIMB * (Py_ssize_t)sizeof(long long) || !are_rows(rows.buf, xli.n_leads)) {
        PyErr_SetString(PyExc_ValueError, "float32 with room for all samples, and six rows are needed");
    } else {
        xli.data = data.buf;
        xli.n_bytes = data.len;
        xli.text = PyMem_Malloc((size_t)(N_LITERALS + 2 * most_samples + AT_ONCE));
        xli.counts = PyMem_Malloc(sizeof(short) * (size_t)(xli.n_leads * most_samples));
        if (xli.text == NULL || xli.counts == NULL) {
            PyErr_NoMemory();
        } else {
            int k;
            for (k = 0; k < N_LITERALS; k++)
                xli.text[k] = (unsigned char)k;
            if (decode(&xli, 2 * most_samples, rows.buf, out.buf))
                n_samples = xli.n_samples;
        }
        PyMem_Free(xli.text);
        PyMem_Free(xli.counts);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&rows);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(n_samples);
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
static Py_ssize_t decode_base64(const unsigned char *text, Py_ssize_t n, const unsigned char digits[256], unsigned char *out)
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
    n_bytes = decode_base64((const unsigned char *)characters, n, digits, out);
    bytes = n_bytes < 0 ? Py_NewRef(Py_None) : PyBytes_FromStringAndSize((const char *)out, n_bytes);
    PyMem_Free(out);
    return bytes;
}

static PyMethodDef methods[] = {
    {"base64", base64, METH_O,
     "base64(text) -> bytes or None\n\n"
     "The bytes of Base64 in a str with blanks anywhere. None if it is not plainly that, and perhaps damaged."},
    {"millivolts", millivolts, METH_VARARGS,
     "millivolts(data, n_leads, largest, duration_samples, resolution_uv, rows, out) -> int\n\n"
     "Decode XLI data into `out`, float32 with room for `n_leads` times the duration; the samples of a lead, and those of the\n"
     "next directly after them. Their number for each lead, or -1 if the data is not plainly sound. A payload has at most\n"
     "`largest` bytes; `rows` (int64 [6]) has the rows of I, II, III, aVR, aVL and aVF, -1 for one that is not there."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_xli", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__xli(void)
{
    return PyModuleDef_Init(&definition);
}
