# The compiled extension: cffi's objects, whose interface is the marked region of native/udpb.h.
from typing import Any

ffi: Any
lib: Any
