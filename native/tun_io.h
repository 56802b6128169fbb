/* tun_io: one queue of a TUN device: packets in and out, each with its virtio header, and the offloads it grants.
 *
 * Owns the system calls on the TUN fd, not the fd itself (borrowed until the queue is closed). It must not know peers.
 */
#ifndef UDPB_TUN_IO_H
#define UDPB_TUN_IO_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include "virtio.h"

#define TUN_IO_HEADER_BYTES sizeof(struct virtio_net_hdr)

struct tun_io {
	int fd;
	uint32_t mtu; /* of the device when it was opened, in bytes */
	_Atomic uint32_t offloads; /* UDPB_OFFLOAD_* of what the TUN gives and takes; may shrink; any thread may read it */
	ssize_t (*read)(int fd, void *buffer, size_t capacity); /* a test puts its own here */
	ssize_t (*writev)(int fd, const struct iovec *iov, int count);
	ssize_t (*write)(int fd, const void *buffer, size_t bytes);
};

/* Checks that the fd is a TUN with a virtio header, negotiates what it may hand over, and probes what it takes: a kernel
 * may refuse super-packets that another of the same version takes. Neither is done for what is in `off` (UDPB_OFFLOAD_*).
 * Returns 0 or -errno (-EINVAL: another kind of device or no virtio header). */
int tun_io_open(struct tun_io *io, int fd, uint32_t off);

/* Reads one packet or super-packet of up to `capacity` bytes into `buffer`; the TUN_IO_HEADER_BYTES before it are
 * overwritten. Returns its length in bytes, or -errno: -EAGAIN when there is none. */
ssize_t tun_io_read(const struct tun_io *io, struct virtio_net_hdr *header, uint8_t *buffer, size_t capacity);

/* Writes one packet or super-packet: iov[1..count-1], gathered. iov[0] is the call's own, for the virtio header. Returns
 * 0 or -errno. */
int tun_io_write(const struct tun_io *io, const struct virtio_net_hdr *header, struct iovec *iov, int count);

/* Writes one plain packet. */
int tun_io_write_packet(const struct tun_io *io, const uint8_t *packet, size_t length);

/* Writes one packet with its virtio header, NULL for a plain one. It stands in a larger buffer, so there is one piece instead
 * of two, which a tenth of a short packet's time is spent on. The TUN_IO_HEADER_BYTES before it are the caller's; they are
 * as they were when the call returns. */
int tun_io_write_within(const struct tun_io *io, const struct virtio_net_hdr *header, uint8_t *packet, size_t length);

/* Whether an error of the calls above means that the device is gone for good. */
bool tun_io_is_gone(int error);

#endif
