/* float32 numbers as text: the shortest decimal number that is read as the same float32, and of those the nearest to it.

   In: an array [C] or [T, C]. Out: its JSON text. orjson writes the same text, in three times the time; it is used if this module
   is not built. The digits are found by Schubfach (R. Giulietti, "The Schubfach way to render doubles", 2021), for many
   numbers at once, without branches. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stdint.h>
#include <string.h>

#include "../_wide.h"

#define AT_ONCE 256
#define MOST_CHARACTERS 17 /* -1234567800000.0, and a comma */
#define SPARE 16           /* characters that are written beyond a number's end */
#define FIRST_POWER (-31)
#define DIGITS 9

/* 10^(i + FIRST_POWER), times the power of two that makes it at least 2^63 and less than 2^64, rounded up. */
static const uint32_t HIGH[] = {
    0x81ceb32c, 0xa2425ff7, 0xcad2f7f5, 0xfd87b5f2, 0x9e74d1b7, 0xc6120625, 0xf79687ae, 0x9abe14cd, 0xc16d9a00,
    0xf1c90080, 0x971da050, 0xbce50864, 0xec1e4a7d, 0x9392ee8e, 0xb877aa32, 0xe69594be, 0x901d7cf7, 0xb424dc35,
    0xe12e1342, 0x8cbccc09, 0xafebff0b, 0xdbe6fece, 0x89705f41, 0xabcc7711, 0xd6bf94d5, 0x8637bd05, 0xa7c5ac47,
    0xd1b71758, 0x83126e97, 0xa3d70a3d, 0xcccccccc, 0x80000000, 0xa0000000, 0xc8000000, 0xfa000000, 0x9c400000,
    0xc3500000, 0xf4240000, 0x98968000, 0xbebc2000, 0xee6b2800, 0x9502f900, 0xba43b740, 0xe8d4a510, 0x9184e72a,
    0xb5e620f4, 0xe35fa931, 0x8e1bc9bf, 0xb1a2bc2e, 0xde0b6b3a, 0x8ac72304, 0xad78ebc5, 0xd8d726b7, 0x87867832,
    0xa968163f, 0xd3c21bce, 0x84595161, 0xa56fa5b9, 0xcecb8f27, 0x813f3978, 0xa18f07d7, 0xc9f2c9cd, 0xfc6f7c40,
    0x9dc5ada8, 0xc5371912, 0xf684df56, 0x9a130b96, 0xc097ce7b, 0xf0bdc21a, 0x96769950, 0xbc143fa4, 0xeb194f8e,
    0x92efd1b8, 0xb7abc627, 0xe596b7b0, 0x8f7e32ce, 0xb35dbf82,
};
static const uint32_t LOW[] = {
    0x4b43fcf5, 0x5e14fc32, 0x359a3b3f, 0x8300ca0e, 0x91e07e49, 0x76589ddb, 0xd3eec552, 0x44753b53, 0x95928a28,
    0xbaf72cb2, 0x74da7bef, 0x92111aeb, 0xb69561a6, 0x921d5d08, 0x36a4b44a, 0xc44de15c, 0x3ab0acda, 0x095cd810,
    0x4bb40e14, 0x6f5088cc, 0xcb24aaff, 0xbdedd5bf, 0x36b4a598, 0x8461cefd, 0xe57a42bd, 0xaf6c69b6, 0x1b478424,
    0xe219652c, 0x8d4fdf3c, 0x70a3d70b, 0xcccccccd, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000,
    0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000, 0x00000000,
    0x80000000, 0xa0000000, 0x04000000, 0xc5000000, 0x76400000, 0x89e80000, 0xac620000, 0x177a8000, 0x6eac9000,
    0x0a57b400, 0xcceda100, 0x401484a0, 0x9019a5c8, 0xf4200f3a, 0xf8940985, 0x36b90be6, 0x04674edf, 0x45812297,
    0x2b70b59e, 0x364ce306, 0xc3e01bc7, 0x3a6c115d, 0xc90715b4, 0xbb48db21, 0xb50d88f5, 0xe250eb32, 0x1ae525fe,
    0xd0cf37bf, 0x050305ae, 0xc643c71a, 0x7bea5c70, 0x1ae4f38c,
};

static const uint32_t TENS[] = {1, 10, 100, 1000, 10000, 100000, 1000000, 10000000, 100000000};

/* The nine digits of float32 numbers, zeros at their ends: the first, and twice four, one in each byte, the first in the lowest.
   A value is 0.digits x 10^point. */
typedef struct {
    uint32_t first[AT_ONCE], next[AT_ONCE], last[AT_ONCE];
    int32_t point[AT_ONCE];
} Decimals;

