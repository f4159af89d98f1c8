"""Helpers for parameters, modules and sequences."""

from graphc.frontend.nn.older_norms import *
from graphc.frontend.nn.utils import *
from graphc.nn.utils import parametrizations as parametrizations
from graphc.nn.utils import parametrize as parametrize
from graphc.nn.utils import rnn as rnn
