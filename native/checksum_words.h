/* checksum_words: what every way of adding bytes up is made of, and the ways that need a vector unit. For checksum*.c only.
 *
 * Owns single words and short tails. It must not know which way is chosen: that is checksum.c's.
 */
#ifndef UDPB_CHECKSUM_WORDS_H
#define UDPB_CHECKSUM_WORDS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* As checksum_add; only for a processor that has the unit. */
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
