"""The generation of nf_tables: the kernel's answer, and that nobody runs a program while it stays the same."""

import pytest

from udpbackend.host import firewall
from udpbackend.host.firewall import Firewall
from udpbackend.host.firewall_rules import FirewallPlan
from udpbackend.host.generation import ATTRIBUTE, FAMILY, HEADER, NEWGEN, SUBSYSTEM, parse
from udpbackend.model import Prefix

PLAN = FirewallPlan(Prefix.parse("10.5.0.0/16"), Prefix.parse("10.5.3.0/24"))
NAME = ATTRIBUTE.pack(7, 3) + b"nft\0"
NUMBER = ATTRIBUTE.pack(8, 1) + (4711).to_bytes(4, "big")


def answer(*attributes, kind=SUBSYSTEM << 8 | NEWGEN):
    body = FAMILY.pack(0, 0, 0) + b"".join(attributes)
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


def test_the_number_is_found_wherever_it_stands():
    assert parse(answer(NUMBER)) == parse(answer(NAME, NUMBER)) == parse(answer(NUMBER, NAME)) == 4711


@pytest.mark.parametrize(
    "message",
    [b"", answer(), answer(NAME), answer(NUMBER)[:-1], answer(NUMBER, kind=2), answer(ATTRIBUTE.pack(0, 0) * 3)],
    ids=["empty", "none", "another", "cut", "an error", "no length"],
)
def test_any_other_message_is_no_number(message):
    assert parse(message) is None


class Holder:
    """Looks, and says what it repaired."""

    def __init__(self, *, newer=True):
        self.newer = newer
        self.looks = 0
        self.repairs = ()

    def in_nf_tables(self):
        return self.newer

    def settle(self, _, _keep):
        self.looks += 1
        return self.repairs


def test_rules_are_looked_at_again_when_any_rule_of_the_host_has_changed(monkeypatch):
    made, holder = Firewall(PLAN, nftables=True), Holder()
    made._chosen = [(holder, {"x": ("y",)})]
    numbers = iter([1, 1, 2, 2, 2, 3, 3])
    monkeypatch.setattr(firewall, "generation", lambda: next(numbers))
    looks = []
    for repairs in ((), (), ("gone",), (), (), (), ()):
        holder.repairs = repairs
        made._ensure()
        looks.append(holder.looks)
    assert looks == [1, 1, 2, 3, 3, 4, 4], "after a repair there is one look more: others may have been at work as well"


@pytest.mark.parametrize(("newer", "number"), [(False, 1), (True, None)])
def test_without_a_number_they_are_looked_at_every_time(monkeypatch, newer, number):
    made, holder = Firewall(PLAN, nftables=True), Holder(newer=newer)
    made._chosen = [(holder, {"x": ("y",)})]
    monkeypatch.setattr(firewall, "generation", lambda: number)
    for _ in range(3):
        made._ensure()
    assert holder.looks == 3
