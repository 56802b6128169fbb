/* checksum_avx2: the sum of checksum.h with 256-bit vectors. Empty but on x86-64; see checksum_words.h.
 *
 * Wanted are two sums, of the low and of the high halves of all 64-bit words, which cannot overflow. Masking the low
 * halves out would cost an instruction for each vector. Instead whole words are summed, and their overflow is let go:
 * whole = low + high * 2^32 modulo 2^64, so low = whole - high * 2^32 modulo 2^64, and low is less than 2^64.
 */
#include "checksum_words.h"

#if defined(__x86_64__)

#include <immintrin.h>

#define AVX2 __attribute__((target("avx2")))

/* One of the independent pairs of sums, four lanes each. */
struct sums {
	__m256i whole, high;
};

AVX2 static inline void add_vector(struct sums *s, const uint8_t *at)
{
	__m256i words = _mm256_loadu_si256((const __m256i *)at);

	__asm__("" : "+x"(words)); /* or gcc loads it twice, once for each addition: a third slower where unaligned */
	s->whole = _mm256_add_epi64(s->whole, words);
	s->high = _mm256_add_epi64(s->high, _mm256_srli_epi64(words, 32));
}

AVX2 static inline uint64_t add_lanes(__m256i lanes)
{
	__m128i two = _mm_add_epi64(_mm256_castsi256_si128(lanes), _mm256_extracti128_si256(lanes, 1));

	return (uint64_t)_mm_cvtsi128_si64(_mm_add_epi64(two, _mm_unpackhi_epi64(two, two)));
}

AVX2 uint64_t checksum_add_avx2(uint64_t sum, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	struct sums a = { _mm256_setzero_si256(), _mm256_setzero_si256() }, b = a;
	uint64_t high, low;

	for (; len >= 128; len -= 128, at += 128) {
		add_vector(&a, at);
		add_vector(&b, at + 32);
		add_vector(&a, at + 64);
		add_vector(&b, at + 96);
	}
	for (; len >= 32; len -= 32, at += 32)
		add_vector(&a, at);
	high = add_lanes(_mm256_add_epi64(a.high, b.high));
	low = add_lanes(_mm256_add_epi64(a.whole, b.whole)) - (high << 32);
	return checksum_add_tail(sum + checksum_halves(high + low), at, len);
}

#endif
