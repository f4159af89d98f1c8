"""Comparing eager, compiled and reloaded runs of random programs: results, aliases, gradients, state, errors."""

from __future__ import annotations

import importlib.util
import os
import re
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, GraphcError, RecordingError
from graphc.frontend.grad_mode import set_grad_enabled
from graphc.frontend.record import front
from graphc.frontend.record.lockstep_plan import LockstepPlan
from graphc.frontend.record.tree import flatten
from graphc.frontend.same import _leaf_bits, _World, assert_same
from graphc.frontend.tensor import Tensor
from graphc.fuzz.programs import source


@contextmanager
def imported(text: str, name: str) -> Iterator[ModuleType]:
    """The program as a module of a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


def _aliases(args: Any, state: Any, result: Any) -> list[Any]:
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


def history(fn: Callable[..., Any], made: tuple[Any, Any, Any], seed: int, outer: bool, calls: int = 8) -> list[Any]:
    """What `calls` calls give, with other numbers and contents on some of them; an error ends it."""
    _, args, state = made
    world = _World([args, state])
    found: list[Any] = []
    for k in range(calls):
        now = tuple(_vary(x, k, seed) for x in args)
        try:
            with set_grad_enabled(k != 6 or not outer):
                result = fn(*now)
            seen = [_leaf_bits(result), _aliases(now, state, result)]
        except RecordingError:
            raise
        except Exception as error:
            found.append((*_told(error), world.bits() | _plain(state)))
            return found
        if outer:
            seen.append(_outer_backward(result))
        found.append((seen, world.bits() | _plain(state)))
    return found


def _plain(state: Any) -> dict[str, Any]:
    """What lists and dicts of the state hold."""
    return {f"container {k}": _leaf_bits(x) for k, x in enumerate(state) if isinstance(x, (list, dict))}


def _vary(x: Any, k: int, seed: int) -> Any:
    """Argument `x` at call `k`: other elements on the fourth, another float on the fifth, another int on the sixth."""
    if k == 3 and isinstance(x, Tensor) and x._a.flags.writeable and x._s.owner is x._a:
        np.negative(x._a, out=x._a) if x._a.dtype.kind != "b" else np.logical_not(x._a, out=x._a)
    if k == 4 and type(x) is float:
        return -x + 0.125
    if k == 5 and type(x) is int:
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
        return _told(error)
    return None


def _told(error: Exception) -> tuple[str, str]:
    return type(error).__name__, re.sub(r"\d+", "#", str(error))


def check(seed: int, *, threads: tuple[int, ...] = (1, 2)) -> str:
    """Compare the runs of one program; tells how it was treated ("same", "refused", …). Raises AssertionError."""
    with imported(source(seed), f"program_{seed}") as module:
        return check_module(module, seed, threads)


def check_module(module: ModuleType, seed: int = 0, threads: tuple[int, ...] = (1, 2)) -> str:
    """Compare the runs of a module with `make()`."""
    outer = seed % 3 == 0
    try:
        made = module.make()
    except GraphcError as error:
        return f"unmade: {error}"
    expected = history(made[0], made, seed, outer)
    made = module.make()
    compiled: Any = front.compile(made[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        actual = history(compiled, made, seed, outer)
    same_histories(expected, actual)
    refused = [str(w.message) for w in caught]
    if isinstance(expected[-1][0], str):
        return f"raises: {expected[-1][1]}"
    if refused:
        assert all("runs eagerly" in text for text in refused), refused
        return "refused: " + refused[0]
    return _whole(module, threads)


def check_lockstep(seed: int) -> int:
    """Compare a program run eagerly and in lockstep; tells how many calls ran in lockstep. Raises AssertionError."""
    with imported(source(seed, effects=True), f"program_{seed}") as module:
        try:
            made = module.make()
        except GraphcError:
            return 0
        expected = history(made[0], made, seed, seed % 3 == 0, calls=12)
        made = module.make()
        plan = LockstepPlan(f"program_{seed}")

        def run(*args: Any) -> Any:
            return made[0](*args) if plan.off else plan.call(made[0], args, {})[0]

        same_histories(expected, history(run, made, seed, seed % 3 == 0, calls=12))
        return plan.calls


def _whole(module: ModuleType, threads: tuple[int, ...]) -> str:
    fn, args, state = module.make()
    try:
        assert_same(fn, *args, state=state, threads=threads, reload=False)
    except RecordingError as error:
        return f"refused: {error}"
    except AssertionError as error:
        if "calls were answered by the compiled graph" not in str(error):
            raise
        return "few hits"
    fn, args, state = module.make()
    try:
        assert_same(fn, *args, state=state, threads=(1,))
    except RecordingError as error:
        return f"not exported: {error}"
    except AutogradError as error:
        if "a second time" not in str(error):  # an argument given twice is two in a file, which takes another path
            raise
        return f"not exported: {error}"
    except ArgumentError as error:
        if "pass a copy of one of them" not in str(error):
            raise
        return f"not exported: {error}"
    return "same"


def same_histories(expected: list[Any], actual: list[Any]) -> None:
    for k, (a, b) in enumerate(zip(expected, actual, strict=False)):
        if a == b:
            continue
        if isinstance(a[0], str) or isinstance(b[0], str):
            assert a[:2] == b[:2], f"call {k + 1}: eager {_brief(a)}, compiled {_brief(b)}"
        else:
            assert a[0][0][:1] == b[0][0][:1], f"call {k + 1}: the structure differs: {a[0][0][0]!r} and {b[0][0][0]!r}"
            for i, (x, y) in enumerate(zip(a[0][0][1:], b[0][0][1:], strict=True)):
                assert x == y, f"call {k + 1}: output {i} differs: {x!r} and {y!r}"
            for i, (x, y) in enumerate(zip(a[0][1], b[0][1], strict=True)):
                assert x == y, f"call {k + 1}: aliases of output {i - 1} differ: {x} and {y}"
            assert a[0][2:] == b[0][2:], f"call {k + 1}: backward outside: {a[0][2:]} and {b[0][2:]}"
        for name in a[-1]:
            assert a[-1][name] == b[-1].get(name), f"call {k + 1}: {name} differs"
        raise AssertionError(f"call {k + 1}: the set of tensors differs")
    assert len(expected) == len(actual), f"{len(expected)} calls and {len(actual)}: {_brief(actual[-1])}"


def _brief(x: Any) -> str:
    return f"raises {x[0]}: {x[1]}" if isinstance(x[0], str) else "gives a result"
