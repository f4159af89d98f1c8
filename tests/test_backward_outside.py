"""backward() outside of a compiled function: one backward executable, with the bits and the errors of eager's tape."""

from __future__ import annotations

import copy
import gc
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.frontend.record.cut import choose
from graphc.frontend.record.region import CompiledRegion
from graphc.frontend.tensor import fresh
from graphc.ir.graph import Graph
from graphc.ir.op import all_ops, op_named
from graphc.ir.types import TensorType, float32
from tests.recorder_checks import bits

Make = Callable[[], tuple[Callable[..., Any], list[Any], list[Any]]]


def weights(*shapes: tuple[int, ...]) -> list[Any]:
    graphc.manual_seed(3)
    return [graphc.randn(*shape).requires_grad_() for shape in shapes]


def outcome(make: Make, use: Callable[..., Any], compiled: bool, calls: int = 5) -> tuple[list[Any], Any]:
    """What `use(outputs, weights)` gives and leaves in the gradients, call by call."""
    fn, ws, args = make()
    run = graphc.compile(fn, fullgraph=True) if compiled else fn
    seen = []
    for k in range(calls):
        graphc.manual_seed(k)
        try:
            got = bits(use(run(*args), ws))
        except graphc.errors.GraphcError as error:
            got = (type(error), str(error))
        seen.append((got, [bits(w.grad) for w in ws]))
    return seen, run


def same(make: Make, use: Callable[..., Any], calls: int = 5) -> Any:
    expected, _ = outcome(make, use, False, calls)
    found, compiled = outcome(make, use, True, calls)
    assert found == expected
    assert compiled.stats.hits == calls - 2
    return compiled


def region_of(t: Any) -> CompiledRegion:
    found = t._edge[0]
    assert isinstance(found, CompiledRegion)
    return found


def chain() -> Any:
    """Three outputs: one before, one in the midst of another's history, one apart."""
    a, b, c = weights((3, 4), (4, 4), (3, 4))

    def f(x: Any) -> Any:
        h = graphc.tanh(a * x)
        return h, (h @ b).square(), (c * c).sum()

    return f, [a, b, c], [graphc.linspace(-1.0, 1.0, 12).reshape(3, 4)]


def test_whole_backward_is_one_executable() -> None:
    def use(outs: Any, ws: Any) -> None:
        (outs[0].sum() + outs[1].sum() * 2 + outs[2]).backward()

    compiled = same(chain, use)
    (code,) = compiled.traces[0].backward._codes.values()
    assert len(code.executables) == 1
    fn, ws, args = chain()
    run = graphc.compile(fn)
    for _ in range(3):
        outs = run(*args)
    assert outs[0].grad_fn.name() == "TanhBackward0"  # asking opens the region
    outs = run(*args)
    use(outs, ws)
    assert region_of(outs[0]).nodes is None
    assert region_of(outs[0]) is region_of(outs[2])


