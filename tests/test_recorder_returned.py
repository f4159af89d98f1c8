"""The recorder: metadata, sizes that depend on values, and what a compiled function returns."""

from __future__ import annotations

import dataclasses
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import RecordingError
from tests.recorder_checks import bits, follows, refused

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def v4(scale: float = 1.0) -> Any:
    return graphc.tensor([1.0, -2.0, 3.0, 0.5]) * scale


# ---- metadata


def test_metadata_is_part_of_the_signature() -> None:
    def f(x: Any) -> Any:
        if (
            x.shape == (4,)
            and x.is_contiguous()
            and x.stride() == (1,)
            and x.dtype is graphc.float32
            and x.grad is None
            and x is not None
        ):
            return x * len(x) + x.numel() + x.ndim
        return sum(row * 2 for row in x)

    follows(f, *[(x,) for x in (v4(), v4().double(), graphc.ones(2, 2), graphc.ones(8)[::2]) for _ in range(3)])


def test_grad_is_none_is_a_guard() -> None:
    w = v4().requires_grad_()

    def f() -> Any:
        return w * 2 if w.grad is None else w * 3

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(10):
        w.grad = None if k % 5 < 3 else graphc.ones(4)
        assert bits(compiled()) == bits(f())


def test_tensor_is_another() -> None:
    follows(
        lambda a, b: a * 2 if a is b else a + b, *[(x, y) for x in [v4()] for y in (x, v4(), x, v4()) for _ in range(3)]
    )


def test_mask_assignment_is_a_where() -> None:
    def f(x: Any) -> Any:
        y = x.clone()
        y[y > 1] = 0.0
        return y

    follows(f, (v4(),), (v4(),), (v4(5.0),), (v4(-1.0),))


# ---- returned values


def test_returned_input_view_state_and_same() -> None:
    w = v4()

    def f(x: Any) -> Any:
        y = x * 2
        return x, x[1:], y, y, y[::2], w, w[:2], None, 3, "text", (y.T, [x])

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(5):
        x = v4()
        a, b, c, d, e, g, h, *_, (last, [again]) = compiled(x)
        assert a is x and again is x and c is d and g is w
        for view, base in ((b, x), (e, c), (h, w), (last, c)):
            before = view.tolist()
            base.mul_(2)
            assert view.tolist() == [2 * v for v in before]
            base.div_(2)
    assert compiled.stats.hits == 3


def test_returned_detached_input_and_parameter_view() -> None:
    w = v4().requires_grad_()

    def f(x: Any) -> Any:
        return x.detach(), w.detach(), w[1:], w.view(2, 2)

    compiled = graphc.compile(f, fullgraph=True)
    x = v4()
    for _ in range(4):
        for a, b in zip(compiled(x), f(x), strict=True):
            assert bits(a) == bits(b) and a._s is b._s
    w.grad = None
    compiled(x)[2].sum().backward()
    assert w.grad.tolist() == [0.0, 1.0, 1.0, 1.0]


def test_a_fresh_output_is_never_reused() -> None:
    compiled = graphc.compile(lambda x: (x + 1, (x + 2)[1:]), fullgraph=True)
    outs = [compiled(v4(float(k))) for k in range(5)]
    for k, (a, b) in enumerate(outs):
        assert bits(a) == bits(v4(float(k)) + 1) and bits(b) == bits((v4(float(k)) + 2)[1:])
        a.zero_()
    assert compiled(v4())[0].tolist() == (v4() + 1).tolist()


def test_constant_tensor_returned_is_fresh_each_time() -> None:
    compiled = graphc.compile(
        lambda x: (
            graphc.zeros(2),
            graphc.tensor([1.0]),
            graphc.tensor(2.0),
            x.new_ones(2) if hasattr(x, "new_ones") else x + 1,
        ),
        fullgraph=True,
    )
    for _ in range(5):
        for t, expected in zip(compiled(v4())[:3], ([0.0, 0.0], [1.0], 2.0), strict=True):
            assert t.tolist() == expected
            t.add_(1)


def test_random_state_dependent_output_and_expanded_views() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        return y.expand(3, 4), y.view(2, 2).t(), y.unsqueeze(0), y[2]

    compiled = follows(f, *[(v4(float(k)),) for k in range(5)])
    a = compiled(v4())[0]
    assert a.stride() == (0, 1)


def test_containers_returned() -> None:
    Pair = namedtuple("Pair", ["a", "b"])
    follows(
        lambda x: {"a": [x * 2, (x, {"b": x + 1})], "c": Pair(x * 3, None), "d": ()},
        *[(v4(float(k)),) for k in range(4)],
    )


def test_unknown_object_returned_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return SimpleNamespace(y=x * 2).y, SimpleNamespace(z=1)  # here

        return f, (v4(),)

    fn, args = make()
    with pytest.raises(RecordingError, match="SimpleNamespace"):
        graphc.compile(fn, fullgraph=True)(*args)
    with pytest.warns(graphc.RecordingWarning, match="SimpleNamespace"):
        out = graphc.compile(fn)(*args)
    assert out[0].tolist() == (v4() * 2).tolist()


def test_object_holding_tensors_returned_is_refused() -> None:
    box = SimpleNamespace

    with pytest.raises(RecordingError):
        graphc.compile(lambda x: box(y=x * 2), fullgraph=True)(v4())
    with pytest.warns(graphc.RecordingWarning):
        assert graphc.compile(lambda x: box(y=x * 2))(v4()).y.tolist() == (v4() * 2).tolist()


def test_module_returned() -> None:
    model = nn.Linear(2, 2)

    def f(x: Any) -> Any:
        return x * 2, model

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="Linear"):
        assert compiled(v4())[1] is model


@quiet
def test_exceptions_pass_through_and_leave_nothing() -> None:
    graphc.manual_seed(1)

    def f(x: Any, fail: bool) -> Any:
        y = x * graphc.rand(4)
        if fail:
            raise KeyError("no")
        return y

    compiled = graphc.compile(f)
    for fail in (True, False, True, False, False, True, False):
        state = graphc.get_rng_state()
        try:
            expected: Any = bits(f(v4(), fail))
        except KeyError:
            expected = None
        after = graphc.get_rng_state()
        graphc.set_rng_state(state)
        x = v4()
        if fail:
            with pytest.raises(KeyError):
                compiled(x, fail)
        else:
            assert bits(compiled(x, fail)) == expected
        assert bits(graphc.get_rng_state()) == bits(after)
        assert x._s.slot is None
    assert graphc.is_compiling() is False


@pytest.mark.parametrize("which", ["argument", "closure", "nested", "dataclass"])
def test_a_container_from_outside_returned_is_refused(which: str) -> None:
    @dataclasses.dataclass
    class Box:
        y: Any

    kept = {"argument": {"y": v4()}, "closure": [1, 2], "nested": [v4()], "dataclass": Box(v4())}[which]

    def make() -> Any:
        def f(x: Any, given: Any) -> Any:
            return (x * 2, {"k": given}) if which == "nested" else given if which != "closure" else kept  # here

        return f, (v4(), None if which == "closure" else kept)

    fn, args = make()
    refused(make)
    with pytest.warns(graphc.RecordingWarning):
        compiled = graphc.compile(fn)
        for _ in range(4):
            out = compiled(*args)
            assert (out[1]["k"] if which == "nested" else out) is kept
