"""Jacobians and products with them, of functions."""

from graphc.frontend.autograd_functional import *
