/* receive: see receive.h.
 *
 * Theory of operation. A message is one datagram or, with UDP_GRO, several of one length. Each datagram is let in when it
 * is one whole packet, when its inner source address can be a host's and is not ours, and when the source check holds.
 * A mark of congestion that was made on the way is carried over into it (RFC 6040). The common case costs
 * no lookup (the source is the one let in before) or one: the owner of the inner source's prefix is the peer the datagram
 * came from. Only when that fails is the outer address looked up, to tell a stranger from a peer that sends what it should
 * not. What passes is coalesced over the whole batch and written to the TUN (receive_write.h). Every datagram ends in exactly
 * one of rx_delivered and the rx_drop counters.
 */
#include "receive.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "bytes.h"
#include "receive_write.h"

#define PASSES (-1) /* no counter's number */
#define IP6_BYTES 40

static const enum stat_id fault_counter[] = {
	[PACKET_SHORT] = STAT_rx_drop_short,
	[PACKET_VERSION] = STAT_rx_drop_version,
	[PACKET_HEADER_LENGTH] = STAT_rx_drop_header_length,
	[PACKET_TOTAL_LENGTH] = STAT_rx_drop_length,
	[PACKET_HEADER_CHECKSUM] = STAT_rx_drop_header_checksum,
};

void receive_init(struct receive *r, struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		  const struct udpb_config *config, uint8_t *arena)
{
	memset(r, 0, sizeof(*r));
	r->tun = tun;
	r->udp = udp;
	r->stats = stats;
	r->source_check = config->source_check;
	r->wanted = RECEIVE_MESSAGES;
	for (size_t i = 0; i < RECEIVE_MESSAGES; i++) {
		r->iov[i].iov_base = arena + i * RECEIVE_SLOT_BYTES + RECEIVE_HEADROOM;
		r->iov[i].iov_len = RECEIVE_SLOT_BYTES - RECEIVE_HEADROOM;
		r->messages[i].msg_hdr.msg_name = &r->names[i];
		r->messages[i].msg_hdr.msg_iov = &r->iov[i];
		r->messages[i].msg_hdr.msg_iovlen = 1;
		r->messages[i].msg_hdr.msg_control = r->controls[i].bytes;
	}
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

static bool remembered(const struct receive_memory *m, const struct packet *p, uint32_t outer_be)
{
	return m->version == p->version && m->outer_be == outer_be &&
	       memcmp(m->source, p->source, p->version == 4 ? 4 : 16) == 0;
}

static void remember(struct receive_memory *m, const struct packet *p, uint32_t outer_be, struct peer *peer)
{
	memcpy(m->source, p->source, p->version == 4 ? 4 : 16);
	m->version = p->version;
	m->outer_be = outer_be;
	m->peer = peer;
}

/* The counter that a datagram is dropped under, or PASSES. A stranger is called a stranger whatever it sent. */
static int judge(struct receive *r, const struct table *table, const uint8_t *bytes, size_t length, uint32_t outer_be,
		 struct packet *packet, struct peer **peer)
{
	enum packet_fault fault = packet_parse(bytes, length, packet);
	int verdict;

	if (!fault && remembered(&r->memory, packet, outer_be)) {
		*peer = r->memory.peer;
		return PASSES;
	}
	verdict = fault ? (int)fault_counter[fault] : check_source(r, table, packet, outer_be, peer);
	if (r->source_check != UDPB_SOURCE_OFF && (verdict != PASSES || !*peer) && !peer_map_find(table->peers, outer_be))
		return STAT_rx_drop_unknown_peer;
	if (verdict == PASSES)
		remember(&r->memory, packet, outer_be, *peer);
	return verdict;
}

/* Whether a message of several datagrams, as the socket says, is one packet, as its header says: a super-packet of UDP that
 * a kernel's tunnel has sent over a virtual link. The kernel then tells the size of the datagrams inside (linux/net/ipv4/
 * udp.c, udp_cmsg_recv), and to cut there would make packets of a stranger's payload. */
static bool is_one_packet(const uint8_t *bytes, uint32_t length)
{
	if (length < PACKET_MIN_BYTES)
		return false;
	if (bytes[0] >> 4 == 6)
		return ntohs(load16(bytes + 4)) + (uint32_t)IP6_BYTES == length;
	return bytes[0] >> 4 == 4 && ntohs(load16(bytes + 2)) == length;
}

/* Takes one message apart. Returns 0 or the error by which the TUN is gone. */
static int take_message(struct receive *r, const struct table *table, struct mmsghdr *message, int64_t now_ns)
{
	const struct sockaddr_in *name = message->msg_hdr.msg_name;
	uint8_t *bytes = message->msg_hdr.msg_iov->iov_base;
	const struct udp_io_about about = udp_io_get_about(&message->msg_hdr);
	uint8_t ecn = about.tos & PACKET_ECN_MASK;
	uint32_t left = message->msg_len, segment = about.segment_bytes;
	uint32_t good_packets = 0, good_bytes = 0;
	struct peer *sender = NULL;
	uint16_t told = 0;
	int gone = 0;

	if (segment > 0 && segment < left && is_one_packet(bytes, left)) {
		told = (uint16_t)segment;
		segment = 0;
	}
	do { /* once for an empty datagram, too */
		uint32_t length = segment > 0 && segment < left ? segment : left;
		struct peer *peer = NULL;
		struct packet packet;
		int verdict = judge(r, table, bytes, length, name->sin_addr.s_addr, &packet, &peer);

		if (verdict == PASSES && ecn != PACKET_NOT_ECT && !packet_take_ecn(&packet, bytes, ecn))
			verdict = STAT_rx_drop_ecn;
		stats_add(r->stats, STAT_rx_received, 1);
		if (verdict == PASSES) {
			if (coalesce_full(&r->coalesce)) {
				int error = receive_write(r);

				gone = error ? error : gone;
			}
			coalesce_add(&r->coalesce, &packet, told);
			sender = peer;
			good_packets++;
			good_bytes += length;
		} else {
			stats_add(r->stats, (enum stat_id)verdict, 1);
		}
		bytes += length;
		left -= length;
	} while (left > 0);
	/* One message comes from one address, so its packets have one sender. */
	if (sender)
		peer_heard(sender, good_packets, good_bytes, now_ns);
	return gone;
}

/* Many small messages, or few large ones: by what the last batch was like. */
static void adapt(struct receive *r, uint32_t count, uint32_t bytes)
{
	uint32_t wanted = RECEIVE_BATCH_BYTES / (bytes / count + 1);
	uint32_t most = RECEIVE_BATCH_WRITES * count / (r->written + 1);

	wanted = most < wanted ? most : wanted;
	r->wanted = wanted > RECEIVE_MESSAGES ? RECEIVE_MESSAGES : wanted < 2 ? 2 : wanted;
}

int receive_batch(struct receive *r, const struct table *table, int64_t now_ns)
{
	uint32_t bytes = 0;
	int count, error, gone = 0;

	r->now_ns = now_ns;
	for (size_t i = 0; i < r->wanted; i++) {
		r->messages[i].msg_hdr.msg_namelen = sizeof(r->names[i]);
		r->messages[i].msg_hdr.msg_controllen = sizeof(r->controls[i]);
	}
	count = udp_io_receive(r->udp, r->messages, r->wanted);
	if (count <= 0) {
		if (count < 0 && count != -EAGAIN)
			stats_error(r->stats, STAT_rx_socket_errors, -count, 1, now_ns);
		return 0;
	}
	r->memory.version = 0;
	r->written = 0;
	r->coalesce.mtu = r->tun->mtu;
	r->coalesce.kinds = (r->tun->offloads & UDPB_OFFLOAD_TCP_COALESCE ? COALESCE_TCP : 0) |
			    (r->tun->offloads & UDPB_OFFLOAD_UDP_COALESCE ? COALESCE_UDP : 0);
	coalesce_reset(&r->coalesce);
	stats_add(r->stats, STAT_rx_messages, (uint64_t)count);
	for (int i = 0; i < count; i++) {
		error = take_message(r, table, &r->messages[i], now_ns);
		gone = error ? error : gone;
		bytes += r->messages[i].msg_len;
	}
	error = receive_write(r);
	gone = error ? error : gone;
	adapt(r, (uint32_t)count, bytes);
	return gone ? gone : count;
}
