"""Data sets, samplers and loaders."""

from graphc.frontend.data import *
