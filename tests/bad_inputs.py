"""What a user may do wrong, row by row, and what each error must say; run eagerly, compiled and under `python -O`.

As a program (`python -O -m tests.bad_inputs`) it prints what every row gives, as JSON.
"""

from __future__ import annotations

import json
import math
import sys
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

import graphc
import graphc.nn.functional as F
from graphc.errors import (
    ArgumentError,
    AutogradError,
    DimError,
    DTypeError,
    IndexingError,
    OutOfMemoryError,
    ShapeError,
    UnsupportedError,
)

HERE = __file__.rsplit("/", 1)[-1]


class Bad(NamedTuple):
    """One way to go wrong: `call(*make())` raises `error`, and its text holds every one of `says`."""

    row: str
    call: Callable[..., Any]
    make: Callable[[], tuple[Any, ...]]
    error: type[Exception]
    says: tuple[str, ...]

    def lines(self) -> set[str]:
        """The places the error may name: the lines of the call."""
        return {f"{HERE}:{line}" for _, _, line in self.call.__code__.co_lines() if line}


def ones(*shape: int) -> Any:
    return graphc.ones(*shape)


def leaf(*shape: int) -> Any:
    return graphc.ones(*shape).requires_grad_()


def ints(*values: int, dtype: Any = None) -> Any:
    return graphc.tensor(list(values), dtype=dtype)


def bools(*values: bool) -> Any:
    return graphc.tensor(list(values))


def a(*shape: int) -> Callable[[], tuple[Any, ...]]:
    """One float32 argument of this shape."""
    return lambda: (ones(*shape),)


def none() -> tuple[Any, ...]:
    return ()


def changed_after_use(w: Any) -> None:
    y = w * 1
    z = y * y
    y.add_(1)
    z.sum().backward()  # here


def backward_twice(w: Any) -> None:
    y = (w * w).sum()
    y.backward()
    y.backward()


def backward_of_a_number_without_history(x: Any) -> None:
    (x > 0).float().sum().backward()


def read_only(array: Any) -> Any:
    array.flags.writeable = False
    return graphc.from_numpy(array)


