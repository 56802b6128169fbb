/* coalesce: nanoseconds for each datagram of a batch: parsed, verified, grouped, and the super-packets made. */
#include <stdio.h>
#include <stdlib.h>

#include "coalesce.h"
#include "inner.h"
#include "segment.h"
#include "timing.h"

#define DATAGRAM_MAX 1500
#define FLOWS_MAX 8

struct job {
	uint8_t datagram[COALESCE_PACKETS][DATAGRAM_MAX];
	uint32_t length[COALESCE_PACKETS];
	uint32_t count, groups;
	struct coalesce batch;
};

static void work(void *argument)
{
	struct job *job = argument;
	struct iovec iov[COALESCE_SEGMENTS + 1];
	uint8_t headers[COALESCE_HEADERS_MAX];
	struct virtio_net_hdr header;
	struct packet packet;

	coalesce_reset(&job->batch);
	for (uint32_t i = 0; i < job->count; i++) {
		if (packet_parse(job->datagram[i], job->length[i], &packet) != PACKET_OK)
			abort();
		coalesce_add(&job->batch, &packet, 0);
	}
	for (uint16_t i = 0; i < job->batch.groups; i++)
		timing_use((uint64_t)coalesce_build(&job->batch, i, &header, headers, iov));
	job->groups = job->batch.groups;
}

/* Cuts one super-packet of each flow and lays the datagrams down in turn. */
static void fill(struct job *job, uint8_t protocol, uint16_t flows, uint16_t count, uint16_t payload)
{
	static struct inner inner;

	job->count = (uint32_t)flows * count;
	for (uint16_t flow = 0; flow < flows; flow++) {
		struct segment_source source;
		struct packet packet;

		inner_make(&inner, protocol, count, payload, flow);
		if (packet_parse(inner.bytes, inner.length, &packet) != PACKET_OK ||
		    segment_prepare(&source, inner.bytes, &packet, &inner.header))
			abort();
		for (uint32_t i = 0; i < source.count; i++) {
			uint32_t at = i * flows + flow;
			uint8_t headers[SEGMENT_HEADERS_MAX];
			struct segment segment;

			segment_make(&source, i, headers, &segment);
			memcpy(job->datagram[at], headers, segment.headers_bytes);
			memcpy(job->datagram[at] + segment.headers_bytes, segment.payload, segment.payload_bytes);
			job->length[at] = segment.headers_bytes + segment.payload_bytes;
		}
	}
}

int main(void)
{
	static const struct {
		const char *name;
		uint8_t protocol;
		uint16_t flows, count, payload;
	} cases[] = {
		{ "TCP 1420, 1 flow", IPPROTO_TCP, 1, 45, 1420 },
		{ "TCP 1420, 4 flows", IPPROTO_TCP, 4, 45, 1420 },
		{ "TCP 1420, 8 flows", IPPROTO_TCP, FLOWS_MAX, 8, 1420 },
		{ "UDP 64, 1 flow", IPPROTO_UDP, 1, 64, 64 },
		{ "UDP 1400, 1 flow", IPPROTO_UDP, 1, 46, 1400 },
	};
	static struct job job;

	job.batch.kinds = COALESCE_TCP | COALESCE_UDP;
	printf("coalesce\n%-20s %12s %10s %10s %12s\n", "batch", "datagrams", "groups", "GB/s", "ns/datagram");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		fill(&job, cases[i].protocol, cases[i].flows, cases[i].count, cases[i].payload);
		double ns = timing_best_ns(work, &job);

		printf("%-20s %12u %10u %10.2f %12.1f\n", cases[i].name, job.count, job.groups,
		       (double)job.count * job.length[0] / ns, ns / job.count);
	}
	return 0;
}
