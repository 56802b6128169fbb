/* test_segment_refused: a virtio header that makes no sense for its packet is refused, and the packet stays as it is.
 *
 * A pod may send such headers: a packet socket with PACKET_VNET_HDR puts them into its link, and the kernel forwards what
 * it believes. Whatever is accepted must give segments that parse.
 */
#include <errno.h>

#include "segment.h"
#include "super.h"

static uint8_t stream[4096];

struct attempt {
	struct shape shape;
	struct virtio_net_hdr header;
	uint8_t *bytes;
	size_t len;
};

#define TCP4 plain_tcp(4)
#define TCP6 plain_tcp(6)
#define UDP4 plain_udp(4)
#define UDP6 plain_udp(6)

/* Each changes what else would be cut without complaint. */
static void no_size(struct attempt *a) { a->header.gso_size = 0; }
static void type_ufo(struct attempt *a) { a->header.gso_type = VIRTIO_NET_HDR_GSO_UDP; }
static void type_2(struct attempt *a) { a->header.gso_type = 2; }
static void type_6(struct attempt *a) { a->header.gso_type = 6; }
static void type_tunnel(struct attempt *a) { a->header.gso_type |= 0x20; }
static void type_ecn_only(struct attempt *a) { a->header.gso_type = VIRTIO_NET_HDR_GSO_ECN; }
static void type_tcp4(struct attempt *a) { a->header.gso_type = VIRTIO_NET_HDR_GSO_TCPV4; }
static void type_tcp6(struct attempt *a) { a->header.gso_type = VIRTIO_NET_HDR_GSO_TCPV6; }
static void type_udp(struct attempt *a) { a->header.gso_type = VIRTIO_NET_HDR_GSO_UDP_L4; }
static void start_zero(struct attempt *a) { a->header.csum_start = 0; }
static void start_in_ip(struct attempt *a) { a->header.csum_start -= 4; }
static void start_later(struct attempt *a) { a->header.csum_start += 4; }
static void start_near_end(struct attempt *a) { a->header.csum_start = (uint16_t)(a->len - 7); }
static void start_at_end(struct attempt *a) { a->header.csum_start = (uint16_t)a->len; }
static void start_beyond(struct attempt *a) { a->header.csum_start = 65535; }
static void doff_small(struct attempt *a) { a->bytes[a->header.csum_start + 12] = 0x40; }
static void doff_none(struct attempt *a) { a->bytes[a->header.csum_start + 12] = 0; }

static void none(struct attempt *a)
{
	a->header.gso_type = VIRTIO_NET_HDR_GSO_NONE;
}

static void whole_beyond(struct attempt *a)
{
	none(a);
	a->header.csum_start = (uint16_t)(a->len - 1);
	a->header.csum_offset = 0;
}

static void whole_odd(struct attempt *a)
{
	none(a);
	a->header.csum_offset++;
}

static void whole_far(struct attempt *a)
{
	none(a);
	a->header.csum_offset = 65534;
}

/* Finishing this one would write into the IP header: the length, the addresses and the checksum are there. */
static void whole_in_ip(struct attempt *a)
{
	none(a);
	a->header.csum_start = 0;
	a->header.csum_offset = 2;
}

static void whole_in_ip_end(struct attempt *a)
{
	none(a);
	a->header.csum_start -= 2;
	a->header.csum_offset = 0;
}

static void large_size_in_ip(struct attempt *a)
{
	a->header.gso_size = 65000;
	a->header.csum_start = 0;
}

static struct attempt attempt(struct shape shape)
{
	struct attempt a;

	shape.payload = stream;
	shape.payload_bytes = 3000;
	a.shape = shape;
	a.len = shape_bytes(&shape);
	a.bytes = malloc(a.len);
	shape_make_partial(&shape, a.bytes);
	a.header = shape_virtio(&shape, 1000);
	return a;
}

static int prepare(struct attempt *a)
{
	struct segment_source source;
	struct packet packet;

	CHECK(packet_parse(a->bytes, a->len, &packet) == PACKET_OK);
	return segment_prepare(&source, a->bytes, &packet, &a->header);
}

static void refused(struct shape shape, void (*change)(struct attempt *), const char *what)
{
	struct attempt a = attempt(shape);
	uint8_t before[4096];
	int error;

	change(&a);
	memcpy(before, a.bytes, a.len);
	error = prepare(&a);
	if (!CHECK(error == -EINVAL))
		printf("%s, IPv%d, protocol %d: %d\n", what, shape.version, shape.protocol, error);
	CHECK(!memcmp(before, a.bytes, a.len));
	free(a.bytes);
}

#define REFUSED(shape, change) refused(shape, change, #change)

static void test_every_kind(void)
{
	static void (*const changes[])(struct attempt *) = {
		no_size, type_ufo, type_2, type_6, type_tunnel, type_ecn_only, start_zero,
		start_in_ip, start_near_end, start_at_end, start_beyond, whole_beyond, whole_odd, whole_far, whole_in_ip,
		whole_in_ip_end, large_size_in_ip,
	};
	struct shape shapes[] = { TCP4, TCP6, UDP4, UDP6 };

	for (size_t i = 0; i < COUNT(shapes); i++)
		for (size_t j = 0; j < COUNT(changes); j++) {
			char what[20];

			snprintf(what, sizeof(what), "change %zu", j);
			refused(shapes[i], changes[j], what);
		}
}

static void test_kinds_of_others(void)
{
	REFUSED(TCP4, type_tcp6);
	REFUSED(TCP4, type_udp);
	REFUSED(TCP6, type_tcp4);
	REFUSED(TCP6, type_udp);
	REFUSED(UDP4, type_tcp4);
	REFUSED(UDP4, type_tcp6);
	REFUSED(UDP6, type_tcp4);
	REFUSED(UDP6, type_tcp6);
	REFUSED(TCP4, start_later); /* IPv4 has nothing between its header and the transport's */
	REFUSED(UDP4, start_later);
	REFUSED(TCP4, doff_small);
	REFUSED(TCP6, doff_none);
}

