"""The recorder: views and writes in place."""

from __future__ import annotations

from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import ShapeError
from graphc.testing import assert_same
from tests.recorder_checks import bits, raises_like, refused

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def x34() -> Any:
    return graphc.arange(12.0).reshape(3, 4) - 5.5


def same_writes(fn: Any, make: Any, calls: int = 5, fullgraph: bool = True) -> Any:
    """Like assert_same, but on new tensors each time, base tensors included."""
    compiled = graphc.compile(fn, fullgraph=fullgraph)
    mine, theirs = make(), make()
    for k in range(calls):
        assert bits(compiled(*mine[0])) == bits(fn(*theirs[0])), f"call {k + 1}"
        assert bits(mine[1:]) == bits(theirs[1:]), f"base after call {k + 1}"
        assert bits(mine[0]) == bits(theirs[0]), f"inputs after call {k + 1}"
    return compiled


def test_in_place_on_an_argument() -> None:
    def f(x: Any) -> Any:
        x.add_(1).mul_(2)
        return x.sum()

    assert_same(f, x34())


def test_in_place_on_a_view_of_an_argument() -> None:
    def f(x: Any) -> Any:
        x[0].add_(1)
        x[:, 1] = 7.0
        x.t()[2].mul_(3)
        x.view(4, 3)[1:3, ::2].sub_(1)
        return x * 2

    assert_same(f, x34())


def test_a_view_sees_a_later_write_to_its_base() -> None:
    def f(x: Any) -> Any:
        y = x.clone()
        row, flat = y[1], y.view(12)
        y.add_(1)
        a = row * 2
        flat[5].fill_(100.0)
        row.mul_(2)
        return a, y * 1, flat * 1, row.sum()

    assert_same(f, x34())


def test_a_chain_of_views() -> None:
    def f(x: Any) -> Any:
        y = x.clone()
        v = y.t()[1:3].unsqueeze(0).permute(2, 0, 1)[1:]
        v.mul_(10)
        v += 1
        return y

    assert_same(f, x34())


@pytest.mark.parametrize(
    "write",
    [
        lambda y: y.select(0, 1).zero_(),
        lambda y: y.narrow(1, 1, 2).fill_(3.0),
        lambda y: y.transpose(0, 1).copy_(graphc.ones(4, 3)),
        lambda y: y.reshape(2, 6)[:, ::3].add_(1),
        lambda y: y.unsqueeze(1).squeeze(1).mul_(2),
        lambda y: y.flatten()[3:9:2].sub_(4),
        lambda y: y.split(2, 1)[1].zero_(),
        lambda y: y.chunk(2, 1)[0].add_(1),
        lambda y: y.unbind(0)[2].add_(1),
        lambda y: y.add_(1),
        lambda y: y.__setitem__((slice(None), 0), y[:, 1]),
        lambda y: y.__setitem__(graphc.tensor([0, 2]), 1.0),
        lambda y: y.__setitem__(y > 0, 1.0),
        lambda y: y.__setitem__(..., 5.0),
        lambda y: y[1].copy_(y[0]),
        lambda y: y[:, :2].copy_(y[:, 2:]),
        lambda y: y.clamp_(-1, 1),
        lambda y: y.masked_fill_(y > 0, 2.0),
        lambda y: y.detach().add_(1),
        lambda y: y.data.add_(1),
        lambda y: y.diagonal(1).add_(1),
        lambda y: y.diagonal(-1, 1, 0)[1:].fill_(7.0),
        lambda y: y.unfold(1, 2, 2)[:, 0].mul_(3),
        lambda y: y.unfold(0, 1, 2).sub_(1),
        lambda y: y.view(-1).index_add_(0, graphc.tensor([1, 1]), graphc.ones(2)),
    ],
)
def test_writes_through_views(write: Any) -> None:
    def on_argument(x: Any) -> Any:
        write(x)
        return x + 1

    def on_own(x: Any) -> Any:
        y = x * 2
        write(y)
        return y, y[1]

    assert_same(on_argument, x34(), threads=(2,))
    assert_same(on_own, x34(), threads=(2,))


def test_gradients_of_writes_through_diagonals_and_windows() -> None:
    def f(x: Any, w: Any) -> Any:
        x.grad = w.grad = None
        y = x * 1
        y.diagonal(-1).mul_(w)
        y.unfold(1, 2, 2)[:, 1].add_(w)
        (y * y).sum().backward()
        return x.grad, w.grad

    def copied(x: Any, w: Any) -> Any:
        x.grad = w.grad = None
        y = x.diagonal_scatter(x.diagonal(-1) * w, -1)
        y = graphc.cat([y[:, :2], y[:, 2:] + w], 1)
        (y * y).sum().backward()
        return x.grad, w.grad

    x, w = x34().requires_grad_(), graphc.tensor([3.0, -2.0], requires_grad=True)
    assert_same(f, x, w)
    for a, b in zip(f(x, w), copied(x, w), strict=True):
        assert a.tolist() == b.tolist()


def test_an_argument_that_is_a_gapped_view_is_written() -> None:
    def f(v: Any) -> Any:
        v.mul_(2)
        v[0] = 5.0
        return v.sum()

    def make() -> Any:
        base = x34()
        return (base[:, ::2],), base

    same_writes(f, make)


def test_an_argument_that_is_a_transposed_view_is_written() -> None:
    def make() -> Any:
        base = x34()
        return (base.t()[1:],), base

    same_writes(lambda v: v.mul_(2).sum(), make)


def test_a_view_with_a_new_offset_is_written() -> None:
    def f(v: Any) -> Any:
        v.add_(1)
        return v * 2

    compiled = graphc.compile(f, fullgraph=True)
    base, base2 = graphc.zeros(20), graphc.zeros(20)
    for k in range(8):
        assert bits(compiled(base[k : k + 4])) == bits(f(base2[k : k + 4]))
        assert bits(base) == bits(base2)
    assert compiled.stats.recordings == 2


