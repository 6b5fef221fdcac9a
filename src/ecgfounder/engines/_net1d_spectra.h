/* Convolutions as products of spectra, for one instruction set; included by `_net1d_kernels.h`.

   A convolution over 16 samples multiplies each sample 16 times for each pair of channels. The Fourier transform of SPAN
   samples is SPAN / 2 complex numbers, each of which is multiplied once; transformed back, they are SPAN - taps + 1 outputs.
   With 16 channels of input to an output, transforms included, this is less than a third of the arithmetic. Rounding errors
   of an output are relative to the largest of all SPAN samples, not of those under the kernel alone: a map of normalised
   signals has no more of them than with direct sums, a quiet part beside a much louder one has. Transforms are over time, for all channels of a vector at once. With stride 2, even and odd samples
   (phases) are transformed separately, and an output is the sum of both convolutions.

   SPAN real samples x[n] are transformed by halves. The sums x[n] + x[n + SPAN / 2] have the even frequencies, and are half as
   many real samples. The differences have the odd ones: d[n] - i d[n + SPAN / 4], turned by n / SPAN, are SPAN / 4 complex
   numbers whose transform is frequencies 1, 5, 9 .., and the others are conjugates of these. So there are 16 + 8 + 4 + 2 + 1
   complex frequencies, and two real ones at last (0 and SPAN / 2), which stand where a real and an imaginary part would.
   Among themselves, frequencies are in the order in which the transform leaves them. The way back does the same steps
   backwards, without the factors 1 / 2: weights are divided by all of them, powers of two. */

/* The cosine of `angle` / 64 of a turn. */
INLINE float NAME(cosine)(int angle)
{
    static const float quarter[] = {1.0f,         0.995184727f, 0.980785280f, 0.956940336f, 0.923879533f, 0.881921264f,
                                    0.831469612f, 0.773010453f, 0.707106781f, 0.634393284f, 0.555570233f, 0.471396737f,
                                    0.382683432f, 0.290284677f, 0.195090322f, 0.0980171403f, 0.0f};
    angle = angle % 64 > 32 ? 64 - angle % 64 : angle % 64;
    return angle > 16 ? -quarter[32 - angle] : quarter[angle];
}

/* Times e^(-2 pi i angle / 64), or divided by it: back. */
INLINE void NAME(turn)(Vector *re, Vector *im, const int angle, const int back)
{
    const float c = NAME(cosine)(angle), s = NAME(cosine)(angle + (back ? 16 : 48));
    const Vector x = *re, y = *im;
    if (angle == 0)
        return;
    if (angle == 16) {
        *re = back ? -y : y;
        *im = back ? x : -x;
        return;
    }
    *re = FUSED(x, NAME(all)(c), y * NAME(all)(s));
    *im = FUSED(y, NAME(all)(c), x * NAME(all)(-s));
}

/* The complex transform of two numbers; it is also the way back. */
INLINE void NAME(pair)(Vector *re, Vector *im)
{
    const Vector x = re[0], y = im[0];
    re[0] = x + re[1];
    im[0] = y + im[1];
    re[1] = x - re[1];
    im[1] = y - im[1];
}

/* The first step of the complex transform of `size` numbers in place: four parts remain, to be transformed by themselves. */
INLINE void NAME(quarters)(const int size, Vector *re, Vector *im)
{
    const int q = size / 4;
    int n;
    UNROLL
    for (n = 0; n < q; n++) {
        const Vector x0 = re[n] + re[n + 2 * q], y0 = im[n] + im[n + 2 * q];
        const Vector x1 = re[n] - re[n + 2 * q], y1 = im[n] - im[n + 2 * q];
        const Vector x2 = re[n + q] + re[n + 3 * q], y2 = im[n + q] + im[n + 3 * q];
        const Vector x3 = re[n + q] - re[n + 3 * q], y3 = im[n + q] - im[n + 3 * q];
        re[n] = x0 + x2;
        im[n] = y0 + y2;
        re[n + q] = x1 + y3;
        im[n + q] = y1 - x3;
        re[n + 2 * q] = x0 - x2;
        im[n + 2 * q] = y0 - y2;
        re[n + 3 * q] = x1 - y3;
        im[n + 3 * q] = y1 + x3;
        NAME(turn)(re + n + q, im + n + q, n * 64 / size, 0);
        NAME(turn)(re + n + 2 * q, im + n + 2 * q, 2 * n * 64 / size, 0);
        NAME(turn)(re + n + 3 * q, im + n + 3 * q, 3 * n * 64 / size, 0);
    }
}

