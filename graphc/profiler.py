"""Profiles: what ran, for how long, called from which line."""

from graphc.frontend.profiler.api import *
from graphc.frontend.profiler.schedule import *
