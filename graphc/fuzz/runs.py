"""Histories of calls: what a function gives, changes and leaves behind over a few calls under changing conditions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import FunctionType
from typing import Any

import numpy as np

from graphc import stack
from graphc.errors import GraphcError, RecordingError
from graphc.frontend.grad_mode import set_grad_enabled
from graphc.frontend.record.tree import flatten
from graphc.frontend.same import _leaf_bits, _World
from graphc.frontend.tensor import Tensor

# what is other at each call: "e" the elements of arguments (negated, for good), "f" float arguments, "i" int arguments,
# "l" the layout of arguments, "a" arguments of one type are one tensor, "n" no gradients are recorded, "g" gradients
# are held from then on. Two calls alike are recorded, the third is answered by the compiled graph.
STANDARD = ("", "", "", "e", "f", "i", "n", "")
SCHEDULES = (
    ("", "", "", "e", "f", ""),
    ("", "i", "", "i", "e", "f"),
    ("", "", "e", "", "n", "n"),
    ("", "", "", "f", "e", "e"),
    ("", "", "l", "l", "l", "e"),
    ("", "", "", "", "g", ""),
    ("", "", "a", "a", "a", ""),
)
LONG = 8  # every so many programs have the standard schedule


@dataclass(slots=True)
class Call:
    """What one call did. `error`: type and message of what it raised, in place of results."""

    outputs: list[bytes]  # the structure, then the bits of each leaf
    aliases: list[Any]
    state: dict[str, bytes]  # every tensor, gradient, random state and container afterwards
    error: tuple[str, str] | None = None
    outer: Any = None  # the error of differentiating the results outside, or None
    wrote: list[str] = field(default_factory=list)  # tensors whose elements changed though nobody counted a write


@dataclass(slots=True)
class History:
    """The calls up to the first that raised, and what their results hold after the last."""

    calls: list[Call]
    later: list[list[bytes]]

    @property
    def error(self) -> tuple[str, str] | None:
        """What ended it early."""
        return self.calls[-1].error if self.calls else None


class Start:
    """The state before a history, to go back to."""

    def __init__(self, args: Any, state: Any) -> None:
        self.world = _World([args, state])
        self._taken = self.world.snapshot()
        self._plain = [(x, x.copy()) for x in state if isinstance(x, (list, dict))]
        self._forms = self._looks()

    def restore(self) -> bool:
        """Put everything back; False where that cannot be done, because tensors have another history or layout now."""
        if self._looks() != self._forms or not all(t.is_leaf for _, t in self.world.tensors.values()):
            return False  # (backward frees the history of what is no leaf)
        self.world.restore(self._taken)
        for x, before in self._plain:
            x.clear()
            if isinstance(x, list):
                x.extend(before)
            else:
                x.update(before)
        return True

    def _looks(self) -> list[Any]:
        """What of the tensors is not put back."""
        return [(t._l, t.requires_grad, t.is_leaf, t.grad_fn) for _, t in self.world.tensors.values()]


def history(
    fn: Callable[..., Any], made: tuple[Any, Any, Any], outer: bool, schedule: Sequence[str] = STANDARD
) -> History:
    """What the calls of a schedule give, with other numbers and contents on some of them; an error ends it.

    Functions in the state are called with the number of each call before it, and change what the program reads.
    With `outer`, what is returned is differentiated outside of the function, and calls may run under no_grad if nothing
    is differentiated inside. Raises RecordingError where `fn` does: it is none of the program's own.
    """
    program, args, state = made
    world = _World([args, state])
    without = outer and not _differentiates(program)  # gradients
    kept: list[Any] = []
    found = History([], [])
    for number, how in enumerate(schedule):
        change(state, number)
        now = varied(args, how)
        before = _counts(world)
        with set_grad_enabled("n" not in how or not without):
            try:
                result = fn(*now)
            except RecordingError:
                raise
            except Exception as error:
                found.calls.append(Call([], [], _state(world, state), told(error)))
                break
        seen = Call(_leaf_bits(result), aliases(args, state, result), {})
        if outer:
            seen.outer = _outer_backward(result)
        seen.state = _state(world, state)
        seen.wrote = _uncounted(world, before)
        found.calls.append(seen)
        kept.append(result)
        if "g" in how:
            kept.append([t._grad for _, t in world.tensors.values()])
    found.later = [_leaf_bits(result) for result in kept]
    return found


def change(state: Any, number: int) -> None:
    """Let the functions in the state set what call `number` is to find."""
    for x in state:
        if isinstance(x, FunctionType):
            x(number)


def _differentiates(program: Any) -> bool:
    """Whether a function itself calls backward() or autograd.grad(), which raise under no_grad."""
    code = getattr(program, "__code__", None)
    return code is not None and not {"backward", "grad", "register_hook"}.isdisjoint(code.co_names)


def _counts(world: _World) -> list[tuple[Tensor, int, int, bytes]]:
    return [(t, t._s.version, t._v.value, t._a.tobytes()) for _, t in world.tensors.values()]


def _uncounted(world: _World, before: list[tuple[Tensor, int, int, bytes]]) -> list[str]:
    """Tensors whose elements changed in a call while their counts of writes stand still."""
    return [
        f"tensor {k}"
        for k, (t, version, value, content) in enumerate(before)
        if (t._s.version, t._v.value) == (version, value) and t._a.tobytes() != content
    ]


def _state(world: _World, state: Any) -> dict[str, bytes]:
    """The bits of every tensor, and what lists and dicts of the state hold."""
    found = world.bits()
    for k, x in enumerate(state):
        if isinstance(x, (list, dict)):
            found[f"container {k}"] = b"|".join(_leaf_bits(x))
    return found


def schedule_of(seed: int) -> tuple[str, ...]:
    """The conditions of the calls of a program."""
    return STANDARD if seed % LONG == LONG - 1 else SCHEDULES[seed // 16 % len(SCHEDULES)]


def varied(args: Sequence[Any], how: str) -> tuple[Any, ...]:
    """The arguments under conditions: each by itself, in other layouts, or those of one type as one tensor."""
    now = [vary(x, how) for x in args]
    if "l" in how:
        now = [_relaid(x) for x in now]
    if "a" in how:
        first: dict[Any, Tensor] = {}
        now = [first.setdefault((x._l, x.requires_grad), x) if isinstance(x, Tensor) else x for x in now]
    return tuple(now)


def _relaid(x: Any) -> Any:
    """A tensor's elements in another layout; one with gradients, or of fewer than two elements, as it is."""
    if not isinstance(x, Tensor) or x.requires_grad or not x.shape or x.numel() < 2:
        return x
    with set_grad_enabled(False):
        last = x.dim() - 1
        if x.is_contiguous() and last and x.shape[0] > 1:
            return x.transpose(0, last).contiguous().transpose(0, last)
        return x.clone().contiguous() if not x.is_contiguous() else stack([x, x], -1)[..., 0]


