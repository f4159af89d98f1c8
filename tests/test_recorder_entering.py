"""The recorder: tensors and state that enter a compiled function."""

from __future__ import annotations

import copy
import functools
import itertools
import queue
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import GuardError
from graphc.testing import assert_same
from tests.recorder_checks import bits, follows, refused


def x34(start: float = 0.0) -> Any:
    return graphc.tensor([[start + i * 4 + j - 5.5 for j in range(4)] for i in range(3)])


# ---- tensor arguments


def test_tensor_argument() -> None:
    assert_same(lambda x, y: x * y + x, x34(), x34(1.0))


def test_signature_dtype_rank_shape_strides_requires_grad() -> None:
    def f(x: Any) -> Any:
        return (x * 2).sum() if x.requires_grad else x * 2

    x = x34()
    forms = [
        x,
        x.double(),
        x[0],
        x[:2],
        x.T,
        x.T.contiguous(),
        x[:, ::2],
        x.long(),
        x.expand(2, 3, 4),
        x34().requires_grad_(),
    ]
    compiled = follows(f, *[(t,) for t in forms for _ in range(4)])
    assert compiled.stats.compilations == len(forms)
    assert compiled.stats.hits == 2 * len(forms)


def test_requires_grad_toggled() -> None:
    x = x34()
    compiled = graphc.compile(lambda x: x * 3, fullgraph=True)
    for needs in (False, True, False, True, False, True):
        x.requires_grad_(needs)
        out = compiled(x)
        assert out.requires_grad is needs
        if needs:
            x.grad = None
            out.sum().backward()
            assert x.grad.tolist() == [[3.0] * 4] * 3
    assert compiled.stats.recordings == 4


def test_requires_grad_of_a_closed_over_tensor_toggled() -> None:
    w = x34()

    def f(x: Any) -> Any:
        return x * w

    compiled = graphc.compile(f, fullgraph=True)
    for needs in (False, False, False, True, True, True, False, True):
        w.requires_grad_(needs)
        out = compiled(x34())
        assert out.requires_grad is needs
        assert bits(out) == bits(f(x34()))


def test_requires_grad_of_a_weight_frozen_later() -> None:
    model = nn.Linear(4, 2)

    def f(x: Any) -> Any:
        return model(x)

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(3):
        assert compiled(x34()).requires_grad
    model.requires_grad_(False)
    for _ in range(3):
        assert not compiled(x34()).requires_grad


def test_non_leaf_argument() -> None:
    w = x34().requires_grad_()
    compiled = graphc.compile(lambda x: x * x, fullgraph=True)
    for _ in range(4):
        w.grad = None
        compiled(w * 2).sum().backward()
        assert bits(w.grad) == bits(x34() * 2 * 2 * 2)


def test_input_passed_twice() -> None:
    x, y = x34(), x34(2.0)
    follows(lambda a, b: a * b + a, (x, x), (x, x), (x, x), (x, y), (x, y), (x, y), (x, x), (y, y))


def test_input_passed_twice_and_written() -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return a * b

    for pairs in ([True] * 4, [False, False, False, True, True, True, False]):
        x, y, x2, y2 = x34(), x34(3.0), x34(), x34(3.0)
        compiled = graphc.compile(f)
        for twice in pairs:
            assert bits(compiled(x, x if twice else y)) == bits(f(x2, x2 if twice else y2))
            assert bits([x, y]) == bits([x2, y2])


@pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")
def test_inputs_that_alias_on_a_later_call_only() -> None:
    def f(a: Any, b: Any) -> Any:
        a.mul_(2)
        return b + 1

    base, base2 = graphc.arange(12.0), graphc.arange(12.0)
    compiled = graphc.compile(f)
    for k in range(8):
        shift = 0 if k in (3, 4, 5, 7) else 6
        assert bits(compiled(base[:6], base[shift : shift + 6])) == bits(f(base2[:6], base2[shift : shift + 6]))
        assert bits(base) == bits(base2)


@pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")
def test_argument_that_aliases_state_on_a_later_call_only() -> None:
    w, w2 = graphc.zeros(4), graphc.zeros(4)

    def make(w: Any) -> Any:
        def f(x: Any) -> Any:
            w.add_(1)
            return x * 2

        return f

    compiled, f = graphc.compile(make(w)), make(w2)
    other = graphc.ones(4)
    for own in (False, False, False, True, True, True, False):
        assert bits(compiled(w if own else other)) == bits(f(w2 if own else other))


def test_output_fed_back_as_input() -> None:
    compiled = graphc.compile(lambda x: (x * 1.5).tanh(), fullgraph=True)
    a = b = x34()
    for _ in range(6):
        a, b = compiled(a), (b * 1.5).tanh()
        assert bits(a) == bits(b)
    assert compiled.stats.hits == 4


