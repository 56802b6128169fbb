/* transmit: see transmit.h.
 *
 * Theory of operation. A batch of packets is read one behind the other into the arena and validated. What is not sent yet
 * is composed into messages (transmit_compose.h), and they go out in one call. The *position* is how far the batch is sent;
 * it moves only when the kernel has taken a message or the datagrams are dropped and counted (transmit_done.h), and after
 * any refusal the rest is composed anew from there. So nothing is sent twice and nothing is lost uncounted.
 *
 * When the socket is full the batch stays, no more is read, and the next attempt looks every packet up again: the table
 * may have been replaced meanwhile, and a peer of an old table must not be touched. A segment over its path's MTU is
 * taken out of the fast path (transmit_path.h).
 */
#include "transmit.h"

#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "transmit_compose.h"
#include "transmit_done.h"
#include "transmit_path.h"

#define DROPPED 1

static const enum stat_id fault_counter[] = {
	[PACKET_SHORT] = STAT_tx_drop_short,
	[PACKET_VERSION] = STAT_tx_drop_version,
	[PACKET_HEADER_LENGTH] = STAT_tx_drop_header_length,
	[PACKET_TOTAL_LENGTH] = STAT_tx_drop_length,
	[PACKET_HEADER_CHECKSUM] = STAT_tx_drop_header_checksum,
};

void transmit_init(struct transmit *t, const struct tun_io *tun, struct udp_io *udp, struct stats *stats,
		   const struct udpb_config *config, uint8_t *arena)
{
	memset(t, 0, sizeof(*t));
	t->tun = tun;
	lanes_init(&t->lanes);
	(void)lanes_add_common(&t->lanes, udp);
	t->stats = stats;
	t->tos_mask = config->copy_dscp ? 0xff : PACKET_ECN_MASK;
	t->arena = arena;
	t->packed = arena + TRANSMIT_READ_BYTES;
	answer_init(&t->answer, tun, stats, config);
}

int transmit_add_socket(struct transmit *t, struct udp_io *udp)
{
	return lanes_add_common(&t->lanes, udp);
}

/* The source port of a packet's flow: by its addresses, and for TCP by its ports. (Fragments but the first have none, and
 * must not overtake each other; those of UDP must stay with the rest of their flow. steer.c does the same for queues.) */
static uint32_t choose_port(const struct transmit *t, const struct packet *p)
{
	const uint8_t *at = p->source, *end = at + (p->version == 4 ? 8 : 32);
	uint32_t hash = 0, word;

	if (t->lanes.ports == 1)
		return 0;
	for (; at < end; at += sizeof(word)) {
		memcpy(&word, at, sizeof(word));
		hash ^= word;
	}
	if (p->protocol == IPPROTO_TCP && !packet_is_fragment(p) && p->length >= p->header_bytes + sizeof(word)) {
		memcpy(&word, p->bytes + p->header_bytes, sizeof(word));
		hash ^= word;
	}
	return (uint32_t)((hash * 0x9e3779b97f4a7c15ULL) >> 32) % t->lanes.ports;
}

/* Segments from the position on. */
static uint32_t unsent(const struct transmit *t)
{
	uint32_t segments = 0;

	for (uint32_t i = t->position.packet; i < t->count; i++)
		segments += t->packets[i].source.count;
	return segments - (segments ? t->position.segment : 0);
}

/* Makes room for the next batch. */
static void end_batch(struct transmit *t)
{
	t->count = t->position.packet = t->position.segment = t->cut_done_bytes = 0;
	t->blocked_since_ns = 0;
	t->alone = 0;
	atomic_store_explicit(&t->in_flight, 0, memory_order_relaxed);
}

static void drop_all(struct transmit *t, enum stat_id counter)
{
	stats_add(t->stats, counter, unsent(t));
	end_batch(t);
}

void transmit_release(struct transmit *t)
{
	drop_all(t, STAT_tx_drop_closed);
	lanes_release(&t->lanes);
}