SHAPES = [
    Bad("wrong rank: mm", lambda x: graphc.mm(x, x), a(3), ShapeError, ("mm: operand 0", "f32[3]", "matmul()")),
    Bad(
        "wrong rank: bmm",
        lambda x: graphc.bmm(x, x),
        a(3, 3),
        ShapeError,
        ("bmm: operand 0", "f32[3, 3]", "3-d", "matmul()"),
    ),
    Bad(
        "wrong rank: conv2d",
        lambda x: F.conv2d(x, ones(4, 3, 3, 3)),
        a(3),
        ShapeError,
        ("conv2d:", "f32[3]", "unsqueeze()"),
    ),
    Bad(
        "wrong rank: max_pool2d",
        lambda x: F.max_pool2d(x, 2),
        a(2),
        ShapeError,
        ("max_pool2d:", "f32[2]", "unsqueeze()"),
    ),
    Bad(
        "wrong rank: matmul with 0-d",
        lambda x: x @ graphc.tensor(1.0),
        a(2, 3),
        ShapeError,
        ("matmul:", "f32[2, 3]", "f32[]", "use *"),
    ),
    Bad("wrong rank: tril", lambda x: graphc.tril(x), a(3), ShapeError, ("tril:", "f32[3]", "2 dimensions")),
    Bad(
        "inner dims in matmul",
        lambda x: x @ ones(4, 5),
        a(2, 3),
        ShapeError,
        ("matmul:", "f32[2, 3]", "f32[4, 5]", "3 columns meet 4 rows", "transpose"),
    ),
    Bad(
        "inner dims in linear",
        lambda x: F.linear(x, ones(4, 3)),
        a(2, 5),
        ShapeError,
        ("linear: input", "f32[2, 5]", "weight f32[4, 3]", "must be"),
    ),
    Bad(
        "dtypes in matmul",
        lambda x: x @ ones(3, 5).long(),
        a(2, 3),
        DTypeError,
        ("matmul:", "f32[2, 3]", "i64[3, 5]", "convert one"),
    ),
    Bad(
        "unbroadcastable: add",
        lambda x: x + ones(4),
        a(3),
        ShapeError,
        ("add: operand 1", "f32[3], f32[4]", "sizes 4 and 3 at axis -1", "make the sizes equal"),
    ),
    Bad(
        "unbroadcastable: where",
        lambda x: graphc.where(x > 0, x, ones(4)),
        a(3),
        ShapeError,
        ("where: operand 2", "b1[3], f32[3], f32[4]", "make the sizes equal"),
    ),
    Bad(
        "unbroadcastable: expand",
        lambda x: x.expand(2, 4),
        a(3),
        ShapeError,
        ("expand:", "f32[3] to [2, 4]", "must match"),
    ),
    Bad(
        "unbroadcastable: masked_fill",
        lambda x: x.masked_fill(bools(True, False), 0.0),
        a(3),
        ShapeError,
        ("masked_fill:", "f32[3], b1[2]", "make the sizes equal"),
    ),
    Bad(
        "unbroadcastable: cat",
        lambda x: graphc.cat([x, ones(2, 4)]),
        a(2, 3),
        ShapeError,
        ("cat: tensor 0", "f32[2, 3]", "f32[2, 4]", "must be equal"),
    ),
    Bad("axis out of range", lambda x: x.sum(3), a(2, 3), DimError, ("sum: dim 3", "use -2 to 1")),
    Bad("axis too negative", lambda x: x.sum(-3), a(2, 3), DimError, ("sum: dim -3", "use -2 to 1")),
    Bad(
        "duplicate axis",
        lambda x: x.sum((0, -2)),
        a(2, 3),
        DimError,
        ("sum: dim 0 is given twice", "name each axis once"),
    ),
    Bad(
        "duplicate axis: permute",
        lambda x: x.permute(0, 0),
        a(2, 3),
        DimError,
        ("permute:", "f32[2, 3]", "name each axis once"),
    ),
    Bad(
        "axis out of range: softmax",
        lambda x: F.softmax(x, dim=4),
        a(2, 3),
        DimError,
        ("softmax: dim 4", "use -2 to 1"),
    ),
    Bad(
        "axis out of range: cat", lambda x: graphc.cat([x, x], dim=2), a(2, 3), DimError, ("cat: dim 2", "use -2 to 1")
    ),
    Bad(
        "axis out of range: transpose",
        lambda x: x.transpose(0, 5),
        a(2, 3),
        DimError,
        ("transpose: dim 5", "use -2 to 1"),
    ),
    Bad(
        "axis that is a float",
        lambda x: x.sum(1.0),
        a(2, 3),
        ArgumentError,
        ("sum: dim", "float 1.0", "must be an int"),
    ),
    Bad(
        "axis that is a string", lambda x: x.sum("a"), a(2, 3), ArgumentError, ("sum: dim", "str 'a'", "must be an int")
    ),
    Bad(
        "reshape with two -1",
        lambda x: x.reshape(-1, -1),
        a(2, 3),
        ShapeError,
        ("reshape:", "[-1, -1]", "f32[2, 3]", "all but one"),
    ),
    Bad(
        "reshape that does not divide",
        lambda x: x.reshape(4, -1),
        a(2, 3),
        ShapeError,
        ("reshape:", "[4, -1]", "f32[2, 3]", "must divide"),
    ),
    Bad(
        "reshape to another count",
        lambda x: x.reshape(7),
        a(2, 3),
        ShapeError,
        ("reshape:", "f32[2, 3] has 6", "[7] has 7", "must be equal"),
    ),
    Bad(
        "view of a transposed tensor",
        lambda x: x.t().view(6),
        a(2, 3),
        ShapeError,
        ("view:", "f32[3, 2]", "use .reshape"),
    ),
    Bad("max of nothing", lambda x: x.max(), a(0), ShapeError, ("max:", "f32[0]", "at least one")),
    Bad("min of nothing", lambda x: x.min(), a(0), ShapeError, ("min:", "f32[0]", "at least one")),
    Bad(
        "min of nothing along an axis",
        lambda x: x.min(dim=0),
        a(0, 3),
        DimError,
        ("min:", "f32[0, 3]", "non-zero size"),
    ),
    Bad("argmax of nothing", lambda x: x.argmax(), a(0), ShapeError, ("argmax:", "f32[0]", "at least one")),
    Bad(
        "amax of nothing along an axis",
        lambda x: x.amax(0),
        a(0, 2),
        ShapeError,
        ("amax:", "f32[0, 2]", "at least one"),
    ),
]