@pytest.mark.parametrize("which", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_gradients_of_some_outputs(which: tuple[int, ...]) -> None:
    def use(outs: Any, ws: Any) -> None:
        graphc.autograd.backward([outs[k] for k in which], [graphc.ones_like(outs[k]) for k in which])

    same(chain, use)


def test_one_after_the_other() -> None:
    def apart(outs: Any, ws: Any) -> None:
        outs[2].backward()
        outs[1].sum().backward()

    def again(outs: Any, ws: Any) -> None:
        outs[2].backward()
        outs[2].backward()  # freed

    def shared(outs: Any, ws: Any) -> None:
        outs[1].sum().backward()
        outs[0].sum().backward()  # the history of output 0 was freed with that of output 1

    def kept(outs: Any, ws: Any) -> None:
        outs[1].sum().backward(retain_graph=True)
        outs[0].sum().backward(retain_graph=True)
        outs[1].sum().backward()

    for use in (apart, again, shared, kept):
        same(chain, use)


def test_hooks_on_outputs() -> None:
    calls: list[Any] = []

    def use(outs: Any, ws: Any) -> Any:
        h, y, z = outs
        h.register_hook(lambda g: calls.append("h") or g * 2)
        y.register_hook(lambda g: calls.append("y") or g * 3)
        h.retain_grad()
        (h.sum() + y.sum() + z).backward()
        return h.grad

    same(chain, use)
    assert calls == ["y", "h"] * 10

    def ends(outs: Any, ws: Any) -> Any:
        outs[1].retain_grad()
        outs[1].register_hook(lambda g: g * 3)
        (outs[0].sum() + outs[1].sum()).backward()
        assert type(outs[1]._edge[0]).__name__ != "CompiledRegion" or region_of(outs[1]).nodes is None
        return outs[1].grad

    same(chain, ends)


def test_hooks_on_nodes_and_leaves() -> None:
    def use(outs: Any, ws: Any) -> Any:
        seen: list[Any] = []
        outs[1].grad_fn.register_hook(lambda gi, go: seen.append((gi[0], go[0])))
        handle = ws[0].register_hook(lambda g: seen.append(g) or g * 2)
        (outs[0].sum() + outs[1].sum()).backward()
        handle.remove()
        return seen

    assert outcome(chain, use, True)[0] == outcome(chain, use, False)[0]


def test_grad_with_respect_to_outputs_and_inputs() -> None:
    def midst(outs: Any, ws: Any) -> Any:
        return graphc.autograd.grad(outs[1].sum() + outs[0].sum(), [outs[0], ws[1]])

    def end(outs: Any, ws: Any) -> Any:
        return graphc.autograd.grad(outs[1].sum(), [outs[1], ws[0]])

    def one(outs: Any, ws: Any) -> Any:
        outs[1].sum().backward(inputs=[ws[1]])

    for use in (midst, end, one):
        same(chain, use)


def test_outputs_that_do_not_lead_to_what_is_asked_for() -> None:
    """Their hooks are silent, though the same compiled call leads there by another output."""

    def use(outs: Any, ws: Any) -> Any:
        seen: list[Any] = []
        outs[1].retain_grad()
        outs[2].register_hook(lambda g: seen.append(g))
        total = outs[0].sum() + outs[1].sum() + (outs[2] * 2).sum()
        found = graphc.autograd.grad(total, [ws[0]], retain_graph=True)
        second = graphc.autograd.grad(total, [outs[0], ws[2]])
        return found, second, seen, outs[1].grad

    same(chain, use)


def test_gradients_of_gradients_after_a_plain_backward() -> None:
    def use(outs: Any, ws: Any) -> Any:
        outs[1].sum().backward(retain_graph=True)
        (g,) = graphc.autograd.grad(outs[1].sum(), ws[0], create_graph=True)
        (h,) = graphc.autograd.grad(g.square().sum(), ws[0])
        outs[1].sum().backward()
        return g.detach(), h

    same(chain, use)


def test_contributions_from_outside_come_first() -> None:
    """A weight used twice inside and once outside: (outer + late) + early, not outer + (late + early)."""

    def make() -> Any:
        (w,) = weights((64,))
        scale = graphc.logspace(-3.0, 3.0, 64)
        return (lambda x: ((w * x).sum(), (w * scale).square().sum())), [w], [graphc.logspace(3.0, -3.0, 64) / 3]

    def use(outs: Any, ws: Any) -> None:
        (outs[0] * 1e-3 + outs[1] + (ws[0] * 0.1).square().sum()).backward()

    def unused(outs: Any, ws: Any) -> None:
        (outs[0] * 1e-3 + (ws[0] * 0.1).square().sum()).backward()

    def before(outs: Any, ws: Any) -> Any:
        return graphc.autograd.grad(outs[1] + outs[0] * 1e-3 + (ws[0] * 0.1).square().sum(), ws[0])

    for act in (use, unused, before):
        same(make, act)


def test_loop_over_one_weight() -> None:
    def make() -> Any:
        w, v = weights((5, 5), (5,))

        def f(x: Any) -> Any:
            h = x
            for _ in range(6):
                h = graphc.tanh(h @ w + v)
            return h

        return f, [w, v], [graphc.ones(2, 5)]

    def use(y: Any, ws: Any) -> None:
        (y.square().sum() + ws[0].square().sum()).backward()

    same(make, use)


def test_two_forwards_then_two_backwards() -> None:
    def run(compiled: bool) -> Any:
        graphc.manual_seed(1)
        model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.5), nn.Linear(5, 2))
        fn = graphc.compile(model, fullgraph=True) if compiled else model
        seen = []
        for k in range(4):
            a = fn(graphc.full((3, 4), 1.0 + k))
            b = fn(graphc.full((3, 4), -2.0 - k))
            kept = a.detach().clone()
            b.square().sum().backward()
            (a + b.detach()).square().sum().backward()
            seen.append((bits(a), bits(kept), bits([p.grad for p in model.parameters()])))
        return seen

    assert run(True) == run(False)


