/* The most costly passes over the samples: those of the quality flags, and the z-score.

   Each function has its like in NumPy in the module that calls it, which is used if this module is not built. Sums of samples are
   taken in double, in any order, so that they may differ from NumPy's in the last digits; the z-score's bytes are the same. Only
   `screen` has no like: without it, every recording is examined as one that it finds remarkable. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "../_wide.h"

/* Rows of float32 samples; the rows may be parts of longer ones. */
typedef struct {
    Py_buffer view;
    Py_ssize_t n_rows, n_samples;
} Rows;

INLINE const float *row_of(const Rows *rows, Py_ssize_t row)
{
    return (const float *)((const char *)rows->view.buf + row * rows->view.strides[0]);
}

static int get_rows(PyObject *samples, Rows *rows)
{
    if (PyObject_GetBuffer(samples, &rows->view, PyBUF_STRIDED_RO) < 0)
        return -1;
    if (rows->view.ndim != 2 || rows->view.itemsize != sizeof(float)
        || (rows->view.shape[1] > 1 && rows->view.strides[1] != sizeof(float))) {
        PyBuffer_Release(&rows->view);
        PyErr_SetString(PyExc_ValueError, "samples must be float32 [n_leads, n_samples] with contiguous rows");
        return -1;
    }
    rows->n_rows = rows->view.shape[0];
    rows->n_samples = rows->view.shape[1];
    return 0;
}

/* The pragmas let compilers sum, and compare, in several lanes. */
INLINE void extremes_of(const float *part, Py_ssize_t n, float *lowest, float *highest)
{
    float low = part[0], high = part[0];
    Py_ssize_t i;
#pragma omp simd reduction(min : low) reduction(max : high)
    for (i = 0; i < n; i++) {
        low = part[i] < low ? part[i] : low;
        high = part[i] > high ? part[i] : high;
    }
    *lowest = low;
    *highest = high;
}

static PyObject *block_extremes(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer low, high;
    Rows rows;
    Py_ssize_t size, n_blocks, row, block;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Onw*w*:block_extremes", &samples, &size, &low, &high))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        n_blocks = size > 0 ? rows.n_samples / size : 0;
        n_blocks = n_blocks < 1 ? 1 : n_blocks;
        if (size < 1 || rows.n_samples < 1 || low.len != high.len
            || low.len / (Py_ssize_t)sizeof(float) != rows.n_rows * n_blocks) {
            PyErr_SetString(PyExc_ValueError, "extremes must be float32 [n_leads, n_blocks]");
        } else {
            for (row = 0; row < rows.n_rows; row++)
                for (block = 0; block < n_blocks; block++) {
                    const Py_ssize_t first = block * size, at = row * n_blocks + block;
                    const Py_ssize_t n = block + 1 < n_blocks ? size : rows.n_samples - first;
                    extremes_of(row_of(&rows, row) + first, n, (float *)low.buf + at, (float *)high.buf + at);
                }
        }
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&low);
    PyBuffer_Release(&high);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* Whether `least` samples that follow each other have a value. */
INLINE int has_run(const float *row, Py_ssize_t n, float value, Py_ssize_t least)
{
    Py_ssize_t end = least - 1;
    while (end < n) {  /* look at every `least`-th sample alone, and around it if it has the value */
        Py_ssize_t first = end, last = end;
        if (row[end] != value) {
            end += least;
            continue;
        }
        while (first > 0 && end - first < least && row[first - 1] == value)
            first--;
        while (last + 1 < n && last - first + 1 < least && row[last + 1] == value)
            last++;
        if (last - first + 1 >= least)
            return 1;
        end = last + least;
    }
    return 0;
}

static PyObject *runs_at(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer values, out;
    Rows rows;
    Py_ssize_t least, row;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*nw*:runs_at", &samples, &values, &least, &out))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        if (least < 1 || values.len / (Py_ssize_t)sizeof(float) != rows.n_rows || out.len != rows.n_rows)
            PyErr_SetString(PyExc_ValueError, "a value and a result for each lead are needed");
        else
            for (row = 0; row < rows.n_rows; row++)
                ((unsigned char *)out.buf)[row] = (unsigned char)has_run(
                    row_of(&rows, row), rows.n_samples, ((const float *)values.buf)[row], least);
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&values);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

typedef struct {
    float lowest, highest, ripple;
    Py_ssize_t lag, shortest;
} Pulse;

INLINE int may_start(const float *row, Py_ssize_t at, const Pulse *pulse)
{
    const float value = row[at], step = value - row[at - pulse->lag];
    return step > pulse->lowest && step < pulse->highest && fabsf(row[at + pulse->shortest / 2] - value) < pulse->ripple
        && fabsf(row[at + pulse->shortest - 1] - value) < pulse->ripple;
}

static PyObject *plateau_starts(PyObject *module, PyObject *arguments)
{
    PyObject *samples, *found = NULL;
    Py_buffer chosen;
    Rows rows;
    Pulse pulse;
    Py_ssize_t at, i, n_chosen;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*nnfff:plateau_starts", &samples, &chosen, &pulse.lag, &pulse.shortest,
                          &pulse.lowest, &pulse.highest, &pulse.ripple))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        const long long *row = chosen.buf;
        int is_sound = pulse.lag >= 1 && pulse.shortest >= 1;
        n_chosen = chosen.len / (Py_ssize_t)sizeof(long long);
        for (i = 0; i < n_chosen; i++)
            is_sound &= row[i] >= 0 && row[i] < rows.n_rows;
        if (!is_sound || n_chosen < 1)
            PyErr_SetString(PyExc_ValueError, "rows of the samples, a lag and a length of at least one sample are needed");
        else
            found = PyList_New(0);
        for (at = pulse.lag; found != NULL && at < rows.n_samples - pulse.shortest; at++) {
            for (i = 0; i < n_chosen && may_start(row_of(&rows, row[i]), at, &pulse); i++)
                ;
            if (i == n_chosen) {
                PyObject *number = PyLong_FromSsize_t(at);
                if (number == NULL || PyList_Append(found, number) < 0)
                    Py_CLEAR(found);
                Py_XDECREF(number);
            }
        }
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&chosen);
    return found;
}

