"""The object cache on disk. One entry is one file: magic, key, payload length, payload sha256, payload.

An entry is written to a temporary file in the same folder and renamed over its name, so that a reader sees all of it
or none, and no lock is needed between processes. Every byte is checked on reading; what does not fit is deleted and
counts as absent. No failure of the cache reaches the caller: it is logged at debug level and the work is done again.
The folder must belong to this user and must not be writable by others: its files are run as code.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import stat
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from graphc.config import config

FORMAT = b"GCOBJ\x00\x00\x01"  # the last byte is the format version
MAX_BYTES = 1 << 30

_HEADER = struct.Struct("<8s32sQ32s")
_SUFFIX = ".gco"
_ENTRY = re.compile(r"[0-9a-f]{64}\.gco")
_TEMPORARY = ".tmp-"
_STALE_SECONDS = 3600.0
_TOUCH_SECONDS = 86400.0
_SCAN_EVERY = 64  # writes of this process, at least; of a large cache one write in an eighth of its entries


def _note(message: str, *parts: object) -> None:
    import logging  # seldom needed, and 3 ms to import

    logging.getLogger("graphc.cache").debug(message, *parts)


def key_of(*parts: str) -> bytes:
    """The 32-byte key of an entry: a hash of all that its content depends on, and of the format version."""
    digest = hashlib.sha256(FORMAT)
    for part in parts:
        data = part.encode()
        digest.update(struct.pack("<Q", len(data)))  # lengths keep ("ab", "c") and ("a", "bc") apart
        digest.update(data)
    return digest.digest()


def pack(key: bytes, payload: bytes) -> bytes:
    """An entry file."""
    return _HEADER.pack(FORMAT, key, len(payload), hashlib.sha256(payload).digest()) + payload


def unpack(key: bytes, data: bytes) -> bytes | None:
    """The payload of an entry file, or None if anything about it does not fit."""
    if len(data) < _HEADER.size:
        return None
    magic, found, length, digest = _HEADER.unpack_from(data)
    payload = data[_HEADER.size :]
    if magic != FORMAT or found != key or length != len(payload):
        return None
    return payload if hashlib.sha256(payload).digest() == digest else None


@dataclass(frozen=True, slots=True)
class CacheInfo:
    """What is on disk."""

    folder: Path
    entries: int
    nbytes: int


class ObjectCache:
    """The cache in one folder, at most `max_bytes` large. Safe to use from many threads and processes at once."""

    def __init__(self, folder: Path, max_bytes: int = MAX_BYTES) -> None:
        self.folder = folder
        self.max_bytes = max_bytes
        self._unscanned = 0  # writes until the next look at the whole folder

    @classmethod
    def from_config(cls) -> ObjectCache | None:
        """The cache the settings ask for, or None where they switch it off."""
        return cls(config.cache_dir / "objects") if config.cache else None

    def get(self, key: bytes) -> bytes | None:
        """The payload stored under `key`, or None."""
        payload = None
        with _quietly("read"), self._open_folder(create=False) as folder:
            payload = self._read(folder, key)
        return payload  # noqa: RET504  (the block above may end early without an exception)

    def put(self, key: bytes, payload: bytes) -> None:
        """Store `payload` under `key`, if that can be done."""
        with _quietly("write"), self._open_folder(create=True) as folder:
            _write(folder, _name(key), pack(key, payload))
            if self._unscanned <= 0:
                self._unscanned = max(_SCAN_EVERY, self._evict(folder) // 8)
            self._unscanned -= 1

    def info(self) -> CacheInfo:
        """The number of entries and their bytes."""
        found: list[os.stat_result] = []
        with _quietly("scan"), self._open_folder(create=False) as folder:
            found = [status for _, status in _entries(folder)]
        return CacheInfo(self.folder, len(found), sum(s.st_size for s in found))

    def verify(self) -> int:
        """Check every entry, delete the bad ones, and return how many there were."""
        bad = 0
        with _quietly("verify"), self._open_folder(create=False) as folder:
            for name, _ in list(_entries(folder)):
                bad += self._read(folder, bytes.fromhex(name.removesuffix(_SUFFIX))) is None
        return bad

    def clear(self) -> None:
        """Delete every entry."""
        with _quietly("clear"), self._open_folder(create=False) as folder:
            for name, _ in list(_entries(folder)):
                _remove(folder, name)

    @contextlib.contextmanager
    def _open_folder(self, create: bool) -> Iterator[int]:
        """A descriptor of the folder, checked; all files are reached through it, so the folder cannot be swapped."""
        if create:
            self.folder.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with contextlib.suppress(FileExistsError):
                self.folder.mkdir(mode=0o700)
        folder = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            status = os.fstat(folder)
            if status.st_uid != os.getuid() or status.st_mode & 0o022:
                raise PermissionError(f"{self.folder} is not ours alone")
            yield folder
        finally:
            os.close(folder)

    def _read(self, folder: int, key: bytes) -> bytes | None:
        name = _name(key)
        try:
            descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=folder)
        except FileNotFoundError:
            return None
        except OSError:  # a symbolic link
            _remove(folder, name)
            raise
        try:
            payload = _payload(descriptor, key)
        finally:
            os.close(descriptor)
        if payload is None:
            _note("cache entry %s is damaged; deleted", name)
            _remove(folder, name)
        return payload

    def _evict(self, folder: int) -> int:
        """Remove the oldest entries beyond the bound; how many entries there were."""
        now = time.time()
        for name in os.listdir(folder):
            if name.startswith(_TEMPORARY) and _older(folder, name, now - _STALE_SECONDS):
                _remove(folder, name)  # left by a process that was killed
        entries = sorted(_entries(folder), key=lambda entry: (entry[1].st_mtime_ns, entry[0]))
        total = sum(status.st_size for _, status in entries)
        if total > self.max_bytes:
            for name, status in entries:
                if total <= self.max_bytes * 4 // 5:
                    break
                _remove(folder, name)
                total -= status.st_size
        return len(entries)


def _name(key: bytes) -> str:
    return key.hex() + _SUFFIX


def _entries(folder: int) -> Iterator[tuple[str, os.stat_result]]:
    for name in sorted(os.listdir(folder)):
        if _ENTRY.fullmatch(name):
            with contextlib.suppress(FileNotFoundError):
                yield name, os.stat(name, dir_fd=folder, follow_symlinks=False)


def _payload(descriptor: int, key: bytes) -> bytes | None:
    status = os.fstat(descriptor)
    if not stat.S_ISREG(status.st_mode) or status.st_uid != os.getuid() or status.st_mode & 0o022:
        return None
    with open(descriptor, "rb", closefd=False) as file:
        payload = unpack(key, file.read())
    if payload is not None and time.time() - status.st_mtime > _TOUCH_SECONDS:
        os.utime(descriptor)  # so that eviction, which goes by time, keeps what is used
    return payload


def _older(folder: int, name: str, moment: float) -> bool:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime < moment
    except FileNotFoundError:
        return False


def _write(folder: int, name: str, data: bytes) -> None:
    temporary = f"{_TEMPORARY}{os.getpid()}-{os.urandom(8).hex()}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=folder)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, name, src_dir_fd=folder, dst_dir_fd=folder)
    except BaseException:
        _remove(folder, temporary)
        raise


def _remove(folder: int, name: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(name, dir_fd=folder)


@contextlib.contextmanager
def _quietly(action: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        pass  # no cache yet
    except OSError as error:
        _note("cache %s failed: %s", action, error)
