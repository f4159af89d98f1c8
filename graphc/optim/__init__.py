"""Optimisers and learning-rate schedules."""

from graphc.frontend.optim import *
from graphc.optim import lr_scheduler as lr_scheduler
from graphc.optim import swa_utils as swa_utils
