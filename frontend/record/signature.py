"""What surrounds the graph of an exported program, and its form in a file."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from graphc.errors import ArtifactError
from graphc.frontend.record.tree import TreeSpec, from_json, to_json
from graphc.ir.graph import Graph
from graphc.ir.types import DType, dtype_named


@dataclass(frozen=True, slots=True)
class Argument:
    """One argument leaf. kind: "tensor" (graph input), "float" (graph input), "constant" (must equal `value`)."""

    name: str
    kind: str
    value: Any = None


@dataclass(frozen=True, slots=True)
class Result:
    """One returned leaf. kind: "tensor", "number" (a graph output as a Python number) or "constant"."""

    kind: str
    output: int = -1
    value: Any = None


@dataclass(frozen=True, slots=True)
class Expectation:
    """A computed value the graph is valid for: graph output `output` must be `expected`; `place` is the user's line."""

    output: int
    expected: bool | int
    place: str


@dataclass(frozen=True, slots=True)
class Gradient:
    """What a call does with `.grad` of a tensor argument that requires gradients.

    `input`: the graph input that takes it, or -0.0 where there is none ("": none does). `how`: afterwards it is as
    before ("keep"), None ("drop"), graph output `output` ("bind"), or is written in place with it ("write"). `before`:
    what it must be ("any", "none" or "tensor"), as it was at `place`.
    """

    argument: str
    input: str
    output: int
    how: str
    before: str
    place: str


@dataclass(slots=True)
class Signature:
    """What surrounds the graph of an exported program."""

    arguments: list[Argument]
    in_tree: TreeSpec
    results: list[Result]
    out_tree: TreeSpec
    expectations: list[Expectation]
    randoms: int
    notes: list[str]
    writes: list[tuple[str, int]]  # (argument, graph output): arguments written in place
    seed: int | None = None  # set inside by manual_seed
    gradients: list[Gradient] = field(default_factory=list)


def signature_json(s: Signature) -> dict[str, Any]:
    """As JSON. Raises ArtifactError for a constant that is no number, string, dtype or None."""
    return {
        "arguments": [{"name": a.name, "kind": a.kind, "value": _plain(a.value)} for a in s.arguments],
        "in_tree": to_json(s.in_tree),
        "results": [{"kind": r.kind, "output": r.output, "value": _plain(r.value)} for r in s.results],
        "out_tree": to_json(s.out_tree),
        "expectations": [{"output": e.output, "expected": e.expected, "place": e.place} for e in s.expectations],
        "randoms": s.randoms,
        "notes": s.notes,
        "writes": [[name, number] for name, number in s.writes],
        "seed": s.seed,
        "gradients": [asdict(g) for g in s.gradients],
    }


def _plain(value: Any) -> Any:
    kind = type(value)
    if kind is float:
        return {"float": value.hex()}
    if kind is complex:
        return {"complex": [value.real.hex(), value.imag.hex()]}
    if kind is bytes:
        return {"bytes": value.hex()}
    if kind is DType:
        return {"dtype": value.name}
    if value is None or kind in (bool, int, str):
        return value
    raise ArtifactError(f"a {kind.__name__} cannot be part of a file's signature")


_READ: dict[str, Callable[[Any], Any]] = {
    "float": float.fromhex,
    "complex": lambda parts: complex(*map(float.fromhex, parts)),
    "bytes": bytes.fromhex,
    "dtype": lambda name: dtype_named(str(name)),
}


def _unplain(data: Any) -> Any:
    if isinstance(data, dict) and len(data) == 1 and _READ.keys() >= data.keys():
        ((kind, text),) = data.items()
        return _READ[kind](text)
    if data is None or isinstance(data, (bool, int, str)):
        return data
    raise ArtifactError("signature: not a plain value")


def is_constant(value: Any) -> bool:
    """True for what a signature can hold as it is."""
    return value is None or type(value) in (bool, int, float, complex, str, bytes, DType)


def same_constant(a: Any, b: Any) -> bool:
    """True for constants of one type with the same bits; any NaN is one."""
    return type(a) is type(b) and bool(_plain(a) == _plain(b))


def _number(data: Any) -> bool | int:
    if not isinstance(data, int):
        raise ArtifactError("signature: an expectation is no bool or int")
    return data


def _gradient(data: Mapping[str, Any], tensors: Collection[str], graph: Graph) -> Gradient:
    g = Gradient(
        str(data["argument"]), str(data["input"]), int(data["output"]), str(data["how"]), str(data["before"]),
        str(data["place"]),
    )  # fmt: skip
    if g.how not in ("keep", "drop", "bind", "write") or g.before not in ("any", "none", "tensor"):
        raise ArtifactError("signature: unknown use of a gradient")
    if g.argument not in tensors or (g.input and (g.input in tensors or g.input not in {i.name for i in graph.inputs})):
        raise ArtifactError("signature: a gradient refers to no tensor argument or no input of the graph")
    if g.how in ("bind", "write") and not 0 <= g.output < len(graph.outputs):
        raise ArtifactError("signature: a gradient refers to no output of the graph")
    return g


def signature_of(data: Mapping[str, Any], graph: Graph) -> Signature:
    """From JSON. Raises ArtifactError or one of Python's own lookup and value errors for what does not fit `graph`."""
    arguments = [Argument(str(a["name"]), str(a["kind"]), _unplain(a["value"])) for a in data["arguments"]]
    results = [Result(str(r["kind"]), int(r["output"]), _unplain(r["value"])) for r in data["results"]]
    expectations = [
        Expectation(int(e["output"]), _number(e["expected"]), str(e["place"])) for e in data["expectations"]
    ]
    in_tree, out_tree = from_json(data["in_tree"]), from_json(data["out_tree"])
    numbers = [r.output for r in results if r.kind != "constant"] + [e.output for e in expectations]
    writes = [(str(name), int(number)) for name, number in data["writes"]]
    numbers += [number for _, number in writes]
    if any(name not in {a.name for a in arguments if a.kind == "tensor"} for name, _ in writes):
        raise ArtifactError("signature: a write refers to no tensor argument")
    if any(not 0 <= n < len(graph.outputs) for n in numbers):
        raise ArtifactError("signature: a result refers to no output of the graph")
    if in_tree.leaves != len(arguments) or out_tree.leaves != len(results):
        raise ArtifactError("signature: the trees do not fit the arguments or results")
    if any(a.kind not in ("tensor", "float", "constant") for a in arguments) or any(
        r.kind not in ("tensor", "number", "constant") for r in results
    ):
        raise ArtifactError("signature: unknown kind of argument or result")
    seed = None if data["seed"] is None else int(data["seed"])
    tensors = {a.name for a in arguments if a.kind == "tensor"}
    gradients = [_gradient(g, tensors, graph) for g in data.get("gradients", ())]
    return Signature(
        arguments,
        in_tree,
        results,
        out_tree,
        expectations,
        int(data["randoms"]),
        [str(n) for n in data["notes"]],
        writes,
        seed,
        gradients,
    )
