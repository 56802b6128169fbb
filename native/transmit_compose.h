/* transmit_compose: a batch as messages for the socket.
 *
 * Owns what goes into one message. It must not know what becomes of it. For transmit*.c only.
 */
#ifndef UDPB_TRANSMIT_COMPOSE_H
#define UDPB_TRANSMIT_COMPOSE_H

#include "transmit.h"

/* Bytes that an inner packet of this IP version to the peer may have, where its path is said to take `path_mtu` bytes
 * (UINT32_MAX: nothing is said). No less than is plausible, and for IPv6 no less than IPv6 needs. */
uint32_t transmit_room(uint32_t path_mtu, uint8_t version);

/* Puts segment `index` together at `to`, which has room for the segment and SEGMENT_HEADERS_MAX. Returns its bytes. */
uint32_t transmit_pack(const struct segment_source *source, uint32_t index, uint8_t *to);

/* Makes `runs` and `messages` of what comes after the position: until the batch ends, there is no more room, or a packet
 * does not fit its path. */
void transmit_compose(struct transmit *t, int64_t now_ns);

#endif
