"""More layers, losses and functions against PyTorch, where it is installed: text, state, values, gradients."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn
from graphc.frontend.nn import in_place

torch = pytest.importorskip("torch")
Array = np.ndarray[Any, Any]


def close(mine: Any, theirs: Any) -> None:
    """Assert equal shapes and close numbers."""
    a, b = mine.detach().numpy(), theirs.detach().numpy()
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)


def both(array: Array, grad: bool = True) -> tuple[Any, Any]:
    """The same numbers as a tensor of each library."""
    mine, theirs = graphc.tensor(array), torch.tensor(array)
    return (mine.requires_grad_(), theirs.requires_grad_()) if grad else (mine, theirs)


def twins(make: Callable[[Any], Any]) -> tuple[Any, Any]:
    """A module made by each library, in float64, with the same parameters and buffers under the same keys."""
    mine, theirs = make(nn).double(), make(torch.nn).double()
    assert repr(mine) == repr(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    rng = np.random.default_rng(5)
    state = {}
    for key, value in theirs.state_dict().items():
        if value.is_floating_point() and not key.endswith("running_var"):
            value.copy_(torch.tensor(rng.standard_normal(tuple(value.shape)) * 0.4))
        state[key] = graphc.tensor(value.numpy())
    mine.load_state_dict(state)
    return mine, theirs


def compare(mine: Any, theirs: Any, *shapes: tuple[int, ...], seed: int = 2) -> None:
    """Values, and gradients of the inputs."""
    rng = np.random.default_rng(seed)
    pairs = [both(rng.standard_normal(shape)) for shape in shapes]
    a, b = mine(*(x for x, _ in pairs)), theirs(*(y for _, y in pairs))
    a, b = (x if isinstance(x, tuple) else (x,) for x in (a, b))
    for one, other in zip(a, b, strict=True):
        close(one, other)
    weights = rng.standard_normal(a[0].shape)
    (a[0] * graphc.tensor(weights)).sum().backward()
    (b[0] * torch.tensor(weights)).sum().backward()
    for x, y in pairs:
        close(x.grad, y.grad)


LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.Conv1d(4, 6, 3, dilation=2, groups=2), (2, 4, 9)),
    (lambda m: m.Conv1d(2, 3, 3, padding=2, padding_mode="circular"), (2, 2, 7)),
    (lambda m: m.Conv2d(2, 3, 3, padding=(1, 2), padding_mode="reflect"), (2, 2, 5, 6)),
    (lambda m: m.Conv2d(4, 4, 3, padding="same", groups=4, padding_mode="replicate"), (2, 4, 5, 6)),
    (lambda m: m.Conv2d(4, 8, 3, groups=4, bias=False), (4, 5, 6)),
    (lambda m: m.Conv3d(2, 3, 3, padding=1), (2, 2, 4, 5, 6)),
    (lambda m: m.Conv3d(4, 6, (2, 3, 1), stride=(2, 1, 2), dilation=(2, 1, 1), groups=2, bias=False), (1, 4, 6, 5, 4)),
    (lambda m: m.Conv3d(2, 2, (3, 1, 3), padding="same"), (2, 4, 3, 5)),
    (lambda m: m.Conv3d(2, 2, 2, padding=1, padding_mode="replicate"), (1, 2, 3, 3, 3)),
    (lambda m: m.ConvTranspose1d(2, 3, 4, stride=2, padding=1), (2, 2, 5)),
    (lambda m: m.ConvTranspose1d(4, 4, 3, stride=3, output_padding=2, groups=2, dilation=2), (2, 4, 5)),
    (lambda m: m.ConvTranspose2d(4, 6, 3, groups=2, dilation=2, bias=False), (4, 3, 4)),
    (lambda m: m.ConvTranspose3d(2, 3, 3, stride=2, padding=1, output_padding=1), (2, 2, 3, 2, 3)),
    (lambda m: m.ConvTranspose3d(4, 4, (3, 2, 1), stride=(1, 2, 1), groups=2, dilation=(2, 1, 1)), (4, 3, 2, 3)),
    (lambda m: m.MaxPool1d(3, 2, 1), (2, 2, 7)),
    (lambda m: m.MaxPool1d(2, return_indices=True), (2, 2, 7)),
    (lambda m: m.MaxPool3d(2), (2, 2, 4, 5, 6)),
    (lambda m: m.MaxPool3d((3, 2, 2), (2, 1, 2), (1, 0, 1), return_indices=True, ceil_mode=True), (2, 2, 6, 5, 6)),
    (lambda m: m.MaxPool3d(2, dilation=2, return_indices=True), (2, 5, 5, 6)),
    (lambda m: m.AvgPool1d(3, 2, 1), (2, 2, 7)),
    (lambda m: m.AvgPool1d(3, count_include_pad=False, padding=1, ceil_mode=True), (2, 2, 7)),
    (lambda m: m.AvgPool2d(3, 2, 1, divisor_override=5), (2, 2, 5, 6)),
    (lambda m: m.AvgPool2d(2, 2, ceil_mode=True, divisor_override=3), (2, 2, 5, 6)),
    (lambda m: m.AvgPool3d(2), (2, 2, 4, 5, 6)),
    (lambda m: m.AvgPool3d((3, 2, 2), (2, 1, 2), (1, 1, 0), True, False), (2, 2, 6, 5, 6)),
    (lambda m: m.AvgPool3d(2, divisor_override=3), (2, 2, 4, 5, 6)),
    (lambda m: m.LPPool1d(3, 2), (2, 2, 6)),
    (lambda m: m.LPPool2d(2, 3, stride=2), (2, 2, 6, 7)),
    (lambda m: m.LPPool3d(2, 2), (2, 2, 4, 4, 4)),
    (lambda m: m.AdaptiveAvgPool1d(3), (2, 2, 7)),
    (lambda m: m.AdaptiveAvgPool2d((3, 4)), (2, 2, 7, 6)),
    (lambda m: m.AdaptiveAvgPool2d((None, 5)), (2, 7, 3)),
    (lambda m: m.AdaptiveAvgPool3d((2, 3, 1)), (2, 2, 3, 4, 5)),
    (lambda m: m.AdaptiveMaxPool1d(4, return_indices=True), (2, 2, 7)),
    (lambda m: m.AdaptiveMaxPool2d((3, 4), return_indices=True), (2, 2, 7, 6)),
    (lambda m: m.AdaptiveMaxPool3d((2, None, 3)), (2, 2, 3, 4, 5)),
    (lambda m: m.BatchNorm3d(3), (2, 3, 2, 3, 4)),
    (lambda m: m.InstanceNorm1d(3), (2, 3, 5)),
    (lambda m: m.InstanceNorm2d(3, affine=True, track_running_stats=True), (2, 3, 3, 4)),
    (lambda m: m.InstanceNorm3d(3, track_running_stats=True, momentum=0.3), (2, 3, 2, 3, 4)),
    (lambda m: m.InstanceNorm1d(3, affine=True), (3, 5)),
    (lambda m: m.LocalResponseNorm(3, alpha=0.1, k=2.0), (2, 5, 3, 4)),
    (lambda m: m.LocalResponseNorm(2), (2, 5, 3)),
    (lambda m: m.CELU(0.5), (3, 4)),
    (lambda m: m.GLU(), (3, 4)),
    (lambda m: m.GLU(0), (4, 3)),
    (lambda m: m.Hardshrink(), (3, 4)),
    (lambda m: m.Softshrink(0.3), (3, 4)),
    (lambda m: m.Tanhshrink(), (3, 4)),
    (lambda m: m.Softsign(), (3, 4)),
    (lambda m: m.Threshold(0.1, 20.0), (3, 4)),
    (lambda m: m.RReLU(0.1, 0.1), (3, 4)),
    (lambda m: m.Softmin(1), (3, 4)),
    (lambda m: m.Softmax2d(), (2, 3, 2, 2)),
    (lambda m: m.PixelUnshuffle(2), (2, 2, 4, 6)),
    (lambda m: m.ChannelShuffle(2), (2, 6, 2, 2)),
    (lambda m: m.Unfold((2, 3), dilation=(1, 2), padding=1, stride=2), (2, 3, 6, 7)),
    (lambda m: m.Fold((5, 6), (2, 3), padding=1, stride=(2, 1)), (2, 12, 18)),
    (lambda m: m.Upsample(scale_factor=2.0), (2, 2, 3)),
    (lambda m: m.Upsample(size=(5, 3)), (2, 2, 3, 4)),
    (lambda m: m.Upsample(scale_factor=(1.5, 2.3)), (2, 2, 3, 4)),
    (lambda m: m.Upsample(size=(5, 3, 4), mode="nearest-exact"), (2, 2, 3, 4, 5)),
    (lambda m: m.Upsample(size=7, mode="linear"), (2, 2, 4)),
    (lambda m: m.Upsample(scale_factor=1.7, mode="bilinear"), (2, 2, 4, 5)),
    (lambda m: m.Upsample(scale_factor=1.7, mode="bilinear", recompute_scale_factor=True), (2, 2, 4, 5)),
    (lambda m: m.Upsample(size=(2, 9), mode="bilinear", align_corners=True), (2, 2, 4, 5)),
    (lambda m: m.Upsample(size=(6, 3), mode="bicubic"), (2, 2, 4, 5)),
    (lambda m: m.Upsample(scale_factor=2, mode="bicubic", align_corners=True), (2, 2, 4, 5)),
    (lambda m: m.Upsample(scale_factor=2, mode="trilinear"), (2, 2, 2, 3, 2)),
    (lambda m: m.Upsample(size=(3, 2), mode="area"), (2, 2, 4, 5)),
    (lambda m: m.UpsamplingNearest2d(scale_factor=2), (2, 2, 3, 4)),
    (lambda m: m.UpsamplingBilinear2d(size=(5, 7)), (2, 2, 3, 4)),
    (lambda m: m.ConstantPad1d((1, 2), 0.5), (2, 2, 3)),
    (lambda m: m.ConstantPad2d(1, -1.0), (2, 2, 3, 4)),
    (lambda m: m.ConstantPad3d((1, 0, 2, 0, 0, 1), 3.0), (2, 2, 3, 2, 2)),
    (lambda m: m.ZeroPad1d(2), (2, 2, 3)),
    (lambda m: m.ZeroPad2d((1, -1, 0, 2)), (2, 2, 3, 4)),
    (lambda m: m.ZeroPad3d(1), (2, 2, 3, 2, 2)),
    (lambda m: m.ReflectionPad1d((2, 1)), (2, 2, 3)),
    (lambda m: m.ReflectionPad3d(1), (2, 2, 3, 2, 2)),
    (lambda m: m.ReplicationPad1d((2, 1)), (2, 2, 3)),
    (lambda m: m.ReplicationPad3d((2, 1, 0, 1, 1, 1)), (2, 2, 3, 2, 2)),
    (lambda m: m.CircularPad1d((2, 1)), (2, 2, 3)),
    (lambda m: m.CircularPad2d(2), (2, 2, 3, 4)),
    (lambda m: m.CircularPad3d(1), (2, 2, 3, 2, 2)),
    (lambda m: m.TransformerEncoderLayer(4, 2, 6, dropout=0.0), (3, 2, 4)),
    (lambda m: m.TransformerEncoderLayer(4, 2, 6, 0.0, "gelu", batch_first=True, norm_first=True), (3, 2, 4)),
    (
        lambda m: m.TransformerEncoder(
            m.TransformerEncoderLayer(4, 2, 6, 0.0, bias=False), 2, m.LayerNorm(4), enable_nested_tensor=False
        ),
        (3, 2, 4),
    ),
    (lambda m: m.Identity(3), (3, 4)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers(make: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    """Text, keys, outputs, gradients and buffers of a training step, then outputs of evaluation."""
    mine, theirs = twins(make)
    compare(mine, theirs, shape)
    for (name, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        close(p.grad, q.grad)
    for c, d in zip(mine.buffers(), theirs.buffers(), strict=True):
        close(c, d)
    mine.eval()
    theirs.eval()
    compare(mine, theirs, shape, seed=3)


PAIRS: list[tuple[Callable[[Any], Any], tuple[tuple[int, ...], ...]]] = [
    (lambda m: m.Bilinear(3, 4, 5), ((2, 6, 3), (2, 6, 4))),
    (lambda m: m.Bilinear(3, 2, 2, bias=False), ((3,), (2,))),
    (lambda m: m.CosineSimilarity(), ((2, 6, 3), (2, 6, 3))),
    (lambda m: m.CosineSimilarity(-1), ((2, 1, 3), (6, 3))),
    (lambda m: m.PairwiseDistance(), ((6, 3), (6, 3))),
    (lambda m: m.PairwiseDistance(3.0, keepdim=True), ((6, 3), (6, 3))),
    (lambda m: m.TransformerDecoderLayer(4, 2, 6, 0.0), ((3, 2, 4), (5, 2, 4))),
    (lambda m: m.TransformerDecoder(m.TransformerDecoderLayer(4, 2, 6, 0.0, norm_first=True), 2), ((3, 4), (5, 4))),
    (lambda m: m.Transformer(4, 2, 1, 1, 6, 0.0, batch_first=True), ((2, 3, 4), (2, 5, 4))),
]


@pytest.mark.filterwarnings("ignore:enable_nested_tensor is True")
@pytest.mark.parametrize(("make", "shapes"), PAIRS)
def test_layers_of_two(make: Callable[[Any], Any], shapes: tuple[tuple[int, ...], ...]) -> None:
    mine, theirs = twins(make)
    compare(mine, theirs, *shapes)
    for p, q in zip(mine.parameters(), theirs.parameters(), strict=True):
        close(p.grad, q.grad)


ATTENTION: list[dict[str, Any]] = [
    {},
    {"bias": False, "batch_first": True},
    {"kdim": 3, "vdim": 5},
    {"add_bias_kv": True, "add_zero_attn": True},
]
MASKS: list[dict[str, Any]] = [
    {},
    {"need_weights": False},
    {"average_attn_weights": False},
    {"attn_mask": "bool"},
    {"attn_mask": "float", "need_weights": False},
    {"attn_mask": "heads", "key_padding_mask": "bool"},
    {"key_padding_mask": "bool", "need_weights": False},
]


@pytest.mark.parametrize(("settings", "call"), list(itertools.product(ATTENTION, MASKS)))
def test_multihead_attention(settings: dict[str, Any], call: dict[str, Any]) -> None:
    """Output, weights and all gradients, with every kind of mask."""
    mine, theirs = twins(lambda m: m.MultiheadAttention(4, 2, **settings))
    rng = np.random.default_rng(8)
    first = (2, 3) if settings.get("batch_first") else (3, 2)
    other = (2, 5) if settings.get("batch_first") else (5, 2)
    sizes = (4, settings.get("kdim", 4), settings.get("vdim", 4))
    pairs = [both(rng.standard_normal((*n, e))) for n, e in zip((first, other, other), sizes, strict=True)]
    hidden = rng.random((3, 5)) < 0.3
    hidden[:, 1] = False
    masks = {
        "bool": hidden,
        "float": rng.standard_normal((3, 5)),
        "heads": np.broadcast_to(hidden, (4, 3, 5)).copy(),
    }
    padding = np.array([[False, False, True, False, True], [False, False, False, False, False]])
    a, b = dict(call), dict(call)
    for key in ("attn_mask", "key_padding_mask"):
        if key in call:
            a[key], b[key] = both(padding if key == "key_padding_mask" else masks[call[key]], grad=False)
    out, weights = mine(*(x for x, _ in pairs), **a)
    wanted, expected = theirs(*(y for _, y in pairs), **b)
    close(out, wanted)
    assert (weights is None) == (expected is None)
    if weights is not None:
        close(weights, expected)
    (out * out).sum().backward()
    (wanted * wanted).sum().backward()
    for x, y in [*pairs, *zip(mine.parameters(), theirs.parameters(), strict=True)]:
        close(x.grad, y.grad)


def test_attention_of_one_sequence() -> None:
    mine, theirs = twins(lambda m: m.MultiheadAttention(4, 2))
    x, y = both(np.random.default_rng(0).standard_normal((3, 4)))
    for a, b in zip(mine(x, x, x), theirs(y, y, y), strict=True):
        close(a, b)


@pytest.mark.parametrize("kind", ["none", "bool", "float", "causal", "gqa", "scale"])
def test_scaled_dot_product(kind: str) -> None:
    rng = np.random.default_rng(1)
    heads = 2 if kind == "gqa" else 4
    pairs = [both(rng.standard_normal(s)) for s in ((2, 4, 3, 6), (2, heads, 5, 6), (2, heads, 5, 2))]
    hidden = rng.random((3, 5)) < 0.4
    hidden[0] = False  # a row with nothing to attend to
    hidden[1:, 0] = True
    mask = {"bool": hidden, "float": np.where(hidden, 0.5, -np.inf)}.get(kind)
    a: dict[str, Any] = {"is_causal": kind == "causal", "enable_gqa": kind == "gqa"}
    a["scale"] = 0.3 if kind == "scale" else None
    b = dict(a)
    if mask is not None:
        a["attn_mask"], b["attn_mask"] = both(mask, grad=False)
    out = F.scaled_dot_product_attention(*(x for x, _ in pairs), **a)
    wanted = torch.nn.functional.scaled_dot_product_attention(*(y for _, y in pairs), **b)
    close(out, wanted)
    (out * out).sum().backward()
    (wanted * wanted).sum().backward()
    for x, y in pairs:
        close(x.grad, y.grad)


SIGNS = np.array([1.0, -1.0, 1.0, -1.0, -1.0])
LABELS = np.array([[3, 0, -1, 1], [1, -1, 2, 0], [-1, 0, 1, 2], [0, 1, 2, 3], [2, -1, -1, -1]])
LOSSES: list[tuple[str, dict[str, Any], list[tuple[int, ...]], Any]] = [
    ("MarginRankingLoss", {"margin": 0.3}, [(5,), (5,)], SIGNS),
    ("HingeEmbeddingLoss", {}, [(5,)], SIGNS),
    ("HingeEmbeddingLoss", {"margin": 0.5}, [(5,)], SIGNS),
    ("CosineEmbeddingLoss", {"margin": 0.1}, [(5, 3), (5, 3)], SIGNS),
    ("SoftMarginLoss", {}, [(5,)], SIGNS),
    ("TripletMarginLoss", {}, [(5, 3), (5, 3), (5, 3)], None),
    ("TripletMarginLoss", {"p": 1.0, "swap": True, "margin": 0.5}, [(5, 3), (5, 3), (5, 3)], None),
    ("TripletMarginWithDistanceLoss", {"swap": True}, [(5, 3), (5, 3), (5, 3)], None),
    ("PoissonNLLLoss", {}, [(5, 4)], np.abs(LABELS) * 1.0),
    ("PoissonNLLLoss", {"full": True}, [(5, 4)], np.abs(LABELS) + 1.0),
    ("MultiLabelSoftMarginLoss", {}, [(5, 4)], (LABELS > 0) * 1.0),
    ("MultiLabelMarginLoss", {}, [(5, 4)], LABELS),
    ("MultiLabelMarginLoss", {}, [(4,)], LABELS[1]),
    ("MultiMarginLoss", {}, [(5, 4)], np.array([1, 3, 0, 2, 2])),
    ("MultiMarginLoss", {"p": 2, "margin": 0.7}, [(5, 4)], np.array([1, 3, 0, 2, 2])),
    ("MultiMarginLoss", {}, [(4,)], np.array(2)),
]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(("name", "settings", "shapes", "target"), LOSSES)
def test_losses(name: str, settings: dict[str, Any], shapes: Any, target: Any, reduction: str) -> None:
    """Values and gradients."""
    mine = getattr(nn, name)(**settings, reduction=reduction)
    theirs = getattr(torch.nn, name)(**settings, reduction=reduction)
    extra = ([], []) if target is None else tuple([t] for t in both(target, grad=False))
    compare(lambda *x: mine(*x, *extra[0]), lambda *y: theirs(*y, *extra[1]), *shapes)


def test_poisson_of_rates_and_weighted_margins() -> None:
    rng = np.random.default_rng(4)
    (x, y), (t, u), (w, v) = both(rng.random((5, 4))), both(rng.random((5, 4)), False), both(rng.random(4), False)
    close(F.poisson_nll_loss(x, t, log_input=False), torch.nn.functional.poisson_nll_loss(y, u, log_input=False))
    c, d = both(np.array([1, 3, 0, 2, 2]), False)
    close(nn.MultiMarginLoss(weight=w)(x, c), torch.nn.MultiMarginLoss(weight=v)(y, d))
    close(nn.MultiLabelSoftMarginLoss(weight=w)(x, t), torch.nn.MultiLabelSoftMarginLoss(weight=v)(y, u))


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize("shape", [(5, 4), (5, 1), (5,)])
def test_gaussian_nll(shape: tuple[int, ...], full: bool) -> None:
    rng = np.random.default_rng(4)
    (x, y), (t, u), (v, w) = both(rng.random((5, 4))), both(rng.random((5, 4)), False), both(rng.random(shape) - 1e-2)
    v, w = v.abs(), w.abs()
    a, b = nn.GaussianNLLLoss(full=full, eps=0.2)(x, t, v), torch.nn.GaussianNLLLoss(full=full, eps=0.2)(y, u, w)
    close(a, b)
    a.backward()
    b.backward()
    close(x.grad, y.grad)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("joined", [False, True])
@pytest.mark.parametrize("blank", [0, 4])
def test_ctc(blank: int, joined: bool, reduction: str) -> None:
    """Lengths of every kind: repeated labels, an empty target, a target too long for its input."""
    rng = np.random.default_rng(6)
    x, y = both(rng.standard_normal((6, 4, 5)))
    labels = np.array([[1, 2, 2], [3, 3, 3], [1, 1, 1], [1, 3, 1]])
    spans, sizes = [6, 5, 4, 3], [3, 2, 0, 3] if reduction == "none" else [3, 2, 1, 2]
    given = np.concatenate([row[:n] for row, n in zip(labels, sizes, strict=True)]) if joined else labels
    t, u = both(given, False)
    settings = {"blank": blank, "reduction": reduction, "zero_infinity": reduction != "none"}
    a = nn.CTCLoss(**settings)(F.log_softmax(x, -1), t, graphc.tensor(spans), graphc.tensor(sizes))
    b = torch.nn.CTCLoss(**settings)(
        torch.nn.functional.log_softmax(y, -1), u, torch.tensor(spans), torch.tensor(sizes)
    )
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    close(x.grad, y.grad)


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("padding", [None, 2])
@pytest.mark.parametrize("last", [False, True])
def test_embedding_bag(mode: str, padding: int | None, last: bool) -> None:
    mine, theirs = twins(lambda m: m.EmbeddingBag(6, 3, mode=mode, padding_idx=padding, include_last_offset=last))
    ids, other = both(np.array([1, 2, 4, 5, 4, 3, 2, 0]), False)
    bags, starts = both(np.array([0, 3, 3, 7, 8] if last else [0, 3, 3, 7]), False)
    a, b = mine(ids, bags), theirs(other, starts)
    close(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    close(mine.weight.grad, theirs.weight.grad)
    close(mine(ids.reshape(2, 4)), theirs(other.reshape(2, 4)))
    if mode == "sum":
        w, v = both(np.random.default_rng(0).random(8))
        close(mine(ids, bags, w), theirs(other, starts, v))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_unpooling(rank: int) -> None:
    """Maxima go back where they were; a size may be asked for."""
    x, y = both(np.random.default_rng(0).standard_normal((2, 2, *(5, 6, 4)[:rank])))
    found, places = getattr(nn, f"MaxPool{rank}d")(2, return_indices=True)(x)
    wanted, spots = getattr(torch.nn, f"MaxPool{rank}d")(2, return_indices=True)(y)
    mine, theirs = getattr(nn, f"MaxUnpool{rank}d")(2), getattr(torch.nn, f"MaxUnpool{rank}d")(2)
    assert repr(mine) == repr(theirs)
    close(mine(found, places), theirs(wanted, spots))
    a, b = mine(found, places, output_size=x.shape), theirs(wanted, spots, output_size=y.shape)
    close(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    close(x.grad, y.grad)


def test_pdist_and_output_size() -> None:
    compare(F.pdist, torch.nn.functional.pdist, (4, 3))
    mine, theirs = twins(lambda m: m.ConvTranspose2d(2, 3, 3, stride=2, padding=1))
    x, y = both(np.random.default_rng(0).standard_normal((1, 2, 4, 4)))
    for size in ((7, 8), (1, 3, 8, 7)):
        close(mine(x, output_size=size), theirs(y, output_size=size))


def test_initial_values() -> None:
    """Attention starts as in PyTorch: biases 0, joint weights within Xavier's bound."""
    layer = nn.MultiheadAttention(16, 4)
    assert not layer.in_proj_bias.any() and not layer.out_proj.bias.any()
    bound = (6 / (16 + 48)) ** 0.5
    assert 0.9 * bound < layer.in_proj_weight.abs().max().item() <= bound
    text = nn.Transformer.generate_square_subsequent_mask(3)
    close(text, torch.nn.Transformer.generate_square_subsequent_mask(3))


