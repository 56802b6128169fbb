/* checksum: the Internet checksum (RFC 1071) in its partial and finished forms.
 *
 * Owns the arithmetic and nothing else: it is given bytes and gives back sums. It must not know what a packet is.
 *
 * A *sum* is the 64-bit running total of 16-bit words read in native order; sums add up with a plain `+`, and
 * end-around carries are folded once at the end. Folding a native-order sum gives the value to store in native order
 * (RFC 1071, 2(B)). Each call below adds less than 2^36 to a sum, so it takes hundreds of millions to overflow one.
 */
#ifndef UDPB_CHECKSUM_H
#define UDPB_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Adds `len` bytes, at most 2^32, to `sum`. An odd last byte counts as if a zero byte followed it, so only the last
 * piece of a sum made of several may have an odd length. `bytes` may have any alignment; borrowed until the call
 * returns. */
uint64_t checksum_add(uint64_t sum, const void *bytes, size_t len);

/* Folds a sum to 16 bits, not complemented. */
uint16_t checksum_fold(uint64_t sum);

/* The finished checksum of a sum: folded and complemented, in the order in which it is stored. */
uint16_t checksum_finish(uint64_t sum);

/* The sum of a TCP or UDP pseudo-header. `addresses` is the source and then the destination address as they stand in
 * the header, `address_bytes` 8 (IPv4) or 32 (IPv6) in all; `length` is that of the transport header and its payload.
 */
uint64_t checksum_pseudo(const void *addresses, size_t address_bytes, uint8_t protocol, uint32_t length);

#endif
