/* fake_io: a TUN and a UDP socket made of arrays.
 *
 * Owns what stands behind the function pointers of struct tun_io and struct udp_io in a test: packets and datagrams that
 * wait to be read, everything that was written and sent, and scripted errors. A *fault* strikes when so many items have
 * been dealt with, as often as told; like the kernel, a call that has moved something returns what it moved and meets
 * the fault the next time. A datagram to a *slow* address stays charged to its socket until the test lets it go; sockets
 * opened beside the first have accounts of their own. It knows no peers and no inner packets. One fake per program; one thread.
 */
#ifndef FAKE_IO_H
#define FAKE_IO_H

#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/udp.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "check.h"
#include "tun_io.h"
#include "udp_io.h"

#define FAKE_ITEMS 1024
#define FAKE_MTU 1472 /* the TUN's */
#define FAKE_FAULTS 8
#define FAKE_SOCKETS 300
#define FAKE_BESIDE 1000 /* the first fd of a socket beside another */
#define FAKE_SLOW 64
#define FAKE_BUFFER_BYTES (16U << 20)
#define FAKE_CHARGE_BYTES 768 /* for a message beside its bytes */

struct fake_item {
	struct virtio_net_hdr header; /* a TUN's */
	struct sockaddr_in address;   /* a datagram's */
	int segment;                  /* several datagrams received as one: how long each is; 0 for one */
	uint8_t tos;                  /* of the outer header */
	uint32_t packets;             /* what it is to count as; a super-packet is several */
	uint8_t *bytes;
	size_t length;
	int fd;                       /* a datagram's: where it was sent from */
};

/* One direction of one fd. */
struct fake_stream {
	struct fake_item items[FAKE_ITEMS];
	uint32_t count, done; /* done: of those to be read */
	struct fake_fault {
		uint32_t at, times;
		int error;
	} faults[FAKE_FAULTS];
	uint32_t fault_count, faults_done, calls;
	uint64_t forgotten; /* packets of items that are no more */
};

static struct {
	struct fake_stream tun_in, tun_out, udp_in, udp_out;
	uint32_t udp_per_call;    /* sendmmsg takes no more at once; 0 for all */
	uint32_t udp_segments_max; /* in one message: more are refused with `udp_segments_error`; 0 for any number */
	uint32_t udp_counted_bytes; /* that sendmmsg takes for payload when it counts segments */
	int udp_segments_error;
	uint32_t udp_refusing_be; /* ... on the way to this address alone; 0: to all */
	uint32_t udp_messages;    /* sent */
	size_t udp_longest_bytes; /* sendmmsg answers EMSGSIZE to a longer datagram with DF; 0 for none */
	bool udp_no_df;           /* the socket sends with DF clear now */
	uint32_t udp_cut_outside; /* datagrams longer than that, sent so */
	int path_mtu;             /* what the kernel says to a refused one, or -errno */
	uint32_t path_mtu_calls;
	struct sockaddr_in path_mtu_peer; /* whom it was last asked about */
	uint32_t slow_be[FAKE_SLOW];      /* what is sent there stays charged */
	uint32_t slow_count;
	size_t charged[FAKE_SOCKETS];     /* by fd: 4, then from FAKE_BESIDE on */
	size_t kept[FAKE_SOCKETS][FAKE_SLOW]; /* of it, for each slow address */
	int beside_model[FAKE_SOCKETS];   /* the fd that it was opened beside */
	int beside_error;                 /* no socket can be opened beside another */
	size_t buffer_bytes;              /* of the first socket; a quarter for those beside it */
	uint32_t queued_calls;
	bool uncounted;                   /* datagrams are not kept: there are too many */
	uint64_t sent_to[256];            /* by the last byte of the address */
} fake;

static inline void fake_keep(struct fake_stream *stream, const void *bytes, size_t length,
			     const struct virtio_net_hdr *header, const struct sockaddr_in *address)
{
	struct fake_item *item = &stream->items[stream->count];

	if (!CHECK(stream->count < FAKE_ITEMS))
		return;
	stream->count++;
	item->bytes = malloc(length + !length);
	item->length = length;
	item->packets = 1;
	memcpy(item->bytes, bytes, length);
	if (header)
		item->header = *header;
	if (address)
		item->address = *address;
}

