"""One row of RECORDER.md's tables in four settings: compiled, from a file, in threads, and after exceptions.

A `Case` is one row: `make() -> (f, arguments[, seen])` makes everything anew; `seen()` shows what a call leaves behind.
Where the contract refuses, the refused line of `make` ends in `# here`.
"""

from __future__ import annotations

import functools
import os
import sys
import threading
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

import graphc
from graphc.errors import RecordingError
from graphc.frontend.mode import mode
from graphc.frontend.record import rng
from graphc.frontend.record.tree import flatten
from graphc.frontend.tensor import Tensor
from tests.recorder_checks import bits, marked_lines

CALLS = 5
THREADS = 4
SETTINGS = ("compiled", "file", "threads", "exceptions")


@dataclass(frozen=True)
class Case:
    """`refused`: by compile; `file`: "same" (a file gives the same values), "refused" at its line, or what the
    refusal of an argument says (the line is that of trace()); `shared`: draws from the one random state of the
    process, or changes another setting of it, so threads go one after the other; `use`: what is done with a result
    outside of the compiled function.
    """

    name: str
    make: Callable[[], Any]
    refused: bool = False
    file: str = ""
    shared: bool = False
    use: Callable[[Any], Any] | None = None

    @property
    def in_file(self) -> str:
        """What a file does with it."""
        return self.file or ("refused" if self.refused else "same")


def run(case: Case, setting: str) -> None:
    """Assert that the contract holds for a case in one of the SETTINGS."""
    {"compiled": _compiled, "file": _file, "threads": _threads, "exceptions": _exceptions}[setting](case)


def contract(cases: list[Case]) -> Any:
    """Parametrize a test over all cases and settings."""
    names = [c.name for c in cases]
    assert len(set(names)) == len(names), "a row is listed twice"
    return pytest.mark.parametrize(
        ("case", "setting"), [pytest.param(c, s, id=f"{c.name}-{s}") for c in cases for s in SETTINGS]
    )


def _made(case: Case) -> tuple[Any, Any, Any]:
    graphc.manual_seed(5)
    f, args, *seen = case.make()
    return f, args, seen[0] if seen else lambda: None


def _calls(fn: Any, args: Any, seen: Any, use: Callable[[Any], Any] | None = None) -> list[Any]:
    found = []
    for _ in range(CALLS):
        y = fn(*args)
        found.append((bits(y), bits(use(y) if use else None), bits(seen()), rng.state_array().tolist()))
    return found


def _clean() -> None:
    """Assert that nothing of a recording goes on."""
    assert mode.get().recorder is None and sys.getprofile() is None


def _names_line(case: Case, text: str) -> None:
    lines = marked_lines(case.make)
    assert lines and any(line in text for line in lines), f"{text!r} names none of {lines}"


def _compiled(case: Case) -> None:
    expected = _calls(*_made(case), case.use)
    f, args, seen = _made(case)
    compiled = graphc.compile(f)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert _calls(compiled, args, seen, case.use) == expected
    told = [str(w.message) for w in caught if issubclass(w.category, graphc.RecordingWarning)]
    if not case.refused:
        assert not told and compiled.stats.hits >= 1 and compiled.stats.eager == 0, (told, compiled.explain())
        f, args, seen = _made(case)
        assert _calls(graphc.compile(f, fullgraph=True, audit=1), args, seen, case.use) == expected
        return
    assert len(told) == 1 and compiled.stats.hits == 0, told
    _names_line(case, told[0])
    f, args, seen = _made(case)
    compiled = graphc.compile(f, fullgraph=True)
    with pytest.raises(RecordingError) as error:
        _calls(compiled, args, seen, case.use)
    _names_line(case, str(error.value))


def _file(case: Case) -> None:
    f, args, _ = _made(case)
    if case.in_file != "same":
        with pytest.raises(RecordingError) as error:
            graphc.trace(f, *args)
        if case.in_file == "refused":
            _names_line(case, str(error.value))
        else:
            assert case.in_file in str(error.value) and "contract_runs.py:" in str(error.value)
        _clean()
        return
    expected = [_values(f(*args)) for _ in range(CALLS)]
    f, args, _ = _made(case)
    program = graphc.trace(f, *args)
    path = os.path.join(os.environ["GRAPHC_CACHE_DIR"], f"contract-{os.getpid()}.gcz")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    program.save(path)
    again = graphc.load(path)
    os.remove(path)
    assert str(again.graph) == str(program.graph)
    assert [_values(again(*args)) for _ in range(CALLS)] == expected


