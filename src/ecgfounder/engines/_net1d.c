/* ECGFounder's backbone on a CPU: every float32 operation of `ecgfounder.net1d.Net1D.feature_map`.

   In: packed weights (`ecgfounder.engines.native.pack`), signals [N, C, L]. Out: maps [N, T, 1024].
   Activations lie time by channel, so that a 1x1 convolution is a matrix product, and the map comes out as it is wanted. The
   products go through one kernel, `tile` of `_net1d_kernels.h`, which adds the bias and applies the activation while a
   tile is in the first cache. Convolutions over time are products of spectra (`_net1d_spectra.h`). */

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <stddef.h>
#include <stdint.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

#define PANEL 16             /* output channels whose weights lie together; also the width of a group */
#define KERNEL 16            /* samples under a first or middle convolution */
#define LEFT 7               /* zeros before, and after it, for an output of ceil(length / stride) steps: */
#define RIGHT 8              /* for stride 1 and 2 alike, the last zero unread where the length is even */
#define DEPTH_BLOCK 256      /* input channels that are summed up at once: a panel's weights stay in the first cache */
#define BLOCK (32 << 10)     /* floats of a product's input that are worked on at once: they stay in the second cache */
#define UNROLLED 8           /* input channels in a step of the innermost loop; of all layers a divisor of their channels */
#define SPAN 64              /* samples of a spectrum; `_net1d_spectra.h` is written for this number */
#define TILES_AT_ONCE 12     /* spectra that are worked on at once */
#define MOST_PHASES 2        /* the greatest stride */
#define EARLY_STAGES 3       /* stages whose maps are long and whose weights are few */
#define EARLY_ROWS 2750      /* steps of the first stage's input that are worked on at once */
#define MOST_STAGES 16
#define MOST_BYTES_PER_SAMPLE (1 << 26) /* of workspace: more than any network that `read_layout` accepts takes */
#define ALIGNMENT 64

/* In floats: a convolution's weights as spectra, for one panel of outputs; what lies between two frequencies of TILES_AT_ONCE
   inputs, which are spread a little over the lines of a cache; and the memory for such inputs and outputs. */
#define SPECTRA_SIZE(stride, channels) ((ptrdiff_t)SPAN * PANEL * (stride) * (channels))
#define SPECTRA_PITCH(stride) ((ptrdiff_t)PANEL * (2 * TILES_AT_ONCE * (stride) + 1))
#define SPECTRA_SPACE (SPAN / 2 * (SPECTRA_PITCH(MOST_PHASES) + SPECTRA_PITCH(1)))

/* Rows of inputs times panels of weights. A row's input begins at in + in_rows[row], mostly `in_step` behind the one
   before. Outputs likewise, 16 for each panel. Weights: [panel][channel][16]. */
typedef struct {
    const float *in;
    const ptrdiff_t *in_rows;
    ptrdiff_t in_step, out_step;
    int depth, panels, activated;
    const float *weights, *bias;
    float *out;
    const ptrdiff_t *out_rows;
    ptrdiff_t rows;
} Product;

/* A convolution with swish of n recordings: from `in_rows` rows each, padding included, to `steps` rows. Recordings' inputs
   lie `in_pitch` floats apart, panels' inputs `panel_step` (0: all panels see the same), of which `channels` are read. */
typedef struct {
    const float *in;
    ptrdiff_t n, in_rows, in_step, in_pitch, panel_step;
    int stride, channels, panels;
    const float *spectra, *bias;
    float *out;
    ptrdiff_t steps, out_step;
    float *space; /* SPECTRA_SPACE floats */
} Convolution;

typedef struct {
    const char *name;
    void (*multiply)(const Product *);
    void (*convolve)(const Convolution *);
    void (*weigh)(const float *, int, int, int, float *);
    void (*combine)(const float *, ptrdiff_t, const float *, const float *, ptrdiff_t, ptrdiff_t, int, int, int, float *,
                    ptrdiff_t, float *, ptrdiff_t, ptrdiff_t, int);
    void (*sigmoid)(float *, ptrdiff_t);
    void (*mean)(const float *, ptrdiff_t, ptrdiff_t, int, float *);
} Kernels;

