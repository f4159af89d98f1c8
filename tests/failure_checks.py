"""What the tests of known failures share: one program, made anew for every way to run it, compared call by call."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.config import config
from graphc.errors import GraphcError
from graphc.frontend.record.tree import flatten
from graphc.frontend.tensor import Tensor
from tests.recorder_checks import bits, marked_lines

# make() -> (function, given, seen): `given(k)` changes what call k is to find changed and returns its arguments;
# `seen()` shows the state that calls leave behind
Given = Callable[[int], tuple[Any, ...]]
Made = tuple[Callable[..., Any], Given, Callable[[], Any]]
Make = Callable[[], Made]
Runner = Callable[[Callable[[], Any], int], Any]


def x34(start: float = 0.0) -> Any:
    return graphc.arange(12, dtype=graphc.float32).reshape(3, 4) + (start - 5.5)


def cases(*made: Any) -> Any:
    """One test a variant of an item."""
    return pytest.mark.parametrize("make", [pytest.param(m, id=m.__name__.strip("_")) for m in made])


def nothing() -> None:
    """The state of a program that has none."""


def steady(*args: Any) -> Given:
    """The same arguments at every call."""
    return lambda k: args


def fresh(*shape: int, dtype: Any = graphc.float32, count: int = 1, grad: bool = False) -> Given:
    """New numbers at every call."""

    def given(k: int) -> tuple[Any, ...]:
        rng = np.random.RandomState(100 + k)
        made = [graphc.tensor(rng.standard_normal(shape).astype(np.float32)).to(dtype) for _ in range(count)]
        return tuple(t.requires_grad_() if grad else t for t in made)

    return given


def same(make: Make, *, hits: int | None = None, calls: int = 8, recordings: int | None = None) -> Any:
    """Assert that the program compiled whole gives what it gives eagerly: results, memory, arguments, state, errors.

    Once more with every condition asked twice (`config.verify`), once more with two threads calling in turn. At least
    `hits` calls (default: all but two) are answered by compiled graphs. Gives the compiled function of the first run.
    """
    expected = history(*_made(make), calls)
    found = []
    for verify, runner in ((False, _here), (True, _here), (False, _in_turn)):
        fn, given, seen = _made(make)
        compiled = graphc.compile(fn, fullgraph=True)
        before, config.verify = config.verify, verify
        try:
            _alike(expected, history(compiled, given, seen, calls, runner))
        finally:
            config.verify = before
        least = calls - 2 if hits is None else hits
        assert compiled.stats.hits >= least, (compiled.stats, compiled.explain())
        assert recordings is None or compiled.stats.recordings <= recordings, compiled.explain()
        found.append(compiled)
    return found[0]


def either(make: Make, *, calls: int = 14, warned: str = "", hits: int = 0) -> Any:
    """Assert that the program gives what it gives eagerly, compiled where it can be; every warning says `warned`."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of what is compiled within
        expected = history(*_made(make), calls)
    found = []
    for verify, runner in ((False, _here), (True, _here), (False, _in_turn)):
        fn, given, seen = _made(make)
        compiled = graphc.compile(fn)
        before, config.verify = config.verify, verify
        try:
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                _alike(expected, history(compiled, given, seen, calls, runner))
        finally:
            config.verify = before
        told = [str(w.message) for w in caught]
        assert len(told) <= 2 and all(warned and warned in text for text in told), told
        assert compiled.stats.hits >= hits, (compiled.stats, compiled.explain())
        found.append(compiled)
    return found[0]


def fallback(make: Make, *, lockstep: int | None = None, calls: int = 9, match: str = "", hits: int = 0) -> Any:
    """Assert that the program is refused with one warning naming a line marked `# here` in the source of `make`, and
    gives what it gives eagerly; at least `lockstep` calls run in lockstep (0: none may). `fullgraph=True` raises.
    """
    lines = marked_lines(make)
    assert lines, "no line is marked"
    expected = history(*_made(make), calls)
    fn, given, seen = _made(make)
    compiled = graphc.compile(fn)
    mode, config.lockstep = config.lockstep, "always"
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            _alike(expected, history(compiled, given, seen, calls))
    finally:
        config.lockstep = mode
    told = [str(w.message) for w in caught if issubclass(w.category, graphc.RecordingWarning)]
    assert len(told) == 1 and any(line in told[0] for line in lines) and match in told[0], (told, lines)
    if lockstep is not None:
        assert (compiled.stats.lockstep >= lockstep) if lockstep else (not compiled.stats.lockstep), compiled.stats
    assert compiled.stats.hits == hits
    _raises_whole(make, lines, calls)
    return compiled


def _made(make: Make) -> Made:
    """The program, with the same random weights every time."""
    graphc.manual_seed(2)
    return make()


def _raises_whole(make: Make, lines: list[str], calls: int) -> None:
    fn, given, _ = _made(make)
    whole = graphc.compile(fn, fullgraph=True)
    try:
        for k in range(calls):
            whole(*given(k))
    except graphc.errors.RecordingError as error:
        assert any(line in str(error) for line in lines), (str(error), lines)
        return
    raise AssertionError("fullgraph=True raises nothing")


def history(
    fn: Callable[..., Any], given: Given, seen: Callable[[], Any], calls: int, runner: Runner | None = None
) -> list[Any]:
    """What every call gives, what it leaves behind, and what the results are after the last one."""
    graphc.manual_seed(3)
    found: list[Any] = []
    kept: list[Any] = []

    def one(k: int) -> None:
        args = given(k)
        try:
            result = fn(*args)
        except GraphcError as error:
            found.append((type(error).__name__, str(error), bits(seen())))
            return
        kept.append(result)
        state = seen()
        found.append((bits(result), memory(result, args, state), _given(args), bits(state), _random()))

    for k in range(calls):
        (runner or _here)(lambda k=k: one(k), k)  # type: ignore[misc]
    found.append([bits(x) for x in kept])
    return found


def memory(*trees: Any) -> list[Any]:
    """Which of the tensors share memory with which others before them, and how they lie in it."""
    found = [x for tree in trees for x in flatten(tree)[0] if isinstance(x, Tensor)]
    return [
        (t.requires_grad, t.is_leaf, [_relation(t, o) for o in found[:k]], [] if t.numel() < 2 else list(t.stride()))
        for k, t in enumerate(found)
    ]


def _relation(a: Tensor, b: Tensor) -> Any:
    if a is b:
        return "same"
    if a._s is not b._s:
        return None
    here, there = (t._a.__array_interface__["data"][0] for t in (a, b))
    return (here - there, a._v is b._v)


def _given(args: tuple[Any, ...]) -> Any:
    """The arguments as the call left them."""
    return [bits(x) for x in flatten(args)[0] if isinstance(x, (Tensor, np.ndarray, int, float, str))]


def _random() -> Any:
    return graphc.get_rng_state().tolist()


def _here(call: Callable[[], Any], k: int) -> Any:
    return call()


def _in_turn(call: Callable[[], Any], k: int) -> Any:
    """Every other call in a thread of its own, with this thread's modes."""
    if k % 2 == 0:
        return call()
    with ThreadPoolExecutor(1) as other:
        return other.submit(copy_context().run, call).result()


def _alike(expected: list[Any], actual: list[Any]) -> None:
    for k, (a, b) in enumerate(zip(expected, actual, strict=True)):
        assert a == b, f"call {k}:\n{str(a)[:1500]}\n!=\n{str(b)[:1500]}"
