"""What neural networks are made of, under one roof: normalisation, pooling, losses, embedding."""

from graphc.ir.ops.batchnorm import batch_norm_eval, batch_norm_grad, batch_norm_train
from graphc.ir.ops.class_loss import cross_entropy, cross_entropy_grad, nll_loss
from graphc.ir.ops.indexing import embedding
from graphc.ir.ops.layernorm import group_norm, layer_norm, layer_norm_grad, rms_norm
from graphc.ir.ops.loss import (
    binary_cross_entropy,
    binary_cross_entropy_with_logits,
    huber_loss,
    kl_div,
    l1_loss,
    mse_loss,
    smooth_l1_loss,
)
from graphc.ir.ops.pool import avg_pool2d, max_pool2d

__all__ = [
    "avg_pool2d",
    "batch_norm_eval",
    "batch_norm_grad",
    "batch_norm_train",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "cross_entropy_grad",
    "embedding",
    "group_norm",
    "huber_loss",
    "kl_div",
    "l1_loss",
    "layer_norm",
    "layer_norm_grad",
    "max_pool2d",
    "mse_loss",
    "nll_loss",
    "rms_norm",
    "smooth_l1_loss",
]