def test_output_of_an_earlier_call_stays() -> None:
    compiled = graphc.compile(lambda x: x + 1, fullgraph=True)
    outs = [compiled(graphc.full((3,), float(k))) for k in range(6)]
    assert [o.tolist() for o in outs] == [[k + 1.0] * 3 for k in range(6)]


def test_view_with_a_new_offset() -> None:
    base = graphc.arange(20.0)
    compiled = follows(lambda v: v * 2, *[(base[k : k + 4],) for k in range(8)])
    assert compiled.stats.recordings == 2


def test_empty_and_zero_dim_arguments() -> None:
    assert_same(lambda x: (x * 2).sum(), graphc.zeros(0, 3))
    assert_same(lambda x: x * 2, graphc.tensor(3.0))


# ---- lifted state


def test_closure_tensor_is_state() -> None:
    w = graphc.tensor([1.0, 2.0])
    compiled = assert_same(lambda x: x * w, graphc.tensor([3.0, 4.0]))
    w.mul_(10)
    assert compiled(graphc.tensor([3.0, 4.0])).tolist() == [30.0, 80.0]


def test_closure_tensor_replaced() -> None:
    w = graphc.tensor([1.0, 2.0])

    def f(x: Any) -> Any:
        return x * w

    compiled = graphc.compile(f, fullgraph=True)
    x = graphc.tensor([3.0, 4.0])
    for k in range(9):
        if k % 3 == 0:
            w = graphc.tensor([float(k), 1.0])
        assert compiled(x).tolist() == [3.0 * k if k % 3 == 0 else 3.0 * (k - k % 3), 4.0]


_GLOBAL = graphc.tensor([1.0, -2.0])


def test_global_tensor_replaced() -> None:
    global _GLOBAL

    def f(x: Any) -> Any:
        return x + _GLOBAL

    compiled = graphc.compile(f, fullgraph=True)
    x = graphc.zeros(2)
    for k in range(8):
        if k in (3, 6):
            _GLOBAL = graphc.tensor([float(k), 0.5])
        assert bits(compiled(x)) == bits(f(x))


def test_tensor_in_containers_and_objects() -> None:
    held = {"a": [graphc.ones(3), graphc.full((3,), 2.0)], "b": SimpleNamespace(w=graphc.full((3,), 4.0))}

    def f(x: Any) -> Any:
        return x * held["a"][1] + held["b"].w

    compiled = graphc.compile(f, fullgraph=True)
    for k in range(9):
        if k == 3:
            held["a"][1] = graphc.full((3,), 7.0)
        if k == 6:
            held["b"].w = graphc.full((3,), 9.0)
        assert bits(compiled(graphc.ones(3))) == bits(f(graphc.ones(3)))


def test_tensor_default_argument_and_partial() -> None:
    w = graphc.tensor([2.0, 3.0])

    def f(x: Any, w: Any = w) -> Any:
        return x * w

    assert_same(f, graphc.ones(2))
    assert_same(functools.partial(f, w=graphc.tensor([5.0, 7.0])), graphc.ones(2), reload=False)


def test_parameter_replaced() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(model, fullgraph=True)
    x = x34()
    for k in range(9):
        if k == 3:
            model.weight = nn.Parameter(graphc.full((2, 4), 0.5))
        if k == 6:
            model.bias = None
        assert bits(compiled(x)) == bits(model(x))


def test_same_method_of_two_instances() -> None:
    class Scale:
        def __init__(self, k: float) -> None:
            self.k = k
            self.w = graphc.full((2,), k)

        def apply(self, x: Any) -> Any:
            return x * self.w + self.k

        @graphc.compile
        def compiled(self, x: Any) -> Any:
            return x * self.w + self.k

    a, b = Scale(2.0), Scale(3.0)
    f, g = graphc.compile(a.apply, fullgraph=True), graphc.compile(b.apply, fullgraph=True)
    for k in range(5):
        x = graphc.full((2,), float(k))
        assert f(x).tolist() == a.compiled(x).tolist() == [2.0 * k + 2] * 2
        assert g(x).tolist() == b.compiled(x).tolist() == [3.0 * k + 3] * 2


def test_tensor_from_an_iterator_is_refused() -> None:
    def make() -> Any:
        data = iter([graphc.full((2,), float(k)) for k in range(12)])

        def f(x: Any) -> Any:
            return x + next(data)  # here

        return f, (graphc.ones(2),)

    refused(make)


def test_tensor_from_a_queue_or_pop_is_refused() -> None:
    def from_queue() -> Any:
        q: Any = queue.SimpleQueue()
        for k in range(12):
            q.put(graphc.full((2,), float(k)))

        def f(x: Any) -> Any:
            y = q.get()  # here: what a queue holds cannot be watched
            return x + y  # here

        return f, (graphc.ones(2),)

    def from_pop() -> Any:
        stack = [graphc.full((2,), float(k)) for k in range(12)]

        def f(x: Any) -> Any:
            y = stack.pop()  # here
            return x + y

        return f, (graphc.ones(2),), lambda: len(stack)

    refused(from_queue)
    refused(from_pop)


