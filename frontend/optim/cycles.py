"""Schedules that cycle, and schedules made of others."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.optim.lr_scheduler import LRScheduler
from graphc.frontend.optim.optimizer import Optimizer

__all__ = ["ChainedScheduler", "CyclicLR", "OneCycleLR", "SequentialLR"]

Each = float | Sequence[float]


def _each(name: str, what: str, value: Each, optimizer: Optimizer) -> list[float]:
    """One number for each parameter group. Raises ArgumentError."""
    count = len(optimizer.param_groups)
    found = [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)] * count  # type: ignore[arg-type]
    if len(found) != count:
        raise ArgumentError(f"{name}: expected {count} values for {what}, got {len(found)}")
    return found


def _momentum_key(name: str, optimizer: Optimizer) -> str:
    """Where the optimiser has its momentum: "betas" or "momentum". Raises ArgumentError."""
    for key in ("betas", "momentum"):
        if key in optimizer.defaults:
            return key
    raise ArgumentError(f"{name}: the optimizer must support momentum or beta1 with `cycle_momentum` enabled")


def _set_momentum(group: dict[str, Any], key: str, value: float) -> None:
    group[key] = (value, *group["betas"][1:]) if key == "betas" else value


class OneCycleLR(LRScheduler):
    """Up from max_lr / div_factor to max_lr, and down far below, once (Smith and Topin, 2018); a step is a batch.

    The momentum (or the first beta) goes the other way with `cycle_momentum`. Raises ArgumentError.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        max_lr: Each,
        total_steps: int | None = None,
        epochs: int | None = None,
        steps_per_epoch: int | None = None,
        pct_start: float = 0.3,
        anneal_strategy: str = "cos",
        cycle_momentum: bool = True,
        base_momentum: Each = 0.85,
        max_momentum: Each = 0.95,
        div_factor: float = 25.0,
        final_div_factor: float = 1e4,
        three_phase: bool = False,
        last_epoch: int = -1,
    ) -> None:
        name = "OneCycleLR"
        if total_steps is None and (epochs is None or steps_per_epoch is None):
            raise ArgumentError(f"{name}: define either total_steps OR (epochs AND steps_per_epoch)")
        self.total_steps = total_steps if total_steps is not None else (epochs or 0) * (steps_per_epoch or 0)
        if self.total_steps <= 0 or not 0 <= pct_start <= 1 or anneal_strategy not in ("cos", "linear"):
            raise ArgumentError(
                f"{name}: expected positive steps, pct_start between 0 and 1 and anneal_strategy 'cos' or 'linear', "
                f"got {self.total_steps}, {pct_start} and {anneal_strategy!r}"
            )
        self.anneal_strategy, self.cycle_momentum = anneal_strategy, cycle_momentum
        up = float(pct_start * self.total_steps) - 1
        self.ends = [up, 2 * up, float(self.total_steps - 1)] if three_phase else [up, float(self.total_steps - 1)]
        if last_epoch == -1:
            for group, top in zip(optimizer.param_groups, _each(name, "max_lr", max_lr, optimizer), strict=True):
                group["initial_lr"] = top / div_factor
                group["max_lr"] = top
                group["min_lr"] = group["initial_lr"] / final_div_factor
        if cycle_momentum:
            self._start_momentum(optimizer, base_momentum, max_momentum, last_epoch)
        super().__init__(optimizer, last_epoch)

    def _start_momentum(self, optimizer: Optimizer, base: Each, top: Each, last_epoch: int) -> None:
        self.momentum_key = _momentum_key("OneCycleLR", optimizer)
        if last_epoch != -1:
            return
        lows, highs = (_each("OneCycleLR", "momentum", v, optimizer) for v in (base, top))
        for group, low, high in zip(optimizer.param_groups, lows, highs, strict=True):
            _set_momentum(group, self.momentum_key, high)
            group["max_momentum"], group["base_momentum"] = high, low

    def get_lr(self) -> list[float]:
        """The rates for `last_epoch`; sets the momenta. Raises ArgumentError behind the last step."""
        if self.last_epoch > self.total_steps:
            raise ArgumentError(
                f"OneCycleLR: tried to step {self.last_epoch} times; the total number of steps is {self.total_steps}"
            )
        phase = next((k for k, end in enumerate(self.ends) if self.last_epoch <= end), len(self.ends) - 1)
        start = self.ends[phase - 1] if phase else 0.0
        share = (self.last_epoch - start) / (self.ends[phase] - start)
        rates = []
        for group in self.optimizer.param_groups:
            marks = [group["initial_lr"], group["max_lr"], group["initial_lr"], group["min_lr"]]
            if len(self.ends) == 2:
                marks = [marks[0], marks[1], marks[3]]
            rates.append(self._between(marks[phase], marks[phase + 1], share))
            if self.cycle_momentum:
                low, high = group["base_momentum"], group["max_momentum"]
                turns = [high, low, high, high]
                _set_momentum(group, self.momentum_key, self._between(turns[phase], turns[phase + 1], share))
        return rates

    def _between(self, start: float, end: float, share: float) -> float:
        if self.anneal_strategy == "linear":
            return (end - start) * share + start
        return end + (start - end) / 2.0 * (math.cos(math.pi * share) + 1)