SIZES = [
    Bad(
        "arange beyond int64",
        lambda: graphc.arange(2**63),
        none,
        ArgumentError,
        ("arange: end", "9223372036854775808", "int64"),
    ),
    Bad(
        "arange of too many elements",
        lambda: graphc.arange(2**62),
        none,
        ShapeError,
        ("iota:", "i64[4611686018427387904]", "shrink it"),
    ),
    Bad(
        "arange with step 0",
        lambda: graphc.arange(0, 5, 0),
        none,
        ArgumentError,
        ("arange: step", "0 to 5", "must be nonzero"),
    ),
    Bad(
        "arange to NaN",
        lambda: graphc.arange(0, math.nan),
        none,
        ArgumentError,
        ("arange: start, end and step", "nan", "must be finite"),
    ),
    Bad(
        "shape product beyond int64",
        lambda: graphc.zeros(2**40, 2**40),
        none,
        ShapeError,
        ("full:", "f32[1099511627776, 1099511627776]", "shrink it"),
    ),
    Bad(
        "expand beyond int64",
        lambda x: x.expand(2**40, 2**40),
        a(1),
        ShapeError,
        ("expand:", "f32[1099511627776, 1099511627776]", "shrink it"),
    ),
    Bad(
        "more than there is memory",
        lambda: graphc.zeros(2**50),
        none,
        OutOfMemoryError,
        ("not enough memory", "4503599627370496 bytes", "smaller parts"),
    ),
    Bad(
        "repeat beyond memory",
        lambda x: x.repeat(2**50),
        a(3),
        OutOfMemoryError,
        ("not enough memory", "bytes", "smaller parts"),
    ),
    Bad("negative size", lambda: graphc.zeros(-1), none, ShapeError, ("zeros:", "negative dimension", "[-1]")),
    Bad("float size", lambda: graphc.zeros(1.5), none, ArgumentError, ("zeros: sizes must be ints", "float 1.5")),
]

INDICES = [
    Bad("float index", lambda x: x[1.0], a(3), IndexingError, ("index: only integers", "float 1.0", "valid indices")),
    Bad(
        "float tensor as index",
        lambda x: x[graphc.tensor([1.0])],
        a(3),
        IndexingError,
        ("index: tensors used as indices", "f32[1]", ".long()"),
    ),
    Bad("string index", lambda x: x["a"], a(3), IndexingError, ("index: only integers", "str 'a'", "valid indices")),
    Bad("index out of range", lambda x: x[3], a(3), IndexingError, ("index: index 3", "f32[3]", "use -3 to 2")),
    Bad(
        "tensor index out of range",
        lambda x, i: x[i],
        lambda: (ones(3), ints(0, 5)),
        IndexingError,
        ("index: index 5", "size 3", "use -3 to 2"),
    ),
    Bad("too many indices", lambda x: x[0, 0], a(3), IndexingError, ("index: too many indices", "f32[3]", "at most 1")),
    Bad(
        "mask of another shape",
        lambda x: x[bools(True, False)],
        a(3),
        IndexingError,
        ("index:", "b1[2]", "f32[3]", "needs the sizes"),
    ),
    Bad("negative step", lambda x: x[::-1], a(3), ArgumentError, ("index: slice step", "f32[3]", "use flip()")),
    Bad(
        "gather out of range",
        lambda x, i: x.gather(0, i),
        lambda: (ones(3), ints(5)),
        IndexingError,
        ("gather: index 5", "size 3", "use 0 to 2"),
    ),
    Bad(
        "index_select out of range",
        lambda x, i: x.index_select(0, i),
        lambda: (ones(3), ints(5)),
        IndexingError,
        ("index_select: index 5", "size 3", "use"),
    ),
    Bad(
        "scatter out of range",
        lambda x, i: x.scatter(0, i, ones(1)),
        lambda: (ones(3), ints(5)),
        IndexingError,
        ("scatter: index 5", "size 3", "use 0 to 2"),
    ),
    Bad(
        "embedding out of range",
        lambda w, i: F.embedding(i, w),
        lambda: (ones(3, 2), ints(5)),
        IndexingError,
        ("embedding: index 5", "3 rows"),
    ),
    Bad(
        "target out of range",
        lambda x, i: F.cross_entropy(x, i),
        lambda: (ones(1, 3), ints(5)),
        IndexingError,
        ("cross_entropy: target 5", "3 classes", "numbered from 0"),
    ),
]

