"""Helpers for parameters, modules and sequences."""

from graphc.frontend.nn.utils import *
from graphc.nn.utils import rnn as rnn
