"""Random programs of the kind users write, as Python source that is imported and run.

`source(seed)` is a module with `make() -> (f, args, state)`: `f` a function of tensors, a float and an int that mixes
arithmetic, views, writes, branches, gradients, modules and optimisers; `args` its arguments; `state` what it reaches
besides them. `python -m graphc.fuzz.programs SEED` prints one; `checks.check(seed)` compares its runs.
"""

from __future__ import annotations

import math
import sys
from dataclasses import replace

import numpy as np

from graphc.fuzz.effects import Effects
from graphc.fuzz.indices import Indices
from graphc.fuzz.layers import Layers
from graphc.fuzz.parts import KIND, MAX_ELEMENTS, REAL, WHOLE, Shape, Var, joined, promote, with_number
from graphc.fuzz.training import Training


class Gen(Training, Indices, Layers, Effects):
    """Writes one program."""

    def __init__(self, seed: int, effects: bool = False) -> None:
        super().__init__(seed)
        self.effects = effects

    # ---- statements

    def statement(self) -> None:
        weighted = [
            (self.unary, 5), (self.binary, 8), (self.views, 9), (self.writes, 9), (self.index, 4), (self.reduce, 4),
            (self.join, 2), (self.contract, 2), (self.randoms, 2), (self.item, 2), (self.branch, 2), (self.loop, 1),
            (self.detached, 1), (self.under_no_grad, 2), (self.backward, 2),
            (self.use_module, 3 if self.modules else 0), (self.gather, 2), (self.aug, 3), (self.rebind, 1),
            (self.spatial, 1), (self.gradient, 1), (self.inner_leaf, 1), (self.state_write, 2), (self.helper, 1),
            (self.early, 1), (self.clip, 1), (self.ordered, 3), (self.picked, 2), (self.low, 2), (self.layered, 2),
            (self.advanced, 3), (self.scattered, 3), (self.nested_views, 2), (self.penalty, 1), (self.custom, 1),
            (self.hooked, 1), (self.checkpointed, 1), (self.controlled, 1), (self.effect, 4 if self.effects else 0),
        ]  # fmt: skip
        choice = self.rng.choices([w[0] for w in weighted], [w[1] for w in weighted])[0]
        choice()

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

    def views(self) -> Var | None:
        v = self.pick(lambda v: bool(v.shape))
        if v is None:
            return None
        d, n = self.axis(v), v.name
        size = v.shape[d]
        kind = self.rng.choice(
            [
                "permute",
                "transpose",
                "slice",
                "slice",
                "step",
                "select",
                "narrow",
                "unsqueeze",
                "squeeze",
                "expand",
                "reshape",
                "view",
                "flatten",
                "chunk",
                "split",
                "T",
                "unbind",
                "none",
                "ellipsis",
            ]
        )
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
            longer = (k, *v.shape)
            return self.view(v, f"{n}.expand({', '.join(map(str, longer))})", longer, frozen=True)
        if kind in ("reshape", "view", "flatten"):
            other = tuple(self.factor(v.size)) if kind != "flatten" else (v.size,)
            if kind == "view" and self.chance(0.8):
                n = f"{n}.contiguous()"
            return self.view(v, f"{n}.{'reshape' if kind == 'flatten' else kind}({', '.join(map(str, other))})", other)
        if kind in ("chunk", "split", "unbind"):
            if size < 2:
                return None
            if kind == "unbind":
                return self.view(
                    replace(v, frozen=v.frozen or v.grad), f"{n}.unbind({d})[{self.rng.randrange(size)}]", rest
                )
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
        if t.whole:
            return self.rng.choice(["2", "1" if t.dtype == "uint8" else "-1", "3", "k"]), False
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
            value, grad = ("True" if t.dtype == "bool" else "2" if t.whole else self.number()), False
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
        key = {
            "int": str(self.rng.randrange(size)),
            "slice": f"{self.rng.randrange(size)}:",
            "step": "::2",
            "list": f"[0, {size - 1}]",
        }[kind]
        rest = (*t.shape[:d], *t.shape[d + 1 :])
        o = (
            self.pick(lambda o: o.shape == rest and KIND[o.dtype] <= KIND[t.dtype])
            if kind == "int" and self.chance(0.6)
            else None
        )
        if self.chance(0.3) and t.dtype != "bool":
            self.say(f"{t.name}[{lead}{key}] += {self.plain_value(t)}")
            return
        self.say(f"{t.name}[{lead}{key}] = {o.name if o else self.plain_value(t)}")
        self.written(t, o is not None and o.grad)

    def plain_value(self, t: Var) -> str:
        if t.dtype == "bool":
            return "True"
        return self.rng.choice(["2", "3" if t.dtype == "uint8" else "-1", "k"]) if t.whole else self.number()

    def reduce(self) -> None:
        v = self.pick()
        assert v is not None
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
        leaves = [v.name for v in self.rng.choices(self.vars[-8:], k=self.rng.choice([1, 1, 2, 3]))] + self.extra
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


def source(seed: int, effects: bool = False) -> str:
    """The program of a seed; with `effects`, one that also does what no graph holds."""
    return Gen(seed, effects).program()


if __name__ == "__main__":
    print(source(int(sys.argv[1])))
