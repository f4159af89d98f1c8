"""The update rules."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import full_like, ones, zeros, zeros_like
from graphc.frontend.functional import eq, where
from graphc.frontend.optim.optimizer import Hyper, Optimizer, Params, check_range, pair, ways
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "RMSprop"]


def signed(p: Tensor, g: Tensor, group: dict[str, Any], hyper: Hyper) -> Tensor:
    """The gradient to go down along, with the weight decay added to it."""
    if group["maximize"]:
        g = -g
    return g if group["weight_decay"] == 0 else g + p * hyper.get("weight_decay", p.dtype)


def decayed(p: Tensor, g: Tensor, group: dict[str, Any], hyper: Hyper) -> Tensor:
    """The gradient to go down along, after the weight decay: within it, or of the parameter itself when decoupled."""
    if not group["decoupled_weight_decay"]:
        return signed(p, g, group, hyper)
    if group["weight_decay"] != 0:
        p.mul_(hyper.once("1 - lr * decay", p.dtype, lambda: 1.0 - hyper["lr"] * hyper["weight_decay"]))
    return -g if group["maximize"] else g


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, as PyTorch: v = momentum * v + (1 - dampening) * g; p -= lr * v.

    The first momentum is the gradient itself. Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_range("SGD", "learning rate", lr)
        check_range("SGD", "momentum value", momentum)
        check_range("SGD", "weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("SGD: Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            **ways("SGD", differentiable, foreach=foreach, fused=fused),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if group["momentum"] == 0:
            return {}
        return {"step": zeros((), dtype=p.dtype), "momentum_buffer": zeros_like(p)}

    def _loaded(self, p: Tensor, entries: Mapping[str, Any]) -> dict[str, Any]:
        """PyTorch writes a momentum alone, None before the first step: here a count says that there is one."""
        if entries.get("momentum_buffer") is None:
            return {}
        return {"step": ones((), dtype=p.dtype), **super()._loaded(p, entries)}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        if group["momentum"] != 0:
            g = self._momentum(g, state, group, hyper)
        p.sub_(g * hyper.get("lr", p.dtype))

    def _momentum(self, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> Tensor:
        buffer, step = state["momentum_buffer"], state["step"]
        momentum = hyper.get("momentum", g.dtype)
        damped = g
        if group["dampening"] != 0:
            damped = g * hyper.once("1 - dampening", g.dtype, lambda: 1.0 - hyper["dampening"])
        buffer.copy_(where(eq(step, 0), g, buffer * momentum + damped))
        step.add_(1)
        ahead: Tensor = g + buffer * momentum if group["nesterov"] else buffer
        return ahead


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with PyTorch's form of the bias corrections, computed as 0-d float64 operations.

    Raises ArgumentError for settings out of range.
    """

    followed = ("betas",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        name = type(self).__name__
        check_range(name, "learning rate", lr)
        check_range(name, "epsilon value", eps)
        pair(name, "betas", betas)
        check_range(name, "beta parameter at index 0", betas[0], 1.0)
        check_range(name, "beta parameter at index 1", betas[1], 1.0)
        check_range(name, "weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            **ways(name, differentiable, foreach=foreach, capturable=capturable, fused=fused),
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {
            "step": zeros((), dtype=float64),
            "exp_avg": zeros_like(p),
            "exp_avg_sq": zeros_like(p),
        }
        if group["amsgrad"]:
            state["max_exp_avg_sq"] = zeros_like(p)
        return state

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = decayed(p, g, group, hyper)
        step = state["step"]
        step.add_(1)
        average, square = moments(g, state, hyper)
        if group["amsgrad"]:
            state["max_exp_avg_sq"].copy_(state["max_exp_avg_sq"].maximum(square))
            square = state["max_exp_avg_sq"]
        size = (hyper["lr"] / rest_of(hyper, 0, step)).to(p.dtype)
        correction = rest_of(hyper, 1, step).sqrt().to(p.dtype)
        p.sub_(average / (square.sqrt() / correction + hyper.get("eps", p.dtype)) * size)


def moments(g: Tensor, state: dict[str, Any], hyper: Hyper) -> tuple[Tensor, Tensor]:
    """The moving averages of gradients and of their squares, moved on."""
    average, square = state["exp_avg"], state["exp_avg_sq"]
    first = hyper.once("1 - beta1", g.dtype, lambda: 1.0 - hyper.item("betas", 0))
    average.copy_(average + (g - average) * first)
    kept = hyper.once("beta2", g.dtype, lambda: hyper.item("betas", 1))
    square.copy_(square * kept + (g * g) * hyper.once("1 - beta2", g.dtype, lambda: 1.0 - hyper.item("betas", 1)))
    return average, square


def rest_of(hyper: Hyper, place: int, step: Tensor) -> Tensor:
    """1 - beta ** step for one of the betas: the bias correction, 0-d float64."""
    rest: Tensor = 1.0 - hyper.item("betas", place) ** step
    return rest


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params, lr, betas, eps, weight_decay, amsgrad, foreach=foreach, maximize=maximize, capturable=capturable,
            differentiable=differentiable, fused=fused, decoupled_weight_decay=True,
        )  # fmt: skip


class RMSprop(Optimizer):
    """Divide by a moving root mean square (Tieleman and Hinton, 2012), in PyTorch's form.

    Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range("RMSprop", "learning rate", lr)
        check_range("RMSprop", "epsilon value", eps)
        check_range("RMSprop", "momentum value", momentum)
        check_range("RMSprop", "weight_decay value", weight_decay)
        check_range("RMSprop", "alpha value", alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "maximize": maximize,
            **ways("RMSprop", differentiable, capturable=capturable, foreach=foreach),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state: dict[str, Any] = {"step": zeros((), dtype=float64), "square_avg": zeros_like(p)}
        if group["momentum"] > 0:
            state["momentum_buffer"] = zeros_like(p)
        if group["centered"]:
            state["grad_avg"] = zeros_like(p)
        return state

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        alpha = hyper.get("alpha", p.dtype)
        rest = hyper.once("1 - alpha", p.dtype, lambda: 1.0 - hyper["alpha"])
        state["step"].add_(1)
        square = state["square_avg"]
        square.copy_(square * alpha + (g * g) * rest)
        spread: Tensor = square
        if group["centered"]:
            average = state["grad_avg"]
            average.copy_(average + (g - average) * rest)
            spread = square - average * average
        change = g / (spread.sqrt() + hyper.get("eps", p.dtype))
        if group["momentum"] > 0:
            buffer = state["momentum_buffer"]
            buffer.copy_(buffer * hyper.get("momentum", p.dtype) + change)
            change = buffer
        p.sub_(change * hyper.get("lr", p.dtype))


class Adagrad(Optimizer):
    """Divide by the root of the sum of all squared gradients (Duchi et al., 2011).

    Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        check_range("Adagrad", "learning rate", lr)
        check_range("Adagrad", "lr_decay value", lr_decay)
        check_range("Adagrad", "weight_decay value", weight_decay)
        check_range("Adagrad", "initial_accumulator_value value", initial_accumulator_value)
        check_range("Adagrad", "epsilon value", eps)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "maximize": maximize,
            **ways("Adagrad", differentiable, foreach=foreach, fused=fused),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": zeros((), dtype=float64), "sum": full_like(p, float(group["initial_accumulator_value"]))}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        size = (hyper["lr"] / (1.0 + state["step"] * hyper["lr_decay"])).to(p.dtype)
        state["step"].add_(1)
        total = state["sum"]
        total.copy_(total + g * g)
        p.sub_(g / (total.sqrt() + hyper.get("eps", p.dtype)) * size)


class Adadelta(Optimizer):
    """Steps scaled by the ratio of moving root mean squares of changes and gradients (Zeiler, 2012).

    Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range("Adadelta", "learning rate", lr)
        check_range("Adadelta", "rho value", rho, 1.0 + 2.0**-52)
        check_range("Adadelta", "epsilon value", eps)
        check_range("Adadelta", "weight_decay value", weight_decay)
        defaults: dict[str, Any] = {"lr": lr, "rho": rho, "eps": eps, "weight_decay": weight_decay}
        defaults["maximize"] = maximize
        defaults |= ways("Adadelta", differentiable, capturable=capturable, foreach=foreach)
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": zeros((), dtype=float64), "square_avg": zeros_like(p), "acc_delta": zeros_like(p)}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        rho, eps = hyper.get("rho", p.dtype), hyper.get("eps", p.dtype)
        rest = hyper.once("1 - rho", p.dtype, lambda: 1.0 - hyper["rho"])
        state["step"].add_(1)
        square, changes = state["square_avg"], state["acc_delta"]
        square.copy_(square * rho + (g * g) * rest)
        change = (changes + eps).sqrt() / (square + eps).sqrt() * g
        changes.copy_(changes * rho + (change * change) * rest)
        p.sub_(change * hyper.get("lr", p.dtype))