@pytest.mark.parametrize("what", ["input", "weight", "output", "data", "unused"])
def test_writes_between_forward_and_backward(what: str) -> None:
    def make() -> Any:
        w, v = weights((3, 4), (3, 4))
        return (lambda x: ((w * x).exp(), v + x)), [w, v], [graphc.linspace(-1.0, 1.0, 12).reshape(3, 4)]

    def use(outs: Any, ws: Any) -> Any:
        with graphc.no_grad():
            if what == "input":
                shared.add_(1)
            elif what == "weight":
                ws[0].mul_(0.5)
            elif what == "output":
                outs[0].add_(1)
            elif what == "data":
                ws[0].data = ws[0].data * 2
            else:
                ws[1].mul_(2)  # nothing saved it
                outs[1].add_(1)
        return (outs[0].sum() + outs[1].sum()).backward()

    shared: Any = None

    def making() -> Any:
        nonlocal shared
        fn, ws, args = make()
        shared = args[0]
        return fn, ws, args

    same(making, use, calls=4)


def test_input_with_history_and_views() -> None:
    def run(compiled: bool) -> Any:
        w, v = weights((6, 4), (4, 4))

        def f(x: Any, y: Any) -> Any:
            z = x @ v
            return z[1:], z[0] + y.sum(), x * 2

        fn = graphc.compile(f, fullgraph=True) if compiled else f
        seen = []
        for _ in range(4):
            w.grad = v.grad = None
            x = (w * 3)[1:4]
            x.retain_grad()
            a, b, c = fn(x, x[0])
            a.mul_(2)
            (a.square().sum() + b.sum() + (c * x).sum()).backward()
            seen.append(bits([w.grad, v.grad, x.grad, a.detach()]))
        return seen

    assert run(True) == run(False)


def test_gradients_are_the_leaf_s_own() -> None:
    def make() -> Any:
        w, v = weights((3,), (3,))
        return (lambda: w + v), [w, v], []

    fn, (w, v), _ = make()
    compiled = graphc.compile(fn)
    for _ in range(3):
        y = compiled()
    g = graphc.ones(3)
    y.backward(g, retain_graph=True)
    g.add_(1)
    w.grad.add_(1)
    assert (w.grad.tolist(), v.grad.tolist()) == ([2.0] * 3, [1.0] * 3)
    other = weights((3,))[0]
    (other * 1).backward(v.grad)
    y.backward(v.grad)
    v.grad.add_(1)
    assert other.grad.tolist() == [1.0] * 3
    a, b = weights((3,), (3,))
    inner = graphc.compile(lambda x: x * 2)
    for _ in range(3):
        inner(a + b)
    inner(a + b).sum().backward()
    a.grad.add_(1)
    assert (a.grad.tolist(), b.grad.tolist()) == ([3.0] * 3, [2.0] * 3)


def test_layouts_of_gradients() -> None:
    def make() -> Any:
        (w,) = weights((4, 4))
        return (lambda: graphc.tanh(w)), [w], []

    fn, (w,), _ = make()
    compiled = graphc.compile(fn)
    base = graphc.randn(8, 8)
    for g in (
        base[:4, :4],
        base[::2, ::2],
        base[:4, :4].t(),
        base[0, :4].expand(4, 4),
        base[4:, 2:6],
        base[0, 0].expand(4, 4),
    ):
        for f in (fn, compiled):
            w.grad = None
            for _ in range(3):
                w.grad = None
                f().backward(g)
            if f is fn:
                expected = bits(w.grad)
        assert bits(w.grad) == expected
    (code,) = compiled.traces[0].backward._codes.values()
    assert len(code.executables) <= 5


def test_nothing_is_kept_alive() -> None:
    fn, _, args = chain()
    compiled = graphc.compile(fn)
    for _ in range(3):
        outs = compiled(*args)
    gc.disable()
    try:
        references = [weakref.ref(t) for t in (*outs, region_of(outs[0]))]
        outs[1].sum().backward()
        del outs
        assert [r() for r in references] == [None] * 4
    finally:
        gc.enable()


def test_backward_inside_another_compiled_function() -> None:
    def run(compile: Any) -> Any:
        w, v = weights((3, 4), (3, 4))
        forward = compile(lambda x: (w * x).tanh())

        def step(x: Any) -> Any:
            v.grad = w.grad = None
            (forward(x) * v).sum().backward()
            return w.grad * 1

        step = compile(step)
        return [(bits(step(graphc.ones(3, 4) * k)), bits([w.grad, v.grad])) for k in range(5)]

    assert run(lambda f: graphc.compile(f, fullgraph=True)) == run(lambda f: f)


