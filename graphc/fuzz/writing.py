"""Views and writes in random programs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from graphc.fuzz.parts import KIND, Parts, Shape, Var


class Writing(Parts):
    """Views of memory, and writes to it."""

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
        if grad and not self.no_grad and self.follow is None:
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
