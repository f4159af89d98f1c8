"""`graphc.testing.fuzz`: many random programs, each run in every way and compared; what differs is a finding."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from graphc.errors import ArgumentError, InternalError
from graphc.fuzz.checks import check_text
from graphc.fuzz.findings import Finding, finding_of
from graphc.fuzz.programs import source
from graphc.fuzz.worker import Note, Verdict, run_cases
from graphc.runtime.cache import ObjectCache
from graphc.runtime.code import library

__all__ = ["Finding", "Report", "fuzz"]

CACHE_BYTES = 1 << 30
KEPT_KERNELS = 6000  # in the memory of each worker
MAX_FINDINGS = 20
COMPILED = ("same", "not exported", "few hits")  # outcomes of programs that have a graph


@dataclass(slots=True)
class Report:
    """What a campaign found. `outcomes`: how many programs were treated in which way; only those called "same" went
    through every comparison, the others through those that apply to them.
    """

    seed: int
    programs: int  # asked for
    gradients: bool
    outcomes: dict[str, int] = field(default_factory=dict)
    deep: int = 0  # programs that got the deep checks
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0
    stopped: str = ""  # why not all programs were run

    @property
    def ok(self) -> bool:
        """True when nothing differed."""
        return not self.findings

    @property
    def run(self) -> int:
        """Programs that were run."""
        return sum(self.outcomes.values()) + len(self.findings)

    def __str__(self) -> str:
        kind = "programs with gradients" if self.gradients else "programs"
        seeds = f"seeds {self.seed} to {self.seed + self.programs - 1}"
        lines = [f"{self.run} {kind} ({seeds}), {self.deep} with the deep checks: {len(self.findings)} findings"]
        lines += [f"  {name}: {n} ({n / max(1, self.run):.1%})" for name, n in self.rows()]
        lines += [f"stopped: {self.stopped}"] if self.stopped else []
        return "\n".join([*lines, *(f"\n{finding}" for finding in self.findings)])

    def rows(self) -> list[tuple[str, int]]:
        """The outcomes, the most frequent first."""
        found = sorted(self.outcomes.items(), key=lambda item: (-item[1], item[0]))
        return [*found, ("found", len(self.findings))] if self.findings else found


@dataclass(frozen=True, slots=True)
class Case:
    """How the programs of a campaign are run."""

    gradients: bool
    deep: float

    def is_deep(self, seed: int) -> bool:
        """Whether the program of a seed gets the deep checks."""
        return Random(f"deep {seed}").random() < self.deep

    def __call__(self, seed: int, note: Note) -> str:
        """Write and run the program of a seed; tells how it was treated."""
        try:
            text = source(seed, gradients=self.gradients)
        except Exception as error:
            raise InternalError(f"no program was written: {type(error).__name__}: {error}") from error
        note(text)
        return check_text(text, seed, gradients=self.gradients, deep=self.is_deep(seed))


def fuzz(
    programs: int = 1000,
    seed: int = 0,
    *,
    jobs: int | None = None,
    gradients: bool = False,
    deep: float = 0.0,
    time_limit: float = 60.0,
    out: str | Path | None = None,
    shrink: bool = True,
    max_findings: int = MAX_FINDINGS,
    progress: Callable[[int, int], None] | None = None,
) -> Report:
    """Run `programs` random programs, those of the seeds from `seed` on, and compare eager, compiled, reloaded and
    repeated runs in every bit.

    Each runs in a forked process, `jobs` at once (default: one a core): a signal, a run of more than `time_limit`
    seconds and a blow-up of memory are findings as a difference is. With `gradients` only programs that differentiate
    count, and what they return is differentiated outside, too. `deep` is the share of programs whose graphs are also
    checked node by node, with each pass off, for other targets and between guard pages. Findings are made small unless
    `shrink` is False, and written to the folder `out` as programs that run by themselves. `progress(done, findings)`
    is called now and then. The same seed gives the same report, whatever `jobs`. Raises ArgumentError for numbers out
    of range, UnsupportedError where processes cannot be forked.
    """
    _check(programs, seed, jobs, deep, time_limit, max_findings)
    began = time.monotonic()
    case = Case(gradients, deep)
    report = Report(seed, programs, gradients)
    with _shared_cache():
        bad = _collect(report, case, jobs or _cores(), time_limit, max_findings, progress)
        for verdict in bad:
            report.findings.append(finding_of(verdict, case, time_limit, shrink))
    if out is not None:
        _write(report, Path(out))
    report.seconds = time.monotonic() - began
    return report


def _check(programs: int, seed: int, jobs: int | None, deep: float, time_limit: float, max_findings: int) -> None:
    if programs < 1:
        raise ArgumentError(f"fuzz: programs must be at least 1, got {programs}")
    if seed < 0:
        raise ArgumentError(f"fuzz: seed must be at least 0, got {seed}")
    if jobs is not None and jobs < 1:
        raise ArgumentError(f"fuzz: jobs must be at least 1, got {jobs}")
    if not 0 <= deep <= 1:
        raise ArgumentError(f"fuzz: deep is a share from 0 to 1, got {deep}")
    if not time_limit > 0:
        raise ArgumentError(f"fuzz: time_limit must be positive, got {time_limit}")
    if max_findings < 1:
        raise ArgumentError(f"fuzz: max_findings must be at least 1, got {max_findings}")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _collect(
    report: Report,
    case: Case,
    jobs: int,
    time_limit: float,
    max_findings: int,
    progress: Callable[[int, int], None] | None,
) -> list[Verdict]:
    """Run the cases and count their outcomes; what went wrong, by seed."""
    bad: list[Verdict] = []
    verdicts = run_cases(range(report.seed, report.seed + report.programs), case, jobs, time_limit)
    try:
        for done, verdict in enumerate(verdicts, 1):
            if verdict.kind == "done":
                name = verdict.text.partition(":")[0]
                report.outcomes[name] = report.outcomes.get(name, 0) + 1
                report.deep += case.is_deep(verdict.number) and name in COMPILED
            else:
                bad.append(verdict)
            if progress is not None:
                progress(done, len(bad))
            if len(bad) >= max_findings and done < report.programs:
                report.stopped = f"{len(bad)} findings"
                break
    except KeyboardInterrupt:
        report.stopped = "interrupted"
    finally:
        verdicts.close()
    return sorted(bad, key=lambda v: v.number)


@contextmanager
def _shared_cache() -> Iterator[None]:
    """Compiled kernels shared by all workers, apart from those of the user, and gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="graphc-fuzz-") as folder:
        cache = ObjectCache(Path(folder) / "objects", CACHE_BYTES)
        with library().using(cache, KEPT_KERNELS):
            yield


def _write(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for finding in report.findings:
        (folder / f"seed_{finding.seed}.py").write_text(finding.program, encoding="utf-8")
