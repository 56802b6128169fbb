/* test_packet: what parses and what does not, and finishing partial checksums. */
#include <errno.h>

#include "packets.h"

static void test_parse_ipv4(void)
{
	static const uint8_t options[40] = {1, 1, 1, 1};
	static const size_t payloads[] = {0, 1, 8, 100, 1480, 65535 - 60};

	for (size_t option_bytes = 0; option_bytes <= 40; option_bytes += 4)
		for (size_t i = 0; i < COUNT(payloads); i++)
			for (uint32_t flags = 0; flags < 8; flags++) {
				struct packet p;
				size_t len;
				uint8_t *bytes = make_ipv4((struct ipv4_spec){.fragment = flags << 13 | 77,
									      .protocol = 6,
									      .options = options,
									      .option_bytes = option_bytes,
									      .payload_bytes = payloads[i]},
							   &len);

				CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
				CHECK(p.bytes == bytes && p.length == len && p.header_bytes == 20 + option_bytes);
				CHECK(p.version == 4 && p.protocol == 6 && p.dont_fragment == (flags >> 1 & 1));
				CHECK(p.source == bytes + 12 && p.destination == bytes + 16);
				free(bytes);
			}
}

static void test_parse_ipv6(void)
{
	static const size_t payloads[] = {0, 1, 8, 100, 1440, 65535};

	for (size_t i = 0; i < COUNT(payloads); i++) {
		struct packet p;
		size_t len;
		uint8_t *bytes = make_ipv6(58, payloads[i], &len);

		CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
		CHECK(p.bytes == bytes && p.length == len && p.header_bytes == 40);
		CHECK(p.version == 6 && p.protocol == 58 && p.dont_fragment);
		CHECK(p.source == bytes + 8 && p.destination == bytes + 24);
		free(bytes);
	}
}

static void test_parse_truncated(void)
{
	static const uint8_t options[8] = {1, 1, 1, 1, 1, 1, 1, 1};
	size_t len;
	uint8_t *bytes = make_ipv4(
		(struct ipv4_spec){.protocol = 17, .options = options, .option_bytes = 8, .payload_bytes = 50}, &len);

	for (size_t cut = 0; cut < len; cut++)
		CHECK(parse_exact(bytes, cut) == (cut < 20	 ? PACKET_SHORT
						  : cut < 28 ? PACKET_HEADER_LENGTH
							     : PACKET_TOTAL_LENGTH));
	CHECK(parse_exact(bytes, len) == PACKET_OK);
	free(bytes);

	bytes = make_ipv6(17, 50, &len);
	for (size_t cut = 0; cut < len; cut++)
		CHECK(parse_exact(bytes, cut) == (cut < 40 ? PACKET_SHORT : PACKET_TOTAL_LENGTH));
	CHECK(parse_exact(bytes, len) == PACKET_OK);
	free(bytes);
}

static void test_parse_faults(void)
{
	size_t len;
	uint8_t *bytes = make_ipv4((struct ipv4_spec){.protocol = 17, .payload_bytes = 64}, &len);
	uint8_t changed[200] = {0};

	for (uint32_t version = 0; version < 16; version++) {
		if (version == 4 || version == 6)
			continue;
		memcpy(changed, bytes, len);
		changed[0] = (uint8_t)(version << 4 | 5);
		CHECK(parse_exact(changed, len) == PACKET_VERSION);
		CHECK(parse_exact(changed, 19) == PACKET_SHORT);
	}
	for (uint8_t words = 0; words < 5; words++) {
		memcpy(changed, bytes, len);
		changed[0] = 0x40 | words;
		CHECK(parse_exact(changed, len) == PACKET_HEADER_LENGTH);
	}
	for (uint32_t total = 0; total < 0x10000; total++) { /* with a checksum that is right */
		if (total == len)
			continue;
		memcpy(changed, bytes, len);
		put_16(changed + 2, total);
		seal(changed);
		CHECK(parse_exact(changed, len) == PACKET_TOTAL_LENGTH);
	}
	memcpy(changed, bytes, len);
	CHECK(parse_exact(changed, len + 1) == PACKET_TOTAL_LENGTH); /* trailing bytes */

	for (size_t bit = 0; bit < 160; bit++) { /* no flipped bit of the header goes unseen */
		enum packet_fault fault;

		memcpy(changed, bytes, len);
		changed[bit / 8] ^= (uint8_t)(0x80 >> bit % 8);
		fault = parse_exact(changed, len);
		CHECK(fault == (bit < 4	   ? (changed[0] >> 4 == 6 ? PACKET_TOTAL_LENGTH : PACKET_VERSION)
				: bit < 8  ? (changed[0] & 0xf) < 5 ? PACKET_HEADER_LENGTH
								   : PACKET_HEADER_CHECKSUM
				: bit < 16 ? PACKET_HEADER_CHECKSUM
				: bit < 32 ? PACKET_TOTAL_LENGTH
					   : PACKET_HEADER_CHECKSUM));
	}
	free(bytes);
}

