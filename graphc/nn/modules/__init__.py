"""Where PyTorch keeps its layers; here for the names in `module`."""

from graphc.nn.modules import module as module
