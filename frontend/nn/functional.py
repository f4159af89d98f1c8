"""Functional forms of the layers: names, signatures and defaults follow torch.nn.functional."""

from __future__ import annotations

from graphc.frontend.nn import criteria, lookup, normalise, pointwise, spatial
from graphc.frontend.nn.criteria import *
from graphc.frontend.nn.lookup import *
from graphc.frontend.nn.normalise import *
from graphc.frontend.nn.pointwise import *
from graphc.frontend.nn.spatial import *

__all__: list[str] = []
__all__ += criteria.__all__
__all__ += lookup.__all__
__all__ += normalise.__all__
__all__ += pointwise.__all__
__all__ += spatial.__all__
