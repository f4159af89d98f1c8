"""Order: a sequence of steps that keeps little memory alive at once.

A topological order of the data flow between the steps, seen as a networkx graph. List scheduling: of the steps that
could run next, the one that grows live memory least. The result is compared with the order the steps came in (the
order of the user's program) and the better of the two by peak is kept, so the pass never makes things worse.
Deterministic: ties go to the earlier step.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from heapq import heapify, heappop, heappush
from typing import Any

from graphc.ir.dag import Arc, in_order, view_of
from graphc.ir.steps import Step, Storage


def data_arcs(steps: Sequence[Step]) -> list[Arc]:
    """(writer, reader) for every memory one step writes and another reads."""
    writer = {s: k for k, step in enumerate(steps) for s in step.written()}
    return [(writer[s], k) for k, step in enumerate(steps) for s in step.read() if writer.get(s, k) != k]


def order(steps: Sequence[Step], extra: Iterable[Arc] = ()) -> list[Step]:
    """The steps in an order that respects data flow and the arcs `extra` between step numbers."""
    arcs = dict.fromkeys((*data_arcs(steps), *extra))
    if _is_chain(len(steps), arcs):
        return list(steps)
    view = view_of(len(steps), arcs)
    given = in_order(view)
    greedy = _greedy(steps, view)
    best = greedy if peak_bytes([steps[k] for k in greedy]) < peak_bytes([steps[k] for k in given]) else given
    return [steps[k] for k in best]


def _is_chain(count: int, arcs: Collection[Arc]) -> bool:
    """Whether each step needs the one before it: then there is only one order, and no graph to look at."""
    return all((k, k + 1) in arcs for k in range(count - 1)) and all(a < b for a, b in arcs)


def peak_bytes(steps: Sequence[Step]) -> int:
    """The most bytes of arena memory alive at once, each from its first to its last use."""
    last: dict[Storage, int] = {}
    for k, step in enumerate(steps):
        last.update(dict.fromkeys((*step.written(), *step.read()), k))
    live = peak = 0
    seen: set[Storage] = set()
    for k, step in enumerate(steps):
        touched = [s for s in {**step.written(), **step.read()} if s.kind == "arena"]
        live += sum(s.nbytes for s in touched if s not in seen)
        seen.update(touched)
        peak = max(peak, live)
        live -= sum(s.nbytes for s in touched if last[s] == k)
    return peak


def _greedy(steps: Sequence[Step], view: Any) -> list[int]:
    waiting = dict(view.in_degree)
    reads = [[s for s in step.read() if s.kind == "arena"] for step in steps]
    writes = [sum(s.nbytes for s in step.written() if s.kind == "arena") for step in steps]
    readers: dict[Storage, dict[int, None]] = {}
    for k, found in enumerate(reads):
        for s in found:
            readers.setdefault(s, {})[k] = None

    def growth(k: int) -> int:
        return writes[k] - sum(s.nbytes for s in reads[k] if len(readers[s]) == 1)

    ready = [(growth(k), k) for k, count in waiting.items() if not count]
    heapify(ready)
    done = [False] * len(steps)
    found_order: list[int] = []
    while ready:
        _, k = heappop(ready)
        if done[k]:
            continue  # an entry from before its growth changed
        done[k] = True
        found_order.append(k)
        for s in reads[k]:
            del readers[s][k]
            if len(readers[s]) == 1:
                (only,) = readers[s]
                if not waiting[only]:
                    heappush(ready, (growth(only), only))
        for b in view.successors(k):
            waiting[b] -= 1
            if not waiting[b]:
                heappush(ready, (growth(b), b))
    return found_order
