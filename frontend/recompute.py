"""Checkpoints: what backward needs of a part of the model is computed again instead of kept.

The forward pass runs as without a checkpoint and leaves the same nodes on the tape, but these save nothing. The first
of them that backward asks for its tensors runs the part again, with the random numbers of the first time, and takes
them from the nodes made then. So every gradient has the bits it has without the checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from graphc.errors import ArgumentError, AutogradError, UnsupportedError
from graphc.frontend.autograd import Edge, Node, Saved
from graphc.frontend.autograd_saved import keeping
from graphc.frontend.mode import mode, using
from graphc.frontend.random import Mark, mark, rewound
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Layout, TensorType, int64

__all__ = ["CheckpointError", "checkpoint", "checkpoint_sequential", "noop_context_fn"]

# A random state: the same place in the row of random numbers may be another state and offset in the second run.
_STATE = TensorType(int64, (2,))
Place = tuple[int, str, int]  # node of the part, "in" or "out", number
Contexts = Callable[[], tuple[Any, Any]]


class CheckpointError(AutogradError):
    """A part of the model computed something else the second time."""


class Later(Saved):
    """Stands for a saved tensor that will be computed again."""

    __slots__ = ("part", "place")
    packed = True

    def __init__(self, part: Part, place: Place, saved: Saved) -> None:
        self.part = part
        self.place = place
        self.layout: Layout = saved.layout
        self.edge = saved.edge
        self.leaf = None

    storage = None  # type: ignore[assignment]

    @property
    def again(self) -> bool:  # type: ignore[override]
        """True while the inputs of the part are what they were, and its run in a recording changed nothing else."""
        return self.part.alone and self.part.written() is None

    def unpack(self, node: Node, edge: Edge | None) -> Tensor:
        """The tensor, computed again. Raises CheckpointError when it is another one than the first time."""
        found = self.part.again(self.place)
        if found.layout.type is not self.layout.type:
            raise CheckpointError(
                f"checkpoint: a tensor saved by {node.name()} was {self.layout.type} and is {found.layout.type} when "
                "the function is run again in backward; it must do the same each time"
            )
        return found.unpack(node, edge)


class _Collector:
    """Remembers the nodes made while a part runs again."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def keep(self, node: Node) -> None:
        """A node was made."""
        self.nodes.append(node)


class Part:
    """One run of a checkpointed function, and how to run it again."""

    def __init__(self, run: Callable[[], Any], given: list[Tensor], start: Mark | None, check: bool) -> None:
        self.run = run
        self.given = [(t, t._v.value) for t in given]
        self.start = start
        self.check = check
        self.alone = True  # nothing outside was changed, as far as a recording knows
        self.seen: list[str] = []  # the operation of every node
        self.found: dict[Place, Saved] = {}

    def keep(self, node: Node) -> None:
        """Put stand-ins where a new node saves tensors; a leaf is there anyway and stays."""
        i = len(self.seen)
        self.seen.append(node.name())
        node.saved_in = tuple(self._later(s, (i, "in", k)) for k, s in enumerate(node.saved_in))
        if node.saved_out is not None:
            node.saved_out = tuple(self._later(s, (i, "out", k)) for k, s in enumerate(node.saved_out))

    def _later(self, s: Saved | None, place: Place) -> Saved | None:
        if s is None or s.leaf is not None or s.storage.constant or s.layout.type is _STATE:
            return s
        return Later(self, place, s)

    def again(self, place: Place) -> Saved:
        """The saved tensor at `place`, which is given once."""
        if place not in self.found:
            self._recompute()
        found = self.found.pop(place, None)
        if found is None:
            raise CheckpointError(
                "checkpoint: the function saved another number of tensors when it was run again in backward; it must "
                "do the same each time (look for what it reads and changes outside)"
            )
        return found

    def written(self) -> Tensor | None:
        """An input that was written since."""
        return next((t for t, version in self.given if t._v.value != version), None)

    def _recompute(self) -> None:
        written = self.written()
        if written is not None:
            raise CheckpointError(
                f"checkpoint: an input {written._l.type} was written in place since the forward pass, which cannot be "
                "run again from it; clone() it before the write"
            )
        collector = _Collector()
        with keeping(collector), using(grad=True), _from(self.start):
            self.run()
        names = [node.name() for node in collector.nodes]
        if self.check and names != self.seen:
            k = next((k for k, (a, b) in enumerate(zip(names, self.seen, strict=False)) if a != b), None)
            told = (
                f"{len(self.seen)} operations, then {len(names)}" if k is None else f"{self.seen[k]}, then {names[k]}"
            )
            raise CheckpointError(
                f"checkpoint: the function computed something else when it was run again in backward ({told}); it must "
                "do the same each time"
            )
        for i, node in enumerate(collector.nodes):
            for side, saved in (("in", node.saved_in), ("out", node.saved_out or ())):
                for k, s in enumerate(saved):
                    if s is not None and s.leaf is None:
                        self.found[i, side, k] = _bare(s)


