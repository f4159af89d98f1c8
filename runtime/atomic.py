"""Writing a file so that a crash at any moment leaves the old one or the new one, never a part."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

_PREFIX, _SUFFIX = ".graphc-", ".tmp"
_STALE_SECONDS = 3600.0


def atomic_write(path: str | os.PathLike[str], chunks: Iterable[bytes]) -> None:
    """Write `chunks` to a new file in the folder of `path`, flush it to the disk, and rename it to `path`.

    The mode comes from the umask. A file that others hold open or mapped under this name stays as it is. Raises
    OSError; then the old file is intact and the new one is removed.
    """
    target = Path(path)
    sweep(target.parent)
    temporary = target.parent / f"{_PREFIX}{os.getpid()}-{os.urandom(6).hex()}{_SUFFIX}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o666)
    try:
        with open(descriptor, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Make a rename in `folder` last through a power failure, where the system can."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove what writers killed more than an hour ago left in `folder`."""
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith(_PREFIX) and entry.name.endswith(_SUFFIX):
                _remove_stale(entry)


def _remove_stale(entry: os.DirEntry[str]) -> None:
    with contextlib.suppress(OSError):
        if time.time() - entry.stat(follow_symlinks=False).st_mtime > _STALE_SECONDS:
            os.unlink(entry.path)
