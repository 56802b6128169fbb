/* test_segment: every segment of a super-packet is, byte for byte, the packet that its fields say.
 *
 * The expected packets are made from fields by super.h, which knows nothing of sums made in advance. Super-packets live in
 * allocations of exactly their size, headers in one of SEGMENT_HEADERS_MAX.
 */
#include <errno.h>

#include "segment.h"
#include "super.h"

static uint8_t stream[65536];

/* One super-packet that is being cut. */
struct job {
	struct shape shape;
	size_t size; /* payload of each segment */
	struct virtio_net_hdr header;
	uint8_t *bytes;
	size_t len;
	struct segment_source source;
};

static int start(struct job *job, uint8_t gso_flags)
{
	struct packet packet;

	job->len = shape_bytes(&job->shape);
	job->bytes = malloc(job->len);
	shape_make_partial(&job->shape, job->bytes);
	job->header = shape_virtio(&job->shape, job->size);
	job->header.gso_type |= gso_flags;
	job->header.hdr_len = (uint16_t)check_random(&random_state); /* is not to be trusted */
	CHECK(packet_parse(job->bytes, job->len, &packet) == PACKET_OK);
	return segment_prepare(&job->source, job->bytes, &packet, &job->header);
}

static void check_one(const struct job *job, uint32_t index, uint8_t *headers, uint8_t *expected, uint8_t *found)
{
	struct shape shape = shape_segment(&job->shape, job->size, index);
	size_t len = shape_make(&shape, expected), before = headers_bytes(&shape);
	struct packet packet;
	struct segment it;

	segment_make(&job->source, index, headers, &it);
	if (!CHECK(it.headers_bytes == before && it.headers_bytes + it.payload_bytes == len))
		return;
	CHECK(it.payload == job->bytes + before + index * job->size); /* no copy */
	CHECK(len <= segment_longest(&job->source));
	memcpy(found, headers, before);
	memcpy(found + before, it.payload, it.payload_bytes);
	CHECK(packet_parse(found, len, &packet) == PACKET_OK);
	CHECK(transport_is_right(found, len, ip_bytes(&shape), shape.protocol));
	CHECK(same_packet(found, expected, len, ip_bytes(&shape), shape.protocol));
}

static void check_segments_with(struct shape shape, size_t size, uint8_t gso_flags)
{
	struct job job = { .shape = shape, .size = size };
	uint8_t *headers = malloc(SEGMENT_HEADERS_MAX), *before = malloc(SUPER_ROOM);
	uint8_t *expected = malloc(SUPER_ROOM), *found = malloc(SUPER_ROOM);
	uint32_t count = (uint32_t)((shape.payload_bytes + size - 1) / size);

	CHECK(start(&job, gso_flags) == 0);
	memcpy(before, job.bytes, job.len);
	if (CHECK(job.source.count == count && count > 1)) {
		CHECK(segment_longest(&job.source) == headers_bytes(&shape) + size);
		for (uint32_t i = 0; i < count && i < 300; i++)
			check_one(&job, i, headers, expected, found);
		for (uint32_t i = count; i > 0 && i + 3 > count; i--) /* in any order, as after a partial send */
			check_one(&job, i - 1, headers, expected, found);
	}
	CHECK(!memcmp(before, job.bytes, job.len)); /* the source can be cut again */
	free(found);
	free(expected);
	free(before);
	free(headers);
	free(job.bytes);
}

static void check_segments(struct shape shape, size_t size)
{
	check_segments_with(shape, size, 0);
}

static struct shape kind(int number)
{
	return number < 2 ? plain_tcp(number % 2 ? 6 : 4) : plain_udp(number % 2 ? 6 : 4);
}

static struct shape filled(struct shape shape, size_t payload_bytes)
{
	shape.payload = stream + random_below(16);
	shape.payload_bytes = payload_bytes;
	return shape;
}

static size_t room(const struct shape *shape)
{
	size_t total = shape->version == 4 ? 65535 : 65575;

	return total - headers_bytes(shape) - 16; /* 16: where `filled` may begin */
}

static void test_sizes(void)
{
	static const size_t sizes[] = {1,   2,   3,   7,   8,    31,   32,   33,   127,  128,
				       129, 536, 537, 1398, 1400, 1432, 1447, 8932, 32000};

	for (int k = 0; k < 4; k++) {
		for (size_t i = 0; i < COUNT(sizes); i++) {
			struct shape shape = kind(k);
			size_t size = sizes[i], most = room(&shape);
			size_t payloads[] = {size + 1, 2 * size - (size > 1), 2 * size, 2 * size + 1,
					     10 * size + size / 2 + 1, most};

			for (size_t j = 0; j < COUNT(payloads); j++)
				if (payloads[j] <= most)
					check_segments(filled(shape, payloads[j]), size);
		}
	}
}

