"""`model.gcz`: a graph with its weights in one file. A file is data: reading one runs nothing from it.

One ZIP of stored members (runtime/container.py): `manifest.json` (format and numerics version, signature, size and
sha256 of each member), `graph.txt` (ir/text.py), `constants.safetensors` (arrays that the text only names) and
`weights.safetensors` (one tensor for each state input, under its name). Whatever is wrong with a file, the only error
is ArtifactError, and it names the member.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

import numpy as np

from graphc.errors import ArtifactError, GraphcError, MissingFileError
from graphc.ir.graph import Graph
from graphc.ir.limits import Limits, legal_name
from graphc.ir.op import Array
from graphc.ir.parse import HOSTILE, parse_graph
from graphc.ir.text import constants_of, print_graph
from graphc.ir.types import (
    DType,
    TensorType,
    bfloat16,
    bool_,
    complex64,
    complex128,
    dtype_of,
    float16,
    float32,
    float64,
    int8,
    int16,
    int32,
    int64,
    uint8,
)
from graphc.ir.verify import verify
from graphc.runtime.atomic import atomic_write
from graphc.runtime.container import Container, pack

FORMAT = 1
NUMERICS = 1

MANIFEST, GRAPH, CONSTANTS, WEIGHTS = "manifest.json", "graph.txt", "constants.safetensors", "weights.safetensors"
_MEMBERS = (GRAPH, CONSTANTS, WEIGHTS)
_MANIFEST_KEYS = ("format", "graphc", "members", "numerics", "signature")
_DTYPES: dict[str, DType] = {
    "BOOL": bool_, "U8": uint8, "I8": int8, "I16": int16, "I32": int32, "I64": int64,
    "F16": float16, "BF16": bfloat16, "F32": float32, "F64": float64, "C64": complex64,
}  # fmt: skip
_PAIRS = "graphc.complex128"  # metadata: names of the tensors that are pairs of float64, a type safetensors has not


@dataclass(frozen=True, slots=True)
class Artifact:
    """What a model file holds. `id` is the sha256 of its manifest, and so of everything in it."""

    graph: Graph
    state: dict[str, Array]
    manifest: dict[str, Any]
    id: str

    @property
    def signature(self) -> dict[str, Any]:
        """The signature given to `save`: plain JSON, checked for size and depth only."""
        signature: dict[str, Any] = self.manifest["signature"]
        return signature


def save(
    path: str | os.PathLike[str],
    graph: Graph,
    state: Mapping[str, Array],
    signature: Mapping[str, Any],
    limits: Limits | None = None,
) -> str:
    """Write a model file atomically and return its id. Equal arguments give equal bytes.

    `state` holds an array for each state input of `graph`, by name; `signature` is plain JSON.
    Raises GraphError for an invalid graph, ArtifactError for state or signature that do not fit and when writing fails.
    """
    verify(graph)
    check_state(graph, state)
    members = {
        GRAPH: print_graph(graph).encode("ascii"),
        CONSTANTS: tensor_bytes(constants_of(graph)),
        WEIGHTS: tensor_bytes(state),
    }
    manifest = _manifest_bytes(members, signature, limits or Limits())
    try:
        atomic_write(path, pack({MANIFEST: manifest, **members}))
    except OSError as error:
        raise ArtifactError(
            f"cannot write {os.fspath(path)}: {error.strerror or error} (errno {error.errno})"
        ) from error
    return hashlib.sha256(manifest).hexdigest()


def load(path: str | os.PathLike[str], limits: Limits | None = None) -> Artifact:
    """Read a model file: checksums, graph, types inferred again, weights. Arrays come read-only.

    Raises ArtifactError, naming path and member, for anything that is not a whole, unaltered model of this or an
    older format.
    """
    limits = limits or Limits()
    try:
        with open(path, "rb", opener=_open_file) as file:
            return _load(Container(file, min(limits.file, _memory_limit())), limits)
    except OSError as error:
        raise _unreadable(path, error) from error
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(path)}: {error}") from error
    except MemoryError as error:
        raise ArtifactError(f"{os.fspath(path)}: not enough memory to read it") from error


def verify_file(path: str | os.PathLike[str], sha256: str | None = None, limits: Limits | None = None) -> str:
    """Check a model file as `load` does, and that its id is `sha256` if given. Returns the id. Raises ArtifactError."""
    found = load(path, limits).id
    if sha256 is not None and sha256.lower() != found:
        raise ArtifactError(f"{os.fspath(path)}: its id is {found}, expected {sha256}")
    return found


def read_manifest(path: str | os.PathLike[str], limits: Limits | None = None) -> dict[str, Any]:
    """The manifest alone, without reading graph or weights. Raises ArtifactError as `load` does."""
    limits = limits or Limits()
    try:
        with open(path, "rb", opener=_open_file) as file:
            return _read_manifest(Container(file, limits.file), limits)[0]
    except OSError as error:
        raise _unreadable(path, error) from error
    except ArtifactError as error:
        raise ArtifactError(f"{os.fspath(path)}: {error}") from error


def _unreadable(path: str | os.PathLike[str], error: OSError) -> ArtifactError:
    kind = MissingFileError if isinstance(error, FileNotFoundError) else ArtifactError
    return kind(f"cannot read {os.fspath(path)}: {error.strerror or error}")


def _open_file(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a named pipe must not wait for a writer


def _memory_limit() -> int:
    """Four fifths of the machine's memory: a larger file could not be used."""
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 5 * 4


