/* fuzz_receive: whatever datagrams arrive, with whatever the kernel says of them, each ends as one packet of flannel0 or
 * in one counter. What is written is what was let in, each packet once, a flow in its order, and nobody is let in who
 * should not be; nothing that was let in is lost unless flannel0 refuses it, or it is of UDP and nobody knows where to cut
 * it. A checksum is passed off as unfinished only where the packet's field says so.
 *
 * The input's bytes choose the datagrams (flows of flows.h from the addresses of peers and others, and the input's own
 * bytes), how many came as one message, the control data, and what flannel0 says to each write. Who is let in is judged
 * here anew, from the description in docs/architecture.md.
 */
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

#include "../c/receive_rig.h"
#include "../c/flows.h"
#include "../c/merged.h"

#define DATAGRAMS_ROOM 4096
#define MESSAGE_ROOM 65507
#define STRANGER 0xc6336401 /* 198.51.100.1 */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct choices *choices;
static struct flows flows;
static uint8_t message_bytes[MESSAGE_ROOM + SUPER_ROOM];

/* What is let in, as it is to be written. */
static struct {
	struct packet packet; /* its bytes are an allocation of their own */
	uint32_t place;       /* among all that was written; UINT32_MAX: not yet */
	bool partial;
	uint32_t size;        /* of the segments of a super-packet; 0: it is none */
	uint32_t next, seen;  /* of these segments: the one after the last that was written, and how many were */
} let_in[DATAGRAMS_ROOM];
static uint32_t let_in_count, first_of_batch, datagrams, written, undivided;
static uint64_t written_bytes, refused, of_peer[4];
static int gone_error; /* that flannel0 has answered in this batch */

/* ---- who is let in ---- */

/* The number of the peer whose subnet holds the source; 0 for nobody, 1 for ourselves. */
static uint32_t owner_of(const struct packet *p)
{
	static const uint8_t prefix6[7] = {0xfd};

	if (p->version == 6)
		return memcmp(p->source, prefix6, sizeof(prefix6)) == 0 && (p->source[7] == 1 || p->source[7] == 2) ? p->source[7]
														    : 0;
	if (p->source[0] != 10 || p->source[1] != 0)
		return 0;
	if (p->source[2] == 0)
		return p->source[3] == 1;
	return p->source[2] <= 3 ? p->source[2] : 0;
}

static bool is_admitted(const struct packet *p, uint32_t outer, uint32_t mode)
{
	uint32_t owner = owner_of(p), sender = outer == PEER(2) ? 2 : outer == PEER(3) ? 3 : 0;

	if (packet_is_no_host(p->version, p->source) || owner == 1)
		return false;
	if (mode == UDPB_SOURCE_SUBNET)
		return sender && owner == sender;
	return mode == UDPB_SOURCE_OFF || sender;
}

/* RFC 6040: what an inner packet's ECN becomes in a datagram that came with another; -1: the packet is to be dropped. */
static int merged_ecn(uint8_t inner, uint8_t outer)
{
	if (inner == PACKET_NOT_ECT)
		return outer == PACKET_CE ? -1 : PACKET_NOT_ECT;
	if (outer == PACKET_CE || inner == PACKET_CE)
		return PACKET_CE;
	return outer == PACKET_ECT1 && inner == PACKET_ECT0 ? PACKET_ECT1 : inner;
}

/* How long the segments are of a packet whose checksum was left to a card: 0 for all of it, UINT32_MAX if nobody knows. */
static uint32_t segment_size(const struct packet *p, uint32_t told)
{
	uint32_t mtu = bench.rig.tun.mtu, headers = (uint32_t)cut_headers(p->bytes, p->header_bytes, p->protocol);
	uint32_t payload = p->length - headers, size;
	bool whole = headers < p->length && (p->protocol == UDP || headers >= p->header_bytes + 20U);

	if (p->protocol == UDP && p->length <= mtu && (!told || told >= p->length - headers))
		return 0;
	if (p->protocol == UDP)
		return told && whole && headers + told <= mtu && (payload + told - 1) / told <= 128 ? told : UINT32_MAX;
	if (p->length <= mtu || !whole)
		return 0;
	size = mtu > headers + 256 ? mtu - headers : 256;
	return size < payload ? size : 0;
}

