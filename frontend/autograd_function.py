"""Operations of the user's own: `autograd.Function`, with a forward and a backward written in Python.

One tape node stands for the whole forward, which runs without gradients; its backward runs like any other code, so that
it is recorded where a recorder looks on, and differentiated where the graph of the gradients is kept.
"""

from __future__ import annotations

import functools
import inspect
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from graphc.errors import ArgumentError, AutogradError, InternalError, ShapeError, UnsupportedError
from graphc.frontend import autograd
from graphc.frontend.autograd import Edge, Node, Saved, edge_of
from graphc.frontend.autograd_inplace import check_inplace, check_view, rebase
from graphc.frontend.dispatch import nullary
from graphc.frontend.mode import mode, using
from graphc.frontend.tensor import Tensor, alias_of
from graphc.ir.op import Op, Sample, op_named
from graphc.ir.types import TensorType, float32

__all__ = ["Function", "FunctionCtx", "once_differentiable"]

_FREED = (
    "Trying to backward through the graph a second time (or directly access saved tensors after they have already "
    "been freed); specify retain_graph=True if you need to backward through it a second time or if you need to access "
    "saved tensors after calling backward"
)


class FunctionCtx:
    """What forward leaves for backward: tensors by save_for_backward(), anything else as attributes."""

    _to_save: tuple[Tensor | None, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _fixed: tuple[Tensor, ...] = ()
    _materialize = True
    _node: Callable[[], FunctionNode | None]  # weak: the node holds this
    needs_input_grad: tuple[bool, ...] = ()

    if TYPE_CHECKING:  # attributes are the user's

        def __getattr__(self, name: str) -> Any: ...

        def __setattr__(self, name: str, value: Any) -> None: ...

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors (or None) for backward, which finds them as `saved_tensors`. Raises ArgumentError for others."""
        for k, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise ArgumentError(
                    f"save_for_backward can only save tensors, but argument {k} is of type {type(t).__name__}; keep "
                    "it as an attribute of ctx"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What save_for_backward() was given. Raises AutogradError when one was written since, or all were freed."""
        node = self._node()
        if node is None or node.freed:
            raise AutogradError(_FREED)
        return node.unpacked()

    def mark_dirty(self, *tensors: Tensor) -> None:
        """Say which inputs forward wrote in place; each of them must be returned."""
        self._dirty = tensors

    def mark_non_differentiable(self, *tensors: Tensor) -> None:
        """Say which outputs have no gradient. backward gets a gradient of zeros for them."""
        self._fixed = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for the gradients of outputs that were not used."""
        self._materialize = bool(value)

    def save_for_forward(self, *tensors: Tensor) -> None:
        """Raises UnsupportedError: gradients are computed backwards only."""
        raise UnsupportedError("save_for_forward: forward-mode gradients are not supported")


class FunctionNode(Node):
    """The tape node of one call of a Function. Operands are the tensors among its arguments."""

    __slots__ = ("cls", "ctx", "line", "places", "plain", "saved_numbers")
    line: Any  # where it was called, in a recording
    cls: type[Function]
    ctx: FunctionCtx
    places: tuple[int, ...]  # which arguments are tensors
    plain: frozenset[int]  # which outputs are no tensors
    saved_numbers: tuple[int, ...]  # which output each saved tensor is, or -1
    custom = True

    def name(self) -> str:
        """The name PyTorch users expect: `MyFunctionBackward`."""
        return f"{self.cls.__name__}Backward"

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in FunctionNode.__slots__ or name in Node.__slots__:
            raise AttributeError(name)
        return getattr(self.ctx, name)

    def unpacked(self) -> tuple[Tensor | None, ...]:
        """The saved tensors as they were, each with its history."""
        return tuple(
            None if s is None else s.unpack(self, s.edge if k < 0 else (self, k))
            for s, k in zip(self.saved_in, self.saved_numbers, strict=True)
        )

    def gradients(self, slot: dict[int, Tensor], needs: tuple[bool, ...]) -> tuple[Tensor | None, ...]:
        """What the user's backward gives. Raises AutogradError or ShapeError for what does not fit the arguments."""
        given = [slot.get(k) for k in range(len(self.out_types))]
        if self.ctx._materialize:
            zeros = [None if k in self.plain else _zeros(t) for k, t in enumerate(self.out_types) if given[k] is None]
            rest = iter(zeros)
            given = [next(rest) if g is None else g for g in given]
        result = self.cls._backward()(self.ctx, *given)
        found = tuple(result) if isinstance(result, (tuple, list)) else (result,)
        count = len(self.ctx.needs_input_grad)
        while len(found) > count and found[-1] is None:
            found = found[:-1]
        if len(found) != count:
            raise AutogradError(
                f"function {self.name()} returned an incorrect number of gradients (expected {count}, got {len(found)})"
            )
        self._check_rest(found)
        return tuple(
            self._fitting(found[place], k, type) if need else None
            for k, (place, type, need) in enumerate(zip(self.places, self.in_types, needs, strict=True))
        )

    def _check_rest(self, found: Sequence[Any]) -> None:
        for k, g in enumerate(found):
            if k not in self.places and g is not None:
                raise AutogradError(
                    f"function {self.name()} returned a gradient different than None at position {k + 1}, but the "
                    "corresponding forward input was not a Tensor"
                )

    def _fitting(self, g: Any, k: int, type: TensorType) -> Tensor | None:
        if g is None:
            return None
        if not isinstance(g, Tensor):
            raise AutogradError(f"function {self.name()}: expected a Tensor or None, got {_kind(g)}")
        if g.ttype.shape != type.shape:
            g = _summed(g, type, f"Function {self.name()} returned an invalid gradient at index {k}")
        fitting: Tensor = g if g.dtype is type.dtype else op_named("cast")(g, dtype=type.dtype)
        return fitting


def _kind(x: Any) -> str:
    return type(x).__name__


def _zeros(type: TensorType) -> Tensor:
    return nullary(op_named("full"), shape=type.shape, value=0 if type.dtype.kind in "iub" else 0.0, dtype=type.dtype)


def _summed(g: Tensor, type: TensorType, name: str) -> Tensor:
    """`g` added up to the sizes it was broadcast from. Raises ShapeError where it was not."""
    shape, more = g.ttype.shape, g.ndim - type.ndim
    fits = more >= 0 and all(a == b or b == 1 for a, b in zip(shape[max(more, 0) :], type.shape, strict=True))
    if not fits:
        raise ShapeError(f"{name} - got {g._l.type} but expected a shape compatible with {type}")
    kept = tuple(more + k for k, (a, b) in enumerate(zip(shape[more:], type.shape, strict=True)) if a != b)
    if kept:
        g = op_named("sum")(g, dim=kept, keepdim=True)
    if more:
        g = op_named("sum")(g, dim=tuple(range(more)), keepdim=False)
    return g


def _unrunnable(*args: Any, **attrs: Any) -> Any:
    raise InternalError("the operation of a Function cannot be run by name")


def _no_samples(rng: Any) -> Iterator[Sample]:
    return iter(())


class Function:
    """Base of operations with a gradient of their own; call them by `MyFunction.apply(...)`.

    Give static methods `forward(ctx, *args)`, or `forward(*args)` and `setup_context(ctx, inputs, output)`, and
    `backward(ctx, *grad_outputs)`, which returns one gradient (or None) for every argument. A graph can be run
    backwards through a Function once, unless with `retain_graph=True`.
    """

    _op: Op
    _identity = False  # the outputs are views of the inputs, element by element: a write goes on to the input as ever

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls._op = Op(cls.__name__, _unrunnable, _unrunnable, _no_samples)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Raises AutogradError: a Function is used without an instance."""
        raise AutogradError(
            "Legacy autograd function with non-static forward method is not supported; make forward and backward "
            f"static methods and call {type(self).__name__}.apply(...)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """What the operation computes. To be overridden."""
        raise UnsupportedError("You must implement the forward function for custom autograd.Function.")

    @staticmethod
    def setup_context(ctx: FunctionCtx, inputs: tuple[Any, ...], output: Any) -> None:
        """What is kept for backward, for a forward without ctx. To be overridden."""
        raise UnsupportedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        """The gradients of the arguments. To be overridden, here or as `vjp`."""
        raise UnsupportedError(
            "You must implement either the backward or vjp method for your custom autograd.Function to use it with "
            "backward mode AD."
        )

    vjp = backward

    @classmethod
    def _backward(cls) -> Callable[..., Any]:
        own, other = cls.backward, cls.vjp
        if own is not Function.backward and other is not Function.vjp:
            raise AutogradError(f"{cls.__name__} implements both backward and vjp; give one of them")
        return own if other is Function.vjp else other

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and put one node on the tape. Gradients flow to the tensors among the arguments (not to those in
        lists, tuples or dicts).

        Raises AutogradError for a leaf written in place, or a written input that is not returned.
        """
        apart = cls.setup_context is not Function.setup_context
        if kwargs:
            args = _in_order(cls.forward, args, kwargs, apart)
        node = cls._node(args)
        ctx = node.ctx
        with using(grad=False):
            result = cls.forward(*args) if apart else cls.forward(ctx, *args)
            if apart:
                cls.setup_context(ctx, args, result)
        many = isinstance(result, tuple)
        outputs = result if many else (result,)
        written = ctx._dirty
        if any(not any(t is o for o in outputs) for t in written):
            raise AutogradError(
                "Some elements marked as dirty during the forward method were not returned as output. The inputs that "
                "are modified inplace must all be outputs of the Function."
            )
        if not mode.get().grad or all(e is None for e in node.edges):
            return result
        made = _attach(node, args, outputs)
        return made if many else made[0]

    @classmethod
    def _node(cls, args: tuple[Any, ...]) -> FunctionNode:
        places = tuple(k for k, x in enumerate(args) if isinstance(x, Tensor))
        edges = tuple(edge_of(args[k]) for k in places)
        types = tuple(args[k].ttype for k in places)
        node = autograd._node(cls._op, {}, edges, types, (), FunctionNode)
        assert isinstance(node, FunctionNode)
        node.cls, node.places, node.saved_in, node.saved_numbers, node.plain = cls, places, (), (), frozenset()
        node.line = _line()
        ctx = node.ctx = FunctionCtx()
        ctx._node = weakref.ref(node)
        ctx.needs_input_grad = tuple(isinstance(x, Tensor) and x.requires_grad for x in args)
        return node


def _line() -> Any:
    if mode.get().recorder is None:
        return None
    from graphc.frontend.record.where import here

    return here()


def _in_order(forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], apart: bool) -> Any:
    """The arguments by position."""
    head: tuple[Any, ...] = () if apart else (None,)
    bound = inspect.signature(forward).bind(*head, *args, **kwargs)
    bound.apply_defaults()
    if bound.kwargs:
        raise ArgumentError(f"apply: {', '.join(bound.kwargs)}: keyword-only arguments of forward are not supported")
    return bound.args[len(head) :]


