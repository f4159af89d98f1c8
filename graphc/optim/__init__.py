"""Optimisers and learning-rate schedules."""

from graphc.frontend.optim import *
from graphc.optim import lr_scheduler as lr_scheduler