/* Whether a message is one packet, however many datagrams the kernel says there are in it. */
static bool is_one(const uint8_t *bytes, size_t length)
{
	if (length < 20 || (bytes[0] >> 4 != 4 && bytes[0] >> 4 != 6))
		return false;
	return bytes[0] >> 4 == 4 ? get_16(bytes + 2) == length : get_16(bytes + 4) + 40 == length;
}

/* One datagram arrives; if it is to be let in, that is noted. */
static void judge_datagram(const uint8_t *bytes, size_t length, uint32_t outer, uint8_t tos, uint32_t told)
{
	uint8_t *copy = malloc(length + !length);
	struct packet *p = &let_in[let_in_count].packet;
	int ecn;

	datagrams++;
	memcpy(copy, bytes, length);
	if (packet_parse(copy, length, p) != PACKET_OK || !is_admitted(p, outer, bench.receive.source_check) ||
	    (ecn = merged_ecn(packet_tos(p) & PACKET_ECN_MASK, tos & PACKET_ECN_MASK)) < 0) {
		free(copy);
		return;
	}
	if (ecn != (packet_tos(p) & PACKET_ECN_MASK)) {
		copy[1] = p->version == 4 ? (uint8_t)((copy[1] & ~3) | ecn) : (uint8_t)((copy[1] & ~0x30) | ecn << 4);
		if (p->version == 4)
			seal(copy);
	}
	if (outer == PEER(2) || outer == PEER(3))
		of_peer[outer - PEER(0)]++;
	let_in[let_in_count].place = UINT32_MAX;
	let_in[let_in_count].next = let_in[let_in_count].seen = let_in[let_in_count].size = 0;
	let_in[let_in_count].partial = is_partial(p);
	if (let_in[let_in_count].partial)
		let_in[let_in_count].size = segment_size(p, told);
	if (let_in[let_in_count].size == UINT32_MAX) {
		undivided++;
		free(copy);
		return;
	}
	let_in_count++;
}

/* ---- what arrives ---- */

/* Lets a packet of flows.h come from one of these, its checksums as right or wrong as they were. */
static void move_source(uint8_t *bytes, size_t length)
{
	static const uint32_t sources[] = {THEIRS(2, 7), THEIRS(2, 9), THEIRS(3, 7), THEIRS(9, 7),
					   OURS(5),      TUN_ADDRESS,  0x7f000001,   0xe0000001};
	uint32_t which = choose(choices, 32);
	struct packet p;
	bool right;

	if (packet_parse(bytes, length, &p) != PACKET_OK)
		return;
	which = which < COUNT(sources) ? which : which % 3;
	right = is_sound(&p);
	if (p.version == 4)
		put_32(bytes + 12, sources[which]);
	else
		rig_ipv6(bytes + 8, (uint8_t[]){2, 2, 3, 9, 1, 2, 0, 2}[which], (uint8_t)(7 + which));
	if (p.version == 4)
		seal(bytes);
	if (right)
		seal_transport(bytes, length, p.header_bytes, p.protocol);
}

/* Appends a packet, or the input's own bytes. Returns the new length. */
static size_t append(uint8_t *bytes, size_t length)
{
	size_t more;

	if (choose(choices, 16) == 15) {
		more = choose(choices, 120);
		if (more > (size_t)(choices->end - choices->at))
			more = (size_t)(choices->end - choices->at);
		memcpy(bytes + length, choices->at, more);
		choices->at += more;
		return length + more;
	}
	more = flows_next(&flows, choices, bytes + length);
	move_source(bytes + length, more);
	return length + more;
}

/* Control data as the kernel's, or any: pieces of other kinds, and one that is cut off or longer than there is room. It
 * stands in an allocation of exactly its size. Returns what a reader that believes only whole pieces finds. */
static struct udp_io_about give_control(struct msghdr *m, unsigned int number, size_t first)
{
	static uint8_t *exactly[RECEIVE_MESSAGES];
	static union udp_io_control control;
	struct udp_io_about about = {0};
	size_t used = 0;

