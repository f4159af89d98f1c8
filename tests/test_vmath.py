"""Accuracy and special values of the functions in codegen/vmath.py, power.py and trig.py.

`python tests/test_vmath.py` prints the table of docs/numerics.md.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from kernel_runs import bits, host_targets, run

from graphc.codegen.target import Target
from graphc.ir.expr import FUNCTIONS, apply, index, load
from graphc.ir.kernel import Map, Store
from graphc.ir.types import DType, float32, float64

Array = np.ndarray[Any, Any]
INF, NAN = math.inf, math.nan

# greatest error allowed, in units in the last place: float32, float64
BOUNDS = {"exp": (1.0, 1.0), "log": (0.8, 0.8), "tanh": (1.3, 1.3), "sigmoid": (2.3, 2.3), "erf": (1.1, 1.1),
          "sin": (1.5, 0.8), "cos": (1.5, 0.8), "pow": (0.501, 1.2)}  # fmt: skip


def compiled(name: str, operands: list[Array], target: Target) -> Array:
    """Function `name` of arrays, by compiled code."""
    dtype = float32 if operands[0].dtype == np.float32 else float64
    place, count = index(0), len(operands)
    value = apply(name, *(load(k, dtype, place) for k in range(count)))
    out = np.empty_like(operands[0])
    kernel = Map((dtype,) * (count + 1), (out.size,), (Store(count, place, value),))
    run(kernel, [*operands, out], target)
    return out


def sigmoid(x: Array) -> Array:
    t = np.exp(-np.abs(x))
    return np.asarray(np.where(x < 0, t, 1) / (1 + t))


def erf(x: Array) -> Array:
    """In long double: the series below 3, the continued fraction of erfc above."""
    x = np.asarray(x, np.longdouble)
    a = np.minimum(np.abs(x), 7)
    near = np.minimum(a, 3)
    term = total = near
    for k in range(1, 100):
        term = term * near * near * 2 / (2 * k + 1)
        total = total + term
    root = np.sqrt(np.arctan(np.longdouble(1)) * 4)
    series = total * np.exp(-near * near) * 2 / root
    far = np.maximum(a, 3)
    fraction = far
    for k in range(120, 0, -1):
        fraction = far + np.longdouble(k) / 2 / fraction
    return np.asarray(np.copysign(np.where(a < 3, series, 1 - np.exp(-far * far) / root / fraction), x))


REFERENCE: dict[str, Callable[..., Array]] = {
    "exp": np.exp, "log": np.log, "tanh": np.tanh, "sigmoid": sigmoid, "erf": erf, "sin": np.sin, "cos": np.cos,
    "pow": np.power,
}  # fmt: skip


def samples(name: str, dtype: DType, n: int, seed: int) -> list[Array]:
    """Arguments all over the range: ordinary sizes and random bits."""
    rng = np.random.default_rng(seed)
    word = np.uint32 if dtype is float32 else np.uint64
    anything = rng.integers(0, np.iinfo(word).max, n // 2, word, endpoint=True).view(dtype.np)
    usual = rng.standard_normal(n - n // 2) * rng.choice([0.01, 0.7, 3, 30, 300], n - n // 2)
    x = np.concatenate([anything, usual.astype(dtype.np)])
    if name != "pow":
        return [x]
    y = (rng.standard_normal(n) * rng.choice([0.5, 3, 20], n)).astype(dtype.np)
    y[::7] = np.round(y[::7])
    x[n // 2 :] = np.abs(x[n // 2 :])
    return [x, y]


def errors(name: str, operands: list[Array], found: Array) -> Array:
    """Error of every finite result in units in the last place. Results that are not finite must be equal."""
    wide = np.float64 if found.dtype == np.float32 and name != "pow" else np.longdouble
    with np.errstate(all="ignore"):
        exact = REFERENCE[name](*(x.astype(wide) for x in operands))
        rounded = exact.astype(found.dtype)
        finite = np.isfinite(rounded) & np.isfinite(found)
        edge = np.isfinite(found) != np.isfinite(rounded)
        wrong = (~finite & ~edge & ~((rounded == found) | (np.isnan(rounded) & np.isnan(found)))) | (
            edge & (np.isnan(found) | np.isnan(rounded) | (np.maximum(abs(found), abs(rounded)) < INF))
        )
        assert not wrong.any(), [(float(x[np.argmax(wrong)])) for x in (*operands, found, rounded)]
        error = np.abs(found.astype(wide) - exact) / np.spacing(np.abs(rounded)).astype(wide)
    return np.asarray(np.where(finite, error, 0), np.float64)


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("name", list(BOUNDS))
def test_accuracy(name: str, dtype: DType) -> None:
    operands = samples(name, dtype, 40_001, 1)
    worst = errors(name, operands, compiled(name, operands, host_targets()[-1]))
    at = int(np.argmax(worst))
    bound = BOUNDS[name][dtype is float64]
    assert worst[at] <= bound, f"{worst[at]:.3f} ulp at {[float(x[at]) for x in operands]}"


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("name", list(BOUNDS))
def test_same_bits_on_every_target_and_width(name: str, dtype: DType) -> None:
    operands = samples(name, dtype, 4_001, 2)
    found = {bits(compiled(name, operands, t)) for t in host_targets()}
    one_by_one = [compiled(name, [x[k : k + 1] for x in operands], host_targets()[0]) for k in range(0, 4_001, 37)]
    assert len(found) == 1
    assert bits(np.concatenate(one_by_one)) == bits(compiled(name, operands, host_targets()[0])[::37])


SPECIAL: dict[str, list[tuple[float, float]]] = {
    "exp": [(INF, INF), (-INF, 0.0), (0.0, 1.0), (-0.0, 1.0), (1e4, INF), (-1e4, 0.0)],
    "log": [(INF, INF), (-INF, NAN), (0.0, -INF), (-0.0, -INF), (1.0, 0.0), (-1.0, NAN)],
    "tanh": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (50.0, 1.0), (1e-40, 1e-40)],
    "sigmoid": [(INF, 1.0), (-INF, 0.0), (0.0, 0.5), (-1e4, 0.0)],
    "erf": [(INF, 1.0), (-INF, -1.0), (0.0, 0.0), (-0.0, -0.0), (10.0, 1.0)],
    "sin": [(INF, NAN), (-INF, NAN), (0.0, 0.0), (-0.0, -0.0), (1e-40, 1e-40)],
    "cos": [(INF, NAN), (-INF, NAN), (0.0, 1.0), (-0.0, 1.0)],
}


@pytest.mark.parametrize("dtype", [float32, float64])
@pytest.mark.parametrize("name", list(SPECIAL))
def test_special_values(name: str, dtype: DType) -> None:
    given = np.array([x for x, _ in SPECIAL[name]] + [NAN], dtype.np)
    wanted = np.array([y for _, y in SPECIAL[name]] + [NAN], dtype.np)
    for target in host_targets():
        assert bits(compiled(name, [given], target)) == bits(wanted)


@pytest.mark.parametrize("dtype", [float32, float64])
def test_pow_of_every_pair_of_special_values(dtype: DType) -> None:
    tiny, huge = np.finfo(dtype.np).smallest_subnormal, np.finfo(dtype.np).max
    values = np.array([0.0, 1.0, 0.5, 2.0, 3.0, 2.5, INF, tiny, huge, 2.0**53, 2.0**52 + 1, NAN], dtype.np)
    values = np.concatenate([values, -values])
    x, y = (a.ravel() for a in np.meshgrid(values, values))
    wanted = np.array([reference_pow(float(a), float(b)) for a, b in zip(x, y, strict=True)])
    with np.errstate(all="ignore"):
        wanted = wanted.astype(dtype.np)
    for target in host_targets():
        found = compiled("pow", [x, y], target)
        close = (found == wanted) & (np.signbit(found) == np.signbit(wanted)) | (np.isnan(found) & np.isnan(wanted))
        near = np.where(np.isfinite(wanted), np.abs(wanted) * np.finfo(dtype.np).eps, 0)  # one or two ulp
        with np.errstate(invalid="ignore"):
            close |= np.abs(found - wanted) <= near
        assert close.all(), [(x[k], y[k], found[k], wanted[k]) for k in np.flatnonzero(~close)[:5]]


def reference_pow(a: float, b: float) -> float:
    """C's pow through math.pow, which raises where C gives inf or NaN."""
    try:
        return math.pow(a, b)
    except OverflowError:
        return -INF if a < 0 and b % 2 == 1 else INF
    except ValueError:
        if a == 0:
            return math.copysign(INF, a) if b % 2 == 1 else INF
        return NAN