#define INLINE static inline __attribute__((always_inline))
#ifdef __clang__
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 64")
#endif

/* IN_REGISTER keeps a vector that several operations use, where the compiler would load it for each of them again.
   MULTIPLY_ADD is sum += x * w with one rounding, and the sum stays where it is: left to itself, the compiler moves sums
   from register to register. */
#if defined(__x86_64__)
#define IN_REGISTER(vector) __asm__("" : "+v"(vector))
#define MULTIPLY_ADD(sum, x, w) __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))
#define MULTIPLY_SUBTRACT(sum, x, w) __asm__("vfnmadd231ps %2, %1, %0" : "+v"(sum) : "v"(x), "v"(w))
#elif defined(__aarch64__)
#define IN_REGISTER(vector) __asm__("" : "+w"(vector))
#define MULTIPLY_ADD(sum, x, w) __asm__("fmla %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(x), "w"(w))
#define MULTIPLY_SUBTRACT(sum, x, w) __asm__("fmls %0.4s, %1.4s, %2.4s" : "+w"(sum) : "w"(x), "w"(w))
#endif

#if defined(__x86_64__)
#ifdef __clang__
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define NAME(x) avx2_##x
#define LANES 8
#define MINIMUM(a, b) _mm256_min_ps(a, b)
#define MAXIMUM(a, b) _mm256_max_ps(a, b)
#define FUSED(x, y, z) _mm256_fmadd_ps(x, y, z)
#define TILES 6
#define ROWS 6
#define PANELS 1
#include "_net1d_kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,prefer-vector-width=512")
#endif
#define NAME(x) avx512_##x
#define LANES 16
#define MINIMUM(a, b) _mm512_min_ps(a, b)
#define MAXIMUM(a, b) _mm512_max_ps(a, b)
#define FUSED(x, y, z) _mm512_fmadd_ps(x, y, z)
#define TILES 12
#define ROWS 14
#define PANELS 2
#include "_net1d_kernels.h"
#ifdef __clang__
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

/* What there is, the widest first. Every operation on every output is the same with each of them: so are the bits. */
#if defined(__x86_64__)
static const Kernels ALL[] = {
    {"AVX-512", avx512_multiply, avx512_convolve, avx512_weigh, avx2_combine, avx2_sigmoid, avx2_mean},
    {"AVX2", avx2_multiply, avx2_convolve, avx2_weigh, avx2_combine, avx2_sigmoid, avx2_mean},
};
#define N_KERNELS 2

static int is_usable(int number)
{
    __builtin_cpu_init();
    if (!__builtin_cpu_supports("avx2") || !__builtin_cpu_supports("fma"))
        return 0;
    return number == 1 || __builtin_cpu_supports("avx512f");
}
#elif defined(__aarch64__)
#define NAME(x) neon_##x
#define LANES 4
#define MINIMUM(a, b) vminq_f32(a, b)
#define MAXIMUM(a, b) vmaxq_f32(a, b)
#define FUSED(x, y, z) vfmaq_f32(z, x, y)
#define TILES 6
#define ROWS 6
#define PANELS 1
#include "_net1d_kernels.h"
static const Kernels ALL[] = {{"NEON", neon_multiply, neon_convolve, neon_weigh, neon_combine, neon_sigmoid, neon_mean}};
#define N_KERNELS 1

static int is_usable(int number)
{
    return number == 0;
}
#else
static const Kernels ALL[1];
#define N_KERNELS 0

static int is_usable(int number)
{
    return number < 0;
}
#endif

static const Kernels *kernels_named(const char *name)
{
    int number;
    for (number = 0; number < N_KERNELS; number++)
        if (is_usable(number) && strcmp(ALL[number].name, name) == 0)
            return &ALL[number];
    return NULL;
}

/* -- The network --------------------------------------------------------------------------------------------------- */

typedef struct {
    int in_channels, base_filters, n_stages;
    int filters[MOST_STAGES], blocks[MOST_STAGES];
} Layout;

