/* transmit: see transmit.h.
 *
 * Theory of operation. A batch is read into arena slots and validated; what passes *waits*. `dispatch` then looks up the
 * peer of every waiting packet and hands them to the socket in order. Normally all leave at once. When the socket is full
 * the rest goes on waiting, no more is read, and the next attempt looks every packet up again: the table may have been
 * replaced meanwhile, and a peer of an old table must not be touched. Every packet read ends in exactly one of
 * tx_delivered and the tx_drop counters.
 */
#include "transmit.h"

#include <errno.h>
#include <string.h>
#include <sys/mman.h>

/* 64 KB and a little: slots of an exact power of two would all start in the same cache set. */
#define SLOT_BYTES (65536 + 192)

#define ICMP_PER_SECOND 100
#define ICMP_BURST 50

static const enum stat_id fault_counter[] = {
	[PACKET_SHORT] = STAT_tx_drop_short,
	[PACKET_VERSION] = STAT_tx_drop_version,
	[PACKET_HEADER_LENGTH] = STAT_tx_drop_header_length,
	[PACKET_TOTAL_LENGTH] = STAT_tx_drop_length,
	[PACKET_HEADER_CHECKSUM] = STAT_tx_drop_header_checksum,
};

int transmit_init(struct transmit *t, const struct tun_io *tun, const struct udp_io *udp, struct stats *stats,
		  uint32_t tun_address_be, uint32_t local_address_be)
{
	void *arena = mmap(NULL, (size_t)SLOT_BYTES * TRANSMIT_BATCH, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			   -1, 0);

	if (arena == MAP_FAILED)
		return -ENOMEM;
	memset(t, 0, sizeof(*t));
	t->tun = tun;
	t->udp = udp;
	t->stats = stats;
	t->tun_address_be = tun_address_be;
	t->local_address_be = local_address_be;
	t->arena = arena;
	t->unreachable.tokens = ICMP_BURST;
	t->too_big.tokens = ICMP_BURST;
	for (t->free_count = 0; t->free_count < TRANSMIT_BATCH; t->free_count++)
		t->free_slots[t->free_count] = t->free_count;
	return 0;
}

void transmit_release(struct transmit *t)
{
	stats_add(t->stats, STAT_tx_drop_closed, t->waiting);
	t->waiting = 0;
	munmap(t->arena, (size_t)SLOT_BYTES * TRANSMIT_BATCH);
}

static int limiter_take(struct limiter *limiter, int64_t now_ns)
{
	const int64_t token_ns = 1000000000LL / ICMP_PER_SECOND;
	int64_t earned = (now_ns - limiter->refilled_ns) / token_ns;

	if (earned > 0) {
		limiter->refilled_ns += earned * token_ns;
		earned += limiter->tokens;
		limiter->tokens = earned > ICMP_BURST ? ICMP_BURST : (uint32_t)earned;
	}
	if (limiter->tokens == 0)
		return 0;
	limiter->tokens--;
	return 1;
}

/* Sends an ICMP error back to where the packet came from, if the rules and the limit allow it. */
static void answer(struct transmit *t, const struct packet *about, uint8_t code, uint16_t mtu, int64_t now_ns)
{
	int is_too_big = code == PACKET_ICMP_FRAGMENTATION_NEEDED;
	uint8_t error[PACKET_ICMP_MAX_BYTES];
	size_t length;

	if (!packet_may_answer(about)) {
		stats_add(t->stats, STAT_tx_icmp_suppressed, 1);
		return;
	}
	/* Two buckets: a scan of unused addresses must not cost anybody his path MTU discovery. */
	if (!limiter_take(is_too_big ? &t->too_big : &t->unreachable, now_ns)) {
		stats_add(t->stats, STAT_tx_icmp_limited, 1);
		return;
	}
	length = packet_icmp_unreachable(about, code, mtu, t->tun_address_be, error);
	if (tun_io_write(t->tun, error, length) < 0)
		stats_add(t->stats, STAT_tx_icmp_failed, 1);
	else
		stats_add(t->stats, is_too_big ? STAT_tx_icmp_too_big : STAT_tx_icmp_unreachable, 1);
}

static void free_slot_of(struct transmit *t, const struct packet *p)
{
	t->free_slots[t->free_count++] = (uint32_t)((size_t)(p->bytes - t->arena) / SLOT_BYTES);
}

/* Validates a packet just read; it waits then, or is counted. The caller took its slot off the stack. */
static void accept_packet(struct transmit *t, uint32_t slot, size_t length, const struct virtio_net_hdr *header)
{
	uint8_t *bytes = t->arena + (size_t)slot * SLOT_BYTES;
	enum packet_fault fault = packet_parse(bytes, length, &t->packets[t->waiting]);

	if (fault != PACKET_OK) {
		stats_add(t->stats, fault_counter[fault], 1);
	} else if (header->gso_type != VIRTIO_NET_HDR_GSO_NONE ||
		   ((header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) &&
		    packet_finish_checksum(bytes, length, header->csum_start, header->csum_offset) < 0)) {
		stats_add(t->stats, STAT_tx_drop_offload, 1);
	} else {
		t->waiting++;
		return;
	}
	t->free_slots[t->free_count++] = slot;
}

