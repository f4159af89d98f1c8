"""Failing programs made small: with predicates that look at the text, and with faults planted in the optimiser."""

from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import pytest

import graphc
from graphc.errors import GraphcError
from graphc.frontend.same import _plain_outputs
from graphc.fuzz.programs import source
from graphc.fuzz.shrink import count_ops, shrink
from graphc.fuzz.shrink_names import undefined
from graphc.ir.graph import Graph, copy_graph
from graphc.ir.op import op_named
from graphc.ir.passes import simplify

FRAME = """import graphc
from graphc import nn
from graphc.nn import functional as F


class Twice(nn.Module):
    def forward(self, x):
        return x * 2


def helper(t, factor=2):
    t = t * factor
    return t


def make():
    graphc.manual_seed(3)
    a = graphc.randn(3, 4)
    b = graphc.randn(4)
    w = nn.Parameter(graphc.randn(4, dtype=graphc.float64))
    m = Twice()

    def f(x, y, s, k):
        {body}

    return f, (a, b[1:], 0.5, 3,), [w, m]
"""


def framed(*lines: str) -> str:
    return FRAME.format(body="\n        ".join(lines))


# ---------------------------------------------------------------- counting


@pytest.mark.parametrize(
    ("line", "ops"),
    [
        ("return x", 0),
        ("return x + graphc.tensor([[1, -2.0]], dtype=graphc.int8)", 1),
        ("return graphc.tensor([k, x.sum()])", 2),
        ("return x + 1", 1),
        ("return -x * y", 2),
        ("return x.sum(-1), k + 1, -1", 1),
        ("v = x.exp().softmax(0)", 2),
        ("return x[0]", 1),
        ("x[0] = y", 1),
        ("x[0] += y", 1),
        ("x += y", 1),
        ("x.add_(y)", 1),
        ("n = x.sum().item()\n        return x * (n + 1)", 2),
        ("return x.chunk(2, 0)[1]", 1),
        ("for i in range(k):\n            x = x * i", 1),
        ("if x.sum() > 0:\n            return y", 2),
        ("return x.reshape(x.shape[0], -1)", 1),
        ("return F.softmax(x, -1), m(x)", 2),
        ("x.sum().backward()", 2),
        ("return x.T, x.grad", 1),
        ("for row in x:\n            pass", 1),
        ("return x is None, not s", 0),
        ("return [x, y][0], {'a': x}['a']", 0),
        ("return graphc.zeros(3)", 1),
        ("return op_named('exp')(x)", 1),
        ("h = lambda t: t * 2\n        return h(x)", 2),
    ],
)
def test_what_counts_as_an_operation(line: str, ops: int) -> None:
    """The frame has two more: one in the helper, one in the layer."""
    assert count_ops(framed(line)) == ops + 2


def test_preparations_do_not_count() -> None:
    before = count_ops(framed("return x"))
    assert count_ops(framed("return x").replace("b = graphc.randn(4)", "b = (graphc.randn(4).exp() * 2)[0]")) == before


# ---------------------------------------------------------------- by what the text says


def calls_in(text: str) -> list[str]:
    return [ast.unparse(n) for n in ast.walk(ast.parse(text)) if isinstance(n, ast.Call)]


def inside(text: str) -> str:
    """The text of f."""
    return text[text.index("def f(") :] if "def f(" in text else ""


def has(*needed: str) -> Callable[[str], bool]:
    return lambda text: all(word in text for word in needed)


def test_all_that_is_not_needed_goes() -> None:
    text = framed(
        "v1 = x.exp()",
        "v2 = v1.transpose(0, 1)",
        "v3 = v2.softmax(-1)",
        "with graphc.no_grad():",
        "    if v3.sum() > k:",
        "        w.mul_(s)",
        "v4 = m(helper(v3 + w[:3], factor=s))",
        "return {'r': (v4, v3 * 2)}, y",
    )
    small = shrink(text, lambda t: all(word in inside(t) for word in (".softmax(", ".transpose(")))
    assert count_ops(small) == 2
    assert "class" not in small and "helper" not in small and "exp" not in small and "no_grad" not in small
    assert len(small) < 250


def softmax_of_a_view(text: str) -> bool:
    """Whether some softmax is applied to `….t()`, or to a name that is one."""
    tree = ast.parse(inside(text).replace("\n    ", "\n").split("\n\nreturn")[0])
    nodes = list(ast.walk(tree))
    names = {ast.unparse(n.targets[0]): ast.unparse(n.value) for n in nodes if isinstance(n, ast.Assign)}
    receivers = [
        ast.unparse(n.func.value)
        for n in nodes
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr == "softmax"
    ]
    return any(names.get(r, r).endswith(".t()") for r in receivers)


