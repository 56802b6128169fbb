/* unfinished: see unfinished.h.
 *
 * Theory of operation. A kernel's tunnel (FOU, VXLAN) leaves the inner checksum to the card, and a virtual link (veth) has
 * none: nothing on the way finishes it, and a super-packet passes whole. The kernel knows this from the buffer's metadata,
 * which a UDP socket does not show; but the field then holds the pseudo-header's sum, not complemented (linux/net/ipv4/
 * tcp_ipv4.c, __tcp_v4_send_check; udp.c, udp4_hwcsum), of the length that the packet has, and that is what we go by.
 *
 * What is partial is vouched for by nothing but the outer checksum, if there is one. Who forges it could as well have
 * computed a right one. A damaged packet is taken for partial once in 65,536 times, as often as the checksum itself lets
 * damage through.
 */
#include "unfinished.h"

#include "checksum.h"

#define TCP_CWR 0x80
#define TCP_BYTES 20
#define UDP_BYTES 8
#define LEAST_SEGMENT_BYTES 256 /* of TCP: however small the MTU, one datagram shall not become thousands of packets */

enum transport_checksum transport_checksum(const struct transport *t)
{
	uint64_t pseudo = transport_pseudo(t);

	if (checksum_fold(checksum_add(pseudo, t->packet + t->offset, t->bytes - t->offset)) == 0xffff)
		return CHECKSUM_RIGHT;
	if (t->bytes < t->offset + transport_field(t) + 2)
		return CHECKSUM_WRONG;
	return load16(t->packet + t->offset + transport_field(t)) == checksum_fold(pseudo) ? CHECKSUM_PARTIAL : CHECKSUM_WRONG;
}

/* Bytes of IP and transport header; 0 where the latter is not whole or nothing follows it. */
static uint32_t headers_of(const struct transport *t)
{
	uint32_t own = t->protocol == IPPROTO_TCP ? (uint32_t)(t->packet[t->offset + 12] >> 4) * 4 : UDP_BYTES;

	if (t->protocol == IPPROTO_TCP && own < TCP_BYTES)
		return 0;
	return t->offset + own < t->bytes ? t->offset + own : 0;
}

static void describe_super(const struct transport *t, uint32_t headers, uint32_t size, struct virtio_net_hdr *header)
{
	header->hdr_len = (uint16_t)headers;
	header->gso_size = (uint16_t)size;
	if (t->protocol == IPPROTO_UDP) {
		header->gso_type = VIRTIO_NET_HDR_GSO_UDP_L4;
		return;
	}
	header->gso_type = t->packet[0] >> 4 == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	if (t->packet[t->offset + 13] & TCP_CWR) /* it stays with the first segment */
		header->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
}

enum unfinished unfinished_describe(const struct transport *t, uint32_t mtu, uint32_t told, struct virtio_net_hdr *header)
{
	uint32_t headers = headers_of(t), payload = t->bytes - headers, size = told;

	*header = (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = VIRTIO_NET_HDR_GSO_NONE,
		.csum_start = t->offset,
		.csum_offset = (uint16_t)transport_field(t),
	};
	if (t->protocol == IPPROTO_TCP) {
		if (t->bytes <= mtu || !headers)
			return UNFINISHED_WHOLE;
		size = mtu > headers + LEAST_SEGMENT_BYTES ? mtu - headers : LEAST_SEGMENT_BYTES;
	} else if (t->bytes <= mtu && (!told || told >= payload)) {
		return UNFINISHED_WHOLE;
	} else if (!told || !headers || headers + told > mtu || payload > told * UNFINISHED_SEGMENTS_MAX) {
		return UNFINISHED_UNKNOWN;
	}
	if (payload <= size)
		return UNFINISHED_WHOLE;
	describe_super(t, headers, size, header);
	return UNFINISHED_SUPER;
}
