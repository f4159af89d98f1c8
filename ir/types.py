"""Types: dtypes, named dimensions, tensor types and memory layouts. All are immutable and interned."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Union
from weakref import WeakValueDictionary

import numpy as np

from graphc.errors import ArgumentError, ShapeError


@dataclass(frozen=True, eq=False)
class DType:
    """An element type. Compared by identity: there is one instance a type."""

    name: str
    short: str
    kind: str  # "b" bool, "i" signed integer, "u" unsigned integer, "f" floating point, "c" complex
    itemsize: int
    np: np.dtype[Any] = field(init=False, repr=False)  # bfloat16's comes from ml_dtypes, imported when first asked for

    def __getattr__(self, name: str) -> Any:
        if name != "np":
            raise AttributeError(f"{self!r} has no attribute {name!r}")
        object.__setattr__(self, "np", found := _numpy_dtype(self.name))
        return found

    def __repr__(self) -> str:
        return f"graphc.{self.name}"

    @property
    def is_floating_point(self) -> bool:
        """True for floating-point types."""
        return self.kind == "f"

    @property
    def is_complex(self) -> bool:
        """True for complex types, which can be stored and moved only."""
        return self.kind == "c"

    @property
    def is_signed(self) -> bool:
        """True for types that hold negative numbers."""
        return self.kind in "ifc"

    @property
    def is_integer(self) -> bool:
        """True for integer types; bool is none."""
        return self.kind in "iu"

    @property
    def is_low_precision(self) -> bool:
        """True for float16 and bfloat16: stored in 16 bits, computed in float32."""
        return self.kind == "f" and self.itemsize == 2

    @property
    def bits(self) -> int:
        """Bits an element."""
        return 8 * self.itemsize

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return dtype_named, (self.name,)


def _numpy_dtype(name: str) -> np.dtype[Any]:
    if name == "bfloat16":
        import ml_dtypes  # here, so that those who do without bfloat16 do without its import

        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(name)


bool_ = DType("bool", "b1", "b", 1)
uint8 = DType("uint8", "u8", "u", 1)
int8 = DType("int8", "i8", "i", 1)
int16 = DType("int16", "i16", "i", 2)
int32 = DType("int32", "i32", "i", 4)
int64 = DType("int64", "i64", "i", 8)
float16 = DType("float16", "f16", "f", 2)
bfloat16 = DType("bfloat16", "bf16", "f", 2)
float32 = DType("float32", "f32", "f", 4)
float64 = DType("float64", "f64", "f", 8)
complex64 = DType("complex64", "c64", "c", 8)
complex128 = DType("complex128", "c128", "c", 16)

DTYPES: tuple[DType, ...] = (
    bool_, uint8, int8, int16, int32, int64, float16, bfloat16, float32, float64, complex64, complex128,
)  # fmt: skip
_BY_NAME = {t.name: t for t in DTYPES} | {t.short: t for t in DTYPES}
_BY_NP = {t.np: t for t in DTYPES if t is not bfloat16}


def dtype_named(name: str) -> DType:
    """The dtype called `name` (long or short form). Raises ArgumentError."""
    found = _BY_NAME.get(name)
    if found is None:
        raise ArgumentError(f"unknown dtype {name!r}; known: {', '.join(t.name for t in DTYPES)}")
    return found


def dtype_of(array_dtype: Any) -> DType:
    """The dtype of a NumPy dtype. Raises ArgumentError for one that is not supported."""
    given = np.dtype(array_dtype)
    found = _BY_NP.get(given)
    if found is None and given.name == "bfloat16" and given == bfloat16.np:
        found = _BY_NP[given] = bfloat16
    if found is None:
        raise ArgumentError(
            f"dtype {array_dtype} is not supported; convert it (NumPy: astype) to one of "
            f"{', '.join(t.name for t in DTYPES)}"
        )
    return found


def bits_of(value: bool | int | float | complex, dtype: DType) -> int:
    """The bits of `value` rounded to `dtype`, as an integer; every NaN is the same one. 16-bit floats round twice, by
    way of float32, as all conversions to them do.
    """
    with np.errstate(all="ignore"):
        given = np.asarray(value, np.float32 if dtype.is_low_precision else None).astype(dtype.np).reshape(1)
        given = np.where(given != given, np.asarray(np.nan, dtype.np), given)
    return int.from_bytes(given.tobytes(), "little")


class Dim:
    """A size known by name: an integer polynomial over named symbols (`N`, `2*N + 1`, `N*M`).

    Terms map a monomial (sorted tuple of symbol names) to its coefficient. Equal polynomials are the same object,
    so `==` and hashing are by identity, and a Dim is never equal to an int.
    """

    __slots__ = ("__weakref__", "terms")
    terms: tuple[tuple[tuple[str, ...], int], ...]
    _interned: ClassVar[WeakValueDictionary[tuple[tuple[tuple[str, ...], int], ...], Dim]] = WeakValueDictionary()

    def __new__(cls, name: str) -> Dim:
        if not name.isidentifier():
            raise ArgumentError(f"a dimension name must be an identifier, got {name!r}")
        return _dim_of({(name,): 1})  # type: ignore[return-value]

    # set while user code runs that must not branch on a size: gets (dim, how, other), answers or raises
    ask: ClassVar[Callable[[Dim, str, Any], Any] | None] = None

    def __add__(self, other: Size) -> Size:
        return _dim_of(_merge(_terms(self), _terms(other), 1))

    __radd__ = __add__

    def __sub__(self, other: Size) -> Size:
        return _dim_of(_merge(_terms(self), _terms(other), -1))

    def __rsub__(self, other: Size) -> Size:
        return _dim_of(_merge(_terms(other), _terms(self), -1))

    def __neg__(self) -> Size:
        return self * -1

    def __mul__(self, other: Size) -> Size:
        product: dict[tuple[str, ...], int] = {}
        for m, a in _terms(self).items():
            for n, b in _terms(other).items():
                key = tuple(sorted(m + n))
                product[key] = product.get(key, 0) + a * b
        return _dim_of(product)

    __rmul__ = __mul__

    def __floordiv__(self, other: Size) -> Size:
        return exact_div(self, other)

    def __rfloordiv__(self, other: int) -> Size:
        return exact_div(other, self)

    def __mod__(self, other: Size) -> Size:
        exact_div(self, other)
        return 0

    def _asked(self, how: str, other: Any) -> Any:
        hook = Dim.ask
        return NotImplemented if hook is None else hook(self, how, other)

    def __eq__(self, other: object) -> Any:
        return True if self is other else self._asked("==", other)

    def __ne__(self, other: object) -> Any:
        return False if self is other else self._asked("!=", other)

    def __lt__(self, other: Any) -> Any:
        return self._asked("<", other)

    def __le__(self, other: Any) -> Any:
        return self._asked("<=", other)

    def __gt__(self, other: Any) -> Any:
        return self._asked(">", other)

    def __ge__(self, other: Any) -> Any:
        return self._asked(">=", other)

    def __hash__(self) -> int:
        self._asked("hash", None)
        return object.__hash__(self)

    def __bool__(self) -> bool:
        found = self._asked("bool", None)
        return found if isinstance(found, bool) else True

    def __repr__(self) -> str:
        parts = []
        for monomial, coefficient in self.terms:
            factors = ([] if coefficient == 1 and monomial else [str(coefficient)]) + list(monomial)
            parts.append("*".join(factors))
        return "+".join(parts).replace("+-", "-")

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return _dim_from_terms, (self.terms,)


Size = Union[int, Dim]  # noqa: UP007  (used in annotations evaluated at run time)


def _terms(size: Size) -> dict[tuple[str, ...], int]:
    if isinstance(size, Dim):
        return dict(size.terms)
    return {(): int(size)} if size else {}


def _merge(a: dict[tuple[str, ...], int], b: dict[tuple[str, ...], int], sign: int) -> dict[tuple[str, ...], int]:
    merged = dict(a)
    for monomial, coefficient in b.items():
        merged[monomial] = merged.get(monomial, 0) + sign * coefficient
    return merged


def _dim_of(terms: dict[tuple[str, ...], int]) -> Size:
    kept = tuple(sorted((m, c) for m, c in terms.items() if c))
    if not kept:
        return 0
    if len(kept) == 1 and kept[0][0] == ():
        return kept[0][1]
    return _dim_from_terms(kept)


def _dim_from_terms(terms: tuple[tuple[tuple[str, ...], int], ...]) -> Dim:
    found = Dim._interned.get(terms)
    if found is None:
        found = object.__new__(Dim)
        found.terms = terms
        Dim._interned[terms] = found
    return found


def exact_div(a: Size, b: Size) -> Size:
    """a / b where it divides exactly as polynomials (ints: floor division). Raises ShapeError otherwise."""
    if isinstance(a, int) and isinstance(b, int):
        return a // b
    if a is b:
        return 1
    divisor = list(_terms(b).items())
    if len(divisor) == 1:
        (monomial, coefficient) = divisor[0]
        quotient: dict[tuple[str, ...], int] = {}
        for m, c in _terms(a).items():
            rest = list(m)
            if c % coefficient or any(rest.count(s) < monomial.count(s) for s in monomial):
                break
            for s in monomial:
                rest.remove(s)
            quotient[tuple(rest)] = c // coefficient
        else:
            return _dim_of(quotient)
    raise ShapeError(f"cannot divide the named size {a} by {b} exactly")


def symbols_of(size: Size) -> tuple[str, ...]:
    """The names a size depends on, sorted."""
    return tuple(sorted({s for m in _terms(size) for s in m}))


def evaluate(size: Size, values: Mapping[str, int]) -> int:
    """The number a size stands for under `values`. Raises ArgumentError if a name is missing."""
    if isinstance(size, int):
        return size
    missing = [s for s in symbols_of(size) if s not in values]
    if missing:
        raise ArgumentError(f"no value for the named dimension {missing[0]!r}")
    return sum(c * math.prod(values[s] for s in m) for m, c in size.terms)


Shape = tuple[Size, ...]


class TensorType:
    """dtype and shape, interned: `TensorType(float32, (32, 64)) is TensorType(float32, (32, 64))`."""

    __slots__ = ("__weakref__", "dtype", "shape", "static")
    dtype: DType
    shape: Shape
    static: bool  # every size is a number
    _interned: ClassVar[WeakValueDictionary[tuple[DType, Shape], TensorType]] = WeakValueDictionary()

    def __new__(cls, dtype: DType, shape: Iterable[Size] = ()) -> TensorType:
        shape = tuple(shape)
        found = cls._interned.get((dtype, shape))
        if found is None:
            if any(isinstance(s, int) and s < 0 for s in shape):
                raise ShapeError(f"a size cannot be negative: {list(shape)}")
            found = object.__new__(cls)
            found.dtype = dtype
            found.shape = shape
            found.static = all(isinstance(s, int) for s in shape)
            found = cls._interned.setdefault((dtype, shape), found)
        return found

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def numel(self) -> Size:
        """Number of elements (a Dim when a size is named)."""
        total: Size = 1
        for s in self.shape:
            total = total * s
        return total

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape as ints. Raises ShapeError when a size is named."""
        if not self.static:
            raise ShapeError(f"{self} has named sizes where numbers are needed")
        return self.shape  # type: ignore[return-value]

    @property
    def nbytes(self) -> int:
        """Bytes of a contiguous array of this type."""
        return math.prod(self.sizes) * self.dtype.itemsize

    def with_shape(self, shape: Iterable[Size]) -> TensorType:
        """The same dtype with another shape."""
        return TensorType(self.dtype, shape)

    def with_dtype(self, dtype: DType) -> TensorType:
        """The same shape with another dtype."""
        return TensorType(dtype, self.shape)

    def bind(self, values: Mapping[str, int]) -> TensorType:
        """The type with named sizes replaced by numbers."""
        return self if self.static else TensorType(self.dtype, (evaluate(s, values) for s in self.shape))

    def __repr__(self) -> str:
        return f"{self.dtype.short}[{', '.join(map(str, self.shape))}]"

    def __reduce__(self) -> tuple[Any, tuple[DType, Shape]]:
        return TensorType, (self.dtype, self.shape)


