/* transmit_compose: a batch as messages for the socket.
 *
 * Theory of operation. From the position on, every segment becomes a datagram: headers of its own in front of payload that
 * stays where it was read. Neighbours of one size to one peer, whatever packet or flow they come from, join into a *run*:
 * one message, cut by the kernel (UDP_SEGMENT). A shorter datagram ends its run. So the tail of a super-packet that is too
 * long for one message begins the next packet's run, and many small packets leave as one message.
 *
 * Owns the composing of struct transmit and nothing of its sending.
 */
#include "transmit.h"

uint32_t transmit_room(const struct peer *peer, int64_t now_ns)
{
	uint32_t mtu = peer_path_mtu(peer, now_ns);

	return mtu == UINT32_MAX ? mtu : mtu - UDP_IO_OVERHEAD_BYTES;
}

/* Begins a run with a datagram of this length. */
static struct transmit_run *begin_run(struct transmit *t, const struct transmit_packet *it, uint32_t bytes)
{
	const struct peer *peer = it->peer;
	uint32_t number = t->runs_count++;
	struct transmit_run *run = &t->runs[number];

	*run = (struct transmit_run){
		.peer = it->peer,
		.udp = it->udp,
		.datagram_bytes = bytes,
		.first_iov = t->iov_count,
	};
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
	return run && run->peer == it->peer && run->udp == it->udp && bytes <= run->datagram_bytes &&
	       run->datagrams < run->udp->segments_max &&
	       run->bytes == run->datagrams * run->datagram_bytes && run->bytes + bytes <= UDP_IO_RUN_BYTES;
}

static void add_slices(struct transmit *t, const struct segment *segment)
{
	if (segment->headers_bytes > 0)
		t->iov[t->iov_count++] = (struct iovec){
			.iov_base = t->headers[t->datagrams_count],
			.iov_len = segment->headers_bytes,
		};
	t->iov[t->iov_count++] = (struct iovec){
		.iov_base = (void *)(uintptr_t)segment->payload,
		.iov_len = segment->payload_bytes,
	};
	t->datagrams_count++;
}

static void finish_messages(struct transmit *t)
{
	for (uint32_t i = 0; i < t->runs_count; i++) {
		const struct transmit_run *run = &t->runs[i];
		uint32_t end = i + 1 < t->runs_count ? t->runs[i + 1].first_iov : t->iov_count;

		t->messages[i] = (struct mmsghdr){ .msg_hdr = {
			.msg_name = &t->addresses[i],
			.msg_namelen = sizeof(t->addresses[i]),
			.msg_iov = &t->iov[run->first_iov],
			.msg_iovlen = end - run->first_iov,
		} };
		if (run->datagrams > 1)
			udp_io_set_segment(&t->messages[i].msg_hdr, &t->controls[i], (uint16_t)run->datagram_bytes);
	}
}

void transmit_compose(struct transmit *t, int64_t now_ns)
{
	struct transmit_position at = t->position;
	struct transmit_run *run = NULL;

	t->runs_count = t->datagrams_count = t->iov_count = 0;
	for (; at.packet < t->count && t->datagrams_count < TRANSMIT_DATAGRAMS; at.packet++, at.segment = 0) {
		const struct transmit_packet *it = &t->packets[at.packet];

		if (it->source.count == 0)
			continue;
		if (segment_longest(&it->source) > transmit_room(it->peer, now_ns))
			break;
		while (at.segment < it->source.count && t->datagrams_count < TRANSMIT_DATAGRAMS) {
			struct segment segment;
			uint32_t bytes;

			segment_make(&it->source, at.segment, t->headers[t->datagrams_count], &segment);
			bytes = segment.headers_bytes + segment.payload_bytes;
			if (!joins(run, it, bytes))
				run = begin_run(t, it, bytes);
			add_slices(t, &segment);
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