DTYPES = [
    Bad(
        "bool minus bool",
        lambda x: x - x,
        lambda: (bools(True),),
        DTypeError,
        ("sub:", "b1[1] - b1[1]", "logical_xor()"),
    ),
    Bad(
        "number minus bool", lambda x: 1 - x, lambda: (bools(True),), DTypeError, ("sub:", "1 - b1[1]", "logical_xor()")
    ),
    Bad("minus of bool", lambda x: -x, lambda: (bools(True),), DTypeError, ("neg: operand 0", "b1[1]", "convert it")),
    Bad("mean of integers", lambda x: x.mean(), lambda: (ints(1, 2),), DTypeError, ("mean:", "i64[2]", ".float()")),
    Bad("~ of a float", lambda x: ~x, a(2), DTypeError, ("bitwise_not:", "f32[2]", "convert it")),
    Bad(
        "mixed devices",
        lambda x: x + graphc.ones(3, device="cuda"),
        a(3),
        UnsupportedError,
        ("ones: device", "'cuda'", "live on 'cpu'"),
    ),
    Bad("no GPU", lambda x: x.cuda(), a(3), UnsupportedError, ("cuda: device", "live on 'cpu'")),
    Bad(
        "to(device) that is not there",
        lambda x: x.to("cuda:1"),
        a(3),
        UnsupportedError,
        ("to: device", "cuda:1", "live on 'cpu'"),
    ),
    Bad(
        "to(name of a dtype)",
        lambda x: x.to("float64"),
        a(3),
        DTypeError,
        ("to: 'float64'", "use the dtype graphc.float64"),
    ),
    Bad(
        "NaN into integers: fill_",
        lambda x: x.fill_(math.nan),
        lambda: (ints(1, 2),),
        ArgumentError,
        ("the number nan", "int64", "use a larger dtype"),
    ),
    Bad(
        "inf into integers: full",
        lambda: graphc.full((2,), math.inf, dtype=graphc.int32),
        none,
        ArgumentError,
        ("full: the number inf", "int32", "use a larger dtype"),
    ),
    Bad(
        "NaN into integers: masked_fill",
        lambda x: x.masked_fill(x > 0, math.nan),
        lambda: (ints(1, 2),),
        DTypeError,
        ("masked_fill: value nan", "int64", "convert the tensor"),
    ),
    Bad(
        "integers to a negative power",
        lambda x: x**-1,
        lambda: (ints(1, 2),),
        ArgumentError,
        ("pow:", "i64[2] to -1", "use .float()"),
    ),
    Bad(
        "arithmetic with complex numbers",
        lambda x: x + 1,
        lambda: (graphc.tensor([1j]),),
        DTypeError,
        ("add: complex", "c64[1]", "view_as_real"),
    ),
    Bad(
        "a Python int beyond int64",
        lambda x: x * 2**70,
        lambda: (ints(1, 2),),
        ArgumentError,
        ("mul: the number", "int64", "use a smaller one"),
    ),
    Bad("None as operand", lambda x: x + None, a(2), ArgumentError, ("add: expected a Tensor or a number", "NoneType")),
    Bad("a string as operand", lambda x: x * "a", a(2), ArgumentError, ("mul: expected a Tensor or a number", "str")),
    Bad(
        "a list as operand",
        lambda x, y: x + y,
        lambda: (ones(2), [1, 2]),
        ArgumentError,
        ("add: expected a Tensor or a number", "list", "use graphc"),
    ),
    Bad(
        "an array as operand",
        lambda x: x + np.ones(2),
        a(2),
        ArgumentError,
        ("add: expected a Tensor or a number", "ndarray", "use graphc.from_numpy"),
    ),
    Bad("None for a tensor", lambda: graphc.relu(None), none, ArgumentError, ("relu: expected a Tensor", "NoneType")),
]

