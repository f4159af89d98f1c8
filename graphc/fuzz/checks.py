"""The oracle of whole programs: eager, compiled, run again, on other numbers of threads and reloaded, in every bit."""

from __future__ import annotations

import atexit
import contextlib
import functools
import linecache
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import ModuleType
from typing import Any

from graphc.config import config
from graphc.errors import (
    ArgumentError,
    AutogradError,
    GraphcError,
    GuardError,
    InternalError,
    RecordingError,
)
from graphc.frontend.promote import get_default_dtype, set_default_dtype
from graphc.frontend.record import front
from graphc.frontend.record.compiled import RecordingWarning
from graphc.frontend.record.export import Program, load, trace
from graphc.frontend.record.lockstep_plan import LockstepPlan
from graphc.frontend.record.tree import flatten
from graphc.frontend.same import _bits, _plain_outputs
from graphc.frontend.tensor import Tensor
from graphc.fuzz.programs import source
from graphc.fuzz.runs import STANDARD, History, Start, change, history, same_histories, schedule_of, vary
from graphc.runtime.executable import trial
from graphc.runtime.pool import get_num_threads, set_num_threads

__all__ = ["Conditions", "check", "check_lockstep", "check_program", "check_text", "imported"]

Made = tuple[Any, Any, Any]  # what make() gives


@dataclass(frozen=True, slots=True)
class Conditions:
    """Under which conditions the program of a seed runs. All of them follow from the seed, if nothing else is said."""

    seed: int
    outer: bool  # what is returned is differentiated outside
    threads: tuple[int, int]  # of the first compiled history and of the second
    split: bool  # the threads share kernels however small they are
    verify: bool  # GRAPHC_VERIFY
    lockstep: str  # GRAPHC_LOCKSTEP

    @staticmethod
    def of(seed: int, gradients: bool = False) -> Conditions:
        """What `seed` is run under."""
        return Conditions(
            seed,
            outer=gradients or seed % 3 == 0,
            threads=(1, 2) if seed % 4 < 2 else (2, 1),
            split=seed % 2 == 1,
            verify=seed % 16 == 5,
            lockstep="always" if seed % 8 == 3 else "auto",
        )


# ---- programs as modules


@contextmanager
def imported(text: str, name: str) -> Iterator[ModuleType]:
    """The program as a module. It has no file; error messages and `inspect` find its lines all the same."""
    filename = f"{name}.py"
    module = ModuleType(name)
    module.__file__ = filename
    linecache.cache[filename] = (len(text), None, text.splitlines(True), filename)
    try:
        exec(compile(text, filename, "exec", dont_inherit=True), module.__dict__)
        yield module
    finally:
        linecache.cache.pop(filename, None)


def check(seed: int, *, gradients: bool = False, deep: bool = False) -> str:
    """Compare the runs of the program of a seed; tells how it was treated: "same", "refused: …", … Raises
    AssertionError.
    """
    return check_text(source(seed), seed, gradients=gradients, deep=deep)


def check_text(text: str, seed: int, *, gradients: bool = False, deep: bool = False) -> str:
    """Compare the runs of a program given as text, as `check` does."""
    with imported(text, f"program_{seed}") as module:
        return run_conditions(module.make, Conditions.of(seed, gradients), deep)


def check_program(make: Callable[[], Made], seed: int = 0, *, gradients: bool = False, deep: bool = False) -> None:
    """Compare the runs of one program, as `graphc fuzz` does, and print how it was treated.

    `make()` gives a function, its arguments and a list of what the function reaches besides them, equal ones at every
    call. It runs eagerly, compiled, again from the same start, with 1 and 2 threads, and exported and reloaded; with
    `deep` also its graph in every way there is. `seed` chooses the conditions. Raises AssertionError naming the first
    difference.
    """
    print(run_conditions(make, Conditions.of(seed, gradients), deep))


def run_conditions(make: Callable[[], Made], conditions: Conditions, deep: bool) -> str:
    """Compare the runs of the programs that `make` makes."""
    with _under(conditions):
        return _Check(make, conditions).run(deep)