def test_huge_angles() -> None:
    """The float64 nearest to a multiple of pi/2 (Kahan), and powers of two to the end of the range."""
    x = np.array([6381956970095103 * 2.0**797, *(2.0**k for k in range(15, 1024, 7)), 1e22])
    with np.errstate(all="ignore"):
        for target in host_targets():
            assert errors("cos", [x], compiled("cos", [x], target)).max() < 0.8
            assert errors("sin", [x], compiled("sin", [x], target)).max() < 0.8


@pytest.mark.parametrize("dtype", [float32, float64])
def test_remainders_are_exact(dtype: DType) -> None:
    (x,), (y,) = samples("exp", dtype, 500, 3), samples("exp", dtype, 500, 4)
    keep = np.isfinite(x) & np.isfinite(y) & (y != 0)
    x, y = x[keep], y[keep]
    for target in host_targets():
        found = compiled("fmod", [x, y], target)
        for a, b, r in zip(x, y, found, strict=True):
            exact = abs(Fraction(float(a))) % abs(Fraction(float(b)))
            assert Fraction(float(r)) == (exact if a > 0 else -exact)
            assert np.signbit(r) == np.signbit(a)


def test_the_table_names_every_function() -> None:
    assert set(BOUNDS) == set(REFERENCE) and set(BOUNDS) <= set(FUNCTIONS)


def print_table(n: int = 400_000) -> None:
    """Greatest and mean error of each function in ulp, as Markdown."""
    print("| function | float32 max | mean | float64 max | mean |\n|---|---|---|---|---|")
    for name in BOUNDS:
        row = []
        for dtype in (float32, float64):
            operands = samples(name, dtype, n, 5)
            error = errors(name, operands, compiled(name, operands, host_targets()[-1]))
            row += [f"{error.max():.2f}", f"{error.mean():.2f}"]
        print(f"| {name} | {' | '.join(row)} |")


if __name__ == "__main__":
    print_table()
