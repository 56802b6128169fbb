/* transmit_path: what does not fit the path to its peer: learning the path's MTU, answering, cutting.
 *
 * Owns the way of a packet that has left the fast path for its length. It must not know runs or how the rest of a batch is
 * sent. For transmit.c only.
 */
#ifndef UDPB_TRANSMIT_PATH_H
#define UDPB_TRANSMIT_PATH_H

#include "transmit.h"

/* What transmit_ask finds. */
enum transmit_answer {
	TRANSMIT_SENT,    /* the kernel has taken it after all */
	TRANSMIT_LEARNED, /* it is now known not to fit; anything else is a negative errno */
};

/* Sends one datagram of the packet, made of these pieces, and learns what it exceeds where the kernel refuses it for its
 * length. */
int transmit_ask(struct transmit *t, const struct transmit_packet *it, struct iovec *pieces, size_t count, int64_t now_ns);

/* The packet at the position is over its path's MTU, or the kernel is to be asked whether it still is. DF: it goes, and its
 * sender is told. Otherwise its next segment is put together and cut. Returns 0 when the position has moved or the batch is
 * to be composed anew, -EAGAIN when the socket is full. */
int transmit_send_too_big(struct transmit *t, int64_t now_ns);

#endif