def _load(container: Container, limits: Limits) -> Artifact:
    manifest, identity = _read_manifest(container, limits)
    extra = [m for m in container.members if m not in (MANIFEST, *_MEMBERS)]
    if extra:
        raise ArtifactError(f"{extra[0]}: no such member belongs in a model")
    constants = read_tensors(CONSTANTS, _checked(container, CONSTANTS, manifest), limits)
    graph = _graph(_checked(container, GRAPH, manifest), constants, limits)
    state = read_tensors(WEIGHTS, _checked(container, WEIGHTS, manifest), limits)
    check_state(graph, state, f"{WEIGHTS}: ")
    return Artifact(graph, state, manifest, identity)


def _checked(container: Container, name: str, manifest: Mapping[str, Any]) -> bytes:
    """A member whose size and sha256 are those of the manifest."""
    if name not in container.members:
        raise ArtifactError(f"{name}: the member is missing")
    stated = manifest["members"].get(name)
    data = container.read(name)
    if stated != _fingerprint(data):
        raise ArtifactError(f"{name}: its sha256 is not that of the manifest; the file is damaged or altered")
    return data


def _fingerprint(data: bytes) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(data).hexdigest(), "size": len(data)}


def _graph(data: bytes, constants: Mapping[str, Array], limits: Limits) -> Graph:
    if len(data) > limits.text:
        raise ArtifactError(f"{GRAPH}: {len(data)} bytes, at most {limits.text} are accepted")
    try:
        graph = parse_graph(data.decode("ascii"), constants, limits)
        verify(graph)
    except (GraphcError, *HOSTILE) as error:
        raise ArtifactError(f"{GRAPH}: {error}") from error
    return graph


def check_state(graph: Graph, state: Mapping[str, Array], where: str = "") -> None:
    """Raises ArtifactError unless `state` has exactly one array of the right type for each state input of `graph`."""
    wanted = {i.name: i.value.type for i in graph.inputs if i.kind == "state"}
    for name, type in wanted.items():
        if name not in state:
            raise ArtifactError(f"{where}no tensor for the state input {name!r}")
        array = state[name]
        found = TensorType(dtype_of(array.dtype), array.shape)
        if found is not type:
            raise ArtifactError(f"{where}{name!r} is {found}, the graph expects {type}")
    extra = [name for name in state if name not in wanted]
    if extra:
        raise ArtifactError(f"{where}the graph has no state input {extra[0]!r}")


