"""Module, and hooks of all modules."""

from graphc.frontend.nn.hooks import *
from graphc.frontend.nn.module import Module as Module