/* Samples from `at` on, at most `most`, in which all of some rows stay near their values there. */
static PyObject *plateau_length(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer chosen;
    Rows rows;
    float ripple;
    Py_ssize_t at, most, i, n, n_chosen, length = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Oy*nnf:plateau_length", &samples, &chosen, &at, &most, &ripple))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        const long long *row = chosen.buf;
        int is_sound = at >= 0 && at < rows.n_samples && most >= 0;
        n_chosen = chosen.len / (Py_ssize_t)sizeof(long long);
        for (i = 0; i < n_chosen; i++)
            is_sound &= row[i] >= 0 && row[i] < rows.n_rows;
        if (!is_sound || n_chosen < 1) {
            PyErr_SetString(PyExc_ValueError, "rows of the samples, and one of their samples are needed");
        } else {
            length = rows.n_samples - at < most ? rows.n_samples - at : most;
            for (i = 0; i < n_chosen; i++) {
                const float *x = row_of(&rows, row[i]) + at;
                for (n = 0; n < length && fabsf(x[n] - x[0]) < ripple; n++)
                    ;
                length = n;
            }
        }
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&chosen);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(length);
}

/* Samples at one end in which all rows are zero, or have the values that they have at that end. */
static PyObject *still_samples(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Rows rows;
    int at_end, of_zero;
    Py_ssize_t row, n, length;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Opp:still_samples", &samples, &at_end, &of_zero))
        return NULL;
    if (get_rows(samples, &rows) < 0)
        return NULL;
    length = rows.n_samples;
    for (row = 0; row < rows.n_rows && length > 0; row++) {
        const Py_ssize_t step = at_end ? -1 : 1;
        const float *x = row_of(&rows, row) + (at_end ? rows.n_samples - 1 : 0), value = of_zero ? 0.0f : *x;
        for (n = 0; n < length && x[n * step] == value; n++)
            ;
        length = n;
    }
    PyBuffer_Release(&rows.view);
    return PyLong_FromSsize_t(length);
}

/* Whether no exponent has all its bits set, as those of infinities and NaNs have. */
INLINE int are_finite_any(const Rows *rows)
{
    Py_ssize_t row, i;
    uint32_t other = 0;
    for (row = 0; row < rows->n_rows && !other; row++) {
        const float *x = row_of(rows, row);
        for (i = 0; i < rows->n_samples; i++) {
            uint32_t bits;
            memcpy(&bits, x + i, sizeof(bits));
            other |= (uint32_t)((bits & 0x7f800000u) == 0x7f800000u);
        }
    }
    return !other;
}

FOR_BOTH(int, are_finite, (const Rows *rows), (rows))

static PyObject *all_finite(PyObject *module, PyObject *samples)
{
    Rows rows;
    int is_finite;
    (void)module;
    if (get_rows(samples, &rows) < 0)
        return NULL;
    is_finite = are_finite(&rows);
    PyBuffer_Release(&rows.view);
    return PyBool_FromLong((long)is_finite);
}

/* Mean and variance of every `every`-th sample, in four sums: samples that are apart cannot be loaded at once. */
INLINE void moments_of(const float *x, Py_ssize_t n, Py_ssize_t every, double *mean, double *variance)
{
    const Py_ssize_t count = (n + every - 1) / every;
    double sum[4] = {0.0}, squared[4] = {0.0}, middle;
    Py_ssize_t i;
    int k;
    for (i = 0; i + 4 <= count; i += 4)
        for (k = 0; k < 4; k++)
            sum[k] += x[(i + k) * every];
    for (; i < count; i++)
        sum[0] += x[i * every];
    middle = ((sum[0] + sum[1]) + (sum[2] + sum[3])) / (double)count;
    for (i = 0; i + 4 <= count; i += 4)
        for (k = 0; k < 4; k++) {
            const double off = x[(i + k) * every] - middle;
            squared[k] += off * off;
        }
    for (; i < count; i++)
        squared[0] += (x[i * every] - middle) * (x[i * every] - middle);
    *mean = middle;
    *variance = ((squared[0] + squared[1]) + (squared[2] + squared[3])) / (double)count;
}

static PyObject *row_moments(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer mean, variance;
    Rows rows;
    Py_ssize_t every, row;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Onw*w*:row_moments", &samples, &every, &mean, &variance))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        if (every < 1 || rows.n_samples < 1 || mean.len != variance.len
            || mean.len / (Py_ssize_t)sizeof(double) != rows.n_rows)
            PyErr_SetString(PyExc_ValueError, "means and variances must be float64 [n_leads]");
        else
            for (row = 0; row < rows.n_rows; row++)
                moments_of(row_of(&rows, row), rows.n_samples, every, (double *)mean.buf + row, (double *)variance.buf + row);
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&mean);
    PyBuffer_Release(&variance);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static PyObject *block_moments(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer mean, variance;
    Rows rows;
    Py_ssize_t every, size, n_blocks, row, block;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "Onnw*w*:block_moments", &samples, &every, &size, &mean, &variance))
        return NULL;
    if (get_rows(samples, &rows) == 0) {
        n_blocks = rows.n_rows > 0 ? mean.len / (Py_ssize_t)sizeof(double) / rows.n_rows : 0;
        if (every < 1 || size < 1 || n_blocks < 1 || mean.len != variance.len
            || mean.len / (Py_ssize_t)sizeof(double) != rows.n_rows * n_blocks
            || size > PY_SSIZE_T_MAX / n_blocks / every || (n_blocks * size - 1) * every >= rows.n_samples) {
            PyErr_SetString(PyExc_ValueError, "means and variances must be float64 [n_leads, n_blocks] of whole blocks");
        } else {
            for (row = 0; row < rows.n_rows; row++)
                for (block = 0; block < n_blocks; block++) {
                    const Py_ssize_t at = row * n_blocks + block;
                    moments_of(row_of(&rows, row) + block * size * every, (size - 1) * every + 1, every,
                               (double *)mean.buf + at, (double *)variance.buf + at);
                }
        }
        PyBuffer_Release(&rows.view);
    }
    PyBuffer_Release(&mean);
    PyBuffer_Release(&variance);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

