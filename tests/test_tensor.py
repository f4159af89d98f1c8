"""Tensors: creation, views and memory, in-place writes, conversions, random numbers, the public namespace."""

from __future__ import annotations

import copy
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import errors
from graphc.frontend.mode import using
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.types import bool_, float32, float64, int64


class Hooks:
    """A recorder that notes what it is told and refuses nothing."""

    lockstep = None

    def __init__(self) -> None:
        self.seen: list[tuple[Any, ...]] = []
        self.calls = 0

    def __getattr__(self, name: str) -> Any:
        return lambda *args: self.seen.append((name, *args))

    def symbolic_type(self, tensor: Tensor) -> Any:
        return tensor._l.type

    def on_random(self) -> tuple[Tensor, int]:
        self.calls += 1
        return fresh(np.array([7, 3], np.int64)), self.calls - 1

    def on_item(self, tensor: Tensor, number: Any) -> Any:
        self.seen.append(("on_item", tensor))
        return number

    def on_size(self, count: Tensor) -> int:
        self.seen.append(("on_size", count))
        return int(count._a)

    def paused(self) -> Any:
        return nullcontext()

    def names(self) -> list[str]:
        return [s[0] for s in self.seen]


# ---------------------------------------------------------------- creation


@pytest.mark.parametrize(
    ("made", "dtype", "value"),
    [
        (lambda: graphc.tensor([[1, 2], [3, 4]]), int64, [[1, 2], [3, 4]]),
        (lambda: graphc.tensor([1, 2.5]), float32, [1.0, 2.5]),
        (lambda: graphc.tensor([True, False]), bool_, [True, False]),
        (lambda: graphc.tensor(np.array([1.5])), float64, [1.5]),
        (lambda: graphc.tensor([1.9, -1.9, float("nan")], dtype=int64), int64, [1, -1, 0]),
        (lambda: graphc.tensor([]), float32, []),
        (lambda: graphc.tensor([graphc.tensor(1), graphc.tensor(2)]), int64, [1, 2]),
        (lambda: graphc.tensor(range(3)), int64, [0, 1, 2]),
        (lambda: graphc.zeros(2, 1), float32, [[0.0], [0.0]]),
        (lambda: graphc.ones((2,), dtype=int64), int64, [1, 1]),
        (lambda: graphc.full((2,), True), bool_, [True, True]),
        (lambda: graphc.full((1,), 3), int64, [3]),
        (lambda: graphc.full((1,), graphc.tensor(2.5)), float32, [2.5]),
        (lambda: graphc.arange(3), int64, [0, 1, 2]),
        (lambda: graphc.arange(1, 2, 0.5), float32, [1.0, 1.5]),
        (lambda: graphc.arange(5, 0, -2), int64, [5, 3, 1]),
        (lambda: graphc.linspace(0, 1, 5), float32, [0.0, 0.25, 0.5, 0.75, 1.0]),
        (lambda: graphc.eye(2, 3), float32, [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]),
        (lambda: graphc.zeros_like(graphc.tensor([1])), int64, [0]),
        (lambda: graphc.Tensor([1, 2]), float32, [1.0, 2.0]),
        (lambda: graphc.LongTensor([1, 2]), int64, [1, 2]),
        (lambda: graphc.Tensor(1, 2), float32, [[0.0, 0.0]]),
        (lambda: graphc.tensor([1.0]).new_full((2,), 3), float32, [3.0, 3.0]),
        (lambda: graphc.as_tensor([1, 2], dtype=float64), float64, [1.0, 2.0]),
    ],
)
def test_creation(made: Any, dtype: Any, value: Any) -> None:
    t = made()
    assert t.dtype is dtype
    np.testing.assert_array_equal(t.numpy(), np.array(value, dtype=dtype.np))


def test_from_numpy_shares_memory_and_tensor_copies() -> None:
    array = np.arange(4.0)
    shared, copied = graphc.from_numpy(array), graphc.tensor(array)
    array[0] = 9
    assert shared[0].item() == 9.0
    assert copied[0].item() == 0.0
    shared[1] = 8
    assert array[1] == 8
    assert shared._s.exposed
    assert graphc.as_tensor(array).data_ptr() == shared.data_ptr()


