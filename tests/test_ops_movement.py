"""Movement, windows and indexing: types, values, gradients, view rules and lowerings against the references."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from op_checks import (
    all_samples,
    check_gradient,
    check_reference,
    check_scatter,
    evaluate,
    gradients,
    lowered_cases,
)
from op_lowering import lowered

from graphc.errors import ArgumentError, DimError, DTypeError, ShapeError
from graphc.ir import expr
from graphc.ir.op import Op, all_ops, op_named
from graphc.ir.ops.reindex import reshape_index
from graphc.ir.types import Dim, TensorType, bool_, float32, int64

NAMES = {
    "reshape", "permute", "expand", "slice", "slice_scatter", "select", "flip", "pad", "cat", "clone", "windows",
    "windows_grad", "gather", "scatter", "scatter_add", "index_select", "index_add", "index_copy", "index", "index_put",
    "masked_fill", "embedding", "diagonal", "diagonal_scatter", "windows_scatter",
}  # fmt: skip
VIEWS = ["diagonal", "expand", "permute", "reshape", "select", "slice", "windows"]
OPS = [all_ops()[n] for n in sorted(NAMES)]


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_reference_has_the_inferred_type_and_agrees_with_the_decomposition(op: Op) -> None:
    for sample in all_samples(op):
        check_reference(op, sample)


@pytest.mark.parametrize("op", [op for op in OPS if op.lower is not None], ids=lambda op: op.name)
def test_lowering_gives_the_reference(op: Op) -> None:
    for sample, arrays in lowered_cases(op):
        (want,) = evaluate(op, arrays, sample.attrs)
        found = lowered(op, arrays, sample.attrs)
        np.testing.assert_array_equal(found, want, err_msg=f"{op.name} {sample.name}", strict=True)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    samples = [s for s in all_samples(op) if s.grad]
    assert samples
    for sample in samples:
        check_gradient(op, sample)


def test_the_view_ops_are_those_of_pytorch() -> None:
    assert [op.name for op in OPS if op.scatter is not None] == VIEWS


@pytest.mark.parametrize("name", ["diagonal", "permute", "reshape", "select", "slice"])
def test_writing_through_a_view(name: str) -> None:
    for sample in all_samples(op_named(name)):
        check_scatter(op_named(name), sample)


def test_writing_through_an_expanded_view_needs_a_place_for_each_element() -> None:
    grown = [s for s in all_samples(op_named("expand")) if np.prod(s.attrs["shape"]) != s.inputs[0].size]
    assert grown
    for sample in grown:
        with pytest.raises(ShapeError, match="expand: cannot write"):
            check_scatter(op_named("expand"), sample)


def test_writing_through_windows_needs_a_place_for_each_element() -> None:
    apart = {sample.name for sample in all_samples(op_named("windows_scatter"))}
    samples = list(all_samples(op_named("windows")))
    assert {"(8,)", "(3, 2)"} <= {name.split(" {")[0] for name in apart}
    for sample in samples:
        places = np.arange(sample.inputs[0].size).reshape(sample.inputs[0].shape)
        shown = np.asarray(op_named("windows").reference(places, **sample.attrs))
        if np.unique(shown).size == shown.size:
            check_scatter(op_named("windows"), sample)
        else:
            with pytest.raises(ShapeError, match="windows overlap"):
                check_scatter(op_named("windows"), sample)


def test_views_share_memory() -> None:
    x = np.arange(12.0).reshape(3, 4)
    for name, attrs in (
        ("reshape", {"shape": (2, 6)}),
        ("permute", {"dims": (1, 0)}),
        ("expand", {"shape": (2, 3, 4)}),
        ("slice", {"dim": 1, "start": 1, "stop": 4, "step": 2}),
        ("select", {"dim": 0, "index": 1}),
        ("diagonal", {"dims": (0, 1), "offset": 1}),
        ("windows", {"dims": (1,), "size": (2,), "stride": (1,), "dilation": (1,)}),
    ):
        assert np.shares_memory(evaluate(op_named(name), [x], attrs)[0], x), name
    assert not np.shares_memory(evaluate(op_named("clone"), [x], {})[0], x)


def moved(source: tuple[int, ...], target: tuple[int, ...]) -> str:
    """The place in `source` of element (i0, i1, …) of `target`."""
    return ", ".join(map(repr, reshape_index([expr.index(k) for k in range(len(target))], source, target)))


def test_reshape_keeps_indices_affine_where_axes_only_merge_or_have_size_one() -> None:
    assert moved((24,), (4, 6)) == "add(mul(i0, 6), i1)"
    assert moved((3, 1, 5), (3, 5, 1)) == "i0, 0, i1"
    assert moved((2, 12), (2, 3, 4)) == "i0, add(mul(i1, 4), i2)"
    assert moved((6, 4), (2, 3, 4)) == "add(mul(i0, 3), i1), i2"
    assert moved((4, 6), (24,)) == "idiv(i0, 6), irem(i0, 6)"
    assert moved((4, 6), (2, 2, 6)) == "add(mul(i0, 2), i1), i2"


def test_reshape_drops_what_cannot_reach_a_division() -> None:
    # the axes of 4 and 6 are cut at 2 * 12: only the axis that crosses the cut is divided
    assert moved((4, 6), (2, 12)) == "add(mul(i0, 2), idiv(i1, 6)), irem(i1, 6)"


def test_named_sizes() -> None:
    n, m = Dim("N"), Dim("M")
    x = TensorType(float32, (n, 4, m))
    infer = {op.name: op.infer for op in OPS}
    assert infer["reshape"](x, shape=(n * 4, m)).shape == (n * 4, m)
    assert infer["slice"](x, dim=0, start=1, stop=n, step=1).shape == (n - 1, 4, m)
    assert infer["pad"](x, pads=((0, 1), (0, 0), (2, n)), value=0).shape == (n + 1, 4, m + n + 2)
    assert infer["cat"](x, x, dim=0).shape == (2 * n, 4, m)
    assert infer["gather"](x, TensorType(int64, (n, 9, m)), dim=1).shape == (n, 9, m)
    with pytest.raises(ShapeError, match="reshape: "):
        infer["reshape"](x, shape=(n, m))


def case(name: str, error: type[Exception], *types: TensorType, **attrs: Any) -> Any:
    return pytest.param(name, error, types, attrs, id=f"{name}-{len(types)}-{attrs}")


F = TensorType(float32, (3, 4))
I2, I1 = TensorType(int64, (3, 4)), TensorType(int64, (5,))


@pytest.mark.parametrize(
    ("name", "error", "types", "attrs"),
    [
        case("reshape", ShapeError, F, shape=(5,)),
        case("permute", DimError, F, dims=(0, 0)),
        case("expand", ShapeError, F, shape=(3, 5)),
        case("expand", ShapeError, F, shape=(4,)),
        case("slice", DimError, F, dim=2, start=0, stop=1, step=1),
        case("slice", ShapeError, F, dim=1, start=0, stop=5, step=1),
        case("slice", ArgumentError, F, dim=1, start=0, stop=4, step=-1),
        case("slice_scatter", ShapeError, F, F, dim=1, start=0, stop=2, step=1),
        case("slice_scatter", DTypeError, F, F.with_dtype(int64), dim=1, start=0, stop=4, step=1),
        case("select", DimError, F, dim=1, index=4),
        case("diagonal", DimError, F, dims=(1, 1), offset=0),
        case("diagonal", ShapeError, TensorType(float32, (Dim("N"), 4)), dims=(0, 1), offset=0),
        case("diagonal_scatter", ShapeError, F, F, dims=(0, 1), offset=0),
        case("diagonal_scatter", DTypeError, F, TensorType(int64, (3,)), dims=(0, 1), offset=0),
        case("windows_scatter", ShapeError, F, F, dims=(1,), size=(2,), stride=(2,), dilation=(1,)),
        case(
            "windows_scatter",
            ShapeError,
            F,
            TensorType(float32, (3, 3, 2)),
            dims=(1,),
            size=(2,),
            stride=(1,),
            dilation=(1,),
        ),
        case(
            "windows_scatter",
            DTypeError,
            F,
            TensorType(int64, (3, 2, 2)),
            dims=(1,),
            size=(2,),
            stride=(2,),
            dilation=(1,),
        ),
        case("flip", DimError, F, dims=(1, 1)),
        case("pad", ShapeError, F, pads=((0, 0),), value=0),
        case("pad", ArgumentError, F, pads=((0, -1), (0, 0)), value=0),
        case("cat", ArgumentError, dim=0),
        case("cat", ShapeError, F, TensorType(float32, (3, 5)), dim=0),
        case("cat", DTypeError, F, F.with_dtype(int64), dim=0),
        case("windows", ShapeError, F, dims=(1,), size=(3,), stride=(1,), dilation=(2,)),
        case("windows", ArgumentError, F, dims=(1,), size=(3,), stride=(0,), dilation=(1,)),
        case("windows_grad", ShapeError, F, shape=(3, 4), dims=(1,), size=(2,), stride=(1,), dilation=(1,)),
        case("gather", DTypeError, F, F, dim=0),
        case("gather", ShapeError, F, I1, dim=0),
        case("gather", ShapeError, F, TensorType(int64, (3, 5)), dim=0),
        case("scatter_add", ShapeError, F, I2, TensorType(float32, (3, 3)), dim=0),
        case("scatter_add", DTypeError, F.with_dtype(bool_), I2, F.with_dtype(bool_), dim=0),
        case("index_select", ShapeError, TensorType(float32, (0, 4)), I1, dim=0),
        case("index_add", ShapeError, F, I1, F, dim=0),
        case("index", DimError, F, I1, I1, dim=1),
        case("index", ShapeError, F, I1, I2, dim=0),
        case("index_put", ShapeError, F, F, I1, dim=0, accumulate=False),
        case("masked_fill", DTypeError, F, F, value=0),
        case("embedding", ShapeError, TensorType(float32, (4,)), I1, padding_idx=None),
    ],
)
def test_errors_start_with_the_name_of_the_op(name: str, error: type[Exception], types: Any, attrs: Any) -> None:
    with pytest.raises(error, match=f"^{name}: "):
        op_named(name).infer(*types, **attrs)


def test_an_index_out_of_range_stays_inside_the_axis() -> None:
    x, far = np.arange(5.0), np.array([7, -9, 4, -5, 2**62, -(2**62)])
    want = [4.0, 0.0, 4.0, 0.0, 4.0, 0.0]
    for name in ("gather", "index_select"):
        assert evaluate(op_named(name), [x, far], {"dim": 0})[0].tolist() == want
        assert lowered(op_named(name), [x, far], {"dim": 0}).tolist() == want


def test_contributions_add_in_ascending_order() -> None:
    source = np.array([1e16, 1.0, -1e16, 1.0])
    base, place = np.zeros(2), np.array([1, 1, 1, 1])
    for name in ("scatter_add", "index_add"):
        found = lowered(op_named(name), [base, place, source], {"dim": 0})
        assert found.tolist() == [0.0, ((1e16 + 1.0) - 1e16) + 1.0], name
    for name in ("scatter", "index_copy"):
        assert lowered(op_named(name), [base, place, source], {"dim": 0}).tolist() == [0.0, 1.0], name


def test_overlapping_windows_add_in_ascending_order() -> None:
    # element 2 of 5 lies in windows 0, 1, 2 at places 2, 1, 0
    g = np.zeros((3, 3))
    g[0, 2], g[1, 1], g[2, 0] = 1e16, 1.0, -1e16
    attrs = {"shape": (5,), "dims": (0,), "size": (3,), "stride": (1,), "dilation": (1,)}
    want = [0.0, 0.0, (1e16 + 1.0) - 1e16, 0.0, 0.0]
    assert evaluate(op_named("windows_grad"), [g], attrs)[0].tolist() == want
    assert lowered(op_named("windows_grad"), [g], attrs).tolist() == want


def test_padding_idx_gets_no_gradient() -> None:
    weight, places = np.ones((3, 2)), np.array([0, 1, 1, 2])
    (grad, _) = gradients(op_named("embedding"), [weight, places], {"padding_idx": 1}, [np.ones((4, 2))])
    assert grad is not None and grad.tolist() == [[1.0, 1.0], [0.0, 0.0], [1.0, 1.0]]


def test_samples_cover_the_empty_tensor() -> None:
    for op in OPS:
        assert any(evaluate(op, s.inputs, s.attrs)[0].size == 0 for s in all_samples(op)), op.name


def test_reshape_between_random_shapes() -> None:
    rng = np.random.default_rng(0)
    for _ in range(60):
        factors = [int(f) for f in rng.choice([1, 2, 2, 3, 4, 5], 5)]
        shapes = []
        for _ in range(2):
            cuts = sorted(int(c) for c in rng.integers(0, 6, rng.integers(0, 5)))
            order = [int(f) for f in rng.permutation(factors)]
            shapes.append(tuple(int(np.prod(order[a:b])) for a, b in zip([0, *cuts], [*cuts, 5], strict=True)))
        x = np.arange(np.prod(factors)).reshape(shapes[0])
        np.testing.assert_array_equal(lowered(op_named("reshape"), [x], {"shape": shapes[1]}), x.reshape(shapes[1]))
