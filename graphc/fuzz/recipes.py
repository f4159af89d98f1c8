"""Functions and layers whose operands must fit each other, written with sizes in random programs.

`{2,3,w}` in a recipe is a tensor of the program in that shape, where w, h, n are random; `[a|b]` is one of several.
"""

from __future__ import annotations

import re

from graphc.fuzz.parts import Parts

FUNCTIONS = [
    "F.conv1d({2,4,w}, {6,2,3}, [None|{6}], stride=[1|2], padding=[0|1|'same'|'valid'], dilation=1, groups=2)",
    "F.conv2d({1,2,w,h}, {3,2,2,3}, [None|{3}], stride=[1|2|(2, 1)], padding=[0|1|(2, 1)], dilation=[1|2|(1, 2)])",
    "F.conv2d({2,4,5,w}, {4,1,3,3}, padding=1, groups=4)",
    "F.conv3d({1,2,3,3,w}, {2,2,2,1,2}, padding=[0|1], stride=[1|2])",
    "F.conv_transpose1d({1,2,w}, {2,2,3}, stride=[1|2], padding=[0|1], output_padding=[0|1])",
    "F.conv_transpose2d({1,2,2,w}, {2,3,2,3}, [None|{3}], stride=[1|2], padding=[0|1], dilation=[1|2])",
    "F.conv_transpose3d({1,2,2,2,w}, {2,1,2,2,2}, stride=[1|2])",
    "F.max_pool1d({2,2,w}, [2|3], [None|1|2], [0|1], ceil_mode=[True|False])",
    "F.max_pool2d({1,2,h,w}, [2|3|(2, 1)], [None|1|2], [0|1], [1|2], ceil_mode=[True|False], "
    "return_indices=[True|False])",
    "F.max_pool3d({1,1,3,h,w}, 2, [None|1], [0|1])",
    "F.avg_pool1d({2,2,w}, [2|3], [None|1|2], [0|1], ceil_mode=[True|False])",
    "F.avg_pool2d({1,2,h,w}, [2|3|(2, 1)], [None|1|2], [0|1], ceil_mode=[True|False], count_include_pad=[True|False])",
    "F.avg_pool3d({1,1,3,h,w}, 2, [None|1], [0|1])",
    "F.lp_pool2d({1,2,h,w}, 2, 2)",
    "F.lp_pool1d({2,2,w}, [1|2], 2, [None|1])",
    "F.adaptive_avg_pool1d({2,3,w}, [1|2|3])",
    "F.adaptive_avg_pool2d({1,2,h,w}, [1|2|(3, 2)|(None, 2)])",
    "F.adaptive_avg_pool3d({1,1,2,h,w}, [1|2])",
    "F.adaptive_max_pool1d({2,3,w}, [1|2|3])",
    "F.adaptive_max_pool2d({1,2,h,w}, [1|2|(3, 2)], return_indices=[True|False])",
    "F.adaptive_max_pool3d({1,1,2,h,w}, [1|2])",
    "F.max_unpool2d(*F.max_pool2d({1,2,4,4}, 2, return_indices=True), 2)",
    "F.max_unpool3d(*F.max_pool3d({1,1,2,4,4}, 2, return_indices=True), 2)",
    "F.max_unpool1d(*F.max_pool1d({1,2,6}, 2, return_indices=True), 2)",
    "F.interpolate({1,2,h,w}, scale_factor=[2|0.5|1.5], mode=['nearest'|'bilinear'|'area'|'nearest-exact'])",
    "F.interpolate({1,2,h,w}, size=[(3, 5)|(1, 1)|(7, 4)], mode=['nearest'|'bilinear'|'bicubic'], "
    "align_corners=[None|True|False])",
    "F.interpolate({1,2,w}, size=[3|7], mode=['nearest'|'linear'|'area'])",
    "F.grid_sample({1,2,h,w}, {1,3,2,2}, mode=['bilinear'|'nearest'|'bicubic'], "
    "padding_mode=['zeros'|'border'|'reflection'], align_corners=[True|False])",
    "F.affine_grid({2,2,3}, (2, 1, 3, w), align_corners=[True|False])",
    "F.unfold({1,2,4,w}, [2|(2, 3)], padding=[0|1], stride=[1|2], dilation=[1|2])",
    "F.fold({1,8,n}, (2, n + 1), 2)",
    "{2,w}.unfold(1, [1|2], [1|2])",
    "{h,w}.unfold(-1, 2, 1)[..., 0]",
    "F.pixel_shuffle({1,4,h,w}, 2)",
    "F.pixel_unshuffle({1,1,4,6}, 2)",
    "F.channel_shuffle({1,4,h,w}, 2)",
    "F.pad({1,2,h,w}, (1, 1, 0, 1), mode=['constant'|'reflect'|'replicate'|'circular'])",
    "F.pad({2,w}, (-1, 2))",
    "F.batch_norm({4,3}, None, None, [None|{3}], [None|{3}], training=True, eps=[1e-5|0.1])",
    "F.batch_norm({2,3,w}, {3}.detach().clone(), {3}.detach().abs(), training=[True|False], momentum=[0.1|0.5])",
    "F.layer_norm({2,h,n}, (n,), [None|{n}], [None|{n}])",
    "F.rms_norm({2,n}, (n,), [None|{n}])",
    "F.layer_norm({3,n}, [(n,)|(3, n)])",
    "F.group_norm({2,4,w}, [1|2|4], [None|{4}], [None|{4}])",
    "F.instance_norm({2,3,w})",
    "F.local_response_norm({1,4,w}, [2|3])",
    "F.normalize({2,w}, p=[1|2|3], dim=[0|1])",
    "F.scaled_dot_product_attention({2,h,4}, {2,w,4}, {2,w,n}, is_causal=[True|False])",
    "F.scaled_dot_product_attention({1,2,h,4}, {1,2,w,4}, {1,2,w,4}, [None|{h,w}])",
    "F.bilinear({2,3}, {2,n}, {2,3,n}, [None|{2}])",
    "F.linear({2,n}, {3,n}, [None|{3}])",
    "{2,3,n} @ {n,4}",
    "{h,n} @ {n}",
    "{n} @ {n,w}",
    "{2,1,h,n} @ {3,n,w}",
    "{n} @ {n}",
    "graphc.einsum('bij,bkj->bik', {2,h,n}, {2,w,n})",
    "graphc.baddbmm({2,h,w}, {2,h,n}, {2,n,w}, alpha=[1|0.5|2], beta=[1|0|0.5])",
    "graphc.outer({h}, {w})",
    "graphc.addmm({w}, {h,n}, {n,w}, beta=[1|0.5], alpha=[1|2])",
    "graphc.bmm({2,h,n}, {2,n,w})",
    "graphc.einsum('ij,jk,kl->il', {2,n}, {n,3}, {3,2})",
    "graphc.cdist({h,3}, {w,3}, p=[1.0|2.0])",
    "F.pairwise_distance({2,n}, {2,n})",
    "F.cosine_similarity({2,n}, {2,n}, dim=[0|1])",
    "F.pdist({4,n})",
    "F.mse_loss({2,n}, {2,n}, reduction=['none'|'mean'|'sum'])",
    "F.l1_loss({2,n}, {2,n}, reduction=['none'|'sum'])",
    "F.smooth_l1_loss({2,n}, {2,n}, beta=[0.5|1.0])",
    "F.huber_loss({2,n}, {2,n}, delta=[0.5|1.0])",
    "F.cross_entropy({4,n}, graphc.tensor([0, 1, -100, 1]), reduction=['none'|'mean'|'sum'], "
    "label_smoothing=[0.0|0.1])",
    "F.cross_entropy({2,n,w}, {2,n,w}.softmax(1), reduction=['none'|'mean'|'sum'])",
    "F.nll_loss({3,n}.log_softmax(1), graphc.tensor([1, 0, 1]), [None|{n}.detach().abs()], reduction=['none'|'mean'])",
    "F.nll_loss({2,n,2,2}.log_softmax(1), graphc.zeros(2, 2, 2, dtype=graphc.int64))",
    "F.binary_cross_entropy({2,n}.sigmoid(), {2,n}.detach().sigmoid())",
    "F.binary_cross_entropy_with_logits({2,n}, {2,n}.detach().sigmoid(), pos_weight=[None|{n}.detach().abs()])",
    "F.kl_div({2,n}.log_softmax(1), {2,n}.softmax(1), reduction=['batchmean'|'sum'|'none'], log_target=[True|False])",
    "F.gaussian_nll_loss({2,n}, {2,n}, {2,n}.detach().abs() + 0.1, full=[True|False])",
    "F.poisson_nll_loss({2,n}, {2,n}.detach().abs(), log_input=[True|False], full=[True|False])",
    "F.margin_ranking_loss({n}, {n}, {n}.detach().sign(), margin=[0.0|0.5])",
    "F.triplet_margin_loss({2,n}, {2,n}, {2,n})",
    "F.cosine_embedding_loss({2,n}, {2,n}, graphc.tensor([1, -1]), margin=[0.0|0.5])",
    "F.hinge_embedding_loss({2,n}, {2,n}.detach().sign())",
    "F.soft_margin_loss({2,n}, {2,n}.detach().sign())",
    "F.multi_margin_loss({2,4}, graphc.tensor([3, 0]), p=[1|2])",
    "F.multilabel_margin_loss({2,3}, graphc.tensor([[0, 2, -1], [1, -1, 0]]))",
    "F.multilabel_soft_margin_loss({2,n}, ({2,n}.detach() > 0).to({n}.dtype))",
    "F.ctc_loss({5,2,4}.log_softmax(2), graphc.tensor([[1, 2], [3, 1]]), graphc.tensor([5, 4]), graphc.tensor([2, 1]))",
    "F.embedding(graphc.tensor([[0, 2], [1, 1]]), {3,n}, padding_idx=[None|1])",
    "F.embedding_bag(graphc.tensor([[0, 2], [1, 1]]), {3,n}, mode=['sum'|'mean'|'max'])",
    "F.embedding_bag(graphc.tensor([0, 2, 1, 1]), {3,n}, graphc.tensor([0, 2]), mode=['sum'|'mean'|'max'])",
    "F.one_hot(graphc.tensor([0, 2, 1, 1]), [3|5])",
    "F.gumbel_softmax({2,n}, hard=[True|False])",
    "F.glu({2,4,w}, 1)",
    "F.dropout([{2,n}|{h,w}], 0.5)",
    "F.dropout2d({2,4,h,w}, 0.5)",
    "F.alpha_dropout({h,w}, 0.3)",
    "F.prelu({2,3,w}, {3})",
    "F.feature_alpha_dropout({2,3,w}, 0.3)",
    "F.rrelu({h,w}, training=[True|False])",
    "F.softmin({h,w}, 1)",
    "graphc.linalg.solve({3,3} + 4 * graphc.eye(3, dtype={3}.dtype), {3,n})",
    "graphc.linalg.inv({2,3,3} + 4 * graphc.eye(3, dtype={3}.dtype))",
    "graphc.linalg.det({n,n})",
    "graphc.linalg.vector_norm({h,w}, [1|2|3|graphc.inf|0], [None|0|1])",
    "graphc.linalg.matrix_norm({h,w}, ['fro'|1|graphc.inf])",
    "graphc.linalg.cholesky({3,3} @ {3,3}.t() * 0 + graphc.eye(3, dtype={3}.dtype) * 2)",
    "graphc.linalg.slogdet({3,3})",
    "graphc.view_as_complex({h,2})",
    "graphc.view_as_real(graphc.complex({h}, {h})).sum(-1) + graphc.complex({h}, {h}).imag",
    "graphc.tensor([3.0, graphc.nan, 1.0, -0.0, 0.0, 1.0, -graphc.inf, graphc.inf, 1.0]).to({1}.dtype).sort(descending="
    "[True|False])",
    "graphc.multinomial({2,n}.detach().abs() + 0.1, [1|3], replacement=True)",
    "graphc.normal({h,w}.detach(), 0.5)",
    "graphc.randperm(n)",
    "graphc.randint(-3, 9, (h, w))",
    "graphc.rand(h, w)",
    "graphc.randn(h, w).to({1}.dtype)",
    "graphc.arange(w, dtype={1}.dtype) * {1}",
    "graphc.linspace(-1, 2, n)",
    "graphc.full((h, w), {h,w}.sum().item())",
    "graphc.tensor([{1}.sum().item(), 2.0])",
    "graphc.eye(n, w)",
    "graphc.meshgrid({h}, {w}, indexing='ij')",
    "graphc.broadcast_tensors({h,1}, {w})",
    "graphc.tril_indices(h, w)",
]
_HOLE = re.compile(r"\{([\dwhn,+ ]+)\}")
_CHOICE = re.compile(r"\[([^][]*\|[^][]*)\]")
_SIZE = re.compile(r"\b[whn]\b")


