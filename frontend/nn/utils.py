"""Helpers for parameters and modules."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import tensor
from graphc.frontend.functional import amax, cat, stack
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor

__all__ = [
    "clip_grad_norm_",
    "clip_grad_value_",
    "clip_grads_with_norm_",
    "fuse_conv_bn_eval",
    "fuse_linear_bn_eval",
    "get_total_norm",
    "parameters_to_vector",
    "skip_init",
    "vector_to_parameters",
]

Tensors = Tensor | Iterable[Tensor]


def _grads(parameters: Tensors) -> list[Tensor]:
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [p.grad for p in given if p.grad is not None]


@no_grad()
def get_total_norm(
    tensors: Tensors, norm_type: float = 2.0, error_if_nonfinite: bool = False, foreach: bool | None = None
) -> Tensor:
    """The norm of the norms of all tensors, 0-d (0 for none); `foreach` has no effect.

    Raises ArgumentError for one that is not finite with `error_if_nonfinite`.
    """
    given = [tensors] if isinstance(tensors, Tensor) else list(tensors)
    if not given:
        return tensor(0.0)
    norms = stack([t.norm(norm_type) for t in given])
    total: Tensor = amax(norms) if norm_type == float("inf") else norms.norm(norm_type)
    if error_if_nonfinite and not bool(total.isfinite()):
        raise ArgumentError(
            f"The total norm of order {norm_type} for gradients from `parameters` is non-finite, so it cannot be "
            "clipped. To disable this error and scale the gradients by the non-finite norm anyway, set "
            "`error_if_nonfinite=False`"
        )
    return total


@no_grad()
def clip_grads_with_norm_(
    parameters: Tensors, max_norm: float, total_norm: Tensor, foreach: bool | None = None
) -> None:
    """Scale all gradients by max_norm / total_norm where that is below 1; `foreach` has no effect."""
    factor = (max_norm / (total_norm + 1e-6)).clamp(max=1.0)
    for g in _grads(parameters):
        g.mul_(factor.to(g.dtype))


@no_grad()
def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before, 0-d.

    Raises ArgumentError for a norm that is not finite with `error_if_nonfinite`; `foreach` has no effect.
    """
    if not isinstance(max_norm, (int, float, Tensor)):
        raise ArgumentError(f"clip_grad_norm_: max_norm must be a number, got {type(max_norm).__name__} {max_norm!r}")
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    total: Tensor = get_total_norm(_grads(given), norm_type, error_if_nonfinite)
    clip_grads_with_norm_(given, max_norm, total)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clamp every gradient element to [-clip_value, clip_value]; `foreach` has no effect."""
    for g in _grads(parameters):
        g.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one 1-d tensor."""
    return cat([p.reshape(-1) for p in parameters])


def vector_to_parameters(vec: Tensor, parameters: Iterable[Tensor]) -> None:
    """Write the elements of a 1-d tensor into the parameters, in order. Raises ShapeError when they are too few."""
    given = list(parameters)
    count = sum(p._a.size for p in given)
    if vec.ndim != 1 or vec._a.size < count:
        raise ShapeError(f"vector_to_parameters: expected {count} elements in one dimension, got {vec._l.type}")
    place = 0
    with no_grad():
        for p in given:
            p.copy_(vec[place : place + p._a.size].reshape(p.shape))
            place += p._a.size


def skip_init(module_cls: type[Module], *args: Any, **kwargs: Any) -> Module:
    """A module whose parameters hold any numbers: for those that are loaded next. Raises ArgumentError."""
    if not issubclass(module_cls, Module):
        raise ArgumentError(f"Expected a Module; got {module_cls}")
    made: Module = module_cls(*args, **kwargs)
    return made


def _folded(weight: Tensor, bias: Tensor | None, norm: Any, axis: int) -> tuple[Parameter, Parameter]:
    """Weight and bias with a batch norm behind them folded in; the output channels are axis `axis` of the weight."""
    scale = (norm.running_var + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight
    shape = [1] * weight.ndim
    shape[axis] = -1
    moved = -norm.running_mean if bias is None else bias - norm.running_mean
    moved = moved * scale if norm.bias is None else moved * scale + norm.bias
    return Parameter((weight * scale.reshape(shape)).detach()), Parameter(moved.detach())


def _fused(layer: Any, norm: Any, axis: int) -> Any:
    if layer.training or norm.training or norm.running_mean is None:
        raise ArgumentError("Fusion only for eval, with running statistics; call .eval() on both first")
    made = copy.deepcopy(layer)
    with no_grad():
        made.weight, made.bias = _folded(made.weight, made.bias, norm, axis)
    return made


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A copy of a convolution that does what it and the batch norm behind it do in evaluation. Raises ArgumentError."""
    return _fused(conv, bn, 1 if transpose else 0)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A copy of a Linear that does what it and the batch norm behind it do in evaluation. Raises ArgumentError."""
    return _fused(linear, bn, 0)
