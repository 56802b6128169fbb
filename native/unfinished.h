/* unfinished: packets whose transport checksum, and whose segmentation, their sender left to a network card.
 *
 * Owns telling them from others, and the virtio header they are handed on with. Pure: no fd, no allocation, and the packet
 * is only read. It must not know peers, batches or counters.
 */
#ifndef UDPB_UNFINISHED_H
#define UDPB_UNFINISHED_H

#include <stdbool.h>
#include <stdint.h>

#include <arpa/inet.h>
#include <netinet/in.h>

#include "bytes.h"
#include "virtio.h"

enum transport_checksum {
	CHECKSUM_WRONG,
	CHECKSUM_RIGHT,
	CHECKSUM_PARTIAL, /* the field holds the pseudo-header's sum, not complemented: the rest was left to a card */
};

/* A whole packet, no fragment, whose TCP or UDP header follows the IP header; borrowed. */
struct transport {
	const uint8_t *packet;
	uint32_t bytes;    /* of the packet: at least `offset` and 8 more */
	uint16_t offset;   /* of the transport header */
	uint8_t protocol;  /* IPPROTO_TCP, IPPROTO_UDP */
};

/* Sums the whole packet. One in 65,536 right checksums looks like a partial one: it counts as right. */
enum transport_checksum transport_checksum(const struct transport *t);

/* Where the field stands in its header; the header may end before it. */
static inline uint32_t transport_field(const struct transport *t)
{
	return t->protocol == IPPROTO_TCP ? 16 : 6;
}

/* The pseudo-header's sum, as checksum_pseudo gives it. */
static inline uint64_t transport_pseudo(const struct transport *t)
{
	const uint8_t *at = t->packet + 12;
	uint64_t sum = (uint64_t)htonl(t->bytes - t->offset) + htonl(t->protocol);

	if (t->packet[0] >> 4 == 4)
		return sum + load32(at) + load32(at + 4);
	at = t->packet + 8;
	for (size_t i = 0; i < 32; i += 4)
		sum += load32(at + i);
	return sum;
}

/* Whether the field holds the pseudo-header's sum, or almost (either form of zero). This every packet is asked that stays
 * alone, so it is short: it reads no payload, and a remainder takes the place of folding. */
static inline bool transport_may_be_partial(const struct transport *t)
{
	if (t->bytes < t->offset + transport_field(t) + 2)
		return false;
	return (transport_pseudo(t) + 0xffff - load16(t->packet + t->offset + transport_field(t))) % 0xffff == 0;
}

/* How a packet with a partial checksum is to be written. */
enum unfinished {
	UNFINISHED_WHOLE,    /* as one packet */
	UNFINISHED_SUPER,    /* as a super-packet of `gso_size` */
	UNFINISHED_UNKNOWN,  /* not at all: several UDP datagrams in one, and nobody has told where each ends */
};

#define UNFINISHED_SEGMENTS_MAX 128 /* of UDP: UDP_MAX_SEGMENTS of linux/udp.h */

/* Fills in the virtio header of a packet with a partial checksum. `mtu` is flannel0's, in bytes; `told` the payload of each
 * datagram of a UDP super-packet, where the kernel has told it, else 0. A TCP segment's own size is not known: it becomes
 * what fits the MTU. */
enum unfinished unfinished_describe(const struct transport *t, uint32_t mtu, uint32_t told, struct virtio_net_hdr *header);

#endif
