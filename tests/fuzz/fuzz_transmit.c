/* fuzz_transmit: whatever the socket says and whenever the table changes, every packet from flannel0 is sent once, in its
 * place, to the peer that owns it then and with its own ECN, or counted as dropped; its fragments are its own and without
 * a gap.
 *
 * The input's bytes choose what is read, and what a kernel answers: how many messages it takes, how many datagrams in
 * one, what fits the path to each peer, and errors out of nowhere.
 */
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

#include "../c/transmit_rig.h"
#include "../c/flows.h"

#define SEGMENTS_ROOM 900

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct bench bench;
static struct udp_io second; /* another socket that sends */
static struct choices *choices;

/* What must be sent: segments as packets of their own, in order. Owner 0: nobody. */
static struct {
	uint8_t *bytes;
	size_t length;
	uint32_t n; /* its destination is in this peer's subnet */
} expected[SEGMENTS_ROOM];
static uint32_t expected_count, next_expected, delivered, owner_of[4];
static uint64_t delivered_bytes;

/* The packet that leaves in fragments, to whom and how far. It begins again only for another peer. */
static struct {
	uint32_t index, address_be;
	size_t done_bytes;
	bool may_restart;
} cutting;

static struct {
	uint32_t path_mtu[4]; /* to each peer */
	uint32_t segments_max, counted_bytes;
	bool is_old; /* says EINVAL to segments that do not fit the path */
	bool no_df;  /* the socket sends with DF clear now */
} kernel;

/* ---- what is sent ---- */

static bool is_fragment_of(const uint8_t *fragment, size_t length, uint32_t index)
{
	const uint8_t *whole = expected[index].bytes;
	size_t offset = (get_16(fragment + 6) & 0x1fff) * 8;

	return whole[0] == 0x45 && fragment[0] == 0x45 && !(get_16(whole + 6) & DONT_FRAGMENT) &&
	       !memcmp(whole + 4, fragment + 4, 2) && !memcmp(whole + 12, fragment + 12, 8) && whole[9] == fragment[9] &&
	       offset + length <= expected[index].length && !memcmp(whole + 20 + offset, fragment + 20, length - 20);
}

static bool is_expected(const uint8_t *bytes, size_t length, uint32_t index)
{
	return expected[index].length == length && !memcmp(expected[index].bytes, bytes, length);
}

static void sent_whole(uint32_t index)
{
	next_expected = index + 1;
	delivered++;
	delivered_bytes += expected[index].length;
}

static void sent_fragment(const uint8_t *bytes, size_t length, uint32_t index, uint32_t address_be)
{
	size_t offset = (get_16(bytes + 6) & 0x1fff) * 8;

	if (cutting.index != index || cutting.address_be != address_be || (cutting.may_restart && offset == 0))
		cutting.done_bytes = 0;
	REQUIRE(offset == cutting.done_bytes);
	cutting.index = index;
	cutting.address_be = address_be;
	cutting.may_restart = false;
	cutting.done_bytes += length - 20;
	next_expected = index;
	if (get_16(bytes + 6) & MORE_FRAGMENTS)
		return;
	REQUIRE(20 + cutting.done_bytes == expected[index].length);
	sent_whole(index);
}

static void sent(const uint8_t *bytes, size_t length, const struct sockaddr_in *address)
{
	bool fragment = bytes[0] >> 4 == 4 && (get_16(bytes + 6) & 0x3fff);
	uint32_t index = next_expected;

	while (index < expected_count &&
	       !(fragment ? is_fragment_of(bytes, length, index) : is_expected(bytes, length, index)))
		index++;
	REQUIRE(index < expected_count);
	REQUIRE(address->sin_addr.s_addr == htonl(PEER(owner_of[expected[index].n])));
	if (fragment)
		sent_fragment(bytes, length, index, address->sin_addr.s_addr);
	else
		sent_whole(index);
}

/* ---- the kernel ---- */

static int refusal(const struct sockaddr_in *address, size_t length, size_t segment)
{
	uint32_t mtu = kernel.path_mtu[ntohl(address->sin_addr.s_addr) - PEER(0)];

	if (length > 65535 - 28)
		return EMSGSIZE;
	if (kernel.no_df) { /* only for what would not fit otherwise, and every IPv6 link takes; one datagram a message */
		REQUIRE(!segment && length <= 1280);
		return 0;
	}
	if (!segment)
		return length + 28 > mtu ? EMSGSIZE : 0;
	if (kernel.segments_max == 1)
		return EIO;
	if ((segment < length ? segment : length) + 28 > mtu)
		return kernel.is_old ? EINVAL : EMSGSIZE;
	return length + kernel.counted_bytes > segment * kernel.segments_max ? EINVAL : 0;
}