# ---------------------------------------------------------------- tensors


def tensor_bytes(arrays: Mapping[str, Array], metadata: dict[str, str] | None = None) -> bytes:
    """Arrays as a safetensors file. Equal contents give equal bytes, whatever the order of the mapping."""
    import safetensors.numpy

    in_order = {name: np.array(arrays[name], order="C") for name in sorted(arrays)}
    pairs = [name for name, array in in_order.items() if array.dtype == complex128.np]
    for name in pairs:
        in_order[name] = in_order[name].reshape(*arrays[name].shape, 1).view(np.float64)
    if pairs:
        metadata = {**(metadata or {}), _PAIRS: json.dumps(pairs)}
    return bytes(safetensors.numpy.save(in_order, metadata))


def read_tensors(member: str, data: bytes, limits: Limits) -> dict[str, Array]:
    """The arrays of a safetensors member, in the order of their names. Raises ArtifactError naming the member."""
    import safetensors

    # the length of the JSON header comes first
    if len(data) < 8 or int.from_bytes(data[:8], "little") > limits.text:
        raise ArtifactError(
            f"{member}: not written by graphc, or cut short: its header is missing or longer than {limits.text} bytes"
        )
    try:
        entries = safetensors.deserialize(data)  # type: ignore[no-untyped-call]
    except (safetensors.SafetensorError, *HOSTILE) as error:
        raise ArtifactError(f"{member}: {str(error)[:300]}") from error
    if len(entries) > limits.tensors:
        raise ArtifactError(f"{member}: {len(entries)} tensors, at most {limits.tensors} are accepted")
    pairs = _pairs(member, data, limits)
    found = {name: _tensor(member, name, entry) for name, entry in sorted(entries, key=lambda e: e[0])}
    return {name: _complex(member, name, array) if name in pairs else array for name, array in found.items()}


def _pairs(member: str, data: bytes, limits: Limits) -> list[str]:
    """The names of the tensors that are stored as pairs of float64, out of the metadata of a valid header."""
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    text = (header.get("__metadata__") or {}).get(_PAIRS)
    if text is None:
        return []
    try:
        names = _parse_json(text.encode(), limits)
    except (ArtifactError, *HOSTILE) as error:
        raise ArtifactError(f"{member}: {_PAIRS}: {str(error)[:200]}") from error
    if not isinstance(names, list) or any(type(name) is not str for name in names):
        raise ArtifactError(f"{member}: {_PAIRS} must be a list of names")
    return names


def _complex(member: str, name: str, array: Array) -> Array:
    if array.dtype != np.float64 or array.shape[-1:] != (2,):
        raise ArtifactError(f"{member}: {name!r} is complex128, but no pairs of float64")
    found = array.view(complex128.np).reshape(array.shape[:-1])
    found.flags.writeable = False
    return found


def _tensor(member: str, name: str, entry: Mapping[str, Any]) -> Array:
    if not legal_name(name):
        raise ArtifactError(f"{member}: a name of more than 256 bytes or with control characters")
    dtype = _DTYPES.get(entry["dtype"])
    if dtype is None:
        raise ArtifactError(f"{member}: {name!r} has dtype {entry['dtype']}; known: {', '.join(_DTYPES)}")
    raw = np.frombuffer(entry["data"], np.uint8)
    if len(entry["shape"]) > 32 or raw.size != math.prod(entry["shape"]) * dtype.itemsize:
        raise ArtifactError(f"{member}: {name!r} has shape {entry['shape'][:33]} and {raw.size} bytes")
    if dtype is bool_ and raw.size and raw.max() > 1:
        raise ArtifactError(f"{member}: {name!r} is bool and holds a byte that is neither 0 nor 1")
    array = raw.view(dtype.np).reshape(entry["shape"])
    array.flags.writeable = False
    return array


# ---------------------------------------------------------------- the manifest


