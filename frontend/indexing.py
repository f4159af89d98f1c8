"""`x[...]`: reading and writing parts of a tensor.

Ints, slices, None and Ellipsis make views. Integer tensors and lists pick elements and copy: those of one key broadcast
together, and their axes stand where the first of them stood, or first when something that stays is between them
(NumPy's rule; an int or 0-d tensor leaves no axis and counts as nothing). A boolean mask stands for the places of its
true elements, one index for each of its axes; their number depends on values, so a recording refuses it; writing
through a mask alone is a `where`.
"""

from __future__ import annotations

import warnings
from operator import index as as_index
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from graphc.frontend import functional_math as fm
from graphc.frontend import functional_shape as fs
from graphc.frontend import hot
from graphc.frontend.autograd import ticket
from graphc.frontend.autograd_inplace import check_inplace
from graphc.frontend.compaction import flat, places_where, unravelled
from graphc.frontend.functional_index import check_range
from graphc.frontend.mode import mode
from graphc.frontend.ops import ops
from graphc.frontend.promote import Operand, convert, lift, plain, tensor_operand
from graphc.frontend.scalar import Scalar
from graphc.frontend.tensor import Tensor
from graphc.ir.infer import broadcast_shape
from graphc.ir.types import Dim, Size, bool_, int32, int64, uint8

__all__ = ["index_put", "masked_select", "nonzero"]


@hot.indexed
def get(self: Tensor, key: Any) -> Tensor:
    """`self[key]`: a view for ints, slices, None and Ellipsis, else a copy. Raises IndexingError."""
    if isinstance(key, Tensor) and key.dtype is bool_ and key._l.ndim == self._l.ndim:
        return masked_select(self, key, exact=True)
    view, picks = _basic(self, key)
    if not picks:
        return view if view is not self else ops.reshape(self, shape=self.ttype.shape)
    return _pick(view, picks)


def set(self: Tensor, key: Any, value: Any) -> None:
    """`self[key] = value`: broadcast and converted to the dtype of this tensor.

    Raises IndexingError, ShapeError, DTypeError.
    """
    from graphc.frontend.inplace import store

    if mode.get().grad:
        check_inplace(self, "setitem")
    if isinstance(key, np.ndarray) and key.dtype == np.bool_:
        from graphc.frontend.creation import tensor

        key = tensor(key)
    if (
        isinstance(key, Tensor)
        and key.dtype is bool_
        and (key._l.ndim or not self._l.ndim)
        and (key._l.shape == self._l.shape[: key._l.ndim])
    ):
        _set_masked(self, key, value)
        return
    view, picks = _basic(self, key)
    since = ticket()
    if not picks:
        store(view, _fitted(value, view), "setitem", since)
        return
    store(view, _put(view, picks, value), "setitem", since)


def _value(value: Any, target: Tensor) -> Tensor:
    if isinstance(value, (list, tuple, np.ndarray)):
        from graphc.frontend.creation import tensor

        value = tensor(value)
    return lift(plain("setitem", value), target.dtype, "setitem")


def _fitted(value: Any, target: Tensor) -> Tensor:
    source = _value(value, target)
    shape = target.ttype.shape
    while source._l.ndim > len(shape) and source.ttype.shape[0] == 1:
        source = fs.squeeze(source, 0)
    if source.ttype.shape == shape:
        return ops.clone(source) if source.requires_grad and source is value else source
    return fs.expand_for("setitem", source, shape)


# ---------------------------------------------------------------- ints, slices, None, Ellipsis


def _basic(x: Tensor, key: Any) -> tuple[Tensor, list[tuple[int, Tensor]]]:
    """The view the basic parts of a key give, and (axis of the view, index) for the integer tensors."""
    parts = _expanded(x, key)
    axis = 0
    picks: list[tuple[int, Tensor]] = []
    for part in parts:
        if part is None:
            x, axis = fs.unsqueeze(x, axis), axis + 1
        elif _is_truth(part):
            x = fs.unsqueeze(x, axis)
            picks.append((axis, _truth_place(part)))
            axis += 1
        elif isinstance(part, slice):
            x, axis = _sliced(x, axis, part), axis + 1
        elif isinstance(part, _SEQUENCES):
            for index in _integers(part, x, axis):
                picks.append((axis, index))
                axis += 1
        else:
            x = _selected(x, axis, part)
    return x, picks


