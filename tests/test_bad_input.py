"""Every row of tests/bad_inputs.py: the type, the op, the operand, the types, the user's line and what to do."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import graphc
from graphc.errors import GraphcError
from tests.bad_inputs import CALLS, GRADIENTS, HERE, INDICES, ROWS, SHAPES, Bad, ones, report, told

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.parametrize("bad", ROWS, ids=[b.row for b in ROWS])
def test_eager(bad: Bad) -> None:
    with pytest.raises(GraphcError) as caught:
        bad.call(*bad.make())
    error = caught.value
    assert type(error) is bad.error
    assert [s for s in bad.says if s not in str(error)] == []
    assert error.place in bad.lines() and str(error).endswith(f" (at {error.place})")
    assert error.__cause__ is None
    assert error.__context__ is None or error.__suppress_context__  # one story, without what we tried before


@pytest.mark.parametrize("bad", ROWS, ids=[b.row for b in ROWS])
def test_compiled(bad: Bad) -> None:
    expected = told(bad)
    assert expected[0] == bad.error.__name__
    assert told(bad, compiled=True) == expected
    assert not graphc.compiler.is_compiling()


def test_the_table_is_whole() -> None:
    assert len({bad.row for bad in ROWS}) == len(ROWS) >= 90
    assert min(map(len, (SHAPES, INDICES, GRADIENTS, CALLS))) > 10


@pytest.mark.parametrize("option", ["-O", "-OO"])
def test_the_same_without_assert(option: str) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, option, "-m", "tests.bad_inputs"], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert [tuple(row) for row in json.loads(done.stdout)] == report()


def _narrows(test: ast.expr) -> bool:
    """Whether an assert only tells the type checker what a value is: nothing changes without it."""
    if isinstance(test, ast.BoolOp):
        return all(map(_narrows, test.values))
    if isinstance(test, ast.UnaryOp):
        return _narrows(test.operand)
    if isinstance(test, ast.Compare):
        return isinstance(test.ops[0], ast.IsNot) and not any(isinstance(n, ast.Call) for n in ast.walk(test))
    return isinstance(test, ast.Call) and isinstance(test.func, ast.Name) and test.func.id == "isinstance"


def test_no_assert_guards_anything() -> None:
    """`python -O` takes assert statements away: what guards is a raise."""
    assert _narrows(ast.parse("x is not None and isinstance(y, int)", mode="eval").body)
    assert not any(_narrows(ast.parse(t, mode="eval").body) for t in ("x > 0", "f()", "x", "x == y", "f() is not None"))
    files = [p for name in ("graphc", "frontend", "ir", "codegen", "runtime") for p in (ROOT / name).rglob("*.py")]
    assert len(files) > 200
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in files
        if "assert " in (text := path.read_text(encoding="utf-8"))
        for node in ast.walk(ast.parse(text))
        if isinstance(node, ast.Assert) and not _narrows(node.test)
    ]
    assert found == []


def test_an_index_that_leaves_the_range_later() -> None:
    """Found by the guard of a compiled graph: the same error as in eager execution, at the line of the index."""

    def picked(x: graphc.Tensor, i: graphc.Tensor) -> graphc.Tensor:
        y = x * 2
        return y[i] + 1

    compiled = graphc.compile(picked)
    for _ in range(3):
        compiled(ones(4), graphc.tensor([0, 3]))
    assert compiled.stats.hits
    messages = []
    for function in (picked, compiled):
        with pytest.raises(graphc.errors.IndexingError, match=r"index: index 7 .* use -4 to 3") as caught:
            function(ones(4), graphc.tensor([0, 7]))
        messages.append(str(caught.value))
        assert caught.value.place == f"{Path(__file__).name}:{picked.__code__.co_firstlineno + 2}"
    assert messages[0] == messages[1]
    assert compiled(ones(4), graphc.tensor([1, 2])).tolist() == [3.0, 3.0]


def test_the_line_of_the_caller_of_a_layer() -> None:
    layer = graphc.nn.Linear(3, 4)
    for module in (layer, graphc.compile(layer), graphc.nn.Sequential(layer)):
        with pytest.raises(graphc.errors.ShapeError, match=r"linear: input f32\[2, 5\]") as caught:
            module(ones(2, 5))  # here
        line = Path(__file__).read_text(encoding="utf-8").splitlines()[int(caught.value.place.split(":")[1]) - 1]
        assert line.endswith("# here")


def test_an_error_without_a_user() -> None:
    """A command has no line of a user's program to name."""
    done = subprocess.run([sys.executable, "-m", "graphc", "show", "none.gcz"], capture_output=True, text=True)
    assert done.returncode == 3 and "(at " not in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr


