"""Normalisation, pooling and losses: types, values, gradients and the edges PyTorch defines."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from op_checks import all_samples, check_gradient, check_reference, evaluate, expand_composition, gradients

import graphc
from graphc.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from graphc.ir.graph import Graph
from graphc.ir.op import Op, all_ops, op_named
from graphc.ir.ops import nn
from graphc.ir.types import Dim, TensorType, float32, float64, int64
from graphc.nn import functional

OPS = [vars(nn)[n] for n in nn.__all__]
WRT = {"cross_entropy": (0,)}  # class weights get no gradient


def test_every_name_is_an_op_of_that_name() -> None:
    assert [op.name for op in OPS] == nn.__all__ and all(all_ops()[op.name] is op for op in OPS)


@pytest.mark.parametrize("op", OPS, ids=lambda op: op.name)
def test_reference_has_the_inferred_type_and_agrees_with_the_decomposition(op: Op) -> None:
    for sample in all_samples(op):
        check_reference(op, sample)


@pytest.mark.parametrize("op", [op for op in OPS if not op.name.startswith("cross_entropy_g")], ids=lambda op: op.name)
def test_gradient(op: Op) -> None:
    samples = [s for s in all_samples(op) if s.grad]
    assert samples
    for sample in samples:
        check_gradient(op, sample, wrt=WRT.get(op.name))


def test_the_gradient_of_cross_entropy_is_that_of_its_decomposition() -> None:
    rng = np.random.default_rng(0)
    through = replace(nn.cross_entropy, vjp=None)
    for sample in all_samples(nn.cross_entropy):
        x, target, *weight = sample.inputs
        g = np.asarray(rng.standard_normal(evaluate(nn.cross_entropy, sample.inputs, sample.attrs)[0].shape))
        want = gradients(through, sample.inputs, sample.attrs, [g])[0]
        (found,) = evaluate(nn.cross_entropy_grad, [g, x, target, *weight], sample.attrs)
        np.testing.assert_allclose(found, want, 1e-11, 1e-13, err_msg=sample.name)


def test_class_weights_get_no_gradient() -> None:
    sample = next(s for s in all_samples(nn.cross_entropy) if len(s.inputs) == 3)
    with pytest.raises(UnsupportedError, match=r"^cross_entropy: "):
        gradients(nn.cross_entropy, sample.inputs, sample.attrs, [np.ones(())])


def test_batch_norm_reduces_space_before_batch() -> None:
    graph = Graph()
    x = graph.add_input(TensorType(float32, (4, 3, 5, 6)), "x")
    with graph.building():
        nn.batch_norm_train.decompose(x, eps=1e-5)  # type: ignore[misc]
    (mean, *_) = [n for n in graph.nodes if n.op.name == "mean"]
    assert mean.attrs["dim"] == (0, 2, 3)
    steps = expand_steps("sum", np.ones((4, 3, 5, 6)), dim=(0, 2, 3), keepdim=True)
    assert steps == [(2, 3), (0,)]


def expand_steps(name: str, x: Any, **attrs: Any) -> list[Any]:
    """The dims of the reductions a reduction decomposes into."""
    graph = Graph()
    value = graph.add_input(TensorType(float64, x.shape), "x")
    op_named(name).decompose(value, **attrs)  # type: ignore[misc]
    return [n.attrs["dim"] for n in graph.nodes]


def test_batch_norm_over_a_named_batch() -> None:
    graph = Graph()
    n = Dim("N")
    types = [TensorType(float32, (n, 3, 4, 4)), TensorType(float32, (3,)), TensorType(float32, (3,))]
    values = [graph.add_input(t, f"a{k}") for k, t in enumerate(types)]
    with graph.building():
        outs = nn.batch_norm_train(*values, eps=1e-5)
        grads = nn.batch_norm_train.vjp((values[0], None, None), outs, *values, needs=(True,) * 3, eps=1e-5)  # type: ignore[misc]
    assert [g.ttype for g in grads] == types


def test_pooling_by_reductions_agrees_with_unrolled_pooling(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.ir.ops import pool

    for op in (nn.max_pool2d, nn.avg_pool2d):
        for sample in all_samples(op):
            found = []
            for most in (0, 1000):
                monkeypatch.setattr(pool, "MOST_UNROLLED", most)
                with np.errstate(all="ignore"):
                    found.append(expand_composition(op, sample.inputs, sample.attrs))
            for a, b in zip(*found, strict=True):  # type: ignore[arg-type]
                np.testing.assert_allclose(a, b, 1e-13, 1e-14, err_msg=f"{op.name} {sample.name}")


def max_pool(x: Any, kernel: int, stride: int, padding: int = 0, ceil_mode: bool = False) -> Any:
    attrs = {"kernel": (kernel,) * 2, "stride": (stride,) * 2, "padding": (padding,) * 2, "dilation": (1, 1)}
    found = expand_composition(nn.max_pool2d, [np.array(x, np.float64)[None, None]], {**attrs, "ceil_mode": ceil_mode})
    assert found is not None
    return found[0][0, 0].tolist(), found[1][0, 0].tolist()


def test_max_pool_takes_the_first_of_equals_and_the_first_nan() -> None:
    assert max_pool([[1, 1], [1, 1]], 2, 2) == ([[1.0]], [[0]])
    assert max_pool([[1, 3], [3, 1]], 2, 2) == ([[3.0]], [[1]])
    values, places = max_pool([[1, np.nan], [5, np.nan]], 2, 2)
    assert np.isnan(values[0][0]) and places == [[1]]


def test_max_pool_never_names_a_place_in_the_padding() -> None:
    assert max_pool([[-np.inf] * 3] * 3, 3, 2, 1)[1] == [[0, 1], [3, 4]]
    assert max_pool([[-1.0]], 3, 1, 1) == ([[-1.0]], [[0]])


def test_images_without_pixels_cannot_be_pooled() -> None:
    attrs = {"kernel": (3, 3), "stride": (2, 2), "padding": (1, 1), "ceil_mode": True}
    for op, more in ((nn.max_pool2d, {"dilation": (1, 1)}), (nn.avg_pool2d, {"count_include_pad": True})):
        with pytest.raises(ShapeError, match="no pixels"):
            op.infer(TensorType(float32, (1, 2, 6, 0)), **attrs, **more)
        assert op.infer_types([TensorType(float32, (0, 2, 6, 6))], {**attrs, **more})[0].shape == (0, 2, 4, 4)


def test_ceil_mode_starts_no_window_in_the_right_padding() -> None:
    assert max_pool([[1, 2, 3]] * 3, 2, 2, 0, True) == ([[2.0, 3.0]] * 2, [[1, 2], [7, 8]])
    assert max_pool([[1, 2], [3, 4]], 1, 3, 0, True) == ([[1.0]], [[0]])


def test_overlapping_windows_add_up_in_the_gradient_of_max_pool() -> None:
    x = np.zeros((1, 1, 3, 3))
    x[0, 0, 1, 1] = 1.0
    attrs = {"kernel": (2, 2), "stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    g = np.array([[[[1.0, 2.0], [3.0, 4.0]]]])
    (grad,) = gradients(nn.max_pool2d, [x], attrs, [g, None])
    assert grad is not None and grad[0, 0].tolist() == [[0, 0, 0], [0, 10.0, 0], [0, 0, 0]]


def cross_entropy(x: Any, target: Any, **attrs: Any) -> float:
    given = {"reduction": "mean", "ignore_index": -100, "label_smoothing": 0.0, **attrs}
    found = expand_composition(nn.cross_entropy, [np.asarray(x, np.float64), np.asarray(target)], given)
    assert found is not None
    return float(found[0])


def test_the_mean_of_cross_entropy_counts_the_samples_kept() -> None:
    x = [[0.0, 0.0], [1.0, 3.0], [5.0, 5.0]]
    want = (np.log(2.0) + np.log(2.0)) / 2
    assert abs(cross_entropy(x, [0, -100, 1]) - want) < 1e-15
    assert abs(cross_entropy(x, [0, 9, 1], ignore_index=9) - want) < 1e-15
    with np.errstate(all="ignore"):
        assert np.isnan(cross_entropy(x, [-100] * 3))


def test_label_smoothing_of_one_ignores_the_target() -> None:
    x = np.random.default_rng(0).standard_normal((3, 4))
    assert cross_entropy(x, [0, 1, 2], label_smoothing=1.0) == cross_entropy(x, [3, 3, 3], label_smoothing=1.0)


F = TensorType(float32, (2, 3, 4, 4))
C = TensorType(float32, (3,))
POOL = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
LOSS = {"reduction": "mean", "ignore_index": -100}
T = TensorType(int64, (2, 4, 4))


@pytest.mark.parametrize(
    ("op", "name", "error", "types", "attrs"),
    [
        (nn.batch_norm_train, "batch_norm", ShapeError, (C,), {"eps": 0.1}),
        (nn.batch_norm_train, "batch_norm", ArgumentError, (F, C), {"eps": 0.1}),
        (nn.batch_norm_train, "batch_norm", ShapeError, (F, C, TensorType(float32, (4,))), {"eps": 0.1}),
        (nn.batch_norm_eval, "batch_norm", DTypeError, (F, C, C.with_dtype(float64)), {"eps": 0.1}),
        (nn.layer_norm, "layer_norm", ArgumentError, (F,), {"normalized_dims": 5, "eps": 0.1}),
        (nn.layer_norm, "layer_norm", ShapeError, (F, C), {"normalized_dims": 1, "eps": 0.1}),
        (nn.group_norm, "group_norm", ArgumentError, (F,), {"groups": 2, "eps": 0.1}),
        (nn.max_pool2d, "max_pool2d", ShapeError, (C,), POOL),
        (nn.max_pool2d, "max_pool2d", DTypeError, (F.with_dtype(int64),), POOL),
        (nn.max_pool2d, "max_pool2d", ShapeError, (F,), {**POOL, "kernel": (5, 5)}),
        (nn.max_pool2d, "max_pool2d", ArgumentError, (F,), {**POOL, "padding": (2, 2)}),
        (nn.max_pool2d, "max_pool2d", ArgumentError, (F,), {**POOL, "stride": (0, 1)}),
        (nn.nll_loss, "nll_loss", ShapeError, (F, C.with_dtype(int64)), LOSS),
        (nn.nll_loss, "nll_loss", DTypeError, (F, TensorType(float32, (2, 4, 4))), LOSS),
        (nn.nll_loss, "nll_loss", ArgumentError, (F, T), {**LOSS, "reduction": "max"}),
        (nn.cross_entropy, "cross_entropy", ArgumentError, (F, T), {**LOSS, "label_smoothing": 2.0}),
        (nn.mse_loss, "mse_loss", ShapeError, (F, C), {"reduction": "mean"}),
        (nn.mse_loss, "mse_loss", DTypeError, (F, F.with_dtype(float64)), {"reduction": "mean"}),
    ],
)
def test_errors_start_with_the_name_of_the_op(
    op: Op, name: str, error: type[Exception], types: Any, attrs: Any
) -> None:
    with pytest.raises(error, match=f"^{name}: "):
        op.infer(*types, **attrs)


def test_the_slope_of_logsigmoid_at_zero_is_one_half() -> None:
    x = graphc.tensor([0.0, -0.0, 200.0, -200.0], requires_grad=True)
    functional.logsigmoid(x).sum().backward()
    assert x.grad is not None and x.grad.tolist() == [0.5, 0.5, 0.0, 1.0]
    logits = graphc.zeros(2, requires_grad=True)
    functional.binary_cross_entropy_with_logits(
        logits, graphc.tensor([0.0, 1.0]), pos_weight=graphc.tensor([3.0, 3.0]), reduction="sum"
    ).backward()
    assert logits.grad is not None and logits.grad.tolist() == [0.5, -1.5]


def test_hardtanh_has_no_slope_at_its_limits() -> None:
    x = graphc.tensor([-2.0, -1.0, 0.5, 1.0, 3.0], requires_grad=True)
    y = functional.hardtanh(x)
    y.sum().backward()
    assert y.tolist() == [-1.0, -1.0, 0.5, 1.0, 1.0]
    assert x.grad is not None and x.grad.tolist() == [0.0, 0.0, 1.0, 0.0, 0.0]
