"""A graph compiled in every way there is: each pass off, fused or not, ordered or not, for every target, by one thread
and by two that share the smallest kernels, memory poisoned.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from graphc.codegen.target import X86_64_V3, X86_64_V4, Target, host_target
from graphc.compiler import compile_graph, passes
from graphc.fuzz.difference import Difference, first_difference
from graphc.fuzz.layouts import copied
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.types import Layout
from graphc.runtime import executable
from graphc.runtime.pool import get_num_threads, set_num_threads

THREADS = 2


@dataclass(frozen=True, slots=True)
class Variant:
    """One way to compile: what is switched off, and for which target."""

    target: Target
    disable: tuple[str, ...] = ()
    fuse: bool = True
    order: bool = True

    def __str__(self) -> str:
        off = [*self.disable, *(name for name, on in (("fuse", self.fuse), ("order", self.order)) if not on)]
        return f"{self.target.name}, {'without ' + ', '.join(off) if off else 'all passes'}"


def targets() -> list[Target]:
    """The targets this machine runs, its own first."""
    host = host_target()
    return [host, X86_64_V3] if host is X86_64_V4 else [host]


def ablations(target: Target) -> list[Variant]:
    """Everything on, each pass off, everything off."""
    names = [name for name, _ in passes() if name != "decompose"]
    return [
        Variant(target), *(Variant(target, (name,)) for name in names), Variant(target, fuse=False),
        Variant(target, order=False), Variant(target, tuple(names), False, False),
    ]  # fmt: skip


def chosen(seed: int, full: bool) -> list[Variant]:
    """All variants for all targets; or, unless `full`, everything on for this machine and one other by seed."""
    first, *others = [v for target in targets() for v in ablations(target)]
    return [first, *others] if full else [first, others[seed % len(others)]]


def compiled(graph: Graph, layouts: Sequence[Layout], variant: Variant) -> Any:
    """The executable of a variant, its memory poisoned before each run and its kernels shared however small."""
    before = executable.trial.poison, executable.trial.split
    executable.trial.poison = executable.trial.split = True
    try:
        return compile_graph(graph, layouts, variant.fuse, variant.target, variant.disable, variant.order)
    finally:
        executable.trial.poison, executable.trial.split = before


def check_variants(
    graph: Graph, inputs: Sequence[Array], wanted: Sequence[Array], variants: Sequence[Variant]
) -> list[Any]:
    """Run every variant by one thread and by two; the outputs must be `wanted`. Gives the executables.

    Raises Difference.
    """
    layouts = [Layout.of(a) for a in inputs]
    made = [compiled(graph, layouts, v) for v in variants]
    for count in (1, THREADS):
        with threads(count):
            for exe, variant in zip(made, variants, strict=True):
                found = exe([copied(a) for a in inputs])
                compare(graph, wanted, found, f"variants ({variant}, {count} thread{'s' * (count > 1)})")
    return made


def compare(graph: Graph, wanted: Sequence[Array], found: Sequence[Array], where: str) -> None:
    """Raise Difference for the first output that is not as wanted."""
    for o, a, b in zip(graph.outputs, wanted, found, strict=True):
        if first_difference(a, b) is not None:
            what = f"{o.kind} {o.name!r} differs from the eager result"
            node = "an input" if o.value.node is None else f"{o.value.node.op.name} @ {o.value.node.loc or '?'}"
            raise Difference(what, where, node, a, b)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """While active, `count` threads share kernels."""
    before = get_num_threads()
    if before != count:
        set_num_threads(count)
    try:
        yield
    finally:
        if before != count:
            set_num_threads(before)
