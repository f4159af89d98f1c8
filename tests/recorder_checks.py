"""What the tests of the recorder share: a form is right in every bit (`assert_same`) or refused with its line."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import GraphcError, RecordingError
from graphc.frontend.record.tree import flatten
from graphc.frontend.tensor import Tensor

Case = tuple[Callable[..., Any], tuple[Any, ...], Callable[[], Any]]


def bits(x: Any) -> Any:
    """A value that compares equal for equal bits."""
    if isinstance(x, Tensor):
        return (str(x._l.type), x.requires_grad, np.ascontiguousarray(x._a).tobytes())
    if isinstance(x, np.ndarray):
        return (str(x.dtype), x.shape, x.tobytes())
    if isinstance(x, float):
        return ("float", x.hex())
    if isinstance(x, dict):
        return [(k if isinstance(k, str) else type(k).__name__, bits(v)) for k, v in x.items()]
    if isinstance(x, (list, tuple)):
        leaves, spec = flatten(x)
        return (repr(spec), [bits(y) for y in leaves])
    return (type(x).__name__, repr(x))


def marked_lines(function: Callable[..., Any], mark: str = "# here") -> list[str]:
    """The lines of `function` that end in the mark, as "file.py:12"."""
    source, first = inspect.getsourcelines(function)
    name = os.path.basename(inspect.getsourcefile(function) or "")
    return [f"{name}:{first + k}" for k, line in enumerate(source) if mark in line]


def run(fn: Callable[..., Any], args: tuple[Any, ...], seen: Callable[[], Any], calls: int) -> list[Any]:
    """What `calls` calls return and leave behind."""
    return [(bits(fn(*args)), bits(seen())) for _ in range(calls)]


def refused(make: Callable[[], Any], *, calls: int = 4, trace: bool = True, match: str = "") -> None:
    """Assert that the function of `make() -> (fn, args, seen)` is refused.

    compile: one RecordingWarning naming a line marked `# here`; results and what `seen()` shows are eager's after
    every call. fullgraph=True and trace: RecordingError naming such a line.
    """
    lines = marked_lines(make)
    assert lines, "no line is marked"

    def case() -> Case:
        graphc.manual_seed(5)
        fn, args, *seen = make()
        return fn, args, seen[0] if seen else lambda: None

    fn, args, seen = case()
    expected = run(fn, args, seen, calls)
    fn, args, seen = case()
    compiled = graphc.compile(fn)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert run(compiled, args, seen, calls) == expected
    assert len(caught) == 1, [str(w.message) for w in caught]
    assert caught[0].category is graphc.RecordingWarning
    assert caught[0].filename == __file__, "the warning points at the call, not into graphc"
    _names_line(str(caught[0].message), lines, match)
    assert compiled.stats.hits == 0
    fn, args, seen = case()
    compiled = graphc.compile(fn, fullgraph=True)
    with pytest.raises(RecordingError) as error:
        run(compiled, args, seen, calls)
    _names_line(str(error.value), lines, match)
    if trace:
        fn, args, _ = case()
        with pytest.raises(RecordingError) as error:
            graphc.trace(fn, *args)
        _names_line(str(error.value), lines, match)


def _names_line(text: str, lines: list[str], match: str) -> None:
    assert any(line in text for line in lines), f"{text!r} names none of {lines}"
    assert match in text, text


def follows(fn: Callable[..., Any], *calls: tuple[Any, ...], fullgraph: bool = True) -> Any:
    """Assert that the compiled function gives what `fn` gives for a row of calls (fn without effects). Returns it."""
    compiled = graphc.compile(fn, fullgraph=fullgraph, audit=3)  # calls like the last one are tried, too
    for k, args in enumerate(calls):
        assert bits(compiled(*args)) == bits(fn(*args)), f"call {k + 1} differs"
    return compiled


def raises_like(fn: Callable[..., Any], *args: Any) -> None:
    """Assert that the compiled function raises what `fn` raises."""
    with pytest.raises(GraphcError) as first:
        fn(*args)
    with pytest.raises(type(first.value)) as second:
        graphc.compile(fn)(*args)
    assert str(first.value) == str(second.value)