/* Lengths that the packet does not have. */
static void test_short(void)
{
	for (int protocol = 0; protocol < 2; protocol++)
		for (size_t payload = 0; payload < 70; payload++) {
			struct shape shape = protocol ? UDP4 : TCP4;
			struct segment_source source;
			struct virtio_net_hdr header = shape_virtio(&shape, 1);
			struct packet packet;
			uint8_t *bytes;
			size_t len;

			/* Random bytes for a transport header, cut anywhere. */
			bytes = make_ipv4((struct ipv4_spec){ .protocol = shape.protocol, .payload_bytes = payload }, &len);
			CHECK(packet_parse(bytes, len, &packet) == PACKET_OK);
			if (protocol || payload >= 20) {
				bool room = payload >= (protocol ? 8U : (bytes[32] >> 4) * 4U);
				bool sane = protocol || bytes[32] >> 4 >= 5;

				CHECK((segment_prepare(&source, bytes, &packet, &header) == 0) == (room && sane));
			} else {
				CHECK(segment_prepare(&source, bytes, &packet, &header) == -EINVAL);
			}
			free(bytes);
		}
}

/* IPv6 extensions longer than a header slot. */
static void test_long_headers(void)
{
	for (uint32_t extra = 40; extra < 400; extra += 8) {
		struct shape shape = TCP6;
		struct attempt a = attempt(shape);
		int error;

		a.bytes[6] = 60;
		a.header.csum_start = (uint16_t)(40 + extra);
		a.bytes[40 + extra + 12] = 0x50;
		error = prepare(&a);
		CHECK(error == (40 + extra + 20 <= SEGMENT_HEADERS_MAX ? 0 : -EINVAL));
		CHECK(extra > 264 || error == 0); /* an extension with one option of 257 bytes, the longest (RFC 8200, 4.2) */
		free(a.bytes);
	}
}

/* Any header on any packet: what is accepted can be cut, and every piece parses. */
static void test_random(void)
{
	for (int round = 0; round < 100000; round++) {
		static const uint8_t types[] = {0, 1, 3, 4, 5, 0x81, 0x84, 0x85};
		struct attempt a = attempt(round & 1 ? plain_tcp(round & 2 ? 6 : 4) : plain_udp(round & 2 ? 6 : 4));
		uint8_t headers[SEGMENT_HEADERS_MAX], piece[4096];
		struct segment_source source;
		struct packet packet;

		a.header.gso_type = types[random_below(COUNT(types))];
		a.header.flags = (uint8_t)random_below(4);
		a.header.gso_size = (uint16_t)random_below(random_below(2) ? 3200 : 65536);
		if (random_below(2))
			a.header.csum_start = (uint16_t)random_below(random_below(2) ? 100 : 65536);
		if (random_below(2))
			a.header.csum_offset = (uint16_t)random_below(random_below(2) ? 64 : 65536);
		if (random_below(4) == 0)
			a.bytes[ip_bytes(&a.shape) + 12] = (uint8_t)check_random(&random_state);
		CHECK(packet_parse(a.bytes, a.len, &packet) == PACKET_OK);
		if (segment_prepare(&source, a.bytes, &packet, &a.header) == 0) {
			for (uint32_t i = 0; i < source.count && i < 10; i++) {
				uint32_t index = i < 5 ? i : source.count - 1 - (i - 5) % source.count;
				struct segment it;

				segment_make(&source, index < source.count ? index : 0, headers, &it);
				memcpy(piece, headers, it.headers_bytes);
				memcpy(piece + it.headers_bytes, it.payload, it.payload_bytes);
				CHECK(packet_parse(piece, it.headers_bytes + it.payload_bytes, &packet) == PACKET_OK);
			}
		}
		free(a.bytes);
	}
}

/* A super-packet that a card has merged and verified comes without NEEDS_CSUM and without csum_start: it is cut all the
 * same, and into the same pieces. */
static void test_verified_by_a_card(void)
{
	static const uint8_t flags[] = {0, VIRTIO_NET_HDR_F_DATA_VALID};

	for (size_t i = 0; i < COUNT(flags); i++) {
		for (int version = 4; version <= 6; version += 2) {
			struct attempt a = attempt(plain_tcp(version));
			uint8_t ours[SEGMENT_HEADERS_MAX], theirs[SEGMENT_HEADERS_MAX];
			struct segment_source partial, verified;
			struct segment one, other;
			struct packet packet;

			CHECK(packet_parse(a.bytes, a.len, &packet) == PACKET_OK);
			CHECK(segment_prepare(&partial, a.bytes, &packet, &a.header) == 0);
			a.header.flags = flags[i];
			a.header.csum_start = a.header.csum_offset = 0;
			CHECK(segment_prepare(&verified, a.bytes, &packet, &a.header) == 0);
			CHECK(verified.count == partial.count && verified.count > 1);
			for (uint32_t k = 0; k < verified.count; k++) {
				segment_make(&partial, k, theirs, &one);
				segment_make(&verified, k, ours, &other);
				CHECK(one.headers_bytes == other.headers_bytes && one.payload == other.payload &&
				      one.payload_bytes == other.payload_bytes && !memcmp(ours, theirs, one.headers_bytes));
			}
			free(a.bytes);
		}
	}
}

int main(void)
{
	fill_random(stream, sizeof(stream));
	test_every_kind();
	test_verified_by_a_card();
	test_kinds_of_others();
	test_short();
	test_long_headers();
	test_random();
	return check_done();
}
