"""How large a program is: the operations it does, the nodes of its syntax, the weight of its constants."""

from __future__ import annotations

import ast

from graphc.fuzz.shrink_names import arguments, function, made_by, parameters

# calls that are no operation on tensors: Python's own, and what only asks a tensor something
_PYTHON = frozenset(
    {
        "range",
        "len",
        "print",
        "int",
        "float",
        "bool",
        "str",
        "list",
        "tuple",
        "dict",
        "enumerate",
        "zip",
        "isinstance",
        "append",
        "super",
        "id",
        "getattr",
        "setattr",
        "repr",
        "sorted",
        "reversed",
        "keys",
        "values",
        "items",
        "partial",
    }
)
_ASKING = frozenset(
    {
        "item",
        "size",
        "dim",
        "numel",
        "nelement",
        "tolist",
        "stride",
        "data_ptr",
        "is_contiguous",
        "ndimension",
        "requires_grad_",
        "manual_seed",
        "no_grad",
        "enable_grad",
        "save_for_backward",
        "mark_dirty",
        "set_grad_enabled",
        "parameters",
        "register_hook",
        "retain_grad",
        "is_floating_point",
        "apply",
        "op_named",
        "checkpoint",
    }
)
_NUMBERS = frozenset({"item", "size", "dim", "numel", "nelement", "stride", "len", "int", "float", "bool", "range"})
_ABOUT = frozenset({"shape", "ndim", "dtype", "requires_grad", "is_leaf", "grad_fn"})
_SEVERAL = frozenset(
    {
        "chunk",
        "split",
        "unbind",
        "grad",
        "tensor_split",
        "scan",
        "while_loop",
        "max",
        "min",
        "sort",
        "topk",
        "median",
        "mode",
        "kthvalue",
        "cummax",
        "cummin",
        "unique",
        "saved_tensors",
        "aminmax",
        "meshgrid",
        "broadcast_tensors",
        "split_with_sizes",
        "hsplit",
        "vsplit",
        "dsplit",
        "var_mean",
        "std_mean",
        "frexp",
    }
)
_TYPES = frozenset(
    {"float16", "bfloat16", "float64", "int8", "int16", "int32", "int64", "uint8", "complex64", "complex128"}
)
_BLOCKS = (ast.For, ast.While, ast.If, ast.With, ast.Try, ast.FunctionDef, ast.ClassDef, ast.Lambda, ast.NamedExpr)
_MARKS = (ast.expr_context, ast.operator, ast.cmpop, ast.unaryop)
_RANDOM = frozenset({"randn", "rand", "randint", "normal"})
_OPERATORS = (ast.BinOp, ast.UnaryOp, ast.Compare)


def count_ops(text: str) -> int:
    """The operations on tensors written in a program: what "shrunk to 5 operations" counts.

    Counted, once each however often they run, in the body of the `f` that `make` returns and of every other function
    and method of the program but `make` itself and `__init__` (so an operation in a helper counts): calls, operators
    and comparisons, indexing, `x[i] = …` and augmented assignments, `.T` and `.mT`,
    `for row in x`. A call that stands for many nodes
    of the graph (`softmax`, a layer, `backward()`, `opt.step()`) is one.

    Not counted: what is done with constants or Python numbers alone (`-1`, `k + 1`, `i < 3`), a tensor written down
    (`graphc.tensor([1, 2])`, a constant of the graph), Python's own functions
    (`range`, `len`, `print`, `append` …), questions (`x.shape`, `x.size(0)`, `x.item()`), functions of the state,
    one of several results (`x.chunk(2)[0]`), calls of the program's own functions (their bodies count), control flow,
    and all that `make` prepares: these make the inputs. Nothing is run. Raises SyntaxError for what is no Python.
    """
    return _ops(ast.parse(text))


def size(tree: ast.Module, text: str) -> tuple[int, int, int, int]:
    """By what a program is smaller than another: operations, syntax nodes, weight of constants, length."""
    nodes = [n for n in ast.walk(tree) if not isinstance(n, _MARKS)]
    return _ops(tree), sum(5 if isinstance(n, _BLOCKS) else 1 for n in nodes), sum(map(_weight, nodes)), len(text)


def _weight(n: ast.AST) -> int:
    """How far a constant is from 1, a dtype from float32, a tensor from one anyone can write down."""
    if isinstance(n, ast.Constant):
        if isinstance(n.value, bool) or not isinstance(n.value, (int, float)):
            return 0
        if isinstance(n.value, int):
            return 2 * abs(n.value - 1) + (n.value < 0)
        return len(repr(n.value)) + (n.value != 1.0) + 1
    if isinstance(n, ast.Attribute):
        return 3 * (n.attr in _TYPES) + (n.attr in _RANDOM)
    return 0


