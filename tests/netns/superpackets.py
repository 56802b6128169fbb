"""TCP and UDP packets of flows by hand, super-packets by hand, and what a kernel makes of one.

Owns the arithmetic of segmentation in its plainest form, and the question whether two packets belong to one flow. Knows
no hosts and no daemons. Builds on `packets` and `linux`.
"""

import random
import socket
import struct
from dataclasses import dataclass, field, replace

import linux
import packets
from packets import DONT_FRAGMENT, MORE_FRAGMENTS, TCP, UDP

from bench.lab.netns import Namespace

FIN, SYN, RST, PSH, ACK, URG, ECE, CWR = (1 << bit for bit in range(8))
NEEDS_CSUM, GSO_NONE, GSO_TCPV4, GSO_UDP_L4, GSO_ECN = 1, 0, 1, 5, 0x80
SOL_PACKET, PACKET_VNET_HDR = 263, 15
"""linux/socket.h and linux/if_packet.h; Python does not know them."""
UDP_TOO = linux.at_least(6, 2)
"""Whether packet sockets and TUN devices know super-packets of UDP; what does not is refused with EINVAL."""
CHECKSUM_AT = {TCP: 16, UDP: 6}
Flow = tuple[str, int, str, int]


@dataclass(frozen=True)
class Segment:
    """One packet of a flow by its fields; `packet` makes it."""

    flow: Flow
    data: bytes
    protocol: int = TCP
    sequence: int = 1
    acknowledged: int = 1
    flags: int = ACK
    window: int = 500
    urgent: int = 0
    options: bytes = b""
    ip: dict[str, int] = field(default_factory=dict)
    ip_options: bytes = b""

    def packet(self) -> bytes:
        source, source_port, destination, port = self.flow
        if self.protocol == UDP:
            header = struct.pack("!HHHH", source_port, port, 8 + len(self.data), 0)
        else:
            length = (20 + len(self.options)) // 4 << 4
            numbers = (source_port, port, self.sequence % 2**32, self.acknowledged, length, self.flags, self.window)
            header = struct.pack("!HHIIBBHHH", *numbers, 0, self.urgent) + self.options
        made = packets.ipv4(
            source, destination, header + self.data, protocol=self.protocol, options=self.ip_options, **self.ip
        )
        return with_checksum(made, finished=True)


def with_checksum(packet: bytes, *, finished: bool) -> bytes:
    """The same with its transport's checksum put right, or with the part of it that a kernel leaves to a device."""
    start = packets.header_bytes(packet)
    at = start + CHECKSUM_AT[packet[9]]
    blank = packet[:at] + bytes(2) + packet[at + 2 :]
    pseudo = packet[12:20] + struct.pack("!HH", packet[9], len(packet) - start)
    found = packets.ones_complement_sum(pseudo)
    if finished:
        found = packets.checksum(pseudo + blank[start:])
        if packet[9] == UDP:
            found = found or 0xFFFF
    return blank[:at] + found.to_bytes(2, "big") + blank[at + 2 :]


def cut(packet: bytes, size: int) -> list[bytes]:
    """What segmentation makes of a super-packet whose segments hold `size` bytes."""
    start = packets.header_bytes(packet)
    headers = start + (8 if packet[9] == UDP else (packet[start + 12] >> 4) * 4)
    starts = range(headers, len(packet), size)
    made = []
    for index, at in enumerate(starts):
        segment = bytearray(packet[:headers] + packet[at : at + size])
        segment[2:4] = len(segment).to_bytes(2, "big")
        segment[4:6] = ((int.from_bytes(packet[4:6], "big") + index) % 2**16).to_bytes(2, "big")
        if packet[9] == TCP:
            sequence = int.from_bytes(packet[start + 4 : start + 8], "big") + index * size
            segment[start + 4 : start + 8] = (sequence % 2**32).to_bytes(4, "big")
            segment[start + 13] &= 0xFF if index == 0 else ~CWR & 0xFF
            segment[start + 13] &= 0xFF if index == len(starts) - 1 else ~(FIN | PSH) & 0xFF
        else:
            segment[start + 4 : start + 6] = (len(segment) - start).to_bytes(2, "big")
        made.append(with_checksum(packets.sealed(bytes(segment)), finished=True))
    return made


def virtio_header(packet: bytes, size: int, kind: int | None = None, **fields: int) -> bytes:
    """Of a super-packet whose segments hold `size` bytes. `fields`: flags, headers, start, offset."""
    if kind is None:
        kind = GSO_UDP_L4 if packet[9] == UDP else GSO_TCPV4
    start = fields.pop("start", packets.header_bytes(packet))
    offset = fields.pop("offset", CHECKSUM_AT[packet[9]])
    flags = fields.pop("flags", NEEDS_CSUM)
    headers = fields.pop("headers", packets.header_bytes(packet) + (8 if packet[9] == UDP else 20))
    assert not fields
    return struct.pack("=BBHHHH", flags, kind, headers, size, start, offset)


def injector(namespace: Namespace, device: str):
    """Sends a virtio header and the packet that it describes into a device without link headers."""

    def make() -> socket.socket:
        made = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
        made.setsockopt(SOL_PACKET, PACKET_VNET_HDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4 << 20)
        made.bind((device, packets.ETH_P_IP))
        return made

    return packets.opened(namespace, make)


# ---- comparing ----


def essence(packet: bytes) -> bytes:
    """The packet without what may change: with DF, an identification means nothing (RFC 6864)."""
    if int.from_bytes(packet[6:8], "big") & DONT_FRAGMENT:
        return packets.sealed(packet[:4] + bytes(2) + packet[6:])
    return packet