/* Where a layer's weights begin: the packed ones, and the spectra of convolutions. */
typedef struct {
    const float *weights, *spectra;
} Place;

/* A layer. Packed weights: [panel][tap][channel][16], then biases, rows padded to whole panels. */
typedef struct {
    const float *weights, *bias, *spectra;
    int panels, channels, stride;
} Layer;

/* Memory of one call. Rows of 1,024 floats would all begin in the same lines of a cache: they are spread a little. */
typedef struct {
    float *x, *other, *s, *padded, *h, *gate, *spectra;
    ptrdiff_t *in_rows, *out_rows;
} Workspace;

static ptrdiff_t row_step(int channels)
{
    return channels % 256 ? channels : channels + PANEL;
}

static int whole_panels(int channels)
{
    return (channels + PANEL - 1) / PANEL;
}

static ptrdiff_t halved(ptrdiff_t length)
{
    return (length + 1) / 2;
}

static Layer next_layer(Place *at, int outputs, int taps, int channels)
{
    Layer layer = {at->weights, NULL, NULL, whole_panels(outputs), channels, 1};
    layer.bias = at->weights + (ptrdiff_t)layer.panels * taps * channels * PANEL;
    at->weights = layer.bias + layer.panels * PANEL;
    return layer;
}

static Layer next_convolution(Place *at, int outputs, int channels, int stride)
{
    Layer layer = next_layer(at, outputs, KERNEL, channels);
    layer.stride = stride;
    layer.spectra = at->spectra;
    at->spectra += layer.panels * SPECTRA_SIZE(stride, channels);
    return layer;
}

/* Where the rows of `n` recordings begin: `steps` rows for each, `step` floats apart, recordings `pitch` floats apart. */
static void place_rows(ptrdiff_t *rows, ptrdiff_t n, ptrdiff_t steps, ptrdiff_t step, ptrdiff_t pitch)
{
    ptrdiff_t i, t;
    for (i = 0; i < n; i++)
        for (t = 0; t < steps; t++)
            *rows++ = i * pitch + t * step;
}

static void apply(const Kernels *run, const Layer *layer, const float *in, const ptrdiff_t *in_rows, float *out,
                  const ptrdiff_t *out_rows, ptrdiff_t rows, int activated)
{
    Product product = {
        .in = in,
        .in_rows = in_rows,
        .in_step = rows > 1 ? in_rows[1] - in_rows[0] : 0,
        .out_step = rows > 1 ? out_rows[1] - out_rows[0] : 0,
        .depth = layer->channels,
        .panels = layer->panels,
        .activated = activated,
        .weights = layer->weights,
        .bias = layer->bias,
        .out = out,
        .out_rows = out_rows,
        .rows = rows,
    };
    run->multiply(&product);
}

/* `in`: rows of n recordings, `length` each with padding around them. Gives the steps of each output; outputs lie one after
   the other. */
static ptrdiff_t convolve(const Kernels *run, const Layer *layer, const float *in, ptrdiff_t n, ptrdiff_t length,
                          ptrdiff_t in_step, ptrdiff_t panel_step, float *out, ptrdiff_t out_step, float *space)
{
    Convolution convolution = {
        .in = in,
        .n = n,
        .in_rows = LEFT + length + RIGHT,
        .in_step = in_step,
        .in_pitch = (LEFT + length + RIGHT) * in_step,
        .panel_step = panel_step,
        .stride = layer->stride,
        .channels = layer->channels,
        .panels = layer->panels,
        .spectra = layer->spectra,
        .bias = layer->bias,
        .out = out,
        .steps = (length + layer->stride - 1) / layer->stride,
        .out_step = out_step,
        .space = space,
    };
    run->convolve(&convolution);
    return convolution.steps;
}

static void clear_padding(float *padded, ptrdiff_t n, ptrdiff_t steps, ptrdiff_t step)
{
    ptrdiff_t i;
    for (i = 0; i < n; i++) {
        float *at = padded + i * (LEFT + steps + RIGHT) * step;
        memset(at, 0, sizeof(float) * LEFT * step);
        memset(at + (LEFT + steps) * step, 0, sizeof(float) * RIGHT * step);
    }
}

