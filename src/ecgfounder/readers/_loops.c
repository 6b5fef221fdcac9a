/* The most costly loops of reading HL7 aECG and CardioSoft files (whole numbers in a text), SCP-ECG files (Huffman codes) and WFDB
   records (16-bit counts of all signals in turn).

   `millivolts_in` of `quantities.py`, `_decode_single` of `scp.py` and `columns_of` of `wfdb/stored.py` are the same in Python, and
   are used if this module is not built; all results and errors are the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <limits.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

#include "../_wide.h"

#define MOST_DIGITS 9
#define OTHER (-1)

/* Counts x scale + offset in float64, then rounded to float32; and the range of counts. */
typedef struct {
    const double scale, offset;
    float *out;
    long long low, high;
} Millivolts;

static void put(Millivolts *to, Py_ssize_t i, long long count)
{
    const double product = (double)count * to->scale;
    to->out[i] = (float)(to->offset == 0 ? product : product + to->offset);
    to->low = count < to->low ? count : to->low;
    to->high = count > to->high ? count : to->high;
}

/* The number of numbers, or OTHER. `out` has space for one number for every two characters, and one more. */
static Py_ssize_t parse(const unsigned char *text, Py_ssize_t length, Millivolts *to)
{
    Py_ssize_t n = 0, n_commas = 0, i = 0;
    int several_per_comma = 0, too_long = 0, stray_sign = 0, after_digit = 0, after_sign = 0;
    while (i < length) {
        const unsigned char c = text[i];
        if (c == ' ') {
            after_digit = after_sign = 0;
            i++;
            continue;
        }
        if (c >= '0' && c <= '9') {
            unsigned long long value = 0; /* of too many digits: any number */
            const Py_ssize_t first = i;
            do
                value = 10 * value + (text[i] - '0');
            while (++i < length && text[i] >= '0' && text[i] <= '9');
            too_long |= i - first > MOST_DIGITS;
            several_per_comma |= n_commas != n;
            put(to, n++, (long long)(first > 0 && text[first - 1] == '-' ? 0 - value : value));
            after_digit = 1;
            after_sign = 0;
            continue;
        }
        if (c == '-' || c == '+') {
            const int before_digit = i + 1 < length && text[i + 1] >= '0' && text[i + 1] <= '9';
            stray_sign |= after_digit || after_sign || !before_digit;
            after_sign = 1;
        } else if (c == ',') {
            n_commas++;
            after_sign = 0;
        } else if (c == '\t' || c == '\r' || c == '\n') {
            after_sign = 0;
        } else {
            return OTHER;
        }
        after_digit = 0;
        i++;
    }
    return stray_sign || too_long || (n_commas > 0 && (several_per_comma || n_commas > n)) ? OTHER : n;
}

static PyObject *whole_numbers(PyObject *module, PyObject *arguments)
{
    const char *text;
    Py_ssize_t length, n = 0;
    double scale, offset;
    Py_buffer out;
    long long low = LLONG_MAX, high = LLONG_MIN;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "s#ddw*:whole_numbers", &text, &length, &scale, &offset, &out))
        return NULL;
    if (out.len / (Py_ssize_t)sizeof(float) < length / 2 + 1) {
        PyErr_SetString(PyExc_ValueError, "one float32 for every two characters, and one more, are needed");
    } else {
        Millivolts to = {scale, offset, out.buf, low, high};
        n = parse((const unsigned char *)text, length, &to);
        low = to.low;
        high = to.high;
    }
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_BuildValue("nLL", n, n > 0 ? low : 0, n > 0 ? high : 0);
}

#define ENDS_EARLY 1
#define NO_CODE 2

/* `n_bits` bits of the data from a bit on, at most 32; zeros after the end. */
static unsigned long long bits_at(const unsigned char *data, Py_ssize_t length, Py_ssize_t bit, int n_bits)
{
    const Py_ssize_t first = bit >> 3;
    unsigned long long word = 0;
    int i;
    for (i = 0; i < 5; i++)
        word = word << 8 | (first + i < length ? data[first + i] : 0);
    return word >> (40 - n_bits - (bit & 7)) & ((1ull << n_bits) - 1);
}

/* One entry of a Huffman table as four int64: bits of the prefix, extra bits, value, and whether there is such a code. */
static int decode(const unsigned char *data, Py_ssize_t length, const long long *entries, const unsigned short *lookup,
                  int longest, long long *out, Py_ssize_t n_samples)
{
    const Py_ssize_t n_bits = 8 * length;
    Py_ssize_t position = 0, i;
    for (i = 0; i < n_samples; i++) {
        const long long *entry;
        if (position >= n_bits)
            return ENDS_EARLY;
        entry = entries + 4 * lookup[bits_at(data, length, position, longest)];
        if (!entry[3])
            return NO_CODE;
        position += (Py_ssize_t)entry[0];
        out[i] = entry[2];
        if (entry[1]) {
            long long extra = (long long)bits_at(data, length, position, (int)entry[1]);
            if (extra >> (entry[1] - 1) & 1)
                extra -= 1ll << entry[1];
            out[i] += extra;
            position += (Py_ssize_t)entry[1];
        }
        if (position > n_bits)
            return ENDS_EARLY;
    }
    return 0;
}

