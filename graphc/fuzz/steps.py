"""Whole training steps in random programs: every optimiser, clipping, schedules, ways to set gradients back."""

from __future__ import annotations

from graphc.fuzz.parts import Parts, Var

MORE_OPTIMISERS = [
    "SGD({}, lr=0.1, momentum=0.9, dampening=0.3)",
    "SGD({}, lr=0.05, maximize=True)",
    "Adam({}, lr=0.01, betas=(0.5, 0.9))",
    "Adam({}, lr=0.01, maximize=True, amsgrad=True)",
    "AdamW({}, lr=0.01, amsgrad=True, weight_decay=0.2)",
    "RMSprop({}, lr=0.01, weight_decay=0.1, momentum=0.9)",
    "Adagrad({}, lr=0.1, lr_decay=0.1, weight_decay=0.01)",
    "Adadelta({}, lr=0.5, weight_decay=0.1)",
    "NAdam({}, lr=0.01, weight_decay=0.1)",
    "RAdam({}, lr=0.01, weight_decay=0.1)",
    "Adamax({}, lr=0.01, weight_decay=0.1)",
    "ASGD({}, lr=0.1, weight_decay=0.1, t0=2)",
    "Rprop({}, lr=0.01, etas=(0.4, 1.3))",
    "SGD({}, lr=0.1, weight_decay=0.5)",
]


class Steps(Parts):
    """Statements of training."""

    def parameters(self) -> str:
        """The parameters as a list in the program."""
        return "[" + ", ".join(p if p.startswith("w") else f"*{p}.parameters()" for p in self.params) + "]"

    def loss(self) -> Var | None:
        """A scalar that depends on parameters."""
        v = self.pick(lambda v: v.grad and not v.leaf and v.real) or self.pick(lambda v: v.grad and v.real)
        if v is None:
            return None
        ways = [
            f"{v.name}.sum()",
            f"({v.name} * {v.name}).mean()",
            f"{v.name}.float().tanh().sum()",
            f"{v.name}.abs().sum()",
            f"F.mse_loss({v.name}, graphc.zeros_like({v.name}))",
            f"{v.name}.exp().mean()",
            f"F.smooth_l1_loss({v.name}, graphc.ones_like({v.name}))",
            f"{v.name}.reshape(-1).logsumexp(0)",
        ]
        text = self.rng.choice(ways)
        for p in self.params:
            if p.startswith("w") and self.chance(0.7):
                text += f" + ({p} * {p}).sum() * {self.rng.choice(['0.5', 's', '0.1'])}"
        return self.new(text, (), v.dtype, True)

    def train(self) -> bool:
        """Zero, differentiate, clip, step; tells whether there was something to do."""
        if self.no_grad or self.depth > 2:
            return False
        zero = self.rng.choice(["before", "before", "after", "never"]) if self.optimizer else "never"
        how = self.rng.choice(["", "", "set_to_none=False", "set_to_none=True"])
        if zero == "before":
            self.say(f"opt.zero_grad({how})")
        loss = self.loss()
        if loss is None:
            return False
        listed = self.parameters()
        options = self.rng.choice(["", "", "", "retain_graph=True", f"inputs={listed}" if self.params else ""])
        start = self.rng.choice(["", "", f"graphc.tensor(2.0, dtype={loss.name}.dtype)"])
        said = self.say(f"{loss.name}.backward({', '.join(x for x in (start, options) if x)})")
        if said and self.chance(0.2):
            again = self.loss()
            if again is not None:
                self.say(f"{again.name}.backward()")
        if self.params and self.chance(0.4):
            self.say(
                self.rng.choice(
                    [
                        f"nn.utils.clip_grad_norm_({listed}, 0.5)",
                        f"nn.utils.clip_grad_value_({listed}, 0.1)",
                        f"nn.utils.clip_grad_norm_({listed}, 1.0, norm_type=1.0)",
                        f"nn.utils.clip_grad_norm_({listed}, 0.5, graphc.inf)",
                    ]
                )
            )
        if self.optimizer:
            self.say("opt.step()")
            if zero == "after":
                self.say(f"opt.zero_grad({how})")
        elif said and self.params and self.params[0].startswith("w") and self.chance(0.5):
            self._by_hand(self.params[0])
        self.refresh()
        return said

    def _by_hand(self, p: str) -> None:
        """A step without an optimiser."""
        self.lines += [
            f"        if {p}.grad is not None:",
            "            with graphc.no_grad():",
            f"                {p} -= {p}.grad * 0.1".replace(f"{p} -= ", f"{p}.sub_(") + ")",
        ]
        if self.chance(0.6):
            self.say(f"{p}.grad = None")

    def second(self) -> None:
        """Gradients of gradients, hooks, accumulation, gradients of several outputs."""
        v = self.pick(lambda v: v.grad and v.real and not v.leaf)
        leaf = self.pick(lambda x: x.leaf and x.name[0] in "xw")
        if v is None or leaf is None or self.no_grad or self.depth > 2:
            return
        g = self.name("g")
        root = f"{v.name}.float().sin().sum() + {leaf.name}.float().tanh().sum()"
        form = self.rng.choice(["twice", "unused", "outputs", "hook", "accumulate"])
        if self.chance(0.05):
            form = "after"  # refused: a hook on a tensor from outside
        if form == "twice":
            self.say(f"{g} = graphc.autograd.grad({root}, {leaf.name}, create_graph=True)[0]")
            self.new(
                f"graphc.autograd.grad(({g} * {g}).sum(), {leaf.name}, retain_graph=True)[0]", leaf.shape, leaf.dtype
            )
        elif form == "unused":
            self.say(
                f"{g} = graphc.autograd.grad({v.name}.sum(), [{leaf.name}], retain_graph=True, allow_unused=True, "
                f"materialize_grads=True)"
            )
            self.new(f"{g}[0] * 2", leaf.shape, leaf.dtype)
        elif form == "outputs":
            self.new(
                f"graphc.autograd.grad([{v.name}, {leaf.name} * 2], [{leaf.name}], [graphc.ones_like({v.name}), "
                f"{leaf.name}.detach()], retain_graph=True)[0]",
                leaf.shape,
                leaf.dtype,
            )
        elif form == "hook":
            self.say(f"{g} = {v.name} * 1")
            self.lines += [
                f"        {g}.register_hook(lambda grad: grad * 0.5)",
                f"        {g}.register_hook(lambda grad: grad.sign())",
            ]
            self.say(f"({g} * {g}).sum().backward(retain_graph=True)")
        elif form == "after":
            kind = "register_post_accumulate_grad_hook" if self.chance(0.7) else "register_hook"
            way = "p.grad.mul_(0.5)" if kind != "register_hook" else "p * 0.5"
            self.lines.append(f"        {g} = {leaf.name}.{kind}(lambda p: {way})")
            self.say(f"({root}).backward(retain_graph=True)")
            self.lines.append(f"        {g}.remove()")
        else:
            for _ in range(2):
                self.say(f"({root}).backward(retain_graph=True)")
