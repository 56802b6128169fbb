/* transmit_done: see transmit_done.h. */
#include "transmit_done.h"

#include <errno.h>

void transmit_next_packet(struct transmit *t)
{
	t->position.packet++;
	t->position.segment = 0;
	t->cut_done_bytes = 0;
}

void transmit_advance(struct transmit *t, struct transmit_position end)
{
	t->position = end;
	t->cut_done_bytes = 0;
	if (end.segment == t->packets[end.packet].source.count)
		transmit_next_packet(t);
}

void transmit_count_sent(struct transmit *t, struct peer *peer, uint32_t packets, uint32_t bytes, int64_t now_ns)
{
	stats_add(t->stats, STAT_tx_delivered, packets);
	stats_add(t->stats, STAT_tx_bytes, bytes);
	peer_sent(peer, packets, bytes, now_ns);
	lanes_charge(&t->lanes, lanes_share(&t->lanes, peer), 1, bytes);
	if (peer->address_be == t->unsure_be)
		t->unsure_be = 0;
}

void transmit_segment_sent(struct transmit *t, uint32_t bytes, int64_t now_ns)
{
	stats_add(t->stats, STAT_tx_messages, 1);
	stats_add(t->stats, STAT_tx_datagrams, 1);
	transmit_count_sent(t, t->packets[t->position.packet].peer, 1, bytes, now_ns);
	transmit_advance(t, (struct transmit_position){ t->position.packet, t->position.segment + 1 });
}

void transmit_drop_by_errno(struct transmit *t, const struct udp_io *udp, struct peer *peer, int error, uint32_t datagrams,
			    int64_t now_ns)
{
	if (udp->source_be && error == -ENOBUFS) { /* the lane is full, or a qdisc on the way out */
		stats_add(t->stats, STAT_tx_drop_slow_peer, datagrams);
		peer_dropped(peer, datagrams, now_ns);
		return;
	}
	switch (-error) {
	case EMSGSIZE:
		stats_add(t->stats, STAT_tx_drop_too_big, datagrams);
		break;
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
		stats_add(t->stats, STAT_tx_drop_unreachable, datagrams);
		break;
	case EPERM:
	case EACCES:
		stats_add(t->stats, STAT_tx_drop_refused, datagrams);
		break;
	case ENOBUFS:
	case ENOMEM:
		stats_add(t->stats, STAT_tx_drop_no_buffer, datagrams);
		break;
	default:
		stats_error(t->stats, STAT_tx_drop_send_error, -error, datagrams, now_ns);
	}
}
