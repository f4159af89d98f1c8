"""Arithmetic, reductions, joins and contractions in random programs."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from graphc.fuzz.parts import KIND, REAL, WHOLE, Parts, Var, joined, promote, with_number


class Arithmetic(Parts):
    """Statements that make a new tensor of others."""

    def unary(self) -> None:
        v = self.pick(lambda v: v.dtype != "bool")
        if v is None:
            return
        real = [
            "exp",
            "tanh",
            "sigmoid",
            "sin",
            "relu",
            "abs",
            "neg",
            "sqrt",
            "floor",
            "square",
            "erf",
            "log",
            "softmax",
            "gelu",
            "nan",
            "cast",
            "clamp",
            "std",
            "flip",
            "roll",
        ]
        name = self.rng.choice(real if v.real else ["abs", "neg", "square", "sign", "cast", "clamp", "flip"])
        axis = self.axis(v) if v.shape else 0
        if name in ("flip", "roll"):
            if v.shape:
                self.new(
                    f"{v.name}.flip({axis})" if name == "flip" else f"{v.name}.roll(1, {axis})",
                    v.shape,
                    v.dtype,
                    v.grad,
                )
            return
        text = {
            "softmax": f"{v.name}.softmax({axis})" if v.shape else f"{v.name}.tanh()",
            "gelu": f"F.gelu({v.name})",
            "nan": f"{v.name}.nan_to_num(0.5)",
            "clamp": f"{v.name}.clamp({self.rng.choice(['-1, 2', 'max=k'] + ['min=-1', '-0.5, s'] * v.real)})",
            "std": f"({v.name} - {v.name}.mean()) / ({v.name}.var(correction=0) + 0.1).sqrt()",
        }.get(name, f"{v.name}.{name}()")
        if name == "cast":
            to = self.rng.choice(["float32", "float64", "int64", "bool", *REAL, *WHOLE])
            if KIND[to] == 1 and v.real:
                text, dtype = f"{v.name}.nan_to_num().clamp(-5, 5).to(graphc.{to})", to
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
                return math.prod(np.broadcast_shapes(o.shape, v.shape)) <= self.limit
            except ValueError:
                return False

        return self.pick(fits)

    def binary(self) -> None:
        v = self.pick()
        if v is None:  # complex tensors alone
            return
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
            if number.startswith("n") and KIND[dtype] == 1:
                return  # whether the number is an int is not known here
            text = f"{v.name} {op} {number}" if self.chance(0.7) else f"{number} {op} {v.name}"
            self.new(text, v.shape, dtype, v.grad and op not in "><==")
            return
        shape = np.broadcast_shapes(v.shape, o.shape)
        dtype = promote(v, o)
        divided = promote(v, o if o.real else replace(o, dtype="float32"))
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
            self.new(
                f"{v.name} / ({o.name} + 0.5)" if o.real else f"{v.name} / ({o.name} * 1.0 + 0.5)",
                shape,
                divided,
                grad,
            )
        elif op == "max":
            self.new(f"graphc.maximum({v.name}, {o.name})", shape, dtype, grad)
        elif op == "where":
            self.new(f"graphc.where({v.name} > {o.name}, {v.name}, {o.name})", shape, dtype, grad)
        elif op == "fma":
            self.new(f"{v.name} * {o.name} + {o.name}", shape, dtype, grad)
        else:
            self.new(f"{v.name} {op} {o.name}", shape, dtype, grad)

    def reduce(self) -> None:
        v = self.pick()
        if v is None:  # complex tensors alone
            return
        name = self.rng.choice(["sum", "mean", "amax", "prod", "argmax", "any", "var", "max", "logsumexp", "min"])
        if v.dtype == "bool":
            name = self.rng.choice(["any", "all", "sum"])
        if v.whole and name in ("mean", "var", "logsumexp"):
            name = "sum"
        if name in ("logsumexp",) and not v.shape:
            name = "sum"
        dtype = (
            "int64"
            if name == "argmax" or (name in ("sum", "prod") and not v.real)
            else "bool"
            if name in ("any", "all")
            else v.dtype
        )
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
        dtype = joined(v.dtype, o.dtype)
        if self.chance(0.5):
            self.new(
                f"graphc.cat([{v.name}, {o.name}], {d})",
                (*v.shape[:d], 2 * v.shape[d], *v.shape[d + 1 :]),
                dtype,
                v.grad or o.grad,
            )
        else:
            self.new(
                f"graphc.stack([{v.name}, {o.name}], {d})", (*v.shape[:d], 2, *v.shape[d:]), dtype, v.grad or o.grad
            )

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
        if kind == "conv":
            text = f"F.conv2d({image}, {image}[:, :, :1, :1], padding=1)"
            self.new(text, (1, 1, h + 2, w + 2), v.dtype, v.grad)
        elif kind == "pad":
            self.new(f"F.pad({image}, (1, 0, 1, 2), value=-1.0)", (1, 2, h + 3, w + 1), v.dtype, v.grad)
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
            "randn": f"graphc.randn({', '.join(map(str, v.shape))}, dtype=graphc.{v.dtype}) * {v.name}"
            if v.shape
            else f"graphc.rand_like({v.name})",
            "bernoulli": f"graphc.bernoulli({v.name}.detach().sigmoid())",
        }[kind]
        self.new(text, v.shape, v.dtype, v.grad and kind in ("dropout", "randn"))