/* An error that has nothing to do with the message; mostly none. */
static int strike(void)
{
	static const int errors[] = {EAGAIN, EAGAIN, EAGAIN, EINTR, EINVAL, EIO, EMSGSIZE, ENOBUFS, EPERM, ENETUNREACH, EBADF};

	return choose(choices, 8) == 7 ? errors[choose(choices, COUNT(errors))] : 0;
}

static int fuzz_sendmmsg(int fd, struct mmsghdr *messages, unsigned int count, int flags)
{
	static uint8_t bytes[1 << 17];
	unsigned int taken = 0;

	REQUIRE((fd == 4 || fd >= FAKE_BESIDE) && (flags & MSG_DONTWAIT) && count > 0);
	for (; taken < count; taken++) {
		struct msghdr *m = &messages[taken].msg_hdr;
		size_t length = fake_gather(m->msg_iov, m->msg_iovlen, bytes, sizeof(bytes)), at = 0;
		size_t segment = fake_segment_bytes(m);
		int error = strike();

		REQUIRE(fake_source_be(m) == (fd >= FAKE_BESIDE ? htonl(FAKE_SOURCE) : 0));
		if (!error && fake.charged[fake_account(fd)] >= fake_buffer_bytes(fd))
			error = EAGAIN;
		if (!error)
			error = refusal(m->msg_name, length, segment);
		if (error && taken == 0)
			return fake_fail(error);
		if (error)
			break;
		do {
			size_t piece = segment && segment < length - at ? segment : length - at;

			REQUIRE(fake_tos(m) == (tos_of(bytes + at) & PACKET_ECN_MASK)); /* one header for all of them */
			sent(bytes + at, piece, m->msg_name);
			at += piece;
		} while (at < length);
		fake_charge(fd, m->msg_name, length);
	}
	return (int)taken;
}

static int fuzz_probe(const struct udp_io *io, struct msghdr *message)
{
	struct mmsghdr one = {.msg_hdr = *message};
	const struct sockaddr_in *address = message->msg_name;

	REQUIRE(!kernel.no_df && !fake_segment_bytes(message));
	if (fuzz_sendmmsg(io->fd, &one, 1, MSG_DONTWAIT) == 1)
		return 0;
	if (errno != EMSGSIZE || choose(choices, 16) == 15)
		return -errno;
	return (int)kernel.path_mtu[ntohl(address->sin_addr.s_addr) - PEER(0)];
}

static int fuzz_set_discovery(int fd, int how)
{
	REQUIRE((fd == 4 || fd >= FAKE_BESIDE) && kernel.no_df == (how == IP_PMTUDISC_DO));
	kernel.no_df = how == IP_PMTUDISC_DONT;
	return 0;
}

static void change_kernel(void)
{
	static const uint32_t mtus[] = {1500, 1400, 1300, 576, 68, 29, 65535};

	switch (choose(choices, 4)) {
	case 0: kernel.segments_max = (uint32_t[]){128, 64, 64, 1}[choose(choices, 4)]; break;
	case 1: kernel.counted_bytes = choose(choices, 2) * 28; break;
	case 2: kernel.is_old = choose(choices, 2); break;
	default: kernel.path_mtu[2 + choose(choices, 2)] = mtus[choose(choices, COUNT(mtus))];
	}
}

/* Who is slow, what is let go, whether lanes can be opened. */
static void change_pace(void)
{
	uint32_t n = 2 + choose(choices, 2);

	switch (choose(choices, 3)) {
	case 0:
		if (fake_slow(htonl(PEER(n))) < 0)
			fake_make_slow(PEER(n));
		break;
	case 1:
		if (fake_slow(htonl(PEER(n))) >= 0)
			fake_let_go(PEER(n));
		break;
	default: fake.beside_error = choose(choices, 2) ? EMFILE : 0;
	}
}

/* ---- what is read ---- */

static void expect(uint32_t n, const uint8_t *bytes, size_t length)
{
	expected[expected_count].bytes = malloc(length);
	memcpy(expected[expected_count].bytes, bytes, length);
	expected[expected_count].length = length;
	expected[expected_count++].n = n;
}

static uint8_t gso_type_of(bool v6, uint8_t protocol)
{
	if (protocol == UDP)
		return VIRTIO_NET_HDR_GSO_UDP_L4;
	return v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
}

