"""Forms of Python in random programs: arguments of every kind, functions, methods, generators, loops, errors."""

from __future__ import annotations

from graphc.fuzz.parts import Parts, Var

PACK = """@dataclass
class Pack:
    a: object
    b: object


"""
BOX = """class Box:
    step = 0.25

    def __init__(self, scale, deep):
        self.scale = scale
        self.table = {"on": True, "deep": deep, "rates": [0.5, 2]}

    def apply(self, t, power=1):
        out = t * self.scale
        if self.table["on"] and power > 1:
            out = out * self.table["rates"][power % 2]
        return out + self.step

    def down(self, t, n):
        return t if n <= 0 else self.down(t * 0.5 + n, n - 1)


"""
NET = """class Net(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(n, n), nn.Sequential(nn.LayerNorm(n), nn.GELU())])
        self.head = nn.Linear(n, 2)
        self.rate = 0.5
        self.register_buffer("seen", graphc.zeros(n))

    def forward(self, x):
        for k, layer in enumerate(self.layers):
            x = layer(x) * self.rate + (x if k else 0)
        if self.training:
            with graphc.no_grad():
                self.seen.mul_(0.9).add_(x.mean(0))
        return self.head(x + self.seen)


"""
SCALES = "SCALE = 0.75\nFACTORS = (2, 0.5, -1)\n\n\ndef scaled(t, k=1):\n    return t * SCALE * FACTORS[k % 3]\n\n\n"