static inline void fake_reset(void)
{
	struct fake_stream *streams[] = {&fake.tun_in, &fake.tun_out, &fake.udp_in, &fake.udp_out};

	for (size_t i = 0; i < 4; i++)
		for (uint32_t j = 0; j < streams[i]->count; j++)
			free(streams[i]->items[j].bytes);
	memset(&fake, 0, sizeof(fake));
	for (uint32_t i = 1; i < FAKE_SOCKETS; i++)
		fake.beside_model[i] = -1;
	fake.buffer_bytes = FAKE_BUFFER_BYTES;
	fake.path_mtu = 1500;
}

/* The place of a socket's account. */
static inline uint32_t fake_account(int fd)
{
	uint32_t place = fd >= FAKE_BESIDE ? (uint32_t)(fd - FAKE_BESIDE + 1) : 0;

	return CHECK(place < FAKE_SOCKETS) ? place : 0;
}

static inline int fake_slow(uint32_t address_be)
{
	for (uint32_t i = 0; i < fake.slow_count; i++)
		if (fake.slow_be[i] == address_be)
			return (int)i;
	return -1;
}

static inline void fake_make_slow(uint32_t address)
{
	if (CHECK(fake.slow_count < FAKE_SLOW))
		fake.slow_be[fake.slow_count++] = htonl(address);
}

/* Lets everything go that has stayed for an address. */
static inline void fake_let_go(uint32_t address)
{
	int slow = fake_slow(htonl(address));

	for (uint32_t i = 0; CHECK(slow >= 0) && i < FAKE_SOCKETS; i++) {
		fake.charged[i] -= fake.kept[i][slow];
		fake.kept[i][slow] = 0;
	}
}

/* The item put in last. */
static inline struct fake_item *fake_latest(struct fake_stream *stream)
{
	return &stream->items[stream->count - 1];
}

/* Packets given out so far. */
static inline uint64_t fake_given(const struct fake_stream *stream)
{
	uint64_t packets = stream->forgotten;

	for (uint32_t i = 0; i < stream->done; i++)
		packets += stream->items[i].packets;
	return packets;
}

/* Makes room for more, when all is given out. */
static inline void fake_forget(struct fake_stream *stream)
{
	CHECK(stream->done == stream->count);
	stream->forgotten = fake_given(stream);
	while (stream->count > 0)
		free(stream->items[--stream->count].bytes);
	stream->done = 0;
}

/* The stream's next calls fail with `error` once `at` items have been moved, `times` times in a row. In order of `at`. */
static inline void fake_fault(struct fake_stream *stream, uint32_t at, int error, uint32_t times)
{
	if (CHECK(stream->fault_count < FAKE_FAULTS))
		stream->faults[stream->fault_count++] = (struct fake_fault){at, times, error};
}

/* The error due after `moved` items, or 0. Looking uses it up only if `take`. */
static inline int fake_due(struct fake_stream *stream, uint32_t moved, bool take)
{
	struct fake_fault *fault = &stream->faults[stream->faults_done];

	if (stream->faults_done == stream->fault_count || moved < fault->at)
		return 0;
	if (take && --fault->times == 0)
		stream->faults_done++;
	return fault->error;
}

static inline int fake_fail(int error)
{
	errno = error;
	return -1;
}

/* ---- the TUN ---- */

static inline ssize_t fake_read(int fd, void *buffer, size_t capacity)
{
	struct fake_stream *in = &fake.tun_in;
	const struct fake_item *item = &in->items[in->done];
	int error = fake_due(in, in->done, true);

	in->calls++;
	if (!CHECK(fd == 3 && capacity > sizeof(item->header)))
		return fake_fail(EINVAL);
	if (error || in->done == in->count)
		return error < 0 ? 0 : fake_fail(error ? error : EAGAIN); /* a negative "error" is the end of the file */
	if (!CHECK(sizeof(item->header) + item->length <= capacity))
		return fake_fail(EINVAL);
	in->done++;
	memcpy(buffer, &item->header, sizeof(item->header));
	memcpy((uint8_t *)buffer + sizeof(item->header), item->bytes, item->length);
	return (ssize_t)(sizeof(item->header) + item->length);
}

