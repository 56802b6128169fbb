/* tun_io: see tun_io.h. The virtio header is the 10-byte form, in native byte order (the TUN's default). */
#include "tun_io.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "udpb.h"

#define TSO (TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN)
#define USO (TUN_F_USO4 | TUN_F_USO6)

/* What to ask for, best first. */
static const uint32_t levels[] = {
	UDPB_OFFLOAD_CSUM | UDPB_OFFLOAD_TSO | UDPB_OFFLOAD_USO, /* Linux 6.2 */
	UDPB_OFFLOAD_CSUM | UDPB_OFFLOAD_TSO,
	UDPB_OFFLOAD_CSUM,
	0,
};

/* Each call replaces whatever was negotiated before. */
static int negotiate(struct tun_io *io, uint32_t off)
{
	for (size_t i = 0; i < sizeof(levels) / sizeof(levels[0]); i++) {
		uint32_t wanted = levels[i] & ~off;
		unsigned long asked = (wanted & UDPB_OFFLOAD_CSUM ? TUN_F_CSUM : 0) |
				      (wanted & UDPB_OFFLOAD_TSO ? TSO : 0) | (wanted & UDPB_OFFLOAD_USO ? USO : 0);

		if (ioctl(io->fd, TUNSETOFFLOAD, asked) == 0) {
			io->offloads = wanted;
			return 0;
		}
	}
	return -errno;
}

/* Whether the kernel takes a two-segment super-packet of this kind. It drops it right away: the IP checksum is wrong. */
static bool takes(const struct tun_io *io, uint8_t gso_type, uint8_t protocol, uint16_t headers_bytes, uint16_t checksum_offset)
{
	uint8_t packet[20 + 20 + 2] = { 0x45, 0, 0, (uint8_t)(headers_bytes + 2), 0, 0, 0, 0, 1, protocol };
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.gso_type = gso_type,
		.gso_size = 1,
		.hdr_len = headers_bytes,
		.csum_start = 20,
		.csum_offset = checksum_offset,
	};
	struct iovec iov[2] = { [1] = { .iov_base = packet, .iov_len = headers_bytes + 2U } };

	if (protocol == IPPROTO_TCP)
		packet[20 + 12] = 5 << 4;
	else
		packet[20 + 5] = 8 + 2;
	return tun_io_write(io, &header, iov, 2) != -EINVAL;
}

/* The library's read is a point where threads may be cancelled, which nobody does here and which costs 20 of the 260 ns
 * that a small packet takes; one buffer instead of two costs another 25 less. */
static ssize_t plain_read(int fd, void *buffer, size_t capacity)
{
	return syscall(SYS_read, fd, buffer, capacity);
}

static ssize_t plain_write(int fd, const void *buffer, size_t bytes)
{
	return syscall(SYS_write, fd, buffer, bytes);
}

/* Asked of a socket: the TUN's fd does not say it. Where nobody knows (the device is in another namespace, say), no packet
 * counts as too long. */
static uint32_t ask_mtu(struct ifreq *request)
{
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	bool known = fd >= 0 && ioctl(fd, SIOCGIFMTU, request) == 0;

	if (fd >= 0)
		close(fd);
	return known ? (uint32_t)request->ifr_mtu : UINT16_MAX;
}

int tun_io_open(struct tun_io *io, int fd, uint32_t off)
{
	int header_bytes = (int)sizeof(struct virtio_net_hdr);
	struct ifreq request = { 0 };
	int error;

	if (ioctl(fd, TUNGETIFF, &request) < 0)
		return -errno;
	if (!(request.ifr_flags & IFF_TUN) || !(request.ifr_flags & IFF_VNET_HDR))
		return -EINVAL;
	if (ioctl(fd, TUNSETVNETHDRSZ, &header_bytes) < 0)
		return -errno;
	*io = (struct tun_io){ .fd = fd, .read = plain_read, .writev = writev, .write = plain_write };
	io->mtu = ask_mtu(&request);
	error = negotiate(io, off);
	if (error)
		return error;
	if (!(off & UDPB_OFFLOAD_TCP_COALESCE) && takes(io, VIRTIO_NET_HDR_GSO_TCPV4, IPPROTO_TCP, 40, 16))
		io->offloads |= UDPB_OFFLOAD_TCP_COALESCE;
	if (!(off & UDPB_OFFLOAD_UDP_COALESCE) && takes(io, VIRTIO_NET_HDR_GSO_UDP_L4, IPPROTO_UDP, 28, 6))
		io->offloads |= UDPB_OFFLOAD_UDP_COALESCE;
	return 0;
}

ssize_t tun_io_read(const struct tun_io *io, struct virtio_net_hdr *header, uint8_t *buffer, size_t capacity)
{
	uint8_t *start = buffer - TUN_IO_HEADER_BYTES;
	ssize_t got;

	do {
		got = io->read(io->fd, start, TUN_IO_HEADER_BYTES + capacity);
	} while (got < 0 && errno == EINTR);
	if (got < 0)
		return -errno;
	if ((size_t)got < TUN_IO_HEADER_BYTES)
		return -EBADFD; /* end of file: the fd is no TUN queue any more */
	memcpy(header, start, TUN_IO_HEADER_BYTES);
	return got - (ssize_t)TUN_IO_HEADER_BYTES;
}

int tun_io_write(const struct tun_io *io, const struct virtio_net_hdr *header, struct iovec *iov, int count)
{
	ssize_t put;

	iov[0] = (struct iovec){ .iov_base = (void *)(uintptr_t)header, .iov_len = sizeof(*header) };
	do {
		put = io->writev(io->fd, iov, count);
	} while (put < 0 && errno == EINTR);
	return put < 0 ? -errno : 0;
}

int tun_io_write_packet(const struct tun_io *io, const uint8_t *packet, size_t length)
{
	struct virtio_net_hdr header = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	struct iovec iov[2] = { [1] = { .iov_base = (void *)(uintptr_t)packet, .iov_len = length } };

	return tun_io_write(io, &header, iov, 2);
}

int tun_io_write_within(const struct tun_io *io, const struct virtio_net_hdr *header, uint8_t *packet, size_t length)
{
	static const struct virtio_net_hdr plain = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	uint8_t *start = packet - TUN_IO_HEADER_BYTES;
	uint8_t kept[TUN_IO_HEADER_BYTES];
	ssize_t put;

	memcpy(kept, start, sizeof(kept));
	memcpy(start, header ? header : &plain, sizeof(plain));
	do {
		put = io->write(io->fd, start, sizeof(plain) + length);
	} while (put < 0 && errno == EINTR);
	memcpy(start, kept, sizeof(kept));
	return put < 0 ? -errno : 0;
}

bool tun_io_is_gone(int error)
{
	/* EBADFD: the link was deleted; EFAULT: its namespace was (linux/drivers/net/tun.c, tun_ring_recv). */
	return error == -EBADFD || error == -EFAULT || error == -EBADF;
}
