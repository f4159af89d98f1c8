"""Learning-rate schedules."""

from graphc.frontend.optim.cycles import *
from graphc.frontend.optim.lr_scheduler import *
