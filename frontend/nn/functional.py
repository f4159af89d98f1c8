"""Functional forms of the layers: names, signatures and defaults follow torch.nn.functional."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError, UnsupportedError
from graphc.frontend import functional_linalg, functional_math, functional_reduce
from graphc.frontend.functional_shape import pad, squeeze, unsqueeze
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import convert, result_type
from graphc.frontend.random import draw
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64

__all__ = [
    "avg_pool2d", "batch_norm", "binary_cross_entropy", "binary_cross_entropy_with_logits", "conv2d", "cross_entropy", "dropout", "elu",
    "embedding", "gelu", "group_norm", "huber_loss", "kl_div", "l1_loss", "layer_norm", "leaky_relu", "linear", "log_softmax", "max_pool2d",
    "mse_loss", "nll_loss", "normalize", "one_hot", "pad", "relu", "relu6", "rms_norm", "sigmoid", "silu", "smooth_l1_loss", "softmax", "softplus", "tanh",
]  # fmt: skip

Pair = int | Sequence[int]
linear = functional_linalg.linear
relu = functional_math.relu
sigmoid = functional_math.sigmoid
tanh = functional_math.tanh
softmax = functional_reduce.softmax
log_softmax = functional_reduce.log_softmax


def pair(name: str, value: Pair, what: str) -> tuple[int, int]:
    """An int twice, or a pair of ints. Raises ArgumentError."""
    items = (value, value) if isinstance(value, int) else tuple(value)
    if len(items) == 1:
        items = (items[0], items[0])
    if len(items) != 2 or not all(isinstance(v, int) and not isinstance(v, bool) for v in items):
        raise ArgumentError(f"{name}: {what} must be an int or a pair of ints, got {value!r}")
    return items[0], items[1]


def _float(name: str, x: Any) -> Tensor:
    if not isinstance(x, Tensor):
        raise ArgumentError(f"{name}: expected a Tensor, got {type(x).__name__}")
    if not x.dtype.is_floating_point:
        raise DTypeError(f"{name}: expected a floating-point tensor, got {x._l.type}; convert it with .float()")
    return x


def _batched(name: str, x: Tensor) -> tuple[Tensor, bool]:
    """A 4-d tensor; a 3-d one gets a batch of one."""
    if x.ndim == 3:
        return unsqueeze(x, 0), True
    if x.ndim != 4:
        raise ShapeError(f"{name}: expected 3D (unbatched) or 4D (batched) input, got {x._l.type}")
    return x, False


def conv2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Pair = 1,
    padding: Pair | str = 0,
    dilation: Pair = 1,
    groups: int = 1,
) -> Tensor:
    """2-d convolution: input [N, C, H, W] (or [C, H, W]), weight [O, C/groups, kh, kw], bias [O].

    `padding` is an int, a pair, "valid" or "same" (stride 1 only). Raises ShapeError, DTypeError, ArgumentError.
    """
    x, single = _batched("conv2d", _float("conv2d", input))
    if weight.dtype is not x.dtype or (bias is not None and bias.dtype is not x.dtype):
        raise DTypeError(f"conv2d: input is {x._l.type}, weight is {weight._l.type}; use one dtype for all")
    steps, holes = pair("conv2d", stride, "stride"), pair("conv2d", dilation, "dilation")
    pads = _conv_padding(padding, steps, holes, weight)
    out: Tensor = ops.conv2d(x, weight, stride=steps, padding=pads, dilation=holes, groups=groups)
    if bias is not None:
        if bias.ndim != 1 or bias.shape[0] != weight.shape[0]:
            raise ShapeError(
                f"conv2d: bias is {bias._l.type}, expected one number for each of the {weight.shape[0]} output channels"
            )
        out = ops.add(out, ops.reshape(bias, shape=(1, weight.type.shape[0], 1, 1)))
    return squeeze(out, 0) if single else out


def _conv_padding(
    padding: Pair | str, stride: tuple[int, int], dilation: tuple[int, int], weight: Tensor
) -> tuple[tuple[int, int], tuple[int, int]]:
    if padding == "valid":
        return (0, 0), (0, 0)
    if padding == "same":
        if stride != (1, 1):
            raise ArgumentError("conv2d: padding='same' is not supported for strided convolutions")
        total = [d * (k - 1) for d, k in zip(dilation, weight._a.shape[2:], strict=True)]
        return (total[0] // 2, total[0] - total[0] // 2), (total[1] // 2, total[1] - total[1] // 2)
    if isinstance(padding, str):
        raise ArgumentError(f"conv2d: padding must be 'same', 'valid', an int or a pair, got {padding!r}")
    h, w = pair("conv2d", padding, "padding")
    return (h, h), (w, w)


def max_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    dilation: Pair = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Any:
    """Maximum over windows of [N, C, H, W]; with `return_indices` also where it was in the H*W plane. The stride defaults to the kernel size."""
    x, single = _batched("max_pool2d", _float("max_pool2d", input))
    kernel = pair("max_pool2d", kernel_size, "kernel_size")
    values, indices = ops.max_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None or stride == () else pair("max_pool2d", stride, "stride"),
        padding=pair("max_pool2d", padding, "padding"),
        dilation=pair("max_pool2d", dilation, "dilation"),
        ceil_mode=ceil_mode,
    )
    if single:
        values, indices = squeeze(values, 0), squeeze(indices, 0)
    return (values, indices) if return_indices else values


def avg_pool2d(
    input: Tensor,
    kernel_size: Pair,
    stride: Pair | None = None,
    padding: Pair = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Tensor:
    """Mean over windows of [N, C, H, W]. The stride defaults to the kernel size."""
    if divisor_override is not None:
        raise UnsupportedError("avg_pool2d: divisor_override is not supported; scale the result instead")
    x, single = _batched("avg_pool2d", _float("avg_pool2d", input))
    kernel = pair("avg_pool2d", kernel_size, "kernel_size")
    out: Tensor = ops.avg_pool2d(
        x,
        kernel=kernel,
        stride=kernel if stride is None else pair("avg_pool2d", stride, "stride"),
        padding=pair("avg_pool2d", padding, "padding"),
        ceil_mode=ceil_mode,
        count_include_pad=count_include_pad,
    )
    return squeeze(out, 0) if single else out


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability `p` and scale the others by 1 / (1 - p); the input itself when not training."""
    if not 0.0 <= p <= 1.0:
        raise ArgumentError(f"dropout probability has to be between 0 and 1, but got {p}")
    if not training or p == 0.0:
        return input
    state, offset = draw(None)
    out: Tensor = ops.dropout(_float("dropout", input), state, p=float(p), offset=offset)
    return input.copy_(out) if inplace else out


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
    """Normalise [N, C, …] over all but the channels; in training with the batch's statistics, which also move the running ones.

    The running variance takes the unbiased estimate, as in PyTorch. Raises ShapeError for one value per channel in training.
    """
    x = _float("batch_norm", input)
    affine = _affine("batch_norm", weight, bias, x)
    if not training:
        if running_mean is None or running_var is None:
            raise ArgumentError("batch_norm: expected running_mean and running_var to be given when training=False")
        evaluated: Tensor = ops.batch_norm_eval(x, running_mean, running_var, *affine, eps=eps)
        return evaluated
    count = x.type.numel // x.type.shape[1]
    if count == 1:
        raise ShapeError(f"batch_norm: expected more than 1 value per channel when training, got input size {x.shape}")
    y, centre, variance = ops.batch_norm_train(x, *affine, eps=eps)
    if running_mean is not None and running_var is not None:
        _move_statistics(running_mean, running_var, centre.detach(), variance.detach(), momentum, count)
    out: Tensor = y
    return out


