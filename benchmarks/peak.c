// What one core can multiply at most, by precision and instruction set: N independent sums held in registers, no memory.
// A function runs ROUNDS times N steps; peaks.py knows how many products a step has.
#include <immintrin.h>

#define N 14 // more than latency times units of any processor, and with two factors within AVX2's 16 registers

#define KERNEL(NAME, ISA, VECTOR, SUM)                                                                                 \
    __attribute__((target(ISA))) long NAME(long rounds) {                                                              \
        VECTOR a = {0}, b = {0}, s[N] = {{0}};                                                                         \
        while (rounds--)                                                                                               \
            for (int i = 0; i < N; i++) {                                                                              \
                __asm__ volatile("" : "+x"(a), "+x"(b)); /* else the compiler computes a product once */             \
                s[i] = SUM;                                                                                            \
            }                                                                                                          \
        for (int i = 0; i < N; i++) __asm__ volatile("" : : "x"(s[i]));                                                \
        return N;                                                                                                      \
    }

KERNEL(fp32_avx2, "avx2,fma", __m256, _mm256_fmadd_ps(a, b, s[i]))
KERNEL(fp32_avx512, "avx512f", __m512, _mm512_fmadd_ps(a, b, s[i]))
KERNEL(bf16_avx512, "avx512f,avx512bf16", __m512, _mm512_dpbf16_ps(s[i], (__m512bh)a, (__m512bh)b))
// Without VNNI: products of 8 bits in pairs of 16, pairs in 32, and a sum.
KERNEL(int8_avx2, "avx2", __m256i,
       _mm256_add_epi32(s[i], _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1))))
KERNEL(int8_avx512, "avx512bw", __m512i,
       _mm512_add_epi32(s[i], _mm512_madd_epi16(_mm512_maddubs_epi16(a, b), _mm512_set1_epi16(1))))
KERNEL(int8_vnni256, "avxvnni", __m256i, _mm256_dpbusd_avx_epi32(s[i], a, b))
KERNEL(int8_vnni512, "avx512f,avx512vnni", __m512i, _mm512_dpbusd_epi32(s[i], a, b))