static int ascending(const void *one, const void *other)
{
    const float a = *(const float *)one, b = *(const float *)other;
    return (a > b) - (a < b);
}

/* The slopes' mean, and the median over blocks of the steepest; `steepest` has space for the blocks. */
INLINE void slopes_of(const float *x, Py_ssize_t n, Py_ssize_t lag, Py_ssize_t size, float *steepest, double *mean,
                      double *usual)
{
    const Py_ssize_t n_blocks = n / size < 1 ? 1 : n / size;
    double sum = 0.0;
    Py_ssize_t block, i;
    for (block = 0; block < n_blocks; block++) {
        const Py_ssize_t first = block * size, stop = block + 1 < n_blocks ? first + size : n;
        float high = 0.0f;
        double part = 0.0;
#pragma omp simd reduction(max : high) reduction(+ : part)
        for (i = first; i < stop; i++) {
            const float step = fabsf(x[i + lag] - x[i]);
            high = step > high ? step : high;
            part += step;
        }
        sum += part;
        steepest[block] = high;
    }
    qsort(steepest, (size_t)n_blocks, sizeof(float), ascending);
    *mean = sum / (double)n;
    *usual = ((double)steepest[(n_blocks - 1) / 2] + (double)steepest[n_blocks / 2]) / 2;
}

static PyObject *slopes(PyObject *module, PyObject *arguments)
{
    Py_buffer lead;
    Py_ssize_t lag, size, n;
    double mean = 0.0, usual = 0.0;
    float *steepest = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn:slopes", &lead, &lag, &size))
        return NULL;
    n = lead.len / (Py_ssize_t)sizeof(float) - lag;
    if (lead.itemsize != sizeof(float) || lag < 1 || size < 1 || n < 1)
        PyErr_SetString(PyExc_ValueError, "a lead must be float32 and longer than the lag");
    else if ((steepest = PyMem_Malloc((size_t)(n / size < 1 ? 1 : n / size) * sizeof(float))) == NULL)
        PyErr_NoMemory();
    else
        slopes_of(lead.buf, n, lag, size, steepest, &mean, &usual);
    PyMem_Free(steepest);
    PyBuffer_Release(&lead);
    if (PyErr_Occurred())
        return NULL;
    return Py_BuildValue("(dd)", mean, usual);
}

/* Root mean square of what a lead differs from a combination of two others. */
INLINE double rms_off(const float *one, float of_one, const float *other, float of_other, const float *lead, Py_ssize_t n)
{
    double total = 0.0;
    Py_ssize_t i;
#pragma omp simd reduction(+ : total)
    for (i = 0; i < n; i++) {
        const double off = (of_one * one[i] + of_other * other[i]) - lead[i];
        total += off * off;
    }
    return sqrt(total / (double)n);
}

static PyObject *combination_rms(PyObject *module, PyObject *arguments)
{
    Py_buffer one, other, lead;
    float of_one, of_other;
    double off = 0.0;
    Py_ssize_t n;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*fy*fy*:combination_rms", &one, &of_one, &other, &of_other, &lead))
        return NULL;
    n = lead.len / (Py_ssize_t)sizeof(float);
    if (one.itemsize != sizeof(float) || other.itemsize != sizeof(float) || lead.itemsize != sizeof(float)
        || one.len != lead.len || other.len != lead.len || n < 1)
        PyErr_SetString(PyExc_ValueError, "leads must be float32 of the same length");
    else
        off = rms_off(one.buf, of_one, other.buf, of_other, lead.buf, n);
    PyBuffer_Release(&one);
    PyBuffer_Release(&other);
    PyBuffer_Release(&lead);
    if (PyErr_Occurred())
        return NULL;
    return PyFloat_FromDouble(off);
}

/* --- z-score ----------------------------------------------------------------------------------------------------------

   Sums are taken in the order of NumPy: pairwise down to parts of 128, and of float32 in chunks of 8,192, which it converts to
   double one after the other. */

#define CHUNK 8192

#define PAIRWISE(name, type, what)                                                                         \
    INLINE double name##_part(const type *x, Py_ssize_t n, double mean)                                    \
    {                                                                                                      \
        double sum[8], total = 0.0;                                                                        \
        Py_ssize_t i;                                                                                      \
        int k;                                                                                             \
        (void)mean;                                                                                        \
        if (n < 8) {                                                                                       \
            for (i = 0; i < n; i++)                                                                        \
                total += what(x[i]);                                                                       \
            return total;                                                                                  \
        }                                                                                                  \
        for (k = 0; k < 8; k++)                                                                            \
            sum[k] = what(x[k]);                                                                           \
        for (i = 8; i < n - n % 8; i += 8)                                                                 \
            for (k = 0; k < 8; k++)                                                                        \
                sum[k] += what(x[i + k]);                                                                  \
        total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));         \
        for (; i < n; i++)                                                                                 \
            total += what(x[i]);                                                                           \
        return total;                                                                                      \
    }                                                                                                      \
    static double name##_narrow(const type *x, Py_ssize_t n, double mean)                                  \
    {                                                                                                      \
        const Py_ssize_t half = n / 2 - n / 2 % 8;                                                         \
        if (n <= 128)                                                                                      \
            return name##_part(x, n, mean);                                                                \
        return name##_narrow(x, half, mean) + name##_narrow(x + half, n - half, mean);                     \
    }                                                                                                      \
    WIDE static double name##_wide(const type *x, Py_ssize_t n, double mean)                               \
    {                                                                                                      \
        const Py_ssize_t half = n / 2 - n / 2 % 8;                                                         \
        if (n <= 128)                                                                                      \
            return name##_part(x, n, mean);                                                                \
        return name##_wide(x, half, mean) + name##_wide(x + half, n - half, mean);                         \
    }                                                                                                      \
    static double name(const type *x, Py_ssize_t n, double mean)                                           \
    {                                                                                                      \
        return IS_WIDE ? name##_wide(x, n, mean) : name##_narrow(x, n, mean);                              \
    }

