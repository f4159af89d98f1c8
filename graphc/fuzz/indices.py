"""Indices, masks, orders and views of views in random programs."""

from __future__ import annotations

from graphc.fuzz.parts import KIND, Parts, Var


class Indices(Parts):
    """Reading and writing at places that other tensors say."""

    def gather(self) -> None:
        v = self.pick(lambda v: bool(v.shape))
        if v is None:
            return
        d = self.axis(v)
        i = self.pick(lambda i: i.dtype == "int64" and len(i.shape) == 1)
        if i is None:
            self.new(f"graphc.arange({v.shape[d]}) * 2 % {v.shape[d]}", (v.shape[d],), "int64")
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

    def ordered(self) -> None:
        v = self.pick(lambda v: bool(v.shape) and v.dtype != "bool")
        if v is None:
            return
        d = self.axis(v)
        kind = self.rng.choice(["sort", "argsort", "cumsum", "cummax", "cumprod", "median"])
        if kind == "sort":
            self.new(f"{v.name}.sort(dim={d}, stable=True).values", v.shape, v.dtype, v.grad)
        elif kind == "argsort":
            self.new(f"{v.name}.argsort(dim={d}, stable=True, descending=True)", v.shape, "int64")
        elif kind == "cummax":
            self.new(f"{v.name}.cummax({d}).values", v.shape, v.dtype, v.grad)
        elif kind == "median":
            self.new(f"{v.name}.median({d}).values", (*v.shape[:d], *v.shape[d + 1 :]), v.dtype, v.grad)
        else:
            self.new(f"{v.name}.{kind}({d})", v.shape, v.dtype, v.grad)

    def picked(self) -> None:
        """Sizes that depend on values."""
        v = self.pick(lambda v: bool(v.shape) and v.dtype != "bool")
        if v is None:
            return
        n = self.name("n")
        forms = [f"{v.name}[{v.name} > 0].sum()", f"({v.name}[{v.name} < s] * 2).sum()", f"{v.name}.unique().sum()"]
        if self.chance(0.25):
            self.say(f"{n} = {v.name}[{v.name} > 0].shape[0]")
            self.new(f"{v.name} * {n}", v.shape, v.dtype, v.grad)
        elif self.chance(0.2):
            self.new(f"graphc.nonzero({v.name}).sum()", (), "int64")
        else:
            self.new(self.rng.choice(forms), (), v.dtype, v.grad)

    def places(self, size: int, n: int | None = None) -> tuple[str, int]:
        """An index tensor of one axis for an axis of `size`, and how many places it has."""
        i = self.pick(lambda i: i.dtype in ("int64", "int32") and len(i.shape) == 1 and n in (None, i.shape[0]))
        if i is not None and self.chance(0.6):
            return f"({i.name} % {size})", i.shape[0]
        n = n or self.rng.choice([1, 2, 3])
        listed = [self.rng.randrange(-size, size) for _ in range(n)]
        return f"graphc.tensor({listed})", n

    def mask(self, v: Var) -> str:
        m = self.pick(lambda m: m.dtype == "bool" and m.shape == v.shape)
        return m.name if m is not None else f"~{v.name}" if v.dtype == "bool" else f"({v.name} > 0)"

    def advanced(self) -> None:
        """Several index tensors, or a mask and an index, or a new axis between."""
        v = self.pick(lambda v: len(v.shape) >= 2)
        if v is None:
            return
        i, n = self.places(v.shape[0])
        j, _ = self.places(v.shape[1], n)
        j2, m = self.places(v.shape[1])
        rest = v.shape[2:]
        kind = self.rng.choice(["pair", "outer", "slice", "none", "last", "int", "take"])
        text, shape = {
            "pair": (f"[{i}, {j}]", (n, *rest)),
            "outer": (f"[{i}[:, None], {j2}]", (n, m, *rest)),
            "slice": (f"[1:, {j2}]", (v.shape[0] - 1, m, *rest)),
            "none": (f"[{i}, None, {j}]", (n, 1, *rest)),
            "last": (f"[..., ({self.places(v.shape[-1], n)[0]})]", (*v.shape[:-1], n)),
            "int": (f"[{i}, -1]", (n, *rest)),
            "take": (f".take({self.places(v.size, n)[0]})", (n,)),
        }[kind]
        if 0 in shape:
            return
        self.new(f"{v.name}{text}", shape, v.dtype, v.grad)

    def scattered(self) -> None:
        """Writes at places, with values that may have gradients."""
        t = self.pick(lambda v: not v.frozen and (not v.leaf or self.no_grad > 0) and bool(v.shape))
        if t is None:
            return
        o = self.pick(lambda o: o.dtype == t.dtype and o.size >= t.size)
        value = f"{o.name}.reshape(-1)[:{t.size}].reshape({', '.join(map(str, t.shape))})" if o else f"{t.name}.clone()"
        one = "True" if t.dtype == "bool" else "2"
        i, _ = self.places(t.shape[0])
        first = f"graphc.zeros_like({t.name}, dtype=graphc.int64)"
        forms = [
            f"{t.name}[{self.mask(t)}] = {one}", f"{t.name}.masked_fill_({self.mask(t)}, {one})",
            f"{t.name}.masked_scatter_({self.mask(t)}, {value})", f"{t.name}[{i}] = {one}",
            f"{t.name}.index_fill_(0, {i}.long() % {t.shape[0]}, {one})", f"{t.name}.scatter_(0, {first}, {value})",
            f"{t.name}[{i}] = {value}[{i}]", f"{t.name}.index_put_(({i}.long(),), {value}[:1])",
            f"{t.name}[{self.mask(t)}] = {value}[{self.mask(t)}]",
        ]  # fmt: skip
        if t.dtype != "bool":
            forms += [
                f"{t.name}[{self.mask(t)}] *= 2", f"{t.name}[{i}] += {value}[{i}]",
                f"{t.name}.index_put_(({i}.long(),), {value}[{i}], accumulate=True)",
                f"{t.name}.scatter_add_(0, {first}, {value})",
                f"{t.name}.index_add_(0, {i}.long() % {t.shape[0]}, {value}[{i}])",
                f"{t.name}.put_(graphc.tensor([0, -1, 0]), {value}.reshape(-1)[:1].repeat(3), accumulate=True)",
            ]  # fmt: skip
        text = self.rng.choice(forms)
        if "= " in text and t.name[0] in "cw" and "] " not in text:
            return
        self.say(text)
        if o is not None and o.grad:
            self.written(t, True)

    def nested_views(self) -> None:
        """A view of a view is written in place; the base and other views see it."""
        v = self.pick(lambda v: len(v.shape) >= 2 and v.dtype != "bool")
        if v is None or self.depth > 2:
            return
        base = self.new(f"{v.name} * 1" if v.whole else f"{v.name} * 1.0", v.shape, v.dtype, v.grad)
        if base is None:
            return
        b, rows, columns = base.name, v.shape[0], v.shape[1]
        first, shape = self.rng.choice([
            (f"{b}.transpose(0, 1)", (columns, rows)), (f"{b}[{self.rng.randrange(rows)}:]", (None, columns)),
            (f"{b}[:, ::2]", (rows, None)), (f"{b}.unsqueeze(0)[0]", (rows, columns)),
            (f"{b}.flatten(0, 1)", (rows * columns, None)),
        ])  # fmt: skip
        a, c = self.name("a"), self.name("b")
        self.say(f"{a} = {first}")
        self.say(f"{c} = {a}{self.rng.choice(['[0]', '[-1]', '.transpose(0, -1)', '[None]', '[::2]'])}")
        factor = self.pick(lambda o: o.shape == () and KIND[o.dtype] <= KIND[v.dtype])
        by = factor.name if factor is not None and self.chance(0.6) else self.rng.choice(["2", "k"])
        self.say(c + self.rng.choice([f".mul_({by})", f" *= {by}", f".add_({a}.sum().detach())", f"[:] = {by}"]))
        if factor is not None and factor.grad and by == factor.name:
            self.written(base, True)
        if self.chance(0.5):
            self.say(f"{a}.{self.rng.choice(['mul_(3)', 'add_(1)', 'abs_()', f'copy_({a} * 2)'])}")
        if self.chance(0.5):
            self.new(f"{c}.sum() + {a}.sum()", (), v.dtype if v.real else "int64", base.grad)
        if shape == (columns, rows) and self.chance(0.5):
            text = f"{a} * {b}.t()" if len(v.shape) == 2 else f"{a} * 2"
            self.new(text, (columns, rows, *v.shape[2:]), v.dtype, base.grad)
