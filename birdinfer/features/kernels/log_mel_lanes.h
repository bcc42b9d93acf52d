/* The kernel's body, written for LANES frames side by side: a vector holds the same number of LANES frames.
 *
 * log_mel.c includes this file once for each width, with LANES and NAME() set. No frame ever meets another: the same
 * operations run in the same order in every lane, so a frame's decibels are the same bits whichever lane, block or
 * call it falls into.
 */

#define VECTOR NAME(vector)
#define INTEGERS NAME(integers)
#define LOOSE NAME(loose)
#define COMPLEX NAME(complex)
typedef float VECTOR __attribute__((vector_size(4 * LANES)));
typedef int32_t INTEGERS __attribute__((vector_size(4 * LANES)));
typedef float LOOSE __attribute__((vector_size(4 * LANES), aligned(4), may_alias)); /* at any address */
typedef struct {
    VECTOR re, im;
} COMPLEX;

#if LANES == 16
#define FRONT_HALVES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define BACK_HALVES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#elif LANES == 8
#define FRONT_HALVES 0, 8, 1, 9, 2, 10, 3, 11
#define BACK_HALVES 4, 12, 5, 13, 6, 14, 7, 15
#else
#define FRONT_HALVES 0, 4, 1, 5
#define BACK_HALVES 2, 6, 3, 7
#endif
#if defined(__clang__)
#define INTERLEAVE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define INTERLEAVE(a, b, ...) __builtin_shuffle(a, b, (INTEGERS){__VA_ARGS__})
#endif

/* LANES vectors of LANES numbers: rows become columns. Each round interleaves the rows i and i + LANES / 2; after
 * log2(LANES) of them the numbers of a column stand side by side. */
INLINE void NAME(transpose)(VECTOR *rows)
{
    VECTOR before[LANES];
#pragma GCC unroll 4
    for (int round = 1; round < LANES; round *= 2) {
        memcpy(before, rows, sizeof before);
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++) {
            rows[2 * i] = INTERLEAVE(before[i], before[i + LANES / 2], FRONT_HALVES);
            rows[2 * i + 1] = INTERLEAVE(before[i], before[i + LANES / 2], BACK_HALVES);
        }
    }
}

/* Windows LANES frames. Every even sample becomes a real part and every odd one an imaginary part, so that the
 * transform has half as many points; they are stored where it wants them. */
static void NAME(gather)(const struct log_mel_plan *plan, const float *const *frames, COMPLEX *points)
{
    for (int next = 0; next < plan->n_fft; next += LANES) {
        VECTOR rows[LANES];
        const int first = next + LANES <= plan->n_fft ? next : plan->n_fft - LANES; /* the last ones overlap */
        const VECTOR window = *(const LOOSE *)(plan->window + first);
#pragma GCC unroll 16
        for (int i = 0; i < LANES; i++)
            rows[i] = *(const LOOSE *)(frames[i] + first) * window;
        NAME(transpose)(rows);
#pragma GCC unroll 8
        for (int i = 0; i < LANES / 2; i++)
            points[plan->places[first / 2 + i]] = (COMPLEX){rows[2 * i], rows[2 * i + 1]};
    }
}

INLINE COMPLEX NAME(plus)(COMPLEX a, COMPLEX b) { return (COMPLEX){a.re + b.re, a.im + b.im}; }
INLINE COMPLEX NAME(minus)(COMPLEX a, COMPLEX b) { return (COMPLEX){a.re - b.re, a.im - b.im}; }
INLINE COMPLEX NAME(times_minus_i)(COMPLEX a) { return (COMPLEX){a.im, -a.re}; }
INLINE COMPLEX NAME(times)(COMPLEX a, const float *w)
{
    return (COMPLEX){a.re * w[0] - a.im * w[1], a.re * w[1] + a.im * w[0]};
}

/* The transform of four points, in place. */
INLINE void NAME(four)(COMPLEX *a, COMPLEX *b, COMPLEX *c, COMPLEX *d)
{
    const COMPLEX even = NAME(plus)(*a, *c), even_rest = NAME(minus)(*a, *c);
    const COMPLEX odd = NAME(plus)(*b, *d), odd_rest = NAME(times_minus_i)(NAME(minus)(*b, *d));
    *a = NAME(plus)(even, odd);
    *b = NAME(plus)(even_rest, odd_rest);
    *c = NAME(minus)(even, odd);
    *d = NAME(minus)(even_rest, odd_rest);
}

/* The transform of eight points, in place: two of four and the eighth roots of 1. */
INLINE void NAME(eight)(COMPLEX *z)
{
    static const float roots[8] = {1, 0, 0.707106781f, -0.707106781f, 0, -1, -0.707106781f, -0.707106781f};
    COMPLEX even[4] = {z[0], z[2], z[4], z[6]}, odd[4] = {z[1], z[3], z[5], z[7]};
    NAME(four)(even, even + 1, even + 2, even + 3);
    NAME(four)(odd, odd + 1, odd + 2, odd + 3);
#pragma GCC unroll 4
    for (int k = 0; k < 4; k++) {
        const COMPLEX turned = NAME(times)(odd[k], roots + 2 * k);
        z[k] = NAME(plus)(even[k], turned);
        z[k + 4] = NAME(minus)(even[k], turned);
    }
}