/* signals [n, C, length] to x = swish(first convolution), [n * T, base_filters]. A row of the padded samples has a panel's
   width, zeros after the leads. */
static ptrdiff_t first_convolution(const Kernels *run, const Layout *layout, Place *at, const float *signals, ptrdiff_t n,
                                   ptrdiff_t length, Workspace *space)
{
    const int leads = layout->in_channels;
    const Layer convolution = next_convolution(at, layout->base_filters, leads, 2);
    ptrdiff_t i, t;
    int lead;
    clear_padding(space->padded, n, length, PANEL);
    for (i = 0; i < n; i++) {
        const float *in = signals + i * leads * length;
        float *out = space->padded + (i * (LEFT + length + RIGHT) + LEFT) * PANEL;
        for (t = 0; t < length; t++)
            for (lead = 0; lead < PANEL; lead++)
                out[t * PANEL + lead] = lead < leads ? in[lead * length + t] : 0;
    }
    return convolve(run, &convolution, space->padded, n, length, PANEL, 0, space->x, row_step(layout->base_filters),
                    space->spectra);
}

/* The gate of n recordings: [n, channels] in `gate`, from their means over time. */
static void squeeze_and_excite(const Kernels *run, Place *at, const float *h, ptrdiff_t n, ptrdiff_t steps,
                               int channels, Workspace *space)
{
    const Layer fc1 = next_layer(at, channels / 2, 1, channels);
    const Layer fc2 = next_layer(at, channels, 1, channels / 2);
    const ptrdiff_t step = row_step(channels), middle_step = fc1.panels * PANEL;
    float *means = space->gate, *middle = means + n * step;
    ptrdiff_t i;
    for (i = 0; i < n; i++)
        run->mean(h + i * steps * step, step, steps, channels, means + i * step);
    place_rows(space->in_rows, n, 1, 0, step);
    place_rows(space->out_rows, n, 1, 0, middle_step);
    apply(run, &fc1, means, space->in_rows, middle, space->out_rows, n, 1);
    apply(run, &fc2, middle, space->out_rows, means, space->in_rows, n, 0);
    run->sigmoid(means, n * step);
}

/* One block on n recordings of `steps` rows: from x and what the first convolution is given, `in` (s = swish(x), or x), to
   the new x and s; the last block's x goes to `maps` instead. Returns the steps of the output. */
static ptrdiff_t block(const Kernels *run, Place *at, const float *in, int width, int channels, int halve,
                       ptrdiff_t n, ptrdiff_t steps, Workspace *space, float *maps)
{
    const Layer conv1 = next_layer(at, channels, 1, width);
    const Layer conv2 = next_convolution(at, channels, PANEL, halve ? 2 : 1);
    const Layer conv3 = next_layer(at, channels, 1, channels);
    const ptrdiff_t in_step = row_step(width), step = row_step(channels);
    const ptrdiff_t x_step = maps ? channels : step;
    const float *identity = space->x;
    float *x = maps ? maps : halve ? space->other : space->x;
    ptrdiff_t out_steps, i;

    clear_padding(space->padded, n, steps, step);
    place_rows(space->in_rows, n, steps, in_step, steps * in_step);
    place_rows(space->out_rows, n, steps, step, (LEFT + steps + RIGHT) * step);
    apply(run, &conv1, in, space->in_rows, space->padded + LEFT * step, space->out_rows, n * steps, 1);

    out_steps = convolve(run, &conv2, space->padded, n, steps, step, PANEL, space->s, step, space->spectra);

    place_rows(space->out_rows, n, out_steps, step, out_steps * step);
    apply(run, &conv3, space->s, space->out_rows, space->h, space->out_rows, n * out_steps, 0);

    squeeze_and_excite(run, at, space->h, n, out_steps, channels, space);
    for (i = 0; i < n; i++)
        run->combine(space->h + i * out_steps * step, step, space->gate + i * step, identity + i * steps * in_step, in_step,
                     steps, halve, (channels - width) / 2, width, x + i * out_steps * x_step, x_step,
                     maps ? NULL : space->s + i * out_steps * step, step, out_steps, channels);
    if (x == space->other) {
        space->other = space->x;
        space->x = x;
    }
    return out_steps;
}

