/* The most costly filters: recursive ones, applied forwards and backwards to several leads at once, and running medians.

   SciPy has the same (`scipy.signal.filtfilt`, `scipy.ndimage.median_filter`), and is used if this module is not built; all results
   are the same, but for the sign of a median of zero. */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <float.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#define MOST_LANES 12
#define MOST_STATES 16

/* Direct form II transposed, in the order of SciPy's `lfilter`: each lane is another lead. `step` is 1, or -1 to go backwards. */
typedef void Filter(const double *b, const double *a, int n_states, const double *initial, double *x, Py_ssize_t n, int step);

static void filter_any(const double *b, const double *a, int n_states, const double *initial, double *x, Py_ssize_t n, int step)
{
    enum { LANES = 4 };
    double state[MOST_STATES][LANES];
    Py_ssize_t i;
    int j, k;
    for (j = 0; j < n_states; j++)
        for (k = 0; k < LANES; k++)
            state[j][k] = initial[j] * x[k];
    for (i = 0; i < n; i++, x += step * LANES) {
        double in[LANES], out[LANES];
        for (k = 0; k < LANES; k++) {
            in[k] = x[k];
            out[k] = state[0][k] + b[0] * in[k];
        }
        for (j = 0; j < n_states - 1; j++)
            for (k = 0; k < LANES; k++)
                state[j][k] = state[j + 1][k] + in[k] * b[j + 1] - out[k] * a[j + 1];
        for (k = 0; k < LANES; k++) {
            state[n_states - 1][k] = in[k] * b[n_states] - out[k] * a[n_states];
            x[k] = out[k];
        }
    }
}

#if defined(__GNUC__) && defined(__x86_64__)
#define HAS_VECTORS 1

/* The same for filters of the usual orders, with their states in registers: of `n_groups` vectors of leads. */
#define VECTOR_FILTER(name, instructions, n_bytes, n_groups, N_STATES)                                                        \
    __attribute__((target(instructions))) static void name(const double *b, const double *a, int n_states,                    \
                                                           const double *initial, double *x, Py_ssize_t n, int step)          \
    {                                                                                                                         \
        typedef double Vector __attribute__((vector_size(n_bytes), aligned(8)));                                              \
        Vector state[N_STATES][n_groups], in[n_groups], out[n_groups], *at = (Vector *)x;                                     \
        Py_ssize_t i;                                                                                                         \
        int j, g;                                                                                                             \
        (void)n_states;                                                                                                       \
        for (j = 0; j < N_STATES; j++)                                                                                        \
            for (g = 0; g < n_groups; g++)                                                                                    \
                state[j][g] = initial[j] * at[g];                                                                             \
        for (i = 0; i < n; i++, at += step * n_groups) {                                                                      \
            _Pragma("GCC unroll 4") for (g = 0; g < n_groups; g++)                                                            \
            {                                                                                                                 \
                in[g] = at[g];                                                                                                \
                out[g] = state[0][g] + b[0] * in[g];                                                                          \
                at[g] = out[g];                                                                                               \
            }                                                                                                                 \
            _Pragma("GCC unroll 8") for (j = 0; j < N_STATES - 1; j++)                                                        \
                _Pragma("GCC unroll 4") for (g = 0; g < n_groups; g++)                                                        \
                    state[j][g] = state[j + 1][g] + in[g] * b[j + 1] - out[g] * a[j + 1];                                     \
            _Pragma("GCC unroll 4") for (g = 0; g < n_groups; g++)                                                            \
                state[N_STATES - 1][g] = in[g] * b[N_STATES] - out[g] * a[N_STATES];                                          \
        }                                                                                                                     \
    }

VECTOR_FILTER(filter_2_by_4, "avx2", 32, 1, 2)
VECTOR_FILTER(filter_2_by_12, "avx2", 32, 3, 2)
VECTOR_FILTER(filter_8_by_4, "avx2", 32, 1, 8)
VECTOR_FILTER(filter_8_by_8, "avx512f", 64, 1, 8)
#endif