_SEQUENCES = (Tensor, np.ndarray, list, tuple, range)


def _is_truth(part: Any) -> bool:
    """True for bools and 0-d masks: they add an axis of size 1 or 0."""
    if isinstance(part, (bool, np.bool_)):
        return True
    return isinstance(part, (Tensor, np.ndarray)) and not part.ndim and _is_mask(part)


def _truth_place(part: Any) -> Tensor:
    """The index a bool stands for along its axis."""
    from graphc.frontend.creation import zeros

    return zeros(1 if bool(part) else 0, dtype=int64)


def _expanded(x: Tensor, key: Any) -> list[Any]:
    """The key as a list of parts, the Ellipsis replaced by whole slices."""
    parts = list(key) if isinstance(key, tuple) else [key]
    used = sum(_axes_used(p) for p in parts)
    if used > x._l.ndim:
        raise IndexingError(
            f"index: too many indices for tensor of dimension {x._l.ndim}: got {used} for {x._l.type}; give at most "
            f"{x._l.ndim}"
        )
    dots = [k for k, p in enumerate(parts) if p is Ellipsis]
    if len(dots) > 1:
        raise IndexingError("index: an index can only have a single ellipsis ('...'); write the other as slices")
    if dots:
        parts[dots[0] : dots[0] + 1] = [slice(None)] * (x._l.ndim - used)
    return parts


def _axes_used(part: Any) -> int:
    if part is None or part is Ellipsis:
        return 0
    if _is_truth(part):
        return 0
    if isinstance(part, (Tensor, np.ndarray)) and _is_mask(part):
        return part.ndim
    if isinstance(part, list) and (depth := _mask_depth(part)):
        return depth
    if isinstance(part, (float, str)) or not (
        isinstance(part, (slice, Scalar, *_SEQUENCES)) or hasattr(part, "__index__")
    ):
        raise IndexingError(
            "index: only integers, slices (`:`), ellipsis (`...`), None and long or bool Tensors are valid indices "
            f"(got {type(part).__name__} {part!r:.40})"
        )
    return 1


def _is_mask(part: Any) -> bool:
    if isinstance(part, Tensor):
        return part.dtype is bool_ or part.dtype is uint8
    return part.dtype in (np.bool_, np.uint8)


def _mask_depth(part: list[Any]) -> int:
    """Of how many dimensions a list of bools is as a mask; 0 for other lists."""
    depth = 0
    first: Any = part
    while isinstance(first, list) and first:
        depth, first = depth + 1, first[0]
    return depth if isinstance(first, (bool, np.bool_)) else 0


def _sliced(x: Tensor, axis: int, part: slice) -> Tensor:
    if part == slice(None):
        return x
    step = 1 if part.step is None else as_index(part.step)
    if step <= 0:
        raise ArgumentError(f"index: slice step must be greater than zero, got {step} for {x._l.type}; use flip()")
    size = x.ttype.shape[axis]
    bounds = _bound(part.start), _bound(part.stop)
    if isinstance(size, Dim) or any(isinstance(b, Dim) for b in bounds):
        start, stop = _named_bounds(bounds, size)
    else:
        start, stop, _ = slice(*bounds, step).indices(size)
        stop = max(stop, start)
    made: Tensor = ops.slice(x, dim=axis, start=start, stop=stop, step=step)
    return made


def _named_bounds(bounds: tuple[Size | None, Size | None], size: Size) -> tuple[Size, Size]:
    """Bounds of a slice along a named size.

    Where the size depends on values, whether they are cut to fit is a condition. Elsewhere nothing is cut, and a size
    that does not fit is an error when it is bound.
    """
    start, stop = bounds
    first = 0 if start is None else size + start if isinstance(start, int) and start < 0 else start
    last = size if stop is None else size + stop if isinstance(stop, int) and stop < 0 else stop
    if not getattr(mode.get().recorder, "counted", ()):
        return first, last
    first, last = _within(first, size), _within(last, size)
    return first, first if last < first else last


