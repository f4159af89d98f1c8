"""The recorder: values that leave a compiled function."""

from __future__ import annotations

import math
import pickle
from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import RecordingError
from tests.recorder_checks import bits, follows, refused

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def v4(scale: float = 1.0) -> Any:
    return graphc.tensor([1.0, -2.0, 3.0, 0.5]) * scale


# ---- branches


@pytest.mark.parametrize(
    "test",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum() > 0,
        lambda x: graphc.equal(x, x.abs()),
        lambda x: graphc.allclose(x, x.abs()),
        lambda x: 3.0 in x,
        lambda x: (x > 0).any() and not (x > 2.5).all(),
        lambda x: x.sum().item() > 0,
        lambda x: not x[0],
        lambda x: x.max() in [graphc.tensor(3.0), graphc.tensor(-1.0)],
    ],
)
def test_a_branch_on_a_value_is_a_guard(test: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2 if test(x) else x - 1

    forms = [v4(), v4(-1.0), v4(0.0), v4().abs()]
    compiled = follows(f, *[(x,) for x in forms for _ in range(3)], *[(x,) for x in forms])
    assert compiled.stats.hits >= 4


def test_guards_name_line_and_value() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x

    compiled = follows(f, *[(v4(),)] * 3)
    assert "test_recorder_leaving.py:" in compiled.explain() and "is True" in compiled.explain()


def test_assert_is_a_guard() -> None:
    def f(x: Any) -> Any:
        assert (x < 10).all(), "too large"
        return x * 2

    compiled = follows(f, *[(v4(),)] * 4)
    with pytest.raises(AssertionError, match="too large"):
        compiled(v4(100.0))
    assert compiled(v4()).tolist() == (v4() * 2).tolist()
    assert compiled.stats.hits == 3


def test_data_dependent_loop() -> None:
    def f(x: Any) -> Any:
        while x.abs().max() > 1:
            x = x / 2
        return x

    follows(f, *[(v4(s),) for s in (1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0, 1.0, 0.1)])


@pytest.mark.parametrize("fullgraph", [False, True])
def test_more_than_eight_paths_run_eagerly_with_one_warning(fullgraph: bool) -> None:
    def f(x: Any) -> Any:
        while x.max() > 1:
            x = x / 2
        return x

    compiled = graphc.compile(f, fullgraph=fullgraph)
    for k in range(1, 9):
        for _ in range(2):
            compiled(v4(2.0**k))
    assert compiled.stats.compilations == 8
    if fullgraph:
        with pytest.raises(RecordingError, match="8 different paths"):
            compiled(v4(2.0**9))
        return
    with pytest.warns(graphc.RecordingWarning, match="8 different paths") as caught:
        for k in (9, 10, 11, 9, 3):
            assert bits(compiled(v4(2.0**k))) == bits(f(v4(2.0**k)))
    assert len(caught) == 1
    assert compiled.stats.compilations == 8


def test_guards_come_before_the_first_write() -> None:
    def step(x: Any, w: Any) -> Any:
        w.add_(1)
        if (x + w).sum() > 0:
            w.mul_(2)
        return w + x

    w, w2 = graphc.zeros(4), graphc.zeros(4)
    compiled = graphc.compile(step, fullgraph=True)
    for s in (1.0, 1.0, 1.0, -1000.0, -1000.0, -1000.0, 1.0, -1000.0):
        assert bits(compiled(v4(s), w)) == bits(step(v4(s), w2))
        assert bits(w) == bits(w2)
    assert compiled.stats.hits == 4


# ---- numbers


def test_item_in_arithmetic() -> None:
    def f(x: Any) -> Any:
        s = x.sum().item()
        return x * s + (s + 1) / 2 - 2 * s, 1 - s, s / 3, -s, abs(s)

    compiled = follows(f, *[(v4(k),) for k in (1.0, -2.0, 0.3, 5.0)])
    assert compiled.stats.hits == 2


def test_int_item_in_arithmetic() -> None:
    def f(x: Any) -> Any:
        n = x.argmax().item()
        return x + n, n + 1, n * 2 - 1, n / 2, n // 2, n % 2, -n, 7 - n

    follows(f, (v4(),), (v4(-1.0),), (v4(),), (v4(-1.0),))


def test_bool_item() -> None:
    follows(
        lambda x: (x.any().item(), x * x.any().item(), x.any().item() + 1), (v4(),), (v4(0.0),), (v4(),), (v4(0.0),)
    )


def test_item_compared_is_a_guard() -> None:
    def f(x: Any) -> Any:
        s = x.sum().item()
        if 0 < s <= 10:
            return x * s
        return x - s if s != 0 else x

    compiled = follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 0.0, 0.0, 0.0, 100.0, 90.0, 80.0)])
    assert compiled.stats.compilations >= 3


