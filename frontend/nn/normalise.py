"""Normalisation."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.frontend.creation import ones_like, zeros_like
from graphc.frontend.dispatch import nullary
from graphc.frontend.functional import pad, reshape
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.checks import float_input
from graphc.frontend.ops import ops
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, float64

__all__ = [
    "batch_norm",
    "group_norm",
    "instance_norm",
    "layer_norm",
    "local_response_norm",
    "normalize",
    "rms_norm",
]


def batch_norm(
    input: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float | Tensor = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Normalise [N, C, …] over all but the channels; in training with the batch's statistics, which also move the
    running ones.

    The running variance takes the unbiased estimate, as in PyTorch. Raises ShapeError for one value per channel in
    training.
    """
    x = float_input("batch_norm", input)
    affine = _affine("batch_norm", weight, bias, x)
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm: expected running_mean and running_var to be given when training=False")
        evaluated: Tensor = ops.batch_norm_eval(x, running_mean, running_var, *affine, eps=eps)
        return evaluated
    count = x.ttype.numel // x.ttype.shape[1]
    if count == 1:
        raise ShapeError(
            f"batch_norm: expected more than 1 value per channel when training, got input {x._l.type}; give more "
            "samples or call eval()"
        )
    y, centre, variance = ops.batch_norm_train(x, *affine, eps=eps)
    if running_mean is not None and running_var is not None:
        _move_statistics(running_mean, running_var, centre.detach(), variance.detach(), momentum, count)
    out: Tensor = y
    return out


def _move_statistics(
    mean: Tensor, var: Tensor, centre: Tensor, variance: Tensor, momentum: float | Tensor, count: Any
) -> None:
    with no_grad():
        unbiased = variance * _bessel(count, variance.dtype)
        mean.copy_((1 - momentum) * mean + momentum * centre)
        var.copy_((1 - momentum) * var + momentum * unbiased)


def _bessel(count: Any, dtype: DType) -> Any:
    """count / (count - 1), for a named size computed in float64 as Python would."""
    if isinstance(count, int):
        return count / (count - 1)
    size = nullary(ops.full, shape=(), value=count, dtype=float64)
    return (size / (size - 1.0)).to(dtype)


def _affine(name: str, weight: Tensor | None, bias: Tensor | None, x: Tensor) -> tuple[Tensor, ...]:
    """Weight and bias for an op that takes both or none."""
    if weight is None and bias is None:
        return ()
    given = weight if weight is not None else bias
    assert given is not None
    if given.dtype is not x.dtype:
        raise DTypeError(f"{name}: input is {x._l.type}, weight and bias are {given._l.type}; use one dtype for all")
    return (weight if weight is not None else ones_like(given), bias if bias is not None else zeros_like(given))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-05,
) -> Tensor:
    """Normalise over the last dimensions, whose sizes `normalized_shape` states."""
    x = float_input("layer_norm", input)
    if not isinstance(normalized_shape, Sequence):
        raise ArgumentError(f"layer_norm: normalized_shape must be a tuple of sizes, got {normalized_shape!r}")
    _check_last("layer_norm", x, tuple(normalized_shape))
    out: Tensor = ops.layer_norm(
        x, *_affine("layer_norm", weight, bias, x), normalized_dims=len(tuple(normalized_shape)), eps=eps
    )
    return out


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root mean square over the last dimensions."""
    x = float_input("rms_norm", input)
    _check_last("rms_norm", x, tuple(normalized_shape))
    small = {4: 2.0**-23, 8: 2.0**-52}[x.dtype.itemsize] if eps is None else eps
    out: Tensor = ops.rms_norm(
        x, *(() if weight is None else (weight,)), normalized_dims=len(tuple(normalized_shape)), eps=small
    )
    return out


def _check_last(name: str, x: Tensor, shape: tuple[int, ...]) -> None:
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"{name}: normalized_shape is {list(shape)}, expected the last sizes of the input {x._l.type}")


def group_norm(
    input: Tensor, num_groups: int, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-05
) -> Tensor:
    """Normalise each group of channels of each sample."""
    x = float_input("group_norm", input)
    out: Tensor = ops.group_norm(x, *_affine("group_norm", weight, bias, x), groups=num_groups, eps=eps)
    return out


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along `dim`, at least `eps`."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)


def instance_norm(
    input: Tensor,
    running_mean: Tensor | None = None,
    running_var: Tensor | None = None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    use_input_stats: bool = True,
    momentum: float = 0.1,
    eps: float = 1e-05,
) -> Tensor:
    """Normalise each channel of each sample of [N, C, …] by itself, or by the running statistics.

    The running ones take the mean of the samples' statistics, of the unbiased variances. Raises ShapeError for one
    value per channel.
    """
    x = float_input("instance_norm", input)
    if not use_input_stats:
        return batch_norm(x, running_mean, running_var, weight, bias, False, momentum, eps)
    if x._l.size == x._l.shape[0] * x._l.shape[1]:
        raise ShapeError(f"instance_norm: expected more than 1 spatial element when training, got input size {x.shape}")
    if running_mean is not None and running_var is not None:
        places = tuple(range(2, x.ndim))
        with no_grad():
            centre, variance = x.detach().mean(places).mean(0), x.detach().var(places).mean(0)
            running_mean.copy_((1 - momentum) * running_mean + momentum * centre)
            running_var.copy_((1 - momentum) * running_var + momentum * variance)
    return group_norm(x, x._l.shape[1], weight, bias, eps)


def local_response_norm(input: Tensor, size: int, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0) -> Tensor:
    """input / (k + alpha * mean of the squares of `size` neighbouring channels) ** beta. Raises ShapeError."""
    x = float_input("local_response_norm", input)
    if x.ndim < 3:
        raise ShapeError(f"local_response_norm: expected 3D or higher dimensionality input, got {x._l.type}")
    n, c, *places = x.ttype.shape
    squares = pad(reshape(x * x, (n, c, math.prod(places))), (0, 0, size // 2, (size - 1) // 2))
    means = ops.windows(squares, dims=(1,), size=(size,), stride=(1,), dilation=(1,)).sum(-1) / size
    return x / (reshape(means, x.ttype.shape) * alpha + k).pow(beta)