def test_tensor_from_a_cycle_is_refused() -> None:
    def make() -> Any:
        turn = itertools.cycle([graphc.zeros(2), graphc.ones(2)])

        def f(x: Any) -> Any:
            return x + next(turn)  # here

        return f, (graphc.ones(2),)

    refused(make)


# ---- ambient state


def test_outer_no_grad_is_part_of_the_signature() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(model, fullgraph=True)
    for k in range(12):
        if k % 4 < 2:
            assert compiled(x34()).requires_grad
        else:
            with graphc.no_grad():
                assert not compiled(x34()).requires_grad


def test_inner_no_grad_is_structure() -> None:
    w = graphc.full((4,), 2.0, requires_grad=True)

    def f(x: Any) -> Any:
        with graphc.no_grad():
            y = x * w
        return x * w + y

    assert_same(f, x34())


def test_default_dtype_is_part_of_the_signature() -> None:
    compiled = graphc.compile(lambda x: x + graphc.tensor([1.0, 2.0]) + graphc.rand(2), fullgraph=True)
    before = graphc.get_default_dtype()
    try:
        for k in range(9):
            wide = k in (3, 4, 5, 7)
            graphc.set_default_dtype(graphc.float64 if wide else graphc.float32)
            assert compiled(graphc.ones(2)).dtype is (graphc.float64 if wide else graphc.float32)
    finally:
        graphc.set_default_dtype(before)


def test_train_and_eval_toggled() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5))
    other = copy.deepcopy(model)
    compiled = graphc.compile(model, fullgraph=True)
    for training in (True, True, True, False, False, False, True, False):
        compiled.train(training)
        other.train(training)
        graphc.manual_seed(1)
        a = compiled(x34())
        graphc.manual_seed(1)
        assert bits(a) == bits(other(x34()))
        assert bits(list(model.state_dict().values())) == bits(list(other.state_dict().values()))
    assert compiled.stats.recordings == 4


def test_hook_registered_or_removed_after_compiling() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    compiled = graphc.compile(model, fullgraph=True)
    handle = None
    for k in range(12):
        if k == 4:
            handle = model[0].register_forward_hook(lambda m, args, out: out * 2)
        if k == 8 and handle is not None:
            handle.remove()
        assert bits(compiled(x34())) == bits(model(x34()))


def test_forward_replaced_on_the_instance_or_class() -> None:
    class Head(nn.Module):
        def forward(self, x: Any) -> Any:
            return x * 2

    head = Head()
    compiled = graphc.compile(head, fullgraph=True)
    for k in range(12):
        if k == 4:
            head.forward = lambda x: x * 3  # type: ignore[method-assign]
        if k == 8:
            del head.forward
            Head.forward = lambda self, x: x * 5  # type: ignore[method-assign]
        assert bits(compiled(x34())) == bits(head(x34()))


def test_submodule_added_to_a_list() -> None:
    class Stack(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([nn.Linear(4, 4)])

        def forward(self, x: Any) -> Any:
            for layer in self.layers:
                x = layer(x)
            return x

    stack = Stack()
    compiled = graphc.compile(stack, fullgraph=True)
    for k in range(8):
        if k == 4:
            stack.layers.append(nn.Linear(4, 4))
        assert bits(compiled(x34())) == bits(stack(x34()))


def test_deepcopy_of_a_model() -> None:
    model = nn.Linear(4, 2)
    compiled = graphc.compile(model, fullgraph=True)
    for _ in range(3):
        compiled(x34())
    other = copy.deepcopy(model)
    with graphc.no_grad():
        other.weight.mul_(2)
    follows(other, *[(x34(),)] * 4)
    assert bits(compiled(x34())) == bits(model(x34())) != bits(other(x34()))


def test_recursion() -> None:
    def power(x: Any, n: int) -> Any:
        return x if n == 0 else x * power(x, n - 1)

    assert_same(lambda x: power(x, 3), x34())


def test_nested_compile_is_inlined() -> None:
    inner = graphc.compile(lambda x: x * 2)
    compiled = follows(lambda x: inner(x) + 1, (x34(),), (x34(),))
    calls = inner.stats.calls
    for _ in range(3):
        compiled(x34())
    assert inner.stats.calls == calls and compiled.stats.hits == 3


def test_no_retrace() -> None:
    compiled = graphc.compile(lambda x: x * 2)
    for _ in range(3):
        compiled(x34())
    with graphc.no_retrace():
        compiled(x34())
        with pytest.raises(GuardError):
            compiled(x34().double())