def test_a_softmax_of_a_transposed_view() -> None:
    text = framed("v1 = x.exp()", "v2 = v1.t()", "v3 = v2.softmax(-1)", "v3 *= 2", "return v3 + y, v1")
    assert softmax_of_a_view(text)
    small = shrink(text, softmax_of_a_view)
    assert count_ops(small) == 2, small
    assert not softmax_of_a_view(text.replace("v2.softmax", "v1.softmax"))


@pytest.mark.parametrize(
    ("lines", "needed", "gone"),
    [
        (("with graphc.no_grad():", "    x.exp_()", "return x"), "exp_", "no_grad"),
        (("if s > 0:", "    x = x.exp()", "else:", "    x = x.sin()", "return x"), ".sin", "if"),
        (("for i in range(k):", "    x = x.exp() * i", "return x"), ".exp", "for"),
        (("for row in x:", "    y = row.exp()", "return y"), ".exp", "for"),
        (("while k > 0:", "    x = x.exp()", "    k -= 1", "return x"), ".exp", "while"),
        (("try:", "    x = x.exp()", "except ValueError:", "    pass", "return x"), ".exp", "try"),
        (("return graphc.cond(s > 0, lambda t: t.exp(), lambda t: t, [x])",), ".exp", "cond"),
        (("return F.pad(x.exp(), (1, 2), mode='constant', value=2.0)",), "F.pad", "mode"),
        (("v = x[1:2, ::2]", "return v"), "[", "::2"),
        (("return (u := x * 2) + u.exp()",), ".exp", ":="),
        (("return x.to(graphc.float64)",), "graphc.float32", "float64"),
    ],
)
def test_forms(lines: tuple[str, ...], needed: str, gone: str) -> None:
    text = framed(*lines)
    small = shrink(text, lambda t: needed in t or (needed == "graphc.float32" and "graphc.float64" in t))
    assert needed in small, small
    assert gone not in small, small


def test_a_helper_of_one_expression_goes() -> None:
    text = framed("def g(t):", "    return t.exp() * 2", "return g(x)")
    small = shrink(text, lambda t: ("return g(x)" in t and "t.exp" in t) or "return x.exp" in t)
    assert "def g" not in small and "return x.exp()" in small


def test_numbers_come_nearer_to_one() -> None:
    text = framed("return x.reshape(12).narrow(0, 4, 8) * 0.125")

    def fails(text: str) -> bool:
        """Wants a shape of at least 3 by 2, whatever else it says."""
        found = [c for c in calls_in(text) if c.startswith("graphc.randn(")]
        sizes = [[int(n) for n in c[13:-1].split(", ")] for c in found if c[13:-1].replace(", ", "").isdigit()]
        return any(len(n) == 2 and n[0] >= 3 and n[1] >= 2 for n in sizes)

    assert "graphc.randn(3, 2)" in shrink(text, fails)


def test_a_value_becomes_an_argument() -> None:
    """What is made before the fault is prepared outside."""
    text = framed("v = x.exp()", "u = v.cumsum(0)", "return u.sort(-1)[0]")
    fails = has("exp", "cumsum", "sort")
    small = shrink(text, lambda t: fails(t) and "sort" in inside(t))
    assert count_ops(small) == 1 and fails(small), small


def test_an_expression_becomes_an_argument() -> None:
    text = framed("t = y + 1", "return F.relu((x.repeat(2, 1) * s).reshape(2, 12)) + t.sum()")

    fails = has("repeat", "reshape", "relu")
    small = shrink(text, lambda t: fails(t) and "relu" in inside(t))
    assert count_ops(small) == 1 and fails(small), small


def test_a_seed_stays_where_numbers_are_drawn() -> None:
    assert "manual_seed" in shrink(framed("return x.exp()"), has("graphc.randn", "exp"))
    assert "manual_seed" not in shrink(framed("return x.exp()"), has("exp"))


# ---------------------------------------------------------------- how it searches


def test_each_text_is_asked_once_and_the_result_is_the_same() -> None:
    asked: list[str] = []

    def fails(text: str) -> bool:
        asked.append(text)
        return "cumsum" in text and "* 2" in text

    text = framed("v = x.cumsum(0) * 2", "return v + y")
    first = shrink(text, fails)
    assert len(asked) == len(set(asked))
    assert first == shrink(text, fails)


def test_the_budget_ends_it_with_the_best_so_far() -> None:
    asked: list[str] = []

    def fails(text: str) -> bool:
        asked.append(text)
        return "cumsum" in text

    text = framed("v = x.cumsum(0)", "u = v * 2", "return u + y, v, helper(u)")
    small = shrink(text, fails, max_tries=5)
    assert len(asked) <= 5 + 1 and "cumsum" in small and len(small) < len(text)
    assert shrink(text, fails, budget_s=0.0).count("cumsum") == 1


