/* test_coalesce_order: whatever happens to the flows of a batch, what comes out is what went in, each flow in its order.
 *
 * The flows are those of flows.h, the judgement is that of merged.h.
 */
#include "flows.h"
#include "merged.h"

static struct batch batch;
static struct flows flows;

static void test_random_batches(void)
{
	static uint8_t bytes[SUPER_ROOM];
	struct choices choices = { .random = true };
	unsigned long packets = 0, groups = 0;

	for (int round = 0; round < 1500; round++) {
		uint32_t count = 1 + random_below(round % 16 ? 60 : COALESCE_PACKETS);

		flows_begin(&flows);
		batch_begin(&batch, round % 10 ? ALL_KINDS : random_below(4));
		for (uint32_t i = 0; i < count; i++)
			(void)batch_add(&batch, bytes, flows_next(&flows, &choices, bytes));
		packets += batch.coalesce.packets;
		groups += batch_check(&batch);
		batch_end(&batch);
	}
	CHECK(groups < packets * 9 / 10); /* it does merge */
	printf("%lu packets in %lu groups\n", packets, groups);
}

/* Flows to which nothing happens merge completely, however they are interleaved, byte for byte. */
static void test_mergeable_batches(void)
{
	static uint8_t bytes[SUPER_ROOM];

	for (int round = 0; round < 1500; round++) {
		uint32_t count = 1 + random_below(200), used = 0, expected = 0, of_flow[FLOWS] = {0};

		flows_begin(&flows);
		batch_begin(&batch, ALL_KINDS);
		for (int i = 0; i < FLOWS; i++) {
			flows.flow[i].payload_bytes = 1 + random_below(900);
			flows.flow[i].fragment = random_below(2) ? DF : 0;
		}
		for (uint32_t i = 0; i < count; i++) {
			uint32_t which = random_below(1 + (uint32_t)round % FLOWS);
			struct shape *s = &flows.flow[which];

			s->payload = flows.stream + s->sequence % FLOWS_STREAM;
			CHECK(batch_add(&batch, bytes, shape_make(s, bytes)));
			s->sequence += (uint32_t)s->payload_bytes;
			s->id++;
			of_flow[which]++;
		}
		for (int i = 0; i < FLOWS; i++) {
			used += of_flow[i];
			expected += (of_flow[i] + COALESCE_SEGMENTS - 1) / COALESCE_SEGMENTS;
		}
		CHECK(used == count);
		CHECK(batch_check(&batch) == expected);
		batch_end(&batch);
	}
}

/* More flows than buckets: 512 of two packets each, half of them in a batch. */
static void test_many_flows(void)
{
	static uint8_t bytes[SUPER_ROOM];

	for (int round = 0; round < 50; round++) {
		batch_begin(&batch, ALL_KINDS);
		for (uint32_t i = 0; i < COALESCE_PACKETS; i++) {
			struct shape s = i & 1 ? plain_udp(i & 2 ? 6 : 4) : plain_tcp(i & 2 ? 6 : 4);

			s.source_port = (uint16_t)(1000 * round + i % 256);
			s.host = (uint8_t)(i % 256);
			s.payload = flows.stream;
			s.payload_bytes = 10;
			s.sequence += i / 256 * 10;
			s.id = (uint16_t)(i / 256);
			CHECK(batch_add(&batch, bytes, shape_make(&s, bytes)));
		}
		CHECK(batch_check(&batch) == 256);
		batch_end(&batch);
	}
}

int main(void)
{
	flows_begin(&flows);
	test_random_batches();
	test_mergeable_batches();
	test_many_flows();
	return check_done();
}
