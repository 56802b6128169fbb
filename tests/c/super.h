/* super: super-packets and segments, made and cut by other code than the code that is tested.
 *
 * Owns a description of a TCP or UDP packet from which its bytes are made (what a test expects is made by the same lines
 * from other fields), and a cutter that follows the definition one byte at a time. Shares nothing with native/ but
 * struct packet. It must not know what is being tested.
 */
#ifndef SUPER_H
#define SUPER_H

#include "packets.h"
#include "virtio.h"

enum { FIN = 1, SYN = 2, RST = 4, PSH = 8, ACK = 16, URG = 32, ECE = 64, CWR = 128 };
enum { TCP = 6, UDP = 17 };

#define DF 0x4000
#define MF 0x2000
#define SUPER_ROOM 65575 /* the longest packet there is: IPv6 with 65535 bytes of payload */

/* A packet. What is zero stands for itself; `plain_tcp` and `plain_udp` give something to begin with. */
struct shape {
	uint8_t version, protocol;
	uint8_t tos, ttl;        /* IPv6: traffic class, hop limit */
	uint16_t id, fragment;   /* IPv4: identification; flags and offset as in the header */
	uint32_t flow_label;     /* IPv6 */
	uint8_t host, peer;      /* the last bytes of the two addresses */
	uint16_t source_port, destination_port;
	uint32_t sequence, acknowledged;
	uint8_t flags, reserved; /* TCP: the low half of its byte 12 */
	uint16_t window, urgent;
	uint8_t ip_options[40];  /* or, for IPv6, a chain of extension headers that ends with the transport's number */
	size_t ip_option_bytes;  /* IPv6: the chain begins with destination options, or with `chain` */
	uint8_t chain;
	uint8_t tcp_options[40];
	size_t tcp_option_bytes;
	const uint8_t *payload;
	size_t payload_bytes;
};

static inline struct shape plain_tcp(uint8_t version)
{
	return (struct shape){
		.version = version, .protocol = TCP, .ttl = 64, .id = 1000, .fragment = DF, .flow_label = 0x12345,
		.host = 2, .peer = 3, .source_port = 40000, .destination_port = 80, .sequence = 5000000, .acknowledged = 7,
		.flags = ACK, .window = 501,
	};
}

static inline struct shape plain_udp(uint8_t version)
{
	struct shape s = plain_tcp(version);

	s.protocol = UDP;
	return s;
}

static inline uint32_t get_word(const uint8_t *at)
{
	return get_16(at) << 16 | get_16(at + 2);
}

static inline void put_word(uint8_t *at, uint32_t value)
{
	put_16(at, value >> 16);
	put_16(at + 2, value);
}

static inline size_t ip_bytes(const struct shape *s)
{
	return (s->version == 4 ? 20 : 40) + s->ip_option_bytes;
}

static inline size_t headers_bytes(const struct shape *s)
{
	return ip_bytes(s) + (s->protocol == TCP ? 20 + s->tcp_option_bytes : 8);
}

static inline size_t shape_bytes(const struct shape *s)
{
	return headers_bytes(s) + s->payload_bytes;
}

/* The sum of the pseudo-header of a transport header at `start`. */
static inline uint32_t pseudo_sum(const uint8_t *bytes, size_t len, size_t start, uint8_t protocol)
{
	uint8_t rest[4] = { 0, protocol };

	put_16(rest + 2, (uint32_t)(len - start));
	return bytes[0] >> 4 == 4 ? sum_16(sum_16(0, rest, 4), bytes + 12, 8) : sum_16(sum_16(0, rest, 4), bytes + 8, 32);
}

/* Whether the checksum of a transport header at `start` is right. */
static inline bool transport_is_right(const uint8_t *bytes, size_t len, size_t start, uint8_t protocol)
{
	return sum_16(pseudo_sum(bytes, len, start, protocol), bytes + start, len - start) == 0xffff;
}

static inline size_t field_of(uint8_t protocol)
{
	return protocol == TCP ? 16 : 6;
}

/* Puts the transport's checksum right. */
static inline void seal_transport(uint8_t *bytes, size_t len, size_t start, uint8_t protocol)
{
	uint8_t *field = bytes + start + field_of(protocol);

	put_16(field, 0);
	put_16(field, ~sum_16(pseudo_sum(bytes, len, start, protocol), bytes + start, len - start));
	if (protocol == UDP && get_16(field) == 0)
		put_16(field, 0xffff);
}

