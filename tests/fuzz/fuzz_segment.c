/* fuzz_segment: whatever packet comes with whatever virtio header, it is refused and stays as it is, or it becomes segments
 * that parse and are those that super.h cuts from it; join(segment(p)) == p where TCP's flags allow it.
 *
 * The input is a virtio header, two bytes that make the packet longer, and a packet. It is tried as it is, and then with
 * the IP header put right and the virtio header aimed at the transport, as no fuzzer guesses a checksum.
 */
#define REQUIRE(condition) ((condition) ? (void)0 : __builtin_trap())

#include "../c/merged.h"

#define SETTINGS_BYTES 12
#define SEGMENTS_TRIED COALESCE_PACKETS

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct batch batch;
static uint8_t before[SUPER_ROOM], joined[SUPER_ROOM];

static void repair(uint8_t *bytes, size_t len)
{
	size_t header_bytes = len ? (bytes[0] & 0xfU) * 4 : 0;

	if (len >= 40 && len <= 65575 && bytes[0] >> 4 == 6)
		put_16(bytes + 4, (uint32_t)len - 40);
	if (len < 20 || len > 65535 || bytes[0] >> 4 != 4 || header_bytes < 20 || header_bytes > len)
		return;
	put_16(bytes + 2, (uint32_t)len);
	seal(bytes);
}

static uint8_t protocol_of(uint8_t gso_type)
{
	return (gso_type & 0x7f) == VIRTIO_NET_HDR_GSO_UDP_L4 ? UDP : TCP;
}

/* Makes the virtio header one that the kernel could have sent with this packet. */
static void aim(uint8_t *bytes, size_t len, struct virtio_net_hdr *header)
{
	bool v6 = bytes[0] >> 4 == 6;
	size_t field;

	header->flags |= VIRTIO_NET_HDR_F_NEEDS_CSUM;
	header->csum_start = v6 ? 40 + header->csum_start % 4 * 8 : (uint16_t)((bytes[0] & 0xfU) * 4);
	header->gso_size = (uint16_t)(header->gso_size % 2000 + 1);
	header->gso_type = (uint8_t[]){ v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4, VIRTIO_NET_HDR_GSO_UDP_L4,
					v6 ? VIRTIO_NET_HDR_GSO_TCPV6 | 0x80 : VIRTIO_NET_HDR_GSO_TCPV4 | 0x80,
					VIRTIO_NET_HDR_GSO_NONE }[header->gso_type % 4];
	header->csum_offset = (uint16_t)field_of(protocol_of(header->gso_type));
	if (!v6 && len > 9)
		bytes[9] = protocol_of(header->gso_type);
	if (v6 && len > 6 && header->csum_start == 40)
		bytes[6] = protocol_of(header->gso_type);
	repair(bytes, len);
	field = (size_t)header->csum_start + header->csum_offset;
	if (field + 2 <= len)
		put_16(bytes + field, pseudo_sum(bytes, len, header->csum_start, protocol_of(header->gso_type)));
}

/* One packet, whole: only its checksum field may have changed, and is right if the field had what it should. */
static void check_whole(const struct segment_source *source, const uint8_t *bytes, size_t len,
			const struct virtio_net_hdr *header)
{
	size_t field = (size_t)header->csum_start + header->csum_offset;
	struct packet packet;
	struct segment it;

	segment_make(source, 0, NULL, &it);
	REQUIRE(it.headers_bytes == 0 && it.payload == bytes && it.payload_bytes == len);
	REQUIRE(packet_parse(bytes, len, &packet) == PACKET_OK);
	if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) {
		REQUIRE(!memcmp(before, bytes, len));
		return;
	}
	REQUIRE(header->csum_start >= packet.header_bytes && field + 2 <= len);
	REQUIRE(!memcmp(before, bytes, field) && !memcmp(before + field + 2, bytes + field + 2, len - field - 2));
	REQUIRE(sum_16(get_16(before + field), bytes + header->csum_start, len - header->csum_start) == 0xffff);
}

/* Whether the kernel's rules join all segments again. */
static bool joins(const struct packet *p, uint32_t count, size_t start, uint8_t protocol)
{
	uint8_t flags = protocol == TCP ? p->bytes[start + 13] : ACK;

	return !(flags & ~(ACK | PSH | ECE)) && (flags & ACK) && count <= COALESCE_SEGMENTS && p->length <= COALESCE_BYTES &&
	       start == (p->version == 4 ? 20 : 40) && p->protocol == protocol && !is_fragment(p);
}