/* Moves the packet at `from` to position `to` and addresses it to its peer. */
static void place(struct transmit *t, uint32_t to, uint32_t from, struct peer *peer)
{
	t->packets[to] = t->packets[from];
	t->peers[to] = peer;
	t->addresses[to] = (struct sockaddr_in){
		.sin_family = AF_INET,
		.sin_port = peer->port_be,
		.sin_addr.s_addr = peer->address_be,
	};
	t->iov[to] = (struct iovec){
		.iov_base = (void *)(uintptr_t)t->packets[to].bytes,
		.iov_len = t->packets[to].length,
	};
	t->messages[to] = (struct mmsghdr){ .msg_hdr = {
		.msg_name = &t->addresses[to],
		.msg_namelen = sizeof(t->addresses[to]),
		.msg_iov = &t->iov[to],
		.msg_iovlen = 1,
	} };
}

/* Finds the peer of every waiting packet; those without one are answered, counted and gone. */
static void route(struct transmit *t, const struct table *table, int64_t now_ns)
{
	uint32_t kept = 0;

	for (uint32_t i = 0; i < t->waiting; i++) {
		const struct packet *p = &t->packets[i];
		int local;
		struct peer *peer = table_lookup(table, p->version, p->destination, &local);

		if (peer) {
			place(t, kept++, i, peer);
			continue;
		}
		stats_add(t->stats, STAT_tx_drop_no_route, 1);
		if (p->version == 4)
			answer(t, p, PACKET_ICMP_HOST_UNREACHABLE, 0, now_ns);
		free_slot_of(t, p);
		if (i == 0)
			t->cut_done_bytes = 0;
	}
	t->waiting = kept;
}

static void count_sent(struct transmit *t, uint32_t position, uint64_t datagrams)
{
	uint32_t bytes = t->packets[position].length;

	stats_add(t->stats, STAT_tx_delivered, 1);
	stats_add(t->stats, STAT_tx_bytes, bytes);
	stats_add(t->stats, STAT_tx_datagrams, datagrams);
	peer_sent(t->peers[position], 1, bytes);
}

/* Asks the kernel for the path's MTU. Returns 1 when datagrams of `bytes` are now known not to fit. */
static int learn_path_mtu(struct transmit *t, uint32_t position, uint32_t bytes, int64_t now_ns)
{
	int mtu = t->udp->path_mtu(t->local_address_be, &t->addresses[position]);

	if (mtu <= UDP_IO_OVERHEAD_BYTES || (uint32_t)mtu >= bytes + UDP_IO_OVERHEAD_BYTES)
		return 0;
	peer_learn_path_mtu(t->peers[position], (uint32_t)mtu, now_ns + TRANSMIT_PATH_MTU_NS);
	stats_add(t->stats, STAT_tx_path_mtu_learned, 1);
	return 1;
}

static void drop_too_big(struct transmit *t, uint32_t position, uint32_t room, int64_t now_ns)
{
	const struct packet *p = &t->packets[position];

	stats_add(t->stats, STAT_tx_drop_too_big, 1);
	if (p->version == 4 && room < p->length)
		answer(t, p, PACKET_ICMP_FRAGMENTATION_NEEDED, (uint16_t)room, now_ns);
}

static void drop_by_errno(struct transmit *t, int error)
{
	switch (-error) {
	case ENETUNREACH:
	case EHOSTUNREACH:
	case ENETDOWN:
		stats_add(t->stats, STAT_tx_drop_unreachable, 1);
		break;
	case EPERM:
	case EACCES:
		stats_add(t->stats, STAT_tx_drop_refused, 1);
		break;
	case ENOBUFS:
	case ENOMEM:
		stats_add(t->stats, STAT_tx_drop_no_buffer, 1);
		break;
	default:
		stats_error(t->stats, STAT_tx_drop_send_error, -error);
	}
}

/* Bytes that an inner packet to this peer may have. */
static uint32_t room_for(const struct transmit *t, uint32_t position, int64_t now_ns)
{
	uint32_t mtu = peer_path_mtu(t->peers[position], now_ns);

	return mtu == UINT32_MAX ? mtu : mtu - UDP_IO_OVERHEAD_BYTES;
}

static int send_fragment(struct transmit *t, uint32_t position, struct packet_fragment *fragment)
{
	struct iovec iov[2] = {
		{ .iov_base = fragment->header, .iov_len = fragment->header_bytes },
		{ .iov_base = (void *)(uintptr_t)fragment->payload, .iov_len = fragment->payload_bytes },
	};
	struct mmsghdr message = t->messages[position];

	message.msg_hdr.msg_iov = iov;
	message.msg_hdr.msg_iovlen = 2;
	return udp_io_send(t->udp, &message, 1);
}

