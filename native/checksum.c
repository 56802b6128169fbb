/* checksum: the Internet checksum (RFC 1071).
 *
 * Owns the sums of checksum.h and the choice between their implementations: the scalar one is here, those with vectors
 * are in checksum_avx2.c and checksum_neon.c. It must not know what a packet is, nor where in one a checksum stands.
 *
 * Theory of operation
 *
 * The checksum is arithmetic modulo 0xffff, and that modulus divides 2^32 - 1 and 2^64 - 1. So words of 64 bits may be
 * added instead of words of 16, as long as each carry out of the top comes back in at the bottom; cutting the result
 * into halves and adding those changes nothing modulo 0xffff. Byte order does not matter either: adding words in the
 * wrong order gives the right sum in the wrong order, and storing it turns it round again (RFC 1071, 2(B)).
 *
 * An addition whose carry comes back must wait for the one before it, so four independent lanes are summed side by
 * side. Vectors have no carries; there, halves are added to lanes of 64 bits. Lanes are reduced to halves before they
 * leave checksum_add: one call adds less than 2^36 to a sum, which is what lets callers add sums up with a plain `+`.
 *
 * Invariant: a sum of bytes that are not all zero never becomes zero, in any step. Zero means "nothing but zeros".
 */
#include "checksum.h"

#include <arpa/inet.h>
#include <stdbool.h>

#include "checksum_impl.h"
#include "checksum_words.h"

/* From so many bytes on, vectors win. Measured with AVX2: even at 96, a fifth faster at 128, twice as fast at 500. What
 * is shorter, as headers are, is added here without looking any further. */
#define VECTOR_FROM 128

#if defined(__x86_64__)
/* The one choice at run time, of processor and kernel. libgcc asks them when the program is loaded, and this reads its
 * answer. Whoever comes even earlier is told no, which is slower but not wrong: there is no order to get wrong. */
static inline bool has_avx2(void)
{
	return __builtin_cpu_supports("avx2");
}
#endif

/* Adds a word and brings its carry back in. The second addition cannot carry: after a first that did, `lane` is at most
 * 2^64 - 2. */
static inline uint64_t add_around(uint64_t lane, uint64_t word)
{
	lane += word;
	return lane + (lane < word);
}

static inline uint64_t add_scalar(uint64_t sum, const void *bytes, size_t len)
{
	const uint8_t *at = bytes;
	uint64_t a = 0, b = 0, c = 0, d = 0;

	for (; len >= 32; len -= 32, at += 32) {
		a = add_around(a, checksum_load_64(at));
		b = add_around(b, checksum_load_64(at + 8));
		c = add_around(c, checksum_load_64(at + 16));
		d = add_around(d, checksum_load_64(at + 24));
	}
	sum += checksum_halves(a) + checksum_halves(b) + checksum_halves(c) + checksum_halves(d);
	return checksum_add_tail(sum, at, len);
}

uint64_t checksum_add(uint64_t sum, const void *bytes, size_t len)
{
#if defined(__x86_64__)
	if (len >= VECTOR_FROM && has_avx2())
		return checksum_add_avx2(sum, bytes, len);
#elif defined(__aarch64__)
	if (len >= VECTOR_FROM)
		return checksum_add_neon(sum, bytes, len);
#endif
	return add_scalar(sum, bytes, len);
}

const struct checksum_implementation *checksum_implementations(size_t *count)
{
	static const struct checksum_implementation table[] = {
		{ "scalar", add_scalar },
#if defined(__x86_64__)
		{ "avx2", checksum_add_avx2 },
#elif defined(__aarch64__)
		{ "neon", checksum_add_neon },
#endif
	};

	*count = sizeof(table) / sizeof(*table);
#if defined(__x86_64__)
	if (!has_avx2())
		*count -= 1;
#endif
	return table;
}

uint16_t checksum_fold(uint64_t sum)
{
	sum = checksum_halves(sum); /* under 2^33 */
	sum = checksum_halves(sum); /* under 2^32 */
	sum = (sum & UINT16_MAX) + (sum >> 16);
	sum = (sum & UINT16_MAX) + (sum >> 16);
	return (uint16_t)sum;
}

uint16_t checksum_finish(uint64_t sum)
{
	return (uint16_t)~checksum_fold(sum);
}

uint64_t checksum_pseudo(const void *addresses, size_t address_bytes, uint8_t protocol, uint32_t length)
{
	/* Length and protocol as 32-bit words in network order: the form of RFC 8200, 8.1. RFC 9293 gives IPv4 16 bits
	 * for each, which sums to the same. */
	return checksum_add((uint64_t)htonl(length) + htonl(protocol), addresses, address_bytes);
}