/* Stages `from` to `to` on n recordings; gives the steps of their output, which is in x and s, or in `maps` after the last. */
static ptrdiff_t stages(const Kernels *run, const Layout *layout, Place *at, int from, int to, ptrdiff_t n,
                        ptrdiff_t steps, Workspace *space, float *maps)
{
    int stage, number;
    for (stage = from; stage < to; stage++) {
        const int channels = layout->filters[stage];
        int width = stage ? layout->filters[stage - 1] : layout->base_filters;
        for (number = 0; number < layout->blocks[stage]; number++, width = channels) {
            const int is_first = !stage && !number;
            const int is_last = stage + 1 == layout->n_stages && number + 1 == layout->blocks[stage];
            steps = block(run, at, is_first ? space->x : space->s, width, channels, !number, n, steps, space,
                          is_last ? maps : NULL);
        }
    }
    return steps;
}

/* -- Memory -------------------------------------------------------------------------------------------------------- */

static size_t greater(size_t a, size_t b)
{
    return a > b ? a : b;
}

/* The next `bytes` of what begins at `at`; with `at` NULL, they are only counted. */
static void *cut(char *at, size_t *used, size_t bytes)
{
    void *place = at == NULL ? NULL : at + *used;
    *used += (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    return place;
}

/* Room for stages `from` to `to` on n recordings of `steps` rows; for the first stage also for `length` samples. Gives the
   bytes that it takes; with `at` NULL, nothing else. */
static size_t make_room(const Layout *layout, int from, int to, size_t n, size_t steps, size_t length, char *at,
                        Workspace *space)
{
    const int before = from ? layout->filters[from - 1] : layout->base_filters;
    const size_t rows = n * steps, input = rows * row_step(before);
    size_t output = 0, padded = 0, gate = 0, used = 0;
    int stage;
    if (!from)
        padded = n * (LEFT + length + RIGHT) * PANEL;
    for (stage = from; stage < to; stage++) {
        const size_t step = row_step(layout->filters[stage]);
        padded = greater(padded, n * (LEFT + steps + RIGHT) * step);
        steps = halved(steps);
        output = greater(output, n * steps * step);
        gate = greater(gate, n * (step + whole_panels(layout->filters[stage] / 2) * PANEL));
    }
    space->x = cut(at, &used, greater(input, output) * sizeof(float));
    space->other = cut(at, &used, output * sizeof(float)); /* where the first block puts its output, and so on in turn */
    space->s = cut(at, &used, (from ? greater(input, output) : output) * sizeof(float));
    space->h = cut(at, &used, output * sizeof(float));
    space->padded = cut(at, &used, padded * sizeof(float));
    space->gate = cut(at, &used, gate * sizeof(float));
    space->spectra = cut(at, &used, SPECTRA_SPACE * sizeof(float));
    space->in_rows = cut(at, &used, rows * sizeof(ptrdiff_t));
    space->out_rows = cut(at, &used, rows * sizeof(ptrdiff_t));
    return used;
}

/* How a call is divided: the first stages' maps are long and their weights small, so that they are taken a few recordings at a
   time, whose maps stay in the caches; the last stages' weights are large and read once for all recordings. */
typedef struct {
    ptrdiff_t at_once, steps;
    Workspace early, late;
} Plan;

/* Gives the bytes that the plan takes from `at`. */
static size_t make_plan(const Layout *layout, ptrdiff_t n, ptrdiff_t length, char *at, Plan *plan)
{
    const ptrdiff_t steps = halved(length), most = EARLY_ROWS / steps < 1 ? 1 : EARLY_ROWS / steps;
    size_t used;
    int stage;
    plan->at_once = n < most ? n : most;
    used = make_room(layout, 0, EARLY_STAGES, plan->at_once, steps, length, at, &plan->early);
    for (plan->steps = steps, stage = 0; stage < EARLY_STAGES; stage++)
        plan->steps = halved(plan->steps);
    return used + make_room(layout, EARLY_STAGES, layout->n_stages, n, plan->steps, 0, at == NULL ? NULL : at + used,
                            &plan->late);
}

/* The whole network on n recordings of `length` samples. */
static void embed_all(const Kernels *run, const Layout *layout, Place start, const float *signals, float *maps, ptrdiff_t n,
                      ptrdiff_t length, Plan *plan)
{
    const ptrdiff_t pitch = plan->steps * row_step(layout->filters[EARLY_STAGES - 1]);
    Place at = start;
    ptrdiff_t begin;
    for (begin = 0; begin < n; begin += plan->at_once) {
        const ptrdiff_t few = n - begin < plan->at_once ? n - begin : plan->at_once;
        Workspace early = plan->early; /* blocks exchange its parts, which are not of one size */
        ptrdiff_t steps;
        at = start;
        steps = first_convolution(run, layout, &at, signals + begin * layout->in_channels * length, few, length, &early);
        stages(run, layout, &at, 0, EARLY_STAGES, few, steps, &early, NULL);
        memcpy(plan->late.x + begin * pitch, early.x, sizeof(float) * few * pitch);
        memcpy(plan->late.s + begin * pitch, early.s, sizeof(float) * few * pitch);
    }
    stages(run, layout, &at, EARLY_STAGES, layout->n_stages, n, plan->steps, &plan->late, maps);
}

/* -- Python -------------------------------------------------------------------------------------------------------- */

/* The floats of all packed weights, and of all spectra. */
typedef struct {
    size_t packed, spectra;
} Sizes;

static void add_layer(Sizes *sizes, int outputs, int taps, int channels)
{
    sizes->packed += (size_t)whole_panels(outputs) * PANEL * ((size_t)taps * channels + 1);
}

static void add_convolution(Sizes *sizes, int outputs, int channels, int stride)
{
    add_layer(sizes, outputs, KERNEL, channels);
    sizes->spectra += (size_t)whole_panels(outputs) * SPECTRA_SIZE(stride, channels);
}

static Sizes sizes_of(const Layout *layout)
{
    Sizes sizes = {0, 0};
    int stage, number, width = layout->base_filters;
    add_convolution(&sizes, layout->base_filters, layout->in_channels, 2);
    for (stage = 0; stage < layout->n_stages; stage++)
        for (number = 0; number < layout->blocks[stage]; number++) {
            const int channels = layout->filters[stage];
            add_layer(&sizes, channels, 1, width);
            add_convolution(&sizes, channels, PANEL, number ? 1 : 2);
            add_layer(&sizes, channels, 1, channels);
            add_layer(&sizes, channels / 2, 1, channels);
            add_layer(&sizes, channels, 1, channels / 2);
            width = channels;
        }
    return sizes;
}

/* Integers: in_channels, base_filters, then filters and blocks of each stage. Zero where they are none of a network that
   this file computes. */
static int read_layout(const int32_t *numbers, Py_ssize_t count, Layout *layout)
{
    int stage;
    if (count % 2 || count / 2 - 1 <= EARLY_STAGES || count / 2 - 1 > MOST_STAGES)
        return 0;
    layout->in_channels = numbers[0];
    layout->base_filters = numbers[1];
    layout->n_stages = (int)(count / 2 - 1);
    if (layout->in_channels < 1 || layout->in_channels > PANEL)
        return 0;
    for (stage = -1; stage < layout->n_stages; stage++) {
        const int filters = stage < 0 ? layout->base_filters : numbers[2 + stage];
        const int before = stage < 1 ? layout->base_filters : numbers[1 + stage];
        const int blocks = stage < 0 ? 1 : numbers[2 + layout->n_stages + stage];
        if (filters < PANEL || filters > 1 << 16 || filters % PANEL || filters < before || blocks < 1 || blocks > 1000)
            return 0;
        if (stage >= 0) {
            layout->filters[stage] = filters;
            layout->blocks[stage] = blocks;
        }
    }
    return 1;
}

/* The layout, if arrays of n recordings of `length` samples can have a size that can be told. */
static int read_call(const Py_buffer *numbers, Py_ssize_t n, Py_ssize_t length, Layout *layout)
{
    if (!read_layout(numbers->buf, numbers->len / (Py_ssize_t)sizeof(int32_t), layout)) {
        PyErr_SetString(PyExc_ValueError, "not a network that can be computed here");
        return 0;
    }
    if (n < 1 || length < 1 || length > PY_SSIZE_T_MAX / MOST_BYTES_PER_SAMPLE / n) {
        PyErr_SetString(PyExc_ValueError, "no signals, or too many");
        return 0;
    }
    return 1;
}

static PyObject *embed(PyObject *module, PyObject *arguments)
{
    const Kernels *run;
    const char *name;
    Py_buffer numbers, weights, spectra, signals, maps, space;
    Py_ssize_t n, length;
    Layout layout;
    Plan plan;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*y*y*y*w*w*nn:embed", &name, &numbers, &weights, &spectra, &signals, &maps,
                          &space, &n, &length))
        return NULL;
    run = kernels_named(name);
    if (run == NULL) {
        PyErr_SetString(PyExc_ValueError, "this processor does not have these instructions");
    } else if (read_call(&numbers, n, length, &layout)) {
        Py_ssize_t steps = halved(length);
        int stage;
        for (stage = 0; stage < layout.n_stages; stage++)
            steps = halved(steps);
        if (signals.len != n * layout.in_channels * length * (Py_ssize_t)sizeof(float) ||
            maps.len != n * steps * layout.filters[layout.n_stages - 1] * (Py_ssize_t)sizeof(float) ||
            (size_t)weights.len != sizes_of(&layout).packed * sizeof(float) ||
            (size_t)spectra.len != sizes_of(&layout).spectra * sizeof(float) ||
            (size_t)space.len < make_plan(&layout, n, length, NULL, &plan)) {
            PyErr_SetString(PyExc_ValueError, "the arrays' sizes do not belong together");
        } else {
            Py_BEGIN_ALLOW_THREADS
            make_plan(&layout, n, length, space.buf, &plan);
            embed_all(run, &layout, (Place){weights.buf, spectra.buf}, signals.buf, maps.buf, n, length, &plan);
            Py_END_ALLOW_THREADS
        }
    }
    PyBuffer_Release(&numbers);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&spectra);
    PyBuffer_Release(&signals);
    PyBuffer_Release(&maps);
    PyBuffer_Release(&space);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

