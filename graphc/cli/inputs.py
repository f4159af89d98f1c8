"""Inputs given on the command line: arrays from a .npz file, numbers, random arrays of a type."""

from __future__ import annotations

import re
import tokenize
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import click
import numpy as np

from graphc.cli.output import one_line
from graphc.errors import ArgumentError
from graphc.ir.graph import Graph
from graphc.ir.types import Shape, TensorType, bfloat16, dtype_named, dtype_of, evaluate, symbols_of

Array = np.ndarray[Any, Any]

_SPEC = re.compile(r"(\w+)\[([\d,\s]*)\](?::(\d+))?\Z")
_INT_BOUND = 2  # random integers are 0 or 1 unless the spec says more: small enough for any index
_MAX_BYTES = 1 << 34
_BROKEN = (  # what NumPy and zipfile raise for a damaged archive, or one of a kind they do not read
    ValueError, EOFError, KeyError, OverflowError, RuntimeError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
)  # fmt: skip


def parse_sizes(sizes: Sequence[str]) -> dict[str, int]:
    """`N=37` … as a mapping. Raises click.BadParameter."""
    found = {}
    for text in sizes:
        name, equals, number = text.partition("=")
        if not equals or not name.isidentifier() or not number.isdigit():
            raise click.BadParameter(f"--size expects NAME=NUMBER, got {text!r}")
        found[name] = int(number)
    return found


def given_values(specs: Sequence[str], archive: Path | None, seed: int) -> dict[str, Any]:
    """Name -> array or Python number, from `--inputs` and `--input`. Raises click.UsageError."""
    found: dict[str, Any] = {} if archive is None else read_archive(archive)
    for number, spec in enumerate(specs):
        name, equals, text = spec.partition("=")
        if not equals or not name:
            raise click.BadParameter(f"--input expects NAME=SPEC, got {spec!r}")
        if name in found:
            raise click.BadParameter(f"--input: {name!r} is given twice")
        found[name] = _value(text, np.random.default_rng([seed, number]))
    return found


def read_array(path: Path) -> Array:
    """The array of a .npy file; objects are refused. Raises click.UsageError."""
    try:
        with open(path, "rb") as file:
            array = np.load(file, allow_pickle=False)
            if not isinstance(array, np.ndarray):
                raise click.UsageError(f"{path}: not a .npy file")
            return _readable(array)
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}") from error
    except _BROKEN as error:
        raise click.UsageError(f"{path}: not a readable .npy file: {error}") from error


def read_archive(path: Path) -> dict[str, Array]:
    """The arrays of a .npz file; objects in it are refused. Raises click.UsageError."""
    try:
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise click.UsageError(f"{path}: not a .npz file")
            return {name: _readable(archive[name]) for name in archive.files}
    except OSError as error:
        raise click.UsageError(f"{path}: {error.strerror or error}") from error
    except _BROKEN as error:
        raise click.UsageError(f"{path}: not a readable .npz file: {error}") from error


def _readable(array: Array) -> Array:
    """NumPy's files do not know bfloat16 and keep two bytes of no kind; these are taken as such."""
    return array.view(bfloat16.np) if array.dtype == np.dtype("V2") else array


def write_archive(path: Path, arrays: Mapping[str, Array]) -> None:
    """Write arrays as a .npz file, whatever their names are."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, np.asanyarray(array), allow_pickle=False)


def _value(text: str, rng: np.random.Generator) -> Any:
    if text.endswith(".npy"):
        return read_array(Path(text))
    match = _SPEC.match(text)
    if match is None:
        return _number(text)
    dtype, shape, bound = match.groups()
    try:
        type = TensorType(dtype_named(dtype), tuple(int(n) for n in shape.split(",") if n.strip()))
    except ArgumentError as error:
        raise click.BadParameter(f"--input: {error}") from error
    if bound and type.dtype.is_integer and int(bound) - 1 > np.iinfo(type.dtype.np).max:
        raise click.BadParameter(f"--input: integers below {bound} do not all fit in {dtype}: {text}")
    return random_array(type, rng, int(bound) if bound else _INT_BOUND)


def _number(text: str) -> bool | int | float:
    if text in ("True", "False"):
        return text == "True"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    raise click.BadParameter(f"--input: expected a type such as f32[8,3] or a number, got {text!r}")


def random_array(type: TensorType, rng: np.random.Generator, bound: int = _INT_BOUND) -> Array:
    """Standard normal floats, integers below `bound`, or bools. Raises click.UsageError for more than 16 GiB."""
    if type.nbytes > _MAX_BYTES:
        raise click.UsageError(f"a random input of type {type} is too large")
    if type.dtype.kind == "f":
        return np.asarray(rng.standard_normal(type.sizes), type.dtype.np)
    return np.asarray(rng.integers(0, 2 if type.dtype.kind == "b" else max(bound, 1), type.sizes), type.dtype.np)


def bind_sizes(graph: Graph, sizes: Mapping[str, int]) -> dict[str, int]:
    """The number of each named size of `graph`. Raises click.UsageError for one missing or one too many."""
    symbols = graph.symbols()
    unknown = [name for name in sizes if name not in symbols]
    if unknown:
        raise click.UsageError(f"--size {unknown[0]}: the model has {_listed(symbols) or 'no named sizes'}")
    missing = [name for name in symbols if name not in sizes]
    if missing:
        raise click.UsageError(f"the model has the named size {missing[0]}; say --size {missing[0]}=NUMBER")
    return dict(sizes)


def fill_inputs(
    graph: Graph, state: Mapping[str, Array], given: Mapping[str, Any], sizes: Mapping[str, int], seed: int
) -> tuple[dict[str, Array], dict[str, int]]:
    """An array for each input of `graph` that is not in `state`, random where none is given, and the named sizes.

    Sizes come from `sizes` or from given arrays. Raises click.UsageError for arrays that do not fit.
    """
    wanted = {i.name: i.value.type for i in graph.inputs if i.name not in state}
    unknown = [name for name in given if name not in wanted]
    if unknown:
        raise click.UsageError(f"the model has no input {one_line(unknown[0])!r}; it has {_listed(wanted) or 'none'}")
    arrays = {name: _as_array(given[name], wanted[name]) for name in given}
    found = dict(sizes)
    for name, array in arrays.items():
        _read_sizes(wanted[name].shape, array.shape, found)
    bound = bind_sizes(graph, found)
    for number, (name, type) in enumerate(wanted.items()):
        exact = TensorType(type.dtype, tuple(evaluate(s, bound) for s in type.shape))
        if name not in arrays:
            arrays[name] = random_array(exact, np.random.default_rng([seed, 1000 + number]))
        found_type = TensorType(dtype_of(arrays[name].dtype), arrays[name].shape)
        if found_type is not exact:
            raise click.UsageError(f"input {one_line(name)!r} is {found_type}, the model expects {exact}")
    return arrays, bound


def _as_array(value: Any, type: TensorType) -> Array:
    if isinstance(value, np.ndarray):
        try:
            dtype_of(value.dtype)
        except ArgumentError as error:
            raise click.UsageError(str(error)) from error
        return np.array(value, order="C")  # native strides, and a copy nobody else writes to
    return np.asarray(value, type.dtype.np)


def _read_sizes(shape: Shape, sizes: Sequence[int], found: dict[str, int]) -> None:
    for want, have in zip(shape, sizes, strict=False):
        if not isinstance(want, int) and symbols_of(want) == (str(want),):
            found.setdefault(str(want), have)


def _listed(names: Any) -> str:
    return ", ".join(one_line(name) for name in names)