def _attach(node: FunctionNode, args: tuple[Any, ...], outputs: tuple[Any, ...]) -> tuple[Any, ...]:
    """Give the outputs their place on the tape, and the node what it saves."""
    ctx = node.ctx
    node.plain = frozenset(k for k, o in enumerate(outputs) if not isinstance(o, Tensor))
    node.out_types = tuple(o.ttype if isinstance(o, Tensor) else TensorType(float32) for o in outputs)
    made: list[Any] = []
    for k, o in enumerate(outputs):
        made.append(_output(node, k, o, args, made) if isinstance(o, Tensor) else o)
    to_save, ctx._to_save = ctx._to_save, ()
    saved, numbers = [], []
    for t in to_save:
        number = -1 if t is None else _number(node, t, outputs, made)
        saved.append(None if t is None else Saved(t, None if number >= 0 else _edge_before(node, t, args)))
        numbers.append(number)
    node.saved_in, node.saved_numbers = tuple(saved), tuple(numbers)
    ctx._dirty = ctx._fixed = ()
    operands, results = tuple(args[k] for k in node.places), tuple(o for o in made if isinstance(o, Tensor))
    for observe in autograd.observers:
        observe(node, operands, results)
    return tuple(made)


def _number(node: FunctionNode, t: Tensor, outputs: tuple[Any, ...], made: list[Any]) -> int:
    """Which differentiable output a saved tensor is, or -1."""
    return next((k for k, o in enumerate(outputs) if o is t and made[k]._edge == (node, k)), -1)


