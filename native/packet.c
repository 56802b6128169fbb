/* packet: one inner IP packet as bytes.
 *
 * Owns where things stand in IPv4 and IPv6 headers and what may be changed there. It must not know sockets, routes or
 * peers, and it keeps nothing: all it needs comes in as bytes, all it makes goes out as bytes.
 *
 * Theory of operation
 *
 * Parsing is validation. Bytes become a `struct packet` only if the header is whole, its checksum is right and its
 * total length is exactly the number of bytes; everything after that may read `header_bytes` and `length` without
 * looking again. IPv6 extension headers, transport headers and payloads are the hosts' own business and pass unread.
 *
 * Fragments are slices of the payload, each behind a header of its own; the payload is not copied. Offsets count from
 * where the packet stood in its datagram, as the packet may be a fragment already: then its own offset is added, and
 * its last slice still has "more fragments" set if the packet had. All but the last slice are multiples of eight.
 *
 * Fields are read and written with memcpy: bytes may have any alignment.
 */
#include "packet.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "checksum.h"

/* Where the fields of an IPv4 header stand (RFC 791, 3.1). */
enum {
	IPV4_TOTAL_LENGTH = 2,
	IPV4_FRAGMENT = 6, /* flags and offset */
	IPV4_PROTOCOL = 9,
	IPV4_CHECKSUM = 10,
	IPV4_SOURCE = 12,
	IPV4_DESTINATION = 16,
	IPV4_OPTIONS = 20,
	IPV4_HEADER_BYTES = 20, /* without options */
};

#define FRAGMENT_DONT 0x4000
#define FRAGMENT_MORE 0x2000
#define FRAGMENT_OFFSET 0x1fff /* in units of eight bytes */

#define OPTION_END 0
#define OPTION_NOP 1
#define OPTION_COPIED 0x80 /* of an option's type: it goes into every fragment */

/* ... of an IPv6 header (RFC 8200, 3). */
enum {
	IPV6_PAYLOAD_LENGTH = 4,
	IPV6_NEXT_HEADER = 6,
	IPV6_SOURCE = 8,
	IPV6_DESTINATION = 24,
	IPV6_HEADER_BYTES = 40,
};

static uint16_t load_16(const uint8_t *at)
{
	return (uint16_t)(at[0] << 8 | at[1]);
}

