"""Parameters computed by modules from others."""

from graphc.frontend.nn.parametrize import *
