"""Forms that the passes have rules for, in random programs: what is rewritten, merged, folded, laid out, put in place.

A recipe is a few expressions; `{…}` stands for a tensor of the program or for what an earlier expression made (`{0}`),
`<a|b>` for one of several. A line that begins with `!` is a statement.
"""

from __future__ import annotations

import re

from graphc.fuzz.parts import REAL, WHOLE, Parts, Var

_CHOICE = re.compile(r"<([^<>]*\|[^<>]*)>")
_HOLE = re.compile(r"\{(\w+)\}")

# v, w: real tensors of one shape and dtype; z: one with zeros of both signs; t: v, of which some axis is long;
# i, j: whole numbers; b: flags like v
ARITHMETIC = (
    ("{z} + <0.0|-0.0|0|graphc.zeros_like({z})|-graphc.zeros_like({z})>",),
    ("<0.0|-0.0|0|1|-1> <+|-|*> {z}",),
    ("{z} - <0.0|-0.0|0|graphc.zeros_like({z})>",),
    ("{z} * <0|0.0|-0.0|1|-1|graphc.zeros_like({z})|graphc.ones_like({z})>",),
    ("{v}.sum() * <0|1|-1|graphc.zeros_like({v}.sum())>",),
    ("{z} * graphc.<zeros|ones|zeros>_like({z})",),
    ("({z} / {z}).<amax|amin|max|min|argmax|sum>(<0|-1>)",),
    ("{v} / <3|0.1|7|-6|0.5|-4|1|1e-30|5.5|graphc.full_like({v}, 3)|(k + 2)>",),
    ("{v} <+|-> (-{w})",),
    ("(-{v}) <+|-> {w}",),
    ("-({v} <+|-> {w})",),
    ("-(-{v})", "{0} + {v}"),
    ("(<-{v}|{v}.abs()|{v}.neg()>).<abs|relu|neg|square>()",),
    ("{v}.relu().<relu|neg|abs>()",),
    ("graphc.<maximum|minimum>({v}, <{v}|{w}|-{v}>)",),
    ("{v}.<floor|ceil|trunc|round>().<floor|ceil|trunc|round>()",),
    ("{v} * {w} <-|+> {w} * {v}",),
    ("{i} <+|-|*|//|%> <0|1|-1|2|-3|{j}>",),
    ("({i} * 7 - 3) // <3|-3|4>", "({i} * 5 + 1) % <4|-4|3>"),
    ("{i} ** <0|1|2>",),
    ("{i} <&|^> <0|-1|1|{i}|{j}>",),
    ("<~~{i}|-(-{i})|(-{i}).abs()>",),
    ("{i} << ({j} % 70)",),
    ("{i} >> ({j} % 70)",),
    ("({i} - 2) // ({j} % 4)",),
    ("{b} <&|^> <True|False|{b}>",),
    ("graphc.where(~{b}, {v}, {w})",),
    ("graphc.where({b}, {v}, <{v}|0.0|-0.0|{w}>)",),
    ("graphc.where(~({v} > 0), <{w}|1.0>, {v})",),
    ("{v}.to(graphc.<D>).to(graphc.<D>)",),
    ("{v}.to(graphc.<D>).to(graphc.<D>).to({v}.dtype)",),
    ("{i}.to(graphc.<D>).to(graphc.<D>)",),
    ("({v} * <1e3|1e10|-1e20>).to(graphc.<W>)",),
    ("{v}.abs() * <1e3|1e12> + 300", "{0}.to(graphc.<int8|int16|int32|uint8>)", "(-{0}).to(graphc.<W>)"),
    ("(-{v}).<relu|abs|neg|square|sigmoid>()", "{v}.neg().<relu|relu|exp|sign>()"),
    ("({v}.nan_to_num().clamp(-9, 9).round() + <257|259.0|2051>).to(graphc.<bfloat16|float16>)",),
    ("{v}.to(graphc.bfloat16) + <257|1.00390625|0.50390625>",),
    ("graphc.arange<(5000000000, 5000000006)|(2147483645, 2147483652)|(-2147483652, -2147483646)>.cumsum(0)",),
    ("{i}.long() <+|-|*|//|%> <5000000000|-2147483649|4294967296>",),
    ("({i}.long() * 3000000000).clamp(<-5000000000|0>, <5000000001|4294967297>)",),
    ("graphc.full((<3|5>,), <5000000000|-2147483649>) + {i}.sum()",),
    ("{b}.to(graphc.<D>).to(graphc.<D>)",),
)
MOVEMENT = (
    ("{v}.permute<P>.permute<P>",),
    ("{v}.permute<P>.exp().permute<P>",),
    ("{q}.permute<P>.permute<P>",),
    ("{q}.transpose(0, 1).transpose(<1|0>, 2)", "{0} + {q}"),
    ("{v}<S><S>",),
    ("{v}<S> * 2",),
    ("{v}.reshape(-1).repeat(9)[<0|1|2>::<2|3>][<1|2|3>:<|-1>:<|2>]",),
    ("{v}.flip<A>.flip<A>",),
    ("{v}.roll(1, 0).roll(<-1|2>, 0)",),
    ("F.pad({v}, <(0, 0)|(1, 0)|(0, 1)|(0, 2)|(1, 1)>)<| * 2|.exp()>",),
    ("graphc.cat([{v}, {v}[:0], <{w}|{v}[:1]>], 0)",),
    ("graphc.cat([{v}[:0], {v}], 0)",),
    ("{v}.unsqueeze(<0|-1>).<sum|amax|prod>(<0|-1>)",),
    ("{v}[None].<sum|amin>(0)",),
    ("{v}.transpose(0, -1).reshape(-1)",),
    ("{v}.transpose(0, -1).reshape(-1).reshape({v}.shape) + {v}",),
    ("{v}<S>.reshape(-1).exp()",),
    ("{v}[None].expand(<2|3>, *{v}.shape).<sum(0)|reshape(-1)>",),
    ("{v} * {v}.reshape(-1)[:1]",),
    ("{v} + {v}.reshape(-1)[0]",),
    ("{v} - {v}<[:1]|[..., :1]>",),
    ("{v}.reshape(-1)<[:1]|[-1:]>.expand(<3|5>) * graphc.arange(<3|5>)",),
    ("{v}.clone().clone()", "{0} * 2"),
    ("{v}.diagonal(0, 0, -1) * 2",),
)
PAIRS = (
    ("{v}.<R>(<0|-1>)", "{v}.<R>(<-1|0>)"),
    ("{v}.sum(0)", "{v}.sum(<-1|0>, keepdim=True)"),
    ("{v}<S>", "{v}<S>", "{0}.sum() + {1}.sum()"),
    ("{v}.flip<A>", "{v}.flip<A>", "{0} - {1}"),
    ("{v}.cumsum(0)", "{v}.cumsum(-1)", "{0} * {1}"),
    ("{v}.softmax(0)", "{v}.softmax(-1)", "{0} - {1}"),
    ("{v}.permute<P>", "{v}.permute<P>", "{0}.reshape(-1) - {1}.reshape(-1)"),
    ("{v}.to(graphc.<D>)", "{v}.to(graphc.<D>)"),
    ("F.pad({v}, (1, 0))", "F.pad({v}, (0, 1))", "{0} - {1}"),
    ("{v}.argmax(<0|-1>)", "{v}.argmin(<0|-1>)"),
    ("{v} * 0.0", "{v} * -0.0"),
    ("{v} + 2", "{v} + 3", "{0} * {1}"),
    ("{v} * <0.1|3>", "{w} * <0.3|7>"),
    ("{v}.clamp(-1, 1)", "{v}.clamp(-1, 2)", "{0} + {1}"),
    ("F.leaky_relu({v}, 0.1)", "F.leaky_relu({v}.cumsum(0), 0.3)"),
    ("{v}.cumsum(0).clamp(-0.5, 0.5)", "{v}.cumsum(-1).clamp(-1.5, 2.5)"),
    ("F.pad({v}, (1, 0), value=0.5)", "F.pad({v}.cumsum(0), (1, 0), value=-2.5)"),
    ("F.elu({v}, 0.5)", "F.elu({v}.sum(0), 1.5)"),
    ("F.softplus({v}, 2.0)", "F.softplus({v}.sum(-1), 3.0)"),
)
FOLDED = (
    ("graphc.linspace(<-3|0.1>, 4, <9|33>, dtype=graphc.<float32|float64>).<exp|log|sin|tanh|sigmoid|erf|sqrt|cos>()",),
    ("graphc.tensor([0.1, 0.7, -1.3, 2.9, 11.5]).<exp|sin|tanh|sigmoid|erf|cos|softmax(0)>()" + " * {v}.sum()",),
    ("graphc.full((2, 3), 0.3).<exp|sin|tanh>() + {v}.mean()",),
    ("(graphc.arange(<7|33>) * <0.37|0.01>).<exp|cos|tanh>().sum()",),
    ("graphc.arange(5).cumsum(0) * graphc.ones(5, dtype=graphc.int64) - {v}.numel()",),
    ("graphc.tensor([-0.0, 0.0, 1.0]) + <0.0|-0.0>",),
    ("graphc.tensor([0.1, 0.7, -1.3, 2.9, 11.5, -7.7, 3.3, 0.01]).to(graphc.<float32|float64>).<exp|sigmoid|tanh>()",),
)
# y: what may be written
WRITTEN = (
    ("!{y}.add_({y}.flip(0))",),
    ("!{y}.copy_({y}.transpose(0, -1))",),
    ("!{y}.sub_({y}.<mean|amax>(<0|-1>, keepdim=True))",),
    ("!{y}.mul_({y}.sum())",),
    ("{y}.cumsum(0)", "!{y}.add_(<1|{0}>)"),
    ("{y}.sum(-1)", "!{y}.mul_(2)", "{y}.sum(-1)", "{0} - {1}"),
    ("{y} * 2", "!{y}.copy_({0}.flip(<0|-1>))", "{y} + {0}"),
    ("{y}.flip(0)", "!{y}.add_(1)", "{0} + {y}"),
    ("{y}.clone()", "!{y}.copy_({x})", "!{x}.copy_({0})", "{x} - {y}"),
    ("{y} + {x}", "!{y}.copy_({x} * 2)", "!{x}.copy_({0})"),
    ("!{y}.copy_({x}.cumsum(0))", "!{x}.copy_({y}.cumsum(-1))"),
    ("{y}.detach().clone()", "!{y}.zero_()", "{0} + {y}"),
    ("{y} * 2", "({0}.cumsum(0) * {y}).cumsum(-1)", "!{y}.copy_({0})"),
    ("{y} - {y}.mean(-1, keepdim=True)", "({0} * {y}).sum(-1)", "!{y}.copy_({0})"),
    ("{y}.cumsum(0)", "{v}.cumsum(-1)", "{0}.sum(0)", "{1}.sum(0)", "!{y}.<add_(1)|mul_(2)>"),
    ("{v} @ {v}.transpose(0, -1)", "{0} @ {0}", "!{y}.add_(1)", "{y}.sum() + {0}.sum()"),
    ("{y}.softmax(-1)", "!{y}.copy_({0} - {0}.sum(-1, keepdim=True))"),
)
# c: three axes; q: three of one size
LAID = (
    ("{c}.exp()", "{0}.transpose(0, 1)", "{1}.cumsum(-1)", "{0}.cumsum(0)"),
    ("{c} * 2", "{0}.transpose(0, 1).cumsum(0)", "{0}.cumsum(-1)", "{0}.transpose(0, 1) + 1"),
    ("{c} @ {c}.transpose(-1, -2)", "{0}.transpose(0, 1).cumsum(0)", "{0}.softmax(-1)"),
    ("({c} + 1).permute<P>", "{0}.cumsum(0)", "{0}.reshape(-1)"),
    ("{c}.cumsum(0)", "{0}.transpose(0, 1).contiguous()", "{0} + 1", "{1}.sum(0)"),
    ("{c}.softmax(-1)", "{0}.transpose(0, 1).reshape(-1)", "{0} * 2"),
    ("{c}.softmax(-1)", "{0}.reshape(-1).cumsum(0)", "{0}.transpose(0, 1).cumsum(-1)"),
    ("{q}.softmax(-1)", "{0}.transpose(0, 1).cumsum(0)", "{0}.cumsum(0)", "{1} + {2}"),
    ("({v}.exp() + 1).sin().tanh()", "{0} + {0}.flip(0)", "{0}.sum(0)"),
    ("{v}.softmax(-1)", "{0} - {0}.<flip(0)|roll(1, -1)|flip(-1)>", "{0} * 2"),
    ("{v}.cumsum(0).flip(0).cumsum(0).cumsum(-1)",),
    ("{v}.cumsum(0).<roll(1, 0)|flip(-1)>.softmax(-1).cumsum(0)",),
    ("{v}.cumsum(0)", "{0} - {0}.sum(-1, keepdim=True)", "({1} * {0}).sum(-1, keepdim=True)", "{1}.cumsum(0)"),
    ("{v}.cumsum(-1)", "({0} - {0}.flip(-1)).cumsum(0)", "{1}.cumsum(-1)"),
    ("({v}.cumsum(0) * {v}.cumsum(0).flip(0)).cumsum(-1)", "{0}.cumsum(0)"),
)
# what kernels of their own make of square tensors
STEPS = (
    "{a} @ {b}", "{a}.cumsum(0)", "{a}.softmax(-1)", "{a}.sum(0, keepdim=True) * {b}", "{a}.t().cumsum(-1)",
    "{a} - {b}.t()", "graphc.cat([{a}, {b}])[::2]", "{a}.flip(0) + {b}", "{a}.sum(-1).cumsum(0) + {b}",
)  # fmt: skip
RECIPES = (*ARITHMETIC, *MOVEMENT, *PAIRS, *FOLDED, *WRITTEN, *LAID)
# L: many rows or a long row; K: a very long one; what is made of it is cut to a few elements
EDGES = (
    "{L}.cumsum(-1)[..., -3:]", "{L}.<sum|mean|prod|logsumexp>(-1)[-4:]", "{L}.softmax(-1)[..., -3:]",
    "{L}.<amax|amin|argmax|argmin>(-1)[-4:]", "({L} * 2 + 1)[..., -2:]", "({L} @ {L}.t())[:3, -3:]", "{L}.var(-1)[-3:]",
    "{L}.t().<sum|amax|argmax>(-1)[-5:]", "{L}.<sum|amax|argmax>(0)[-5:]", "{L}.cumsum(0)[-1, -4:]",
    "graphc.zeros(7, dtype={L}.dtype).index_add_(0, graphc.arange({L}.shape[1]) % 7, {L}[0])",
    "{L}.exp().t().contiguous()[-3:, -1]", "{L}.flip(1)[..., :3] + {L}[..., -3:]", "({L} - {L}.mean(-1, keepdim=True))"
    "[..., -2:]", "{L}.cummax(-1).values[..., -3:]", "{L}[:, ::2].sum(-1)[-3:]", "({L}.t() @ {L})[-2:, :3]",
    "({L} > 0).sum(<0|1>)[-4:]", "F.layer_norm({L}, ({L}.shape[1],))[..., -3:]", "{L}.sum()", "{L}.relu().t()[-3:, -1]",
    "{L}.reshape(-1)[1:].cumsum(0)[-3:]", "{K}.<cumsum|cumsum|cumprod>(0)[-5:]", "{K}.sum()", "{K} @ {K}",
    "({L} * 2 + 1).<sum|prod|amax|mean>(<-1|-1|0>)[-4:]",
    "{L}.index_select(0, graphc.arange({L}.shape[0]).flip(0))[:2, -3:]",
)  # fmt: skip
LONG = (31, 32, 33, 63, 65, 511, 512, 513, 1023, 1024, 1025)