static void test_flags(void)
{
	for (uint32_t flags = 0; flags < 256; flags++) {
		struct shape shape = filled(plain_tcp(flags & 1 ? 6 : 4), 2500);

		shape.flags = (uint8_t)flags;
		shape.reserved = (uint8_t)random_below(16);
		shape.urgent = (uint16_t)flags;
		check_segments_with(shape, 1000, flags & CWR ? VIRTIO_NET_HDR_GSO_ECN : 0);
	}
}

static void test_numbers_wrap(void)
{
	struct shape shape = filled(plain_tcp(4), 5000);

	for (uint16_t id = 65530; id != 5; id++) {
		shape.id = id;
		shape.sequence = 0xffffffffU - id % 7 * 500;
		shape.fragment = id % 2 ? DF : 0;
		check_segments(shape, 500);
	}
}

/* Options of all lengths, with random contents: they are copied, whatever they are. */
static void test_options(void)
{
	for (size_t tcp = 0; tcp <= 40; tcp += 4) {
		for (size_t ip = 0; ip <= 40; ip += 4) {
			struct shape shape = filled(plain_tcp(4), 3001);

			shape.tcp_option_bytes = tcp;
			shape.ip_option_bytes = ip;
			fill_random(shape.tcp_options, tcp);
			fill_random(shape.ip_options, ip);
			check_segments(shape, 1000);
			shape.protocol = UDP;
			check_segments(shape, 1001);
		}
	}
}

static void test_timestamps_and_sack(void)
{
	static const uint8_t options[] = {1, 1, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 1, 1, 5, 10, 9, 9, 9, 9, 9, 9, 9, 10};
	struct shape shape = filled(plain_tcp(6), 20000);

	shape.tcp_option_bytes = sizeof(options);
	memcpy(shape.tcp_options, options, sizeof(options));
	check_segments(shape, 1408);
	shape.version = 4;
	check_segments(shape, 1408);
}

/* Only csum_start says where the transport header is. */
static void test_ipv6_extensions(void)
{
	for (int protocol = 0; protocol < 2; protocol++) {
		struct shape shape = filled(protocol ? plain_udp(6) : plain_tcp(6), 4500);

		for (size_t bytes = 8; bytes <= 40; bytes += 8) {
			shape.ip_option_bytes = bytes;
			shape.ip_options[0] = shape.protocol; /* one header of `bytes`, padded */
			shape.ip_options[1] = (uint8_t)(bytes / 8 - 1);
			shape.ip_options[2] = 1;
			shape.ip_options[3] = (uint8_t)(bytes - 4);
			check_segments(shape, 1001);
		}
	}
}

/* Where the packet names the destinations it goes on to, the sum is over the last, which only the kernel's partial sum
 * knows. `last` is where that stands, `start` where the transport header does. */
static void check_routed(struct shape shape, size_t last, size_t start)
{
	uint8_t headers[SEGMENT_HEADERS_MAX], found[2000];
	struct job job = { .shape = shape, .size = 1000 };
	size_t address = shape.version == 4 ? 16 : 24, address_bytes = shape.version == 4 ? 4 : 16;
	struct packet packet;
	struct segment it;

	job.len = shape_bytes(&job.shape);
	job.bytes = malloc(job.len);
	shape_make(&job.shape, job.bytes);
	memcpy(found, job.bytes, start);
	memcpy(found + address, job.bytes + last, address_bytes); /* as if it had arrived at the last destination */
	put_16(job.bytes + start + field_of(shape.protocol), pseudo_sum(found, job.len, start, shape.protocol));
	job.header = shape_virtio(&job.shape, job.size);
	CHECK(packet_parse(job.bytes, job.len, &packet) == PACKET_OK);
	CHECK(segment_prepare(&job.source, job.bytes, &packet, &job.header) == 0);
	for (uint32_t i = 0; i < job.source.count; i++) {
		size_t len;

		segment_make(&job.source, i, headers, &it);
		memcpy(found, headers, it.headers_bytes);
		memcpy(found + it.headers_bytes, it.payload, it.payload_bytes);
		len = it.headers_bytes + it.payload_bytes;
		memcpy(found + address, job.bytes + last, address_bytes);
		CHECK(transport_is_right(found, len, start, shape.protocol));
	}
	free(job.bytes);
}

static void test_ipv6_routing_header(void)
{
	struct shape shape = filled(plain_tcp(6), 2500);

	shape.chain = 43;
	shape.ip_option_bytes = 24;
	memcpy(shape.ip_options, "\x06\x02\x04\x01\0\0\0\0\xfd\0\0\x10\0\x03\0\0\0\0\0\0\0\0\0\x09", 24);
	check_routed(shape, 48, 64);
}

