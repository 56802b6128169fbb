/* fuzz_packet: whatever parses has its parts inside its bytes, its ICMP or ICMPv6 error is a packet that parses, verifies
 * and is never answered, its fragments parse and reassemble to it, and a checksum finished in any bytes verifies.
 *
 * The input is six bytes of settings and then a packet. As no fuzzer guesses a checksum, bytes with a fault are tried
 * once more with total length and header checksum put right.
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "checksum.h"
#include "icmp.h"
#include "packet.h"

#define SETTINGS_BYTES 6
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t get_16(const uint8_t *at)
{
	return (uint32_t)at[0] << 8 | at[1];
}

static void put_16(uint8_t *at, size_t value)
{
	at[0] = (uint8_t)(value >> 8);
	at[1] = (uint8_t)value;
}

/* Makes the length and the checksum of a header true, where there is room for them. */
static void repair(uint8_t *bytes, size_t len)
{
	size_t header_bytes = len ? (bytes[0] & 0xfU) * 4 : 0;
	uint32_t sum = 0;

	if (len >= 40 && bytes[0] >> 4 == 6)
		put_16(bytes + 4, len - 40);
	if (len < 20 || bytes[0] >> 4 != 4 || header_bytes < 20 || header_bytes > len)
		return;
	put_16(bytes + 2, len);
	put_16(bytes + 10, 0);
	for (size_t i = 0; i < header_bytes; i += 2)
		sum += get_16(bytes + i);
	sum = (sum & 0xffff) + (sum >> 16);
	put_16(bytes + 10, ~(sum + (sum >> 16)));
}

static void check_parts(const struct packet *p, const uint8_t *bytes, size_t len)
{
	size_t address_bytes = p->version == 4 ? 4 : 16;

	REQUIRE(p->version == 4 || p->version == 6);
	REQUIRE(p->bytes == bytes && p->length == len);
	REQUIRE(p->header_bytes >= 20 && p->header_bytes <= PACKET_HEADER_MAX_BYTES && p->header_bytes <= len);
	REQUIRE(p->source > bytes && p->source + address_bytes <= bytes + p->header_bytes);
	REQUIRE(p->destination == p->source + address_bytes);
	REQUIRE(p->destination + address_bytes <= bytes + p->header_bytes);
}

static void check_answer(const struct packet *about, const uint8_t *settings)
{
	uint8_t *out = malloc(PACKET_ICMP_MAX_BYTES);
	size_t len = packet_icmp_unreachable(about, settings[0], (uint16_t)get_16(settings + 1), 0x0101010a, out);
	struct packet error;

	REQUIRE(len <= PACKET_ICMP_MAX_BYTES);
	REQUIRE(packet_parse(out, len, &error) == PACKET_OK);
	REQUIRE(checksum_finish(checksum_add(0, out + error.header_bytes, len - error.header_bytes)) == 0);
	REQUIRE(!memcmp(error.destination, about->source, 4));
	REQUIRE(!packet_may_answer(&error));
	free(out);
}

static void check_answer6(const struct packet *about, const uint8_t *settings)
{
	static const uint8_t source[16] = {0xfd, [15] = 1};
	uint8_t *out = malloc(PACKET_ICMP6_MAX_BYTES);
	uint8_t type = settings[0] & 1 ? PACKET_ICMP6_UNREACHABLE : PACKET_ICMP6_TOO_BIG;
	size_t len = packet_icmp6_error(about, type, settings[0] >> 1, get_16(settings + 1), source, out);
	size_t quote_bytes = len - 48;
	struct packet error;
	uint64_t sum;

	REQUIRE(len <= PACKET_ICMP6_MAX_BYTES);
	REQUIRE(packet_parse(out, len, &error) == PACKET_OK);
	sum = checksum_pseudo(error.source, 32, 58, (uint32_t)(len - 40));
	REQUIRE(checksum_finish(checksum_add(sum, out + 40, len - 40)) == 0);
	REQUIRE(!memcmp(error.source, source, 16) && !memcmp(error.destination, about->source, 16));
	REQUIRE(quote_bytes == about->length || len == PACKET_ICMP6_MAX_BYTES);
	REQUIRE(!memcmp(out + 48, about->bytes, quote_bytes));
	REQUIRE(!packet_may_answer(&error) && !packet_may_answer_too_big(&error));
	free(out);
}

