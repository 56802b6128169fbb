"""Runs a test in a network namespace of its own, in a forked child: nothing it does reaches this host.

Owns the child, the namespace (gone with the child, and every device in it) and the check that nothing was left open or
raised in the background. Must not know topologies; a test that needs several hosts has its own tools.
"""

import asyncio
import ctypes
import functools
import gc
import inspect
import json
import os
import signal
import subprocess
import sys
import threading
import traceback

import pytest
import uvloop

CLONE_NEWNET = 0x40000000
CHILD_S = 60
SOON_S = 10
"""For what happens at once, if only the machine has a moment for it."""


def require_root():
    """Skips the test with what is missing."""
    missing = []
    if os.geteuid() != 0:
        missing.append("root")
    if not os.path.exists("/dev/net/tun"):  # noqa: PTH110 a device, not a file of ours
        missing.append("/dev/net/tun")
    if missing:
        reason = f"needs {' and '.join(missing)}"
        pytest.skip(reason)


def in_namespace(test):
    """Decorates a test, async (then it runs on uvloop) or not, that is to run in a namespace of its own."""

    @functools.wraps(test)
    def run(*args, **kwargs):
        require_root()
        report = _fork(functools.partial(test, *args, **kwargs))
        if report:
            pytest.fail(report, pytrace=False)

    return run


def ip(*words):
    """What the ip program prints for these words, parsed where they begin with -j."""
    done = subprocess.run(["ip", *map(str, words)], check=True, capture_output=True, text=True)
    return json.loads(done.stdout or "[]") if words[0] == "-j" else done.stdout


async def until(condition, seconds=SOON_S):
    """Waits until `condition()` holds; it may be a coroutine function."""
    async with asyncio.timeout(seconds):
        while True:
            found = condition()
            if await found if inspect.isawaitable(found) else found:
                return
            await asyncio.sleep(0.01)


def _fork(body):
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        gc.freeze()  # what other tests left may have had threads, as gRPC's do, and must not be collected without them
        os.close(read)
        report = _guarded(body)
        with os.fdopen(write, "w", encoding="utf-8") as pipe:
            pipe.write(report)
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)
    os.close(write)
    with os.fdopen(read, encoding="utf-8") as pipe:
        report = pipe.read()
    _, status = os.waitpid(child, 0)
    return report or (f"the test's process ended with status {status}" if status else "")


def _guarded(body):
    """Runs the body in a fresh namespace; the traceback of whatever went wrong, or an empty text."""
    unraisable = []
    libc = ctypes.CDLL(None, use_errno=True)
    sys.unraisablehook = lambda found: unraisable.append(f"{found.err_msg or ''} {found.object!r}: {found.exc_value!r}")
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.alarm(CHILD_S)
    try:
        assert libc.unshare(CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        if inspect.iscoroutinefunction(getattr(body, "func", body)):
            uvloop.run(body())
        else:
            body()
        gc.collect()
        threads = [thread.name for thread in threading.enumerate() if thread is not threading.main_thread()]
        if threads or unraisable:
            return f"left behind: threads {threads}, unraisable errors {unraisable}"
    except BaseException:  # noqa: BLE001 all of it belongs into the report
        return traceback.format_exc()
    return ""
