/* icmp: the ICMP and ICMPv6 errors that a packet may be answered with.
 *
 * Owns the rules of when an error may be sent and the bytes of one. Pure: no fd, no allocation, no clock. It must not
 * know routes, limits or why a packet is not sent on.
 */
#ifndef UDPB_ICMP_H
#define UDPB_ICMP_H

#include "packet.h"

#define PACKET_ICMP_MAX_BYTES 576   /* RFC 1812, 4.3.2.3: an ICMP error is no longer than this */
#define PACKET_ICMP6_MAX_BYTES 1280 /* RFC 4443, 2.4 (c): nor an ICMPv6 error than IPv6's minimum MTU */

/* Whether an error may be sent about this packet at all. IPv4 (RFC 1122, 3.2.2; RFC 1812, 4.3.2.7): not about an ICMP
 * error or an ICMP of unknown type, not about a fragment other than the first, not when its source or destination can be
 * no host's (packet_is_no_host). IPv6 (RFC 4443, 2.4 (e)): the same, an ICMPv6 redirect counting as an error; and not
 * when its extension headers do not show what it carries. */
bool packet_may_answer(const struct packet *about);

/* The same for "packet too big", which may also be about an IPv6 packet to a multicast address. */
bool packet_may_answer_too_big(const struct packet *about);

#define PACKET_ICMP_UNREACHABLE 3
#define PACKET_ICMP_HOST_UNREACHABLE 1
#define PACKET_ICMP_FRAGMENTATION_NEEDED 4

/* Builds an ICMP destination-unreachable error (RFC 792; next-hop MTU of RFC 1191 in code 4, else 0) from `source_be`
 * to the source of `about`, an IPv4 packet, quoting as much of it as fits PACKET_ICMP_MAX_BYTES. TTL 64, DF clear, TOS
 * 0xc0 as Linux sends it. `out` holds at least PACKET_ICMP_MAX_BYTES and does not overlap `about`. Returns its length
 * in bytes. */
size_t packet_icmp_unreachable(const struct packet *about, uint8_t code, uint16_t next_hop_mtu, uint32_t source_be,
			       uint8_t *out);

#define PACKET_ICMP6_UNREACHABLE 1
#define PACKET_ICMP6_ADDRESS_UNREACHABLE 3 /* its code */
#define PACKET_ICMP6_TOO_BIG 2

/* Builds an ICMPv6 error (RFC 4443, 3) of this type and code from the address `source16` to the source of `about`, an
 * IPv6 packet, quoting as much of it as fits PACKET_ICMP6_MAX_BYTES. `mtu` goes into a packet-too-big, which must not
 * say less than 1280 (RFC 8200, 5); other types have 0 there. Hop limit 64. `out` holds at least PACKET_ICMP6_MAX_BYTES
 * and does not overlap `about`. Returns its length in bytes. */
size_t packet_icmp6_error(const struct packet *about, uint8_t type, uint8_t code, uint32_t mtu, const uint8_t *source16,
			  uint8_t *out);

#endif