/* RFC 6040: a mark gets in, or the packet goes; nothing else of it changes. */
static void check_ecn(const struct packet *p, uint8_t outer)
{
	uint8_t *bytes = malloc(p->length);
	struct packet marked;

	memcpy(bytes, p->bytes, p->length);
	REQUIRE(packet_parse(bytes, p->length, &marked) == PACKET_OK);
	if (!packet_take_ecn(&marked, bytes, outer)) {
		REQUIRE((packet_tos(p) & PACKET_ECN_MASK) == PACKET_NOT_ECT && outer == PACKET_CE);
		REQUIRE(!memcmp(bytes, p->bytes, p->length));
	} else {
		REQUIRE(packet_parse(bytes, p->length, &marked) == PACKET_OK);
		REQUIRE((packet_tos(p) ^ packet_tos(&marked)) <= PACKET_ECN_MASK);
		REQUIRE(outer != PACKET_CE || (packet_tos(&marked) & PACKET_ECN_MASK) == PACKET_CE);
		REQUIRE((packet_tos(p) & PACKET_ECN_MASK) != PACKET_NOT_ECT || !memcmp(bytes, p->bytes, p->length));
		REQUIRE(!memcmp(bytes + 2, p->bytes + 2, p->version == 4 ? 8 : 38));
		REQUIRE(!memcmp(bytes + 12, p->bytes + 12, p->length - 12));
	}
	free(bytes);
}

static void check_rules(const struct packet *p)
{
	bool may = packet_may_answer(p), may_too_big = packet_may_answer_too_big(p);

	REQUIRE(may_too_big || !may);
	if (may_too_big)
		REQUIRE(!packet_source_is_martian(p));
	if (may)
		REQUIRE(!packet_is_no_host(p->version, p->destination));
	if (may_too_big && !may)
		REQUIRE(p->version == 6 && p->destination[0] == 0xff);
	if (may && p->protocol == (p->version == 4 ? 1 : 58))
		REQUIRE(p->length > p->header_bytes);
}

static void check_fragments(const struct packet *p, uint32_t mtu)
{
	uint32_t fragment_field = get_16(p->bytes + 6), offset = (fragment_field & 0x1fff) * 8;
	uint32_t payload_bytes = p->length - p->header_bytes, done = 0, seen = 0;
	uint8_t *whole = malloc(mtu);
	struct packet_fragment fragment;
	struct packet piece;
	int more;

	while ((more = packet_next_fragment(p, mtu, &done, &fragment)) == 1) {
		size_t len = (size_t)fragment.header_bytes + fragment.payload_bytes;
		bool last;

		REQUIRE(len <= mtu && fragment.payload_bytes > 0);
		memcpy(whole, fragment.header, fragment.header_bytes);
		memcpy(whole + fragment.header_bytes, fragment.payload, fragment.payload_bytes);
		REQUIRE(packet_parse(whole, len, &piece) == PACKET_OK);
		REQUIRE(piece.header_bytes == fragment.header_bytes && piece.header_bytes <= p->header_bytes);
		REQUIRE((get_16(whole + 6) & 0x1fff) * 8 == offset + seen);
		REQUIRE(fragment.payload == p->bytes + p->header_bytes + seen);
		seen += fragment.payload_bytes;
		REQUIRE(seen == done && seen <= payload_bytes);
		last = seen == payload_bytes;
		REQUIRE(last || fragment.payload_bytes % 8 == 0);
		REQUIRE((get_16(whole + 6) & 0x2000) == (last ? fragment_field & 0x2000 : 0x2000));
	}
	if (more == 0)
		REQUIRE(seen == payload_bytes);
	else
		REQUIRE(seen == 0 && (mtu < p->header_bytes + 8U || offset + payload_bytes > PACKET_MAX_BYTES));
	free(whole);
}

static void check_packet(const uint8_t *bytes, size_t len, const uint8_t *settings)
{
	struct packet p;

	if (packet_parse(bytes, len, &p) != PACKET_OK)
		return;
	check_parts(&p, bytes, len);
	check_rules(&p);
	check_ecn(&p, settings[0] & PACKET_ECN_MASK);
	if (p.version == 6) {
		check_answer6(&p, settings);
		return;
	}
	check_answer(&p, settings);
	check_fragments(&p, 1 + get_16(settings + 1) % 2048);
}

/* Ones' complement: what the field held plus what is summed with the result in its place is zero, written 0xffff. */
static void check_finish(uint8_t *bytes, size_t len, const uint8_t *settings)
{
	uint16_t start = (uint16_t)(settings[3] | (settings[5] & 1) << 15), offset = settings[4];
	uint16_t pseudo;
	uint64_t sum;

	if ((size_t)start + offset + 2 > len || offset % 2) {
		REQUIRE(packet_finish_checksum(bytes, len, start, offset) < 0);
		return;
	}
	memcpy(&pseudo, bytes + start + offset, 2);
	REQUIRE(packet_finish_checksum(bytes, len, start, offset) == 0);
	REQUIRE(get_16(bytes + start + offset) != 0);
	sum = checksum_add(pseudo, bytes + start, len - start);
	REQUIRE(checksum_fold(sum) == 0xffff);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t len = size - SETTINGS_BYTES;
	uint8_t *bytes;

	if (size < SETTINGS_BYTES)
		return 0;
	bytes = malloc(len + !len);
	memcpy(bytes, data + SETTINGS_BYTES, len);
	check_packet(bytes, len, data);
	repair(bytes, len);
	check_packet(bytes, len, data);
	check_finish(bytes, len, data);
	free(bytes);
	return 0;
}
