"""What tests in a process and a namespace of their own rely on."""

import gc
import os

from inside import in_namespace


def test_what_other_tests_left_is_not_collected_there():
    """Objects of gRPC, of another file, crashed the process: they need threads that only the parent has."""
    collected_in = []

    class Left:
        def __del__(self):
            collected_in.append(os.getpid())

    left = Left()
    left.itself = left
    del left

    @in_namespace
    def body():
        gc.collect()
        assert os.getpid() not in collected_in

    body()