GRADIENTS = [
    Bad(
        "changed in place before backward",
        changed_after_use,
        lambda: (leaf(3),),
        AutogradError,
        ("mul:", "f32[3]", "version 1", "clone()"),
    ),
    Bad("backward twice", backward_twice, lambda: (leaf(3),), AutogradError, ("a second time", "retain_graph=True")),
    Bad(
        "backward of a non-scalar",
        lambda w: (w * 2).backward(),
        lambda: (leaf(3),),
        AutogradError,
        ("backward:", "f32[3]", "reduce it"),
    ),
    Bad(
        "gradient of another shape",
        lambda w: (w * 2).backward(ones(4)),
        lambda: (leaf(3),),
        ShapeError,
        ("backward: the gradient", "f32[4]", "f32[3]", "same type"),
    ),
    Bad(
        "backward through a comparison",
        backward_of_a_number_without_history,
        lambda: (leaf(3),),
        AutogradError,
        ("backward: element 0", "f32[]", "integer results"),
    ),
    Bad(
        "backward of argmax",
        lambda w: w.argmax().backward(),
        lambda: (leaf(3),),
        AutogradError,
        ("backward: element 0", "i64[]", "integer results"),
    ),
    Bad(
        "backward without gradients",
        lambda x: x.sum().backward(),
        a(3),
        AutogradError,
        ("backward: element 0", "f32[]", "no_grad()"),
    ),
    Bad(
        "gradients of integers",
        lambda x: (x * 1).requires_grad_(),
        lambda: (ints(1, 2),),
        AutogradError,
        ("requires_grad_:", "i64[2]", ".float()"),
    ),
    Bad(
        "an input that was not used",
        lambda w, v: graphc.autograd.grad(w.sum(), v),
        lambda: (leaf(3), leaf(2)),
        AutogradError,
        ("grad: input 0", "f32[2]", "allow_unused=True"),
    ),
    Bad(
        "an input without gradients",
        lambda w, v: graphc.autograd.grad(w.sum(), v),
        lambda: (leaf(3), ones(2)),
        AutogradError,
        ("grad:", "f32[2]", "requires_grad_()"),
    ),
    Bad("in place on a leaf", lambda w: w.add_(1), lambda: (leaf(3),), AutogradError, ("add_: a leaf", "no_grad()")),
    Bad(
        "in place on a view of a leaf",
        lambda w: w[:2].add_(1),
        lambda: (leaf(3),),
        AutogradError,
        ("add_: a view of a leaf", "clone()"),
    ),
    Bad(
        "a leaf set at an index",
        lambda w: w.__setitem__(0, 1.0),
        lambda: (leaf(3),),
        AutogradError,
        ("setitem: a leaf", "no_grad()"),
    ),
]

WRITES = [
    Bad(
        "in place on an expanded view",
        lambda x: x.expand(3).add_(1),
        a(1),
        ShapeError,
        ("add_: more than one element", "clone()"),
    ),
    Bad(
        "in place on overlapping windows",
        lambda x: x.unfold(0, 3, 1).mul_(2),
        a(5),
        ShapeError,
        ("mul_: more than one element", "clone()"),
    ),
    Bad(
        "in place to another dtype",
        lambda x: x.add_(1.5),
        lambda: (ints(1, 2),),
        DTypeError,
        ("add_:", "float32", "int64", "convert this tensor"),
    ),
    Bad(
        "in place to another shape",
        lambda x: x.add_(ones(2, 3)),
        a(3),
        ShapeError,
        ("add_:", "f32[3]", "[2, 3]", "stays"),
    ),
    Bad(
        "setitem of another shape",
        lambda x: x.__setitem__(slice(0, 2), ones(3)),
        a(3),
        ShapeError,
        ("setitem:", "f32[3] to [2]", "must match"),
    ),
    Bad(
        "a read-only array",
        lambda x: x.add_(1),
        lambda: (read_only(np.ones(3, np.float32)),),
        ArgumentError,
        ("add_: the memory", "read-only", "clone()"),
    ),
    Bad(
        "NaN written into integers",
        lambda x: x.__setitem__(0, math.nan),
        lambda: (ints(1, 2),),
        ArgumentError,
        ("setitem: the number nan", "int64", "floating-point"),
    ),
]

