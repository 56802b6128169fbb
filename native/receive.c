/* receive: see receive.h.
 *
 * Theory of operation. A datagram is let in when it is one whole packet, when its inner source address can be a host's
 * and is not ours, and when the source check holds. The common case costs one lookup: the owner of the inner source's
 * prefix is the peer whose address the datagram came from. Only when that fails is the outer address looked up, to tell
 * a stranger from a peer that sends what it should not. Every datagram ends in exactly one of rx_delivered and the
 * rx_drop counters.
 */
#include "receive.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

#define SLOT_BYTES (65536 + 192) /* see transmit.c */
#define PASSES (-1)               /* no counter's number */

static const enum stat_id fault_counter[] = {
	[PACKET_SHORT] = STAT_rx_drop_short,
	[PACKET_VERSION] = STAT_rx_drop_version,
	[PACKET_HEADER_LENGTH] = STAT_rx_drop_header_length,
	[PACKET_TOTAL_LENGTH] = STAT_rx_drop_length,
	[PACKET_HEADER_CHECKSUM] = STAT_rx_drop_header_checksum,
};

int receive_init(struct receive *r, const struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		 uint32_t source_check)
{
	void *arena = mmap(NULL, (size_t)SLOT_BYTES * RECEIVE_BATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (arena == MAP_FAILED)
		return -ENOMEM;
	memset(r, 0, sizeof(*r));
	r->tun = tun;
	r->udp = udp;
	r->stats = stats;
	r->source_check = source_check;
	r->arena = arena;
	for (size_t i = 0; i < RECEIVE_BATCH; i++) {
		r->iov[i] = (struct iovec){ .iov_base = r->arena + i * SLOT_BYTES, .iov_len = SLOT_BYTES };
		r->messages[i].msg_hdr.msg_name = &r->names[i];
		r->messages[i].msg_hdr.msg_iov = &r->iov[i];
		r->messages[i].msg_hdr.msg_iovlen = 1;
	}
	return 0;
}

void receive_release(struct receive *r)
{
	munmap(r->arena, (size_t)SLOT_BYTES * RECEIVE_BATCH);
}

/* What is wrong with a packet's inner source: the counter, or PASSES. *peer is set to its sender where that is known. */
static int check_source(const struct receive *r, const struct table *table, const struct packet *p, uint32_t outer_be,
			struct peer **peer)
{
	int local;

	if (packet_source_is_martian(p))
		return STAT_rx_drop_martian_source;
	*peer = table_lookup(table, p->version, p->source, &local);
	/* flannel0 has accept_local set, so that our ICMP errors pass: nothing but us keeps the kernel from believing this. */
	if (local)
		return STAT_rx_drop_own_source;
	if (*peer && (*peer)->address_be == outer_be)
		return PASSES;
	*peer = peer_map_find(table->peers, outer_be);
	return r->source_check == UDPB_SOURCE_SUBNET ? STAT_rx_drop_inner_source : PASSES;
}

/* The counter that a datagram is dropped under, or PASSES. A stranger is called a stranger whatever it sent. */
static int judge(const struct receive *r, const struct table *table, const uint8_t *bytes, size_t length, uint32_t outer_be,
		 struct peer **peer)
{
	struct packet packet;
	enum packet_fault fault = packet_parse(bytes, length, &packet);
	int verdict = fault ? (int)fault_counter[fault] : check_source(r, table, &packet, outer_be, peer);
	int may_be_stranger = verdict != PASSES || !*peer;

	if (r->source_check != UDPB_SOURCE_OFF && may_be_stranger && !peer_map_find(table->peers, outer_be))
		return STAT_rx_drop_unknown_peer;
	return verdict;
}

static void count_write_error(struct receive *r, int error)
{
	switch (-error) {
	case EIO: /* not up (linux/drivers/net/tun.c, tun_get_user) */
		stats_add(r->stats, STAT_rx_drop_tun_down, 1);
		break;
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		stats_add(r->stats, STAT_rx_drop_tun_full, 1);
		break;
	default:
		if (tun_io_is_gone(error))
			stats_add(r->stats, STAT_rx_drop_tun_down, 1);
		else
			stats_error(r->stats, STAT_rx_drop_tun_refused, -error);
	}
}

/* One datagram. Returns 0 or the -errno of the write. */
static int deliver(struct receive *r, const struct table *table, const uint8_t *bytes, size_t length, uint32_t outer_be,
		   int64_t now_ns)
{
	struct peer *peer = NULL;
	int verdict = judge(r, table, bytes, length, outer_be, &peer);
	int error;

	if (verdict != PASSES) {
		stats_add(r->stats, (enum stat_id)verdict, 1);
		return 0;
	}
	error = tun_io_write(r->tun, bytes, length);
	if (error) {
		count_write_error(r, error);
		return error;
	}
	stats_add(r->stats, STAT_rx_delivered, 1);
	stats_add(r->stats, STAT_rx_bytes, length);
	if (peer)
		peer_heard(peer, 1, length, now_ns);
	return 0;
}

int receive_batch(struct receive *r, const struct table *table, int64_t now_ns)
{
	int count, gone = 0;

	for (size_t i = 0; i < RECEIVE_BATCH; i++)
		r->messages[i].msg_hdr.msg_namelen = sizeof(r->names[i]);
	count = udp_io_receive(r->udp, r->messages, RECEIVE_BATCH);
	if (count < 0) {
		if (count != -EAGAIN)
			stats_error(r->stats, STAT_rx_socket_errors, -count);
		return 0;
	}
	stats_add(r->stats, STAT_rx_received, (uint64_t)count);
	for (int i = 0; i < count; i++) {
		int error = deliver(r, table, r->iov[i].iov_base, r->messages[i].msg_len, r->names[i].sin_addr.s_addr, now_ns);

		if (error && tun_io_is_gone(error))
			gone = error;
	}
	return gone ? gone : count;
}
