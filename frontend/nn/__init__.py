"""Layers, containers and losses."""

from graphc.frontend.nn import activations, containers, functional, init, layers, losses, utils
from graphc.frontend.nn.activations import *  # noqa: F403
from graphc.frontend.nn.containers import *  # noqa: F403
from graphc.frontend.nn.layers import *  # noqa: F403
from graphc.frontend.nn.losses import *  # noqa: F403
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter

__all__ = ["Module", "Parameter", "functional", "init", "utils"]
__all__ += activations.__all__ + containers.__all__ + layers.__all__ + losses.__all__

for _name in activations.__all__ + containers.__all__ + layers.__all__ + losses.__all__:
    globals()[_name].__module__ = "graphc.nn"
del _name
