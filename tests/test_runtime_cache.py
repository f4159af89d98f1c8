"""The object cache under faults: whatever is on disk, the answer is right or absent, and nothing raises."""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from graphc.runtime import cache as module
from graphc.runtime.cache import ObjectCache, key_of, pack, unpack
from graphc.runtime.code import KernelLibrary
from tests.runtime_kernels import HostTarget, host_target

KEY, OTHER = key_of("a"), key_of("b")
PAYLOAD = bytes(range(256)) * 4


@pytest.fixture
def store(tmp_path: Path) -> ObjectCache:
    made = ObjectCache(tmp_path / "parent" / "objects")
    made.put(KEY, PAYLOAD)
    return made


def entry(store: ObjectCache) -> Path:
    (found,) = store.folder.iterdir()
    return found


def test_round_trip_and_modes(store: ObjectCache) -> None:
    assert store.get(KEY) == PAYLOAD
    assert store.get(OTHER) is None
    assert store.folder.stat().st_mode & 0o777 == 0o700
    assert store.folder.parent.stat().st_mode & 0o777 == 0o700
    assert entry(store).stat().st_mode & 0o777 == 0o600
    assert store.info().entries == 1 and store.info().nbytes == entry(store).stat().st_size


def test_keys_keep_their_parts_apart() -> None:
    assert len({key_of("ab", "c"), key_of("a", "bc"), key_of("abc"), key_of("abc", "")}) == 4


def test_every_truncation_and_every_flipped_byte_is_refused() -> None:
    data = pack(KEY, b"payload of an entry")
    assert unpack(KEY, data) == b"payload of an entry"
    assert all(unpack(KEY, data[:n]) is None for n in range(len(data)))
    assert unpack(KEY, data + b"\0") is None
    for k in range(len(data)):
        assert unpack(KEY, data[:k] + bytes([data[k] ^ 1]) + data[k + 1 :]) is None


@pytest.mark.parametrize("damage", [b"", b"short", pack(OTHER, PAYLOAD), pack(KEY, PAYLOAD)[:-1]])
def test_a_damaged_entry_is_deleted_and_written_anew(store: ObjectCache, damage: bytes) -> None:
    entry(store).write_bytes(damage)
    assert store.get(KEY) is None
    assert not list(store.folder.iterdir())
    store.put(KEY, PAYLOAD)
    assert store.get(KEY) == PAYLOAD


def test_a_symbolic_link_is_not_followed(store: ObjectCache, tmp_path: Path) -> None:
    target = tmp_path / "target"
    target.write_bytes(pack(KEY, PAYLOAD))
    path = entry(store)
    path.unlink()
    path.symlink_to(target)
    assert store.get(KEY) is None and not path.is_symlink()
    path.symlink_to(target)
    store.put(KEY, b"new")
    assert target.read_bytes() == pack(KEY, PAYLOAD)  # replaced the link, not what it points to
    assert store.get(KEY) == b"new"


@pytest.mark.parametrize("mode", [0o777, 0o770, 0o702])
def test_a_folder_others_can_write_is_not_used(store: ObjectCache, mode: int) -> None:
    store.folder.chmod(mode)
    assert store.get(KEY) is None
    store.put(OTHER, PAYLOAD)
    assert len(list(store.folder.iterdir())) == 1
    store.folder.chmod(0o700)
    assert store.get(KEY) == PAYLOAD


def test_an_entry_others_can_write_is_not_used(store: ObjectCache) -> None:
    entry(store).chmod(0o666)
    assert store.get(KEY) is None


def test_a_folder_of_someone_else_is_not_used(store: ObjectCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "getuid", lambda: os.stat(store.folder).st_uid + 1)
    assert store.get(KEY) is None


@pytest.mark.parametrize("name", ["open", "replace", "mkdir"])
def test_failing_system_calls_only_lose_the_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store = ObjectCache(tmp_path / "objects")
    with monkeypatch.context() as patch:
        patch.setattr(os, name, _fail)
        store.put(KEY, PAYLOAD)
        assert store.get(KEY) is None
    assert not store.folder.exists() or not list(store.folder.iterdir())
    store.put(KEY, PAYLOAD)
    assert store.get(KEY) == PAYLOAD


def _fail(*_: object, **__: object) -> None:
    raise OSError(28, "No space left on device")


