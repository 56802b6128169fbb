"""What daemons of one host claim: each its own, seen from everywhere in the network namespace, gone with its holder."""

import asyncio
import os
import socket

import pytest
from inside import in_namespace

from udpbackend.errors import HostError
from udpbackend.host.claims import WAITING, Claim, Held, claims, networks_of
from udpbackend.host.flannel_name import choose
from udpbackend.host.turn import turn, turn_in_loop
from udpbackend.model import Prefix

NOBODY = 65534
FIVE, SIX = Prefix.parse("10.5.0.0/16"), Prefix.parse("10.6.0.0/16")
ONE = Claim(("flannel.1", "flannel-v6.1"), (FIVE, Prefix.parse("fd00:5::/48")))


@in_namespace
async def test_a_claim_is_seen_as_long_as_it_is_held():
    assert claims() == []
    held = Held(ONE)
    other = Held(Claim((), (SIX,)))
    assert sorted(claims()) == sorted([ONE, Claim((), (SIX,))])
    assert networks_of(claims(), but=["flannel.1"]) == [SIX]
    held.release()
    assert claims() == [Claim((), (SIX,))]
    Held(ONE).release()
    other.release()
    assert claims() == []


@pytest.mark.parametrize(
    ("claim", "words"),
    [
        (ONE, "flannel.1 is in use by another udp-backend of this host: stop it first, or give each network a"),
        (Claim(("flannel.1",), (SIX,)), "flannel.1 is in use by another udp-backend of this host"),
        (Claim(("flannel.2",), (FIVE,)), "10.5.0.0/16 overlaps 10.5.0.0/16, which another udp-backend of this host"),
        (Claim((), (Prefix.parse("10.0.0.0/8"),)), "10.0.0.0/8 overlaps 10.5.0.0/16, which another udp-backend"),
        (Claim(("flannel.2",), (SIX, Prefix.parse("fd00:5:0:1::/64"))), "fd00:5:0:1::/64 overlaps fd00:5::/48"),
        (Claim(("flannel.2",), (SIX, Prefix.parse("fd00:6::/48"))), None),
    ],
)  # fmt: skip
@in_namespace
async def test_what_another_has_is_refused(claim, words):
    held = Held(ONE)
    if words is None:
        Held(claim).release()
    else:
        with pytest.raises(HostError) as caught:
            Held(claim)
        assert str(caught.value).startswith(words)
    assert claims() == [ONE], "a refused claim is none"
    held.release()


@in_namespace
async def test_only_the_word_of_root_counts():
    """Any user of this host can take a name; that must not keep a daemon from its start."""
    ready, done = os.pipe(), os.pipe()
    if (child := os.fork()) == 0:
        os.setuid(NOBODY)
        with socket.socket(socket.AF_UNIX) as squatter:
            squatter.bind(f"\0{ONE.name}")
            squatter.listen()
            os.write(ready[1], b".")
            os.read(done[0], 1)
        os._exit(0)
    os.read(ready[0], 1)
    assert claims() == []
    mine, other = Held(ONE), Held(Claim(("flannel.2",), (SIX,)))
    assert (mine.told, other.told) == (False, True)
    assert claims() == [Claim(("flannel.2",), (SIX,))]
    mine.release()
    other.release()
    os.write(done[1], b".")
    os.waitpid(child, 0)  # noqa: ASYNC222  (it ends at once)


@in_namespace
async def test_whoever_asks_is_let_go():
    held = Held(ONE)
    for _ in range(3 * WAITING):
        assert claims() == [ONE]
        held._answer()  # the loop does it, when it gets its turn
    held.release()


@in_namespace
async def test_other_sockets_are_no_claims():
    names = (
        "\0udp-backend",
        "\0udp-backend a b c d",
        "\0udp-backend flannel.1 nonsense",
        "\0other flannel.1 10.5.0.0/16",
    )
    made = [socket.socket(socket.AF_UNIX) for _ in names]
    for one, name in zip(made, names, strict=True):
        one.bind(name)
        one.listen()
    assert claims() == []
    for one in made:
        one.close()


@in_namespace
def test_a_turn_is_one_daemons_and_no_lock_is_for_ever():
    with turn(), turn(0.05):
        pass
    with turn(0.0):
        pass


@in_namespace
async def test_daemons_that_start_at_once_choose_and_claim_one_after_the_other():
    """Each takes the first name that nobody claims; without the turn all find the same one free."""
    held = []

    async def start(number):
        async with turn_in_loop():
            name = choose([], [], {device for it in claims() for device in it.devices})
            await asyncio.sleep(0)  # where the others would look
            held.append(Held(Claim((name,), (Prefix.parse(f"10.{number}.0.0/16"),))))

    await asyncio.gather(*map(start, range(5)))
    assert sorted(device for it in claims() for device in it.devices) == [f"flannel{number}" for number in range(5)]
    for one in held:
        one.release()
