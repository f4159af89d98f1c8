"""In-place writes on the tape: what PyTorch forbids, and the history a written tensor (and the one it views) takes."""

from __future__ import annotations

import math
from typing import Any

from graphc.errors import AutogradError
from graphc.frontend.autograd import Edge, Ghost, autograd_chain, edge_of
from graphc.frontend.tensor import Tensor
from graphc.ir.op import op_named
from graphc.ir.types import TensorType


def check_inplace(target: Tensor, name: str) -> None:
    """Raise AutogradError where PyTorch forbids writing in place while gradients are recorded."""
    if target._requires_grad:
        raise AutogradError(
            f"{name}: a leaf Variable that requires grad is being used in an in-place operation; "
            "use no_grad() or an out-of-place form"
        )
    base = target._gbase
    if base is None or target._history < 0:
        return
    # the leaf may be a view itself, of a tensor without gradients
    if base._requires_grad or (target.requires_grad and base.is_leaf):
        raise AutogradError(
            f"{name}: a view of a leaf Variable that requires grad is being used in an in-place operation; "
            "use no_grad() or clone() the leaf"
        )


def check_view(target: Tensor, value: Tensor, name: str) -> None:
    """Raise AutogradError, as PyTorch, where a view written with gradients was not made to be written."""
    base = target._gbase
    if base is None or target._history < 0:
        if target._many:
            raise AutogradError(
                f"{name}: this tensor is an output of {target._many} and a view of its input, or the input itself; a "
                "write would put another history in place of the custom backward: clone() it in the Function's forward"
            )
        return
    old = edge_of(target)
    if target._many and (old is not None or edge_of(value) is not None):
        raise AutogradError(
            f"{name}: this tensor is an output of {target._many}(), a function that returns multiple views, and such "
            "views cannot be modified in place where gradients are recorded; write through one view of its own, as "
            "x[k] or x.narrow(), or clone() it"
        )
    if old is None and edge_of(base) is not None:
        raise AutogradError(
            f"{name}: a view created under no_grad() of a tensor with gradients is being modified in place with "
            "gradients recorded; move both into the no_grad() block or both out of it"
        )


def rebase(target: Tensor, value: Tensor) -> None:
    """After `target` took the elements of `value`: give it (and the tensor it views) the history of `value`."""
    new, old = edge_of(value), edge_of(target)
    if new is None and old is None:
        return
    base = target._gbase
    if base is None or target._history < 0:
        target._edge = new if new is not None else _overwritten(target._l.type, old)
        target._s.history += 1
        if target._history >= 0:
            target._history = target._s.history
        return
    levels: list[Any] = [Ghost(base._l.type, edge_of(base))]
    chain = autograd_chain(target)
    for op, attrs in chain[:-1]:
        levels.append(op(levels[-1], **attrs))
    ghost: Any = Ghost(value._l.type, new)
    for (op, attrs), level in zip(reversed(chain), reversed(levels), strict=True):
        assert op.scatter is not None
        ghost = op.scatter(level, ghost, **attrs)
    base._edge = ghost.edge if ghost.edge is not None else _overwritten(base._l.type, edge_of(base))
    target._s.history += 1
    base._history = target._s.history


def _overwritten(type: TensorType, old: Edge | None) -> Edge | None:
    """The history of a tensor overwritten by values without one: it goes on, with gradients of zero, as in PyTorch."""
    if old is None:
        return None
    whole: Any = op_named("reshape")(Ghost(type, old), shape=(math.prod(type.shape),))
    size = whole.ttype.shape[0]
    value = Ghost(whole.ttype, None)
    kept: Any = op_named("slice_scatter")(whole, value, dim=0, start=0, stop=size, step=1)
    made: Ghost = op_named("reshape")(kept, shape=type.shape)
    return made.edge


def keep_saved(value: Tensor, target: Tensor, since: int) -> None:
    """Before `target` is overwritten by `value`: nodes made since `since` that saved memory of `target` get a copy."""
    edge = edge_of(value)
    stack: list[Any] = [] if edge is None else [edge[0]]
    seen: set[Any] = set()
    while stack:
        node = stack.pop()
        if node.seq <= since or node in seen:
            continue
        seen.add(node)
        stack.extend(e[0] for e in node.edges if e is not None)
        node.saved_in = tuple(
            s.copied() if s is not None and s.storage is target._s and s.leaf is None else s for s in node.saved_in
        )
