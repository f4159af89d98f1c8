"""Functions of linalg under the names they also have outside of it."""

from __future__ import annotations

import math

from graphc.frontend import linalg
from graphc.frontend.functional import where
from graphc.frontend.tensor import Tensor

__all__ = ["cholesky", "det", "inverse", "logdet", "slogdet"]

det, slogdet, inverse = linalg.det, linalg.slogdet, linalg.inv


def cholesky(input: Tensor, upper: bool = False) -> Tensor:
    """linalg.cholesky()."""
    return linalg.cholesky(input, upper=upper)


def logdet(input: Tensor) -> Tensor:
    """The logarithms of the determinants of [..., N, N]: NaN below 0, -inf for singular ones."""
    sign, size = linalg.slogdet(input)
    return where(sign < 0, math.nan, size)
