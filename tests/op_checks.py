"""Checks of op records without front end, compiler or runtime: rules run on NumPy arrays through the ops' references.

`ArrayOperand` is the smallest thing an Op can be called on. `evaluate` runs an op's reference; `expand_composition`
runs its decomposition; `check_reference`, `check_gradient`, `check_scatter` compare, and raise AssertionError naming op
and sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from graphc.ir import narrow
from graphc.ir.convert import cast_array
from graphc.ir.op import Array, Op, Sample, default_apply
from graphc.ir.types import DType, TensorType, bool_, dtype_of, float32, float64, int64

COMMON = (bool_, int64, float32, float64)  # tried on every sample
FEW = 3  # samples that every other dtype is tried on


class ArrayOperand:
    """An array an Op can be called on; the op's reference gives the result."""

    def __init__(self, array: Array) -> None:
        self.array = np.asarray(array)
        self.ttype = TensorType(dtype_of(self.array.dtype), self.array.shape)

    @staticmethod
    def apply_op(op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        """Run the reference; Python numbers become 0-d arrays of the first operand's dtype."""
        like = next((x.ttype.dtype for x in operands if isinstance(x, ArrayOperand)), None)
        arrays = []
        for x in operands:
            assert isinstance(x, (ArrayOperand, bool, int, float)), f"{op.name}: operand {x!r}"
            assert isinstance(x, ArrayOperand) or like is not None
            arrays.append(x.array if isinstance(x, ArrayOperand) else np.asarray(x, like.np))  # type: ignore[union-attr]
        found = tuple(ArrayOperand(a) for a in evaluate(op, arrays, attrs))
        return found[0] if op.outputs == 1 else found


class TypeOnly:
    """A stand-in for an operand a rule does not save: it has a type, and to call an op on it is the bug it is there to
    find.
    """

    def __init__(self, type: TensorType) -> None:
        self.ttype = type


@contextmanager
def array_building() -> Iterator[None]:
    """While active, ops without operands (full, iota) give ArrayOperands."""
    token = default_apply().set(ArrayOperand.apply_op)
    try:
        yield
    finally:
        default_apply().reset(token)


def as_tuple(x: Any) -> tuple[Any, ...]:
    """One thing or several as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def evaluate(op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> tuple[Array, ...]:
    """The reference's results; checks that they have exactly the inferred types."""
    types = op.infer_types([TensorType(dtype_of(a.dtype), a.shape) for a in arrays], attrs)
    found = narrow.reference(op, arrays, attrs)
    assert len(found) == len(types) and op.outputs in (None, len(types)), (
        f"{op.name}: {len(found)} results, {len(types)} types, {op.outputs} outputs"
    )
    for a, t in zip(found, types, strict=True):
        assert isinstance(a, np.ndarray), f"{op.name}: reference gave {type(a).__name__}"
        assert TensorType(dtype_of(a.dtype), a.shape) is t, (
            f"{op.name}: reference gave {a.dtype}{a.shape}, inferred {t}"
        )
    return found


def sample_arrays(sample: Sample, dtype: DType) -> tuple[Array, ...]:
    """The sample's operands, float ones cast to `dtype`; every operand when `dtype` is not floating.

    Integers narrower than int64 hold its last bits; the imaginary parts of complex numbers are the parts turned round.
    """
    return tuple(_as_dtype(a, dtype) if a.dtype.kind == "f" else a for a in map(np.asarray, sample.inputs))


def _as_dtype(a: Array, dtype: DType) -> Array:
    if dtype.is_integer:
        return a.astype(np.int64).astype(dtype.np)
    if dtype.is_complex:
        found = a.astype(dtype.np)
        found.imag = np.flip(a)
        return found
    return cast_array(a, dtype)


def is_float(array: Array) -> bool:
    """Whether an array is of a floating-point type (NumPy does not count bfloat16 among them)."""
    return dtype_of(array.dtype).is_floating_point


def cases(op: Op) -> list[tuple[Sample, DType]]:
    """The samples with the dtypes to try them on: all for the common dtypes, FEW, spread evenly, for every other one,
    and those that are there for it.
    """
    samples = all_samples(op)
    found = []
    for dtype in op.dtypes:
        fit = [s for s in samples if s.dtypes is None or dtype in s.dtypes]
        if dtype not in COMMON:
            spread = [fit[k * (len(fit) - 1) // (FEW - 1)] for k in range(FEW)] if len(fit) > FEW else fit
            fit = [s for s in fit if s.dtypes == (dtype,) or any(s is chosen for chosen in spread)]
        found += [(s, dtype) for s in fit]
    return found


def lowered_cases(op: Op) -> list[tuple[Sample, tuple[Array, ...]]]:
    """The cases that the op's lowering takes as they are, with their arrays: those that need no wider type."""
    found = []
    for sample, dtype in cases(op):
        with np.errstate(all="ignore"):
            arrays = sample_arrays(sample, dtype)
        types = [TensorType(dtype_of(a.dtype), a.shape) for a in arrays]
        if not narrow.widens(op, types, sample.attrs):
            found.append((sample, arrays))
    return found


def all_samples(op: Op, seed: int = 0) -> list[Sample]:
    """The op's samples from a fixed seed."""
    return list(op.samples(np.random.default_rng(seed)))


def expand_composition(op: Op, arrays: Sequence[Array], attrs: Mapping[str, Any]) -> tuple[Array, ...] | None:
    """What the decomposition gives, or None when there is none for these operands."""
    if op.decompose is None:
        return None
    with array_building():
        found = narrow.expand(op, [ArrayOperand(a) for a in arrays], attrs)
    return None if found is None else tuple(x.array for x in as_tuple(found))


def check_reference(op: Op, sample: Sample, rtol: float = 1e-12, atol: float = 1e-13) -> None:
    """Reference against inferred type for every dtype, and against the decomposition (wider tolerance for float32)."""
    for dtype in sample.dtypes or op.dtypes:
        arrays = sample_arrays(sample, dtype)
        want = evaluate(op, arrays, sample.attrs)
        found = expand_composition(op, arrays, sample.attrs)
        if found is None:
            continue
        wider = 2e6 if dtype is float32 else 1.0
        assert len(found) == len(want)
        for a, b in zip(found, want, strict=True):
            label = f"{op.name} {sample.name} {dtype}"
            assert a.dtype == b.dtype and a.shape == b.shape, f"{label}: decomposition gave {a.dtype}{a.shape}"
            if dtype.is_low_precision:
                np.testing.assert_array_equal(a.astype(np.float32), b.astype(np.float32), err_msg=label)
            elif not is_float(b):
                np.testing.assert_array_equal(a, b, err_msg=label)
            else:
                np.testing.assert_allclose(a, b, rtol * wider, atol * wider, err_msg=label)


def gradients(
    op: Op,
    arrays: Sequence[Array],
    attrs: Mapping[str, Any],
    upstream: Sequence[Array | None],
    wrt: Sequence[int] | None = None,
) -> tuple[Array | None, ...]:
    """The op's own vjp, or that of its decomposition's nodes; operands not saved are stand-ins.

    `wrt`: the operands whose gradients are wanted, by number; None means every float operand.
    """
    inputs = [ArrayOperand(a) for a in arrays]
    needs = tuple(is_float(a) and (wrt is None or k in wrt) for k, a in enumerate(arrays))
    with array_building():
        if op.vjp is not None:
            return _apply_vjp(op, inputs, attrs, tuple(None if u is None else ArrayOperand(u) for u in upstream), needs)
        return _through_decomposition(op, inputs, attrs, upstream)


def _apply_vjp(
    op: Op, inputs: Sequence[ArrayOperand], attrs: Mapping[str, Any], g: tuple[Any, ...], needs: Sequence[bool]
) -> tuple[Array | None, ...]:
    assert op.vjp is not None
    outs = tuple(ArrayOperand(a) for a in evaluate(op, [x.array for x in inputs], attrs))
    seen = outs if "out" in op.saves else tuple(TypeOnly(o.ttype) for o in outs)
    given = [x if str(k) in op.saves else TypeOnly(x.ttype) for k, x in enumerate(inputs)]
    one = op.outputs == 1
    found = narrow.vjp(op, g[0] if one else g, seen[0] if one else seen, given, needs, attrs)
    assert len(found) == len(inputs), f"{op.name}: {len(found)} gradients for {len(inputs)} operands"
    for grad, x, need in zip(found, inputs, needs, strict=True):
        if need and grad is not None:
            assert grad.ttype is x.ttype, f"{op.name}: gradient {grad.ttype} for operand {x.ttype}"
    return tuple(None if f is None or not n else f.array for f, n in zip(found, needs, strict=True))


class _Taped(ArrayOperand):
    """An ArrayOperand that notes every op applied to it."""

    tape: list[tuple[Op, list[ArrayOperand], Mapping[str, Any], tuple[ArrayOperand, ...]]]

    @staticmethod
    def apply_op(op: Op, operands: Sequence[Any], attrs: Mapping[str, Any]) -> Any:
        taped = [x for x in operands if isinstance(x, _Taped)]
        like = next(x.ttype.dtype for x in operands if isinstance(x, ArrayOperand))
        inputs = [x if isinstance(x, ArrayOperand) else ArrayOperand(np.asarray(x, like.np)) for x in operands]
        found = evaluate(op, [x.array for x in inputs], attrs)
        outs = tuple(_Taped(a) for a in found)
        for o in outs:
            o.tape = taped[0].tape
        taped[0].tape.append((op, inputs, attrs, outs))
        return outs[0] if op.outputs == 1 else outs


def _through_decomposition(
    op: Op, inputs: Sequence[ArrayOperand], attrs: Mapping[str, Any], upstream: Sequence[Array | None]
) -> tuple[Array | None, ...]:
    assert op.decompose is not None, f"{op.name} has neither vjp nor decomposition"
    leaves = [_Taped(x.array) for x in inputs]
    tape: list[Any] = []
    for leaf in leaves:
        leaf.tape = tape
    outs = as_tuple(narrow.expand(op, leaves, attrs))
    sums: dict[ArrayOperand, Array] = {}
    for o, u in zip(outs, upstream, strict=True):
        if u is not None:
            sums[o] = sums[o] + u if o in sums else u
    for node, operands, node_attrs, results in reversed(tape):
        if not any(r in sums for r in results) or not node.differentiable:
            continue
        grads = gradients(node, [x.array for x in operands], node_attrs, [sums.get(r) for r in results])
        for x, g in zip(operands, grads, strict=True):
            if g is not None:
                sums[x] = sums[x] + g if x in sums else g
    return tuple(sums.get(leaf) if leaf.array.dtype.kind == "f" else None for leaf in leaves)


def check_gradient(
    op: Op,
    sample: Sample,
    step: float = 1e-6,
    tol: float = 2e-7,
    wrt: Sequence[int] | None = None,
    through: Callable[..., tuple[Array | None, ...]] = gradients,
) -> None:
    """vjp in float64 against central differences of the reference, along a random direction and a few axes.

    `through` gives the gradients; called like `gradients`.
    """
    if not (op.differentiable and sample.grad) or (sample.dtypes and float64 not in sample.dtypes):
        return
    rng = np.random.default_rng(1)
    arrays = sample_arrays(sample, float64)
    outs = evaluate(op, arrays, sample.attrs)
    upstream = [rng.standard_normal(o.shape) if o.dtype.kind == "f" else None for o in outs]
    grads = through(op, arrays, sample.attrs, upstream, wrt)
    for k, (array, grad) in enumerate(zip(arrays, grads, strict=True)):
        if array.dtype.kind != "f" or (wrt is not None and k not in wrt):
            continue
        have = np.zeros(array.shape) if grad is None else grad
        assert have.shape == array.shape and have.dtype == array.dtype, (
            f"{op.name} {sample.name}: gradient {k} is {have.dtype}{have.shape}"
        )
        for direction in _directions(rng, array.shape):
            want = _difference(op, arrays, k, direction, sample.attrs, upstream, step)
            scale = max(1.0, float(np.sum(np.abs(have))))
            assert abs(want - float(np.sum(have * direction))) <= tol * scale, (
                f"{op.name} {sample.name}: gradient of operand {k} is wrong"
            )


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> Iterator[Array]:
    yield rng.standard_normal(shape)
    size = int(np.prod(shape))
    for place in rng.permutation(size)[:6]:
        unit = np.zeros(size)
        unit[place] = 1.0
        yield unit.reshape(shape)


def _difference(
    op: Op,
    arrays: Sequence[Array],
    k: int,
    direction: Array,
    attrs: Mapping[str, Any],
    upstream: Sequence[Array | None],
    step: float,
) -> float:
    sides = []
    for sign in (1.0, -1.0):
        moved = [a + sign * step * direction if j == k else a for j, a in enumerate(arrays)]
        outs = as_tuple(op.reference(*moved, **attrs))
        sides.append(sum(float(np.sum(o * u)) for o, u in zip(outs, upstream, strict=True) if u is not None))
    return (sides[0] - sides[1]) / (2.0 * step)


def check_scatter(op: Op, sample: Sample) -> None:
    """Writing a value through a view and looking again gives the value; a NumPy view written to gives the same base."""
    if op.scatter is None:
        return
    base = np.array(sample.inputs[0], np.float64)
    value = np.random.default_rng(2).standard_normal(op.reference(base, **sample.attrs).shape)
    with array_building():
        written = op.scatter(ArrayOperand(base), ArrayOperand(value), **sample.attrs)
    assert written.ttype is ArrayOperand(base).ttype
    np.testing.assert_array_equal(
        op.reference(written.array, **sample.attrs), value, err_msg=f"{op.name} {sample.name}"
    )
    want = base.copy()
    op.reference(want, **sample.attrs)[...] = value
    np.testing.assert_array_equal(written.array, want, err_msg=f"{op.name} {sample.name}")