static void check_joined(const struct packet *p, const struct virtio_net_hdr *header, uint8_t protocol)
{
	size_t field = header->csum_start + field_of(protocol), len = 0;
	uint8_t headers[COALESCE_HEADERS_MAX];
	struct iovec iov[COALESCE_SEGMENTS + 1];
	struct virtio_net_hdr found;
	int count = coalesce_build(&batch.coalesce, 0, &found, headers, iov);

	for (int i = 0; i < count; i++) {
		memcpy(joined + len, iov[i].iov_base, iov[i].iov_len);
		len += iov[i].iov_len;
	}
	REQUIRE(len == p->length);
	put_16(before + field, pseudo_sum(before, len, header->csum_start, protocol));
	REQUIRE(!memcmp(joined, before, len) || protocol == UDP);
	if (protocol == UDP) { /* its length field is the segments', so what stood there is gone */
		put_16(before + header->csum_start + 4, (uint32_t)(len - header->csum_start));
		REQUIRE(!memcmp(joined, before, len));
	}
	REQUIRE(found.gso_size == header->gso_size && found.gso_type == (header->gso_type & 0x7f));
	REQUIRE(found.csum_start == header->csum_start && found.csum_offset == field_of(protocol));
}

static void check_segments(const struct segment_source *source, const struct packet *p, const struct virtio_net_hdr *header,
			   bool aimed)
{
	uint8_t protocol = protocol_of(header->gso_type), *headers = malloc(SEGMENT_HEADERS_MAX);
	size_t start = header->csum_start;

	REQUIRE(source->count == cut_count(p->length, header, cut_headers(p->bytes, start, protocol)));
	batch_begin(&batch, ALL_KINDS);
	for (uint32_t i = 0; i < source->count; i++) {
		struct packet parsed;
		struct segment it;
		size_t len;

		if (i == SEGMENTS_TRIED && i + 3 < source->count)
			i = source->count - 3;
		memset(headers, 0xee, SEGMENT_HEADERS_MAX);
		segment_make(source, i, headers, &it);
		len = it.headers_bytes + it.payload_bytes;
		REQUIRE(len <= segment_longest(source) && it.headers_bytes <= SEGMENT_HEADERS_MAX);
		memcpy(joined, headers, it.headers_bytes);
		memcpy(joined + it.headers_bytes, it.payload, it.payload_bytes);
		REQUIRE(packet_parse(joined, len, &parsed) == PACKET_OK);
		if (aimed || start == (p->version == 4 ? 20 : 40)) { /* else the partial sum has been nonsense */
			REQUIRE(cut(p->bytes, p->length, header, protocol, i, batch.piece) == len);
			REQUIRE(same_packet(joined, batch.piece, len, start, protocol));
			REQUIRE(transport_is_right(joined, len, start, protocol));
		}
		(void)batch_add(&batch, joined, len);
	}
	if (batch_check(&batch) != 1)
		REQUIRE(!joins(p, source->count, start, protocol));
	else if (source->count <= COALESCE_PACKETS)
		check_joined(p, header, protocol);
	batch_end(&batch);
	free(headers);
}

static void check(const uint8_t *input, size_t len, const struct virtio_net_hdr *header, bool aimed)
{
	struct segment_source *source = malloc(sizeof(*source));
	uint8_t *bytes = malloc(len + !len);
	struct packet packet;

	memcpy(bytes, input, len);
	memcpy(before, input, len);
	if (packet_parse(bytes, len, &packet) == PACKET_OK) {
		memset(source, 0xee, sizeof(*source));
		if (segment_prepare(source, bytes, &packet, header) < 0) {
			REQUIRE(!memcmp(before, bytes, len));
		} else if (source->count == 1) {
			check_whole(source, bytes, len, header);
		} else {
			struct virtio_net_hdr meant = *header;

			if (!(header->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)) /* then nothing else in it says where to begin */
				meant.csum_start = packet.header_bytes;
			check_segments(source, &packet, &meant, aimed);
			if (aimed)
				REQUIRE(!memcmp(input, bytes, len));
		}
	}
	free(bytes);
	free(source);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static uint8_t bytes[SUPER_ROOM];
	struct virtio_net_hdr header;
	size_t len = size - SETTINGS_BYTES, more;

	if (size < SETTINGS_BYTES || len > sizeof(bytes))
		return 0;
	memcpy(&header, data, sizeof(header));
	memcpy(bytes, data + SETTINGS_BYTES, len);
	more = get_16(data + 10);
	if (more < 0xe000) /* mostly short: they are tried faster */
		more %= 4096;
	for (; more > 0 && len < sizeof(bytes); more--, len++)
		bytes[len] = (uint8_t)(len * 0x9d + (len >> 8));
	check(bytes, len, &header, false);
	if (len < 40)
		return 0;
	repair(bytes, len);
	check(bytes, len, &header, false);
	aim(bytes, len, &header);
	check(bytes, len, &header, true);
	return 0;
}