def test_numpy_shares_memory() -> None:
    t = graphc.zeros(3)
    t.numpy()[1] = 5
    assert t.tolist() == [0.0, 5.0, 0.0]
    assert np.asarray(t).sum() == 5
    assert np.asarray(t, dtype=np.int64).dtype == np.int64


# ---------------------------------------------------------------- views


def test_views_share_memory_and_copies_do_not() -> None:
    x = graphc.arange(12).reshape(3, 4)
    views = [
        x.t(),
        x[1],
        x[:, ::2],
        x.view(2, 6),
        x.unsqueeze(0),
        x[None],
        x.unbind(1)[0],
        x.expand(2, 3, 4),
        x.detach(),
        x.data,
    ]
    assert all(v._s is x._s for v in views)
    copies = [x.t().reshape(12), x.clone(), x.flip(0), x[[0, 1]], x.t().contiguous(), x.repeat(1, 1), x.tril()]
    assert not any(c._s is x._s for c in copies)
    assert x.contiguous() is x


def test_a_write_through_a_view_is_seen_everywhere() -> None:
    x = graphc.zeros(2, 3)
    row, column = x[0], x.t()[1]
    row += 1
    column.mul_(5)
    assert x.tolist() == [[1.0, 5.0, 1.0], [0.0, 0.0, 0.0]]
    assert x._v.value == 2
    assert x.detach()._v is x._v
    assert x.data._v is not x._v


def test_view_needs_a_viewable_layout() -> None:
    x = graphc.arange(6).reshape(2, 3).t()
    with pytest.raises(errors.ShapeError, match=r"view: view size .* use .reshape"):
        x.view(6)
    assert x.reshape(6).tolist() == [0, 3, 1, 4, 2, 5]


def test_layout() -> None:
    x = graphc.zeros(2, 3, 4)
    assert (x.stride(), x.stride(1), x.is_contiguous(), x.dim(), x.numel()) == ((12, 4, 1), 4, True, 3, 24)
    y = x.permute(2, 0, 1)
    assert (y.stride(), y.is_contiguous(), y.shape, y.size(-1)) == ((1, 12, 4), False, (4, 2, 3), 3)
    assert x[1, 1:].storage_offset() == 16
    assert (x.element_size(), x.nbytes, x.itemsize) == (4, 96, 4)
    assert isinstance(x.shape, graphc.Size)
    assert repr(x.shape[1:]) == "graphc.Size([3, 4])"
    assert x.shape.numel() == 24