def test_a_script_error_names_its_line_once(tmp_path: Path) -> None:
    script = tmp_path / "wrong.py"
    script.write_text("import graphc\ndef f(x):\n    return x @ graphc.ones(4, 5)\n")
    command = [sys.executable, "-m", "graphc", "trace", f"{script}:f", "--input", "x=f32[2,3]", "-o", "x.gcz"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2 and done.stderr.count("wrong.py:3") == 1, done.stderr
    assert "matmul: operands f32[2, 3] and f32[4, 5]" in done.stderr


def test_the_place_survives_a_copy() -> None:
    import copy

    error = graphc.errors.ShapeError("relu: no")
    assert str(copy.copy(error)) == str(error) == f"relu: no (at {error.place})"
    assert error.message == "relu: no" and error.place.startswith("test_bad_input.py:")


def test_a_message_that_names_a_line_gets_no_second_one() -> None:
    assert str(graphc.errors.RecordingError("kept at model.py:3: no")) == "kept at model.py:3: no"
    assert str(graphc.errors.RecordingError("kept at 3: no")).startswith("kept at 3: no (at test_bad_input.py:")


def test_the_traceback_tells_one_story() -> None:
    code = "import graphc\nx = graphc.ones(3)\nx + graphc.ones(4)\n"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.count("Traceback") == 1 and "KeyError" not in done.stderr, done.stderr
    assert done.stderr.rstrip().endswith("make the sizes equal or one of them 1 (at <string>:3)")


def test_the_traceback_is_short() -> None:
    """Two frames of ours: no more is needed to understand it. GRAPHC_DEBUG=1 shows them all."""
    calls = ("x + graphc.ones(4)", "x.sum(3)", "graphc.nn.functional.linear(x, x)", "x[1, 2]")
    tries = [f"try:\n    {call}\nexcept graphc.errors.GraphcError:\n    traceback.print_exc()\n" for call in calls]
    code = "import traceback, graphc\nx = graphc.ones(3)\n" + "".join(tries)
    for debug in ("0", "1"):
        environment = {**os.environ, "GRAPHC_DEBUG": debug}
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        frames = [text.count('File "') for text in done.stderr.split("Traceback")[1:]]
        assert len(frames) == len(calls) and all((n > 3) == (debug == "1") for n in frames), done.stderr


def test_lockstep_tells_the_same_line() -> None:
    """A refused function runs its Python; its operations wait, and their errors are those of their own lines."""
    calls: list[int] = []

    def picked(x: graphc.Tensor, i: graphc.Tensor) -> graphc.Tensor:
        calls.append(1)
        y = x * 2
        z = y[i]
        return (z + 1).sum()

    def product(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        calls.append(1)
        a = x * 2
        b = a @ y
        return b.sum()

    cases = [
        (picked, (ones(4), graphc.tensor([0, 1])), (ones(4), graphc.tensor([0, 9]))),
        (product, (ones(2, 2), ones(2, 2)), (ones(2, 2), ones(3, 2))),
    ]
    for function, good, bad in cases:
        compiled = graphc.compile(function)
        with pytest.warns(graphc.RecordingWarning):
            for _ in range(7):
                compiled(*good)
        assert compiled.stats.lockstep
        texts = []
        for call in (function, compiled):
            with pytest.raises(GraphcError) as caught:
                call(*bad)
            texts.append(str(caught.value))
            assert caught.value.place == f"{Path(__file__).name}:{function.__code__.co_firstlineno + 3}"
        assert texts[0] == texts[1]


def test_the_place_is_that_of_the_innermost_user_frame() -> None:
    assert HERE == "bad_inputs.py" and all(bad.lines() for bad in ROWS)
    assert GraphcError("no").place.startswith(f"{Path(__file__).name}:")
