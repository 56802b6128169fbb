/* test_packet_icmp: whose address is no host's, what may be answered with an ICMP error, and what such an error is. */
#include "icmp.h"
#include "packets.h"

static const struct {
	uint32_t address;
	bool no_host;
} ipv4_addresses[] = {
	{0x00000001, true},  {0x00ffffff, true},  {0x01000000, false}, {0x0a000001, false}, {0x7effffff, false},
	{0x7f000000, true},  {0x7f000001, true},  {0x7fffffff, true},  {0x80000000, false}, {0xa9fe0101, false},
	{0xc0a80001, false}, {0xdfffffff, false}, {0xe0000000, true},  {0xe0000001, true},  {0xefffffff, true},
	{0xf0000000, false}, {0xf0050102, false}, {0xfffffffe, false}, {0xffffffff, true},
};

static bool is_martian(const uint8_t *bytes, size_t len)
{
	struct packet p;

	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	return packet_source_is_martian(&p);
}

static void test_martians(void)
{
	static const struct {
		uint8_t address[16];
		bool martian;
	} ipv6_addresses[] = {
		{{[15] = 0}, true},						      /* :: */
		{{[15] = 1}, true},						      /* ::1 */
		{{[15] = 2}, false},						      /* ::2 */
		{{[14] = 1}, false},						      /* ::100 */
		{{[0] = 1, [15] = 1}, false},					      /* 100::1 */
		{{[10] = 0xff, [11] = 0xff, [12] = 10, [15] = 1}, true},	      /* ::ffff:10.0.0.1 */
		{{[9] = 1, [10] = 0xff, [11] = 0xff, [12] = 10}, false},	      /* not quite v4-mapped */
		{{[10] = 0xff, [11] = 0xfe, [12] = 10}, false},			      /* nor this */
		{{[0] = 0xff, [1] = 2, [15] = 1}, true},			      /* ff02::1 */
		{{[0] = 0xff}, true},						      /* ff00:: */
		{{[0] = 0xfe, [1] = 0x80, [15] = 1}, true},			      /* fe80::1 */
		{{[0] = 0xfe, [1] = 0xbf, [2] = 0xff, [15] = 1}, true},		      /* the last link-local ones */
		{{[0] = 0xfe, [1] = 0x7f, [15] = 1}, false},			      /* fe7f::1 */
		{{[0] = 0xfe, [1] = 0xc0, [15] = 1}, false},			      /* fec0::1 */
		{{[0] = 0xfd, [15] = 1}, false},				      /* fd00::1 */
		{{[0] = 0x20, [1] = 0x01, [2] = 0x0d, [3] = 0xb8, [15] = 1}, false}, /* 2001:db8::1 */
	};
	size_t len;

	for (size_t i = 0; i < COUNT(ipv4_addresses); i++) {
		uint8_t *bytes = make_ipv4((struct ipv4_spec){.source = ipv4_addresses[i].address}, &len);

		CHECK(is_martian(bytes, len) == ipv4_addresses[i].no_host);
		free(bytes);
	}
	for (size_t i = 0; i < COUNT(ipv6_addresses); i++) {
		uint8_t *bytes = make_ipv6(17, 8, &len);

		memcpy(bytes + 8, ipv6_addresses[i].address, 16);
		CHECK(is_martian(bytes, len) == ipv6_addresses[i].martian);
		free(bytes);
	}
}

static bool may_answer(struct ipv4_spec spec, int first_payload_byte)
{
	struct packet p;
	size_t len;
	uint8_t *bytes = make_ipv4(spec, &len);
	bool may;

	if (spec.payload_bytes)
		bytes[20 + spec.option_bytes] = (uint8_t)first_payload_byte;
	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	may = packet_may_answer(&p);
	CHECK(packet_may_answer_too_big(&p) == may);
	free(bytes);
	return may;
}

