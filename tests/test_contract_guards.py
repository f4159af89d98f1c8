"""RECORDER.md, "Guard set": whatever Python reads and however it changes between calls, a compiled function gives what
the function gives, or is refused. The programs are in contract_programs.py.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from tests.contract_programs import PROGRAMS
from tests.recorder_checks import bits

WHEN = ((2,), (3, 6), (6, 9))  # the calls before which something changes


def _drive(make: Callable[[], Any], when: tuple[int, ...], compiled: bool) -> tuple[list[Any], Any]:
    f, change = make()
    fn = graphc.compile(f) if compiled else f
    out: list[Any] = []
    try:
        for k in range(1, 10):
            if k in when:
                change(k if k in (3, 6) else 3)
            try:
                out.append(bits(fn(graphc.tensor([1.0, 2.0, 3.0]))))
            except Exception as error:
                out.append((type(error), str(error)[:60]))
    finally:
        getattr(f, "cleanup", lambda: None)()
    return out, fn


@pytest.mark.parametrize("name", PROGRAMS)
def test_what_changes_between_calls_is_seen_or_refused(name: str) -> None:
    for when in WHEN:
        expected, _ = _drive(PROGRAMS[name], when, False)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            found, compiled = _drive(PROGRAMS[name], when, True)
        assert found == expected, (when, compiled.explain())
        told = [w for w in caught if issubclass(w.category, graphc.RecordingWarning)]
        assert len(told) <= 1, [str(w.message) for w in told]
        assert compiled.stats.hits or told, "neither compiled nor refused"
