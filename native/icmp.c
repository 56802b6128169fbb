/* icmp: see icmp.h.
 *
 * Theory of operation. ICMP errors are answers to a packet that could not be sent on. The rules keep two machines from
 * answering each other's answers, and one packet from raising an answer from many. An error built here is itself never
 * answered, by the same rules. Where it cannot be told whether a rule is broken, nothing is sent.
 *
 * A header is built in a struct of the system's and copied out when it is whole: bytes may have any alignment.
 */
#include "icmp.h"

#include <arpa/inet.h>
#include <netinet/icmp6.h>
#include <netinet/in.h>
#include <netinet/ip.h>
#include <netinet/ip6.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "checksum.h"

#define HOPS 64
#define IPV4_TOS 0xc0 /* internetwork control */

/* Extension headers that <netinet/in.h> does not name (RFC 7401, RFC 5533). */
#define IPPROTO_HIP 139
#define IPPROTO_SHIM6 140

/* ---- when ---- */

/* Whether an ICMP type is a query or its reply, as against an error or something unknown. */
static bool icmp_is_query(uint8_t type)
{
	switch (type) {
	case 0: /* echo reply */
	case 8: /* echo */
	case 9: /* router advertisement */
	case 10: /* router solicitation */
	case 13 ... 18: /* timestamp, information and address mask, with their replies */
		return true;
	default:
		return false;
	}
}

/* RFC 4443, 2.1: types from 128 on are no errors. */
static bool icmp6_is_answerable(uint8_t type)
{
	return (type & ICMP6_INFOMSG_MASK) && type != ND_REDIRECT;
}

static bool may_answer_ipv4(const struct packet *about)
{
	uint16_t fragment;

	if (packet_is_no_host(4, about->source) || packet_is_no_host(4, about->destination))
		return false;
	memcpy(&fragment, about->bytes + offsetof(struct iphdr, frag_off), sizeof(fragment));
	if (ntohs(fragment) & IP_OFFMASK)
		return false;
	if (about->protocol == IPPROTO_ICMP)
		return about->length > about->header_bytes && icmp_is_query(about->bytes[about->header_bytes]);
	return true;
}

static bool is_extension(uint8_t protocol)
{
	switch (protocol) {
	case IPPROTO_HOPOPTS:
	case IPPROTO_ROUTING:
	case IPPROTO_FRAGMENT:
	case IPPROTO_AH:
	case IPPROTO_DSTOPTS:
	case IPPROTO_MH:
	case IPPROTO_HIP:
	case IPPROTO_SHIM6:
		return true;
	default:
		return false;
	}
}

/* The length of the extension header at `at`, of which eight bytes are there; 0 for that of a fragment other than the
 * first, behind which is no header any more. */
static uint32_t extension_bytes(const uint8_t *at, uint8_t protocol)
{
	struct ip6_frag fragment;

	switch (protocol) {
	case IPPROTO_FRAGMENT:
		memcpy(&fragment, at, sizeof(fragment));
		return fragment.ip6f_offlg & IP6F_OFF_MASK ? 0 : sizeof(fragment);
	case IPPROTO_AH:
		return (at[1] + 2U) * 4;
	default:
		return (at[1] + 1U) * 8;
	}
}

/* Where the header behind the extension headers begins, at most at the packet's end, and what it is; 0 when they do not
 * lead there. */
static uint32_t upper_header(const struct packet *p, uint8_t *protocol)
{
	uint32_t at = p->header_bytes;

	*protocol = p->protocol;
	while (is_extension(*protocol)) {
		uint32_t left = p->length - at;
		uint32_t bytes = left < 8 ? 0 : extension_bytes(p->bytes + at, *protocol);

		if (bytes == 0 || bytes > left)
			return 0;
		*protocol = p->bytes[at];
		at += bytes;
	}
	return at;
}

static bool may_answer_ipv6(const struct packet *about, bool is_too_big)
{
	bool is_multicast = about->destination[0] == 0xff;
	uint8_t protocol;
	uint32_t upper;

	if (packet_is_no_host(6, about->source))
		return false;
	if (packet_is_no_host(6, about->destination) && !(is_multicast && is_too_big))
		return false;
	upper = upper_header(about, &protocol);
	if (upper == 0)
		return false;
	if (protocol == IPPROTO_ICMPV6)
		return about->length > upper && icmp6_is_answerable(about->bytes[upper]);
	return true;
}