/* Copies what the vector holds, and returns its length. */
static inline size_t fake_gather(const struct iovec *iov, size_t count, uint8_t *out, size_t room)
{
	size_t length = 0;

	for (size_t i = 0; i < count; i++) {
		if (!CHECK(length + iov[i].iov_len <= room))
			break;
		memcpy(out + length, iov[i].iov_base, iov[i].iov_len);
		length += iov[i].iov_len;
	}
	return length;
}

static inline ssize_t fake_writev(int fd, const struct iovec *iov, int count)
{
	static uint8_t frame[1 << 17];
	size_t length = fake_gather(iov, (size_t)count, frame, sizeof(frame));
	struct virtio_net_hdr header;
	int error = fake_due(&fake.tun_out, fake.tun_out.count, true);

	fake.tun_out.calls++;
	if (error)
		return fake_fail(error);
	if (!CHECK(fd == 3 && length >= sizeof(header)))
		return fake_fail(EINVAL);
	memcpy(&header, frame, sizeof(header));
	fake_keep(&fake.tun_out, frame + sizeof(header), length - sizeof(header), &header, NULL);
	return (ssize_t)length;
}

static inline ssize_t fake_write(int fd, const void *buffer, size_t bytes)
{
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buffer, .iov_len = bytes};

	return fake_writev(fd, &iov, 1);
}

/* ---- the socket ---- */

/* What the kernel is told about a message: the one control message of a kind, as an integer; 0 where it is told nothing. */
static inline int fake_told(struct msghdr *message, int level, int type, size_t bytes)
{
	uint16_t small = 0;
	int value = 0;

	for (struct cmsghdr *it = message->msg_controllen ? CMSG_FIRSTHDR(message) : NULL; it;
	     it = CMSG_NXTHDR(message, it)) {
		CHECK((it->cmsg_level == IPPROTO_UDP && it->cmsg_type == UDP_SEGMENT) ||
		      (it->cmsg_level == IPPROTO_IP && (it->cmsg_type == IP_TOS || it->cmsg_type == IP_PKTINFO)));
		if (it->cmsg_level != level || it->cmsg_type != type || !CHECK(it->cmsg_len == CMSG_LEN(bytes) && !value))
			continue;
		memcpy(bytes == sizeof(small) ? (void *)&small : &value, CMSG_DATA(it), bytes);
		value += small;
		CHECK(value != 0); /* nobody pays for a control message that says nothing */
	}
	return value;
}

/* How long the datagrams are that a message is to be cut into; 0: it is one. */
static inline size_t fake_segment_bytes(struct msghdr *message)
{
	return (size_t)fake_told(message, IPPROTO_UDP, UDP_SEGMENT, sizeof(uint16_t));
}

static inline uint8_t fake_tos(struct msghdr *message)
{
	return (uint8_t)fake_told(message, IPPROTO_IP, IP_TOS, sizeof(int));
}

#define FAKE_SOURCE 0x7f00aa01 /* where datagrams of sockets beside others have to leave from */

/* The address that a message is to leave from; 0: the socket's own. */
static inline uint32_t fake_source_be(struct msghdr *message)
{
	struct cmsghdr *control = message->msg_controllen ? CMSG_FIRSTHDR(message) : NULL;
	struct in_pktinfo info = {0};

	for (; control; control = CMSG_NXTHDR(message, control))
		if (control->cmsg_level == IPPROTO_IP && control->cmsg_type == IP_PKTINFO &&
		    CHECK(control->cmsg_len == CMSG_LEN(sizeof(info))))
			memcpy(&info, CMSG_DATA(control), sizeof(info));
	return info.ipi_spec_dst.s_addr;
}

