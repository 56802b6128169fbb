/* transmit_compose: see transmit_compose.h.
 *
 * Theory of operation. From the position on, every segment becomes a datagram: headers of its own, and its payload behind
 * them. Neighbours of one size to one peer and with one ECN field, whatever packet or flow they come from, join into a
 * *run*: one message, cut by the kernel (UDP_SEGMENT). A shorter datagram ends its run. So the tail of a super-packet that
 * is too long for one message begins the next packet's run, and many small packets leave as one message.
 *
 * The datagrams stand one behind the other, so that a message is one piece. To leave the payload where it was read spares
 * a copy within the cache (1.2 us for 64 KB) and costs more than it spares: the kernel then copies from 88 pieces into
 * memory that another processor has last used, and where two pieces meet in a cache line it has to fetch that line first.
 */
#include "transmit_compose.h"

#include <string.h>

uint32_t transmit_room(uint32_t path_mtu, uint8_t version)
{
	uint32_t room;

	if (path_mtu == UINT32_MAX)
		return path_mtu;
	room = peer_plausible_mtu(path_mtu) - UDP_IO_OVERHEAD_BYTES;
	return version == 6 && room < TRANSMIT_IPV6_LEAST_BYTES ? TRANSMIT_IPV6_LEAST_BYTES : room;
}

/* Whether a packet's segments can leave as they are. What is too long for the path as it is said to be, but short enough
 * to leave all the same, has the kernel asked from time to time, too. */
static bool passes(const struct transmit_packet *it, uint32_t path_mtu, int64_t now_ns)
{
	uint32_t bytes = segment_longest(&it->source);

	if (path_mtu == UINT32_MAX || bytes + UDP_IO_OVERHEAD_BYTES <= path_mtu)
		return true;
	return bytes <= transmit_room(path_mtu, it->source.packet.version) && !peer_path_mtu_is_old(it->peer, now_ns);
}

/* Begins a run with the datagram of this length that has been put there. */
static struct transmit_run *begin_run(struct transmit *t, const struct transmit_packet *it, uint32_t bytes, uint8_t *at,
				      int64_t now_ns)
{
	const struct peer *peer = it->peer;
	uint32_t number = t->runs_count++;
	struct transmit_run *run = &t->runs[number];

	*run = (struct transmit_run){
		.peer = it->peer,
		.udp = it->udp,
		.tos = it->tos,
		.datagram_bytes = bytes,
		.segments_max = peer_refuses_segments(peer, now_ns) ? 1 : it->udp->segments_max,
	};
	t->iov[number].iov_base = at;
	t->addresses[number] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = peer->port_be,
		.sin_addr.s_addr = peer->address_be,
	};
	return run;
}

/* Whether a datagram can be the run's next: its predecessors are all of one length, and it is no longer. */
static int joins(const struct transmit_run *run, const struct transmit_packet *it, uint32_t bytes)
{
	return run && !run->may_fragment && run->peer == it->peer && run->udp == it->udp && run->tos == it->tos &&
	       bytes <= run->datagram_bytes &&
	       run->datagrams < run->segments_max &&
	       run->bytes == run->datagrams * run->datagram_bytes && run->bytes + bytes <= UDP_IO_RUN_BYTES;
}

uint32_t transmit_pack(const struct segment_source *source, uint32_t index, uint8_t *to)
{
	struct segment segment;

	segment_make(source, index, to, &segment);
	memcpy(to + segment.headers_bytes, segment.payload, segment.payload_bytes);
	return segment.headers_bytes + segment.payload_bytes;
}

static void finish_messages(struct transmit *t)
{
	for (uint32_t i = 0; i < t->runs_count; i++) {
		const struct transmit_run *run = &t->runs[i];

		t->messages[i] = (struct mmsghdr){ .msg_hdr = {
			.msg_name = &t->addresses[i],
			.msg_namelen = sizeof(t->addresses[i]),
			.msg_iov = &t->iov[i],
			.msg_iovlen = 1,
		} };
		t->iov[i].iov_len = run->bytes;
		udp_io_set_about(&t->messages[i].msg_hdr, &t->controls[i], (struct udp_io_about){
			.segment_bytes = run->datagrams > 1 ? run->datagram_bytes : 0,
			.tos = run->tos,
			.source_be = run->udp->source_be,
		});
	}
}

void transmit_compose(struct transmit *t, int64_t now_ns)
{
	struct transmit_position at = t->position;
	struct transmit_run *run = NULL;
	uint32_t path_mtu;

	t->runs_count = t->datagrams_count = t->packed_bytes = 0;
	for (; at.packet < t->count && t->datagrams_count < TRANSMIT_DATAGRAMS; at.packet++, at.segment = 0) {
		const struct transmit_packet *it = &t->packets[at.packet];

		if (it->source.count == 0)
			continue;
		path_mtu = peer_path_mtu(it->peer, now_ns);
		if (!passes(it, path_mtu, now_ns))
			break;
		while (at.segment < it->source.count && t->datagrams_count < TRANSMIT_DATAGRAMS) {
			uint8_t *to = t->packed + t->packed_bytes;
			uint32_t bytes = transmit_pack(&it->source, at.segment, to);

			bool may_fragment = path_mtu != UINT32_MAX && bytes + UDP_IO_OVERHEAD_BYTES > path_mtu;

			if (may_fragment || !joins(run, it, bytes)) {
				run = begin_run(t, it, bytes, to, now_ns);
				run->may_fragment = may_fragment;
			}
			t->datagrams_count++;
			t->packed_bytes += bytes;
			run->datagrams++;
			run->bytes += bytes;
			at.segment++;
			run->end = at;
		}
		if (at.segment < it->source.count)
			break;
	}
	finish_messages(t);
}
