"""Gradients: backward, grad, and whether operations are recorded for them."""

from graphc.autograd import function as function
from graphc.autograd import functional as functional
from graphc.autograd import graph as graph
from graphc.autograd import profiler as profiler
from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.autograd_anomaly import *
from graphc.frontend.autograd_function import Function as Function
from graphc.frontend.backward import *
from graphc.frontend.grad_mode import *
from graphc.frontend.gradcheck import *
from graphc.frontend.gradients import *
