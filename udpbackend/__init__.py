"""udpbackend: a plain-UDP overlay network for Linux, a drop-in for flannel's UDP backend."""


def __getattr__(name: str) -> str:
    """`__version__`, looked up when it is asked for: the CNI plugin starts a thousand times and never asks."""
    if name != "__version__":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib.metadata import version  # noqa: PLC0415 25 ms that only those pay who want to know

    return version("udpbackend")
