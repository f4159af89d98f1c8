"""What neural networks are made of, under one roof: normalisation, pooling, losses, embedding."""

from graphc.ir.ops.batchnorm import batch_norm_eval, batch_norm_grad, batch_norm_train
from graphc.ir.ops.indexing import embedding
from graphc.ir.ops.layernorm import group_norm, layer_norm, layer_norm_grad, rms_norm

__all__ = [
    "batch_norm_eval",
    "batch_norm_grad",
    "batch_norm_train",
    "embedding",
    "group_norm",
    "layer_norm",
    "layer_norm_grad",
    "rms_norm",
]
