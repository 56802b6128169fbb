"""Large blocks go back to the system: seen in a process of its own, because glibc's habit cannot be unlearnt."""

import subprocess
import sys

import pytest

BLOCK_BYTES = 8 << 20
PROGRAM = f"""
import ctypes, sys
from udpbackend.memory import keep_large_blocks_apart
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p
libc.malloc.argtypes, libc.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
if sys.argv[1] == "apart":
    keep_large_blocks_apart()
libc.free(libc.malloc(3 * {BLOCK_BYTES}))  # from now on glibc takes such a block for an ordinary one
block = libc.malloc({BLOCK_BYTES})
ctypes.memset(block, 1, {BLOCK_BYTES})
above = libc.malloc(100000)  # what is freed below it stays
before = int(open("/proc/self/statm").read().split()[1])
libc.free(block)
print((before - int(open("/proc/self/statm").read().split()[1])) * 4096)
"""


@pytest.mark.parametrize(("how", "given_back"), [("apart", True), ("as it is", False)])
def test_a_large_block_is_given_back(how, given_back):
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True, check=True)
    assert (int(done.stdout) > BLOCK_BYTES / 2) == given_back