def test_anomaly_mode_names_the_operation() -> None:
    def use(y: Any, ws: Any) -> None:
        with graphc.autograd.set_detect_anomaly(True):
            y.sum().backward()

    def make() -> Any:
        w = graphc.tensor([0.0, 1.0], requires_grad=True)
        return (lambda x: (w * x).sqrt() * 0), [w], [graphc.zeros(2)]

    found = outcome(make, use, True)[0]
    assert found[4][0][0] is graphc.errors.AutogradError
    assert "SqrtBackward0" in found[4][0][1] or "sqrt" in found[4][0][1]


def test_training_with_the_loss_outside() -> None:
    def run(compiled: bool) -> Any:
        graphc.manual_seed(2)
        model: Any = nn.Sequential(
            nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.3),
            nn.Linear(36, 3),
        )  # fmt: skip
        opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        fn = graphc.compile(model, fullgraph=True) if compiled else model
        update = graphc.compile(opt.step) if compiled else opt.step
        seen = []
        for k in range(8):
            x = graphc.rand(2 + k % 2, 1, 8, 8)  # two batch sizes, two traces
            opt.zero_grad()
            loss = nn.functional.cross_entropy(fn(x), graphc.arange(2 + k % 2))
            loss.backward()
            update()
            seen.append(bits(loss))
        return seen, bits(model.state_dict())

    assert run(True) == run(False)


def test_no_region_where_nothing_needs_gradients() -> None:
    (w,) = weights((3,))
    compiled = graphc.compile(lambda x: w * x)
    for _ in range(3):
        with graphc.no_grad():
            y = compiled(graphc.ones(3))
    assert y._edge is None and not y.requires_grad
    assert compiled.traces[0].backward is None


def test_copies_of_a_model_have_their_own_gradients() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh())
    compiled = graphc.compile(model)
    for _ in range(3):
        compiled(graphc.ones(2, 3))
    twin = copy.deepcopy(compiled)
    for _ in range(3):
        model.zero_grad()
        compiled(graphc.ones(2, 3)).sum().backward()
        twin(graphc.ones(2, 3) * 2).sum().backward()
    assert bits(model[0].weight.grad) != bits(twin[0].weight.grad)


# ---- what is kept


def f32(*shape: int) -> TensorType:
    return TensorType(float32, shape)


def test_the_cut_keeps_fewest_bytes() -> None:
    graph = Graph()
    x = graph.add_input(f32(8, 8), "x")
    y = op_named("exp")(x)
    mask = op_named("gt")(y, 0.0)
    a, b = op_named("mul")(y, 2.0), op_named("neg")(y)
    assert choose([a, b]) == [y]
    assert choose([y, mask]) == [y]
    assert choose([mask]) == [mask]
    assert choose([a]) == [a]
    assert choose([op_named("exp")(y)])[0].node.op.name == "exp"
    wide = op_named("expand")(op_named("exp")(graph.add_input(f32(1, 8), "z")), shape=(64, 8))
    assert choose([wide])[0].type is f32(1, 8)


def test_values_are_computed_again_with_the_same_bits() -> None:
    def make() -> Any:
        (w,) = weights((32, 32))

        def f(x: Any) -> Any:
            y = (w @ x).exp()
            return graphc.sin(y * 2), graphc.cos(-y), graphc.sigmoid(y + 0.5)

        return f, [w], [graphc.randn(32, 32)]

    def use(outs: Any, ws: Any) -> Any:
        sum(o.sum() for o in outs).backward(retain_graph=True)
        (g,) = graphc.autograd.grad(outs[0].sum(), ws[0], create_graph=True)
        return g.detach()

    compiled = same(make, use)
    plan = compiled.traces[0].backward
    assert len(plan.kept) < len(plan.trace.saved)


# ---- every rule


def _differentiable() -> list[str]:
    return [op.name for op in all_ops().values() if op.vjp is not None and op.outputs == 1 and op.samples is not None]


@pytest.mark.parametrize("name", _differentiable())
def test_every_rule_on_graph_values(name: str) -> None:
    op = op_named(name)
    for sample in op.samples(np.random.default_rng(0)):
        if sample.grad and float32 in (sample.dtypes or op.dtypes):
            break
    else:
        pytest.skip("no sample with gradients in float32")

    def make() -> Any:
        arrays = [a.astype(np.float32) if a.dtype.kind == "f" else a for a in sample.inputs]
        tensors = [fresh(a.copy()) for a in arrays]
        ws = [t.requires_grad_() for t in tensors if t.dtype.is_floating_point]
        return (lambda: op(*tensors, **sample.attrs) * 1), ws, []

    def use(y: Any, ws: Any) -> None:
        if y.requires_grad:
            y.backward(graphc.linspace(-1.0, 2.0, y.numel()).reshape(y.shape))

    same(make, use, calls=3)
