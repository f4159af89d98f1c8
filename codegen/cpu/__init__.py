"""CPU templates: each turns one kind of kernel record into LLVM text. `lower_kernel` picks the template."""

from __future__ import annotations

if __name__ != "graphc.codegen.cpu":
    raise ImportError("import this package as graphc.codegen.cpu; from a checkout, run: pip install -e .")

from collections.abc import Callable
from importlib import import_module

from graphc.codegen.cpu.kernel import CpuKernel
from graphc.errors import InternalError
from graphc.ir.kernel import Kernel

# record -> module of this package whose `lower(record) -> CpuKernel` handles it
_TEMPLATES = {"Map": "pointwise", "Rows": "rows", "Contract": "contraction", "Scatter": "scatter", "Scan": "scan"}


def lower_kernel(kernel: Kernel) -> CpuKernel:
    """The CPU code and numbers of a kernel. Raises InternalError for a record without a template."""
    name = _TEMPLATES.get(type(kernel).__name__)
    if name is None:
        raise InternalError(f"no CPU template for {type(kernel).__name__}")
    lower: Callable[[Kernel], CpuKernel] = import_module(f"graphc.codegen.cpu.{name}").lower
    return lower(kernel)


__all__ = ["CpuKernel", "lower_kernel"]
