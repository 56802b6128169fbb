/* stats: the one list of counters. The C names, the metrics' HELP, `status`, the docs and the tests all come from here.
 *
 * X(name, direction, kind, meaning, cure)
 *   direction  TX: flannel0 to the network; RX: the network to flannel0
 *   kind       RECEIVED, DELIVERED, DROPPED: inner packets, the terms of the law
 *                received = delivered + dropped + in flight, in each direction
 *              NOTE: anything else worth counting; stands outside the law
 *   cure       what an operator does about it; empty where nothing is wrong
 */
#ifndef UDPB_STATS_H
#define UDPB_STATS_H

#include <stdatomic.h>
#include <stdint.h>

#include "udpb.h"

#define UDPB_STATS(X)                                                                                                  \
	X(tx_received, TX, RECEIVED, "packets read from flannel0", "")                                                 \
	X(tx_delivered, TX, DELIVERED, "packets handed to the kernel as datagrams for a peer", "")                     \
	X(rx_received, RX, RECEIVED, "datagrams read from the UDP socket", "")                                         \
	X(rx_delivered, RX, DELIVERED, "packets handed to the kernel through flannel0", "")                            \
	X(tx_drop_short, TX, DROPPED, "packet from flannel0 shorter than its IP header",                               \
	  "a program writes broken packets to flannel0 (raw socket or packet socket): find and stop it")               \
	X(tx_drop_version, TX, DROPPED, "packet from flannel0 is neither IPv4 nor IPv6",                               \
	  "a program writes broken packets to flannel0 (raw socket or packet socket): find and stop it")               \
	X(tx_drop_header_length, TX, DROPPED, "IPv4 header length of a packet from flannel0 is impossible",            \
	  "a program writes broken packets to flannel0 (raw socket or packet socket): find and stop it")               \
	X(tx_drop_length, TX, DROPPED, "total length of a packet from flannel0 is not its size",                       \
	  "a program writes broken packets to flannel0 (raw socket or packet socket): find and stop it")               \
	X(tx_drop_header_checksum, TX, DROPPED, "IPv4 header checksum of a packet from flannel0 is wrong",             \
	  "a program writes broken packets to flannel0 (raw socket or packet socket): find and stop it")               \
	X(tx_drop_offload, TX, DROPPED, "virtio header of a packet from flannel0 asks for what was not negotiated",    \
	  "restart the daemon so that it negotiates flannel0's offloads again; report it if it stays")                 \
	X(tx_drop_no_route, TX, DROPPED, "no peer owns the destination",                                               \
	  "look for the destination in `udp-backend status -o wide`: its node is missing in the registry, or the "     \
	  "sender uses an address that was given back")                                                                \
	X(tx_drop_multicast, TX, DROPPED, "multicast or broadcast, which the overlay does not carry",                  \
	  "none needed: the kernel reports its own multicast groups on every device (IGMP, MLD)")                      \
	X(tx_drop_too_big, TX, DROPPED, "packet with DF set is longer than the path to its peer allows",               \
	  "normal while senders learn the path's MTU; if it grows for ever, ICMP to the senders is filtered: "         \
	  "set Backend.MTU to the path's MTU minus 28 on every node")                                                  \
	X(tx_drop_unreachable, TX, DROPPED, "the host has no way to the peer's public IP",                             \
	  "check link and routes: `ip route get` the peer's public IP")                                                \
	X(tx_drop_refused, TX, DROPPED, "the host's firewall or policy refused a datagram to a peer (EPERM)",          \
	  "allow UDP to the peers on the backend port in the OUTPUT chain")                                            \
	X(tx_drop_socket_full, TX, DROPPED, "the UDP socket took no more for too long",                                \
	  "the underlay is slower than its senders: look at its qdisc, `tc -s qdisc show`")                            \
	X(tx_drop_slow_peer, TX, DROPPED, "a peer takes less than it is sent, and its share of what may wait is full", \
	  "`status` names the peer: look at the way to it, `tc -s qdisc show` and its link, and at who sends so much") \
	X(tx_drop_no_buffer, TX, DROPPED, "the kernel had no memory for a datagram",                                   \
	  "the host is short of memory: look at `free` and /proc/net/sockstat")                                        \
	X(tx_drop_send_error, TX, DROPPED, "the kernel refused a datagram for another reason",                         \
	  "`status` shows the last error; the underlay's address may have gone: check --iface")                        \
	X(tx_drop_closed, TX, DROPPED, "packets still unsent when the queue was closed",                               \
	  "normal when the daemon stops or flannel0 is made again")                                                    \
	X(rx_drop_short, RX, DROPPED, "datagram is shorter than an IP header",                                         \
	  "something else sends to our port: a health checker, a scanner or a peer with another encapsulation")        \
	X(rx_drop_version, RX, DROPPED, "datagram holds neither IPv4 nor IPv6",                                        \
	  "something else sends to our port: a health checker, a scanner or a peer with another encapsulation")        \
	X(rx_drop_header_length, RX, DROPPED, "IPv4 header length of a received packet is impossible",                 \
	  "a peer or the path to it damages packets: compare the peer's own counters")                                 \
	X(rx_drop_length, RX, DROPPED, "total length of a received packet is not the datagram's",                      \
	  "datagrams are cut on the way or a peer's MTU is larger than ours: compare MTUs in `status`")                \
	X(rx_drop_header_checksum, RX, DROPPED, "IPv4 header checksum of a received packet is wrong",                  \
	  "a peer or the path to it damages packets: compare the peer's own counters")                                 \
	X(rx_drop_unknown_peer, RX, DROPPED, "datagram from an address that is no peer's public IP",                   \
	  "a node behind NAT or with several addresses: set its --public-ip to the address it sends from, or "         \
	  "relax with --source-check=off; a stranger: let the firewall drop it")                                       \
	X(rx_drop_inner_source, RX, DROPPED, "inner source address is not in the sending peer's subnet",               \
	  "the peer sends from an address outside its subnet (its hosts' own addresses, a missing masquerade), or "    \
	  "the registry is not the same on both: compare `status`; relax with --source-check=peer")                    \
	X(rx_drop_own_source, RX, DROPPED, "inner source address is our own: spoofed or looped",                       \
	  "two nodes use one subnet, or the underlay's packets are routed into flannel0: compare `status` on both")    \
	X(rx_drop_martian_source, RX, DROPPED, "inner source address can be no host's (loopback, multicast, ...)",     \
	  "a peer lets out what its kernel should not: look for the sender there")                                     \
	X(rx_drop_ecn, RX, DROPPED, "datagram marked on the way (ECN) holds a packet whose sender does not see marks",         \
	  "a device of the underlay marks congestion on packets that are Not-ECT, or overwrites their TOS: mend it there") \
	X(rx_drop_udp_super_packet, RX, DROPPED, "unfinished UDP packet longer than flannel0's MTU: several datagrams, not told apart", \
	  "compare MTUs in `status`; where they agree, `ethtool -K DEV tx off` on the underlay of the node that sent it") \
	X(rx_drop_tun_down, RX, DROPPED, "flannel0 is down", "`ip link set flannel0 up`")                              \
	X(rx_drop_tun_refused, RX, DROPPED, "the kernel refused a packet written to flannel0",                         \
	  "`status` shows the last error; IPv6 may be switched off on flannel0")                                       \
	X(rx_drop_tun_full, RX, DROPPED, "the kernel had no room for a packet written to flannel0",                    \
	  "the host is short of memory: look at `free`")                                                               \
	X(tx_reads, TX, NOTE, "reads from flannel0: packets and super-packets", "")                                    \
	X(tx_messages, TX, NOTE, "messages sent, each of one or more equal datagrams", "")                             \
	X(tx_datagrams, TX, NOTE, "datagrams sent, fragments counted one by one", "")                                  \
	X(rx_messages, RX, NOTE, "messages received, each of one or more equal datagrams", "")                         \
	X(rx_writes, RX, NOTE, "writes to flannel0: packets and super-packets", "")                                    \
	X(rx_partial_checksum, RX, NOTE, "packets whose checksum a kernel's tunnel left to a card, handed on as such", "")     \
	X(rx_super_packets, RX, NOTE, "super-packets that a kernel's tunnel sent in one datagram", "")                         \
	X(tx_fragmented, TX, NOTE, "packets without DF that were cut to fit the path", "")                             \
	X(tx_bytes, TX, NOTE, "bytes of inner packets sent", "")                                                       \
	X(rx_bytes, RX, NOTE, "bytes of inner packets delivered", "")                                                  \
	X(tx_icmp_unreachable, TX, NOTE, "ICMP host unreachable sent back", "")                                        \
	X(tx_icmp_too_big, TX, NOTE, "ICMP fragmentation needed sent back", "")                                        \
	X(tx_icmp_suppressed, TX, NOTE, "ICMP errors not sent: about an ICMP error, a fragment or multicast", "")      \
	X(tx_icmp_limited, TX, NOTE, "ICMP errors not sent: over the rate limit",                                      \
	  "a scan or a client that ignores errors: find it with `tcpdump -ni flannel0`")                               \
	X(tx_icmp_failed, TX, NOTE, "ICMP errors the kernel refused", "check that flannel0 is up")                     \
	X(tx_path_mtu_learned, TX, NOTE, "times a smaller path MTU to a peer was learned", "")                         \
	X(tx_path_mtu_doubted, TX, NOTE, "times a path MTU below 1280 bytes was said and 1280 believed",               \
	  "packets of up to 1280 outer bytes leave without DF and arrive all the same; `ip route get` the peer's "     \
	  "public IP shows what the kernel believes: where no path is so narrow, somebody forges ICMP")                \
	X(tx_gso_refused, TX, NOTE, "messages of several datagrams the kernel refused; they were sent again in smaller ones",   \
	  "none needed; where it grows, the way out cannot segment UDP: look at `ethtool -k`")                         \
	X(rx_coalesce_refused, RX, NOTE, "super-packets flannel0 refused; they were written again packet by packet",   \
	  "none needed; the kernel has a known defect with them: see `offloads` in `status`")                          \
	X(rx_socket_errors, RX, NOTE, "errors reading the UDP socket", "`status` shows the last error")