static PyObject *huffman(PyObject *module, PyObject *arguments)
{
    Py_buffer data, entries, lookup, out;
    int longest, result = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*iw*:huffman", &data, &entries, &lookup, &longest, &out))
        return NULL;
    {
        const Py_ssize_t n_entries = entries.len / 32, n_lookup = lookup.len / 2;
        const long long *entry = entries.buf;
        const unsigned short *index = lookup.buf;
        Py_ssize_t i;
        int fits = longest >= 1 && longest <= 16 && n_lookup == (Py_ssize_t)1 << longest;
        for (i = 0; fits && i < n_entries; i++)
            fits = entry[4 * i] >= 0 && entry[4 * i] <= longest && entry[4 * i + 1] >= 0 && entry[4 * i + 1] <= 32
                   && (!entry[4 * i + 3] || entry[4 * i] + entry[4 * i + 1] > 0);
        for (i = 0; fits && i < n_lookup; i++)
            fits = index[i] < n_entries;
        if (!fits)
            PyErr_SetString(PyExc_ValueError, "not a table for prefixes of up to 16 bits");
        else
            result = decode(data.buf, data.len, entry, index, longest, out.buf, out.len / (Py_ssize_t)sizeof(long long));
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&entries);
    PyBuffer_Release(&lookup);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : PyLong_FromLong(result);
}

#define NO_SAMPLE (-32768)
#define FRAMES_AT_ONCE 512
#define SIGNALS_AT_ONCE 8
#define FACTS 4

typedef struct {
    const unsigned char *data;
    Py_ssize_t n_frames, n_signals;
    const double *scales, *offsets;
    float *out;
    long long *facts;
} Frames;