def _within(bound: Size, size: Size) -> Size:
    if bound < 0:
        return 0
    return size if bound > size else bound


def _bound(value: Any) -> Size | None:
    if value is None or isinstance(value, Dim):
        return value
    try:
        return as_index(value)
    except TypeError:
        raise IndexingError(
            f"index: slice indices must be integers or None, got {type(value).__name__} {value!r:.40}"
        ) from None


def _selected(x: Tensor, axis: int, part: Any) -> Tensor:
    k, size = as_index(part), x._l.shape[axis]
    if not -size <= k < size:
        raise IndexingError(
            f"index: index {k} is out of bounds for dimension {axis} with size {size} of {x._l.type}; use {-size} to "
            f"{size - 1}"
        )
    made: Tensor = ops.select(x, dim=axis, index=k if k >= 0 else x.ttype.shape[axis] + k)
    return made


# ---------------------------------------------------------------- integer tensors


def _integers(part: Any, x: Tensor, axis: int) -> list[Tensor]:
    """An index of any kind as int64 tensors, one an axis (a mask gives as many as it has axes)."""
    if not isinstance(part, Tensor):
        from graphc.frontend.creation import tensor, zeros

        part = tensor(part)
        if not part._l.size and not part.dtype.is_integer and part.dtype is not bool_:  # of an empty list
            part = zeros(part._l.shape, dtype=int64)
    if part.dtype is uint8:
        warnings.warn("indexing with dtype uint8 is deprecated, use a bool mask instead", UserWarning, stacklevel=4)
        part = fm.ne(part, 0)
    if part.dtype is bool_:
        if part._l.shape != x._l.shape[axis : axis + part._l.ndim]:
            raise IndexingError(
                f"index: the shape of the mask {part._l.type} at index {axis} does not match the shape of the "
                f"indexed tensor {x._l.type}; a mask needs the sizes of the axes it stands for"
            )
        return list(nonzero(part, as_tuple=True))
    if part.dtype is int32:
        part = convert(part, int64)
    if part.dtype is not int64:
        raise IndexingError(
            f"index: tensors used as indices must be long, int, byte or bool tensors, got {part._l.type}; convert it "
            "with .long()"
        )
    return [check_range("index", part, x.ttype.shape[axis], axis)]


def _pick(x: Tensor, picks: list[tuple[int, Tensor]]) -> Tensor:
    x, first, _ = _adjacent(x, picks)
    made: Tensor = ops.index(x, *(i for _, i in picks), dim=first)
    return made


def _adjacent(x: Tensor, picks: list[tuple[int, Tensor]]) -> tuple[Tensor, int, tuple[int, ...] | None]:
    """`x` with the indexed axes next to each other, the first of them, and how to undo that (None: nothing was moved).

    They stay in place unless an axis that is not indexed lies between two that leave one behind.
    """
    axes = [a for a, _ in picks]
    rest = [d for d in range(x._l.ndim) if d not in axes]
    wide = [a for a, i in picks if i._l.ndim] or axes
    apart = any(wide[0] < d < wide[-1] for d in rest)
    first = 0 if apart else sum(d < wide[0] for d in rest)
    order = (*rest[:first], *axes, *rest[first:])
    if order == tuple(range(x._l.ndim)):
        return x, first, None
    return fs.permute(x, order), first, tuple(order.index(d) for d in range(x._l.ndim))


def _put(x: Tensor, picks: list[tuple[int, Tensor]], value: Any, name: str = "setitem", add: bool = False) -> Tensor:
    """`x` with the elements at the places replaced, or `value` added there."""
    moved, first, back = _adjacent(x, picks)
    indices = [i for _, i in picks]
    shape = moved.ttype.shape
    picked = broadcast_shape(name, *(i.ttype.shape for i in indices))
    wanted = (*shape[:first], *picked, *shape[first + len(indices) :])
    source = _value(value, x)
    while source._l.ndim > len(wanted) and source.ttype.shape[0] == 1:
        source = fs.squeeze(source, 0)
    source = fs.expand_for(name, source, wanted)
    made: Tensor = ops.index_put(moved, source, *indices, dim=first, accumulate=add)
    return made if back is None else fs.permute(made, back)


