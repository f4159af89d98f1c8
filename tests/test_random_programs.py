"""Random programs: eager, compiled and reloaded runs agree in every bit; and small programs that once did not."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.config import config
from graphc.errors import AutogradError, RecordingError
from graphc.fuzz.checks import check_lockstep, check_text
from graphc.fuzz.programs import source
from graphc.fuzz.runs import history, same_histories
from graphc.testing import assert_same

SEEDS = 500
PART = 25


@pytest.mark.parametrize("first", range(0, SEEDS, PART))
def test_random_programs(first: int) -> None:
    """The conditions (threads, verify, lockstep, gradients from outside) follow from the seed."""
    told = []
    for seed in range(first, first + PART):
        text = source(seed)
        try:
            told.append(check_text(text, seed).partition(":")[0])
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{text}") from error
    assert told.count("same") >= PART // 3, told  # programs that are refused prove nothing


def test_random_programs_in_lockstep(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "lockstep", "always")
    calls = []
    for seed in range(1000, 1025):
        try:
            calls.append(check_lockstep(seed))
        except AssertionError as error:
            raise AssertionError(f"seed {seed}: {error}\n{source(seed)}") from error
    assert sum(n >= 5 for n in calls) >= 15, calls


def test_programs_differ_and_are_repeatable() -> None:
    assert source(7) == source(7)
    assert len({source(seed) for seed in range(50)}) == 50


def outer_backward(make: Any, refused: bool = False) -> None:
    """A compiled function with backward() outside gives eager's gradients."""
    made = make()
    expected = history(made[0], made, outer=True)
    made = make()
    compiled = graphc.compile(made[0])
    with warnings.catch_warnings():
        if refused:
            warnings.simplefilter("ignore", graphc.RecordingWarning)
        same_histories(expected, history(compiled, made, outer=True))
    assert (compiled.stats.hits == 0) is refused


def weight() -> graphc.Tensor:
    return graphc.tensor([1.0, 2.0, 3.0], requires_grad=True)


def x3() -> graphc.Tensor:
    return graphc.tensor([0.5, -1.0, 2.0])


# ---- gradients from outside follow eager's tape, not the graph


def test_detached_part_gets_no_gradient_from_outside() -> None:
    def make() -> Any:
        w = weight()
        return lambda x: x * w * w.detach(), (x3(),), [w]

    outer_backward(make)


def test_no_grad_part_gets_no_gradient_from_outside() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            with graphc.no_grad():
                s = w * 2
            return x * w * s

        return f, (x3(),), [w]

    outer_backward(make)


@pytest.mark.parametrize("how", ["detached", "no_grad", "data"])
def test_hidden_write_has_no_gradient_from_outside(how: str) -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = x * w
            if how == "detached":
                y.detach().mul_(2)
            elif how == "data":
                y.data[0] = 7.0
            else:
                with graphc.no_grad():
                    y.mul_(2)
            return y + 0

        return f, (x3(),), [w]

    outer_backward(make)


def test_item_has_no_gradient_from_outside() -> None:
    def make() -> Any:
        w = weight()
        return lambda x: x * w * w.sum().item(), (x3(),), [w]

    outer_backward(make)


def test_returned_value_and_its_detached_self() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = (x * w).sum()
            return y.detach(), y, y.data

        return f, (x3(),), [w]

    outer_backward(make)


def test_weight_stepped_inside_after_what_is_returned() -> None:
    def make() -> Any:
        w = nn.Parameter(graphc.ones(3))
        opt = optim.SGD([w], lr=0.1)

        def f(x: Any) -> Any:
            flipped = w.flip(0)
            opt.zero_grad()
            (flipped * x).sum().backward(retain_graph=True)
            opt.step()
            return flipped

        return f, (x3(),), [w, opt]

    outer_backward(make)


def test_stale_saved_value_raises_outside_as_in_eager_code() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = (x * w).exp()
            z = y * 2
            y.detach().zero_()
            return z

        return f, (x3(),), [w]

    outer_backward(make)


def test_freed_graph_raises_outside() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = (x * w * w).sum()
            y.backward()
            return y

        return f, (x3(),), [w]

    outer_backward(make)


