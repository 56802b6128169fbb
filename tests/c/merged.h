/* merged: a batch that goes through coalesce, and the judgement of all that comes out.
 *
 * Owns the check that every test wants: what comes out, cut again by super.h and by segment.c, is what went in, each
 * packet once, each virtio header right, no damaged packet merged, what stayed alone untouched, and no two packets of a
 * flow in another order. Packets live in allocations of exactly their size. REQUIRE is what becomes of a failure: a test
 * counts it, a fuzzer traps.
 */
#ifndef MERGED_H
#define MERGED_H

#include "coalesce.h"
#include "segment.h"
#include "super.h"

#ifndef REQUIRE
#define REQUIRE(condition) CHECK(condition)
#endif

#define MERGED_MTU 1400

struct batch {
	struct coalesce coalesce;
	struct packet packet[COALESCE_PACKETS];
	uint16_t order[COALESCE_PACKETS]; /* packets as they come out */
	uint16_t group[COALESCE_PACKETS]; /* which one each came out in */
	size_t out;
	uint8_t whole[SUPER_ROOM], piece[SUPER_ROOM];
};

static inline void batch_begin(struct batch *b, uint32_t kinds)
{
	coalesce_reset(&b->coalesce);
	b->coalesce.kinds = kinds;
	b->coalesce.mtu = MERGED_MTU;
	b->out = 0;
}

/* Adds a copy of a packet; false when it is not even one, or when the batch is full. */
static inline bool batch_add(struct batch *b, const uint8_t *bytes, size_t len)
{
	uint16_t index = b->coalesce.packets;
	uint8_t *copy;

	if (coalesce_full(&b->coalesce))
		return false;
	copy = malloc(len + !len);
	memcpy(copy, bytes, len);
	if (packet_parse(copy, len, &b->packet[index]) != PACKET_OK) {
		free(copy);
		return false;
	}
	coalesce_add(&b->coalesce, &b->packet[index], 0);
	return true;
}

static inline void batch_end(struct batch *b)
{
	for (uint16_t i = 0; i < b->coalesce.packets; i++)
		free((void *)(uintptr_t)b->packet[i].bytes);
}

static inline bool is_fragment(const struct packet *p)
{
	return p->version == 4 && (get_16(p->bytes + 6) & 0x3fff);
}

/* The transport protocol if its ports are there to be read, else 0. */
static inline uint8_t ports_of(const struct packet *p)
{
	bool known = (p->protocol == TCP || p->protocol == UDP) && !is_fragment(p) && p->length >= p->header_bytes + 8U;

	return known ? p->protocol : 0;
}

/* Whether the order of two packets matters: of one flow, or between the same addresses and of who knows which flow. */
static inline bool related(const struct packet *a, const struct packet *b)
{
	if (a->version != b->version || memcmp(a->source, b->source, a->version == 4 ? 8 : 32))
		return false;
	if (!ports_of(a) || !ports_of(b))
		return true;
	return a->protocol == b->protocol && !memcmp(a->bytes + a->header_bytes, b->bytes + b->header_bytes, 4);
}

/* Whether a packet's own checksum is there and right, so that it may be merged. */
static inline bool is_sound(const struct packet *p)
{
	uint8_t protocol = ports_of(p);

	if (!protocol || (protocol == UDP && get_16(p->bytes + p->header_bytes + 6) == 0))
		return false;
	return transport_is_right(p->bytes, p->length, p->header_bytes, protocol);
}

/* Whether its sender left the checksum to a card: the field has the pseudo-header's sum. */
static inline bool is_partial(const struct packet *p)
{
	uint8_t protocol = ports_of(p);
	size_t field = p->header_bytes + field_of(protocol);

	return protocol && p->length >= field + 2 && !is_sound(p) &&
	       get_16(p->bytes + field) == pseudo_sum(p->bytes, p->length, p->header_bytes, protocol);
}

static inline uint16_t batch_owner(const struct batch *b, const uint8_t *at)
{
	for (uint16_t i = 0; i < b->coalesce.packets; i++)
		if (at >= b->packet[i].bytes && at < b->packet[i].bytes + b->packet[i].length)
			return i;
	return COALESCE_NONE;
}

/* What left untouched: one slice, the packet as it came. */
static inline void check_untouched(struct batch *b, uint16_t group, const struct virtio_net_hdr *header,
				   const struct iovec *iov, int count)
{
	uint16_t owner = batch_owner(b, iov->iov_base);

	REQUIRE(count == 1 && owner != COALESCE_NONE);
	REQUIRE(iov->iov_base == b->packet[owner].bytes && iov->iov_len == b->packet[owner].length);
	REQUIRE(header->gso_type == VIRTIO_NET_HDR_GSO_NONE && header->gso_size == 0);
	b->order[b->out++] = owner;
	b->group[owner] = group;
}

/* A super-packet: everything that the kernel reads in it. */
static inline void check_headers(const struct batch *b, const struct packet *first, const struct virtio_net_hdr *header,
				 size_t len, size_t segments)
{
	uint8_t protocol = first->protocol;
	size_t start = first->header_bytes, headers = cut_headers(first->bytes, start, protocol);
	uint8_t type = protocol == UDP ? VIRTIO_NET_HDR_GSO_UDP_L4
				       : first->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	struct packet whole;

	REQUIRE(len <= COALESCE_BYTES && segments <= COALESCE_SEGMENTS);
	REQUIRE(packet_parse(b->whole, len, &whole) == PACKET_OK); /* total length and header checksum */
	REQUIRE(whole.header_bytes == (first->version == 4 ? 20 : 40));
	REQUIRE(header->flags == VIRTIO_NET_HDR_F_NEEDS_CSUM);
	REQUIRE(header->csum_start == start && header->csum_offset == field_of(protocol));
	REQUIRE(header->hdr_len == headers);
	REQUIRE(header->gso_type == type);
	REQUIRE(header->gso_size == first->length - headers);
	REQUIRE(get_16(b->whole + start + field_of(protocol)) == pseudo_sum(b->whole, len, start, protocol));
	REQUIRE(protocol == TCP || get_16(b->whole + start + 4) == len - start);
	REQUIRE(cut_count(len, header, headers) == segments);
}

