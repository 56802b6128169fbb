/* test_icmp6: when an IPv6 packet may be answered with an ICMPv6 error, and what such an error is. */
#include "icmp.h"
#include "packets.h"

#define UDP 17
#define ICMPV6 58
#define NO_NEXT_HEADER 59

enum { HOP_BY_HOP = 0, ROUTING = 43, FRAGMENT = 44, AUTHENTICATION = 51, DESTINATION = 60, MOBILITY = 135 };

static const uint8_t pod[16] = {0xfd, [7] = 1, [15] = 2}, nowhere[16] = {0xfd, [7] = 200, [15] = 1};
static const uint8_t flannel0[16] = {0xfd, [7] = 1};

/* A packet from the pod to nowhere with this payload, in an allocation of just its size. */
static uint8_t *make(uint8_t next_header, const uint8_t *payload, size_t payload_bytes, size_t *len)
{
	uint8_t *bytes = make_ipv6(next_header, payload_bytes, len);

	memcpy(bytes + 8, pod, 16);
	memcpy(bytes + 24, nowhere, 16);
	if (payload)
		memcpy(bytes + 40, payload, payload_bytes);
	return bytes;
}

enum { NEVER, UNREACHABLE_AND_TOO_BIG, TOO_BIG_ONLY };

/* Which errors may be sent about these bytes. */
static int answers(const uint8_t *bytes, size_t len)
{
	struct packet p;

	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	if (packet_may_answer(&p)) {
		CHECK(packet_may_answer_too_big(&p));
		return UNREACHABLE_AND_TOO_BIG;
	}
	return packet_may_answer_too_big(&p) ? TOO_BIG_ONLY : NEVER;
}

static int answers_payload(uint8_t next_header, const uint8_t *payload, size_t payload_bytes)
{
	size_t len;
	uint8_t *bytes = make(next_header, payload, payload_bytes, &len);
	int found = answers(bytes, len);

	free(bytes);
	return found;
}

static void test_addresses(void)
{
	static const struct {
		uint8_t address[16];
		int as_source, as_destination;
	} cases[] = {
		{{0xfd, [15] = 9}, UNREACHABLE_AND_TOO_BIG, UNREACHABLE_AND_TOO_BIG},
		{{0x20, 1, 0x0d, 0xb8, [15] = 1}, UNREACHABLE_AND_TOO_BIG, UNREACHABLE_AND_TOO_BIG},
		{{0}, NEVER, NEVER},				 /* :: */
		{{[15] = 1}, NEVER, NEVER},			 /* ::1 */
		{{[10] = 0xff, [11] = 0xff, 10}, NEVER, NEVER},	 /* v4-mapped */
		{{0xfe, 0x80, [15] = 1}, NEVER, NEVER},		 /* link-local */
		{{0xff, 0x02, [15] = 1}, NEVER, TOO_BIG_ONLY},	 /* multicast: PMTUD for it, RFC 4443, 2.4 (e.3) */
		{{0xff, 0x0e, [15] = 1}, NEVER, TOO_BIG_ONLY},
	};

	for (size_t i = 0; i < COUNT(cases); i++) {
		size_t len;
		uint8_t *bytes = make(UDP, NULL, 8, &len);

		memcpy(bytes + 8, cases[i].address, 16);
		CHECK(answers(bytes, len) == cases[i].as_source);
		memcpy(bytes + 8, pod, 16);
		memcpy(bytes + 24, cases[i].address, 16);
		CHECK(answers(bytes, len) == cases[i].as_destination);
		free(bytes);
	}
}

static void test_protocols(void)
{
	uint8_t payload[8] = {0};

	for (int type = 0; type < 256; type++) {
		payload[0] = (uint8_t)type;
		CHECK(answers_payload(ICMPV6, payload, 8) == (type >= 128 && type != 137 ? UNREACHABLE_AND_TOO_BIG : NEVER));
	}
	CHECK(answers_payload(ICMPV6, NULL, 0) == NEVER); /* no type is there to see */
	payload[0] = 128;
	CHECK(answers_payload(ICMPV6, payload, 1) == UNREACHABLE_AND_TOO_BIG);
	CHECK(answers_payload(UDP, NULL, 0) == UNREACHABLE_AND_TOO_BIG);
	CHECK(answers_payload(6, NULL, 20) == UNREACHABLE_AND_TOO_BIG);
	CHECK(answers_payload(50, NULL, 20) == UNREACHABLE_AND_TOO_BIG); /* ESP: what it hides is its own business */
	CHECK(answers_payload(NO_NEXT_HEADER, NULL, 0) == UNREACHABLE_AND_TOO_BIG);
}

