/* Waveform -> log-mel in decibels, several frames side by side: the compiled version of
 * birdinfer/features/log_mel.py, which defines what is computed. birdinfer/features/kernels/__init__.py makes the plan
 * and calls log_mel(); nothing here allocates memory, keeps state or needs a library, so any number of threads may
 * call it.
 */

#include <stdint.h>
#include <string.h>

/* Raise it with every change of the plan or of a function's arguments: a library of another number is not used. */
enum { INTERFACE = 2 };

/* The largest odd factor of a length that the transform splits off by itself. */
enum { MAX_FACTOR = 61 };

struct log_mel_plan {
    int32_t n_fft;      /* samples in a frame: even, at least 64 */
    int32_t hop_length; /* samples between frames */
    int32_t n_mels;
    int32_t n_transform;         /* n_fft / 2, or the power of two that a convolution in its place needs */
    float floor;                 /* power added before the logarithm */
    const float *window;         /* [n_fft], halved: the real transform needs (Z[k] +- Z*[n - k]) / 2 */
    const float *twiddles;       /* of the transform of n_transform points, outermost level first: see transform() */
    const float *real_twiddles;  /* e^(-2 pi i k / n_fft), k <= n_fft / 4 */
    const int32_t *places;       /* [n_transform]: where the transform wants the complex point j */
    const float *chirp;          /* e^(-pi i j j / n), j < n = n_fft / 2; read where n_transform is not n */
    const float *chirp_spectrum; /* the transform of the conjugate chirp over n_transform; read there, too */
    const int32_t *first_bins;   /* [n_mels]: the first bin of a filter */
    const int32_t *n_bins;       /* [n_mels]: how many it has, may be 0 */
    const float *weights;        /* the filters' weights, one filter after the other */
};

#define INLINE static inline __attribute__((always_inline))

/* Four lanes: SSE2, NEON and whatever else the compiler makes of vectors. */
#define LANES 4
#define NAME(name) name##_4
#include "log_mel_lanes.h"
#undef LANES
#undef NAME

#if defined(__x86_64__)
#define DISPATCHED 1
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma")
#endif
#define LANES 8
#define NAME(name) name##_8
#include "log_mel_lanes.h"
#undef LANES
#undef NAME
#if defined(__clang__)
#pragma clang attribute pop
#pragma clang attribute push(__attribute__((target("avx512f,avx512dq,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC pop_options
#pragma GCC push_options
#pragma GCC target("avx512f,avx512dq,avx512vl,avx2,fma")
#endif
#define LANES 16
#define NAME(name) name##_16
#include "log_mel_lanes.h"
#undef LANES
#undef NAME
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
#endif

int32_t log_mel_interface(void) { return INTERFACE; }

/* The most lanes that this processor has instructions for: 4, 8 or 16. */
int32_t log_mel_lanes(void)
{
#ifdef DISPATCHED
    const int wide = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (wide && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
        __builtin_cpu_supports("avx512vl"))
        return 16;
    if (wide)
        return 8;
#endif
    return 4;
}

/* Frame t covers samples[t * hop_length] to samples[t * hop_length + n_fft - 1]; nothing beyond the last is read.
 * out: [n_mels, n_frames]. scratch: lanes * (4 * n_transform + n_fft / 2 + 1) floats, on an address that 64 divides.
 * lanes: at most log_mel_lanes(). */
void log_mel(const struct log_mel_plan *plan, int32_t lanes, const float *samples, int64_t n_frames, float *out,
             void *scratch)
{
    (void)lanes; /* there is one width only where nothing is dispatched */
#ifdef DISPATCHED
    if (lanes == 16) {
        log_mel_16(plan, samples, n_frames, out, scratch);
        return;
    }
    if (lanes == 8) {
        log_mel_8(plan, samples, n_frames, out, scratch);
        return;
    }
#endif
    log_mel_4(plan, samples, n_frames, out, scratch);
}