_LAYOUTS: dict[Any, Layout] = {}  # of NumPy arrays met lately
_MAX_LAYOUTS = 4096


def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Row-major strides in elements."""
    strides = []
    step = 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


class Layout:
    """A tensor type with strides (in elements), interned: what a kernel needs to know of an operand but its address."""

    __slots__ = ("__weakref__", "contiguous", "ndim", "shape", "size", "strides", "type")
    type: TensorType
    strides: tuple[int, ...]
    contiguous: bool
    shape: tuple[int, ...]
    ndim: int
    size: int  # number of elements
    _interned: ClassVar[WeakValueDictionary[tuple[TensorType, tuple[int, ...]], Layout]] = WeakValueDictionary()

    def __new__(cls, type: TensorType, strides: tuple[int, ...] | None = None) -> Layout:
        row_major = contiguous_strides(type.sizes)
        strides = row_major if strides is None else strides
        # a stride of a size-1 axis, or any stride of an empty array, is never used: one form for all
        if 0 in type.shape:
            strides = row_major
        else:
            strides = tuple(r if n == 1 else s for s, r, n in zip(strides, row_major, type.sizes, strict=True))
        found = cls._interned.get((type, strides))
        if found is None:
            found = object.__new__(cls)
            found.type = type
            found.strides = strides
            found.contiguous = strides == row_major
            found.shape = type.sizes
            found.ndim, found.size = len(found.shape), math.prod(found.shape)
            found = cls._interned.setdefault((type, strides), found)
        return found

    @classmethod
    def of(cls, array: np.ndarray[Any, Any]) -> Layout:
        """The layout of a NumPy array. Raises ArgumentError for a dtype or strides we do not support."""
        key = (array.dtype, array.shape, array.strides)
        found = _LAYOUTS.get(key)
        if found is not None:
            return found
        dtype = dtype_of(array.dtype)
        item = dtype.itemsize
        if any(s % item for s in array.strides):
            raise ArgumentError("strides must be whole multiples of the element size")
        if len(_LAYOUTS) >= _MAX_LAYOUTS:
            _LAYOUTS.clear()
        found = _LAYOUTS[key] = cls(TensorType(dtype, array.shape), tuple(s // item for s in array.strides))
        return found

    def overlaps(self) -> bool:
        """True when two elements may be at one place in memory; False is certain."""
        if self.contiguous or self.size <= 1:
            return False
        span = 1
        for stride, size in sorted((abs(s), n) for s, n in zip(self.strides, self.shape, strict=True) if n > 1):
            if stride < span:
                return True
            span += stride * (size - 1)
        return False

    def __repr__(self) -> str:
        return f"{self.type}" if self.contiguous else f"{self.type} strides {list(self.strides)}"