static inline void shape_ip(const struct shape *s, uint8_t *out)
{
	size_t len = shape_bytes(s);

	memset(out, 0, ip_bytes(s));
	if (s->version == 6) {
		put_word(out, 6U << 28 | (uint32_t)s->tos << 20 | s->flow_label);
		put_16(out + 4, (uint32_t)len - 40);
		out[6] = s->protocol;
		if (s->ip_option_bytes)
			out[6] = s->chain ? s->chain : 60;
		out[7] = s->ttl;
		memcpy(out + 8, "\xfd\x00\x00\x10\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 16);
		memcpy(out + 24, "\xfd\x00\x00\x10\x00\x02\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00", 16);
		out[23] = s->host;
		out[39] = s->peer;
		memcpy(out + 40, s->ip_options, s->ip_option_bytes);
		return;
	}
	out[0] = (uint8_t)(0x40 | ip_bytes(s) / 4);
	out[1] = s->tos;
	put_16(out + 2, (uint32_t)len);
	put_16(out + 4, s->id);
	put_16(out + 6, s->fragment);
	out[8] = s->ttl;
	out[9] = s->protocol;
	put_word(out + 12, 0x0a050100U + s->host);
	put_word(out + 16, 0x0a050200U + s->peer);
	memcpy(out + 20, s->ip_options, s->ip_option_bytes);
	seal(out);
}

/* The packet with the right checksums; `out` holds SUPER_ROOM or what shape_bytes says. Returns its length. */
static inline size_t shape_make(const struct shape *s, uint8_t *out)
{
	size_t start = ip_bytes(s), len = shape_bytes(s);
	uint8_t *transport = out + start;

	shape_ip(s, out);
	memset(transport, 0, headers_bytes(s) - start);
	put_16(transport, s->source_port);
	put_16(transport + 2, s->destination_port);
	if (s->protocol == TCP) {
		put_word(transport + 4, s->sequence);
		put_word(transport + 8, s->acknowledged);
		transport[12] = (uint8_t)((20 + s->tcp_option_bytes) / 4 << 4 | (s->reserved & 0xf));
		transport[13] = s->flags;
		put_16(transport + 14, s->window);
		put_16(transport + 18, s->urgent);
		memcpy(transport + 20, s->tcp_options, s->tcp_option_bytes);
	} else {
		put_16(transport + 4, (uint32_t)(len - start));
	}
	if (s->payload_bytes)
		memcpy(out + headers_bytes(s), s->payload, s->payload_bytes);
	seal_transport(out, len, start, s->protocol);
	return len;
}

/* As the kernel hands over a packet whose checksum it has left to others: the field has the pseudo-header's sum. */
static inline size_t shape_make_partial(const struct shape *s, uint8_t *out)
{
	size_t len = shape_make(s, out), start = ip_bytes(s);

	put_16(out + start + field_of(s->protocol), pseudo_sum(out, len, start, s->protocol));
	return len;
}

/* The shape of one segment of a super-packet, by the definition of segmentation offload. */
static inline struct shape shape_segment(const struct shape *s, size_t size, uint32_t index)
{
	size_t from = size * index, left = s->payload_bytes - from;
	struct shape segment = *s;

	segment.payload = s->payload + from;
	segment.payload_bytes = left < size ? left : size;
	segment.id = (uint16_t)(s->id + index);
	segment.sequence = s->sequence + (uint32_t)from;
	if (index > 0)
		segment.flags &= (uint8_t)~CWR;
	if (left > size)
		segment.flags &= (uint8_t)~(FIN | PSH);
	return segment;
}

static inline uint8_t gso_of(const struct shape *s)
{
	if (s->protocol == UDP)
		return VIRTIO_NET_HDR_GSO_UDP_L4;
	return s->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
}

/* The virtio header that comes with a super-packet, or with a whole packet when `size` is 0. */
static inline struct virtio_net_hdr shape_virtio(const struct shape *s, size_t size)
{
	return (struct virtio_net_hdr){
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = size ? gso_of(s) : VIRTIO_NET_HDR_GSO_NONE,
		.hdr_len = (uint16_t)headers_bytes(s),
		.gso_size = (uint16_t)size,
		.csum_start = (uint16_t)ip_bytes(s),
		.csum_offset = (uint16_t)field_of(s->protocol),
	};
}

/* How many packets a kernel would make of `bytes` when it came with this virtio header. */
static inline size_t cut_count(size_t len, const struct virtio_net_hdr *header, size_t headers)
{
	size_t payload = len - headers;

	if (header->gso_type == VIRTIO_NET_HDR_GSO_NONE || payload <= header->gso_size)
		return 1;
	return (payload + header->gso_size - 1) / header->gso_size;
}

/* Headers of IP and transport, by what the bytes say. */
static inline size_t cut_headers(const uint8_t *bytes, size_t start, uint8_t protocol)
{
	return start + (protocol == TCP ? (size_t)(bytes[start + 12] >> 4) * 4 : 8);
}

/* Packet `index` of what a kernel would make of `bytes`, finished, into `out`. Needs a partial checksum and a transport
 * header that is whole. Returns its length. */
static inline size_t cut(const uint8_t *bytes, size_t len, const struct virtio_net_hdr *header, uint8_t protocol,
			 size_t index, uint8_t *out)
{
	size_t start = header->csum_start, headers = cut_headers(bytes, start, protocol);
	size_t count = cut_count(len, header, headers);
	size_t from = headers + index * header->gso_size;
	size_t payload = index + 1 < count ? header->gso_size : len - from;
	uint8_t *transport = out + start;

	memcpy(out, bytes, headers);
	memcpy(out + headers, bytes + from, payload);
	if (count > 1 && bytes[0] >> 4 == 4) {
		put_16(out + 2, (uint32_t)(headers + payload));
		put_16(out + 4, get_16(out + 4) + (uint32_t)index);
		seal(out);
	} else if (count > 1) {
		put_16(out + 4, (uint32_t)(headers + payload - 40));
	}
	if (count > 1 && protocol == TCP) {
		put_word(transport + 4, get_word(transport + 4) + (uint32_t)(index * header->gso_size));
		if (index > 0)
			transport[13] &= (uint8_t)~CWR;
		if (index + 1 < count)
			transport[13] &= (uint8_t)~(FIN | PSH);
	} else if (count > 1) {
		put_16(transport + 4, (uint32_t)(headers + payload - start));
	}
	seal_transport(out, headers + payload, start, protocol);
	return headers + payload;
}

/* Whether two packets are the same but for the two forms of zero that TCP and IPv4 know in their checksums. */
static inline bool same_packet(const uint8_t *a, const uint8_t *b, size_t len, size_t start, uint8_t protocol)
{
	size_t field = start + field_of(protocol);
	uint32_t one = get_16(a + field), other = get_16(b + field);

	if (protocol == TCP && one % 0xffff == 0 && other % 0xffff == 0)
		return !memcmp(a, b, field) && !memcmp(a + field + 2, b + field + 2, len - field - 2);
	return !memcmp(a, b, len);
}

#endif
