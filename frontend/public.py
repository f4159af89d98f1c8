"""Everything `graphc.name` finds, gathered from the `__all__` of the modules that define it."""

from __future__ import annotations

from graphc.frontend import (
    compaction,
    control,
    creation,
    device as _device,
    dlpack,
    dtypes,
    functional,
    grad_mode,
    indexing,
    legacy,
    limits,
    matrices,
    ordering,
    methods as methods,
    printing,
    promote,
    random,
    random_tensors,
    reinterpret,
    size,
    switches,
    threads,
)
from graphc.frontend.compaction import *
from graphc.frontend.control import *
from graphc.frontend.creation import *
from graphc.frontend.device import *
from graphc.frontend.dlpack import *
from graphc.frontend.functional import *
from graphc.frontend.grad_mode import *
from graphc.frontend.indexing import *
from graphc.frontend.legacy import *
from graphc.frontend.limits import *
from graphc.frontend.matrices import *
from graphc.frontend.tensor import Tensor as Tensor
from graphc.frontend.ordering import *
from graphc.frontend.printing import *
from graphc.frontend.promote import *
from graphc.frontend.random import *
from graphc.frontend.random_tensors import *
from graphc.frontend.reinterpret import *
from graphc.frontend.record import api
from graphc.frontend.record.api import *
from graphc.frontend.size import *
from graphc.frontend.switches import *
from graphc.frontend.threads import *

from graphc.frontend.dtypes import *  # isort: skip  (last: `bool` and `float` are dtypes here)

__all__ = ["Tensor"]
__all__ += compaction.__all__
__all__ += control.__all__
__all__ += creation.__all__
__all__ += _device.__all__
__all__ += dlpack.__all__
__all__ += dtypes.__all__
__all__ += functional.__all__
__all__ += grad_mode.__all__
__all__ += indexing.__all__
__all__ += legacy.__all__
__all__ += limits.__all__
__all__ += matrices.__all__
__all__ += ordering.__all__
__all__ += random_tensors.__all__
__all__ += printing.__all__
__all__ += promote.__all__
__all__ += random.__all__
__all__ += reinterpret.__all__
__all__ += api.__all__
__all__ += size.__all__
__all__ += switches.__all__
__all__ += threads.__all__
