"""The recorder: numbers, other arguments, and what the code around a compiled function says."""

from __future__ import annotations

import dataclasses
import math
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from tests.recorder_checks import bits, follows


def x34(start: float = 0.0) -> Any:
    return graphc.tensor([[start + i * 4 + j - 5.5 for j in range(4)] for i in range(3)])


# ---- numbers and other leaves


def test_float_argument_is_an_input() -> None:
    compiled = follows(lambda x, a: x * a + a * a, *[(x34(), 0.1 * k) for k in range(6)])
    assert compiled.stats.recordings == 2 and compiled.stats.compilations == 1
    follows(lambda x, a: x / a, *[(x34(), a) for a in (1.0, -0.0, 0.0, math.inf, math.nan, 1e-300)])


def test_float_argument_compared_is_a_guard() -> None:
    def f(x: Any, a: float) -> Any:
        return x * a if a > 0.5 else x - a

    compiled = follows(f, *[(x34(), a) for a in (0.1, 0.2, 0.3, 0.7, 0.8, 0.9, 0.4, 0.6)])
    assert compiled.stats.compilations == 2


def test_optimizer_settings_are_inputs() -> None:
    w = graphc.ones(3, requires_grad=True)
    opt = optim.SGD([w], lr=0.1)
    w2 = graphc.ones(3, requires_grad=True)
    opt2 = optim.SGD([w2], lr=0.1)

    def step(w: Any, opt: Any) -> Any:
        opt.zero_grad()
        loss = (w * w).sum()
        loss.backward()
        opt.step()
        return loss

    compiled = graphc.compile(step, fullgraph=True)
    for k in range(8):
        opt.param_groups[0]["lr"] = opt2.param_groups[0]["lr"] = 0.01 * (k + 1)
        assert bits(compiled(w, opt)) == bits(step(w2, opt2))
        assert bits(w) == bits(w2) and bits(w.grad) == bits(w2.grad)
    assert compiled.stats.recordings == 2


def test_scheduler_outside_never_records_again() -> None:
    model = nn.Linear(4, 2)
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    schedule = optim.lr_scheduler.CosineAnnealingLR(opt, T_max=200)

    @graphc.compile(fullgraph=True)
    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    with pytest.MonkeyPatch.context():
        for _ in range(200):
            step(x34())
            schedule.step()
    assert step.stats.recordings == 2 and step.stats.hits == 198


def test_int_argument() -> None:
    def f(x: Any, n: int) -> Any:
        for _ in range(n):
            x = x * 2
        return x + n

    compiled = follows(f, *[(x34(), n) for n in (1, 1, 1, 3, 3, 3, 2, 2, 2, 1, 3)])
    assert compiled.stats.compilations == 3


def test_int_argument_that_changes_becomes_an_input() -> None:
    compiled = follows(lambda x, n: x * n + 1, *[(x34(), n) for n in range(1, 40)])
    assert compiled.stats.recordings <= 4
    assert compiled.stats.hits >= 35