@pytest.mark.parametrize(
    ("call", "kind", "message"),
    [
        (lambda x: x.reshape(5), errors.ShapeError, "reshape: f32\\[2, 3\\] has 6 elements"),
        (lambda x: x.reshape(-1, -1), errors.ShapeError, "reshape: only one dimension can be inferred"),
        (lambda x: x.view("a"), errors.ArgumentError, "view: sizes must be ints, got str 'a'"),
        (lambda x: x.permute(0), errors.ShapeError, "permute: f32\\[2, 3\\] has 2 dimensions"),
        (lambda x: x.permute(0, 0), errors.DimError, "permute: duplicate dims"),
        (lambda x: x.sum(2), errors.DimError, "sum: dim 2 is out of range for 2 dimensions"),
        (lambda x: x.expand(3, 3), errors.ShapeError, "expand: the expanded size 3 must match the existing size 2"),
        (lambda x: x + graphc.ones(4), errors.ShapeError, "add: operand 1 of shape \\[4\\] does not broadcast"),
        (lambda x: graphc.cat([x, graphc.ones(3)]), errors.GraphcError, "cat"),
        (lambda x: graphc.stack([x, graphc.ones(3)]), errors.ShapeError, "stack: expects each tensor to be equal size"),
        (lambda x: graphc.cat([]), errors.ArgumentError, "cat: expects a non-empty list"),
        (lambda x: graphc.cat(x), errors.ArgumentError, "cat: expects a list or tuple of Tensors"),
        (lambda x: x @ x, errors.ShapeError, "matmul: operands f32\\[2, 3\\] and f32\\[2, 3\\] do not fit"),
        (lambda x: x @ x.t().double(), errors.DTypeError, "matmul: expected both operands to have the same dtype"),
        (lambda x: x @ graphc.tensor(1.0), errors.ShapeError, "use \\* for a scalar"),
        (lambda x: graphc.mm(x, graphc.ones(3)), errors.ShapeError, "mm: operand 1 must be a 2-d tensor"),
        (lambda x: x.item(), errors.ShapeError, "item: a Tensor with 6 elements"),
        (lambda x: float(x), errors.ArgumentError, "only one element tensors"),
        (lambda x: bool(x), errors.ShapeError, "Boolean value of Tensor with more than one value is ambiguous"),
        (lambda x: len(graphc.tensor(1)), errors.ArgumentError, "len\\(\\) of a 0-d tensor"),
        (lambda x: list(graphc.tensor(1)), errors.ArgumentError, "iteration over a 0-d tensor"),
        (lambda x: range(3)[graphc.tensor(1.0)], errors.DTypeError, "only integer tensors of a single element"),
        (lambda x: x.to("cuda"), errors.UnsupportedError, "to: device: 'cuda' is not available"),
        (lambda x: x.softmax(), errors.ArgumentError, "softmax: dim is required"),
        (lambda x: x.long().mean(), errors.DTypeError, "mean: only supports floating-point input, got i64\\[2, 3\\]"),
        (lambda x: x.clamp(), errors.ArgumentError, "clamp: at least one of min or max"),
        (lambda x: x.argmax(5), errors.DimError, "argmax: dim 5 is out of range"),
        (lambda x: x[:, :0].argmax(1), errors.DimError, "argmax: expected reduction dim 1"),
        (lambda x: graphc.where(x, x, x), errors.DTypeError, "where: expected condition to be a boolean tensor"),
        (lambda x: graphc.where(x > 0, x), errors.ArgumentError, "where: give both input and other"),
        (lambda x: x.masked_fill(x, 0), errors.DTypeError, "masked_fill: only supports boolean masks"),
        (lambda x: x.gather(1, graphc.full((2, 1), 7)), errors.IndexingError, "gather: index 7 is out of bounds for "
            "dimension 1 with size 3"),
        (lambda x: x.gather(1, x), errors.DTypeError, "gather: expected an int64 index"),
        (lambda x: x.scatter(1, graphc.zeros(2, 1, dtype=int64)), errors.ArgumentError, "scatter: give src or value"),
        (lambda x: x.split([1, 2]), errors.ShapeError, "split_with_sizes: sizes \\[1, 2\\]"),
        (lambda x: x.add_(graphc.ones(4, 2, 3)), errors.ShapeError, "add_: output with type f32\\[2, "
            "3\\] doesn't match"),
        (lambda x: x.expand(2, 2, 3).add_(1), errors.ShapeError, "more than one element of the written-to tensor"),
        (lambda x: graphc.ones(2, 3) @ graphc.ones(4), errors.ShapeError, "f32\\[2, 3\\] and f32\\[4\\] do not fit"),
        (lambda x: graphc.ones(4) @ graphc.ones(1, 3, 2), errors.ShapeError, "f32\\[4\\] and f32\\[1, 3, 2\\] do not"),
        (lambda x: graphc.ones(4) @ graphc.ones(3), errors.ShapeError, "f32\\[4\\] and f32\\[3\\] do not fit"),
        (lambda x: x.masked_fill(graphc.ones(4) > 0, 1.0), errors.ShapeError, "^masked_fill: operand 1 of shape"),
        (lambda x: x.copy_(graphc.ones(4)), errors.ShapeError, "^copy_: the expanded size 3 must match"),
        (lambda x: x.__setitem__(0, graphc.ones(4)), errors.ShapeError, "^setitem: the expanded size 3 must match"),
        (lambda x: x.normal_(std=-1), errors.ArgumentError, "normal_: expects std >= 0.0"),
        (lambda x: graphc.zeros(-1), errors.ShapeError, "zeros: trying to create a tensor with a negative dimension"),
        (lambda x: graphc.tensor([[1], [1, 2]]), errors.ArgumentError, "tensor: expected a sequence of equal length"),
        (lambda x: graphc.tensor("a"), errors.ArgumentError, "tensor: could not infer a dtype from str"),
        (lambda x: graphc.tensor([2**70]), errors.ArgumentError, "does not fit in int64"),
        (lambda x: graphc.from_numpy([1]), errors.ArgumentError, "from_numpy: expected np.ndarray, got list"),
        (lambda x: graphc.from_numpy(np.arange(3)[::-1]), errors.ArgumentError, "negative strides are not supported"),
        (lambda x: graphc.from_numpy(np.zeros(2, np.uint16)), errors.ArgumentError, "dtype uint16 is not supported"),
        (lambda x: graphc.arange(0, 5, -1), errors.ArgumentError, "arange: step must be nonzero and lead from 0 to 5"),
        (lambda x: graphc.full((1,), "a"), errors.ArgumentError, "fill_value must be a number"),
        (lambda x: graphc.full((1,), float("inf"), dtype=int64), errors.ArgumentError, "does not fit in int64"),
        (lambda x: graphc.randint(3, 3, (2,)), errors.ArgumentError, "randint: from < to is needed"),
        (lambda x: graphc.rand(2, dtype=int64), errors.DTypeError, "rand: not implemented for graphc.int64"),
        (lambda x: graphc.manual_seed("a"), errors.ArgumentError, "manual_seed: the seed must be an int"),
        (lambda x: graphc.einsum("ij,jk", x), errors.ArgumentError, "einsum: 'ij,jk' names 2 operands"),
        (lambda x: graphc.einsum("ii->i", x), errors.UnsupportedError, "a letter repeated in one operand"),
        (lambda x: graphc.device("tpu"), errors.UnsupportedError, "device: 'tpu' is not available"),
        (lambda x: graphc.finfo(int64), errors.DTypeError, "finfo: requires a floating-point dtype"),
        (lambda x: x.to(float64, colour=1), errors.ArgumentError, "to: unexpected keyword argument 'colour'"),
    ],
)  # fmt: skip
def test_bad_input(call: Any, kind: type[Exception], message: str) -> None:
    x = graphc.ones(2, 3)
    with pytest.raises(kind, match=message):
        call(x)
    assert x.tolist() == [[1.0] * 3] * 2, "a refused call must not write"


