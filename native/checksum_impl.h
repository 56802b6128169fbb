/* checksum_impl: the ways there are to add bytes up, behind checksum_add. For checksum*.c, tests and benchmarks only.
 *
 * All implementations give the same folded sum and keep what checksum.h promises: one call adds less than 2^36, and
 * nothing but zeros becomes zero. They differ in speed, and in what they need of the processor.
 */
#ifndef UDPB_CHECKSUM_IMPL_H
#define UDPB_CHECKSUM_IMPL_H

#include <stddef.h>
#include <stdint.h>

struct checksum_implementation {
	const char *name;
	uint64_t (*add)(uint64_t sum, const void *bytes, size_t len); /* as checksum_add */
};

/* Those that this processor can run, in a table that lives for ever. The first is "scalar"; the last is the one that
 * checksum_add takes for what is not short. Any thread, any time. */
const struct checksum_implementation *checksum_implementations(size_t *count);

#endif