/* ---- partial checksums ---- */

static void test_finish_checksum(void)
{
	static const struct {
		uint8_t protocol, offset;
	} transports[] = {{6, 16}, {17, 6}, {58, 2}};

	for (size_t t = 0; t < COUNT(transports); t++)
		for (size_t payload = 20; payload < 200; payload++) {
			size_t len, field = 20 + transports[t].offset;
			uint8_t *bytes, *before;
			uint8_t rest[4] = {0, transports[t].protocol};
			uint32_t pseudo;

			bytes = make_ipv4(
				(struct ipv4_spec){.protocol = transports[t].protocol, .payload_bytes = payload}, &len);
			put_16(rest + 2, (uint32_t)payload);
			pseudo = sum_16(sum_16(0, bytes + 12, 8), rest, 4);
			put_16(bytes + field, pseudo);
			before = malloc(len);
			memcpy(before, bytes, len);
			CHECK(packet_finish_checksum(bytes, len, 20, transports[t].offset) == 0);
			CHECK(sum_16(pseudo, bytes + 20, payload) == 0xffff); /* verifies */
			CHECK(get_16(bytes + field) != 0);
			memcpy(before + field, bytes + field, 2);
			CHECK(!memcmp(before, bytes, len)); /* nothing but the field changed */
			free(before);
			free(bytes);
		}
}

static void test_finish_checksum_zero(void)
{
	/* The words add up to 0xffff, whose complement is zero: "no checksum" to UDP. */
	uint8_t bytes[] = {0, 0, 0x12, 0x34, 0, 0, 0, 0, 0xed, 0xcb};

	CHECK(packet_finish_checksum(bytes, sizeof(bytes), 0, 6) == 0);
	CHECK(get_16(bytes + 6) == 0xffff);
}

static void test_finish_checksum_bounds(void)
{
	static const uint16_t edges[] = {0, 1, 2, 5, 6, 16, 40, 41, 42, 43, 44, 0x7fff, 0x8000, 0xfffe, 0xffff};

	for (size_t len = 0; len < 48; len++)
		for (size_t s = 0; s < COUNT(edges); s++)
			for (size_t o = 0; o < COUNT(edges); o++) {
				uint8_t *bytes = calloc(1, len + !len);
				uint8_t zeros[48] = {0};
				bool fits = edges[s] + edges[o] + 2UL <= len && edges[o] % 2 == 0;

				CHECK(packet_finish_checksum(bytes, len, edges[s], edges[o]) == (fits ? 0 : -EINVAL));
				if (!fits)
					CHECK(!memcmp(bytes, zeros, len));
				free(bytes);
			}
}

int main(void)
{
	test_parse_ipv4();
	test_parse_ipv6();
	test_parse_truncated();
	test_parse_faults();
	test_finish_checksum();
	test_finish_checksum_zero();
	test_finish_checksum_bounds();
	return check_done();
}
