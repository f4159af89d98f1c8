"""`graphc.compile`: record twice, confirm, then run the compiled graph whenever its guards hold; eager otherwise."""

from __future__ import annotations

import copy
import functools
import sys
import threading
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import MethodType
from typing import TYPE_CHECKING, Any

from graphc.config import config
from graphc.errors import GraphcError, GuardError, RecordingError
from graphc.frontend.mode import debugging, mode, watching
from graphc.frontend.record.applies import repeats, sharing, static_guards_hold
from graphc.frontend.record.around import Around, restoring
from graphc.frontend.record.audit import Audit
from graphc.frontend.record.callbacks import remembering, rewind
from graphc.frontend.record.door import Door, door
from graphc.frontend.record.dynamic import loosened, named_sizes, named_types
from graphc.frontend.record.kinds import signature
from graphc.frontend.record.play import play, prepare
from graphc.frontend.record.results import MISS
from graphc.frontend.record.session import argument_names, check_function, is_small, record_call
from graphc.frontend.record.trace import Trace, branches_differ, difference
from graphc.frontend.record.tree import TreeSpec, flatten
from graphc.frontend.record.typetest import type_test
from graphc.frontend.record.watch import is_module
from graphc.frontend.record.where import outside
from graphc.frontend.tensor import Tensor

if TYPE_CHECKING:
    from graphc.frontend.record.lockstep_plan import LockstepPlan

MAX_TRACES = 8
MAX_OBJECTS = 32  # arguments known by identity, in calls that are otherwise alike
MAX_ENTRIES = 256  # signatures that were recorded and not yet compiled
MAX_SIGNATURES = 1024  # of one function; beyond, those that no call wanted for the longest time are forgotten
PATIENCE = 10.0  # seconds that a call waits for other threads before it runs eagerly
_no_retrace: ContextVar[bool] = ContextVar("no_retrace", default=False)
disabled: ContextVar[bool] = ContextVar("disabled", default=False)  # compiled functions run eagerly here
_every: weakref.WeakSet[Compiled] = weakref.WeakSet()


class RecordingWarning(UserWarning):
    """A function given to compile() runs eagerly; the message names the line and what to do."""


@dataclass(slots=True)
class Stats:
    """Counts of one compiled function."""

    calls: int = 0
    recordings: int = 0  # calls that were recorded
    compilations: int = 0  # traces confirmed and compiled
    hits: int = 0  # calls answered by a compiled graph
    misses: int = 0  # calls where no trace applied
    eager: int = 0  # calls run eagerly after a refusal
    lockstep: int = 0  # calls after a refusal whose operations ran compiled, beside their Python
    refused: int = 0  # refusals


@dataclass(slots=True)
class Entry:
    """What is known for one signature."""

    held: list[Any]  # objects the signature knows by identity
    traces: list[Trace] = field(default_factory=list)
    pending: list[Trace] = field(default_factory=list)
    refusal: str = ""
    lockstep: LockstepPlan | None = None  # how calls run after a refusal
    ints: frozenset[int] = frozenset()  # int leaves that are inputs
    names: dict[int, str] = field(default_factory=dict)  # tensor leaves whose first axis has a name
    key: Any = None
    used: int = 0  # the number of the call that wanted it last


