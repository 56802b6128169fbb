/* inner: the packets that pods send, whole and with the right checksums, to be moved through the dataplane.
 *
 * Owns makers of UDP, TCP and ICMP packets (they fill `out` and return the length) and what a test needs to judge what
 * came back. Like packets.h, on which it builds, it shares no code with native/. Addresses are in host order. It must
 * not know sockets, routes or peers.
 */
#ifndef INNER_H
#define INNER_H

#include "packets.h"

#define INNER_ROOM 65575 /* the longest packet there is: IPv6 with 65535 bytes of payload */
#define DONT_FRAGMENT 0x4000
#define MORE_FRAGMENTS 0x2000

static inline uint32_t get_32(const uint8_t *at)
{
	return get_16(at) << 16 | get_16(at + 2);
}

static inline void put_32(uint8_t *at, uint32_t value)
{
	put_16(at, value >> 16);
	put_16(at + 2, value);
}

static inline size_t header_bytes_of(const uint8_t *ipv4)
{
	return (ipv4[0] & 0xfU) * 4;
}

/* The sum of a transport header, its payload and their pseudo-header. */
static inline uint32_t transport_sum(const uint8_t *packet, size_t length)
{
	size_t start = packet[0] >> 4 == 4 ? header_bytes_of(packet) : 40;
	uint8_t rest[4] = {0, packet[0] >> 4 == 4 ? packet[9] : packet[6]};
	uint32_t sum = rest[1] == 1 ? 0 : packet[0] >> 4 == 4 ? sum_16(0, packet + 12, 8) : sum_16(0, packet + 8, 32);

	put_16(rest + 2, (uint32_t)(length - start));
	if (rest[1] != 1) /* ICMP has no pseudo-header */
		sum = sum_16(sum, rest, 4);
	return sum_16(sum, packet + start, length - start);
}

/* Where a transport's checksum stands in its header. */
static inline size_t checksum_offset(uint8_t protocol)
{
	return protocol == 6 ? 16 : protocol == 17 ? 6 : 2;
}

/* Gives the transport header at `start` its length and its checksum. */
static inline void finish_transport(uint8_t *packet, size_t length, size_t start, uint8_t protocol)
{
	uint8_t *field = packet + start + checksum_offset(protocol);

	if (protocol == 17)
		put_16(packet + start + 4, (uint32_t)(length - start));
	if (protocol == 6)
		packet[start + 12] = 5 << 4;
	put_16(field, 0);
	put_16(field, ~transport_sum(packet, length));
	if (protocol != 1 && get_16(field) == 0)
		put_16(field, 0xffff);
}

static inline size_t transport_header_bytes(uint8_t protocol)
{
	return protocol == 6 ? 20 : 8;
}

/* `fragment` is flags and offset as they stand in the header; `payload_bytes` comes behind the transport header. */
static inline size_t make_inner(uint8_t *out, uint32_t source, uint32_t destination, uint8_t protocol, uint32_t fragment,
				size_t payload_bytes)
{
	size_t length = 20 + transport_header_bytes(protocol) + payload_bytes;

	fill_random(out, length);
	out[0] = 0x45;
	out[1] &= 0xfc; /* some DSCP; Not-ECT */
	put_16(out + 2, (uint32_t)length);
	put_16(out + 6, fragment);
	out[8] = 64;
	out[9] = protocol;
	put_32(out + 12, source);
	put_32(out + 16, destination);
	finish_transport(out, length, 20, protocol);
	seal(out);
	return length;
}

/* UDP as most hosts send it, which may be cut, and TCP, which may not. */
static inline size_t make_udp(uint8_t *out, uint32_t source, uint32_t destination, size_t payload_bytes)
{
	return make_inner(out, source, destination, 17, 0, payload_bytes);
}

static inline size_t make_tcp(uint8_t *out, uint32_t source, uint32_t destination, size_t payload_bytes)
{
	return make_inner(out, source, destination, 6, DONT_FRAGMENT, payload_bytes);
}

static inline size_t make_icmp(uint8_t *out, uint32_t source, uint32_t destination, uint8_t type, size_t payload_bytes)
{
	size_t length = make_inner(out, source, destination, 1, 0, payload_bytes);

	out[20] = type;
	out[21] = 0;
	finish_transport(out, length, 20, 1);
	return length;
}

