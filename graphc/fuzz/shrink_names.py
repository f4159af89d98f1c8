"""Which names a program uses before anything binds them, and how a program that lost a binding is made whole again."""

from __future__ import annotations

import ast
import builtins
from collections.abc import Iterator, Sequence

Function = ast.FunctionDef | ast.AsyncFunctionDef
_BUILTIN = frozenset(dir(builtins)) | {"__name__", "__file__"}
_BODIES = ("body", "orelse", "handlers", "finalbody", "cases")
_DISPLAYS = (ast.Tuple, ast.List, ast.Set, ast.Dict)
_WITH_BODY = (
    ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef, ast.For, ast.While, ast.If, ast.With, ast.Try,
    ast.ExceptHandler, ast.match_case,
)  # fmt: skip
_BOUND_INSIDE = (ast.ListComp, ast.SetComp, ast.GeneratorExp, ast.DictComp)


def function(tree: ast.AST, name: str) -> ast.FunctionDef | None:
    """The first function of that name."""
    return next((n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef) and n.name == name), None)


def parameters(of: Function | ast.Lambda) -> list[str]:
    """The names of the parameters."""
    a = of.args
    found = [*a.posonlyargs, *a.args, *a.kwonlyargs, *([a.vararg] if a.vararg else []), *([a.kwarg] if a.kwarg else [])]
    return [p.arg for p in found]


def bodies(statement: ast.AST) -> Iterator[list[ast.stmt]]:
    """The lists of statements right inside, handlers' own among them."""
    for field in _BODIES:
        block = getattr(statement, field, None)
        if not isinstance(block, list):
            continue  # a lambda, a choice
        yield from (item.body for item in block if isinstance(item, (ast.ExceptHandler, ast.match_case)))
        if block and isinstance(block[0], ast.stmt):
            yield block