/* Validates a packet just read and adds it to the batch, or counts it. Returns the arena bytes it keeps. */
static size_t accept_packet(struct transmit *t, uint8_t *bytes, size_t length, const struct virtio_net_hdr *header)
{
	struct transmit_packet *it = &t->packets[t->count];
	struct packet packet;
	enum packet_fault fault = packet_parse(bytes, length, &packet);

	if (fault == PACKET_OK && segment_prepare(&it->source, bytes, &packet, header) == 0) {
		it->port = choose_port(t, &packet);
		it->tos = packet_tos(&packet) & t->tos_mask;
		it->udp = NULL;
		t->count++;
		stats_add(t->stats, STAT_tx_received, it->source.count);
		return (length + TUN_IO_HEADER_BYTES + 63) & ~(size_t)63;
	}
	stats_add(t->stats, STAT_tx_received, 1);
	stats_add(t->stats, fault == PACKET_OK ? STAT_tx_drop_offload : fault_counter[fault], 1);
	return 0;
}

/* Counts what is left of packet `i` of the batch, and takes it out. Returns its segments. */
static uint32_t drop_packet(struct transmit *t, uint32_t i, enum stat_id counter)
{
	struct transmit_packet *it = &t->packets[i];
	uint32_t segments = it->source.count;

	if (i == t->position.packet) {
		segments -= t->position.segment;
		t->position.segment = t->cut_done_bytes = 0;
	}
	it->source.count = 0;
	stats_add(t->stats, counter, segments);
	return segments;
}

/* Finds the peer of every packet not yet sent, and its socket. Those without a peer are answered and counted. */
static void route(struct transmit *t, const struct table *table, int64_t now_ns)
{
	for (uint32_t i = t->position.packet; i < t->count; i++) {
		struct transmit_packet *it = &t->packets[i];
		const struct packet *p = &it->source.packet;
		int local;

		if (it->source.count == 0) /* dropped by an earlier attempt */
			continue;
		it->peer = table_lookup(table, p->version, p->destination, &local);
		if (!it->peer) {
			drop_packet(t, i, packet_is_to_many(p) ? STAT_tx_drop_multicast : STAT_tx_drop_no_route);
			answer_unreachable(&t->answer, p, now_ns);
			continue;
		}
		it->udp = lanes_socket(&t->lanes, lanes_share(&t->lanes, it->peer), it->port, it->udp ? 0 : p->length, now_ns);
		if (!it->udp)
			peer_dropped(it->peer, drop_packet(t, i, STAT_tx_drop_slow_peer), now_ns);
	}
}

/* The first datagram of a run that was refused for its length, by itself: what does it exceed? */
static int ask(struct transmit *t, uint32_t number, int64_t now_ns)
{
	const struct transmit_run *run = &t->runs[number];
	struct iovec first = { .iov_base = t->iov[number].iov_base, .iov_len = run->datagram_bytes };
	int answer;

	while (t->packets[t->position.packet].source.count == 0) /* dropped by an earlier attempt */
		transmit_next_packet(t);
	answer = transmit_ask(t, &t->packets[t->position.packet], &first, 1, now_ns);
	if (answer == TRANSMIT_SENT)
		transmit_segment_sent(t, run->datagram_bytes, now_ns);
	return answer;
}

/* Whether the number of datagrams may be why a message was refused: then fewer are asked for from now on. How many the
 * kernel takes is the socket's knowledge; that the way to a peer takes one at a time only (no checksum offload, xfrm) is
 * the peer's, and is forgotten after a while. Where a datagram alone is refused as well, it was something else; where
 * that happens again and again, each trial would compose all that is left anew, and no other peer gets its turn. */
static bool downgrade(struct transmit *t, const struct transmit_run *run, int error, int64_t now_ns)
{
	if (peer_refuses_all(run->peer, now_ns))
		return false;
	if (udp_io_downgrade(run->udp, run->datagrams, error))
		return true;
	if (run->datagrams > 1 && udp_io_refuses_segments(error)) {
		peer_refuse_segments(run->peer, now_ns + TRANSMIT_SEGMENT_NS);
		t->unsure_be = run->peer->address_be;
		return true;
	}
	if (run->peer->address_be == t->unsure_be) {
		peer_refuse_segments(run->peer, 0);
		t->unsure_be = 0;
		if (++t->alone >= TRANSMIT_ALONE)
			peer_refuse_all(run->peer, now_ns + TRANSMIT_ALONE_NS);
	}
	return false;
}

/* The kernel refused the first message not yet taken. Either the batch is to be composed anew, or its datagrams go.
 * Returns DROPPED when they went and what is composed behind them can be sent as it is, 0 when it is to be composed anew,
 * or -EAGAIN when the socket is full. */
