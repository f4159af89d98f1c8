"""What writes random programs: repeatable, and over the whole op table, every dtype and every kind of statement."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.frontend.random import fork_rng
from graphc.fuzz.between import ROWS, Row
from graphc.fuzz.calls import callables
from graphc.fuzz.checks import check_text
from graphc.fuzz.follow import Follower, Unknown, Wrong
from graphc.fuzz.parts import KIND, Var
from graphc.fuzz.programs import Gen, source
from graphc.fuzz.recipes import FUNCTIONS
from graphc.fuzz.table import NOT_APPLIED, applied_ops, samples_of
from graphc.ir.op import all_ops

SEEDS = 10
TRIES = 16  # programs that write every statement
# what the statements of the writer leave in a program
KINDS = {
    "in place through a view": r"\[.*\]\.?\w* = |\[.*\] [+*]= ",
    "written in place": r"\.\w+_\(",
    "augmented": r"v\d+ [+*]= ",
    "repeated places": r"accumulate=True|index_add|scatter_add",
    "no_grad": r"no_grad\(\)",
    "backward": r"\.backward\(",
    "autograd.grad": r"autograd\.grad\(",
    "second order": r"create_graph=True",
    "retain_graph": r"retain_graph=True",
    "hook": r"register_\w*hook",
    "checkpoint": r"checkpoint\(lambda",
    "function of one's own": r"Twice\.apply|Shift\.apply",
    "optimiser": r"opt\.step\(\)",
    "zero_grad": r"opt\.zero_grad\(",
    "clipping": r"clip_grad_",
    "layer": r"m\(|m\[",
    "buffer": r"keep\.",
    "dropout": r"dropout",
    "random": r"rand|bernoulli",
    "branch on a value": r"if .*sum\(\) > ",
    "branch on a number": r"if k == 1|if s > 0",
    "else": r"else:|else ",
    "loop": r"for i in range\(",
    "rows": r"for row in",
    "while": r"while rounds",
    "early return": r"\n {8}if .*\n {12}return",
    "early raise": r"raise ValueError",
    "try": r"except RuntimeError",
    "item": r"\.item\(\)",
    "inner function": r"def h\d+\(",
    "recursion": r"n - 1\)",
    "generator": r"yield",
    "comprehension": r" for i, row in enumerate",
    "closure": r"return lambda t",
    "keywords": r"\*\*options",
    "method": r"box\w*\.(apply|down)\(",
    "global": r"scaled\(",
    "nested modules": r"net\(",
    "dataclass": r"Pack\(",
    "dict argument": r"d\d+\['",
    "list argument": r"d\d+\[0\]",
    "None argument": r"opt is None",
    "bool argument": r"if flag",
    "question": r"\.dim\(\) > 1|\.numel\(\) %|is_contiguous\(\)",
    "mask": r"\[\(?.* > 0\)?\]",
    "cond": r"graphc\.cond\(",
    "scan": r"graphc\.scan\(",
    "while_loop": r"graphc\.while_loop\(",
    "transposed": r"a\d = a\d\.transpose",
    "stepped": r"a\d = a\d\[::2\]",
    "expanded": r"a\d = a\d.*\.expand\(",
    "overlapping": r"\.unfold\(0, 2, 1\)|\[:1\]\.expand",
    "from NumPy": r"from_numpy|np\.arange",
    "empty": r"\(0,|, 0[,)]",
    "0-d": r"\(\(\), ",
    "special numbers": r"graphc\.nan|graphc\.inf",
    "denormals": r"1e-40|1e-45|5e-324|6e-8|1e-310",
    "minus zero": r"-0\.0",
    "extreme integers": r"-128|-32768|-2147483648|9223372036854775807|255",
    "no tensor returned": r"return .*(q\d|None)",
}
# by statements that choose their operands: parameters whose names alone do not say what fits
IN_RECIPES = (
    "affine_grid", "conv3d", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "cosine_embedding_loss",
    "cross_entropy", "ctc_loss", "embedding_bag", "fold", "grid_sample", "multi_margin_loss", "multilabel_margin_loss",
    "nll_loss", "cholesky", "solve", "slogdet", "det", "mv", "imag", "view_as_complex", "view_as_real", "unfold",
    "local_response_norm", "bilinear", "conv1d", "conv2d", "interpolate", "max_unpool1d", "max_unpool2d",
    "max_unpool3d", "inv",
)  # fmt: skip
NOT_REACHED = {
    "graphc.randint": "its operands are numbers in an order of their own: recipes write it",
    "graphc.broadcast_shapes": "takes and gives sizes",
    "graphc.can_cast": "takes dtypes", "graphc.promote_types": "takes dtypes", "graphc.scalar_tensor": "takes a number",
    "graphc.get_default_device": "gives a device",
    "F.multi_head_attention_forward": "nn.MultiheadAttention calls it", "F.upsample": "F.interpolate by another name",
    "graphc.diagonal_scatter": "applied as an op", "{}.diagonal_scatter": "applied as an op",
    "{}.inverse": "graphc.linalg.inv by another name", "graphc.inverse": "graphc.linalg.inv by another name",
    "{}.logdet": "slogdet and a logarithm", "graphc.logdet": "slogdet and a logarithm", "{}.to": "written by casts",
    "{}.addmm_": "addmm, whose operands recipes choose", "F.batch_norm": "recipes write it",
}  # fmt: skip


@pytest.fixture(scope="module")
def texts() -> list[str]:
    return [source(seed) for seed in range(SEEDS)]


@pytest.fixture(scope="module")
def statements() -> str:
    """What each statement writes, tried a few times in a few programs: whatever the seeds, each has had its turn."""
    found = []
    for seed in range(TRIES):
        with fork_rng():
            gen = Gen(seed, effects=True)
            args = gen.inputs()
            gen.module()
            gen.outer_state()
            gen.keeper = True
            gen.setup.append("keep = Keep()")
            gen.enter(args)
            args = gen.contained(args)
            for row in (*gen.shared(), *gen.beyond()):
                if row[0] not in (gen.called, gen.applied) and row[1]:
                    row[0]()
                    gen.refresh()
                    gen.lines, known = gen.lines[:0], gen.lines
                    found += known
            gen.failing()
            found += [*gen.lines, *(text for _, text in args)]
            found += [*gen.setup, *gen.header]
    for seed in range(100):  # arguments and forms
        with fork_rng():
            gen = Gen(seed)
            args = gen.inputs()
            gen.enter(args)
            args = gen.contained(args)
            gen.formed(seed)
            for _ in gen.options * 3:
                gen.option()
            found += [*gen.setup, *gen.lines, *gen.header, *(text for _, text in args)]
    return "\n".join(found)


def prepared(seed: int) -> Gen:
    """A writer of one program whose arguments are there."""
    gen = Gen(seed)
    shapes = [((3, 4), "float32"), ((4, 4), "float32"), ((4,), "float32"), ((2, 3, 4), "float64"), ((5,), "int64"),
              ((3, 4), "bool"), ((4, 3), "int32"), ((3, 4), "bfloat16"), ((1, 2, 4, 4), "float32"),
              ((2, 4, 4), "float32"), ((), "float32")]  # fmt: skip
    args = []
    for k, (shape, dtype) in enumerate(shapes):
        gen.setup.append(f"a{k} = graphc.ones({shape}, dtype=graphc.{dtype})")
        gen.vars.append(Var(f"x{k}", shape, dtype))
        args.append((f"x{k}", f"a{k}"))
    gen.enter([*args, ("s", "0.5"), ("k", "2")])
    return gen


def test_same_seed_same_text() -> None:
    before = graphc.get_rng_state()
    first = [source(seed) for seed in (3, 4, 5)]
    assert graphc.get_rng_state().tolist() == before.tolist()
    graphc.rand(7)
    assert [source(seed) for seed in (3, 4, 5)] == first
    assert len(set(first)) == 3


def test_every_op_is_applied() -> None:
    with fork_rng():
        gen = prepared(0)
        base = list(gen.vars)
        missing = set()
        for name in applied_ops():
            gen.vars = list(base)
            if not any(gen.apply_named(name) for _ in range(8)):
                missing.add(name)
    assert missing == set()
    assert set(applied_ops()) | set(NOT_APPLIED) == set(all_ops())


def test_seeds_in_a_row_go_through_the_tables() -> None:
    """The op, the function and the statement of a program follow from its seed."""
    ops, functions = applied_ops(), callables()
    for turn in (0, 1, len(ops) + 1):
        seed = 2 * turn
        gen = prepared(seed)
        asked: list[Any] = []
        gen.apply_named = lambda name, asked=asked: bool(asked.append(name)) or True  # type: ignore[method-assign]
        gen.call = lambda text, _, asked=asked: bool(asked.append(text)) or True  # type: ignore[method-assign]
        gen.turn()
        assert asked[:2] == [ops[turn % len(ops)], functions[turn % len(functions)][0]]


def test_sizes_of_samples_change() -> None:
    """Ops are not only applied to the shapes of their samples."""
    other = 0
    with fork_rng():
        gen = prepared(1)
        base = list(gen.vars)
        for name in applied_ops():
            gen.vars = list(base)
            gen.apply_named(name)
    for name, rest in re.findall(r'op_named\("(\w+)"\)\((.*)\)', "\n".join(gen.lines)):
        shapes = {str(x.shape)[1:-1].rstrip(",") for s in samples_of(name) for x in s.inputs}
        other += any(shape not in shapes for shape in re.findall(r"reshape\(([\d, ]+)\)", rest))
    assert other >= 15


def test_every_public_function_is_called() -> None:
    with fork_rng():
        gen = prepared(0)
        base = list(gen.vars)
        missing = []
        for text, parameters in callables():
            if text in NOT_REACHED or text.split(".")[-1] in IN_RECIPES:
                continue
            for _ in range(25):
                gen.vars = list(base)
                if gen.call(text, parameters):
                    break
            else:
                missing.append(text)
            gen.gone.clear()
    written = "\n".join(FUNCTIONS) + " @ "
    assert missing == []
    assert [name for name in IN_RECIPES if name not in written and name != "mv"] == []


def test_every_dtype_and_kind_of_statement_occurs(texts: list[str], statements: str) -> None:
    whole = "\n".join([*texts, statements])
    for dtype in KIND:
        if KIND[dtype] < 3:
            assert f"dtype=graphc.{dtype}" in whole or f"to(graphc.{dtype})" in whole or dtype == "bool", dtype
    missing = [kind for kind, pattern in KINDS.items() if re.search(pattern, whole) is None]
    assert missing == []
    for name in ("cond", "while_loop", "scan", "rand", "randn", "randint", "bernoulli"):
        assert f"graphc.{name}(" in whole, name
    assert "F.dropout(" in whole and "graphc.tensor([" in whole


def test_sizes_at_edges_occur(statements: str) -> None:
    """Vectors' tails, partial sums, blocks of 512 and of 1024."""
    sizes = {int(n) for n in re.findall(r"\d+", statements)}
    assert {31, 32, 33} & sizes and {511, 512, 513} & sizes and {1023, 1024, 1025} & sizes


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_what_changes_between_calls_is_read(row: Row) -> None:
    """Every row can be written, is set before each call, and is read."""
    with fork_rng():
        gen = prepared(0)
        gen.changing(row)
        gen.arrange()
        for _ in range(4):
            gen.changed()
    assert "def between(call):" in gen.setup and gen.state[-1] == "between" and gen.lines
    names = {"pile", row.read, *re.findall(r"\w+", " ".join(row.reads))}
    assert names & set(re.findall(r"\w+", "\n".join(gen.lines)))


