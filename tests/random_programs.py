"""Random programs of the kind users write, as Python source that is imported and run.

`source(seed)` is a module with `make() -> (f, args, state)`: `f` a function of tensors, a float and an int that mixes arithmetic, views,
writes, branches, gradients, modules and optimisers; `args` its arguments; `state` what it reaches besides them. `python -m tests.random_programs SEED`
prints one; `check(seed)` compares eager with compiled and reloaded runs of it.
"""

from __future__ import annotations

import importlib.util
import math
import os
import random
import re
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import ModuleType
from typing import Any, Iterator

import numpy as np

import graphc
from graphc.errors import ArgumentError, GraphcError, RecordingError
from graphc.frontend.record.tree import flatten
from graphc.frontend.same import _leaf_bits, _World
from graphc.frontend.tensor import Tensor
from graphc.testing import assert_same

Shape = tuple[int, ...]
RANK = {"bool": 0, "int64": 1, "float32": 2, "float64": 3}
KIND = {"bool": 0, "int64": 1, "float32": 2, "float64": 2}
HEADER = "import graphc\nfrom graphc import nn, optim\nfrom graphc.nn import functional as F\n\n\ndef make():\n"
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
        return self.dtype.startswith("f")


def promote(a: Var, b: Var) -> str:
    """The dtype of a binary operation on two tensors."""
    if bool(a.shape) != bool(b.shape):
        wide, low = (a, b) if a.shape else (b, a)
        return wide.dtype if KIND[wide.dtype] >= KIND[low.dtype] else low.dtype
    return max(a.dtype, b.dtype, key=RANK.__getitem__)


def with_number(dtype: str, number: str) -> str:
    """The dtype of a binary operation with a Python number (or the name of one)."""
    integer = number.lstrip("-").isdigit() or number == "k"
    if dtype == "bool":
        return "int64" if integer else "float32"
    return dtype if integer or dtype != "int64" else "float32"


