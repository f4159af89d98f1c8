"""Recording one call: set the stage, run the function for real, finish the trace, leave nothing behind on an error."""

from __future__ import annotations

import dis
import inspect
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import FrameType
from typing import Any

import numpy as np

from graphc.caller import kind_of
from graphc.errors import ArgumentError, RecordingError
from graphc.frontend.mode import mode, using
from graphc.frontend.record.counted import answer
from graphc.frontend.record.finish import Finisher
from graphc.frontend.record.recorder import Recorder
from graphc.frontend.record.trace import Trace
from graphc.frontend.record.tree import TreeSpec, flatten, substitute, unflatten
from graphc.frontend.record.typetest import type_test
from graphc.frontend.record.watch import Watcher
from graphc.frontend.record.where import here
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.graph import Location
from graphc.ir.types import Dim, TensorType

Dim.ask = staticmethod(answer)  # where no trace for named sizes is being made
SMALL = 2**31  # int inputs below, in size, are a kind of their own: their arithmetic cannot overflow soon


def is_small(number: int | float) -> bool:
    """True for the smaller kind of int inputs."""
    return -SMALL < number < SMALL


class Recorded:
    """What came of recording one call: the function's result, and the trace or why there is none."""

    __slots__ = ("recorder", "refusal", "result", "trace", "watcher")

    def __init__(
        self, result: Any, trace: Trace | None, refusal: RecordingError | None, recorder: Recorder, watcher: Watcher
    ) -> None:
        self.watcher = watcher
        self.result = result
        self.trace = trace
        self.refusal = refusal
        self.recorder = recorder


def check_function(name: str, function: Any) -> None:
    """Raise ArgumentError for what cannot be recorded at all."""
    if (
        inspect.isgeneratorfunction(function)
        or inspect.iscoroutinefunction(function)
        or inspect.isasyncgenfunction(function)
    ):
        raise ArgumentError(
            f"{name}: {function.__qualname__} is a generator or async function; give it the function that does one "
            "step of it"
        )
    if not callable(function):
        raise ArgumentError(
            f"{name}: expected a function or Module, got {type(function).__name__}; give it what is to run"
        )