def vary(x: Any, how: str) -> Any:
    """Argument `x` under conditions: other elements, another float, another int."""
    if "e" in how and isinstance(x, Tensor) and x._a.flags.writeable and x._s.owner is x._a:
        np.negative(x._a, out=x._a) if x._a.dtype.kind != "b" else np.logical_not(x._a, out=x._a)
    if "f" in how and type(x) is float:
        return -x + 0.125
    if "i" in how and type(x) is int:
        return 3 - x
    return x


def _outer_backward(result: Any) -> Any:
    """Differentiate what was returned, outside the function; gives the error, if there is one."""
    roots = [x for x in flatten(result)[0] if isinstance(x, Tensor) and x.requires_grad and not x.is_leaf]
    try:
        if roots:
            total: Any = sum((x.double() * 1.5).sum() for x in roots)
            total.backward()
    except GraphcError as error:
        return told(error)
    return None


def told(error: BaseException) -> tuple[str, str]:
    """Type and message; numbers in it (counts of writes, addresses) do not matter."""
    return type(error).__name__, re.sub(r"\d+", "#", str(error))


# ---- aliases


def aliases(args: Any, state: Any, result: Any) -> list[Any]:
    """Which returned tensors are which others, share their memory and how they look at it."""
    outside = [x for x in flatten(args)[0] + list(state) if isinstance(x, Tensor)]
    outs = [x for x in flatten(result)[0] if isinstance(x, Tensor)]
    seen: list[Any] = [[(t.requires_grad, t.is_leaf) for t in outside]]
    for k, t in enumerate(outs):
        others = [*outside, *outs[:k]]
        seen.append((t.is_leaf, [(t is o, t._s is o._s and _same_place(t, o)) for o in others], _strides(t)))
    return seen