static int refused(struct transmit *t, uint32_t number, int error, int64_t now_ns)
{
	const struct transmit_run *run = &t->runs[number];
	bool unsure = run->peer->address_be == t->unsure_be; /* then what follows was composed one by one for its sake */

	if (downgrade(t, run, error, now_ns)) {
		stats_add(t->stats, STAT_tx_gso_refused, 1);
		return 0;
	}
	if (error == -EMSGSIZE && !run->may_fragment) {
		int answer = ask(t, number, now_ns);

		if (answer == TRANSMIT_SENT || answer == TRANSMIT_LEARNED || answer == -EAGAIN)
			return answer == -EAGAIN ? answer : 0; /* compose stops at the packet now: it is dealt with on its own */
		error = answer;
	}
	transmit_drop_by_errno(t, run->udp, run->peer, error, run->datagrams, now_ns);
	transmit_advance(t, run->end);
	return unsure ? 0 : DROPPED;
}

/* Sends what is composed. Returns 0 when all is dealt with or to be composed anew, -EAGAIN when the socket is full. */
static int send_runs(struct transmit *t, int64_t now_ns)
{
	uint32_t done = 0;

	while (done < t->runs_count) {
		struct udp_io *udp = t->runs[done].udp;
		uint32_t end = done + 1;
		int sent;

		while (end < t->runs_count && t->runs[end].udp == udp && t->runs[end].may_fragment == t->runs[done].may_fragment)
			end++;
		sent = udp_io_send(udp, &t->messages[done], end - done, t->runs[done].may_fragment);
		if (sent < 0 && sent != -EAGAIN) {
			sent = refused(t, done, sent, now_ns);
			if (sent == DROPPED) {
				done++;
				continue;
			}
		}
		if (sent == -EAGAIN)
			t->full_fd = udp->fd;
		if (sent <= 0)
			return sent;
		for (; sent > 0; sent--, done++) {
			const struct transmit_run *run = &t->runs[done];

			stats_add(t->stats, STAT_tx_messages, 1);
			stats_add(t->stats, STAT_tx_datagrams, run->datagrams);
			transmit_count_sent(t, run->peer, run->datagrams, run->bytes, now_ns);
			transmit_advance(t, run->end);
		}
	}
	return 0;
}

/* Looks up and sends all of the batch that is not sent yet; what the socket does not take stays. */
static void dispatch(struct transmit *t, const struct table *table, int64_t now_ns)
{
	uint32_t cut_before = t->cut_done_bytes;
	uint32_t left;
	int error = 0;

	route(t, table, now_ns);
	while (error == 0 && t->position.packet < t->count) {
		const struct transmit_packet *it = &t->packets[t->position.packet];

		if (t->position.segment == it->source.count) {
			transmit_next_packet(t);
			continue;
		}
		transmit_compose(t, now_ns);
		error = t->runs_count > 0 ? send_runs(t, now_ns) : transmit_send_too_big(t, now_ns);
	}
	if (error == 0) {
		end_batch(t);
		return;
	}
	left = unsent(t);
	if (t->blocked_since_ns == 0 || left != atomic_load_explicit(&t->in_flight, memory_order_relaxed) ||
	    cut_before != t->cut_done_bytes)
		t->blocked_since_ns = now_ns;
	atomic_store_explicit(&t->in_flight, left, memory_order_relaxed);
}

int transmit_batch(struct transmit *t, const struct table *table, int64_t now_ns)
{
	size_t used = 64; /* packets begin at multiples of it, behind room for a header */
	int reads = 0;
	ssize_t length = 0;

	while (reads < TRANSMIT_PACKETS && used < TRANSMIT_BATCH_BYTES) {
		struct virtio_net_hdr header;

		length = tun_io_read(t->tun, &header, t->arena + used, 65536);
		if (length < 0)
			break;
		reads++;
		stats_add(t->stats, STAT_tx_reads, 1);
		used += accept_packet(t, t->arena + used, (size_t)length, &header);
	}
	if (t->count > 0)
		dispatch(t, table, now_ns);
	return length < 0 && tun_io_is_gone((int)length) ? (int)length : reads;
}

void transmit_resume(struct transmit *t, const struct table *table, int64_t now_ns)
{
	dispatch(t, table, now_ns);
	if (!transmit_blocked(t) || now_ns - t->blocked_since_ns < TRANSMIT_STALL_NS)
		return;
	for (uint32_t i = t->position.packet; i < t->count; i++)
		if (t->packets[i].source.count > 0)
			peer_dropped(t->packets[i].peer, drop_packet(t, i, STAT_tx_drop_socket_full), now_ns);
	end_batch(t);
}
