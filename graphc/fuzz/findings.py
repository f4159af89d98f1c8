"""What a campaign found: confirmed in a fresh process, made small, written as a program that runs by itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from graphc.fuzz.checks import check_text
from graphc.fuzz.shrink import count_ops, shrink
from graphc.fuzz.worker import Note, Verdict, judged, run_alone

SHRINK_SECONDS = 240.0  # of one program
SHRINK_TRIES = 3000
_SURE = ("difference", "error")  # the process survives them
_ALONE_LIMIT = 10.0


class Campaign(Protocol):
    """How programs are run."""

    @property
    def gradients(self) -> bool:
        """Whether results are differentiated outside."""

    def is_deep(self, seed: int) -> bool:
        """Whether the program of a seed gets the deep checks."""

    def __call__(self, seed: int, note: Note) -> str:
        """Run the program of a seed."""


@dataclass(frozen=True, slots=True)
class Finding:
    """A program that went wrong. `program` runs by itself and shows it; `ops` counts the operations in it."""

    seed: int
    kind: str  # "difference", "error", "signal", "hang", "memory" or "exit"
    what: str
    program: str
    ops: int
    command: str
    detail: str = ""  # a traceback, or what the fault handler wrote
    confirmed: bool = True  # False: it did not happen again in a process of its own
    original: str = ""  # the program before it was made small

    def __str__(self) -> str:
        lines = [f"seed {self.seed}: {self.kind}: {self.what}"]
        if not self.confirmed:
            lines.append("(not again in a process of its own: what ran before it matters)")
        if self.detail and self.kind != "difference":
            lines += ["", *self.detail.rstrip().splitlines()[-40:], ""]
        lines += [f"repeat: {self.command}", f"program ({self.ops} operations):", "", self.program]
        return "\n".join(lines)


def finding_of(verdict: Verdict, case: Campaign, time_limit: float, small: bool) -> Finding:
    """Confirm what a worker met, and make its program small."""
    again = run_alone(verdict.number, case, time_limit)
    confirmed = again.kind != "done"
    shown = again if confirmed else verdict
    text = shown.program
    deep = case.is_deep(verdict.number)
    if small and confirmed and text:
        text = _smaller(text, shown, case.gradients, deep, time_limit)
    return Finding(
        verdict.number, shown.kind, shown.text, runnable(text, verdict.number, case.gradients, deep), _ops(text),
        _command(verdict.number, case.gradients, deep), shown.detail, confirmed, shown.program,
    )  # fmt: skip


def _command(seed: int, gradients: bool, deep: bool) -> str:
    options = f"{' --gradients' if gradients else ''}{' --deep 1' if deep else ''}"
    return f"graphc fuzz --programs 1 --seed {seed}{options}"


def runnable(text: str, seed: int, gradients: bool, deep: bool) -> str:
    """The program with an end that compares its runs: `python file.py` shows the difference."""
    options = f"{', gradients=True' if gradients else ''}{', deep=True' if deep else ''}"
    end = f"    graphc.testing.check_program(make, seed={seed}{options})"
    return f'{text.rstrip()}\n\n\nif __name__ == "__main__":\n{end}\n'


def _ops(text: str) -> int:
    try:
        return count_ops(text)
    except SyntaxError:
        return 0


# ---- making it small


def _smaller(text: str, shown: Verdict, gradients: bool, deep: bool, time_limit: float) -> str:
    """The smallest program that goes wrong in the same way; `text` itself if none is found."""
    limit = min(time_limit, _ALONE_LIMIT) if shown.kind != "hang" else min(time_limit, 3.0)

    def fails(candidate: str) -> bool:
        return same_kind(run_alone(shown.number, _Text(candidate, gradients, deep), limit), shown)

    if shown.kind in _SURE:  # in one process, where all stays warm; what comes of it is then tried in a fresh one
        found = run_alone(shown.number, _Shrink(text, shown, gradients, deep), SHRINK_SECONDS + 60)
        if found.kind == "done" and found.text and fails(found.text):
            return found.text
    return _shrunk(text, fails)


def _shrunk(text: str, fails: Callable[[str], bool]) -> str:
    return shrink(text, fails, budget_s=SHRINK_SECONDS, max_tries=SHRINK_TRIES)


@dataclass(frozen=True, slots=True)
class _Text:
    """A case that is a text."""

    text: str
    gradients: bool
    deep: bool

    def __call__(self, seed: int, note: Note) -> str:
        note(self.text)
        return check_text(self.text, seed, gradients=self.gradients, deep=self.deep)


@dataclass(frozen=True, slots=True)
class _Shrink:
    """A case that makes a text small, all in its own process."""

    text: str
    shown: Verdict
    gradients: bool
    deep: bool

    def __call__(self, seed: int, note: Note) -> str:
        def fails(candidate: str) -> bool:
            return same_kind(judged(seed, _Text(candidate, self.gradients, self.deep)), self.shown)

        return _shrunk(self.text, fails)


def same_kind(found: Verdict, shown: Verdict) -> bool:
    """Whether two verdicts tell of the same fault: the same kind, in the same stage or of the same type.

    A fault that already shows between two eager runs is one of memory that nobody wrote: any difference will do.
    """
    if found.kind == shown.kind == "difference" and shown.text.startswith("eager, run again"):
        return True
    return found.kind == shown.kind and _stage(found) == _stage(shown)


def _stage(verdict: Verdict) -> tuple[str, ...]:
    """Which comparison failed ("compiled", "reloaded") and who raised what; of other faults, the text or the type."""
    if verdict.kind != "difference":
        return (verdict.text.partition(":")[0],)
    who = verdict.text.replace(",", ":").partition(":")[0]
    return who, *re.findall(r"gives a result|raises \w+", verdict.text)
