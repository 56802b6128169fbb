"""The proof of path: a figure counts only when the system's own counters show that the bytes went through it. Pure.

Owns the comparison. Payload is what the workload saw arrive, so a system that carried it has counted at least as much,
at both ends.
"""

from bench.systems.base import Carried


def missing(forth_bytes: int, back_bytes: int, here: Carried, there: Carried) -> str:
    """What the counters lack, as a sentence; empty when all went through.

    `here` and `there` are differences over the run, of the client's side and of the server's.
    """
    if forth_bytes + back_bytes <= 0:
        return "nothing arrived"
    wanted = (
        ("sent by the client's side", forth_bytes, here.tx_bytes),
        ("received by the server's side", forth_bytes, there.rx_bytes),
        ("sent by the server's side", back_bytes, there.tx_bytes),
        ("received by the client's side", back_bytes, here.rx_bytes),
    )
    return "; ".join(
        f"{counted} of {arrived} bytes {who} went through it" for who, arrived, counted in wanted if counted < arrived
    )
