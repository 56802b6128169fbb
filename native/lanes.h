/* lanes: whose account a peer's datagrams are charged to, so that a slow peer fills its own and nobody else's.
 *
 * The kernel charges a datagram to the socket it was sent from until it has left the host, and a full socket takes nothing
 * more, for whomever. So no peer may hold more than a small *quota* of the sockets that all share: who is at it gets a
 * *lane*, sockets that only he uses. A full lane is his loss, and stops nobody.
 *
 * Owns the lanes' sockets and who has which. It must not know packets, counters or what becomes of a datagram refused.
 */
#ifndef UDPB_LANES_H
#define UDPB_LANES_H

#include "peer.h"
#include "udp_io.h"

#define LANES_PORTS_MAX 16 /* sockets that all peers share, each of another source port */
#define LANES_MAX 16       /* peers with a lane at a time */
#define LANES_SHARES 512   /* peers remembered, a power of two */
#define LANES_PROBE 8      /* places where one of them can stand */
#define LANES_BUFFER_BYTES (2 << 20) /* of a lane, all its ports together; the kernel doubles it: 17 ms at 2 Gbit/s */
#define LANES_QUOTA_BYTES (256 << 10)
#define LANES_QUOTA_LEAST_BYTES (64 << 10) /* where the buffers are small */
#define LANES_MESSAGE_BYTES 1024           /* about what a message is charged beside its bytes */
#define LANES_LITTLE_NS 100000000LL
#define LANES_TRY_NS 1000000LL             /* who is held back asks for a lane so often */

/* What one peer has sent lately. */
struct lanes_share {
	uint32_t address_be;
	uint16_t port_be;
	uint8_t lane;           /* 1 and up: lanes.lanes[lane - 1]; 0: what all share */
	uint32_t epoch;         /* to which the next belongs */
	uint32_t charged_bytes; /* about, since the epoch began; in a lane since it was last looked at */
	uint32_t offered_bytes; /* about, since ... */
	int64_t since_ns;
	bool gets_little;       /* in the LANES_LITTLE_NS before that */
};

struct lane {
	struct udp_io udp[LANES_PORTS_MAX]; /* each sends from the port of its namesake in lanes.common */
	uint32_t open;                      /* sockets; 0 until the lane is first needed */
	struct lanes_share *share;          /* whose it is, or NULL */
	uint32_t left_bytes;                /* at most so many did he leave behind in the shared sockets */
};

struct lanes {
	struct udp_io *common[LANES_PORTS_MAX]; /* borrowed */
	uint32_t ports;
	uint32_t epoch; /* a new one begins whenever what all share is found next to empty: nobody holds anything of it then */
	uint32_t quota_bytes;
	uint32_t left_bytes; /* at most so many of those that all share are held by peers which have a lane since */
	bool tight;          /* when last looked at, those that all share were half full */
	uint32_t next_lane;
	int64_t tried_ns;    /* when somebody held back last asked for a lane */
	struct lane lanes[LANES_MAX];
	struct lanes_share shares[LANES_SHARES];
	struct lanes_share others; /* of all peers that find no place among the shares: never with a lane */
};

void lanes_init(struct lanes *l);

/* Adds a socket that all share. Before the first datagram. Returns 0 or -ENOSPC. */
int lanes_add_common(struct lanes *l, struct udp_io *udp);

/* Closes the lanes. */
void lanes_release(struct lanes *l);

/* The share of a peer; it may be another peer's after the next call. */
struct lanes_share *lanes_share(struct lanes *l, const struct peer *peer);

/* The socket for a peer's next packet, of so many bytes, from source port number `port`, or NULL: it is to be dropped.
 * With 0 bytes: for one that was asked for before, and is still to be sent. */
struct udp_io *lanes_socket(struct lanes *l, struct lanes_share *share, uint32_t port, uint32_t bytes, int64_t now_ns);

/* Notes that the kernel has taken messages of so many bytes from such a socket. */
void lanes_charge(struct lanes *l, struct lanes_share *share, uint32_t messages, uint32_t bytes);

#endif
