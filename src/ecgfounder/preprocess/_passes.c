/* The most costly passes over the samples: those of the quality flags, and the z-score.

   Each function has its like in NumPy in the module that calls it, which is used if this module is not built. Sums of samples are
   taken in double, in any order, so that they may differ from NumPy's in the last digits; the z-score's bytes are the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* Rows of float32 samples; the rows may be parts of longer ones. */
typedef struct {
    Py_buffer view;
    Py_ssize_t n_rows, n_samples;
} Rows;

static const float *row_of(const Rows *rows, Py_ssize_t row)
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

#define LANES 16

/* In lanes, which compilers turn into vector instructions; a single minimum would be one long chain of comparisons. */
static void extremes_of(const float *part, Py_ssize_t n, float *lowest, float *highest)
{
    float low[LANES], high[LANES];
    Py_ssize_t i;
    int k;
    for (k = 0; k < LANES; k++)
        low[k] = high[k] = part[0];
    for (i = 0; i + LANES <= n; i += LANES)
        for (k = 0; k < LANES; k++) {
            const float value = part[i + k];
            low[k] = value < low[k] ? value : low[k];
            high[k] = value > high[k] ? value : high[k];
        }
    for (; i < n; i++) {
        low[0] = part[i] < low[0] ? part[i] : low[0];
        high[0] = part[i] > high[0] ? part[i] : high[0];
    }
    for (k = 1; k < LANES; k++) {
        low[0] = low[k] < low[0] ? low[k] : low[0];
        high[0] = high[k] > high[0] ? high[k] : high[0];
    }
    *lowest = low[0];
    *highest = high[0];
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
static int has_run(const float *row, Py_ssize_t n, float value, Py_ssize_t least)
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

static int may_start(const float *row, Py_ssize_t at, const Pulse *pulse)
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

/* Whether no exponent has all its bits set, as those of infinities and NaNs have. */
static PyObject *all_finite(PyObject *module, PyObject *samples)
{
    Rows rows;
    Py_ssize_t row, i;
    unsigned int is_finite = 1;
    (void)module;
    if (get_rows(samples, &rows) < 0)
        return NULL;
    for (row = 0; row < rows.n_rows && is_finite; row++) {
        const float *x = row_of(&rows, row);
        unsigned int other = 0;
        for (i = 0; i < rows.n_samples; i++) {
            unsigned int bits;
            memcpy(&bits, x + i, sizeof(bits));
            other |= (unsigned int)((bits & 0x7f800000u) == 0x7f800000u);
        }
        is_finite = !other;
    }
    PyBuffer_Release(&rows.view);
    return PyBool_FromLong((long)is_finite);
}

/* Mean and variance of every `every`-th sample. */
static void moments_of(const float *x, Py_ssize_t n, Py_ssize_t every, double *mean, double *variance)
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

/* The slopes' mean, and the median over blocks of the steepest. */
static PyObject *slopes(PyObject *module, PyObject *arguments)
{
    Py_buffer lead;
    Py_ssize_t lag, size, n, n_blocks, block, i;
    double sum = 0.0, usual = 0.0;
    float *steepest = NULL;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn:slopes", &lead, &lag, &size))
        return NULL;
    n = lead.len / (Py_ssize_t)sizeof(float) - lag;
    if (lead.itemsize != sizeof(float) || lag < 1 || size < 1 || n < 1) {
        PyErr_SetString(PyExc_ValueError, "a lead must be float32 and longer than the lag");
    } else if ((steepest = PyMem_Malloc((size_t)(n / size < 1 ? 1 : n / size) * sizeof(float))) == NULL) {
        PyErr_NoMemory();
    } else {
        const float *x = lead.buf;
        n_blocks = n / size < 1 ? 1 : n / size;
        for (block = 0; block < n_blocks; block++) {
            const Py_ssize_t first = block * size, stop = block + 1 < n_blocks ? first + size : n;
            float high[LANES] = {0.0f};
            double part[LANES] = {0.0};
            int k;
            for (i = first; i + LANES <= stop; i += LANES)
                for (k = 0; k < LANES; k++) {
                    const float step = fabsf(x[i + k + lag] - x[i + k]);
                    high[k] = step > high[k] ? step : high[k];
                    part[k] += step;
                }
            for (; i < stop; i++) {
                const float step = fabsf(x[i + lag] - x[i]);
                high[0] = step > high[0] ? step : high[0];
                part[0] += step;
            }
            for (k = 0; k < LANES; k++) {
                high[0] = high[k] > high[0] ? high[k] : high[0];
                sum += part[k];
            }
            steepest[block] = high[0];
        }
        qsort(steepest, (size_t)n_blocks, sizeof(float), ascending);
        usual = ((double)steepest[(n_blocks - 1) / 2] + (double)steepest[n_blocks / 2]) / 2;
    }
    PyMem_Free(steepest);
    PyBuffer_Release(&lead);
    if (PyErr_Occurred())
        return NULL;
    return Py_BuildValue("(dd)", sum / (double)n, usual);
}

/* Root mean square of what a lead differs from a combination of two others. */
static PyObject *combination_rms(PyObject *module, PyObject *arguments)
{
    Py_buffer one, other, lead;
    float of_one, of_other;
    double sum[LANES] = {0.0}, total = 0.0;
    Py_ssize_t i, n;
    int k;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*fy*fy*:combination_rms", &one, &of_one, &other, &of_other, &lead))
        return NULL;
    n = lead.len / (Py_ssize_t)sizeof(float);
    if (one.itemsize != sizeof(float) || other.itemsize != sizeof(float) || lead.itemsize != sizeof(float)
        || one.len != lead.len || other.len != lead.len || n < 1) {
        PyErr_SetString(PyExc_ValueError, "leads must be float32 of the same length");
    } else {
        const float *a = one.buf, *b = other.buf, *x = lead.buf;
        for (i = 0; i + LANES <= n; i += LANES)
            for (k = 0; k < LANES; k++) {
                const double off = (of_one * a[i + k] + of_other * b[i + k]) - x[i + k];
                sum[k] += off * off;
            }
        for (; i < n; i++) {
            const double off = (of_one * a[i] + of_other * b[i]) - x[i];
            sum[0] += off * off;
        }
        for (k = 0; k < LANES; k++)
            total += sum[k];
    }
    PyBuffer_Release(&one);
    PyBuffer_Release(&other);
    PyBuffer_Release(&lead);
    if (PyErr_Occurred())
        return NULL;
    return PyFloat_FromDouble(sqrt(total / (double)n));
}

/* The sum of squares of deviations, in the order of NumPy's pairwise summation. */
static double squares(const float *x, Py_ssize_t n, double mean)
{
    double sum[8], total;
    Py_ssize_t i, half;
    int k;
    if (n < 8) {
        total = 0.0;
        for (i = 0; i < n; i++)
            total += (x[i] - mean) * (x[i] - mean);
        return total;
    }
    if (n <= 128) {
        for (k = 0; k < 8; k++)
            sum[k] = (x[k] - mean) * (x[k] - mean);
        for (i = 8; i < n - n % 8; i += 8)
            for (k = 0; k < 8; k++)
                sum[k] += (x[i + k] - mean) * (x[i + k] - mean);
        total = ((sum[0] + sum[1]) + (sum[2] + sum[3])) + ((sum[4] + sum[5]) + (sum[6] + sum[7]));
        for (; i < n; i++)
            total += (x[i] - mean) * (x[i] - mean);
        return total;
    }
    half = n / 2 - n / 2 % 8;
    return squares(x, half, mean) + squares(x + half, n - half, mean);
}

static PyObject *zscore(PyObject *module, PyObject *arguments)
{
    Py_buffer samples, out;
    double mean, epsilon, scale;
    Py_ssize_t i, n;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*ddw*:zscore", &samples, &mean, &epsilon, &out))
        return NULL;
    n = samples.len / (Py_ssize_t)sizeof(float);
    if (samples.itemsize != sizeof(float) || out.len != samples.len || n < 1) {
        PyErr_SetString(PyExc_ValueError, "samples and result must be float32 of the same size");
    } else {
        const float *x = samples.buf;
        float *z = out.buf;
        scale = sqrt(squares(x, n, mean) / (double)n) + epsilon;
        for (i = 0; i < n; i++)
            z[i] = (float)((x[i] - mean) / scale);
    }
    PyBuffer_Release(&samples);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
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
    {"zscore", zscore, METH_VARARGS,
     "zscore(samples, mean, epsilon, out, /)\n--\n\n"
     "Fill `out` (float32) with (samples - mean) / (standard deviation + epsilon)."},
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
