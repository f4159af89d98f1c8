"""gradcheck: gradients against central differences, element by element."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError, AutogradError, UnsupportedError
from graphc.frontend.backward import grad
from graphc.frontend.given import callable_given
from graphc.frontend.mode import using
from graphc.frontend.tensor import Tensor, fresh
from graphc.ir.op import Array
from graphc.ir.types import float64

__all__ = ["GradcheckError", "gradcheck", "gradgradcheck"]

Function = Callable[..., Any]


class GradcheckError(AutogradError):
    """A gradient is not what the differences say."""


def gradcheck(
    func: Function,
    inputs: Any,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_batched_forward_grad: bool = False,
    check_forward_ad: bool = False,
    check_backward_ad: bool = True,
    fast_mode: bool = False,
    masked: bool | None = None,
) -> bool:
    """True when the gradients of `func(*inputs)` agree with central differences of step `eps`.

    Checked are the inputs that require gradients, which should be float64, and every floating-point output: all
    elements of the Jacobian within `atol + rtol * |difference|`, or with `fast_mode` its product with one vector on
    each side; that two backward passes differ by no more than `nondet_tol`; that a gradient of zeros gives zeros; and
    that backward takes outputs without a gradient. Raises GradcheckError at the first failure (False without
    `raise_exception`), ArgumentError where there is nothing to check, UnsupportedError for the checks of forward-mode
    and batched gradients.
    """
    unsupported = {
        "check_batched_grad": check_batched_grad,
        "check_batched_forward_grad": check_batched_forward_grad,
        "check_forward_ad": check_forward_ad,
        "masked": masked,
    }
    for name, on in unsupported.items():
        if on:
            raise UnsupportedError(f"gradcheck: {name}=True is not supported; gradients are dense and go backwards")
    if not check_backward_ad:
        raise ArgumentError("gradcheck: check_backward_ad=False leaves nothing to check")
    check = _Check(callable_given("gradcheck", "func", func), inputs, eps, atol, rtol, nondet_tol)
    try:
        with using(grad=True):
            check.run(fast_mode, check_undefined_grad, check_grad_dtypes)
    except GradcheckError:
        if raise_exception:
            raise
        return False
    return True


class _Check:
    """One function with its inputs and tolerances."""

    def __init__(self, func: Function, inputs: Any, eps: float, atol: float, rtol: float, nondet_tol: float) -> None:
        self.func = func
        self.inputs: tuple[Any, ...] = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
        self.eps, self.atol, self.rtol, self.nondet_tol = eps, atol, rtol, nondet_tol
        self.wanted = [(k, x) for k, x in enumerate(self.inputs) if isinstance(x, Tensor) and x.requires_grad]
        if not self.wanted:
            raise ArgumentError(
                "gradcheck expects at least one input tensor to require gradient, but none of them have "
                "requires_grad=True"
            )
        for k, x in self.wanted:
            if x.dtype is not float64:
                warnings.warn(
                    f"gradcheck: input {k} is {x._l.type}; differences are too coarse for the default tolerances "
                    "unless it is float64",
                    UserWarning,
                    stacklevel=4,
                )
            if not x._a.flags.writeable or any(s == 0 and n > 1 for s, n in zip(x._l.strides, x._l.shape, strict=True)):
                raise ArgumentError(f"gradcheck: elements of input {k} share memory or are read-only; clone() it")

    def outputs(self) -> list[Tensor]:
        """The floating-point outputs. They do not share memory with the inputs, which will be moved."""
        found = self.func(*self.inputs)
        items = found if isinstance(found, (tuple, list)) else (found,)
        if not all(isinstance(t, Tensor) for t in items):
            raise ArgumentError("gradcheck expects the function to return a Tensor or a tuple of Tensors")
        return [t for t in items if t.dtype.is_floating_point]

    def run(self, fast: bool, undefined: bool, dtypes: bool) -> None:
        """All checks. Raises GradcheckError."""
        outputs = self.outputs()
        if not any(o.requires_grad for o in outputs):
            self._expect_constant(outputs)
            return
        for k, out in enumerate(outputs):
            if fast:
                self._compare_products(k, out)
            else:
                self._compare(k, out)
        live = [o for o in self.outputs() if o.requires_grad]
        self._zeros_give_zeros(live, "backward is not multiplied by grad_output", dtypes)
        if undefined:
            for k in range(len(live) if len(live) > 1 else 0):
                rest = [o for j, o in enumerate(self.outputs()) if o.requires_grad and j != k]
                if rest:
                    self._zeros_give_zeros(rest, f"backward does not handle a missing gradient of output {k}", dtypes)

    # ---- the two sides

    def _moved(self, x: Tensor, step: Array) -> list[Array]:
        """The outputs with `step` added to `x`."""
        kept = x._a.copy()
        try:
            np.add(kept, step, out=x._a)
            x._s.version += 1
            with using(grad=False):
                return [np.array(o._a, np.float64) for o in self.outputs()]
        finally:
            np.copyto(x._a, kept)
            x._s.version += 1

    def _slope(self, k: int, x: Tensor, step: Array) -> Array:
        """The derivative of output `k` along `step` (of length eps)."""
        slope: Array = (self._moved(x, step)[k] - self._moved(x, -step)[k]) / (2 * self.eps)
        return slope

    def _numeric(self, k: int, x: Tensor) -> Array:
        columns = []
        for place in np.ndindex(x._l.shape):
            step = np.zeros(x._l.shape, x._a.dtype)
            step[place] = self.eps
            columns.append(self._slope(k, x, step).reshape(-1))
        return np.array(columns).reshape(x._l.size, -1)

    def _gradients(self, out: Tensor, seed: Array) -> list[Array]:
        """The gradients of all inputs, zeros where there is none."""
        if not out.requires_grad:
            return [np.zeros(x._l.shape) for _, x in self.wanted]
        found = grad(out, [x for _, x in self.wanted], _like(out, seed), retain_graph=True, allow_unused=True)
        pairs = zip(found, self.wanted, strict=True)
        return [np.zeros(x._l.shape) if g is None else np.array(g._a, np.float64) for g, (_, x) in pairs]

    def _analytic(self, out: Tensor) -> list[Array]:
        rows: list[list[Array]] = [[] for _ in self.wanted]
        for place in np.ndindex(out._l.shape):
            seed = np.zeros(out._l.shape)
            seed[place] = 1.0
            for row, g in zip(rows, self._gradients(out, seed), strict=True):
                row.append(g.reshape(-1))
        return [np.array(r).reshape(-1, x._l.size).T for r, (_, x) in zip(rows, self.wanted, strict=True)]

    # ---- comparisons

    def _compare(self, k: int, out: Tensor) -> None:
        first, second = self._analytic(out), self._analytic(out)
        for (j, x), a, b in zip(self.wanted, first, second, strict=True):
            self._repeats(j, a, b)
            n = self._numeric(k, x)
            if not np.all(np.abs(a - n) <= self.atol + self.rtol * np.abs(n)):  # NaN is no agreement
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {j},\nnumerical:{n}\nanalytical:{a}\n"
                )

    def _compare_products(self, k: int, out: Tensor) -> None:
        seed = _row(out._l.shape, 1)
        first, second = self._gradients(out, seed), self._gradients(out, seed)
        for (j, x), a, b in zip(self.wanted, first, second, strict=True):
            self._repeats(j, a, b)
            along = _row(x._l.shape, 2)
            n = float((self._slope(k, x, (along * self.eps).astype(x._a.dtype)) * seed).sum())
            product = float((a * along).sum())
            if not abs(product - n) <= self.atol + self.rtol * abs(n):
                raise GradcheckError(
                    f"Jacobian mismatch for output {k} with respect to input {j} in fast mode, numerical: {n}, "
                    f"analytical: {product}; fast_mode=False shows where"
                )

    def _repeats(self, j: int, first: Array, second: Array) -> None:
        if first.size and float(np.max(np.abs(first - second))) > self.nondet_tol:
            raise GradcheckError(
                f"Backward is not reentrant, i.e., running backward with the same input and grad_output multiple times "
                f"gives different values for input {j}; the tolerance is nondet_tol={self.nondet_tol}"
            )

    def _expect_constant(self, outputs: list[Tensor]) -> None:
        for k in range(len(outputs)):
            for j, x in self.wanted:
                if np.any(np.abs(self._numeric(k, x)) > self.atol):
                    raise GradcheckError(
                        f"Numerical gradient for function expected to be zero: output {k} has no history, but depends "
                        f"on input {j}"
                    )

    def _zeros_give_zeros(self, outputs: Sequence[Tensor], problem: str, dtypes: bool) -> None:
        inputs = [x for _, x in self.wanted]
        seeds = [_like(o, np.zeros(o._l.shape)) for o in outputs]
        try:
            found = grad(outputs, inputs, seeds, allow_unused=True)
        except GradcheckError:
            raise
        except Exception as error:
            raise GradcheckError(f"{problem}: {error}") from error
        for (j, x), g in zip(self.wanted, found, strict=True):
            if g is None:
                continue
            if np.any(g._a != 0):
                raise GradcheckError(f"{problem}: gradients of zero give {g._a} for input {j}")
            if dtypes and g.dtype is not x.dtype:
                raise GradcheckError(f"the gradient of input {j} is {g._l.type}, but the input {x._l.type}")


def _like(t: Tensor, values: Array) -> Tensor:
    return fresh(np.array(values, t.dtype.np))


def _row(shape: tuple[int, ...], which: int) -> Array:
    """A vector of unit length with no zero in it, the same each time."""
    size = int(np.prod(shape))
    values = np.cos(np.arange(size) * 0.7 + which) + 1.5
    length = float(np.sqrt((values * values).sum()))
    row: Array = (values / (length or 1.0)).reshape(shape)
    return row


def gradgradcheck(
    func: Function,
    inputs: Any,
    grad_outputs: Any = None,
    *,
    eps: float = 1e-6,
    atol: float = 1e-5,
    rtol: float = 1e-3,
    gen_non_contig_grad_outputs: bool = False,
    raise_exception: bool = True,
    nondet_tol: float = 0.0,
    check_undefined_grad: bool = True,
    check_grad_dtypes: bool = False,
    check_batched_grad: bool = False,
    check_fwd_over_rev: bool = False,
    check_rev_over_rev: bool = True,
    fast_mode: bool = False,
    masked: bool = False,
) -> bool:
    """gradcheck() of the gradients of `func`, as functions of its inputs and of the gradients of its outputs.

    These are `grad_outputs`, or made up, then with strides if `gen_non_contig_grad_outputs`. Raises as gradcheck().
    """
    if check_fwd_over_rev:
        raise UnsupportedError("gradgradcheck: check_fwd_over_rev=True is not supported; gradients go backwards")
    if not check_rev_over_rev:
        raise ArgumentError("gradgradcheck: check_rev_over_rev=False leaves nothing to check")
    given: tuple[Any, ...] = tuple(inputs) if isinstance(inputs, (tuple, list)) else (inputs,)
    if grad_outputs is None:
        grad_outputs = _made_up(func, given, gen_non_contig_grad_outputs)
    elif isinstance(grad_outputs, Tensor):
        grad_outputs = (grad_outputs,)
    seeds = tuple(grad_outputs)
    wanted = [k for k, x in enumerate(given) if isinstance(x, Tensor) and x.requires_grad]

    def slopes(*args: Any) -> tuple[Tensor, ...]:
        own, vectors = args[: len(given)], args[len(given) :]
        with using(grad=True):  # differences are taken without gradients, but this function is made of them
            found = grad(
                _differentiable(func(*own)), [own[k] for k in wanted], vectors, create_graph=True, allow_unused=True
            )
        return tuple(g for g in found if g is not None)

    return gradcheck(
        slopes,
        (*given, *seeds),
        eps=eps,
        atol=atol,
        rtol=rtol,
        raise_exception=raise_exception,
        nondet_tol=nondet_tol,
        check_undefined_grad=check_undefined_grad,
        check_grad_dtypes=check_grad_dtypes,
        check_batched_grad=check_batched_grad,
        fast_mode=fast_mode,
        masked=masked,
    )


def _differentiable(result: Any) -> list[Tensor]:
    items = result if isinstance(result, (tuple, list)) else (result,)
    return [t for t in items if isinstance(t, Tensor) and t.requires_grad]


def _made_up(func: Function, given: tuple[Any, ...], strided: bool) -> tuple[Tensor, ...]:
    with using(grad=True):
        outputs = _differentiable(func(*given))
    made = []
    for k, o in enumerate(outputs):
        values = np.array(_row(o._l.shape, k + 3) * 3, o.dtype.np)  # of 0-d too, not a NumPy scalar
        if strided and values.ndim:
            room = np.zeros((*values.shape[:-1], 2 * values.shape[-1]), values.dtype)
            room[..., ::2] = values
            values = room[..., ::2]
        made.append(fresh(values).requires_grad_())
    return tuple(made)


GradcheckError.__module__ = "graphc.autograd"
