"""What a program sends arrives byte for byte, whatever the links compute by themselves and the kernel grants.

The links of hosts and pods keep their offloads, or lose checksumming on transmit (and with it segmentation), or lose
all. Compared is what programs see: streams, datagrams and echo requests of all lengths.
"""

import random
import socket
import threading
from contextlib import ExitStack

import linux
import pytest

from bench.lab import traffic
from bench.lab.daemon import Overlay
from bench.lab.topology import Host

LINKS = {
    "as-they-come": (),
    "tx-off": ("tx",),
    "all-off": ("rx", "tx", "sg", "tso", "gso", "gro"),
}
STREAM_BYTES = 20 << 20
DEADLINE_S = 60
PORT = 5400


@pytest.fixture(scope="module", params=LINKS)
def links(request):
    return request.param


@pytest.fixture(scope="module")
def overlay(judge_overlay, links):
    with judge_overlay(start=False, ipv6=True) as made:
        off = [word for name in LINKS[links] for word in (name, "off")]
        for host in made.lab.hosts:
            for namespace, link in ((host.namespace, "eth0"), (host.namespace, "pod0"), (host.pod, "eth0")):
                if off:
                    namespace.run("ethtool", "-K", link, *off)
        made.start_all()
        yield made


def ends(overlay: Overlay, family: socket.AddressFamily, *, back: bool) -> tuple[Host, Host, str]:
    """Who sends, who receives, and the receiver's address."""
    source, target = overlay.lab.hosts[::-1] if back else overlay.lab.hosts
    return source, target, target.pod_address if family == socket.AF_INET else target.pod_address6


def lengths() -> list[int]:
    """From one byte to 60,000: the smallest, what fills one to three packets and a little more or less, some others."""
    dice = random.Random(1)  # noqa: S311  (not for secrets)
    full = {packets * 1448 + around for packets in (1, 2, 3) for around in range(-30, 30)}
    return sorted({*range(1, 40), *full, *dice.sample(range(4000, 60000), 30), 60000})


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("back", [False, True], ids=["a-to-b", "b-to-a"])
def test_a_stream(overlay, family, back):
    source, target, address = ends(overlay, family, back=back)
    data = random.Random(back).randbytes(STREAM_BYTES)  # noqa: S311
    with ExitStack() as stack:
        server = stack.enter_context(target.pod.call(lambda: socket.create_server((address, PORT), family=family)))
        client = stack.enter_context(source.pod.call(lambda: socket.socket(family)))
        for each in (server, client):
            each.settimeout(DEADLINE_S)
        client.connect((address, PORT))
        program = stack.enter_context(server.accept()[0])
        program.settimeout(DEADLINE_S)
        sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(socket.SHUT_WR)))
        sender.start()
        found = bytearray()
        while piece := program.recv(1 << 20):
            found += piece
        sender.join()
    assert found == data


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "ipv6"])
@pytest.mark.parametrize("back", [False, True], ids=["a-to-b", "b-to-a"])
def test_datagrams_of_all_lengths(overlay, family, back):
    source, target, address = ends(overlay, family, back=back)
    dice = random.Random(back)  # noqa: S311
    with (
        target.pod.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as program,
        source.pod.call(lambda: socket.socket(family, socket.SOCK_DGRAM)) as client,
    ):
        program.bind((address, PORT))
        program.settimeout(DEADLINE_S)
        for length in lengths():
            data = dice.randbytes(length)
            client.sendto(data, (address, PORT))
            assert program.recv(1 << 16) == data, length


@pytest.mark.parametrize("back", [False, True], ids=["a-to-b", "b-to-a"])
def test_echo_requests_in_41_fragments(overlay, back):
    """One fragment of them missing, one answer is. One after the other: more of them at once than a queue holds."""
    source, _, address = ends(overlay, socket.AF_INET, back=back)
    found = [traffic.ping(source.pod, address, size=60000, count=1).received for _ in range(20)]
    assert sum(found) == len(found)


def test_status_names_no_offload_that_is_not_there(overlay, links):
    """After the traffic above. UDP super-packets from the TUN are Linux 6.2's.

    Before Linux 6.11 no runs pass a link without checksums. That concerns the way to one peer: it is counted, and the
    socket keeps what it can do on other ways.
    """
    missing = set() if linux.at_least(6, 2) else {"uso"}
    expected = {"csum", "tso", "uso", "tcp-coalesce", "udp-segment", "udp-gro"} - missing
    refused = links != "as-they-come" and not linux.at_least(6, 11)
    for host in overlay.lab.hosts:
        status = overlay.status(host)
        assert set(status["offloads"]) == expected
        counters = {it["name"]: it["value"] for it in status["counters"]}
        assert counters["tx_gso_refused"] > 0 or not refused
