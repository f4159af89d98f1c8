"""Random small functions that change Python objects from outside, of all kinds and in all ways.

`run_case(seed)` makes the same objects twice, calls the function nine times with one set and its compiled form with the
other, and compares after every call what it gave, all the objects, and the random states. `python -m
tests.effect_matrix FROM TO` runs many.
"""

from __future__ import annotations

import collections
import dataclasses
import io
import linecache
import operator
import random
import sys
import types
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc import nn
from tests.matrix_runs import run_many

CALLS = 9


class Plain:
    n: Any = 0
    m: Any = None

    def __init__(self, **fields: Any) -> None:
        self.__dict__.update(fields)

    def bump(self) -> Any:
        self.n += 1
        return self.n

    def keep(self, v: Any) -> Any:
        self.last = v
        return v

    def __setitem__(self, key: str, v: Any) -> None:
        self.__dict__[key] = v


class Slotted:
    __slots__ = ("last", "n")


class Property:
    def __init__(self) -> None:
        self._n = 0

    @property
    def n(self) -> int:
        return self._n

    @n.setter
    def n(self, v: int) -> None:
        self._n = v


class Context:
    def __init__(self) -> None:
        self.inside = self.total = 0

    def __enter__(self) -> None:
        self.inside += 1

    def __exit__(self, *error: object) -> None:
        self.inside -= 1
        self.total += 1


@dataclasses.dataclass
class Record:
    n: int = 0
    items: list[Any] = dataclasses.field(default_factory=list)


class Layer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.n, self.items = 0, []
        self.register_buffer("b", graphc.zeros(2))
        self.w, self.lin = nn.Parameter(graphc.ones(2)), nn.Linear(2, 2)

    def forward(self, x: Any) -> Any:
        self.n += 1
        return x * 2


def appended(items: list[Any]) -> None:
    items.append("g")


def raising(items: list[Any]) -> None:
    items.append("r")
    raise KeyError("k")


def world() -> dict[str, Any]:
    """The objects that cases change, by the names they have there; always the same ones."""
    graphc.manual_seed(0)
    random.seed(0)
    np.random.seed(0)
    Plain.n, Plain.m = 0, None
    return {
        "L": [1, 2], "T2": [graphc.ones(2)], "D": {"a": 1}, "DD": collections.defaultdict(list), "S": {1},
        "Q": collections.deque([1], maxlen=3), "O": Plain(), "P2": Plain(last=graphc.ones(2)), "SL": Slotted(),
        "P": Property(), "C": Context(), "DC": Record(), "M": Layer(), "N": np.zeros(2), "T": graphc.zeros(2), "G": 0,
        "CN": collections.Counter(), "BA": bytearray(b"a"), "IO": io.StringIO(), "BI": io.BytesIO(),
        "OD": collections.OrderedDict(), "W": nn.Parameter(graphc.ones(2)), "NS": types.SimpleNamespace(n=0),
        "K": type("K", (), {"n": 0}), "IT": iter(range(1000)), "GEN": (i for i in range(1000)),
        "R": random.Random(0), "NR": np.random.RandomState(0), "GG": graphc.Generator(),
        "FN": types.FunctionType((lambda y: y).__code__, {}),
    }  # fmt: skip


