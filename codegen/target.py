"""Fixed targets of code generation. Code is made for one of them, never for "the machine at hand"."""

from __future__ import annotations

import platform
from dataclasses import dataclass
from functools import lru_cache

from graphc.config import config
from graphc.errors import ArgumentError, UnsupportedError
from graphc.ir.types import DType


@dataclass(frozen=True, slots=True)
class Target:
    """What LLVM needs to know of a CPU family, and its vector size. Same name, same code."""

    name: str
    triple: str
    cpu: str
    features: str
    vector_bits: int

    def lanes(self, dtype: DType) -> int:
        """Elements of `dtype` in one vector register (bool counts as a float32 lane: masks follow the data)."""
        return self.vector_bits // (32 if dtype.itemsize < 4 else 8 * dtype.itemsize)


X86_64_V3 = Target("x86-64-v3", "x86_64-unknown-linux-gnu", "x86-64-v3", "", 256)
X86_64_V4 = Target("x86-64-v4", "x86_64-unknown-linux-gnu", "x86-64-v4", "-prefer-256-bit", 512)
AARCH64 = Target("aarch64", "aarch64-unknown-linux-gnu", "generic", "+neon", 128)

TARGETS: dict[str, Target] = {t.name: t for t in (X86_64_V3, X86_64_V4, AARCH64)}

# What x86-64-v3 and -v4 add over the baseline, by LLVM's feature names.
_V3 = ("avx2", "fma", "bmi", "bmi2", "lzcnt", "movbe", "f16c")
_V4 = ("avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl")


def target_named(name: str) -> Target:
    """The target called `name`. Raises ArgumentError."""
    found = TARGETS.get(name)
    if found is None:
        raise ArgumentError(f"unknown target {name!r}; known: {', '.join(TARGETS)}")
    return found


def host_target() -> Target:
    """The best target this machine can run; GRAPHC_TARGET (config.target) overrides the detection.

    Raises UnsupportedError where neither AVX2 with FMA nor aarch64 is there.
    """
    return target_named(config.target) if config.target else _detected()


@lru_cache(maxsize=1)
def _detected() -> Target:
    machine = platform.machine().lower()
    if machine in ("aarch64", "arm64"):
        return AARCH64
    if machine not in ("x86_64", "amd64"):
        raise UnsupportedError(f"graphc generates code for x86-64 and aarch64, this machine is {machine!r}")
    import llvmlite.binding as llvm

    features = llvm.get_host_cpu_features()
    missing = [f for f in _V3 if not features.get(f)]
    if missing:
        raise UnsupportedError(
            f"graphc needs a CPU with AVX2 and FMA (x86-64-v3); this one lacks {', '.join(missing)}. "
            "Without hardware fma the results could not be the same bits at a bearable speed"
        )
    return X86_64_V4 if all(features.get(f) for f in _V4) else X86_64_V3
