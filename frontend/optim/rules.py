"""The update rules."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import zeros, zeros_like
from graphc.frontend.functional_math import where
from graphc.frontend.optim.optimizer import Hyper, Optimizer, Params, check_range
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64

__all__ = ["SGD", "Adam", "AdamW"]


class SGD(Optimizer):
    """Stochastic gradient descent with momentum (as PyTorch: v = momentum * v + (1 - dampening) * g; p -= lr * v).

    The first momentum is the gradient itself: `where(step == 0, g, …)`.
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
    ) -> None:
        check_range("SGD", "learning rate", lr)
        check_range("SGD", "momentum value", momentum)
        check_range("SGD", "weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ArgumentError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        if group["momentum"] == 0:
            return {}
        return {"step": zeros((), dtype=p.dtype), "momentum_buffer": zeros_like(p)}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        if group["maximize"]:
            g = -g
        if group["weight_decay"] != 0:
            g = g + p * hyper["weight_decay"].to(p.dtype)
        if group["momentum"] != 0:
            g = self._momentum(g, state, group, hyper)
        p.sub_(g * hyper["lr"].to(p.dtype))

    def _momentum(self, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> Tensor:
        buffer, step = state["momentum_buffer"], state["step"]
        momentum = hyper["momentum"].to(g.dtype)
        damped = g if group["dampening"] == 0 else g * (1.0 - hyper["dampening"]).to(g.dtype)
        buffer.copy_(where(step == 0, g, buffer * momentum + damped))
        step.add_(1)
        return g + buffer * momentum if group["nesterov"] else buffer


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with PyTorch's form of the bias corrections, computed as 0-d float64 operations."""

    decoupled = False

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
    ) -> None:
        name = type(self).__name__
        check_range(name, "learning rate", lr)
        check_range(name, "epsilon value", eps)
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
        if group["maximize"]:
            g = -g
        lr = hyper["lr"]
        if group["weight_decay"] != 0:
            if self.decoupled:
                p.mul_((1.0 - lr * hyper["weight_decay"]).to(p.dtype))
            else:
                g = g + p * hyper["weight_decay"].to(p.dtype)
        beta1, beta2 = group["betas"]
        step, average, square = state["step"], state["exp_avg"], state["exp_avg_sq"]
        step.add_(1)
        average.copy_(average + (g - average) * (1.0 - beta1))
        square.copy_(square * beta2 + (g * g) * (1.0 - beta2))
        if group["amsgrad"]:
            state["max_exp_avg_sq"].copy_(state["max_exp_avg_sq"].maximum(square))
            square = state["max_exp_avg_sq"]
        correction1 = 1.0 - _power(beta1, step)
        correction2 = (1.0 - _power(beta2, step)).sqrt()
        size = (lr / correction1).to(p.dtype)
        denominator = square.sqrt() / correction2.to(p.dtype) + hyper["eps"].to(p.dtype)
        p.sub_(average / denominator * size)


class AdamW(Adam):
    """Adam with decoupled weight decay (Loshchilov and Hutter, 2019)."""

    decoupled = True

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
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad, maximize=maximize)


def _power(base: float, step: Tensor) -> Tensor:
    """base ** step, 0-d float64."""
    made: Tensor = base**step
    return made