/* Sends the first waiting packet, which is at `position`, as fragments. Returns 1 when it is dealt with, -EAGAIN when the
 * socket is full; the fragments that left are then remembered. One call a fragment: this is not the fast path. */
static int send_cut(struct transmit *t, uint32_t position, int64_t now_ns)
{
	const struct packet *p = &t->packets[position];
	uint32_t done = t->cut_done_bytes;
	struct packet_fragment fragment;
	int more, error = 0;

	while ((more = packet_next_fragment(p, room_for(t, position, now_ns), &done, &fragment)) == 1) {
		error = send_fragment(t, position, &fragment);
		if (error == -EAGAIN)
			return error;
		if (error == -EMSGSIZE &&
		    learn_path_mtu(t, position, fragment.header_bytes + fragment.payload_bytes, now_ns)) {
			done = t->cut_done_bytes;
			continue;
		}
		if (error < 0)
			break;
		stats_add(t->stats, STAT_tx_datagrams, 1);
		t->cut_done_bytes = done;
	}
	t->cut_done_bytes = 0;
	if (more == 0) {
		count_sent(t, position, 0);
		stats_add(t->stats, STAT_tx_fragmented, 1);
	} else if (more < 0 || error == -EMSGSIZE) {
		drop_too_big(t, position, room_for(t, position, now_ns), now_ns);
	} else {
		drop_by_errno(t, error);
	}
	return 1;
}

/* The packet at `position` is over its path's MTU: cut it, or drop it and say so. As send_cut. */
static int send_too_big(struct transmit *t, uint32_t position, int64_t now_ns)
{
	if (!t->packets[position].dont_fragment)
		return send_cut(t, position, now_ns);
	drop_too_big(t, position, room_for(t, position, now_ns), now_ns);
	return 1;
}

/* Deals with one or more packets from `position` on. Returns how many, or -EAGAIN when the socket is full. */
static int send_some(struct transmit *t, uint32_t position, int64_t now_ns)
{
	uint32_t end = position;
	int sent;

	while (end < t->waiting && t->packets[end].length <= room_for(t, end, now_ns))
		end++;
	if (end == position)
		return send_too_big(t, position, now_ns);
	sent = udp_io_send(t->udp, &t->messages[position], end - position);
	for (int i = 0; i < sent; i++)
		count_sent(t, position + (uint32_t)i, 1);
	if (sent > 0 || sent == -EAGAIN)
		return sent;
	if (sent != -EMSGSIZE)
		drop_by_errno(t, sent);
	else if (learn_path_mtu(t, position, t->packets[position].length, now_ns))
		return send_too_big(t, position, now_ns);
	else
		drop_too_big(t, position, UINT32_MAX, now_ns);
	return 1;
}

/* Looks up and sends all that waits, in order; what the socket does not take goes on waiting at the front. */
static void dispatch(struct transmit *t, const struct table *table, int64_t now_ns)
{
	uint32_t done = 0;
	int result = 0;

	route(t, table, now_ns);
	while (done < t->waiting) {
		result = send_some(t, done, now_ns);
		if (result < 0)
			break;
		for (; result > 0; result--)
			free_slot_of(t, &t->packets[done++]);
	}
	memmove(t->packets, t->packets + done, (t->waiting - done) * sizeof(*t->packets));
	t->waiting -= done;
	if (t->waiting == 0)
		t->blocked_since_ns = 0;
	else if (done > 0 || t->blocked_since_ns == 0)
		t->blocked_since_ns = now_ns;
	atomic_store_explicit(&t->in_flight, t->waiting, memory_order_relaxed);
}

int transmit_batch(struct transmit *t, const struct table *table, int64_t now_ns)
{
	int count = 0;
	ssize_t length = 0;

	while (count < TRANSMIT_BATCH) {
		uint32_t slot = t->free_slots[t->free_count - 1];
		struct virtio_net_hdr header;

		length = tun_io_read(t->tun, &header, t->arena + (size_t)slot * SLOT_BYTES, SLOT_BYTES);
		if (length < 0)
			break;
		count++;
		t->free_count--;
		stats_add(t->stats, STAT_tx_received, 1);
		accept_packet(t, slot, (size_t)length, &header);
	}
	if (t->waiting > 0)
		dispatch(t, table, now_ns);
	return length < 0 && tun_io_is_gone((int)length) ? (int)length : count;
}

void transmit_resume(struct transmit *t, const struct table *table, int64_t now_ns)
{
	dispatch(t, table, now_ns);
	if (t->waiting == 0 || now_ns - t->blocked_since_ns < TRANSMIT_STALL_NS)
		return;
	stats_add(t->stats, STAT_tx_drop_socket_full, t->waiting);
	for (uint32_t i = 0; i < t->waiting; i++)
		free_slot_of(t, &t->packets[i]);
	t->waiting = 0;
	t->cut_done_bytes = 0;
	t->blocked_since_ns = 0;
	atomic_store_explicit(&t->in_flight, 0, memory_order_relaxed);
}