/* That step backwards, and 4 times as large. */
INLINE void NAME(quarters_back)(const int size, Vector *re, Vector *im)
{
    const int q = size / 4;
    int n;
    UNROLL
    for (n = 0; n < q; n++) {
        Vector x0, x1, x2, x3, y0, y1, y2, y3;
        NAME(turn)(re + n + q, im + n + q, n * 64 / size, 1);
        NAME(turn)(re + n + 2 * q, im + n + 2 * q, 2 * n * 64 / size, 1);
        NAME(turn)(re + n + 3 * q, im + n + 3 * q, 3 * n * 64 / size, 1);
        x0 = re[n] + re[n + 2 * q], y0 = im[n] + im[n + 2 * q];
        x1 = re[n] - re[n + 2 * q], y1 = im[n] - im[n + 2 * q];
        x2 = re[n + q] + re[n + 3 * q], y2 = im[n + q] + im[n + 3 * q];
        x3 = re[n + q] - re[n + 3 * q], y3 = im[n + q] - im[n + 3 * q];
        re[n] = x0 + x2;
        im[n] = y0 + y2;
        re[n + q] = x1 - y3;
        im[n + q] = y1 + x3;
        re[n + 2 * q] = x0 - x2;
        im[n + 2 * q] = y0 - y2;
        re[n + 3 * q] = x1 + y3;
        im[n + 3 * q] = y1 - x3;
    }
}

/* The complex transform of `size` numbers (16 or less) in place, and back, `size` times as large. */
INLINE void NAME(transform)(const int size, Vector *re, Vector *im)
{
    int at;
    if (size >= 4)
        NAME(quarters)(size, re, im);
    if (size == 16)
        UNROLL
        for (at = 0; at < 16; at += 4)
            NAME(quarters)(4, re + at, im + at);
    if (size == 8)
        UNROLL
        for (at = 0; at < 8; at += 2)
            NAME(pair)(re + at, im + at);
    if (size == 2)
        NAME(pair)(re, im);
}

INLINE void NAME(transform_back)(const int size, Vector *re, Vector *im)
{
    int at;
    if (size == 16)
        UNROLL
        for (at = 0; at < 16; at += 4)
            NAME(quarters_back)(4, re + at, im + at);
    if (size == 8)
        UNROLL
        for (at = 0; at < 8; at += 2)
            NAME(pair)(re + at, im + at);
    if (size == 2)
        NAME(pair)(re, im);
    if (size >= 4)
        NAME(quarters_back)(size, re, im);
}

/* `size` real samples become half as many, and size / 4 frequencies at `out`, `pitch` floats apart. */
INLINE void NAME(halve)(const int size, Vector *x, float *out, ptrdiff_t pitch)
{
    const int q = size / 4;
    Vector re[SPAN / 4], im[SPAN / 4];
    int n;
    UNROLL
    for (n = 0; n < q; n++) {
        re[n] = x[n] - x[n + 2 * q];
        im[n] = x[n + 3 * q] - x[n + q];
        x[n] = x[n] + x[n + 2 * q];
        x[n + q] = x[n + q] + x[n + 3 * q];
        NAME(turn)(re + n, im + n, n * 64 / size, 0);
    }
    NAME(transform)(q, re, im);
    UNROLL
    for (n = 0; n < q; n++) {
        NAME(store)(out + n * pitch, re[n]);
        NAME(store)(out + n * pitch + PANEL, im[n]);
    }
}

/* Half as many real samples, and size / 4 frequencies, become `size` samples. */
INLINE void NAME(halve_back)(const int size, Vector *x, const float *in, ptrdiff_t pitch)
{
    const int q = size / 4;
    Vector re[SPAN / 4], im[SPAN / 4];
    int n;
    UNROLL
    for (n = 0; n < q; n++) {
        re[n] = NAME(load)(in + n * pitch);
        im[n] = NAME(load)(in + n * pitch + PANEL);
    }
    NAME(transform_back)(q, re, im);
    UNROLL
    for (n = 0; n < q; n++) {
        NAME(turn)(re + n, im + n, n * 64 / size, 1);
        x[n + 2 * q] = x[n] - re[n];
        x[n] = x[n] + re[n];
        x[n + 3 * q] = x[n + q] + im[n];
        x[n + q] = x[n + q] - im[n];
    }
}

