/* The arithmetic of `_net1d.c` for one instruction set; included once for each, between target pragmas.

   In: the macros NAME(x), LANES (floats in a vector), ROWS and PANELS (of a full tile), TILES (spectra that are multiplied at
   once), MINIMUM(a, b) and MAXIMUM(a, b) (b where it is NaN), FUSED(x, y, z) (x y + z with one rounding). Vectors are the
   compiler's own extension (GCC and Clang): the same lines become AVX2, AVX-512 or NEON, and do the same operations in the
   same order on every output. The macros are gone afterwards. */

/* Loads and stores need no alignment. */
typedef float NAME(Vector) __attribute__((vector_size(4 * LANES), aligned(4)));
typedef int NAME(Integers) __attribute__((vector_size(4 * LANES), aligned(4)));

#define Vector NAME(Vector)
#define Integers NAME(Integers)
#define PER_PANEL (PANEL / LANES)

INLINE Vector NAME(all)(float value)
{
    Vector zero = {0};
    return value - zero; /* not plus: that would make 0 of -0, and the compiler could not leave it out */
}

INLINE Vector NAME(load)(const float *at)
{
    return *(const Vector *)at;
}

INLINE void NAME(store)(float *at, Vector values)
{
    *(Vector *)at = values;
}

INLINE Vector NAME(choose)(Integers where, Vector yes, Vector no)
{
    return (Vector)(((Integers)yes & where) | ((Integers)no & ~where));
}

/* e^x to two ulps: 2^n e^r with |r| <= ln 2 / 2, the polynomial being the best of its degree with 1 + r before it. Beyond
   what a float holds it stays near the last power. NaN may come out as any number: callers see to it. */
INLINE Vector NAME(exponential)(Vector x)
{
    static const float coefficients[] = {8.36874511e-3f, 4.16683908e-2f, 1.66665204e-1f, 4.99999934e-1f, 1.0f, 1.0f};
    const Vector shift = NAME(all)(12582912.0f); /* 1.5 2^23: what is added to it is rounded to an integer */
    Vector n, r, p = NAME(all)(1.38145402e-3f);
    int i;
    x = MAXIMUM(NAME(all)(-87.0f), MINIMUM(NAME(all)(88.0f), x));
    n = FUSED(x, NAME(all)(1.44269504f), shift);
    r = FUSED(n - shift, NAME(all)(-0.693147182f), x);
    UNROLL
    for (i = 0; i < 6; i++)
        p = FUSED(p, r, NAME(all)(coefficients[i]));
    return (Vector)((Integers)p + ((Integers)n << 23)); /* the low bits of n are the power */
}

/* x / (1 + e^-x), NaN where x is. Below -88 it stays a part of 10^38 of x, which is 0 but for an x of that size. */
INLINE Vector NAME(swish)(Vector x)
{
    return x / (1.0f + NAME(exponential)(-x));
}

/* One input channel of each row, times the weights of all outputs. */
INLINE void NAME(step)(const int rows, const int panels, Vector sums[ROWS][PANELS * PER_PANEL], const float *const *in,
                       ptrdiff_t channel, const float *weights, ptrdiff_t pitch)
{
    Vector w[PANELS * PER_PANEL];
    int r, v;
    UNROLL
    for (v = 0; v < panels * PER_PANEL; v++) {
        w[v] = NAME(load)(weights + (v / PER_PANEL) * pitch + (v % PER_PANEL) * LANES);
        IN_REGISTER(w[v]);
    }
    UNROLL
    for (r = 0; r < rows; r++) {
        Vector x = NAME(all)(in[r][channel]);
        UNROLL
        for (v = 0; v < panels * PER_PANEL; v++)
            MULTIPLY_ADD(sums[r][v], x, w[v]);
    }
}

/* `rows` rows times `panels` panels of outputs, each a sum over the channels in their order, kept in registers. Every
   output's operations are the same in a tile of any size, so that its bits do not depend on its neighbours. */
