"""Optimisers and learning-rate schedules."""

from graphc.frontend.optim import lr_scheduler, rules
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.rules import SGD, Adam, AdamW

__all__ = ["SGD", "Adam", "AdamW", "Optimizer", "lr_scheduler"]

for _name in rules.__all__:
    globals()[_name].__module__ = "graphc.optim"
del _name