/* high * x / 2^32, whose last bit is also set if it is not exact. */
INLINE uint32_t rounded_to_odd(uint32_t high, uint32_t low, uint32_t x)
{
    const uint64_t product = (uint64_t)high * x + ((uint64_t)low * x >> 32);
    return (uint32_t)(product >> 32) | ((uint32_t)product > 1);
}

/* Four digits, the first in the lowest byte. */
INLINE uint32_t four_digits(uint32_t number)
{
    const uint32_t hundreds = number * 10486 >> 20, pairs = hundreds | (number - 100 * hundreds) << 16;
    const uint32_t tens = pairs * 103 >> 10 & 0xf000f;
    return tens | (pairs - 10 * tens) << 8;
}

INLINE void find_digits_any(const uint32_t *bits, Py_ssize_t n, Decimals *to)
{
    Py_ssize_t i;
#pragma omp simd
    for (i = 0; i < n; i++) {
        const uint32_t biased = bits[i] >> 23 & 255, fraction = bits[i] & 0x7fffff;
        const uint32_t c = biased ? fraction | 0x800000 : fraction;
        const int32_t q = (int32_t)(biased ? biased : 1) - 150;
        const int32_t is_lower_closer = fraction == 0 && biased > 1;
        const uint32_t is_odd = c & 1;
        /* 10^k <= the interval's width < 10^(k + 1); logarithms as fractions, exact for these numbers */
        const int32_t k = (q * 1262611 - (is_lower_closer ? 524031 : 0)) >> 22;
        const int32_t shift = q + ((-k * 1741647) >> 19) + 1;
        const uint32_t high = HIGH[-k - FIRST_POWER], low = LOW[-k - FIRST_POWER];
        const uint32_t lower = rounded_to_odd(high, low, (4 * c - 2 + is_lower_closer) << shift) + is_odd;
        const uint32_t value = rounded_to_odd(high, low, (4 * c) << shift);
        const uint32_t upper = rounded_to_odd(high, low, (4 * c + 2) << shift) - is_odd;
        const uint32_t s = value >> 2, t = s / 10;
        const uint32_t t_in = lower <= 40 * t, next_t_in = 40 * t + 40 <= upper;
        const uint32_t s_in = lower <= 4 * s, next_s_in = 4 * s + 4 <= upper;
        const uint32_t middle = 4 * s + 2;
        const uint32_t rounds_up = value > middle || (value == middle && (s & 1));
        const int is_short = s >= 10 && t_in != next_t_in;
        const uint32_t digits = is_short ? t + next_t_in : s + (s_in != next_s_in ? next_s_in : rounds_up);
        const int32_t length = 1 + (digits >= 10) + (digits >= 100) + (digits >= 1000) + (digits >= 10000)
                               + (digits >= 100000) + (digits >= 1000000) + (digits >= 10000000) + (digits >= 100000000);
        const uint32_t all = digits * TENS[DIGITS - length], all_but_last = all / 10000, first = all_but_last / 10000;
        to->first[i] = first;
        to->next[i] = four_digits(all_but_last - 10000 * first);
        to->last[i] = four_digits(all - 10000 * all_but_last);
        to->point[i] = k + is_short + length;
    }
}

FOR_BOTH(void, find_digits, (const uint32_t *bits, Py_ssize_t n, Decimals *to), (bits, n, to))

/* Bytes from the lowest on. */
INLINE void put_eight(char *to, uint64_t bytes)
{
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(to, &bytes, 8);
#else
    int i;
    for (i = 0; i < 8; i++)
        to[i] = (char)(bytes >> 8 * i);
#endif
}

INLINE int bytes_used(uint64_t bytes)
{
#ifdef __GNUC__
    return bytes ? 8 - __builtin_clzll(bytes) / 8 : 0;
#else
    int n = 0;
    for (; bytes; bytes >>= 8)
        n++;
    return n;
#endif
}

