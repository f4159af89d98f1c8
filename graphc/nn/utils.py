"""Helpers for parameters."""

from graphc.frontend.nn.utils import *
