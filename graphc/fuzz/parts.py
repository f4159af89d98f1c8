"""What random programs are made of: what is known of a name, arguments, state around the function, returned values."""

from __future__ import annotations

import contextlib
import math
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import graphc
from graphc import nn, optim
from graphc.frontend.promote import promote_types
from graphc.frontend.tensor import Tensor
from graphc.fuzz.follow import Follower, Unknown, Wrong, is_overlapping
from graphc.ir.types import dtype_named

Shape = tuple[int, ...]
WHOLE = ("uint8", "int8", "int16", "int32", "int64")
REAL = ("float16", "bfloat16", "float32", "float64")
COMPLEX = ("complex64", "complex128")
KIND = {"bool": 0, **dict.fromkeys(WHOLE, 1), **dict.fromkeys(REAL, 2), **dict.fromkeys(COMPLEX, 3)}
HEADER = "import graphc\nfrom graphc import nn, optim\nfrom graphc.nn import functional as F\n"
_WORD = re.compile(r"[A-Za-z_]\w*")
_ASSIGNED = re.compile(r"\s*(?:\()?([a-z]+\d*),?\)? = ")
KEEPER = """class Keep(nn.Module):
    def __init__(self):
        super().__init__()
        self.register_buffer("h", graphc.zeros(2))
        self.p = nn.Parameter(graphc.ones(2))


"""
MAX_ELEMENTS = 400


@dataclass(frozen=True)
class Var:
    """What the generator knows of a name in the program."""

    name: str
    shape: Shape
    dtype: str
    grad: bool = False  # may require gradients
    leaf: bool = False  # a leaf (or view of one) that requires gradients: no writes outside no_grad
    frozen: bool = False  # elements overlap, or it is a parameter: never written
    outside: bool = False  # memory from outside the function

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def real(self) -> bool:
        return KIND[self.dtype] == 2

    @property
    def whole(self) -> bool:
        return KIND[self.dtype] == 1


def joined(a: str, b: str) -> str:
    """The smallest dtype that holds both."""
    return str(promote_types(dtype_named(a), dtype_named(b))).removeprefix("graphc.")


def promote(a: Var, b: Var) -> str:
    """The dtype of a binary operation on two tensors."""
    if bool(a.shape) != bool(b.shape):
        wide, low = (a, b) if a.shape else (b, a)
        return wide.dtype if KIND[wide.dtype] >= KIND[low.dtype] else low.dtype
    return joined(a.dtype, b.dtype)


def with_number(dtype: str, number: str) -> str:
    """The dtype of a binary operation with a Python number (or the name of one)."""
    integer = number.lstrip("-").isdigit() or number == "k"
    if dtype == "bool":
        return "int64" if integer else "float32"
    return dtype if integer or KIND[dtype] == 2 else "float32"


