/* test_packet: parsing, partial checksums, ICMP errors and fragments.
 *
 * What packet.c makes is taken apart here by code of its own: big-endian reads, a checksum of one word at a time, an
 * option walk, a reassembly into a buffer. Packets live in allocations of exactly their size, so that the address
 * sanitizer sees every byte read or written past them.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"
#include "packet.h"

#define COUNT(array) (sizeof(array) / sizeof(*(array)))

static uint64_t random_state = 17;

static uint32_t random_below(uint32_t limit)
{
	return (uint32_t)(check_random(&random_state) % limit);
}

static void fill_random(uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)check_random(&random_state);
}

static uint32_t get_16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static void put_16(uint8_t *at, uint32_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* The uncomplemented sum of big-endian words. */
static uint32_t sum_16(uint32_t sum, const uint8_t *bytes, size_t len)
{
	for (size_t i = 0; i < len; i++) {
		sum += i % 2 ? bytes[i] : (uint32_t)bytes[i] << 8;
		sum = (sum & 0xffff) + (sum >> 16);
	}
	return sum;
}

/* ---- packets to test with ---- */

struct ipv4_spec {
	uint32_t source, destination; /* host order; 0 takes one of ours */
	uint32_t fragment;            /* flags and offset as they stand in the header */
	uint8_t protocol;
	const uint8_t *options;
	size_t option_bytes;
	size_t payload_bytes;
};

static void seal(uint8_t *header)
{
	put_16(header + 10, 0);
	put_16(header + 10, ~sum_16(0, header, (header[0] & 0xfU) * 4));
}

/* A valid packet with random payload in an allocation of its own. */
static uint8_t *make_ipv4(struct ipv4_spec spec, size_t *len)
{
	size_t header_bytes = 20 + spec.option_bytes;
	uint32_t source = htonl(spec.source ? spec.source : 0x0a010203);
	uint32_t destination = htonl(spec.destination ? spec.destination : 0x0a020304);
	uint8_t *bytes;

	*len = header_bytes + spec.payload_bytes;
	bytes = malloc(*len);
	fill_random(bytes, *len);
	bytes[0] = (uint8_t)(0x40 | header_bytes / 4);
	put_16(bytes + 2, (uint32_t)*len);
	put_16(bytes + 6, spec.fragment);
	bytes[9] = spec.protocol;
	memcpy(bytes + 12, &source, 4);
	memcpy(bytes + 16, &destination, 4);
	if (spec.option_bytes)
		memcpy(bytes + 20, spec.options, spec.option_bytes);
	seal(bytes);
	return bytes;
}

static uint8_t *make_ipv6(uint8_t next_header, size_t payload_bytes, size_t *len)
{
	uint8_t *bytes;

	*len = 40 + payload_bytes;
	bytes = malloc(*len);
	fill_random(bytes, *len);
	bytes[0] = 0x60 | (bytes[0] & 0xf);
	put_16(bytes + 4, (uint32_t)payload_bytes);
	bytes[6] = next_header;
	return bytes;
}

/* Parses a copy of just these bytes. */
static enum packet_fault parse_exact(const uint8_t *bytes, size_t len)
{
	uint8_t *copy = malloc(len + !len);
	struct packet out, untouched;
	enum packet_fault fault;

	memcpy(copy, bytes, len);
	memset(&out, 0xa5, sizeof(out));
	memcpy(&untouched, &out, sizeof(out));
	fault = packet_parse(len ? copy : copy + 1, len, &out);
	if (fault)
		CHECK(!memcmp(&out, &untouched, sizeof(out)));
	free(copy);
	return fault;
}

/* ---- parsing ---- */

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

/* ---- addresses ---- */

static const struct {
	uint32_t address;
	bool no_host;
} ipv4_addresses[] = {
	{0x00000001, true},  {0x00ffffff, true},  {0x01000000, false}, {0x0a000001, false}, {0x7effffff, false},
	{0x7f000000, true},  {0x7f000001, true},  {0x7fffffff, true},  {0x80000000, false}, {0xa9fe0101, false},
	{0xc0a80001, false}, {0xdfffffff, false}, {0xe0000000, true},  {0xe0000001, true},  {0xefffffff, true},
	{0xf0000000, true},  {0xfffffffe, true},  {0xffffffff, true},
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
		{{[0] = 0xfe, [1] = 0x80, [15] = 1}, false},			      /* fe80::1 */
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
	free(bytes);
	return may;
}