static void test_may_answer(void)
{
	static const uint8_t queries[] = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18}, options[4] = {1, 1, 1, 1};

	for (size_t i = 0; i < COUNT(ipv4_addresses); i++) {
		uint32_t address = ipv4_addresses[i].address;
		bool may = !ipv4_addresses[i].no_host;

		CHECK(may_answer((struct ipv4_spec){.source = address, .protocol = 17, .payload_bytes = 8}, 0) == may);
		CHECK(may_answer((struct ipv4_spec){.destination = address, .protocol = 17, .payload_bytes = 8}, 0) ==
		      may);
	}

	for (uint32_t protocol = 0; protocol < 256; protocol++)
		for (int type = 0; type < 256; type++) {
			bool may = protocol != 1 || memchr(queries, type, sizeof(queries));
			struct ipv4_spec spec = {.protocol = (uint8_t)protocol, .payload_bytes = 8};

			CHECK(may_answer(spec, type) == may);
			if (protocol != 1)
				break;
			spec.options = options; /* the type stands behind the options */
			spec.option_bytes = sizeof(options);
			CHECK(may_answer(spec, type) == may);
		}

	/* Only the first fragment, and ICMP only when its type is there to see. */
	for (uint32_t flags = 0; flags < 8; flags++) {
		struct ipv4_spec spec = {.protocol = 17, .payload_bytes = 8, .fragment = flags << 13};

		CHECK(may_answer(spec, 0));
		for (uint32_t offset = 1; offset < 0x2000; offset <<= 1) {
			spec.fragment = flags << 13 | offset;
			CHECK(!may_answer(spec, 0));
		}
	}
	CHECK(may_answer((struct ipv4_spec){.protocol = 17}, 0));
	CHECK(!may_answer((struct ipv4_spec){.protocol = 1}, 0));
	CHECK(may_answer((struct ipv4_spec){.protocol = 1, .payload_bytes = 1}, 8));
}

/* ---- ICMP errors ---- */

static void check_icmp(const uint8_t *about, size_t about_bytes, uint8_t code, uint16_t mtu)
{
	uint8_t *out = malloc(PACKET_ICMP_MAX_BYTES);
	uint32_t source_be = htonl(0x0a010001);
	size_t quote_bytes = about_bytes < 548 ? about_bytes : 548, len;
	struct packet p, error;

	CHECK(packet_parse(about, about_bytes, &p) == PACKET_OK);
	memset(out, 0x5a, PACKET_ICMP_MAX_BYTES);
	len = packet_icmp_unreachable(&p, code, mtu, source_be, out);

	CHECK(len == 28 + quote_bytes && len <= 576);
	CHECK(packet_parse(out, len, &error) == PACKET_OK);
	CHECK(out[0] == 0x45 && out[1] == 0xc0 && get_16(out + 2) == len);
	CHECK(!memcmp(out + 4, about + 4, 2));			  /* identification */
	CHECK(get_16(out + 6) == 0 && out[8] == 64 && out[9] == 1); /* no flags, no offset; TTL; ICMP */
	CHECK(sum_16(0, out, 20) == 0xffff);
	CHECK(!memcmp(out + 12, &source_be, 4));
	CHECK(!memcmp(out + 16, about + 12, 4));
	CHECK(out[20] == 3 && out[21] == code);
	CHECK(sum_16(0, out + 20, len - 20) == 0xffff);
	CHECK(get_16(out + 24) == 0 && get_16(out + 26) == (code == 4 ? mtu : 0));
	CHECK(!memcmp(out + 28, about, quote_bytes));
	for (size_t i = len; i < PACKET_ICMP_MAX_BYTES; i++)
		CHECK(out[i] == 0x5a);
	CHECK(!packet_may_answer(&error));
	free(out);
}

static void test_icmp(void)
{
	static const uint8_t options[40] = {0x94, 4, 0, 0};
	static const size_t payloads[] = {0, 1, 7, 8, 500, 527, 528, 529, 1480, 65515};

	for (size_t i = 0; i < COUNT(payloads); i++)
		for (uint8_t code = 0; code < 16; code++) {
			size_t len;
			uint8_t *bytes = make_ipv4((struct ipv4_spec){.protocol = 17, .payload_bytes = payloads[i]},
						   &len);

			check_icmp(bytes, len, code, 1472);
			check_icmp(bytes, len, code, 0xffff);
			free(bytes);
		}
	for (size_t payload = 450; payload < 560; payload++) { /* around the limit, with options, odd and even */
		size_t len;
		uint8_t *bytes = make_ipv4((struct ipv4_spec){.protocol = 6,
							      .options = options,
							      .option_bytes = sizeof(options),
							      .payload_bytes = payload},
					   &len);

		check_icmp(bytes, len, PACKET_ICMP_HOST_UNREACHABLE, 1472);
		check_icmp(bytes, len, PACKET_ICMP_FRAGMENTATION_NEEDED, 576);
		free(bytes);
	}
}

int main(void)
{
	test_martians();
	test_may_answer();
	test_icmp();
	return check_done();
}
