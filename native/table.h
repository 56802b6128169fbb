/* table: one publication of the route table: prefixes to peers. Immutable from the moment queues can see it. */
#ifndef UDPB_TABLE_H
#define UDPB_TABLE_H

#include "fib.h"
#include "peer.h"

#define TABLE_LOCAL FIB_VALUE_MAX /* the value of a local prefix: ours, and no peer's */

struct table {
	struct fib *fib; /* prefix -> index into peers, or TABLE_LOCAL */
	struct peer_map *peers;
};

/* The peer that owns `address`, or NULL; *local tells whether the address is ours. */
static inline struct peer *table_lookup(const struct table *table, uint8_t version, const uint8_t *address, int *local)
{
	uint32_t value = fib_lookup(table->fib, version, address);

	*local = value == TABLE_LOCAL;
	if (value == FIB_NONE || value == TABLE_LOCAL)
		return NULL;
	return peer_map_at(table->peers, value);
}

#endif
