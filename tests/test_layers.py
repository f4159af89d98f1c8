"""Layers against their formulas in NumPy, and compiled against eager."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn

Array = np.ndarray[Any, Any]


def numbers(*shape: int, seed: int = 0) -> Array:
    """Reproducible float64 numbers."""
    return np.random.default_rng(seed).standard_normal(shape)


def close(actual: graphc.Tensor, expected: Any) -> None:
    """Assert closeness in float64."""
    np.testing.assert_allclose(actual.detach().numpy(), np.asarray(expected), rtol=1e-10, atol=1e-12)


def conv3d(x: Array, w: Array, step: tuple[int, ...], hole: tuple[int, ...], groups: int) -> Array:
    """The definition, one output element after the other."""
    sizes = [(n - d * (k - 1) - 1) // s + 1 for n, k, s, d in zip(x.shape[2:], w.shape[2:], step, hole, strict=True)]
    out = np.zeros((x.shape[0], w.shape[0], *sizes))
    per_in, per_out = w.shape[1], w.shape[0] // groups
    for n, o, *place in np.ndindex(out.shape):
        group = o // per_out
        for c, *tap in np.ndindex(w.shape[1:]):
            at = [p * s + t * d for p, s, t, d in zip(place, step, tap, hole, strict=True)]
            out[(n, o, *place)] += x[(n, group * per_in + c, *at)] * w[(o, c, *tap)]
    return out


@pytest.mark.parametrize(
    ("step", "hole", "groups"), [((1, 1, 1), (1, 1, 1), 1), ((2, 1, 3), (1, 2, 1), 2), ((1, 2, 1), (2, 1, 2), 2)]
)
def test_conv3d_and_its_transpose(step: Any, hole: Any, groups: int) -> None:
    """The convolution is its definition; the transpose is its adjoint: <conv(x), y> = <x, transpose(y)>."""
    x, w = numbers(1, 4, 4, 5, 4), numbers(4, 4 // groups, 2, 2, 2, seed=1)
    made = F.conv3d(graphc.tensor(x), graphc.tensor(w), None, step, 0, hole, groups)
    close(made, conv3d(x, w, step, hole, groups))
    y = graphc.tensor(numbers(*made.shape, seed=2))
    more = [(n - d - 1) % s for n, d, s in zip(x.shape[2:], hole, step, strict=True)]
    back = F.conv_transpose3d(y, graphc.tensor(w), None, step, 0, more, groups, hole)
    assert back.shape == x.shape
    np.testing.assert_allclose((made * y).sum().item(), (back * graphc.tensor(x)).sum().item(), rtol=1e-10)


@pytest.mark.parametrize("wanted", [(3, 4), (1, 1), (7, 5), (9, 2)])
def test_pooling_to_a_size(wanted: tuple[int, int]) -> None:
    x = numbers(2, 3, 7, 5)

    def window(i: int, o: int, n: int) -> slice:
        return slice(math.floor(i * n / o), math.ceil((i + 1) * n / o))

    mean, best = np.zeros((2, 3, *wanted)), np.zeros((2, 3, *wanted))
    for i, j in itertools.product(*map(range, wanted)):
        part = x[:, :, window(i, wanted[0], 7), window(j, wanted[1], 5)]
        mean[:, :, i, j], best[:, :, i, j] = part.mean((2, 3)), part.max((2, 3))
    close(F.adaptive_avg_pool2d(graphc.tensor(x), wanted), mean)
    values, places = F.adaptive_max_pool2d(graphc.tensor(x), wanted, return_indices=True)
    close(values, best)
    close(graphc.gather(graphc.tensor(x).flatten(2), 2, places.flatten(2)).reshape(values.shape), best)


@pytest.mark.parametrize("kind", ["none", "causal", "bool", "float"])
def test_attention(kind: str) -> None:
    q, k, v = numbers(2, 3, 4), numbers(2, 5, 4, seed=1), numbers(2, 5, 2, seed=2)
    scores = q @ k.swapaxes(1, 2) / 2.0
    mask = np.tril(np.ones((3, 5), bool)) if kind == "causal" else np.arange(15).reshape(3, 5) % 3 != 1
    if kind in ("causal", "bool"):
        scores = np.where(mask, scores, -np.inf)
    elif kind == "float":
        scores = scores + mask
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    given = {"bool": graphc.tensor(mask), "float": graphc.tensor(mask.astype(float))}.get(kind)
    found = F.scaled_dot_product_attention(
        *(graphc.tensor(x) for x in (q, k, v)), attn_mask=given, is_causal=kind == "causal"
    )
    close(found, weights / weights.sum(-1, keepdims=True) @ v)


@pytest.mark.parametrize("name", ["dropout3d", "alpha_dropout", "feature_alpha_dropout", "rrelu", "gumbel_softmax"])
def test_functions_that_draw(name: str) -> None:
    """Means and shares of many draws; nothing is drawn in evaluation."""
    graphc.manual_seed(0)
    x = graphc.randn(200, 50, 2, 2)
    if name == "gumbel_softmax":
        drawn = F.gumbel_softmax(graphc.tensor([0.0, math.log(3.0)]).expand(20000, 2), hard=True)
        assert ((drawn == 0) | (drawn == 1)).all() and abs(drawn[:, 1].mean().item() - 0.75) < 0.02
        return
    if name == "rrelu":
        slopes = (F.rrelu(x, 0.2, 0.6, training=True) / x)[x < 0]
        assert 0.2 <= slopes.min().item() < 0.21 and 0.59 < slopes.max().item() <= 0.6
        assert abs(slopes.mean().item() - 0.4) < 0.01
        return
    made = getattr(F, name)(x, 0.3, training=True)
    assert getattr(F, name)(x, 0.3, training=False) is x
    kept = (made != made.flatten()[0]) if name == "alpha_dropout" else made
    whole = kept[:, :, :1, :1].expand_as(x)
    if name == "dropout3d":
        assert ((made != 0) == (whole != 0)).all() and abs((made == 0).float().mean().item() - 0.3) < 0.02
    else:
        assert abs(made.mean().item()) < 0.05 and abs(made.std().item() - 1.0) < 0.05


COMPILED: list[tuple[Callable[[Any], Any], tuple[tuple[int, ...], ...]]] = [
    (lambda m: m.Conv3d(2, 3, 2, padding=1, groups=1), ((1, 2, 3, 3, 3),)),
    (lambda m: m.ConvTranspose3d(2, 2, 2, stride=2), ((1, 2, 2, 2, 2),)),
    (lambda m: m.AdaptiveMaxPool2d((2, 3)), ((1, 2, 5, 4),)),
    (lambda m: m.Upsample(size=(5, 3), mode="bicubic"), ((1, 2, 4, 4),)),
    (lambda m: m.InstanceNorm2d(2, affine=True, track_running_stats=True), ((2, 2, 3, 3),)),
    (lambda m: m.MultiheadAttention(4, 2, dropout=0.3), ((3, 2, 4), (5, 2, 4), (5, 2, 4))),
    (lambda m: m.TransformerEncoderLayer(4, 2, 6, 0.2, norm_first=True), ((3, 2, 4),)),
    (lambda m: m.TransformerDecoderLayer(4, 2, 6, 0.2), ((3, 2, 4), (5, 2, 4))),
    (lambda m: m.Sequential(m.AlphaDropout(0.3), m.GLU(), m.RReLU(), m.CELU()), ((3, 4),)),
]


@pytest.mark.parametrize(("make", "shapes"), COMPILED)
def test_compiled_steps_give_the_same_bits(make: Callable[[Any], Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    """Three training steps in one graph: losses and parameters as eagerly, bit by bit."""

    def run(compiled: bool) -> tuple[list[bytes], int]:
        graphc.manual_seed(0)
        model = make(nn)
        inputs = [graphc.randn(*shape) for shape in shapes]
        params = list(model.parameters())
        optimizer = graphc.optim.Adam(params or [graphc.zeros(1, requires_grad=True)], lr=0.1)

        def step() -> graphc.Tensor:
            optimizer.zero_grad()
            out = model(*inputs)
            loss = (out[0] if isinstance(out, tuple) else out).square().mean()
            if params:
                loss.backward()
                optimizer.step()
            return loss.detach()

        run_step = graphc.compile(step, fullgraph=True) if compiled else step
        seen = [run_step().numpy().tobytes() for _ in range(4)]
        seen += [t.detach().numpy().tobytes() for t in (*params, *model.buffers())]
        return seen, run_step.stats.hits if compiled else 2

    assert run(True) == run(False)
