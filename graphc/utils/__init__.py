"""Data sets, loaders and checkpoints."""

from graphc.utils import checkpoint as checkpoint
from graphc.utils import data as data