# ---------------------------------------------------------------- in place


def test_in_place_forms_return_the_tensor_itself() -> None:
    x = graphc.tensor([1.0, 4.0])
    memory = x.data_ptr()
    assert x.add_(1).sqrt_().mul_(2).clamp_(max=3) is x
    x -= 1
    x /= 2
    assert x.data_ptr() == memory
    np.testing.assert_allclose(x.numpy(), (np.minimum(2 * np.sqrt(np.array([2, 5], np.float32)), 3) - 1) / 2, rtol=1e-6)
    assert x.fill_(2).tolist() == [2.0, 2.0]
    assert x.zero_().tolist() == [0.0, 0.0]
    assert x.copy_(graphc.tensor([7])).tolist() == [7.0, 7.0]


def test_in_place_with_overlapping_operands() -> None:
    x = graphc.arange(5)
    x[1:] += x[:-1]
    assert x.tolist() == [0, 1, 3, 5, 7]
    x.copy_(x.flip(0))
    assert x.tolist() == [7, 5, 3, 1, 0]


def test_a_constant_cannot_be_written() -> None:
    shared = graphc.from_numpy(np.broadcast_to(np.zeros(1), (3,)).copy())
    shared._a.flags.writeable = False
    with pytest.raises(errors.ArgumentError, match="read-only; clone"):
        shared.add_(1)


# ---------------------------------------------------------------- values


def test_python_values() -> None:
    t = graphc.tensor(3)
    assert (t.item(), int(t), float(t), bool(t), [0, 1, 2, 3][t]) == (3, 3, 3.0, True, 3)
    assert f"{graphc.tensor(1.23456):.2f}" == "1.23"
    assert 2 in graphc.tensor([1, 2])
    assert 5 not in graphc.tensor([1, 2])
    assert (graphc.tensor([1]) == None) is False  # noqa: E711
    assert len({t, t}) == 1
    assert [row.tolist() for row in graphc.eye(2)] == [[1.0, 0.0], [0.0, 1.0]]
    assert graphc.equal(graphc.ones(2), graphc.ones(2))
    assert not graphc.equal(graphc.ones(2), graphc.ones(3))
    assert graphc.allclose(graphc.ones(2), graphc.ones(2) + 1e-7)


