"""Layers, containers and losses."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.nn import (
    activations,
    attention_layers,
    containers,
    conv_layers,
    layers,
    lookup_layers,
    losses,
    margin_losses,
    norm_layers,
    pool_layers,
    recurrent,
    resize_layers,
    shrink_layers,
    transformer,
)
from graphc.frontend.nn.activations import *
from graphc.frontend.nn.attention_layers import *
from graphc.frontend.nn.containers import *
from graphc.frontend.nn.conv_layers import *
from graphc.frontend.nn.layers import *
from graphc.frontend.nn.lookup_layers import *
from graphc.frontend.nn.losses import *
from graphc.frontend.nn.margin_losses import *
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.norm_layers import *
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.pool_layers import *
from graphc.frontend.nn.recurrent import *
from graphc.frontend.nn.resize_layers import *
from graphc.frontend.nn.shrink_layers import *
from graphc.frontend.nn.transformer import *

__all__ = ["Module", "Parameter"]
__all__ += activations.__all__
__all__ += attention_layers.__all__
__all__ += containers.__all__
__all__ += conv_layers.__all__
__all__ += layers.__all__
__all__ += losses.__all__
__all__ += lookup_layers.__all__
__all__ += margin_losses.__all__
__all__ += norm_layers.__all__
__all__ += pool_layers.__all__
__all__ += recurrent.__all__
__all__ += resize_layers.__all__
__all__ += shrink_layers.__all__
__all__ += transformer.__all__