def test_closed_over_view_and_base() -> None:
    base = x34()
    row = base[1]

    def f(x: Any) -> Any:
        base.add_(1)
        return base * x

    def g(x: Any) -> Any:
        row.add_(1)
        return row * x

    assert_same(f, graphc.ones(4))
    assert_same(g, graphc.ones(4))


@quiet
@pytest.mark.parametrize("order", ["base first", "view first", "both read"])
def test_base_and_view_both_used(order: str) -> None:
    def run(compile: bool) -> Any:
        base = x34()
        row = base[1]

        def f(x: Any) -> Any:
            if order == "base first":
                base.add_(1)
                return row * x
            if order == "view first":
                row.add_(1)
                return base * x
            return base * x + row

        fn = graphc.compile(f) if compile else f
        return [(bits(fn(graphc.ones(4))), bits(base)) for _ in range(5)]

    assert run(True) == run(False)


@quiet
def test_two_overlapping_arguments_are_written() -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        b.mul_(2)
        return a + b

    def make() -> Any:
        base = graphc.arange(6.0)
        return (base[:4], base[2:]), base

    same_writes(f, make, fullgraph=False)


@quiet
def test_two_views_of_one_base_that_do_not_overlap() -> None:
    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return a + b

    def make() -> Any:
        base = graphc.arange(8.0)
        return (base[:4], base[4:]), base

    same_writes(f, make, fullgraph=False)


def test_in_place_on_a_leaf_that_requires_grad_raises_as_eager() -> None:
    raises_like(lambda x: x.add_(1), x34().requires_grad_())


def test_writes_to_overlapping_views_raise_as_eager() -> None:
    with pytest.raises(ShapeError):
        graphc.compile(lambda x: x.expand(2, 3, 4).add_(1))(x34())
    raises_like(lambda x: x.clone()[0].expand(3, 4).add_(1), x34())
    raises_like(lambda x: x.unfold(1, 3, 1).add_(1), x34())


def test_in_place_on_an_output_of_unbind_with_grad() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y.unbind(0)[0].add_(1)
        return y

    raises_like(f, x34().requires_grad_())


def test_mutation_through_identity_dropout() -> None:
    def f(x: Any) -> Any:
        y = nn.functional.dropout(x, 0.5, training=False)
        y.add_(1)
        return x * 2

    x, x2 = x34(), x34()
    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(5):
        assert bits(compiled(x)) == bits(f(x2))
        assert bits(x) == bits(x2)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x.contiguous(),
        lambda x: x.to(graphc.float32),
        lambda x: x.reshape(3, 4),
        lambda x: x.view(3, 4),
        lambda x: x.expand(3, 4),
        lambda x: x[...],
        lambda x: x.flatten(),
    ],
)
def test_mutation_through_operations_that_may_return_their_input(make: Any) -> None:
    def f(x: Any) -> Any:
        make(x).add_(1)
        return x * 2

    assert_same(f, x34(), threads=(1,))


def test_returned_views_alias_across_calls() -> None:
    def f(x: Any) -> Any:
        y = x * 2
        y[0].add_(1)
        return y, y[0], y.t()

    compiled = graphc.compile(f, fullgraph=True)
    for _ in range(4):
        y, row, t = compiled(x34())
        assert row._s is y._s is t._s
        row.zero_()
        assert y[0].tolist() == [0.0] * 4 and t[:, 0].tolist() == [0.0] * 4


def test_a_read_only_argument_raises_as_eager() -> None:
    x = x34()
    x._a.flags.writeable = False
    fn = lambda x: x.add_(1)  # noqa: E731
    y = x34()
    compiled = graphc.compile(fn)
    for _ in range(3):
        compiled(y)
    with pytest.raises(graphc.errors.ArgumentError, match="read-only"):
        compiled(x)


def test_version_counters_move_as_in_eager() -> None:
    w = graphc.ones(4, requires_grad=True)
    x = graphc.ones(4)
    compiled = graphc.compile(lambda x: x.add_(1), fullgraph=True)
    for _ in range(4):
        y = w * x
        compiled(x)
        with pytest.raises(graphc.errors.AutogradError, match="modified"):
            y.sum().backward()


def test_swap_and_rotate() -> None:
    a, b = graphc.ones(3), graphc.zeros(3)

    def f(x: Any) -> Any:
        old = a.clone()
        a.copy_(b)
        b.copy_(old + x)
        return a + b

    assert_same(f, graphc.ones(3))


def test_a_write_nobody_reads_still_happens() -> None:
    def f(x: Any, y: Any) -> Any:
        y.copy_(x * 2)

    x, y = x34(), x34()
    compiled = graphc.compile(f, fullgraph=True)
    for k in range(4):
        x.fill_(float(k))
        assert compiled(x, y) is None
        assert y.tolist() == (x * 2).tolist()


def test_setitem_with_indices_and_slices() -> None:
    def f(x: Any, i: Any) -> Any:
        y = x.clone()
        y[i] = -1.0
        y[1:, 2:] = y[:2, :2]
        y[0, 0] += 5
        return y

    assert_same(f, x34(), graphc.tensor([0, 2]))


def test_a_write_through_windows_that_overlap_is_refused_and_runs_eagerly() -> None:
    """One place of each window is written: the elements of the view are apart, those of the windows are not."""

    def make() -> Any:
        def f(x: Any) -> Any:
            whole = x * 2
            view = whole.unfold(-1, 2, 1)[..., 0]
            view.sub_(1)  # here
            return view, whole

        return f, (x34(),), lambda: ()

    refused(make, match="overlap")
