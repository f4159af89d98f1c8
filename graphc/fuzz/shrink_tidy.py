"""The last touch on a small program: values that are read once stand where they are read, names are in order."""

from __future__ import annotations

import ast
import builtins
import re
from collections.abc import Iterator

from graphc.fuzz.shrink_names import made_by, parameters

_LETTERS = "abcdefghijlmnopqrtuv"  # f is the function; k and s are the numbers of random programs


def tidied(text: str) -> Iterator[str]:
    """The program with blank lines and names in order, the tidiest form first; each runs as `text` does."""
    yield _spaced(_renamed(ast.parse(text)))
    yield _spaced(ast.parse(text))


def _renamed(tree: ast.Module) -> ast.Module:
    """Parameters of f are x, y, …; what it assigns a, b, …; what make prepares follows the parameters."""
    made = made_by(tree)
    if made is None:
        return tree
    make, _, f = made
    taken = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | set(dir(builtins))
    taken |= {a.arg for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.Lambda)) for a in n.args.args}
    params = [p for p in parameters(f) if p not in ("s", "k")]
    few = len(params) < 4
    names = dict(zip(params, ("x", "y", "z") if few else (f"x{k}" for k in range(len(params))), strict=False))
    assigned = dict.fromkeys(n.id for n in _ordered(f) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store))
    free = [c for c in _LETTERS if c not in taken and c not in names.values()]
    names |= dict(zip((n for n in assigned if n not in (*names, "s", "k")), free, strict=False))
    clash = (set(names.values()) & taken) - set(names)
    if clash or _shared(make, f, set(names)):
        return tree
    for n in ast.walk(f):
        if isinstance(n, ast.Name) and n.id in names:
            n.id = names[n.id]
        elif isinstance(n, ast.arg) and n.arg in names:
            n.arg = names[n.arg]
    return tree


def _shared(make: ast.FunctionDef, f: ast.FunctionDef, names: set[str]) -> bool:
    """Whether a name inside f is also the keyword of a call there, or declared global or nonlocal."""
    return any(isinstance(n, (ast.Global, ast.Nonlocal)) for n in ast.walk(make)) or any(
        isinstance(n, ast.FunctionDef) and n.name in names for n in ast.walk(f)
    )


def _ordered(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _ordered(child)


def _spaced(tree: ast.Module) -> str:
    """The text with unused imports dropped, `import graphc` put in where that went (what runs a program needs it), and
    blank lines as in a module that a person wrote.
    """
    used = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name)} | {"graphc"}
    tree.body = [s for s in tree.body if not isinstance(s, (ast.Import, ast.ImportFrom)) or _needed(s, used)]
    if not any(isinstance(s, ast.Import) and s.names[0].name == "graphc" for s in tree.body):
        tree.body.insert(0, ast.Import([ast.alias("graphc")]))
    parts: list[str] = []
    for s in tree.body:
        gap = "\n\n" if parts and not isinstance(s, (ast.Import, ast.ImportFrom)) else ""
        parts.append(gap + _body(s) + "\n")
    return "".join(parts)


def _needed(s: ast.Import | ast.ImportFrom, used: set[str]) -> bool:
    s.names = [a for a in s.names if (a.asname or a.name).split(".")[0] in used or "__future__" in ast.unparse(s)]
    return bool(s.names)


def _body(s: ast.stmt) -> str:
    """A statement; in make f stands apart."""
    text = ast.unparse(ast.fix_missing_locations(s))
    if not (isinstance(s, ast.FunctionDef) and s.name == "make"):
        return text
    text = re.sub(r"\n+    return \((f, .*)\)\Z", r"\n\n    return \1", text)
    return text.replace("):\n\n    def f(", "):\n    def f(")
