"""Hand-written LLVM kernels and programs for the runtime tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from graphc.ir.kernel import Map
from graphc.ir.types import Layout, TensorType, float32
from graphc.runtime import llvm
from graphc.runtime.program import BufferRef, KernelCall, OutputSpec, Program


@dataclass(frozen=True)
class HostTarget:
    """The machine the tests run on."""

    triple: str
    cpu: str
    features: str = ""


def host_target() -> HostTarget:
    triple = llvm.host()[0]
    return HostTarget(triple, "x86-64-v3" if triple.startswith("x86_64") else "generic")


@dataclass(frozen=True)
class HandKernel:
    """A kernel as code generation hands it over."""

    key: str
    body: str
    params: tuple[int, ...] = ()
    tables: tuple[np.ndarray[Any, np.dtype[np.int64]], ...] = ()
    units: int = 1
    grain: int = 1
    scratch: int = 0
    emitted: list[str] = field(default_factory=list)

    @property
    def symbol(self) -> str:
        return "k_" + self.key

    @property
    def emit(self) -> Callable[[Any], str]:
        def text(target: Any) -> str:
            self.emitted.append(target.triple)
            return function(self.symbol, self.body)

        return text


def function(name: str, body: str) -> str:
    """A kernel function that runs `body` for each unit %i; the words of the block are %w0 … %w7."""
    words = "\n".join(
        f"  %at{k} = getelementptr i64, ptr %block, i64 {k}\n  %w{k} = load i64, ptr %at{k}, align 8\n"
        f"  %p{k} = inttoptr i64 %w{k} to ptr"
        for k in range(8)
        if f"%w{k}" in body or f"%p{k}" in body
    )
    return f"""define void @{name}(ptr %block, i64 %lo, i64 %hi, ptr %scratch) nounwind {{
entry:
{words}
  br label %head
head:
  %i = phi i64 [ %lo, %entry ], [ %next, %tail ]
  %more = icmp slt i64 %i, %hi
  br i1 %more, label %body, label %leave
body:
{body}
  br label %tail
tail:
  %next = add i64 %i, 1
  br label %head
leave:
  ret void
}}
"""


# out[i] = in[i] * 3 + 1
AFFINE = """  %a = getelementptr float, ptr %p0, i64 %i
  %x = load float, ptr %a, align 4
  %y = fmul float %x, 3.0
  %z = fadd float %y, 1.0
  %b = getelementptr float, ptr %p1, i64 %i
  store float %z, ptr %b, align 4"""

# out[i] = in[i] + constant[0] + parameter (word 3), by way of the scratch memory; table (word 4) gives the index
THROUGH_SCRATCH = """  %t = getelementptr i64, ptr %p4, i64 %i
  %j = load i64, ptr %t, align 8
  %a = getelementptr float, ptr %p0, i64 %j
  %x = load float, ptr %a, align 4
  %c = load float, ptr %p1, align 4
  %n = sitofp i64 %w3 to float
  %s = fadd float %x, %c
  store float %s, ptr %scratch, align 64
  %v = load volatile float, ptr %scratch, align 64
  %z = fadd float %v, %n
  %b = getelementptr float, ptr %p2, i64 %i
  store float %z, ptr %b, align 4"""

# a product of the parameters as floats, stored as bits: shows rounding and flushing; bits come in as words 1 and 2
PRODUCT = """  %l1 = trunc i64 %w1 to i32
  %l2 = trunc i64 %w2 to i32
  %x = bitcast i32 %l1 to float
  %y = bitcast i32 %l2 to float
  %z = fmul float %x, %y
  %b = getelementptr float, ptr %p0, i64 %i
  store float %z, ptr %b, align 4"""


def layout(*shape: int) -> Layout:
    return Layout(TensorType(float32, shape))


_NO_KERNEL = Map((), (), ())


def call(*operands: BufferRef) -> KernelCall:
    return KernelCall(_NO_KERNEL, operands, "by hand")


def fresh(*shape: int) -> OutputSpec:
    return OutputSpec(layout(*shape), None, "value", "y")


def program(
    inputs: tuple[Layout, ...],
    outputs: tuple[OutputSpec, ...],
    calls: tuple[KernelCall, ...],
    constants: tuple[np.ndarray[Any, Any], ...] = (),
    arena_bytes: int = 0,
) -> Program:
    return Program("hand", inputs, outputs, calls, constants, arena_bytes)
