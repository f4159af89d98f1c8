"""Averages of models over steps."""

from graphc.frontend.optim.averages import *