def test_conversions() -> None:
    x = graphc.tensor([1.7, -1.7, float("inf")])
    assert x.long().tolist() == [1, -1, 2**63 - 1]
    assert x.double().dtype is float64
    assert x.to(float32) is x
    assert x.to("cpu", float64).dtype is float64
    assert x.to(graphc.tensor(1)).dtype is int64
    assert x.to(float32, copy=True) is not x
    assert (x.cpu() is x, x.device, x.is_cuda) == (True, graphc.device("cpu"), False)
    twin = copy.deepcopy(x)
    twin[0] = 0
    assert x[0].item() != 0


def test_max_in_three_forms() -> None:
    x = graphc.tensor([[1.0, 5.0, 5.0], [float("nan"), 0.0, 2.0]])
    assert x[0].max().item() == 5.0
    values, indices = x.max(1)
    assert indices.tolist() == [1, 0]
    assert values[0].item() == 5.0
    assert np.isnan(values[1].item())
    assert graphc.max(x[0], graphc.tensor([3.0, 3.0, 9.0])).tolist() == [3.0, 5.0, 9.0]
    found = x[:1].min(dim=1, keepdim=True)
    assert found.values.tolist() == [[1.0]]
    assert found.indices.tolist() == [[0]]


def test_sorting_is_stable_and_puts_nan_last() -> None:
    x = graphc.tensor([2.0, float("nan"), -0.0, 0.0, 2.0])
    values, indices = x.sort()
    assert indices.tolist() == [2, 3, 0, 4, 1]
    assert values.tolist()[:4] == [-0.0, 0.0, 2.0, 2.0]
    assert x.argsort(descending=True).tolist() == [1, 0, 4, 2, 3]
    assert graphc.topk(x, 2).indices.tolist() == [1, 0]
    leaf = graphc.tensor([3.0, 1.0, 2.0], requires_grad=True)
    (leaf.topk(2).values * graphc.tensor([1.0, 10.0])).sum().backward()
    assert leaf.grad is not None
    assert leaf.grad.tolist() == [1.0, 0.0, 10.0]


def test_einsum_against_numpy() -> None:
    rng = np.random.default_rng(0)
    sizes = {"i": 2, "j": 3, "k": 4, "b": 2}
    for equation in (
        "ij,jk->ik",
        "bij,bjk->bik",
        "ij->ji",
        "ij->",
        "i,j->ij",
        "ij,ij->i",
        "bij,kj->bki",
        "ij,jk,k->i",
        "ij,jk",
    ):
        left = equation.split("->")[0]
        arrays = [rng.standard_normal([sizes[c] for c in term]) for term in left.split(",")]
        found = graphc.einsum(equation, *map(graphc.tensor, arrays))
        np.testing.assert_allclose(found.numpy(), np.einsum(equation, *arrays), rtol=1e-12)


# ---------------------------------------------------------------- random numbers


def test_random_numbers_repeat_from_a_seed() -> None:
    def draw() -> list[Any]:
        made = [
            graphc.rand(3),
            graphc.randn(2, 2),
            graphc.randint(0, 9, (4,)),
            graphc.randperm(5),
            graphc.zeros(2).normal_(),
        ]
        return [t.tolist() for t in made]

    graphc.manual_seed(5)
    state = graphc.get_rng_state()
    first = draw()
    assert draw() != first
    graphc.set_rng_state(state)
    assert draw() == first
    assert graphc.manual_seed(5).initial_seed() == graphc.initial_seed() == 5
    assert draw() == first
    own = graphc.Generator().manual_seed(5)
    assert graphc.rand(3, generator=own).tolist() == first[0]


def test_each_call_counts_once_whatever_its_size() -> None:
    graphc.manual_seed(1)
    graphc.rand(1000)
    graphc.randn(1)
    assert graphc.get_rng_state().tolist() == [1, 2]