#define ITSELF(value) ((double)(value))
#define SQUARED(value) (((value)-mean) * ((value)-mean))

PAIRWISE(sum_of, float, ITSELF)
PAIRWISE(sum_of_doubles, double, ITSELF)
PAIRWISE(squares, float, SQUARED)
PAIRWISE(squares_of_doubles, double, SQUARED)

#define AT_ONCE 64

/* Quotients, by products with the reciprocal. A product differs from the quotient by at most two of its last bits, so that both are
   rounded to the same float unless the product is that near to the middle between two; then, and where floats are not normal
   numbers, 1 is returned for the numbers to be divided again. */
#define QUOTIENTS(name, type)                                                                               \
    INLINE int name##_at_once(const type *x, Py_ssize_t n, double mean, double reciprocal, float *z)        \
    {                                                                                                       \
        uint64_t near = 0;                                                                                  \
        uint32_t unusual = 0;                                                                               \
        Py_ssize_t i;                                                                                       \
        for (i = 0; i < n; i++) {                                                                           \
            const double quotient = (x[i] - mean) * reciprocal;                                             \
            uint64_t bits;                                                                                  \
            memcpy(&bits, &quotient, sizeof(bits));                                                         \
            near |= (uint64_t)(((bits - 0x0ffffff8u) & 0x1ffffff0u) == 0);                                  \
            z[i] = (float)quotient;                                                                         \
        }                                                                                                   \
        for (i = 0; i < n; i++)                                                                             \
            unusual |= (uint32_t)!(fabsf(z[i]) > 1e-30f) | (uint32_t)!(fabsf(z[i]) < 1e30f);                \
        return near != 0 || unusual != 0;                                                                   \
    }                                                                                                       \
    INLINE int name##_any(const type *x, Py_ssize_t n, double mean, double scale, float *z)                 \
    {                                                                                                       \
        const double reciprocal = 1.0 / scale;                                                              \
        Py_ssize_t first, i;                                                                                \
        for (first = 0; first < n; first += AT_ONCE) {                                                      \
            const Py_ssize_t end = n - first < AT_ONCE ? n : first + AT_ONCE;                               \
            const int is_doubtful = end - first == AT_ONCE                                                  \
                                        ? name##_at_once(x + first, AT_ONCE, mean, reciprocal, z + first)   \
                                        : 1;                                                                \
            for (i = first; i < end && is_doubtful; i++)                                                    \
                z[i] = (float)((x[i] - mean) / scale);                                                      \
        }                                                                                                   \
        return 0;                                                                                           \
    }                                                                                                       \
    FOR_BOTH(int, name, (const type *x, Py_ssize_t n, double mean, double scale, float *z), (x, n, mean, scale, z))

QUOTIENTS(divide, float)
QUOTIENTS(divide_doubles, double)

static PyObject *mean_of(PyObject *module, PyObject *samples)
{
    Py_buffer view;
    double mean = 0.0;
    Py_ssize_t n, first;
    (void)module;
    if (PyObject_GetBuffer(samples, &view, PyBUF_C_CONTIGUOUS) < 0)
        return NULL;
    n = view.itemsize > 0 ? view.len / view.itemsize : 0;
    if (n > 0 && view.itemsize == sizeof(float)) {
        for (first = 0; first < n; first += CHUNK)
            mean += sum_of((const float *)view.buf + first, n - first < CHUNK ? n - first : CHUNK, 0.0);
    } else if (n > 0 && view.itemsize == sizeof(double)) {
        mean += sum_of_doubles(view.buf, n, 0.0); /* as in NumPy, no sum is -0 */
    } else {
        PyErr_SetString(PyExc_ValueError, "samples must be float32 or float64");
    }
    PyBuffer_Release(&view);
    if (PyErr_Occurred())
        return NULL;
    return PyFloat_FromDouble(mean / (double)n);
}

