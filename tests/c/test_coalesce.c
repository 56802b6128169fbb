/* test_coalesce: what merges and what does not, as a table of pairs; the limits; what is left untouched.
 *
 * The rules are the kernel's (tcp_gro_receive, inet_gro_receive, udp_gro_receive). Each line takes a packet `a`, the one
 * that follows it, `b`, and changes something. merged.h judges whatever comes out.
 */
#include "merged.h"

static uint8_t stream[70000];
static struct batch batch;

enum { T4 = 1, T6 = 2, U4 = 4, U6 = 8, T = T4 | T6, U = U4 | U6, V4 = T4 | U4, V6 = T6 | U6, ALL = T | U };

static struct shape kind(int number)
{
	struct shape shape = number < 2 ? plain_tcp(number % 2 ? 6 : 4) : plain_udp(number % 2 ? 6 : 4);

	shape.payload = stream;
	shape.payload_bytes = 1000;
	return shape;
}

static struct shape next(struct shape shape)
{
	shape.id++;
	shape.sequence += (uint32_t)shape.payload_bytes;
	shape.payload += shape.payload_bytes;
	return shape;
}

static void check_pair(const uint8_t *one, size_t one_bytes, const uint8_t *two, size_t two_bytes, bool merges, int number,
		       const char *what)
{
	uint16_t groups;

	batch_begin(&batch, ALL_KINDS);
	CHECK(batch_add(&batch, one, one_bytes) && batch_add(&batch, two, two_bytes));
	groups = batch_check(&batch);
	if (!CHECK(groups == (merges ? 1 : 2)))
		printf("kind %d: %s\n", number, what);
	batch_end(&batch);
}

