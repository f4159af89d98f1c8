"""Optimisers and learning-rate schedules."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.optim.optimizer import Optimizer
from graphc.frontend.optim.rules import SGD, Adadelta, Adagrad, Adam, AdamW, RMSprop

__all__ = ["SGD", "Adadelta", "Adagrad", "Adam", "AdamW", "Optimizer", "RMSprop"]
