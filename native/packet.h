/* packet: one inner IP packet as bytes: is it well formed, and where are its parts?
 *
 * Owns validation of IPv4 and IPv6 headers, finishing a checksum that the kernel left partial, and cutting a packet into
 * fragments. Pure: no fd, no allocation, no clock. It must not know sockets, routes or peers.
 */
#ifndef UDPB_PACKET_H
#define UDPB_PACKET_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define PACKET_MIN_BYTES 20 /* the shortest IPv4 packet (RFC 791) */
#define PACKET_MAX_BYTES 65535
#define PACKET_HEADER_MAX_BYTES 60 /* IPv4 with all options */

/* What is wrong with a packet. Each but PACKET_OK has its own drop counter in each direction. */
enum packet_fault {
	PACKET_OK = 0,
	PACKET_SHORT,           /* fewer bytes than PACKET_MIN_BYTES, or than the fixed header of its version */
	PACKET_VERSION,         /* first nibble neither 4 nor 6 */
	PACKET_HEADER_LENGTH,   /* IPv4: IHL under 5, or the header is longer than the packet */
	PACKET_TOTAL_LENGTH,    /* total length field differs from the number of bytes */
	PACKET_HEADER_CHECKSUM, /* IPv4 header checksum is wrong */
};

/* A validated packet. The pointers are borrowed: they point into the bytes that were parsed. */
struct packet {
	const uint8_t *bytes;
	uint32_t length;        /* of the whole packet, in bytes */
	uint16_t header_bytes;  /* IPv4: with options; IPv6: the fixed 40, extension headers not counted */
	uint8_t version;        /* 4 or 6 */
	uint8_t protocol;       /* IPv4 protocol; IPv6 next header of the fixed header */
	bool dont_fragment;     /* IPv4 DF; always true for IPv6 */
	const uint8_t *source;  /* 4 or 16 bytes in network order */
	const uint8_t *destination;
};

/* Validates `len` bytes as one whole IPv4 or IPv6 packet; fills `out` only when it returns PACKET_OK. */
enum packet_fault packet_parse(const uint8_t *bytes, size_t len, struct packet *out);

/* Whether an IPv4 packet is a fragment: what follows its header need not be a transport header. (Of IPv6, `protocol`
 * tells.) */
bool packet_is_fragment(const struct packet *p);

/* The byte that IPv4 calls type of service and IPv6 traffic class: DSCP in the upper six bits (RFC 2474), below them ECN. */
static inline uint8_t packet_tos(const struct packet *p)
{
	return p->version == 4 ? p->bytes[1] : (uint8_t)(p->bytes[0] << 4 | p->bytes[1] >> 4);
}

/* ECN (RFC 3168, 5). */
#define PACKET_ECN_MASK 3
#define PACKET_NOT_ECT 0
#define PACKET_ECT1 1
#define PACKET_ECT0 2
#define PACKET_CE 3

/* Gives a packet that came in a datagram with this ECN the one that it goes on with (RFC 6040, 4.2): a mark made on the
 * way is carried over. `bytes` are the packet's own, writable. Returns false for a packet whose sender would not see the
 * mark; it is to be dropped, as a router would have dropped it, and is unchanged. */
bool packet_take_ecn(const struct packet *p, uint8_t *bytes, uint8_t outer_ecn);

/* Finishes a checksum the kernel left partial (CHECKSUM_PARTIAL; virtio header flag NEEDS_CSUM): sums from `start` to
 * the end of the packet, the field at `start + offset` holding the pseudo-header's sum, and stores the result there
 * (0 becomes 0xffff, as the kernel does). Returns 0, or -EINVAL when the field does not lie in the packet or `offset`
 * is odd, which no checksum's is; the packet is then as it was. */
int packet_finish_checksum(uint8_t *bytes, size_t len, uint16_t start, uint16_t offset);

/* Whether an address (4 or 16 bytes) can be no host's on a network: zero network, loopback, multicast and limited
 * broadcast; IPv6 unspecified, loopback, multicast, v4-mapped, and link-local, which no packet brings through a tunnel.
 * (The same as can_be_a_hosts of udpbackend/model.py.) */
bool packet_is_no_host(uint8_t version, const uint8_t *address);

static inline bool packet_source_is_martian(const struct packet *p)
{
	return packet_is_no_host(p->version, p->source);
}

/* Whether it is for many: multicast, or limited broadcast. */
static inline bool packet_is_to_many(const struct packet *p)
{
	static const uint8_t broadcast[4] = { 0xff, 0xff, 0xff, 0xff };

	if (p->version == 6)
		return p->destination[0] == 0xff;
	return p->destination[0] >> 4 == 0xe || !memcmp(p->destination, broadcast, sizeof(broadcast));
}

/* One fragment: a header to be sent in front of a slice of the original packet's bytes. */
struct packet_fragment {
	uint8_t header[PACKET_HEADER_MAX_BYTES];
	uint16_t header_bytes;
	const uint8_t *payload; /* borrowed: points into the original */
	uint32_t payload_bytes;
};

/* Cuts an IPv4 packet into fragments of at most `mtu` bytes (RFC 791, 3.2: options without the copied flag stay with
 * the first; a fragment can be cut again). `*done_bytes` is the payload already given out, 0 at first, moved on by each
 * call. Returns 1 with a fragment, 0 when all is given out (at once for a packet without payload), -EINVAL when `mtu`
 * does not hold the header and eight bytes, or when the packet is itself a fragment and reaches past the end of any
 * datagram. The caller has checked version 4 and DF clear. */
int packet_next_fragment(const struct packet *p, uint32_t mtu, uint32_t *done_bytes, struct packet_fragment *out);

#endif
