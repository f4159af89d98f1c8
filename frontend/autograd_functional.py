"""Products with Jacobians and Hessians of functions, and these matrices whole: all from backward passes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError, AutogradError, ShapeError, UnsupportedError
from graphc.frontend.backward import grad
from graphc.frontend.creation import ones_like, zeros_like
from graphc.frontend.functional import stack
from graphc.frontend.mode import using
from graphc.frontend.tensor import Tensor, alias_of

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = Tensor | tuple[Tensor, ...]


def _tuple(given: Any, name: str, what: str) -> tuple[bool, tuple[Tensor, ...]]:
    """Whether `given` is a tuple, and it as one. Raises ArgumentError for anything but tensors."""
    if isinstance(given, Tensor):
        return False, (given,)
    found = tuple(given) if isinstance(given, (tuple, list)) else (given,)
    for k, t in enumerate(found):
        if not isinstance(t, Tensor):
            raise ArgumentError(
                f"{name}: {what} must be a Tensor or a tuple of Tensors, element {k} is a {type(t).__name__}"
            )
    return True, found


def _bare(found: tuple[Any, ...], many: bool) -> Any:
    return found if many else found[0]


def _leaves(inputs: tuple[Tensor, ...], create_graph: bool) -> tuple[Tensor, ...]:
    """The inputs as tensors gradients flow to: views where a graph is wanted, else leaves of their own."""
    if create_graph:
        return tuple(t.view(t.shape) if t.requires_grad else alias_of(t).requires_grad_() for t in inputs)
    return tuple(alias_of(t).requires_grad_() for t in inputs)


def _vectors(v: Any, like: tuple[Tensor, ...], name: str, what: str) -> tuple[Tensor, ...]:
    """`v` as tensors of the types of `like`; 1 where it may be left out. Raises AutogradError or ShapeError."""
    if v is None:
        if len(like) != 1 or like[0].numel() != 1:
            raise AutogradError(f"{name}: the vector v can only be None if {what} is a single Tensor with one element")
        return (ones_like(like[0]),)
    _, found = _tuple(v, name, "v")
    if len(found) != len(like):
        raise AutogradError(f"{name}: v has {len(found)} tensors, but {what} has {len(like)}")
    for k, (a, b) in enumerate(zip(found, like, strict=True)):
        if a.shape != b.shape:
            raise ShapeError(f"{name}: v[{k}] is {a._l.type}, but {what} {k} is {b._l.type}")
    return found


def _call(func: Callable[..., Any], inputs: tuple[Tensor, ...], name: str, strict: bool) -> Any:
    many, outputs = _tuple(func(*inputs), name, "the output of the function")
    if strict:
        for k, t in enumerate(outputs):
            if not t.requires_grad:
                raise AutogradError(
                    f"{name}: output {k} of the function is independent of the inputs; strict=True allows none"
                )
    return many, outputs


def _grads(
    outputs: Sequence[Tensor], inputs: tuple[Tensor, ...], vectors: Sequence[Tensor], create: bool, retain: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of those outputs that have a history; None for each input otherwise."""
    pairs = [(o, v) for o, v in zip(outputs, vectors, strict=True) if o.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    outs, vs = zip(*pairs, strict=True)
    return grad(outs, inputs, vs, retain_graph=retain or create, create_graph=create, allow_unused=True)


def _filled(
    found: Sequence[Tensor | None], like: tuple[Tensor, ...], name: str, strict: bool, create: bool
) -> tuple[Tensor, ...]:
    """Zeros where there is no gradient; with `strict` that is an error."""
    made = []
    for k, (g, t) in enumerate(zip(found, like, strict=True)):
        if strict and g is None:
            raise AutogradError(
                f"{name}: the outputs of the function are independent of input {k}; strict=True allows none"
            )
        if strict and create and g is not None and not g.requires_grad:
            raise AutogradError(
                f"{name}: the result is independent of input {k}; strict=True with create_graph=True allows none"
            )
        made.append(zeros_like(t, requires_grad=False) if g is None else g)
    return tuple(made)


def _ended(found: tuple[Tensor, ...], create: bool) -> tuple[Tensor, ...]:
    return found if create else tuple(t.detach() if t.requires_grad else t for t in found)


def vjp(
    func: Callable[..., Tensors], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(*inputs), the product of `v` and the Jacobian): one tensor or a tuple, as the inputs are.

    `v` may be left out for one output of one element. Raises AutogradError or ShapeError for a `v` that does not fit,
    with `strict` also where the output does not depend on an input.
    """
    many_in, given = _tuple(inputs, "vjp", "inputs")
    with using(grad=True):
        leaves = _leaves(given, create_graph)
        many_out, outputs = _call(func, leaves, "vjp", strict)
        vectors = _vectors(v, outputs, "vjp", "output")
        found = _grads(outputs, leaves, vectors, create_graph, False)
        made = _filled(found, leaves, "vjp", strict, create_graph)
    return _bare(_ended(outputs, create_graph), many_out), _bare(_ended(made, create_graph), many_in)


def jvp(
    func: Callable[..., Tensors], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(*inputs), the product of the Jacobian and `v`): one tensor or a tuple, as the outputs are.

    It takes two backward passes. `v` may be left out for one input of one element. Raises as vjp().
    """
    _, given = _tuple(inputs, "jvp", "inputs")
    with using(grad=True):
        leaves = _leaves(given, create_graph)
        vectors = _vectors(v, leaves, "jvp", "input")
        many_out, outputs = _call(func, leaves, "jvp", strict)
        # the product with u is linear in u; its derivative towards v is the product of the Jacobian and v
        dummies = tuple(zeros_like(o, requires_grad=True) for o in outputs)
        inner = _filled(_grads(outputs, leaves, dummies, True, True), leaves, "jvp", strict, False)
        found = _grads(inner, dummies, vectors, create_graph, False)
        made = _filled(found, outputs, "jvp", strict, create_graph)
    return _bare(_ended(outputs, create_graph), many_out), _bare(_ended(made, create_graph), many_out)


def jacobian(
    func: Callable[..., Tensors],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian of `func`: for every output and input a tensor of the output's sizes followed by the input's.

    One tensor, a tuple over the inputs, over the outputs, or of tuples, as func takes and gives them. It takes one
    backward pass for each element of the outputs. Raises AutogradError with `strict` where an output does not depend on
    an input, UnsupportedError for `vectorize` and other strategies than "reverse-mode".
    """
    _only_plain("jacobian", vectorize, strategy)
    many_in, given = _tuple(inputs, "jacobian", "inputs")
    with using(grad=True):
        leaves = _leaves(given, create_graph)
        many_out, outputs = _call(func, leaves, "jacobian", strict)
        rows = [_jacobian_of(o, leaves, create_graph, strict) for o in outputs]
        found = tuple(_bare(_ended(row, create_graph), many_in) for row in rows)
    return _bare(found, many_out)


def _only_plain(name: str, vectorize: bool, strategy: str) -> None:
    if vectorize:
        raise UnsupportedError(f"{name}: vectorize=True is not supported; leave it out, the values are the same")
    if strategy != "reverse-mode":
        raise UnsupportedError(f"{name}: the strategy {strategy!r} is not supported, only 'reverse-mode'")


def _jacobian_of(out: Tensor, leaves: tuple[Tensor, ...], create: bool, strict: bool) -> tuple[Tensor, ...]:
    flat = out.reshape((out.numel(),))
    rows = []
    for k in range(out.numel()):
        one = flat[k]
        found = _grads((one,), leaves, (ones_like(one),), create, True)
        rows.append(_filled(found, leaves, "jacobian", strict, create))
    made = []
    for j, t in enumerate(leaves):
        column = [row[j] for row in rows]
        whole = stack(column) if column else zeros_like(t).reshape((1, *t.shape))[:0]
        made.append(whole.reshape((*out.shape, *t.shape)))
    return tuple(made)


def _scalar(func: Callable[..., Any], name: str, strict: bool) -> Callable[..., Tensor]:
    """The function, checked to give one tensor of one element."""

    def checked(*inputs: Tensor) -> Tensor:
        many, (out, *more) = _call(func, inputs, name, strict)
        if many or more or out.numel() != 1:
            raise AutogradError(f"{name}: the function must return a single Tensor of one element, got {out._l.type}")
        found: Tensor = out
        return found

    return checked


def hessian(
    func: Callable[..., Tensor],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The Hessian of a function of one output of one element: for each pair of inputs a tensor of the sizes of both.

    One tensor, or a tuple of tuples, as the inputs are. Raises as jacobian(), and AutogradError for other outputs.
    """
    _only_plain("hessian", vectorize, outer_jacobian_strategy)
    many_in, given = _tuple(inputs, "hessian", "inputs")
    checked = _scalar(func, "hessian", strict)

    def slopes(*leaves: Tensor) -> tuple[Tensor, ...]:
        out = checked(*leaves)
        found = _grads((out,), leaves, (ones_like(out),), True, True)
        return _filled(found, leaves, "hessian", strict, strict)

    rows = jacobian(slopes, given, create_graph=create_graph, strict=strict)
    return rows if many_in else rows[0][0]


def vhp(
    func: Callable[..., Tensor], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(*inputs), the product of `v` and the Hessian), for a function of one output of one element.

    Raises as vjp(), and AutogradError for other outputs.
    """
    return _second("vhp", func, inputs, v, create_graph, strict)


def hvp(
    func: Callable[..., Tensor], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(func(*inputs), the product of the Hessian and `v`), for a function of one output of one element.

    The Hessian is symmetric, so this is vhp(); it is not where second derivatives are not continuous. Raises as vjp(),
    and AutogradError for other outputs.
    """
    return _second("hvp", func, inputs, v, create_graph, strict)


def _second(
    name: str, func: Callable[..., Tensor], inputs: Any, v: Any, create_graph: bool, strict: bool
) -> tuple[Any, Any]:
    many_in, given = _tuple(inputs, name, "inputs")
    checked = _scalar(func, name, strict)
    with using(grad=True):
        leaves = _leaves(given, create_graph)
        vectors = _vectors(v, leaves, name, "input")
        out = checked(*leaves)
        slopes = _filled(_grads((out,), leaves, (ones_like(out),), True, True), leaves, name, strict, False)
        if name == "vhp":
            found = _grads(slopes, leaves, vectors, create_graph, False)
        else:
            dummies = tuple(zeros_like(t, requires_grad=True) for t in leaves)
            inner = _filled(_grads(slopes, leaves, dummies, True, True), leaves, name, False, False)
            found = _grads(inner, dummies, vectors, create_graph, False)
        made = _filled(found, leaves, name, strict, create_graph)
    return _ended((out,), create_graph)[0], _bare(_ended(made, create_graph), many_in)