def test_item_returned_is_a_number() -> None:
    compiled = follows(
        lambda x: {"loss": x.sum().item(), "n": x.argmax().item(), "b": (x > 0).all().item()},
        *[(v4(k),) for k in (1.0, -1.0, 2.0, 3.0)],
    )
    out = compiled(v4())
    assert [type(v) for v in out.values()] == [float, int, bool]


def test_item_formatted_shows_the_number() -> None:
    seen: list[str] = []

    def f(x: Any) -> Any:
        s = x.sum().item()
        text = f"{s:.1f} {s} {s!r}" + str(s)
        assert "2.5" in text
        return x * s

    follows(f, (v4(),), (v4(),), (v4(),))
    assert not seen


def test_float_forced_is_refused() -> None:
    def forced() -> Any:
        def f(x: Any) -> Any:
            s = x.sum().item()
            return x * float(s)  # here

        return f, (v4(),)

    def sqrt() -> Any:
        def f(x: Any) -> Any:
            return x * math.sqrt(abs(x.sum().item()))  # here

        return f, (v4(),)

    def direct() -> Any:
        def f(x: Any) -> Any:
            return x * float(x.sum())  # here

        return f, (v4(),)

    def numpy_call() -> Any:
        def f(x: Any) -> Any:
            return x * np.sqrt(abs(x.sum().item()))  # here

        return f, (v4(),)

    refused(forced, match="float()")
    refused(sqrt)
    refused(direct)
    refused(numpy_call)


def test_int_forced_is_a_guard() -> None:
    def f(x: Any) -> Any:
        n = x.argmax().item()
        for _ in range(n):
            x = x * 2
        return x[n] + int(n) + graphc.zeros(n + 1).sum() + [5.0, 6.0, 7.0, 8.0][n]

    compiled = follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])
    assert compiled.stats.compilations == 2 and compiled.stats.hits == 4


def test_int_of_a_tensor_and_index_are_guards() -> None:
    def f(x: Any) -> Any:
        n = x.argmax()
        return x * int(n) + [1.0, 2.0, 3.0][n]

    follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])


def test_int_of_a_float_item_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return x * int(x.sum().item())  # here

        return f, (v4(),)

    refused(make)


@pytest.mark.parametrize(
    "what", ["round", "hash", "dict key", "float index", "log", "exp", "pow", "floordiv", "mod", "hex"]
)
def test_other_uses_of_an_item(what: str) -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            s = x.sum().item()
            if what == "round":
                return x * round(s)  # here
            if what == "hash":
                return x * (hash(s) % 3)  # here
            if what == "dict key":
                return x * {2.5: 3.0}[s]  # here
            if what == "float index":
                return x * math.floor(s)  # here
            if what == "log":
                return x * math.log(s)  # here
            if what == "pow":
                return x * s**2  # here
            if what == "floordiv":
                return x * (s // 2)  # here
            if what == "mod":
                return x * (s % 2)  # here
            if what == "hex":
                return x * len(s.hex())  # here
            return x * math.exp(s)  # here

        return f, (v4(),)

    refused(make)


def test_min_max_sum_of_items_are_guards_and_nodes() -> None:
    def f(x: Any) -> Any:
        a, b = x[0].item(), x[1].item()
        return x * min(a, b) + max(a, b, 0.0) + sum([a, b])

    follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])


