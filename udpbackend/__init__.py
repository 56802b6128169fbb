"""udpbackend: a plain-UDP overlay network for Linux, a drop-in for flannel's UDP backend."""

from importlib.metadata import version

__version__ = version("udpbackend")