@contextmanager
def _under(conditions: Conditions) -> Iterator[None]:
    before = config.verify, config.lockstep, trial.poison, trial.split, get_num_threads()
    default = get_default_dtype()  # which programs change, too
    config.verify, config.lockstep = conditions.verify, conditions.lockstep
    trial.poison, trial.split = True, conditions.split
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they are compared where it matters
            yield
    finally:
        config.verify, config.lockstep, trial.poison, trial.split = before[:4]
        set_num_threads(before[4])
        set_default_dtype(default)


# ---- one program


class _Check:
    """The runs of one program, each compared with the first, which is eager."""

    def __init__(self, make: Callable[[], Made], conditions: Conditions) -> None:
        self.make = make
        self.conditions = conditions
        self.refused: list[str] = []
        self.warned: set[tuple[type[Warning], str]] = set()  # what eager code warned of
        self.answered = 0  # calls of the second history that compiled graphs answered
        self.enough = 0  # how many that should be

    def run(self, deep: bool) -> str:
        try:
            made = self.make()
        except InternalError:
            raise
        except GraphcError as error:
            return f"unmade: {error}"
        expected = self._eager(made)
        self._compiled(expected)
        if expected.error is not None:
            return f"raises: {': '.join(expected.error)}"
        if self.refused:
            return f"refused: {self.refused[0]}"
        told = self._reloaded()
        if deep:
            from graphc.fuzz import deep as graphs  # twelve modules that most campaigns never need

            made = self.make()
            change(made[2], 0)
            graphs.deep_check(*made, seed=self.conditions.seed, full=True)
        if self.answered < self.enough:
            return f"few hits: {self.answered}"
        return told

    def _history(self, fn: Any, made: Made) -> History:
        return history(fn, made, self.conditions.outer, schedule_of(self.conditions.seed))

    def _eager(self, made: Made) -> History:
        """Run eagerly, and again from the same start."""
        fn, args, state = made
        start = Start(args, state)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            expected = self._history(fn, made)
        self.warned = {(w.category, str(w.message)) for w in caught}
        if expected.error is not None and expected.error[0] == "InternalError":
            raise AssertionError(f"eager: {': '.join(expected.error)}")
        if expected.error is not None or not start.restore():  # an error may leave hooks and modes behind
            made = self.make()
        same_histories(expected, self._history(made[0], made), "eager, run again")
        return expected

    def _compiled(self, expected: History) -> None:
        """Run compiled, and again from the same start with another number of threads."""
        first, second = self.conditions.threads
        made = self.make()
        start = Start(*made[1:])
        compiled: Any = front.compile(made[0])
        self._compare(expected, compiled, made, first, "compiled")
        again = expected.error is None and start.restore()
        if not again:
            made = self.make()
            compiled = front.compile(made[0])
        hits = compiled.stats.hits
        self._compare(expected, compiled, made, second, "compiled, run again")
        self.answered = compiled.stats.hits - hits
        self.enough = len(expected.calls) // 2 if again else 1

    def _compare(self, expected: History, compiled: Any, made: Made, threads: int, how: str) -> None:
        set_num_threads(threads)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            actual = self._history(compiled, made)
        same_histories(expected, actual, f"{how}, {threads} thread{'s' if threads > 1 else ''}")
        for warning in caught:
            if issubclass(warning.category, RecordingWarning):
                self.refused.append(str(warning.message))
            elif (warning.category, str(warning.message)) not in self.warned:
                raise AssertionError(f"{how}: a warning that eager code does not give: {warning.message}")

    def _reloaded(self) -> str:
        """Run as a program that was written to a file and read again."""
        made = self._begun()
        wanted = _plain_calls(made[0], made[1], len(_PLAIN), _not_for_others)
        made = self._begun()
        try:
            program = trace(made[0], *made[1])
        except RecordingError as error:
            return f"not exported: {error}"
        except AutogradError as error:
            if "a second time" not in str(error):  # an argument given twice is two in a file: it takes another path
                raise
            return f"not exported: {error}"
        again = through_file(program)
        if str(again.graph) != str(program.graph):
            raise AssertionError("reloaded: the graph's text differs from the saved one")
        try:
            found = _plain_calls(again, made[1], len(wanted), _another_way)
        except ArgumentError as error:
            if "pass a copy of one of them" not in str(error):
                raise
            return f"not exported: {error}"
        if not found:
            return "not exported: its first call goes another way than the recorded one"
        for k, (a, b) in enumerate(zip(wanted, found, strict=False)):
            if a != b:
                raise AssertionError(f"reloaded: call {k + 1}: {_first(a, b)} differs from eager")
        return "same"

    def _begun(self) -> Made:
        """The program, for odd seeds after two calls: gradients and the state of optimisers are there then."""
        made = self.make()
        change(made[2], 0)
        for _ in range(2 * (self.conditions.seed % 2)):
            made[0](*made[1])
        return made


