"""Activations that write into their input, under their names with an underscore."""

from __future__ import annotations

from functools import partial

from graphc.frontend.nn.pointwise import elu, hardtanh, leaky_relu, relu, selu
from graphc.frontend.nn.shrink import celu, rrelu, threshold

__all__ = ["celu_", "elu_", "hardtanh_", "leaky_relu_", "relu_", "rrelu_", "selu_", "threshold_"]

celu_ = partial(celu, inplace=True)
elu_ = partial(elu, inplace=True)
hardtanh_ = partial(hardtanh, inplace=True)
leaky_relu_ = partial(leaky_relu, inplace=True)
relu_ = partial(relu, inplace=True)
rrelu_ = partial(rrelu, inplace=True)
selu_ = partial(selu, inplace=True)
threshold_ = partial(threshold, inplace=True)
