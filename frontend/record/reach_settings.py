"""What an optimiser holds: its groups, their settings, and the state of every parameter."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from graphc.frontend.record.trace import Guard

if TYPE_CHECKING:
    from graphc.frontend.record.reach import Reach


class Optimizers:
    """Those met on one walk (`reach`, which has this object: it is given, not kept). `params` are the path steps that
    lead to parameters through one, `states` those
    that lead to state.
    """

    def __init__(self) -> None:
        self.params: set[int] = set()
        self.states: set[int] = set()
        self._found: list[tuple[Any, int]] = []

    def visit(self, reach: Reach, x: Any, step: int) -> None:
        """Note the optimiser at path `step`; its state waits for the names of all parameters."""
        table = reach.table
        groups = table.step("var", step, "param_groups")
        reach.require("keys", groups, (type(x.param_groups), tuple(range(len(x.param_groups)))))
        for g, group in enumerate(x.param_groups):
            holder = table.step("item", groups, g)
            reach.require("keys", holder, (dict, tuple(group)))
            for key, value in group.items():
                path = table.step("item", holder, key)
                if key == "params":
                    reach.require("keys", path, (type(value), tuple(range(len(value)))))
                    for k, p in enumerate(value):
                        place = table.step("item", path, k)
                        self.params.add(place)
                        reach.tensor(p, place)
                elif key in x.followed and _numbers(value) and not {key, "param_groups"} & reach.names:
                    reach.require("keys", path, (type(value), tuple(range(len(value)))))
                elif not isinstance(value, float) or "param_groups" in reach.names:
                    # floats are inputs (a schedule changes them), unless the user's code looks for itself
                    reach.visit(value, path, 4)
        self._found.append((x, step))
        for name in ("_pre_hooks", "_post_hooks"):
            reach.visit(getattr(x, name), table.step("var", step, name), 4)

    def conditions(self, reach: Reach, read: Collection[tuple[int, int, Any]]) -> None:
        """Conditions on the floats of an optimiser that made an update; `read`: (id of it, group, key) of inputs.

        Whether an input is zero decides what an update does (but for the learning rate); others are what they were.
        """
        table = reach.table
        for x, step in self._found:
            groups = table.step("var", step, "param_groups")
            for g, group in enumerate(x.param_groups):
                inputs = {key for owner, number, key in read if owner == id(x) and number == g}
                for key, value in group.items() if inputs else ():
                    path = table.step("item", table.step("item", groups, g), key)
                    if type(value) is float and key not in inputs:
                        reach.guards.append(Guard("bits", path, value))
                    elif type(value) is float and key != "lr":
                        reach.guards.append(Guard("zero", path, value == 0))

    def finish(self, reach: Reach) -> None:
        """Visit the states."""
        for x, step in self._found:
            self._states(reach, x, step)

    def _states(self, reach: Reach, x: Any, step: int) -> None:
        table = reach.table
        states = table.step("var", step, "state")
        owner = table.names[step]
        for p, entries in x.state.items():
            found = reach.tensors.get(id(p))
            name = table.names[found[1]] if found is not None else "state"
            holder = table.step("item", states, p, f"{owner}.{name}")
            for key, value in entries.items():
                step = table.step("item", holder, key, f"{owner}.{name}.{key}")
                self.states.add(step)
                reach.visit(value, step, 4)


def _numbers(value: Any) -> bool:
    return type(value) in (tuple, list) and all(type(v) in (int, float) for v in value)
