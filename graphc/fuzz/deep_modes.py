"""The floating-point mode of the host: results do not follow it, and it is as before after each call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.fuzz.deep_variants import THREADS, compare, threads
from graphc.fuzz.difference import Difference
from graphc.fuzz.layouts import copied
from graphc.ir.graph import Graph
from graphc.ir.op import Array
from graphc.runtime.float_mode import float_mode, get_float_mode

ROUNDINGS = ("up", "down", "zero")


def check_modes(graph: Graph, inputs: Sequence[Array], wanted: Sequence[Array], exe: Any, seed: int) -> None:
    """Run `exe` by one thread and by two in a host that flushes denormals and rounds otherwise. Raises Difference."""
    rounding = ROUNDINGS[seed % len(ROUNDINGS)]
    for count in (1, THREADS):
        given = [copied(a) for a in inputs]
        with threads(count), float_mode(True, rounding) as mode:
            found = exe(given)
            after = get_float_mode()
        where = f"modes (flush to zero, round {rounding}, {count} thread{'s' * (count > 1)})"
        compare(graph, wanted, found, where)
        if after != mode:
            raise Difference("the floating-point mode of the host is another after the call", where, "", hex(mode),
                             hex(after))  # fmt: skip