STATEMENTS = """
L.append(1) | L.append(x) | L.append(x.sum().item()) | L.pop() | L[0] = 5 | L[0] += 1 | L += [1] | L.extend([1, 2])
L.insert(0, 3) | L.clear() | L.sort() | L.reverse() | del L[0:1] | L[:] = [7] | T2[0] = x | T2[0] = T2[0] + x
T2.append(x * 2) | T2[0].add_(1) | D['a'] = 2 | D['a'] += 1 | D['n'] = x | D.update(z=1) | D.pop('a', None)
D.setdefault('q', []).append(1) | del D['a'] | DD['k'].append(1) | DD['k'] | S.add(3) | S.discard(1) | Q.append(2)
Q.popleft() | Q.rotate(1) | O.n += 1 | O.n = 3 | O.last = x | O.last = x.detach() | O.bump() | O.keep(x)
O.keep(x.sum().item()) | O['z'] = 1 | P2.last = P2.last * 0.5 + x | P2.last.add_(1) | P2.last = None | del P2.last
setattr(O, 'zz', 1) | O.__dict__['k'] = 1 | SL.n = 1 | SL.last = x | P.n += 1 | P.n = 5 | DC.n += 1
DC.items.append(1) | M.n += 1 | M.items.append(x) | M.b.add_(1) | M.b = M.b * 2 | M.b = x | M(x) | M.eval()
M.train(not M.training) | M.w.data = M.w.data * 2 | M.w.grad = x | M.w.requires_grad_(False)
M.register_buffer('c', graphc.zeros(2)) | M.lin.weight.data.mul_(0.5) | N[0] = 1 | N[0] += 1 | np.add(N, 1, out=N)
N.fill(3) | T.add_(1) | T[0] = 5 | T.mul_(x) | T.zero_() | T.copy_(x) | T.data = x | T.requires_grad_() | T.foo = 1
T.foo = x | G += 1 | CN['a'] += 1 | CN.update('ab') | BA.append(1) | BA[0] = 5 | IO.write('a') | BI.write(b'a')
IO.seek(0) | OD['k'] = 1; OD.move_to_end('k') | W.grad = None | W.data.add_(1) | W.detach().add_(1)
(W * x).sum().backward() | NS.n += 1 | K.n += 1 | K.m = lambda s: 1 | next(IT) | G = next(IT) | next(GEN)
R.random() | G = R.random() | G = NR.rand() | G = random.random() | G = np.random.rand() | FN.n = 1
FN.n = getattr(FN, 'n', 0) + 1 | T.uniform_() | T.normal_(generator=GG) | GG.manual_seed(3) | x.foo = 2
graphc.manual_seed(3) | graphc.set_default_dtype(graphc.float32) | x.add_(1) | x.requires_grad_() | x.grad = x
appended(L) | [L.append(i) for i in range(2)] | (lambda: L.append(9))() | (G := G + 1) | L and L.pop()
assert not L.append(1) | try: L.append(1); raise ValueError{nl}except ValueError: L.append(2) | with C: L.append(3)
with C: raising(L) | for i in range(2): D[i] = i | while len(L) < 4: L.append(0) | if x.sum() > 0: L.append(1)
if x.sum() > 0: O.n += 1 | L.append(x.shape) | L.append(x.tolist()) | L.append(float(x.sum())) | L.append(str(x))
O.n = len(L) | O.n = int(x.sum()) | O.n = x.numel() | D[x.shape] = 1 | L.__setitem__(0, 8) | list.append(L, 4)
dict.update(D, k=1) | object.__setattr__(O, 'n', 4) | vars(O)['v'] = 1 | type(O).n = 4 | O.__class__.n = 5
globals()['G'] = 4 | exec('L.append(1)') | print(x, file=IO) | IO.write(str(x.sum().item())) | L.append(L[:])
L.append(O) | O.l = L | O.self = O | D['D'] = L | M.extra = nn.Linear(2, 2) | M.add_module('e', nn.ReLU())
M.w = nn.Parameter(graphc.ones(2)) | M.zero_grad() | M.apply(lambda m: L.append(1)) | heapq.heappush(L, 0)
M.lin.register_forward_hook(lambda *a: L.append(1)); M.lin(x) | bisect.insort(L, 1) | operator.setitem(D, 'o', 1)
operator.iadd(L, [3]) | functools.reduce(lambda a, b: a.append(b) or a, [1, 2], L) | copy.copy(O).bump()
collections.deque(map(L.append, [1, 2])) | sorted([2, 1], key=lambda v: L.append(v) or v) | setattr(K, 'z', 1)
delattr(P2, 'last')
"""
READS = (
    "z + 1", "z + G", "z * len(L)", "z + O.n", "z + T", "z + M.b", "z + W", "z + K.n", "z + P.n", "z + len(BA)",
    "z + sum(v for v in L if isinstance(v, int))", "z + (D.get('a') or 0)", "z + float(N[0])",
    "z + P2.last if getattr(P2, 'last', None) is not None else z",
)  # fmt: skip
RESULTS = ("z", "(z, G)", "(z, list(L)[:3])", "(z, O.n)", "{'z': z, 'x': x}")


def written(rng: random.Random) -> str:
    """The text of a case."""
    statements = [s.strip() for s in STATEMENTS.strip().replace("\n", " | ").split(" | ")]
    lines = ["global G", "z = x * 2"]
    for _ in range(rng.choice([1, 1, 2, 3])):
        lines += rng.choice(statements).split("{nl}")
        if rng.random() < 0.4:
            lines.append(f"z = {rng.choice(READS)}")
    body = "".join(f"    {line}\n" for line in [*lines, f"return {rng.choice(RESULTS)}"])
    return f"def f(x):\n{body}"