def test_programs_with_gradients() -> None:
    for seed in range(12):
        text = source(seed, gradients=True)
        assert ".backward(" in text or "autograd.grad(" in text, text


def test_most_programs_are_compiled_and_compared_whole(texts: list[str]) -> None:
    told = Counter(check_text(text, seed).split(":")[0].split(" ")[0] for seed, text in enumerate(texts))
    assert told["same"] >= SEEDS // 2, told


# ---- following a program


def follower(**names: Any) -> Follower:
    return Follower({"graphc": graphc, **names})


def test_statements_are_followed() -> None:
    f = follower(x=graphc.arange(6).reshape(2, 3).float())
    f.run("y = x[1:, ::2] * 2", True)
    f.run("y += 1", True)
    f.run("x[0] = -1", True)
    f.run("a, b = y.shape", True)
    assert f.value("y.tolist()", True) == [[7.0, 11.0]]
    assert f.value("x[0, 0].item() - b", True) == -3
    assert f.value("graphc.cat([x, x], dim=0).shape[0] == 4", True) is True
    assert f.value("np.arange(3)[::-1]", True).tolist() == np.arange(3)[::-1].tolist()


@pytest.mark.parametrize("line", ["def f(): pass", "if k: x = 1", "unknown + 1", "x.__class__", "lambda: 1", "1 +"])
def test_what_is_not_followed(line: str) -> None:
    with pytest.raises(Unknown):
        follower(x=1).run(line, True)


@pytest.mark.parametrize("text", ["x.reshape(7)", "x[9]", "x @ x[:2]", "graphc.ones(2)(3)", "x.no_such_name"])
def test_what_raises_is_wrong(text: str) -> None:
    with pytest.raises(Wrong):
        follower(x=graphc.ones(3)).value(text, True)


def test_gradients_are_off_where_the_program_has_them_off() -> None:
    f = follower(w=graphc.ones(2, requires_grad=True))
    assert f.value("(w * 2).requires_grad", True) and not f.value("(w * 2).requires_grad", False)