/* The spectra of all convolutions, in their order. */
static void weigh_all(const Kernels *run, const Layout *layout, const float *weights, float *out)
{
    Place at = {weights, out};
    int stage, number, width = layout->base_filters;
    Layer layer = next_convolution(&at, layout->base_filters, layout->in_channels, 2);
    run->weigh(layer.weights, layer.panels, layer.channels, layer.stride, out);
    for (stage = 0; stage < layout->n_stages; stage++)
        for (number = 0; number < layout->blocks[stage]; number++) {
            const int channels = layout->filters[stage];
            next_layer(&at, channels, 1, width);
            layer = next_convolution(&at, channels, PANEL, number ? 1 : 2);
            run->weigh(layer.weights, layer.panels, layer.channels, layer.stride, (float *)layer.spectra);
            next_layer(&at, channels, 1, channels);
            next_layer(&at, channels / 2, 1, channels);
            next_layer(&at, channels, 1, channels / 2);
            width = channels;
        }
}

static PyObject *spectra(PyObject *module, PyObject *arguments)
{
    const Kernels *run;
    const char *name;
    Py_buffer numbers, weights, out;
    Layout layout;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "sy*y*w*:spectra", &name, &numbers, &weights, &out))
        return NULL;
    run = kernels_named(name);
    if (run == NULL) {
        PyErr_SetString(PyExc_ValueError, "this processor does not have these instructions");
    } else if (read_call(&numbers, 1, 1, &layout)) {
        const Sizes sizes = sizes_of(&layout);
        if ((size_t)weights.len != sizes.packed * sizeof(float) || (size_t)out.len != sizes.spectra * sizeof(float)) {
            PyErr_SetString(PyExc_ValueError, "the arrays' sizes do not belong together");
        } else {
            Py_BEGIN_ALLOW_THREADS
            weigh_all(run, &layout, weights.buf, out.buf);
            Py_END_ALLOW_THREADS
        }
    }
    PyBuffer_Release(&numbers);
    PyBuffer_Release(&weights);
    PyBuffer_Release(&out);
    return PyErr_Occurred() ? NULL : Py_NewRef(Py_None);
}

