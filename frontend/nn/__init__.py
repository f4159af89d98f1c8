"""Layers, containers and losses."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.nn import activations, containers, conv_layers, layers, losses, norm_layers, pool_layers, recurrent
from graphc.frontend.nn.activations import *
from graphc.frontend.nn.containers import *
from graphc.frontend.nn.conv_layers import *
from graphc.frontend.nn.layers import *
from graphc.frontend.nn.losses import *
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.norm_layers import *
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.pool_layers import *
from graphc.frontend.nn.recurrent import *

__all__ = ["Module", "Parameter"]
__all__ += activations.__all__
__all__ += containers.__all__
__all__ += conv_layers.__all__
__all__ += layers.__all__
__all__ += losses.__all__
__all__ += norm_layers.__all__
__all__ += pool_layers.__all__
__all__ += recurrent.__all__
