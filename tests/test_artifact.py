"""Model files: exact round trip, equal bytes, atomic writing, and one typed error for all damage and attacks."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import stat
import struct
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from random_graphs import random_graph, random_inputs, same_bits

from graphc.errors import ArgumentError, ArtifactError, GraphError
from graphc.ir.graph import Graph, Location
from graphc.ir.limits import Limits
from graphc.ir.op import Array, op_named
from graphc.ir.parse import parse_graph
from graphc.ir.text import constants_of, print_graph
from graphc.ir.types import DTYPES, TensorType, bool_, float32, float64, int64
from graphc.runtime import artifact, container
from graphc.runtime.artifact import Artifact, load, read_manifest, read_tensors, save, tensor_bytes, verify_file
from graphc.runtime.atomic import atomic_write
from graphc.runtime.reference import run_graph

SIGNATURE: dict[str, Any] = {"inputs": [{"name": "x", "type": "f32[2, 3]"}], "output": {"tuple": [0, None, 1.5, "ü"]}}
STATES = {
    "0.weight": np.arange(3, dtype=np.float32),
    "flag": np.array(True),
    "rng": np.array([1, 2]),
    "scale": np.zeros((0, 4)),
}


def model() -> Graph:
    graph = Graph("step")
    x = graph.add_input(TensorType(float32, (2, 3)), "x")
    w = graph.add_input(TensorType(float32, (3,)), "0.weight", "state")
    graph.add_input(TensorType(bool_, ()), "flag", "state")
    graph.add_input(TensorType(int64, (2,)), "rng", "state")
    graph.add_input(TensorType(float64, (0, 4)), "scale", "state")
    graph.loc, graph.module = Location(file="model.py", number=3), "0"
    y = op_named("mul")(x, w)
    big = graph.constant(np.linspace(0, 1, 40, dtype=np.float32))
    z = op_named("add")(y, op_named("slice")(big, dim=0, start=0, stop=3, step=1))
    graph.add_output(z, "y")
    graph.add_output(op_named("neg")(w), "0.weight", "state")
    return graph


@pytest.fixture
def path(tmp_path: Path) -> Path:
    target = tmp_path / "model.gcz"
    save(target, model(), STATES, SIGNATURE)
    return target


def members(path: Path) -> dict[str, bytes]:
    with open(path, "rb") as file:
        opened = container.Container(file, 1 << 30)
        return {name: opened.read(name) for name in opened.members}


def rewrite(path: Path, edit: Callable[[dict[str, bytes]], Any], seal: bool = True) -> None:
    """Edit the members; with `seal` the manifest gets their true hashes, as an attacker would write them."""
    parts = members(path)
    edit(parts)
    if seal:
        manifest = json.loads(parts["manifest.json"])
        for name in manifest["members"]:
            data = parts.get(name, b"")
            manifest["members"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}
        parts["manifest.json"] = json.dumps(manifest).encode()
    path.write_bytes(b"".join(container.pack(parts)))


def assert_equal(found: Artifact, graph: Graph) -> None:
    assert print_graph(found.graph) == print_graph(graph)
    assert sorted(found.state) == sorted(STATES)
    assert all(same_bits(found.state[k], STATES[k]) for k in STATES)


# ---------------------------------------------------------------- round trip


def test_round_trip(path: Path) -> None:
    found = load(path)
    assert_equal(found, model())
    assert found.signature == SIGNATURE
    assert found.manifest["format"] == 1 and found.manifest["numerics"] == 1
    x = np.ones((2, 3), np.float32)
    arrays = [x, *(STATES[i.name] for i in model().inputs[1:])]
    for a, b in zip(run_graph(model(), arrays), run_graph(found.graph, arrays), strict=True):
        assert same_bits(a, b)


def test_loaded_arrays_cannot_be_written(path: Path) -> None:
    with pytest.raises(ValueError, match="read-only"):
        load(path).state["0.weight"][0] = 1


@pytest.mark.parametrize("seed", range(10))
def test_random_graphs_round_trip(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    graph = random_graph(rng)
    arrays = random_inputs(rng, graph)
    state = {i.name: a for i, a in zip(graph.inputs, arrays, strict=True) if i.kind == "state"}
    save(tmp_path / "m.gcz", graph, state, {})
    found = load(tmp_path / "m.gcz")
    assert print_graph(found.graph) == print_graph(graph)
    assert all(same_bits(found.state[k], state[k]) for k in state)


def test_a_graph_without_state_or_constants(tmp_path: Path) -> None:
    graph = Graph("g")
    graph.add_output(graph.add_input(TensorType(float32, (2,)), "x"), "y")
    save(tmp_path / "m.gcz", graph, {}, {})
    assert load(tmp_path / "m.gcz").state == {}


def test_equal_contents_give_equal_bytes(path: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gcz"
    backwards = {k: np.array(STATES[k], order="F") for k in reversed(STATES)}
    identity = save(other, model(), backwards, dict(reversed(SIGNATURE.items())))
    assert other.read_bytes() == path.read_bytes()
    assert identity == load(path).id == verify_file(path) == hashlib.sha256(members(path)["manifest.json"]).hexdigest()


def test_bytes_do_not_depend_on_the_process(path: Path, tmp_path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_artifact import *\n"
        f"save({str(tmp_path / 'again.gcz')!r}, model(), STATES, SIGNATURE)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONHASHSEED": "7"})
    assert (tmp_path / "again.gcz").read_bytes() == path.read_bytes()


def test_any_zip_tool_reads_it(path: Path) -> None:
    with zipfile.ZipFile(path) as found:
        assert found.testzip() is None
        assert found.namelist() == ["manifest.json", "graph.txt", "constants.safetensors", "weights.safetensors"]
        assert all(i.compress_type == zipfile.ZIP_STORED for i in found.infolist())
        assert found.read("graph.txt").startswith(b"graph step(%x: f32[2, 3] input")


def test_id(path: Path) -> None:
    identity = verify_file(path)
    assert verify_file(path, identity.upper()) == identity
    with pytest.raises(ArtifactError, match=f"its id is {identity}, expected 00"):
        verify_file(path, "00")


def test_manifest_alone(path: Path) -> None:
    assert read_manifest(path) == load(path).manifest
    for call in (read_manifest, load):
        with pytest.raises(ArtifactError, match=r"cannot read .*No such file"):
            call(path.with_name("missing"))


# ---------------------------------------------------------------- what save refuses


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ({k: v for k, v in STATES.items() if k != "rng"}, "no tensor for the state input 'rng'"),
        ({**STATES, "more": np.zeros(1)}, "the graph has no state input 'more'"),
        ({**STATES, "rng": np.zeros(2)}, r"'rng' is f64\[2\], the graph expects i64\[2\]"),
        ({**STATES, "0.weight": np.zeros(4, np.float32)}, r"'0.weight' is f32\[4\], the graph expects f32\[3\]"),
    ],
)
def test_state_that_does_not_fit(tmp_path: Path, state: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        save(tmp_path / "m.gcz", model(), state, {})
    assert list(tmp_path.iterdir()) == []


def nested(depth: int) -> Any:
    value: Any = 0
    for _ in range(depth):
        value = [value]
    return value


@pytest.mark.parametrize(
    "signature",
    [
        {"a": (1, 2)}, {1: 2}, {"a": float("nan")}, {"a": float("inf")},
        {"a": np.zeros(2)}, {"a": b""}, {"a": nested(40)}, {"a": nested(5000)},
    ],
    ids=["tuple", "int key", "nan", "inf", "array", "bytes", "deep", "deeper"],
)  # fmt: skip
def test_signature_that_is_not_plain_json(tmp_path: Path, signature: Any) -> None:
    with pytest.raises(ArtifactError, match="the signature is not plain JSON"):
        save(tmp_path / "m.gcz", model(), STATES, signature)


def test_invalid_graphs_and_strange_dtypes_are_not_saved(tmp_path: Path) -> None:
    graph = model()
    graph.nodes.reverse()
    with pytest.raises(GraphError, match="V5"):
        save(tmp_path / "m.gcz", graph, STATES, {})
    with pytest.raises(ArgumentError, match="uint16"):
        save(tmp_path / "m.gcz", model(), {**STATES, "rng": np.zeros(2, np.uint16)}, {})


# ---------------------------------------------------------------- damage


def test_every_truncation_is_found(path: Path) -> None:
    data = path.read_bytes()
    sizes = {*range(200), *range(len(data) - 200, len(data)), *range(0, len(data), 37)}
    for size in sorted(sizes):
        path.write_bytes(data[:size])
        with pytest.raises(ArtifactError):
            load(path)


def test_every_flipped_byte_is_found(path: Path) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(0)
    places = {*range(0, len(data), 7), *range(len(data) - 400, len(data))}
    for place in sorted(places):
        changed = bytearray(data)
        changed[place] ^= int(rng.integers(1, 256))
        path.write_bytes(changed)
        with pytest.raises(ArtifactError, match=r"model\.gcz"):
            load(path)


def test_bytes_put_in_or_taken_out_are_found(path: Path) -> None:
    data = path.read_bytes()
    rng = np.random.default_rng(1)
    for _ in range(200):
        place, count = int(rng.integers(len(data))), int(rng.integers(1, 9))
        put = data[:place] + rng.bytes(count) + data[place:]
        path.write_bytes(put if rng.random() < 0.5 else data[:place] + data[place + count :])
        with pytest.raises(ArtifactError):
            load(path)


def test_flips_behind_true_hashes_are_refused_or_harmless(path: Path) -> None:
    """An attacker seals what he changed: then graph and tensors themselves must stand on their own."""
    original = path.read_bytes()
    rng = np.random.default_rng(2)

    def flip(parts: dict[str, bytes]) -> None:
        name = ("graph.txt", "constants.safetensors", "weights.safetensors")[rng.integers(3)]
        changed = bytearray(parts[name])
        changed[int(rng.integers(min(len(changed), 700)))] = int(rng.integers(32, 127))
        parts[name] = bytes(changed)

    refused = 0
    for _ in range(400):
        path.write_bytes(original)
        rewrite(path, flip)
        try:
            assert load(path).graph.nodes
        except ArtifactError:
            refused += 1
    assert refused > 200


# ---------------------------------------------------------------- attacks


def refused(path: Path, message: str, limits: Limits | None = None) -> None:
    with pytest.raises(ArtifactError) as caught:
        load(path, limits)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/passwd", "a\\b", "C:evil", "native/../../x", "A", "", "a\x00b", "x" * 300]
)
def test_member_names_that_could_escape(path: Path, name: str) -> None:
    rewrite(path, lambda parts: parts.update({name: b""}))
    refused(path, "is not the name of a member")


def test_extra_member(path: Path) -> None:
    rewrite(path, lambda parts: parts.update({"native/x.o": b"code"}))
    refused(path, "native/x.o: no such member belongs in a model")


@pytest.mark.parametrize("name", ["graph.txt", "weights.safetensors", "constants.safetensors", "manifest.json"])
def test_missing_member(path: Path, name: str) -> None:
    parts = members(path)
    del parts[name]
    path.write_bytes(b"".join(container.pack(parts)))
    refused(path, f"{name}: the member is missing")


def test_duplicate_member(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(dict[str, bytes]):
        def items(self) -> Any:
            return [*super().items(), ("graph.txt", b"other")]

    path.write_bytes(b"".join(container.pack(Twice(members(path)))))
    refused(path, "graph.txt: the member stands twice")


def test_compressed_and_encrypted_members(path: Path) -> None:
    data = path.read_bytes()
    entry = data.index(b"PK\1\2")
    for offset, value in ((10, 8), (8, 1)):
        changed = bytearray(data)
        struct.pack_into("<H", changed, entry + offset, value)
        path.write_bytes(changed)
        refused(path, "manifest.json: the member is compressed or encrypted")


def test_files_of_other_zip_writers(path: Path) -> None:
    parts = members(path)
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        with zipfile.ZipFile(path, "w", method) as file:
            for name, data in parts.items():
                file.writestr(name, data)
        refused(path, "the end of the file is not that of a model")


def test_headers_that_disagree(path: Path) -> None:
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, 14, 0)  # the checksum in the first local header
    path.write_bytes(data)
    refused(path, "manifest.json: its header differs from its entry in the directory")


def test_huge_declared_sizes_allocate_nothing(path: Path) -> None:
    data = path.read_bytes()
    entry = data.index(b"PK\1\2")
    tail = entry + 46 + len("manifest.json") + 4
    for size in (1 << 62, (1 << 64) - 1, len(data)):
        changed = bytearray(data)
        struct.pack_into("<QQ", changed, tail, size, size)
        path.write_bytes(changed)
        refused(path, "manifest.json: ")


def test_bytes_before_between_and_after(path: Path) -> None:
    data = path.read_bytes()
    for changed in (b"#!/bin/sh\n" + data, data + b"\n", data + data):
        path.write_bytes(changed)
        refused(path, "")


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    def change(parts: dict[str, bytes]) -> None:
        manifest = json.loads(parts["manifest.json"])
        edit(manifest)
        parts["manifest.json"] = json.dumps(manifest).encode()

    rewrite(path, change, seal=False)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda m: m.update(format=2), "format 2 is newer than 1, the newest that this graphc knows; upgrade graphc"),
        (lambda m: m.update(numerics=2), "manifest.json: numerics 2 is newer than 1"),
        (lambda m: m.update(format="1"), "format must be a positive integer"),
        (lambda m: m.update(format=True), "format must be a positive integer"),
        (lambda m: m.update(format=0), "format must be a positive integer"),
        (lambda m: m.pop("format"), "format must be a positive integer"),
        (lambda m: m.update(trust=True), "its keys must be"),
        (lambda m: m.pop("signature"), "its keys must be"),
        (lambda m: m.update(signature=[]), "the signature must be a JSON object"),
        (lambda m: m.update(signature=nested(40)), "nested too deep"),
        (lambda m: m.update(graphc="\x1b[31m"), "graphc must be a version"),
        (lambda m: m.update(graphc=7), "graphc must be a version"),
        (lambda m: m.update(members=[]), "members must be graph.txt"),
        (lambda m: m["members"].pop("graph.txt"), "members must be graph.txt"),
        (lambda m: m["members"].update(more={}), "members must be graph.txt"),
        (lambda m: m["members"].update({"graph.txt": None}), "graph.txt: its sha256 is not that of the manifest"),
    ],
)  # fmt: skip
def test_manifests_that_do_not_fit(path: Path, edit: Any, message: str) -> None:
    edit_manifest(path, edit)
    refused(path, message)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"format":1,"format":1}', "the key 'format' stands twice"),
        (b'{"format":NaN}', "NaN is not a JSON number"),
        (b'{"format":-Infinity}', "-Infinity is not a JSON number"),
        (b'{"format":1e999}', "1e999 is beyond float64"),
        (b"[" * 100_000 + b"]" * 100_000, "not valid JSON (RecursionError"),
        (b"[" * 50 + b"]" * 50, "nested too deep"),
        (b'{"format":' + b"9" * 10_000 + b"}", "not valid JSON (ValueError"),
        (b"{", "not valid JSON (JSONDecodeError"),
        (b"\xff", "not valid JSON (UnicodeDecodeError"),
        (b"", "not valid JSON"),
        (b"[]", "a JSON object is expected"),
        (b"null", "a JSON object is expected"),
    ],
)
def test_hostile_json(path: Path, data: bytes, message: str) -> None:
    rewrite(path, lambda parts: parts.update({"manifest.json": data}), seal=False)
    refused(path, f"manifest.json: {message}")


def replace_text(old: bytes, new: bytes) -> Callable[[dict[str, bytes]], Any]:
    def edit(parts: dict[str, bytes]) -> None:
        assert old in parts["graph.txt"]
        parts["graph.txt"] = parts["graph.txt"].replace(old, new, 1)

    return edit


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (b"mul(", b"os.system(", "unknown op 'os.system'; the file may come from a newer version of graphc"),
        (b"f32[2, 3] =", b"f32[2, 4] =", "mul gives f32[2, 3], but the text says f32[2, 4]"),
        (b"stop=3", b"stop=4000000000", "slice: "),
        (b"@c0", b"@c1", "constant 'c1' is not given"),
        (b'state "flag"', b'state "rng"', "V12"),
        (b'state "0.weight"\n', b'state "lost"\n', "V14"),
        (b"graph step", b"graph \xc3\xbc", "ascii"),
        (b'input "x"', b'input "\\u001b]8;;x"', "control characters"),
    ],
)
def test_hostile_graphs(path: Path, old: bytes, new: bytes, message: str) -> None:
    rewrite(path, replace_text(old, new))
    refused(path, "graph.txt: ")
    refused(path, message)


def tensors(header: dict[str, Any] | bytes, data: bytes = b"") -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def f32(shape: list[int], size: int) -> dict[str, Any]:
    return {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "cut short: its header is missing or longer than"),
        (struct.pack("<Q", 1 << 60), "cut short: its header is missing or longer than"),
        (tensors(b"{"), ""),
        (tensors({"w": f32([4], 8)}, b"\0" * 8), ""),
        (tensors({"w": f32([2], 8)}, b"\0" * 9), ""),
        (tensors({"w": f32([2], 8)}, b"\0" * 7), ""),
        (tensors({"w": f32([1 << 62, 1 << 62, 1 << 62], 8)}, b"\0" * 8), ""),
        (tensors({"w": f32([-1], 8)}, b"\0" * 8), ""),
        (tensors({"w": {"dtype": "U16", "shape": [1], "data_offsets": [0, 2]}}, b"\0" * 2), "'w' has dtype U16; known"),
        (tensors({"w": {"dtype": "BOOL", "shape": [1], "data_offsets": [0, 1]}}, b"\2"), "neither 0 nor 1"),
        (tensors({"\x1b[2J": f32([1], 4)}, b"\0" * 4), "control characters"),
        (tensors({"w": f32([1] * 33, 4)}, b"\0" * 4), "'w' has shape"),
        (tensors({"w": f32([1], 4)}, b"\0" * 4), "no tensor for the state input '0.weight'"),
    ],
)  # fmt: skip
def test_hostile_tensors(path: Path, data: bytes, message: str) -> None:
    rewrite(path, lambda parts: parts.update({"weights.safetensors": data}))
    refused(path, "weights.safetensors: ")
    refused(path, message)


def test_limits(path: Path) -> None:
    refused(path, "at most 1000 are accepted", Limits(file=1000))
    refused(path, "manifest.json: ", Limits(text=100))
    refused(path, "constants.safetensors: 1 tensors, at most 0", Limits(tensors=0))
    refused(path, "graph.txt: graph text", Limits(nodes=1))


def test_things_that_are_no_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for name in ("", "pipe"):
        with pytest.raises(ArtifactError):
            load(tmp_path / name)


def test_nothing_in_the_reader_can_run_code() -> None:
    for module in (artifact, container):
        text = Path(str(module.__file__)).read_text(encoding="utf-8")
        assert not [w for w in ("pickle", "eval(", "exec(", "marshal", "extractall", "importlib") if w in text]


# ---------------------------------------------------------------- writing


def test_mode_follows_the_umask(path: Path) -> None:
    old = os.umask(0o027)
    try:
        save(path, model(), STATES, SIGNATURE)
    finally:
        os.umask(old)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


@pytest.mark.parametrize("name", ["replace", "fsync", "open"])
def test_failures_leave_the_old_file(path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    before = path.read_bytes()
    real = getattr(os, name)

    def fail(*args: Any, **kwargs: Any) -> Any:
        if name == "open" and ".graphc-" not in str(args[0]):
            return real(*args, **kwargs)
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, name, fail)
    with pytest.raises(
        ArtifactError, match=rf"cannot write .*model\.gcz: No space left on device \(errno {errno.ENOSPC}\)"
    ):
        save(path, model(), STATES, {})
    monkeypatch.undo()
    assert path.read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["model.gcz"]


def test_a_write_that_fails_half_way(path: Path) -> None:
    before = path.read_bytes()

    def chunks() -> Any:
        yield b"half"
        raise OSError(errno.EIO, "Input/output error")

    with pytest.raises(OSError, match="Input/output"):
        atomic_write(path, chunks())
    assert path.read_bytes() == before and len(list(path.parent.iterdir())) == 1


def test_an_open_file_keeps_its_contents(path: Path) -> None:
    before = path.read_bytes()
    with open(path, "rb") as file:
        save(path, model(), STATES, {})
        assert file.read() == before


def test_leftovers_of_killed_writers_are_swept(path: Path) -> None:
    old, new = path.with_name(".graphc-1-a.tmp"), path.with_name(".graphc-2-b.tmp")
    for leftover in (old, new):
        leftover.write_bytes(b"x")
    os.utime(old, (time.time() - 7200,) * 2)
    save(path, model(), STATES, {})
    assert not old.exists() and new.exists()


def test_a_kill_at_any_moment_loses_nothing(path: Path) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from test_artifact import *\n"
        "print('ready', flush=True)\n"
        f"while True: save({str(path)!r}, model(), STATES, SIGNATURE)"
    )
    rng = np.random.default_rng(0)
    for _ in range(4):
        child = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
        assert child.stdout is not None and child.stdout.readline() == b"ready\n"
        time.sleep(float(rng.uniform(0, 0.1)))
        child.kill()
        child.wait()
        child.stdout.close()
        assert_equal(load(path), model())


def test_arrays_of_every_dtype_come_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    arrays: dict[str, Array] = {}
    graph = Graph("all")
    for dtype in DTYPES:
        x = np.abs(rng.standard_normal((3, 2)) * 3)
        array = (x - 1j * np.flip(x) if dtype.is_complex else x).astype(dtype.np)
        for k, value in enumerate((array, array[:0], array[0, 0])):
            arrays[f"{dtype.name}{k}"] = np.asarray(value)
            graph.add_output(graph.constant(np.asarray(value)), f"{dtype.name}{k}")
        many = np.resize(array, 100)  # kept beside the text
        graph.add_output(graph.constant(many), f"{dtype.name} many")
        graph.add_output(graph.add_input(TensorType(dtype, (3, 2)), f"{dtype.name}0", "state"), f"{dtype.name} state")
    text = print_graph(graph)
    assert print_graph(parse_graph(text, constants_of(graph))) == text
    state = {f"{d.name}0": arrays[f"{d.name}0"] for d in DTYPES}
    save(tmp_path / "m.gcz", graph, state, {})
    found = load(tmp_path / "m.gcz")
    assert print_graph(found.graph) == text
    for name, array in state.items():
        assert same_bits(found.state[name], array), name
    back = read_tensors("tensors", tensor_bytes(arrays), Limits())
    for name, array in arrays.items():
        assert same_bits(back[name], array) and back[name].shape == array.shape, name


@pytest.mark.parametrize(
    ("listed", "message"),
    [("[1]", "must be a list of names"), ("{", "graphc.complex128"), ('["x"]', "'x' is complex128, but no pairs")],
)
def test_a_list_of_complex_tensors_that_does_not_fit(listed: str, message: str) -> None:
    data = tensor_bytes({"x": np.zeros(3)}, {"graphc.complex128": listed})
    with pytest.raises(ArtifactError, match=message):
        read_tensors("tensors", data, Limits())
