"""The hot path of eager execution: functions that amount to one operation on their operands.

What a function does is decided once for each combination of layouts and further arguments, by watching it work, and
kept: promotion, checks, broadcasting, inference and the choice of code are one dictionary look-up afterwards, since
layouts are interned. Whatever is not an everyday case goes to the general function, which also is what a plan is made
from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import update_wrapper, wraps
from typing import Any, TypeVar

from graphc import compiler
from graphc.config import config
from graphc.errors import GraphcError, InternalError
from graphc.frontend.autograd import edges_of, observers, put, put_one, put_two
from graphc.frontend.dispatch import scalar_tensor
from graphc.frontend.mode import mode, using, watching
from graphc.frontend.numpy_names import numpy_names
from graphc.frontend.plan import MAX_PLANS, Plan, plan_for
from graphc.frontend.tensor import Chain, Storage, Tensor, view_of
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.types import Layout, TensorType

F = TypeVar("F", bound=Callable[..., Any])

_new = object.__new__
_mode = mode.get


def _wrap(array: Array, layout: Layout) -> Tensor:
    t: Tensor = _new(Tensor)
    t._a = array
    t._l = layout
    t._chain = ()
    t._edge = t._gbase = None
    t._requires_grad = False
    t._s = t._v = storage = Storage()
    storage.root = layout.type
    storage.owner = array
    storage.value = 0
    return t


def unary(general: F) -> F:
    """`general(x)` with a hot path before it."""
    plans: dict[Any, Plan] = {}

    def call(input: Any) -> Any:
        try:
            plan = plans[input._l]
        except (LookupError, AttributeError):
            plan = None
        if plan is None:  # out here, so that an error has nothing to do with the miss
            return _first(plans, general, (input,))
        here = _mode()
        if here.recorder is not None:
            return general(input)
        out = _wrap(plan.run(input._a), plan.layouts[0])
        if here.grad and (input._edge is not None or input._requires_grad or input._gbase is not None):
            put_one(plan, input, out)
        return out

    return _dressed(call, general)


def pair(general: F) -> F:
    """`general(x, y)` of two tensors with a hot path before it."""
    return binary(general, False)


def binary(general: F, numbers: bool = True) -> F:
    """`general(x, y)` with a hot path before it; with `numbers`, y may be one."""
    plans: dict[Any, Plan] = {}

    def call(input: Any, other: Any, **named: Any) -> Any:
        if named:
            return general(input, other, **named)
        if type(other) is float or type(other) is int:
            if not numbers:
                return general(input, other)
            other = number_beside(input, other)
        try:
            plan = plans[input._l, other._l]
        except (LookupError, AttributeError):
            plan = None
        if plan is None:
            return _first(plans, general, (input, other))
        here = _mode()
        if here.recorder is not None:
            return general(input, other)
        out = _wrap(plan.run(input._a, other._a), plan.layouts[0])
        if here.grad and (
            input._edge is not None
            or other._edge is not None
            or input._requires_grad
            or other._requires_grad
            or input._gbase is not None
            or other._gbase is not None
        ):
            put_two(plan, input, other, out)
        return out

    return _dressed(call, general)


def with_arguments(general: F) -> F:
    """`general(x, *arguments)` with a hot path before it: x a tensor, the arguments numbers, names and tuples."""
    general = numpy_names(general)
    plans: dict[Any, tuple[Plan, tuple[Any, ...], bool]] = {}

    def call(input: Any, *arguments: Any, **named: Any) -> Any:
        here = _mode()
        if here.recorder is not None:  # arguments may be numbers it follows, which must not be hashed
            return general(input, *arguments, **named)
        given = (*arguments, *named.values()) if named else arguments
        try:
            plan, kinds, nested = plans[input._l, given, *named]
        except (LookupError, AttributeError, TypeError):
            plan = None
        if plan is None:
            layout = getattr(input, "_l", None)
            return _note(plans, (layout, given, *named), given, (input,), lambda: general(input, *arguments, **named))
        if tuple(map(type, given)) != kinds or (nested and not _plain(given)):
            return general(input, *arguments, **named)
        array = plan.run(input._a)
        out = view_of(input, array, plan.link, plan.layouts[0]) if plan.link else _wrap(array, plan.layouts[0])
        if here.grad and (input._edge is not None or input._requires_grad or input._gbase is not None):
            put_one(plan, input, out)
        return out

    return _dressed(call, general)


def mixed(general: F) -> F:
    """`general(*tensors, *arguments)` with a hot path before it; a missing tensor may be None."""
    plans: dict[Any, tuple[Plan, tuple[Any, ...], bool]] = {}
    quick: dict[tuple[Layout, ...], Plan] = {}  # of calls with tensors alone

    def call(*given: Any, **named: Any) -> Any:
        here = _mode()
        if here.recorder is not None:
            return general(*given, **named)
        if not named:
            try:
                plan = quick[tuple([x._l for x in given])]
            except (LookupError, AttributeError):
                pass
            else:
                return _applied(plan, given, here.grad)
        tensors: list[Any] = []
        key: list[Any] = []
        for x in (*given, *named.values()) if named else given:
            if isinstance(x, Tensor):
                tensors.append(x)
                key.append(x._l)
            else:
                key.append(x)
        try:
            known = plans[(*key, *named)]
        except (LookupError, TypeError):
            known = None
        if known is None:
            return _note(plans, (*key, *named), key, tuple(tensors), lambda: general(*given, **named))
        plan, kinds, nested = known
        if tuple(map(type, key)) != kinds or (nested and not _plain(key)):
            return general(*given, **named)
        if not named and len(tensors) == len(key):
            _keep(quick, tuple(key), plan, True)
        return _applied(plan, tuple(tensors), here.grad)

    return _dressed(call, general)


def joined(general: F) -> F:
    """`general([x, y, …], *arguments)` with a hot path before it."""
    general = numpy_names(general)
    plans: dict[Any, tuple[Plan, tuple[Any, ...], bool]] = {}

    def call(tensors: Any, *arguments: Any, **named: Any) -> Any:
        here = _mode()
        if here.recorder is not None or named or type(tensors) not in (list, tuple):
            return general(tensors, *arguments, **named)
        try:
            layouts = [x._l for x in tensors]
            plan, kinds, nested = plans[(len(layouts), *layouts, *arguments)]
        except (LookupError, AttributeError, TypeError):
            plan = None
        if plan is None:
            if not all(isinstance(x, Tensor) for x in tensors):
                return general(tensors, *arguments)
            key = (len(tensors), *[x._l for x in tensors], *arguments)
            return _note(plans, key, arguments, tuple(tensors), lambda: general(tensors, *arguments))
        if tuple(map(type, arguments)) != kinds or (nested and not _plain(arguments)):
            return general(tensors, *arguments)
        return _applied(plan, tuple(tensors), here.grad)

    return _dressed(call, general)


def _applied(plan: Plan, tensors: tuple[Tensor, ...], grad: bool) -> Tensor:
    out = _wrap(plan.run(*[t._a for t in tensors]), plan.layouts[0])
    if grad and plan.taped:
        edges = edges_of(tensors)
        if edges is not None:
            put(plan, tensors, edges, (out,))
    return out


def indexed(general: F) -> F:
    """`general(x, key)`, reading a part of a tensor, with a hot path before it: keys of ints, slices, None and
    Ellipsis that give a view.
    """
    rows: dict[Layout, tuple[Op, Layout, int]] = {}
    plans: dict[Any, Any] = {}
    _views.extend((rows, plans))

    def call(self: Any, key: Any) -> Any:
        here = _mode()
        kind = type(key)
        if here.recorder is not None or (
            here.grad and (self._edge is not None or self._requires_grad or self._gbase is not None)
        ):
            return general(self, key)
        if kind is int:
            row = rows.get(self._l)
            if row is not None and -row[2] <= key < row[2]:
                op, layout, size = row
                attrs = {"dim": 0, "index": key if key >= 0 else size + key}
                return view_of(self, self._a[key, ...], ((op, attrs),), layout)
        parts: tuple[Any, ...] = (key,) if kind is not tuple else key
        flat: list[Any] = []
        for part in parts:
            if type(part) is slice:
                flat += (slice, part.start, part.stop, part.step)
            elif type(part) in _PARTS:
                flat.append(part)
            else:
                return general(self, key)
        at = (self._l, kind is tuple, *flat)
        try:
            link, layout, run, kinds = plans[at]
        except (LookupError, TypeError):
            run = None
        if run is None:
            return _part(plans, rows, general, self, key, at)
        if tuple(map(type, flat)) != kinds:
            return general(self, key)
        return view_of(self, run(self._a), link, layout)

    return _dressed(call, general)


_views: list[dict[Any, Any]] = []  # what is known of keys


def forget_views() -> None:
    """Let reading parts of tensors go the general way; while a profile runs, it stays so."""
    for known in _views:
        known.clear()


_PARTS = frozenset({int, type(None), type(Ellipsis)})


def number_beside(input: Any, number: Any) -> Any:
    """The constant a Python number is beside a floating-point tensor; the number itself beside anything else."""
    if isinstance(input, Tensor) and input._l.type.dtype.kind == "f":
        return scalar_tensor(number, input._l.type.dtype)
    return number


def _plain(arguments: Sequence[Any]) -> bool:
    """Whether values among these that are equal, and of one type, are the same: tuples must hold ints alone."""
    for x in arguments:
        if type(x) is tuple:
            for v in x:
                if type(v) is not int:
                    return False
        elif type(x) not in _SAFE and not (type(x) is float and x and x == x):  # 0.0 equals -0.0
            return False
    return True


_SAFE = frozenset({int, bool, str, type(None), Layout})


class _Unseen(Exception):
    """A function did more than call operations."""


class _Observer:
    """Stands where a recorder does while a function is watched; knows of operations alone."""

    lockstep = None

    def __init__(self) -> None:
        self.seen: list[tuple[Op, tuple[Tensor, ...], Attrs, tuple[Tensor, ...]]] = []

    def on_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        self.seen.append((op, operands, attrs, outputs))

    def on_tape(self, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """The tape is kept as ever."""

    def symbolic_type(self, tensor: Tensor) -> TensorType:
        return tensor._l.type

    def __getattr__(self, name: str) -> Any:
        raise _Unseen(name)


def _watched(call: Callable[[], Any], tensors: tuple[Tensor, ...]) -> tuple[Any, Plan | None]:
    """What `call()` gives, and the plan of the one operation on exactly these tensors that made it (None where there
    was more to it).
    """
    observer: Any = _Observer()
    try:
        with using(recorder=observer):
            result = call()
    except Exception:  # more than operations, or an error: the same again without an observer
        observer = None
    if observer is None:  # out here, so that one error is not told as two
        return call(), None
    if len(observer.seen) != 1:
        return result, None
    op, operands, attrs, outputs = observer.seen[0]
    same = len(operands) == len(tensors) and all(a is b for a, b in zip(operands, tensors, strict=True))
    if not same or len(outputs) != 1 or outputs[0] is not result or (op.differentiable and op.vjp is None) or op.random:
        return result, None
    return result, plan_for(op, operands, attrs)


def _brief(slow: F) -> F:
    """The slow way of a function; errors of the user's come without our frames below it, which GRAPHC_DEBUG=1 keeps."""

    @wraps(slow)
    def call(*given: Any) -> Any:
        try:
            return slow(*given)
        except GraphcError as error:
            if config.debug or isinstance(error, InternalError):
                raise
            told = error.with_traceback(None)
        raise told

    return call  # type: ignore[return-value]


