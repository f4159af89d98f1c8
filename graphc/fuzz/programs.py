"""Random programs of the kind users write, as Python source that is imported and run.

`source(seed)` is a module with `make() -> (f, args, state)`: `f` a function of tensors, a float and an int that mixes
arithmetic, views, writes, branches, gradients, modules and optimisers; `args` its arguments; `state` what it reaches
besides them. `python -m graphc.fuzz.programs SEED` prints one; `checks.check(seed)` compares its runs.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable

from graphc.frontend.random import fork_rng
from graphc.fuzz.between import Between
from graphc.fuzz.calls import Calls, callables
from graphc.fuzz.data import Data
from graphc.fuzz.effects import Effects
from graphc.fuzz.flow import Flow
from graphc.fuzz.forms import Forms
from graphc.fuzz.idioms import RECIPES, Idioms
from graphc.fuzz.indices import Indices
from graphc.fuzz.layers import Layers
from graphc.fuzz.recipes import Recipes
from graphc.fuzz.settings import Settings
from graphc.fuzz.steps import Steps
from graphc.fuzz.table import Table, applied_ops
from graphc.fuzz.training import Training


class Gen(
    Flow, Training, Indices, Layers, Effects, Data, Steps, Forms, Calls, Table, Recipes, Idioms, Settings, Between
):  # fmt: skip
    """Writes one program."""

    def __init__(self, seed: int, effects: bool = False, gradients: bool = False, portable: bool = False) -> None:
        super().__init__(seed, portable)
        self.seed = seed
        self.effects = effects
        self.gradients = gradients

    def statement(self) -> None:
        rows = self.beyond() if self.follow is not None and self.chance(0.6) else self.shared()
        self.rng.choices([row[0] for row in rows], [row[1] for row in rows])[0]()
        self.refresh()

    def shared(self) -> list[tuple[Callable[[], object], int]]:
        """Statements that PyTorch has as well, and how often each is chosen."""
        return [
            (self.unary, 5),
            (self.binary, 8),
            (self.views, 9),
            (self.writes, 9),
            (self.index, 4),
            (self.reduce, 4),
            (self.join, 2),
            (self.contract, 2),
            (self.randoms, 2),
            (self.item, 2),
            (self.branch, 2),
            (self.loop, 1),
            (self.detached, 1),
            (self.under_no_grad, 2),
            (self.backward, 2),
            (self.use_module, 3 if self.modules else 0),
            (self.gather, 2),
            (self.aug, 3),
            (self.rebind, 1),
            (self.spatial, 1),
            (self.gradient, 1),
            (self.inner_leaf, 1),
            (self.state_write, 2),
            (self.helper, 1),
            (self.early, 1),
            (self.clip, 1),
            (self.ordered, 3),
            (self.picked, 2),
            (self.low, 2),
            (self.layered, 2),
            (self.advanced, 3),
            (self.scattered, 3),
            (self.nested_views, 2),
            (self.penalty, 1),
            (self.custom, 1),
            (self.hooked, 1),
            (self.checkpointed, 1),
            (self.controlled, 1),
            (self.effect, 4 if self.effects else 0),
        ]

    def turn(self) -> None:
        """What has its turn: seeds in a row go through the tables, even ones through those of ops, functions and
        statements, odd ones through those of forms, recipes, edges and idioms.
        """
        turn = self.seed // 2
        if self.seed % 2 == 0:
            ops, functions = applied_ops(), callables()
            for _ in range(8):
                if self.apply_named(ops[turn % len(ops)]):
                    break
            self.call(*functions[turn % len(functions)])
            rows = [row[0] for row in (*self.shared(), *self.beyond()) if row[1]]
            rows[turn % len(rows)]()
        else:
            if turn % 3 == 0:
                self.formed(turn // 3)
            elif turn % 3 == 1:
                self.recipe(turn // 3)
            else:
                self.edge(turn // 3)
            self.idiom(turn)
            self.idiom(turn + len(RECIPES) // 2)
        self.refresh()

    def beyond(self) -> list[tuple[Callable[[], object], int]]:
        """Statements that go beyond what PyTorch shares, and how often each is chosen."""
        return [
            (self.applied, 6),
            (self.called, 7),
            (self.recipe, 3),
            (self.idiom, 9),
            (self.edge, 2),
            (self.many, 1),
            (self.setting, 8 if self.read else 0),
            (self.changed, 9 if self.row else 0),
            (self.option, 5 if self.options else 0),
            (self.asked, 1),
            (self.early, 2),
            (self.formed, 2),
            (self.object_made, 1),
            (self.second, 2),
            (self.train, 2 if self.params else 0),
        ]

    def _differentiates(self) -> bool:
        return any(".backward(" in line or "autograd.grad(" in line for line in self.lines)

    def _unused(self, leaves: list[str]) -> list[str]:
        """What nothing has used yet: returned too, so that no statement goes without being compared."""
        text = "\n".join(self.lines)
        return [v.name for v in self.vars if v.name not in leaves and len(re.findall(rf"\b{v.name}\b", text)) == 1][
            -12:
        ]

    def end(self) -> None:
        if self.params and self.chance(0.4):
            self.backward()
        if self.gradients and not self._differentiates():
            self.train()
            if not self._differentiates():
                self.say("(w0 * w0).sum().backward()")
        if self.follow is not None and self.chance(0.03):
            self.failing()
        leaves = [v.name for v in self.rng.choices(self.vars[-8:], k=self.rng.choice([1, 1, 2, 3]))] + self.extra
        if self.follow is not None and self.chance(0.6):
            leaves += self._unused(leaves)
        if self.chance(0.3):
            leaves.append(self.rng.choice([v.name for v in self.vars]))
        if self.chance(0.2):
            leaves.append(self.rng.choice(["None", "3", "'text'", *self.numbers]))
        form = self.rng.choice(["one", "tuple", "list", "dict", "nested"])
        text = {
            "one": leaves[0],
            "tuple": f"{', '.join(leaves)},",
            "list": f"[{', '.join(leaves)}]",
            "dict": "{" + ", ".join(f"'r{i}': {x}" for i, x in enumerate(leaves)) + "}",
            "nested": f"{leaves[0]}, [{', '.join(leaves)}, {{'a': ({leaves[-1]}, None)}}]",
        }[form]
        self.say(f"return {text}")


def source(seed: int, effects: bool = False, gradients: bool = False, portable: bool = False) -> str:
    """The program of a seed.

    With `effects`, one that also does what no graph holds; with `gradients`, one that differentiates or trains; with
    `portable`, one of forms that PyTorch shares. The state of the default generator is as before.
    """
    if portable:
        return Gen(seed, effects, gradients, True).program()
    with fork_rng():
        return Gen(seed, effects, gradients).program()


if __name__ == "__main__":
    print(source(int(sys.argv[1])))
