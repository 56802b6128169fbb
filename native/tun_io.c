/* tun_io: see tun_io.h. The virtio header is the 10-byte form, in native byte order (the TUN's default). */
#include "tun_io.h"

#include <errno.h>
#include <linux/if.h>
#include <linux/if_tun.h>
#include <sys/ioctl.h>

#include "udpb.h"

int tun_io_open(struct tun_io *io, int fd)
{
	int header_bytes = (int)sizeof(struct virtio_net_hdr);
	struct ifreq request = { 0 };

	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return -errno;
	if (!(request.ifr_flags & IFF_TUN) || !(request.ifr_flags & IFF_VNET_HDR))
		return -EINVAL;
	if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
		return -errno;
	*io = (struct tun_io){ .fd = fd, .readv = readv, .writev = writev };
	/* The call replaces whatever an earlier process negotiated, also with nothing. */
	if (ioctl(fd, TUNSETOFFLOAD, (unsigned long)TUN_F_CSUM) == 0)
		io->offloads = UDPB_OFFLOAD_CSUM;
	else if (ioctl(fd, TUNSETOFFLOAD, 0UL) < 0)
		return -errno;
	return 0;
}

ssize_t tun_io_read(const struct tun_io *io, struct virtio_net_hdr *header, uint8_t *buffer, size_t capacity)
{
	struct iovec iov[2] = {
		{ .iov_base = header, .iov_len = sizeof(*header) },
		{ .iov_base = buffer, .iov_len = capacity },
	};
	ssize_t got;

	do {
		got = io->readv(io->fd, iov, 2);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if ((size_t)got < sizeof(*header))
		return -EBADFD; /* end of file: the fd is no TUN queue any more */
	return got - (ssize_t)sizeof(*header);
}

int tun_io_write(const struct tun_io *io, const uint8_t *packet, size_t length)
{
	struct virtio_net_hdr header = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	struct iovec iov[2] = {
		{ .iov_base = &header, .iov_len = sizeof(header) },
		{ .iov_base = (void *)(uintptr_t)packet, .iov_len = length },
	};
	ssize_t put;

	do {
		put = io->writev(io->fd, iov, 2);
	} while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : 0;
}

bool tun_io_is_gone(int error)
{
	/* EBADFD: the link was deleted; EFAULT: its namespace was (linux/drivers/net/tun.c, tun_ring_recv). */
	return error == -EBADFD || error == -EFAULT || error == -EBADF;
}