@_brief
def _first(plans: dict[Any, Plan], general: Callable[..., Any], operands: tuple[Any, ...]) -> Any:
    """The general way, and a plan for the next time where one is possible."""
    if _mode().recorder is not None or observers or watching or not all(isinstance(x, Tensor) for x in operands):
        return general(*operands)
    key = operands[0]._l if len(operands) == 1 else tuple([x._l for x in operands])
    if ((None, *key) if type(key) is tuple else (None, key)) in plans:
        return general(*operands)
    result, plan = _watched(lambda: general(*operands), operands)
    _keep(plans, key, plan, plan is not None and not plan.link)
    return result


@_brief
def _note(
    plans: dict[Any, Any], key: tuple[Any, ...], given: Sequence[Any], tensors: tuple[Any, ...], call: Callable[[], Any]
) -> Any:
    """The same for a function of further arguments. `given`: the values in the key, layouts in place of tensors."""
    if not tensors or not isinstance(tensors[0], Tensor) or not _plain(given):
        return call()
    if _mode().recorder is not None or observers or watching:
        return call()
    if (None, *key) in plans:
        return call()
    result, plan = _watched(call, tensors)
    kinds = tuple(map(type, given))
    _keep(plans, key, (plan, kinds, tuple in kinds), plan is not None)
    return result


