"""What users change between the calls of a function it was compiled from, in random programs, row by row.

Each row is a thing that the function reads and that is another one on some calls: a closure's number, a global, a
default, a flag, a hook, a parameter. `between(call)` in the state of the program sets it before each call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from graphc.fuzz.parts import Parts

_NUMBER = (
    "{n} * {r}", "{n} + {r}", "graphc.full((2,), {r}) + {n}.sum()", "graphc.tensor([{r}, 2]) * {n}.sum()",
    "{n} * 2; if {r} > 1: {v} = {v} + 1", "{n} + 1; for _ in range(int({r})): {v} = {v} * 2",
    "{n} * (2 if isinstance({r}, int) else 3)",
)  # fmt: skip
_LAYER = ("pile({n}.sum() * graphc.ones(2, 3))", "pile({n}.sum().float() + graphc.arange(6.0).reshape(2, 3))")
_LEAF = ("{n}.sum() * q", "{n}.sum() + q; (q * q).sum().backward()", "q * 2", "(q * q).sum() * {n}; {v} = {v} - q[0]")
_NET = "pile = nn.Sequential(nn.Linear(3, 3), nn.Tanh())"


@dataclass(frozen=True, slots=True)
class Row:
    """`change`: the lines of between(call), with {when} and the values {a} and {b}. `reads`: expressions of a tensor
    {n}, then statements about their result {v}; {r} is what is read.
    """

    name: str
    setup: tuple[str, ...]
    change: tuple[str, ...]
    reads: tuple[str, ...]
    read: str = ""
    state: tuple[str, ...] = ()
    header: str = ""


ROWS = (
    Row("closure", ("pace = {a}",), ("nonlocal pace", "pace = {b} if {when} else {a}"), _NUMBER, "pace"),
    Row("global", (), ("global LEVEL", "LEVEL = {b} if {when} else {a}"), _NUMBER, "LEVEL", (), "LEVEL = {a}\n\n\n"),
    Row("length", ("rates = [{a}, 2]",), ("rates[:] = [{a}] * (3 if {when} else 2)",),
        ("{n} * len(rates)", "{n} + 1; for rate in rates: {v} = {v} * rate", "{n} * sum(rates)",
         "graphc.tensor(rates).sum() * {n}", "graphc.stack([{n} * rate for rate in rates]).sum()"), "", ("rates",)),
    Row("entries", ("table = {'a': {a}, 'b': 2}",),
        ("table.clear()", "table.update({'b': {b}, 'a': 2, 'c': 1} if {when} else {'a': {a}, 'b': 2})"),
        ("{n} * table['a']", "{n} + 1; for key, by in table.items(): {v} = {v} * by + len(key)",
         "{n} * (2 if 'c' in table else 3)", "{n} + sum(table.values())", "{n} * table.get('c', 0.5)",
         "{n} * 2; if list(table)[0] == 'a': {v} = {v} + 1"), "", ("table",)),
    Row("members", ("chosen = {'relu'}",), ("chosen.add('tanh') if {when} else chosen.discard('tanh')",),
        ("{n} + 1; if 'tanh' in chosen: {v} = {v} * 2", "{n} * len(chosen)")),
    Row("word", ("mode = 'mean'",), ("nonlocal mode", "mode = 'sum' if {when} else 'mean'"),
        ("{n} * 1.5; {v} = {v}.mean() if mode == 'mean' else {v}.sum()", "{n} * len(mode)")),
    Row("bounds", ("cut = slice(0, 2)",), ("nonlocal cut", "cut = slice(1, None) if {when} else slice(0, 2)"),
        ("{n}.reshape(-1)[cut].sum()",)),
    Row("count", ("count = 2",), ("nonlocal count", "count = 3 if {when} else 2"),
        ("{n}.sum() * graphc.arange(count).sum()", "graphc.zeros(count).sum() + {n}", "{n}.reshape(-1)[:count].sum()",
         "{n}.expand(count, *{n}.shape).sum()")),
    Row("function", ("act = graphc.sin",), ("nonlocal act", "act = graphc.cos if {when} else graphc.sin"),
        ("act({n}.float())", "act({n} * 0.5)")),
    Row("default", (), ("scaled_by.__defaults__ = ({b} if {when} else {a},)",), ("scaled_by({n})",), "", (),
        "def scaled_by(t, by={a}):\n    return t * by + by\n\n\n"),
    Row("keyword", (), ("shifted_by.__kwdefaults__ = {'by': {b} if {when} else {a}}",), ("shifted_by({n})",), "", (),
        "def shifted_by(t, *, by={a}):\n    return t + by\n\n\n"),
    Row("training", ("pile = nn.Sequential(nn.Linear(3, 3), nn.Dropout(0.5))",), ("pile[1].train({when})",), _LAYER, "",
        ("pile",)),
    Row("forward hook", (_NET, "hooks = []"),
        ("while hooks:", "    hooks.pop().remove()", "if {when}:",
         "    hooks.append(pile[1].register_forward_hook(lambda m, given, out: out * 2))"), _LAYER, "", ("pile",)),
    Row("pre-hook", (_NET, "hooks = []"),
        ("while hooks:", "    hooks.pop().remove()", "if {when}:",
         "    hooks.append(pile[0].register_forward_pre_hook(lambda m, given: (given[0] + 1,)))"),
        _LAYER, "", ("pile",)),
    Row("gradient hook", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))", "hooks = []"),
        ("while hooks:", "    hooks.pop().remove()", "if {when}:",
         "    hooks.append(q.register_hook(lambda g: g * 3))"), _LEAF, "", ("q",)),
    Row("requires_grad", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))",), ("q.requires_grad_(not ({when}))",),
        (*_LEAF[:1], *_LEAF[2:]), "", ("q",)),
    Row("frozen layer", (_NET,), ("pile[0].requires_grad_(not ({when}))",), _LAYER, "", ("pile",)),
    Row("cleared gradient", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))",),
        ("if {when}:", "    q.grad = None"), _LEAF, "", ("q",)),
    Row("parameter", (_NET, "first, other = pile[0].weight, nn.Parameter(pile[0].weight.detach() * 2)"),
        ("pile[0].weight = other if {when} else first",), _LAYER, "", ("first", "other", "pile")),
    Row("no bias", (_NET, "bias = pile[0].bias"), ("pile[0].bias = None if {when} else bias",), _LAYER, "",
        ("bias", "pile")),
    Row("layer", (_NET, "tanh, relu = pile[1], nn.ReLU()"), ("pile[1] = relu if {when} else tanh",), _LAYER, "",
        ("pile",)),
    Row("grown layers", ("pile = nn.Sequential(nn.Linear(3, 3))", "more = nn.Linear(3, 3)"),
        ("while len(pile) > 1:", "    del pile[-1]", "if {when}:", "    pile.append(more)"),
        _LAYER, "", ("more", "pile")),
    Row("forward", (_NET, "other = nn.Sigmoid()"),
        ("if {when}:", "    pile[1].forward = other.forward", "else:", "    pile[1].__dict__.pop('forward', None)"),
        _LAYER, "", ("pile",)),
    Row("buffer",
        (_NET, "first, other = graphc.tensor([{a}]), graphc.tensor([{b}])", "pile.register_buffer('shift', first)"),
        ("pile.shift = other if {when} else first",),
        ("{n}.sum() * pile.shift", "{n}.sum() + pile.shift.sum().item()"), "", ("first", "other", "pile")),
    Row("data", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))",),
        ("q.data = graphc.tensor([3.0, {b}, -0.0]) if {when} else graphc.tensor([0.5, -1.5, 2.0])",),
        _LEAF, "", ("q",)),
    Row("written", ("c = graphc.tensor([0.5, -1.5, 2.0])",), ("c.copy_(graphc.arange(3) * ({b} if {when} else {a}))",),
        ("{n}.sum() * c", "({n}.sum() * c).cumsum(0)"), "", ("c",)),
    Row("alias", ("c = graphc.tensor([0.5, -1.5, 2.0])", "seen = c.numpy()"), ("seen[:] = {b} if {when} else {a}",),
        ("{n}.sum() * c", "c.clone()"), "", ("c",)),
    Row("array", ("import numpy as np", "seen = np.array([0.5, -1.5])"), ("seen[:] = {b} if {when} else {a}",),
        ("{n}.sum() * graphc.tensor(seen)", "{n} * float(seen[0])", "{n}.sum() * graphc.from_numpy(seen)")),
    Row("shape", ("first, other = graphc.tensor([0.5, -1.5]), graphc.tensor([1, 2, 3])", "c = first"),
        ("nonlocal c", "c = other if {when} else first"),
        ("({n}.sum() * c).sum()", "{n} * c.sum()", "{n} + c.numel()"), "", ("first", "other")),
    Row("dtype", (), ("graphc.set_default_dtype(graphc.float64 if {when} else graphc.float32)",),
        ("graphc.ones(2) * {n}.sum()", "graphc.tensor([0.5, 1.5]) + {n}.sum()", "{n}.long() / 2", "graphc.rand(2) * 2",
         "graphc.arange(0.0, 2.0) - {n}.sum()", "graphc.zeros((), dtype=graphc.int64) * 0.5")),
    Row("rate", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))", "sgd = optim.SGD([q], lr=0.25)"),
        ("sgd.param_groups[0]['lr'] = 0.125 if {when} else 0.25",),
        ("{n}.sum() * q.detach(); (q * q).sum().backward(); sgd.step(); sgd.zero_grad()",), "", ("q", "sgd")),
    Row("momentum", ("q = nn.Parameter(graphc.tensor([0.5, -1.5, 2.0]))", "sgd = optim.SGD([q], lr=0.25)"),
        ("sgd.param_groups[0]['momentum'] = 0.5 if {when} else 0.0",),
        ("{n}.sum() * 2; (q * q).sum().backward(); sgd.step(); sgd.zero_grad()",), "", ("q", "sgd")),
    Row("generator", (), ("graphc.manual_seed(call % 2)",),
        ("{n}.sum() * graphc.rand(2)", "F.dropout({n}.float(), 0.5)")),
)  # fmt: skip
_NUMBERS = (("1", "2"), ("0.5", "2.5"), ("2", "2.0"), ("1", "True"), ("0.0", "-0.0"), ("0", "1"), ("3", "2"))
# from a call on, on one call, on every other
_WHEN = ("call > 2", "call == 3", "call == 4", "call % 3 == 2", "call % 2 == 1", "call > 0")
EVERY = 6  # so many programs have one row


class Between(Parts):
    """What is another one on some calls."""

    seed: int
    row: Row | None = None

    def outer_state(self) -> None:
        super().outer_state()
        if self.follow is not None and self.seed % EVERY == 1:
            self.changing(ROWS[self.seed // EVERY % len(ROWS)])

    def changing(self, row: Row) -> None:
        """Set up a row of the table."""
        a, b = self.rng.choice(_NUMBERS)
        values = {"{a}": a, "{b}": b, "{when}": self.rng.choice(_WHEN)}
        self.setup += [_filled(line, values) for line in row.setup if not line.startswith("import")]
        if row.name == "dtype":  # as the calls before have left it, it must not be in make()
            self.setup.insert(0, "graphc.set_default_dtype(graphc.float32)")
            self.arranged += self.arranged > 0
        self.imports += [line for line in row.setup if line.startswith("import") and line not in self.imports]
        self.setup += ["def between(call):", *(f"    {_filled(line, values)}" for line in row.change)]
        self.state += [name for name in (*row.state, "between") if name not in self.state]
        if row.header:
            self.header.append(_filled(row.header, values))
        self._follow_header(row, a)
        self.row = row

    def _follow_header(self, row: Row, a: str) -> None:
        """What the functions and globals of the header are, while the program is written."""
        assert self.follow is not None
        by = self.follow.value(a, True)
        known: dict[str, Any] = {
            "global": ("LEVEL", by),
            "default": ("scaled_by", lambda t: t * by + by),
            "keyword": ("shifted_by", lambda t: t + by),
        }
        if row.name in known:
            name, value = known[row.name]
            self.follow.names[name] = value

    def changed(self) -> None:
        """A statement that reads what changes between the calls."""
        row = self.row
        v = self.pick(lambda v: v.dtype != "bool")
        if row is None or v is None or self.depth > 2:
            return
        text = self.rng.choice(row.reads).replace("{n}", v.name).replace("{r}", row.read)
        first, *more = text.split("; ")
        made = self.made(first)
        if made is None:  # not followed: what is known of it is that of a number times a tensor
            made = self.made(f"{v.name}.sum() * 1.5")
            if made is None:
                return
            self.lines[-1] += f" + ({first}).sum()"
        self.lines += ["    " * self.depth + line.replace("{v}", made.name) for line in more]
        self.extra.append(made.name)


def _filled(line: str, values: dict[str, str]) -> str:
    for key, value in values.items():
        line = line.replace(key, value)
    return line
