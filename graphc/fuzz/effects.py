"""Low precision, Functions, hooks, checkpoints, staged control flow and effects on Python in random programs."""

from __future__ import annotations

from dataclasses import replace

from graphc.fuzz.layers import SCHEDULES
from graphc.fuzz.parts import Parts

FUNCTION = """class Twice(graphc.autograd.Function):
    @staticmethod
    def forward(ctx, a, factor):
        ctx.save_for_backward(a)
        ctx.factor = factor
        return a * a * factor

    @staticmethod
    def backward(ctx, g):
        (a,) = ctx.saved_tensors
        return g * a * (2 * ctx.factor), None


"""
IN_PLACE = """class Shift(graphc.autograd.Function):
    @staticmethod
    def forward(ctx, a):
        ctx.mark_dirty(a)
        a.add_(1)
        return a

    @staticmethod
    def backward(ctx, g):
        return g * 3


"""


class Effects(Parts):
    """What stands beside plain operations."""

    def low(self) -> None:
        """Some steps in a narrow type, with gradients, and back."""
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        kind = self.rng.choice(["bfloat16", "float16"])
        inner = self.rng.choice(["{0} * {0} + 1", "{0}.exp() * {0}", "{0}.softmax(-1) / 3", "{0} - {0}.mean()",
                                 "({0} @ {0}.transpose(-1, -2)).sum() * {0}", "{0}.cumsum(0) * 0.1"])  # fmt: skip
        if not v.shape:
            inner = "{0} * {0} + 1"
        if "@" in inner and len(v.shape) < 2:
            inner = "{0}.tanh() * 3"
        made = self.new(f"{v.name}.to(graphc.{kind})", v.shape, kind, v.grad)
        if made is None:
            return
        self.new(inner.format(made.name), v.shape, kind, v.grad)
        if self.chance(0.5):
            self.new(f"{self.vars[-1].name}.float()", v.shape, "float32", v.grad)

    def penalty(self) -> None:
        """A gradient of a gradient inside a loss."""
        v = self.pick(lambda v: v.grad and v.real and not v.leaf)
        leaf = self.pick(lambda x: x.leaf and x.name[0] in "xw")
        if v is None or leaf is None or self.no_grad or self.depth > 2:
            return
        g = self.name("g")
        self.say(f"({g},) = graphc.autograd.grad({v.name}.tanh().sum() + {leaf.name}.exp().sum(), [{leaf.name}], "
                 "create_graph=True)")  # fmt: skip
        self.say(f"({g} * {g}).sum().backward({self.rng.choice(['', 'retain_graph=True'])})")
        self.vars = [replace(x, grad=False) if not x.leaf else x for x in self.vars]
        self.new(f"{g} * 2", leaf.shape, leaf.dtype)

    def custom(self) -> None:
        """A Function of the user's own."""
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        if self.chance(0.3):
            if IN_PLACE not in self.header:
                self.header.append(IN_PLACE)
            self.new(f"Shift.apply({v.name}.clone())", v.shape, v.dtype, v.grad)
            return
        if FUNCTION not in self.header:
            self.header.append(FUNCTION)
        self.new(f"Twice.apply({v.name}, {self.rng.choice(['2', '0.5', 's'])})", v.shape, v.dtype, v.grad)

    def hooked(self) -> None:
        v = self.pick(lambda v: v.grad and not v.leaf)
        if v is None or self.no_grad or self.depth > 2:
            return
        made = self.new(f"{v.name} * 1.5", v.shape, v.dtype, True)
        if made is None:
            return
        self.say(f"if {made.name}.requires_grad:")
        if self.chance(0.7):
            changed = self.rng.choice(["g * 2", "g + 1", "g * s", "g.clamp(-1, 1)", "None"])
            self.say(f"    {made.name}.register_hook(lambda g: {changed})")
        else:
            self.say(f"    {made.name}.retain_grad()")

    def checkpointed(self) -> None:
        v = self.pick(lambda v: v.real)
        if v is None or self.depth > 2:
            return
        if not any("import checkpoint" in x for x in self.header):
            self.header.insert(0, "from graphc.utils.checkpoint import checkpoint\n\n\n")
        body = self.rng.choice(["t.exp().sin()", "F.dropout(t * 2, 0.5)", "(t * s).tanh() * t", "t.mul(2).relu_()"])
        self.new(f"checkpoint(lambda t: {body}, {v.name}, use_reentrant=False)", v.shape, v.dtype, v.grad)

    def controlled(self) -> None:
        """cond, while_loop and scan."""
        v = self.pick(lambda v: v.real and bool(v.shape))
        if v is None or self.depth > 2:
            return
        kind = self.rng.choice(["cond", "scan", "while"])
        free = self.count % 2 == 1  # no gradient flows: a node of the graph
        t, grad = f"{v.name}.detach()" if free else v.name, v.grad and not free
        if kind == "cond":
            ways = f"lambda t: t * 2, lambda t: {f't.sin() + {v.name}.detach().mean()' if free else 't.sin()'}"
            self.new(f"graphc.cond({v.name}.sum() > 0, {ways}, [{t}])", v.shape, v.dtype, grad)
        elif kind == "scan":
            xs = f"graphc.cat([{t}] * 20)[-{v.shape[0]} - 17:]" if free and v.shape[0] else t
            zero = f"graphc.zeros_like({v.name}[0]).detach()"
            text = f"graphc.scan(lambda c, t: (c * 0.5 + t, c + t), {zero}, {xs})[1]"
            self.new(f"{text}[:{v.shape[0]}]" if free else text, v.shape, v.dtype, grad)
        else:
            test = "(i < 5) & (t.abs().sum() > 1)" if free else "i < 3"
            text = (f"graphc.while_loop(lambda i, t: {test}, lambda i, t: (i + 1, t * 0.5), "
                    f"(graphc.tensor(0), {t}))[1]")  # fmt: skip
            self.new(text, v.shape, v.dtype, grad)

    def effect(self) -> None:
        """What no graph holds: lists, counters, numbers, text, schedules, callbacks."""
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        if "log" not in self.state:
            self.setup.append("log = []")
            self.setup.append("count = {'n': 0}")
            self.state += ["log", "count"]
        forms = [f"log.append({v.name}.sum().item())", f"log.append({v.name}.detach().clone())", "count['n'] += 1",
                 f"print({v.name})", f"print(f'{{{v.name}.sum().item():.3f}}')", f"log.append(float({v.name}.sum()))",
                 f"log.append({v.name})", f"log.append({v.name}.tolist())", f"log.append({v.name}.numel())",
                 f"log.append({v.name}.detach().numpy().copy())" if v.dtype != "bfloat16" else "count['n'] += 2",
                 f"graphc.host(lambda t: log.append(t.sum().item()), {v.name}.detach())"]  # fmt: skip
        text = self.rng.choice(forms)
        if self.optimizer and self.chance(0.4):
            if not any("sched =" in x for x in self.setup):
                self.setup.append(f"sched = optim.lr_scheduler.{self.rng.choice(SCHEDULES)}")
            text = "sched.step()"
        if self.chance(0.2):
            text = f"if count['n'] % 3 == 1: {text}"
        self.say(text)
