"""Which operands a gradient rule reads when only some gradients are wanted: the others need not be kept.

`x * 2.0` keeps nothing of `x`: the rule reads it for the gradient of the other operand alone. A rule is run once on
stand-ins that note where they end up.
"""

from __future__ import annotations

from typing import Any

from graphc.errors import GraphcError
from graphc.ir.op import Attrs, Op, default_apply
from graphc.ir.types import TensorType

_FOUND: dict[Any, tuple[str, ...]] = {}
_MAX_FOUND = 4096


class _Probe:
    """A typed stand-in that knows which saved operands it was computed from.

    `log` gathers what any operation of the rule reads, also one whose result nobody wants: the rule runs it all the
    same.
    """

    __slots__ = ("log", "reads", "ttype")

    def __init__(self, type: TensorType, log: set[str], reads: frozenset[str] = frozenset()) -> None:
        self.ttype = type
        self.log = log
        self.reads = reads

    @staticmethod
    def apply_op(op: Op, operands: tuple[Any, ...], attrs: Attrs) -> Any:
        """The outputs of `op` as probes that read what its operands read."""
        probes = [x for x in operands if isinstance(x, _Probe)]
        log = probes[0].log if probes else set()
        types = [x.ttype if isinstance(x, _Probe) else TensorType(probes[0].ttype.dtype) for x in operands]
        reads = frozenset[str]().union(*(x.reads for x in probes))
        log |= reads
        outs = tuple(_Probe(t, log, reads) for t in op.infer_types(types, attrs))
        return outs[0] if op.outputs == 1 else outs


def operands_read(
    op: Op, ins: tuple[TensorType, ...], outs: tuple[TensorType, ...], attrs: Attrs, needs: tuple[bool, ...]
) -> tuple[str, ...]:
    """The names among `op.saves` that the rule reads for the wanted gradients; all of them where that cannot be found
    out. Of several outputs each is named apart: "out0", "out1", …
    """
    try:
        key = (op.name, needs, tuple(t.ndim for t in ins), tuple(attrs.items()))
        found = _FOUND.get(key)
    except TypeError:  # an attribute that cannot be hashed
        return _all_saved(op, len(outs))
    if found is None:
        if len(_FOUND) >= _MAX_FOUND:
            _FOUND.clear()
        found = _FOUND[key] = _probe(op, ins, outs, attrs, needs)
    return found


def _probe(
    op: Op, ins: tuple[TensorType, ...], outs: tuple[TensorType, ...], attrs: Attrs, needs: tuple[bool, ...]
) -> tuple[str, ...]:
    saves = _all_saved(op, len(outs))
    if op.vjp is None:
        return saves
    reads: set[str] = set()
    inputs = [_Probe(t, reads, frozenset((str(k),))) for k, t in enumerate(ins)]
    g: Any = tuple(_Probe(t, reads) for t in outs)
    out: Any = tuple(_Probe(t, reads, frozenset((_out_name(k, len(outs)),))) for k, t in enumerate(outs))
    if len(outs) == 1:
        g, out = g[0], out[0]
    token = default_apply().set(_Probe.apply_op)
    try:
        grads = op.vjp(g, out, *inputs, needs=needs, **attrs)
    except (GraphcError, TypeError, AttributeError, ValueError):  # a rule that asks for more than types
        return saves
    finally:
        default_apply().reset(token)
    for grad, need in zip(grads, needs, strict=True):
        if need and grad is not None:
            reads |= grad.reads
    return tuple(s for s in saves if s in reads)


def _out_name(k: int, count: int) -> str:
    return "out" if count == 1 else f"out{k}"


def _all_saved(op: Op, outputs: int) -> tuple[str, ...]:
    names = [[s] if s != "out" else [_out_name(k, outputs) for k in range(outputs)] for s in op.saves]
    return tuple(n for group in names for n in group)