class Compiled:
    """A function (or Module) with its traces. Calling it gives exactly what the function gives."""

    _graphc_compiled = True

    def __init__(
        self,
        function: Callable[..., Any],
        fullgraph: bool = False,
        *,
        dynamic: bool = False,
        plain: Callable[..., Any] | None = None,
        audit: int = 0,
    ) -> None:
        if not is_module(function):
            functools.update_wrapper(self, function, updated=())
        self.function = function
        self.fullgraph = fullgraph
        self.dynamic = dynamic
        self.period = audit  # one call in so many is audited
        self.plain = function if plain is None else plain  # what runs eagerly: a Module compiled in place needs another
        _every.add(self)
        self.reset()

    def reset(self) -> None:
        """Forget all recordings and compiled graphs, and begin counting anew."""
        self.stats = Stats()
        self.latest: Trace | None = None  # the last that answered a call
        self._door: Door | None = None  # for calls like the last one
        self._fixed: set[Any] = set()  # signatures with named sizes that cannot be recorded so
        self._audit = Audit(self.period) if self.period else None
        self._hosts = False  # some recording has callbacks
        self._entries: dict[Any, Entry] = {}
        self._kinds: dict[Any, int] = {}  # signature but for the identity of objects -> how many there were
        self._exact = type_test(self.function) is not None  # numbers are part of the signature
        self._lock = threading.RLock()
        self._counting = threading.Lock()
        # signature but for ints -> (ints seen first, which became inputs)
        self._ints: dict[Any, tuple[list[Any], frozenset[int]]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run the compiled graph where its guards hold, else the function itself."""
        here = mode.get()
        if not config.compile or here.recorder is not None or debugging or disabled.get():
            return self.plain(*args, **kwargs)  # switched off, or recorded by an outer compiled function
        known, audit, lock = self._door, self._audit, self._lock
        fits = known is not None and not kwargs and not watching and known.fits(args, here)
        if known is not None and fits and (audit is None or audit.passes()) and lock.acquire(True, PATIENCE):
            try:
                result = known.repeat(args)
                if result is not MISS:
                    self.stats.calls += 1
                    self.stats.hits += 1
                    return result
            finally:
                lock.release()
        try:
            leaves, spec = flatten((args, kwargs))
        except RecordingError as error:
            return self._eager(error, args, kwargs)
        with remembering() if self._hosts else nullcontext():
            if not watching:
                return self._answer(args, kwargs, leaves, spec)
            with self._lock:  # the profiler compares counts
                return watching[0].calls(self, self._answer)(args, kwargs, leaves, spec)

    def _answer(self, args: Any, kwargs: Any, leaves: list[Any], spec: TreeSpec) -> Any:
        """One thread at a time, but for the Python of a refused function, which may wait for other threads."""
        lock = self._lock
        if not lock.acquire(True, PATIENCE):  # perhaps the thread that has it waits for this one
            self._count(calls=1, eager=1)
            return self.plain(*args, **kwargs)
        try:
            result = self._call(args, kwargs, leaves, spec)
        finally:
            lock.release()
        return self._refused(result, args, kwargs) if type(result) is Entry else result

    def _count(self, calls: int = 0, eager: int = 0, lockstep: int = 0) -> None:
        """Count what runs outside the lock."""
        with self._counting:
            s = self.stats
            s.calls, s.eager, s.lockstep = s.calls + calls, s.eager + eager, s.lockstep + lockstep

    def _call(self, args: Any, kwargs: Any, leaves: list[Any], spec: TreeSpec) -> Any:
        """What the function gives; the Entry of a call whose recording was refused."""
        self.stats.calls += 1
        self._door = None
        entry = self._entry_for(leaves, spec)
        audit, expected = self._audit, None
        if audit is not None:
            expected = audit.expected(self.function, entry.traces, (args, kwargs), leaves, spec, entry.ints)
        for k, trace in enumerate(entry.traces):
            rewind()
            result = play(trace, leaves)
            if result is not MISS:
                if k:
                    entry.traces.insert(0, entry.traces.pop(k))
                self.stats.hits += 1
                if trace is self.latest and not self._hosts and not entry.ints and not entry.names:
                    self._door = door(trace, leaves, spec, entry.held, self._exact)
                self.latest = trace
                if audit is not None and expected is not None:
                    audit.compare(expected, trace, result, self._name())
                return result
        self.stats.misses += 1
        rewind()
        if entry.refusal:
            return entry
        if _no_retrace.get() and entry.traces:
            raise GuardError(f"{self._name()} would be recorded again inside no_retrace(): {self._why(entry, leaves)}")
        return self._record(entry, args, kwargs, leaves, spec)

    def _entry_for(self, leaves: list[Any], spec: TreeSpec) -> Entry:
        """What is known for calls of this kind."""
        key, held = signature(leaves, spec, self._exact)
        names = named_sizes(leaves) if self.dynamic and not self._exact else {}
        loose = loosened(key, leaves, names)
        if names and loose not in self._fixed:
            key = loose
        else:
            names = {}
        given = key
        ints = frozenset() if self._exact else self._changing_ints(key, leaves)
        if ints:
            rest = tuple(p for i, p in enumerate(key[1]) if i not in ints)
            key = (key[0], rest, *key[2:], ints, *(is_small(leaves[i]) for i in sorted(ints)))
        entry = self._entries.get(key)
        if entry is None:
            if _no_retrace.get() and self.stats.compilations:
                raise GuardError(
                    f"{self._name()} would be recorded again inside no_retrace(): it is called with another kind of "
                    "arguments"
                )
            entry = self._new_entry(key, held, ints)
            entry.names, entry.key = names, given
        entry.used = self.stats.calls
        return entry

    def warm(self, *args: Any, **kwargs: Any) -> None:
        """Record and compile for arguments like these ahead of the first call.

        Tensors, gradients, buffers, optimiser and random state are afterwards what they were; what the function shows
        or changes of Python happens. An optimiser that made no step yet makes its state at the first call, which is
        recorded for that reason. Raises and warns as a call does. For a method, call it on the class with the instance.
        """
        leaves, spec = flatten((args, kwargs))
        with self._lock, restoring() as around:
            entry = self._entry_for(leaves, spec)
            for _ in range(2):
                if not entry.refusal and not any(static_guards_hold(t, leaves) for t in entry.traces):
                    self._record(entry, args, kwargs, leaves, spec, around)

    def _refused(self, entry: Entry, args: Any, kwargs: Any) -> Any:
        """Run a call whose recording was refused: in lockstep where that is possible, in one thread at a time."""
        plan = entry.lockstep
        if plan is None or plan.off or not plan.turn.acquire(blocking=False):
            self._count(eager=1)
            return self.plain(*args, **kwargs)
        try:
            result, whole = plan.call(self.plain, args, kwargs)
        finally:
            plan.turn.release()
        self._count(eager=not whole, lockstep=whole)
        return result

    def _eager(self, error: RecordingError, args: Any, kwargs: Any) -> Any:
        """Run a call whose arguments are no tree; the first time with a warning."""
        with self._lock:
            self.stats.calls += 1
            self.stats.eager += 1
            if self.stats.eager == 1 or self.fullgraph:
                self._refuse(Entry([]), f"the arguments are no tree: {error}")
        return self.plain(*args, **kwargs)

    def _new_entry(self, key: Any, held: list[Any], ints: frozenset[int]) -> Entry:
        """A place for a new signature; a kind of call that always brings new objects is refused."""
        entry = Entry(held, ints=ints)
        if held:
            kind = (key[0], tuple(object if type(p) is tuple and p[0] is object else p for p in key[1]), *key[2:])
            count = self._kinds[kind] = self._kinds.get(kind, 0) + 1
            if count > MAX_OBJECTS:
                if count == MAX_OBJECTS + 1:
                    names = ", ".join(sorted({type(x).__name__ for x in held}))
                    self._refuse(entry, f"it was called with more than {MAX_OBJECTS} different objects ({names})")
                entry.refusal = entry.refusal or "too many different objects"
                return entry
        if len(self._entries) >= MAX_SIGNATURES:
            self._forget()
        self._entries[key] = entry
        young = [k for k, e in self._entries.items() if not e.traces and not e.refusal]
        if len(young) > MAX_ENTRIES:
            del self._entries[young[0]]
        return entry

    def _forget(self) -> None:
        """Make room: a quarter of the signatures goes, and of what was counted for signatures."""
        some = MAX_SIGNATURES // 4
        for key in sorted(self._entries, key=lambda k: self._entries[k].used)[:some]:
            del self._entries[key]
        for counted in (self._kinds, self._ints):
            for key in list(counted)[: max(0, len(counted) + some - MAX_SIGNATURES)]:
                del counted[key]
        self._fixed.clear()  # found out again

    def _changing_ints(self, key: Any, leaves: list[Any]) -> frozenset[int]:
        """Which int leaves are inputs: those that were another number in an earlier call that was otherwise alike."""
        places = [i for i, x in enumerate(leaves) if type(x) is int and -(2**63) <= x < 2**63]
        if not places:
            return frozenset()
        rest = (key[0], tuple(int if i in places else p for i, p in enumerate(key[1])), *key[2:])
        first, changing = self._ints.get(rest, (None, frozenset()))
        if first is None:
            self._ints[rest] = ([leaves[i] for i in places], changing)
            return frozenset()
        more = frozenset(i for i, n in zip(places, first, strict=True) if leaves[i] != n)
        if not more <= changing:
            changing |= more
            self._ints[rest] = (first, changing)
        return changing

    def _record(
        self, entry: Entry, args: Any, kwargs: Any, leaves: list[Any], spec: TreeSpec, around: Around | None = None
    ) -> Any:
        if len(entry.traces) >= MAX_TRACES:
            self._refuse(
                entry, f"it took more than {MAX_TRACES} different paths; the last miss: {self._why(entry, leaves)}"
            )
            return self.plain(*args, **kwargs)
        expected = [t for t in entry.pending if repeats(t, leaves)]
        self.stats.recordings += 1
        names = argument_names(self.function, args, kwargs, spec)
        if entry.names:
            return self._record_named(entry, args, kwargs, leaves, spec, names, around)
        with nullcontext() if around is None else around.kept(leaves):
            recorded = record_call(
                self.function, leaves, spec, names, given=(args, kwargs), ints=entry.ints, strict=self.fullgraph,
                on_lift=None if around is None else around.note, around=around,
            )  # fmt: skip
        if recorded.trace is None:
            if self.fullgraph and recorded.refusal is not None:
                raise recorded.refusal
            self._refuse(entry, str(recorded.refusal))
            return recorded.result
        self._hosts = self._hosts or bool(recorded.trace.hosts)
        self._confirm(entry, recorded.trace, expected, leaves)
        return recorded.result

    def _record_named(
        self, entry: Entry, args: Any, kwargs: Any, leaves: list[Any], spec: TreeSpec, names: list[str],
        around: Around | None,
    ) -> Any:  # fmt: skip
        """Record with named sizes; where the function needs one as a number, record each size for itself."""
        expected = [t for t in entry.pending if repeats(t, leaves)]
        safe = Around() if around is None else around
        for x in leaves:
            if isinstance(x, Tensor):
                safe.note(x)
        recorded = None
        try:
            recorded = record_call(
                self.function, leaves, spec, names, given=(args, kwargs), ints=entry.ints, on_lift=safe.note,
                around=safe, types=named_types(leaves, entry.names), measured=entry.names,
            )  # fmt: skip
        except GraphcError:  # perhaps because of the names
            safe.restore()
        if around is not None:
            around.restore()
        if recorded is None or recorded.trace is None or recorded.recorder.forced:
            self._fixed.add(entry.key)
            self._entries = {k: e for k, e in self._entries.items() if e is not entry}
            if recorded is not None:
                return recorded.result
            return self._record(self._entry_for(leaves, spec), args, kwargs, leaves, spec, around)
        self._confirm(entry, recorded.trace, expected, leaves)
        return recorded.result

    def _confirm(self, entry: Entry, trace: Trace, expected: list[Trace], leaves: Sequence[Any]) -> None:
        for earlier in expected:
            text = difference(earlier, trace)
            if text is None:
                entry.pending.remove(earlier)
                prepare(trace)
                entry.traces.insert(0, trace)
                self.stats.compilations += 1
                trace.number = self.stats.compilations
                return
        unexplained = [t for t in expected if not branches_differ(t, trace)]
        if unexplained:
            entry.pending.remove(unexplained[0])
            entry.pending.append(trace)
            self._refuse(
                entry,
                f"two calls with the same arguments were not the same: {difference(unexplained[0], trace)}; pass what "
                "changes as an argument",
            )
            return
        trace.sharing = sharing(trace, leaves)
        entry.pending.append(trace)
        if len(entry.pending) > MAX_TRACES:
            last = difference(entry.pending[-2], trace)
            self._refuse(entry, f"more than {MAX_TRACES} different recordings and no two alike; the last two: {last}")

    def _refuse(self, entry: Entry, why: str) -> None:
        self.stats.refused += 1
        entry.refusal = why
        if self.fullgraph:
            raise RecordingError(f"{self._name()} cannot be compiled whole: {why}")
        if config.lockstep != "never" and type_test(self.function) is None:  # pending tensors have one of their own
            from graphc.frontend.record.lockstep_plan import LockstepPlan  # seven modules that most programs never need

            entry.lockstep = LockstepPlan(self._name())
        how = "runs eagerly" if entry.lockstep is None else "runs eagerly, where it can in lockstep with compiled code"
        warnings.warn(f"{self._name()} {how}: {why}", RecordingWarning, stacklevel=outside())

    def _why(self, entry: Entry, leaves: Sequence[Any]) -> str:
        from graphc.frontend.record.explain import why_missed

        return why_missed(entry.traces[0], leaves) if entry.traces else "nothing is recorded yet"

    def _name(self) -> str:
        kind = type(self.function).__name__
        return kind if is_module(self.function) else str(getattr(self.function, "__qualname__", kind))

    def explain(self) -> str:
        """Traces, guards, constants, refusals and what to do, each with its line."""
        from graphc.frontend.record.explain import explain

        return explain(self._name(), self.stats, list(self._entries.values()))

    @property
    def traces(self) -> list[Trace]:
        """The compiled traces, the most recently used first of each signature."""
        return [t for e in self._entries.values() for t in e.traces]

    @property
    def graph(self) -> Any:
        """The graph of the only (or latest) trace. Raises RecordingError before anything is compiled."""
        found = self.traces
        if not found:
            raise RecordingError(
                "nothing is compiled yet: a function is compiled at its second call with the same kind of arguments"
            )
        return found[0].graph

    def __repr__(self) -> str:
        return f"<compiled {self.function!r}>"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        return wrap(copy.deepcopy(self.function, memo), self.fullgraph, self.dynamic, self._in_place(), self.period)

    def _in_place(self) -> bool:
        return self.plain is not self.function

    def __reduce__(self) -> Any:
        name = getattr(self, "__qualname__", "") if not is_module(self.function) else ""
        home = sys.modules.get(getattr(self, "__module__", ""))
        if name and getattr(home, name, None) is self:
            return name  # the decorated function itself
        return wrap, (self.function, self.fullgraph, self.dynamic, self._in_place(), self.period)

    def __get__(self, owner: Any, kind: Any = None) -> Any:
        return self if owner is None else MethodType(self, owner)


def wrap(function: Any, fullgraph: bool = False, dynamic: bool = False, in_place: bool = False, audit: int = 0) -> Any:
    """A compiled form of a function, method or Module; itself if it is one. `in_place`: the code behind a Module that
    calls itself compiled. Nothing is recorded yet.
    """
    if isinstance(function, Compiled) or hasattr(type(function), "_graphc_compiled"):
        return function
    if isinstance(function, (staticmethod, classmethod)):
        return type(function)(wrap(function.__func__, fullgraph, dynamic, audit=audit))
    check_function("compile", function)
    if not is_module(function):
        return Compiled(function, fullgraph, dynamic=dynamic, audit=audit)
    from graphc.frontend.nn.hooks import call_module
    from graphc.frontend.record.compiled_module import wrap_module

    if in_place:
        plain = functools.partial(_call, call_module, function)
        return Compiled(function, fullgraph, dynamic=dynamic, plain=plain, audit=audit)
    return wrap_module(function, Compiled(function, fullgraph, dynamic=dynamic, audit=audit))


def _call(call_module: Any, module: Any, *args: Any, **kwargs: Any) -> Any:
    return call_module(module, args, kwargs)


def reset_all() -> None:
    """Forget what every compiled function of this process recorded."""
    for compiled in list(_every):
        compiled.reset()


@contextmanager
def no_retrace() -> Iterator[None]:
    """Inside, a compiled function that would have to be recorded again raises GuardError instead."""
    token = _no_retrace.set(True)
    try:
        yield
    finally:
        _no_retrace.reset(token)


def is_compiling() -> bool:
    """True while a function is being recorded."""
    recorder = mode.get().recorder
    if recorder is None:
        return False
    from graphc.frontend.record.lockstep import Lockstep

    return not isinstance(recorder, Lockstep)
