"""What was delegated for a container, kept until its DEL: `<dataDir>/<container id>`.

Owns these files: a reader finds a whole one or none, and what is reported as kept is on the disk. Their content is the
delegated configuration as it was handed over, which this file never looks into.
"""

from __future__ import annotations

import os
from contextlib import suppress


def save(data_dir: str, container: str, conf: bytes) -> None:
    """Keeps the configuration; directory mode 0700, file mode 0600. Raises OSError."""
    os.makedirs(data_dir, mode=0o700, exist_ok=True)
    temp = os.path.join(data_dir, f".new-{os.getpid()}")  # no container's id begins with a dot
    try:
        _write(temp, conf)
        os.replace(temp, os.path.join(data_dir, container))
    except BaseException:
        with suppress(OSError):
            os.unlink(temp)
        raise
    _sync(data_dir)


def load(data_dir: str, container: str) -> bytes | None:
    """What was kept, None if nothing is. Raises OSError."""
    try:
        with open(os.path.join(data_dir, container), "rb") as file:
            return file.read()
    except FileNotFoundError:
        return None


def containers(data_dir: str) -> list[str]:
    """For which something is kept. Raises OSError."""
    try:
        return [name for name in os.listdir(data_dir) if not name.startswith(".")]
    except FileNotFoundError:
        return []


def remove(data_dir: str, container: str) -> None:
    """Forgets it. That it cannot be removed is no error: the pod is gone all the same."""
    with suppress(OSError):
        os.unlink(os.path.join(data_dir, container))


def _write(path: str, data: bytes) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW
    with open(path, "wb", opener=lambda name, _: os.open(name, flags, 0o600)) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _sync(directory: str) -> None:
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
