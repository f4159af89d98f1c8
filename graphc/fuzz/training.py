"""Statements of random programs around gradients and state."""

from __future__ import annotations

from dataclasses import replace

from graphc.fuzz.parts import Parts, Var


class Training(Parts):
    """Gradients, modules, optimisers, tensors kept between calls."""

    def detached(self) -> None:
        v = self.pick(lambda v: v.real)
        if v is not None:
            self.new(
                f"{v.name}.{self.rng.choice(['detach()', 'detach().clone()', 'clone()'])}",
                v.shape,
                v.dtype,
                False,
                frozen=v.frozen,
                outside=v.outside,
            )

    def under_no_grad(self) -> None:
        if self.depth > 3 or self.no_grad:
            return
        self.no_grad += 1
        self.block("with graphc.no_grad():", self.rng.choice([1, 2]))
        self.no_grad -= 1

    def backward(self) -> None:
        v = self.pick(lambda v: v.grad and not v.leaf)
        if v is None or self.no_grad or self.depth > 2:
            return
        if self.optimizer and self.chance(0.7):
            self.say(f"opt.zero_grad({self.rng.choice(['', '', 'set_to_none=False'])})")
        mixed = self.rng.choice([f"{v.name}.sum()", f"({v.name} * {v.name}).mean()", f"{v.name}.tanh().sum()"])
        leaf = self.pick(lambda x: x.leaf and x.name[0] in "xw")
        extra = f" + ({leaf.name} * 0.5).sum()" if leaf is not None and self.chance(0.5) else ""
        loss = self.new(f"{mixed}{extra}", (), v.dtype, True)
        if loss is None:
            return
        keep = self.chance(0.3)
        self.say(f"{loss.name}.backward({'retain_graph=True' if keep else ''})")
        if not keep:
            self.vars = [replace(x, grad=False) if not x.leaf and self.chance(0.8) else x for x in self.vars]
        if self.optimizer and self.chance(0.8):
            self.say("opt.step()")
        if leaf is not None and leaf.name.startswith(("x", "w")) and self.chance(0.4):
            self.use_grad(leaf)

    def use_grad(self, leaf: Var) -> None:
        """Read, write or return `.grad`."""
        form = self.rng.choice(["read", "scale", "none", "keep"])
        g = self.name("g")
        self.say(f"{g} = {leaf.name}.grad")
        if form == "none":
            self.say(f"{leaf.name}.grad = None")
            return
        self.say(f"if {g} is not None:")
        if form == "scale":
            self.say(f"    {g}.mul_(0.5)")
        elif form == "keep":
            self.extra.append(g)
            self.say(f"    {g} = {g}{self.rng.choice(['', ' * 2', '.view(-1)'])}")
        else:
            self.say(f"    s = {g}.sum().item()")

    def gradient(self) -> None:
        """autograd.grad, once or twice differentiated."""
        v = self.pick(lambda v: v.grad and not v.leaf)
        leaf = self.pick(lambda x: x.leaf and x.name[0] in "xw")
        if v is None or leaf is None or self.no_grad or self.depth > 2:
            return
        twice = self.chance(0.4)
        options = "create_graph=True" if twice else "retain_graph=True"
        root = f"({v.name} * {v.name}).sum() + ({leaf.name} * {leaf.name} * 0.5).sum().to({v.name}.dtype)"
        self.new(f"graphc.autograd.grad({root}, [{leaf.name}], {options})[0]", leaf.shape, leaf.dtype, twice)

    def inner_leaf(self) -> None:
        """A leaf made inside, differentiated inside."""
        v = self.pick(lambda v: v.real)
        if v is None or self.no_grad or self.depth > 2:
            return
        leaf = self.name("z")
        self.say(f"{leaf} = {v.name}.detach().clone().requires_grad_()")
        self.say(f"({leaf} * {leaf} * {v.name}{'.detach()' if self.chance(0.5) else ''}).sum().backward()")
        self.new(f"{leaf}.grad", v.shape, v.dtype)

    def clip(self) -> None:
        """Gradient clipping between backward and step."""
        if self.params and self.no_grad == 0 and self.depth == 2:
            listed = ", ".join(p if p.startswith("w") else f"*{p}.parameters()" for p in self.params)
            self.say(f"nn.utils.clip_grad_norm_([{listed}], 0.5)")

    def state_write(self) -> None:
        """A tensor the module keeps: written, rebound, read."""
        v = self.pick(lambda v: v.dtype == "float32")
        if v is None or not self.keeper:
            return
        form = self.rng.choice(["rebind", "write", "read", "data"])
        if form == "rebind":
            self.say(f"keep.h = keep.h * 0.5 + {v.name}.detach().mean()")
        elif form == "write":
            self.say(f"keep.h.mul_(0.9).add_({v.name}.detach().mean())")
        elif form == "data":
            self.say(f"keep.p.data.mul_({self.rng.choice(['0.9', 's'])})")
        self.new(f"{v.name} * keep.{self.rng.choice(['h', 'p'])}.sum()", v.shape, "float32", True)

    def helper(self) -> None:
        """A function of its own."""
        v = self.pick(lambda v: v.real)
        if v is None or self.depth > 2:
            return
        h = self.name("h")
        self.say(f"def {h}(t, factor={self.number()}):")
        self.say("    t = t * factor")
        if self.chance(0.5):
            self.say("    t.add_(1)")
        self.say("    return t")
        self.new(f"{h}({v.name})", v.shape, v.dtype, v.grad)

    def early(self) -> None:
        """A return on some path."""
        v = self.pick()
        if v is None or self.depth > 2 or self.chance(0.5):
            return
        self.say(f"if {self.rng.choice([f'{v.name}.sum() > 4', 's < 0', 'k == 7'])}:")
        self.say(f"    return {v.name}")
