"""`graphc.host` and `graphc.freeze`: the two ways from a recorded value to plain Python.

A host callback runs at every call, with real values; the graph is split there (hosted.py). What it did in a call whose
conditions then turn out not to hold is remembered while the function runs again, so that its effects happen once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from traceback import walk_tb
from types import FunctionType, MethodType
from typing import Any, NoReturn

import numpy as np

from graphc.caller import kind_of
from graphc.errors import ArgumentError, GraphcError, RecordingError
from graphc.frontend.mode import mode, using
from graphc.frontend.record import rng
from graphc.frontend.record.roots import Root
from graphc.frontend.record.trace import HostCall, Source, ValueGuard
from graphc.frontend.record.where import here
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array, op_named

__all__ = ["freeze", "host"]

_PLAIN = (bool, int, float, complex, str, bytes, type(None))
Answer = tuple[str, list[Array]]  # "none", "one", "tuple" or "list", and the arrays


@dataclass(slots=True)
class Failure:
    """The error a callback raised. `inside`: at a line of the user's in the callback, which the error names."""

    error: Exception
    inside: bool

    def reraise(self) -> NoReturn:
        """Raise it again; an error of our own names the line that asks now."""
        if isinstance(self.error, GraphcError) and not self.inside:
            self.error.find_place()
        raise self.error


@dataclass(slots=True)
class Memory:
    """What callbacks answered during one call of a compiled function."""

    answers: list[Answer | Failure] = field(default_factory=list)
    at: int = 0


_memory: ContextVar[Memory | None] = ContextVar("host_memory", default=None)


@contextmanager
def remembering() -> Iterator[None]:
    """One call of a compiled function: inside, a callback that ran once is not run again after `rewind()`."""
    token = _memory.set(Memory())
    try:
        yield
    finally:
        _memory.reset(token)


def rewind() -> None:
    """The function starts again from its beginning."""
    memory = _memory.get()
    if memory is not None:
        memory.at = 0


def answer(fn: Callable[..., Any], arrays: list[Array], where: Any) -> Answer:
    """What the callback says to these arrays, which are its own; from memory if it ran in this call already."""
    memory = _memory.get()
    if memory is None:
        return _asked(fn, arrays, where)
    if memory.at == len(memory.answers):
        token = _memory.set(None)  # what it calls has a memory of its own
        try:
            memory.answers.append(_asked(fn, arrays, where))
        except Exception as error:
            lines = (frame.f_code for frame, _ in walk_tb(error.__traceback__))
            memory.answers.append(Failure(error, any(kind_of(code) == "user" for code in lines)))
        finally:
            _memory.reset(token)
    found = memory.answers[memory.at]
    memory.at += 1
    if isinstance(found, Failure):
        found.reraise()
    return found


def _asked(fn: Callable[..., Any], arrays: list[Array], where: Any) -> Answer:
    before = rng.state_array()
    with using(recorder=None, grad=False):
        result = fn(*map(fresh, arrays))
    if rng.state_array() is not before and rng.state_array().tobytes() != before.tobytes():
        raise RecordingError(
            f"host: the callback at {where or here()} draws from the default generator, which the graph numbers ahead; "
            "give it a Generator of its own"
        )
    if result is None:
        return "none", []
    kind = "one" if isinstance(result, Tensor) else type(result).__name__
    items = [result] if kind == "one" else list(result) if kind in ("tuple", "list") else [result]
    for x in items:
        if not isinstance(x, Tensor):
            raise ArgumentError(
                f"host: the callback returned a {type(x).__name__}; it must return None, a Tensor, or a tuple or list "
                "of Tensors"
            )
    return kind, [np.array(x._a, copy=True, order="C") for x in items]


def _shaped(kind: str, tensors: list[Tensor]) -> Any:
    return {"none": None, "tuple": tuple(tensors), "list": tensors}.get(kind, tensors[0] if tensors else None)


def host(fn: Callable[..., Any], *tensors: Tensor) -> Any:
    """`fn(*tensors)`, run by Python at every call, also in a compiled function, which is split there.

    The callback gets copies of the values, without gradients, and returns None, a Tensor, or a tuple or list of Tensors
    (of the same dtypes and shapes each time), which enter the graph as copies without gradients. Its effects on Python
    happen once a call. What it reads besides its arguments is as it was before the call. It must not use local
    variables of the compiled function, nor draw from the default random generator. A program for a file cannot hold
    one: trace() raises RecordingError.

    Raises ArgumentError unless `fn` is callable and the rest are Tensors, or where it returns anything else.
    """
    if not callable(fn):
        raise ArgumentError(f"host: expected a function first, got a {type(fn).__name__}")
    for k, t in enumerate(tensors):
        if not isinstance(t, Tensor):
            raise ArgumentError(
                f"host: argument {k} is a {type(t).__name__}, expected a Tensor; pass numbers as tensors"
            )
    recorder: Any = mode.get().recorder
    arrays = [np.array(t._a, copy=True, order="C") for t in tensors]
    if recorder is None or recorder.lockstep is not None or not recorder.recording():
        return _plainly(fn, arrays)
    return _recorded(recorder, fn, tensors, arrays)


def _plainly(fn: Any, arrays: list[Array]) -> Any:
    kind, found = answer(fn, arrays, None)
    return _shaped(kind, list(map(fresh, found)))