/* A line of the table: `change` is done to `a` and `b`. */
#define PAIR(kinds, merges, change)                                                                                    \
	do {                                                                                                           \
		for (int k_ = 0; k_ < 4; k_++) {                                                                       \
			static uint8_t one_[SUPER_ROOM], two_[SUPER_ROOM];                                             \
			struct shape a = kind(k_), b = next(a);                                                        \
			size_t one_bytes_, two_bytes_;                                                                 \
			if (!((kinds) >> k_ & 1))                                                                      \
				continue;                                                                              \
			change;                                                                                        \
			one_bytes_ = shape_make(&a, one_);                                                             \
			two_bytes_ = shape_make(&b, two_);                                                             \
			check_pair(one_, one_bytes_, two_, two_bytes_, merges, k_, #change);                           \
		}                                                                                                      \
	} while (0)
#define MERGES(kinds, change) PAIR(kinds, true, change)
#define REFUSES(kinds, change) PAIR(kinds, false, change)

/* The same with packets that are made already: `one` and `two` are their bytes, `at` where the transport header is. */
#define BYTES(kinds, merges, change)                                                                                   \
	do {                                                                                                           \
		for (int k_ = 0; k_ < 4; k_++) {                                                                       \
			static uint8_t one[SUPER_ROOM], two[SUPER_ROOM];                                               \
			struct shape a_ = kind(k_), b_ = next(a_);                                                     \
			size_t len = shape_make(&a_, one), at = ip_bytes(&a_);                                         \
			if (!((kinds) >> k_ & 1))                                                                      \
				continue;                                                                              \
			shape_make(&b_, two);                                                                          \
			(void)at;                                                                                      \
			change;                                                                                        \
			check_pair(one, len, two, len, merges, k_, #change);                                           \
		}                                                                                                      \
	} while (0)

static void options(struct shape *shape, uint8_t fill)
{
	memcpy(shape->tcp_options, "\1\1\x08\x0a", 4);
	memset(shape->tcp_options + 4, fill, 8);
	shape->tcp_option_bytes = 12;
}

static void ip_options(struct shape *shape)
{
	bool v6 = shape->version == 6;

	memcpy(shape->ip_options, v6 ? "\0\0\1\4\0\0\0\0" : "\1\1\1\0\1\1\1\0", 8);
	shape->ip_options[0] = v6 ? shape->protocol : 1;
	shape->ip_option_bytes = 8;
}

static void test_merges(void)
{
	MERGES(ALL, );
	MERGES(ALL, b.payload_bytes = 999);
	MERGES(ALL, b.payload_bytes = 1);
	MERGES(ALL, (a.payload_bytes = b.payload_bytes = 1, b.sequence = a.sequence + 1));
	MERGES(ALL, (a.tos = b.tos = 0xbb));
	MERGES(ALL, (a.ttl = b.ttl = 0));
	MERGES(ALL, (a.ttl = b.ttl = 1));
	MERGES(T, b.flags |= PSH);
	MERGES(T, (a.flags |= ECE, b.flags |= ECE));
	MERGES(T, (a.flags |= ECE, b.flags |= ECE | PSH));
	MERGES(T, (a.reserved = b.reserved = 0xf));
	MERGES(T, (a.urgent = b.urgent = 9)); /* without the flag it means nothing, and it is kept */
	MERGES(T, (a.window = b.window = 0));
	MERGES(T, (a.sequence = 0U - 1000, b.sequence = 0));
	MERGES(T, (a.sequence = 0U - 1, b.sequence = 999));
	MERGES(T, (options(&a, 7), options(&b, 7)));
	MERGES(V4, (a.fragment = b.fragment = 0));
	MERGES(V4, (a.fragment = b.fragment = 0, a.id = 65535, b.id = 0));
	MERGES(V4, b.id = a.id); /* with DF: none, all the same, or any */
	MERGES(V4, (a.id = b.id = 0));
	MERGES(V4, b.id = 4711);
	MERGES(V4, (a.fragment |= 0x8000, b.fragment |= 0x8000)); /* the reserved bit */
	MERGES(V6, (a.flow_label = b.flow_label = 0));
	MERGES(V6, (a.flow_label = b.flow_label = 0xfffff));
	MERGES(ALL, (a.payload_bytes = b.payload_bytes = 32000, b.sequence = a.sequence + 32000));
}

static void test_refuses_tcp(void)
{
	REFUSES(T, b.sequence++);
	REFUSES(T, b.sequence--);
	REFUSES(T, b.sequence += 1000);
	REFUSES(T, b = a); /* a retransmission */
	REFUSES(T, (b.sequence = a.sequence - 1000)); /* the one before */
	REFUSES(T, b.acknowledged++);
	REFUSES(T, b.acknowledged--);
	REFUSES(T, b.window++);
	REFUSES(T, b.window = 0);
	REFUSES(T, b.urgent++);
	REFUSES(T, b.reserved ^= 1);
	REFUSES(T, b.reserved ^= 8);
	REFUSES(T, a.flags |= PSH);
	REFUSES(T, (a.flags |= PSH, b.flags |= PSH));
	REFUSES(T, a.flags |= ECE);
	REFUSES(T, b.flags |= ECE);
	REFUSES(T, b.flags |= CWR);
	REFUSES(T, a.flags |= CWR);
	REFUSES(T, (a.flags |= CWR, b.flags |= CWR));
	for (uint8_t bad = FIN; bad; bad = bad == FIN ? SYN : bad == SYN ? RST : bad == RST ? URG : 0) {
		REFUSES(T, a.flags |= bad);
		REFUSES(T, b.flags |= bad);
		REFUSES(T, (a.flags |= bad, b.flags |= bad));
	}
	REFUSES(T, a.flags = 0);
	REFUSES(T, b.flags = 0);
	REFUSES(T, a.flags = b.flags = 0);
	REFUSES(T, a.flags = b.flags = PSH);
	REFUSES(T, options(&a, 7));
	REFUSES(T, options(&b, 7));
	REFUSES(T, (options(&a, 7), options(&b, 8))); /* the clock has ticked */
	REFUSES(T, (options(&a, 7), options(&b, 7), b.tcp_options[1] = 0));
	REFUSES(T, (options(&a, 7), options(&b, 7), b.tcp_option_bytes = 16));
	REFUSES(T, (a.payload_bytes = 0, b.sequence = a.sequence)); /* an acknowledgement alone */
	REFUSES(T, b.payload_bytes = 0);
	REFUSES(T, (a.payload_bytes = b.payload_bytes = 0, b = a)); /* two of them */
}

static void test_refuses_any(void)
{
	REFUSES(ALL, b.payload_bytes = 1001);
	REFUSES(ALL, (a.payload_bytes = 1, b.sequence = a.sequence + 1));
	REFUSES(ALL, b.tos ^= 4);
	REFUSES(ALL, b.tos ^= 3); /* congestion experienced is never spread over others */
	REFUSES(ALL, a.tos ^= 1);
	REFUSES(ALL, b.ttl--);
	REFUSES(ALL, b.host++);
	REFUSES(ALL, b.peer++);
	REFUSES(ALL, b.source_port++);
	REFUSES(ALL, b.destination_port++);
	REFUSES(ALL, (b.source_port = a.destination_port, b.destination_port = a.source_port));
	REFUSES(ALL, b.protocol = a.protocol == TCP ? UDP : TCP);
	REFUSES(ALL, b.version = a.version == 4 ? 6 : 4);
	REFUSES(ALL, ip_options(&a));
	REFUSES(ALL, ip_options(&b));
	REFUSES(ALL, (ip_options(&a), ip_options(&b)));
	REFUSES(V4, b.fragment = 0);
	REFUSES(V4, a.fragment = 0);
	REFUSES(V4, b.fragment |= 0x8000);
	REFUSES(V4, (a.fragment = b.fragment = 0, b.id = a.id));
	REFUSES(V4, (a.fragment = b.fragment = 0, b.id = (uint16_t)(a.id + 2)));
	REFUSES(V4, (a.fragment = b.fragment = 0, b.id = (uint16_t)(a.id - 1)));
	REFUSES(V4, (a.fragment = b.fragment = 0, b.id = 0));
	REFUSES(V4, a.fragment = MF);
	REFUSES(V4, b.fragment = MF);
	REFUSES(V4, (a.fragment = b.fragment = MF));
	REFUSES(V4, b.fragment = 125);
	REFUSES(V4, (a.fragment = MF, b.fragment = 125));
	REFUSES(V4, (a.fragment = MF | DF, b.fragment = MF | DF));
	REFUSES(V6, b.flow_label ^= 1);
	REFUSES(V6, b.flow_label ^= 0x80000);
	REFUSES(U, b.payload_bytes = 0);
	REFUSES(U, a.payload_bytes = 0);
}

/* Changes two payload bytes so that the UDP checksum is zero, which is sent as 0xffff. */
static void zero_sum(uint8_t *bytes, size_t len, size_t at)
{
	put_16(bytes + at + 10, 0);
	put_16(bytes + at + 6, 0);
	put_16(bytes + at + 10, 0xffff - sum_16(pseudo_sum(bytes, len, at, UDP), bytes + at, len - at));
	seal_transport(bytes, len, at, UDP);
	CHECK(get_16(bytes + at + 6) == 0xffff);
}

static void test_refuses_bytes(void)
{
	BYTES(ALL, true, );
	BYTES(ALL, false, two[len - 1] ^= 1);
	BYTES(ALL, false, one[len - 1] ^= 1);
	BYTES(ALL, false, (one[len - 1] ^= 1, two[len - 1] ^= 1));
	BYTES(T, false, two[at + 17] ^= 1);
	BYTES(U, false, two[at + 7] ^= 1);
	BYTES(T, false, put_16(two + at + 16, 0));
	BYTES(U, false, put_16(two + at + 6, 0)); /* none at all */
	BYTES(U, false, put_16(one + at + 6, 0));
	BYTES(U, false, (put_16(one + at + 6, 0), put_16(two + at + 6, 0)));
	/* A length that is not the packet's, under a checksum that is right. */
	BYTES(U, false, (put_16(two + at + 4, (uint32_t)(len - at - 1)), seal_transport(two, len, at, UDP)));
	BYTES(U, false, (put_16(two + at + 4, 8), seal_transport(two, len, at, UDP)));
	BYTES(U, false, (put_16(two + at + 4, 7), seal_transport(two, len, at, UDP)));
	BYTES(U, false, (put_16(two + at + 4, 65535), seal_transport(two, len, at, UDP)));
	BYTES(U, false, (put_16(one + at + 4, 8), put_16(two + at + 4, 8), seal_transport(one, len, at, UDP),
			 seal_transport(two, len, at, UDP)));
	/* None at all, where the right one is written 0xffff: the sum agrees, but nobody has vouched for it. */
	BYTES(U, true, zero_sum(two, len, at));
	BYTES(U, false, (zero_sum(two, len, at), put_16(two + at + 6, 0)));
	/* A header length that lies, under a checksum that is right. */
	BYTES(T, false, (two[at + 12] = 0x40, seal_transport(two, len, at, TCP)));
	BYTES(T, false, (two[at + 12] = 0, seal_transport(two, len, at, TCP)));
	BYTES(T, false, (two[at + 12] = 0x60, seal_transport(two, len, at, TCP)));
	BYTES(T, false, (one[at + 12] = 0, two[at + 12] = 0, seal_transport(one, len, at, TCP),
			 seal_transport(two, len, at, TCP)));
}

/* ---- more than two ---- */

/* A run of `count` packets of a kind; returns the groups. */
static uint16_t merge_run(struct shape shape, size_t count)
{
	static uint8_t bytes[SUPER_ROOM];
	uint16_t groups;

	batch_begin(&batch, ALL_KINDS);
	for (size_t i = 0; i < count; i++) {
		size_t len = shape_make(&shape, bytes);

		CHECK(batch_add(&batch, bytes, len));
		shape = next(shape);
		shape.payload = stream + random_below(1000);
	}
	groups = batch_check(&batch);
	batch_end(&batch);
	return groups;
}

static size_t segments_of(uint16_t group)
{
	return batch.coalesce.group[group].segments;
}

static void test_limits(void)
{
	for (int k = 0; k < 4; k++) {
		struct shape shape = kind(k);
		size_t room = COALESCE_BYTES - headers_bytes(&shape);

		shape.payload_bytes = 10;
		CHECK(merge_run(shape, 64) == 1);
		CHECK(merge_run(shape, 65) == 2 && segments_of(0) == 64 && segments_of(1) == 1);
		CHECK(merge_run(shape, COALESCE_PACKETS) == 8);
		shape.payload_bytes = room / 32;
		CHECK(merge_run(shape, 33) == 2 && segments_of(0) == 32);
		shape.payload_bytes = room / 2; /* exactly full, or one less */
		CHECK(merge_run(shape, 4) == 2);
		shape.payload_bytes = room / 2 + 1;
		CHECK(merge_run(shape, 4) == 4);
		shape.payload_bytes = room;
		CHECK(merge_run(shape, 2) == 2 && batch.coalesce.group[0].payload_bytes == room);
		shape.payload_bytes = room + 1; /* too long to be a super-packet, let alone part of one */
		CHECK(merge_run(shape, 2) == 2 && batch.coalesce.group[0].payload_bytes == 0);
	}
}

/* What ends a group ends it for good: the third packet begins a new one, which may grow. */
static void test_closed(void)
{
	static uint8_t bytes[SUPER_ROOM];

	for (int k = 0; k < 4; k++) {
		for (int how = 0; how < 4; how++) {
			struct shape shape = kind(k);
			bool ends = how > 0 && (how == 1 || k < 2 || how == 3);

			batch_begin(&batch, ALL_KINDS);
			for (int i = 0; i < 4; i++) {
				struct shape it = shape;
				size_t len;

				if (how == 1 && i == 1)
					it.payload_bytes = 500; /* shorter */
				if (how == 2 && i == 1)
					it.flags |= PSH;
				len = shape_make(&it, bytes);
				if (how == 3 && i == 1)
					bytes[len - 1] ^= 1;
				CHECK(batch_add(&batch, bytes, len));
				shape = next(it);
				shape.flags = ACK;
				shape.payload_bytes = 1000;
			}
			CHECK(batch_check(&batch) == (how == 3 ? 3 : ends ? 2 : 1));
			batch_end(&batch);
		}
	}
}

/* ICMP, an unknown protocol or a fragment between two packets: nobody knows whose it is, so it stands between them. */
static void test_strangers(void)
{
	static uint8_t bytes[SUPER_ROOM];

	for (int k = 0; k < 4; k++) {
		for (int stranger = 0; stranger < 5; stranger++) {
			struct shape a = kind(k), b = next(a), between = a;
			bool other = stranger == 4, v4 = a.version == 4;
			size_t len;

			batch_begin(&batch, ALL_KINDS);
			CHECK(batch_add(&batch, bytes, shape_make(&a, bytes)));
			between.peer = (uint8_t)(between.peer + other);
			len = shape_make(&between, bytes);
			if (v4)
				bytes[9] = (uint8_t[]){1, 253, 17, TCP, 1}[stranger];
			else
				bytes[6] = (uint8_t[]){58, 253, 44, 0, 58}[stranger];
			if (v4 && (stranger == 2 || stranger == 3))
				put_16(bytes + 6, stranger == 2 ? 100 : MF);
			if (v4)
				seal(bytes);
			CHECK(batch_add(&batch, bytes, len));
			CHECK(batch_add(&batch, bytes, shape_make(&b, bytes)));
			CHECK(batch_check(&batch) == (other ? 2 : 3));
			batch_end(&batch);
		}
	}
}

/* A kind that the kernel has refused is written packet by packet, and keeps its order. */
static void test_kinds_off(void)
{
	static uint8_t bytes[SUPER_ROOM];

	for (uint32_t kinds = 0; kinds < 4; kinds++) {
		struct shape shape[4] = { kind(0), kind(1), kind(2), kind(3) };

		batch_begin(&batch, kinds);
		for (int i = 0; i < 40; i++) {
			CHECK(batch_add(&batch, bytes, shape_make(&shape[i % 4], bytes)));
			shape[i % 4] = next(shape[i % 4]);
		}
		CHECK(batch_check(&batch) == (kinds & COALESCE_TCP ? 2 : 20) + (kinds & COALESCE_UDP ? 2 : 20));
		batch_end(&batch);
	}
}

/* Transport headers that are cut off, in packets that are whole as far as IP is concerned. */
static void test_short(void)
{
	for (size_t payload = 0; payload < 40; payload++) {
		for (int k = 0; k < 4; k++) {
			uint8_t protocol = k < 2 ? TCP : UDP, *bytes;
			struct ipv4_spec spec = { .protocol = protocol, .payload_bytes = payload };
			size_t len;

			batch_begin(&batch, ALL_KINDS);
			for (int i = 0; i < 2; i++) {
				bytes = k % 2 ? make_ipv6(protocol, payload, &len) : make_ipv4(spec, &len);
				CHECK(batch_add(&batch, bytes, len));
				free(bytes);
			}
			CHECK(batch_check(&batch) == 2);
			batch_end(&batch);
		}
	}
}

int main(void)
{
	fill_random(stream, sizeof(stream));
	test_merges();
	test_refuses_tcp();
	test_refuses_any();
	test_refuses_bytes();
	test_limits();
	test_closed();
	test_strangers();
	test_kinds_off();
	test_short();
	return check_done();
}