class Recipes(Parts):
    """Statements of recipes."""

    def recipe(self, turn: int | None = None) -> None:
        """A function whose operands fit each other: number `turn`, or any."""
        text = self.rng.choice(FUNCTIONS) if turn is None else FUNCTIONS[turn % len(FUNCTIONS)]
        self.made(self.filled(text))

    def filled(self, text: str) -> str:
        """A recipe with tensors, sizes and choices filled in."""
        sizes = {
            "w": self.rng.choice([3, 4, 5, 6, 8]),
            "h": self.rng.choice([1, 2, 3, 5]),
            "n": self.rng.choice([2, 3, 4, 5]),
        }
        if self.limit > 1000 and self.chance(0.5):
            sizes[self.rng.choice("whn")] = self.rng.choice([31, 32, 33, 511, 512, 513, 1023, 1025])
        v = self.pick(lambda v: v.real)
        dtype = v.dtype if v is not None and self.chance(0.8) else "float32"
        while (found := _CHOICE.search(text)) is not None:
            text = text[: found.start()] + self.rng.choice(found[1].split("|")) + text[found.end() :]
        while (hole := _HOLE.search(text)) is not None:
            shape = tuple(sizes[d] if d in sizes else int(d) for d in hole[1].split(","))
            text = text[: hole.start()] + self.shaped(shape, dtype) + text[hole.end() :]
        return _SIZE.sub(lambda m: str(sizes[m[0]]), text)

    def shaped(self, shape: tuple[int, ...], dtype: str) -> str:
        """An expression of this shape and dtype."""
        raise NotImplementedError
