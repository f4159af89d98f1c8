"""In-place changes of how a tensor looks at its memory: `unsqueeze_`, `t_`, `resize_`.

The tensor becomes the view that the function without underscore gives. A tensor that takes part in gradients keeps its
shape, and a recording refuses these: the shape of an existing tensor is not one of its outputs.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend import functional_shape as fs
from graphc.frontend.creation import concrete_sizes
from graphc.frontend.functional_data import set_data
from graphc.frontend.functional_shape import sizes_of
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor, alias_of, fresh


def _own(self: Tensor, name: str) -> None:
    """Raise unless the tensor may change its shape."""
    if self.requires_grad:
        raise AutogradError(f"{name}: a tensor that requires grad keeps its shape; use {name[:-1]}()")
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_metadata(self, name)


def _become(self: Tensor, view: Tensor) -> Tensor:
    self._a, self._l, self._s, self._v, self._chain = view._a, view._l, view._s, view._v, view._chain
    self._gbase, self._gskip, self._memo = view._gbase, view._gskip, None
    self._history = view._history
    return self


def reshaping(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """The in-place form of a function that gives a view."""
    name = f"{function.__name__}_"

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        _own(self, name)
        with no_grad():
            return _become(self, function(alias_of(self), *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place form of {function.__name__}(): this tensor becomes that view of its memory."
    return method


squeeze_ = reshaping(fs.squeeze)
t_ = reshaping(fs.t)
transpose_ = reshaping(fs.transpose)
unsqueeze_ = reshaping(fs.unsqueeze)


def resize_(self: Tensor, *sizes: Any, memory_format: Any = None) -> Tensor:
    """Another shape over the same memory, row-major; new memory with the old elements first where it is too small.

    New elements are 0. Raises AutogradError when gradients are required, ArgumentError for a view (PyTorch would lay
    the shape over memory of others).
    """
    _own(self, "resize_")
    shape = concrete_sizes("resize_", sizes_of("resize_", sizes))
    if self._chain or not self._l.contiguous:
        raise ArgumentError("resize_: this tensor is a view of the memory of others; clone() it first")
    count = math.prod(shape)
    flat = self._a.reshape(-1)
    if count > flat.size:
        flat = np.concatenate([flat, np.zeros(count - flat.size, flat.dtype)])
        set_data(self, fresh(flat.reshape(shape)))
        return self
    with no_grad():
        return _become(self, fs.view(fs.narrow(fs.view(alias_of(self), -1), 0, 0, count), shape))


def resize_as_(self: Tensor, the_template: Tensor, *, memory_format: Any = None) -> Tensor:
    """resize_() to the shape of another tensor."""
    return resize_(self, the_template.ttype.shape)