def test_write_to_a_result_is_noticed_by_backward() -> None:
    w = weight()
    compiled = graphc.compile(lambda x: (x * w).exp(), fullgraph=True)
    for _ in range(3):
        y = compiled(x3())
    assert compiled.stats.hits == 1
    y.mul_(2)
    y.detach().add_(1)
    y = compiled(x3())
    y.detach().zero_()
    with pytest.raises(AutogradError, match="modified by an inplace operation"):
        y.sum().backward()


def test_second_derivative_through_a_compiled_call() -> None:
    w = weight()

    def f(x: Any) -> Any:
        return (x * w * w * w.detach()).sum()

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(3):
        (first,) = graphc.autograd.grad(compiled(x3()), [w], create_graph=True)
        (second,) = graphc.autograd.grad(first.sum(), [w])
    (eager,) = graphc.autograd.grad(graphc.autograd.grad(f(x3()), [w], create_graph=True)[0].sum(), [w])
    assert compiled.stats.hits == 1
    assert second.tolist() == eager.tolist()


@pytest.mark.parametrize("how", ["transposed", "slice", "product", "narrow"])
def test_second_derivative_reads_kept_views(how: str) -> None:
    def f(w: Any) -> Any:
        h = w * 1.5
        if how == "slice":
            return (h.repeat(2, 1)[::2, 1:].sin() * h[:, :1]).t().exp()
        if how == "product":
            return (h @ h.t()).softmax(-1) @ h
        if how == "narrow":
            return h.bfloat16().t().sin().softmax(0)
        return h.t().sin()

    w = graphc.tensor([[1.0, 2.0], [3.0, 5.0]], requires_grad=True)
    found = []
    for fn in (f, graphc.compile(f, fullgraph=True)):
        for _ in range(4):
            w.grad = None
            (first,) = graphc.autograd.grad(fn(w).float().square().sum(), [w], create_graph=True)
            first.square().sum().backward()
        found.append((first.tolist(), w.grad.tolist()))
    assert found[0] == found[1]


def test_input_that_gets_a_history_by_a_write_is_refused() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            x.mul_(w)
            return x + 1

        return lambda: f(x3()), (), [w]

    outer_backward(make)  # made inside: fine
    w = weight()
    with pytest.raises(RecordingError, match="gives x a gradient history"):
        graphc.compile(lambda x: x.mul_(w), fullgraph=True)(x3())


# ---- what is returned is what eager code returns


def test_closure_tensor_is_returned_itself() -> None:
    c = x3()
    compiled = graphc.compile(lambda: (c, [c]), fullgraph=True)
    for _ in range(3):
        a, (b,) = compiled()
    assert compiled.stats.hits == 1
    assert a is c
    assert b is c


def test_detached_closure_tensor_is_not_the_tensor_itself() -> None:
    w = weight()
    compiled = graphc.compile(lambda: w.detach(), fullgraph=True)
    for _ in range(3):
        d = compiled()
    assert compiled.stats.hits == 1
    assert d is not w
    assert not d.requires_grad
    d[0] = 9.0
    assert w.tolist() == [9.0, 2.0, 3.0]


def test_view_of_a_parameter_requires_gradients() -> None:
    def make() -> Any:
        w = weight()
        return lambda: w[1:].view(2, 1), (), [w]

    outer_backward(make)


def test_detached_use_before_use_of_a_parameter() -> None:
    w = weight()
    assert_same(lambda x: w.detach() * x * w, x3(), state=[w])


def test_file_updates_state_when_there_is_a_branch() -> None:
    w = nn.Parameter(graphc.ones(3))
    opt = optim.SGD([w], lr=0.1)

    def f(x: Any) -> Any:
        opt.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        opt.step()
        if loss > 1000:
            return x
        return loss

    assert_same(f, x3(), state=[w, opt])


class Keep(nn.Module):
    h: graphc.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", graphc.zeros(2))


def test_file_keeps_a_buffer_that_is_written_and_rebound_whatever_is_returned() -> None:
    keep = Keep()

    def f(x: Any) -> Any:
        keep.h.add_(x.mean())
        keep.h = keep.h * 0.5 + x[:2]
        return None, 3, x * 2, keep.h.sum()

    assert_same(f, x3(), state=[keep])


# ---- indices


