/* The most costly passes over the samples: extremes of blocks, runs at the extremes, steps of calibration pulses, and the z-score.

   `amplitudes.py`, `quality.py`, `calibration.py` and `recipes.py` have the same in NumPy, and use it if this module is not built;
   all results are the same. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <math.h>

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
