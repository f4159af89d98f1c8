"""The planted bugs of tests/mutants.txt are still there to be planted, and the fuzzer finds some of them."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from tests.mutant_runs import MAX_OPS, edited, mutants, run_mutant

MUTANTS = mutants()


def _text(module: str) -> str:
    spec = importlib.util.find_spec(module)
    assert spec is not None and spec.origin is not None
    return Path(spec.origin).read_text()


def test_there_are_enough() -> None:
    assert len(MUTANTS) >= 40
    assert len({m.module for m in MUTANTS.values()}) >= 20


@pytest.mark.parametrize("name", MUTANTS)
def test_mutants_fit(name: str) -> None:
    mutant = MUTANTS[name]
    text = _text(mutant.module)
    changed = edited(mutant, text)
    assert changed != text
    compile(changed, mutant.module, "exec")  # it is a program still


@pytest.mark.parametrize(("name", "small"), [("cse_ignores_attributes", True), ("result_memory_used_again", False)])
def test_some_are_found_soon(name: str, small: bool, tmp_path: Path) -> None:
    """A pass, and the memory of results: whatever the fuzzer writes meets these."""
    found = run_mutant(name, 40, 0, 0.0, tmp_path, small)
    assert found.found, found
    assert not small or found.ops <= MAX_OPS, (tmp_path / f"{name}.py").read_text()