/* A packet to peer 2 or 3, or a super-packet. */
static void feed_any(void)
{
	static const size_t sizes[] = {1, 32, 100, 548, 1372, 1444};
	uint32_t n = 2 + choose(choices, 2), count = choose(choices, 3) ? 1 : 1 + choose(choices, 45); /* up to 65 KB */
	uint8_t protocol = choose(choices, 2) ? TCP : UDP, *packet = bench.packet;
	size_t size = sizes[choose(choices, COUNT(sizes))], payload = size * count - choose(choices, (uint32_t)size);
	bool v6 = n == 2 && protocol == UDP && choose(choices, 4) == 3;
	struct virtio_net_hdr header = {.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM,
					.csum_start = v6 ? 40 : 20,
					.csum_offset = (uint16_t)checksum_offset(protocol)};
	uint8_t from[16], to[16], segment[2000];
	size_t length;

	if (expected_count + count > SEGMENTS_ROOM || fake.tun_in.count == FAKE_ITEMS)
		return;
	rig_ipv6(from, 1, 5);
	rig_ipv6(to, (uint8_t)n, 7);
	length = v6 ? make_udp6(packet, from, to, payload)
		    : make_inner(packet, OURS(5), THEIRS(n, 7), protocol, choose(choices, 2) ? DONT_FRAGMENT : 0, payload);
	if (choose(choices, 4) == 3)
		set_tos(packet, (uint8_t)choose(choices, 256));
	for (size_t at = 0; at < payload; at += size) {
		size_t bytes = make_segment(segment, packet, length, header.csum_start, size, at);

		/* TCP knows two zeros, and segmentation makes the other one. */
		if (count > 1 && protocol == TCP && get_16(segment + 36) == 0xffff)
			put_16(segment + 36, 0);
		expect(n, segment, bytes);
	}
	put_16(packet + header.csum_start + header.csum_offset,
	       0xffff - sum_16(0, packet + header.csum_start, length - header.csum_start));
	if (count > 1) {
		header.gso_type = gso_type_of(v6, protocol);
		header.gso_size = (uint16_t)size;
	}
	feed_with(packet, length, header);
	fake_latest(&fake.tun_in)->packets = (uint32_t)((payload + size - 1) / size);
}

/* The subnets of peers 2 and 3 are theirs, each other's, or nobody's. */
static void change_table(void)
{
	struct rig_route routes[3];
	size_t count = 0;

	for (uint32_t n = 2; n < 4; n++) {
		uint32_t owner = owner_of[n] = (uint32_t[]){n, 2, 3, 0}[choose(choices, 4)];

		if (owner == 0)
			continue;
		routes[count++] = (struct rig_route){THEIRS(n, 0), 24, 4, PEER(owner), RIG_PORT};
		if (n == 2)
			routes[count++] = (struct rig_route){n, 64, 6, PEER(owner), RIG_PORT};
	}
	rig_publish(&bench.rig, routes, count);
	cutting.may_restart = true;
}

/* ---- the run ---- */

static void move(void)
{
	if (transmit_blocked(&bench.transmit))
		bench_resume(&bench);
	else
		(void)bench_batch(&bench);
}

static void act(void)
{
	switch (choose(choices, 9)) {
	case 0: case 1: case 2: feed_any(); break;
	case 8: change_pace(); break;
	case 3: change_kernel(); break;
	case 4: change_table(); break;
	case 5: bench.rig.now_ns += (int64_t[]){1, MS_NS(60), MS_NS(150), SECONDS_NS(4), SECONDS_NS(601)}[choose(choices, 5)]; break;
	default: move();
	}
}

static void begin(void)
{
	bench_open(&bench);
	bench.rig.udp.sendmmsg = fuzz_sendmmsg;
	bench.rig.udp.probe = fuzz_probe;
	bench.rig.udp.set_discovery = fuzz_set_discovery;
	bench.rig.udp.segments_max = UDP_IO_SEGMENTS_MAX;
	fake.buffer_bytes = 256 << 10; /* soon full */
	bench.rig.udp.buffer_bytes = 256 << 10;
	second = bench.rig.udp;
	if (choose(choices, 2))
		REQUIRE(transmit_add_socket(&bench.transmit, &second) == 0);
	kernel.path_mtu[2] = kernel.path_mtu[3] = 1500;
	kernel.segments_max = 128;
	kernel.counted_bytes = 0;
	kernel.is_old = kernel.no_df = false;
	expected_count = next_expected = delivered = 0;
	delivered_bytes = 0;
	cutting.index = UINT32_MAX;
	change_table();
	random_state = 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct choices c = {.at = data, .end = data + size};

	choices = &c;
	begin();
	while (!chosen_all(&c))
		act();
	for (uint32_t i = 0; i < fake.slow_count; i++)
		fake_let_go(ntohl(fake.slow_be[i]));
	fake.slow_count = 0;
	while (transmit_blocked(&bench.transmit) || fake.tun_in.done < fake.tun_in.count)
		move();
	REQUIRE(bench_stat(&bench, STAT_tx_received) == expected_count);
	REQUIRE(bench_stat(&bench, STAT_tx_delivered) == delivered);
	REQUIRE(bench_stat(&bench, STAT_tx_bytes) == delivered_bytes);
	bench_release(&bench);
	while (expected_count > 0)
		free(expected[--expected_count].bytes);
	REQUIRE(check_failed == 0);
	return 0;
}
