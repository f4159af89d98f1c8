"""The short ways of eager execution give what the general ways give: values, types, gradients, errors, effects."""

from __future__ import annotations

import copy
import gc
import itertools
import math
import sys
import threading
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import compiler
from graphc.errors import AutogradError, GraphcError
from graphc.frontend import backward, hot
from graphc.frontend.mode import using
from graphc.frontend.optim import optimizer, updates
from graphc.frontend.tensor import Tensor
from graphc.ir.graph import Graph
from graphc.ir.op import Op, Sample, all_ops
from graphc.ir.types import Layout, TensorType, float32
from graphc.optim import SGD, Adagrad, Adam, AdamW, Optimizer, RMSprop
from graphc.runtime import direct, entry

Array = np.ndarray[Any, Any]


def bits(t: Any) -> Any:
    """All there is to a result but its identity."""
    if isinstance(t, (tuple, list)):
        return [bits(x) for x in t]
    if not isinstance(t, Tensor):
        return t
    a = t.detach().numpy()
    return a.dtype, a.shape, a.strides, a.tobytes(), t.requires_grad, [op for op, _ in t._chain]


def array(*shape: int, seed: int = 0) -> Tensor:
    return graphc.from_numpy(np.random.default_rng(seed).standard_normal(shape).astype(np.float32))


class Listening:
    """A recorder that only lets operations be seen: the general way is taken."""

    lockstep = None

    def __init__(self) -> None:
        self.count = 0

    def symbolic_type(self, tensor: Tensor) -> TensorType:
        return tensor._l.type

    def on_op(self, *args: Any) -> None:
        self.count += 1

    def __getattr__(self, name: str) -> Any:
        """Nothing else matters."""
        return lambda *args: None