#ifdef __SSE2__
/* Eight frames' counts of eight signals, `step` counts apart, as eight counts of each signal. */
INLINE void transpose(const unsigned char *at, Py_ssize_t step, short *to, Py_ssize_t pitch)
{
    __m128i a[8], b[8];
    int i;
#pragma GCC unroll 8
    for (i = 0; i < 8; i++)
        a[i] = _mm_loadu_si128((const __m128i *)(at + 2 * i * step));
#pragma GCC unroll 4
    for (i = 0; i < 4; i++) {
        b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
        b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
#pragma GCC unroll 4
    for (i = 0; i < 4; i++) {
        a[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
        a[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
#pragma GCC unroll 4
    for (i = 0; i < 4; i++) {
        _mm_storeu_si128((__m128i *)(to + 2 * i * pitch), _mm_unpacklo_epi16(a[i], a[i + 4]));
        _mm_storeu_si128((__m128i *)(to + (2 * i + 1) * pitch), _mm_unpackhi_epi16(a[i], a[i + 4]));
    }
}
#endif

/* The counts of at most eight signals in some frames. */
INLINE void separate(const Frames *all, Py_ssize_t signal, int n_signals, Py_ssize_t first, Py_ssize_t n,
                     short counts[SIGNALS_AT_ONCE][FRAMES_AT_ONCE])
{
    const unsigned char *at = all->data + 2 * (first * all->n_signals + signal);
    Py_ssize_t i = 0;
    int row;
#ifdef __SSE2__
    if (n_signals == SIGNALS_AT_ONCE)
        for (; i + 8 <= n; i += 8)
            transpose(at + 2 * i * all->n_signals, all->n_signals, counts[0] + i, FRAMES_AT_ONCE);
#endif
    for (; i < n; i++)
        for (row = 0; row < n_signals; row++) {
            const unsigned char *count = at + 2 * (i * all->n_signals + row);
            counts[row][i] = (short)(unsigned short)(count[0] | count[1] << 8);
        }
}

/* counts x scale + offset of one signal's part of some frames; its facts: sum, lowest and highest count, and how many are missing. */
INLINE void fill_signal(const Frames *all, Py_ssize_t signal, Py_ssize_t first, Py_ssize_t n, const short *counts)
{
    const double scale = all->scales[signal], offset = all->offsets[signal];
    float *out = all->out + signal * all->n_frames + first;
    long long *facts = all->facts + FACTS * signal;
    short least = 32767, most = -32768, low = (short)facts[1];
    unsigned short sum = (unsigned short)facts[0];
    Py_ssize_t i;
    for (i = 0; i < n; i++) {  /* compilers turn these loops into vector instructions */
        sum = (unsigned short)(sum + (unsigned short)counts[i]);
        least = counts[i] < least ? counts[i] : least;
        most = counts[i] > most ? counts[i] : most;
    }
    for (i = 0; i < n; i++)
        out[i] = (float)(counts[i] * scale + offset);
    if (least == NO_SAMPLE)
        for (i = 0, least = 32767; i < n; i++) {
            if (counts[i] == NO_SAMPLE) {
                out[i] = Py_NAN;
                facts[3]++;
            } else if (counts[i] < least) {
                least = counts[i];
            }
        }
    facts[0] = sum;
    facts[1] = least < low ? least : low;
    facts[2] = most > facts[2] ? most : facts[2];
}

/* Frames in parts that are so small that they stay in the cache. */
INLINE int fill_any(const Frames *all)
{
    short counts[SIGNALS_AT_ONCE][FRAMES_AT_ONCE];
    Py_ssize_t first, n, signal;
    int some, row;
    for (first = 0; first < all->n_frames; first += n) {
        n = all->n_frames - first > FRAMES_AT_ONCE ? FRAMES_AT_ONCE : all->n_frames - first;
        for (signal = 0; signal < all->n_signals; signal += some) {
            some = all->n_signals - signal < SIGNALS_AT_ONCE ? (int)(all->n_signals - signal) : SIGNALS_AT_ONCE;
            if (some < SIGNALS_AT_ONCE && signal > 0) { /* the last eight, of which some are there already */
                separate(all, all->n_signals - SIGNALS_AT_ONCE, SIGNALS_AT_ONCE, first, n, counts);
                for (row = 0; row < some; row++)
                    fill_signal(all, signal + row, first, n, counts[SIGNALS_AT_ONCE - some + row]);
            } else {
                separate(all, signal, some, first, n, counts);
                for (row = 0; row < some; row++)
                    fill_signal(all, signal + row, first, n, counts[row]);
            }
        }
    }
    return 0;
}

FOR_BOTH(int, fill, (const Frames *all), (all))

static PyObject *interleaved(PyObject *module, PyObject *arguments)
{
    Py_buffer data, scales, offsets, out, facts;
    Py_ssize_t offset, signal;
    Frames all;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nny*y*w*w*:interleaved", &data, &offset, &all.n_frames, &scales, &offsets, &out, &facts))
        return NULL;
    all.n_signals = scales.len / (Py_ssize_t)sizeof(double);
    if (offset < 0 || offset > data.len || all.n_frames < 1 || all.n_signals < 1
        || offsets.len != scales.len || (data.len - offset) / 2 / all.n_signals < all.n_frames
        || out.len / (Py_ssize_t)sizeof(float) / all.n_signals < all.n_frames
        || facts.len / (Py_ssize_t)sizeof(long long) / FACTS < all.n_signals) {
        PyErr_SetString(PyExc_ValueError, "arrays that are too small for the frames");
    } else {
        all.data = (const unsigned char *)data.buf + offset;
        all.scales = scales.buf;
        all.offsets = offsets.buf;
        all.out = out.buf;
        all.facts = facts.buf;
        for (signal = 0; signal < all.n_signals; signal++) {
            long long *own = all.facts + FACTS * signal;
            own[0] = own[3] = 0;
            own[1] = 32767;
            own[2] = -32768;
        }
        fill(&all);
    }
    PyBuffer_Release(&data);
    PyBuffer_Release(&scales);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&out);
    PyBuffer_Release(&facts);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyMethodDef methods[] = {
    {"whole_numbers", whole_numbers, METH_VARARGS,
     "whole_numbers(text, scale, offset, out, /)\n--\n\n"
     "Fill `out` (float32) with the numbers of a str x scale + offset; returns how many there are, the lowest and the highest.\n"
     "Their number is -1 where one is too long, a field is empty, a sign begins no number, or there is another character."},
    {"huffman", huffman, METH_VARARGS,
     "huffman(data, entries, lookup, longest, out) -> int\n\n"
     "Fill `out` (int64) with the values of codes: `entries` (int64 [n, 4]) has the bits of each code's prefix, its extra bits,\n"
     "its value and whether it exists, `lookup` (uint16) the entry for each number of `longest` bits. 0, ENDS_EARLY or NO_CODE."},
    {"interleaved", interleaved, METH_VARARGS,
     "interleaved(data, offset, n_frames, scales, offsets, out, facts, /)\n--\n\n"
     "Fill `out` (float32 [n_signals, n_frames]) with little-endian 16-bit counts x scale + offset, NaN for missing ones, and `facts`\n"
     "(int64 [n_signals, 4]) with the sum of counts modulo 2^16, the lowest and the highest count, and how many are missing."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    if (PyModule_AddIntConstant(module, "ENDS_EARLY", ENDS_EARLY) < 0)
        return -1;
    return PyModule_AddIntConstant(module, "NO_CODE", NO_CODE);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_constants},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_loops", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__loops(void)
{
    return PyModuleDef_Init(&definition);
}