	for (uint32_t pieces = choose(choices, 4); pieces && used + CMSG_SPACE(sizeof(int)) <= sizeof(control); pieces--) {
		struct cmsghdr *piece = (struct cmsghdr *)(control.bytes + used);
		uint32_t kind = choose(choices, 8);
		int value = (int[]){(int)first, (int)first, 1, 0, -1, 65535, 40, 1 << 20}[choose(choices, 8)];
		bool tos = kind == 3 || kind == 4;

		piece->cmsg_level = kind < 3 ? IPPROTO_UDP : tos ? IPPROTO_IP : (int)choose(choices, 300);
		piece->cmsg_type = kind < 3 ? UDP_GRO : tos ? IP_TOS : (int)choose(choices, 300);
		piece->cmsg_len = CMSG_LEN(tos ? 1 : sizeof(int));
		memset(CMSG_DATA(piece), 0, sizeof(int));
		memcpy(CMSG_DATA(piece), &value, tos ? 1 : sizeof(int));
		used += CMSG_SPACE(sizeof(int));
		if (choose(choices, 16) == 15) {
			used -= choose(choices, CMSG_SPACE(sizeof(int)));
			piece->cmsg_len = choose(choices, 64);
			break;
		}
	}
	free(exactly[number]);
	exactly[number] = malloc(used + !used);
	memcpy(exactly[number], control.bytes, used);
	m->msg_control = exactly[number];
	m->msg_controllen = used;
	about = udp_io_get_about(m);
	return about;
}

static int fuzz_recvmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags, struct timespec *wait)
{
	static const uint32_t froms[] = {PEER(2), PEER(2), PEER(3), STRANGER, LOCAL_ADDRESS, PEER(2), 0, 0xffffffff};
	unsigned int got = 0;

	REQUIRE(fd == 4 && (flags & MSG_DONTWAIT) && !wait && count <= RECEIVE_MESSAGES);
	if (choose(choices, 16) == 15)
		return fake_fail((int[]){EAGAIN, EINTR, ENOMEM, EBADF}[choose(choices, 4)]);
	for (; got < count && !chosen_all(choices) && datagrams + 1700 < DATAGRAMS_ROOM; got++) {
		struct msghdr *m = &messages[got].msg_hdr;
		uint32_t packets = choose(choices, 4) == 3 ? 1 + choose(choices, 64) : choose(choices, 8) != 7;
		uint32_t outer = froms[choose(choices, COUNT(froms))];
		struct sockaddr_in from = {.sin_family = AF_INET, .sin_port = 1, .sin_addr.s_addr = htonl(outer)};
		size_t length = 0, first = 0, at = 0, segment;
		uint32_t told = 0;
		struct udp_io_about about;

		for (; packets && length < MESSAGE_ROOM - 2000; packets--) {
			length = append(message_bytes, length);
			first = first ? first : length;
		}
		about = give_control(m, got, first);
		segment = about.segment_bytes;
		if (segment && segment < 40 && length > 1600 * segment)
			length = 1600 * segment; /* a batch of this fuzzer stays below its room */
		REQUIRE(length <= m->msg_iov->iov_len);
		if (segment && segment < length && is_one(message_bytes, length)) {
			told = (uint32_t)segment;
			segment = 0;
		}
		memcpy(m->msg_iov->iov_base, message_bytes, length);
		memcpy(m->msg_name, &from, sizeof(from));
		m->msg_namelen = sizeof(from);
		messages[got].msg_len = (unsigned int)length;
		do {
			size_t piece = segment && segment < length - at ? segment : length - at;

			judge_datagram(message_bytes + at, piece, outer, about.tos, told);
			at += piece;
		} while (at < length);
	}
	return got ? (int)got : fake_fail(EAGAIN);
}

/* ---- what is written ---- */

static void place(uint32_t i)
{
	let_in[i].place = written++;
	written_bytes += let_in[i].packet.length;
}

static struct virtio_net_hdr super_header(uint32_t i)
{
	const struct packet *p = &let_in[i].packet;
	bool tcp = p->protocol == TCP;
	struct virtio_net_hdr header = {
		.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
		.csum_start = p->header_bytes,
		.csum_offset = (uint16_t)field_of(p->protocol),
	};

	if (!let_in[i].size)
		return header;
	header.gso_type = !tcp ? VIRTIO_NET_HDR_GSO_UDP_L4 : p->version == 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
	header.gso_type |= tcp && p->bytes[p->header_bytes + 13] & CWR ? VIRTIO_NET_HDR_GSO_ECN : 0;
	header.gso_size = (uint16_t)let_in[i].size;
	header.hdr_len = (uint16_t)cut_headers(p->bytes, p->header_bytes, p->protocol);
	return header;
}