/* The transforms of `count` points each that the odd number of `count` parts make together: t[q], the turned points q
 * of all parts, q < count, -> sums at out[q * step]. roots: e^(-2 pi i q / count). The pairs q and count - q share
 * their products. */
static void NAME(odd)(const COMPLEX *t, int count, const float *roots, COMPLEX *out, int step)
{
    COMPLEX sums[MAX_FACTOR / 2], differences[MAX_FACTOR / 2], total = t[0];
    const int half = count / 2;
    for (int q = 0; q < half; q++) {
        sums[q] = NAME(plus)(t[q + 1], t[count - 1 - q]);
        differences[q] = NAME(times_minus_i)(NAME(minus)(t[q + 1], t[count - 1 - q]));
        total = NAME(plus)(total, sums[q]);
    }
    out[0] = total;
    for (int k = 1; k <= half; k++) {
        COMPLEX even = t[0], rest = {{0}, {0}};
        for (int q = 0, turn = k; q < half; q++, turn = (turn + k) % count) {
            const float cosine = roots[2 * turn], sine = -roots[2 * turn + 1];
            even.re += sums[q].re * cosine;
            even.im += sums[q].im * cosine;
            rest.re += differences[q].re * sine;
            rest.im += differences[q].im * sine;
        }
        out[k * step] = NAME(plus)(even, rest);
        out[(count - k) * step] = NAME(minus)(even, rest);
    }
}

/* Discrete Fourier transform of n points, in place, decimated in time (Cooley and Tukey, Mathematics of Computation
 * 19, 1965): the points come in the order of plan->places and leave in their natural one. n is split into four parts
 * while 4 divides it, then into two, then by its least odd factor. Depth first, so that all but the outermost levels
 * run in the nearest cache. twiddles: a level of r parts holds e^(-2 pi i j q / n), 0 < q < r, for each j < n / r; one
 * of an odd r has the r-th roots of 1 before them. */
static void NAME(transform)(COMPLEX *z, int n, const float *twiddles)
{
    if (n == 8) {
        NAME(eight)(z);
        return;
    }
    if (n == 4) {
        NAME(four)(z, z + 1, z + 2, z + 3);
        return;
    }
    if (n == 1)
        return;
    if (n % 4 == 0) {
        const int quarter = n / 4;
        for (int part = 0; part < 4; part++)
            NAME(transform)(z + part * quarter, quarter, twiddles + 6 * quarter);
        for (COMPLEX *end = z + quarter; z < end; z++, twiddles += 6) {
            COMPLEX a = z[0], b = NAME(times)(z[quarter], twiddles);
            COMPLEX c = NAME(times)(z[2 * quarter], twiddles + 2), d = NAME(times)(z[3 * quarter], twiddles + 4);
            NAME(four)(&a, &b, &c, &d);
            z[0] = a;
            z[quarter] = b;
            z[2 * quarter] = c;
            z[3 * quarter] = d;
        }
        return;
    }
    if (n % 2 == 0) {
        const int half = n / 2;
        NAME(transform)(z, half, twiddles + 2 * half);
        NAME(transform)(z + half, half, twiddles + 2 * half);
        for (COMPLEX *end = z + half; z < end; z++, twiddles += 2) {
            const COMPLEX a = z[0], b = NAME(times)(z[half], twiddles);
            z[0] = NAME(plus)(a, b);
            z[half] = NAME(minus)(a, b);
        }
        return;
    }
    int count = 3;
    while (n % count)
        count += 2;
    const int length = n / count;
    const float *roots = twiddles;
    twiddles += 2 * count;
    for (int part = 0; part < count; part++)
        NAME(transform)(z + part * length, length, twiddles + 2 * (count - 1) * length);
    for (COMPLEX *end = z + length; z < end; z++, twiddles += 2 * (count - 1)) {
        COMPLEX t[MAX_FACTOR];
        t[0] = z[0];
        for (int q = 1; q < count; q++)
            t[q] = NAME(times)(z[q * length], twiddles + 2 * (q - 1));
        NAME(odd)(t, count, roots, z, length);
    }
}

/* The same for n points of which n has a larger factor: a convolution with a chirp (Bluestein, IEEE Transactions on
 * Audio and Electroacoustics 18, 1970), done by two transforms of plan->n_transform points. z: the n points where that
 * transform wants them, with room for n_transform; other: as much room. */
