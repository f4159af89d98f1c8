"""Gradients of every operation of the table, of first and second order, against differences in float64; those of
narrow floats against float64; those of second order in a compiled function against eager's bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from gradient_checks import check_compiled, check_first, check_narrow, check_second, tensors_of
from op_checks import all_samples, sample_arrays
from op_runs import LAYOUTS

import graphc
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array, Control, Op, Sample, all_ops
from graphc.ir.types import bfloat16, float16, float32, float64

DIFFERENTIABLE = [name for name, op in sorted(all_ops().items()) if op.differentiable]
OTHERS = [
    name
    for name, op in sorted(all_ops().items())
    if not op.differentiable and float64 in op.dtypes and not isinstance(op.lower, Control)
]
WRT = {"cross_entropy": (0,)}  # class weights get no gradient
LEAST = 5  # samples of an op that have elements
FORMS = [np.copy, *(form for name, form in LAYOUTS.items() if name != "backwards")]  # a Tensor has no such strides


def fit(op: Op) -> list[Sample]:
    """The samples with a gradient in float64."""
    found = [s for s in all_samples(op) if s.grad and (s.dtypes is None or float64 in s.dtypes)]
    return [s for s in found if any(np.asarray(a).dtype.kind == "f" for a in s.inputs)]


def laid_out(array: Array, form: int) -> Array:
    """The array in one of the layouts; an empty one, or one of a single number, as it is."""
    return np.array(array) if array.size < 2 else FORMS[form % len(FORMS)](array)


def samples(op: Op) -> Iterator[tuple[str, tuple[Array, ...], Any]]:
    """Every sample, in changing layouts; the same ones in others where there are fewer than LEAST."""
    found = fit(op)
    full = [s for s in found if all(np.size(a) for a in s.inputs)]
    more = [full[k % len(full)] for k in range(LEAST - len(full))] if full else []
    for k, sample in enumerate([*found, *more]):
        arrays = tuple(laid_out(a, k + (k >= len(found))) for a in sample_arrays(sample, float64))
        yield f"{op.name} {k} {sample.name} {dict(sample.attrs)}", arrays, sample.attrs


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_first_order(name: str) -> None:
    op, count = all_ops()[name], 0
    for label, arrays, attrs in samples(op):
        check_first(lambda *t, attrs=attrs: op(*t, **attrs), arrays, label, WRT.get(name))
        count += all(a.size for a in arrays)
    assert count >= LEAST


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_order(name: str) -> None:
    op = all_ops()[name]
    for label, arrays, attrs in samples(op):
        check_second(lambda *t, attrs=attrs: op(*t, **attrs), arrays, label, WRT.get(name))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_second_order_compiled(name: str) -> None:
    op = all_ops()[name]
    found = [given for given in samples(op) if all(a.size for a in given[1])]
    label, arrays, attrs = found[len(found) // 2]
    check_compiled(lambda *t: op(*t, **attrs), arrays, label, WRT.get(name))


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_narrow_floats(name: str) -> None:
    op = all_ops()[name]
    dtypes = [dtype for dtype in (float32, float16, bfloat16) if dtype in op.dtypes]
    for k, (label, arrays, attrs) in enumerate([*samples(op)][: len(dtypes) + 1]):
        dtype = dtypes[k % len(dtypes)]
        check_narrow(lambda *t, attrs=attrs: op(*t, **attrs), arrays, dtype, label, WRT.get(name))


@pytest.mark.parametrize("name", OTHERS)
def test_what_has_no_gradient_says_so(name: str) -> None:
    op = all_ops()[name]
    for sample in all_samples(op):
        if sample.dtypes is not None and float64 not in sample.dtypes:
            continue
        arrays = [np.array(a) for a in sample_arrays(sample, float64)]
        places = [k for k, a in enumerate(arrays) if a.dtype == np.float64]
        found = op(*tensors_of(arrays, places), **sample.attrs)
        for out in found if isinstance(found, tuple) else (found,):
            assert isinstance(out, Tensor) and not out.requires_grad
            with pytest.raises(graphc.errors.AutogradError):
                out.sum().backward() if out.dtype.is_floating_point else out.backward()
