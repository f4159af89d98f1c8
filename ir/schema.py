"""Which attributes an op takes, of which kinds: read off the signatures of its own rules, to say nothing twice.

Infer functions are written for attributes that the front end made. A file can hold anything, and to Python 2.0 equals 2
and 1 equals True, so readers and the verifier compare every attribute with what the op declares before they run it.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import numpy as np

from graphc.ir.op import Op
from graphc.ir.subgraph import Subgraph
from graphc.ir.types import Dim, DType

# a lambda has no annotations: kinds of attributes whose name says what they are
_UNANNOTATED: dict[str, Any] = {"dtype": DType}


@cache
def schema(op: Op) -> Mapping[str, Any]:
    """Name of every attribute of `op` -> the first annotation its rules give it (Any where none does)."""
    found: dict[str, Any] = {}
    # the reference comes last: it is written for numbers where the others take named sizes
    for rule in (op.infer, op.decompose, op.vjp, op.reference):
        if rule is not None:
            for name, hint in _keywords(rule):
                if found.get(name, Any) is Any:
                    found[name] = hint
    found.pop("needs", None)  # what vjp is asked for, no attribute
    return types.MappingProxyType(found)


def attr_problem(op: Op, attrs: Mapping[str, Any]) -> str | None:
    """What is wrong with the names or kinds of `attrs`, or None."""
    declared = schema(op)
    for name, value in attrs.items():
        hint = declared.get(name) or _collected(op).get(name)
        if hint is None:
            return f"{op.name} has no attribute {name[:80]!r}"
        if not _fits(hint, value):
            return f"{op.name}: attribute {name} must be {_name(hint)}, got {str(value)[:80]} ({type(value).__name__})"
    return None


@cache
def _collected(op: Op) -> Mapping[str, Any]:
    """Attributes that the infer rule collects in `**attrs: kind`: those of the op's samples."""
    for p in inspect.signature(op.infer, follow_wrapped=False).parameters.values():
        if p.kind is p.VAR_KEYWORD:
            hint = _hints(op.infer).get(p.name, Any)
            return {name: hint for sample in op.samples(np.random.default_rng(0)) for name in sample.attrs}
    return {}


def _keywords(rule: Callable[..., Any]) -> list[tuple[str, Any]]:
    """Keyword parameters of a rule: keyword-only, or with a default. Operands have neither."""
    hints = _hints(rule)
    found = []
    for p in inspect.signature(rule, follow_wrapped=False).parameters.values():
        if p.kind is p.KEYWORD_ONLY or (p.kind is p.POSITIONAL_OR_KEYWORD and p.default is not p.empty):
            found.append((p.name, hints.get(p.name, _UNANNOTATED.get(p.name, Any))))
    return found


def _hints(rule: Callable[..., Any]) -> dict[str, Any]:
    try:
        return typing.get_type_hints(rule)
    except NameError:  # an annotation that only the type checker can see
        return {}


def _fits(hint: Any, value: Any) -> bool:
    """True if `value` is of the kind `hint` says. bool is no int here; an int serves as a float."""
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return any(_fits(a, value) for a in args)
    if origin is tuple:
        return isinstance(value, tuple) and _fits_tuple(args, value)
    if origin is np.ndarray or hint is np.ndarray:
        return isinstance(value, np.ndarray)
    if hint is float:
        return type(value) in (int, float)
    if hint in (bool, int, str, DType, Dim, Subgraph, type(None)):
        return type(value) is hint
    return True


def _fits_tuple(args: tuple[Any, ...], value: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(_fits(args[0], v) for v in value)
    return len(args) == len(value) and all(_fits(a, v) for a, v in zip(args, value, strict=True))


def _name(hint: Any) -> str:
    return hint.__name__ if isinstance(hint, type) else str(hint).replace("graphc.ir.types.", "").replace("typing.", "")
