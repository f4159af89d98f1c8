"""graphc: a PyTorch-style front end that runs line by line, and a compiler for static graphs that gives the same bits.

Names are found at first use, so that `import graphc` alone costs next to nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from graphc.version import __version__ as __version__

if TYPE_CHECKING:
    from graphc import autograd as autograd
    from graphc import backends as backends
    from graphc import cuda as cuda
    from graphc import errors as errors
    from graphc import linalg as linalg
    from graphc import profiler as profiler
    from graphc import testing as testing
    from graphc.frontend.compaction import *
    from graphc.frontend.control import *
    from graphc.frontend.creation import *
    from graphc.frontend.device import *
    from graphc.frontend.dlpack import *
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
    from graphc.frontend.grad_mode import *
    from graphc.frontend.indexing import *
    from graphc.frontend.legacy import *
    from graphc.frontend.limits import *
    from graphc.frontend.matrices import *
    from graphc.frontend.ordering import *
    from graphc.frontend.printing import *
    from graphc.frontend.promote import *
    from graphc.frontend.random import *
    from graphc.frontend.random_tensors import *
    from graphc.frontend.record.api import *
    from graphc.frontend.reinterpret import *
    from graphc.frontend.size import *
    from graphc.frontend.switches import *
    from graphc.frontend.tensor import Tensor as Tensor
    from graphc.frontend.threads import *

    from graphc.frontend.dtypes import *  # isort: skip

_MODULES = (
    "autograd",
    "backends",
    "compiler",
    "config",
    "cuda",
    "errors",
    "linalg",
    "nn",
    "optim",
    "profiler",
    "testing",
    "utils",
)


if not TYPE_CHECKING:

    def __getattr__(name: str) -> object:
        from importlib import import_module

        if name in _MODULES:
            return import_module(f"graphc.{name}")
        if name.startswith("__") and name != "__all__":
            raise AttributeError(f"module 'graphc' has no attribute {name!r}")
        from graphc.ir.quiet import no_collection

        with no_collection():
            public = import_module("graphc.frontend.public")
        if name == "__all__":
            return [*public.__all__, *_MODULES]
        if name not in public.__all__:
            raise AttributeError(f"module 'graphc' has no attribute {name!r}")
        found = globals()[name] = getattr(public, name)
        return found


def __dir__() -> list[str]:
    from graphc.frontend import public

    return sorted({*globals(), *public.__all__, *_MODULES})
