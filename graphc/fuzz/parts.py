"""What random programs are made of: what is known of a name, arguments, state around the function, returned values."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from graphc.frontend.promote import promote_types
from graphc.ir.types import dtype_named

Shape = tuple[int, ...]
WHOLE = ("uint8", "int8", "int16", "int32", "int64")
REAL = ("float16", "bfloat16", "float32", "float64")
KIND = {"bool": 0, **dict.fromkeys(WHOLE, 1), **dict.fromkeys(REAL, 2)}
HEADER = "import graphc\nfrom graphc import nn, optim\nfrom graphc.nn import functional as F\n\n\n"
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
    """The frame of one program; Gen adds the statements."""

    lengths: tuple[int, ...] = (3, 5, 8, 12)

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
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

    def say(self, line: str) -> None:
        self.lines.append("    " * self.depth + line)

    def name(self, prefix: str = "v") -> str:
        self.count += 1
        return f"{prefix}{self.count}"

    def chance(self, p: float) -> bool:
        return self.rng.random() < p

    def pick(self, ok: Callable[[Var], bool] = lambda v: True) -> Var | None:
        found = [v for v in self.vars if ok(v)]
        if not found:
            return None
        return self.rng.choice(found[-6:] if self.chance(0.6) else found)

    def new(self, text: str, shape: Shape, dtype: str, grad: bool = False, **more: Any) -> Var | None:
        """Emit an assignment."""
        if math.prod(shape) > MAX_ELEMENTS:
            return None
        made = Var(self.name(), tuple(shape), dtype, grad and not self.no_grad and KIND[dtype] == 2, **more)
        self.say(f"{made.name} = {text}")
        self.vars.append(made)
        return made

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
        for _ in range(self.rng.choice(self.lengths)):
            self.statement()
        self.end()
        body = "\n".join(self.lines)
        setup = "".join(f"    {line}\n" for line in self.setup)
        state = ", ".join(self.state)
        names = ", ".join(v for v, _ in args)
        values = ", ".join(v for _, v in args)
        kept = (KEEPER if self.keeper else "") + "".join(self.header)
        return (
            f"{HEADER}{kept}def make():\n{setup}\n    def f({names}):\n{body}\n\n    return f, ({values},), [{state}]\n"
        )

    def inputs(self) -> list[tuple[str, str]]:
        self.setup.append(f"graphc.manual_seed({self.rng.randrange(100)})")
        args: list[tuple[str, str]] = []
        for k in range(self.rng.choice([1, 2, 2, 3])):
            shape = self.shape()
            dtype = self.rng.choice(
                ["float32"] * 8 + ["float64"] * 2 + ["int64"] * 2 + ["bool"] * 2
                + ["float16", "bfloat16", "bfloat16", "uint8", "int8", "int16", "int32"]
            )  # fmt: skip
            form = self.rng.choice(
                ["plain", "plain", "plain", "grad", "view", "step", "twice", "expand", "nonleaf", "both"]
            )
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
            elif form == "expand":
                self.setup.append(f"{outer} = {outer}.expand(2, {', '.join(map(str, shape))})")
                shape, frozen = (2, *shape), True
            args.append((f"x{k}", outer))
            self.vars.append(Var(f"x{k}", shape, dtype, grad, leaf, frozen, outside=True))
            if form == "twice":
                args.append((f"y{k}", outer))
                self.vars.append(Var(f"y{k}", shape, dtype, outside=True))
            if form == "both" and shape[0] > 1:
                args.append((f"y{k}", f"{outer}[1:]"))
                self.vars.append(Var(f"y{k}", (shape[0] - 1, *shape[1:]), dtype, outside=True))
        return [*args, ("s", self.rng.choice(["0.5", "-1.25", "2.0"])), ("k", self.rng.choice(["1", "2"]))]

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
        for k in range(self.rng.choice([0, 0, 1, 2])):
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

    def statement(self) -> None:
        """One more statement of the function."""
        raise NotImplementedError

    def block(self, opening: str, statements: int) -> None:
        """A nested block."""
        raise NotImplementedError

    def end(self) -> None:
        """The last statements."""
        raise NotImplementedError
