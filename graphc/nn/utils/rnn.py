"""Sequences of different lengths."""

from graphc.frontend.nn.rnn_utils import *
