"""CUDA as programs ask for it: not available in this version."""

from graphc.frontend.cuda import *