def _move_statistics(
    mean: Tensor, var: Tensor, centre: Tensor, variance: Tensor, momentum: float | Tensor, count: Any
) -> None:
    from graphc.frontend.grad_mode import no_grad

    with no_grad():
        unbiased = variance * (count / (count - 1))
        mean.copy_((1 - momentum) * mean + momentum * centre)
        var.copy_((1 - momentum) * var + momentum * unbiased)


def _affine(name: str, weight: Tensor | None, bias: Tensor | None, x: Tensor) -> tuple[Tensor, ...]:
    """Weight and bias for an op that takes both or none."""
    if weight is None and bias is None:
        return ()
    given = weight if weight is not None else bias
    assert given is not None
    if given.dtype is not x.dtype:
        raise DTypeError(f"{name}: input is {x._l.type}, weight and bias are {given._l.type}; use one dtype for all")
    from graphc.frontend.creation import ones_like, zeros_like

    return (weight if weight is not None else ones_like(given), bias if bias is not None else zeros_like(given))


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-05,
) -> Tensor:
    """Normalise over the last dimensions, whose sizes `normalized_shape` states."""
    x = _float("layer_norm", input)
    _check_last("layer_norm", x, tuple(normalized_shape))
    out: Tensor = ops.layer_norm(
        x, *_affine("layer_norm", weight, bias, x), normalized_dims=len(tuple(normalized_shape)), eps=eps
    )
    return out


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divide by the root mean square over the last dimensions."""
    x = _float("rms_norm", input)
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
    x = _float("group_norm", input)
    out: Tensor = ops.group_norm(x, *_affine("group_norm", weight, bias, x), groups=num_groups, eps=eps)
    return out


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x); `approximate="tanh"` uses the tanh form."""
    out: Tensor = ops.gelu(_float("gelu", input), approximate=approximate)
    return out


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    return _maybe_in_place(input, ops.silu(_float("silu", input)), inplace)


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, negative_slope * x elsewhere."""
    return _maybe_in_place(input, ops.leaky_relu(_float("leaky_relu", input), negative_slope=negative_slope), inplace)


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    return _maybe_in_place(input, ops.elu(_float("elu", input), alpha=alpha), inplace)


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    return _maybe_in_place(input, ops.relu6(_float("relu6", input)), inplace)


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x is above the threshold."""
    out: Tensor = ops.softplus(_float("softplus", input), beta=beta, threshold=threshold)
    return out