def argument_names(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any], spec: TreeSpec) -> list[str]:
    """A readable name for every argument leaf, in flattening order of (args, kwargs)."""
    target = function.forward if hasattr(type(function), "_graphc_module") else function
    try:
        parameters = list(inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        parameters = []
    positional = [p.name for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    names: list[str] = []
    for i, child in enumerate(spec.children[0].children):
        names += _leaf_names(positional[i] if i < len(positional) else f"arg{i}", child)
    for key, child in zip(spec.children[1].keys, spec.children[1].children, strict=True):
        names += _leaf_names(str(key), child)
    return names


def _leaf_names(name: str, spec: TreeSpec) -> list[str]:
    if spec.kind == "leaf":
        return [name]
    keys = spec.keys or tuple(range(len(spec.children)))
    return [n for key, child in zip(keys, spec.children, strict=True) for n in _leaf_names(f"{name}.{key}", child)]


def record_call(
    function: Callable[..., Any],
    leaves: Sequence[Any],
    spec: TreeSpec,
    names: Sequence[str],
    *,
    given: tuple[Sequence[Any], Mapping[str, Any]],
    ints: frozenset[int] = frozenset(),
    types: Mapping[int, TensorType] | None = None,
    sizes: Mapping[str, int] | None = None,
    on_lift: Callable[[Tensor], None] | None = None,
    strict: bool = False,
    export: bool = False,
    around: Any = None,
    measured: Mapping[int, str] | None = None,
) -> Recorded:
    """Run `function` on the arguments `given` (args, kwargs; `leaves` and `spec` are these flattened) once, recording.
    Int leaves in `ints` become inputs, as floats do. `measured` says of tensor leaves how their first size is called,
    which is found at every call.

    A refusal ends the recording and the function goes on eagerly: the result and all effects are eager's own. With
    `strict` it raises RecordingError at the user's line instead. An exception of the function itself passes through and
    leaves no trace.
    """
    recorder = Recorder(getattr(function, "__name__", type(function).__name__), sizes, on_lift, strict)
    recorder.alone = export
    recorder.exact = type_test(function)
    watcher = recorder.watcher = Watcher(recorder.texts)
    if around is not None:
        around.begin(recorder, watcher)
        recorder.grad_begun.update(around.begun)
    inputs = _feed(recorder, leaves, names, types or {}, ints, export)
    for k, name in (measured or {}).items():
        recorder.measure(name, k, leaves[k])
    args, kwargs, undo = substitute(given, spec, inputs)
    target: Any = function
    if hasattr(type(function), "_graphc_module"):
        target = target.forward
    ended, after = False, mode.get().grad
    before = sys.getprofile()
    before = before if callable(before) else None
    try:
        try:
            watcher.start(target, *given)
            with using(recorder=recorder), asked_sizes(recorder):
                try:
                    result = function(*args, **kwargs)
                    ended = True
                finally:
                    after = mode.get().grad
        except BaseException:
            if around is None and after is not mode.get().grad:  # the gradient mode an error leaves behind holds on
                mode.set(replace(mode.get(), grad=after))
            raise
        finally:
            sys.setprofile(before)  # here and now: an interrupt may come as soon as Python code is called
            watcher.stop()
            if not ended:
                watcher.replace_scalars()
            if recorder.refusal is None:
                recorder.advance_random()
        _follow_grad_mode(function, recorder, after)
        del args, kwargs, inputs
        recorded = Recorded(result, None, recorder.refusal, recorder, watcher)
        if recorder.refusal is None:
            _finish(recorded, Finisher(recorder, watcher, function, leaves, names, export))
        if recorded.refusal is not None:
            watcher.replace_scalars()
    finally:
        recorder.close()
        undo()
    recorded.result = _plain(result, recorder)
    return recorded


def _follow_grad_mode(function: Callable[..., Any], recorder: Recorder, after: bool) -> None:
    """A gradient mode the call leaves behind holds on, as without a recorder; a graph cannot repeat that."""
    if after is mode.get().grad:
        return
    mode.set(replace(mode.get(), grad=after))
    recorder.refuse(
        RecordingError(
            f"the gradient mode is another one after the call than before (see {where_set(function)}); use "
            "`with graphc.set_grad_enabled(…):`"
        )
    )


def ask_size(size: Dim, how: str, other: Any) -> Any:
    """A named size is compared: answered when the answer is the same for all sizes, else an error at the user's
    line.
    """
    frame: FrameType | None = sys._getframe(3)
    while frame is not None and kind_of(frame.f_code) == "library":
        frame = frame.f_back
    if frame is None or kind_of(frame.f_code) == "ours":
        return NotImplemented
    if isinstance(other, (int, Dim)):
        gap = size - other
        if isinstance(gap, int):
            return {"==": gap == 0, "!=": gap != 0, "<": gap < 0, "<=": gap <= 0, ">": gap > 0, ">=": gap >= 0}[how]
    elif how not in ("hash", "bool"):
        return NotImplemented
    what = f"is compared with {other} ({how})" if how not in ("hash", "bool") else f"decides something ({how})"
    raise RecordingError(
        f"the named size {size} {what} at {here()}; a program for every size cannot branch on it: trace without "
        "making it dynamic"
    )


@contextmanager
def asked_sizes(recorder: Recorder) -> Iterator[None]:
    """Inside, the user's code may not branch on a named size, nor use it as a plain number."""
    if not recorder.sizes or recorder.counted:
        yield
        return
    before, Dim.ask = Dim.ask, staticmethod(ask_size)
    try:
        yield
    except TypeError as error:
        if "'Dim'" not in str(error):
            raise
        lines = [Location(f.f_code, n) for f, n in _frames(error) if kind_of(f.f_code) == "user"]
        raise RecordingError(
            f"a named size is used as a plain number at {lines[-1] if lines else '?'} ({error}); trace without making "
            "it dynamic"
        ) from error
    finally:
        Dim.ask = before


def where_set(function: Any) -> Location:
    """The line of user code that calls set_grad_enabled()."""
    code = getattr(getattr(function, "forward", function), "__code__", None)
    for instruction in dis.get_instructions(code) if code is not None else ():
        if instruction.argval == "set_grad_enabled":
            return Location(code, instruction.offset)
    return Location() if code is None else Location(code, 0)


def _frames(error: BaseException) -> Iterator[tuple[Any, int]]:
    entry = error.__traceback__
    while entry is not None:
        yield entry.tb_frame, entry.tb_lasti
        entry = entry.tb_next


def _finish(recorded: Recorded, finisher: Finisher) -> None:
    recorder = recorded.recorder
    recorder.strict = True
    try:
        with using(recorder=recorder, grad=False):
            finisher.watcher.refuse_outside(recorded.result, finisher.last_line())
            recorded.trace = finisher.run(recorded.result)
    except RecordingError as error:
        recorded.refusal = error.with_traceback(None)  # its frames hold tensors
    recorder.refusal = recorded.refusal


def _feed(
    recorder: Recorder,
    leaves: Sequence[Any],
    names: Sequence[str],
    types: Mapping[int, TensorType],
    ints: frozenset[int],
    export: bool,
) -> list[Any]:
    """Make graph inputs of the argument leaves; what the function gets in their places."""
    inputs: list[Any] = []
    seen: set[int] = set()
    for i, (x, name) in enumerate(zip(leaves, names, strict=True)):
        given = x
        if isinstance(x, Tensor):
            if id(x) in seen and export:  # two inputs of a file are two
                given = fresh(x._a.copy())
                given.requires_grad_(x.requires_grad)
            if id(given) not in seen:
                seen.add(id(given))
                recorder.add_source("arg", i, name, given, types.get(i))
                if given._grad is not None:
                    recorder.grad_types[id(given._grad)] = types.get(i)
        elif recorder.exact is None and (type(x) is float or i in ints):
            t = fresh(np.asarray(x, np.float64 if type(x) is float else np.int64))
            recorder.add_source("float" if type(x) is float else "int", i, name, t)
            given = Scalar(t, x, recorder, SMALL if is_small(x) else 2**63)
        inputs.append(given)
    return inputs


def _plain(result: Any, recorder: Recorder) -> Any:
    """The result with Scalars as the numbers they are."""
    try:
        leaves, spec = flatten(result)
    except RecordingError:  # a container that holds itself; refused before
        return result
    if not any(isinstance(x, Scalar) for x in leaves):
        return result
    return unflatten(spec, [x.number if isinstance(x, Scalar) else x for x in leaves])