static PyObject *sizes(PyObject *module, PyObject *arguments)
{
    Py_buffer numbers;
    Layout layout;
    Sizes found = {0, 0};
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*:sizes", &numbers))
        return NULL;
    if (read_call(&numbers, 1, 1, &layout))
        found = sizes_of(&layout);
    PyBuffer_Release(&numbers);
    return PyErr_Occurred() ? NULL : Py_BuildValue("nn", (Py_ssize_t)found.packed, (Py_ssize_t)found.spectra);
}

static PyObject *workspace(PyObject *module, PyObject *arguments)
{
    Py_buffer numbers;
    Py_ssize_t n, length, bytes = 0;
    Layout layout;
    Plan plan;
    (void)module;
    if (!PyArg_ParseTuple(arguments, "y*nn:workspace", &numbers, &n, &length))
        return NULL;
    if (read_call(&numbers, n, length, &layout))
        bytes = (Py_ssize_t)make_plan(&layout, n, length, NULL, &plan);
    PyBuffer_Release(&numbers);
    return PyErr_Occurred() ? NULL : PyLong_FromSsize_t(bytes);
}

static PyObject *instructions(PyObject *module, PyObject *unused)
{
    PyObject *names = PyList_New(0);
    int number;
    (void)module;
    (void)unused;
    for (number = 0; names != NULL && number < N_KERNELS; number++)
        if (is_usable(number)) {
            PyObject *name = PyUnicode_FromString(ALL[number].name);
            if (name == NULL || PyList_Append(names, name))
                Py_CLEAR(names);
            Py_XDECREF(name);
        }
    return names;
}