/* One piece of a super-packet against the packet that it was. */
static inline void check_piece(struct batch *b, const struct virtio_net_hdr *header, size_t len, size_t index,
			       const struct packet *original)
{
	static uint8_t expected[SUPER_ROOM];
	size_t bytes = cut(b->whole, len, header, original->protocol, index, b->piece);

	REQUIRE(bytes == original->length);
	if (bytes != original->length)
		return;
	memcpy(expected, original->bytes, bytes);
	if (is_partial(original)) /* it leaves finished */
		seal_transport(expected, bytes, original->header_bytes, original->protocol);
	/* With DF an identification means nothing (RFC 6864): the kernel may well count it up instead. */
	if (original->version == 4 && original->dont_fragment) {
		memcpy(b->piece + 4, original->bytes + 4, 2);
		memcpy(b->piece + 10, original->bytes + 10, 2);
	}
	REQUIRE(same_packet(b->piece, expected, bytes, original->header_bytes, original->protocol));
}

/* segment(coalesce(batch)) == batch: segment.c takes the super-packet apart just as super.h does. */
static inline void check_segments_of(struct batch *b, const struct virtio_net_hdr *header, size_t len, size_t segments)
{
	uint8_t *copy = malloc(len), *headers = malloc(SEGMENT_HEADERS_MAX);
	uint8_t protocol = header->csum_offset == 16 ? TCP : UDP;
	struct segment_source source;
	struct packet packet;
	struct segment it;

	memcpy(copy, b->whole, len);
	REQUIRE(packet_parse(copy, len, &packet) == PACKET_OK);
	REQUIRE(segment_prepare(&source, copy, &packet, header) == 0);
	REQUIRE(source.count == segments);
	for (uint32_t i = 0; i < source.count; i++) {
		size_t bytes = cut(b->whole, len, header, protocol, i, b->piece);

		segment_make(&source, i, headers, &it);
		REQUIRE(it.headers_bytes + it.payload_bytes == bytes);
		REQUIRE(same_packet(headers, b->piece, it.headers_bytes, header->csum_start, protocol));
		REQUIRE(!memcmp(it.payload, b->piece + it.headers_bytes, it.payload_bytes));
	}
	free(headers);
	free(copy);
}

static inline void check_merged(struct batch *b, uint16_t group, const struct virtio_net_hdr *header,
				const struct iovec *iov, int count)
{
	const struct packet *first = NULL;
	size_t len = 0, segments = (size_t)count - 1;

	REQUIRE(count > 2 && batch_owner(b, iov->iov_base) == COALESCE_NONE); /* no packet's own bytes are written to */
	for (int i = 0; i < count; i++) {
		memcpy(b->whole + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	for (int i = 1; i < count; i++) {
		uint16_t owner = batch_owner(b, iov[i].iov_base);
		const struct packet *original = &b->packet[owner];

		if (owner == COALESCE_NONE) {
			REQUIRE(owner != COALESCE_NONE);
			return;
		}
		REQUIRE(is_sound(original) || (is_partial(original) && original->length <= MERGED_MTU));
		if (i == 1) {
			first = original;
			check_headers(b, first, header, len, segments);
		}
		check_piece(b, header, len, (size_t)i - 1, original);
		b->order[b->out++] = owner;
		b->group[owner] = group;
	}
	check_segments_of(b, header, len, segments);
}

static inline void check_order(const struct batch *b)
{
	static uint16_t place[COALESCE_PACKETS];
	uint16_t count = b->coalesce.packets;

	REQUIRE(b->out == count);
	memset(place, 0xff, sizeof(place));
	for (uint16_t i = 0; i < b->out; i++) {
		REQUIRE(place[b->order[i]] == UINT16_MAX);
		place[b->order[i]] = i;
	}
	for (uint16_t i = 0; i < count; i++)
		for (uint16_t j = (uint16_t)(i + 1); j < count; j++)
			if (place[j] < place[i])
				REQUIRE(!related(&b->packet[i], &b->packet[j]));
}

/* Builds every group and judges it. Returns how many there are. */
static inline uint16_t batch_check(struct batch *b)
{
	uint8_t *headers = malloc(COALESCE_HEADERS_MAX);
	struct iovec *iov = malloc(sizeof(*iov) * (COALESCE_SEGMENTS + 1));

	for (uint16_t i = 0; i < b->coalesce.groups; i++) {
		struct virtio_net_hdr header;
		int count;

		memset(&header, 0xff, sizeof(header));
		count = coalesce_build(&b->coalesce, i, &header, headers, iov);
		if (header.flags == 0)
			check_untouched(b, i, &header, iov, count);
		else
			check_merged(b, i, &header, iov, count);
	}
	check_order(b);
	free(iov);
	free(headers);
	return b->coalesce.groups;
}

#define ALL_KINDS (COALESCE_TCP | COALESCE_UDP)

#endif