# the bits of what a call gave, and of its arguments and their gradients afterwards
_Plain = tuple[list[bytes], list[bytes]]
# what of the arguments is part of the program: numbers, and whether they have gradients where it asks
_CONDITIONS = ("trace again with it", "the call would go another way")


_PLAIN = ("", "", "e", "f")  # the same arguments twice, other elements, another float


def _plain_calls(
    fn: Callable[..., Any], args: Any, calls: int, ends: Callable[[int, GraphcError], bool]
) -> list[_Plain]:
    """The first of these calls, up to one whose error `ends` them; any other error is raised."""
    found: list[_Plain] = []
    for k in range(calls):
        try:
            found.append(_plain_call(fn, args, k))
        except GraphcError as error:
            if not ends(k, error):
                raise
            break
    return found


def _not_for_others(k: int, error: GraphcError) -> bool:
    """True for an error of eager code that the arguments of the first call do not give."""
    return k > 0


def _another_way(k: int, error: GraphcError) -> bool:
    """True where a program says that a call would go another way than the recording."""
    return isinstance(error, GuardError) or (
        isinstance(error, ArgumentError) and any(text in str(error) for text in _CONDITIONS)
    )


def _plain_call(fn: Callable[..., Any], args: Any, k: int) -> _Plain:
    tensors = [x for x in dict.fromkeys(flatten(args)[0]) if isinstance(x, Tensor)]
    result = fn(*(vary(x, _PLAIN[k]) for x in args))
    return _plain_outputs(result), [bits for t in tensors for bits in (_bits(t._a), _gradient(t))]


def _gradient(t: Tensor) -> bytes:
    return b"none" if t._grad is None else _bits(t._grad._a)


def _first(a: _Plain, b: _Plain) -> str:
    for what, xs, ys in zip(("output", "argument or gradient"), a, b, strict=True):
        for k, (x, y) in enumerate(zip(xs, ys, strict=False)):
            if x != y:
                return f"{what} {k}"
    return "the number of outputs"


@functools.cache
def _folder() -> str:
    """Where model files are written: in memory, if the machine has such a place; removed at the end of the process."""
    place = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = tempfile.mkdtemp(prefix="graphc-fuzz-", dir=place)
    maker = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder, ignore_errors=True) if os.getpid() == maker else None)
    return folder


def through_file(program: Program) -> Program:
    """The program as it comes back from a file."""
    path = os.path.join(_folder(), f"{os.getpid()}.gcz")
    try:
        program.save(path)
        return load(path)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)


def check_lockstep(seed: int) -> int:
    """Compare a program run eagerly and in lockstep; tells how many calls ran in lockstep. Raises AssertionError."""
    with imported(source(seed, effects=True), f"program_{seed}") as module:
        try:
            made = module.make()
        except GraphcError:
            return 0
        schedule = (*STANDARD, "", "", "", "")
        expected = history(made[0], made, seed % 3 == 0, schedule)
        made = module.make()
        plan = LockstepPlan(f"program_{seed}")

        def run(*args: Any) -> Any:
            return made[0](*args) if plan.off else plan.call(made[0], args, {})[0]

        same_histories(expected, history(run, made, seed % 3 == 0, schedule), "in lockstep")
        return plan.calls
