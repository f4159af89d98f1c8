"""All functions on tensors under one name; each family has its module."""

from __future__ import annotations

from graphc.frontend import (
    functional_copies,
    functional_counting,
    functional_data,
    functional_index,
    functional_linalg,
    functional_math,
    functional_mixed,
    functional_places,
    functional_reduce,
    functional_scan,
    functional_shape,
    functional_signal,
    functional_special,
)
from graphc.frontend.functional_copies import *
from graphc.frontend.functional_counting import *
from graphc.frontend.functional_data import *
from graphc.frontend.functional_index import *
from graphc.frontend.functional_linalg import *
from graphc.frontend.functional_math import *
from graphc.frontend.functional_mixed import *
from graphc.frontend.functional_places import *
from graphc.frontend.functional_reduce import *
from graphc.frontend.functional_scan import *
from graphc.frontend.functional_shape import *
from graphc.frontend.functional_signal import *
from graphc.frontend.functional_special import *

__all__: list[str] = []
__all__ += functional_data.__all__
__all__ += functional_index.__all__
__all__ += functional_linalg.__all__
__all__ += functional_math.__all__
__all__ += functional_reduce.__all__
__all__ += functional_scan.__all__
__all__ += functional_shape.__all__
__all__ += functional_copies.__all__
__all__ += functional_mixed.__all__
__all__ += functional_counting.__all__
__all__ += functional_places.__all__
__all__ += functional_signal.__all__
__all__ += functional_special.__all__
