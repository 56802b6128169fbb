/* inner: inner packets to measure with: an IPv4 super-packet over TCP or UDP as a TUN device hands it over.
 *
 * Owns the bytes of one. Must not know what is measured.
 */
#ifndef BENCH_INNER_H
#define BENCH_INNER_H

#include <arpa/inet.h>
#include <linux/tcp.h>
#include <linux/udp.h>
#include <netinet/ip.h>
#include <string.h>

#include "checksum.h"
#include "packet.h"
#include "virtio.h"

#define INNER_TCP_HEADERS 52 /* 20 + 20 and timestamps */
#define INNER_UDP_HEADERS 28

struct inner {
	uint8_t bytes[PACKET_MAX_BYTES];
	uint32_t length;
	struct virtio_net_hdr header;
};

/* Fills in a super-packet of `count` segments of `payload` bytes each, checksum partial as the kernel leaves it. */
static inline void inner_make(struct inner *p, uint8_t protocol, uint16_t count, uint16_t payload, uint16_t flow)
{
	uint16_t headers = protocol == IPPROTO_TCP ? INNER_TCP_HEADERS : INNER_UDP_HEADERS;
	uint32_t length = headers + (uint32_t)count * payload;
	uint16_t sum;
	struct iphdr ip = { .version = 4, .ihl = 5, .tot_len = htons((uint16_t)length), .id = htons(1), .frag_off = htons(0x4000),
			    .ttl = 64, .protocol = protocol, .saddr = htonl(0x0a050102), .daddr = htonl(0x0a050202) };

	for (uint32_t i = 0; i < length; i++)
		p->bytes[i] = (uint8_t)(i * 157 + (i >> 8));
	ip.check = checksum_finish(checksum_add(0, &ip, sizeof(ip)));
	memcpy(p->bytes, &ip, sizeof(ip));
	sum = checksum_fold(checksum_pseudo(&ip.saddr, 8, protocol, length - 20));
	p->header = (struct virtio_net_hdr){ .flags = VIRTIO_NET_HDR_F_NEEDS_CSUM, .hdr_len = headers, .csum_start = 20 };
	if (protocol == IPPROTO_TCP) {
		struct tcphdr tcp = { .source = htons((uint16_t)(40000 + flow)), .dest = htons(5201), .seq = htonl(1000), .doff = 8,
				      .ack = 1, .window = htons(500), .check = sum };
		static const uint8_t options[12] = { 1, 1, 8, 10, 0, 0, 1, 0, 0, 0, 2, 0 };

		memcpy(p->bytes + 20, &tcp, sizeof(tcp));
		memcpy(p->bytes + 40, options, sizeof(options));
		p->header.csum_offset = 16;
	} else {
		struct udphdr udp = { .source = htons((uint16_t)(40000 + flow)), .dest = htons(5201),
				      .len = htons((uint16_t)(length - 20)), .check = sum };

		memcpy(p->bytes + 20, &udp, sizeof(udp));
		p->header.csum_offset = 6;
	}
	if (count > 1) {
		p->header.gso_type = protocol == IPPROTO_TCP ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_UDP_L4;
		p->header.gso_size = payload;
	}
	p->length = length;
}

#endif
