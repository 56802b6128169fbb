/* fuzz_coalesce: whatever packets a batch holds, what comes out, cut again, is what went in, each flow in its order;
 * nothing with a wrong checksum is passed off as right, not even when a single bit was turned. (A bit that makes the field
 * the pseudo-header's sum makes the packet one whose checksum was left to a card.)
 *
 * The input's bytes choose what happens in the flows of flows.h; some packets are taken from the input as they are, with
 * the IP header put right. Then the batch comes once more, with one bit of one packet turned.
 */
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

#include "../c/merged.h"
#include "../c/flows.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct batch batch;
static struct flows flows;
static uint8_t *packets[COALESCE_PACKETS];
static size_t lengths[COALESCE_PACKETS];

/* A packet from the input's own bytes. */
static size_t take_raw(struct choices *c, uint8_t *out)
{
	size_t len = choose(c, 256), header_bytes;

	if (len > (size_t)(c->end - c->at))
		len = (size_t)(c->end - c->at);
	memcpy(out, c->at, len);
	c->at += len;
	header_bytes = len ? (out[0] & 0xfU) * 4 : 0;
	if (len >= 40 && out[0] >> 4 == 6)
		put_16(out + 4, (uint32_t)len - 40);
	if (len < 20 || out[0] >> 4 != 4 || header_bytes < 20 || header_bytes > len)
		return len;
	put_16(out + 2, (uint32_t)len);
	seal(out);
	if (len >= header_bytes + 20 && out[9] == TCP && out[8] % 2)
		seal_transport(out, len, header_bytes, TCP);
	if (len >= header_bytes + 8 && out[9] == UDP && out[8] % 2)
		seal_transport(out, len, header_bytes, UDP);
	return len;
}

static uint16_t make_packets(struct choices *c)
{
	static uint8_t bytes[SUPER_ROOM];
	struct packet packet;
	uint16_t count = 0;

	while (count < COALESCE_PACKETS && !chosen_all(c)) {
		size_t len = choose(c, 32) == 31 ? take_raw(c, bytes) : flows_next(&flows, c, bytes);

		if (packet_parse(bytes, len, &packet) != PACKET_OK)
			continue;
		packets[count] = malloc(len);
		memcpy(packets[count], bytes, len);
		lengths[count++] = len;
	}
	return count;
}

static void run(uint16_t count, uint32_t kinds)
{
	batch_begin(&batch, kinds);
	for (uint16_t i = 0; i < count; i++)
		(void)batch_add(&batch, packets[i], lengths[i]);
	(void)batch_check(&batch);
}

/* IPv6 protects neither traffic class, flow label nor hop limit. */
static bool is_covered(const uint8_t *packet, size_t bit)
{
	return packet[0] >> 4 == 4 || bit >= 64 || (bit >= 32 && bit < 56);
}

static void turn_a_bit(uint16_t count, uint32_t which, uint32_t bit, uint32_t kinds)
{
	bool covered, dropped;

	which %= count;
	bit %= (uint32_t)lengths[which] * 8;
	covered = is_sound(&batch.packet[which]) && is_covered(packets[which], bit);
	batch_end(&batch);
	packets[which][bit / 8] ^= (uint8_t)(1 << bit % 8);
	run(count, kinds);
	dropped = batch.coalesce.packets < count;
	if (covered && !dropped) {
		REQUIRE(!is_sound(&batch.packet[which]));
		REQUIRE(is_partial(&batch.packet[which]) || batch.coalesce.group[batch.group[which]].segments == 1);
	}
	batch_end(&batch);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct choices c = { .at = data, .end = data + size };
	uint32_t kinds = choose(&c, 8) < 5 ? ALL_KINDS : choose(&c, 4);
	uint32_t which = choose(&c, 512), bit = choose(&c, 65536);
	uint16_t count;

	flows_begin(&flows);
	count = make_packets(&c);
	if (count == 0)
		return 0;
	run(count, kinds);
	turn_a_bit(count, which, bit, kinds);
	for (uint16_t i = 0; i < count; i++)
		free(packets[i]);
	return 0;
}