bool packet_may_answer(const struct packet *about)
{
	return about->version == 4 ? may_answer_ipv4(about) : may_answer_ipv6(about, false);
}

bool packet_may_answer_too_big(const struct packet *about)
{
	return about->version == 4 ? may_answer_ipv4(about) : may_answer_ipv6(about, true);
}

/* ---- what ---- */

static size_t quoted(const struct packet *about, size_t most)
{
	return about->length < most ? about->length : most;
}

size_t packet_icmp_unreachable(const struct packet *about, uint8_t code, uint16_t next_hop_mtu, uint32_t source_be,
			       uint8_t *out)
{
	struct icmphdr icmp = { .type = PACKET_ICMP_UNREACHABLE, .code = code };
	size_t quote_bytes = quoted(about, PACKET_ICMP_MAX_BYTES - sizeof(struct iphdr) - sizeof(icmp));
	size_t length = sizeof(struct iphdr) + sizeof(icmp) + quote_bytes;
	struct iphdr ip = {
		.version = 4,
		.ihl = sizeof(ip) / 4,
		.tos = IPV4_TOS,
		.tot_len = htons((uint16_t)length),
		.ttl = HOPS,
		.protocol = IPPROTO_ICMP,
		.saddr = source_be,
	};

	/* Without DF an identification must not repeat soon (RFC 6864). The packet's own serves, and needs no state. */
	memcpy(&ip.id, about->bytes + offsetof(struct iphdr, id), sizeof(ip.id));
	memcpy(&ip.daddr, about->source, sizeof(ip.daddr));
	ip.check = checksum_finish(checksum_add(0, &ip, sizeof(ip)));
	if (code == PACKET_ICMP_FRAGMENTATION_NEEDED)
		icmp.un.frag.mtu = htons(next_hop_mtu);
	icmp.checksum = checksum_finish(checksum_add(checksum_add(0, &icmp, sizeof(icmp)), about->bytes, quote_bytes));

	memcpy(out, &ip, sizeof(ip));
	memcpy(out + sizeof(ip), &icmp, sizeof(icmp));
	memcpy(out + sizeof(ip) + sizeof(icmp), about->bytes, quote_bytes);
	return length;
}

size_t packet_icmp6_error(const struct packet *about, uint8_t type, uint8_t code, uint32_t mtu, const uint8_t *source16,
			  uint8_t *out)
{
	struct icmp6_hdr icmp = { .icmp6_type = type, .icmp6_code = code };
	size_t quote_bytes = quoted(about, PACKET_ICMP6_MAX_BYTES - sizeof(struct ip6_hdr) - sizeof(icmp));
	size_t icmp_bytes = sizeof(icmp) + quote_bytes;
	struct ip6_hdr ip = { 0 };
	uint64_t sum;

	ip.ip6_flow = htonl(6U << 28);
	ip.ip6_plen = htons((uint16_t)icmp_bytes);
	ip.ip6_nxt = IPPROTO_ICMPV6;
	ip.ip6_hlim = HOPS;
	memcpy(&ip.ip6_src, source16, sizeof(ip.ip6_src));
	memcpy(&ip.ip6_dst, about->source, sizeof(ip.ip6_dst));
	if (type == PACKET_ICMP6_TOO_BIG)
		icmp.icmp6_mtu = htonl(mtu);
	sum = checksum_pseudo(&ip.ip6_src, sizeof(ip.ip6_src) + sizeof(ip.ip6_dst), IPPROTO_ICMPV6, (uint32_t)icmp_bytes);
	sum = checksum_add(sum, &icmp, sizeof(icmp));
	icmp.icmp6_cksum = checksum_finish(checksum_add(sum, about->bytes, quote_bytes));

	memcpy(out, &ip, sizeof(ip));
	memcpy(out + sizeof(ip), &icmp, sizeof(icmp));
	memcpy(out + sizeof(ip) + sizeof(icmp), about->bytes, quote_bytes);
	return sizeof(ip) + icmp_bytes;
}