def _bare(s: Saved) -> Saved:
    """Without its place on the tape of the second run."""
    t = s.unpack_now()
    t._v = s.versions
    bare = Saved(t, None)
    bare.version = s.version
    return bare


@contextlib.contextmanager
def _from(start: Mark | None) -> Iterator[None]:
    with contextlib.nullcontext() if start is None else rewound(start):
        yield


def noop_context_fn() -> tuple[Any, Any]:
    """Two context managers that do nothing."""
    return contextlib.nullcontext(), contextlib.nullcontext()


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Contexts = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    preserve_rng_state: bool = True,
    **kwargs: Any,
) -> Any:
    """`function(*args, **kwargs)`, of which nothing is kept for backward but the arguments: it runs again there.

    Gradients have the same bits as without. `context_fn` gives two context managers, for the first run and for the
    second. With `determinism_check="none"` the second run is not compared with the first. `preserve_rng_state` repeats
    the random numbers of the first run. The second run always goes to its end, whatever `early_stop` says. Inside a
    compiled function both runs are recorded; what they have in common is computed once.

    Raises UnsupportedError for `use_reentrant=True` and `debug`, ArgumentError for an unknown check; backward raises
    CheckpointError when the second run differs.
    """
    if use_reentrant:
        raise UnsupportedError(
            "checkpoint: use_reentrant=True is not supported; use_reentrant=False gives the same gradients"
        )
    if debug:
        raise UnsupportedError("checkpoint: debug=True is not supported; leave it out")
    if determinism_check not in ("default", "none"):
        raise ArgumentError(f"checkpoint: determinism_check must be 'default' or 'none', got {determinism_check!r}")
    if not mode.get().grad:
        return function(*args, **kwargs)
    first, second = context_fn()

    def again() -> Any:
        with second:
            return function(*args, **kwargs)

    given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
    part = Part(again, given, mark() if preserve_rng_state else None, determinism_check == "default")
    recorder = mode.get().recorder
    before = None if recorder is None else recorder.changed()
    with keeping(part), first:
        result = function(*args, **kwargs)
    part.alone = recorder is None or recorder.changed() == before
    return result


def checkpoint_sequential(
    functions: Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    *,
    preserve_rng_state: bool = True,
) -> Any:
    """Run a Sequential (or a list of functions) in `segments` parts of equal length, all but the last as a checkpoint.

    Raises ArgumentError unless 1 <= segments, UnsupportedError for `use_reentrant=True`.
    """
    steps = list(functions.children()) if hasattr(functions, "children") else list(functions)
    if isinstance(segments, bool) or not isinstance(segments, int) or segments < 1:
        raise ArgumentError(f"checkpoint_sequential: segments must be a positive int, got {segments!r}")
    size = max(len(steps) // segments, 1)
    starts = [k * size for k in range(segments) if k * size < len(steps)]
    for k, start in enumerate(starts):
        last = k == len(starts) - 1
        part = _row(steps[start:] if last else steps[start : start + size])
        if last:
            return part(input)
        input = checkpoint(part, input, use_reentrant=use_reentrant, preserve_rng_state=preserve_rng_state)
    return input


def _row(steps: Sequence[Callable[[Any], Any]]) -> Callable[[Any], Any]:
    def run(x: Any) -> Any:
        for step in steps:
            x = step(x)
        return x

    return run


CheckpointError.__module__ = "graphc.utils.checkpoint"