@_brief
def _part(
    plans: dict[Any, Any],
    rows: dict[Layout, tuple[Op, Layout, int]],
    general: Callable[..., Any],
    x: Tensor,
    key: Any,
    at: tuple[Any, ...],
) -> Any:
    """The same for a key; one that is used a second time gets a plan."""
    if watching:
        return general(x, key)
    observer: Any = _Observer()
    try:
        with using(recorder=observer):
            result = general(x, key)
    except Exception:  # as in _watched
        observer = None
    if observer is None:
        return general(x, key)
    link: Chain = ()
    last = x
    for op, operands, attrs, outputs in observer.seen:
        if op.scatter is None or operands[0] is not last or len(outputs) != 1:
            return result
        link += ((op, dict(attrs)),)
        last = outputs[0]
    if last is not result or not link or len(result._chain) != len(x._chain) + len(link):
        return result
    if type(key) is int:
        _keep(rows, x._l, (link[0][0], result._l, x._a.shape[0]), True)
    elif at in plans:
        view = compiler.eager_view(x._a, result._a)
        if view is not None:
            plans[at] = (link, result._l, view, tuple(map(type, at[2:])))
    else:
        _keep(plans, at, None, True)
    return result


def _keep(plans: dict[Any, Any], key: Any, value: Any, hot: bool) -> None:
    """Note what to do for a key; keys that have no hot path are noted, too."""
    if len(plans) >= MAX_PLANS:
        plans.clear()
    if hot:
        plans[key] = value
    else:
        plans[(None, *key) if type(key) is tuple else (None, key)] = None


def _dressed(call: Callable[..., Any], general: F) -> F:
    update_wrapper(call, general)
    return call  # type: ignore[return-value]