def _maybe_in_place(input: Tensor, out: Tensor, inplace: bool) -> Tensor:
    return input.copy_(out) if inplace else out


def embedding(input: Tensor, weight: Tensor, padding_idx: int | None = None) -> Tensor:
    """Rows of `weight` [V, D] at the int64 indices `input`. Raises IndexingError (eagerly) for one out of range."""
    if input.dtype is not int64:
        raise DTypeError(f"embedding: expected int64 indices, got {input._l.type}")
    if mode.get().recorder is None and input._a.size:
        low, high = int(input._a.min()), int(input._a.max())
        if low < 0 or high >= weight._a.shape[0]:
            raise IndexingError(
                f"embedding: index {low if low < 0 else high} is out of range for {weight._a.shape[0]} rows"
            )
    out: Tensor = ops.embedding(weight, input, padding_idx=padding_idx)
    return out


def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """A last axis of `num_classes` with 1 at the index, int64. -1: one more than the largest index (read from the values)."""
    if tensor.dtype is not int64:
        raise DTypeError(f"one_hot: expected an int64 tensor, got {tensor._l.type}")
    classes = int(tensor.max().item()) + 1 if num_classes == -1 else num_classes
    from graphc.frontend.creation import arange

    return (tensor.unsqueeze(-1) == arange(classes)).to(int64)


def normalize(input: Tensor, p: float = 2.0, dim: int = 1, eps: float = 1e-12) -> Tensor:
    """Divide by the p-norm along `dim`, at least `eps`."""
    return input / input.norm(p, dim, keepdim=True).clamp_min(eps).expand_as(input)


# ---- losses -----------------------------------------------------------------------------------------------------------