INLINE void NAME(tile)(const int rows, const int panels, const Product *product, ptrdiff_t row, int panel, int first,
                       int depth, int is_first, int is_last, int is_end)
{
    const int vectors = panels * PER_PANEL;
    const ptrdiff_t pitch = (ptrdiff_t)product->depth * PANEL;
    const float *weights = product->weights + panel * pitch + (ptrdiff_t)first * PANEL;
    const float *in[ROWS];
    float *out[ROWS];
    Vector sums[ROWS][PANELS * PER_PANEL];
    ptrdiff_t ahead, out_ahead;
    int i, k, r, v;
    UNROLL
    for (r = 0; r < rows; r++) {
        in[r] = product->in + product->in_rows[row + r] + first;
        out[r] = product->out + product->out_rows[row + r] + panel * PANEL;
    }
    /* Recordings' rows are evenly spaced; where the next one's begin, this is a wrong guess and nothing worse. */
    ahead = product->in_rows[row + rows - 1] - product->in_rows[row] + product->in_step;
    out_ahead = product->out_rows[row + rows - 1] - product->out_rows[row] + product->out_step;
    UNROLL
    for (v = 0; v < vectors; v++) {
        Vector start = is_first ? NAME(load)(product->bias + panel * PANEL + v * LANES) : NAME(all)(0.0f);
        UNROLL
        for (r = 0; r < rows; r++)
            sums[r][v] = start;
    }
    if (!is_first) /* the next tile's partial sums */
        UNROLL
        for (r = 0; r < rows; r++)
            __builtin_prefetch(out[r] + out_ahead, 1);
    for (i = 0; i < depth; i += UNROLLED, weights += UNROLLED * PANEL) {
        UNROLL
        for (r = 0; r < rows; r++) /* what the next tile reads */
            __builtin_prefetch(in[r] + i + ahead);
        if (is_end) /* the next panels' weights */
            UNROLL
            for (k = 0; k < UNROLLED * panels; k++)
                __builtin_prefetch(weights + (panels + k / UNROLLED) * pitch + k % UNROLLED * PANEL, 0, 2);
        UNROLL
        for (k = 0; k < UNROLLED; k++)
            NAME(step)(rows, panels, sums, in, i + k, weights + k * PANEL, pitch);
    }
    if (!is_first) /* sums of sums: fewer roundings than one long sum has */
        UNROLL
        for (r = 0; r < rows; r++)
            UNROLL
            for (v = 0; v < vectors; v++)
                sums[r][v] += NAME(load)(out[r] + v * LANES);
    if (is_last && product->activated) {
        UNROLL
        for (r = 0; r < rows; r++)
            UNROLL
            for (v = 0; v < vectors; v++)
                NAME(store)(out[r] + v * LANES, NAME(swish)(sums[r][v]));
    } else {
        UNROLL
        for (r = 0; r < rows; r++)
            UNROLL
            for (v = 0; v < vectors; v++)
                NAME(store)(out[r] + v * LANES, sums[r][v]);
    }
}

/* All of a product: blocks of rows whose inputs stay in the second cache, and all of a panel's rows before the next panel. */
static void NAME(multiply)(const Product *product)
{
    const int blocks = (product->depth + DEPTH_BLOCK - 1) / DEPTH_BLOCK;
    const int step = ((product->depth + blocks - 1) / blocks + UNROLLED - 1) / UNROLLED * UNROLLED;
    const ptrdiff_t parts = (product->rows * step + BLOCK - 1) / BLOCK;
    const ptrdiff_t rows_at_once = (product->rows + parts - 1) / parts;
    ptrdiff_t begin, end, row;
    int first, panel;
    for (begin = 0; begin < product->rows; begin = end) {
        end = product->rows - begin < rows_at_once ? product->rows : begin + rows_at_once;
        for (first = 0; first < product->depth; first += step) {
            const int depth = product->depth - first < step ? product->depth - first : step;
            const int is_first = first == 0, is_last = first + depth == product->depth;
            for (panel = 0; panel < product->panels;) {
                const int wide = PANELS > 1 && product->panels - panel >= PANELS;
                for (row = begin; row < end;) {
#define TILE(rows)                                                                                                   \
    if (wide)                                                                                                        \
        NAME(tile)(rows, PANELS, product, row, panel, first, depth, is_first, is_last, row + rows == end);           \
    else                                                                                                             \
        NAME(tile)(rows, 1, product, row, panel, first, depth, is_first, is_last, row + rows == end);                \
    row += rows
                    if (end - row >= ROWS) {
                        TILE(ROWS);
                    } else if (end - row >= 4) {
                        TILE(4);
                    } else if (end - row >= 2) {
                        TILE(2);
                    } else {
                        TILE(1);
                    }
#undef TILE
                }
                panel += wide ? PANELS : 1;
            }
        }
    }
}