static void test_may_answer(void)
{
	static const uint8_t queries[] = {0, 8, 9, 10, 13, 14, 15, 16, 17, 18}, options[4] = {1, 1, 1, 1};
	struct packet p;
	uint8_t *bytes;
	size_t len;

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

	bytes = make_ipv6(17, 8, &len);
	bytes[8] = bytes[24] = 0xfd;
	CHECK(packet_parse(bytes, len, &p) == PACKET_OK && !packet_may_answer(&p));
	free(bytes);
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

/* ---- fragments ---- */

struct reassembly {
	uint8_t bytes[65536 + 8];
	uint32_t end;  /* all payload up to here has come, in order */
	bool more;     /* the last fragment announced another */
	size_t pieces;
};

/* What the options of a later fragment must be: those with the copied flag, in order, padded with zeros. */
static size_t expected_options(const uint8_t *header, uint8_t *out)
{
	size_t header_bytes = (header[0] & 0xfU) * 4, written = 0;

	for (size_t at = 20, length; at < header_bytes && header[at] != 0; at += length) {
		length = header[at] == 1 ? 1 : at + 1 < header_bytes ? header[at + 1] : 0;
		if (header[at] != 1 && (length < 2 || at + length > header_bytes))
			break;
		for (size_t i = 0; i < length && header[at] >= 128; i++)
			out[written++] = header[at + i];
	}
	while (written % 4 != 0)
		out[written++] = 0;
	return written;
}

static void check_fragment(const uint8_t *original, const struct packet_fragment *fragment, bool first, uint32_t mtu)
{
	const uint8_t *header = fragment->header;
	size_t length = (size_t)fragment->header_bytes + fragment->payload_bytes;
	uint8_t whole[65536], same[60], options[60];
	struct packet p;

	CHECK(length <= mtu);
	CHECK(fragment->payload_bytes > 0);
	memcpy(whole, header, fragment->header_bytes);
	memcpy(whole + fragment->header_bytes, fragment->payload, fragment->payload_bytes);
	CHECK(parse_exact(whole, length) == PACKET_OK);
	CHECK(packet_parse(whole, length, &p) == PACKET_OK && p.header_bytes == fragment->header_bytes);

	/* All but length, fragment field, header length and checksum is the original's. */
	memcpy(same, original, 20);
	same[0] = header[0];
	memcpy(same + 2, header + 2, 2);
	memcpy(same + 6, header + 6, 2);
	memcpy(same + 10, header + 10, 2);
	CHECK(!memcmp(same, header, 20));
	CHECK((header[6] & 0xc0) == (original[6] & 0xc0));
	if (first) {
		CHECK(header[0] == original[0]);
		CHECK(!memcmp(header + 20, original + 20, (original[0] & 0xfU) * 4 - 20));
	} else {
		size_t option_bytes = expected_options(original, options);

		CHECK(fragment->header_bytes == 20 + option_bytes);
		CHECK(!memcmp(header + 20, options, option_bytes));
	}
}

static void take(struct reassembly *r, const struct packet_fragment *fragment, uint32_t base)
{
	uint32_t at = (get_16(fragment->header + 6) & 0x1fff) * 8 - base;

	CHECK(at == r->end);
	CHECK(r->pieces == 0 || r->more);
	r->more = get_16(fragment->header + 6) & 0x2000;
	if (!CHECK(at + fragment->payload_bytes <= sizeof(r->bytes)))
		return;
	memcpy(r->bytes + at, fragment->payload, fragment->payload_bytes);
	r->end = at + fragment->payload_bytes;
	r->pieces++;
}

/* Cuts a packet, cuts every fragment again with `second_mtu` if that is not 0, and puts all together. */
static void check_cut(const uint8_t *bytes, size_t len, uint32_t mtu, uint32_t second_mtu)
{
	static struct reassembly once, twice;
	struct packet_fragment fragment, part;
	uint32_t done = 0, base;
	struct packet p;
	size_t payload_bytes;
	int more;

	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	base = (get_16(bytes + 6) & 0x1fff) * 8;
	payload_bytes = len - p.header_bytes;
	once.end = twice.end = 0;
	once.pieces = twice.pieces = 0;
	while ((more = packet_next_fragment(&p, mtu, &done, &fragment)) == 1) {
		struct packet again;
		uint8_t *copy;
		size_t copy_bytes = (size_t)fragment.header_bytes + fragment.payload_bytes;
		uint32_t part_done = 0;

		check_fragment(bytes, &fragment, once.pieces == 0, mtu);
		CHECK(fragment.payload >= bytes && fragment.payload + fragment.payload_bytes <= bytes + len);
		take(&once, &fragment, base);
		CHECK(done == once.end);
		if (!second_mtu)
			continue;
		copy = malloc(copy_bytes);
		memcpy(copy, fragment.header, fragment.header_bytes);
		memcpy(copy + fragment.header_bytes, fragment.payload, fragment.payload_bytes);
		CHECK(packet_parse(copy, copy_bytes, &again) == PACKET_OK);
		while (packet_next_fragment(&again, second_mtu, &part_done, &part) == 1) {
			check_fragment(copy, &part, part_done == part.payload_bytes, second_mtu);
			take(&twice, &part, base);
		}
		CHECK(part_done == fragment.payload_bytes);
		free(copy);
	}
	CHECK(more == 0);
	CHECK(packet_next_fragment(&p, mtu, &done, &fragment) == 0);
	CHECK(once.end == payload_bytes && !memcmp(once.bytes, bytes + p.header_bytes, payload_bytes));
	CHECK(payload_bytes == 0 || once.more == (get_16(bytes + 6) >> 13 & 1));
	if (len <= mtu && payload_bytes > 0)
		CHECK(once.pieces == 1);
	if (second_mtu) {
		CHECK(twice.end == payload_bytes && !memcmp(twice.bytes, once.bytes, payload_bytes));
		CHECK(payload_bytes == 0 || twice.more == once.more);
	}
}

/* A random list of options, some of them malformed; padded to whole words. */
static size_t random_options(uint8_t *out)
{
	size_t bytes = 4 * random_below(11), at = 0;

	memset(out, 0, 40);
	while (at < bytes) {
		uint32_t kind = random_below(8), length = 2 + random_below(10);

		if (kind == 0) {
			out[at++] = 1;
			continue;
		}
		if (at + length > bytes && kind != 1)
			break; /* end of options */
		out[at++] = (uint8_t)(2 + random_below(126) + (random_below(2) ? 128 : 0));
		if (at == bytes)
			break; /* cut off behind its type */
		out[at++] = (uint8_t)(kind == 2 ? random_below(256) : length);
		for (uint32_t i = 2; i < length && at < bytes; i++)
			out[at++] = (uint8_t)check_random(&random_state);
	}
	return bytes;
}

static void test_fragments_random(void)
{
	for (int round = 0; round < 4000; round++) {
		uint8_t options[40];
		struct ipv4_spec spec = {.protocol = 17, .options = options};
		uint32_t mtu, second_mtu, header_bytes;
		uint8_t *bytes;
		size_t len;

		spec.option_bytes = random_below(2) ? random_options(options) : 0;
		header_bytes = (uint32_t)(20 + spec.option_bytes);
		spec.payload_bytes = random_below(4000);
		if (random_below(50) == 0)
			spec.payload_bytes = 65535 - header_bytes;
		mtu = header_bytes + 8 + random_below(random_below(2) ? 20 : 1500);
		second_mtu = header_bytes + 8 + random_below(mtu);
		if (spec.payload_bytes > 10000) /* not thousands of fragments */
			second_mtu = 0, mtu += 500;
		if (random_below(2))
			spec.fragment |= 0x8000; /* the reserved bit stays what it was */
		if (random_below(2)) {
			spec.fragment |= 0x2000;
			spec.payload_bytes &= ~7UL;
		}
		if (random_below(2))
			spec.fragment |= random_below((uint32_t)(65535 - spec.payload_bytes) / 8 + 1);
		bytes = make_ipv4(spec, &len);
		check_cut(bytes, len, mtu, second_mtu);
		free(bytes);
	}
}

/* Every payload length against every MTU that matters. */
static void test_fragments_small(void)
{
	for (size_t payload = 0; payload < 60; payload++) {
		size_t len;
		uint8_t *bytes = make_ipv4((struct ipv4_spec){.protocol = 17, .payload_bytes = payload}, &len);

		for (uint32_t mtu = 28; mtu < 84; mtu++)
			check_cut(bytes, len, mtu, 28);
		free(bytes);
	}
}

/* RFC 791's own picture: security (copied), record route (not), stream id (copied) and two NOPs. */
static void test_fragment_options(void)
{
	static const uint8_t options[] = {1, 130, 3, 9, 7, 7, 4, 0, 0, 0, 0, 1, 136, 4, 0xab, 0xcd};
	static const uint8_t later[] = {130, 3, 9, 136, 4, 0xab, 0xcd, 0};
	struct packet_fragment fragment;
	struct packet p;
	uint32_t done = 0;
	size_t len;
	uint8_t *bytes = make_ipv4(
		(struct ipv4_spec){.protocol = 17, .options = options, .option_bytes = 16, .payload_bytes = 100}, &len);

	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 1);
	CHECK(fragment.header_bytes == 36 && fragment.payload_bytes == 40);
	CHECK(get_16(fragment.header + 6) == 0x2000);
	CHECK(!memcmp(fragment.header + 20, options, sizeof(options)));
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 1);
	CHECK(fragment.header[0] == 0x47 && fragment.header_bytes == 28 && fragment.payload_bytes == 48);
	CHECK(get_16(fragment.header + 2) == 76 && get_16(fragment.header + 6) == (0x2000 | 5));
	CHECK(!memcmp(fragment.header + 20, later, sizeof(later)));
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 1);
	CHECK(fragment.payload_bytes == 12 && get_16(fragment.header + 6) == 11);
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 0);
	CHECK(done == 100);
	free(bytes);
}

