"""Starting values of parameters."""

from graphc.frontend.nn.init import *