/* The fastest filter for some leads, and how many it takes at once. */
static Filter *filter_for(int n_states, Py_ssize_t n_leads, int *lanes)
{
    *lanes = 4;
#ifdef HAS_VECTORS
    if (n_states == 2 && __builtin_cpu_supports("avx2")) {
        *lanes = n_leads > 4 ? 12 : 4;
        return n_leads > 4 ? filter_2_by_12 : filter_2_by_4;
    }
    if (n_states == 8 && n_leads > 4 && __builtin_cpu_supports("avx512f")) {
        *lanes = 8;
        return filter_8_by_8;
    }
    if (n_states == 8 && __builtin_cpu_supports("avx2"))
        return filter_8_by_4;
#endif
    (void)n_states, (void)n_leads;
    return filter_any;
}

typedef struct {
    const double *b, *a, *initial;
    int n_states;
    Py_ssize_t edge, n_samples;
} Recursive;

#define AT_A_TIME 64 /* samples, so few that the same of all leads are in the cache */

/* Some leads, at most as many as there are lanes, with `edge` reflected samples before and behind; `work` has space for that. */
static void forwards_and_backwards_lanes(const Recursive *recursive, Filter *filter, int lanes, const double *samples,
                                         double *out, int n_leads, double *work)
{
    const Py_ssize_t n = recursive->n_samples, edge = recursive->edge, n_all = n + 2 * edge;
    Py_ssize_t first, i;
    int k;
    for (k = 0; k < lanes; k++) {
        const double *x = samples + (k < n_leads ? k : 0) * n;
        for (i = 0; i < edge; i++) {
            work[i * lanes + k] = 2 * x[0] - x[edge - i];
            work[(edge + n + i) * lanes + k] = 2 * x[n - 1] - x[n - 2 - i];
        }
    }
    for (first = 0; first < n; first += AT_A_TIME)
        for (k = 0; k < lanes; k++) {
            const double *x = samples + (k < n_leads ? k : 0) * n;
            for (i = first; i < n && i < first + AT_A_TIME; i++)
                work[(edge + i) * lanes + k] = x[i];
        }
    filter(recursive->b, recursive->a, recursive->n_states, recursive->initial, work, n_all, 1);
    filter(recursive->b, recursive->a, recursive->n_states, recursive->initial, work + (n_all - 1) * lanes, n_all, -1);
    for (first = 0; first < n; first += AT_A_TIME)
        for (k = 0; k < n_leads; k++)
            for (i = first; i < n && i < first + AT_A_TIME; i++)
                out[k * n + i] = work[(edge + i) * lanes + k];
}

static PyObject *forwards_and_backwards(PyObject *module, PyObject *arguments)
{
    Py_buffer b, a, initial, samples, out;
    Recursive recursive;
    Py_ssize_t n_leads, lead, n_coefficients;
    double *work = NULL;
    int lanes;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*y*y*ny*nw*:forwards_and_backwards", &b, &a, &initial, &recursive.edge, &samples,
                          &n_leads, &out))
        return NULL;
    n_coefficients = b.len / (Py_ssize_t)sizeof(double);
    recursive.n_samples = n_leads > 0 ? samples.len / (Py_ssize_t)sizeof(double) / n_leads : 0;
    if (n_coefficients < 2 || n_coefficients > MOST_STATES + 1 || a.len != b.len
        || initial.len != b.len - (Py_ssize_t)sizeof(double) || ((const double *)a.buf)[0] != 1.0) {
        PyErr_SetString(PyExc_ValueError, "coefficients of one length are needed, of which the first of a is 1");
    } else if (n_leads < 1 || recursive.edge < 0 || recursive.n_samples <= recursive.edge || out.len != samples.len
               || samples.len != recursive.n_samples * n_leads * (Py_ssize_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "samples and result must be float64 [n_leads, n_samples], longer than the edge");
    } else if ((work = PyMem_Malloc((size_t)(recursive.n_samples + 2 * recursive.edge) * MOST_LANES * sizeof(double))) == NULL) {
        PyErr_NoMemory();
    } else {
        recursive.b = b.buf;
        recursive.a = a.buf;
        recursive.initial = initial.buf;
        recursive.n_states = (int)n_coefficients - 1;
        for (lead = 0; lead < n_leads; lead += lanes) {
            Filter *filter = filter_for(recursive.n_states, n_leads - lead, &lanes);
            forwards_and_backwards_lanes(&recursive, filter, lanes, (const double *)samples.buf + lead * recursive.n_samples,
                                         (double *)out.buf + lead * recursive.n_samples,
                                         n_leads - lead < lanes ? (int)(n_leads - lead) : lanes, work);
        }
        PyMem_Free(work);
    }
    PyBuffer_Release(&b);
    PyBuffer_Release(&a);
    PyBuffer_Release(&initial);
    PyBuffer_Release(&samples);
    PyBuffer_Release(&out);
    if (PyErr_Occurred())
        return NULL;
    Py_RETURN_NONE;
}