def own_expressions(statement: ast.AST) -> Iterator[ast.expr]:
    """The expressions of a statement but those of the statements inside; decorators, defaults and guards count."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
        yield from statement.decorator_list
        yield from (d for d in (*statement.args.defaults, *statement.args.kw_defaults) if d is not None)
        return
    yield from (case.guard for case in getattr(statement, "cases", ()) if case.guard is not None)
    for name, value in ast.iter_fields(statement):
        if name in _BODIES or name == "annotation":
            continue
        for item in value if isinstance(value, list) else [value]:
            if isinstance(item, ast.expr):
                yield item
            elif isinstance(item, ast.AST):
                yield from (x for x in ast.iter_child_nodes(item) if isinstance(x, ast.expr))


def free_names(e: ast.AST, bound: frozenset[str] = frozenset()) -> Iterator[ast.Name]:
    """The names an expression reads that it does not bind itself."""
    if isinstance(e, ast.Name):
        if isinstance(e.ctx, ast.Load) and e.id not in bound:
            yield e
        return
    if isinstance(e, ast.Lambda):
        bound = bound | set(parameters(e))
    elif isinstance(e, _BOUND_INSIDE):
        bound = bound | {n.id for g in e.generators for n in ast.walk(g.target) if isinstance(n, ast.Name)}
    for child in ast.iter_child_nodes(e):
        yield from free_names(child, bound)


def binds(statement: ast.stmt) -> set[str]:
    """The names a statement binds in its scope, those of the blocks inside among them."""
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)):
        return {statement.name}
    if isinstance(statement, (ast.Import, ast.ImportFrom)):
        return {(a.asname or a.name).split(".")[0] for a in statement.names}
    found = _stored(statement)
    for block in bodies(statement):
        for inner in block:
            found |= binds(inner)
    return found


def _stored(statement: ast.stmt) -> set[str]:
    """The names that a statement binds by itself, in expressions, handlers and patterns."""
    nodes = (n for e in own_expressions(statement) for n in ast.walk(e))
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    found |= {h.name for h in getattr(statement, "handlers", ()) if h.name}
    for case in getattr(statement, "cases", ()):
        found |= {n.name for n in ast.walk(case.pattern) if isinstance(n, (ast.MatchAs, ast.MatchStar)) and n.name}
        found |= {n.rest for n in ast.walk(case.pattern) if isinstance(n, ast.MatchMapping) and n.rest}
    return found


def undefined(tree: ast.Module) -> list[ast.Name]:
    """The names that are read though nothing before binds them; functions of a module may read all its names.

    What a statement binds that is to go because of such a name counts as unbound, where it goes as a whole.
    """
    names = set(_BUILTIN)
    for statement in tree.body:
        names |= binds(statement)
    found: list[ast.Name] = []
    _look(tree.body, set(_BUILTIN), names, found)
    return found


def _look(body: Sequence[ast.stmt], bound: set[str], module: set[str], found: list[ast.Name]) -> None:
    for statement in body:
        missing = _missing(statement, bound)
        found += missing
        if missing and not any(isinstance(n, _DISPLAYS) for e in own_expressions(statement) for n in ast.walk(e)):
            continue  # it goes, and with it what it binds
        if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)):
            bound.add(statement.name)
            _look(statement.body, bound | module | set(parameters(statement)), module, found)
        elif isinstance(statement, ast.ClassDef):
            _look(statement.body, set(bound), module, found)
            bound.add(statement.name)
        elif isinstance(statement, (ast.Import, ast.ImportFrom)):
            bound |= binds(statement)
        else:
            bound |= _stored(statement)
            for block in bodies(statement):
                _look(block, bound, module, found)


def _missing(statement: ast.stmt, bound: set[str]) -> list[ast.Name]:
    """The names a statement itself reads that are not bound; those its patterns and `:=` bind are."""
    inside: set[str] = set()
    found: list[ast.Name] = []
    if isinstance(statement, ast.AugAssign) and isinstance(statement.target, ast.Name):
        found += [statement.target] if statement.target.id not in bound else []
    for e in own_expressions(statement):
        inside |= {n.target.id for n in ast.walk(e) if isinstance(n, ast.NamedExpr)}
    if getattr(statement, "cases", ()):
        inside |= _stored(statement)
    for e in own_expressions(statement):
        found += [n for n in free_names(e) if n.id not in bound and n.id not in inside]
    return found


def repair(tree: ast.Module) -> bool:
    """Drop what reads names that are bound no more: items of displays, arguments of `f`, else whole statements.

    Tells whether the program has all its names then.
    """
    for _ in range(100):
        fill(tree)
        missing = undefined(tree)
        if not missing:
            return True
        parents = {id(child): node for node in ast.walk(tree) for child in ast.iter_child_nodes(node)}
        for name in missing:
            if not _drop(tree, name, parents):
                return False
    return False


def prune(tree: ast.Module) -> None:
    """Drop functions and classes that nothing names."""
    while True:
        nodes = list(ast.walk(tree))
        used = {n.id for n in nodes if isinstance(n, ast.Name)} | {"make", "f"}
        methods = {id(s) for n in nodes if isinstance(n, ast.ClassDef) for s in n.body}
        defined = (n for n in nodes if isinstance(n, (ast.FunctionDef, ast.ClassDef)) and id(n) not in methods)
        dead = {id(n) for n in defined if n.name not in used}
        if not dead:
            return
        for node in nodes:
            for block in bodies(node):
                block[:] = [s for s in block if id(s) not in dead]


def fill(tree: ast.Module) -> None:
    """`pass` in blocks that are empty."""
    for node in ast.walk(tree):
        if isinstance(node, _WITH_BODY) and not node.body:
            node.body = [ast.Pass()]


def _drop(tree: ast.Module, name: ast.Name, parents: dict[int, ast.AST]) -> bool:
    """Drop the smallest thing around `name` that can go; True as well where it has gone with something else."""
    inner: ast.AST = name
    while inner is not tree:
        outer = parents[id(inner)]
        if isinstance(inner, ast.stmt):
            return _drop_statement(outer, inner)
        if isinstance(outer, (ast.Tuple, ast.List, ast.Set)) and not isinstance(parents[id(outer)], ast.Assign):
            if _is_result(tree, parents[id(outer)]):
                return False
            if any(e is inner for e in outer.elts):
                return drop_argument(tree, outer, inner) or _drop_item(outer, inner)
            return True
        if isinstance(outer, ast.Dict) and any(e is inner for e in outer.values):
            at = next(k for k, e in enumerate(outer.values) if e is inner)
            del outer.keys[at], outer.values[at]
            return True
        inner = outer
    return False


def _is_result(tree: ast.Module, node: ast.AST) -> bool:
    """Whether it is the `return f, args, state` of make: nothing of it can go."""
    made = made_by(tree)
    return made is not None and node is made[1]


def _drop_item(outer: ast.Tuple | ast.List | ast.Set, inner: ast.AST) -> bool:
    outer.elts = [e for e in outer.elts if e is not inner]
    return True


def _drop_statement(outer: ast.AST, inner: ast.stmt) -> bool:
    if isinstance(inner, ast.FunctionDef) and inner.name in ("make", "f"):
        return False
    for field in _BODIES:
        block = getattr(outer, field, None)
        if isinstance(block, list):
            block[:] = [s for s in block if s is not inner]
    return True


def made_by(tree: ast.Module) -> tuple[ast.FunctionDef, ast.Return, ast.FunctionDef] | None:
    """make, its `return f, (…), […]`, and f; None for a program of another form."""
    make = function(tree, "make")
    f = None if make is None else function(make, "f")
    if make is None or f is None or not isinstance(make.body[-1], ast.Return):
        return None
    result = make.body[-1]
    if not isinstance(result.value, ast.Tuple) or len(result.value.elts) != 3:
        return None
    return make, result, f


def arguments(tree: ast.Module) -> ast.Tuple | ast.List | None:
    """The display of arguments in make's return, where each stands for one positional parameter of f."""
    made = made_by(tree)
    if made is None or not isinstance(made[1].value, ast.Tuple):
        return None
    args = made[1].value.elts[1]
    plain = isinstance(args, (ast.Tuple, ast.List)) and not any(isinstance(e, ast.Starred) for e in args.elts)
    return args if plain and len(made[2].args.args) >= len(args.elts) else None  # type: ignore[attr-defined,return-value]


def drop_argument(tree: ast.Module, display: ast.AST, item: ast.AST) -> bool:
    """Drop an argument of the program together with its parameter; False where `display` is no such list."""
    args = arguments(tree)
    made = made_by(tree)
    if args is None or made is None or display is not args:
        return False
    at = next(k for k, e in enumerate(args.elts) if e is item)
    del args.elts[at]
    of = made[2].args
    first_default = len(of.args) - len(of.defaults)
    if at >= first_default:
        del of.defaults[at - first_default]
    del of.args[at]
    return True
