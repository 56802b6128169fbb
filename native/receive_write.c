/* receive_write: see receive_write.h. */
#include "receive_write.h"

#include <errno.h>

#include "segment.h"
#include "unfinished.h"

static void count_write_error(struct receive *r, int error, uint32_t packets)
{
	switch (-error) {
	case EIO: /* not up (linux/drivers/net/tun.c, tun_get_user) */
		stats_add(r->stats, STAT_rx_drop_tun_down, packets);
		break;
	case EAGAIN:
	case ENOBUFS:
	case ENOMEM:
		stats_add(r->stats, STAT_rx_drop_tun_full, packets);
		break;
	default:
		if (tun_io_is_gone(error))
			stats_add(r->stats, STAT_rx_drop_tun_down, packets);
		else
			stats_error(r->stats, STAT_rx_drop_tun_refused, -error, packets, r->now_ns);
	}
}

/* Counts what became of a write. Returns the error when the TUN is gone by it. */
static int count_write(struct receive *r, int error, uint32_t packets, uint32_t bytes)
{
	if (error) {
		count_write_error(r, error, packets);
		return tun_io_is_gone(error) ? error : 0;
	}
	stats_add(r->stats, STAT_rx_writes, 1);
	stats_add(r->stats, STAT_rx_delivered, packets);
	stats_add(r->stats, STAT_rx_bytes, bytes);
	return 0;
}

/* Writes a packet as it was received, and counts it. Returns the error when the TUN is gone by it. */
static int write_lone(struct receive *r, const struct iovec *packet, const struct virtio_net_hdr *header)
{
	int error = tun_io_write_within(r->tun, header, packet->iov_base, packet->iov_len);

	return count_write(r, error, 1, (uint32_t)packet->iov_len);
}

/* The kernel refused a super-packet: from now on none of that kind. */
static void note_refused(struct receive *r, uint8_t protocol)
{
	stats_add(r->stats, STAT_rx_coalesce_refused, 1);
	r->tun->offloads &= protocol == IPPROTO_TCP ? ~(uint32_t)UDPB_OFFLOAD_TCP_COALESCE
						    : ~(uint32_t)UDPB_OFFLOAD_UDP_COALESCE;
}

/* Cuts a super-packet that came as one datagram, and writes its segments one by one, finished. It counts as the one packet
 * that it was received as: delivered if all of it was taken. Returns the error when the TUN is gone by it. */
static int write_cut(struct receive *r, const struct iovec *super, const struct virtio_net_hdr *header)
{
	static const struct virtio_net_hdr plain = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	uint8_t headers[SEGMENT_HEADERS_MAX];
	struct segment_source source;
	struct packet packet;
	int error = 0;

	if (packet_parse(super->iov_base, super->iov_len, &packet) != PACKET_OK ||
	    segment_prepare(&source, super->iov_base, &packet, header) < 0)
		return count_write(r, -EINVAL, 1, 0);
	for (uint32_t i = 0; i < source.count; i++) {
		struct segment it;
		struct iovec iov[3];
		int failed;

		segment_make(&source, i, headers, &it);
		iov[1] = (struct iovec){ .iov_base = headers, .iov_len = it.headers_bytes };
		iov[2] = (struct iovec){ .iov_base = (void *)(uintptr_t)it.payload, .iov_len = it.payload_bytes };
		failed = tun_io_write(r->tun, &plain, iov, 3);
		if (failed && (!error || (tun_io_is_gone(failed) && !tun_io_is_gone(error))))
			error = failed; /* that the TUN is gone matters more than what was refused before */
	}
	stats_add(r->stats, STAT_rx_writes, source.count - 1);
	r->written += source.count - 1;
	return count_write(r, error, 1, packet.length);
}

static int write_super(struct receive *r, const struct iovec *super, const struct virtio_net_hdr *header, uint8_t protocol)
{
	uint32_t taken = protocol == IPPROTO_TCP ? UDPB_OFFLOAD_TCP_COALESCE : UDPB_OFFLOAD_UDP_COALESCE;
	int error;

	stats_add(r->stats, STAT_rx_super_packets, 1);
	if (!(r->tun->offloads & taken))
		return write_cut(r, super, header);
	error = tun_io_write_within(r->tun, header, super->iov_base, super->iov_len);
	if (error != -EINVAL)
		return count_write(r, error, 1, (uint32_t)super->iov_len);
	note_refused(r, protocol);
	return write_cut(r, super, header);
}

/* Writes a packet whose field holds the pseudo-header's sum; `told` as in coalesce_add. Returns the error when the TUN is
 * gone by it. */
static int write_unfinished(struct receive *r, const struct iovec *packet, const struct transport *t, uint16_t told)
{
	struct virtio_net_hdr header;

	if (transport_checksum(t) != CHECKSUM_PARTIAL)
		return write_lone(r, packet, NULL);
	stats_add(r->stats, STAT_rx_partial_checksum, 1);
	switch (unfinished_describe(t, r->tun->mtu, told, &header)) {
	case UNFINISHED_WHOLE:
		return write_lone(r, packet, &header);
	case UNFINISHED_SUPER:
		return write_super(r, packet, &header, t->protocol);
	default:
		stats_add(r->stats, STAT_rx_drop_udp_super_packet, 1);
		return 0;
	}
}

/* Writes one packet of a group that has not been joined, or was refused. */
static inline int write_single(struct receive *r, const struct coalesce_group *g, uint16_t index, uint16_t told)
{
	const struct iovec *packet = &r->coalesce.packet[index];
	const struct transport t = { packet->iov_base, (uint32_t)packet->iov_len, g->transport, g->protocol };

	if (g->protocol && transport_may_be_partial(&t))
		return write_unfinished(r, packet, &t, told);
	return write_lone(r, packet, NULL);
}

/* Writes a refused group packet by packet. */
static int write_apart(struct receive *r, const struct coalesce_group *g)
{
	int gone = 0;

	note_refused(r, g->protocol);
	for (uint16_t i = g->first; i != COALESCE_NONE; i = r->coalesce.next[i]) {
		int error = write_single(r, g, i, 0);

		gone = error ? error : gone;
	}
	return gone;
}

/* Inner bytes of a group as its packets were received. */
static uint32_t group_bytes(const struct coalesce_group *g)
{
	return g->length + (g->segments - 1U) * g->headers_bytes;
}

/* Writes a group of several packets as one. */
static int write_merged(struct receive *r, uint16_t number)
{
	const struct coalesce_group *g = &r->coalesce.group[number];
	struct iovec iov[COALESCE_SEGMENTS + 2];
	uint8_t headers[COALESCE_HEADERS_MAX];
	struct virtio_net_hdr header;
	int count = coalesce_build(&r->coalesce, number, &header, headers, iov + 1);
	int error = tun_io_write(r->tun, &header, iov, count + 1);

	if (error == -EINVAL)
		return write_apart(r, g);
	stats_add(r->stats, STAT_rx_partial_checksum, g->unfinished);
	return count_write(r, error, g->segments, group_bytes(g));
}

int receive_write(struct receive *r)
{
	const struct coalesce *c = &r->coalesce;
	int gone = 0;

	for (uint16_t i = 0; i < c->groups; i++) {
		const struct coalesce_group *g = &c->group[i];
		int error = g->segments > 1 ? write_merged(r, i) : write_single(r, g, g->first, g->told);

		gone = error ? error : gone;
	}
	r->written += c->groups;
	coalesce_reset(&r->coalesce);
	return gone;
}