/* --- running median ----------------------------------------------------------------------------------------------------

   A part of the signal is sorted, so that each sample has a rank. The window is a set of ranks, one bit each; when it moves by one
   sample, the median moves to a neighbouring bit. */

#define AT_ONCE 8192 /* results of one part */
#define DIGIT_BITS 11
#define N_DIGITS (1 << DIGIT_BITS)
#define N_PASSES 2
#define KEY_SHIFT (64 - N_PASSES * DIGIT_BITS)
#define AT_MASK ((1ull << KEY_SHIFT) - 1)

typedef struct {
    const double *values;
    uint64_t *items, *others; /* a value's key, and where it is */
    uint32_t *rank;
    uint64_t *bits;
} Space;

/* Keys of values, in the order of the values: where they are between the lowest and the highest. Equal keys are sorted by comparing. */
static void make_items(Space *space, Py_ssize_t n)
{
    const double *x = space->values;
    double lowest = x[0], highest = x[0], scale;
    Py_ssize_t i;
    for (i = 1; i < n; i++) {
        lowest = x[i] < lowest ? x[i] : lowest;
        highest = x[i] > highest ? x[i] : highest;
    }
    scale = ((1 << N_PASSES * DIGIT_BITS) - 1) / (highest - lowest);
    if (scale > 0 && scale <= DBL_MAX && highest - lowest <= DBL_MAX)
        for (i = 0; i < n; i++)
            space->items[i] = (uint64_t)(int32_t)((x[i] - lowest) * scale) << KEY_SHIFT | (uint64_t)i;
    else
        for (i = 0; i < n; i++)
            space->items[i] = (uint64_t)i;
}

static double value_of(const Space *space, uint64_t item)
{
    return space->values[item & AT_MASK];
}

static void sift_down(const Space *space, uint64_t *items, Py_ssize_t at, Py_ssize_t n)
{
    const uint64_t moved = items[at];
    const double value = value_of(space, moved);
    Py_ssize_t child;
    while ((child = 2 * at + 1) < n) {
        child += child + 1 < n && value_of(space, items[child]) < value_of(space, items[child + 1]);
        if (value_of(space, items[child]) <= value)
            break;
        items[at] = items[child];
        at = child;
    }
    items[at] = moved;
}

/* Sort by comparing values: a few by insertion, many as a heap. */
static void sort_few(const Space *space, uint64_t *items, Py_ssize_t n)
{
    static const Py_ssize_t few = 16;
    Py_ssize_t i, k;
    if (n > few) {
        for (i = n / 2 - 1; i >= 0; i--)
            sift_down(space, items, i, n);
        for (i = n - 1; i > 0; i--) {
            const uint64_t largest = items[0];
            items[0] = items[i];
            items[i] = largest;
            sift_down(space, items, 0, i);
        }
        return;
    }
    for (i = 1; i < n; i++) {
        const uint64_t moved = items[i];
        const double value = value_of(space, moved);
        for (k = i; k > 0 && value_of(space, items[k - 1]) > value; k--)
            items[k] = items[k - 1];
        items[k] = moved;
    }
}