static void test_fragment_refused(void)
{
	static const uint8_t options[40] = {0x94, 4};

	for (size_t option_bytes = 0; option_bytes <= 40; option_bytes += 4) {
		uint32_t header_bytes = (uint32_t)(20 + option_bytes), done = 0;
		struct packet_fragment fragment;
		struct packet p;
		size_t len;
		uint8_t *bytes = make_ipv4((struct ipv4_spec){.protocol = 17,
							      .options = options,
							      .option_bytes = option_bytes,
							      .payload_bytes = 100},
					   &len);

		CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
		for (uint32_t mtu = 0; mtu < header_bytes + 8; mtu++)
			CHECK(packet_next_fragment(&p, mtu, &done, &fragment) == -EINVAL && done == 0);
		CHECK(packet_next_fragment(&p, header_bytes + 8, &done, &fragment) == 1 && done == 8);
		CHECK(packet_next_fragment(&p, UINT32_MAX, &done, &fragment) == 1 && done == 100);
		free(bytes);
	}

	/* A fragment that would reach past 65,535 bytes: its offsets would not fit their field. */
	for (size_t payload = 1; payload <= 24; payload++) {
		uint32_t done = 0;
		struct packet_fragment fragment;
		struct packet p;
		size_t len;
		uint8_t *bytes = make_ipv4(
			(struct ipv4_spec){.protocol = 17, .fragment = 0x1fff, .payload_bytes = payload}, &len);

		CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
		CHECK(packet_next_fragment(&p, 28, &done, &fragment) == (payload <= 7 ? 1 : -EINVAL));
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
	test_martians();
	test_may_answer();
	test_icmp();
	test_fragments_random();
	test_fragments_small();
	test_fragment_options();
	test_fragment_refused();
	return check_done();
}
