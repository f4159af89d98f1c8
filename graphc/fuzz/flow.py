"""Branches, loops and names bound again in random programs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from graphc.frontend.tensor import Tensor
from graphc.fuzz.arithmetic import Arithmetic
from graphc.fuzz.follow import Unknown, Wrong
from graphc.fuzz.writing import Writing


class Flow(Arithmetic, Writing):
    """What Python decides."""

    def item(self) -> None:
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        n = self.name("n")
        self.say(f"{n} = {v.name}.{self.rng.choice(['sum', 'mean', 'amax'])}().item()")
        if self.chance(0.3):
            self.say(f"{n} = {n} * 0.5 + s")
        self.numbers.append(n)

    def condition(self) -> str:
        v = self.pick()
        if v is None:
            return self.rng.choice(["s > 0", "k == 1"])
        forms = [f"{v.name}.sum() > 0", f"({v.name} == 0).any()", "s > 0", "k == 1"]
        forms += [f"{n} > 0.1" for n in self.numbers if n.startswith("n")]
        return self.rng.choice(forms)

    def block(self, opening: str, statements: int, taken: bool = True) -> None:
        """A nested block; names made inside are forgotten. One that is not taken now works on copies."""
        self.say(opening)
        self.depth += 1
        kept, numbers, before = list(self.vars), list(self.numbers), len(self.lines)
        live = self.follow.names if self.follow is not None else {}
        if self.follow is not None and not taken:
            self.follow.names = {name: _copied(x) for name, x in live.items()}
        for _ in range(statements):
            self.rng.choice(self.inner())()
        if len(self.lines) == before:
            self.say("pass")
        self.depth -= 1
        if self.follow is not None:
            self.follow.names = live
            self.vars = kept
            self.refresh()
        else:
            grads = any(v.grad for v in self.vars)
            self.vars = [replace(v, grad=True) if grads and v.real and not v.leaf else v for v in kept]
        self.numbers = numbers

    def inner(self) -> list[Callable[[], object]]:
        """The statements of nested blocks."""
        return [self.writes, self.aug, self.index, self.binary, self.views]

    def holds(self, condition: str) -> bool:
        """Whether a condition is true now; unknown ones are."""
        try:
            return bool(self.now(condition))
        except (Unknown, Wrong):
            return True

    def branch(self) -> None:
        if self.depth > 3:
            return
        v = self.pick(lambda v: v.dtype != "bool")
        condition = self.condition()
        if v is not None and self.chance(0.5):
            made = self.name()
            self.say(f"if {condition}:")
            self.say(f"    {made} = {v.name} * 2")
            self.say("else:")
            self.say(f"    {made} = {v.name} - {v.name}")
            self.bind(made, f"{v.name} * 2", v)
            return
        taken = self.holds(condition)
        self.block(f"if {condition}:", self.rng.choice([1, 2]), taken)
        if self.chance(0.4):
            self.block("else:", 1, not taken)

    def loop(self) -> None:
        if self.depth > 3:
            return
        if self.chance(0.5):
            self.block(f"for i in range({self.rng.choice(['k', '2'])}):", self.rng.choice([1, 2]))
            return
        v = self.pick(lambda v: bool(v.shape) and v.real)
        if v is not None:
            total = self.new("0.0 * " + v.name + "[0]", v.shape[1:], v.dtype, v.grad)
            if total is not None:
                self.say(f"for row in {v.name}:")
                self.say(f"    {total.name} {self.rng.choice(['+= row', f'= {total.name} * s + row'])}")

    def rebind(self) -> None:
        """`x = x * 2`: a name takes another tensor."""
        v = self.pick(lambda v: v.dtype != "bool" and not v.name.startswith(("w", "c")))
        if v is None or self.depth > 2:
            return
        self.say(f"{v.name} = {v.name} * 2")
        self.vars = [replace(x, leaf=False, frozen=False, outside=False) if x.name == v.name else x for x in self.vars]


def _copied(x: Any) -> Any:
    """A tensor of its own in place of a tensor: a leaf stays one."""
    if not isinstance(x, Tensor) or not x.dtype.is_floating_point:
        return x.clone() if isinstance(x, Tensor) else x
    copy = x.detach().clone()
    if x.requires_grad:
        copy.requires_grad_()
    return copy if x.is_leaf or not x.requires_grad else copy * 1