class Idioms(Parts):
    """Statements that the passes have rules for."""

    def idiom(self, turn: int | None = None) -> None:
        """A few lines that a pass rewrites, or must not: recipe number `turn`, or any."""
        self.written_out(self.rng.choice(RECIPES) if turn is None else RECIPES[turn % len(RECIPES)])

    def edge(self, turn: int | None = None) -> None:
        """Sizes at the edges of the kernels' blocks: case number `turn`, or any."""
        self.made(self._filled(self.rng.choice(EDGES) if turn is None else EDGES[turn % len(EDGES)], {}))

    def many(self) -> None:
        """Values that no kernel shares, alive together: each is used by some that come later."""
        v = self.pick(lambda v: v.real and bool(v.shape) and 1 < v.size <= 64)
        if v is None:
            return
        n = v.shape[-1]
        square = self.made(f"{self.repeated(v, (n, n))} * 0.5")
        if square is None:
            return
        made = [square.name]
        for _ in range(self.rng.choice([3, 5, 8])):
            a, b = self.rng.choices(made[-4:], k=2)
            found = self.made(self.rng.choice(STEPS).format(a=a, b=b))
            if found is not None and found.shape == square.shape:
                made.append(found.name)
        self.made(" + ".join(self.rng.sample(made, min(len(made), 4))))

    def written_out(self, recipe: tuple[str, ...]) -> None:
        """The lines of a recipe; those that do not work are left out, and with them what needs them."""
        names: dict[str, str] = {}
        for text in recipe:
            line = self._filled(text.removeprefix("!"), names)
            if text.startswith("!"):
                self.say(line)
                self.refresh()
                continue
            found = None if "{" in line else self.made(line)
            if found is not None:
                names[str(sum(k.isdigit() for k in names))] = found.name
                if self.chance(0.3):
                    self.extra.append(found.name)

    def _filled(self, text: str, names: dict[str, str]) -> str:
        """A line with tensors and choices filled in; the same letter is the same tensor in all lines."""
        for name in _HOLE.findall(text):
            if name not in names and not name.isdigit():
                names[name] = self._hole(name, names)
        first = names.get("v") or names.get("c") or names.get("y")
        found = [v for v in self.vars if v.name == first]
        axes = len(found[0].shape) if found else 3 if "c" in names or "q" in names else 1
        text = re.sub("<([DWRPSA])>", lambda m: self._part(m[1], axes), text)
        while (choice := _CHOICE.search(text)) is not None:
            text = text[: choice.start()] + self.rng.choice(choice[1].split("|")) + text[choice.end() :]
        return _HOLE.sub(lambda m: names.get(m[1], m[0]), text)

    def _part(self, letter: str, axes: int) -> str:
        """A dtype, a whole dtype, a reduction, an order of axes, a slice or some axes."""
        if letter == "P":
            return f"({', '.join(map(str, self.rng.sample(range(axes), axes)))})"
        if letter == "A":
            return str(tuple(self.rng.sample(range(axes), self.rng.randrange(1, axes + 1)) if axes else ()))
        if letter == "S":
            start, step = self.rng.choice(["", "1", "1", "2", "-3"]), self.rng.choice(["", "1", "2", "2", "3"])
            return f"[{':, ' * self.rng.choice([0, max(axes - 1, 0)])}{start}:{self.rng.choice(['', '', '-1'])}:{step}]"
        if letter == "R":
            return self.rng.choice(["sum", "amax", "mean", "argmax", "prod", "logsumexp", "var"])
        return self.rng.choice(WHOLE if letter == "W" else ["bool", *REAL, *REAL, *WHOLE])

    def _hole(self, name: str, names: dict[str, str]) -> str:
        """A tensor of the program for a letter; one that is made up where there is none."""
        if name in ("L", "K"):
            return self._long(name)
        if name in ("i", "j"):
            return self._whole(names.get("i"))
        if name == "b":
            return self._flags(names)
        if name in ("y", "x"):
            return self._writable(names.get("y"))
        if name in ("v", "z") and "v" not in names:
            v = self.pick(lambda v: v.real and bool(v.shape)) or self.pick(lambda v: v.real)
            names["v"] = v.name if v is not None else "graphc.tensor([0.5, -0.0, -1.5])"
        if name == "z":
            forms = ["{} * 0.0", "{} * -0.0", "-{}.relu()", "{}.trunc()", "{}", "-{}", "{}.round()"]
            return f"({self.rng.choice(forms)})".format(names["v"]) if self.chance(0.8) else names["v"]
        if name == "w":
            like = next((v for v in self.vars if v.name == names["v"]), None)
            other = self.pick(lambda v: like is not None and (v.shape, v.dtype) == (like.shape, like.dtype))
            return other.name if other is not None and other is not like else f"({names['v']} * 0.5 + 1)"
        if name == "q":
            v = self.pick(lambda v: v.real)
            return f"({self.repeated(v, (3, 3, 3))})" if v is not None else "graphc.ones(3, 3, 3)"
        if name == "c":
            v = self.pick(lambda v: v.real and len(v.shape) == 3 and v.size > 6)
            v = v or self.pick(lambda v: v.real)
            if v is None:
                return names.setdefault("v", "graphc.ones(2, 3, 4)")
            return v.name if len(v.shape) == 3 else f"({self.repeated(v, (2, 3, 4))})"
        return names["v"]

    def _long(self, name: str) -> str:
        v = self.pick(lambda v: v.real) or self.pick()
        n = self.rng.choice(LONG)
        rows = self.rng.choice([1, 2, 3, 33]) if n > 100 else self.rng.choice([1, 2, 9, 33])
        shape: tuple[int, ...] = (rows, n) if self.chance(0.7) else (n, rows)
        if name == "K":
            shape = (self.rng.choice([2048, 2049, 3000, 4097]),)
        if v is None:
            return f"graphc.ones{shape}"
        return f"({self.repeated(v, shape)})"

    def _whole(self, other: str | None) -> str:
        like = next((v for v in self.vars if v.name == other), None)
        v = self.pick(lambda v: v.whole and (like is None or v.shape in (like.shape, ())))
        if v is not None and (other is None or self.chance(0.6)):
            return v.name
        return other or f"graphc.tensor([-7, 0, 3, 66, 5], dtype=graphc.{self.rng.choice(WHOLE[1:])})"

    def _flags(self, names: dict[str, str]) -> str:
        like = self._known(names)
        v = self.pick(lambda v: v.dtype == "bool" and (like is None or v.shape == like.shape))
        return v.name if v is not None else f"({names.get('v') or like.name if like else 'graphc.ones(3)'} > 0)"

    def _known(self, names: dict[str, str]) -> Var | None:
        if "v" not in names:
            v = self.pick(lambda v: v.real)
            if v is None:
                return None
            names["v"] = v.name
        return next((v for v in self.vars if v.name == names["v"]), None)

    def _writable(self, other: str | None) -> str:
        """What may be written; the second one of the same shape and dtype, if there is one."""
        like = next((v for v in self.vars if v.name == other), None)
        v = self.pick(
            lambda v: v.real and bool(v.shape) and not v.frozen and not v.leaf and v.name != other
            and (like is None or (v.shape, v.dtype) == (like.shape, like.dtype))
        )  # fmt: skip
        return v.name if v is not None else other or "graphc.ones(2)"

    def repeated(self, v: Var, shape: tuple[int, ...]) -> str:
        """The elements of `v`, over and over, in a shape."""
        raise NotImplementedError