class Forms(Parts):
    """What users write around operations."""

    def need(self, text: str) -> None:
        """A definition of the module, once."""
        if text not in self.header:
            self.header.append(text)

    # ---- arguments

    def contained(self, args: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Some tensors come in a container, and some arguments are no tensors."""
        tensors = [pair for pair in args if pair[0] not in ("s", "k")]
        if tensors and self.chance(0.25):
            inside = self.rng.sample(tensors, self.rng.randrange(1, len(tensors) + 1))
            args = [(f"d{self.count}", self._packed(inside)), *(x for x in args if x not in inside)]
        if self.chance(0.35):
            name, value = self.rng.choice(
                [
                    ("flag", "True"),
                    ("flag", "False"),
                    ("opt", "None"),
                    ("mode", "'plain'"),
                    ("flag", "1"),
                    ("flag", "'on'"),
                    ("mode", "'other'"),
                    ("dt", self.rng.choice(["graphc.float64", "graphc.float16"])),
                ]
            )
            args.append((name, value))
            self.options.append(name)
            if self.follow is not None:
                self.follow.names[name] = self.now(value)
        return args

    def _packed(self, inside: list[tuple[str, str]]) -> str:
        form = self.rng.choice(["list", "tuple", "dict", "nested", "dataclass"])
        p = f"d{self.count}"
        values = [v for _, v in inside]
        if form in ("list", "tuple"):
            keys = [f"[{k}]" for k in range(len(inside))]
            text = f"[{', '.join(values)}]" if form == "list" else f"({', '.join(values)},)"
        elif form == "dict":
            keys = [f"['{name}']" for name, _ in inside]
            text = "{" + ", ".join(f"'{name}': {value}" for name, value in inside) + "}"
        elif form == "nested":
            keys = [f"['deep'][{k}][0]" for k in range(len(inside))]
            text = "{'deep': [" + ", ".join(f"({v}, 2)" for v in values) + "], 'none': None}"
        else:
            self.need(PACK)
            if "from dataclasses import dataclass" not in self.imports:
                self.imports.append("from dataclasses import dataclass")
            keys = [".a"] + [f".b[{k}]" for k in range(len(inside) - 1)]
            text = f"Pack({values[0]}, [{', '.join(values[1:])}])"
        for (name, _), key in zip(inside, keys, strict=True):
            self.lines.append(f"        {name} = {p}{key}")
        return text

    # ---- statements

    def option(self) -> None:
        """A branch on an argument that is no tensor."""
        v = self.pick(lambda v: v.real)
        if v is None or not self.options or self.depth > 2:
            return
        name = self.options[0]
        if name == "dt":
            self.new(f"{v.name}.to(dt)", v.shape, "float64", v.grad)
            return
        test = {"flag": "flag", "opt": "opt is None", "mode": "mode == 'plain'"}[name]
        self.either(test, v)

    def either(self, test: str, v: Var) -> None:
        """One of two values, by a test."""
        made = self.name()
        one, two = self.rng.choice(
            [
                (f"{v.name} * 3", f"{v.name} - 1"),
                (f"-{v.name}", f"{v.name}.exp()"),
                (f"{v.name}.sum()", f"{v.name}.mean()"),
            ]
        )
        try:
            taken = bool(self.now(test))
        except Exception:
            taken = True
        self.lines.append("    " * self.depth + f"{made} = {one} if {test} else {two}")
        self.bind(made, one if taken else two, v)

    def asked(self) -> None:
        """A branch on what a tensor is, or on numbers."""
        v = self.pick(lambda v: v.real)
        o = self.pick()
        if v is None or o is None:
            return
        tests = [
            f"{o.name}.dtype == graphc.{v.dtype}",
            f"{o.name}.dim() > 1",
            f"{o.name}.shape == {v.name}.shape",
            f"len({o.name}.shape) == 2",
            f"{o.name}.is_contiguous()",
            f"{o.name}.requires_grad",
            "k > 1",
            "k == 1 and s > 0",
            f"{o.name}.numel() % 2",
            f"bool(({v.name} > 0).any())",
            "type(s) is float",
            f"{v.name}.sum() > s",
            f"int({o.name}.sum() != 0) == 1",
            f"{o.name}.is_floating_point()",
        ]
        self.either(self.rng.choice(tests), v)

    def raw(self, lines: list[str], made: str, text: str, v: Var) -> None:
        """Lines as they are, which make `made`; `text` is a simple form of it."""
        self.lines += ["    " * self.depth + line for line in lines]
        self.bind(made, text, v)

    def formed(self, turn: int | None = None) -> None:
        """One of the forms below: number `turn`, or any."""
        v = self.pick(lambda v: v.real and bool(v.shape))
        if v is None or self.depth > 2:
            return
        n, made, h = v.name, self.name(), self.name("h")
        rows = v.shape[0]
        forms: list[tuple[list[str], str]] = [
            ([f"{made} = graphc.stack([row * 2 + i for i, row in enumerate({n})])"], f"{n} * 2"),
            ([f"{made} = sum(row.sum() for row in {n}.unbind(0))"], f"{n}.sum()"),
            ([f"{made} = graphc.cat([p for p in ({n}, {n} * s) if p.dim() > 0], 0)"], f"graphc.cat([{n}, {n}])"),
            (
                [f"parts = {{'a': {n} + 1, 'b': {n} * 2}}", f"{made} = sum(parts[key] for key in sorted(parts))"],
                f"{n} * 3",
            ),
            (
                [
                    f"def {h}(first, *rest, factor=1, **options):",
                    "    for t in rest:",
                    "        first = first + t * factor",
                    "    return first * options.get('scale', 2)",
                    f"{made} = {h}({n}, {n}.sin(), factor=s, scale={self.number()})",
                ],
                f"{n} * 2.0",
            ),
            (
                [f"def {h}(a):", "    return lambda t: t * a + k", f"{made} = {h}({n}.detach().mean())({n})"],
                f"{n} * 2.0",
            ),
            (
                [
                    f"def {h}(t, n):",
                    "    if n == 0:",
                    "        return t",
                    f"    return {h}(t * 0.5 + 1, n - 1)",
                    f"{made} = {h}({n}, k + 1)",
                ],
                f"{n} * 0.5",
            ),
            (
                [
                    f"def {h}(t):",
                    "    for row in t:",
                    "        yield row * 2",
                    f"{made} = graphc.stack(list({h}({n})))",
                ],
                f"{n} * 2",
            ),
            (
                [
                    f"{made} = {n} * 1.0",
                    "rounds = 0",
                    f"while rounds < 3 and {made}.abs().amax() > 1:",
                    f"    {made} = {made} * 0.5",
                    "    rounds += 1",
                ],
                f"{n} * 0.5",
            ),
            (
                [f"{made} = {n} + 0", f"for i in range(int(({n} > 0).sum()) % 3):", f"    {made} = {made} * 2 + i"],
                f"{n} * 2",
            ),
            (
                [
                    f"{made} = {n} * 1",
                    f"for i in range({rows}):",
                    f"    {made}[i] = {made}[i] * (i + 1) + {made}[i - 1]",
                ],
                f"{n} * 2.0",
            ),
            (
                [
                    f"{made} = {n} * 2",
                    f"for i in range({rows}):",
                    f"    if ({n}[i] > 3).any():",
                    "        break",
                    f"    {made} = {made} + {n}[i]",
                ],
                f"{n} * 2",
            ),
            (["try:", f"    {made} = {n}.reshape(7777)", "except RuntimeError:", f"    {made} = {n} * 2"], f"{n} * 2"),
            ([f"if {n}.amax() > 1e38:", "    raise ValueError('too large')", f"{made} = {n} + 1"], f"{n} + 1"),
            ([f"assert {n}.shape[0] == {rows}", f"{made} = {n} - {n}.shape[0]"], f"{n} * 2"),
            ([f"a, *b = {n}.unbind(0)", f"{made} = a + len(b)"], f"{n}[0] * 2"),
            ([f"{made} = ({h} := {n} * 2) + {h}.sum()"], f"{n} * 2"),
            (
                [
                    f"{made} = {n}",
                    f"for f in (graphc.sin, F.relu, lambda t: t * {self.number()}):",
                    f"    {made} = f({made})",
                ],
                f"{n} * 1.0",
            ),
        ]
        lines, text = self.rng.choice(forms) if turn is None else forms[turn % len(forms)]
        self.raw(lines, made, text, v)

    def object_made(self) -> None:
        """Objects with attributes and methods, functions that read globals, nested modules."""
        v = self.pick(lambda v: v.real)
        if v is None or self.depth > 2:
            return
        form = self.rng.choice(["box", "inner", "down", "scales", "net"])
        made, n = self.name(), v.name
        if form == "scales":
            self.need(SCALES)
            self.raw([f"{made} = scaled({n}, {self.rng.choice(['k', '1', '2'])})"], made, f"{n} * 0.5", v)
        elif form == "net":
            self._net(v, made)
        else:
            self.need(BOX)
            if form == "inner":
                self.lines.append("    " * self.depth + f"box{made} = Box({self.number()}, [1])")
            elif not any("box = Box" in line for line in self.setup):
                self.setup.append(f"box = Box({self.rng.choice(['0.5', '2', '-1.5'])}, {{'x': (1, 2)}})")
            box = f"box{made}" if form == "inner" else "box"
            call = (
                f"{box}.down({n}, k)"
                if form == "down"
                else f"{box}.apply({n}, {self.rng.choice(['1', '2', 'power=k'])})"
            )
            self.raw([f"{made} = {call}"], made, f"{n} * 0.5", v)

    def _net(self, v: Var, made: str) -> None:
        """A module of modules with a buffer it writes."""
        if v.dtype != "float32":
            return
        self.need(NET)
        if not any("net = Net" in line for line in self.setup):
            self.setup.append("net = Net(3)")
            self.state.append("net")
            if self.chance(0.3):
                self.setup.append("net.eval()")
        line = f"{made} = net({self.repeated(v, (2, 3))})"
        self.raw([line], made, "graphc.ones(2, 2).requires_grad_() * 1", v)

    def repeated(self, v: Var, shape: tuple[int, ...]) -> str:
        """The elements of `v`, over and over, in a shape."""
        raise NotImplementedError

    def failing(self) -> None:
        """A statement that raises, in eager code as in compiled code."""
        v = self.pick_any()
        n = v.name
        self.lines.append(
            "    " * self.depth
            + self.rng.choice(
                [
                    f"{n}.reshape(7777, 3)",
                    f"{n} + graphc.ones(97, 89)",
                    "raise ValueError('as told')",
                    f"{n}.sum(dim=9)",
                    f"{n}.gather(0, graphc.tensor([10000]))",
                    "raise RuntimeError(f'at {k}')",
                    f"{n}.view(-1)[10000]",
                    f"{n}.no_such_method()",
                    f"graphc.cat([{n}.reshape(-1, 1), graphc.ones(3, 7)])",
                    f"{n} @ graphc.ones(97, 3)",
                    f"F.conv2d({n}, {n})",
                    f"{n}.flatten()[graphc.tensor(9999)]",
                    f"{n}.to(graphc.float32).backward()",
                ]
            )
        )