def test_a_recording_draws_the_numbers_of_eager_execution() -> None:
    graphc.set_rng_state(graphc.tensor([7, 3]))
    eager = [graphc.rand(4).tolist(), graphc.randn(3).tolist(), graphc.randint(0, 99, (5,)).tolist()]
    with using(recorder=Hooks()):
        recorded = [graphc.rand(4)._a, graphc.randn(3)._a, graphc.randint(0, 99, (5,))._a]
    assert [a.tolist() for a in recorded] == eager


def test_random_ranges() -> None:
    graphc.manual_seed(0)
    u = graphc.rand(2000)
    assert (u >= 0).all()
    assert (u < 1).all()
    n = graphc.randn(4000)
    assert abs(n.mean().item()) < 0.1
    assert abs(n.std().item() - 1) < 0.1
    assert sorted(graphc.randperm(50).tolist()) == list(range(50))
    assert {*graphc.randint(2, 5, (200,)).tolist()} == {2, 3, 4}
    draws = graphc.multinomial(graphc.tensor([0.0, 1.0, 3.0]), 400, replacement=True)
    assert {*draws.tolist()} == {1, 2}
    assert 200 < (draws == 2).sum().item() < 380
    assert sorted(graphc.multinomial(graphc.tensor([1.0, 1.0, 1.0]), 3).tolist()) == [0, 1, 2]
    assert graphc.bernoulli(graphc.full((500,), 0.25)).mean().item() == pytest.approx(0.25, abs=0.08)


@pytest.mark.parametrize(
    "call",
    [
        lambda p: graphc.bernoulli(graphc.tensor([0.5, p])),
        lambda p: graphc.bernoulli(graphc.zeros(2), p),
        lambda p: graphc.zeros(2).bernoulli_(p),
        lambda p: graphc.zeros(2).bernoulli_(graphc.tensor([0.5, p])),
    ],
)
@pytest.mark.parametrize("p", [-0.5, 1.0000001, float("nan"), float("inf")])
def test_bernoulli_refuses_what_is_no_probability(call: Any, p: float) -> None:
    before = graphc.get_rng_state()
    with pytest.raises(errors.ArgumentError, match=r"^bernoulli_?: .*\[0, 1\]"):
        call(p)
    assert graphc.equal(graphc.get_rng_state(), before)
    call(1.0)
    call(0.0)


def test_compiled_bernoulli_refuses_what_is_no_probability() -> None:
    for f in (lambda x: graphc.bernoulli(x), lambda x: graphc.bernoulli(x * 1.0)):
        compiled = graphc.compile(f, fullgraph=True)
        for _ in range(4):
            assert compiled(graphc.tensor([0.0, 1.0])).tolist() == [0.0, 1.0]
        assert compiled.stats.hits >= 2
        for bad in (1.0000001, -0.1, float("nan")):
            with pytest.raises(errors.ArgumentError, match=r"^bernoulli: the probabilities"):
                compiled(graphc.tensor([0.0, bad]))


# ---------------------------------------------------------------- what a recorder is told


def test_the_recorder_hears_of_everything_that_leaves_or_enters() -> None:
    x, leaf, hooks = graphc.ones(2), graphc.ones(1, requires_grad=True), Hooks()
    with using(recorder=hooks):
        graphc.tensor([1.0])
        graphc.from_numpy(np.zeros(1))
        x.sum().item()
        bool(x.sum() > 0)
        x.numpy()
        x.tolist()
        x.data_ptr()
        repr(x)
        x.add_(1)
        leaf.grad = graphc.ones(1)
        assert leaf.grad is not None
        graphc.manual_seed(3)
        leaf.requires_grad_(False)
    told = hooks.names()
    for name in (
        "on_host_data",
        "on_item",
        "on_bool",
        "on_escape",
        "on_show",
        "on_write",
        "on_grad_write",
        "on_grad_read",
        "on_seed",
    ):
        assert name in told, name
    assert told.count("on_host_data") == 2
    assert told.count("on_escape") == 3
    assert ("on_metadata", leaf, "requires_grad_") in hooks.seen


