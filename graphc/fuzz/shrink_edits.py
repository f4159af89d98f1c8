"""What may be tried to make a program smaller. Every finder lists edits of one kind for a program.

An edit changes a freshly parsed tree of the same text, in which it finds its place by number; it answers False where it
changed nothing.
"""

from __future__ import annotations

import ast
import builtins
import copy
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from graphc.fuzz.shrink_count import called
from graphc.fuzz.shrink_names import arguments, binds, bodies, drop_argument, free_names, made_by, parameters

Edit = Callable[[ast.Module], bool]
Find = Callable[[ast.Module], list[Edit]]
_Syntax = TypeVar("_Syntax", bound=ast.AST)
_PACKAGES = frozenset({"graphc", "nn", "optim", "F", "np", "numpy", "math", "functools", "contextlib"})
_DTYPES = frozenset(
    {"float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "uint8", "bool", "complex64", "complex128"}
)
_RANDOM = re.compile(  # what draws numbers: functions, and layers with weights
    r"(?i)rand(?!om_seed)|normal|dropout|bernoulli|multinomial|uniform|poisson|exponential_|kaiming|xavier|gumbel"
    r"|\bnn\.(?!Parameter|Module|functional|utils|ReLU|Sequential)[A-Z]"
)
_SIMPLER = {"randn": ("ones",), "rand": ("ones",), "randint": (), "normal": (), "empty": ("ones",)}
_PLAIN = (ast.Assign, ast.AugAssign, ast.Expr, ast.Return)
NAMES_TRIED = 4


# ---- statements


def blocks(tree: ast.AST) -> Iterator[list[ast.stmt]]:
    """Every list of statements, outer ones first."""
    for node in ast.walk(tree):
        yield from (b for b in bodies(node) if not isinstance(node, ast.ExceptHandler))


def statements(tree: ast.Module) -> list[tuple[list[ast.stmt], ast.stmt]]:
    """What may be removed: (its block, statement), in the order of the text."""
    made = made_by(tree)
    kept = set() if made is None else {id(n) for n in made}
    found = [(block, s) for block in blocks(tree) for s in block if id(s) not in kept]
    return sorted(found, key=lambda pair: (pair[1].lineno, pair[1].col_offset))


def loose(text: str) -> bool:
    """Whether a program draws random numbers without a seed: two runs of it would differ."""
    return "manual_seed(" not in text and _RANDOM.search(text) is not None


def remove(size: int) -> Find:
    """Finds runs of `size` statements, the last ones first."""

    def find(tree: ast.Module) -> list[Edit]:
        count = len(statements(tree))
        starts = range(max(count - size, 0), -size, -size)
        return [_removal(max(start, 0), start + size) for start in starts if start + size > 0]

    return find


def _removal(start: int, stop: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        gone = statements(tree)[start:stop]
        for block, s in gone:
            block[:] = [x for x in block if x is not s]
        return bool(gone)

    return edit


def unwrap(tree: ast.Module) -> list[Edit]:
    """A block in place of the statement that has it; a loop runs once."""
    found: list[Edit] = []
    for k, (_, s) in enumerate(statements(tree)):
        if isinstance(s, (ast.With, ast.If, ast.For, ast.While, ast.Try)):
            found += [_unwrapping(k, which) for which in range(len(list(bodies(s))))]
    return found


def _unwrapping(number: int, which: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        block, s = statements(tree)[number]
        inside = list(bodies(s))[which]
        at = block.index(s)
        block[at : at + 1] = [*_once(s), *inside]
        return True

    return edit


def unfold(tree: ast.Module) -> list[Edit]:
    """`(a := x) + 1` as two statements."""
    found = [k for k, (_, s) in enumerate(statements(tree)) if isinstance(s, _PLAIN) and _named(s)]
    return [_unfolding(k) for k in found]


def _named(s: ast.stmt) -> list[ast.NamedExpr]:
    return [n for n in ast.walk(s) if isinstance(n, ast.NamedExpr)]


def _unfolding(number: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        block, s = statements(tree)[number]
        named = _named(s)[-1]
        name = named.target.id
        block.insert(block.index(s), ast.Assign([ast.Name(name, ast.Store())], named.value, lineno=s.lineno))
        for parent in ast.walk(s):
            for field, value in ast.iter_fields(parent):
                if value is named:
                    put(parent, field, None, ast.Name(name, ast.Load()))
                elif isinstance(value, list) and named in value:
                    put(parent, field, value.index(named), ast.Name(name, ast.Load()))
        return True

    return edit


def _once(s: ast.stmt) -> list[ast.stmt]:
    """What binds the target of a loop to its first item."""
    if not isinstance(s, ast.For):
        return []
    counts = isinstance(s.iter, ast.Call) and called(s.iter) == "range"
    first = ast.Constant(0) if counts else ast.Subscript(s.iter, ast.Constant(0), ast.Load())
    return [ast.Assign([s.target], first, lineno=s.lineno)]


def cut_short(tree: ast.Module) -> list[Edit]:
    """Only the first statements of f, returning all that they make."""
    made = made_by(tree)
    if made is None:
        return []
    return [_cutting(k) for k in range(1, len(made[2].body) - 1)]


def _cutting(kept: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        made = made_by(tree)
        if made is None:
            return False
        f = made[2]
        del f.body[kept:]
        names: dict[str, None] = {}
        for s in f.body:
            names.update(dict.fromkeys(sorted(binds(s))) if not isinstance(s, ast.FunctionDef) else {})
        names = names or dict.fromkeys(parameters(f))
        f.body.append(ast.Return(ast.Tuple([ast.Name(n, ast.Load()) for n in names], ast.Load())))
        return True

    return edit


# ---- values


def assigned(tree: ast.Module) -> list[tuple[list[ast.stmt], ast.Assign, str]]:
    """Assignments to one name, in functions of the program."""
    found = []
    for block, s in statements(tree):
        if isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name):
            found.append((block, s, s.targets[0].id))
    return found


def substitute(tree: ast.Module) -> list[Edit]:
    """A value gives way to one it is made of, or to a parameter of f, wherever it is read."""
    made = made_by(tree)
    params = [] if made is None else parameters(made[2])
    outer = _module_names(tree)
    found: list[Edit] = []
    for k, (_, s, name) in reversed(list(enumerate(assigned(tree)))):
        near = [n.id for n in free_names(s.value) if n.id not in outer and n.id != name]
        inside = made is not None and made[2].lineno <= s.lineno <= (made[2].end_lineno or 0)
        tried = list(dict.fromkeys([*near, *(params if inside else [])]))[:NAMES_TRIED]
        found += [_substitution(k, other) for other in tried]
    return found


def _substitution(number: int, other: str) -> Edit:
    def edit(tree: ast.Module) -> bool:
        block, s, name = assigned(tree)[number]
        after = False
        for n in _in_order(tree):
            after = after or n is s
            if after and isinstance(n, ast.Name) and n.id == name:
                n.id = other
        block.remove(s)
        return True

    return edit


def inline(tree: ast.Module) -> list[Edit]:
    """A value that is read once stands where it is read."""
    return [_inlining(k) for k in range(len(assigned(tree)))]


def _inlining(number: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        block, s, name = assigned(tree)[number]
        if sum(isinstance(n, ast.Name) and n.id == name for n in ast.walk(tree)) != 2:
            return False
        at = block.index(s)
        if at + 1 == len(block) or next(bodies(block[at + 1]), None) is not None:
            return False
        del block[at]
        block[at] = replaced(block[at], {name: s.value})
        return not any(isinstance(n, ast.Name) and n.id == name for n in ast.walk(tree))

    return edit


def _in_order(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes in the order of the text."""
    yield tree
    for child in ast.iter_child_nodes(tree):
        yield from _in_order(child)


def hoist(tree: ast.Module) -> list[Edit]:
    """A value made at the start of f becomes an argument that make prepares."""
    made = made_by(tree)
    if made is None or arguments(tree) is None:
        return []
    body = made[2].body
    return [_hoisting(k) for k, s in enumerate(body[:-1]) if isinstance(s, (ast.Assign, ast.Expr, ast.FunctionDef))]


def _hoisting(at: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        made, args = made_by(tree), arguments(tree)
        if made is None or args is None:
            return False
        make, _, f = made
        s = f.body.pop(at)
        names = binds(s)
        if names & {n for x in make.body for n in binds(x)}:
            return False
        given = dict(zip(parameters(f), args.elts, strict=False))
        make.body.insert(make.body.index(f), replaced(s, given))
        if not isinstance(s, ast.FunctionDef):
            for name in sorted(names - set(parameters(f))):
                f.args.args.append(ast.arg(name))
                args.elts.append(ast.Name(name, ast.Load()))
        return not f.args.defaults

    return edit


class _Put(ast.NodeTransformer):
    """Puts expressions in place of names."""

    def __init__(self, given: dict[str, ast.expr]) -> None:
        self.given = given

    def visit_Name(self, node: ast.Name) -> ast.expr:
        found = self.given.get(node.id) if isinstance(node.ctx, ast.Load) else None
        return node if found is None else copy.deepcopy(found)


def replaced(node: _Syntax, given: dict[str, ast.expr]) -> _Syntax:
    """`node`, changed: expressions in place of the names they are given for."""
    done: _Syntax = _Put(given).visit(node)
    return done


def settle(tree: ast.Module) -> list[Edit]:
    """A parameter of f gives way to the constant that is passed for it."""
    args = arguments(tree)
    plain = [k for k, e in enumerate(args.elts) if _literal(e)] if args is not None else []
    return [_settling(k) for k in plain]


def _literal(e: ast.expr) -> bool:
    return isinstance(e, ast.Constant) or (isinstance(e, ast.UnaryOp) and isinstance(e.operand, ast.Constant))


def _settling(at: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        made, args = made_by(tree), arguments(tree)
        if made is None or args is None:
            return False
        f, value = made[2], args.elts[at]
        name = parameters(f)[at]
        if any(name in binds(s) for s in ast.walk(f) if isinstance(s, ast.stmt) and s is not f):
            return False
        drop_argument(tree, args, value)
        f.body = [replaced(s, {name: value}) for s in f.body]
        return True

    return edit


# ---- expressions


def places(tree: ast.Module) -> list[tuple[ast.AST, str, int | None, ast.expr]]:
    """Every expression that is read, the frame of make's result left out: (parent, field, number, expression)."""
    made = made_by(tree)
    result = made[1].value if made is not None else None
    frame = [result, *result.elts] if isinstance(result, ast.Tuple) else []
    found: list[tuple[ast.AST, str, int | None, ast.expr]] = []
    for node in ast.walk(tree):
        for field, value in ast.iter_fields(node):
            if field in ("annotation", "returns", "bases", "decorator_list", "func"):
                continue
            items = enumerate(value) if isinstance(value, list) else [(None, value)]
            found += [(node, field, k, e) for k, e in items if isinstance(e, ast.expr) and _read(e) and e not in frame]
    return found


def _read(e: ast.expr) -> bool:
    return not isinstance(getattr(e, "ctx", None), (ast.Store, ast.Del))


def reduce(tree: ast.Module) -> list[Edit]:
    """An expression gives way to a part of it."""
    return [_reduction(k, j) for k, (*_, e) in enumerate(places(tree)) for j in range(len(_parts(tree, e)))]


def _reduction(number: int, part: int) -> Edit:
    def edit(tree: ast.Module) -> bool:
        parent, field, k, e = places(tree)[number]
        put(parent, field, k, _parts(tree, e)[part])
        return True

    return edit


def put(parent: ast.AST, field: str, k: int | None, e: ast.expr) -> None:
    """Put an expression at a place, as `places` tells it."""
    if k is None:
        setattr(parent, field, e)
    else:
        getattr(parent, field)[k] = e


def _parts(tree: ast.Module, e: ast.expr) -> list[ast.expr]:
    """The smaller expressions that may stand for `e`: bodies of what it calls, direct parts, names deep inside."""
    direct: list[ast.expr] = []
    if isinstance(e, ast.Call):
        direct = [*_called_body(tree, e), *_operands(e)]
    elif isinstance(e, ast.Subscript):
        direct = [e.value, *([e.slice] if isinstance(e.slice, (ast.Name, ast.Call)) else [])]
    elif isinstance(e, ast.Dict):
        direct = list(e.values)
    elif isinstance(e, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Tuple, ast.List)):
        direct = [x for x in ast.iter_child_nodes(e) if isinstance(x, ast.expr)]
    elif isinstance(e, ast.Attribute) and not _package(e.value):
        direct = [e.value]
    if isinstance(e, ast.UnaryOp) and isinstance(e.operand, ast.Constant):
        return []
    outer = _module_names(tree)
    deep = [n for x in direct for n in free_names(x) if n is not x and n.id not in outer]
    direct = [x for x in direct if not (isinstance(x, ast.Name) and x.id in outer)]
    shown: dict[str, ast.expr] = {}
    for x in (*direct, *deep):
        if not isinstance(x, (ast.Starred, ast.Slice)):
            shown.setdefault(ast.unparse(x), x)
    return list(shown.values())


def _module_names(tree: ast.Module) -> set[str]:
    """The names that the module binds, and Python's own: packages, functions, classes, no values."""
    return set(dir(builtins)).union(*(binds(s) for s in tree.body))


def _package(e: ast.expr) -> bool:
    return (isinstance(e, ast.Name) and e.id in _PACKAGES) or (isinstance(e, ast.Attribute) and _package(e.value))


def _operands(e: ast.Call) -> list[ast.expr]:
    """The receiver and the arguments, those in displays among them."""
    found = [e.func.value] if isinstance(e.func, ast.Attribute) and not _package(e.func.value) else []
    for x in (*e.args, *(k.value for k in e.keywords)):
        found += x.elts if isinstance(x, (ast.List, ast.Tuple)) else [x]
    return [x for x in found if not isinstance(x, ast.Lambda)]


def _called_body(tree: ast.Module, e: ast.Call) -> list[ast.expr]:
    """What a call of a helper of one expression gives, or a lambda among the arguments applied to the others."""
    found = []
    for x in (e.func, *e.args):
        body, names = _only_expression(tree, x)
        given = [a for a in e.args if a is not x and not isinstance(a, ast.Lambda)]
        if len(given) == 1 and isinstance(given[0], (ast.List, ast.Tuple)) and len(names) > 0:
            given = given[0].elts
        if body is not None and len(given) >= len(names):
            found.append(replaced(copy.deepcopy(body), dict(zip(names, given, strict=False))))
    return found


def _only_expression(tree: ast.Module, x: ast.expr) -> tuple[ast.expr | None, Sequence[str]]:
    if isinstance(x, ast.Lambda):
        return x.body, parameters(x)
    if isinstance(x, ast.Name):
        for n in ast.walk(tree):
            if isinstance(n, ast.FunctionDef) and n.name == x.id and len(n.body) == 1:
                (s,) = n.body
                return (s.value, parameters(n)) if isinstance(s, ast.Return) else (None, ())
    return None, ()


def thin(tree: ast.Module) -> list[Edit]:
    """Arguments, keywords, items of displays and bounds of slices go, one by one."""
    found: list[Edit] = []
    for k, node in enumerate(ast.walk(tree)):
        for field in ("keywords", "args", "elts", "keys"):
            items = getattr(node, field, None)
            if isinstance(items, list):
                found += [_thinning(k, field, j) for j in range(len(items) - 1, -1, -1)]
        if isinstance(node, ast.Slice):
            found += [_thinning(k, field, None) for field in ("step", "lower", "upper") if getattr(node, field)]
    return found


def _thinning(number: int, field: str, item: int | None) -> Edit:
    def edit(tree: ast.Module) -> bool:
        node = list(ast.walk(tree))[number]
        if item is None:
            setattr(node, field, None)
            return True
        made = made_by(tree)
        if isinstance(node, ast.arguments) or (made is not None and node is made[1].value):
            return False
        given = arguments(tree)
        if given is not None and node is given:
            return drop_argument(tree, given, given.elts[item])
        del getattr(node, field)[item]
        if isinstance(node, ast.Dict):
            del node.values[item]
        return True

    return edit


# ---- constants


def constants(tree: ast.Module) -> list[Edit]:
    """Numbers nearer to 1, dtypes float32, simple tensors: everywhere at once, then one by one."""
    found: list[Edit] = []
    for number in dict.fromkeys(n.value for n in ast.walk(tree) if _number(n)):  # type: ignore[attr-defined]
        found += [_replacing(number, other, None) for other in _nearer(number)]
    for name in dict.fromkeys(n.attr for n in ast.walk(tree) if isinstance(n, ast.Attribute) and n.attr in _DTYPES):
        found.append(_renaming(name, "float32", None))
    for k, n in enumerate(ast.walk(tree)):
        if _number(n):
            found += [_replacing(n.value, other, k) for other in _nearer(n.value)]  # type: ignore[attr-defined]
        elif isinstance(n, ast.Attribute) and n.attr in _DTYPES:
            found.append(_renaming(n.attr, "float32", k))
        elif isinstance(n, ast.Attribute):
            found += [_renaming(n.attr, other, k) for other in _SIMPLER.get(n.attr, ())]
    return found


def _number(n: ast.AST) -> bool:
    return isinstance(n, ast.Constant) and type(n.value) in (int, float)


def _nearer(number: float) -> list[float]:
    if isinstance(number, int):
        return [m for m in dict.fromkeys((1, 0, 2, number // 2, number - 1)) if abs(m - 1) < abs(number - 1)]
    return [m for m in (1.0, 2.0, 0.5) if len(repr(m)) < len(repr(number)) or (m == 1.0 and number != 1.0)]


def _same(a: object, b: object) -> bool:
    return type(a) is type(b) and a == b


def _replacing(number: float, other: float, at: int | None) -> Edit:
    def edit(tree: ast.Module) -> bool:
        for k, n in enumerate(ast.walk(tree)):
            if isinstance(n, ast.Constant) and _same(n.value, number) and at in (None, k):
                n.value = other
        return True

    return edit


def _renaming(name: str, other: str, at: int | None) -> Edit:
    def edit(tree: ast.Module) -> bool:
        for k, n in enumerate(ast.walk(tree)):
            if isinstance(n, ast.Attribute) and n.attr == name and at in (None, k):
                n.attr = other
        return True

    return edit
