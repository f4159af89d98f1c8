"""Whether operations are put on the tape: context managers, decorators and functions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.given import callable_given
from graphc.frontend.mode import Mode, mode, using

__all__ = ["enable_grad", "inference_mode", "is_grad_enabled", "no_grad", "set_grad_enabled"]


class _GradMode:
    """Context manager and decorator that sets gradient recording."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = enabled
        self._before: list[Mode] = []  # plain values: one that is never left, or dropped elsewhere, does nothing more

    def __enter__(self) -> None:
        self._before.append(mode.get())
        mode.set(_with_grad(self.enabled))

    def __exit__(self, *error: Any) -> None:
        _back_to(self._before.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        if isinstance(function, type):
            raise ArgumentError(
                f"{type(self).__name__}: decorating the class {function.__name__} would wrap the making of its "
                "instances alone; decorate its methods"
            )
        callable_given(type(self).__name__, "what it decorates", function)
        if inspect.isgeneratorfunction(function):
            return self._generator(function)

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with using(grad=self.enabled):
                return function(*args, **kwargs)

        return wrapper

    def _generator(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Each step of the generator runs in this mode, and what is between two steps in the caller's."""

        @functools.wraps(function)
        def wrapper(*args: Any, **kwargs: Any) -> Any:
            with using(grad=self.enabled):
                steps = function(*args, **kwargs)
            step: Callable[[], Any] = functools.partial(next, steps)
            while True:
                try:
                    with using(grad=self.enabled):
                        value = step()
                except StopIteration as end:
                    return end.value
                step = yield from self._exchange(steps, value)

        return wrapper

    def _exchange(self, steps: Any, value: Any) -> Any:
        """Hand out a value; gives the step that what comes back asks for."""
        try:
            return functools.partial(steps.send, (yield value))
        except GeneratorExit:
            with using(grad=self.enabled):
                steps.close()
            raise
        except BaseException as error:
            return functools.partial(steps.throw, error)


class no_grad(_GradMode):
    """Operations inside are not put on the tape. A context manager and a decorator (with or without parentheses)."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        made = super().__new__(cls)
        if function is None:
            return made
        _GradMode.__init__(made, False)
        return made(function)

    def __init__(self, function: Callable[..., Any] | None = None) -> None:
        super().__init__(False)


class enable_grad(_GradMode):
    """Operations inside are put on the tape, also within no_grad."""

    def __init__(self) -> None:
        super().__init__(True)


class inference_mode(_GradMode):
    """no_grad() under PyTorch's other name; `inference_mode(False)` changes nothing."""

    def __new__(cls, mode: Any = True) -> Any:
        made = super().__new__(cls)
        if not callable(mode):
            return made
        _GradMode.__init__(made, False)
        return made(mode)

    def __init__(self, mode: Any = True) -> None:
        super().__init__(is_grad_enabled() if mode is False else False)


class set_grad_enabled(_GradMode):
    """Set gradient recording: at once when called as a function, restored when used as a context manager."""

    def __init__(self, mode_: bool) -> None:
        super().__init__(bool(mode_))
        self._old = mode.get()
        mode.set(_with_grad(bool(mode_)))

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: Any) -> None:
        _back_to(self._old)

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        _back_to(self._old)  # a decorator changes the mode of the function alone
        return super().__call__(function)


def _with_grad(enabled: bool) -> Mode:
    return replace(mode.get(), grad=enabled)


def _back_to(before: Mode) -> None:
    """Record gradients as before; in whatever thread this is, and whether or not a recording has begun meanwhile."""
    mode.set(before if mode.get().recorder is before.recorder else _with_grad(before.grad))


def is_grad_enabled() -> bool:
    """True when operations are put on the tape."""
    return mode.get().grad
