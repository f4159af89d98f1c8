"""Gradients of functions of Tensors against finite differences in float64, and those of narrow floats against float64.

Differences are those of the five-point stencil (Abramowitz and Stegun, 25.3.6): with steps of 2e-5 its own error and
that of rounding lie near 1e-11, so that a tolerance of 1e-5 is about the gradient alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import graphc
from graphc.frontend.tensor import Tensor
from graphc.ir.convert import cast_array
from graphc.ir.op import Array
from graphc.ir.types import DType, float64

RTOL, ATOL = 1e-5, 1e-7
STEP = 2e-5
# Of the largest gradient, or of 1 where all are smaller (upstream gradients are about 1). A gradient of 16 bits is that
# of float32 rounded once, from operands and results that are rounded too.
NARROW = {"float32": 1e-5, "float16": 5e-3, "bfloat16": 2e-2}

Function = Callable[..., Any]


def float_outputs(found: Any) -> list[Tensor]:
    """The float Tensors of what a function gave."""
    parts = found if isinstance(found, (tuple, list)) else (found,)
    return [t for t in parts if isinstance(t, Tensor) and t.dtype.is_floating_point]


def tensors_of(arrays: Sequence[Array], wrt: Sequence[int]) -> list[Tensor]:
    """The arrays as Tensors that share their memory (so their layout); those in `wrt` ask for a gradient."""
    made = [graphc.from_numpy(a) for a in arrays]
    return [t.requires_grad_() if k in wrt else t for k, t in enumerate(made)]


def float_places(arrays: Sequence[Array]) -> list[int]:
    return [k for k, a in enumerate(arrays) if a.dtype == np.float64]


def gradients(f: Function, arrays: Sequence[Array], wrt: Sequence[int], upstream: Sequence[Array]) -> list[Array]:
    """The gradients, in float64, of the outputs weighted by `upstream`; zero where there is none."""
    tensors = tensors_of(arrays, wrt)
    pairs = [
        (o, graphc.from_numpy(u)) for o, u in zip(float_outputs(f(*tensors)), upstream, strict=True) if o.requires_grad
    ]
    if not pairs:
        return [np.zeros(arrays[k].shape) for k in wrt]
    found = graphc.autograd.grad(
        [o for o, _ in pairs], [tensors[k] for k in wrt], [u for _, u in pairs], allow_unused=True
    )
    return [
        np.zeros(arrays[k].shape) if g is None else cast_array(np.asarray(g.numpy()), float64)
        for k, g in zip(wrt, found, strict=True)
    ]


def weighted(f: Function, arrays: Sequence[Array], wrt: Sequence[int], upstream: Sequence[Array]) -> float:
    """The sum of the outputs, weighted by `upstream`."""
    outs = float_outputs(f(*tensors_of(arrays, wrt)))
    return sum(float(np.sum(o.detach().numpy() * u)) for o, u in zip(outs, upstream, strict=True))


def slope(f: Function, arrays: Sequence[Array], wrt: Sequence[int], upstream: Any, k: int, d: Array) -> float:
    """How fast the weighted outputs change when array k moves along d."""

    def at(steps: float) -> float:
        moved = np.empty_like(arrays[k]) if arrays[k].size else arrays[k]
        moved[...] = arrays[k] + steps * STEP * d
        return weighted(f, [moved if j == k else a for j, a in enumerate(arrays)], wrt, upstream)

    return (at(-2) - 8 * at(-1) + 8 * at(1) - at(2)) / (12 * STEP)


def directions(rng: np.random.Generator, shape: tuple[int, ...], axes: int) -> Iterator[Array]:
    """One through all elements, and some along one element each."""
    yield np.asarray(rng.uniform(0.3, 1.0, shape) * rng.choice([-1.0, 1.0], shape))
    size = int(np.prod(shape))
    for place in rng.permutation(size)[:axes]:
        unit = np.zeros(size)
        unit[place] = 1.0
        yield unit.reshape(shape)


def check_first(
    f: Function, arrays: Sequence[Array], label: str, wrt: Sequence[int] | None = None, axes: int = 6
) -> float:
    """Assert that gradients are what differences say; gives the largest error, relative to the gradient + 0.01."""
    rng = np.random.default_rng(3)
    places = float_places(arrays) if wrt is None else list(wrt)
    outs = float_outputs(f(*tensors_of(arrays, places)))
    upstream = [np.asarray(rng.uniform(0.5, 1.5, o.shape) * rng.choice([-1.0, 1.0], o.shape)) for o in outs]
    found = gradients(f, arrays, places, upstream)
    worst = 0.0
    for k, g in zip(places, found, strict=True):
        assert g.shape == arrays[k].shape and g.dtype == np.float64, f"{label}: gradient {k} is {g.dtype}{g.shape}"
        assert np.isfinite(g).all(), f"{label}: gradient of operand {k} is {g}"
        if not g.size:
            continue
        for d in directions(rng, g.shape, axes):
            want, have = slope(f, arrays, places, upstream, k, d), float(np.sum(g * d))
            size = float(np.sum(np.abs(g * d)))
            assert abs(want - have) <= RTOL * size + ATOL, f"{label}: by operand {k}: {have}, differences say {want}"
            worst = max(worst, abs(want - have) / (size + ATOL / RTOL))
    return worst


def gradient_function(f: Function, arrays: Sequence[Array], wrt: Sequence[int]) -> tuple[Function, list[Array]]:
    """The function from operands and upstream gradients to gradients, and its operands."""
    outs = float_outputs(f(*tensors_of(arrays, wrt)))
    rng = np.random.default_rng(4)
    count = len(arrays)

    def first(*tensors: Any) -> Any:
        inputs = [t if t.requires_grad or k not in wrt else t.requires_grad_() for k, t in enumerate(tensors[:count])]
        pairs = [(o, u) for o, u in zip(float_outputs(f(*inputs)), tensors[count:], strict=True) if o.requires_grad]
        if not pairs:
            return ()
        found = graphc.autograd.grad(
            [o for o, _ in pairs], [inputs[k] for k in wrt], [u for _, u in pairs], create_graph=True, allow_unused=True
        )
        return tuple(g for g in found if g is not None)

    return first, [*arrays, *(np.asarray(rng.uniform(0.5, 1.5, o.shape)) for o in outs)]


def check_second(f: Function, arrays: Sequence[Array], label: str, wrt: Sequence[int] | None = None) -> float:
    """Assert that gradients of gradients, by operands and by upstream gradients, are what differences say."""
    places = float_places(arrays) if wrt is None else list(wrt)
    first, given = gradient_function(f, arrays, places)
    return check_first(first, given, f"{label}: of gradients", [*places, *range(len(arrays), len(given))], axes=2)


def check_compiled(f: Function, arrays: Sequence[Array], label: str, wrt: Sequence[int] | None = None) -> None:
    """Assert that a compiled function that gives results, gradients and gradients of gradients gives eager's bits."""
    places = float_places(arrays) if wrt is None else list(wrt)
    first, given = gradient_function(f, arrays, places)
    grads = [*places, *range(len(arrays), len(given))]

    def both(*tensors: Any) -> list[Any]:
        inputs = [t.detach().requires_grad_() if k in grads else t for k, t in enumerate(tensors)]
        found = [g for g in first(*inputs) if g.requires_grad]
        seconds = graphc.autograd.grad(
            found, [inputs[k] for k in grads], [g.detach() * 0.5 + 1 for g in found], allow_unused=True
        ) if found else []  # fmt: skip
        outs = float_outputs(f(*inputs[: len(arrays)]))
        return [*(o.detach() for o in outs), *(g.detach() for g in found), *seconds]

    def told(parts: list[Any]) -> list[Any]:
        return [None if t is None else (str(t.dtype), tuple(t.shape), t.numpy().tobytes()) for t in parts]

    tensors = tensors_of(given, ())
    want = told(both(*tensors))
    compiled = graphc.compile(both, fullgraph=True)
    for _ in range(3):
        assert told(compiled(*tensors)) == want, label
    assert compiled.stats.hits == 1, label