/* The spectrum of one vector's channels: `rows` samples, `step` floats apart, and zeros after them. */
static void NAME(forward)(const float *in, ptrdiff_t step, ptrdiff_t rows, float *out, ptrdiff_t pitch)
{
    Vector x[SPAN];
    ptrdiff_t n;
    for (n = 0; n < SPAN; n++)
        x[n] = n < rows ? NAME(load)(in + n * step) : NAME(all)(0.0f);
    NAME(halve)(64, x, out, pitch);
    NAME(halve)(32, x, out + 16 * pitch, pitch);
    NAME(halve)(16, x, out + 24 * pitch, pitch);
    NAME(halve)(8, x, out + 28 * pitch, pitch);
    NAME(halve)(4, x, out + 30 * pitch, pitch);
    NAME(store)(out + 31 * pitch, x[0] + x[1]);
    NAME(store)(out + 31 * pitch + PANEL, x[0] - x[1]);
}

/* `rows` outputs of one vector's channels from their spectrum, with bias and swish. */
static void NAME(backward)(const float *in, ptrdiff_t pitch, const float *bias, float *out, ptrdiff_t step, ptrdiff_t rows)
{
    const Vector even = NAME(load)(in + 31 * pitch), odd = NAME(load)(in + 31 * pitch + PANEL);
    const Vector start = NAME(load)(bias);
    Vector x[SPAN];
    ptrdiff_t n;
    x[0] = even + odd;
    x[1] = even - odd;
    NAME(halve_back)(4, x, in + 30 * pitch, pitch);
    NAME(halve_back)(8, x, in + 28 * pitch, pitch);
    NAME(halve_back)(16, x, in + 24 * pitch, pitch);
    NAME(halve_back)(32, x, in + 16 * pitch, pitch);
    NAME(halve_back)(64, x, in, pitch);
    for (n = 0; n < rows; n++)
        NAME(store)(out + n * step, NAME(swish)(start + x[n]));
}

/* One frequency of `rows` tiles: for each, 16 complex sums over the channels of all phases, in their order. With `is_real`,
   these are two real frequencies. */
INLINE void NAME(frequency)(const int rows, const int is_real, const float *in, int phases, int channels,
                            const float *weights, float *out)
{
    const int pitch = phases * 2 * PANEL;
    int lane, phase, channel, r;
    UNROLL
    for (lane = 0; lane < PANEL; lane += LANES) {
        const float *w = weights + lane;
        Vector re[TILES], im[TILES];
        UNROLL
        for (r = 0; r < rows; r++)
            re[r] = im[r] = NAME(all)(0.0f);
        for (phase = 0; phase < phases; phase++)
            for (channel = 0; channel < channels; channel++, w += 2 * PANEL) {
                const float *x = in + phase * 2 * PANEL + channel;
                Vector w_re = NAME(load)(w), w_im = NAME(load)(w + PANEL);
                if (lane == 0) { /* the next frequency's */
                    __builtin_prefetch(w + phases * channels * 2 * PANEL);
                    __builtin_prefetch(w + phases * channels * 2 * PANEL + PANEL);
                }
                IN_REGISTER(w_re);
                IN_REGISTER(w_im);
                UNROLL
                for (r = 0; r < rows; r++) {
                    const Vector x_re = NAME(all)(x[r * pitch]), x_im = NAME(all)(x[r * pitch + PANEL]);
                    MULTIPLY_ADD(re[r], x_re, w_re);
                    if (is_real) {
                        MULTIPLY_ADD(im[r], x_im, w_im);
                    } else {
                        MULTIPLY_ADD(im[r], x_re, w_im);
                        MULTIPLY_SUBTRACT(re[r], x_im, w_im);
                        MULTIPLY_ADD(im[r], x_im, w_re);
                    }
                }
            }
        UNROLL
        for (r = 0; r < rows; r++) {
            NAME(store)(out + r * 2 * PANEL + lane, re[r]);
            NAME(store)(out + r * 2 * PANEL + PANEL + lane, im[r]);
        }
    }
}

/* All frequencies of `count` tiles. */
static void NAME(frequencies)(int count, const float *in, int phases, int channels, const float *weights, float *out)
{
    int f, t;
    for (f = 0; f < SPAN / 2; f++) {
        for (t = 0; t < count;) {
            const float *x = in + t * phases * 2 * PANEL;
            float *sums = out + t * 2 * PANEL;
#define SOME(rows)                                                                                                   \
    if (f == SPAN / 2 - 1)                                                                                           \
        NAME(frequency)(rows, 1, x, phases, channels, weights, sums);                                                \
    else                                                                                                             \
        NAME(frequency)(rows, 0, x, phases, channels, weights, sums);                                                \
    t += rows
            if (count - t >= TILES) {
                SOME(TILES);
            } else if (count - t >= 4) {
                SOME(4);
            } else if (count - t >= 2) {
                SOME(2);
            } else {
                SOME(1);
            }
#undef SOME
        }
        in += SPECTRA_PITCH(phases);
        weights += phases * channels * 2 * PANEL;
        out += SPECTRA_PITCH(1);
    }
}

