/* segment: nanoseconds for each datagram that a super-packet is cut into, checksum of its payload included. */
#include <stdio.h>
#include <stdlib.h>

#include "inner.h"
#include "segment.h"
#include "timing.h"

struct job {
	struct inner inner;
	uint32_t made;
};

static void work(void *argument)
{
	struct job *job = argument;
	struct segment_source source;
	struct packet packet;
	uint8_t headers[SEGMENT_HEADERS_MAX];

	if (packet_parse(job->inner.bytes, job->inner.length, &packet) != PACKET_OK ||
	    segment_prepare(&source, job->inner.bytes, &packet, &job->inner.header))
		abort();
	for (uint32_t i = 0; i < source.count; i++) {
		struct segment segment;

		segment_make(&source, i, headers, &segment);
		timing_use((uint64_t)(uintptr_t)segment.payload + headers[10]);
	}
	job->made = source.count;
}

int main(void)
{
	static const struct {
		const char *name;
		uint8_t protocol;
		uint16_t count, payload;
	} cases[] = {
		{ "TCP, 46 x 1420", IPPROTO_TCP, 46, 1420 },
		{ "TCP, 16 x 1420", IPPROTO_TCP, 16, 1420 },
		{ "TCP, 7 x 8920", IPPROTO_TCP, 7, 8920 },
		{ "UDP, 64 x 64", IPPROTO_UDP, 64, 64 },
		{ "UDP, 46 x 1400", IPPROTO_UDP, 46, 1400 },
	};
	static struct job job;

	printf("segment\n%-20s %14s %10s\n", "super-packet", "ns/datagram", "GB/s");
	for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
		inner_make(&job.inner, cases[i].protocol, cases[i].count, cases[i].payload, 0);
		double ns = timing_best_ns(work, &job);

		if (job.made != cases[i].count)
			return 1;
		printf("%-20s %14.1f %10.2f\n", cases[i].name, ns / job.made, (double)job.inner.length / ns);
	}
	return 0;
}
