/* checksum_neon: the sum of checksum.h with NEON. Empty but on aarch64, all of which has it; see checksum_words.h.
 *
 * One instruction widens the four 32-bit words of a vector and adds them to two 64-bit lanes, where 2^31 of them find
 * room. It has some latency, so four vectors of lanes are summed side by side.
 */
#include "checksum_words.h"

#if defined(__aarch64__)

#include <arm_neon.h>

static inline uint64x2_t add_vector(uint64x2_t lanes, const uint8_t *at)
{
	uint32x4_t words;

	memcpy(&words, at, sizeof(words)); /* any alignment */
	return vpadalq_u32(lanes, words);
}

uint64_t checksum_add_neon(uint64_t sum, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64x2_t a = vdupq_n_u64(0), b = a, c = a, d = a;

	for (; len >= 64; len -= 64, at += 64) {
		a = add_vector(a, at);
		b = add_vector(b, at + 16);
		c = add_vector(c, at + 32);
		d = add_vector(d, at + 48);
	}
	for (; len >= 16; len -= 16, at += 16)
		a = add_vector(a, at);
	a = vaddq_u64(vaddq_u64(a, b), vaddq_u64(c, d));
	return checksum_add_tail(sum + checksum_halves(vaddvq_u64(a)), at, len);
}

#endif
