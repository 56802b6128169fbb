"""Fixtures of the namespace tests: laboratories with running daemons, and a judge at the end of each.

Owns the decision whether these tests can run here at all, and the checks that every test gets for nothing: when it is
over, each daemon still running has accounted for every packet and ends well on SIGTERM.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any

import pytest
from fou_facts import has_fou

from bench.lab.daemon import Overlay
from bench.lab.topology import Lab

HAS_FOU = has_fou()
OTHER_KERNELS = (
    ["test_dataplane_choice.py"] if HAS_FOU else ["test_kernel_dataplane.py", "test_kernel_dataplane_switch.py"]
)
"""Of this kernel there is nothing in them to be tested. Asked for, they skip and say so; where nothing may be skipped,
they are left out, with the line that pytest begins with."""
collect_ignore = OTHER_KERNELS if os.environ.get("UDPB_NO_SKIP") else []


def pytest_report_header() -> str:
    """What of these tests is for other kernels."""
    return (
        f"the kernel {os.uname().release} {'has' if HAS_FOU else 'has no'} FOU: not for it {', '.join(OTHER_KERNELS)}"
    )


MakeOverlay = Callable[..., Overlay]
"""`make_overlay(hosts=2, start=True, arguments=(), **lab_options)`."""


def missing() -> str:
    """What these tests need and this machine lacks; empty when they can run."""
    if os.geteuid() != 0:
        return "root"
    if not os.path.exists("/dev/net/tun"):  # noqa: PTH110  (a device node, not a file of ours)
        return "/dev/net/tun"
    tools = ("ip", "nsenter", "ping", "iperf3", "ss")
    return ", ".join(tool for tool in tools if shutil.which(tool) is None)


@pytest.fixture(scope="session")
def able() -> None:
    """Skips loudly where namespaces cannot be had."""
    if lacking := missing():
        pytest.skip(f"needs {lacking}")


@contextmanager
def judged(
    hosts: int = 2, *, start: bool = True, arguments: tuple[str, ...] = (), **lab_options: Any
) -> Iterator[Overlay]:
    """An overlay whose surviving daemons are judged when the context ends without an error."""
    with Lab(hosts, **lab_options) as lab, Overlay(lab, *arguments) as overlay:
        if start:
            overlay.start_all()
        yield overlay
        overlay.stop_all()


@pytest.fixture(scope="module")
def overlay(able: None) -> Iterator[Overlay]:
    """Two hosts with running daemons, shared by the tests of a file: for tests that leave them as they were."""
    with judged() as made:
        yield made


@pytest.fixture(scope="session")
def judge_overlay(able: None) -> Callable[..., AbstractContextManager[Overlay]]:
    """`judged` itself, for fixtures that live as long as they like."""
    return judged


@pytest.fixture(scope="module")
def overlay_of_three(able: None) -> Iterator[Overlay]:
    """Likewise, of three hosts."""
    with judged(3) as made:
        yield made


@pytest.fixture
def make_overlay(able: None) -> Iterator[MakeOverlay]:
    """Makes laboratories of the test's own: for tests that stop, kill or configure daemons."""
    with ExitStack() as stack:

        def make(**options: Any) -> Overlay:
            return stack.enter_context(judged(**options))

        yield make
