"""The pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from graphc.ir.op import Array, Attrs, Op


def eager_run(op: Op, arrays: Sequence[Array], attrs: Attrs) -> list[Array]:
    """Run one op on arrays; outputs are fresh and contiguous."""
    with np.errstate(all="ignore"):
        found = op.reference(*arrays, **attrs)
    return [np.array(a, order="C") for a in (found if isinstance(found, tuple) else (found,))]