def test_a_program_that_does_not_fail_comes_back() -> None:
    assert shrink(framed("return x"), lambda t: False) == framed("return x")


def test_programs_have_all_their_names() -> None:
    """However names are bound: what is looked for among candidates is found nowhere in a whole program."""
    for seed in range(20):
        assert [n.id for n in undefined(ast.parse(source(seed)))] == [], source(seed)
    text = framed(
        "v = (h := x * 2) + h.sum()",
        "match y:",
        "    case [a, *rest] if a > 0:",
        "        v = v + a + rest",
        "    case {'k': c, **more} as whole:",
        "        v = v + c, more, whole",
        "try:",
        "    u = [r * t for r in v for t in v]",
        "except ValueError as error:",
        "    u = error",
        "with graphc.no_grad() as (p, q):",
        "    u += p + q",
        "for i, (j, o) in enumerate(u):",
        "    u = (lambda b, *c, d=i: b + c + d + j)(o)",
        "import math, os.path as path",
        "return u, math.pi, path, __name__",
    )
    assert [n.id for n in undefined(ast.parse(text))] == []
    wrong = framed("u += 1", "return [g for _ in x], (lambda b: b + z)(1), missing")
    assert [n.id for n in undefined(ast.parse(wrong))] == ["u", "g", "z", "missing"]


def test_candidates_have_all_their_names() -> None:
    """Nothing is asked that Python could not run for want of a name."""
    for seed in range(3):
        text = source(seed)
        asked: list[str] = []

        def fails(candidate: str, asked: list[str] = asked) -> bool:
            asked.append(candidate)
            return len(asked) % 3 == 1

        shrink(text, fails, max_tries=60)
        assert len(asked) > 5
        for candidate in asked:
            missing = [n.id for n in undefined(ast.parse(candidate))]
            assert missing == [], candidate


@pytest.mark.parametrize("seed", range(12))
def test_random_programs_become_small(seed: int) -> None:
    """Whatever a program holds, a call of it can be left alone."""
    text = source(seed)
    marks = (".softmax(", ".cumsum(", ".sum(", ".exp(", ".mul_(", "[", " * ", ".")
    wanted = next((w for w in marks if w in inside(text)), "return")
    small = shrink(text, lambda t: wanted in inside(t), max_tries=400)
    assert count_ops(small) <= 1, small
    module: dict[str, Any] = {}
    exec(compile(text, "program", "exec"), module)


# ---------------------------------------------------------------- planted faults


def differs(text: str) -> bool:
    """Whether a program's compiled call differs from the eager one."""
    module: dict[str, Any] = {"__name__": "program"}
    try:
        exec(compile(text, "program.py", "exec"), module)
        f, args, _ = module["make"]()
        expected = _plain_outputs(f(*args))
        f, args, _ = module["make"]()
        return _plain_outputs(graphc.trace(f, *args)(*args)) != expected
    except (GraphcError, NameError, TypeError, ValueError, LookupError, AttributeError, RuntimeError, ArithmeticError):
        return False


def replacing(wrong: str, right: str) -> Callable[[Graph], Graph]:
    """A pass that takes one op for another."""

    def run(graph: Graph) -> Graph:
        out, _ = copy_graph(graph)
        for node in out.nodes:
            if node.op.name == right:
                node.op = op_named(wrong)
        return out

    return run


def dropped_bound(graph: Graph) -> Graph:
    """The upper bound of a clamp, a minimum, is lost."""
    out, _ = copy_graph(graph)
    for node in out.nodes:
        if node.op.name == "minimum":
            node.inputs = (node.inputs[0], node.inputs[0])
    return out


FAULTS: dict[str, tuple[Callable[[Graph], Graph], str]] = {
    "minimum for maximum": (replacing("minimum", "maximum"), "graphc.maximum(x0.float(), 0.25), "),
    "no upper bound": (dropped_bound, "x0.float().clamp(-1.5, 0.125), "),
    "sin for exp": (replacing("sin", "exp"), ""),
    "add for mul": (replacing("add", "mul"), ""),
    "mul for div": (replacing("mul", "div"), ""),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_planted_faults_shrink_to_five_operations(fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two random programs of each kind that fail, ten in all; rare operations are put into what they return."""
    real, (run, more) = simplify.run, FAULTS[fault]
    monkeypatch.setattr(simplify, "run", lambda graph: run(real(graph)))
    found = 0
    for seed in range(100):
        start, _, end = source(seed).rpartition("        return ")
        text = f"{start}        return {more}{end}"
        if count_ops(text) <= 5 or not differs(text):
            continue
        small = shrink(text, differs, max_tries=300)
        assert count_ops(small) <= 5, small
        assert differs(small)
        found += 1
        if found == 2:
            return
    raise AssertionError(f"{found} of 100 programs show it")
