"""Functional forms of the layers."""

from graphc.frontend.nn.functional import *
