/* transmit_path: what does not fit the path to its peer: learning the path's MTU, answering, cutting.
 *
 * Owns the way of a packet that has left the fast path for its length. It must not know how messages are composed.
 */
#include "transmit.h"

#include <errno.h>
#include <netinet/in.h>

bool transmit_learn_path_mtu(struct transmit *t, struct peer *peer, uint32_t bytes, int64_t now_ns)
{
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = peer->port_be,
		.sin_addr.s_addr = peer->address_be,
	};
	int mtu = t->udp[0]->path_mtu(t->local_address_be, &address);

	if (mtu <= UDP_IO_OVERHEAD_BYTES || (uint32_t)mtu >= bytes + UDP_IO_OVERHEAD_BYTES)
		return false;
	peer_learn_path_mtu(peer, (uint32_t)mtu, now_ns + TRANSMIT_PATH_MTU_NS);
	stats_add(t->stats, STAT_tx_path_mtu_learned, 1);
	return true;
}

static int send_fragment(const struct transmit_packet *it, struct packet_fragment *fragment)
{
	const struct peer *peer = it->peer;
	struct sockaddr_in address = {
		.sin_family = AF_INET,
		.sin_port = peer->port_be,
		.sin_addr.s_addr = peer->address_be,
	};
	struct iovec iov[2] = {
		{ .iov_base = fragment->header, .iov_len = fragment->header_bytes },
		{ .iov_base = (void *)(uintptr_t)fragment->payload, .iov_len = fragment->payload_bytes },
	};
	struct mmsghdr message = { .msg_hdr = {
		.msg_name = &address,
		.msg_namelen = sizeof(address),
		.msg_iov = iov,
		.msg_iovlen = 2,
	} };

	union udp_io_control control;

	udp_io_set_about(&message.msg_hdr, &control, (struct udp_io_about){ .tos = it->tos });
	return udp_io_send(it->udp, &message, 1);
}

/* Sends a packet as fragments. Returns 0 when it is dealt with, -EAGAIN when the socket is full; how far it got is then
 * remembered. One call a fragment: this is not the fast path. */
static int send_cut(struct transmit *t, const struct transmit_packet *it, const struct packet *p, int64_t now_ns)
{
	struct peer *peer = it->peer;
	struct packet_fragment fragment;
	int more, error = 0;
	uint32_t done;

	if (t->cut_address_be != peer->address_be) /* the prefix has changed hands, and its new peer has seen nothing yet */
		t->cut_done_bytes = 0;
	t->cut_address_be = peer->address_be;
	done = t->cut_done_bytes;
	while ((more = packet_next_fragment(p, transmit_room(peer, now_ns), &done, &fragment)) == 1) {
		error = send_fragment(it, &fragment);
		if (error == -EAGAIN) {
			t->full_fd = it->udp->fd;
			return error;
		}
		if (error == -EMSGSIZE && transmit_learn_path_mtu(t, peer, fragment.header_bytes + fragment.payload_bytes, now_ns)) {
			done = t->cut_done_bytes;
			continue;
		}
		if (error < 0)
			break;
		stats_add(t->stats, STAT_tx_messages, 1);
		stats_add(t->stats, STAT_tx_datagrams, 1);
		t->cut_done_bytes = done;
	}
	t->cut_done_bytes = 0;
	if (more == 0) {
		transmit_count_sent(t, peer, 1, p->length);
		stats_add(t->stats, STAT_tx_fragmented, 1);
	} else if (more < 0 || error == -EMSGSIZE) {
		stats_add(t->stats, STAT_tx_drop_too_big, 1);
	} else {
		transmit_drop_by_errno(t, error, 1);
	}
	return 0;
}

int transmit_send_too_big(struct transmit *t, int64_t now_ns)
{
	struct transmit_packet *it = &t->packets[t->position.packet];
	uint32_t room = transmit_room(it->peer, now_ns);
	struct packet packet;
	uint32_t bytes;
	int error = 0;

	if (it->source.packet.dont_fragment) {
		stats_add(t->stats, STAT_tx_drop_too_big, it->source.count - t->position.segment);
		answer_too_big(&t->answer, &it->source.packet, room, now_ns);
		transmit_next_packet(t);
		return 0;
	}
	bytes = transmit_pack(&it->source, t->position.segment, t->packed);
	if (packet_parse(t->packed, bytes, &packet) == PACKET_OK)
		error = send_cut(t, it, &packet, now_ns);
	else
		stats_add(t->stats, STAT_tx_drop_offload, 1);
	if (error == 0 && ++t->position.segment == it->source.count)
		transmit_next_packet(t);
	return error;
}
