"""One request that the kernel refuses, at any moment: in the end all is in place, or all is taken back and it is said.

Each case is a daemon of its own in a namespace of its own. A run without a fault counts the requests; then one of them
fails, once. A sample by default: every eighth request, with one error. `HALF_APPLIED=all` tries every request with
every error, which takes an hour.
"""

import asyncio
import errno
import json
import os
from dataclasses import replace

import inside
import pytest
from half_applied import (
    AGAIN,
    ERRORS,
    MISHAPS,
    Faults,
    Running,
    at_rest,
    becomes,
    difference,
    hasty,
    lay_out,
    picture,
    registry,
)

BACKENDS = ("udp", "vxlan", "host-gw")
WHOLE = os.environ.get("HALF_APPLIED") == "all"
SAMPLE = 8
"""Prime to the number of errors and of mishaps, or a sample would try one of them again and again."""
QUIET_S = 1.5


async def start(directory, faults, wanted):
    """A start where nothing of us is yet."""
    before = picture(directory, rules=bool(faults.rules))
    faults.armed = True
    daemon = Running(directory, faults)
    if await daemon.ready():
        wanted = wanted or await settled(directory, faults)
        left = await becomes(directory, wanted, rules=bool(faults.rules))
        said = await daemon.end()
        assert not said, said
        assert not left, f"{daemon.reasons}, and yet\n{left}"
        return wanted
    said = await daemon.end()
    assert said, "it has ended without a word"
    left = difference(before, picture(directory, rules=bool(faults.rules)))
    assert not left, f"{said}; and it left\n{left}"
    return None


async def edit(directory, faults, wanted):
    """One node comes and one goes, while the daemon runs."""
    registry(directory, faults, "abc")
    daemon = Running(directory, faults)
    assert await daemon.ready()
    faults.armed = True
    registry(directory, faults, "abd")
    wanted = wanted or await settled(directory, faults)
    left = await becomes(directory, wanted, rules=bool(faults.rules))
    said = await daemon.end()
    assert not said, said
    assert not left, f"{daemon.reasons}, and yet\n{left}"
    return wanted


async def clean_up(directory, faults, wanted):
    """A daemon that is to take everything along."""
    before = picture(directory, rules=bool(faults.rules))
    daemon = Running(directory, faults, cleanup_on_exit=True)
    assert await daemon.ready()
    faults.armed = True
    said = await daemon.end()
    left = difference(before, picture(directory, rules=bool(faults.rules)))
    assert bool(said) == bool(left), f"it said {said!r}, and left\n{left}"
    return wanted


async def settled(directory, faults):
    """How the namespace looks once nothing changes any more."""
    before, now = None, picture(directory, rules=bool(faults.rules))
    while before != now:
        await asyncio.sleep(QUIET_S)
        before, now = now, picture(directory, rules=bool(faults.rules))
    return now


def run(directory, scenario, faults, wanted=None):
    """One case in a child: what went wrong, the requests that were made, and how a run without a fault ends."""
    directory.mkdir()
    told = directory / "told"

    async def body():
        lay_out()
        await at_rest(directory)
        registry(directory, faults)
        found = None
        try:
            with faults.between(), hasty():
                found = await scenario(directory, faults, wanted)
        finally:
            told.write_text(json.dumps([faults.seen, found]))

    wrong = inside._fork(body)
    return wrong, *json.loads(told.read_text())


def try_each(tmp_path, scenario, faults, mishaps):
    """A run without a fault, then one for each request or program, with one or all of the mishaps."""
    inside.require_root()
    wrong, seen, wanted = run(tmp_path / "0", scenario, faults)
    assert not wrong, wrong
    requests, writes = Faults(seen=seen).requests, Faults(seen=seen).writes
    assert requests, "nothing was asked for"
    complaints = []
    for at, request in enumerate(requests, start=1):
        for code in mishaps if WHOLE else (mishaps[at % len(mishaps)],):
            if not WHOLE and at % SAMPLE != len(requests) % SAMPLE:
                continue
            if scenario is clean_up and request in ("GETLINK", "DELLINK") and code == errno.ENODEV:
                continue  # no failure, but the answer that there is no such device
            wrong, seen, _ = run(
                tmp_path / f"{at}-{code}", scenario, replace(faults, at=at, code=code, seen=[]), wanted
            )
            if not wrong and Faults(seen=seen).writes > writes + AGAIN:
                wrong = f"{len(seen)} requests instead of {len(requests)}"
            if wrong:
                complaints.append(f"{at}, {request}: {errno.errorcode.get(code, code)}: {wrong}")
    assert not complaints, "\n".join(complaints)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", [start, edit, clean_up], ids=lambda it: it.__name__)
def test_one_refused_request(tmp_path, scenario, backend):
    try_each(tmp_path, scenario, Faults(backend=backend), ERRORS)


@pytest.mark.parametrize("rules", ["iptables", "nftables"])
@pytest.mark.parametrize("scenario", [start, clean_up], ids=lambda it: it.__name__)
def test_one_program_that_fails(tmp_path, scenario, rules):
    try_each(tmp_path, scenario, Faults(backend="udp", rules=rules), MISHAPS)