def _strides(t: Tensor) -> Any:
    return [s for s, n in zip(t._l.strides, t._a.shape, strict=True) if n > 1]


def _same_place(a: Tensor, b: Tensor) -> Any:
    here, there = a._a.__array_interface__["data"][0], b._a.__array_interface__["data"][0]
    return (here - there, a._v is b._v)


# ---- comparing


def same_histories(expected: History, actual: History, how: str = "compiled") -> None:
    """Assert that two histories are equal in every bit. Raises AssertionError that names the first difference."""
    for k, (a, b) in enumerate(zip(expected.calls, actual.calls, strict=False)):
        if a != b:
            _explain(a, b, f"{how}: call {k + 1}")
    if len(expected.calls) != len(actual.calls):
        last = actual.calls[-1] if actual.calls else None
        raise AssertionError(f"{how}: {len(expected.calls)} calls and {len(actual.calls)}: {_brief(last)}")
    for k, (x, y) in enumerate(zip(expected.later, actual.later, strict=True)):
        if x != y:
            raise AssertionError(f"{how}: the result of call {k + 1} was changed by a later call, unlike eager's")


def _explain(a: Call, b: Call, where: str) -> None:
    if a.error != b.error:
        raise AssertionError(f"{where}: eager {_brief(a)}, the other {_brief(b)}")
    if a.outputs[:1] != b.outputs[:1]:
        raise AssertionError(f"{where}: the structure differs: {a.outputs[0]!r} and {b.outputs[0]!r}")
    _pairwise(a.outputs[1:], b.outputs[1:], where, "output")
    _pairwise(a.aliases[1:], b.aliases[1:], where, "aliases of output")
    if a.aliases != b.aliases:
        raise AssertionError(f"{where}: requires_grad or is_leaf of the inputs differ: {a.aliases[0]} {b.aliases[0]}")
    if a.outer != b.outer:
        raise AssertionError(f"{where}: backward outside: {a.outer} and {b.outer}")
    for name in a.state:
        if a.state[name] != b.state.get(name):
            raise AssertionError(f"{where}: {name} differs: {_shown(a.state[name])} and {_shown(b.state.get(name))}")
    if a.wrote != b.wrote:
        raise AssertionError(f"{where}: elements changed without a counted write: {a.wrote} and {b.wrote}")
    raise AssertionError(f"{where}: the set of tensors differs: {sorted(a.state)} and {sorted(b.state)}")


def _pairwise(xs: Sequence[Any], ys: Sequence[Any], where: str, what: str) -> None:
    for i, (x, y) in enumerate(zip(xs, ys, strict=True)):
        if x != y:
            raise AssertionError(f"{where}: {what} {i} differs: {_shown(x)} and {_shown(y)}")


def _shown(x: Any) -> str:
    text = repr(x)
    return text if len(text) <= 400 else f"{text[:400]}…"


def _brief(call: Call | None) -> str:
    if call is None:
        return "there is none"
    return f"raises {call.error[0]}: {call.error[1]}" if call.error is not None else "gives a result"
