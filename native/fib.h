/* fib: an immutable longest-prefix table for IPv4 and IPv6.
 *
 * Owns the trie. It is built from an array in one go, never changed, and freed whole, so any number of threads may look
 * up in it without a lock. It must not know what a packet or a peer is: it maps an address to a 32-bit value.
 */
#ifndef UDPB_FIB_H
#define UDPB_FIB_H

#include <stddef.h>
#include <stdint.h>

#define FIB_NONE UINT32_MAX         /* no prefix matches */
#define FIB_VALUE_MAX 0x7ffffffeU   /* the largest value an entry may carry */

struct fib; /* opaque; owned by whoever built it */

struct fib_entry {
	uint8_t net[16];     /* network order; IPv4 in the first 4 bytes. Bits past the prefix are ignored */
	uint32_t value;      /* 0..FIB_VALUE_MAX */
	uint8_t version;     /* 4 or 6 */
	uint8_t prefix_bits; /* 0..32 or 0..128 */
};

/* Builds a table of `count` entries (borrowed until the call returns; may be in any order). Returns 0 and a table, or
 * -EINVAL for a bad version, length or value, -EEXIST when two entries are the same prefix, -ENOMEM. A failed build
 * leaves *out alone. Memory: one kilobyte for every 8-bit node the prefixes need: 259 for the 65,536 /24s of a /8, but
 * up to 14 for each of many IPv6 /128s scattered at random. */
int fib_build(const struct fib_entry *entries, size_t count, struct fib **out);

void fib_free(struct fib *fib); /* NULL is allowed */

/* The value of the longest prefix that holds `address` (4 bytes when version is 4, 16 when 6), or FIB_NONE. */
uint32_t fib_lookup(const struct fib *fib, uint8_t version, const uint8_t *address);

/* Bytes of memory the table holds. */
size_t fib_bytes(const struct fib *fib);

#endif
