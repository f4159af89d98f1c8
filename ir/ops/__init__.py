"""The op table. Importing this package defines every op; `graphc.ir.op.op_named` finds them by name."""

from graphc.ir.ops import (
    activation,
    contract,
    conv,
    create,
    index,
    indexing,
    joining,
    movement,
    nn,
    pointwise,
    random,
    reduce,
    scan,
    shrink,
    statistics,
    windows,
)

__all__ = [
    "activation",
    "contract",
    "conv",
    "create",
    "index",
    "indexing",
    "joining",
    "movement",
    "nn",
    "pointwise",
    "random",
    "reduce",
    "scan",
    "shrink",
    "statistics",
    "windows",
]
