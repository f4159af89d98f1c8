"""Gradients: backward, grad, and whether operations are recorded for them."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.backward import *
from graphc.frontend.grad_mode import *
from graphc.frontend.gradients import *
