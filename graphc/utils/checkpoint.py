"""Checkpoints: compute again instead of keeping."""

from graphc.frontend.recompute import *