/* Behind any chain of extension headers it is the ICMPv6 type that counts, wherever the packet ends. */
static void test_extensions(void)
{
	static const uint8_t kinds[] = {HOP_BY_HOP, ROUTING, FRAGMENT, AUTHENTICATION, DESTINATION, MOBILITY, 139, 140};
	static const uint8_t types[] = {1, 2, 3, 4, 127, 137, 128, 129, 135};

	for (size_t i = 0; i < COUNT(kinds); i++)
		for (size_t j = 0; j < COUNT(kinds); j++)
			for (uint8_t words = 0; words < 4; words++)
				for (size_t t = 0; t < COUNT(types); t++) {
					uint8_t payload[128] = {0};
					size_t second, upper;
					int expected = types[t] >= 128 && types[t] != 137 ? UNREACHABLE_AND_TOO_BIG : NEVER;

					payload[0] = kinds[j];
					payload[1] = words; /* a fragment header has none: its length is fixed */
					second = kinds[i] == FRAGMENT ? 8 : kinds[i] == AUTHENTICATION ? (words + 2U) * 4
												       : (words + 1U) * 8;
					payload[second] = ICMPV6;
					upper = second + 8; /* each of them is at least so long */
					payload[upper] = types[t];
					CHECK(answers_payload(kinds[i], payload, upper + 1) == expected);
					for (size_t cut = 0; cut <= upper; cut++)
						CHECK(answers_payload(kinds[i], payload, cut) == NEVER);
				}
}

static void test_fragments(void)
{
	uint8_t payload[24] = {UDP};

	for (uint32_t more = 0; more < 2; more++)
		for (uint32_t reserved = 0; reserved < 4; reserved++) {
			put_16(payload + 2, reserved << 1 | more);
			CHECK(answers_payload(FRAGMENT, payload, 16) == UNREACHABLE_AND_TOO_BIG);
			for (uint32_t offset = 8; offset < 0x10000; offset <<= 1) {
				put_16(payload + 2, offset | reserved << 1 | more);
				CHECK(answers_payload(FRAGMENT, payload, 16) == NEVER);
			}
		}
	payload[0] = FRAGMENT; /* behind hop-by-hop options as well */
	payload[8] = UDP;
	put_16(payload + 10, 8 << 3);
	CHECK(answers_payload(HOP_BY_HOP, payload, 24) == NEVER);
	put_16(payload + 10, 0);
	CHECK(answers_payload(HOP_BY_HOP, payload, 24) == UNREACHABLE_AND_TOO_BIG);
}

/* ---- what an error is ---- */

/* The sum over the pseudo-header (RFC 8200, 8.1) and the payload. */
static uint32_t icmp6_sum(const uint8_t *packet, size_t len)
{
	uint8_t rest[8] = {0, 0, (uint8_t)((len - 40) >> 8), (uint8_t)(len - 40), [7] = ICMPV6};

	return sum_16(sum_16(sum_16(0, packet + 8, 32), rest, 8), packet + 40, len - 40);
}

static void check_error(const uint8_t *about, size_t about_bytes, uint8_t type, uint8_t code, uint32_t mtu)
{
	uint8_t *out = malloc(PACKET_ICMP6_MAX_BYTES);
	size_t quote_bytes = about_bytes < 1232 ? about_bytes : 1232, len;
	uint32_t shown = type == PACKET_ICMP6_TOO_BIG ? mtu : 0;
	struct packet p, error;

	CHECK(packet_parse(about, about_bytes, &p) == PACKET_OK);
	memset(out, 0x5a, PACKET_ICMP6_MAX_BYTES);
	len = packet_icmp6_error(&p, type, code, mtu, flannel0, out);

	CHECK(len == 48 + quote_bytes && len <= 1280);
	CHECK(packet_parse(out, len, &error) == PACKET_OK);
	CHECK(get_16(out) == 0x6000 && get_16(out + 2) == 0); /* traffic class and flow label */
	CHECK(get_16(out + 4) == len - 40 && out[6] == ICMPV6 && out[7] == 64);
	CHECK(!memcmp(out + 8, flannel0, 16));
	CHECK(!memcmp(out + 24, about + 8, 16));
	CHECK(out[40] == type && out[41] == code);
	CHECK(get_16(out + 44) == shown >> 16 && get_16(out + 46) == (shown & 0xffff));
	CHECK(icmp6_sum(out, len) == 0xffff);
	CHECK(!memcmp(out + 48, about, quote_bytes));
	for (size_t i = len; i < PACKET_ICMP6_MAX_BYTES; i++)
		CHECK(out[i] == 0x5a);
	CHECK(!packet_may_answer(&error) && !packet_may_answer_too_big(&error));
	free(out);
}

static void test_errors(void)
{
	static const size_t payloads[] = {0, 1, 7, 8, 1190, 1191, 1192, 1193, 1194, 1400, 65535};

	for (size_t i = 0; i < COUNT(payloads); i++)
		for (uint8_t code = 0; code < 8; code++) {
			size_t len;
			uint8_t *bytes = make(UDP, NULL, payloads[i], &len);

			check_error(bytes, len, PACKET_ICMP6_UNREACHABLE, code, 1472);
			check_error(bytes, len, PACKET_ICMP6_TOO_BIG, 0, 1280 + code);
			check_error(bytes, len, PACKET_ICMP6_TOO_BIG, 0, 0x12345678);
			free(bytes);
		}
}

int main(void)
{
	test_addresses();
	test_protocols();
	test_extensions();
	test_fragments();
	test_errors();
	return check_done();
}
