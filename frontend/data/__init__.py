"""Data sets, samplers and loaders."""

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.data import collate, dataset, loader, sampler
from graphc.frontend.data.collate import *
from graphc.frontend.data.dataset import *
from graphc.frontend.data.loader import *
from graphc.frontend.data.sampler import *

__all__: list[str] = []
__all__ += collate.__all__
__all__ += dataset.__all__
__all__ += loader.__all__
__all__ += sampler.__all__
