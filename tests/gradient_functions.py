"""Functions of the public interface that are more than one operation, with operands in float64, for tests of gradients.

`CASES`: name -> what makes (function, operands) from a random generator. Operands keep away from kinks and poles: by
being a shuffled row of numbers with gaps (`apart`), positive (`positive`) or inside the unit interval (`unit`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from graphc import nn
from graphc.ir.op import Array
from graphc.nn import functional as F

Rng = np.random.Generator
Made = tuple[Callable[..., Any], list[Array]]
CASES: dict[str, Callable[[Rng], Made]] = {}


def normal(*shape: int) -> Callable[[Rng], Array]:
    return lambda rng: np.asarray(rng.standard_normal(shape))


def positive(*shape: int) -> Callable[[Rng], Array]:
    return lambda rng: np.asarray(rng.uniform(0.5, 2.0, shape))


def unit(*shape: int) -> Callable[[Rng], Array]:
    return lambda rng: np.asarray(rng.uniform(0.15, 0.85, shape))


def apart(*shape: int) -> Callable[[Rng], Array]:
    """No two alike, none at a whole number or a half: nothing changes places, nothing passes a kink."""

    def make(rng: Rng) -> Array:
        size = int(np.prod(shape))
        row = (np.arange(size) - size / 2) * (4.0 / max(size, 4)) + 0.013
        return np.asarray(rng.permutation(row).reshape(shape))

    return make


def ints(high: int, *shape: int) -> Callable[[Rng], Array]:
    return lambda rng: np.asarray(rng.integers(0, high, shape))


def well_conditioned(n: int, *batch: int) -> Callable[[Rng], Array]:
    return lambda rng: np.asarray(rng.standard_normal((*batch, n, n)) + 3.0 * np.eye(n))


def case(name: str, f: Callable[..., Any], *operands: Callable[[Rng], Array]) -> None:
    assert name not in CASES, name
    CASES[name] = lambda rng: (f, [make(rng) for make in operands])


def cases(f: Callable[..., Any], operands: list[Callable[[Rng], Array]], **variants: dict[str, Any]) -> None:
    """A function with several sets of keywords, named by the keys."""
    for name, keywords in variants.items():
        case(name, lambda *t, keywords=keywords: f(*t, **keywords), *operands)


def double(module: nn.Module) -> nn.Module:
    """The Module in float64, with parameters that do not ask for a gradient and are no trivial ones."""
    rng = np.random.default_rng(9)
    module.double()
    for p in module.parameters():
        p.requires_grad_(False)
        p.copy_(graphc.from_numpy(np.asarray(rng.uniform(-0.8, 0.8, p.shape))))
    return module


LAYERS: list[str] = []  # cases that exchange the parameters of a Module, which no compiled function may


def layer(name: str, module: nn.Module, *operands: Callable[[Rng], Array]) -> None:
    """A Module as a function of its operands and its parameters."""
    double(module)
    named = list(module.named_parameters())

    def f(*tensors: Any) -> Any:
        count = len(tensors) - len(named)
        given = {n: t for (n, _), t in zip(named, tensors[count:], strict=True)}
        return with_parameters(module, given, tensors[:count])

    LAYERS.append(name)
    case(name, f, *operands, *[lambda rng, p=p: np.array(p.numpy()) for _, p in named])


def with_parameters(module: nn.Module, given: dict[str, Any], operands: tuple[Any, ...]) -> Any:
    """Call the Module with other Tensors in place of its parameters."""
    owners = [(module.get_submodule(n.rpartition(".")[0]), n.rpartition(".")[2], t) for n, t in given.items()]
    kept = [(owner, name, owner._parameters.pop(name)) for owner, name, _ in owners]
    try:
        for owner, name, t in owners:
            setattr(owner, name, t)
        found = module(*operands)
    finally:
        for owner, name, p in kept:
            delattr(owner, name)
            owner._parameters[name] = p
    return [t for part in found for t in (part if isinstance(part, tuple) else (part,))] if isinstance(
        found, tuple
    ) else found  # fmt: skip


# ---------------------------------------------------------------- rows

X = [normal(3, 4)]
for dim in (0, -1):
    case(f"softmax {dim}", lambda x, d=dim: F.softmax(x, d), *X)
    case(f"log_softmax {dim}", lambda x, d=dim: F.log_softmax(x, d), *X)
    case(f"softmin {dim}", lambda x, d=dim: F.softmin(x, d), *X)
    case(f"logsumexp {dim}", lambda x, d=dim: graphc.logsumexp(x, d, keepdim=d == 0), *X)
    case(f"cumsum {dim}", lambda x, d=dim: x.cumsum(d), *X)
    case(f"cumprod {dim}", lambda x, d=dim: x.cumprod(d), *X)
    case(f"logcumsumexp {dim}", lambda x, d=dim: graphc.logcumsumexp(x, d), *X)
    case(f"prod {dim}", lambda x, d=dim: x.prod(d), *X)
    case(f"var {dim}", lambda x, d=dim: x.var(d, unbiased=d == 0), *X)
    case(f"std {dim}", lambda x, d=dim: x.std(d, keepdim=d == 0), *X)
    case(f"normalize {dim}", lambda x, d=dim: F.normalize(x, dim=d), *X)
    case(f"sort {dim}", lambda x, d=dim: x.sort(d, descending=d == 0).values, apart(3, 4))
    case(f"topk {dim}", lambda x, d=dim: x.topk(2, d, largest=d == 0).values, apart(3, 4))
    case(f"kthvalue {dim}", lambda x, d=dim: x.kthvalue(2, d).values, apart(3, 4))
    case(f"median {dim}", lambda x, d=dim: x.median(d).values, apart(3, 5))
    case(f"max {dim}", lambda x, d=dim: x.max(d).values, apart(3, 4))
    case(f"amin {dim}", lambda x, d=dim: x.amin(d), apart(3, 4))
    case(f"cummax {dim}", lambda x, d=dim: x.cummax(d).values, apart(3, 4))
    case(f"quantile {dim}", lambda x, d=dim: x.quantile(0.3, d), apart(3, 4))
    case(f"diff {dim}", lambda x, d=dim: x.diff(dim=d), *X)
    case(f"glu {dim}", lambda x, d=dim: F.glu(x, d), normal(4, 4))
case("prod with one zero", lambda x: x.prod(), lambda rng: np.array([[1.5, 0.0], [-2.0, 0.7]]))
case("prod with two zeros", lambda x: x.prod(1), lambda rng: np.array([[1.5, 0.0, 0.0], [-2.0, 0.7, 0.0]]))
case("cumprod with a zero", lambda x: x.cumprod(0), lambda rng: np.array([1.5, 0.0, -2.0, 0.7]))
for p in (1, 2, 3, 0.5, float("inf")):
    case(f"norm {p}", lambda x, p=p: graphc.linalg.vector_norm(x, p, dim=1), apart(3, 4))
case("norm of all", lambda x: x.norm(), *X)
case("dist", lambda x, y: graphc.dist(x, y, 3), *X, normal(3, 4))
case("mean of two axes", lambda x: x.mean((0, 2), keepdim=True), normal(2, 3, 4))

# ---------------------------------------------------------------- normalisation

W4, B4 = normal(4), normal(4)
case("layer_norm", lambda x, w, b: F.layer_norm(x, (4,), w, b), normal(3, 4), W4, B4)
case("layer_norm over two axes", lambda x: F.layer_norm(x, (3, 4)), normal(2, 3, 4))
case("rms_norm", lambda x, w: F.rms_norm(x, (4,), w), normal(3, 4), W4)
case("group_norm", lambda x, w, b: F.group_norm(x, 2, w, b), normal(2, 4, 3), W4, B4)
case("instance_norm", lambda x, w, b: F.instance_norm(x, weight=w, bias=b), normal(2, 4, 5), W4, B4)
case("batch_norm", lambda x, w, b: F.batch_norm(x, None, None, w, b, training=True), normal(3, 4, 2), W4, B4)
case("batch_norm that is fixed", lambda x, w, b: F.batch_norm(x, *_moments(x), w, b), normal(3, 4), W4, B4)
case("local_response_norm", lambda x: F.local_response_norm(x, 3), normal(2, 5, 3))
case("cosine_similarity", F.cosine_similarity, normal(3, 4), normal(3, 4))
case("pairwise_distance", F.pairwise_distance, normal(3, 4), normal(3, 4))
case("cdist", lambda x, y: graphc.cdist(x, y), normal(3, 4), normal(2, 4))
case("pdist", F.pdist, normal(4, 3))

# ---------------------------------------------------------------- losses

for how in ("mean", "sum", "none"):
    for name, f in {
        "mse_loss": F.mse_loss,
        "huber_loss": F.huber_loss,
        "smooth_l1_loss": F.smooth_l1_loss,
        "l1_loss": F.l1_loss,
        "soft_margin_loss": F.soft_margin_loss,
        "poisson_nll_loss": F.poisson_nll_loss,
    }.items():
        case(f"{name} {how}", lambda x, y, f=f, how=how: f(x, y, reduction=how), apart(3, 4), normal(3, 4))
    case(f"bce {how}", lambda x, y, how=how: F.binary_cross_entropy(x, y, reduction=how), unit(3, 4), unit(3, 4))
    case(
        f"bce with logits {how}",
        lambda x, y, how=how: F.binary_cross_entropy_with_logits(x, y, reduction=how), normal(3, 4), unit(3, 4),
    )  # fmt: skip
    case(f"kl_div {how}", lambda x, y, how=how: F.kl_div(x, y, reduction=how), normal(3, 4), unit(3, 4))
    case(f"cross_entropy {how}", lambda x, t, how=how: F.cross_entropy(x, t, reduction=how), normal(5, 4), ints(4, 5))
    case(f"nll_loss {how}", lambda x, t, how=how: F.nll_loss(x, t, reduction=how), normal(5, 4), ints(4, 5))
cases(
    F.cross_entropy,
    [normal(5, 4), ints(4, 5)],
    **{"cross_entropy smooth": {"label_smoothing": 0.2}, "cross_entropy ignoring": {"ignore_index": 1}},
)
case("cross_entropy of images", F.cross_entropy, normal(2, 4, 3), ints(4, 2, 3))
case("gaussian_nll_loss", F.gaussian_nll_loss, normal(3, 4), normal(3, 4), positive(3, 4))
case(
    "cosine_embedding_loss",
    lambda x, y: F.cosine_embedding_loss(x, y, graphc.tensor([1, -1, 1])),
    normal(3, 4),
    normal(3, 4),
)
case(
    "triplet_margin_loss",
    lambda a, p, n: F.triplet_margin_loss(a, p, n, margin=9.0),
    normal(3, 4),
    normal(3, 4),
    normal(3, 4),
)
case("hinge_embedding_loss", lambda x: F.hinge_embedding_loss(x, graphc.tensor([1, -1, 1, -1])), apart(3, 4))
case(
    "margin_ranking_loss",
    lambda x, y: F.margin_ranking_loss(x, y, graphc.tensor([1, -1, 1, -1]), 0.3),
    apart(4),
    normal(4),
)
case("multi_margin_loss", F.multi_margin_loss, apart(3, 4), ints(4, 3))
case("multilabel_soft_margin_loss", lambda x, y: F.multilabel_soft_margin_loss(x, y), normal(3, 4), unit(3, 4))
case(
    "ctc_loss",
    lambda x: F.ctc_loss(x.log_softmax(-1), graphc.tensor([[1, 2, 2], [3, 1, 0]]), [6, 5], [3, 2]),
    normal(6, 2, 4),
)

# ---------------------------------------------------------------- convolutions, pools, images

for n, conv, transposed in (
    (1, F.conv1d, F.conv_transpose1d), (2, F.conv2d, F.conv_transpose2d), (3, F.conv3d, F.conv_transpose3d),
):  # fmt: skip
    size = (5, 4, 3)[:n] if n > 1 else (7,)
    k = (3, 2, 2)[:n]
    case(f"conv{n}d", conv, normal(2, 2, *size), normal(3, 2, *k), normal(3))
    case(
        f"conv{n}d with strides and groups",
        lambda x, w, conv=conv: conv(x, w, stride=2, padding=1, groups=2), normal(1, 4, *size), normal(2, 2, *k),
    )  # fmt: skip
    case(f"conv_transpose{n}d", transposed, normal(1, 2, *size), normal(2, 3, *k), normal(3))
    case(
        f"conv_transpose{n}d with strides",
        lambda x, w, f=transposed: f(x, w, stride=2, padding=1, output_padding=1),
        normal(1, 2, *size), normal(2, 1, *k),
    )  # fmt: skip
    kinds = ("avg_pool", "adaptive_avg_pool", "adaptive_max_pool", "lp_pool")
    pool, pools = getattr(F, f"max_pool{n}d"), {kind: getattr(F, f"{kind}{n}d") for kind in kinds}
    case(f"max_pool{n}d", lambda x, f=pool: f(x, 2, 1), apart(1, 2, *size))
    case(f"max_pool{n}d padded", lambda x, f=pool: f(x, 3, 2, 1), apart(1, 2, *size))
    case(f"avg_pool{n}d", lambda x, f=pools["avg_pool"]: f(x, 2, 1), normal(1, 2, *size))
    case(f"adaptive_avg_pool{n}d", lambda x, f=pools["adaptive_avg_pool"]: f(x, 2), normal(1, 2, *size))
    case(f"adaptive_max_pool{n}d", lambda x, f=pools["adaptive_max_pool"]: f(x, 2), apart(1, 2, *size))
    case(f"lp_pool{n}d", lambda x, f=pools["lp_pool"]: f(x, 3.0, 2), positive(1, 2, *size))
case("conv2d dilated", lambda x, w: F.conv2d(x, w, dilation=2, padding=(2, 1)), normal(1, 1, 6, 5), normal(2, 1, 2, 3))
case("max_unpool2d", lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2), apart(1, 2, 4, 4))
case("unfold", lambda x: F.unfold(x, 2, padding=1, stride=2), normal(1, 2, 4, 5))
case("fold", lambda x: F.fold(x, (4, 5), 2), normal(1, 8, 12))
case("pixel_shuffle", lambda x: F.pixel_shuffle(x, 2), normal(1, 4, 2, 3))
case("pixel_unshuffle", lambda x: F.pixel_unshuffle(x, 2), normal(1, 1, 4, 6))
case("channel_shuffle", lambda x: F.channel_shuffle(x, 2), normal(1, 4, 3))
for how in ("nearest", "bilinear", "bicubic", "area"):
    case(f"interpolate {how}", lambda x, how=how: F.interpolate(x, (5, 6), mode=how), normal(1, 2, 3, 4))
case("interpolate aligned", lambda x: F.interpolate(x, (5, 3), mode="bilinear", align_corners=True), normal(1, 2, 3, 4))
for how in ("bilinear", "nearest"):
    case(
        f"grid_sample {how}",
        lambda x, g, how=how: F.grid_sample(x, g, mode=how, align_corners=False), normal(1, 2, 4, 5),
        lambda rng: np.asarray(rng.uniform(0.02, 0.98, (1, 3, 3, 2)) * 0.19 + rng.integers(-3, 4, (1, 3, 3, 2)) * 0.2),
    )  # fmt: skip
case("affine_grid", lambda t: F.affine_grid(t, (2, 1, 3, 4), align_corners=False), normal(2, 2, 3))
for how in ("constant", "reflect", "replicate", "circular"):
    case(f"pad {how}", lambda x, how=how: F.pad(x, (1, 2), mode=how), normal(1, 2, 4))

# ---------------------------------------------------------------- attention, recurrent layers, embeddings

Q = [normal(2, 3, 4), normal(2, 5, 4), normal(2, 5, 4)]
case("attention", F.scaled_dot_product_attention, *Q)
case("attention, masked", lambda q, k, v, m: F.scaled_dot_product_attention(q, k, v, m), *Q, normal(3, 5))
case(
    "attention, causal", lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True), *[normal(2, 3, 4)] * 3
)
layer("LSTM", nn.LSTM(2, 3, num_layers=2), normal(3, 2, 2))
layer("LSTM both ways", nn.LSTM(2, 2, bidirectional=True, batch_first=True), normal(2, 3, 2))
layer("GRU", nn.GRU(2, 3), normal(3, 2, 2))
layer("RNN", nn.RNN(2, 3), normal(3, 2, 2))
layer("LSTMCell", nn.LSTMCell(2, 3), normal(2, 2))
layer("GRUCell", nn.GRUCell(2, 3), normal(2, 2))
layer("RNNCell", nn.RNNCell(2, 3), normal(2, 2))
layer("MultiheadAttention", nn.MultiheadAttention(4, 2, batch_first=True), *[normal(2, 3, 4)] * 3)
layer("TransformerEncoderLayer", nn.TransformerEncoderLayer(4, 2, 6, dropout=0.0, activation="gelu"), normal(3, 2, 4))
layer("Bilinear", nn.Bilinear(3, 2, 4), normal(5, 3), normal(5, 2))
layer("PReLU", nn.PReLU(4), apart(3, 4))
case("embedding", lambda i, w: F.embedding(i, w), ints(4, 3, 5), normal(4, 3))
for how in ("sum", "mean", "max"):
    case(f"embedding_bag {how}", lambda i, w, how=how: F.embedding_bag(i, w, mode=how), ints(5, 3, 4), apart(5, 3))

# ---------------------------------------------------------------- matrices

for name, f in {"inv": graphc.linalg.inv, "det": graphc.linalg.det}.items():
    case(name, f, well_conditioned(3))
    case(f"{name} of several", f, well_conditioned(3, 2))
case("slogdet", lambda a: graphc.linalg.slogdet(a)[1], well_conditioned(3, 2))
case("logdet", lambda a: graphc.logdet(a @ a.mT), well_conditioned(3))
case("solve", graphc.linalg.solve, well_conditioned(3), normal(3, 2))
case("solve of a vector", graphc.linalg.solve, well_conditioned(3), normal(3))
case("cholesky", lambda a: graphc.linalg.cholesky(a @ a.mT), well_conditioned(3))
case("eigvalsh", lambda a: graphc.linalg.eigvalsh(a + a.mT), well_conditioned(3))
case("eigh", lambda a: (lambda w, v: (w, v.abs()))(*graphc.linalg.eigh(a + a.mT)), well_conditioned(3))
case("matrix_norm", lambda a: graphc.linalg.matrix_norm(a, "fro"), normal(3, 4))
case("einsum", lambda a, b: graphc.einsum("bij,bjk->bki", a, b), normal(2, 3, 4), normal(2, 4, 2))
case("diagonal", lambda a: a.diagonal(1), normal(3, 4))
case("addmm", lambda c, a, b: graphc.addmm(c, a, b, beta=0.5, alpha=2.0), normal(4), normal(3, 2), normal(2, 4))
case("baddbmm", graphc.baddbmm, normal(2, 3, 4), normal(2, 3, 2), normal(2, 2, 4))
case("outer", graphc.outer, normal(3), normal(4))
case("linear", F.linear, normal(3, 4), normal(2, 4), normal(2))
case("matmul that broadcasts", lambda a, b: a @ b, normal(2, 1, 3, 4), normal(5, 4, 2))
case("trapezoid", lambda y, x: graphc.trapezoid(y, x), normal(3, 4), normal(4))

# ---------------------------------------------------------------- places, also repeated ones

I = ints(3, 4)  # noqa: E741
case("index", lambda x, i: x[i], normal(3, 2), I)
case("index by two", lambda x, i, j: x[i, :, j], normal(3, 2, 4), I, ints(4, 4))
case("index by a mask", lambda x: x[graphc.tensor([True, False, True])], normal(3, 2))
case("gather", lambda x, i: x.gather(0, i), normal(3, 4), ints(3, 5, 4))
case("scatter", lambda x, s: x.scatter(0, graphc.tensor([[0, 1], [2, 0]]), s), normal(3, 2), normal(2, 2))
case("scatter_add", lambda x, i, s: x.scatter_add(0, i, s), normal(3, 4), ints(3, 5, 4), normal(5, 4))
case("index_add", lambda x, i, s: x.index_add(0, i, s, alpha=2.0), normal(3, 2), I, normal(4, 2))
case("index_put adding", lambda x, i, v: x.index_put((i,), v, accumulate=True), normal(3, 2), I, normal(4, 2))
case("index_copy", lambda x, s: x.index_copy(0, graphc.tensor([2, 0]), s), normal(3, 2), normal(2, 2))
case("index_select", lambda x, i: x.index_select(1, i), normal(2, 3), I)
case("take_along_dim", lambda x, i: graphc.take_along_dim(x, i, 1), normal(3, 4), ints(4, 3, 2))
case("masked_fill", lambda x, v: x.masked_fill(graphc.tensor([True, False, True, False]), v), normal(3, 4), normal())
case("masked_select", lambda x: x.masked_select(x.detach() > 0), apart(3, 4))
case("where", lambda x, y: graphc.where(graphc.tensor([True, False, True, True]), x, y), normal(3, 4), normal(4))
case("written in place", lambda x, y: _written(x.clone(), y), normal(4, 3), normal(3))
case("repeat_interleave", lambda x: x.repeat_interleave(3, 0), normal(3, 2))
case("roll", lambda x: x.roll((1, -2), (0, 1)), normal(3, 4))
case("unfold of a tensor", lambda x: x.unfold(0, 3, 1), normal(5, 2))
case("expand", lambda x: x.expand(2, 3, 4), normal(3, 1))
case("cat", lambda x, y: graphc.cat([x, y, x], 1), normal(3, 2), normal(3, 4))
case("stack", lambda x, y: graphc.stack([x, y], -1), normal(3, 2), normal(3, 2))
case("split", lambda x: x.split([1, 3], 1), normal(3, 4))
case("tril", lambda x: x.tril(-1), normal(4, 4))
case("diag_embed", lambda x: graphc.diag_embed(x, 1), normal(2, 3))


def _moments(x: Any) -> tuple[Any, Any]:
    return graphc.full((4,), 0.3, dtype=x.dtype), graphc.full((4,), 1.7, dtype=x.dtype)


def _written(y: Any, v: Any) -> Any:
    y[1] = v * 2
    y[2:].mul_(y[0])
    y[:, 0].add_(v[1])
    y[graphc.tensor([0, 0])] += y[graphc.tensor([1, 2])]
    return y


# ---------------------------------------------------------------- one number at a time

for name in ("lgamma", "digamma", "sqrt", "log", "log2", "log10", "rsqrt", "reciprocal"):
    case(name, getattr(graphc, name), positive(2, 3))
for name in ("logit", "asin", "acos", "atanh", "erfinv"):
    case(name, getattr(graphc, name), unit(2, 3))
for name in (
    "sinc",
    "sinh",
    "tan",
    "exp2",
    "expm1",
    "erfc",
    "frac",
    "sgn",
    "deg2rad",
    "nan_to_num",
    "logsigmoid",
    "mish",
    "silu",
    "softsign",
    "hardswish",
):
    case(name, getattr(graphc, name, None) or getattr(F, name), apart(2, 3))
for name in (
    "celu",
    "selu",
    "elu",
    "gelu",
    "hardsigmoid",
    "hardtanh",
    "hardshrink",
    "softshrink",
    "relu6",
    "leaky_relu",
    "tanhshrink",
    "softplus",
):
    case(name, getattr(F, name), apart(3, 4))
for name in (
    "hypot",
    "atan2",
    "logaddexp",
    "logaddexp2",
    "fmod",
    "remainder",
    "maximum",
    "fmin",
    "copysign",
    "float_power",
    "xlogy",
):
    case(name, getattr(graphc, name), positive(3, 4), positive(4))
case("pow by a number", lambda x: x**3 + x**2 + x**0.5 + x**-1, positive(2, 3))
case("number to a power", lambda x: 2.5**x, normal(2, 3))
case("lerp", graphc.lerp, normal(3, 4), normal(4), unit(3, 1))
case("addcdiv", lambda x, a, b: graphc.addcdiv(x, a, b, value=0.3), normal(3, 4), normal(4), positive(3, 1))
case("clamp by tensors", graphc.clamp, apart(3, 4), lambda rng: np.full(4, -0.51), lambda rng: np.full((3, 1), 0.77))
case("polygamma", lambda x: graphc.polygamma(1, x), positive(2, 3))