static inline size_t make_udp6(uint8_t *out, const uint8_t *source, const uint8_t *destination, size_t payload_bytes)
{
	size_t length = 48 + payload_bytes;

	fill_random(out, length);
	out[0] = 0x60;
	out[1] &= 0xcf; /* some DSCP; Not-ECT */
	put_16(out + 4, (uint32_t)(8 + payload_bytes));
	out[6] = 17;
	out[7] = 64;
	memcpy(out + 8, source, 16);
	memcpy(out + 24, destination, 16);
	finish_transport(out, length, 40, 17);
	return length;
}

static inline uint8_t tos_of(const uint8_t *packet)
{
	return packet[0] >> 4 == 4 ? packet[1] : (uint8_t)(packet[0] << 4 | packet[1] >> 4);
}

static inline void set_tos(uint8_t *packet, uint8_t tos)
{
	if (packet[0] >> 4 == 4) {
		packet[1] = tos;
		seal(packet);
	} else {
		packet[0] = (uint8_t)(0x60 | tos >> 4);
		packet[1] = (uint8_t)(tos << 4 | (packet[1] & 0xf));
	}
}

/* ---- taking super-packets apart ---- */

#define TCP_FIN_PSH 0x09
#define TCP_CWR 0x80

/* Makes the segment of a super-packet that begins `at` bytes into its payload, as the kernel would cut it: `start` is
 * where the transport header stands, `size` the payload of a segment. Returns its length. */
static inline size_t make_segment(uint8_t *out, const uint8_t *packet, size_t length, size_t start, size_t size, size_t at)
{
	bool ipv4 = packet[0] >> 4 == 4;
	uint8_t protocol = ipv4 ? packet[9] : packet[6];
	size_t headers = start + (protocol == 6 ? (size_t)(packet[start + 12] >> 4) * 4 : 8);
	size_t left = length - headers - at, whole = headers + (size < left ? size : left);

	memcpy(out, packet, headers);
	memcpy(out + headers, packet + headers + at, whole - headers);
	if (protocol == 6) {
		put_32(out + start + 4, get_32(packet + start + 4) + (uint32_t)at);
		out[start + 13] &= (uint8_t)((at ? ~TCP_CWR : 0xff) & (size < left ? ~TCP_FIN_PSH : 0xff));
	}
	put_16(out + (ipv4 ? 2 : 4), (uint32_t)(ipv4 ? whole : whole - 40));
	if (ipv4)
		put_16(out + 4, get_16(packet + 4) + (uint32_t)(at / size));
	finish_transport(out, whole, start, protocol);
	if (ipv4)
		seal(out);
	return whole;
}

/* ---- putting fragments together again ---- */

struct reassembly {
	uint8_t payload[65536];
	bool have[65536];
	size_t pieces, total; /* total: the datagram's payload; 0 until the last fragment came */
	bool overlaps;
};

static inline void reassemble(struct reassembly *r, const uint8_t *fragment, size_t length)
{
	size_t header_bytes = header_bytes_of(fragment), bytes = length - header_bytes;
	size_t offset = (get_16(fragment + 6) & 0x1fff) * 8;

	CHECK(get_16(fragment + 2) == length);
	CHECK(sum_16(0, fragment, header_bytes) == 0xffff);
	r->pieces++;
	for (size_t i = 0; i < bytes && offset + i < sizeof(r->payload); i++) {
		r->overlaps |= r->have[offset + i];
		r->have[offset + i] = true;
		r->payload[offset + i] = fragment[header_bytes + i];
	}
	if (!(get_16(fragment + 6) & MORE_FRAGMENTS))
		r->total = offset + bytes;
}

/* Whether the pieces are exactly the payload of `packet`, each byte once. */
static inline bool is_whole(const struct reassembly *r, const uint8_t *packet, size_t length)
{
	size_t header_bytes = header_bytes_of(packet);

	if (r->overlaps || r->total != length - header_bytes)
		return false;
	for (size_t i = 0; i < r->total; i++)
		if (!r->have[i])
			return false;
	return !memcmp(r->payload, packet + header_bytes, r->total);
}

#endif
