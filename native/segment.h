/* segment: a packet from the TUN, super-packet or not, as the datagrams it becomes.
 *
 * Owns the arithmetic of TCP and UDP segmentation offload: for each segment it makes the headers; the payload is never
 * copied, a segment's is a slice of the super-packet's. Pure: no fd, no allocation. It must not know peers or runs.
 */
#ifndef UDPB_SEGMENT_H
#define UDPB_SEGMENT_H

#include <stdint.h>

#include "packet.h"
#include "virtio.h"

#define SEGMENT_HEADERS_MAX 384 /* IPv4 60, or IPv6 40 and an extension with the longest option (264), and TCP 60 */

/* A packet and how it is to be cut. A packet that is whole already has one segment and no headers of its own. */
struct segment_source {
	struct packet packet;       /* borrowed bytes */
	uint32_t count;             /* segments, at least 1 */
	uint16_t headers_bytes;     /* IP and transport; 0 for a whole packet */
	uint16_t transport;         /* offset of the transport header */
	uint16_t payload_bytes;     /* of each segment but the last */
	uint8_t protocol;           /* IPPROTO_TCP or IPPROTO_UDP */
	uint64_t ip_sum;            /* of the IPv4 header without length, id and checksum */
	uint64_t transport_sum;     /* of pseudo-header and transport header without what differs between segments */
};

/* One segment, ready to be sent: headers, then payload. */
struct segment {
	uint32_t headers_bytes;     /* 0 for a whole packet */
	uint32_t payload_bytes;
	const uint8_t *payload;     /* borrowed: points into the source */
};

/* Prepares a valid packet that came with this virtio header. Finishes a checksum the kernel left partial (in place, when
 * the packet is whole). Returns 0, or -EINVAL when the header asks for what makes no sense for the packet. `bytes` are
 * the packet's own, writable. */
int segment_prepare(struct segment_source *source, uint8_t *bytes, const struct packet *packet,
		    const struct virtio_net_hdr *header);

/* The longest segment, in bytes of the whole inner packet. */
static inline uint32_t segment_longest(const struct segment_source *source)
{
	return source->count > 1 ? (uint32_t)source->headers_bytes + source->payload_bytes : source->packet.length;
}

/* Makes segment `index` (below count): its headers into `headers`, which holds SEGMENT_HEADERS_MAX. */
void segment_make(const struct segment_source *source, uint32_t index, uint8_t *headers, struct segment *out);

#endif