def _ops(tree: ast.Module) -> int:
    made = made_by(tree)
    f = made[2] if made is not None else function(tree, "f")
    functions = [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.ClassDef))]
    own = {n.name for n in functions} - {"f", "make"}
    if made is not None and isinstance(made[1].value, ast.Tuple):  # what changes the state between calls
        own -= {n.id for n in ast.walk(made[1].value.elts[2]) if isinstance(n, ast.Name)}
    outer: list[ast.FunctionDef] = [] if f is None else [f]
    outer += [n for n in functions if isinstance(n, ast.FunctionDef) and n.name in own - {"__init__"}]
    total = 0
    for each in dict.fromkeys(outer):
        numbers = _numbers(tree, each) if each is f else set()
        total += sum(_count(s, own, numbers, outer) for s in each.body)
    return total


def _numbers(tree: ast.Module, f: ast.FunctionDef) -> set[str]:
    """The parameters that stand for plain numbers and text."""
    given = arguments(tree)
    pairs = zip(parameters(f), given.elts if given is not None else (), strict=False)
    return {name for name, value in pairs if _is_number(value, set())}


def _count(node: ast.AST, own: set[str], numbers: set[str], outer: list[ast.FunctionDef]) -> int:
    """The operations in `node`; learns which names are numbers on the way."""
    if node in outer:
        return 0  # counted by itself
    here = _is_operation(node, own, numbers)
    if isinstance(node, ast.Assign):
        names = {
            n.id for t in node.targets for n in ast.walk(t) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)
        }
        numbers |= names if _is_number(node.value, numbers) else set()
        numbers -= set() if _is_number(node.value, numbers) else names
    elif isinstance(node, ast.For) and _is_number(node.iter, numbers):
        numbers |= {n.id for n in ast.walk(node.target) if isinstance(n, ast.Name)}
    return here + sum(_count(child, own, numbers, outer) for child in ast.iter_child_nodes(node))


def _is_operation(node: ast.AST, own: set[str], numbers: set[str]) -> bool:
    if isinstance(node, ast.Call):
        name = called(node)
        if name == "tensor" and all(_is_number(x, set()) for x in node.args):
            return False
        return not (name in _PYTHON or name in _ASKING or name in own) and not _is_number(node, numbers)
    if isinstance(node, ast.Compare) and isinstance(node.ops[0], (ast.Is, ast.IsNot, ast.In, ast.NotIn)):
        return False
    if isinstance(node, _OPERATORS):
        return not (isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not)) and not _is_number(node, numbers)
    if isinstance(node, ast.Subscript):
        return not _picks(node) and not _is_number(node, numbers)
    if isinstance(node, ast.AugAssign):
        return not _is_number(node.target, numbers) and not isinstance(node.target, ast.Subscript)
    if isinstance(node, ast.For):
        return isinstance(node.iter, ast.Name) and not _is_number(node.iter, numbers)
    return isinstance(node, ast.Attribute) and node.attr in ("T", "mT", "H", "mH")


def called(node: ast.Call) -> str:
    """The last part of the name of what is called."""
    return node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")


def _picks(node: ast.Subscript) -> bool:
    """Whether an index takes one of several results, or an item of a display or of a dict by its name."""
    if isinstance(node.slice, ast.Constant) and isinstance(node.slice.value, str):
        return True
    if isinstance(node.value, (ast.List, ast.Tuple, ast.Dict)):
        return True
    return (
        isinstance(node.value, ast.Call)
        and called(node.value) in _SEVERAL
        and isinstance(node.slice, (ast.Constant, ast.UnaryOp))
    )


def _is_number(e: ast.AST, numbers: set[str]) -> bool:
    """Whether an expression has no tensor in it."""
    if isinstance(e, ast.Constant):
        return True
    if isinstance(e, ast.Name):
        return e.id in numbers
    if isinstance(e, ast.Call):
        return called(e) in _NUMBERS
    if isinstance(e, ast.Attribute):
        return e.attr in _ABOUT
    if isinstance(e, ast.Subscript):
        return _is_number(e.value, numbers)
    if isinstance(
        e, (ast.BinOp, ast.UnaryOp, ast.Compare, ast.BoolOp, ast.IfExp, ast.Tuple, ast.List, ast.JoinedStr, ast.Dict)
    ):
        inner = [x for x in ast.iter_child_nodes(e) if isinstance(x, ast.expr)]
        return all(_is_number(x, numbers) for x in inner)
    return False