/* The spectra of a tile's inputs, from row `first` of a recording's, which begins at `in`. */
static void NAME(tile_forward)(const Convolution *convolution, const float *in, ptrdiff_t first, float *out)
{
    const int phases = convolution->stride;
    const ptrdiff_t step = convolution->in_step, rows = convolution->in_rows - first;
    int phase, lane;
    for (phase = 0; phase < phases; phase++)
        for (lane = 0; lane < PANEL; lane += LANES)
            NAME(forward)(in + (first + phase) * step + lane, phases * step, (rows - phase + phases - 1) / phases,
                          out + phase * 2 * PANEL + lane, SPECTRA_PITCH(phases));
}

/* All of a convolution: for each panel, some tiles at a time. Panels that see the same input are computed one after the other
   for the same tiles; else all tiles of a panel, whose weights then stay in the second cache. */
static void NAME(convolve)(const Convolution *convolution)
{
    const int phases = convolution->stride, panels = convolution->panels, is_shared = convolution->panel_step == 0;
    const int outputs = SPAN - KERNEL / phases + 1;
    const ptrdiff_t tiles = (convolution->steps + outputs - 1) / outputs, all = convolution->n * tiles;
    const ptrdiff_t parts = (all + TILES_AT_ONCE - 1) / TILES_AT_ONCE;
    float *spectra = convolution->space, *sums = spectra + SPAN / 2 * SPECTRA_PITCH(phases);
    ptrdiff_t turn;
    for (turn = 0; turn < parts * panels; turn++) {
        const ptrdiff_t begin = (is_shared ? turn / panels : turn % parts) * TILES_AT_ONCE;
        const int panel = (int)(is_shared ? turn % panels : turn / parts);
        const int count = (int)(all - begin < TILES_AT_ONCE ? all - begin : TILES_AT_ONCE);
        const float *in = convolution->in + panel * convolution->panel_step;
        float *out = convolution->out + panel * PANEL;
        int t, lane;
        if (panel == 0 || !is_shared)
            for (t = 0; t < count; t++)
                NAME(tile_forward)(convolution, in + (begin + t) / tiles * convolution->in_pitch,
                                   (begin + t) % tiles * outputs * phases, spectra + t * phases * 2 * PANEL);
        NAME(frequencies)(count, spectra, phases, convolution->channels,
                          convolution->spectra + panel * SPECTRA_SIZE(phases, convolution->channels), sums);
        for (t = 0; t < count; t++) {
            const ptrdiff_t first = (begin + t) % tiles * outputs, left = convolution->steps - first;
            const ptrdiff_t row = (begin + t) / tiles * convolution->steps + first;
            for (lane = 0; lane < PANEL; lane += LANES)
                NAME(backward)(sums + t * 2 * PANEL + lane, SPECTRA_PITCH(1), convolution->bias + panel * PANEL + lane,
                               out + row * convolution->out_step + lane, convolution->out_step,
                               left < outputs ? left : outputs);
        }
    }
}

/* A convolution's weights, [panel][tap][channel][16], to their spectra, [panel][frequency][phase][channel][re, im][16]:
   conjugates, because outputs are correlations, divided by what the transforms there and back multiply with. */
static void NAME(weigh)(const float *weights, int panels, int channels, int phases, float *spectra)
{
    const ptrdiff_t pitch = (ptrdiff_t)phases * channels * 2 * PANEL;
    ptrdiff_t i;
    int panel, phase, channel, lane;
    for (panel = 0; panel < panels; panel++) {
        for (phase = 0; phase < phases; phase++)
            for (channel = 0; channel < channels; channel++)
                for (lane = 0; lane < PANEL; lane += LANES)
                    NAME(forward)(weights + (phase * channels + channel) * PANEL + lane, phases * channels * PANEL,
                                  KERNEL / phases, spectra + (phase * channels + channel) * 2 * PANEL + lane, pitch);
        for (i = 0; i < SPAN / 2 * pitch; i++)
            spectra[i] *= i >= (SPAN / 2 - 1) * pitch ? 1.0f / SPAN : i / PANEL % 2 ? -2.0f / SPAN : 2.0f / SPAN;
        weights += KERNEL * channels * PANEL;
        spectra += SPECTRA_SIZE(phases, channels);
    }
}