def cross_entropy(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Negative log likelihood of softmax(input): input [N, C, …] (or [C]), int64 targets [N, …] (or a number)."""
    x, y, single = _class_inputs("cross_entropy", input, target)
    extra = () if weight is None else (weight,)
    out: Tensor = ops.cross_entropy(
        x, y, *extra, reduction=reduction, ignore_index=ignore_index, label_smoothing=float(label_smoothing)
    )
    return squeeze(out, 0) if single and reduction == "none" else out


def nll_loss(
    input: Tensor,
    target: Tensor,
    weight: Tensor | None = None,
    size_average: None = None,
    ignore_index: int = -100,
    reduce: None = None,
    reduction: str = "mean",
) -> Tensor:
    """Minus the input at the target class: input [N, C, …] of log probabilities, int64 targets [N, …]."""
    x, y, single = _class_inputs("nll_loss", input, target)
    out: Tensor = ops.nll_loss(
        x, y, *(() if weight is None else (weight,)), reduction=reduction, ignore_index=ignore_index
    )
    return squeeze(out, 0) if single and reduction == "none" else out


def _class_inputs(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor, bool]:
    x = _float(name, input)
    if not isinstance(target, Tensor):
        raise ArgumentError(f"{name}: the target must be a Tensor, got {type(target).__name__}")
    if target.dtype is not int64:
        raise DTypeError(f"{name}: targets must be int64 class numbers, got {target._l.type}")
    if x.ndim == 1:
        return unsqueeze(x, 0), unsqueeze(target, 0), True
    return x, target, False


def _pairwise(name: str, input: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    if tuple(input.shape) != tuple(target.shape):
        raise ShapeError(f"{name}: input is {input._l.type} and target is {target._l.type}; make their shapes equal")
    dtype = result_type(input, target)
    return convert(_float(name, input), dtype), convert(target, dtype)


def mse_loss(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """Mean of (input - target)^2."""
    out: Tensor = ops.mse_loss(*_pairwise("mse_loss", input, target), reduction=reduction)
    return out


def l1_loss(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """Mean of |input - target|."""
    out: Tensor = ops.l1_loss(*_pairwise("l1_loss", input, target), reduction=reduction)
    return out


def smooth_l1_loss(
    input: Tensor,
    target: Tensor,
    size_average: None = None,
    reduce: None = None,
    reduction: str = "mean",
    beta: float = 1.0,
) -> Tensor:
    """Quadratic below `beta`, linear above."""
    if beta == 0:
        return l1_loss(input, target, reduction=reduction)
    out: Tensor = ops.smooth_l1_loss(*_pairwise("smooth_l1_loss", input, target), reduction=reduction, beta=float(beta))
    return out


def huber_loss(input: Tensor, target: Tensor, reduction: str = "mean", delta: float = 1.0) -> Tensor:
    """Quadratic below `delta`, linear above, continuous in slope."""
    out: Tensor = ops.huber_loss(*_pairwise("huber_loss", input, target), reduction=reduction, delta=float(delta))
    return out


def binary_cross_entropy(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """-(y log x + (1 - y) log(1 - x)) with the logarithms held above -100."""
    out: Tensor = ops.binary_cross_entropy(*_pairwise("binary_cross_entropy", input, target), reduction=reduction)
    return out


def binary_cross_entropy_with_logits(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """binary_cross_entropy(sigmoid(input), target), computed without overflow."""
    pairs = _pairwise("binary_cross_entropy_with_logits", input, target)
    out: Tensor = ops.binary_cross_entropy_with_logits(*pairs, reduction=reduction)
    return out


def kl_div(
    input: Tensor, target: Tensor, size_average: None = None, reduce: None = None, reduction: str = "mean"
) -> Tensor:
    """target * (log target - input); `reduction="batchmean"` divides the sum by the first size."""
    x, y = _pairwise("kl_div", input, target)
    if reduction == "batchmean":
        total: Tensor = ops.kl_div(x, y, reduction="sum")
        return total / x.shape[0]
    out: Tensor = ops.kl_div(x, y, reduction=reduction)
    return out
