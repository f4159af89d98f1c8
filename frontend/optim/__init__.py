"""Optimisers and learning-rate schedules."""

from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.rules import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]
