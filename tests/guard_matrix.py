"""Random small functions that read a value they find somewhere, while the value is replaced or changed between calls.

A case takes a place (a global, a closure cell, an attribute, a default …), an expression, the way it is used (returned,
caught, a condition, in a helper …), some values of all kinds Python has, and changes of them in place. `run_case(seed)`
compares every call of the compiled function with the function itself: the result by type and bits, or the error.
`python -m tests.guard_matrix FROM TO` runs many.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import enum
import functools
import linecache
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc import nn
from graphc.nn import functional as F
from tests.matrix_runs import run_many

CALLS = 17
CHANGED = 0.4  # share of the calls before which the value is changed in place


class Color(enum.Enum):
    RED = 1
    BLUE = 2


class Plain:
    n: Any = 3

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    @classmethod
    def c(cls) -> Any:
        return cls.n

    @staticmethod
    def s() -> int:
        return 1


class Derived(Plain):
    n = 5


class Slotted:
    __slots__ = ("n", "t")

    def __init__(self, n: Any) -> None:
        self.n = n


class Equal:
    def __init__(self, n: int) -> None:
        self.n = n

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Equal) and other.n == self.n

    def __hash__(self) -> int:
        return hash(self.n)

    def __len__(self) -> int:
        return self.n

    def __bool__(self) -> bool:
        return self.n > 2


class Caller:
    def __init__(self, n: int) -> None:
        self.n = n

    def __call__(self, y: Any) -> Any:
        return y * self.n


class Property:
    def __init__(self, n: int) -> None:
        self._n = n

    @property
    def n(self) -> int:
        return self._n * 2


class Dynamic:
    def __getattr__(self, name: str) -> int:
        if name == "n":
            return 9
        raise AttributeError(name)


@dataclasses.dataclass
class Record:
    n: Any = 1
    t: Any = None


Pair = collections.namedtuple("Pair", "n t")


class List(list):  # type: ignore[type-arg]
    pass


class Dict(dict):  # type: ignore[type-arg]
    n = 4


class Int(int):
    n = 7


class Float(float):
    n = 8


class Tuple(tuple):  # type: ignore[type-arg]
    n = 2


def one(y: Any) -> Any:
    return y + 1


def two(y: Any) -> Any:
    return y * 3


def values() -> list[Any]:
    """One of each kind, new ones each time but for functions and classes."""
    t = graphc.ones(2)
    memory = graphc.arange(12.0)
    marked = graphc.ones(2)
    marked.note = marked.n = 4  # type: ignore[attr-defined]
    for x in (one, two):
        x.__dict__.clear()
    Plain.n, Derived.n = 3, 5
    return [
        None, True, False, 0, 1, 2, -1, 0.0, -0.0, 1.0, 0.5, float("nan"), float("inf"), "a", "b", "", b"a", 1j,
        [], [1, 2], [1, 2, 3], [1.0, 2], (1, 2), (1,), (), {}, {"n": 1}, {"n": 2}, {"n": t}, {1, 2}, frozenset({1}),
        [t], [t, 1], (t,), collections.OrderedDict(n=1), collections.defaultdict(int, n=2), collections.deque([1, 2]),
        t, graphc.ones(3), graphc.ones(2, 2), graphc.ones(2, dtype=graphc.int64), nn.Parameter(graphc.ones(2)),
        graphc.ones(2, requires_grad=True) * 2, marked, memory[1:3], memory[4:6], graphc.float32, graphc.float64,
        graphc.Size((1, 2)), graphc.device("cpu"), np.ones(2), np.zeros(2, dtype=np.int32), np.float32(1), np.int64(2),
        Color.RED, Color.BLUE, Plain(), Plain(n=1), Plain(n=1, t=t), Plain(n=t), Slotted(1), Slotted(2), Slotted(t),
        Equal(1), Equal(3), Caller(2), Caller(3), Property(1), Property(2), Derived(), Derived(n=6), Dynamic(),
        Record(), Record(2), Record(2, t), Pair(1, 2), Pair(t, 2), List([1]), Dict(n=3), Int(5), Int(6), Float(0.5),
        Tuple((1, 2)), one, two, lambda y: y - 1, len, Plain, Derived, int, float, functools.partial(one),
        functools.partial(Caller(2)), types.SimpleNamespace(n=1), types.SimpleNamespace(n=2), nn.Linear(2, 2),
        nn.ReLU(), types.MappingProxyType({"n": 1}), range(2), range(3), slice(0, 1), Ellipsis, object(), [[1], [2]],
        {"n": {"n": 1}}, [None], {"n": None}, (1, (2, 3)), (1, [2]), [one], {"n": two}, np.random.default_rng(0),
        graphc.Generator(), property(one), ValueError("y"), bytearray(b"ab"), memoryview(b"ab"),
    ]  # fmt: skip


EXPRESSIONS = """
x is None; x is not None; x == 1; x != 1; x == 'a'; x == [1, 2]; x == (1, 2); x == {'n': 1}; bool(x); not x; len(x);
type(x).__name__; type(x) is int; isinstance(x, (int, float)); isinstance(x, graphc.Tensor); isinstance(x, dict);
isinstance(x, Plain); isinstance(x, nn.Module); callable(x); hasattr(x, 'n'); getattr(x, 'n', None); x.n; x['n']; x[0];
x[-1]; x[0:1]; 1 in x; 'n' in x; list(x)[:1]; sum(x); max(x); y * x; x * y; y + x; x(y); x.n * y; x['n'] * y;
x[0] * y; str(x)[:3]; repr(x)[:4]; int(x); float(x); x + 1; x * 2; -x; abs(x); x > 0; x or 3; x and 3;
[v for v in x][:2]; {k: 1 for k in x}; tuple(x); x.shape; x.dtype; x.keys(); list(x.items()); x.get('n'); x.c(); x.s();
x is Color.RED; x in (1, 2, None); hash(x) == hash(x); dict(x); f'{x}'[:4]; isinstance(x, type); issubclass(x, Plain);
x.__class__.__name__; x.__dict__; vars(x); next(iter(x)); sorted(x); any(x); all(x); x.count(1); x.index(1); x.t;
x.t * y; x.weight.sum() * y; x.training; x.name; x.value; x.start; x.real; x.__len__(); x.n if hasattr(x, 'n') else y;
x if x else y; y if x is None else y * 2; y if isinstance(x, float) else y * 3; x.numel(); x.requires_grad; x.is_leaf;
(y * 2 if x == 1 else y * 3) if isinstance(x, int) else y; y.to(x); y.reshape(x); y.sum(x); graphc.zeros(x);
graphc.full((2,), x); graphc.tensor(x); graphc.stack(list(x)); y[x]; y ** x; y.clamp(x); F.dropout(y, 0.0, x)
"""
FORMS = (
    "return {e}, y * 2",
    "try:\n    q = {e}\nexcept Exception as error:\n    q = type(error).__name__\nreturn q, y * 2",
    "q = 'none'\ntry:\n    q = {e}\nfinally:\n    return q, y * 2",
    "if {e}:\n    return y * 2\nreturn y * 3",
    "return helper(x, y), y * 2",
    "return (lambda x: {e})(x), y * 2",
    "return [{e} for x in (x, x)], y * 2",
    "return list({e} for x in [x]), y * 2",
    "return Reader(x, y).value, y * 2",
    "match x:\n    case None: q = 0\n    case 1: q = 1\n    case float(): q = 2\n    case str(): q = 3\n"
    "    case [a, *_]: q = 4\n    case {{'n': a}}: q = 5\n    case Plain(n=1): q = 6\n    case _: q = 7\n"
    "return q, y * 2",
    "def inner(v=x):\n    x = v\n    return {e}\nreturn inner(), y * 2",
    "z = [x]\nx = z[0]\nq = ({e},)\nz.append(q)\nreturn z[1][0], y * 2",
)
# where f finds x, and how `put` puts it there; {f} is the body
PLACES = {
    "global": "C = None\ndef put(v):\n    global C\n    C = v\ndef f(y):\n    x = C\n    {f}",
    "cell": "def outer():\n    c = None\n    def put(v):\n        nonlocal c\n        c = v\n"
    "    def f(y):\n        x = c\n        {f}\n    return put, f\nput, f = outer()",
    "list": "L = [None, 5]\ndef put(v):\n    L[0] = v\ndef f(y):\n    x = L[0]\n    {f}",
    "dict": "D = {'k': None, 'j': 1}\ndef put(v):\n    D['k'] = v\ndef f(y):\n    x = D['k']\n    {f}",
    "attribute": "H = Plain(a=None)\ndef put(v):\n    H.a = v\ndef f(y):\n    x = H.a\n    {f}",
    "slot": "H = Slotted(None)\ndef put(v):\n    H.n = v\ndef f(y):\n    x = H.n\n    {f}",
    "class": "class K:\n    a = None\ndef put(v):\n    K.a = v\ndef f(y):\n    x = K.a\n    {f}",
    "module": "class M(nn.Module):\n    def __init__(self):\n        super().__init__()\n        self.a = None\n"
    "    def forward(self, y):\n        x = self.a\n        {f}\nm = M()\n"
    "def put(v):\n    if hasattr(m, 'a'):\n        del m.a\n    m.a = v\nf = m.forward",
    "default": "def f(y, x=None):\n    {f}\ndef put(v):\n    f.__defaults__ = (v,)",
    "keyword": "def f(y, *, x=None):\n    {f}\ndef put(v):\n    f.__kwdefaults__ = {'x': v}",
    "nested": "L = [{'k': (None,)}]\ndef put(v):\n    L[0] = {'k': (v,)}\ndef f(y):\n    x = L[0]['k'][0]\n    {f}",
    "record": "H = Record()\ndef put(v):\n    H.n = v\ndef f(y):\n    x = H.n\n    {f}",
    "method": "class K:\n    def __init__(self):\n        self.a = None\n"
    "    def f(self, y):\n        x = self.a\n        {f}\nk = K()\ndef put(v):\n    k.a = v\nf = k.f",
    "argument": "def f(y, x):\n    {f}",
    "in a dict": "def f(y, d):\n    x = d['k']\n    {f}",
    "in an object": "H = Plain()\ndef put(v):\n    H.a = v\ndef f(y, o):\n    x = o.a\n    {f}",
}
HEAD = """def helper(x, y):
    return {e}