class Gen:
    """Writes one program."""

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
        self.modules: list[tuple[str, str, int]] = []  # name, kind, features

    # -- helpers -----------------------------------------------------------------------------------------------------------

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
        made = Var(self.name(), tuple(shape), dtype, grad and not self.no_grad and dtype.startswith("f"), **more)
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

    # -- the whole ---------------------------------------------------------------------------------------------------------

    def program(self) -> str:
        args = self.inputs()
        self.outer_state()
        for _ in range(self.rng.choice([3, 5, 8, 12])):
            self.statement()
        self.end()
        body = "\n".join(self.lines)
        setup = "".join(f"    {line}\n" for line in self.setup)
        state = ", ".join(self.state)
        names = ", ".join(v for v, _ in args)
        values = ", ".join(v for _, v in args)
        return f"{HEADER}{setup}\n    def f({names}):\n{body}\n\n    return f, ({values},), [{state}]\n"

    def inputs(self) -> list[tuple[str, str]]:
        self.setup.append(f"graphc.manual_seed({self.rng.randrange(100)})")
        args: list[tuple[str, str]] = []
        for k in range(self.rng.choice([1, 2, 2, 3])):
            shape = self.shape()
            dtype = self.rng.choice(["float32", "float32", "float32", "float64", "int64", "bool"])
            form = self.rng.choice(["plain", "plain", "plain", "grad", "view", "step", "twice", "expand", "nonleaf", "both"])
            outer = f"a{k}"
            self.setup.append(f"{outer} = {self.fill(shape, dtype)}")
            grad = frozen = leaf = False
            if form in ("grad", "nonleaf") and dtype.startswith("f"):
                grad = leaf = True
                self.setup.append(f"{outer}.requires_grad_()")
                self.state.append(outer)
                if form == "nonleaf":
                    self.setup.append(f"b{k} = {outer} * 1.5")
                    outer, leaf = f"b{k}", False
            elif form == "view":
                self.setup.append(f"{outer} = {outer}.transpose(0, -1)")
                shape = tuple([shape[-1], *shape[1:-1], shape[0]]) if len(shape) > 1 else shape
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
        if dtype == "int64":
            return f"graphc.randint(-4, 5, {text})"
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
        if self.params and self.chance(0.5):
            rule = self.rng.choice(["SGD({}, lr=0.1)", "SGD({}, lr=0.1, momentum=0.9)", "Adam({}, lr=0.01)", "AdamW({}, lr=0.01)"])
            listed = "[" + ", ".join(p if p.startswith("w") else f"*{p}.parameters()" for p in self.params) + "]"
            self.setup.append(f"opt = optim.{rule.format(listed)}")
            self.state.append("opt")
            self.optimizer = "opt"

    def module(self) -> None:
        n = self.rng.choice([2, 3, 4])
        kind = self.rng.choice(["Linear", "BatchNorm1d", "LayerNorm", "Dropout", "Conv", "Embedding"])
        made = {
            "Linear": f"nn.Linear({n}, {n + 1})",
            "BatchNorm1d": f"nn.BatchNorm1d({n})",
            "LayerNorm": f"nn.LayerNorm({n})",
            "Dropout": "nn.Dropout(0.3)",
            "Conv": f"nn.Sequential(nn.Conv2d({n}, 2, 2), nn.BatchNorm2d(2), nn.ReLU())",
            "Embedding": f"nn.Embedding(5, {n})",
        }[kind]
        self.setup.append(f"m = {made}")
        self.state.append("m")
        if kind != "Dropout":
            self.params.append("m")
        self.modules.append(("m", kind, n))

    # -- statements --------------------------------------------------------------------------------------------------------

    def statement(self) -> None:
        weighted = [
            (self.unary, 5), (self.binary, 8), (self.views, 9), (self.writes, 9), (self.index, 4), (self.reduce, 4), (self.join, 2),
            (self.contract, 2), (self.randoms, 2), (self.item, 2), (self.branch, 2), (self.loop, 1), (self.detached, 1), (self.under_no_grad, 2),
            (self.backward, 2), (self.use_module, 3 if self.modules else 0), (self.gather, 2), (self.aug, 3), (self.rebind, 1), (self.spatial, 1),
        ]  # fmt: skip
        choice = self.rng.choices([w[0] for w in weighted], [w[1] for w in weighted])[0]
        choice()

    def unary(self) -> None:
        v = self.pick(lambda v: v.dtype != "bool")
        if v is None:
            return
        real = ["exp", "tanh", "sigmoid", "sin", "relu", "abs", "neg", "sqrt", "floor", "square", "erf", "log", "softmax", "gelu", "nan", "cast", "clamp", "std", "flip", "roll"]
        name = self.rng.choice(real if v.real else ["abs", "neg", "square", "sign", "cast", "clamp", "flip"])
        axis = self.axis(v) if v.shape else 0
        if name in ("flip", "roll"):
            if v.shape:
                self.new(f"{v.name}.flip({axis})" if name == "flip" else f"{v.name}.roll(1, {axis})", v.shape, v.dtype, v.grad)
            return
        text = {
            "softmax": f"{v.name}.softmax({axis})" if v.shape else f"{v.name}.tanh()",
            "gelu": f"F.gelu({v.name})",
            "nan": f"{v.name}.nan_to_num(0.5)",
            "clamp": f"{v.name}.clamp({self.rng.choice(['min=-1', '-1, 1', 'max=k', '-0.5, s'] if v.real else ['-1, 2', 'max=k'])})",
            "std": f"({v.name} - {v.name}.mean()) / ({v.name}.var(correction=0) + 0.1).sqrt()",
        }.get(name, f"{v.name}.{name}()")
        if name == "cast":
            to = self.rng.choice(["float32", "float64", "int64", "bool"])
            if to == "int64" and v.real:
                text, dtype = f"{v.name}.nan_to_num().clamp(-5, 5).long()", "int64"
            else:
                text, dtype = f"{v.name}.to(graphc.{to})", to
            if dtype == v.dtype:
                self.view(v, text, v.shape)
            else:
                self.new(text, v.shape, dtype, v.grad)
            return
        self.new(text, v.shape, v.dtype, v.grad)

    def partner(self, v: Var) -> Var | None:
        def fits(o: Var) -> bool:
            try:
                return math.prod(np.broadcast_shapes(o.shape, v.shape)) <= MAX_ELEMENTS
            except ValueError:
                return False

        return self.pick(fits)

    def binary(self) -> None:
        v = self.pick()
        assert v is not None
        o = self.partner(v) if self.chance(0.7) else None
        if o is None:
            number = self.number()
            if v.dtype == "bool" and not self.chance(0.3):
                return
            op = self.rng.choice(["+", "-", "*", "*", "/", ">", "<", "=="])
            if op == "-" and v.dtype == "bool":
                return
            dtype = "bool" if op in "><==" else with_number(v.dtype, number)
            if op == "/" and KIND[dtype] < 2:
                dtype = "float32"
            if number.startswith("n") and dtype == "int64":
                return  # whether the number is an int is not known here
            text = f"{v.name} {op} {number}" if self.chance(0.7) else f"{number} {op} {v.name}"
            self.new(text, v.shape, dtype, v.grad and op not in "><==")
            return
        shape = np.broadcast_shapes(v.shape, o.shape)
        dtype = promote(v, o)
        if dtype == "bool":
            op = self.rng.choice(["&", "|", "^", "=="])
            self.new(f"{v.name} {op} {o.name}", shape, "bool")
            return
        op = self.rng.choice(["+", "-", "*", "/", ">", "!=", "max", "where", "fma"])
        if op == "-" and "bool" in (v.dtype, o.dtype):
            op = "+"
        grad = v.grad or o.grad
        if op in (">", "!="):
            self.new(f"{v.name} {op} {o.name}", shape, "bool")
        elif op == "/":
            self.new(f"{v.name} / ({o.name} + 0.5)" if o.real else f"{v.name} / ({o.name} * 1.0 + 0.5)", shape, dtype if KIND[dtype] == 2 else "float32", grad)
        elif op == "max":
            self.new(f"graphc.maximum({v.name}, {o.name})", shape, dtype, grad)
        elif op == "where":
            self.new(f"graphc.where({v.name} > {o.name}, {v.name}, {o.name})", shape, dtype, grad)
        elif op == "fma":
            self.new(f"{v.name} * {o.name} + {o.name}", shape, dtype, grad)
        else:
            self.new(f"{v.name} {op} {o.name}", shape, dtype, grad)

    def views(self) -> Var | None:
        v = self.pick(lambda v: bool(v.shape))
        if v is None:
            return None
        d, n = self.axis(v), v.name
        size = v.shape[d]
        kind = self.rng.choice(["permute", "transpose", "slice", "slice", "step", "select", "narrow", "unsqueeze", "squeeze", "expand", "reshape", "view", "flatten", "chunk", "split", "T", "unbind", "none", "ellipsis"])
        rest = (*v.shape[:d], *v.shape[d + 1 :])
        lead = ":, " * d
        if kind == "permute":
            order = self.rng.sample(range(len(v.shape)), len(v.shape))
            return self.view(v, f"{n}.permute({', '.join(map(str, order))})", tuple(v.shape[i] for i in order))
        if kind in ("transpose", "T"):
            e = self.axis(v)
            shape = list(v.shape)
            shape[d], shape[e] = shape[e], shape[d]
            return self.view(v, f"{n}.transpose({d}, {e})", tuple(shape))
        if kind == "slice" and size > 1:
            a = self.rng.randrange(size)
            b = self.rng.randrange(a + 1, size + 1)
            return self.view(v, f"{n}[{lead}{a}:{b}]", (*v.shape[:d], b - a, *v.shape[d + 1 :]))
        if kind == "step":
            a = self.rng.choice([0, 0, 1])
            shown = len(range(a, size, 2))
            return self.view(v, f"{n}[{lead}{a or ''}::2]", (*v.shape[:d], shown, *v.shape[d + 1 :])) if shown else None
        if kind == "select":
            i = self.rng.randrange(-size, size)
            return self.view(v, f"{n}.select({d}, {i})" if self.chance(0.5) else f"{n}[{lead}{i}]", rest)
        if kind == "narrow":
            a = self.rng.randrange(size)
            return self.view(v, f"{n}.narrow({d}, {a}, {size - a})", (*v.shape[:d], size - a, *v.shape[d + 1 :]))
        if kind == "unsqueeze":
            return self.view(v, f"{n}.unsqueeze({d})", (*v.shape[:d], 1, *v.shape[d:]))
        if kind == "squeeze":
            return self.view(v, f"{n}.squeeze({d})", rest if size == 1 else v.shape)
        if kind == "expand":
            k = self.rng.choice([2, 3])
            shape = (k, *v.shape)
            return self.view(v, f"{n}.expand({', '.join(map(str, shape))})", shape, frozen=True)
        if kind in ("reshape", "view", "flatten"):
            shape = self.factor(v.size) if kind != "flatten" else (v.size,)
            if kind == "view" and self.chance(0.8):
                n = f"{n}.contiguous()"
            return self.view(v, f"{n}.{'reshape' if kind == 'flatten' else kind}({', '.join(map(str, shape))})", shape)
        if kind in ("chunk", "split", "unbind"):
            if size < 2:
                return None
            if kind == "unbind":
                return self.view(replace(v, frozen=v.frozen or v.grad), f"{n}.unbind({d})[{self.rng.randrange(size)}]", rest)
            cut = (size + 1) // 2
            i = self.rng.randrange(2)
            part = cut if i == 0 else size - cut
            text = f"{n}.chunk(2, {d})[{i}]" if kind == "chunk" else f"{n}.split({cut}, {d})[{i}]"
            return self.view(replace(v, frozen=v.frozen or v.grad), text, (*v.shape[:d], part, *v.shape[d + 1 :]))
        if kind == "none":
            return self.view(v, f"{n}[None]", (1, *v.shape))
        if kind == "ellipsis":
            return self.view(v, f"{n}[..., 0]", v.shape[:-1])
        return None

    def factor(self, n: int) -> Shape:
        for _ in range(5):
            a = self.rng.randrange(1, n + 1)
            if n % a == 0:
                return (a, n // a)
        return (n,)

    def target(self) -> Var | None:
        return self.pick(lambda v: not v.frozen and (not v.leaf or self.no_grad > 0))

    def value_for(self, t: Var) -> tuple[str, bool]:
        """An operand that may be written into `t`, and whether it brings gradients."""

        def fits(o: Var) -> bool:
            try:
                return KIND[o.dtype] <= KIND[t.dtype] and np.broadcast_shapes(o.shape, t.shape) == t.shape
            except ValueError:
                return False

        o = self.pick(fits) if self.chance(0.6) else None
        if o is not None:
            return (o.name, o.grad) if self.chance(0.7) or o.dtype == "bool" else (f"{o.name} * 2", o.grad)
        if t.dtype == "int64":
            return self.rng.choice(["2", "-1", "3", "k"]), False
        return (self.number(), False) if t.real else ("True", False)

    def written(self, t: Var, grad: bool) -> None:
        if grad and not self.no_grad:
            self.vars = [replace(v, grad=True) if v.real and not v.leaf else v for v in self.vars]

    def writes(self) -> None:
        t = self.target()
        if t is None:
            return
        value, grad = self.value_for(t)
        kinds = ["copy_", "zero_", "fill_"] + (["add_", "sub_", "mul_", "clamp_"] if t.dtype != "bool" else [])
        kinds += ["tanh_", "relu_", "neg_", "uniform_", "sigmoid_", "masked"] if t.real else ["masked"]
        kind = self.rng.choice(kinds)
        if kind == "fill_":
            value, grad = ("True" if t.dtype == "bool" else "2" if t.dtype == "int64" else self.number()), False
        if kind == "copy_" and not (value[0] in "vxycw" and value[1:].isdigit()):
            return
        if kind == "masked":
            number = "True" if t.dtype == "bool" else self.rng.choice(["2", "0"] + (["-0.5"] if t.real else []))
            mask = self.pick(lambda m: m.dtype == "bool" and m.shape == t.shape)
            self.say(f"{t.name}.masked_fill_({mask.name if mask else f'{t.name} != {number}'}, {number})")
            return
        if kind in ("add_", "sub_") and value[0] in "vxycw" and value[1:].isdigit() and t.real and self.chance(0.3):
            value += ", alpha=0.5"
        if kind == "sub_" and value.split(",")[0] in {v.name for v in self.vars if v.dtype == "bool"}:
            kind = "add_"
        text = {"clamp_": "clamp_(-1, 1)", "zero_": "zero_()", "uniform_": "uniform_()"}.get(kind)
        if text is None:
            text = f"{kind}({value})" if kind in ("copy_", "fill_", "add_", "sub_", "mul_") else f"{kind}()"
        line = f"{t.name}.{text}"
        if self.chance(0.15):
            self.view(t, line, t.shape)
        else:
            self.say(line)
        self.written(t, grad)

    def aug(self) -> None:
        t = self.target()
        if t is None or t.dtype == "bool":
            return
        value, grad = self.value_for(t)
        op = self.rng.choice(["+=", "*="])
        if t.name[0] in "cw":
            self.say(f"{t.name}.{'add_' if op == '+=' else 'mul_'}({value})")
        else:
            self.say(f"{t.name} {op} {value}")
        self.written(t, grad)

    def index(self) -> None:
        t = self.target()
        if t is None or not t.shape:
            return
        d = self.axis(t)
        size = t.shape[d]
        lead = ":, " * d
        kind = self.rng.choice(["int", "slice", "step", "mask", "tensor", "all", "list"])
        if kind == "all":
            self.say(f"{t.name}[:] = {self.plain_value(t)}")
            return
        if kind == "mask":
            m = self.pick(lambda m: m.dtype == "bool" and bool(m.shape) and m.shape == t.shape[: len(m.shape)])
            mask = m.name if m else f"{t.name} != 0" if t.dtype != "bool" else f"~{t.name}"
            self.say(f"{t.name}[{mask}] = {self.plain_value(t)}")
            return
        if kind == "tensor":
            places = self.pick(lambda i: i.dtype == "int64" and bool(i.shape))
            if places is None:
                return
            index = f"({places.name} % {size}).clamp(0, {size - 1})"
            self.say(f"{t.name}[{lead}{index}] = {self.plain_value(t)}")
            return
        key = {"int": str(self.rng.randrange(size)), "slice": f"{self.rng.randrange(size)}:", "step": "::2", "list": f"[0, {size - 1}]"}[kind]
        rest = (*t.shape[:d], *t.shape[d + 1 :])
        o = self.pick(lambda o: o.shape == rest and KIND[o.dtype] <= KIND[t.dtype]) if kind == "int" and self.chance(0.6) else None
        if self.chance(0.3) and t.dtype != "bool":
            self.say(f"{t.name}[{lead}{key}] += {self.plain_value(t)}")
            return
        self.say(f"{t.name}[{lead}{key}] = {o.name if o else self.plain_value(t)}")
        self.written(t, o is not None and o.grad)

    def plain_value(self, t: Var) -> str:
        if t.dtype == "bool":
            return "True"
        return self.rng.choice(["2", "-1", "k"]) if t.dtype == "int64" else self.number()

    def reduce(self) -> None:
        v = self.pick()
        assert v is not None
        name = self.rng.choice(["sum", "mean", "amax", "prod", "argmax", "any", "var", "max", "logsumexp", "min"])
        if v.dtype == "bool":
            name = self.rng.choice(["any", "all", "sum"])
        if v.dtype == "int64" and name in ("mean", "var", "logsumexp"):
            name = "sum"
        if name in ("logsumexp",) and not v.shape:
            name = "sum"
        dtype = "int64" if name == "argmax" or (name in ("sum", "prod") and not v.real) else "bool" if name in ("any", "all") else v.dtype
        grad = v.grad and name not in ("argmax", "any", "all")
        if not v.shape or (self.chance(0.4) and name != "logsumexp"):
            self.new(f"{v.name}.{name}()", (), dtype, grad)
            return
        d, keep = self.axis(v), self.chance(0.4)
        shape = (*v.shape[:d], *((1,) if keep else ()), *v.shape[d + 1 :])
        if name in ("max", "min"):
            if self.chance(0.5):
                self.new(f"{v.name}.{name}({d}, keepdim={keep}).values", shape, dtype, grad)
            else:
                self.new(f"{v.name}.{name}({d}, keepdim={keep})[1]", shape, "int64")
            return
        self.new(f"{v.name}.{name}({d}, keepdim={keep})", shape, dtype, grad)

    def join(self) -> None:
        v = self.pick(lambda v: bool(v.shape))
        if v is None:
            return
        o = self.pick(lambda o: o.shape == v.shape)
        assert o is not None
        d = self.axis(v)
        dtype = max(v.dtype, o.dtype, key=RANK.__getitem__)
        if self.chance(0.5):
            self.new(f"graphc.cat([{v.name}, {o.name}], {d})", (*v.shape[:d], 2 * v.shape[d], *v.shape[d + 1 :]), dtype, v.grad or o.grad)
        else:
            self.new(f"graphc.stack([{v.name}, {o.name}], {d})", (*v.shape[:d], 2, *v.shape[d:]), dtype, v.grad or o.grad)

    def contract(self) -> None:
        v = self.pick(lambda v: v.real and len(v.shape) >= 1)
        if v is None:
            return
        o = self.pick(lambda o: o.dtype == v.dtype and len(o.shape) == 2 and o.shape[0] == v.shape[-1])
        if o is not None:
            self.new(f"{v.name} @ {o.name}", (*v.shape[:-1], o.shape[1]), v.dtype, v.grad or o.grad)
        elif len(v.shape) == 2:
            self.new(f"{v.name} @ {v.name}.t()", (v.shape[0], v.shape[0]), v.dtype, v.grad)

    def spatial(self) -> None:
        v = self.pick(lambda v: v.real and v.size >= 8 and len(v.shape) >= 2)
        if v is None:
            return
        h = self.rng.choice([2, 4])
        if v.size % (2 * h):
            return
        image = f"{v.name}.reshape(1, 2, {h}, {v.size // (2 * h)})"
        w = v.size // (2 * h)
        kind = self.rng.choice(["conv", "pad", "max", "avg"])
        if kind in ("conv", "pad"):
            self.new(f"F.pad({image}, (1, 0, 1, 2), value=-1.0)" if kind == "pad" else f"F.conv2d({image}, {image}[:, :, :1, :1].transpose(0, 1) * s, padding=1) if {h} < 0 else F.conv2d({image}, {image}[:, :, :1, :1], padding=1)", (1, 2, h + 3, w + 1) if kind == "pad" else (1, 1, h + 2, w + 2), v.dtype, v.grad)
        elif w >= 2:
            pool = "max_pool2d" if kind == "max" else "avg_pool2d"
            self.new(f"F.{pool}({image}, 2)", (1, 2, h // 2, w // 2), v.dtype, v.grad)

    def randoms(self) -> None:
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        kind = self.rng.choice(["dropout", "rand_like", "randn", "bernoulli"])
        text = {
            "dropout": f"F.dropout({v.name}, 0.4)",
            "rand_like": f"graphc.rand_like({v.name})",
            "randn": f"graphc.randn({', '.join(map(str, v.shape))}, dtype=graphc.{v.dtype}) * {v.name}" if v.shape else f"graphc.rand_like({v.name})",
            "bernoulli": f"graphc.bernoulli({v.name}.detach().sigmoid())",
        }[kind]
        self.new(text, v.shape, v.dtype, v.grad and kind in ("dropout", "randn"))

    def gather(self) -> None:
        v = self.pick(lambda v: bool(v.shape))
        if v is None:
            return
        d = self.axis(v)
        i = self.pick(lambda i: i.dtype == "int64" and len(i.shape) == 1)
        if i is None:
            self.new(f"{v.name}.argsort({d}) % {v.shape[d]}" if self.chance(0.0) else f"graphc.arange({v.shape[d]}) * 2 % {v.shape[d]}", (v.shape[d],), "int64")
            return
        index = f"{i.name} % {v.shape[d]}"
        kind = self.rng.choice(["index_select", "key", "add"])
        shape = (*v.shape[:d], i.shape[0], *v.shape[d + 1 :])
        if kind == "index_select":
            self.new(f"{v.name}.index_select({d}, {index})", shape, v.dtype, v.grad)
        elif kind == "key":
            self.new(f"{v.name}[{':, ' * d}{index}]", shape, v.dtype, v.grad)
        elif v.dtype != "bool":
            self.new(f"{v.name}.index_add({d}, {index}, {v.name}.index_select({d}, {index}))", v.shape, v.dtype, v.grad)

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
        assert v is not None
        forms = [f"{v.name}.sum() > 0", f"({v.name} == 0).any()", "s > 0", "k == 1"]
        forms += [f"{n} > 0.1" for n in self.numbers if n.startswith("n")]
        return self.rng.choice(forms)

    def block(self, opening: str, statements: int) -> None:
        """A nested block; names made inside are forgotten."""
        self.say(opening)
        self.depth += 1
        kept, numbers, before = list(self.vars), list(self.numbers), len(self.lines)
        for _ in range(statements):
            self.rng.choice([self.writes, self.aug, self.index, self.binary, self.views])()
        if len(self.lines) == before:
            self.say("pass")
        self.depth -= 1
        grads = any(v.grad for v in self.vars)
        self.vars = [replace(v, grad=True) if grads and v.real and not v.leaf else v for v in kept]
        self.numbers = numbers

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
            self.vars.append(Var(made, v.shape, v.dtype, v.grad))
            return
        self.block(f"if {condition}:", self.rng.choice([1, 2]))
        if self.chance(0.4):
            self.block("else:", 1)

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

    def detached(self) -> None:
        v = self.pick(lambda v: v.real)
        if v is not None:
            self.new(f"{v.name}.{self.rng.choice(['detach()', 'detach().clone()', 'clone()'])}", v.shape, v.dtype, False, frozen=v.frozen, outside=v.outside)

    def under_no_grad(self) -> None:
        if self.depth > 3 or self.no_grad:
            return
        self.no_grad += 1
        self.block("with graphc.no_grad():", self.rng.choice([1, 2]))
        self.no_grad -= 1

    def use_module(self) -> None:
        if not self.modules:
            return
        name, kind, n = self.modules[0]
        if kind == "Embedding":
            i = self.pick(lambda v: v.dtype == "int64")
            if i is not None:
                self.new(f"{name}({i.name} % 5)", (*i.shape, n), "float32", True)
            return
        v = self.pick(lambda v: v.dtype == "float32" and bool(v.shape) and v.size >= 2 * n)
        if v is None:
            return
        if kind == "Dropout":
            self.new(f"{name}({v.name})", v.shape, "float32", v.grad)
            return
        rows = v.size // n
        x = f"{v.name}.reshape(-1)[:{rows * n}].reshape({rows}, {n})"
        if kind == "Conv":
            if v.size >= n * 9:
                self.new(f"{name}({v.name}.reshape(-1)[:{n * 9}].reshape(1, {n}, 3, 3))", (1, 2, 2, 2), "float32", True)
            return
        self.new(f"{name}({x})", (rows, n + 1 if kind == "Linear" else n), "float32", True)

    def backward(self) -> None:
        v = self.pick(lambda v: v.grad and not v.leaf)
        if v is None or self.no_grad or self.depth > 2:
            return
        if self.optimizer and self.chance(0.7):
            self.say("opt.zero_grad()")
        mixed = self.rng.choice([f"{v.name}.sum()", f"({v.name} * {v.name}).mean()", f"{v.name}.tanh().sum()"])
        leaf = self.pick(lambda x: x.leaf and x.name[0] in "xw")
        extra = f" + ({leaf.name} * 0.5).sum()" if leaf is not None and self.chance(0.5) else ""
        loss = self.new(f"{mixed}{extra}", (), v.dtype, True)
        assert loss is not None
        keep = self.chance(0.3)
        if leaf is not None and self.chance(0.2):
            self.new(f"graphc.autograd.grad({loss.name}, [{leaf.name}], allow_unused=True, retain_graph=True)[0] or {leaf.name}.detach()" if False else f"{loss.name}.detach()", (), v.dtype)
        self.say(f"{loss.name}.backward({'retain_graph=True' if keep else ''})")
        if not keep:
            self.vars = [replace(x, grad=False) if not x.leaf and self.chance(0.8) else x for x in self.vars]
        if self.optimizer and self.chance(0.8):
            self.say("opt.step()")
        if leaf is not None and leaf.name.startswith("x") and self.chance(0.4):
            self.say(f"g{self.count} = {leaf.name}.grad")
            if self.chance(0.5):
                self.say(f"if g{self.count} is not None:")
                self.say(f"    {loss.name} = g{self.count} * 2")
                self.vars = [x for x in self.vars if x.name != loss.name]

    def rebind(self) -> None:
        """`x = x * 2`: a name takes another tensor."""
        v = self.pick(lambda v: v.dtype != "bool" and not v.name.startswith(("w", "c")))
        if v is None or self.depth > 2:
            return
        self.say(f"{v.name} = {v.name} * 2")
        self.vars = [replace(x, leaf=False, frozen=False, outside=False) if x.name == v.name else x for x in self.vars]

    def end(self) -> None:
        if self.params and self.chance(0.4):
            self.backward()
        leaves = [v.name for v in self.rng.choices(self.vars[-8:], k=self.rng.choice([1, 1, 2, 3]))]
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


def source(seed: int) -> str:
    """The program of a seed."""
    return Gen(seed).program()


@contextmanager
def imported(text: str, name: str) -> Iterator[ModuleType]:
    """The program as a module of a file of its own."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, f"{name}.py")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


# -- comparing ---------------------------------------------------------------------------------------------------------------


def _aliases(args: Any, state: Any, result: Any) -> list[Any]:
    """Which returned tensors are which others, share their memory and how they look at it."""
    outside = [x for x in flatten(args)[0] + list(state) if isinstance(x, Tensor)]
    outs = [x for x in flatten(result)[0] if isinstance(x, Tensor)]
    seen: list[Any] = [[(t.requires_grad, t.is_leaf) for t in outside]]
    for k, t in enumerate(outs):
        others = [*outside, *outs[:k]]
        seen.append((t.is_leaf, [(t is o, t._s is o._s and _same_place(t, o)) for o in others], _strides(t)))
    return seen


def _strides(t: Tensor) -> Any:
    return [s for s, n in zip(t._l.strides, t._a.shape, strict=True) if n > 1]


def _same_place(a: Tensor, b: Tensor) -> Any:
    here, there = a._a.__array_interface__["data"][0], b._a.__array_interface__["data"][0]
    return (here - there, a._v is b._v)


def history(fn: Callable[..., Any], made: tuple[Any, Any, Any], seed: int, outer: bool, calls: int = 6) -> list[Any]:
    """What `calls` calls give, with other numbers and contents on some of them; an error ends it."""
    _, args, state = made
    world = _World([args, state])
    found: list[Any] = []
    for k in range(calls):
        now = tuple(_vary(x, k, seed) for x in args)
        try:
            result = fn(*now)
            seen = [_leaf_bits(result), _aliases(now, state, result)]
            if outer:
                _outer_backward(result)
        except (GraphcError, TypeError, ValueError, ZeroDivisionError, AttributeError, RuntimeError, IndexError) as error:
            if isinstance(error, RecordingError):
                raise
            found.append((type(error).__name__, re.sub(r"\d+", "#", str(error)), world.bits()))
            return found
        found.append((seen, world.bits()))
    return found


def _vary(x: Any, k: int, seed: int) -> Any:
    """Argument `x` at call `k`: other elements on the fourth, another float on the fifth."""
    if k == 3 and isinstance(x, Tensor) and x._a.flags.writeable and x._s.owner is x._a:
        np.negative(x._a, out=x._a) if x._a.dtype.kind != "b" else np.logical_not(x._a, out=x._a)
    if k == 4 and type(x) is float:
        return -x + 0.125
    return x


def _outer_backward(result: Any) -> None:
    """Differentiate what was returned, outside the function."""
    roots = [x for x in flatten(result)[0] if isinstance(x, Tensor) and x.requires_grad and not x.is_leaf]
    if roots:
        total = sum((x.double() * 1.5).sum() for x in roots)
        total.backward()


def check(seed: int, *, threads: tuple[int, ...] = (1, 2)) -> str:
    """Compare the runs of one program; returns how it was treated ("same", "refused", "raises"). Raises AssertionError."""
    with imported(source(seed), f"program_{seed}") as module:
        return check_module(module, seed, threads)


def check_module(module: ModuleType, seed: int = 0, threads: tuple[int, ...] = (1, 2)) -> str:
    """Compare the runs of a module with `make()`."""
    outer = seed % 3 == 0
    try:
        made = module.make()
    except GraphcError as error:
        return f"unmade: {error}"
    expected = history(made[0], made, seed, outer)
    made = module.make()
    compiled = graphc.compile(made[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        actual = history(compiled, made, seed, outer)
    _same_histories(expected, actual)
    refused = [str(w.message) for w in caught]
    if isinstance(expected[-1][0], str):
        return "raises: " + expected[-1][1]
    if refused:
        assert all("runs eagerly" in text for text in refused), refused
        return "refused: " + refused[0]
    return _whole(module, threads)


def _whole(module: ModuleType, threads: tuple[int, ...]) -> str:
    fn, args, state = module.make()
    try:
        assert_same(fn, *args, state=state, threads=threads, reload=False)
    except RecordingError as error:
        return f"refused: {error}"
    except AssertionError as error:
        if "calls were answered by the compiled graph" not in str(error):
            raise
        return "few hits"
    fn, args, state = module.make()
    try:
        assert_same(fn, *args, state=state, threads=(1,))
    except RecordingError as error:
        return f"not exported: {error}"
    except ArgumentError as error:
        if "pass a copy of one of them" not in str(error):
            raise
        return f"not exported: {error}"
    return "same"


def _same_histories(expected: list[Any], actual: list[Any]) -> None:
    for k, (a, b) in enumerate(zip(expected, actual, strict=False)):
        if a == b:
            continue
        if isinstance(a[0], str) or isinstance(b[0], str):
            assert a[:2] == b[:2], f"call {k + 1}: eager {_brief(a)}, compiled {_brief(b)}"
        else:
            assert a[0][0][:1] == b[0][0][:1], f"call {k + 1}: the structure differs: {a[0][0][0]!r} and {b[0][0][0]!r}"
            for i, (x, y) in enumerate(zip(a[0][0][1:], b[0][0][1:], strict=True)):
                assert x == y, f"call {k + 1}: output {i} differs: {x!r} and {y!r}"
            for i, (x, y) in enumerate(zip(a[0][1], b[0][1], strict=True)):
                assert x == y, f"call {k + 1}: aliases of output {i - 1} differ: {x} and {y}"
        for name in a[-1]:
            assert a[-1][name] == b[-1].get(name), f"call {k + 1}: {name} differs"
        raise AssertionError(f"call {k + 1}: the set of tensors differs")
    assert len(expected) == len(actual), f"{len(expected)} calls and {len(actual)}: {_brief(actual[-1])}"


def _brief(x: Any) -> str:
    return f"raises {x[0]}: {x[1]}" if isinstance(x[0], str) else "gives a result"


if __name__ == "__main__":
    print(source(int(sys.argv[1])))
