"""The plugin as one file: a shell header that looks for the host's python3, and a zip archive behind it.

Python runs a zip archive that has something in front of it, so the file needs nothing else and nothing is unpacked.
Owns the file's bytes, which depend on nothing but the sources and the version; does not know where it goes.
"""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

HEADER = """\
#!/bin/sh
# The CNI plugin of udp-backend: behind this header stands a zip archive of Python files.
command -v python3 >/dev/null 2>&1 && exec python3 -I -S "$0" "$@"
printf '{\\n    "code": 999,\\n    "msg": "%s"\\n}' \\
    "the CNI plugin of udp-backend needs python3 3.9 or newer on this host: there is none on its PATH"
exit 1
"""

PACKAGE = Path(__file__).parent
EPOCH = (1980, 1, 1, 0, 0, 0)
"""The earliest a zip archive knows."""


def build(version: str) -> bytes:
    """The file's content; it tells `version` as its own."""
    sources = {path.name: path.read_bytes() for path in sorted(PACKAGE.glob("*.py")) if path != Path(__file__)}
    entry = sources.pop("__main__.py")
    members = {"__main__.py": entry, "udpbackend/__init__.py": f"__version__ = {version!r}\n".encode()}
    members |= {f"udpbackend/cni/{name}": source for name, source in sources.items()}
    file = io.BytesIO()
    file.write(HEADER.encode())
    # Stored, not compressed: that is a library less to load at each start.
    with zipfile.ZipFile(file, "a", zipfile.ZIP_STORED) as archive:
        for name, source in members.items():
            archive.writestr(zipfile.ZipInfo(name, EPOCH), source)
    return file.getvalue()