def _manifest_bytes(members: Mapping[str, bytes], signature: Mapping[str, Any], limits: Limits) -> bytes:
    from graphc.version import __version__

    manifest = {
        "format": FORMAT,
        "graphc": __version__,
        "members": {name: _fingerprint(data) for name, data in members.items()},
        "numerics": NUMERICS,
        "signature": signature,
    }
    try:
        data = json.dumps(manifest, sort_keys=True, allow_nan=False, separators=(",", ":"), indent=None).encode()
        if _parse_json(data, limits) != manifest:
            raise ValueError("it does not read back as it was given (tuples or keys that are not str)")
    except (*HOSTILE, ArtifactError) as error:
        raise ArtifactError(f"the signature is not plain JSON: {error}") from error
    return data


def _read_manifest(container: Container, limits: Limits) -> tuple[dict[str, Any], str]:
    """The manifest, its parts checked for kind, and its sha256."""
    member = container.members.get(MANIFEST)
    if member is None:
        raise ArtifactError(f"{MANIFEST}: the member is missing")
    if member.size > limits.text:
        raise ArtifactError(f"{MANIFEST}: {member.size} bytes, at most {limits.text} are accepted")
    data = container.read(MANIFEST)
    try:
        manifest = _parse_json(data, limits)
    except ArtifactError as error:
        raise ArtifactError(f"{MANIFEST}: {error}") from error
    except HOSTILE as error:
        raise ArtifactError(f"{MANIFEST}: not valid JSON ({type(error).__name__}: {str(error)[:200]})") from error
    if not isinstance(manifest, dict):
        raise ArtifactError(f"{MANIFEST}: a JSON object is expected")
    _check_manifest(manifest)
    return manifest, hashlib.sha256(data).hexdigest()


def _check_manifest(manifest: dict[str, Any]) -> None:
    for name, known in (("format", FORMAT), ("numerics", NUMERICS)):
        version = manifest.get(name)
        if type(version) is not int or version < 1:
            raise ArtifactError(f"{MANIFEST}: {name} must be a positive integer")
        if version > known:
            raise ArtifactError(
                f"{MANIFEST}: {name} {version} is newer than {known}, the newest that this graphc knows; upgrade graphc"
            )
    if tuple(sorted(manifest)) != _MANIFEST_KEYS:
        raise ArtifactError(f"{MANIFEST}: its keys must be {', '.join(_MANIFEST_KEYS)}")
    if not legal_name(manifest["graphc"]):
        raise ArtifactError(f"{MANIFEST}: graphc must be a version")
    if not isinstance(manifest["members"], dict) or sorted(manifest["members"]) != sorted(_MEMBERS):
        raise ArtifactError(f"{MANIFEST}: members must be {', '.join(_MEMBERS)}")
    if not isinstance(manifest["signature"], dict):
        raise ArtifactError(f"{MANIFEST}: the signature must be a JSON object")


def _parse_json(data: bytes, limits: Limits) -> Any:
    """Strict JSON: UTF-8, no duplicate keys, finite numbers, bounded size and depth.

    Raises ArtifactError or one of HOSTILE.
    """
    if len(data) > limits.text:
        raise ArtifactError(f"{len(data)} bytes, at most {limits.text} are accepted")
    found = json.loads(
        data.decode("utf-8"), object_pairs_hook=_object, parse_constant=_refuse_constant, parse_float=_finite
    )
    _check_depth(found, limits.nesting)
    return found


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ArtifactError(f"the key {key[:80]!r} stands twice")
        found[key] = value
    return found


def _refuse_constant(text: str) -> NoReturn:
    raise ArtifactError(f"{text} is not a JSON number")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ArtifactError(f"{text[:80]} is beyond float64")
    return number


def _check_depth(value: Any, depth: int) -> None:
    if isinstance(value, dict | list):
        if depth == 0:
            raise ArtifactError("nested too deep")
        for item in value.values() if isinstance(value, dict) else value:
            _check_depth(item, depth - 1)
