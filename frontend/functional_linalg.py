"""Products of vectors and matrices."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError, UnsupportedError
from graphc.frontend import functional_copies as fc
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_reduce as fr
from graphc.frontend import functional_shape as fs
from graphc.frontend import hot
from graphc.frontend.dispatch import nullary, scalar_tensor
from graphc.frontend.ops import ops
from graphc.frontend.promote import Number, convert, tensor_operand
from graphc.frontend.tensor import Tensor
from graphc.ir.types import Size, int64

__all__ = ["addmm", "baddbmm", "bmm", "diag", "dot", "einsum", "ger", "inner", "linear", "matmul", "mm", "mv", "outer"]


def _pair(name: str, input: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    x, y = tensor_operand(name, input), tensor_operand(name, other)
    if x.dtype is not y.dtype:
        raise DTypeError(
            f"{name}: expected both operands to have the same dtype, but got {x._l.type} and {y._l.type}; "
            "convert one of them"
        )
    return x, y


@hot.pair
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product of the last two axes, leading axes broadcast; a 1-d operand is a row on the left, a column on the
    right.

    Raises ShapeError for sizes that do not fit or a 0-d operand, DTypeError for two dtypes.
    """
    x, y = _pair("matmul", input, other)
    if not x._l.ndim or not y._l.ndim:
        raise ShapeError(
            f"matmul: both arguments need to be at least 1-d, but they are {x._l.type} and {y._l.type}; use * "
            "for a scalar"
        )
    row, column = x._l.ndim == 1, y._l.ndim == 1
    if (row or column) and x._l.shape[-1] != y._l.shape[0 if column else -2]:
        raise ShapeError(
            f"matmul: operands {x._l.type} and {y._l.type} do not fit: {x._l.shape[-1]} elements along the last axis "
            f"meet {y._l.shape[0 if column else -2]}; transpose or reshape one of them"
        )
    if row:
        x = fs.unsqueeze(x, 0)
    if column:
        y = fs.unsqueeze(y, 1)
    made: Tensor = ops.matmul(x, y)
    if row or column:
        shape = list(made.ttype.shape)
        if column:
            del shape[-1]
        if row:
            del shape[len(shape) - (0 if column else 1) - 1]
        made = ops.reshape(made, shape=tuple(shape))
    return made


def _ranks(name: str, x: Tensor, y: Tensor, first: int, second: int) -> None:
    for k, (t, rank) in enumerate(((x, first), (y, second))):
        if t._l.ndim != rank:
            raise ShapeError(f"{name}: operand {k} must be a {rank}-d tensor, got {t._l.type}; matmul() takes any rank")


@hot.pair
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices. Raises ShapeError, DTypeError."""
    x, y = _pair("mm", input, mat2)
    _ranks("mm", x, y, 2, 2)
    return matmul(x, y)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two batches of matrices of one batch size. Raises ShapeError, DTypeError."""
    x, y = _pair("bmm", input, mat2)
    _ranks("bmm", x, y, 3, 3)
    if x.ttype.shape[0] != y.ttype.shape[0]:
        raise ShapeError(f"bmm: the batch sizes of {x._l.type} and {y._l.type} differ; expand() one of them")
    return matmul(x, y)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Matrix times vector. Raises ShapeError, DTypeError."""
    x, y = _pair("mv", input, vec)
    _ranks("mv", x, y, 2, 1)
    return matmul(x, y)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Scalar product of two 1-d tensors. Raises ShapeError, DTypeError."""
    x, y = _pair("dot", input, tensor)
    _ranks("dot", x, y, 1, 1)
    return matmul(x, y)


def inner(input: Tensor, other: Tensor) -> Tensor:
    """Sums of products over the last axes. Raises ShapeError."""
    x, y = _pair("inner", input, other)
    if not x._l.ndim or not y._l.ndim:
        return fm.mul(x, y)
    names = "abcdefghijklmnopqrstuvwxyz"
    rows, columns = names[: x._l.ndim - 1], names[12 : 11 + y._l.ndim]
    return einsum(f"{rows}z,{columns}z->{rows}{columns}", x, y)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of the elements of two 1-d tensors. Raises ShapeError."""
    x, y = tensor_operand("outer", input), tensor_operand("outer", vec2)
    _ranks("outer", x, y, 1, 1)
    return fm.mul(fs.unsqueeze(x, 1), fs.unsqueeze(y, 0))


def _blend(input: Tensor, product: Tensor, beta: Number, alpha: Number) -> Tensor:
    if alpha != 1:
        product = fm.mul(product, alpha)
    if beta == 0:
        return product
    return fm.add(input if beta == 1 else fm.mul(input, beta), product)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    return _blend(input, mm(mat1, mat2), beta, alpha)


def baddbmm(input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * (batch1 @ batch2)."""
    return _blend(input, bmm(batch1, batch2), beta, alpha)


@hot.mixed
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias: input [..., in], weight [out, in], bias [out]. Raises ShapeError, DTypeError."""
    x, w = _pair("linear", input, weight)
    if not x._l.ndim:
        raise ShapeError(f"linear: the input must have a dimension of size {w.ttype.shape[-1]}, got {x._l.type}")
    row = x._l.ndim == 1
    if row:
        x = fs.unsqueeze(x, 0)
    made: Tensor = ops.linear(x, w) if bias is None else ops.linear(x, w, _pair("linear", w, bias)[1])
    return fs.squeeze(made, 0) if row else made


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with the elements of a 1-d tensor on a diagonal, or that diagonal of a matrix.

    Raises ShapeError beyond 2-d.
    """
    x = tensor_operand("diag", input)
    if x._l.ndim == 1:
        rows = fc.pad(x, (max(-diagonal, 0), max(diagonal, 0)))
        n = rows._l.size
        return fm.where(_on_diagonal(n, diagonal), fs.expand(fs.unsqueeze(rows, 1), n, n), scalar_tensor(0, x.dtype))
    if x._l.ndim != 2:
        raise ShapeError(f"diag: takes a 1-d or 2-d tensor, got {x._l.type}")
    height, width = x._l.shape
    top, left = max(-diagonal, 0), max(diagonal, 0)
    count = max(min(height - top, width - left), 0)
    start = top * width + left if count else 0
    stop = start + (count - 1) * (width + 1) + 1 if count else 0
    made: Tensor = ops.clone(ops.slice(fs.ravel(x), dim=0, start=start, stop=stop, step=width + 1))
    return made