def _check(recorder: Any, fn: Any, where: Any) -> None:
    if recorder.alone:
        raise RecordingError(
            f"host at {where} runs Python at every call; a program for a file cannot hold it: compile() the function, "
            "or move the line out of it"
        )
    function = getattr(fn, "__func__", fn)
    for name, cell in zip(
        getattr(getattr(function, "__code__", None), "co_freevars", ()),
        getattr(function, "__closure__", None) or (),
        strict=False,
    ):
        if isinstance(cell.cell_contents, Tensor) and recorder._is_mine(cell.cell_contents):
            raise RecordingError(
                f"the callback at {where} uses {name!r}, a local variable of the compiled function; pass it as a tensor"
            )


def _recorded(recorder: Any, fn: Any, tensors: tuple[Tensor, ...], arrays: list[Array]) -> Any:
    where = here()
    if hasattr(recorder, "region"):  # inside cond, while_loop or scan
        recorder.region.note("a host callback")
    try:
        _check(recorder, fn, where)
    except RecordingError as error:
        recorder.refuse(error)
        return _plainly(fn, arrays)
    recorder._place()
    values = [recorder.value_of(t) for t in tensors]
    guards = len(recorder.value_guards)
    with recorder.watcher.apart():
        kind, found = answer(fn, arrays, where)
    results = list(map(fresh, found))
    call = HostCall(fn, values, kind, [t._l for t in results], len(recorder.sources), guards, where)
    for k, t in enumerate(results):
        name = f"host{len(recorder.hosts)}.{k}"
        value = recorder.graph.add_input(t._l.type, name, "input")
        recorder.sources.append(Source("host", len(recorder.hosts), name, t._l, None, where))
        recorder.source_roots.append(Root((), value, None, None))
        recorder.source_edges.append(None)
        recorder._slot(t).roots.append(Root((), value, None, None))
        recorder._made(t)
    recorder.hosts.append(call)
    return _shaped(kind, results)


def callback_differs(a: HostCall, b: HostCall) -> str | None:
    """What differs between the callbacks of two recordings of one call."""
    if (a.kind, a.results, a.guards) != (b.kind, b.results, b.guards) or str(a.where) != str(b.where):
        return f"the callback at {a.where} returned something else on the second call"
    if same_function(a.fn, b.fn):
        return None
    return (
        f"the callback at {a.where} was another one on the second call, or uses a local variable of the compiled "
        "function; pass it as a tensor"
    )


def same_function(a: Any, b: Any) -> bool:
    """True for functions that do the same: one object, or made at one place over the same variables."""
    if a is b:
        return True
    if isinstance(a, MethodType) and isinstance(b, MethodType):
        return a.__self__ is b.__self__ and same_function(a.__func__, b.__func__)
    if not isinstance(a, FunctionType) or not isinstance(b, FunctionType):
        return False
    cells = zip(a.__closure__ or (), b.__closure__ or (), strict=False)
    return (
        a.__code__ is b.__code__
        and a.__globals__ is b.__globals__
        and all(x is y for x, y in cells)
        and a.__defaults__ is b.__defaults__ is None
        and a.__kwdefaults__ is b.__kwdefaults__ is None
    )


# ---------------------------------------------------------------- freeze


def freeze(x: Any) -> Any:
    """A value taken as a constant, so that Python may look at it: `float(graphc.freeze(loss))`.

    A Tensor comes back as a read-only copy without gradients; in a compiled function it is a constant of the graph, and
    a condition: a call where the value has other bits is recorded anew (at most 8 are kept). A NumPy array becomes such
    a Tensor; two recordings compare its bytes. Numbers, strings and None are themselves. Raises ArgumentError for
    anything else.
    """
    if isinstance(x, Scalar):
        freeze(x.tensor)
        return x.number
    if isinstance(x, _PLAIN):
        return x
    if not isinstance(x, (Tensor, np.ndarray)):
        raise ArgumentError(f"freeze: expected a Tensor, an array or a number, got a {type(x).__name__}")
    array = np.array(x._a if isinstance(x, Tensor) else x, copy=True, order="C")
    array.flags.writeable = False
    made = fresh(array)
    recorder: Any = mode.get().recorder
    if recorder is not None and recorder.lockstep is None and recorder.recording():
        recorder.frozen.append(made._s)
        recorder._constant(made, recorder._slot(made))
        recorder._made(made)
        if isinstance(x, Tensor):
            _guard_bits(recorder, x.detach(), made)
    return made


def _guard_bits(recorder: Any, x: Tensor, expected: Tensor) -> None:
    """The condition that `x` is `expected`: 0.0 is not -0.0, and NaN is NaN."""
    with using(grad=False):
        same = op_named("eq")(x, expected)
        if x.dtype.is_floating_point:
            signs = op_named("eq")(op_named("div")(1.0, x), op_named("div")(1.0, expected))
            same = op_named("bitwise_and")(same, op_named("bitwise_or")(op_named("ne")(x, 0.0), signs))
            nan = op_named("bitwise_and")(op_named("ne")(x, x), op_named("ne")(expected, expected))
            same = op_named("bitwise_or")(same, nan)
        flag = op_named("all")(same.reshape((-1,)), dim=(0,), keepdim=False)
    recorder.value_guards.append(ValueGuard(recorder.value_of(flag), True, here(), expected._a.tobytes()))