static void test_ipv4_source_route(void)
{
	for (int k = 0; k < 2; k++) {
		struct shape shape = filled(k ? plain_udp(4) : plain_tcp(4), 2500);

		shape.ip_option_bytes = 8;
		memcpy(shape.ip_options, "\x83\x07\x04\x0a\x05\x03\x09\0", 8);
		check_routed(shape, 23, 28);
	}
}

/* Turns two payload bytes so that the checksum of one segment becomes zero. For UDP that is to be sent as 0xffff. */
static void test_zero_checksums(void)
{
	for (int k = 0; k < 4; k++) {
		for (uint32_t target = 0; target < 4; target++) {
			struct shape shape = filled(kind(k), 350), segment;
			uint8_t payload[350], packet[500];
			struct job job;
			struct segment it;
			uint8_t headers[SEGMENT_HEADERS_MAX];
			uint32_t sum;
			size_t len;

			memcpy(payload, shape.payload, sizeof(payload));
			shape.payload = payload;
			put_16(payload + target * 100 + 10, 0);
			segment = shape_segment(&shape, 100, target);
			len = shape_make(&segment, packet);
			put_16(packet + ip_bytes(&segment) + field_of(segment.protocol), 0);
			sum = pseudo_sum(packet, len, ip_bytes(&segment), segment.protocol);
			sum = sum_16(sum, packet + ip_bytes(&segment), len - ip_bytes(&segment));
			put_16(payload + target * 100 + 10, 0xffff - sum);
			check_segments(shape, 100);

			job = (struct job){ .shape = shape, .size = 100 };
			CHECK(start(&job, 0) == 0);
			segment_make(&job.source, target, headers, &it);
			sum = get_16(headers + ip_bytes(&segment) + field_of(segment.protocol));
			CHECK(segment.protocol == UDP ? sum == 0xffff : sum % 0xffff == 0);
			free(job.bytes);
		}
	}
}

/* What has no second segment leaves as it is, only its checksum finished. */
static void check_whole(struct shape shape, size_t size)
{
	struct job job = { .shape = shape, .size = size };
	uint8_t *expected = malloc(SUPER_ROOM), headers[SEGMENT_HEADERS_MAX];
	size_t len = shape_make(&shape, expected);
	struct segment it;

	CHECK(start(&job, 0) == 0);
	CHECK(job.source.count == 1 && segment_longest(&job.source) == len);
	segment_make(&job.source, 0, headers, &it);
	CHECK(it.headers_bytes == 0 && it.payload == job.bytes && it.payload_bytes == len);
	CHECK(same_packet(job.bytes, expected, len, ip_bytes(&shape), shape.protocol));
	free(job.bytes);
	free(expected);
}

static void test_whole_packets(void)
{
	static const size_t payloads[] = {0, 1, 2, 7, 100, 1431, 1432, 9000, 65000};

	for (int k = 0; k < 4; k++) {
		for (size_t i = 0; i < COUNT(payloads); i++) {
			check_whole(filled(kind(k), payloads[i]), 0);
			check_whole(filled(kind(k), payloads[i]), payloads[i] + 1 - (i > 0));
			check_whole(filled(kind(k), payloads[i]), 65535);
		}
	}
}

/* Nothing is asked for, so nothing is touched, not even a checksum that is wrong. */
static void test_untouched(void)
{
	static const struct virtio_net_hdr headers[] = {
		{ .gso_type = VIRTIO_NET_HDR_GSO_NONE },
		{ .flags = VIRTIO_NET_HDR_F_DATA_VALID },
		{ .hdr_len = 99, .gso_size = 1400, .csum_start = 60000, .csum_offset = 7 }, /* all meaningless here */
	};

	for (size_t i = 0; i < COUNT(headers); i++) {
		struct shape shape = filled(plain_tcp(4), 1400);
		uint8_t *bytes = malloc(shape_bytes(&shape)), before[2000];
		size_t len = shape_make(&shape, bytes);
		struct segment_source source;
		struct packet packet;

		bytes[len - 1] ^= 1;
		memcpy(before, bytes, len);
		CHECK(packet_parse(bytes, len, &packet) == PACKET_OK);
		CHECK(segment_prepare(&source, bytes, &packet, &headers[i]) == 0 && source.count == 1);
		CHECK(!memcmp(before, bytes, len));
		free(bytes);
	}
}

int main(void)
{
	fill_random(stream, sizeof(stream));
	test_sizes();
	test_flags();
	test_numbers_wrap();
	test_options();
	test_timestamps_and_sack();
	test_ipv6_extensions();
	test_ipv6_routing_header();
	test_ipv4_source_route();
	test_zero_checksums();
	test_whole_packets();
	test_untouched();
	return check_done();
}
