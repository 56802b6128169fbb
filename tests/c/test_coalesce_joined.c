/* test_coalesce_joined: coalesce(segment(p)) is p again, virtio header and all, as far as TCP's flags allow; and a packet
 * with one bit turned, anywhere that its checksum covers, comes out as it came.
 */
#include "merged.h"

static uint8_t stream[66000];
static struct batch batch;

/* Cuts a super-packet with segment.c into the batch. */
static void cut_into_batch(const struct shape *shape, uint8_t *bytes, size_t len, const struct virtio_net_hdr *header)
{
	static uint8_t piece[SUPER_ROOM];
	struct segment_source source;
	struct packet packet;

	CHECK(packet_parse(bytes, len, &packet) == PACKET_OK);
	CHECK(segment_prepare(&source, bytes, &packet, header) == 0);
	CHECK(source.count == (shape->payload_bytes + header->gso_size - 1) / header->gso_size);
	batch_begin(&batch, ALL_KINDS);
	for (uint32_t i = 0; i < source.count; i++) {
		uint8_t headers[SEGMENT_HEADERS_MAX];
		struct segment it;

		segment_make(&source, i, headers, &it);
		memcpy(piece, headers, it.headers_bytes);
		memcpy(piece + it.headers_bytes, it.payload, it.payload_bytes);
		CHECK(batch_add(&batch, piece, it.headers_bytes + it.payload_bytes));
	}
}

static void check_same(const uint8_t *bytes, size_t len, const struct virtio_net_hdr *expected)
{
	uint8_t headers[COALESCE_HEADERS_MAX], *at = batch.whole;
	struct iovec iov[COALESCE_SEGMENTS + 1];
	struct virtio_net_hdr header;
	int count = coalesce_build(&batch.coalesce, 0, &header, headers, iov);

	for (int i = 0; i < count; i++) {
		memcpy(at, iov[i].iov_base, iov[i].iov_len);
		at += iov[i].iov_len;
	}
	CHECK((size_t)(at - batch.whole) == len && !memcmp(batch.whole, bytes, len));
	CHECK(!memcmp(&header, expected, sizeof(header)));
}

/* Groups that the kernel's rules make of a super-packet of `count` segments with these flags. */
static uint32_t expected_groups(uint8_t flags, uint32_t count)
{
	uint32_t apart = 0;

	if (flags & (SYN | RST | URG) || !(flags & ACK))
		return count;
	if (flags & CWR) /* the first stands alone */
		apart++;
	if (flags & FIN) /* the last */
		apart++;
	if (count <= apart)
		return count;
	return apart + (count - apart + COALESCE_SEGMENTS - 1) / COALESCE_SEGMENTS;
}

static void join(struct shape shape, size_t size)
{
	struct virtio_net_hdr header = shape_virtio(&shape, size);
	uint32_t count = (uint32_t)((shape.payload_bytes + size - 1) / size), expected;
	uint8_t *bytes = malloc(shape_bytes(&shape));
	size_t len = shape_make_partial(&shape, bytes);

	cut_into_batch(&shape, bytes, len, &header);
	expected = shape.protocol == TCP ? expected_groups(shape.flags, count)
					 : (count + COALESCE_SEGMENTS - 1) / COALESCE_SEGMENTS;
	CHECK(batch_check(&batch) == expected);
	if (expected == 1)
		check_same(bytes, len, &header);
	batch_end(&batch);
	free(bytes);
}

static struct shape random_shape(void)
{
	struct shape shape = random_below(2) ? plain_tcp(random_below(2) ? 6 : 4) : plain_udp(random_below(2) ? 6 : 4);