def test_int_argument_keeps_its_arithmetic() -> None:
    def f(x: Any, n: int) -> Any:
        return (x.long() + n, x * (n // 2), x + n % 3, x * (n**2), x - (n << 1))

    follows(f, *[(x34(), n) for n in (1, 1, 1, 5, 6, 7, 8, -3, 0)])


def test_int_argument_as_index_and_shape() -> None:
    follows(lambda x, n: x[n] + graphc.zeros(n, 4).sum(), *[(x34(), n) for n in (0, 1, 2, 0, 1, 2, 0, 1, 2, 2)])


def test_bool_str_none_dtype_callable_arguments() -> None:
    def f(x: Any, flag: bool, how: str, w: Any, dtype: Any, act: Any) -> Any:
        y = act(x) if flag else x
        y = y.sum() if how == "sum" else y.mean()
        return (y if w is None else y * w).to(dtype)

    w = graphc.tensor(3.0)
    forms = [
        (True, "sum", None, graphc.float64, graphc.relu),
        (False, "mean", w, graphc.float32, graphc.tanh),
        (True, "mean", w, graphc.float64, graphc.exp),
    ]
    follows(f, *[(x34(), *form) for form in forms for _ in range(3)], *[(x34(), *form) for form in forms])


def test_one_true_and_one_point_zero_are_told_apart() -> None:
    follows(
        lambda n: (graphc.ones(2) if n is True else graphc.zeros(2)) + n,
        *[(n,) for n in (1, 1, 1, True, True, True, 1.0, 1.0, 1.0, 1, True, 1.0)],
    )


def test_containers_and_dataclasses_are_trees() -> None:
    @dataclasses.dataclass
    class Batch:
        x: Any
        scale: float

    Pair = namedtuple("Pair", ["a", "b"])

    def f(batch: Any, pair: Any, extra: Any) -> Any:
        return {"y": batch.x * batch.scale + pair.a, "z": [pair.b, *extra["list"]], "p": Pair(pair.b, [batch.scale])}

    def args(k: float) -> Any:
        return Batch(x34(k), k), Pair(x34(), x34(2.0)), {"list": [x34(3.0), 2]}

    compiled = follows(f, *[args(float(k)) for k in range(5)])
    assert compiled.stats.hits == 3


def test_none_changes_the_number_of_outputs() -> None:
    def f(x: Any, mask: Any = None) -> Any:
        return x * 2 if mask is None else (x * 2, x * mask)

    follows(f, *[(x34(),), (x34(), None), (x34(), x34())] * 4)


def test_modules_and_optimizers_as_arguments() -> None:
    def f(model: Any, x: Any) -> Any:
        return model(x)

    a, b = nn.Linear(4, 2), nn.Linear(4, 2)
    compiled = follows(f, *[(m, x34()) for m in (a, b) * 4])
    assert compiled.stats.hits == 4


def test_unknown_object_argument_with_guarded_reads() -> None:
    config = SimpleNamespace(scale=2.0, flag=True)
    compiled = graphc.compile(lambda x, c: x * c.scale if c.flag else x, fullgraph=True)
    for k in range(12):
        config.scale = 2.0 if k < 6 else 3.0
        config.flag = k < 9
        assert compiled(graphc.ones(1), config).item() == (2.0 if k < 6 else 3.0 if k < 9 else 1.0)


# ---- Python scalars met inside


def test_constant_changed_between_calls() -> None:
    scale = 2.0

    def f(x: Any) -> Any:
        return x * scale

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(12):
        scale = 2.0 if k < 4 else 3.0 if k < 8 else -0.0
        assert bits(compiled(x34())) == bits(f(x34()))
    assert compiled.stats.compilations == 3


@pytest.mark.parametrize("values", [(1, True, 1.0), (0.0, -0.0), (math.nan, 1.0), ("a", "b"), (None, 0)])
def test_guards_go_by_type_and_bits(values: tuple[Any, ...]) -> None:
    box = SimpleNamespace(v=values[0])

    def f(x: Any) -> Any:
        v = box.v
        known = isinstance(v, (bool, int, float))
        return (x.long() / v if known else x * len(repr(v))), repr(v)

    compiled = graphc.compile(f, fullgraph=True)
    for v in [*values * 3, *reversed(values)] if len(values) > 1 else []:
        box.v = v
        assert bits(compiled(x34())) == bits(f(x34()))


def test_scalar_attribute_of_a_module() -> None:
    class Head(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.temp = 0.5
            self.names = ["a"]

        def forward(self, x: Any) -> Any:
            return x / self.temp + len(self.names)

    head = Head()
    compiled = graphc.compile(head, fullgraph=True)
    for k in range(12):
        if k == 4:
            head.temp = 0.25
        if k == 8:
            head.names.append("b")
        assert bits(compiled(x34())) == bits(head(x34()))


_CONFIG: dict[str, Any] = {"rate": 0.5, "depth": 2, "inner": {"shift": 1.0}}
_RATE = 0.5


def helper(x: Any) -> Any:
    for _ in range(_CONFIG["depth"]):
        x = x * _CONFIG["rate"] + _CONFIG["inner"]["shift"] + _RATE
    return x


def test_helper_reads_a_config() -> None:
    global _RATE
    compiled = graphc.compile(lambda x: helper(x) + 1, fullgraph=True)
    try:
        for k in range(20):
            if k == 4:
                _CONFIG["rate"] = 0.25
            if k == 8:
                _CONFIG["inner"]["shift"] = -0.0
            if k == 12:
                _CONFIG["depth"] = 3
            if k == 16:
                _RATE = 0.75
            assert bits(compiled(x34())) == bits(helper(x34()) + 1)
        assert compiled.stats.compilations == 5
    finally:
        _CONFIG.update(rate=0.5, depth=2, inner={"shift": 1.0})
        _RATE = 0.5


def test_helper_replaced() -> None:
    def double(x: Any) -> Any:
        return x * 2

    def triple(x: Any) -> Any:
        return x * 3

    tools = SimpleNamespace(act=double)
    compiled = graphc.compile(lambda x: tools.act(x), fullgraph=True)
    for k in range(8):
        tools.act = double if k < 4 else triple
        assert bits(compiled(x34())) == bits(tools.act(x34()))


def test_class_attribute_and_property_and_getattr() -> None:
    class Base:
        scale = 2.0

        @property
        def twice(self) -> float:
            return self.scale * 2

    class Layer(nn.Module):
        factor = 3.0

        def forward(self, x: Any) -> Any:
            return x * self.factor * thing.twice * getattr(thing, "scale")  # noqa: B009

    thing, layer = Base(), Layer()
    compiled = graphc.compile(layer, fullgraph=True)
    for k in range(16):
        if k == 4:
            Layer.factor = 4.0
        if k == 8:
            Base.scale = 5.0
        if k == 12:
            thing.scale = 7.0
        assert bits(compiled(x34())) == bits(layer(x34()))


def test_defaults_and_slots_objects() -> None:
    class Slotted:
        __slots__ = ("scale",)

        def __init__(self) -> None:
            self.scale = 2.0

    slotted = Slotted()

    def inner(x: Any, k: float = 2.0, *, m: float = 3.0) -> Any:
        return x * k * m * slotted.scale

    compiled = graphc.compile(lambda x: inner(x), fullgraph=True)
    for k in range(16):
        if k == 4:
            inner.__defaults__ = (5.0,)
        if k == 8:
            inner.__kwdefaults__ = {"m": 7.0}
        if k == 12:
            slotted.scale = 11.0
        assert bits(compiled(x34())) == bits(inner(x34()))


def test_more_than_a_thousand_leaves_is_refused_whole() -> None:
    table = list(range(2000))

    def f(x: Any) -> Any:
        return x * table[1500]

    with pytest.raises(graphc.errors.RecordingError, match="1,000"):
        compiled = graphc.compile(f, fullgraph=True)
        for _ in range(3):
            compiled(x34())
    loose = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="1,000"):
        loose(x34())
    table[1500] = 7
    assert bits(loose(x34())) == bits(f(x34()))


# ---- numbers in every kind of place: right, whether followed, guarded or refused


FLOATS: dict[str, Any] = {
    "clamp": lambda x, a: x.clamp(-1, a),
    "full": lambda x, a: x + graphc.full((4,), a),
    "power": lambda x, a: x.abs() ** a,
    "base": lambda x, a: a**x,
    "leaky_relu": lambda x, a: nn.functional.leaky_relu(x, a),
    "dropout": lambda x, a: nn.functional.dropout(x, a / 10),
    "alpha": lambda x, a: x.add(x, alpha=a),
    "masked_fill": lambda x, a: x.masked_fill(x > 0, a),
    "where": lambda x, a: graphc.where(x > 0, a, x),
    "tensor": lambda x, a: x + graphc.tensor([a, a, 1.0, 2.0]),
    "linspace": lambda x, a: x + graphc.linspace(0, a, 4),
    "softplus": lambda x, a: nn.functional.softplus(x, a),
    "layer_norm": lambda x, a: nn.functional.layer_norm(x, (4,), eps=a),
    "remainder": lambda x, a: (x % a, x // a, a % x),
    "integers": lambda x, a: x.long() * a,
    "isinstance": lambda x, a: x * a if isinstance(a, float) else x,
    "type": lambda x, a: x * a if type(a) is float else x,
    "round": lambda x, a: x * round(a, 1),
    "containers": lambda x, a: x * [a, 2][0] * {"k": a}["k"] * sum([a, a]),
    "sorted": lambda x, a: x * sorted([a, 1.0])[0] * min(a, 1.0) + max(a, 0.5),
    "in": lambda x, a: x * 2 if a in (0.5, 1.5) else x,
    "truth": lambda x, a: (x * 2 if a else x, x * 2 if not a else x),
    "uniform": lambda x, a: x.clone().uniform_(0, a),
    "returned": lambda x, a: (x, a, a * 2),
}

INTS: dict[str, Any] = {
    "dim": lambda x, n: x.sum(n % 2) + x.softmax(n % 2).sum(),
    "reshape": lambda x, n: x.reshape(n % 2 + 1, -1),
    "slice": lambda x, n: x[: n % 3 + 1],
    "index": lambda x, n: (x[n % 3], x[-(n % 3) - 1]),
    "one_hot": lambda x, n: nn.functional.one_hot(graphc.tensor([0, 1]), n + 2),
    "shape": lambda x, n: graphc.zeros(n, 4) + x[:1],
    "arange": lambda x, n: graphc.arange(n),
    "range": lambda x, n: sum([x * k for k in range(n)], x),
    "power": lambda x, n: (x**n, 2**n * x),
    "bits": lambda x, n: x * (1 << n) * (n & 1) * n.bit_length(),
    "cat": lambda x, n: graphc.cat([x] * (n + 1)),
    "list": lambda x, n: x * [1, 2, 3, 4, 5, 6, 7, 8][n] * {1: 2.0, 2: 3.0}.get(n, 5.0),
    "text": lambda x, n: x * len("a" * n),
    "seed": lambda x, n: (graphc.manual_seed(n), graphc.rand(3))[1],
    "randint": lambda x, n: graphc.randint(0, n + 2, (5,)),
    "pool": lambda x, n: nn.functional.max_pool2d(x.reshape(1, 1, 3, 4), n % 2 + 1),
    "pad": lambda x, n: nn.functional.pad(x, (n, 0)),
    "large": lambda x, n: x * (n + 2**62),
    "division": lambda x, n: (x * (n / 3), x * (n // 2) + n % 3, x * divmod(n, 2)[1], x / n),
    "returned": lambda x, n: (x, n, n + 1, -n, abs(-n)),
    "type": lambda x, n: x * 2 if type(n) in (int, float) else x,
}


@pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")
@pytest.mark.parametrize("name", sorted(FLOATS))
def test_a_float_argument_in_every_place(name: str) -> None:
    _same_in_a_row(FLOATS[name], (0.5, 1.5, 2.0, 2.5, 0.5, 1.5, 2.0, 3.25))


@pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")
@pytest.mark.parametrize("name", sorted(INTS))
def test_an_int_argument_in_every_place(name: str) -> None:
    _same_in_a_row(INTS[name], (1, 2, 3, 1, 2, 3, 4, 5, 1))


def _same_in_a_row(f: Any, values: Any) -> None:
    graphc.manual_seed(3)
    expected = [bits(f(x34(), v)) for v in values]
    graphc.manual_seed(3)
    compiled = graphc.compile(f)
    for v, result in zip(values, expected, strict=True):
        assert bits(compiled(x34(), v)) == result, v


def test_a_program_of_code_that_compares_types() -> None:
    program = graphc.trace(lambda x, a: x * a if type(a) is float else x, x34(), 0.5)
    assert bits(program(x34(), 0.5)) == bits(x34() * 0.5)
    with pytest.raises(graphc.errors.ArgumentError):
        program(x34(), 0.75)