def index_put(input: Tensor, indices: Any, values: Operand, accumulate: bool = False) -> Tensor:
    """`input` with values at the places of integer tensors or masks for its first axes (None: all along one), or added
    there. Raises IndexingError, ShapeError, DTypeError for values of another dtype.
    """
    x = tensor_operand("index_put", input)
    if isinstance(values, Tensor) and values.dtype is not x.dtype:
        raise DTypeError(
            f"index_put: requires the source and destination dtypes match, got {x._l.type} and {values._l.type}"
        )
    key = tuple(slice(None) if i is None else i for i in indices)
    if not all(isinstance(i, (Tensor, slice)) for i in key):
        raise ArgumentError("index_put: indices must be a tuple of tensors or None")
    view, picks = _basic(x, key)
    if not picks:
        raise ArgumentError("index_put: needs at least one index tensor")
    return _put(view, picks, values, "index_put", accumulate)


# ---------------------------------------------------------------- masks


def masked_select(input: Tensor, mask: Tensor, *, exact: bool = False) -> Tensor:
    """The elements where the mask holds, in a row. Raises IndexingError for another shape."""
    if mask.dtype is not bool_:
        raise DTypeError(f"masked_select: expected a bool mask, got {mask._l.type}")
    if exact and mask._l.shape != input._l.shape:
        raise IndexingError(
            f"index: the shape of the mask {mask._l.type} does not match the shape of the indexed tensor "
            f"{input._l.type}; a mask needs the sizes of the axes it stands for"
        )
    x, m = fs.broadcast_tensors(input, mask)
    made: Tensor = ops.index_select(flat(x), places_where(flat(m)), dim=0)
    return made


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """The places of elements that are not zero: one row each, or a tuple of one tensor an axis."""
    x = input if input.dtype is bool_ else fm.ne(input, 0)
    places = places_where(flat(x))
    shape = x.ttype.shape if x._l.ndim or not as_tuple else (1,)
    found = unravelled(places, shape) if shape else ()
    if as_tuple:
        return found
    if not found:
        return ops.clone(ops.slice(fs.unsqueeze(places, 1), dim=1, start=0, stop=0, step=1))
    return fs.stack(found, 1)


def _set_masked(self: Tensor, mask: Tensor, value: Any) -> None:
    from graphc.frontend.inplace import store

    m = fs.reshape(mask, (*mask.ttype.shape, *(1 for _ in range(self._l.ndim - mask._l.ndim))))
    source = _value(value, self)
    since = ticket()
    while source._l.ndim > self._l.ndim and source.ttype.shape[0] == 1:
        source = fs.squeeze(source, 0)
    if source._l.ndim and not _broadcasts(source, self, mask):
        _set_picked(self, mask, source)
        return
    spread = fs.expand_for("setitem", source, self.ttype.shape)
    store(self, fm.where(fs.expand(m, self.ttype.shape), spread, self), "setitem", since)


def _broadcasts(source: Tensor, target: Tensor, mask: Tensor) -> bool:
    """True when every picked row gets the same elements: the value has no axis for the picked places, or one of size
    1.
    """
    rest = target._l.ndim - mask._l.ndim
    lead = source._l.shape[: source._l.ndim - rest] if source._l.ndim > rest else ()
    if source._l.ndim > rest + 1 and any(n != 1 for n in lead):
        raise ShapeError(
            f"setitem: the value {source._l.type} does not fit the elements a mask picks from {target._l.type}"
        )
    return all(n == 1 for n in lead)


def _set_picked(self: Tensor, mask: Tensor, source: Tensor) -> None:
    """x[mask] = values, one for each true element in order."""
    from graphc.frontend.inplace import store

    picks = list(enumerate(nonzero(mask, as_tuple=True)))
    since = ticket()
    count = picks[0][1].ttype.shape[0]
    if source.ttype.shape[0] != count:
        raise ShapeError(
            f"setitem: shape mismatch: {source._l.shape[0]} values cannot be assigned to the {count} elements "
            "the mask picks"
        )
    store(self, _put(self, picks, source), "setitem", since)
