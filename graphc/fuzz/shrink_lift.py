"""Making a program smaller: what is computed from the arguments alone becomes an argument."""

from __future__ import annotations

import ast
import itertools

from graphc.fuzz.shrink_edits import Edit, places, put, replaced
from graphc.fuzz.shrink_names import arguments, binds, free_names, made_by, parameters

_COMPUTED = (ast.Call, ast.BinOp, ast.UnaryOp, ast.Subscript)


def lift(tree: ast.Module) -> list[Edit]:
    """An expression of f that reads no local variable becomes an argument that make prepares."""
    made = made_by(tree)
    if made is None or arguments(tree) is None:
        return []
    make, _, f = made
    inside = {id(n) for s in f.body for n in ast.walk(s)}
    before = [*tree.body, *make.body[: make.body.index(f)]]
    known = set(parameters(f)).union(*map(binds, before)) - set().union(*map(binds, f.body))
    return [
        _lifting(k)
        for k, (*_, e) in enumerate(places(tree))
        if id(e) in inside and isinstance(e, _COMPUTED) and all(n.id in known for n in free_names(e))
    ]


def _lifting(number: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        made, args = made_by(tree), arguments(tree)
        if made is None or args is None or made[2].args.defaults:
            return False
        make, _, f = made
        parent, field, k, e = places(tree)[number]
        taken = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | set(parameters(f))
        name = next(n for n in (f"h{i}" for i in itertools.count()) if n not in taken)
        put(parent, field, k, ast.Name(name, ast.Load()))
        value = replaced(e, dict(zip(parameters(f), args.elts, strict=False)))
        make.body.insert(make.body.index(f), ast.Assign([ast.Name(name, ast.Store())], value, lineno=0))
        f.args.args.append(ast.arg(name))
        args.elts.append(ast.Name(name, ast.Load()))
        return True

    return edit