static PyMethodDef methods[] = {
    {"embed", embed, METH_VARARGS,
     "embed(instructions, layout, weights, spectra, signals, maps, space, n, length) -> None\n\n"
     "Fill `maps`, float32 [n, T, C], from `signals`, float32 [n, leads, length], with at least `workspace` bytes of\n"
     "`space`. Releases the interpreter's lock. ValueError: sizes that do not belong together, unknown instructions."},
    {"sizes", sizes, METH_VARARGS,
     "sizes(layout) -> tuple[int, int]\n\nThe floats of packed weights, and of their convolutions' spectra."},
    {"spectra", spectra, METH_VARARGS,
     "spectra(instructions, layout, weights, spectra) -> None\n\n"
     "Fill `spectra`, float32 as many as `sizes` says, from the packed weights. ValueError: as `embed`."},
    {"workspace", workspace, METH_VARARGS,
     "workspace(layout, n, length) -> int\n\nThe bytes that `embed` works in. ValueError: more than can be told."},
    {"instructions", instructions, METH_NOARGS,
     "instructions() -> list[str]\n\nThe vector instructions that `embed` can use on this processor, the widest first."},
    {NULL, NULL, 0, NULL},
};

/* Constants that Python needs to lay out weights and memory. They are defined in this file only. */
static int add_constants(PyObject *module)
{
    return PyModule_AddIntMacro(module, PANEL) || PyModule_AddIntMacro(module, KERNEL) ||
                   PyModule_AddIntMacro(module, LEFT) || PyModule_AddIntMacro(module, RIGHT) ||
                   PyModule_AddIntMacro(module, ALIGNMENT)
               ? -1
               : 0;
}

static PyModuleDef_Slot slots[] = {
    {Py_mod_exec, (void *)add_constants},
    {0, NULL},
};

static struct PyModuleDef definition = {
    PyModuleDef_HEAD_INIT, "_net1d", NULL, 0, methods, slots, NULL, NULL, NULL,
};

PyMODINIT_FUNC PyInit__net1d(void)
{
    return PyModuleDef_Init(&definition);
}
