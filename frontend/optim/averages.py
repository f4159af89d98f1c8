"""Averages of the weights of a model over its steps (Izmailov et al., 2018), and the rates for them."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.creation import tensor
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn import Module
from graphc.frontend.optim.lr_scheduler import LRScheduler
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.tensor import Tensor
from graphc.ir.types import int64

__all__ = ["SWALR", "AveragedModel", "get_ema_avg_fn", "get_ema_multi_avg_fn", "update_bn"]

Average = Callable[[Tensor, Tensor, Tensor], Tensor]
Averages = Callable[[Sequence[Tensor], Sequence[Tensor], Tensor], None]


def get_ema_avg_fn(decay: float = 0.999) -> Average:
    """decay * average + (1 - decay) * parameter."""
    if not 0.0 <= decay <= 1.0:
        raise ArgumentError(f"Invalid decay value {decay} provided. Please provide a value in [0,1] range.")

    def average(averaged: Tensor, current: Tensor, number: Tensor) -> Tensor:
        return decay * averaged + (1 - decay) * current

    return average


def get_ema_multi_avg_fn(decay: float = 0.999) -> Averages:
    """As get_ema_avg_fn, for lists of tensors, in place."""
    average = get_ema_avg_fn(decay)

    def update(averaged: Sequence[Tensor], current: Sequence[Tensor], number: Tensor) -> None:
        for a, c in zip(averaged, current, strict=True):
            a.copy_(average(a, c, number))

    return update


class AveragedModel(Module):
    """A copy of `model` (as `.module`) whose parameters are averages: equal by default, else by `avg_fn`.

    `use_buffers` averages buffers, too; otherwise they are copied. Raises ArgumentError for both functions.
    """

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: Average | None = None,
        multi_avg_fn: Averages | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise ArgumentError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, dtype=int64))
        self.avg_fn, self.multi_avg_fn, self.use_buffers = avg_fn, multi_avg_fn, use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged copy gives."""
        return self.module(*args, **kwargs)

    @no_grad()
    def update_parameters(self, model: Module) -> None:
        """Take the model's weights of now into the averages."""
        mine: list[Tensor] = list(self.module.parameters())
        given: list[Tensor] = list(model.parameters())
        if self.use_buffers:
            mine, given = mine + list(self.module.buffers()), given + list(model.buffers())
        pairs = [(a, b.detach()) for a, b in zip(mine, given, strict=True)]
        if int(self.n_averaged) == 0:
            for a, b in pairs:
                a.copy_(b)
        elif self.multi_avg_fn is not None:
            self.multi_avg_fn([a for a, _ in pairs], [b for _, b in pairs], self.n_averaged)
        else:
            for a, b in pairs:
                a.copy_(self._average(a, b))
        if not self.use_buffers:
            for kept, now in zip(self.module.buffers(), model.buffers(), strict=True):
                kept.copy_(now)
        self.n_averaged.add_(1)

    def _average(self, a: Tensor, b: Tensor) -> Tensor:
        if self.avg_fn is not None:
            return self.avg_fn(a, b, self.n_averaged)
        if not a.dtype.is_floating_point:
            return b
        moved: Tensor = a + (b - a) / (self.n_averaged + 1).to(a.dtype)
        return moved


class SWALR(LRScheduler):
    """From the rates there are to `swa_lr` within `anneal_epochs`, then constant. Raises ArgumentError."""

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | Sequence[float],
        anneal_epochs: int = 10,
        anneal_strategy: str = "cos",
        last_epoch: int = -1,
    ) -> None:
        if anneal_strategy not in ("cos", "linear") or not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ArgumentError(
                "SWALR: anneal_strategy must be 'cos' or 'linear' and anneal_epochs 0 or more, "
                f"got {anneal_strategy!r} and {anneal_epochs}"
            )
        count = len(optimizer.param_groups)
        rates = list(swa_lr) if isinstance(swa_lr, (list, tuple)) else [swa_lr] * count
        if len(rates) != count:
            raise ArgumentError(f"SWALR: swa_lr must have the same length as optimizer.param_groups: {count}")
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["swa_lr"] = rate
        self.anneal_epochs, self.anneal_strategy = anneal_epochs, anneal_strategy
        super().__init__(optimizer, last_epoch)

    def _share(self, epoch: int) -> float:
        t = max(0.0, min(1.0, epoch / max(1, self.anneal_epochs)))
        return (1 - math.cos(math.pi * t)) / 2 if self.anneal_strategy == "cos" else t

    def get_lr(self) -> list[float]:
        """The rates for `last_epoch`."""
        step = self.last_epoch if self.anneal_epochs else max(1, self.last_epoch)
        before, now = self._share(max(0, step - 1)), self._share(step)
        found = []
        for group in self.optimizer.param_groups:
            start = group["swa_lr"] if before == 1 else (group["lr"] - before * group["swa_lr"]) / (1 - before)
            found.append(group["swa_lr"] * now + start * (1 - now))
        return found


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of the model's batch norms anew, over all batches (the first item of each)."""
    norms = [m for m in model.modules() if hasattr(m, "num_batches_tracked") and hasattr(m, "momentum")]
    if not norms:
        return
    was_training, momenta = model.training, [m.momentum for m in norms]
    model.train()
    for m in norms:
        m.reset_running_stats()
        m.momentum = None
    for batch in loader:
        given = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(given if device is None else given.to(device))
    for m, momentum in zip(norms, momenta, strict=True):
        m.momentum = momentum
    model.train(was_training)
