"""Functions of single elements: activations and dropout."""

from __future__ import annotations

from collections.abc import Callable

from graphc.errors import ShapeError
from graphc.frontend import functional
from graphc.frontend.autograd import ticket
from graphc.frontend.autograd_inplace import check_inplace
from graphc.frontend.functional import reshape, where
from graphc.frontend.given import probability
from graphc.frontend.inplace import store
from graphc.frontend.mode import mode
from graphc.frontend.nn.checks import float_input
from graphc.frontend.ops import ops
from graphc.frontend.random import draw
from graphc.frontend.tensor import Tensor

__all__ = [
    "dropout",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "log_softmax",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "sigmoid",
    "silu",
    "softmax",
    "softplus",
    "tanh",
]

sigmoid = functional.sigmoid
tanh = functional.tanh
softmax = functional.softmax
log_softmax = functional.log_softmax
_SELU_SCALE, _SELU_ALPHA = 1.0507009873554804934193349852946, 1.6732632423543772848170429916717


def maybe_in_place(name: str, input: Tensor, inplace: bool, compute: Callable[[], Tensor]) -> Tensor:
    """What `compute` gives, or `input` with its elements replaced by that; gradients see the elements from before."""
    if not inplace:
        return compute()
    if mode.get().grad:
        check_inplace(input, name)
    since = ticket()
    return store(input, compute(), name, since)


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """max(x, 0)."""
    return maybe_in_place("relu", input, inplace, lambda: functional.relu(input))


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability `p`, scale the others by 1 / (1 - p); the input itself when not training."""
    probability("dropout", p)
    if not training or p == 0.0:
        return input
    state, offset = draw(None)
    x = float_input("dropout", input)
    return maybe_in_place("dropout", input, inplace, lambda: ops.dropout(x, state, p=float(p), offset=offset))


def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """x * Phi(x); `approximate="tanh"` uses the tanh form."""
    out: Tensor = ops.gelu(float_input("gelu", input), approximate=approximate)
    return out


def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """x * sigmoid(x)."""
    x = float_input("silu", input)
    return maybe_in_place("silu", input, inplace, lambda: ops.silu(x))


def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, negative_slope * x elsewhere."""
    x = float_input("leaky_relu", input)
    return maybe_in_place("leaky_relu", input, inplace, lambda: ops.leaky_relu(x, negative_slope=negative_slope))


def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, alpha * (exp(x) - 1) elsewhere."""
    x = float_input("elu", input)
    return maybe_in_place("elu", input, inplace, lambda: ops.elu(x, alpha=alpha))


def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x, 0), 6)."""
    x = float_input("relu6", input)
    return maybe_in_place("relu6", input, inplace, lambda: ops.relu6(x))


def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """log(1 + exp(beta * x)) / beta, and x itself where beta * x is above the threshold."""
    out: Tensor = ops.softplus(float_input("softplus", input), beta=beta, threshold=threshold)
    return out


def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """scale * (max(x, 0) + min(alpha * (exp(x) - 1), 0)) (Klambauer et al., 2017)."""
    return maybe_in_place("selu", input, inplace, lambda: elu(input, _SELU_ALPHA) * _SELU_SCALE)


def hardtanh(input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False) -> Tensor:
    """x held between min_val and max_val; no gradient at the limits themselves."""
    x = float_input("hardtanh", input)

    def held() -> Tensor:
        return where(x <= min_val, min_val, where(x >= max_val, max_val, x))

    return maybe_in_place("hardtanh", input, inplace, held)


def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """min(max(x + 3, 0), 6) / 6."""
    return maybe_in_place("hardsigmoid", input, inplace, lambda: relu6(input + 3.0) / 6.0)


def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * min(max(x + 3, 0), 6) / 6."""
    return maybe_in_place("hardswish", input, inplace, lambda: input * relu6(input + 3.0) / 6.0)


def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """x * tanh(softplus(x)) (Misra, 2019)."""
    return maybe_in_place("mish", input, inplace, lambda: input * tanh(softplus(input)))


def logsigmoid(input: Tensor) -> Tensor:
    """log(sigmoid(x)) without overflow: min(x, 0) - log1p(exp(-|x|))."""
    x = float_input("logsigmoid", input)
    return functional.minimum(x, 0.0) - functional.log1p(functional.exp(-functional.abs(x)))


def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, weight * x elsewhere; one weight, or one for each channel (axis 1). Raises ShapeError."""
    x = float_input("prelu", input)
    count = weight._l.size
    if count != 1 and (x.ndim < 2 or x._l.shape[1] != count):
        raise ShapeError(
            f"prelu: weight is {weight._l.type}, expected one number or one for each channel of {x._l.type}"
        )
    if x.ndim >= 2 and count != 1:
        weight = reshape(weight, (1, count, *(1 for _ in range(x.ndim - 2))))
    return where(x > 0, x, weight * x)
