"""Functional forms of the layers: names, signatures and defaults follow torch.nn.functional."""

from __future__ import annotations

from graphc.frontend.nn import (
    adaptive,
    attention,
    convolve,
    criteria,
    distance,
    in_place,
    lookup,
    margin,
    noise,
    normalise,
    pointwise,
    pooling,
    sampling,
    sequence_loss,
    shrink,
    spatial,
)
from graphc.frontend.nn.adaptive import *
from graphc.frontend.nn.attention import *
from graphc.frontend.nn.convolve import *
from graphc.frontend.nn.criteria import *
from graphc.frontend.nn.distance import *
from graphc.frontend.nn.in_place import *
from graphc.frontend.nn.lookup import *
from graphc.frontend.nn.margin import *
from graphc.frontend.nn.noise import *
from graphc.frontend.nn.normalise import *
from graphc.frontend.nn.pointwise import *
from graphc.frontend.nn.pooling import *
from graphc.frontend.nn.sampling import *
from graphc.frontend.nn.sequence_loss import *
from graphc.frontend.nn.shrink import *
from graphc.frontend.nn.spatial import *

__all__: list[str] = []
__all__ += adaptive.__all__
__all__ += attention.__all__
__all__ += convolve.__all__
__all__ += criteria.__all__
__all__ += distance.__all__
__all__ += in_place.__all__
__all__ += lookup.__all__
__all__ += margin.__all__
__all__ += noise.__all__
__all__ += normalise.__all__
__all__ += pointwise.__all__
__all__ += pooling.__all__
__all__ += sampling.__all__
__all__ += sequence_loss.__all__
__all__ += shrink.__all__
__all__ += spatial.__all__