CALLS = [
    Bad(
        "cross_entropy with float targets",
        lambda x: F.cross_entropy(x, ones(2)),
        a(2, 3),
        DTypeError,
        ("cross_entropy: targets", "f32[2]", "int64"),
    ),
    Bad(
        "a loss of other shapes",
        lambda x: F.binary_cross_entropy(x, ones(3)),
        a(2),
        ShapeError,
        ("binary_cross_entropy: input", "f32[2]", "f32[3]", "shapes equal"),
    ),
    Bad(
        "an unknown reduction",
        lambda x: F.mse_loss(x, x, reduction="avg"),
        a(2),
        ArgumentError,
        ("mse_loss: reduction", "'avg'", '"mean"'),
    ),
    Bad(
        "conv2d of other channels",
        lambda x: F.conv2d(x, ones(4, 3, 3, 3)),
        a(1, 5, 8, 8),
        ShapeError,
        ("conv2d: input", "f32[1, 5, 8, 8]", "f32[4, 3, 3, 3]", "wants 3"),
    ),
    Bad(
        "a filter larger than the image",
        lambda x: F.conv2d(x, ones(4, 3, 3, 3)),
        a(1, 3, 2, 2),
        ShapeError,
        ("conv2d: a filter of size 3", "pad more"),
    ),
    Bad(
        "layer_norm of other sizes",
        lambda x: F.layer_norm(x, (5,)),
        a(2, 3),
        ShapeError,
        ("layer_norm: normalized_shape", "[5]", "f32[2, 3]"),
    ),
    Bad(
        "batch_norm of one sample",
        lambda x: F.batch_norm(x, None, None, training=True),
        a(1, 3),
        ShapeError,
        ("batch_norm:", "f32[1, 3]", "eval()"),
    ),
    Bad("topk of more than there are", lambda x: x.topk(9), a(5), ShapeError, ("topk: k 9", "f32[5]", "size 5")),
    Bad(
        "split that does not add up",
        lambda x: x.split([2, 2]),
        a(5),
        ShapeError,
        ("split", "[2, 2]", "f32[5]", "sum exactly to 5"),
    ),
    Bad(
        "einsum with sizes that differ",
        lambda x: graphc.einsum("ij,jk->ik", x, ones(4, 5)),
        a(2, 3),
        ShapeError,
        ("einsum: letter 'j'", "3", "f32[4, 5]"),
    ),
    Bad(
        "many elements as a truth value",
        lambda x: bool(x),
        a(2),
        ShapeError,
        ("Boolean value", "f32[2]", "any() or all()"),
    ),
    Bad("item of many elements", lambda x: x.item(), a(2), ShapeError, ("item: a Tensor with 2 elements", "index it")),
    Bad("cat of one tensor", lambda x: graphc.cat(x), a(2), ArgumentError, ("cat: expects a list", "one Tensor")),
    Bad(
        "dtype as a string",
        lambda: graphc.ones(2, dtype="float32"),
        none,
        DTypeError,
        ("ones: dtype", "graphc.float32", "'float32'"),
    ),
    Bad(
        "a list of unequal rows",
        lambda: graphc.tensor([[1, 2], [3]]),
        none,
        ArgumentError,
        ("tensor:", "sequence of equal length"),
    ),
    Bad("a string as data", lambda: graphc.tensor("abc"), none, ArgumentError, ("tensor:", "str", "nested lists")),
    Bad("an int beyond int64 as data", lambda: graphc.tensor(2**70), none, ArgumentError, ("tensor:", "int64")),
]
ROWS = [*SHAPES, *SIZES, *INDICES, *DTYPES, *GRADIENTS, *WRITES, *CALLS]


def told(bad: Bad, *, compiled: bool = False) -> tuple[str, str]:
    """The type and the text of the error a row gives; ("", result) where there is none."""
    call = graphc.compile(bad.call) if compiled else bad.call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", graphc.RecordingWarning)
            result = call(*bad.make())
    except Exception as error:
        return type(error).__name__, str(error)
    return "", repr(result)


def report() -> list[tuple[str, str, str]]:
    """(row, type, text) of every row, eagerly."""
    return [(bad.row, *told(bad)) for bad in ROWS]


if __name__ == "__main__":
    sys.stdout.write(json.dumps(report()))
