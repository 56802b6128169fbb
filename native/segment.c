/* segment: see segment.h.
 *
 * What Linux does in tcp_gso_segment and __udp_gso_segment: every segment has the super-packet's headers with its own
 * length, IPv4 id (counting up), TCP sequence number and checksum; FIN and PSH stay with the last, CWR with the first. A
 * sum over all that does not differ is made once; a segment adds its few words and its payload.
 */
#include "segment.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <string.h>

#include "bytes.h"
#include "checksum.h"

#define TCP_FIN 0x01
#define TCP_PSH 0x08
#define TCP_CWR 0x80
#define TCP_MIN_BYTES 20
#define UDP_BYTES 8
#define IP4_BYTES 20 /* without options */
#define IP6_BYTES 40

/* Offsets in the headers concerned. */
enum { IP4_LENGTH = 2, IP4_ID = 4, IP4_CHECKSUM = 10, IP6_LENGTH = 4 };
enum { TCP_SEQUENCE = 4, TCP_OFFSET = 12, TCP_FLAGS = 13, TCP_CHECKSUM = 16 };
enum { UDP_LENGTH = 4, UDP_CHECKSUM = 6 };

static int whole(struct segment_source *source, uint8_t *bytes, const struct virtio_net_hdr *header)
{
	source->count = 1;
	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM))
		return 0;
	if (header->csum_start < source->packet.header_bytes) /* the IP header has been validated, and stays as it is */
		return -EINVAL;
	return packet_finish_checksum(bytes, source->packet.length, header->csum_start, header->csum_offset);
}

/* Which protocol a GSO type cuts in this IP version; 0 for none. */
static uint8_t protocol_of(uint8_t gso_type, uint8_t version)
{
	switch (gso_type & ~VIRTIO_NET_HDR_GSO_ECN) {
	case VIRTIO_NET_HDR_GSO_TCPV4:
		return version == 4 ? IPPROTO_TCP : 0;
	case VIRTIO_NET_HDR_GSO_TCPV6:
		return version == 6 ? IPPROTO_TCP : 0;
	case VIRTIO_NET_HDR_GSO_UDP_L4:
		return IPPROTO_UDP;
	default:
		return 0;
	}
}

/* Sums what all segments share; see the top. `is_partial`: the checksum field holds the pseudo-header's sum. */
static void sum_headers(struct segment_source *s, bool is_partial)
{
	const struct packet *p = &s->packet;
	const uint8_t *transport = p->bytes + s->transport;
	uint16_t partial = load16(transport + (s->protocol == IPPROTO_TCP ? TCP_CHECKSUM : UDP_CHECKSUM));
	uint64_t sum;

	/* RFC 1071: to take a word out of a sum, add its complement. */
	if (s->transport == (p->version == 4 ? IP4_BYTES : IP6_BYTES) || !is_partial)
		sum = checksum_pseudo(p->source, p->version == 4 ? 8 : 32, s->protocol, 0);
	else /* a routing header or a source route has another destination, which the kernel's partial sum contains */
		sum = partial + (uint64_t)(uint16_t)~htons((uint16_t)(p->length - s->transport));
	sum = checksum_add(sum, transport, s->headers_bytes - s->transport) + (uint16_t)~partial;
	if (s->protocol == IPPROTO_TCP) {
		sum += (uint16_t)~load16(transport + TCP_OFFSET);
		sum += (uint32_t)~load32(transport + TCP_SEQUENCE);
	} else {
		sum += (uint16_t)~load16(transport + UDP_LENGTH);
	}
	s->transport_sum = sum;
	if (p->version == 4) {
		sum = checksum_add(0, p->bytes, p->header_bytes);
		sum += (uint16_t)~load16(p->bytes + IP4_LENGTH);
		sum += (uint16_t)~load16(p->bytes + IP4_ID);
		sum += (uint16_t)~load16(p->bytes + IP4_CHECKSUM);
		s->ip_sum = sum;
	}
}

