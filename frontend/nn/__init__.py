"""Layers, containers and losses."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.nn import activations, containers, layers, losses
from graphc.frontend.nn.activations import *
from graphc.frontend.nn.containers import *
from graphc.frontend.nn.layers import *
from graphc.frontend.nn.losses import *
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter

__all__ = ["Module", "Parameter"]
__all__ += activations.__all__
__all__ += containers.__all__
__all__ += layers.__all__
__all__ += losses.__all__