def test_clipping_of_every_kind() -> None:
    """Norms of several orders, and gradients after clipping to them."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape) for shape in ((3, 4), (5,), ())]
    for order in (1.0, 2.0, 3.0, float("inf")):
        pairs = [both(a) for a in arrays]
        for x, y in pairs:
            x.grad, y.grad = (x * 2).detach(), (y * 2).detach()
        params = [x for x, _ in pairs], [y for _, y in pairs]
        close(nn.utils.clip_grad_norm_(params[0], 1.5, order), torch.nn.utils.clip_grad_norm_(params[1], 1.5, order))
        for x, y in pairs:
            close(x.grad, y.grad)
    x, y = pairs[0]
    nn.utils.clip_grad_value_(x, 0.01)
    torch.nn.utils.clip_grad_value_(y, 0.01)
    close(x.grad, y.grad)
    x.grad.fill_(float("inf"))
    with pytest.raises(graphc.errors.ArgumentError, match="non-finite"):
        nn.utils.clip_grad_norm_([x], 1.0, error_if_nonfinite=True)
    vector = nn.utils.parameters_to_vector(params[0])
    nn.utils.vector_to_parameters(vector * 2, params[0])
    close(nn.utils.parameters_to_vector(params[0]), vector.detach() * 2)
    with pytest.raises(graphc.errors.ShapeError):
        nn.utils.vector_to_parameters(vector[:3], params[0])


@pytest.mark.parametrize("kind", ["Conv2d", "ConvTranspose2d", "Linear"])
def test_fusing_batch_norms(kind: str) -> None:
    sizes = (3, 4) if kind == "Linear" else (3, 4, 3)
    layer, norm = getattr(nn, kind)(*sizes, bias=kind == "Conv2d"), nn.BatchNorm1d(4)
    if kind != "Linear":
        norm = nn.BatchNorm2d(4)
    nn.init.uniform_(norm.weight)
    nn.init.normal_(norm.running_mean)
    nn.init.uniform_(norm.running_var, 0.5, 2.0)
    layer, norm = layer.double().eval(), norm.double().eval()
    x = graphc.randn(2, 3, dtype=graphc.float64) if kind == "Linear" else graphc.randn(2, 3, 5, 5, dtype=graphc.float64)
    if kind == "Linear":
        made = nn.utils.fuse_linear_bn_eval(layer, norm)
    else:
        made = nn.utils.fuse_conv_bn_eval(layer, norm, transpose=kind == "ConvTranspose2d")
    close(made(x), norm(layer(x)))
    with pytest.raises(graphc.errors.ArgumentError):
        nn.utils.fuse_conv_bn_eval(layer.train(), norm)


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_sequences(first: bool, side: str) -> None:
    rng = np.random.default_rng(0)
    pairs = [both(rng.standard_normal((n, 2))) for n in (3, 1, 4)]
    a = nn.utils.rnn.pad_sequence([x for x, _ in pairs], first, -1.0, side)
    b = torch.nn.utils.rnn.pad_sequence([y for _, y in pairs], first, -1.0, side)
    close(a, b)
    if side == "right":
        for x, (y, _) in zip(nn.utils.rnn.unpad_sequence(a, graphc.tensor([3, 1, 4]), first), pairs, strict=True):
            close(x, y.detach())


@pytest.mark.parametrize("name", in_place.__all__)
def test_activations_in_place(name: str) -> None:
    """The input changes, and gradients are those of the elements from before."""
    settings = {"threshold_": (0.1, 2.0), "rrelu_": (0.2, 0.2)}.get(name, ())
    x, y = both(np.random.default_rng(0).standard_normal((3, 4)))
    a, b = x * 1.0, y * 1.0
    assert getattr(F, name)(a, *settings) is a
    getattr(torch.nn.functional, name)(b, *settings)
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    close(x.grad, y.grad)


@pytest.mark.parametrize("shape", [(4, 3, 3), (6, 2, 3, 4), (2, 4, 1, 1, 3)])
def test_dirac_and_sparse(shape: tuple[int, ...]) -> None:
    for groups in (1, 2):
        x, y = both(np.zeros(shape), grad=False)
        close(nn.init.dirac_(x, groups), torch.nn.init.dirac_(y, groups))
    matrix = nn.init.sparse_(graphc.ones(10, 4), 0.35, std=2.0)
    assert ((matrix == 0).sum(0) == 4).all()