enum stat_id {
#define UDPB_STAT_ID(name, direction, kind, meaning, cure) STAT_##name,
	UDPB_STATS(UDPB_STAT_ID)
#undef UDPB_STAT_ID
	STAT_COUNT,
};

/* One queue's counters. Written by the thread that turns the queue and by no other, read by any. */
struct stats {
	_Atomic uint64_t value[STAT_COUNT];
	/* The last errno of a counter that stands for several: tx_drop_send_error, rx_drop_tun_refused, rx_socket_errors. One
	 * word, lest a reader see half of two: seconds of CLOCK_MONOTONIC, then 16 bits each of stat_id and errno; 0 for none. */
	_Atomic uint64_t last_error;
} __attribute__((aligned(64)));

/* A plain add: with one writer no locked instruction is needed. */
static inline void stats_add(struct stats *stats, enum stat_id id, uint64_t n)
{
	uint64_t old = atomic_load_explicit(&stats->value[id], memory_order_relaxed);

	atomic_store_explicit(&stats->value[id], old + n, memory_order_relaxed);
}

static inline uint64_t stats_read(const struct stats *stats, enum stat_id id)
{
	return atomic_load_explicit(&stats->value[id], memory_order_relaxed);
}

static inline void stats_error(struct stats *stats, enum stat_id id, int error, uint64_t n, int64_t now_ns)
{
	stats_add(stats, id, n);
	atomic_store_explicit(&stats->last_error,
			      (uint64_t)(now_ns / 1000000000) << 32 | (uint64_t)id << 16 | ((uint64_t)error & 0xffff),
			      memory_order_relaxed);
}

#endif