def check_narrow(f: Function, arrays: Sequence[Array], dtype: DType, label: str, wrt: Sequence[int] | None) -> float:
    """Assert that gradients of a narrower float are those of float64 of the same operands, within the tolerance; gives
    the largest error, relative to the largest gradient.
    """
    rng = np.random.default_rng(3)
    places = float_places(arrays) if wrt is None else list(wrt)
    low = [cast_array(a, dtype) if a.dtype == np.float64 else a for a in arrays]
    wide = [cast_array(a, float64) if b.dtype == np.float64 else a for a, b in zip(low, arrays, strict=True)]
    ups = [
        cast_array(np.asarray(rng.uniform(0.5, 1.5, o.shape)), o.dtype) for o in float_outputs(f(*tensors_of(low, ())))
    ]
    found = gradients(f, low, places, ups)
    outs = float_outputs(f(*tensors_of(wide, ())))
    want = gradients(f, wide, places, [cast_array(u, o.dtype) for u, o in zip(ups, outs, strict=True)])
    worst = 0.0
    for k, a, b in zip(places, found, want, strict=True):
        if not b.size:
            continue
        top = max(1.0, float(np.max(np.abs(b))))
        off = float(np.max(np.abs(a - b)))
        assert off <= NARROW[dtype.name] * top, f"{label}: {dtype} by operand {k}: off by {off} of {top}"
        worst = max(worst, off / top)
    return worst