def ports(packet: bytes) -> bytes | None:
    """Protocol and ports; None where nobody can know them."""
    start = packets.header_bytes(packet)
    fragment = int.from_bytes(packet[6:8], "big") & 0x3FFF
    return packet[9:10] + packet[start : start + 4] if packet[9] in (TCP, UDP) and not fragment else None


def related(one: bytes, other: bytes) -> bool:
    """Whether their order matters: of one flow, or between the same addresses and of who knows which flow."""
    if one[12:20] != other[12:20]:
        return False
    a, b = ports(one), ports(other)
    return a is None or b is None or a == b


def compare(found: list[bytes], expected: list[bytes]) -> None:
    """The same packets, byte for byte, each as often, and no two of one flow in another order."""
    places: dict[bytes, list[int]] = {}
    for index, packet in enumerate(found):
        places.setdefault(essence(packet), []).append(index)
    place = []
    for index, packet in enumerate(expected):
        there = places.get(essence(packet))
        assert there, f"packet {index} of {len(expected)} has not come as it was: {packet.hex()}"
        place.append(there.pop(0))
    assert len(found) == len(expected)
    for later in range(len(expected)):
        for earlier in range(later):
            if place[earlier] > place[later]:
                assert not related(expected[earlier], expected[later]), (earlier, later)


# ---- a mix ----

TIMESTAMPS = b"\x01\x01\x08\x0a" + bytes(range(8))
SACK = b"\x01\x01\x05\x0a" + bytes(range(8))
ONE_OFF = {
    "push": lambda s, _: replace(s, flags=s.flags | PSH),
    "fin": lambda s, _: replace(s, flags=s.flags | FIN),
    "syn": lambda s, _: replace(s, flags=SYN),
    "rst": lambda s, _: replace(s, flags=RST),
    "urg": lambda s, _: replace(s, flags=s.flags | URG, urgent=3),
    "cwr": lambda s, _: replace(s, flags=s.flags | CWR),
    "ece": lambda s, _: replace(s, flags=s.flags | ECE),
    "pure-ack": lambda s, _: replace(s, data=b""),
    "short": lambda s, dice: replace(s, data=s.data[: dice.randrange(1, len(s.data))]),
    "long": lambda s, _: replace(s, data=s.data + b"longer"),
    "retransmission": lambda s, _: replace(s, sequence=s.sequence - len(s.data)),
    "gap": lambda s, dice: replace(s, sequence=s.sequence + dice.randrange(1, 5000)),
    "sack": lambda s, _: replace(s, options=SACK),
    "congestion-experienced": lambda s, _: replace(s, ip=s.ip | {"tos": s.ip.get("tos", 0) | 3}),
    "ttl": lambda s, dice: replace(s, ip=s.ip | {"ttl": dice.randrange(3, 256)}),
    "ip-options": lambda s, _: replace(s, ip_options=b"\x01\x01\x01\x00"),
    "identification": lambda s, dice: replace(s, ip=s.ip | {"identification": dice.randrange(2**16)}),
    "fragment": lambda s, _: replace(s, ip=s.ip | {"fragment": MORE_FRAGMENTS}),
    "later-fragment": lambda s, _: replace(s, ip=s.ip | {"fragment": 90}),
}
LASTING = {
    "window": lambda s, dice: replace(s, window=dice.randrange(2**16)),
    "acknowledged": lambda s, dice: replace(s, acknowledged=s.acknowledged + dice.randrange(1, 3000)),
    "timestamps": lambda s, dice: replace(s, options=TIMESTAMPS[:4] + dice.randbytes(8)),
    "dscp": lambda s, dice: replace(s, ip=s.ip | {"tos": dice.randrange(64) << 2}),
    "ecn-capable": lambda s, dice: replace(s, ip=s.ip | {"tos": dice.choice((1, 2))}),
    "df": lambda s, _: replace(s, ip=s.ip | {"fragment": s.ip.get("fragment", 0) ^ DONT_FRAGMENT}),
}
BROKEN = ("bit", "no-checksum")
HAPPENINGS = (*ONE_OFF, *LASTING, *BROKEN)


def happen(what: str, dice: random.Random, segment: Segment) -> tuple[Segment, bytes]:
    """The flow as it goes on, and the packet that leaves. `what`: of HAPPENINGS, or nothing at all."""
    now = segment
    if what in LASTING:
        now = segment = LASTING[what](segment, dice)
    elif what in ONE_OFF:
        now = ONE_OFF[what](segment, dice)
    packet = now.packet()
    start = packets.header_bytes(packet)
    if what == "bit":
        bit = dice.randrange(8 * start, 8 * len(packet))
        packet = packet[: bit // 8] + bytes([packet[bit // 8] ^ 1 << bit % 8]) + packet[bit // 8 + 1 :]
    elif what == "no-checksum":
        at = start + CHECKSUM_AT[packet[9]]
        packet = packet[:at] + bytes(2) + packet[at + 2 :]
    identification = (now.ip.get("identification", 1) + 1) % 2**16
    going_on = replace(
        segment, sequence=now.sequence + len(now.data), ip=segment.ip | {"identification": identification}
    )
    return replace(going_on, data=dice.randbytes(len(segment.data))), packet


def mix(flows: list[Segment], count: int, dice: random.Random, happenings: tuple[str, ...] = HAPPENINGS) -> list[bytes]:
    """So many packets of flows that come mixed up, with something happening to every third."""
    made = []
    for _ in range(count):
        which = dice.randrange(len(flows))
        what = dice.choice(happenings) if dice.randrange(3) == 0 else ""
        flows[which], packet = happen(what, dice, flows[which])
        made.append(packet)
    return made