def shown(v: Any, seen: dict[int, Any]) -> Any:
    """All an object holds, as values that compare; what was seen before by its number."""
    if isinstance(v, (int, float, str, bytes, bool, complex)) or v is None:
        return repr(v)
    if id(v) in seen:
        return f"#{seen[id(v)][0]}"
    seen[id(v)] = (len(seen), v)
    return type(v).__name__, _inside(v, seen)


def _inside(v: Any, seen: dict[int, Any]) -> Any:
    if isinstance(v, graphc.Tensor):
        grad = None if not v.is_leaf or v.grad is None else v.grad.detach().numpy().tobytes()
        note = shown(getattr(v, "foo", None), seen)
        return v.dtype, v.shape, v.requires_grad, v.is_leaf, v.detach().numpy().tobytes(), grad, note
    if isinstance(v, nn.Module):
        own = {k: x for k, x in v.__dict__.items() if not k.startswith("_")}
        parts = (own, dict(v._parameters), dict(v._buffers), dict(v._modules))
        return [shown(part, seen) for part in parts], len(v._forward_hooks)
    if isinstance(v, dict):
        return [(str(k), shown(x, seen)) for k, x in v.items() if not str(k).startswith("__")]
    if isinstance(v, (list, tuple, collections.deque)):
        return [shown(x, seen) for x in v]
    return _contents(v, seen)


def _contents(v: Any, seen: dict[int, Any]) -> Any:
    kinds: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
        (set, sorted), (bytearray, bytes), (np.ndarray, lambda a: a.tobytes()),
        ((io.StringIO, io.BytesIO), lambda s: (s.tell(), s.getvalue())), (random.Random, lambda r: r.getstate()),
        (np.random.RandomState, lambda r: r.get_state()[1].tobytes()),
        (graphc.Generator, lambda g: g.get_state().tolist()),
        (Slotted, lambda s: [shown(getattr(s, n, None), seen) for n in s.__slots__]),
        (types.GeneratorType, lambda g: g.gi_frame.f_locals.get("i")), (type(iter(range(0))), operator.length_hint),
        (type, lambda c: shown(dict(vars(c)), seen)),
    )  # fmt: skip
    for kind, tell in kinds:
        if isinstance(v, kind):
            return tell(v)
    return shown(getattr(v, "__dict__", None), seen)


def drive(text: str, name: str, calls: list[int], compiled: bool) -> tuple[list[Any], Any]:
    """What calls of the function give and leave behind, and the function."""
    objects = world()
    around = {**vars(sys.modules[__name__]), **objects, "__name__": "case"}
    exec(compile(text, name, "exec"), around)
    f: Any = graphc.compile(around["f"]) if compiled else around["f"]
    told, kept = [], []
    for kind in calls:
        x = [graphc.ones(2), -graphc.ones(2), graphc.ones(2, requires_grad=True)][kind]
        try:
            kept.append(f(x))
        except Exception as error:
            kept.append(f"{type(error).__name__}: {error}".split(" (at ")[0])
        seen: dict[int, Any] = {}
        left = [shown(kept[-1], seen), *((k, shown(around[k], seen)) for k in objects), shown(x, seen)]
        told.append((left, random.random(), np.random.rand(), graphc.rand(1).item()))
    told.append([shown(r, {}) for r in kept])
    return told, f


def run_case(seed: int) -> str:
    """Compare the calls of a case: "hit", "lockstep" or "eager", by how they were answered. Raises AssertionError."""
    rng = random.Random(seed)
    text, name = written(rng), f"<effects {seed}>"
    linecache.cache[name] = (len(text), None, text.splitlines(True), name)
    calls = [0, 0, 0, *(rng.choice([0, 0, 0, 1, 2]) for _ in range(CALLS - 3))]
    expected, _ = drive(text, name, calls, False)
    actual, f = drive(text, name, calls, True)
    for call, (a, b) in enumerate(zip(expected, actual, strict=True)):
        assert a == b, f"seed {seed}, call {call}: {a}\ncompiled: {b}\n{text}"
    linecache.cache.pop(name)
    return "hit" if f.stats.hits else "lockstep" if f.stats.lockstep else "eager"


if __name__ == "__main__":
    run_many(run_case)
