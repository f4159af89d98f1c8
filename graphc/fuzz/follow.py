"""Runs the plain statements of a program while it is being written, so that what is known of every name is exact.

A walk over the syntax tree of one line at a time: names, attributes, calls, keys, arithmetic. What it does not know
(definitions, blocks, lambdas) is `Unknown` and left to the writer; what raises is `Wrong`.
"""

from __future__ import annotations

import ast
import operator
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from graphc.errors import GraphcError
from graphc.frontend.grad_mode import set_grad_enabled
from graphc.frontend.tensor import Tensor

_BINARY: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv, ast.Mod: operator.mod, ast.Pow: operator.pow, ast.MatMult: operator.matmul,
    ast.BitAnd: operator.and_, ast.BitOr: operator.or_, ast.BitXor: operator.xor, ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}  # fmt: skip
_IN_PLACE: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.iadd, ast.Sub: operator.isub, ast.Mult: operator.imul, ast.Div: operator.itruediv,
    ast.FloorDiv: operator.ifloordiv, ast.Mod: operator.imod, ast.BitAnd: operator.iand, ast.BitOr: operator.ior,
    ast.BitXor: operator.ixor, ast.Pow: operator.ipow,
}  # fmt: skip
_UNARY: Mapping[type[ast.unaryop], Callable[[Any], Any]] = {
    ast.USub: operator.neg, ast.Invert: operator.invert, ast.Not: operator.not_, ast.UAdd: operator.pos,
}  # fmt: skip
_COMPARE: Mapping[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: operator.lt, ast.LtE: operator.le, ast.Gt: operator.gt, ast.GtE: operator.ge, ast.Eq: operator.eq,
    ast.NotEq: operator.ne, ast.Is: operator.is_, ast.IsNot: operator.is_not,
}  # fmt: skip
_BUILTINS = {"float": float, "int": int, "bool": bool, "len": len, "abs": abs, "tuple": tuple, "list": list}
# what a statement may raise that is wrong: the package's errors are of these kinds as well
RAISED = (GraphcError, RuntimeError, TypeError, ValueError, IndexError, ArithmeticError, KeyError, AttributeError)


class Unknown(Exception):
    """A form that is not followed, or a name that is not known."""


class Wrong(Exception):
    """The statement raises; its text is the message."""


class Follower:
    """The names of a program and what they are now."""

    def __init__(self, names: Mapping[str, Any]) -> None:
        self.names: dict[str, Any] = {**_BUILTINS, "np": np, **names}

    def value(self, text: str, grad: bool) -> Any:
        """What the expression gives, with or without gradients. Raises Unknown or Wrong."""
        body = _parsed(text, "eval").body
        return self._guarded(lambda: self._of(body), grad)

    def run(self, line: str, grad: bool) -> None:
        """Run a simple statement. Raises Unknown or Wrong."""
        body = _parsed(line, "exec").body
        if len(body) != 1:
            raise Unknown(line)
        self._guarded(lambda: self._statement(body[0]), grad)

    def _guarded(self, work: Callable[[], Any], grad: bool) -> Any:
        try:
            with np.errstate(all="ignore"), warnings.catch_warnings(), set_grad_enabled(grad):
                warnings.simplefilter("ignore")
                return work()
        except RAISED as error:
            raise Wrong(f"{type(error).__name__}: {error}") from error

    def _statement(self, node: ast.stmt) -> None:
        if isinstance(node, ast.Expr):
            self._of(node.value)
        elif isinstance(node, ast.Assign) and len(node.targets) == 1:
            self._bind(node.targets[0], self._of(node.value))
        elif isinstance(node, ast.AugAssign) and type(node.op) in _IN_PLACE:
            read: Any = type(node.target)(**{**dict(ast.iter_fields(node.target)), "ctx": ast.Load()})
            self._bind(node.target, _IN_PLACE[type(node.op)](self._of(read), self._of(node.value)))
        else:
            raise Unknown(type(node).__name__)

    def _bind(self, target: ast.expr, value: Any) -> None:
        if isinstance(target, ast.Name):
            self.names[target.id] = value
        elif isinstance(target, ast.Attribute):
            setattr(self._of(target.value), _public(target.attr), value)
        elif isinstance(target, ast.Subscript):
            self._of(target.value)[self._of(target.slice)] = value
        elif isinstance(target, ast.Tuple):
            for part, item in zip(target.elts, value, strict=True):
                self._bind(part, item)
        else:
            raise Unknown(type(target).__name__)

    def _of(self, node: ast.expr) -> Any:
        step = _STEPS.get(type(node))
        if step is None:
            raise Unknown(type(node).__name__)
        return step(self, node)

    def _name(self, node: Any) -> Any:
        if node.id not in self.names:
            raise Unknown(node.id)
        return self.names[node.id]

    def _call(self, node: Any) -> Any:
        given: list[Any] = []
        for x in node.args:
            given += self._of(x.value) if isinstance(x, ast.Starred) else [self._of(x)]
        named = {k.arg: self._of(k.value) for k in node.keywords if k.arg is not None}
        return self._of(node.func)(*given, **named)

    def _compare(self, node: Any) -> Any:
        if len(node.ops) != 1 or type(node.ops[0]) not in _COMPARE:
            raise Unknown("comparison")
        return _COMPARE[type(node.ops[0])](self._of(node.left), self._of(node.comparators[0]))

    def _binary(self, node: Any) -> Any:
        return _BINARY[type(node.op)](self._of(node.left), self._of(node.right))

    def _slice(self, node: Any) -> slice:
        return slice(*(None if x is None else self._of(x) for x in (node.lower, node.upper, node.step)))


_STEPS: dict[type[ast.expr], Callable[[Follower, Any], Any]] = {
    ast.Constant: lambda f, n: n.value,
    ast.Name: Follower._name,
    ast.Attribute: lambda f, n: getattr(f._of(n.value), _public(n.attr)),
    ast.Call: Follower._call,
    ast.Subscript: lambda f, n: f._of(n.value)[f._of(n.slice)],
    ast.Slice: Follower._slice,
    ast.Tuple: lambda f, n: tuple(map(f._of, n.elts)),
    ast.List: lambda f, n: list(map(f._of, n.elts)),
    ast.Dict: lambda f, n: {f._of(k): f._of(v) for k, v in zip(n.keys, n.values, strict=True)},
    ast.UnaryOp: lambda f, n: _UNARY[type(n.op)](f._of(n.operand)),
    ast.BinOp: Follower._binary,
    ast.Compare: Follower._compare,
}


def _public(name: str) -> str:
    if name.startswith("_"):
        raise Unknown(name)
    return name


def _parsed(text: str, how: str) -> Any:
    try:
        return ast.parse(text, mode=how)
    except SyntaxError as error:
        raise Unknown(text) from error


def is_overlapping(t: Tensor) -> bool:
    """Whether two elements of a tensor are one place in memory: it was expanded."""
    return any(s == 0 and n > 1 for s, n in zip(t.stride(), t.shape, strict=True))