/* A packet that goes on as it came: with its checksum finished, or said to be unfinished. */
static bool take_same(const uint8_t *bytes, size_t length, const struct virtio_net_hdr *header)
{
	static const struct virtio_net_hdr plain;

	for (uint32_t i = first_of_batch; i < let_in_count; i++) {
		const struct packet *p = &let_in[i].packet;
		const struct virtio_net_hdr expected = let_in[i].partial ? super_header(i) : plain;

		if (let_in[i].place != UINT32_MAX || let_in[i].next || p->length != length ||
		    memcmp(header, &expected, sizeof(expected)) || memcmp(p->bytes, bytes, length))
			continue;
		place(i);
		return true;
	}
	return false;
}

/* The next segment of a super-packet that is cut. */
static void take_segment(const uint8_t *bytes, size_t length)
{
	static uint8_t piece[SUPER_ROOM];

	for (uint32_t i = first_of_batch; i < let_in_count; i++) {
		const struct packet *p = &let_in[i].packet;
		const struct virtio_net_hdr header = super_header(i);
		size_t start = p->header_bytes, count;

		if (!let_in[i].size || let_in[i].place != UINT32_MAX)
			continue;
		count = cut_count(p->length, &header, header.hdr_len);
		for (uint32_t at = let_in[i].next; at < count; at++) {
			if (cut(p->bytes, p->length, &header, p->protocol, at, piece) != length ||
			    !same_packet(piece, bytes, length, start, p->protocol))
				continue;
			let_in[i].next = at + 1;
			if (++let_in[i].seen == count)
				place(i);
			return;
		}
	}
	REQUIRE(!"a packet that nobody has sent");
}

/* A segment of what was joined. */
static void take_joined(const uint8_t *bytes, size_t length, size_t start, uint8_t protocol)
{
	static uint8_t piece[SUPER_ROOM], expected[SUPER_ROOM];
	uint32_t i = first_of_batch;

	for (; i < let_in_count; i++) {
		const struct packet *p = &let_in[i].packet;

		if (let_in[i].place != UINT32_MAX || let_in[i].size || p->length != length)
			continue;
		memcpy(piece, bytes, length);
		memcpy(expected, p->bytes, length);
		if (let_in[i].partial) /* it goes on finished */
			seal_transport(expected, length, start, protocol);
		if (p->version == 4 && p->dont_fragment) { /* such an identification means nothing (RFC 6864) */
			memcpy(piece + 4, p->bytes + 4, 2);
			memcpy(piece + 10, p->bytes + 10, 2);
		}
		if (same_packet(piece, expected, length, start, protocol))
			break;
	}
	REQUIRE(i < let_in_count);
	REQUIRE(let_in[i].partial || is_sound(&let_in[i].packet));
	place(i);
}

static int refusal(bool merged)
{
	static const int errors[] = {EAGAIN, EIO, ENOBUFS, ENOMEM, EINVAL, EBADFD, EPERM, EINVAL};
	int error = choose(choices, 32) == 31 ? errors[choose(choices, COUNT(errors))] : 0;

	if (error == EBADFD)
		gone_error = -error;
	/* A super-packet that is refused so comes again packet by packet. */
	refused += error && !(merged && error == EINVAL);
	return error;
}

static ssize_t fuzz_write_frame(const uint8_t *frame, size_t length)
{
	static uint8_t piece[SUPER_ROOM];
	const uint8_t *bytes = frame + sizeof(struct virtio_net_hdr);
	size_t len = length - sizeof(struct virtio_net_hdr), count;
	struct virtio_net_hdr header;
	uint8_t protocol;
	int error;

	memcpy(&header, frame, sizeof(header));
	error = refusal(header.gso_type != VIRTIO_NET_HDR_GSO_NONE);
	if (error)
		return fake_fail(error);
	if (take_same(bytes, len, &header))
		return (ssize_t)length;
	if (header.gso_type == VIRTIO_NET_HDR_GSO_NONE) {
		REQUIRE(header.flags == 0);
		take_segment(bytes, len);
		return (ssize_t)length;
	}
	protocol = header.csum_offset == 16 ? TCP : UDP;
	count = cut_count(len, &header, cut_headers(bytes, header.csum_start, protocol));
	REQUIRE(count > 1 && count <= COALESCE_SEGMENTS && len <= 65535);
	for (size_t i = 0; i < count; i++)
		take_joined(piece, cut(bytes, len, &header, protocol, i, piece), header.csum_start, protocol);
	return (ssize_t)length;
}