static PyObject *zscore(PyObject *module, PyObject *arguments)
{
    Py_buffer samples, out;
    double mean, epsilon;
    Py_ssize_t n;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ddw*:zscore", &samples, &mean, &epsilon, &out))
        return NULL;
    n = samples.itemsize > 0 ? samples.len / samples.itemsize : 0;
    if (n < 1 || out.itemsize != sizeof(float) || out.len / (Py_ssize_t)sizeof(float) != n)
        PyErr_SetString(PyExc_ValueError, "samples and a float32 result of the same size are needed");
    else if (samples.itemsize == sizeof(float))
        divide(samples.buf, n, mean, sqrt(squares(samples.buf, n, mean) / (double)n) + epsilon, out.buf);
    else if (samples.itemsize == sizeof(double))
        divide_doubles(samples.buf, n, mean, sqrt(squares_of_doubles(samples.buf, n, mean) / (double)n) + epsilon, out.buf);
    else
        PyErr_SetString(PyExc_ValueError, "samples must be float32 or float64");
    PyBuffer_Release(&samples);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* --- screening --------------------------------------------------------------------------------------------------------- */

/* The rows of leads that flags know by name; -1 where there is none. */
enum { LEAD_I, LEAD_II, LEAD_III, LEAD_AVR, LEAD_AVL, LEAD_AVF, LEAD_V6, N_NAMED };

/* Numbers of samples. */
enum {
    SHORTEST, BLOCK, STILL_BLOCK, STILL_BLOCKS, CLIPPED_RUN, PULSE_LAG, PULSE_SHORTEST, SLOPE_LAG, ROUGH_EVERY, FINE_EVERY,
    FINE_BLOCK, SMOOTHING, N_LENGTHS
};

/* Thresholds of the flags. */
enum {
    LOWEST_AMPLITUDE, HIGHEST_AMPLITUDE, FLAT, FLAT_SHARE, STILL, DEAD_MOVES, LEAST_SLOPE, PEAKED, PULSE_LOWEST,
    PULSE_HIGHEST, PULSE_RIPPLE, CLIPPED_DROP, DEVIATION, NO_POTENTIAL, SOME_POTENTIAL, DOMINANCE, OPPOSITE, USUAL_SPREAD,
    BASELINE_SHARE, N_LIMITS
};

/* How much further than a threshold a recording must be from a flag, because sums are rounded otherwise elsewhere. */
#define MARGIN 0.001

typedef struct {
    Rows rows;
    const long long *present, *stored, *pulsed; /* rows: of all leads, of those that are not derived, of those with a pulse */
    Py_ssize_t n_pulsed;
    const long long *lengths;
    const double *limits;
    int of_baseline, per_lead; /* whether the baseline is looked at, and in each lead by itself */
    Py_ssize_t n_blocks;
    float *low, *high, *sorted; /* extremes by block [n_leads, n_blocks], and space for one lead's */
    unsigned char *still;       /* space for a lead's blocks of STILL_BLOCK samples */
    Py_ssize_t n_fine, n_used;  /* all of them, and those that begin and end within the samples */
    double *means, *summed;     /* space for a lead's blocks of FINE_BLOCK samples, and three times as much */
} Screen;

static const double of_i_and_ii[][2] = {{-1.0, 1.0}, {-0.5, -0.5}, {1.0, -0.5}, {-0.5, 1.0}}; /* III, aVR, aVL, aVF */

INLINE int begins_and_ends(const Rows *rows)
{
    int begins = 0, ends = 0;
    Py_ssize_t row;
    for (row = 0; row < rows->n_rows; row++) {
        begins |= row_of(rows, row)[0] != 0.0f;
        ends |= row_of(rows, row)[rows->n_samples - 1] != 0.0f;
    }
    return begins && ends;
}

INLINE int may_have_pulse(const Screen *s)
{
    Pulse pulse;
    Py_ssize_t at, i;
    pulse.lag = s->lengths[PULSE_LAG];
    pulse.shortest = s->lengths[PULSE_SHORTEST];
    pulse.lowest = (float)s->limits[PULSE_LOWEST];
    pulse.highest = (float)s->limits[PULSE_HIGHEST];
    pulse.ripple = (float)s->limits[PULSE_RIPPLE];
    for (at = pulse.lag; at < s->rows.n_samples - pulse.shortest; at++) {
        for (i = 0; i < s->n_pulsed && may_start(row_of(&s->rows, s->pulsed[i]), at, &pulse); i++)
            ;
        if (i == s->n_pulsed)
            return 1;
    }
    return 0;
}

/* Whether no second passes without a lead that moves. */
INLINE int keeps_moving(const Screen *s)
{
    const Py_ssize_t size = s->lengths[STILL_BLOCK], count = s->rows.n_samples / size, fewest = s->lengths[STILL_BLOCKS];
    Py_ssize_t row, block, n_still = count;
    memset(s->still, 1, (size_t)count);
    for (row = 0; row < s->rows.n_rows && n_still >= fewest; row++)
        for (block = 0; block < count; block++) {
            float low, high;
            if (!s->still[block])
                continue;
            extremes_of(row_of(&s->rows, row) + block * size,
                        block + 1 < count ? size : s->rows.n_samples - block * size, &low, &high);
            if (high - low > s->limits[STILL] * (1 + MARGIN)) {
                s->still[block] = 0;
                n_still--;
            }
        }
    return n_still < fewest;
}

/* The median over blocks: of an even number the higher one of the two in the middle. */
INLINE float median_of(const Screen *s, const float *values)
{
    memcpy(s->sorted, values, (size_t)s->n_blocks * sizeof(float));
    qsort(s->sorted, (size_t)s->n_blocks, sizeof(float), ascending);
    return s->sorted[s->n_blocks / 2];
}

/* Whether a lead is cut off at one of its extremes: it stays there, and is much nearer to zero a little before and after. */
INLINE int is_cut_off(const Screen *s, const float *x, const float *extremes, float value)
{
    const Py_ssize_t n = s->rows.n_samples, least = s->lengths[CLIPPED_RUN], size = s->lengths[BLOCK];
    const double drop = s->limits[CLIPPED_DROP] * (1 - MARGIN);
    Py_ssize_t at = least - 1, block;
    for (block = 0; block < s->n_blocks; block++) {
        const Py_ssize_t end = block + 1 < s->n_blocks ? (block + 1) * size : n;
        if (extremes[block] != value && at < end)
            at += (end - at + least - 1) / least * least;
        for (; at < end; at += least) { /* look at every `least`-th sample alone, and around it if it has the value */
            Py_ssize_t first = at, last = at, reach, d;
            double before = 0.0, after = 0.0;
            if (x[at] != value)
                continue;
            while (first > 0 && x[first - 1] == value)
                first--;
            while (last + 1 < n && x[last + 1] == value)
                last++;
            at += (last - at) / least * least;
            if (last - first + 1 < least)
                continue;
            reach = (last - first + 2) / 2;
            if (first < reach || last + reach >= n)
                return 1; /* at an end of the recording: examined elsewhere */
            for (d = 1; d <= reach; d++) { /* any part of the run is no steeper than that */
                before = fmax(before, fabs((double)x[first - d] - value));
                after = fmax(after, fabs((double)x[last + d] - value));
            }
            if (fmin(before, after) >= drop)
                return 1;
        }
    }
    return 0;
}

/* Whether a lead moves like an ECG: not flat, not dead, and not clipped. */
INLINE int moves_usually(const Screen *s, Py_ssize_t row)
{
    const float *x = row_of(&s->rows, row);
    const float *low = s->low + row * s->n_blocks, *high = s->high + row * s->n_blocks;
    float lowest = low[0], highest = high[0];
    Py_ssize_t block, n_flat = 0, n_small = 0, lag = s->lengths[SLOPE_LAG];
    for (block = 0; block < s->n_blocks; block++) {
        const double move = high[block] - low[block];
        lowest = low[block] < lowest ? low[block] : lowest;
        highest = high[block] > highest ? high[block] : highest;
        n_flat += move < s->limits[FLAT] * (1 + MARGIN);
        n_small += move < s->limits[DEAD_MOVES] * (1 + MARGIN);
    }
    if ((double)n_flat >= s->limits[FLAT_SHARE] * (double)s->n_blocks * (1 - MARGIN))
        return 0;
    if (2 * n_small >= s->n_blocks) {
        double mean, usual;
        if (lag >= s->rows.n_samples)
            return 0;
        slopes_of(x, s->rows.n_samples - lag, lag, s->lengths[BLOCK], s->sorted, &mean, &usual);
        if (mean <= s->limits[LEAST_SLOPE] * (1 + MARGIN) || usual <= s->limits[PEAKED] * mean * (1 + MARGIN))
            return 0;
    }
    return !is_cut_off(s, x, low, lowest) && !is_cut_off(s, x, high, highest);
}

/* Whether limb leads agree with each other as far as they are stored. */
INLINE int limb_leads_agree(const Screen *s)
{
    const long long i = s->present[LEAD_I], ii = s->present[LEAD_II];
    int lead;
    if (i < 0 || ii < 0)
        return 1;
    for (lead = LEAD_III; lead <= LEAD_AVF; lead++) {
        const long long row = s->stored[lead];
        const double *of = of_i_and_ii[lead - LEAD_III];
        if (row < 0 || (lead == LEAD_III && (s->stored[LEAD_I] < 0 || s->stored[LEAD_II] < 0)))
            continue;
        if (!(rms_off(row_of(&s->rows, i), (float)of[0], row_of(&s->rows, ii), (float)of[1], row_of(&s->rows, row),
                      s->rows.n_samples) < s->limits[DEVIATION] * (1 - MARGIN)))
            return 0;
    }
    return 1;
}

INLINE void deflections(const Screen *s, int lead, double *up, double *down)
{
    const long long row = s->present[lead];
    double mean, variance;
    moments_of(row_of(&s->rows, row), s->rows.n_samples, 4, &mean, &variance);
    *up = median_of(s, s->high + row * s->n_blocks) - mean;
    *down = mean - median_of(s, s->low + row * s->n_blocks);
}

/* Pearson correlation of two leads' slopes. */
INLINE double correlation(const Screen *s, int one, int other)
{
    const Py_ssize_t lag = s->lengths[SLOPE_LAG], n = s->rows.n_samples - lag;
    const float *x = row_of(&s->rows, s->present[one]), *y = row_of(&s->rows, s->present[other]);
    double sum_x = 0.0, sum_y = 0.0, xx = 0.0, yy = 0.0, xy = 0.0, of_x, of_y;
    Py_ssize_t i;
    if (n <= 1)
        return 0.0;
#pragma omp simd reduction(+ : sum_x, sum_y, xx, yy, xy)
    for (i = 0; i < n; i++) {
        const double a = (double)x[i + lag] - x[i], b = (double)y[i + lag] - y[i];
        sum_x += a;
        sum_y += b;
        xx += a * a;
        yy += b * b;
        xy += a * b;
    }
    of_x = xx - sum_x * sum_x / (double)n;
    of_y = yy - sum_y * sum_y / (double)n;
    return of_x > 0 && of_y > 0 ? (xy - sum_x * sum_y / (double)n) / sqrt(of_x * of_y) : 0.0;
}

/* Whether no limb electrodes can have been exchanged. */
INLINE int electrodes_in_place(const Screen *s)
{
    double up[N_NAMED], down[N_NAMED];
    int lead;
    if (s->present[LEAD_I] < 0 || s->present[LEAD_II] < 0)
        return 1;
    for (lead = 0; lead < N_NAMED; lead++)
        if (s->present[lead] >= 0 && (lead <= LEAD_AVR || lead == LEAD_V6))
            deflections(s, lead, up + lead, down + lead);
    if (up[LEAD_I] + down[LEAD_I] >= s->limits[SOME_POTENTIAL] * (1 - MARGIN))
        for (lead = LEAD_II; lead <= LEAD_III; lead++)
            if (s->present[lead] >= 0 && up[lead] + down[lead] < s->limits[NO_POTENTIAL] * (1 + MARGIN))
                return 0;
    if (s->present[LEAD_V6] < 0 || (down[LEAD_V6] > 0 && up[LEAD_V6] < down[LEAD_V6] * (1 - MARGIN)))
        return 1;
    for (lead = LEAD_I; lead <= LEAD_II; lead++) {
        if (up[lead] > 0 && down[lead] < s->limits[DOMINANCE] * (1 - MARGIN) * up[lead])
            continue;
        if (lead == LEAD_II
            && (s->present[LEAD_AVR] < 0 || (down[LEAD_AVR] > 0 && up[LEAD_AVR] < down[LEAD_AVR] * (1 - MARGIN))))
            continue;
        if (correlation(s, lead, LEAD_V6) < s->limits[OPPOSITE] + MARGIN)
            return 0;
    }
    return 1;
}

/* A moving average over an odd number of values, at whose ends they are continued by point reflection. */
INLINE void smoothed(double *x, Py_ssize_t n, Py_ssize_t width, double *summed)
{
    const Py_ssize_t half = width / 2;
    double sum = 0.0;
    Py_ssize_t i;
    for (i = 0; i < n + 2 * half; i++) {
        const Py_ssize_t at = i - half;
        summed[i] = sum;
        sum += at < 0 ? 2 * x[0] - x[-at] : at < n ? x[at] : 2 * x[n - 1] - x[2 * (n - 1) - at];
    }
    summed[i] = sum;
    for (i = 0; i < n; i++)
        x[i] = (summed[i + width] - summed[i]) / (double)width;
}

/* Sums over a lead's blocks: of variances within, of means, of their squares, and of the squares of what is no baseline. */
typedef struct {
    double within, means, squares, beats;
} Blocks;

INLINE Blocks blocks_of(const Screen *s, Py_ssize_t row)
{
    const Py_ssize_t every = s->lengths[FINE_EVERY], n = (s->rows.n_samples + every - 1) / every, n_blocks = s->n_fine;
    const Py_ssize_t size = s->lengths[FINE_BLOCK] < n ? s->lengths[FINE_BLOCK] : n;
    Py_ssize_t width = s->lengths[SMOOTHING] | 1, block;
    double *kept = s->summed + n_blocks + 2 * (n_blocks / 2) + 2;
    Blocks found = {0.0, 0.0, 0.0, 0.0};
    width = width < n_blocks ? width : n_blocks - (1 - n_blocks % 2);
    for (block = 0; block < n_blocks; block++) {
        double variance;
        moments_of(row_of(&s->rows, row) + block * size * every, (size - 1) * every + 1, every, s->means + block, &variance);
        kept[block] = s->means[block];
        if (block >= s->n_used)
            continue;
        found.within += variance;
        found.means += kept[block];
        found.squares += kept[block] * kept[block];
    }
    smoothed(s->means, n_blocks, width, s->summed);
    smoothed(s->means, n_blocks, width, s->summed);
    for (block = 0; block < s->n_used; block++)
        found.beats += (kept[block] - s->means[block]) * (kept[block] - s->means[block]);
    return found;
}

/* Whether what is left of some leads without their baseline is most of them: the share of the standard deviation. */
INLINE int beats_dominate(const Screen *s, const Blocks *blocks, Py_ssize_t n)
{
    const double mean = blocks->means / (double)n, total = (blocks->within + blocks->squares) / (double)n - mean * mean;
    const double share = s->limits[BASELINE_SHARE] * (1 + MARGIN);
    if (total < 1e-9 * (blocks->within + blocks->squares) / (double)n)
        return 0; /* hardly more than rounding errors: a lead that does not move, or a huge offset */
    return (blocks->within + blocks->beats) / (double)n > share * share * total;
}

INLINE int baseline_is_minor(const Screen *s)
{
    Blocks all = {0.0, 0.0, 0.0, 0.0};
    Py_ssize_t row;
    for (row = 0; row < s->rows.n_rows; row++) {
        const Blocks own = blocks_of(s, row);
        if (s->per_lead && !beats_dominate(s, &own, s->n_used))
            return 0;
        all.within += own.within;
        all.means += own.means;
        all.squares += own.squares;
        all.beats += own.beats;
    }
    return s->per_lead || beats_dominate(s, &all, s->rows.n_rows * s->n_used);
}

/* Whether the standard deviation is usual for the amplitude within blocks. */
INLINE int spread_is_usual(const Screen *s)
{
    const Py_ssize_t n_rows = s->rows.n_rows;
    const double spread = s->limits[USUAL_SPREAD] * (1 - MARGIN);
    double of_rows = 0.0, first = 0.0, sum = 0.0, squared = 0.0, all_moves = 0.0;
    Py_ssize_t row, block;
    for (row = 0; row < n_rows; row++) {
        double mean, variance, moves = 0.0;
        moments_of(row_of(&s->rows, row), s->rows.n_samples, s->lengths[ROUGH_EVERY], &mean, &variance);
        for (block = 0; block < s->n_blocks; block++)
            moves += s->high[row * s->n_blocks + block] - s->low[row * s->n_blocks + block];
        moves /= (double)s->n_blocks;
        if (s->per_lead && !(variance < spread * moves * spread * moves))
            return 0;
        of_rows += variance;
        first = row == 0 ? mean : first;
        sum += mean - first;
        squared += (mean - first) * (mean - first);
        all_moves += moves;
    }
    sum /= (double)n_rows;
    all_moves *= spread / (double)n_rows;
    return s->per_lead || of_rows / (double)n_rows + (squared / (double)n_rows - sum * sum) < all_moves * all_moves;
}

#define IS_UNREMARKABLE 1
#define HAS_SMALL_BASELINE 2

INLINE int screened_any(const Screen *s)
{
    const Py_ssize_t size = s->lengths[BLOCK], n_all = s->rows.n_rows * s->n_blocks;
    Py_ssize_t row, block;
    double most = 0.0;
    int is_usual = s->rows.n_samples >= s->lengths[SHORTEST] && begins_and_ends(&s->rows) && !may_have_pulse(s);
    for (row = 0; row < s->rows.n_rows; row++)
        for (block = 0; block < s->n_blocks; block++)
            extremes_of(row_of(&s->rows, row) + block * size,
                        block + 1 < s->n_blocks ? size : s->rows.n_samples - block * size,
                        s->low + row * s->n_blocks + block, s->high + row * s->n_blocks + block);
    for (block = 0; block < n_all; block++) {
        const double move = s->high[block] - s->low[block];
        most = move > most ? move : most;
    }
    is_usual = is_usual && most > s->limits[LOWEST_AMPLITUDE] * (1 + MARGIN) && most < s->limits[HIGHEST_AMPLITUDE] * (1 - MARGIN);
    for (row = 0; row < s->rows.n_rows && is_usual; row++)
        is_usual = moves_usually(s, row);
    is_usual = is_usual && keeps_moving(s) && limb_leads_agree(s) && electrodes_in_place(s);
    if (!s->of_baseline)
        return is_usual ? IS_UNREMARKABLE : 0;
    return (is_usual ? IS_UNREMARKABLE : 0) | (spread_is_usual(s) || baseline_is_minor(s) ? HAS_SMALL_BASELINE : 0);
}

FOR_BOTH(int, screened, (const Screen *s), (s))

/* Whether arrays of row numbers and lengths are such that no sample beyond the rows is read. */
static int is_sound(const Screen *s)
{
    Py_ssize_t i;
    int sound = s->n_pulsed > 0 && s->rows.n_rows > 0 && s->rows.n_samples > 0;
    for (i = 0; i < N_NAMED; i++)
        sound &= s->present[i] >= -1 && s->present[i] < s->rows.n_rows && s->stored[i] >= -1 && s->stored[i] < s->rows.n_rows;
    for (i = 0; i < s->n_pulsed; i++)
        sound &= s->pulsed[i] >= 0 && s->pulsed[i] < s->rows.n_rows;
    for (i = 0; i < N_LENGTHS; i++)
        sound &= s->lengths[i] >= 1 && s->lengths[i] < INT32_MAX;
    return sound;
}

static PyObject *screen(PyObject *module, PyObject *arguments)
{
    PyObject *samples;
    Py_buffer present, stored, pulsed, lengths, limits;
    Screen s;
    int found = 0;
    (void)module;
    memset(&s, 0, sizeof(s));
    if (!PyArg_ParseTuple(arguments, "Oy*y*y*y*y*pp:screen", &samples, &present, &stored, &pulsed, &lengths, &limits,
                          &s.of_baseline, &s.per_lead))
        return NULL;
    if (get_rows(samples, &s.rows) == 0) {
        s.present = present.buf;
        s.stored = stored.buf;
        s.pulsed = pulsed.buf;
        s.n_pulsed = pulsed.len / (Py_ssize_t)sizeof(long long);
        s.lengths = lengths.buf;
        s.limits = limits.buf;
        if (present.len != N_NAMED * sizeof(long long) || stored.len != present.len
            || lengths.len != N_LENGTHS * sizeof(long long) || limits.len != N_LIMITS * sizeof(double) || !is_sound(&s)) {
            PyErr_SetString(PyExc_ValueError, "rows of the samples, and all lengths and limits are needed");
        } else {
            const Py_ssize_t n = s.rows.n_samples, n_still = n / s.lengths[STILL_BLOCK];
            s.n_blocks = n / s.lengths[BLOCK] < 1 ? 1 : n / s.lengths[BLOCK];
            s.n_fine = (n + s.lengths[FINE_EVERY] - 1) / s.lengths[FINE_EVERY] / s.lengths[FINE_BLOCK];
            s.n_fine = s.n_fine < 1 ? 1 : s.n_fine;
            s.n_used = n / (s.lengths[FINE_EVERY] * s.lengths[FINE_BLOCK]);
            s.n_used = s.n_used < 1 ? 1 : s.n_used < s.n_fine ? s.n_used : s.n_fine;
            s.means = PyMem_Malloc((size_t)(4 * s.n_fine + 3) * sizeof(double)
                                   + (size_t)s.n_blocks * (size_t)(2 * s.rows.n_rows + 1) * sizeof(float) + (size_t)n_still);
            if (s.means == NULL) {
                PyErr_NoMemory();
            } else {
                s.summed = s.means + s.n_fine;
                s.low = (float *)(s.means + 4 * s.n_fine + 3);
                s.high = s.low + s.rows.n_rows * s.n_blocks;
                s.sorted = s.high + s.rows.n_rows * s.n_blocks;
                s.still = (unsigned char *)(s.sorted + s.n_blocks);
                found = screened(&s);
                PyMem_Free(s.means);
            }
        }
        PyBuffer_Release(&s.rows.view);
    }
    PyBuffer_Release(&present);
    PyBuffer_Release(&stored);
    PyBuffer_Release(&pulsed);
    PyBuffer_Release(&lengths);
    PyBuffer_Release(&limits);
    if (PyErr_Occurred())
        return NULL;
    return PyLong_FromLong((long)found);
}

static PyMethodDef methods[] = {
    {"all_finite", all_finite, METH_O, "all_finite(samples, /)\n--\n\nWhether all samples are finite."},
    {"row_moments", row_moments, METH_VARARGS,
     "row_moments(samples, every, mean, variance, /)\n--\n\n"
     "Fill `mean` and `variance` (float64 [n_leads]) with those of every `every`-th sample of each lead."},
    {"block_moments", block_moments, METH_VARARGS,
     "block_moments(samples, every, size, mean, variance, /)\n--\n\n"
     "Fill `mean` and `variance` (float64 [n_leads, n_blocks]) with those of blocks of `size` of these samples."},
    {"slopes", slopes, METH_VARARGS,
     "slopes(lead, lag, size, /)\n--\n\n"
     "The mean of a lead's absolute differences over `lag` samples, and the median over blocks of the largest."},
    {"combination_rms", combination_rms, METH_VARARGS,
     "combination_rms(one, of_one, other, of_other, lead, /)\n--\n\n"
     "The root mean square of of_one * one + of_other * other - lead."},
    {"block_extremes", block_extremes, METH_VARARGS,
     "block_extremes(samples, size, low, high, /)\n--\n\n"
     "Fill `low` and `high` (float32 [n_leads, n_blocks]) with the extremes of each block; the last one has the rest too."},
    {"runs_at", runs_at, METH_VARARGS,
     "runs_at(samples, values, least, out, /)\n--\n\n"
     "Fill `out` (bool [n_leads]) with whether `least` samples in a row have the lead's value (float32 [n_leads])."},
    {"plateau_starts", plateau_starts, METH_VARARGS,
     "plateau_starts(samples, rows, lag, shortest, lowest, highest, ripple, /)\n--\n\n"
     "The samples that are a pulse's height above the one `lag` before, and followed by a plateau, in all of\n"
     "some rows."},
    {"plateau_length", plateau_length, METH_VARARGS,
     "plateau_length(samples, rows, at, most, ripple, /)\n--\n\n"
     "The samples from `at` on, at most `most`, in which all of some rows differ by less than `ripple` from that one."},
    {"still_samples", still_samples, METH_VARARGS,
     "still_samples(samples, at_end, of_zero, /)\n--\n\n"
     "The samples at the start, or at the end, in which no row moves; of zeros only, if `of_zero`."},
    {"mean", mean_of, METH_O, "mean(samples, /)\n--\n\nThe mean of float32 or float64 samples, as numpy.mean has it in double."},
    {"screen", screen, METH_VARARGS,
     "screen(samples, present, stored, pulsed, lengths, limits, of_baseline, per_lead, /)\n--\n\n"
     "Whether no flag of the samples can be raised (1), and whether their baseline cannot dominate (2), added."},
    {"zscore", zscore, METH_VARARGS,
     "zscore(samples, mean, epsilon, out, /)\n--\n\n"
     "Fill `out` (float32) with (samples - mean) / (standard deviation + epsilon); samples are float32 or float64."},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot slots[] = {
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_passes", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__passes(void)
{
    return PyModuleDef_Init(&definition);
}