/* Charges a message that has been sent. */
static inline void fake_charge(int fd, const struct sockaddr_in *address, size_t length)
{
	int slow = fake_slow(address->sin_addr.s_addr);

	if (slow < 0)
		return;
	fake.charged[fake_account(fd)] += length + FAKE_CHARGE_BYTES;
	fake.kept[fake_account(fd)][slow] += length + FAKE_CHARGE_BYTES;
}

static inline size_t fake_buffer_bytes(int fd)
{
	return fd >= FAKE_BESIDE ? fake.buffer_bytes / 4 : fake.buffer_bytes;
}

/* What the kernel says to a message of so many bytes, to be cut like this. */
static inline int fake_message_error(size_t length, size_t segment, uint32_t address_be)
{
	size_t longest = segment && segment < length ? segment : length;

	if (length > 65535 - 28)
		return EMSGSIZE;
	if (segment && fake.udp_segments_max && (!fake.udp_refusing_be || fake.udp_refusing_be == address_be) &&
	    length + fake.udp_counted_bytes > segment * fake.udp_segments_max)
		return fake.udp_segments_error;
	if (!fake.udp_longest_bytes || longest <= fake.udp_longest_bytes)
		return 0;
	fake.udp_cut_outside += fake.udp_no_df;
	return fake.udp_no_df ? 0 : EMSGSIZE;
}

static inline int fake_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	static uint8_t bytes[1 << 17];
	struct fake_stream *out = &fake.udp_out;
	unsigned int sent = 0;

	out->calls++;
	if (!CHECK((fd == 4 || fd >= FAKE_BESIDE) && (flags & MSG_DONTWAIT) && count > 0))
		return fake_fail(EINVAL);
	for (; sent < count && (fake.udp_per_call == 0 || sent < fake.udp_per_call); sent++) {
		struct msghdr *m = &messages[sent].msg_hdr;
		size_t length = fake_gather(m->msg_iov, m->msg_iovlen, bytes, sizeof(bytes));
		size_t segment = fake_segment_bytes(m), at = 0;
		int error = fake_due(out, out->count, sent == 0);

		CHECK(fake_source_be(m) == (fd >= FAKE_BESIDE ? htonl(FAKE_SOURCE) : 0));
		if (!error && fake.charged[fake_account(fd)] >= fake_buffer_bytes(fd))
			error = EAGAIN;
		if (!error)
			error = fake_message_error(length, segment, ((struct sockaddr_in *)m->msg_name)->sin_addr.s_addr);
		if (error && sent == 0)
			return fake_fail(error);
		if (error)
			break;
		CHECK(m->msg_namelen == sizeof(struct sockaddr_in));
		do {
			size_t piece = segment && segment < length - at ? segment : length - at;

			fake.sent_to[ntohl(((struct sockaddr_in *)m->msg_name)->sin_addr.s_addr) & 255]++;
			if (!fake.uncounted) {
				fake_keep(out, bytes + at, piece, NULL, m->msg_name);
				fake_latest(out)->tos = fake_tos(m);
				fake_latest(out)->fd = fd;
			}
			at += piece;
		} while (at < length);
		fake_charge(fd, m->msg_name, length);
		messages[sent].msg_len = (unsigned int)length;
		fake.udp_messages++;
	}
	return (int)sent;
}

/* Tells the TOS, and before it that a message was put together from datagrams of this length, or not (0). */
static inline void fake_give_control(struct msghdr *message, int segment_bytes, uint8_t tos)
{
	struct cmsghdr *control = CMSG_FIRSTHDR(message);
	size_t used = segment_bytes ? CMSG_SPACE(sizeof(segment_bytes)) : 0;

	if (!CHECK(message->msg_controllen >= used + CMSG_SPACE(sizeof(tos))))
		return;
	if (segment_bytes) {
		control->cmsg_level = IPPROTO_UDP;
		control->cmsg_type = UDP_GRO;
		control->cmsg_len = CMSG_LEN(sizeof(segment_bytes));
		memcpy(CMSG_DATA(control), &segment_bytes, sizeof(segment_bytes));
		control = (struct cmsghdr *)((uint8_t *)control + used);
	}
	control->cmsg_level = IPPROTO_IP;
	control->cmsg_type = IP_TOS;
	control->cmsg_len = CMSG_LEN(sizeof(tos));
	memcpy(CMSG_DATA(control), &tos, sizeof(tos));
	message->msg_controllen = used + CMSG_SPACE(sizeof(tos));
}

