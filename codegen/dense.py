"""Lanes a small step apart out of a stretch of memory that is read in whole vectors."""

from __future__ import annotations

from collections.abc import Sequence

from graphc.codegen.emit import Emitter, V


def picked(e: Emitter, parts: Sequence[V], starts: Sequence[int], step: int) -> V:
    """Every step-th element of a stretch of which vector k holds those from starts[k] on; as many as a vector holds."""
    width = parts[0].ty.width
    sources = [
        next((k, step * lane - start) for k, start in enumerate(starts) if step * lane - start < width)
        for lane in range(width)
    ]
    found = parts[0]
    for k, part in enumerate(parts[1:], 1):
        old = [at if k == 1 else lane for lane, (_, at) in enumerate(sources)]
        pick = [
            width + at if source == k else -1 if source > k else kept
            for (source, at), kept in zip(sources, old, strict=True)
        ]
        found = e.shuffle(found, part, pick)
    return found


def spread(e: Emitter, mask: V, step: int, part: int) -> V:
    """Lanes that are on as elements of vector `part` of the stretch; those between lanes are off. Step -1: turned."""
    width = mask.ty.width
    if step == -1:
        return e.shuffle(mask, None, range(width - 1, -1, -1))
    pick = [width if k % step else k // step for k in range(part * width, (part + 1) * width)]
    return e.shuffle(mask, e.const(mask.ty, False), pick)
