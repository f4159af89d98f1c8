"""The names around compiled functions: compile() with PyTorch's signature, disable, reset, is_compiling."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any

from graphc.config import config
from graphc.errors import ArgumentError, UnsupportedError
from graphc.frontend.mode import mode as current_mode
from graphc.frontend.record.audit import period_of
from graphc.frontend.record.compiled import disabled, is_compiling, reset_all, wrap
from graphc.frontend.record.watch import is_module
from graphc.frontend.record.where import outside

__all__ = ["CompileNote", "compile", "disable", "is_compiling", "reset"]

_BACKENDS = ("graphc", "inductor", "eager", "aot_eager")
_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")
_told: set[str] = set()


class CompileNote(UserWarning):
    """What an argument of compile() means here; said once a process."""


def compile(
    model: Any = None,
    *,
    fullgraph: bool = False,
    dynamic: bool | None = None,
    backend: str | Callable[..., Any] = "graphc",
    mode: str | None = None,
    options: Mapping[str, Any] | None = None,
    disable: bool = False,
    audit: bool | int | float | None = None,
) -> Any:
    """Compile a function or Module: same results, bit for bit, from one native call.

    Recording happens on the first two calls with the same kind of arguments; from the third on the compiled graph runs.
    A function that cannot be recorded runs eagerly with one warning that names the line; with `fullgraph=True` it
    raises RecordingError there. With `dynamic=True` one recording serves every size of the first axis of the tensor
    arguments, where the function does not look at that size. `disable=True` gives the function back as it is, and so
    do the backends "eager" and "aot_eager". `mode`, `options` and the backend "inductor" are accepted and change
    nothing; a CompileNote says so once. Also a decorator, with or without arguments.

    With `audit` sampled calls also run line by line, on the same state, and all bits are compared: True takes the
    first two answers of every recording and one call in 64, an int one call in so many (1: every call), a float that
    share; a difference raises AuditError.

    Raises TypeError for generator and async functions, ArgumentError for an unknown backend, mode or audit, or for a
    mode and options at once, UnsupportedError for a backend that is a function.
    """
    off = _check(dynamic, backend, mode, options) or disable
    if model is None:
        return functools.partial(
            compile, fullgraph=fullgraph, dynamic=dynamic, backend=backend, mode=mode, options=options,
            disable=disable, audit=audit,
        )  # fmt: skip
    period = period_of(config.audit_default() if audit is None else audit)
    return model if off else wrap(model, fullgraph, bool(dynamic), audit=period)


def compile_in_place(module: Any, **options: Any) -> None:
    """Let calls of `module` run compiled, with the arguments of compile()."""
    decorate: Callable[..., Any] = functools.partial(compile, **options)
    made = decorate(module)
    fields = module.__dict__
    fields.pop("_compiled_call", None)
    if made is not module:
        engine = made._graphc_engine
        fields["_compiled_call"] = wrap(module, engine.fullgraph, engine.dynamic, True, engine.period)


def _check(dynamic: Any, backend: Any, mode: Any, options: Any) -> bool:
    """Check the arguments that have another meaning here, and say which; True when nothing shall be compiled."""
    if callable(backend):
        raise UnsupportedError("compile: a backend that is a function is not supported; leave it out")
    if backend not in _BACKENDS:
        raise ArgumentError(f"compile: unknown backend {backend!r}; choose from {', '.join(map(repr, _BACKENDS))}")
    if mode is not None and mode not in _MODES:
        raise ArgumentError(f"compile: unrecognized mode={mode!r}; choose from {', '.join(map(repr, _MODES))}")
    if mode is not None and options is not None:
        raise ArgumentError(
            "compile: either mode or options can be specified, but both can't be specified at the same time"
        )
    if dynamic is not None and not isinstance(dynamic, bool):
        raise ArgumentError(f"compile: dynamic must be a bool or None, got {dynamic!r}")
    if backend == "inductor":
        _say("backend='inductor' is graphc's own compiler: it has no other")
    if backend in ("eager", "aot_eager"):
        _say(f"backend={backend!r} compiles nothing: the function runs line by line")
    if mode not in (None, "default"):
        _say(f"mode={mode!r} changes nothing: a call is one native call already, and nothing is tuned by trial")
    if options is not None:
        _say(f"options={sorted(options)} change nothing: they are settings of PyTorch's compiler")
    if dynamic is False:
        _say("dynamic=False is how it is without: every size is recorded for itself")
    return backend in ("eager", "aot_eager")


def _say(what: str) -> None:
    if what not in _told:
        _told.add(what)
        warnings.warn(f"compile: {what}", CompileNote, stacklevel=outside())


def disable(fn: Any = None, recursive: bool = True, *, reason: str | None = None) -> Any:
    """Keep a function out of compiled functions: one that calls it runs eagerly (`fullgraph=True`: RecordingError at
    that line, with `reason`). With `recursive`, compiled functions that it calls run eagerly, too. Also a decorator,
    with or without arguments.

    Raises ArgumentError for a Module: give its forward, or a function that calls it.
    """
    if fn is None:
        return functools.partial(disable, recursive=recursive, reason=reason)
    if is_module(fn):
        raise ArgumentError(f"disable: expected a function, got a {type(fn).__name__}; disable its forward instead")
    if not callable(fn):
        raise ArgumentError(f"disable: expected a function, got a {type(fn).__name__}")
    function = getattr(fn, "function", fn) if hasattr(type(fn), "_graphc_compiled") else fn

    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        recorder = current_mode.get().recorder
        if recorder is not None:
            name = getattr(function, "__qualname__", type(function).__name__)
            why = "" if reason is None else f" ({reason})"
            recorder.on_ambient(f"{name}, which disable() keeps out of compiled functions{why}, is called")
        if not recursive:
            return function(*args, **kwargs)
        token = disabled.set(True)
        try:
            return function(*args, **kwargs)
        finally:
            disabled.reset(token)

    return wrapper


def reset() -> None:
    """Forget what every compiled function recorded and compiled; their counts begin anew. Files on disk stay."""
    reset_all()
    _told.clear()