def _on_diagonal(n: int, diagonal: int) -> Tensor:
    row, column = (nullary(ops.iota, shape=(n, n), dim=k, dtype=int64) for k in (0, 1))
    return fm.eq(fm.sub(column, row), diagonal)


# ---------------------------------------------------------------- einsum


def einsum(equation: str, *operands: Any) -> Tensor:
    """Sums of products named by letters, as in "bij,bjk->bik". Operands are contracted from left to right.

    Raises ArgumentError for an equation that does not fit, UnsupportedError for `...` and letters repeated in one
    operand.
    """
    if not isinstance(equation, str):
        raise ArgumentError(f"einsum: equation must be a string such as 'ij,jk->ik', got {type(equation).__name__}")
    given = list(operands[0]) if len(operands) == 1 and isinstance(operands[0], (list, tuple)) else list(operands)
    tensors = [tensor_operand("einsum", x) for x in given]
    terms, output = _parse(equation, tensors)
    x, letters = tensors[0], terms[0]
    for k in range(1, len(tensors)):
        later = output + "".join(terms[k + 1 :])
        x, letters = _contract(x, letters, tensors[k], terms[k], later)
    x, letters = _sum_out(x, letters, output)
    return fs.permute(x, tuple(letters.index(c) for c in output)) if letters != output else x


def _parse(equation: str, tensors: list[Tensor]) -> tuple[list[str], str]:
    text = equation.replace(" ", "")
    if "." in text:
        raise UnsupportedError("einsum: '...' is not supported; name every axis with a letter")
    left, arrow, output = text.partition("->")
    terms = left.split(",")
    if len(terms) != len(tensors) or not all(c.isalpha() for c in "".join(terms) + output):
        raise ArgumentError(
            f"einsum: {equation!r} names {len(terms)} operands of letters, but {len(tensors)} were given"
        )
    if not arrow:
        whole = "".join(terms)
        output = "".join(sorted(c for c in {*whole} if whole.count(c) == 1))
    sizes: dict[str, Size] = {}
    for k, (term, x) in enumerate(zip(terms, tensors, strict=True)):
        if len(term) != x._l.ndim:
            raise ArgumentError(f"einsum: {term!r} names {len(term)} axes, but operand {k} is {x._l.type}")
        if len({*term}) != len(term):
            raise UnsupportedError(f"einsum: a letter repeated in one operand ({term!r}) is not supported; use diag()")
        for c, size in zip(term, x.ttype.shape, strict=True):
            if sizes.setdefault(c, size) != size:
                raise ShapeError(f"einsum: letter {c!r} has size {sizes[c]} and, in operand {k} ({x._l.type}), {size}")
    if len({*output}) != len(output) or any(c not in sizes for c in output):
        raise ArgumentError(f"einsum: output {output!r} of {equation!r} must use letters of the operands, each once")
    return terms, output


def _sum_out(x: Tensor, letters: str, kept: str) -> tuple[Tensor, str]:
    gone = tuple(k for k, c in enumerate(letters) if c not in kept)
    if gone:
        x = fr.sum(x, gone) if x.dtype.is_floating_point else convert(fr.sum(x, gone), x.dtype)
    return x, "".join(c for c in letters if c in kept)


def _contract(x: Tensor, a: str, y: Tensor, b: str, later: str) -> tuple[Tensor, str]:
    """Two operands into one whose axes are the letters that are still needed."""
    x, y = _pair("einsum", x, y)
    x, a = _sum_out(x, a, b + later)
    y, b = _sum_out(y, b, a + later)
    batch = [c for c in a if c in b and c in later]
    inner_ = [c for c in a if c in b and c not in later]
    rows, columns = [c for c in a if c not in b], [c for c in b if c not in a]
    size = dict(zip(a, x.ttype.shape, strict=True)) | dict(zip(b, y.ttype.shape, strict=True))
    letters = "".join(batch + rows + columns)
    if not inner_:
        left = fs.reshape(_order(x, a, batch + rows), *(size[c] for c in batch + rows), *(1 for _ in columns))
        right = fs.reshape(
            _order(y, b, batch + columns), *(size[c] for c in batch), *(1 for _ in rows), *(size[c] for c in columns)
        )
        return fm.mul(left, right), letters
    lead = tuple(size[c] for c in batch)
    m, k, n = (_product(size[c] for c in group) for group in (rows, inner_, columns))
    left = fs.reshape(_order(x, a, batch + rows + inner_), *lead, m, k)
    right = fs.reshape(_order(y, b, batch + inner_ + columns), *lead, k, n)
    return fs.reshape(ops.matmul(left, right), tuple(size[c] for c in letters)), letters


def _order(x: Tensor, letters: str, wanted: list[str]) -> Tensor:
    return x if [*letters] == wanted else fs.permute(x, tuple(letters.index(c) for c in wanted))


def _product(sizes: Iterable[Size]) -> Size:
    total: Size = 1
    for s in sizes:
        total = total * s
    return total


ger = outer