@pytest.mark.parametrize("how", ["index", "computed", "gather", "embedding", "cross_entropy"])
def test_index_out_of_range_raises_in_a_compiled_call(how: str) -> None:
    table = graphc.arange(6).reshape(3, 2).float()
    fns: dict[str, Any] = {
        "index": lambda i: table[i],
        "computed": lambda i: table[i * 1],
        "gather": lambda i: table.gather(0, i.reshape(2, 1)),
        "embedding": lambda i: nn.functional.embedding(i, table),
        "cross_entropy": lambda i: nn.functional.cross_entropy(table[:2], i.clamp(max=1)),
    }
    compiled = graphc.compile(fns[how], fullgraph=True)
    for _ in range(4):
        compiled(graphc.tensor([0, 1]))
    assert compiled.stats.hits == 2
    with pytest.raises(graphc.errors.IndexingError, match="out of"):
        compiled(graphc.tensor([0, 3] if how != "cross_entropy" else [0, -7]))
    assert compiled(graphc.tensor([1, 1])).tolist() == fns[how](graphc.tensor([1, 1])).tolist()


def test_filled_places_count_from_the_end_and_places_may_be_int32() -> None:
    table = graphc.arange(6).reshape(3, 2).float()

    def f(i: Any) -> Any:
        j = i.int().abs()
        found = nn.functional.embedding(j, table), table.gather(0, j.reshape(2, 1)), table.scatter(0, j[None], 5.0)
        return table.index_fill(0, i, 9.0), *found

    assert f(graphc.tensor([0, -1]))[0].tolist() == [[9.0, 9.0], [2.0, 3.0], [9.0, 9.0]]
    assert_same(f, graphc.tensor([0, -1]))
    with pytest.raises(graphc.errors.IndexingError, match="index_fill: index -4"):
        table.index_fill(0, graphc.tensor([0, -4]), 9.0)


def test_ignored_targets_are_no_index() -> None:
    compiled = graphc.compile(lambda x, y: nn.functional.cross_entropy(x, y), fullgraph=True)
    for _ in range(4):
        compiled(graphc.ones(2, 3), graphc.tensor([1, -100]))
    assert compiled.stats.hits == 2


# ---- eager code


def test_overwritten_tensor_goes_on_with_gradients_of_zero() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y, z, u = w * x, w * 2, (w * x).sum()
            y.zero_()
            z[:] = x
            u.fill_(3.0)
            return y, z, u

        return f, (x3(),), [w]

    outer_backward(make)
    f, args, (w,) = make()
    results = f(*args)
    assert all(t.requires_grad for t in results)
    sum(t.sum() for t in results).backward()
    assert w.grad.tolist() == [0.0, 0.0, 0.0]


def test_overwritten_through_a_view_goes_on_with_gradients_of_zero() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = (w * x).reshape(1, 3).transpose(0, 1)
            base = w * 2
            base.view(3, 1)[:] = -1
            y[:] = 2
            return y, base

        return f, (x3(),), [w]

    outer_backward(make)
    f, args, _ = make()
    assert all(t.requires_grad for t in f(*args))


def test_node_that_saved_nothing_runs_twice() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = w + x
            y.tanh().sum().backward()
            y.sin().sum().backward()
            return y

        return f, (x3(),), [w]

    outer_backward(make)


def test_numbers_stored_before_an_error_are_plain_numbers() -> None:
    log: list[Any] = []

    def f(x: Any) -> Any:
        log.append(x.sum().item())
        x.backward()

    with pytest.raises(AutogradError, match="does not require grad"):
        graphc.compile(f)(x3())
    assert [type(n) for n in log] == [float]


# ---- narrow types


@pytest.mark.parametrize("dtype", [graphc.float16, graphc.bfloat16], ids=str)
def test_rules_on_narrow_types_round_once_outside(dtype: Any) -> None:
    def make() -> Any:
        w = weight()
        return lambda x: (w * x).to(dtype).softmax(-1).logsumexp(0), (x3(),), [w]

    outer_backward(make)


def test_write_to_a_view_whose_size_depends_on_values_goes_on_after_the_refusal() -> None:
    def make() -> Any:
        w = weight()

        def f(x: Any) -> Any:
            y = (w * x).unique_consecutive()
            y[::2] = 1.0
            return y

        return f, (x3(),), [w]

    outer_backward(make, refused=True)