static ssize_t fuzz_writev(int fd, const struct iovec *iov, int count)
{
	static uint8_t frame[1 << 17];

	REQUIRE(fd == 3 && count > 0);
	return fuzz_write_frame(frame, fake_gather(iov, (size_t)count, frame, sizeof(frame)));
}

static ssize_t fuzz_write(int fd, const void *buffer, size_t bytes)
{
	REQUIRE(fd == 3);
	return fuzz_write_frame(buffer, bytes);
}

/* ---- the run ---- */

static void check_batch_order(void)
{
	for (uint32_t i = first_of_batch; i < let_in_count; i++)
		for (uint32_t j = i + 1; j < let_in_count && j < i + 200; j++)
			if (let_in[j].place < let_in[i].place && let_in[i].place != UINT32_MAX)
				REQUIRE(!related(&let_in[i].packet, &let_in[j].packet));
}

static void check_law(void)
{
	uint64_t values[STAT_COUNT];

	for (uint32_t i = 0; i < STAT_COUNT; i++)
		values[i] = stat((enum stat_id)i);
	REQUIRE(law_holds(values, UDPB_RX, 0));
	REQUIRE(stat(STAT_rx_received) == datagrams);
	/* Pieces of two equal super-packets of which one was refused cannot be told apart: then neither looks whole. */
	REQUIRE(stat(STAT_rx_delivered) == written ||
		(refused && stat(STAT_rx_super_packets) > 1 && stat(STAT_rx_delivered) > written));
	REQUIRE(stat(STAT_rx_drop_udp_super_packet) == undivided);
	REQUIRE(stat(STAT_rx_bytes) == written_bytes || stat(STAT_rx_delivered) > written);
}

static void run_batch(void)
{
	uint32_t missing = 0;
	uint64_t refused_before = refused;
	int result;

	gone_error = 0;
	first_of_batch = let_in_count;
	result = receive_batch(&bench.receive, bench.rig.table, bench.rig.now_ns);
	REQUIRE(result == gone_error || (!gone_error && result >= 0));
	for (uint32_t i = first_of_batch; i < let_in_count; i++)
		missing += let_in[i].place == UINT32_MAX;
	REQUIRE(missing == 0 || refused > refused_before);
	if (refused == refused_before) /* of two equal packets nobody can tell which one was refused */
		check_batch_order();
	check_law();
	bench.rig.now_ns += MS_NS(1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t *arena;
	struct choices c = {.at = data, .end = data + size};
	struct udpb_config config;

	choices = &c;
	config = rig_config((uint32_t[]){UDPB_SOURCE_SUBNET, UDPB_SOURCE_PEER, UDPB_SOURCE_OFF,
					 UDPB_SOURCE_SUBNET}[choose(&c, 4)]);
	arena = arena ? arena : malloc(RECEIVE_ARENA_BYTES); /* once: most of an execution's time would be this */
	rig_open(&bench.rig);
	receive_init(&bench.receive, &bench.rig.tun, &bench.rig.udp, &bench.rig.stats, &config, arena);
	bench.rig.udp.recvmmsg = fuzz_recvmmsg;
	bench.rig.tun.writev = fuzz_writev;
	bench.rig.tun.write = fuzz_write;
	bench.rig.tun.offloads = (uint32_t[]){UDPB_OFFLOAD_TCP_COALESCE | UDPB_OFFLOAD_UDP_COALESCE,
					      UDPB_OFFLOAD_TCP_COALESCE, UDPB_OFFLOAD_UDP_COALESCE, 0}[choose(&c, 4)];
	flows_begin(&flows);
	bench.rig.tun.mtu = (uint32_t[]){1472, 576, 128, 65535}[choose(&c, 4)];
	let_in_count = datagrams = written = undivided = 0;
	written_bytes = refused = 0;
	memset(of_peer, 0, sizeof(of_peer));
	while (!chosen_all(&c) && datagrams + 1700 < DATAGRAMS_ROOM)
		run_batch();
	for (uint32_t n = 2; n < 4; n++)
		REQUIRE(atomic_load(&rig_peer(&bench.rig, n)->rx_packets) == of_peer[n]);
	while (let_in_count > 0)
		free((void *)(uintptr_t)let_in[--let_in_count].packet.bytes);
	rig_close(&bench.rig);
	REQUIRE(check_failed == 0);
	return 0;
}
