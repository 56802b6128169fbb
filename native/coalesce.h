/* coalesce: the packets of a receive batch as few super-packets as the kernel's own rules allow.
 *
 * Owns the grouping: TCP and UDP segments of one flow that follow each other become one group; everything else is a
 * group of its own. Appends only, never reorders a flow, and touches no packet: a group's headers are made in a buffer of
 * the caller's. Pure: no fd, no allocation. It must not know peers or why a packet may pass.
 */
#ifndef UDPB_COALESCE_H
#define UDPB_COALESCE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "packet.h"
#include "unfinished.h"
#include "virtio.h"

#define COALESCE_PACKETS 512       /* in one batch */
#define COALESCE_SEGMENTS 64       /* in one group: UDP_GRO_CNT_MAX of linux/net/ipv4/udp_offload.c */
#define COALESCE_BYTES 65521       /* of a super-packet: with a link header (14) just below gso_max_size, 65536 */
#define COALESCE_HEADERS_MAX 128   /* 40 + 60, and room */
#define COALESCE_BUCKETS 256
#define COALESCE_NONE UINT16_MAX

/* What may be merged: as the operator says; lowered when the kernel refuses a kind. */
#define COALESCE_TCP 1
#define COALESCE_UDP 2

struct coalesce_group {
	const uint8_t *head;    /* the first packet; borrowed until the batch is over */
	uint32_t head_bytes;    /* its length */
	uint32_t length;        /* of the super-packet */
	uint32_t next_sequence; /* TCP: what the next segment must begin with */
	uint16_t payload_bytes; /* of every segment but the last; 0 for what is never merged */
	uint16_t headers_bytes;
	uint16_t transport;     /* offset of the transport header */
	uint16_t segments;
	uint16_t first, last;   /* packets, a list through coalesce.next */
	uint16_t next_in_bucket;
	uint8_t protocol;       /* IPPROTO_TCP, IPPROTO_UDP, or 0: there is no such header to be read */
	uint8_t version;
	uint8_t flags;          /* TCP flags to be added to the head's: PSH */
	bool closed;            /* nothing may follow */
	bool is_sound;          /* the first packet's checksum has been verified; those that joined always are */
	uint16_t told;          /* as coalesce_add was told of the first packet */
	uint16_t unfinished;    /* of a group of several: how many of them had a partial checksum */
};

struct coalesce {
	uint32_t kinds; /* COALESCE_TCP, COALESCE_UDP */
	uint32_t mtu;   /* of flannel0: a longer packet whose checksum is partial is a super-packet already */
	uint16_t packets, groups;
	uint16_t latest; /* the group last added to: most packets follow it */
	struct iovec packet[COALESCE_PACKETS]; /* as received */
	uint16_t next[COALESCE_PACKETS];
	struct coalesce_group group[COALESCE_PACKETS]; /* in the order of their first packets */
	uint16_t bucket[COALESCE_BUCKETS]; /* by flow; COALESCE_NONE where empty */
};

/* Begins a batch. */
void coalesce_reset(struct coalesce *c);

static inline bool coalesce_full(const struct coalesce *c)
{
	return c->packets == COALESCE_PACKETS;
}

/* Adds a valid packet, whose bytes stay as they are until the batch is over. Not when full. `told` is not 0 for what is
 * known to be a super-packet already, the payload of each of its segments: it is a group of its own. */
void coalesce_add(struct coalesce *c, const struct packet *p, uint16_t told);

/* A group as one write to the TUN: the virtio header, then `iov`, which has room for COALESCE_SEGMENTS + 1. A group of one
 * packet is the packet as it was received. Merged headers are made in `headers`, which holds COALESCE_HEADERS_MAX. Returns
 * the number of iovecs. */
int coalesce_build(const struct coalesce *c, uint16_t group, struct virtio_net_hdr *header, uint8_t *headers,
		   struct iovec *iov);

#endif