def test_a_read_only_or_odd_place_works_without_a_cache(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    for folder in (file, file / "below", Path("/proc/nothing/here")):
        store = ObjectCache(folder)
        store.put(KEY, PAYLOAD)
        assert store.get(KEY) is None
        store.clear()
        assert store.info().entries == 0


def test_eviction_by_age_and_stale_temporaries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SCAN_EVERY", 1)
    store = ObjectCache(tmp_path / "objects", max_bytes=10 * len(pack(KEY, PAYLOAD)))
    keys = [key_of(str(k)) for k in range(10)]
    for k, key in enumerate(keys):
        store.put(key, PAYLOAD)
        os.utime(store.folder / f"{key.hex()}.gco", (1000 + k, 1000 + k))
    stale, young = store.folder / ".tmp-1-aa", store.folder / ".tmp-1-bb"
    stale.write_bytes(b"x")
    young.write_bytes(b"x")
    os.utime(stale, (1000, 1000))
    store.put(key_of("new"), PAYLOAD)
    left = [store.get(key) is not None for key in keys]
    assert left == [False] * 3 + [True] * 7
    assert store.get(key_of("new")) == PAYLOAD
    assert not stale.exists() and young.exists()


def test_reading_an_old_entry_marks_it_as_used(store: ObjectCache) -> None:
    os.utime(entry(store), (1000, 1000))
    assert store.get(KEY) == PAYLOAD
    assert time.time() - entry(store).stat().st_mtime < 60


def test_verify_and_clear(store: ObjectCache) -> None:
    store.put(OTHER, PAYLOAD)
    entry_path = store.folder / f"{OTHER.hex()}.gco"
    entry_path.write_bytes(entry_path.read_bytes()[:-1])
    assert store.verify() == 1 and store.verify() == 0
    assert store.get(KEY) == PAYLOAD
    store.clear()
    assert store.info().entries == 0


@pytest.mark.parametrize("name", ["z" * 64, "ab " * 21 + "a", "A" * 64])
def test_files_that_are_no_entries_are_left_alone(store: ObjectCache, name: str) -> None:
    other = store.folder / f"{name}.gco"
    other.write_bytes(b"not ours")
    assert store.verify() == 0 and store.info().entries == 1
    store.clear()
    assert list(store.folder.iterdir()) == [other]


def test_damaged_object_files_never_reach_llvm(tmp_path: Path) -> None:
    def emit(_: HostTarget) -> str:
        return "define i64 @f() nounwind {\n  ret i64 42\n}\n"

    for cut in (None, 100, 300, 0):
        kernels = KernelLibrary(ObjectCache(tmp_path / "objects"))
        (code,) = kernels.load([("k", "f", emit)], host_target())
        assert ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)() == 42
        assert kernels.compiled == 1
        (path,) = (tmp_path / "objects").iterdir()
        data = path.read_bytes()
        path.write_bytes(data[: len(data) - 1 if cut is None else cut])


RACE = """
import ctypes, sys
from pathlib import Path
from graphc.runtime.cache import ObjectCache
from graphc.runtime.code import KernelLibrary
from tests.runtime_kernels import host_target

def emit(value):
    return lambda _: f"define i64 @f{value}() nounwind {{\\n  ret i64 {value}\\n}}\\n"

kernels = KernelLibrary(ObjectCache(Path(sys.argv[1])))
for value in range(20):
    (code,) = kernels.load([(f"k{value}", f"f{value}", emit(value))], host_target())
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)() == value
"""


def test_odd_entries_are_absent_and_no_descriptor_stays_open(store: ObjectCache) -> None:
    def descriptors() -> int:
        return len(os.listdir("/proc/self/fd"))

    path = entry(store)
    path.unlink()
    before = descriptors()
    for make in (os.mkfifo, os.mkdir):
        make(path)
        assert store.get(KEY) is None
    store.put(KEY, PAYLOAD)  # cannot replace the folder
    assert store.get(KEY) is None and store.get(OTHER) is None
    store.put(OTHER, PAYLOAD)
    assert store.get(OTHER) == PAYLOAD
    assert descriptors() == before
    assert sorted(p.name[-4:] for p in store.folder.iterdir()) == [".gco", ".gco"]  # no temporary file either


def test_processes_racing_on_a_cold_cache(tmp_path: Path) -> None:
    command = [sys.executable, "-c", RACE, str(tmp_path / "objects")]
    racers = [subprocess.Popen(command, cwd=Path(__file__).parent.parent) for _ in range(4)]
    assert [racer.wait(60) for racer in racers] == [0] * 4
    store = ObjectCache(tmp_path / "objects")
    assert store.verify() == 0 and store.info().entries == 20
    assert len(list(store.folder.iterdir())) == 20


def test_a_large_cache_is_looked_through_seldom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looks: list[int] = []
    entries = 0
    monkeypatch.setattr(ObjectCache, "_evict", lambda self, folder: looks.append(folder) or entries)
    for entries, wanted in ((0, 4), (8 * 128, 2), (10**6, 1)):  # the first write looks
        looks.clear()
        cache = ObjectCache(tmp_path / f"of {entries}")
        for k in range(4 * 64):
            cache.put(key_of(str(k % 3)), PAYLOAD)
        assert len(looks) == wanted