class CyclicLR(LRScheduler):
    """Between base_lr and max_lr, up in `step_size_up` batches and down in `step_size_down` (Smith, 2017).

    Modes: "triangular", "triangular2" (half as high each time), "exp_range" (gamma ** batch), or `scale_fn` of the
    number of the "cycle" or of "iterations". The momentum goes the other way with `cycle_momentum`. Raises
    ArgumentError.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        base_lr: Each,
        max_lr: Each,
        step_size_up: int = 2000,
        step_size_down: int | None = None,
        mode: str = "triangular",
        gamma: float = 1.0,
        scale_fn: Callable[[float], float] | None = None,
        scale_mode: str = "cycle",
        cycle_momentum: bool = True,
        base_momentum: Each = 0.8,
        max_momentum: Each = 0.9,
        last_epoch: int = -1,
    ) -> None:
        name = "CyclicLR"
        if mode not in ("triangular", "triangular2", "exp_range") and scale_fn is None:
            raise ArgumentError(f"{name}: mode {mode!r} is invalid and scale_fn is None")
        lows = _each(name, "base_lr", base_lr, optimizer)
        if last_epoch == -1:
            for low, group in zip(lows, optimizer.param_groups, strict=True):
                group["lr"] = group["initial_lr"] = low
        self.max_lrs = _each(name, "max_lr", max_lr, optimizer)
        down = step_size_up if step_size_down is None else step_size_down
        self.total_size = float(step_size_up + down)
        self.step_ratio = float(step_size_up) / self.total_size
        self.mode, self.gamma, self._scale_fn = mode, gamma, scale_fn
        self.scale_mode = scale_mode if scale_fn is not None else ("iterations" if mode == "exp_range" else "cycle")
        self.cycle_momentum = cycle_momentum
        if cycle_momentum:
            self.momentum_key = _momentum_key(name, optimizer)
            self.base_momentums = _each(name, "base_momentum", base_momentum, optimizer)
            self.max_momentums = _each(name, "max_momentum", max_momentum, optimizer)
            if last_epoch == -1:
                for group, high in zip(optimizer.param_groups, self.max_momentums, strict=True):
                    _set_momentum(group, self.momentum_key, high)
        super().__init__(optimizer, last_epoch)
        self.base_lrs = lows

    def scale_fn(self, x: float) -> float:
        """How high cycle (or batch) `x` goes, as a share."""
        if self._scale_fn is not None:
            return self._scale_fn(x)
        if self.mode == "triangular":
            return 1.0
        shrunk: float = 1 / (2.0 ** (x - 1)) if self.mode == "triangular2" else self.gamma**x
        return shrunk

    def get_lr(self) -> list[float]:
        """The rates for `last_epoch`; sets the momenta."""
        cycle = math.floor(1 + self.last_epoch / self.total_size)
        x = 1.0 + self.last_epoch / self.total_size - cycle
        height = x / self.step_ratio if x <= self.step_ratio else (x - 1) / (self.step_ratio - 1)
        share = height * self.scale_fn(cycle if self.scale_mode == "cycle" else self.last_epoch)
        if self.cycle_momentum:
            limits = zip(self.base_momentums, self.max_momentums, self.optimizer.param_groups, strict=True)
            for low, high, group in limits:
                _set_momentum(group, self.momentum_key, high - (high - low) * share)
        return [low + (high - low) * share for low, high in zip(self.base_lrs, self.max_lrs, strict=True)]


def _check_same(name: str, optimizer: Optimizer, schedulers: Sequence[Any]) -> None:
    if not schedulers:
        raise ArgumentError(f"{name}: expects at least one scheduler")
    for k, schedule in enumerate(schedulers):
        if schedule.optimizer is not optimizer:
            raise ArgumentError(f"{name}: expects all schedulers to belong to the same optimizer; number {k} does not")


class _Several(LRScheduler):
    """What the schedules made of others share."""

    _schedulers: list[Any]

    def state_dict(self) -> dict[str, Any]:
        """Everything but the optimiser, with the states of the schedules."""
        found = {k: v for k, v in self.__dict__.items() if k not in ("optimizer", "_schedulers")}
        return {**found, "_schedulers": [s.state_dict() for s in self._schedulers]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what state_dict() gave."""
        self.__dict__.update({k: v for k, v in state_dict.items() if k != "_schedulers"})
        for schedule, state in zip(self._schedulers, state_dict["_schedulers"], strict=True):
            schedule.load_state_dict(state)


