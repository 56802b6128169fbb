/* test_packet_fragment: fragments put together again give the packet they were cut from.
 *
 * Each fragment is checked alone: it parses, fits the MTU, and its header is the original's but for what must differ.
 * Then all are reassembled, also after every fragment has been cut a second time.
 */
#include <errno.h>

#include "packets.h"

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
	static const uint8_t later[] = {130, 3, 9, 136, 4, 0xab, 0xcd, 0}, ended[] = {0, 4, 9, 9, 148, 4, 0, 0};
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

	/* Behind the end of options nothing counts, whatever it looks like. */
	bytes = make_ipv4((struct ipv4_spec){.protocol = 17, .options = ended, .option_bytes = 8, .payload_bytes = 100},
			  &len);
	CHECK(packet_parse(bytes, len, &p) == PACKET_OK);
	done = 0;
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 1 && fragment.header_bytes == 28);
	CHECK(packet_next_fragment(&p, 80, &done, &fragment) == 1 && fragment.header_bytes == 20);
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
	test_fragments_random();
	test_fragments_small();
	test_fragment_options();
	test_fragment_refused();
	return check_done();
}
