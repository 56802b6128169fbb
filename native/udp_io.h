/* udp_io: the UDP socket of a queue: datagrams in and out, a batch at a time, and what the kernel knows of a path's MTU.
 *
 * Owns the system calls on the UDP fd, not the fd itself (borrowed until the queue is closed). It must not know what a
 * datagram holds.
 */
#ifndef UDPB_UDP_IO_H
#define UDPB_UDP_IO_H

#include <netinet/in.h>
#include <stdint.h>
#include <sys/socket.h>

#define UDP_IO_OVERHEAD_BYTES 28 /* outer IPv4 and UDP headers */

struct udp_io {
	int fd;
	int (*recvmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *timeout);
	int (*sendmmsg)(int fd, struct mmsghdr *messages, unsigned int count, int flags); /* a test puts its own here */
	int (*path_mtu)(uint32_t local_be, const struct sockaddr_in *peer);
};

/* Sets the socket up: DF on every datagram (EMSGSIZE instead of outer fragments), no queued errors, large buffers.
 * Returns 0 or -errno. */
int udp_io_open(struct udp_io *io, int fd);

/* Receives up to `count` datagrams. Returns how many, or -errno: -EAGAIN when there is none. */
int udp_io_receive(const struct udp_io *io, struct mmsghdr *messages, unsigned int count);

/* Sends messages[0..count-1] in order. Returns how many the kernel took, at least 1, or -errno of the first one. */
int udp_io_send(const struct udp_io *io, struct mmsghdr *messages, unsigned int count);

/* The path MTU in bytes that the kernel knows between the two addresses, read from a short-lived connected socket
 * (ip(7), IP_MTU), or -errno. */
int udp_io_path_mtu(uint32_t local_be, const struct sockaddr_in *peer);

#endif
