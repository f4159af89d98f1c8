"""`graphc fuzz`: random programs run in every way, and what differs."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from graphc.cli.exits import MISMATCH, OK
from graphc.cli.output import say, say_json, say_table
from graphc.fuzz.campaign import Report, fuzz


def run(
    programs: int, seed: int, jobs: int | None, gradients: bool, deep: float, time_limit: float,
    out: Path | None, no_shrink: bool, max_findings: int, as_json: bool,
) -> int:  # fmt: skip
    """The command: exit code 1 when anything differs."""
    progress = None if as_json or not sys.stderr.isatty() else _Progress(programs)
    report = fuzz(
        programs, seed, jobs=jobs, gradients=gradients, deep=deep, time_limit=time_limit, out=out,
        shrink=not no_shrink, max_findings=max_findings, progress=progress,
    )  # fmt: skip
    if progress is not None:
        progress.end()
    if as_json:
        say_json(_plain(report))
    else:
        _show(report, out)
    return OK if report.ok else MISMATCH


def _plain(report: Report) -> dict[str, object]:
    findings = [
        {"seed": f.seed, "kind": f.kind, "what": f.what, "ops": f.ops, "command": f.command, "program": f.program}
        for f in report.findings
    ]
    return {
        "ok": report.ok, "seed": report.seed, "programs": report.programs, "run": report.run, "deep": report.deep,
        "outcomes": dict(report.rows()), "stopped": report.stopped, "findings": findings,
    }  # fmt: skip


def _show(report: Report, out: Path | None) -> None:
    rows = [(name, str(n), f"{n / max(1, report.run):.1%}") for name, n in report.rows()]
    say_table("", ("outcome", "programs", "share"), rows)
    for finding in report.findings:
        say(f"\n{finding}")
    if report.findings and out is not None:
        say(f"written to {out}")
    last = report.seed + report.programs - 1
    kind = "programs with gradients" if report.gradients else "programs"
    stopped = f", stopped: {report.stopped}" if report.stopped else ""
    say(
        f"{report.run} {kind}, seeds {report.seed} to {last}, {report.deep} with the deep checks, "
        f"{report.seconds:.0f} s: {len(report.findings)} findings{stopped}"
    )


class _Progress:
    """A line of stderr that is overwritten twice a second."""

    def __init__(self, programs: int) -> None:
        self.programs = programs
        self.began = self.shown = time.monotonic()

    def __call__(self, done: int, findings: int) -> None:
        now = time.monotonic()
        if now - self.shown < 0.5 and done < self.programs:
            return
        self.shown = now
        rate = done / max(now - self.began, 1e-9)
        left = (self.programs - done) / rate
        text = f"{done} of {self.programs}, {rate:.0f} a second, {left:.0f} s left, {findings} findings"
        print(f"\r{text:<70}", end="", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Leave the line."""
        print(file=sys.stderr)