def _edge_before(node: FunctionNode, t: Tensor, args: tuple[Any, ...]) -> Edge | None:
    """Where gradients of a saved tensor go; for an argument, where they went before the call."""
    found = next((j for j, place in enumerate(node.places) if args[place] is t), None)
    return edge_of(t) if found is None else node.edges[found]


def _output(node: FunctionNode, k: int, o: Tensor, args: tuple[Any, ...], made: list[Any]) -> Tensor:
    """Output `k` with its history: as it is, or as an alias where it is an input, a view or has a history already."""
    ctx = node.ctx
    if any(o is t for t in ctx._dirty):
        name = node.cls.__name__
        value = alias_of(o)
        value._edge = (node, k)
        check_inplace(o, name)
        check_view(o, value, name)
        rebase(o, value)
        return o
    if not o.dtype.is_floating_point or any(o is t for t in ctx._fixed):
        return alias_of(o) if o.requires_grad else o
    if node.cls._identity:
        o._edge = (node, k)
        return o
    inputs = [x for x in args if isinstance(x, Tensor)]
    shared = any(o._s is x._s for x in inputs)
    if shared or o._gbase is not None or o.requires_grad or any(o is m for m in made):
        o = alias_of(o)
    if shared:
        o._many = f"{node.cls.__name__}, a custom Function"
    o._edge = (node, k)
    return o


class _Once(Function):
    """The first `count` of the tensors, with a history that leads to all of them and cannot be differentiated."""

    @staticmethod
    def forward(ctx: FunctionCtx, count: int, *tensors: Any) -> Any:
        return tensors[:count]

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Any) -> Any:
        raise AutogradError(
            "trying to differentiate twice a function that was marked with @once_differentiable; leave the decorator "
            "out where backward can itself be differentiated"
        )


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator for a backward that cannot itself be differentiated: it runs without gradients, and a second
    derivative through it raises AutogradError.
    """

    @functools.wraps(fn)
    def wrapper(ctx: FunctionCtx, *args: Any) -> Any:
        with using(grad=False):
            found = fn(ctx, *args)
        if not mode.get().grad or not any(isinstance(g, Tensor) and g.requires_grad for g in args):
            return found
        grads = found if isinstance(found, tuple) else (found,)
        places = [k for k, g in enumerate(grads) if isinstance(g, Tensor)]
        sources = [g for g in args if isinstance(g, Tensor) and g.requires_grad]
        ends = _Once.apply(len(places), *[alias_of(grads[k]) for k in places], *sources)
        blocked = dict(zip(places, ends, strict=True))
        mixed = tuple(blocked.get(k, g) for k, g in enumerate(grads))
        return mixed if isinstance(found, tuple) else mixed[0]

    return wrapper


for _shown in (Function, FunctionCtx):
    _shown.__module__ = "graphc.autograd"
