/* transmit_done: what is dealt with of a batch, sent or dropped: the position moves on, and the counters say so.
 *
 * It must not know how a batch is composed or why a packet is refused. For transmit*.c only.
 */
#ifndef UDPB_TRANSMIT_DONE_H
#define UDPB_TRANSMIT_DONE_H

#include "transmit.h"

/* Moves the position to the next packet. */
void transmit_next_packet(struct transmit *t);

/* Moves the position to the end of what is dealt with. */
void transmit_advance(struct transmit *t, struct transmit_position end);

/* Counts packets that the kernel took in one message for a peer, and their bytes. */
void transmit_count_sent(struct transmit *t, struct peer *peer, uint32_t packets, uint32_t bytes, int64_t now_ns);

/* The kernel has taken the segment at the position as a datagram of its own. */
void transmit_segment_sent(struct transmit *t, uint32_t bytes, int64_t now_ns);

/* Counts datagrams to a peer that the kernel refused with this -errno as dropped. */
void transmit_drop_by_errno(struct transmit *t, const struct udp_io *udp, struct peer *peer, int error, uint32_t datagrams,
			    int64_t now_ns);

#endif
