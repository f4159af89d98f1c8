"""Optimisers and learning-rate schedules."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.optim.lbfgs import LBFGS
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.rules import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop
from graphc.frontend.optim.variants import ASGD, Adamax, NAdam, RAdam, Rprop

__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
]
