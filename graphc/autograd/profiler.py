"""Profiles in their older form."""

from graphc.frontend.profiler.legacy import *
