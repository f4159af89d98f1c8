"""Checks below the surface of a program: the graph it is recorded as, node by node and in every way to compile it.

Four parts, each a module: "nodes" (deep_nodes.py, against deep_exact.py), "variants", "memory" and "modes".
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, InternalError
from graphc.frontend.record.export import trace
from graphc.fuzz.deep_memory import check_memory
from graphc.fuzz.deep_modes import check_modes
from graphc.fuzz.deep_nodes import check_nodes
from graphc.fuzz.deep_variants import Variant, check_variants, chosen, compiled, targets
from graphc.fuzz.layouts import forwards, relaid
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.ir.types import Layout

__all__ = ["PARTS", "deep_check", "deep_check_graph"]

PARTS = ("nodes", "variants", "memory", "modes")

seconds: dict[str, float] = {}
"""Time spent in each part by this process, and in recording ("trace")."""


def deep_check(
    fn: Callable[..., Any],
    args: Sequence[Any],
    state: Any = (),
    seed: int = 0,
    parts: Collection[str] = PARTS,
    full: bool = False,
) -> None:
    """Record `fn(*args)` and check the graph: see `deep_check_graph`. A function that cannot be exported, or
    raises, is skipped; an InternalError is raised.

    `state` (Modules, tensors, …) is what the function may change; the recording puts it back.
    """
    with _timed("trace"):
        try:
            program = trace(fn, *args)
            graph, arrays = program.concrete(*args)
        except InternalError:
            raise
        except Exception:  # refused, or the function's own
            return
    deep_check_graph(graph, arrays, seed, parts, full)


def deep_check_graph(
    graph: Graph, inputs: Sequence[Array], seed: int = 0, parts: Collection[str] = PARTS, full: bool = False
) -> None:
    """Check a graph with numbers for sizes on these inputs; raises Difference for the first bit that differs.

    "nodes": each node's eager kernel gives what its op must. The results so found are what the other parts must give:
    "variants": compiled without each pass and for each target, by one and two threads (all of them if `full`, else a
    few, chosen by `seed`); "memory": in guarded memory, which a stray access ends the process of; "modes": in a host
    with another floating-point mode. By `seed`, inputs are laid out otherwise than they are given.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise ArgumentError(f"deep_check: unknown part {unknown[0]!r}; choose from {', '.join(PARTS)}")
    given = [forwards(a) for a in inputs]
    with _timed("nodes"):
        wanted = [np.array(a, order="C") for a in check_nodes(graph, given)]
    laid = _relaid(graph, given, seed)
    made: list[Any] = []
    variants = chosen(seed, full)
    if "variants" in parts:
        with _timed("variants"):
            made = check_variants(graph, laid, wanted, variants)
    if "memory" in parts:
        with _timed("memory"):
            check_memory(graph, laid, wanted, targets()[seed % len(targets())])
    if "modes" in parts:
        with _timed("modes"):
            exe = made[0] if made else compiled(graph, [Layout.of(a) for a in laid], Variant(targets()[0]))
            check_modes(graph, laid, wanted, exe, seed)


def _relaid(graph: Graph, inputs: Sequence[Array], seed: int) -> list[Array]:
    """On two seeds of three, half of the inputs laid out otherwise."""
    if seed % 3 == 0:
        return list(inputs)
    rng = np.random.default_rng(seed)
    return [relaid(a, rng) if rng.random() < 0.5 else a for a in inputs]


@contextmanager
def _timed(name: str) -> Iterator[None]:
    start = time.perf_counter()
    try:
        yield
    finally:
        seconds[name] = seconds.get(name, 0.0) + time.perf_counter() - start