class Reader:
    def __init__(self, x, y):
        self.x, self.y = x, y
    @property
    def value(self):
        x, y = self.x, self.y
        return {e}
"""


def change(v: Any, rng: random.Random) -> None:
    """Change a value in place, if it can be changed."""
    some = [1, True, 2, 2.5, "s", None, graphc.ones(2)]
    if isinstance(v, graphc.Tensor):
        with graphc.no_grad(), contextlib.suppress(graphc.errors.GraphcError, AttributeError):
            rng.choice([
                lambda: v.add_(1), lambda: v.requires_grad_(not v.requires_grad), lambda: setattr(v, "n", 2),
                lambda: delattr(v, "n"), lambda: setattr(v, "grad", None if v.grad is not None else v.detach() * 2),
            ])()  # fmt: skip
    elif isinstance(v, list):
        rng.choice([lambda: v.append(rng.choice(some)), lambda: v[:1] and v.pop(), v.clear,
                    lambda: v.__setitem__(slice(0, 1), [rng.choice(some)])])()  # fmt: skip
    elif isinstance(v, dict):
        rng.choice([lambda: v.update(n=rng.choice(some)), lambda: v.pop("n", None), lambda: v.update({None: 1}),
                    lambda: v.update(n=v.pop("n", 0))])()  # fmt: skip
    elif isinstance(v, set):
        v.add(rng.choice([1, 2, 3]))
    elif isinstance(v, (collections.deque, bytearray)):
        v.append(3)
    elif isinstance(v, np.ndarray):
        v[0] += 1
    elif isinstance(v, nn.Module):
        rng.choice([lambda: v.train(not v.training), lambda: setattr(v, "n", rng.choice([1, 2]))])()
    elif isinstance(v, (Equal, Caller)):
        v.n = rng.choice([1, 2, 4])
    elif isinstance(v, (Plain, Record, types.SimpleNamespace, Slotted)):
        v.n = rng.choice(some)
        if "n" in getattr(v, "__dict__", {}) and rng.random() < 0.3:
            del v.n
    elif isinstance(v, Property):
        v._n = rng.choice([1, 2, 3])
    elif v in (Plain, Derived, one, two):
        v.n = rng.choice([3, 4, 5])


def same(a: Any, b: Any) -> bool:
    """Equal by type and bits."""
    if type(a) is not type(b):
        return False
    if isinstance(a, graphc.Tensor):
        return a.dtype is b.dtype and a.detach().numpy().tobytes() == b.detach().numpy().tobytes()
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, dict):
        return list(map(str, a)) == list(map(str, b)) and all(map(same, a.values(), b.values()))
    if isinstance(a, float):
        return a.hex() == b.hex()
    return a == b if isinstance(a, (int, str, bytes)) or a is None else True


def outcome(f: Callable[..., Any], *args: Any) -> Any:
    """What a call gives: its result, or its error without the place."""
    try:
        return f(*args)
    except Exception as error:
        return f"{type(error).__name__}: {error}".split(" (at ")[0][:80]


def written(place: str, expression: str, form: str) -> str:
    """The text of a case."""
    lines = HEAD.format(e=expression).split("\n")
    for line in PLACES[place].split("\n"):
        indent, mark, _ = line.partition("{f}")
        body = form.format(e=expression).split("\n") if mark else [line]
        lines += [indent + part for part in body] if mark else body
    return "\n".join(lines) + "\n"


def run_case(seed: int) -> str:
    """Compare the calls of a case; "hit" where some were answered by a compiled graph. Raises AssertionError."""
    rng = random.Random(seed)
    place, form = rng.choice(list(PLACES)), rng.choice(FORMS)
    expression = rng.choice(EXPRESSIONS.replace("\n", " ").split(";")).strip()
    text, name = written(place, expression, form), f"<guards {seed}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    around = dict(vars(sys.modules[__name__]), __name__="case", graphc=graphc, nn=nn, F=F, put=lambda v: None)
    exec(compile(text, name, "exec"), around)
    f, put = around["f"], around["put"]
    found = values()
    some = rng.sample(found, rng.choice([3, 4, 6]))
    compiled: Any = graphc.compile(f)
    y = graphc.ones(2)
    for call in range(CALLS):
        v = some[0] if call < 3 else rng.choice(some)
        if call > 3 and rng.random() < CHANGED:
            change(v, rng)
        put(v)
        given = {"argument": (v,), "in a dict": ({"k": v},), "in an object": (around.get("H"),)}.get(place, ())
        expected, actual = outcome(f, y, *given), outcome(compiled, y, *given)
        assert same(expected, actual), f"seed {seed}, call {call}, {v!r}: {expected!r}, compiled {actual!r}\n{text}"
    linecache.cache.pop(name)
    return "hit" if compiled.stats.hits else "refused"


if __name__ == "__main__":
    run_many(run_case)
