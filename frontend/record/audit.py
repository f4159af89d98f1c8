"""`compile(audit=…)`: sampled calls also run line by line, and every bit of both answers is compared.

The run line by line comes first, from the same state, and leaves no mark: it is a recording, put back as that of
`warm()`. Its own graph, compared with the compiled one, tells what changed where Python could look after all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AuditError
from graphc.frontend.record import rng
from graphc.frontend.record.applies import static_guards_hold
from graphc.frontend.record.around import Around, restoring
from graphc.frontend.record.session import Recorded, argument_names, record_call
from graphc.frontend.record.trace import Trace, difference
from graphc.frontend.record.tree import TreeSpec, flatten
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array

FIRST = 2  # answers of each trace that are always audited
USUAL = 64  # audit=True: then one call in so many
Place = tuple[str, Callable[[], Any]]  # what it is called, and how to look at it


def period_of(audit: Any) -> int:
    """One call in how many is audited; 0 for none. Takes a bool, an int from 1 (the period) or a float in (0, 1] (the
    share). Raises ArgumentError for anything else.
    """
    if isinstance(audit, bool):
        return USUAL if audit else 0
    if isinstance(audit, int) and audit >= 1:
        return audit
    if isinstance(audit, float) and 0 < audit <= 1:
        return round(1 / audit)
    raise ArgumentError(
        f"compile: audit must be a bool, a number of calls from 1 or a share in (0, 1], got {audit!r}; audit=True "
        f"audits the first {FIRST} answers and one call in {USUAL}"
    )


class Audit:
    """When the calls of one compiled function are audited."""

    def __init__(self, period: int) -> None:
        self.period = period
        self.done = 0
        self._left = period
        self._seen: dict[Trace, int] = {}

    def passes(self) -> bool:
        """Count a call that need not be audited; False for one that must."""
        if self._left <= 1:
            return False
        self._left -= 1
        return True

    def expected(
        self, function: Any, traces: Sequence[Trace], given: tuple[Any, Mapping[str, Any]], leaves: list[Any],
        spec: TreeSpec, ints: frozenset[int],
    ) -> Expected | None:  # fmt: skip
        """What a call must give; None where it is not audited: it is not its turn, or no trace applies."""
        likely = [t for t in traces if static_guards_hold(t, leaves)]
        if not likely or any(t.hosts for t in traces):  # the effects of a callback happen once a call
            return None
        first = any(self._seen.get(t, 0) < FIRST for t in likely)
        if not first and self.passes():
            return None
        self._left = self.period
        return Expected(function, likely[0], given, leaves, spec, ints)

    def compare(self, expected: Expected, trace: Trace, result: Any, name: str) -> None:
        """Raise AuditError where the answer of `trace` is not the expected one."""
        self.done += 1
        self._seen[trace] = self._seen.get(trace, 0) + 1
        expected.compare(trace, result, name)


class Expected:
    """What one call gives line by line; everything is as before afterwards."""

    def __init__(
        self, function: Any, trace: Trace, given: tuple[Any, Mapping[str, Any]], leaves: list[Any], spec: TreeSpec,
        ints: frozenset[int],
    ) -> None:  # fmt: skip
        self.error: Exception | None = None
        self.recorded: Recorded | None = None
        self.outputs: list[Any] = []
        self.form = ""
        self.places: list[tuple[Place, Any]] = []
        names = argument_names(function, given[0], given[1], spec)
        with restoring() as around, around.kept(leaves):
            for source in trace.sources:
                if source.tensor is not None:
                    around.note(source.tensor)
            gradients = _gradients(around)
            try:
                self.recorded = record_call(
                    function, leaves, spec, names, given=given, ints=ints, on_lift=around.note, around=around
                )
            except Exception as error:  # the user's own, which the compiled call must not swallow
                self.error = error
            else:
                self._take(around)
            finally:
                for leaf, gradient in gradients:
                    leaf._grad = gradient

    def _take(self, around: Around) -> None:
        """Copies of what the run returned and left behind."""
        assert self.recorded is not None
        values, spec = flatten(self.recorded.result)
        self.outputs, self.form = [_copy(x) for x in values], repr(spec)
        self.places = [(place, _copy(place[1]())) for place in _places(around)]

    def compare(self, trace: Trace, result: Any, name: str) -> None:
        """Raise AuditError for the first difference."""
        for what, mine, theirs in self._pairs(result):
            text = _first_difference(mine, theirs)
            if text:
                raise AuditError(f"{name}: {what} of the compiled call {text}{self._cause(trace)}")

    def _pairs(self, result: Any) -> Iterator[tuple[str, Any, Any]]:
        if self.error is not None:
            yield "the outcome", "a result", f"{type(self.error).__name__}: {self.error}"
            return
        values, spec = flatten(result)
        yield "the structure", repr(spec), self.form
        for k, (mine, theirs) in enumerate(zip(values, self.outputs, strict=True)):
            yield f"output {k}", _copy(mine), theirs
        for (what, look), theirs in self.places:
            yield what, _copy(look()), theirs

    def _cause(self, trace: Trace) -> str:
        """What changed, if a recording can tell."""
        found = None if self.recorded is None else self.recorded
        text = None
        if found is not None and found.trace is not None:
            text = difference(trace, found.trace)
        elif found is not None and found.refusal is not None:
            text = found.refusal.message
        if text is None:
            return ""
        return f". What changed since it was recorded: {text.replace(' on the second call', ' in this call')}"


def _gradients(around: Around) -> list[tuple[Tensor, Tensor | None]]:
    """The `.grad` of every tensor noted so far, whose content is noted, too."""
    found = [(t, t._grad) for t, _ in list(around.copies.values())]
    for _, gradient in found:
        if gradient is not None:
            around.note(gradient)
    return found


def _places(around: Around) -> Iterator[Place]:
    """Everything outside that a call may have left changed."""
    for k, (t, _) in enumerate(around.copies.values()):
        yield f"tensor {k} {t._l.type}", lambda t=t: t  # type: ignore[misc]
    for leaf, _, loc in around.recorder.grads.values():
        yield f"the .grad written at {loc}", lambda leaf=leaf: leaf._grad  # type: ignore[misc]
    for (_, name), (owner, _, loc) in around.recorder.rebound.written.items():
        yield f"the attribute {name} written at {loc}", lambda o=owner, n=name: getattr(o, n)  # type: ignore[misc]
    yield "the random state", lambda: rng.state_array().copy()


def _copy(x: Any) -> Any:
    if isinstance(x, Tensor):
        return x._a.copy(), x.requires_grad
    return x


def _first_difference(mine: Any, theirs: Any) -> str:
    """How the first element that differs does; "" when all bits are equal (a NaN is a NaN)."""
    if isinstance(mine, tuple) and isinstance(theirs, tuple):
        if mine[1] is not theirs[1]:
            return f"has requires_grad={mine[1]}, run line by line {theirs[1]}"
        return _array_difference(mine[0], theirs[0])
    if isinstance(mine, np.ndarray) and isinstance(theirs, np.ndarray):
        return _array_difference(mine, theirs)
    if isinstance(mine, float) and isinstance(theirs, float):
        return "" if mine.hex() == theirs.hex() else f"is {mine!r}, run line by line {theirs!r}"
    same = type(mine) is type(theirs) and (mine is theirs or mine == theirs)
    return "" if same else f"is {mine!r}, run line by line {theirs!r}"


def _array_difference(mine: Array, theirs: Array) -> str:
    if mine.dtype != theirs.dtype or mine.shape != theirs.shape:
        return f"is {mine.dtype}{list(mine.shape)}, run line by line {theirs.dtype}{list(theirs.shape)}"
    width = mine.dtype.itemsize
    words = [np.ascontiguousarray(a).reshape(-1).view(np.uint8).reshape(-1, width) for a in (mine, theirs)]
    differs = (words[0] != words[1]).any(1)
    if mine.dtype.kind not in "biu":
        differs &= ~(np.isnan(mine).reshape(-1) & np.isnan(theirs).reshape(-1))
    places = np.flatnonzero(differs)
    if not places.size:
        return ""
    at = tuple(int(i) for i in np.unravel_index(places[0], mine.shape)) if mine.shape else ()
    return f"is {mine[at].item()!r} at {list(at)}, run line by line {theirs[at].item()!r}"