static void NAME(chirp_transform)(const struct log_mel_plan *plan, COMPLEX *z, int n, COMPLEX *other)
{
    const int n_transform = plan->n_transform;
    const int32_t *places = plan->places;
    for (int j = 0; j < n; j++)
        z[places[j]] = NAME(times)(z[places[j]], plan->chirp + 2 * j);
    for (int j = n; j < n_transform; j++)
        z[places[j]] = (COMPLEX){{0}, {0}};
    NAME(transform)(z, n_transform, plan->twiddles);
    for (int j = 0; j < n_transform; j++) { /* conjugate, so that the same transform leads back */
        const COMPLEX product = NAME(times)(z[j], plan->chirp_spectrum + 2 * j);
        other[places[j]] = (COMPLEX){product.re, -product.im};
    }
    NAME(transform)(other, n_transform, plan->twiddles);
    for (int j = 0; j < n; j++)
        z[j] = NAME(times)((COMPLEX){other[j].re, -other[j].im}, plan->chirp + 2 * j);
}

/* The transform of n complex points -> power of the n + 1 bins of the 2 n real samples they were made of. */
static void NAME(take_power)(const COMPLEX *z, int n, const float *twiddles, VECTOR *power)
{
    const VECTOR first = 2.0f * (z[0].re + z[0].im), last = 2.0f * (z[0].re - z[0].im); /* the window is halved */
    power[0] = first * first;
    power[n] = last * last;
    for (int k = 1; k <= n / 2; k++) {
        const COMPLEX a = z[k], b = {z[n - k].re, -z[n - k].im};
        const COMPLEX even = NAME(plus)(a, b);
        const COMPLEX odd = NAME(times)(NAME(times_minus_i)(NAME(minus)(a, b)), twiddles + 2 * k);
        const COMPLEX low = NAME(plus)(even, odd), high = NAME(minus)(even, odd);
        power[k] = low.re * low.re + low.im * low.im;
        power[n - k] = high.re * high.re + high.im * high.im;
    }
}

/* 10 log10(x) for normal x > 0; infinity and NaN stay what they are. x = 2^e m with sqrt(1/2) <= m < sqrt(2), and
 * ln m = 2 artanh(s) with s = (m - 1) / (m + 1), |s| < 0.172: past s^9 its series adds less than 1e-8 of itself. */
INLINE VECTOR NAME(decibels)(VECTOR x)
{
    const int32_t root_half = 0x3f3504f3; /* the bits of sqrt(1/2) */
    const INTEGERS bits = (INTEGERS)x, above = bits - root_half, ordinary = (INTEGERS)(x <= 3.40282347e38f);
    const VECTOR exponent = __builtin_convertvector(above >> 23, VECTOR);
    const VECTOR m = (VECTOR)((above & 0x007fffff) + root_half);
    const VECTOR s = (m - 1.0f) / (m + 1.0f), s2 = s * s;
    const VECTOR series = 1.0f + s2 * (1.0f / 3 + s2 * (1.0f / 5 + s2 * (1.0f / 7 + s2 * (1.0f / 9))));
    const VECTOR found = exponent * 3.01029996f + s * series * 8.68588964f; /* 10 log10(2) and 20 / ln(10) */
    return (VECTOR)(((INTEGERS)found & ordinary) | (bits & ~ordinary));
}

/* Power -> decibels of LANES neighbouring frames, of which `kept` are stored; rows of out are n_frames apart. */
static void NAME(store_mel)(const struct log_mel_plan *plan, const VECTOR *power, float *out, int64_t n_frames,
                            int kept)
{
    const float *weights = plan->weights;
    for (int mel = 0; mel < plan->n_mels; mel++, out += n_frames) {
        const VECTOR *bins = power + plan->first_bins[mel];
        VECTOR sum = {0};
        for (int i = 0; i < plan->n_bins[mel]; i++)
            sum += bins[i] * *weights++;
        const VECTOR found = NAME(decibels)(sum + plan->floor);
        if (kept == LANES)
            *(LOOSE *)out = found;
        else
            memcpy(out, &found, sizeof(float) * (size_t)kept);
    }
}

static void NAME(log_mel)(const struct log_mel_plan *plan, const float *samples, int64_t n_frames, float *out,
                          void *scratch)
{
    COMPLEX *points = scratch;
    COMPLEX *other = points + plan->n_transform;
    VECTOR *power = (VECTOR *)(other + plan->n_transform);
    const int n_points = plan->n_fft / 2;
    for (int64_t first = 0; first < n_frames; first += LANES) {
        const float *frames[LANES];
        const int kept = n_frames - first < LANES ? (int)(n_frames - first) : LANES;
        for (int i = 0; i < LANES; i++) /* a last block that is not full repeats its last frame */
            frames[i] = samples + (first + (i < kept ? i : kept - 1)) * plan->hop_length;
        NAME(gather)(plan, frames, points);
        if (plan->n_transform == n_points)
            NAME(transform)(points, n_points, plan->twiddles);
        else
            NAME(chirp_transform)(plan, points, n_points, other);
        NAME(take_power)(points, n_points, plan->real_twiddles, power);
        NAME(store_mel)(plan, power, out + first, n_frames, kept);
    }
}

#undef VECTOR
#undef INTEGERS
#undef LOOSE
#undef COMPLEX
#undef FRONT_HALVES
#undef BACK_HALVES
#undef INTERLEAVE
