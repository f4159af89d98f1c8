"""More update rules: relatives of Adam, averaged SGD, and steps by signs."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import full, full_like, ones, zeros, zeros_like
from graphc.frontend.functional import where
from graphc.frontend.optim.optimizer import Hyper, Optimizer, Params, check_range, ways
from graphc.frontend.optim.rules import decayed, moments, rest_of, signed
from graphc.frontend.tensor import Tensor
from graphc.ir.types import float64

__all__ = ["ASGD", "Adamax", "NAdam", "RAdam", "Rprop"]


def _check_adam(name: str, lr: float | Tensor, betas: tuple[float, float], eps: float, weight_decay: float) -> None:
    check_range(name, "learning rate", lr)
    check_range(name, "epsilon value", eps)
    check_range(name, "beta parameter at index 0", betas[0], 1.0)
    check_range(name, "beta parameter at index 1", betas[1], 1.0)
    check_range(name, "weight_decay value", weight_decay)


class NAdam(Optimizer):
    """Adam with Nesterov's momentum (Dozat, 2016), whose weight grows with `momentum_decay`.

    Raises ArgumentError for settings out of range.
    """

    followed = ("betas",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum_decay: float = 4e-3,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam("NAdam", lr, betas, eps, weight_decay)
        check_range("NAdam", "momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            **ways("NAdam", differentiable, foreach=foreach, capturable=capturable),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": zeros((), dtype=float64),
            "mu_product": ones((), dtype=float64),
            "exp_avg": zeros_like(p),
            "exp_avg_sq": zeros_like(p),
        }

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = decayed(p, g, group, hyper)
        step, product = state["step"], state["mu_product"]
        step.add_(1)
        decay, beta1 = hyper["momentum_decay"], hyper.item("betas", 0)
        mu = (1.0 - 0.5 * 0.96 ** (step * decay)) * beta1
        ahead = (1.0 - 0.5 * 0.96 ** ((step + 1.0) * decay)) * beta1
        product.mul_(mu)
        average, square = moments(g, state, hyper)
        correction = rest_of(hyper, 1, step).to(p.dtype)
        size = (square / correction).sqrt() + hyper.get("eps", p.dtype)
        now = (hyper["lr"] * (1.0 - mu) / (1.0 - product)).to(p.dtype)
        later = (hyper["lr"] * ahead / (1.0 - product * ahead)).to(p.dtype)
        p.sub_(g / size * now)
        p.sub_(average / size * later)


class RAdam(Optimizer):
    """Adam that waits with the second moment until its variance is known (Liu et al., 2020).

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
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        _check_adam("RAdam", lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            **ways("RAdam", differentiable, foreach=foreach, capturable=capturable),
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": zeros((), dtype=float64), "exp_avg": zeros_like(p), "exp_avg_sq": zeros_like(p)}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = decayed(p, g, group, hyper)
        step = state["step"]
        step.add_(1)
        average, square = moments(g, state, hyper)
        rest, beta2 = rest_of(hyper, 1, step), hyper.item("betas", 1)
        longest = 2.0 / (1.0 - beta2) - 1.0
        length = longest - 2.0 * step * (1.0 - rest) / rest
        known = length > 5.0
        held = where(known, length, longest)  # the root below needs a number above 4
        rectified = (
            (held - 4.0) * (held - 2.0) * longest / ((longest - 4.0) * (longest - 2.0) * held)
        ).sqrt() * rest.sqrt()
        shared = hyper["lr"] / rest_of(hyper, 0, step)
        spread = square.sqrt() + hyper.get("eps", p.dtype)
        p.sub_(average * where(known, (shared * rectified).to(p.dtype) / spread, shared.to(p.dtype)))


class Adamax(Optimizer):
    """Adam with the largest gradient so far in place of the second moment (Kingma and Ba, 2015).

    Raises ArgumentError for settings out of range.
    """

    followed = ("betas",)

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        _check_adam("Adamax", lr, betas, eps, weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            **ways("Adamax", differentiable, foreach=foreach, capturable=capturable),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {"step": zeros((), dtype=float64), "exp_avg": zeros_like(p), "exp_inf": zeros_like(p)}

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        step, average, largest = state["step"], state["exp_avg"], state["exp_inf"]
        step.add_(1)
        average.copy_(average + (g - average) * hyper.once("1 - beta1", g.dtype, lambda: 1.0 - hyper.item("betas", 0)))
        kept = hyper.once("beta2", g.dtype, lambda: hyper.item("betas", 1))
        largest.copy_((largest * kept).maximum(g.abs() + hyper.get("eps", p.dtype)))
        size = (hyper["lr"] / rest_of(hyper, 0, step)).to(p.dtype)
        p.sub_(average / largest * size)


class ASGD(Optimizer):
    """Stochastic gradient descent with a decaying rate; the state `ax` holds averaged parameters (Polyak and Juditsky,
    1992).

    Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0.0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        check_range("ASGD", "learning rate", lr)
        check_range("ASGD", "weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "maximize": maximize,
            **ways("ASGD", differentiable, foreach=foreach, capturable=capturable),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": zeros((), dtype=float64),
            "eta": full((), float(group["lr"]), dtype=float64),
            "mu": ones((), dtype=float64),
            "ax": zeros_like(p),
        }

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = signed(p, g, group, hyper)
        step, eta, mu, mean = state["step"], state["eta"], state["mu"], state["ax"]
        step.add_(1)
        decay = hyper["lambd"]
        p.mul_((1.0 - decay * eta).to(p.dtype))
        p.sub_(g * eta.to(p.dtype))
        mean.copy_(where(mu == 1.0, p, mean + (p - mean) * mu.to(p.dtype)))
        eta.copy_(hyper["lr"] / (1.0 + decay * hyper["lr"] * step) ** hyper["alpha"])
        mu.copy_(1.0 / (step - hyper["t0"]).clamp_min(1.0))


class Rprop(Optimizer):
    """Steps of their own size for every element, larger while the gradient keeps its sign (Riedmiller and Braun, 1993).

    Raises ArgumentError for settings out of range.
    """

    def __init__(
        self,
        params: Params,
        lr: float | Tensor = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50.0),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        check_range("Rprop", "learning rate", lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ArgumentError(f"Rprop: invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "maximize": maximize,
            **ways("Rprop", differentiable, foreach=foreach, capturable=capturable),
        }
        super().__init__(params, defaults)

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        return {
            "step": zeros((), dtype=float64),
            "prev": zeros_like(p),
            "step_size": full_like(p, float(group["lr"])),
        }

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        g = -g if group["maximize"] else g
        (less, more), (least, most) = group["etas"], group["step_sizes"]
        before, size = state["prev"], state["step_size"]
        state["step"].add_(1)
        kept = g * before
        turned = kept < 0
        factor = where(kept > 0, full_like(p, more), where(turned, full_like(p, less), full_like(p, 1.0)))
        size.copy_((size * factor).clamp(least, most))
        g = where(turned, 0.0, g)
        p.sub_(g.sign() * size)
        before.copy_(g)
