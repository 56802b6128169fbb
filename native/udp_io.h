/* udp_io: the UDP socket of a queue: datagrams in and out, a batch at a time, and what the kernel knows of a path's MTU.
 *
 * Owns the system calls on the UDP fd, not the fd itself (borrowed until the queue is closed). It must not know what a
 * datagram holds.
 */
#ifndef UDPB_UDP_IO_H
#define UDPB_UDP_IO_H

#include <netinet/in.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#define UDP_IO_OVERHEAD_BYTES 28 /* outer IPv4 and UDP headers */

#define UDP_IO_SEGMENTS_MAX 128 /* UDP_MAX_SEGMENTS of Linux 6.9 */
/* It was 64 before; and before 5.16 the 28 bytes of outer headers counted, too: with 62 of the shortest packets, 20 bytes
 * each, they stay below. */
#define UDP_IO_SEGMENTS_LESS 62
#define UDP_IO_RUN_BYTES 65000  /* of one message: with outer headers below a device's gso_max_size of 64 KB */

struct udp_io {
	int fd;
	uint32_t buffer_bytes; /* of datagrams that have not left, with what the kernel adds to each: it takes no more beyond */
	uint32_t bound_address_be; /* what the fd is bound to; not told where it is beside another */
	uint16_t bound_port_be;
	uint32_t source_be;    /* the address datagrams leave from, where the fd is bound to another; else 0 */
	_Atomic uint32_t segments_max; /* datagrams that one message may be cut into; 1: no UDP_SEGMENT. As offloads of tun_io */
	uint32_t segments_doubted; /* what segments_max was before a downgrade that no message has confirmed yet; or 0 */
	bool gro;              /* the kernel may hand over several datagrams as one */
	bool errors;           /* IP_RECVERR is on at all times, and not only while a path's MTU is asked for */
	int (*recvmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout);
	int (*sendmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags); /* a test puts its own here */
	int (*probe)(const struct udp_io *io, struct msghdr *message);
	int (*set_discovery)(int fd, int how);
	int (*queued)(int fd);
	int (*beside)(struct udp_io *io, const struct udp_io *model, uint32_t buffer_bytes);
};

/* Sets the socket up: DF on every datagram (EMSGSIZE instead of outer fragments), no queued errors, large buffers, each
 * datagram's TOS with it, and without what is in `off` (UDPB_OFFLOAD_*). Returns 0 or -errno. */
int udp_io_open(struct udp_io *io, int fd, uint32_t off);

/* The same for a socket that only sends: what is sent to its port is dropped at once, and takes no memory. */
int udp_io_open_sender(struct udp_io *io, int fd, uint32_t off);

/* Opens a socket that only sends, from the address and port of `model`, with an account of its own: a buffer of
 * `buffer_bytes`, which the kernel doubles. It answers ENOBUFS when a qdisc drops a datagram, where other sockets say
 * nothing. The caller owns io->fd. Returns 0 or -errno.
 *
 * It is bound to an address of loopback that no other socket has (127.1.0.0 and the fd's number), so nothing that comes
 * from a network ever looks it up; what it sends gets its source by IP_PKTINFO (ip(7)). */
int udp_io_open_beside(struct udp_io *io, const struct udp_io *model, uint32_t buffer_bytes);

/* Bytes charged for datagrams that have not left the host (SO_MEMINFO); 0 where they cannot be told. */
uint32_t udp_io_queued(const struct udp_io *io);

/* Receives up to `count` datagrams. Returns how many, or -errno: -EAGAIN when there is none. */
int udp_io_receive(const struct udp_io *io, struct mmsghdr *messages, unsigned int count);

/* Sends messages[0..count-1] in order. Returns how many the kernel took, at least 1, or -errno of the first one.
 * A socket beside another says -ENOBUFS, never -EAGAIN, when it is full: nobody waits for it.
 * `may_fragment`: with DF clear, so that they reach the peer by whatever path, in outer fragments where they have to. */
int udp_io_send(struct udp_io *io, struct mmsghdr *messages, unsigned int count, bool may_fragment);

/* Room for the control messages of either direction. */
union udp_io_control {
	uint8_t bytes[2 * CMSG_SPACE(sizeof(int)) + CMSG_SPACE(sizeof(struct in_pktinfo))];
	struct cmsghdr align;
};

/* What the kernel is told about a message, or tells. */
struct udp_io_about {
	uint32_t segment_bytes; /* of the datagrams it is cut into or put together from, the last may be shorter; 0: it is one */
	uint32_t source_be;     /* the address it leaves from; 0: the socket's. Never told */
	uint8_t tos;            /* of the outer IPv4 header */
};

/* Tells the kernel how to send a message (udp(7), UDP_SEGMENT; ip(7), IP_TOS). Zeros need no telling, and cost nothing. */
void udp_io_set_about(struct msghdr *message, union udp_io_control *control, struct udp_io_about about);

/* What the kernel tells of a message received (UDP_GRO, IP_RECVTOS). */
struct udp_io_about udp_io_get_about(struct msghdr *message);

/* Whether a message may have been refused with this -errno for having segments at all: the way out cannot cut it. */
bool udp_io_refuses_segments(int error);

/* What to do about the errno by which a message of `segments` was refused: lowers segments_max and returns true where a
 * smaller limit of an older kernel may be the reason, so that the message is to be made anew. When it turns out not to be
 * (one within that limit is refused as well) the old one is put back. */
bool udp_io_downgrade(struct udp_io *io, uint32_t segments, int error);

/* Sends one datagram and finds out why it does not fit, if it does not: from this very socket, so that it takes the path
 * that all others take (rules may look at the source port, a mark, the user). Returns 0 when it is sent, else the path MTU
 * in bytes that it exceeds (ip(7), IP_RECVERR: a local error's ee_info), or -errno: -EMSGSIZE when no MTU was said, or when
 * another queue's thread was asking from the same fd. */
int udp_io_probe(const struct udp_io *io, struct msghdr *message);

/* The same for a socket of either kind: -ENOBUFS as udp_io_send. */
int udp_io_ask(const struct udp_io *io, struct msghdr *message);

int udp_io_set_discovery(int fd, int how); /* IP_PMTUDISC_*; 0 or -errno */

#endif