static void store_16(uint8_t *at, uint16_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* A finished checksum is in stored order already. */
static void store_checksum(uint8_t *at, uint16_t checksum)
{
	memcpy(at, &checksum, sizeof(checksum));
}

/* Fills in the header's checksum, the last thing to be done to a header. */
static void seal_ipv4(uint8_t *header, size_t header_bytes)
{
	store_checksum(header + IPV4_CHECKSUM, 0);
	store_checksum(header + IPV4_CHECKSUM, checksum_finish(checksum_add(0, header, header_bytes)));
}

/* ---- validation ---- */

static enum packet_fault parse_ipv4(const uint8_t *bytes, size_t len, struct packet *out)
{
	size_t header_bytes = (size_t)(bytes[0] & 0x0f) * 4;

	if (header_bytes < IPV4_HEADER_BYTES || header_bytes > len)
		return PACKET_HEADER_LENGTH;
	if (load_16(bytes + IPV4_TOTAL_LENGTH) != len)
		return PACKET_TOTAL_LENGTH;
	if (checksum_finish(checksum_add(0, bytes, header_bytes)) != 0)
		return PACKET_HEADER_CHECKSUM;

	*out = (struct packet){
		.bytes = bytes,
		.length = (uint32_t)len,
		.header_bytes = (uint16_t)header_bytes,
		.version = 4,
		.protocol = bytes[IPV4_PROTOCOL],
		.dont_fragment = load_16(bytes + IPV4_FRAGMENT) & FRAGMENT_DONT,
		.source = bytes + IPV4_SOURCE,
		.destination = bytes + IPV4_DESTINATION,
	};
	return PACKET_OK;
}

static enum packet_fault parse_ipv6(const uint8_t *bytes, size_t len, struct packet *out)
{
	if (len < IPV6_HEADER_BYTES)
		return PACKET_SHORT;
	if (load_16(bytes + IPV6_PAYLOAD_LENGTH) != len - IPV6_HEADER_BYTES)
		return PACKET_TOTAL_LENGTH;

	*out = (struct packet){
		.bytes = bytes,
		.length = (uint32_t)len,
		.header_bytes = IPV6_HEADER_BYTES,
		.version = 6,
		.protocol = bytes[IPV6_NEXT_HEADER],
		.dont_fragment = true,
		.source = bytes + IPV6_SOURCE,
		.destination = bytes + IPV6_DESTINATION,
	};
	return PACKET_OK;
}

enum packet_fault packet_parse(const uint8_t *bytes, size_t len, struct packet *out)
{
	if (len < PACKET_MIN_BYTES)
		return PACKET_SHORT;
	switch (bytes[0] >> 4) {
	case 4:
		return parse_ipv4(bytes, len, out);
	case 6:
		return parse_ipv6(bytes, len, out);
	default:
		return PACKET_VERSION;
	}
}

bool packet_is_fragment(const struct packet *p)
{
	return p->version == 4 && (load_16(p->bytes + IPV4_FRAGMENT) & (FRAGMENT_MORE | FRAGMENT_OFFSET));
}

/* ---- explicit congestion notification ---- */

bool packet_take_ecn(const struct packet *p, uint8_t *bytes, uint8_t outer_ecn)
{
	uint8_t inner = packet_tos(p) & PACKET_ECN_MASK;

	if (inner == PACKET_NOT_ECT)
		return outer_ecn != PACKET_CE;
	if (outer_ecn != PACKET_CE && !(outer_ecn == PACKET_ECT1 && inner == PACKET_ECT0))
		return true;
	if (inner == PACKET_CE)
		return true;
	if (p->version == 4) {
		bytes[1] = (uint8_t)((bytes[1] & ~PACKET_ECN_MASK) | outer_ecn);
		seal_ipv4(bytes, p->header_bytes);
	} else { /* the two lower bits of the class are in the upper half of the second byte */
		bytes[1] = (uint8_t)((bytes[1] & ~(PACKET_ECN_MASK << 4)) | outer_ecn << 4);
	}
	return true;
}

/* ---- partial checksums ---- */

int packet_finish_checksum(uint8_t *bytes, size_t len, uint16_t start, uint16_t offset)
{
	size_t field = (size_t)start + offset;
	uint16_t checksum;

	if (offset % 2 || field + sizeof(checksum) > len)
		return -EINVAL;
	checksum = checksum_finish(checksum_add(0, bytes + start, len - start));
	store_checksum(bytes + field, checksum ? checksum : 0xffff);
	return 0;
}

/* ---- addresses that are no host's ---- */

static bool ipv4_is_no_host(const uint8_t *address)
{
	static const uint8_t limited_broadcast[4] = {0xff, 0xff, 0xff, 0xff};

	/* 0/8 "this network", 127/8 loopback, 224/4 multicast. Linux takes class E, 240/4, for unicast as any other. */
	return address[0] == 0 || address[0] == 127 || address[0] >> 4 == 14 ||
	       !memcmp(address, limited_broadcast, sizeof(limited_broadcast));
}

static bool ipv6_is_no_host(const uint8_t *address)
{
	static const uint8_t zeros[15], v4_mapped[12] = {[10] = 0xff, [11] = 0xff};

	if (address[0] == 0xff) /* multicast */
		return true;
	if (address[0] == 0xfe && (address[1] & 0xc0) == 0x80) /* fe80::/10 link-local */
		return true;
	if (!memcmp(address, v4_mapped, sizeof(v4_mapped)))
		return true;
	return !memcmp(address, zeros, sizeof(zeros)) && address[15] <= 1; /* :: unspecified, ::1 loopback */
}

bool packet_is_no_host(uint8_t version, const uint8_t *address)
{
	return version == 4 ? ipv4_is_no_host(address) : ipv6_is_no_host(address);
}

/* ---- fragments ---- */

/* Copies the options that go into every fragment, padded to whole words. A malformed option ends the copy: there is no
 * telling where the next one would begin. Returns the bytes written, no more than the options had. */
static size_t copy_options(const uint8_t *option, const uint8_t *end, uint8_t *out)
{
	size_t written = 0;

	while (option < end && *option != OPTION_END) {
		size_t left = (size_t)(end - option);
		size_t length = 1;

		if (*option != OPTION_NOP) {
			if (left < 2 || option[1] < 2 || option[1] > left)
				break;
			length = option[1];
		}
		if (*option & OPTION_COPIED) {
			memcpy(out + written, option, length);
			written += length;
		}
		option += length;
	}
	while (written % 4)
		out[written++] = OPTION_END;
	return written;
}

/* Starts a fragment's header from the packet's: all of it for the first, without the options that stay there for those
 * that follow. Returns its length. */
static size_t copy_header(const struct packet *p, bool first, uint8_t *header)
{
	size_t header_bytes = p->header_bytes;

	if (first) {
		memcpy(header, p->bytes, header_bytes);
		return header_bytes;
	}
	memcpy(header, p->bytes, IPV4_HEADER_BYTES);
	header_bytes = IPV4_HEADER_BYTES + copy_options(p->bytes + IPV4_OPTIONS, p->bytes + header_bytes,
							header + IPV4_OPTIONS);
	header[0] = (uint8_t)(4 << 4 | header_bytes / 4);
	return header_bytes;
}

int packet_next_fragment(const struct packet *p, uint32_t mtu, uint32_t *done_bytes, struct packet_fragment *out)
{
	uint16_t original = load_16(p->bytes + IPV4_FRAGMENT);
	uint32_t offset_bytes = (uint32_t)(original & FRAGMENT_OFFSET) * 8;
	uint32_t payload_bytes = p->length - p->header_bytes;
	uint16_t fragment = (uint16_t)(original & ~FRAGMENT_OFFSET); /* with the packet's own "more", if it has it */
	uint32_t left, slice;
	size_t header_bytes;

	if (mtu < p->header_bytes + 8U || offset_bytes + payload_bytes > PACKET_MAX_BYTES)
		return -EINVAL;
	if (*done_bytes >= payload_bytes)
		return 0;

	header_bytes = copy_header(p, *done_bytes == 0, out->header);
	left = payload_bytes - *done_bytes;
	slice = mtu - (uint32_t)header_bytes;
	if (slice < left) {
		slice -= slice % 8;
		fragment |= FRAGMENT_MORE;
	} else {
		slice = left;
	}
	fragment |= (uint16_t)((offset_bytes + *done_bytes) / 8);

	store_16(out->header + IPV4_TOTAL_LENGTH, (uint16_t)(header_bytes + slice));
	store_16(out->header + IPV4_FRAGMENT, fragment);
	seal_ipv4(out->header, header_bytes);
	out->header_bytes = (uint16_t)header_bytes;
	out->payload = p->bytes + p->header_bytes + *done_bytes;
	out->payload_bytes = slice;
	*done_bytes += slice;
	return 1;
}
