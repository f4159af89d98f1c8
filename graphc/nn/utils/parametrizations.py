"""Ready parametrizations."""

from graphc.frontend.nn.parametrizations import *
