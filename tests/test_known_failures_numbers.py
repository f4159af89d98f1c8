"""Known failures of other compilers, one test each: the very bits of results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.nn import functional as F
from graphc.runtime.float_mode import float_mode, get_float_mode
from graphc.testing import assert_same
from tests.failure_checks import Made, cases, fresh, nothing, same, x34
from tests.recorder_checks import bits

NAN, INF = float("nan"), float("inf")
EDGES = [0.0, -0.0, 1.0, -1.0, INF, -INF, NAN, 1e-40, -1e-40, 3.4e38, -3.4e38, 0.5, -2.5, 1e-45]


def edges(dtype: Any = graphc.float32) -> Any:
    """Numbers at the edges, enough of them for whole vectors and a rest."""
    return graphc.tensor(EDGES * 3).to(dtype)


# ---- a * b - c * d with equal products


@pytest.mark.parametrize("dtype", [graphc.float32, graphc.float64, graphc.bfloat16, graphc.float16], ids=str)
@pytest.mark.parametrize(
    "form",
    [
        lambda a, b: a * b - b * a,
        lambda a, b: a * b - a * b,
        lambda a, b: (a * b).add(b * a, alpha=-1),
        lambda a, b: (a * b).sub_(b * a),
        lambda a, b: -(a * b) + b * a,
        lambda a, b: (a[:, None] * b[None, :] - b[None, :] * a[:, None]).sum(0),
        lambda a, b: graphc.stack([a * b, b * a]).diff(dim=0)[0],
    ],
    ids=["plain", "shared", "alpha", "in place", "negated", "outer", "stacked"],
)
def test_equal_products_differ_by_exactly_zero(form: Any, dtype: Any) -> None:
    """One product was contracted into a fused multiply-add: the difference was its rounding error."""
    rng = np.random.RandomState(0)
    a, b = (graphc.tensor(rng.standard_normal(77)).to(dtype) for _ in range(2))
    compiled = assert_same(form, a, b)
    assert (compiled(a, b) == 0).all()


def test_equal_products_in_gradients() -> None:
    """The same in a backward pass: the two ways to one gradient cancel."""

    def step(a: Any, b: Any) -> Any:
        a.grad = b.grad = None
        (a * b).sum().backward()
        (b * a).sum().neg().backward()
        return a.grad * 1, b.grad * 1

    a, b = (graphc.randn(50).requires_grad_() for _ in range(2))
    compiled = graphc.compile(step, fullgraph=True)
    for _ in range(5):
        assert all((g == 0).all() for g in compiled(a, b))
    assert compiled.stats.hits == 3


# ---- -0.0, NaN positions, infinities


OPERATIONS: dict[str, Callable[[Any], Any]] = {
    "add zero": lambda x: (x + 0, x - 0, 0 - x, x + -0.0),
    "multiply by one": lambda x: (x * 1, x / 1, x * 0, x * -1, 1 / x),
    "negate": lambda x: (-x, x.neg().neg(), x.abs(), x.sign(), x.signbit()),
    "relu": lambda x: (x.relu(), F.leaky_relu(x), F.relu6(x), F.hardtanh(x), F.threshold(x, 0.0, 0.0)),
    "min and max": lambda x: (graphc.maximum(x, -x), graphc.minimum(x, -x), x.max(), x.min(), x.clamp(-1, 1)),
    "comparisons": lambda x: (x == x, x != x, x < 0, x >= 0, x.isnan(), x.isinf(), ~(x < 0), graphc.eq(x, -x)),
    "choice": lambda x: (graphc.where(x > 0, x, -x), graphc.where(x == x, x, 0.0), x.masked_fill(x < 0, -0.0)),
    "sums": lambda x: (x.sum(), x[:2].sum(), x[1:2].sum(), x[1:2].mean(), (x * -0.0).sum(), x.cumsum(0), x[:2].prod()),
    "order": lambda x: (x.sort()[0], x.argsort(), x.argmax(), x.argmin(), x.topk(3)[0], x.cummax(0)[0]),
    "rounding": lambda x: (x.round(), x.floor(), x.ceil(), x.trunc(), x % 2, x // 2, x.fmod(2)),
    "functions": lambda x: (x.exp(), x.log(), x.sqrt(), x.rsqrt(), x.tanh(), x.sin(), x.sigmoid(), x**2, x**0.5, x**-1),
    "softmax": lambda x: (x[:4].softmax(0), x[:5].softmax(0), x.softmax(0), x[:6].logsumexp(0), x[:5].log_softmax(0)),
    "casts": lambda x: (x.int(), x.long(), x.to(graphc.uint8), x.half(), x.bfloat16(), x.double(), x.bool()),
    "copies": lambda x: (x.clone(), x[::2] * 1, x.flip(0), graphc.cat([x, -x]), x.roll(1), x.reshape(6, -1).T + 0),
    "repair": lambda x: (x.nan_to_num(), x.nan_to_num(0.0, 1.0, -1.0), x.nansum() if hasattr(x, "nansum") else x),
}


@pytest.mark.parametrize("name", OPERATIONS)
def test_zeros_nans_and_infinities(name: str) -> None:
    """x + 0 became x, x * 0 became 0, x != x became False, max(x, -x) became abs(x), a NaN was lost in a maximum."""
    for dtype in (graphc.float32, graphc.float64, graphc.bfloat16):
        assert_same(OPERATIONS[name], edges(dtype), threads=(1,), reload=dtype is graphc.float32)


def test_the_sign_of_zero_itself() -> None:
    """What the bits must be, not only that they agree."""
    compiled = graphc.compile(lambda x: (x + 0, x * 1, -x, x.relu(), x + -0.0, x[:1].sum(), x.abs()), fullgraph=True)
    for _ in range(4):
        found = compiled(graphc.tensor([-0.0, 0.0]))
        signs = [np.signbit(t.numpy()).tolist() for t in found]
        expected = [[False, False], [True, False], [False, True], [True, False], [True, False], True, [False, False]]
        assert signs == [np.asarray(e).tolist() for e in expected]


def _zero_gradients() -> Made:
    w = nn.Parameter(graphc.tensor([1.0, -1.0, 0.0, -0.0]))

    def f(x: Any) -> Any:
        w.grad = None
        (w * x).sum().backward()
        (w * x).relu().sum().backward()
        return w.grad * 1  # type: ignore[operator]

    return f, lambda k: (graphc.tensor([-0.0, 0.0, -0.0, 1.0]),), lambda: w.grad


def _zero_gradients_added_up() -> Made:
    w = nn.Parameter(graphc.tensor([1.0, 2.0]))

    def f(x: Any) -> Any:
        (w * x).sum().backward()
        return w.grad.clone()  # type: ignore[union-attr]

    return f, lambda k: (graphc.tensor([-0.0, 0.0]),), lambda: w.grad


def _zero_gradients_of_views() -> Made:
    w = nn.Parameter(x34())

    def f(x: Any) -> Any:
        w.grad = None
        (w[0] * x).sum().backward()
        return w.grad[1:] * 1  # type: ignore[index]

    return f, lambda k: (graphc.tensor([-0.0, 0.0, -1.0, 1.0]),), lambda: w.grad


def _zero_update() -> Made:
    w = nn.Parameter(graphc.tensor([-0.0, 0.0, -0.0, 0.0]))
    opt = graphc.optim.SGD([w], lr=0.1, momentum=0.9, weight_decay=0.0)

    def f(x: Any) -> Any:
        opt.zero_grad()
        (w * x).sum().backward()
        opt.step()
        return w.detach() * 1

    return f, lambda k: (graphc.tensor([-0.0, 0.0, 0.0, -0.0]),), lambda: [w, w.grad]


@cases(_zero_gradients, _zero_gradients_added_up, _zero_gradients_of_views, _zero_update)
def test_gradients_of_negative_zero(make: Any) -> None:
    """The first contribution was added to +0: the sign was lost."""
    same(make, hits=4)


# ---- denormals under a host that set flush-to-zero


def _denormals(x: Any, y: Any) -> Any:
    return (
        (x * 0.5, x + y, x * y * 2.0**120, (x + y).sum(), x @ y, x.exp(), x > 0, x == 0, x.abs().max()),
        (x.bfloat16() * 0.5, x.double() * 1e-20, x.half(), x.cumsum(0), x.softmax(0), (x * 2.0**24).round()),
    )


@pytest.mark.parametrize("rounding", ["nearest", "up", "zero"])
@pytest.mark.parametrize("threads", [1, 2])
def test_denormals_under_a_host_that_flushes_them(rounding: str, threads: int) -> None:
    """The mode of the calling thread (left by an audio host or a -ffast-math library) decided about the results."""
    rng = np.random.RandomState(2)
    x, y = (graphc.tensor((rng.standard_normal(70) * s).astype(np.float32)) for s in (1e-39, 3e-38))
    expected = bits(_denormals(x, y))
    assert expected != bits(_denormals(graphc.where(x.abs() < 1.2e-38, 0.0, x), y))
    before = graphc.get_num_threads()
    graphc.set_num_threads(threads)
    try:
        with float_mode(flush=True, rounding=rounding) as mode:
            assert bits(_denormals(x, y)) == expected
            compiled = graphc.compile(_denormals, fullgraph=True)
            for _ in range(5):
                assert bits(compiled(x, y)) == expected
            program = graphc.trace(_denormals, x, y)
            assert bits(program(x, y)) == expected
            assert get_float_mode() == mode, "the mode of the host is its own"
    finally:
        graphc.set_num_threads(before)
    assert compiled.stats.hits == 3


def test_denormals_in_a_training_step_under_a_host_that_flushes_them() -> None:
    """Gradients, moments and constants, too: folded ones are computed while compiling, in the thread of the host."""

    def run(wrap: Any, flush: bool) -> Any:
        graphc.manual_seed(0)
        w = nn.Parameter(graphc.randn(40) * 1e-20)
        opt = graphc.optim.Adam([w], lr=1e-3, eps=1e-30)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = (w * x * graphc.full((), 1e-30) * 1e-10).sum()
            loss.backward()
            opt.step()
            return loss

        fn = wrap(step)
        with float_mode(flush=flush):
            losses = [fn(graphc.full((40,), 1e-5)) for _ in range(6)]
        return bits([losses, w, w.grad])

    expected = run(lambda f: f, False)
    for wrap in (lambda f: f, lambda f: graphc.compile(f, fullgraph=True)):
        assert run(wrap, True) == expected


# ---- a bf16 chain


def _numpy_chain(x: Any, y: Any, dtype: Any) -> Any:
    def f(v: Any) -> Any:
        return np.asarray(v, np.float32)

    a = (f(x) * f(y)).astype(dtype)
    b = (f(a) + f(x)).astype(dtype)
    c = (f(b) * f(np.asarray(0.3, dtype))).astype(dtype)
    d = (f(c) - f(y)).astype(dtype)
    e = np.maximum(f(d), f(a)).astype(dtype)
    return (f(e) / f(b)).astype(dtype)


@pytest.mark.parametrize("dtype", [graphc.bfloat16, graphc.float16], ids=str)
def test_a_bf16_chain_rounds_at_the_same_points(dtype: Any) -> None:
    """The fused chain kept float32 between its operations."""
    rng = np.random.RandomState(1)
    kind = ml_dtypes.bfloat16 if dtype is graphc.bfloat16 else np.float16
    x, y = (rng.standard_normal((5, 67)).astype(kind) for _ in range(2))

    def f(x: Any, y: Any) -> Any:
        a = x * y
        b = a + x
        e = graphc.maximum(b * 0.3 - y, a)
        return e / b, (e / b).sum(1)

    u, v = (graphc.tensor(t.astype(np.float32)).to(dtype) for t in (x, y))
    compiled = assert_same(f, u, v)
    with np.errstate(all="ignore"):
        expected = _numpy_chain(x, y, kind)
    found = compiled(u, v)[0]
    assert found.dtype is dtype
    assert np.array_equal(found.float().numpy(), expected.astype(np.float32), equal_nan=True)


def test_a_bf16_model_and_its_gradients() -> None:
    """Matrix products, norms and gradients in bfloat16 round once an operation, fused or not."""
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(9, 17), nn.GELU(), nn.LayerNorm(17), nn.Linear(17, 3)).bfloat16()

    def step(x: Any) -> Any:
        net.zero_grad()
        loss = net(x).softmax(-1).square().mean()
        loss.backward()
        return loss

    assert_same(step, graphc.randn(6, 9).bfloat16(), state=net, reload=False)


# ---- learning rates, dropouts, second derivatives


def test_two_dropouts_are_independent_whatever_the_schedule() -> None:
    """Two equal dropouts were one after common subexpressions; a recomputed one drew other numbers."""

    def f(x: Any) -> Any:
        a, b = F.dropout(x, 0.5), F.dropout(x, 0.5)
        unused = F.dropout(x, 0.5)
        return a, b, (a * 2).exp().sum(), b.sum(), F.dropout(x, 0.5) + a, unused.shape[0]

    x = graphc.ones(64, 16)
    compiled = assert_same(f, x)
    a, b, *_ = compiled(x)
    assert not graphc.equal(a, b)

    def made() -> Made:
        net = nn.Sequential(nn.Dropout(0.3), nn.Linear(4, 8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2))

        def step(x: Any) -> Any:
            net.zero_grad()
            y = net(x) + net(x)
            y.exp().sum().backward()
            return y.detach()

        return step, fresh(3, 4), lambda: [p.grad for p in net.parameters()]

    same(made)


@pytest.mark.parametrize(
    "f",
    [
        lambda x: (x**3).sum(),
        lambda x: x.exp().sin().sum(),
        lambda x: (x @ x.T).softmax(-1).square().sum(),
        lambda x: F.layer_norm(x, (4,)).pow(3).sum(),
        lambda x: F.gelu(x).prod(),
        lambda x: x.clone().mul_(x)[1:].tanh().sum(),
    ],
    ids=["cube", "composed", "attention", "norm", "gelu", "in place"],
)
def test_the_second_derivative_compiled(f: Any) -> None:
    """The compiled first derivative had no history, or the second one was that of another function."""

    def twice(x: Any) -> Any:
        (g,) = graphc.autograd.grad(f(x), x, create_graph=True)
        (h,) = graphc.autograd.grad((g * g).sum(), x)
        return g.detach(), h

    def make() -> Made:
        return twice, lambda k: ((x34(k) * 0.1).requires_grad_(),), nothing

    same(make)
    assert_same(twice, (x34() * 0.1).requires_grad_())

    forward = graphc.compile(f, fullgraph=True)
    for k in range(5):
        x, y = (x34(k) * 0.1).requires_grad_(), (x34(k) * 0.1).requires_grad_()
        assert bits(twice_outside(forward, x)) == bits(twice_outside(f, y))


def twice_outside(f: Any, x: Any) -> Any:
    """Both derivatives, with the compiled function inside."""
    (g,) = graphc.autograd.grad(f(x), x, create_graph=True)
    return g.detach(), graphc.autograd.grad((g * g).sum(), x)[0]


def test_a_schedule_of_a_thousand_steps_records_nothing_anew() -> None:
    """Every learning rate was a constant of its own graph."""

    def run(wrap: Any) -> Any:
        graphc.manual_seed(0)
        net = nn.Linear(4, 2)
        opt = graphc.optim.AdamW(net.parameters(), lr=0.1, weight_decay=0.01)
        schedule = graphc.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=1000)

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            opt.step()
            return loss

        fn = wrap(step)
        x = graphc.randn(3, 4)
        losses = []
        for _ in range(1000):
            losses.append(fn(x).item())
            schedule.step()
        return fn, bits(list(net.parameters())), losses

    fn, weights, losses = run(lambda f: graphc.compile(f, fullgraph=True))
    _, expected, others = run(lambda f: f)
    assert (weights, losses) == (expected, others)
    assert fn.stats.recordings == 2 and fn.stats.hits == 998
