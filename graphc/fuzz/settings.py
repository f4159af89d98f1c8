"""What lies around the function and changes between its calls, in random programs; arguments made of one array.

A function in the state of a program is called with the number of each call before it: `swing(call)` sets everything
it knows anew, so that the same calls in a row find the same.
"""

from __future__ import annotations

from graphc.fuzz.parts import KIND, Parts, Var

HELD = """class Held:
    bias = 0.25

    def __init__(self):
        self.rate = 0.5


"""
PAIRS = (
    ("1", "True"), ("True", "1.0"), ("1", "1.0"), ("0.0", "-0.0"), ("2", "3"), ("0.5", "0.25"), ("0", "False"),
    ("-0.0", "0"), ("2", "2.0"), ("0.5", "graphc.nan"), ("(1, 2)", "(1, 3)"), ("None", "0"), ("'a'", "'b'"),
)  # fmt: skip
# when the second value holds: from a call on, on one call, on every other
WHEN = ("call > 2", "call == 3", "call > 3", "call % 3 == 2", "call == 1", "call > 0")


class Settings(Parts):
    """Numbers, containers, flags, gradients and tensors that others change between calls."""

    read: str = ""  # how a setting is read

    def outer_state(self) -> None:
        super().outer_state()
        if self.follow is not None and self.chance(0.22):
            self.surroundings()

    def inputs(self) -> list[tuple[str, str]]:
        args = super().inputs()
        return self.shared_arrays(args) if self.follow is not None and self.chance(0.06) else args

    def surroundings(self) -> None:
        """One thing that changes between the calls of a program."""
        kind = self.rng.choice(["dict", "attribute", "list", "gradient", "tensor", "grown", "class", "random", "layer"])
        when = self.rng.choice(WHEN)
        a, b = self.rng.choice(PAIRS)
        if kind == "dict":
            self._swinging(["table = {'rate': " + a + ", 'on': True}"], f"table['rate'] = {b} if {when} else {a}")
            self.read = "table['rate']"
        elif kind in ("attribute", "class"):
            self._need_held()
            self._swinging(["held = Held()"], f"{'held.rate' if kind == 'attribute' else 'Held.bias'} = {b} if {when} "
                           f"else {a}")  # fmt: skip
            self.setup.append(f"{'held.rate' if kind == 'attribute' else 'Held.bias'} = {a}")
            self.read = "held.rate" if kind == "attribute" else "held.bias"
        elif kind in ("list", "grown"):
            other = f"[{b}, 2]" if kind == "list" else f"[{a}, 2, 0.5]"
            self._swinging([f"rates = [{a}, 2]"], f"rates[:] = {other} if {when} else [{a}, 2]")
            self.read = "rates[0]" if kind == "list" else "rates[-1]"
        elif kind == "random":
            self.imports.append("import random")
            self._swinging(["random.seed(0)"], f"random.seed({self.rng.choice(['call', '0'])})")
            self.read = "random.random()"
        else:
            self._tensors(kind, when)

    def _need_held(self) -> None:
        if HELD not in self.header:
            self.header.append(HELD)
        if self.follow is not None:
            self.follow.names["Held"] = type("Held", (), {"bias": 0.25, "rate": 0.5})

    def _swinging(self, setup: list[str], line: str) -> None:
        """Lines of the setup, and what sets things anew before each call."""
        self.setup += [*setup, "def swing(call):", f"    {line}"]
        self.state.append("swing")

    def _tensors(self, kind: str, when: str) -> None:
        """A gradient that comes and goes, a tensor replaced by another, a layer that trains or does not."""
        if kind == "layer":
            self._swinging(["drop = nn.Dropout(0.5)"], f"drop.train({when})")
            self.read = "drop"
            return
        text = self.fill((2, 3), "float32")
        if kind == "gradient":
            if not self.params:
                self.setup.append(f"w0 = nn.Parameter({text})")
                self.state.append("w0")
                self.params.append("w0")
                self.vars.append(Var("w0", (2, 3), "float32", True, True, False, True))
            p = next((p for p in self.params if p.startswith("w")), None)
            if p is not None:
                when = self.rng.choice([when, "call > -1"])  # always None: each call makes new gradients
                self._swinging([], f"{p}.grad = None if {when} else graphc.ones_like({p}).detach()")
                self.read = f"{p}.grad"
            return
        self._need_held()
        self._swinging(
            [f"one, two = {text}, {self.fill((2, 3), 'float32')}", "held = Held()", "held.rate = one"],
            f"held.rate = two if {when} else one",
        )
        self.state += ["one", "two"]
        self.read = "held.rate"

    def setting(self) -> None:
        """A statement that reads what changes."""
        v = self.pick_any(lambda v: KIND[v.dtype] < 3 and v.size > 0)
        n, r = v.name, self.read
        if not r or self.depth > 2:
            return
        if r.endswith(".grad"):
            self._accumulate(r.removesuffix(".grad"), v)
            return
        if r == "drop":
            self.made(f"drop({n})")
            return
        forms = [f"{n} * {r}", f"{n} + {r}", f"{n} * {r}", f"graphc.full((2,), {r})", f"graphc.tensor([{r}, 2])"]
        forms += [f"({n} * 2 if {r} else {n} + 1)", f"graphc.maximum({n}, graphc.tensor({r}))", f"{n}.sum() * {r}"]
        if r.endswith("[-1]"):
            forms += [f"{n} * len({r[:-4]})", f"{n} + sum({r[:-4]}[1:])"]
        if r.startswith("table"):
            forms += [f"{n} * len(table)", f"{n} + (1 if {r} is True else 2)", f"{n} * (2 if type({r}) is int else 3)"]
        text = self.rng.choice(forms)
        made = self.name()
        if any(word in text for word in (" if ", "sum(", "random")):
            self.lines.append("    " * self.depth + f"{made} = {text}")
            self.bind(made, f"{n} * 2", v)
            self.extra.append(made)
            return
        found = self.made(text)
        if found is not None:
            self.extra.append(found.name)

    def _accumulate(self, p: str, v: Var) -> None:
        """Add to a gradient that comes and goes."""
        if self.no_grad == 0:
            by = f"{v.name}.detach().float().sum()"
            self.say(f"({p} * {self.rng.choice([p, by, '2'])}).sum().backward()")

    def shared_arrays(self, args: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Two arguments in the memory of one array: they overlap, lie side by side, or are the same."""
        if "import numpy as np" not in self.imports:
            self.imports.append("import numpy as np")
        dtype = self.rng.choice(["float32", "float32", "int32", "float64"])
        self.setup.append(f"whole = np.arange(12, dtype=np.{dtype}) - 5")
        first, second = self.rng.choice([("[:6]", "[3:9]"), ("[:6]", "[:6]"), ("[:6]", "[6:]"), ("[::2]", "[1:7]")])
        for k, key in enumerate((first, second), 8):
            self.setup.append(f"a{k} = graphc.from_numpy(whole{key})")
            self.vars.append(Var(f"x{k}", (6,), dtype, outside=True))
        return [("x8", "a8"), ("x9", "a9"), *args]
