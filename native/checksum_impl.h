/* checksum_impl: the ways there are to add bytes up, behind checksum_add. For checksum*.c, tests and benchmarks only.
 *
 * All implementations give the same folded sum and keep what checksum.h promises: one call adds less than 2^36, and
 * nothing but zeros becomes zero. They differ in speed, and in what they need of the processor.
 */
#ifndef UDPB_CHECKSUM_IMPL_H
#define UDPB_CHECKSUM_IMPL_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

struct checksum_implementation {
	const char *name;
	uint64_t (*add)(uint64_t sum, const void *bytes, size_t len); /* as checksum_add */
};

/* Those that this processor can run, in a table that lives for ever. The first is "scalar"; the last is the one that
 * checksum_add takes for what is not short. Any thread, any time. */
const struct checksum_implementation *checksum_implementations(size_t *count);

#if defined(__x86_64__)
uint64_t checksum_add_avx2(uint64_t sum, const void *bytes, size_t len);
#elif defined(__aarch64__)
uint64_t checksum_add_neon(uint64_t sum, const void *bytes, size_t len);
#endif

static inline uint64_t checksum_load_64(const uint8_t *at)
{
	uint64_t word;

	memcpy(&word, at, sizeof(word)); /* any alignment; one instruction where the machine allows it */
	return word;
}

/* Both halves of a word, added: the same modulo 0xffff, and under 2^33. */
static inline uint64_t checksum_halves(uint64_t word)
{
	return (word & UINT32_MAX) + (word >> 32);
}

/* Adds the last bytes, fewer than 32: less than 2^35. */
static inline uint64_t checksum_add_tail(uint64_t sum, const uint8_t *at, size_t len)
{
	for (; len >= 8; len -= 8, at += 8)
		sum += checksum_halves(checksum_load_64(at));

	if (len & 4) {
		uint32_t word;

		memcpy(&word, at, sizeof(word));
		sum += word;
		at += 4;
	}
	if (len & 2) {
		uint16_t word;

		memcpy(&word, at, sizeof(word));
		sum += word;
		at += 2;
	}
	if (len & 1) {
		uint16_t word = 0;

		memcpy(&word, at, 1); /* the byte stands first, whatever the byte order; a zero follows it */
		sum += word;
	}
	return sum;
}

#endif
