"""Builds the extension module udpbackend._native from every C file beside this one.

Owns the way from `udpb.h` to Python: the part of the header between the two cffi marks is the cdef,
so no second copy of an interface exists. Compiler flags stand in flags.txt, which the Makefile reads too.
"""

import re
from pathlib import Path

from cffi import FFI

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
MARKED = re.compile(r"/\* cffi: begin \*/(.*?)/\* cffi: end \*/", re.DOTALL)


def interface() -> str:
    """The public C interface, as cffi reads it."""
    found = MARKED.search((HERE / "udpb.h").read_text())
    if found is None:
        raise SystemExit("native/udpb.h: no region between '/* cffi: begin */' and '/* cffi: end */'")
    return found.group(1)


ffibuilder = FFI()
ffibuilder.cdef(interface())
ffibuilder.set_source(
    "udpbackend._native",
    '#include "udpb.h"',
    sources=[str(path.relative_to(ROOT)) for path in sorted(HERE.glob("*.c"))],
    depends=[str(path.relative_to(ROOT)) for path in sorted(HERE.glob("*.h"))],
    include_dirs=[str(HERE)],
    py_limited_api=True,
    extra_compile_args=(HERE / "flags.txt").read_text().split(),
)