static void sort(Space *space, Py_ssize_t n)
{
    uint32_t count[N_PASSES][N_DIGITS];
    Py_ssize_t i, first;
    int pass;
    memset(count, 0, sizeof count);
    for (i = 0; i < n; i++)
        for (pass = 0; pass < N_PASSES; pass++)
            count[pass][space->items[i] >> (KEY_SHIFT + pass * DIGIT_BITS) & (N_DIGITS - 1)]++;
    for (pass = 0; pass < N_PASSES; pass++) {
        const int shift = KEY_SHIFT + pass * DIGIT_BITS;
        uint32_t sum = 0;
        uint64_t *sorted = space->others;
        for (i = 0; i < N_DIGITS; i++) {
            const uint32_t here = count[pass][i];
            count[pass][i] = sum;
            sum += here;
        }
        for (i = 0; i < n; i++)
            sorted[count[pass][space->items[i] >> shift & (N_DIGITS - 1)]++] = space->items[i];
        space->others = space->items;
        space->items = sorted;
    }
    for (first = 0; first + 1 < n; first = i) {
        const uint64_t *items = space->items;
        int differ = 0;
        for (i = first + 1; i < n && (items[i] ^ items[first]) >> KEY_SHIFT == 0; i++)
            differ |= value_of(space, items[i]) != value_of(space, items[first]);
        if (differ)
            sort_few(space, space->items + first, i - first);
    }
}

static Py_ssize_t lowest_bit(uint64_t word)
{
#ifdef __GNUC__
    return __builtin_ctzll(word);
#else
    Py_ssize_t n = 0;
    while (!(word >> n & 1))
        n++;
    return n;
#endif
}

static Py_ssize_t highest_bit(uint64_t word)
{
#ifdef __GNUC__
    return 63 - __builtin_clzll(word);
#else
    Py_ssize_t n = 63;
    while (!(word >> n & 1))
        n--;
    return n;
#endif
}

/* The next bit that is set; there is one. */
static Py_ssize_t next_bit(const uint64_t *bits, Py_ssize_t at)
{
    Py_ssize_t word = (at + 1) >> 6;
    uint64_t left = bits[word] & ~0ull << ((at + 1) & 63);
    while (left == 0)
        left = bits[++word];
    return (word << 6) + lowest_bit(left);
}

/* The last bit before that is set; there is one. */
static Py_ssize_t bit_before(const uint64_t *bits, Py_ssize_t at)
{
    Py_ssize_t word = at >> 6;
    uint64_t left = bits[word] & ((1ull << (at & 63)) - 1);
    while (left == 0)
        left = bits[--word];
    return (word << 6) + highest_bit(left);
}

/* Medians of the windows that begin at each of the first `n_results` of n_results + size - 1 values. */
static void medians(Space *space, Py_ssize_t n_results, Py_ssize_t size, double *out)
{
    const Py_ssize_t n = n_results + size - 1, half = size / 2;
    uint64_t *bits = space->bits;
    Py_ssize_t i, median, n_below = half;
    make_items(space, n);
    sort(space, n);
    for (i = 0; i < n; i++)
        space->rank[space->items[i] & AT_MASK] = (uint32_t)i;
    memset(bits, 0, (size_t)((n >> 6) + 2) * sizeof *bits);
    for (i = 0; i < size; i++)
        bits[space->rank[i] >> 6] |= 1ull << (space->rank[i] & 63);
    median = bits[0] & 1 ? 0 : next_bit(bits, 0);
    for (i = 0; i < half; i++)
        median = next_bit(bits, median);
    out[0] = value_of(space, space->items[median]);
    for (i = 1; i < n_results; i++) {
        const Py_ssize_t gone = space->rank[i - 1], come = space->rank[i + size - 1];
        bits[gone >> 6] &= ~(1ull << (gone & 63));
        bits[come >> 6] |= 1ull << (come & 63);
        n_below += (come < median) - (gone < median);
        if (gone == median) {
            if (n_below > half)
                n_below--, median = bit_before(bits, median);
            else
                median = next_bit(bits, median);
        } else if (n_below > half) {
            n_below--, median = bit_before(bits, median);
        } else if (n_below < half) {
            n_below++, median = next_bit(bits, median);
        }
        out[i] = value_of(space, space->items[median]);
    }
}

