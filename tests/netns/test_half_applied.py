"""One request that the kernel refuses, at any moment: in the end all is in place, or all is taken back and it is said.

Each case is a daemon of its own in a namespace of its own. A run without a fault counts the requests; then one of them
fails, once. A sample by default: every third request, each with one error. `HALF_APPLIED=all` tries every request with
every error, which takes an hour.
"""

import asyncio
import errno
import json
import os

import inside
import pytest
from half_applied import AGAIN, ERRORS, Faults, Running, becomes, difference, hasty, lay_out, picture, registry

BACKENDS = ("udp", "vxlan", "host-gw")
WHOLE = os.environ.get("HALF_APPLIED") == "all"
SAMPLE = 3
QUIET_S = 1.5


async def start(directory, faults, wanted):
    """A start where nothing of us is yet."""
    before = picture(directory)
    faults.armed = True
    daemon = Running(directory)
    if await daemon.ready():
        wanted = wanted or await settled(directory)
        left = await becomes(directory, wanted)
        said = await daemon.end()
        assert not said, said
        assert not left, f"{daemon.reasons}, and yet\n{left}"
        return wanted
    said = await daemon.end()
    assert said, "it has ended without a word"
    left = difference(before, picture(directory))
    assert not left, f"{said}; and it left\n{left}"
    return None


async def edit(directory, faults, wanted):
    """One node comes and one goes, while the daemon runs."""
    registry(directory, faults.backend, "abc")
    daemon = Running(directory)
    assert await daemon.ready()
    faults.armed = True
    registry(directory, faults.backend, "abd")
    wanted = wanted or await settled(directory)
    left = await becomes(directory, wanted)
    said = await daemon.end()
    assert not said, said
    assert not left, f"{daemon.reasons}, and yet\n{left}"
    return wanted


async def clean_up(directory, faults, wanted):
    """A daemon that is to take everything along."""
    before = picture(directory)
    daemon = Running(directory, cleanup_on_exit=True)
    assert await daemon.ready()
    faults.armed = True
    said = await daemon.end()
    left = difference(before, picture(directory))
    assert bool(said) == bool(left), f"it said {said!r}, and left\n{left}"
    return wanted


async def settled(directory):
    """How the namespace looks once nothing changes any more."""
    before, now = None, picture(directory)
    while before != now:
        await asyncio.sleep(QUIET_S)
        before, now = now, picture(directory)
    return now


def run(directory, scenario, faults, wanted=None):
    """One case in a child: what went wrong, the requests that were made, and how a run without a fault ends."""
    directory.mkdir()
    told = directory / "told"

    async def body():
        lay_out()
        registry(directory, faults.backend)
        with faults.between(), hasty():
            found = await scenario(directory, faults, wanted)
        told.write_text(json.dumps([faults.seen, found]))

    wrong = inside._fork(body)
    seen, found = json.loads(told.read_text()) if not wrong else ([], None)
    return wrong, seen, found


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("scenario", [start, edit, clean_up], ids=lambda it: it.__name__)
def test_one_refused_request(tmp_path, scenario, backend):
    inside.require_root()
    wrong, seen, wanted = run(tmp_path / "0", scenario, Faults(backend=backend))
    assert not wrong, wrong
    requests, writes = Faults(seen=seen).requests, Faults(seen=seen).writes
    assert writes, "nothing was asked for"
    complaints = []
    for at, request in enumerate(requests, start=1):
        for code in ERRORS if WHOLE else (ERRORS[at % len(ERRORS)],):
            if not WHOLE and at % SAMPLE != BACKENDS.index(backend):
                continue
            if (scenario, request, code) == (clean_up, "GETLINK", errno.ENODEV):
                continue  # no failure, but the answer that there is no such device
            directory = tmp_path / f"{at}-{code}"
            wrong, seen, _ = run(directory, scenario, Faults(at, code, backend), wanted)
            if not wrong and Faults(seen=seen).writes > writes + AGAIN:
                wrong = f"{len(seen)} requests instead of {len(requests)}"
            if wrong:
                complaints.append(f"request {at}, {request}: {errno.errorcode[code]}: {wrong}")
    assert not complaints, "\n".join(complaints)
