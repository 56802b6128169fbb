/* dataplane: what the handle of udpb.h holds, for the files that stand behind that header. */
#ifndef UDPB_DATAPLANE_H
#define UDPB_DATAPLANE_H

#include <pthread.h>
#include <stdatomic.h>

#include "peer.h"
#include "queue.h"
#include "stats.h"
#include "table.h"
#include "udpb.h"

struct retired; /* a table that was published before, see dataplane.c */

struct udpb {
	struct table *_Atomic table;
	struct queue *queues[UDPB_QUEUES_MAX]; /* changed under the lock; a queue is closed only by who turns it */
	struct stats stats[UDPB_QUEUES_MAX];   /* outlive their queues */
	struct stats before;                   /* what another process has counted that had these queues */
	struct udpb_config config;
	_Atomic int guards[UDPB_QUEUES_MAX]; /* as in guard.h */
	pthread_mutex_t lock;
	struct peer_registry *registry;
	struct retired *retired;
};

#endif