static PyObject *running_median(PyObject *module, PyObject *arguments)
{
    Py_buffer samples, out;
    Py_ssize_t size, n_rows, n, row, i;
    int has_nan = 0;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nnw*:running_median", &samples, &n_rows, &size, &out))
        return NULL;
    n = n_rows > 0 ? samples.len / (Py_ssize_t)sizeof(double) / n_rows : 0;
    if (size < 1 || size % 2 == 0 || size > INT32_MAX / 4 || n_rows < 1 || out.len != samples.len
        || samples.len != n * n_rows * (Py_ssize_t)sizeof(double)) {
        PyErr_SetString(PyExc_ValueError, "samples and result must be float64 [n_rows, n_samples], and the size odd");
    } else {
        const Py_ssize_t half = size / 2, most = (n < AT_ONCE ? n : AT_ONCE) + size - 1;
        const double *all = samples.buf;
        Space space;
        double *values = PyMem_Malloc((size_t)most * sizeof(double));
        space.values = values;
        space.items = PyMem_Malloc((size_t)most * sizeof(uint64_t));
        space.others = PyMem_Malloc((size_t)most * sizeof(uint64_t));
        space.rank = PyMem_Malloc((size_t)most * sizeof(uint32_t));
        space.bits = PyMem_Malloc((size_t)((most >> 6) + 2) * sizeof(uint64_t));
        if (!values || !space.items || !space.others || !space.rank || !space.bits) {
            PyErr_NoMemory();
        } else {
            for (i = 0; i < n * n_rows; i++)
                has_nan |= all[i] != all[i];
            for (row = 0; row < n_rows && !has_nan; row++) {
                const double *x = all + row * n;
                Py_ssize_t first;
                for (first = 0; first < n; first += AT_ONCE) {
                    const Py_ssize_t n_results = n - first < AT_ONCE ? n - first : AT_ONCE;
                    for (i = 0; i < n_results + size - 1; i++) {
                        const Py_ssize_t at = first - half + i;
                        values[i] = at < 0 || at >= n ? 0.0 : x[at];
                    }
                    medians(&space, n_results, size, (double *)out.buf + row * n + first);
                }
            }
        }
        PyMem_Free(values);
        PyMem_Free(space.items);
        PyMem_Free(space.others);
        PyMem_Free(space.rank);
        PyMem_Free(space.bits);
    }
    PyBuffer_Release(&samples);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : PyBool_FromLong(!has_nan);
}

static PyMethodDef methods[] = {
    {"forwards_and_backwards", forwards_and_backwards, METH_VARARGS,
     "forwards_and_backwards(b, a, initial, edge, samples, n_leads, out, /)\n--\n\n"
     "Fill `out` (float64 [n_leads, n_samples]) with `scipy.signal.filtfilt(b, a, samples)`; `initial` are the states of\n"
     "`scipy.signal.lfilter_zi`, `edge` is the number of samples that are reflected at each end."},
    {"running_median", running_median, METH_VARARGS,
     "running_median(samples, n_rows, size, out, /)\n--\n\n"
     "Fill `out` (float64 [n_rows, n_samples]) with the median of the `size` samples around each, zeros beyond the ends; False\n"
     "if there is a NaN: then nothing is filled."},
    {NULL, NULL, 0, NULL},
};

static int add_constants(PyObject *module)
{
    return PyModule_AddIntConstant(module, "MOST_STATES", MOST_STATES);
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_constants},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_filters", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__filters(void)
{
    return PyModuleDef_Init(&definition);
}
