/* transmit_path: see transmit_path.h. */
#include "transmit_path.h"

#include <errno.h>

#include "transmit_compose.h"
#include "transmit_done.h"

/* Remembers what the kernel says of the path. */
static void learn(struct transmit *t, struct peer *peer, uint32_t mtu, int64_t now_ns)
{
	if (peer_path_mtu(peer, now_ns) != mtu) {
		stats_add(t->stats, STAT_tx_path_mtu_learned, 1);
		if (mtu != peer_plausible_mtu(mtu))
			stats_add(t->stats, STAT_tx_path_mtu_doubted, 1);
	}
	peer_learn_path_mtu(peer, mtu, now_ns + TRANSMIT_PATH_MTU_NS);
}

/* A datagram of its own, made of these pieces. */
static struct mmsghdr message_of(const struct transmit_packet *it, struct iovec *pieces, size_t count,
				 struct sockaddr_in *address, union udp_io_control *control)
{
	struct mmsghdr message = { .msg_hdr = {
		.msg_name = address,
		.msg_namelen = sizeof(*address),
		.msg_iov = pieces,
		.msg_iovlen = count,
	} };

	*address = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = it->peer->port_be,
		.sin_addr.s_addr = it->peer->address_be,
	};
	udp_io_set_about(&message.msg_hdr, control, (struct udp_io_about){ .tos = it->tos, .source_be = it->udp->source_be });
	return message;
}

static uint32_t outer_bytes(const struct iovec *pieces, size_t count)
{
	uint32_t bytes = UDP_IO_OVERHEAD_BYTES;

	for (size_t i = 0; i < count; i++)
		bytes += (uint32_t)pieces[i].iov_len;
	return bytes;
}

int transmit_ask(struct transmit *t, const struct transmit_packet *it, struct iovec *pieces, size_t count, int64_t now_ns)
{
	union udp_io_control control;
	struct sockaddr_in address;
	struct mmsghdr message = message_of(it, pieces, count, &address, &control);
	int answer = udp_io_ask(it->udp, &message.msg_hdr);

	if (answer == -EAGAIN)
		return answer;
	peer_path_mtu_asked(it->peer, now_ns + TRANSMIT_PATH_MTU_ASK_NS);
	if (answer <= 0)
		return answer;
	if ((uint32_t)answer >= outer_bytes(pieces, count))
		return -EMSGSIZE; /* it is refused for another reason, then */
	learn(t, it->peer, (uint32_t)answer, now_ns);
	return TRANSMIT_LEARNED;
}

/* Returns 0, TRANSMIT_LEARNED where the fragment is not sent and the path is known better now, or -errno. */
static int send_fragment(struct transmit *t, const struct transmit_packet *it, struct packet_fragment *fragment,
			 int64_t now_ns)
{
	struct iovec pieces[2] = {
		{ .iov_base = fragment->header, .iov_len = fragment->header_bytes },
		{ .iov_base = (void *)(uintptr_t)fragment->payload, .iov_len = fragment->payload_bytes },
	};
	union udp_io_control control;
	struct sockaddr_in address;
	struct mmsghdr message = message_of(it, pieces, 2, &address, &control);
	bool may_fragment = outer_bytes(pieces, 2) > peer_path_mtu(it->peer, now_ns);
	int error = udp_io_send(it->udp, &message, 1, may_fragment);

	if (error == -EMSGSIZE && !may_fragment)
		return transmit_ask(t, it, pieces, 2, now_ns);
	return error < 0 ? error : 0;
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
	while ((more = packet_next_fragment(p, transmit_room(peer_path_mtu(peer, now_ns), 4), &done, &fragment)) == 1) {
		error = send_fragment(t, it, &fragment, now_ns);
		if (error == -EAGAIN) {
			t->full_fd = it->udp->fd;
			return error;
		}
		if (error == TRANSMIT_LEARNED) {
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
		transmit_count_sent(t, peer, 1, p->length, now_ns);
		stats_add(t->stats, STAT_tx_fragmented, 1);
	} else {
		transmit_drop_by_errno(t, it->udp, peer, more < 0 ? -EMSGSIZE : error, 1, now_ns);
	}
	return 0;
}

/* Sends the segment at the position whole, with DF: what the kernel says now is what it knows now. */
static int ask_again(struct transmit *t, const struct transmit_packet *it, int64_t now_ns)
{
	uint32_t bytes = transmit_pack(&it->source, t->position.segment, t->packed);
	struct iovec whole = { .iov_base = t->packed, .iov_len = bytes };
	int answer = transmit_ask(t, it, &whole, 1, now_ns);

	if (answer == TRANSMIT_SENT) {
		if (bytes + UDP_IO_OVERHEAD_BYTES > peer_path_mtu(it->peer, now_ns)) /* not just a shorter last segment */
			peer_forget_path_mtu(it->peer);
		transmit_segment_sent(t, bytes, now_ns);
	}
	return answer;
}

int transmit_send_too_big(struct transmit *t, int64_t now_ns)
{
	struct transmit_packet *it = &t->packets[t->position.packet];
	struct packet packet;
	uint32_t room, bytes;
	int error = 0;

	if (peer_path_mtu_is_old(it->peer, now_ns)) {
		error = ask_again(t, it, now_ns);
		if (error == TRANSMIT_SENT)
			return 0;
		if (error == -EAGAIN) {
			t->full_fd = it->udp->fd;
			return error;
		}
		error = 0;
	}
	room = transmit_room(peer_path_mtu(it->peer, now_ns), it->source.packet.version);
	if (segment_longest(&it->source) <= room)
		return 0;
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
