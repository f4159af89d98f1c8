"""Running the fuzzer on planted bugs: `python -m tests.mutant_runs [NAME …] [--programs N]`.

tests/mutants.txt lists them: a small change each to the passes, the planner, the lowering, the templates or the
recorder, a mistake that somebody could make and that a fuzzer must find. A name and a module, then whole lines that
stand once in that module, and what stands there instead.

Every mutant runs in a process of its own, with a cache of its own: code compiled by a mutant must not outlive it.
"""

from __future__ import annotations

import argparse
import importlib.abc
import importlib.machinery
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

ROOT = Path(__file__).resolve().parent.parent
IMPORT_FAILED = 3  # exit code: the mutant does not even survive its import
MAX_OPS = 5  # of a finding that was made small


@dataclass(frozen=True, slots=True)
class Mutant:
    """Replace `before`, which stands once in `module`, by `after`."""

    name: str
    module: str
    before: str
    after: str


def mutants() -> dict[str, Mutant]:
    """All of tests/mutants.txt, by name."""
    found = {}
    for part in (ROOT / "tests" / "mutants.txt").read_text().split("\n\n"):
        head, *lines = part.strip("\n").split("\n")
        name, module = head.split()
        assert name not in found and all(line[:1] in ("-", "+") for line in lines), part
        before, after = ("".join(f"{x[1:]}\n" for x in lines if x[0] == sign) for sign in "-+")
        found[name] = Mutant(name, module, before, after)
    return found


class _Loader(SourceFileLoader):
    """Loads one module with an edit."""

    def __init__(self, fullname: str, path: str, mutant: Mutant) -> None:
        super().__init__(fullname, path)
        self.mutant = mutant

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(edited(self.mutant, self.get_data(self.path).decode()), self.path)


class _Finder(importlib.abc.MetaPathFinder):
    """Finds the module of a mutant before anybody else does."""

    def __init__(self, mutant: Mutant) -> None:
        self.mutant = mutant

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != self.mutant.module:
            return None
        spec = PathFinder.find_spec(fullname, path)
        assert spec is not None and spec.origin is not None
        return importlib.machinery.ModuleSpec(fullname, _Loader(fullname, spec.origin, self.mutant), origin=spec.origin)


def edited(mutant: Mutant, text: str) -> str:
    """The text of the module with the planted bug."""
    assert text.count(mutant.before) == 1, f"{mutant.name}: its text is not there, or more than once"
    return text.replace(mutant.before, mutant.after)


def plant(name: str) -> None:
    """Make this process import the module of a mutant with its edit. Call it before graphc is imported."""
    mutant = mutants()[name]
    assert mutant.module not in sys.modules, f"{mutant.module} is imported already"
    sys.meta_path.insert(0, _Finder(mutant))


# ---- running


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one mutant. `programs`: how many were run until it was found, or in all."""

    name: str
    found: bool
    programs: int
    ops: int
    seconds: float
    text: str

    def __str__(self) -> str:
        if not self.found:
            return f"{self.name}: not found in {self.programs} programs ({self.seconds:.0f} s)"
        return f"{self.name}: program {self.programs}, {self.ops} ops ({self.seconds:.0f} s): {self.text}"


def run_mutant(name: str, programs: int, seed: int, deep: float, folder: Path, shrink: bool = True) -> Result:
    """Fuzz a mutant until it is found. A program does not count that also fails without the mutant, or that fails with
    it only after others in the same process.
    """
    began, first = time.monotonic(), seed
    while first < seed + programs:
        left = seed + programs - first
        numbers = [str(left), str(first), str(deep), "small" if shrink else "whole"]
        done = _python(["-m", "tests.mutant_runs", "--inside", name, *numbers])
        if done.returncode == IMPORT_FAILED:
            return Result(name, True, 1, 0, time.monotonic() - began, done.stdout.strip())
        assert done.returncode == 0, f"{name}: {done.stderr}"
        found = json.loads(done.stdout.splitlines()[-1])
        if found is None:
            break
        program = folder / f"{name}.py"
        program.write_text(found["program"])
        first = found["seed"] + 1
        if found["confirmed"] and _python([str(program)]).returncode == 0:
            text = f"{found['kind']}: {found['what'].splitlines()[0] if found['what'] else ''}"
            return Result(name, True, first - seed, found["ops"], time.monotonic() - began, text)
    return Result(name, False, programs, 0, time.monotonic() - began, "")


def _python(arguments: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Python with a cache of its own."""
    with tempfile.TemporaryDirectory() as cache:
        around = {**os.environ, "GRAPHC_CACHE_DIR": cache, "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, env=around, cwd=ROOT)


def _inside(name: str, programs: str, seed: str, deep: str, form: str) -> int:
    """In the process of a mutant: fuzz, and print the first finding as JSON."""
    plant(name)
    try:
        from graphc.testing import fuzz
    except Exception as error:
        print(f"import: {type(error).__name__}: {error}")
        return IMPORT_FAILED
    report = fuzz(int(programs), int(seed), deep=float(deep), max_findings=1, shrink=form == "small")
    kept = ("seed", "kind", "what", "ops", "program", "confirmed")
    print(json.dumps({k: getattr(report.findings[0], k) for k in kept} if report.findings else None))
    return 0


def main() -> int:
    """Run the mutants that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--programs", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--deep", type=float, default=0.25, help="share of programs with the deep checks")
    parser.add_argument("--no-shrink", action="store_true", help="leave what is found as it is")
    parser.add_argument("--out", type=Path, default=Path("mutants"), help="where the programs found are written")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    results = []
    for name in given.names or mutants():
        results.append(run_mutant(name, given.programs, given.seed, given.deep, given.out, not given.no_shrink))
        print(results[-1], flush=True)
    print(f"{sum(r.found for r in results)} of {len(results)} found")
    small = given.no_shrink or all(r.ops <= MAX_OPS for r in results)
    return 0 if small and all(r.found for r in results) else 1


if __name__ == "__main__":
    sys.exit(_inside(*sys.argv[2:]) if sys.argv[1:2] == ["--inside"] else main())