class Parts:
    """The frame of one program; Gen adds the statements.

    Every line is run while it is written (follow.py), so that only statements that work are kept and what they give is
    known; with `portable`, nothing is run and only forms that PyTorch shares are written.
    """

    lengths: tuple[int, ...] = (1, 2, 2, 3, 4, 8)

    def __init__(self, seed: int, portable: bool = False) -> None:
        self.rng = random.Random(seed)
        known = {"graphc": graphc, "nn": nn, "optim": optim, "F": nn.functional}
        self.follow = None if portable else Follower(known)
        self.arranged = 0  # how many lines of the setup were run
        self.gone: set[str] = set()  # names whose statement was not kept
        self.limit = MAX_ELEMENTS
        self.gradients = False  # the program must differentiate
        self.imports: list[str] = []
        self.options: list[str] = []  # arguments that are no tensors
        if not portable and self.chance(0.03):
            self.limit = 20_000
        self.lines: list[str] = []
        self.setup: list[str] = []
        self.vars: list[Var] = []
        self.numbers: list[str] = ["s", "k"]
        self.state: list[str] = []
        self.params: list[str] = []
        self.depth = 2
        self.count = 0
        self.no_grad = 0
        self.optimizer = ""
        self.keeper = False
        self.extra: list[str] = []  # names to return besides
        self.modules: list[tuple[str, str, int]] = []  # name, kind, features
        self.header: list[str] = []  # classes and functions of the program

    # ---- helpers

    def say(self, line: str) -> bool:
        """Add a line if it works; tells whether it does."""
        if not self._works(line):
            made = _ASSIGNED.match(line)
            if made is not None:
                self.gone.add(made[1])
            return False
        self.lines.append("    " * self.depth + line)
        return True

    def _works(self, line: str) -> bool:
        if self.follow is None:
            return True
        if self.gone and not self.gone.isdisjoint(_WORD.findall(line)):
            return False
        try:
            self.follow.run(line, self.no_grad == 0)
        except Unknown:
            return True
        except Wrong:
            return False
        return True

    def arrange(self) -> None:
        """Run what was added to the setup."""
        if self.follow is not None:
            for line in self.setup[self.arranged :]:
                try:
                    self.follow.run(line, True)
                except Unknown:
                    continue
        self.arranged = len(self.setup)

    def now(self, text: str) -> Any:
        """The value of an expression now; raises Unknown or Wrong."""
        if self.follow is None:
            raise Unknown(text)
        return self.follow.value(text, self.no_grad == 0)

    def refresh(self) -> None:
        """What is known of the names, after writes and gradients."""
        if self.follow is not None:
            self.vars = [self._seen(v) for v in self.vars]

    def _seen(self, v: Var) -> Var:
        t = None if self.follow is None else self.follow.names.get(v.name)
        if not isinstance(t, Tensor):
            return v
        leaf = t.requires_grad and (t.is_leaf or v.leaf)
        frozen = v.frozen or is_overlapping(t)
        return replace(v, shape=tuple(t.shape), dtype=t.dtype.name, grad=t.requires_grad, leaf=leaf, frozen=frozen)

    def name(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, ok: Callable[[Var], bool] = lambda v: True) -> Var | None:
        found = [v for v in self.vars if v.size and KIND[v.dtype] < 3 and ok(v)]
        if not found:
            return None
        return self.rng.choice(found[-6:] if self.chance(0.6) else found)

    def pick_any(self, ok: Callable[[Var], bool] = lambda v: True) -> Var:
        """Any name, also of a tensor without elements or of complex numbers."""
        found = [v for v in self.vars if ok(v)] or self.vars
        return self.rng.choice(found[-6:] if self.chance(0.6) else found)

    def new(self, text: str, shape: Shape, dtype: str, grad: bool = False, **more: Any) -> Var | None:
        """Emit an assignment, unless it does not work or gives too much."""
        if math.prod(shape) > self.limit or (self.gone and not self.gone.isdisjoint(_WORD.findall(text))):
            return None
        made = Var(self.name(), tuple(shape), dtype, grad and not self.no_grad and KIND[dtype] == 2, **more)
        if self.follow is not None:
            try:
                value = self.now(text)
            except Wrong:
                return None
            except Unknown:
                value = self._stand_in(made)
            if not isinstance(value, Tensor) or value.numel() > self.limit or value.dtype.name not in KIND:
                return None
            self.follow.names[made.name] = value
            made = self._seen(made)
        self.lines.append("    " * self.depth + f"{made.name} = {text}")
        self.vars.append(made)
        return made

    def made(self, text: str) -> Var | None:
        """Emit an assignment whose result only running it tells."""
        try:
            value = self.now(text)
        except (Unknown, Wrong):
            return None
        if isinstance(value, (tuple, list)) and value:
            k = self.rng.randrange(len(value))
            text, value = f"{text}[{k}]", value[k]
        if isinstance(value, (bool, int, float, str, graphc.Size, graphc.dtype)) and self.depth == 2:
            return self._plain(text)
        if not isinstance(value, Tensor) or value.dtype.name not in KIND or value.numel() > self.limit:
            return None
        assert self.follow is not None
        v = self._seen(Var(self.name(), tuple(value.shape), value.dtype.name, outside=True))
        self.follow.names[v.name] = value
        v = self._seen(v)
        self.lines.append("    " * self.depth + f"{v.name} = {text}")
        self.vars.append(v)
        return v

    def _plain(self, text: str) -> Var | None:
        """A result that is no tensor, returned now and then."""
        name = self.name("q")
        if not self.say(f"{name} = {text}"):
            return None
        if self.chance(0.5):
            self.extra.append(name)
        return self.vars[-1]

    def bind(self, name: str, text: str, like: Var) -> None:
        """A name that lines written as they are have made: it is like what `text` gives now, or like `like`."""
        v = Var(name, like.shape, like.dtype, like.grad)
        if self.follow is not None:
            try:
                value = self.now(text)
            except (Unknown, Wrong):
                value = self._stand_in(v)
            if not isinstance(value, Tensor) or value.dtype.name not in KIND or value.numel() > self.limit:
                return
            self.follow.names[name] = value
        self.vars.append(self._seen(v))

    def _stand_in(self, v: Var) -> Tensor:
        t = graphc.ones(v.shape, dtype=dtype_named(v.dtype))
        return t.requires_grad_() * 1 if v.grad else t

    def view(self, of: Var, text: str, shape: Shape, frozen: bool = False) -> Var | None:
        return self.new(text, shape, of.dtype, of.grad, leaf=of.leaf, frozen=of.frozen or frozen, outside=of.outside)

    def number(self) -> str:
        literal = self.rng.choice(["2", "-1", "3", "0.5", "-0.25", "1.5", "0.1", "0"])
        return self.rng.choice(self.numbers) if self.chance(0.4) else literal

    def axis(self, v: Var) -> int:
        return self.rng.randrange(len(v.shape))

    def shape(self) -> Shape:
        return tuple(self.rng.choice([1, 2, 3, 4, 5]) for _ in range(self.rng.choice([1, 2, 2, 2, 3])))

    # ---- the whole

    def program(self) -> str:
        args = self.inputs()
        self.outer_state()
        self.enter(args)
        if self.follow is not None:
            args = self.contained(args)
        length = self.rng.choice(self.lengths)
        turn = self.rng.randrange(length) if self.follow is not None else -1
        for k in range(length):
            if k == turn:
                self.turn()
            self.statement()
            self.arrange()
        self.end()
        body = "\n".join(self.lines)
        setup = "".join(f"    {line}\n" for line in self.setup)
        state = ", ".join(self.state)
        names = ", ".join(v for v, _ in args)
        values = ", ".join(v for _, v in args)
        head = HEADER + "".join(f"{line}\n" for line in self.imports) + "\n\n"
        kept = (KEEPER if self.keeper else "") + "".join(self.header)
        return (
            f"{head}{kept}def make():\n{setup}\n    def f({names}):\n{body}\n\n    return f, ({values},), [{state}]\n"
        )

    def contained(self, args: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The arguments as the function takes them."""
        raise NotImplementedError

    def enter(self, args: list[tuple[str, str]]) -> None:
        """The arguments get their values."""
        self.arrange()
        if self.follow is not None:
            for name, text in args:
                with contextlib.suppress(Unknown):
                    self.follow.names[name] = self.now(text)
            self.refresh()

    def inputs(self) -> list[tuple[str, str]]:
        self.setup.append(f"graphc.manual_seed({self.rng.randrange(100)})")
        args: list[tuple[str, str]] = []
        for k in range(self.rng.choice([1, 2, 2, 3])):
            shape = self.shape()
            dtype = self.rng.choice(
                ["float32"] * 8 + ["float64"] * 2 + ["int64"] * 2 + ["bool"] * 2
                + ["float16", "bfloat16", "bfloat16", "uint8", "int8", "int16", "int32"]
            )  # fmt: skip
            form = self.form_of(shape)
            outer = f"a{k}"
            self.setup.append(f"{outer} = {self.fill(shape, dtype)}")
            grad = frozen = leaf = False
            if form in ("grad", "nonleaf") and KIND[dtype] == 2:
                grad = leaf = True
                self.setup.append(f"{outer}.requires_grad_()")
                self.state.append(outer)
                if self.chance(0.3):
                    self.setup.append(f"{outer}.grad = graphc.ones_like({outer}).detach()")
                if form == "nonleaf":
                    self.setup.append(f"b{k} = {outer} * 1.5")
                    outer, leaf = f"b{k}", False
            elif form == "view":
                self.setup.append(f"{outer} = {outer}.transpose(0, -1)")
                shape = (shape[-1], *shape[1:-1], shape[0]) if len(shape) > 1 else shape
            elif form == "step":
                self.setup.append(f"{outer} = {outer}[::2]")
                shape = ((shape[0] + 1) // 2, *shape[1:])
            elif form == "laid":
                laid = self.laid_out(outer, shape)
                if laid is not None:
                    self.setup.append(laid[1])
                    frozen = laid[2]
            elif form == "expand":
                self.setup.append(f"{outer} = {outer}.expand(2, {', '.join(map(str, shape))})")
                shape, frozen = (2, *shape), True
            args.append((f"x{k}", outer))
            self.vars.append(Var(f"x{k}", shape, dtype, grad, leaf, frozen, outside=True))
            if form == "twice":
                args.append((f"y{k}", outer))
                self.vars.append(Var(f"y{k}", shape, dtype, outside=True))
            if form == "both" and shape and shape[0] > 1:
                args.append((f"y{k}", f"{outer}[1:]"))
                self.vars.append(Var(f"y{k}", (shape[0] - 1, *shape[1:]), dtype, outside=True))
        return [*args, ("s", self.rng.choice(["0.5", "-1.25", "2.0"])), ("k", self.rng.choice(["1", "2"]))]

    def form_of(self, shape: Shape) -> str:
        """How an argument stands to memory and gradients."""
        if self.follow is None:
            return self.rng.choice(
                ["plain", "plain", "plain", "grad", "view", "step", "twice", "expand", "nonleaf", "both"]
            )
        if not shape:
            return self.rng.choice(["plain", "grad", "twice"])
        common = ["plain"] * 9 + ["grad"] * 5 + ["view", "view", "step", "step", "laid", "laid", "expand"]
        return self.rng.choice([*common, self.rng.choice(["twice", "both", "nonleaf"])])

    def laid_out(self, outer: str, shape: Shape) -> tuple[str, str, bool] | None:
        """A layout for an argument: its name, the line that makes it, whether elements overlap."""
        raise NotImplementedError

    def fill(self, shape: Shape, dtype: str) -> str:
        text = f"({', '.join(map(str, shape))}{',' if len(shape) == 1 else ''})"
        if dtype == "bool":
            return f"graphc.rand{text} > 0.5" if len(shape) > 1 else f"graphc.rand({shape[0]}) > 0.5"
        if KIND[dtype] == 1:
            return f"graphc.randint({0 if dtype == 'uint8' else -4}, 5, {text}, dtype=graphc.{dtype})"
        return f"graphc.randn({text[1:-1].rstrip(',')}, dtype=graphc.{dtype})"

    def outer_state(self) -> None:
        if self.chance(0.35):
            shape = self.shape()
            self.setup.append(f"c0 = {self.fill(shape, 'float32')}")
            self.state.append("c0")
            self.vars.append(Var("c0", shape, "float32", outside=True))
        for k in range(self.rng.choice([1, 1, 2] if self.gradients else [0, 0, 1, 2])):
            shape = self.shape()
            self.setup.append(f"w{k} = nn.Parameter({self.fill(shape, 'float32')})")
            self.state.append(f"w{k}")
            self.params.append(f"w{k}")
            self.vars.append(Var(f"w{k}", shape, "float32", True, True, False, True))
        if self.chance(0.25):
            self.module()
        if self.chance(0.2):
            self.keeper = True
            self.setup.append("keep = Keep()")
            self.state.append("keep")
        if self.params and self.chance(0.5):
            self.optimiser()

    def optimiser(self) -> None:
        """An optimiser of the parameters."""
        raise NotImplementedError

    def module(self) -> None:
        """A layer with parameters."""
        raise NotImplementedError

    def written(self, t: Var, grad: bool) -> None:
        """After a write: what may have gradients now."""
        raise NotImplementedError

    def turn(self) -> None:
        """Statements that the seed chooses."""
        raise NotImplementedError

    def statement(self) -> None:
        """One more statement of the function."""
        raise NotImplementedError

    def block(self, opening: str, statements: int) -> None:
        """A nested block."""
        raise NotImplementedError

    def end(self) -> None:
        """The last statements."""
        raise NotImplementedError