# ---- hard escapes


@pytest.mark.parametrize("how", ["numpy", "tolist", "asarray", "data_ptr", "pickle", "memoryview", "ufunc"])
def test_escapes_are_refused(how: str) -> None:
    actions: dict[str, Any] = {
        "numpy": lambda t: t.numpy(),
        "tolist": lambda t: t.tolist(),
        "asarray": np.asarray,
        "data_ptr": lambda t: t.data_ptr(),
        "pickle": pickle.dumps,
        "memoryview": lambda t: np.array(t, copy=True).data,
        "ufunc": lambda t: np.asarray(t) + 1,
    }
    act = actions[how]

    def make() -> Any:
        def f(x: Any) -> Any:
            y = x * 2
            if how == "pickle":
                pickle.dumps(y)  # here
            else:
                call(y)  # here
            return y

        def call(y: Any) -> Any:
            return act(y)

        return f, (v4(),)

    def inside() -> Any:
        def f(x: Any) -> Any:
            y = x * 2
            {"numpy": y.numpy, "tolist": y.tolist, "data_ptr": y.data_ptr}[how]()  # here
            return y

        return f, (v4(),)

    if how in ("numpy", "tolist", "data_ptr"):
        refused(inside)
        return
    try:
        act(v4())
    except TypeError:
        pytest.skip(f"{how} is no way out of a tensor here")
    with pytest.raises(RecordingError):
        graphc.compile(make()[0], fullgraph=True)(v4())
    compiled = graphc.compile(make()[0])
    with pytest.warns(graphc.RecordingWarning):
        assert bits(compiled(v4())) == bits(v4() * 2)


def test_refusal_says_the_ways_out() -> None:
    with pytest.raises(RecordingError, match="return"):
        graphc.compile(lambda x: x.numpy().sum(), fullgraph=True)(v4())


# ---- shown


def test_print_is_shown_while_recording_and_said_once(capsys: Any) -> None:
    def f(x: Any) -> Any:
        print("x is", x)
        return x * 2

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match=r"test_recorder_leaving\.py") as caught:
        for _ in range(5):
            compiled(v4())
    assert len(caught) == 1
    assert capsys.readouterr().out.count("x is") == 2
    assert compiled.stats.hits == 3
    with pytest.raises(RecordingError, match=r"test_recorder_leaving\.py"):
        strict = graphc.compile(f, fullgraph=True)
        for _ in range(3):
            strict(v4())


def test_repr_of_a_tensor_that_is_kept_is_refused_or_shown() -> None:
    def make() -> Any:
        log: list[str] = []

        def f(x: Any) -> Any:
            log.append(repr(x * 2))  # here
            return x * 2

        return f, (v4(),), lambda: list(log)

    refused(make)


def test_repr_returned_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return x * 2, repr(x * 2)  # here

        return f, (v4(),)

    refused(make)


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


# ---- sizes that depend on values


@pytest.mark.parametrize("how", ["mask", "nonzero", "masked_select", "unique"])
def test_value_dependent_sizes_are_refused(how: str) -> None:
    x = graphc.tensor([1.0, 2.0, 2.0])
    if how != "mask" and not hasattr(graphc, how):
        pytest.skip(f"{how} is not there")

    def make() -> Any:
        def f(x: Any) -> Any:
            if how == "mask":
                return x[x > 1].sum()  # here
            if how == "nonzero":
                return graphc.nonzero(x)  # here
            if how == "masked_select":
                return graphc.masked_select(x, x > 1)  # here
            return graphc.unique(x)  # here

        return f, (x,)

    refused(make)


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
