"""When a profile records: states, and the schedule that gives one for each step."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from graphc.errors import ArgumentError

__all__ = ["ProfilerAction", "ProfilerActivity", "schedule", "supported_activities"]


class ProfilerActivity(Enum):
    """What can be profiled. Of these, CPU is supported."""

    CPU = 0
    CUDA = 2


class ProfilerAction(Enum):
    """What a profile does during one step."""

    NONE = 0
    WARMUP = 1
    RECORD = 2
    RECORD_AND_SAVE = 3


def supported_activities() -> set[ProfilerActivity]:
    """What can be profiled here."""
    return {ProfilerActivity.CPU}


def schedule(
    *, wait: int, warmup: int, active: int, repeat: int = 0, skip_first: int = 0, skip_first_wait: int = 0
) -> Callable[[int], ProfilerAction]:
    """The action of each step: after `skip_first` steps, cycles of `wait` steps without a profile, `warmup` steps that
    are watched and forgotten and `active` steps that are kept; `repeat` cycles (0: without end).

    With `skip_first_wait`, the first cycle does not wait. Raises ArgumentError for numbers below 0 and no active step.
    """
    given = {"wait": wait, "warmup": warmup, "repeat": repeat, "skip_first": skip_first}
    for name, value in given.items():
        if value < 0:
            raise ArgumentError(f"schedule: {name} must not be negative, got {value}")
    if active <= 0:
        raise ArgumentError(f"schedule: active must be positive, got {active}; nothing would be recorded")
    cycle = wait + warmup + active

    def action(step: int) -> ProfilerAction:
        """The action of a step."""
        if step < 0:
            raise ArgumentError(f"schedule: there is no step {step}")
        at = step - skip_first + (wait if skip_first_wait else 0)
        if step < skip_first or (repeat and at >= repeat * cycle):
            return ProfilerAction.NONE
        at %= cycle
        if at < wait:
            return ProfilerAction.NONE
        if at < wait + warmup:
            return ProfilerAction.WARMUP
        return ProfilerAction.RECORD_AND_SAVE if at == cycle - 1 else ProfilerAction.RECORD

    return action