def _values(result: Any) -> list[Any]:
    return [bits(x.detach()) if isinstance(x, Tensor) else bits(x) for x in flatten(result)[0]]


def _threads(case: Case) -> None:
    """Each thread has objects of its own and records while others call; then all call one compiled function."""
    expected = _calls(*_made(case), case.use)
    made = [_made(case) for _ in range(THREADS)]
    graphc.manual_seed(5)
    found: list[Any] = [None] * THREADS
    turn = threading.Lock()

    def work(k: int) -> None:
        f, args, seen = made[k]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", graphc.RecordingWarning)
            if case.shared:
                with turn:
                    f, args, seen = _made(case)
                    found[k] = _calls(graphc.compile(f), args, seen, case.use)
            else:
                found[k] = _calls(graphc.compile(f), args, seen, case.use)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphc.RecordingWarning)
        at_once(work, THREADS)
    for k, calls in enumerate(found):
        assert calls == expected, f"thread {k}"
    _clean()


def at_once(work: Callable[[int], Any], count: int) -> list[Any]:
    """What work(0), work(1), ... give, each in a thread of its own. Raises what the first that fails raises."""
    found: list[Any] = [None] * count
    failed: list[BaseException] = []

    def guarded(k: int) -> None:
        try:
            found[k] = work(k)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=guarded, args=(k,)) for k in range(count)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if failed:
        raise failed[0]
    return found


class Stop(Exception):
    """Raised in the middle of a call."""


def _exceptions(case: Case) -> None:
    """The function raises in the first recording, in the second, and where it was compiled: early and late."""
    for late in (False, True):
        expected = _interrupted(case, late, False)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", graphc.RecordingWarning)
            assert _interrupted(case, late, True) == expected, f"late={late}"


def _interrupted(case: Case, late: bool, compiled: bool) -> list[Any]:
    f, args, seen = _made(case)
    fuse = {"blown": False}

    def whole(*given: Any) -> Any:
        if fuse["blown"] and not late:
            raise Stop
        result = f(*given)
        if fuse["blown"]:
            raise Stop
        return result

    fn = graphc.compile(whole) if compiled else whole
    found = []
    before = mode.get().grad
    for k in range(9):
        fuse["blown"] = k in (0, 2, 6)
        try:
            y = fn(*args)
            found.append((bits(y), bits(case.use(y) if case.use else None)))
        except Stop:
            found.append("stopped")
        found.append((bits(seen()), rng.state_array().tolist()))
        _clean()
        assert mode.get().grad is before
    return found


@dataclass(frozen=True)
class Raising:
    """A row that says what raises: `make() -> (f, arguments, others)`, with others for which `f` runs, or None."""

    name: str
    make: Callable[[], Any]
    error: type[Exception]
    match: str | None = None


def raising(cases: list[Raising]) -> Any:
    """Parametrize a test over all cases and settings."""
    assert len({c.name for c in cases}) == len(cases), "a row is listed twice"
    return pytest.mark.parametrize(
        ("case", "setting"), [pytest.param(c, s, id=f"{c.name}-{s}") for c in cases for s in SETTINGS]
    )


def run_raising(case: Raising, setting: str) -> None:
    """Assert that the error is eager's and that what the arguments hold afterwards is what eager execution leaves."""
    if setting == "threads":
        at_once(lambda k: run_raising(case, "compiled"), THREADS)
        return
    f, args, fine = case.make()
    with pytest.raises(case.error, match=case.match) as first:
        f(*args)
    left = bits(args)
    f, args, fine = case.make()
    fn = functools.partial(graphc.trace, f) if setting == "file" else graphc.compile(f)
    for k in range(CALLS):
        if setting == "exceptions" and fine is not None:
            assert bits(fn(*fine)) == bits(f(*fine)), f"call {k}"
        if setting == "file" or k == 0:
            before = bits(args)
        with pytest.raises(case.error, match=case.match) as error:
            fn(*args)
        assert type(error.value) is type(first.value) and str(error.value) == str(first.value)
        assert bits(args) == (before if setting == "file" else left), f"call {k}"
        _clean()