static inline int fake_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *wait)
{
	struct fake_stream *in = &fake.udp_in;
	unsigned int got = 0;
	int error = 0;

	in->calls++;
	if (!CHECK(fd == 4 && (flags & MSG_DONTWAIT) && !wait))
		return fake_fail(EINVAL);
	for (; got < count && in->done < in->count; got++) {
		const struct fake_item *item = &in->items[in->done];
		struct msghdr *m = &messages[got].msg_hdr;

		error = fake_due(in, in->done, got == 0);
		if (error)
			break;
		CHECK(m->msg_namelen >= sizeof(item->address) && m->msg_iovlen == 1 &&
		      m->msg_iov->iov_len >= item->length);
		memcpy(m->msg_name, &item->address, sizeof(item->address));
		memcpy(m->msg_iov->iov_base, item->bytes, item->length);
		m->msg_namelen = sizeof(item->address);
		fake_give_control(m, item->segment, item->tos);
		m->msg_flags = 0;
		messages[got].msg_len = (unsigned int)item->length;
		in->done++;
	}
	if (got > 0)
		return (int)got;
	if (!error) /* nothing is left, but an error may still be due */
		error = fake_due(in, in->done, true);
	return fake_fail(error ? error : EAGAIN);
}

static inline int fake_probe(const struct udp_io *io, struct msghdr *message)
{
	struct mmsghdr one = {.msg_hdr = *message};

	fake.path_mtu_calls++;
	memcpy(&fake.path_mtu_peer, message->msg_name, sizeof(fake.path_mtu_peer));
	CHECK(!fake.udp_no_df && fake_segment_bytes(message) == 0);
	if (fake_sendmmsg(io->fd, &one, 1, MSG_DONTWAIT) == 1)
		return 0;
	return errno == EMSGSIZE ? fake.path_mtu : -errno;
}

static inline int fake_set_discovery(int fd, int how)
{
	CHECK((fd == 4 || fd >= FAKE_BESIDE) && (how == IP_PMTUDISC_DO || how == IP_PMTUDISC_DONT) && fake.udp_no_df == (how == IP_PMTUDISC_DO));
	fake.udp_no_df = how == IP_PMTUDISC_DONT;
	return 0;
}

static inline int fake_queued(int fd)
{
	fake.queued_calls++;
	return (int)fake.charged[fake_account(fd)];
}

static inline int fake_beside(struct udp_io *io, const struct udp_io *model, uint32_t buffer_bytes)
{
	int null = open("/dev/null", O_RDWR | O_CLOEXEC), fd;

	if (fake.beside_error) {
		close(null);
		return -fake.beside_error;
	}
	CHECK(buffer_bytes > 0);
	fd = fcntl(null, F_DUPFD_CLOEXEC, FAKE_BESIDE);
	close(null);
	*io = *model;
	io->fd = fd;
	io->buffer_bytes = (uint32_t)fake_buffer_bytes(fd);
	io->source_be = htonl(FAKE_SOURCE);
	fake.charged[fake_account(fd)] = 0;
	fake.beside_model[fake_account(fd)] = model->fd;
	return 0;
}

/* A TUN and a socket without any offload; a test that wants some says so in the two. */
static inline void fake_open(struct tun_io *tun, struct udp_io *udp)
{
	fake_reset();
	*tun = (struct tun_io){.fd = 3, .mtu = FAKE_MTU, .read = fake_read, .writev = fake_writev, .write = fake_write};
	*udp = (struct udp_io){.fd = 4,
			       .segments_max = 1,
			       .recvmmsg = fake_recvmmsg,
			       .sendmmsg = fake_sendmmsg,
			       .buffer_bytes = FAKE_BUFFER_BYTES,
			       .queued = fake_queued,
			       .beside = fake_beside,
			       .probe = fake_probe,
			       .set_discovery = fake_set_discovery};
}

#endif