int segment_prepare(struct segment_source *source, uint8_t *bytes, const struct packet *packet,
		    const struct virtio_net_hdr *header)
{
	uint32_t transport_bytes, payload;
	uint16_t transport;

	source->packet = *packet;
	source->headers_bytes = 0;
	if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE)
		return whole(source, bytes, header);
	source->protocol = protocol_of(header->gso_type, packet->version);
	/* The header's hdr_len is not to be trusted (a forwarded packet's may be anything): the lengths are read from the
	 * packet. Where the transport header begins, IPv6 extensions skipped, only csum_start tells. Without it (a card has
	 * merged and verified the packet, and it is forwarded) there can be no extensions. */
	transport = header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM ? header->csum_start : packet->header_bytes;
	if (!source->protocol || header->gso_size == 0 ||
	    transport < packet->header_bytes || transport + (uint32_t)UDP_BYTES > packet->length)
		return -EINVAL;
	/* Only IPv6 extensions stand between the two headers; without any, the IP header names the protocol. */
	if (transport == packet->header_bytes ? packet->protocol != source->protocol : packet->version == 4)
		return -EINVAL;
	transport_bytes = UDP_BYTES;
	if (source->protocol == IPPROTO_TCP) {
		if (transport + (uint32_t)TCP_MIN_BYTES > packet->length)
			return -EINVAL;
		transport_bytes = (uint32_t)(bytes[transport + TCP_OFFSET] >> 4) * 4;
		if (transport_bytes < TCP_MIN_BYTES)
			return -EINVAL;
	}
	if (transport + transport_bytes > SEGMENT_HEADERS_MAX || transport + transport_bytes > packet->length)
		return -EINVAL;
	payload = packet->length - transport - transport_bytes;
	if (payload <= header->gso_size) /* the kernel does not call that a super-packet either */
		return whole(source, bytes, header);
	source->transport = transport;
	source->headers_bytes = (uint16_t)(transport + transport_bytes);
	source->payload_bytes = header->gso_size;
	source->count = (payload + header->gso_size - 1) / header->gso_size;
	sum_headers(source, header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM);
	return 0;
}

/* The IP header of a segment of `length` bytes in all. */
static void make_ip(const struct segment_source *s, uint32_t index, uint8_t *headers, uint32_t length)
{
	uint16_t id;

	if (s->packet.version == 6) {
		store16(headers + IP6_LENGTH, htons((uint16_t)(length - 40)));
		return;
	}
	id = htons((uint16_t)(ntohs(load16(s->packet.bytes + IP4_ID)) + index));
	store16(headers + IP4_LENGTH, htons((uint16_t)length));
	store16(headers + IP4_ID, id);
	store16(headers + IP4_CHECKSUM, checksum_finish(s->ip_sum + htons((uint16_t)length) + id));
}

static void make_tcp(const struct segment_source *s, uint32_t index, uint8_t *tcp, uint64_t sum)
{
	uint32_t sequence = htonl(ntohl(load32(tcp + TCP_SEQUENCE)) + index * s->payload_bytes);

	if (index > 0)
		tcp[TCP_FLAGS] &= (uint8_t)~TCP_CWR;
	if (index + 1 < s->count)
		tcp[TCP_FLAGS] &= (uint8_t)~(TCP_FIN | TCP_PSH);
	store32(tcp + TCP_SEQUENCE, sequence);
	sum += (uint64_t)sequence + load16(tcp + TCP_OFFSET);
	store16(tcp + TCP_CHECKSUM, checksum_finish(sum));
}

static void make_udp(uint8_t *udp, uint16_t length, uint64_t sum)
{
	uint16_t checksum;

	store16(udp + UDP_LENGTH, htons(length));
	checksum = checksum_finish(sum + htons(length));
	store16(udp + UDP_CHECKSUM, checksum ? checksum : 0xffff); /* RFC 768: zero would mean none */
}

void segment_make(const struct segment_source *s, uint32_t index, uint8_t *headers, struct segment *out)
{
	uint32_t offset = s->headers_bytes + index * s->payload_bytes;
	uint32_t transport_length;
	uint64_t sum;

	if (s->count == 1) {
		*out = (struct segment){ .payload = s->packet.bytes, .payload_bytes = s->packet.length };
		return;
	}
	out->headers_bytes = s->headers_bytes;
	out->payload = s->packet.bytes + offset;
	out->payload_bytes = index + 1 < s->count ? s->payload_bytes : s->packet.length - offset;
	memcpy(headers, s->packet.bytes, s->headers_bytes);
	make_ip(s, index, headers, out->headers_bytes + out->payload_bytes);
	transport_length = out->headers_bytes - s->transport + out->payload_bytes;
	sum = s->transport_sum + htons((uint16_t)transport_length);
	sum = checksum_add(sum, out->payload, out->payload_bytes);
	if (s->protocol == IPPROTO_TCP)
		make_tcp(s, index, headers + s->transport, sum);
	else
		make_udp(headers + s->transport, (uint16_t)transport_length, sum);
}
