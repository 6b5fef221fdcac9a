/* The most costly loops of reading a Philips file: decompression of LZW with 10-bit codes, and summation of differences.

   In: one lead's compressed bytes. Out: the decompressed bytes, and the samples from them. `_codes`, `_expand` and `_integrate`
   of `xli.py` are the same in Python, and are used if this module is not built; all results and errors are the same. */

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

static PyMethodDef methods[] = {
    {"expand", expand, METH_VARARGS,
     "expand(payload, most_bytes, many_codes) -> bytes\n\n"
     "What 10-bit LZW codes stand for. IndexError: an impossible code. OverflowError: of more than `many_codes` codes,\n"
     "more than `most_bytes` bytes."},
    {"integrate", integrate, METH_VARARGS,
     "integrate(text, first_difference, samples) -> None\n\n"
     "Fill `samples`, 16-bit words in little-endian order, from the high and low bytes of `text`."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_xli", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__xli(void)
{
    return PyModuleDef_Init(&definition);
}