CALLS: dict[str, Callable[[Tensor, Tensor], Any]] = {
    "add": lambda x, y: x + y,
    "rsub": lambda x, y: 1.0 - x,
    "mul int": lambda x, y: x * 3,
    "rdiv": lambda x, y: 2 / x,
    "zero": lambda x, y: x * 0.0,
    "minus zero": lambda x, y: x * -0.0,
    "nan": lambda x, y: x + math.nan,
    "alpha": lambda x, y: graphc.add(x, y, alpha=2),
    "eq": lambda x, y: x == y,
    "lt": lambda x, y: graphc.lt(x, 0.5),
    "exp": lambda x, y: x.exp(),
    "relu": lambda x, y: F.relu(x),
    "sum": lambda x, y: x.sum(),
    "sum dim": lambda x, y: x.sum(1),
    "sum dims": lambda x, y: x.sum((0, 1)),
    "sum keepdim": lambda x, y: x.sum(dim=0, keepdim=True),
    "sum dtype": lambda x, y: x.sum(0, dtype=graphc.float64),
    "mean": lambda x, y: x.mean(-1),
    "softmax": lambda x, y: F.softmax(x, -1),
    "matmul": lambda x, y: x @ y.t(),
    "linear": lambda x, y: F.linear(x, y),
    "linear bias": lambda x, y: F.linear(x, y, y[:, 0]),
    "view": lambda x, y: x.view(4, 3),
    "view tuple": lambda x, y: x.view((2, 6)),
    "reshape": lambda x, y: x.t().reshape(-1),
    "permute": lambda x, y: x.permute(1, 0),
    "unsqueeze": lambda x, y: x.unsqueeze(1),
    "expand": lambda x, y: x[:1].expand(3, 4),
    "row": lambda x, y: x[1],
    "last row": lambda x, y: x[-1],
    "element": lambda x, y: x[1, 2],
    "slice": lambda x, y: x[1:3],
    "strided": lambda x, y: x[::2, 1:],
    "all": lambda x, y: x[...],
    "new axis": lambda x, y: x[:, None],
    "integers": lambda x, y: x[[0, 2]],
    "where": lambda x, y: graphc.where(x > y, x, y),
    "cat": lambda x, y: graphc.cat([x, y]),
    "cat dim": lambda x, y: graphc.cat((x, y, x), 1),
    "where number": lambda x, y: graphc.where(x > y, x, 2.0),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("grad", [False, True])
def test_a_hot_call_is_the_general_call(name: str, grad: bool) -> None:
    x, y = array(3, 4), array(3, 4, seed=1)
    x.requires_grad_(grad)
    call = CALLS[name]
    with using(recorder=Listening()):
        expected = call(x, y)
    for _ in range(4):  # a plan is made, kept, used
        found = call(x, y)
        assert bits(found) == bits(expected)
        if grad and found.requires_grad:
            assert found.grad_fn.name() == expected.grad_fn.name()
            seed = array(*found.shape, seed=2).to(found.dtype)
            got, wanted = (graphc.autograd.grad(t, x, seed, retain_graph=True) for t in (found, expected))
            assert bits(got) == bits(wanted)


@pytest.mark.parametrize(
    "name", ["add", "rsub", "eq", "exp", "sum dim", "softmax", "view", "row", "slice", "matmul", "linear bias"]
)
def test_hot_calls_leave_the_general_function_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = array(3, 4), array(3, 4, seed=1)
    for _ in range(3):
        CALLS[name](x, y)

    def general(*args: Any) -> Any:
        raise AssertionError("the general way")

    monkeypatch.setattr(Tensor, "apply_op", staticmethod(general))
    CALLS[name](x, y)


def test_equal_arguments_are_not_the_same() -> None:
    x = array(3, 4)
    for _ in range(3):
        x.sum(1), x.view(4, 3), x[1]
    for wrong in (lambda: x.view(4.0, 3), lambda: x.view((4.0, 3)), lambda: x[1.0], lambda: x.sum(1.0)):
        with pytest.raises((GraphcError, TypeError)):
            wrong()
    assert x[True].shape == (1, 3, 4) and x[1].shape == (4,)
    assert x[1:2].shape == x[True:2].shape
    assert np.signbit((array(2) * 0 * -0.0).numpy()).tolist() == np.signbit(array(2).numpy() * 0 * -0.0).tolist()


def test_errors_are_those_of_the_general_way() -> None:
    x = array(3, 4)
    for call, message in (
        (lambda: x + array(5), "add"),
        (lambda: x[3], "index 3 is out of bounds"),
        (lambda: x[-4], "index -4 is out of bounds"),
        (lambda: x.sum(2), "sum"),
        (lambda: x.view(5, 5), "5"),
    ):
        for _ in range(3):
            x.sum(1), x[0], x.view(4, 3)
            with pytest.raises(GraphcError, match=message):
                call()


def test_a_recorder_hears_of_hot_functions() -> None:
    x, y = array(3, 4), array(3, 4, seed=1)
    for name, call in CALLS.items():
        call(x, y), call(x, y)
        recorder = Listening()
        with using(recorder=recorder):
            call(x, y)
        assert recorder.count, name


def test_views_of_the_hot_path_share_memory_and_history() -> None:
    for _ in range(3):
        x = array(3, 4).requires_grad_()
        y = x * 1.0
        part, row, turned = y[1:], y[0], y.t()
        row.mul_(2.0)
        part.add_(1.0)
        expected = x.detach().numpy() * np.array([[2], [1], [1]], np.float32) + np.array([[0], [1], [1]], np.float32)
        assert np.array_equal(y.detach().numpy(), expected) and np.array_equal(turned.detach().numpy(), expected.T)
        turned.sum().backward()
        assert x.grad is not None and x.grad.numpy().tolist() == [[2.0] * 4, [1.0] * 4, [1.0] * 4]


def test_writes_are_counted() -> None:
    x = array(4).requires_grad_()
    for _ in range(3):
        y = x * 1.0
        z = y * y
        with graphc.no_grad():
            y.add_(1.0)
        with pytest.raises(AutogradError, match="modified by an inplace operation"):
            z.sum().backward()
    fixed = np.ones(4, np.float32)
    fixed.flags.writeable = False
    t = array(4)
    t._a = fixed
    with pytest.raises(GraphcError, match="read-only"):
        t.add_(1.0)


# ---------------------------------------------------------------- gradient rules


def _with_rules() -> Iterator[Any]:
    for op in all_ops().values():
        if op.vjp is not None and not op.random:
            samples = [s for s in op.samples(np.random.default_rng(3)) if s.grad][:2]
            yield from (pytest.param(op, s, id=f"{op.name}-{k}") for k, s in enumerate(samples))


def _gradients(op: Op, sample: Sample) -> Any:
    rng = np.random.default_rng(4)
    inputs = [graphc.from_numpy(np.array(a, np.float32 if a.dtype.kind == "f" else a.dtype)) for a in sample.inputs]
    wanted = inputs[:1] if op.name == "cross_entropy" else inputs  # its weights take no gradient
    leaves = [t.requires_grad_() for t in wanted if t.dtype is float32]
    found = op(*inputs, **sample.attrs)
    outputs = [t for t in (found if isinstance(found, tuple) else (found,)) if t.requires_grad]
    if not outputs:
        return None
    seeds = [graphc.from_numpy(rng.standard_normal(t._a.shape).astype(t._a.dtype)) for t in outputs]
    made = graphc.autograd.grad(outputs, leaves, seeds, allow_unused=True)
    return [None if t is None else bits(t)[:2] + bits(t)[3:4] for t in made]


@pytest.mark.parametrize(("op", "sample"), list(_with_rules()))
def test_a_compiled_gradient_rule_gives_the_bits_of_the_rule(
    op: Op, sample: Sample, monkeypatch: pytest.MonkeyPatch
) -> None:
    if (sample.dtypes is not None and float32 not in sample.dtypes) or float32 not in op.dtypes:
        pytest.skip("not for float32")
    short = [_gradients(op, sample) for _ in range(2)]
    monkeypatch.setattr(backward, "gradients", lambda *args: None)
    assert short == [_gradients(op, sample)] * 2


# ---------------------------------------------------------------- optimisers

RULES: dict[str, Callable[[Any], Optimizer]] = {
    "sgd": lambda p: SGD(p, lr=0.1),
    "momentum": lambda p: SGD(p, lr=0.1, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda p: SGD(p, lr=0.1, momentum=0.9, nesterov=True),
    "dampening": lambda p: SGD(p, lr=0.1, momentum=0.9, dampening=0.3, maximize=True),
    "adam": lambda p: Adam(p, lr=0.1),
    "amsgrad": lambda p: Adam(p, lr=0.1, amsgrad=True, weight_decay=0.1),
    "adamw": lambda p: AdamW(p, lr=0.1, betas=(0.8, 0.9)),
    "rmsprop": lambda p: RMSprop(p, lr=0.1, centered=True, momentum=0.5),
    "adagrad": lambda p: Adagrad(p, lr=0.1, lr_decay=0.01),
}


def _trained(make: Callable[[Any], Optimizer]) -> list[Any]:
    params = [array(3, 4).requires_grad_(), array(300, 70, seed=1).requires_grad_(), array(seed=2).requires_grad_()]
    chosen = make(params)
    found = []
    for k in range(6):
        for j, p in enumerate(params):
            p.grad = array(*p.shape, seed=10 * k + j)
        chosen.param_groups[0]["lr"] = 0.1 / (k + 1)
        if k == 4:
            chosen.param_groups[0]["weight_decay"] = 0.25
        chosen.step()
        found.append([bits(p) for p in params])
    found.append([[bits(t) for t in chosen.state[p].values()] for p in params])
    return found


@pytest.mark.parametrize("name", RULES)
def test_a_compiled_update_gives_the_bits_of_the_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_KNOWN", {})
    calls: list[Any] = []
    real = updates.Update.__call__
    monkeypatch.setattr(updates.Update, "__call__", lambda self, *args: calls.append(1) or real(self, *args))
    short = _trained(RULES[name])
    assert len(calls) == 3 * 3  # not the first two steps, nor the first with another weight decay

    def by_rule(owner: Any, p: Tensor, g: Tensor, state: Any, group: Any, hyper: Any) -> None:
        owner._update(p, g, state, group, hyper)

    monkeypatch.setattr(optimizer, "run_update", by_rule)
    assert _trained(RULES[name]) == short


def test_an_update_writes_only_what_may_be_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_KNOWN", {})
    p = array(4).requires_grad_()
    chosen = SGD([p], lr=0.5)
    for _ in range(4):
        p.grad = array(4, seed=1)
        version = p._s.version
        kept = (p * p).sum()
        chosen.step()
        assert p._s.version == version + 1
        with pytest.raises(AutogradError, match="modified by an inplace operation"):
            kept.backward()
    before = p.detach().clone()
    p.grad = p.detach()  # the memory of the parameter itself
    chosen.step()
    assert np.array_equal(p.detach().numpy(), (before - before * 0.5).numpy())


def test_rules_that_do_more_than_compute_are_not_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(updates, "_KNOWN", {})
    seen = []

    class Looking(SGD):
        def _update(self, p: Tensor, g: Tensor, state: Any, group: Any, hyper: Any) -> None:
            seen.append(g.sum().item())
            super()._update(p, g, state, group, hyper)

    p = array(4).requires_grad_()
    chosen = Looking([p], lr=0.5)
    for k in range(5):
        p.grad = array(4, seed=k)
        chosen.step()
    assert seen == [array(4, seed=k).sum().item() for k in range(5)]


# ---------------------------------------------------------------- native entries


def test_this_interpreter_has_native_entries() -> None:
    known = sys.implementation.name == "cpython" and getattr(sys, "_is_gil_enabled", lambda: True)()
    assert (entry.entries() is not None) is known


def _short(name: str, *layouts: Layout) -> Callable[..., Any]:
    return compiler.eager_plan(all_ops()[name], layouts, {})


def test_entries_refuse_what_they_cannot_read() -> None:
    layout = Layout(TensorType(float32, (8,)))
    run = _short("add", layout, layout)
    x = np.arange(8, dtype=np.float32)
    assert run(x, x).tolist() == (x + x).tolist()
    for wrong in ((), (x,), (x, x, x), (x, 3), (x, None)):
        if entry.entries() is not None:
            with pytest.raises(SystemError):
                run(*wrong)


def test_entries_take_subclasses_and_keep_nothing(tmp_path: Path) -> None:
    layout = Layout(TensorType(float32, (8,)))
    run = _short("add", layout, layout)
    x = np.memmap(tmp_path / "x", np.float32, "w+", shape=8)
    x[:] = 3
    counts = sys.getrefcount(x), sys.getrefcount(np.dtype(np.float32))
    for _ in range(100):
        assert type(run(x, x)) is np.ndarray
    assert sys.getrefcount(x) == counts[0] and sys.getrefcount(np.dtype(np.float32)) - counts[1] < 50
    out = run(x, x)
    gone = weakref.ref(out)
    del out
    assert gone() is None


def test_without_entries_the_answers_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(0).standard_normal((5, 7)).astype(np.float32)
    image = x.reshape(1, 1, 5, 7)
    pool = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    cases: list[tuple[str, list[Array], Any]] = [
        ("add", [x, x], {}), ("softmax", [x], {"dim": 1}), ("max_pool2d", [image], pool),
    ]  # fmt: skip

    def answers() -> list[bytes]:
        found = []
        for name, arrays, attrs in cases:
            run = compiler.eager_plan(all_ops()[name], [Layout.of(a) for a in arrays], attrs)
            for _ in range(3):
                outs = run(*arrays)
                found += [a.tobytes() for a in (outs if isinstance(outs, tuple) else (outs,))]
        return found

    native = answers()
    monkeypatch.setattr(direct, "entries", lambda: None)
    assert answers() == native
    monkeypatch.setattr(entry, "entries", lambda: None)
    assert compiler.eager_view(x, x.T) is None


def test_threads_share_plans() -> None:
    x, y = array(64), array(64, seed=1)
    expected = ((x + y) * x).numpy().tobytes()
    wrong: list[int] = []

    def work() -> None:
        for _ in range(3000):
            if ((x + y) * x).numpy().tobytes() != expected:
                wrong.append(1)

    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        threads = [threading.Thread(target=work) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(before)
    assert not wrong


def test_plans_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hot, "MAX_PLANS", 8)
    x = array(40)
    for n in range(1, 40):
        assert x[:n].exp().sum().shape == ()
    cells = [c.cell_contents for c in (graphc.exp.__closure__ or ()) if isinstance(c.cell_contents, dict)]
    assert cells and all(len(plans) <= 8 for plans in cells)


def test_an_optimizer_can_still_be_copied() -> None:
    p = array(3).requires_grad_()
    chosen = Adam([p])
    for k in range(4):
        p.grad = array(3, seed=k)
        chosen.step()
    twin = copy.deepcopy(chosen)
    assert twin.state_dict()["state"].keys() == chosen.state_dict()["state"].keys()
    gc.collect()


def test_every_call_above_runs_without_gradients_as_with_them() -> None:
    x, y = array(3, 4), array(3, 4, seed=1)
    for (name, call), off in itertools.product(CALLS.items(), (False, True)):
        with using(grad=not off):
            assert bits(call(x, y)) == bits(call(x, y)), name


def test_states_are_read_before_they_are_overwritten() -> None:
    ops = all_ops()
    graph = Graph("step")
    x = graph.add_input(TensorType(float32, ()), "x", "state")
    y = graph.add_input(TensorType(float32, ()), "y", "state")
    moved = graph.add(ops["exp"], [graph.add(ops["mul"], [x, y], {})[0]], {})[0]
    graph.add_output(graph.add(ops["add"], [x, graph.scalar(1, float32)], {})[0], "x", "state")
    graph.add_output(moved, "y", "state")
    arrays = [np.array(2, np.float32), np.array(3, np.float32)]
    compiler.eager_graph(graph, [Layout.of(a) for a in arrays])(*arrays)
    assert arrays[0] == 3 and abs(arrays[1] - math.exp(6)) < 1e-3