	shape.tos = (uint8_t)random_below(256);
	shape.ttl = (uint8_t)random_below(256);
	shape.id = (uint16_t)random_below(65536);
	shape.fragment = random_below(2) ? DF : 0;
	shape.flow_label = random_below(1 << 20);
	shape.sequence = (uint32_t)check_random(&random_state);
	shape.acknowledged = (uint32_t)check_random(&random_state);
	shape.window = (uint16_t)random_below(65536);
	shape.reserved = (uint8_t)random_below(16);
	shape.flags = ACK | (random_below(2) ? PSH : 0) | (random_below(2) ? ECE : 0);
	shape.tcp_option_bytes = 4 * random_below(11);
	fill_random(shape.tcp_options, sizeof(shape.tcp_options));
	shape.payload = stream + random_below(400);
	return shape;
}

static void test_random(void)
{
	for (int round = 0; round < 4000; round++) {
		struct shape shape = random_shape();
		size_t most = COALESCE_BYTES - headers_bytes(&shape);
		size_t size = 1 + random_below(round % 8 ? 1500 : 30000);
		size_t count = 2 + random_below(COALESCE_SEGMENTS - 1);

		shape.payload_bytes = size * (count - 1) + 1 + random_below((uint32_t)size);
		if (shape.payload_bytes > most)
			shape.payload_bytes = most;
		if (shape.payload_bytes > size)
			join(shape, size);
	}
}

/* More segments than a group holds. */
static void test_many(void)
{
	for (int round = 0; round < 200; round++) {
		struct shape shape = random_shape();
		size_t size = 1 + random_below(100);

		shape.payload_bytes = size * COALESCE_SEGMENTS + 1 + random_below((uint32_t)size * 400);
		shape.flags &= (uint8_t)~PSH;
		join(shape, size);
	}
}

static void test_flags(void)
{
	for (uint32_t flags = 0; flags < 256; flags++) {
		struct shape shape = plain_tcp(flags & 16 ? 4 : 6);

		shape.flags = (uint8_t)flags;
		shape.payload = stream;
		for (size_t payload = 150; payload <= 650; payload += 100) {
			shape.payload_bytes = payload;
			join(shape, 100);
		}
	}
}

/* ---- one bit turned ---- */

/* Whether the transport's checksum, or IPv4's own, covers a bit. IPv6 protects neither traffic class, flow label nor hop
 * limit. */
static bool is_covered(const struct shape *shape, size_t bit)
{
	return shape->version == 4 || bit >= 64 || (bit >= 32 && bit < 56);
}

/* Three packets that would merge; one bit of the middle one is turned. It must come out exactly so, if at all, and the
 * kernel must be left to verify it. */
static void turn_bit(const struct shape *shape, size_t bit)
{
	static uint8_t bytes[SUPER_ROOM];
	struct shape it = *shape;
	bool added = true;

	batch_begin(&batch, ALL_KINDS);
	for (int i = 0; i < 3; i++) {
		size_t len = shape_make(&it, bytes);

		if (i == 1)
			bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
		if (i == 1)
			added = batch_add(&batch, bytes, len);
		else
			CHECK(batch_add(&batch, bytes, len));
		it.sequence += (uint32_t)it.payload_bytes;
		it.id++;
	}
	(void)batch_check(&batch); /* untouched, or judged sound by another's sum */
	if (added && is_covered(shape, bit)) {
		CHECK(!is_sound(&batch.packet[1]));
		CHECK(batch.coalesce.group[batch.group[1]].segments == 1);
	}
	batch_end(&batch);
}

static void test_turned_bits(void)
{
	for (int k = 0; k < 4; k++) {
		struct shape shape = k < 2 ? plain_tcp(k % 2 ? 6 : 4) : plain_udp(k % 2 ? 6 : 4);

		shape.payload = stream;
		for (shape.payload_bytes = 63; shape.payload_bytes < 300; shape.payload_bytes += 97)
			for (size_t bit = 0; bit < shape_bytes(&shape) * 8; bit++)
				turn_bit(&shape, bit);
	}
}

int main(void)
{
	fill_random(stream, sizeof(stream));
	test_random();
	test_many();
	test_flags();
	test_turned_bits();
	return check_done();
}