#include "_net1d_spectra.h"

#if LANES <= 8 /* a stage may begin with 312 channels of zeros: no whole number of wider vectors */

/* x = identity + h * scale over one recording, and s = swish(x) for the next block (s may be NULL). With `halve`, the
   identity is the greater of two neighbouring steps, a zero standing after the last one; its channels lie `before` from
   the left among x's, zeros around them. Without, x is the identity. */
static void NAME(combine)(const float *h, ptrdiff_t h_step, const float *scale, const float *identity, ptrdiff_t id_step,
                          ptrdiff_t id_steps, int halve, int before, int width, float *x, ptrdiff_t x_step, float *s,
                          ptrdiff_t s_step, ptrdiff_t steps, int channels)
{
    ptrdiff_t t;
    int c;
    for (t = 0; t < steps; t++) {
        const float *a = identity + (halve ? 2 * t : t) * id_step;
        const int second = halve && 2 * t + 1 < id_steps;
        for (c = 0; c < channels; c += LANES) {
            Vector sum = NAME(all)(0.0f);
            if (c >= before && c < before + width) {
                sum = NAME(load)(a + c - before);
                if (halve) {
                    Vector other = second ? NAME(load)(a + id_step + c - before) : NAME(all)(0.0f);
                    sum = NAME(choose)((sum > other) | (sum != sum), sum, other); /* NaN is passed on */
                }
            }
            MULTIPLY_ADD(sum, NAME(load)(h + t * h_step + c), NAME(load)(scale + c));
            NAME(store)(x + t * x_step + c, sum);
            if (s != NULL)
                NAME(store)(s + t * s_step + c, NAME(swish)(sum));
        }
    }
}

static void NAME(sigmoid)(float *values, ptrdiff_t count)
{
    ptrdiff_t i;
    for (i = 0; i < count; i += LANES) {
        Vector x = NAME(load)(values + i);
        NAME(store)(values + i, NAME(choose)(x != x, x, 1.0f / (1.0f + NAME(exponential)(-x))));
    }
}

/* Means over the steps of one recording: floats over 32 steps at a time, those sums in double precision. */
static void NAME(mean)(const float *h, ptrdiff_t h_step, ptrdiff_t steps, int channels, float *mean)
{
    int c, lane;
    for (c = 0; c < channels; c += LANES) {
        double total[LANES] = {0};
        ptrdiff_t t = 0;
        while (t < steps) {
            const ptrdiff_t end = steps - t < 32 ? steps : t + 32;
            Vector sum = NAME(all)(0.0f);
            for (; t < end; t++)
                sum += NAME(load)(h + t * h_step + c);
            for (lane = 0; lane < LANES; lane++)
                total[lane] += sum[lane];
        }
        for (lane = 0; lane < LANES; lane++)
            mean[c + lane] = (float)(total[lane] / (double)steps);
    }
}

#endif

#undef Vector
#undef Integers
#undef PER_PANEL
#undef NAME
#undef LANES
#undef MINIMUM
#undef MAXIMUM
#undef ROWS
#undef PANELS
#undef TILES
#undef FUSED