def test_a_recorder_hears_of_results_whose_size_depends_on_values() -> None:
    x = graphc.tensor([1.0, -1.0])
    for call in (lambda: x[x > 0], lambda: x.nonzero(), lambda: x.masked_select(x > 0), lambda: x.unique()):
        hooks = Hooks()
        with using(recorder=hooks):
            call()
        assert hooks.names().count("on_size") == 1
    hooks = Hooks()
    with using(recorder=hooks):
        x[x < 0] = 0
    assert "on_escape" not in hooks.names()
    assert x.tolist() == [1.0, 0.0]


# ---------------------------------------------------------------- the namespace


def test_importing_the_package_imports_nothing_heavy() -> None:
    code = (
        "import sys, graphc\n"
        "assert 'numpy' not in sys.modules\n"
        "graphc.tensor\n"
        "heavy = [m for m in ('llvmlite', 'networkx', 'rich', 'click', 'safetensors') if m in sys.modules]\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_public_names() -> None:
    for name in graphc.__all__:
        if name not in ("nn", "optim", "utils", "newaxis"):
            assert getattr(graphc, name) is not None, name
    assert {"tensor", "Tensor", "float32", "no_grad", "compile"} <= {*dir(graphc)}
    assert graphc.float is graphc.float32
    assert graphc.long is graphc.int64
    assert not graphc.cuda.is_available()
    assert Tensor.__module__ == graphc.Size.__module__ == graphc.device.__module__ == "graphc"
    with pytest.raises(AttributeError, match="module 'graphc' has no attribute 'frobnicate'"):
        graphc.frobnicate  # noqa: B018


def test_every_public_module_is_named_for_type_checkers() -> None:
    import ast
    from pathlib import Path

    from graphc.frontend import functional, public

    def star_imports(path: str) -> set[str]:
        tree = ast.parse(Path(path).read_text())
        found = {n.module for n in ast.walk(tree) if isinstance(n, ast.ImportFrom) and n.names[0].name == "*"}
        return {m for m in found if m and m not in ("graphc.frontend.functional", "graphc.frontend.public")}

    assert graphc.__file__ is not None
    assert star_imports(graphc.__file__) == star_imports(public.__file__) | star_imports(functional.__file__)


def test_assert_close() -> None:
    graphc.testing.assert_close(graphc.ones(2), graphc.ones(2) + 1e-7)
    for other in (graphc.ones(3), graphc.ones(2).double(), graphc.ones(2) + 1e-3):
        with pytest.raises(AssertionError, match="differ"):
            graphc.testing.assert_close(graphc.ones(2), other)


def test_view_and_dtype_errors_name_the_call_and_the_way_out() -> None:
    with pytest.raises(errors.ShapeError, match=r"view: f32\[3, 4\] has 12 elements, shape \[5, 2\] has 10"):
        graphc.ones(3, 4).view(5, 2)
    with pytest.raises(errors.ArgumentError, match=r"dtype uint16 is not supported; convert it \(NumPy: astype\) to"):
        graphc.from_numpy(np.ones(2, np.uint16))


@pytest.mark.parametrize("wrong", [[0.0, 0.0], [1.0, -1.0], [1.0, float("nan")], [float("inf"), 1.0]])
def test_multinomial_refuses_what_is_no_distribution(wrong: list[float]) -> None:
    with pytest.raises(errors.ArgumentError, match=r"multinomial: the probabilities f32\[2, 2\] must be finite"):
        graphc.multinomial(graphc.tensor([[0.5, 0.5], wrong]), 1)


def test_type_names_and_conversions() -> None:
    x = graphc.tensor([1.5, -2.5])
    assert x.type() == "graphc.FloatTensor"
    assert x.type(graphc.int64).tolist() == [1, -2]
    assert x.type("torch.DoubleTensor").dtype is graphc.float64
    assert x.type("torch.HalfTensor").dtype is graphc.float16
    assert x.type(graphc.IntTensor).dtype is graphc.int32
    assert isinstance(x, graphc.FloatTensor)
    assert not isinstance(x, graphc.DoubleTensor)
    with pytest.raises(errors.DTypeError, match=r"'torch.QuarterTensor' is not one of BoolTensor"):
        x.type("torch.QuarterTensor")