/* One number; returns what follows it. Up to SPARE characters beyond are written too. */
INLINE char *put_number(char *to, uint32_t bits, uint32_t first, uint64_t others, int point)
{
    const int n = 1 + bytes_used(others);
    if ((bits & 0x7fffffff) >= 0x7f800000) {
        memcpy(to, "null", 4);
        return to + 4;
    }
    *to = '-';
    to += bits >> 31;
    if (first == 0)
        point = 1; /* 0.0 */
    if (point > -6 && point <= 0) {
        memcpy(to, "0.000000", 8);
        to += 2 - point;
        *to = (char)('0' + first);
        put_eight(to + 1, others | 0x3030303030303030);
        return to + n;
    }
    to[0] = (char)('0' + first);
    if (point > 0 && point <= 13) {
        put_eight(to + 1, others | 0x3030303030303030);
        if (point < n) {
            memmove(to + point + 1, to + point, DIGITS);
            to[point] = '.';
            return to + n + 1;
        }
        if (point > DIGITS)
            memset(to + DIGITS, '0', point - DIGITS);
        memcpy(to + point, ".0", 2);
        return to + point + 2;
    }
    put_eight(to + 2, others | 0x3030303030303030);
    to[1] = '.';
    to += n > 1 ? n + 1 : 1;
    point -= 1;
    *to++ = 'e';
    *to++ = point < 0 ? '-' : '+';
    point = point < 0 ? -point : point;
    *to = (char)('0' + point / 10);
    to += point >= 10;
    *to = (char)('0' + point % 10);
    return to + 1;
}

static char *put_row(char *to, const uint32_t *bits, Py_ssize_t n)
{
    Decimals decimals;
    Py_ssize_t first, i;
    *to++ = '[';
    for (first = 0; first < n; first += AT_ONCE) {
        const Py_ssize_t some = n - first < AT_ONCE ? n - first : AT_ONCE;
        find_digits(bits + first, some, &decimals);
        for (i = 0; i < some; i++) {
            const uint64_t others = decimals.next[i] | (uint64_t)decimals.last[i] << 32;
            to = put_number(to, bits[first + i], decimals.first[i], others, decimals.point[i]);
            *to++ = ',';
        }
    }
    to -= n > 0;
    *to++ = ']';
    return to;
}

/* The text between `before` and `after`; returns its end. */
static char *put_text(char *to, const uint32_t *bits, int is_nested, Py_ssize_t n_rows, Py_ssize_t n,
                      const Py_buffer *before, const Py_buffer *after)
{
    Py_ssize_t row;
    memcpy(to, before->buf, before->len);
    to += before->len;
    if (is_nested)
        *to++ = '[';
    for (row = 0; row < n_rows; row++, bits += n) {
        to = put_row(to, bits, n);
        *to++ = ',';
    }
    to -= n_rows > 0;
    if (is_nested)
        *to++ = ']';
    memcpy(to, after->buf, after->len);
    return to + after->len;
}

/* The text as bytes, or NULL with an error set. It is made without the interpreter's lock. */
static PyObject *text_of(const Py_buffer *array, const Py_buffer *before, const Py_buffer *after)
{
    const int is_nested = array->ndim == 2;
    const Py_ssize_t n_rows = is_nested ? array->shape[0] : 1, n = array->shape[array->ndim - 1];
    const Py_ssize_t around = before->len + after->len + SPARE + 2;
    PyObject *text;
    char *begin = NULL, *end;
    if (n_rows == 0 || n <= (PY_SSIZE_T_MAX / 2 / n_rows - 3) / MOST_CHARACTERS) {
        const Py_ssize_t rows = n_rows ? n_rows * (3 + n * MOST_CHARACTERS) : 0;
        if (around <= PY_SSIZE_T_MAX - rows)
            begin = PyMem_Malloc(rows + around);
    }
    if (begin == NULL)
        return PyErr_NoMemory();
    Py_BEGIN_ALLOW_THREADS
    end = put_text(begin, array->buf, is_nested, n_rows, n, before, after);
    Py_END_ALLOW_THREADS
    text = PyBytes_FromStringAndSize(begin, end - begin);
    PyMem_Free(begin);
    return text;
}

static PyObject *json(PyObject *module, PyObject *arguments)
{
    PyObject *given, *text = NULL;
    Py_buffer array, before, after;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*y*:json", &given, &before, &after))
        return NULL;
    if (PyObject_GetBuffer(given, &array, PyBUF_ND | PyBUF_FORMAT) == 0) {
        if ((array.ndim != 1 && array.ndim != 2) || array.format == NULL || strcmp(array.format, "f") != 0)
            PyErr_SetString(PyExc_ValueError, "an array must be float32, [C] or [T, C]");
        else
            text = text_of(&array, &before, &after);
        PyBuffer_Release(&array);
    }
    PyBuffer_Release(&before);
    PyBuffer_Release(&after);
    return text;
}

static PyMethodDef methods[] = {
    {"json", json, METH_VARARGS,
     "json(array, before, after) -> bytes\n\n"
     "The JSON text of a contiguous float32 array, [C] or [T, C], between two texts. NaN and infinity are null.\n"
     "ValueError: another dtype or shape; BufferError: not contiguous."},
    {NULL, NULL, 0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_numbers", NULL, 0, methods, NULL, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__numbers(void)
{
    return PyModuleDef_Init(&definition);
}