class SequentialLR(_Several):
    """Schedules one after the other: the next one begins at each of the `milestones`. Raises ArgumentError."""

    def __init__(
        self, optimizer: Optimizer, schedulers: Sequence[Any], milestones: Sequence[int], last_epoch: int = -1
    ) -> None:
        _check_same("SequentialLR", optimizer, schedulers)
        if len(milestones) != len(schedulers) - 1:
            raise ArgumentError(
                f"SequentialLR: expects one milestone less than schedulers, got {len(milestones)} and {len(schedulers)}"
            )
        self.optimizer, self._schedulers, self._milestones = optimizer, list(schedulers), list(milestones)
        self.last_epoch = last_epoch + 1
        for group in optimizer.param_groups:  # every schedule has changed the rates when it was made
            group["lr"] = group["initial_lr"]
        for schedule in self._schedulers:
            schedule.last_epoch -= 1
        self._schedulers[0].step()
        self._last_lr = self._schedulers[0].get_last_lr()

    def step(self) -> None:
        """Move one epoch on and set the rates."""
        self.last_epoch += 1
        which = sum(m <= self.last_epoch for m in self._milestones)
        chosen = self._schedulers[which]
        if which and self._milestones[which - 1] == self.last_epoch:
            for group, base in zip(self.optimizer.param_groups, chosen.base_lrs, strict=True):
                group["lr"] = base
            chosen.last_epoch = -1
        chosen.step()
        self._last_lr = chosen.get_last_lr()


class ChainedScheduler(_Several):
    """Schedules that each change what the one before has set. Raises ArgumentError."""

    def __init__(self, schedulers: Sequence[Any], optimizer: Optimizer | None = None) -> None:
        if not schedulers:
            raise ArgumentError("ChainedScheduler: expects at least one scheduler")
        self.optimizer = schedulers[0].optimizer if optimizer is None else optimizer
        _check_same("ChainedScheduler", self.optimizer, schedulers)
        self._schedulers = list(schedulers)
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]

    def step(self) -> None:
        """Move every schedule one epoch on."""
        for schedule in self._schedulers:
            schedule.step()
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]
