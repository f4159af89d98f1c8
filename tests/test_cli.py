"""The command line: every command, its exit codes, hostile names, planted bugs that `check` must find."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from graphlib import TopologicalSorter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import compiler
from graphc.cli.app import STAGES
from graphc.cli.entry import run_app
from graphc.cli.output import bytes_text, one_line, plain
from graphc.errors import InternalError, UnsupportedError
from graphc.ir.graph import Graph, Location, copy_graph
from graphc.ir.op import Op, op_named
from graphc.ir.text import parse_graph, print_graph
from graphc.ir.types import TensorType, float32
from graphc.runtime import artifact

SCRIPT = """\
import graphc
from graphc import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        h = self.pool(nn.functional.relu(self.conv(x)))
        return self.fc(h.reshape(-1, 16))


graphc.manual_seed(0)
model = Net()


def step(x, s, flag=True):
    return model(x).softmax(-1) * s


def picks(table, rows):
    return table[rows] * 2


def branches(x):
    if x.sum() > 0:
        return x * 2
    return x - 1


def prints_numbers(x):
    return float(x.sum())


def breaks(x):
    raise KeyError("no such key")


def wrong_shapes(x):
    return x @ x


def shows(x):
    print("seen")
    return x * 2


number = 3
"""
TRAINING = """\
import graphc
from graphc import nn

graphc.manual_seed(0)
model = nn.Sequential(
    nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Dropout(0.25),
    nn.Linear(128, 10),
)
optimizer = graphc.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
loss_fn = nn.CrossEntropyLoss()


def step(x, y):
    optimizer.zero_grad()
    loss = loss_fn(model(x), y)
    loss.backward()
    optimizer.step()
    return loss
"""
PLACE = "net.py:"


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Result]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: Any) -> Result:
        code = run_app([str(a) for a in arguments])
        out, err = capsys.readouterr()
        return Result(code, out, err)

    return call


@pytest.fixture(autouse=True)
def _modules() -> Iterator[None]:
    before, path = dict(sys.modules), list(sys.path)
    yield
    sys.path[:] = path
    for name in set(sys.modules) - set(before):
        if not name.startswith(("graphc", "numpy", "rich", "click", "networkx", "llvmlite", "safetensors")):
            sys.modules.pop(name)


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "net.py"
    path.write_text(SCRIPT)
    return path


@pytest.fixture
def model(script: Path, run: Run) -> Path:
    """`step` with a named batch size."""
    path = script.parent / "step.gcz"
    found = run(
        "trace", f"{script}:step", "--input", "x=f32[4,1,4,4]", "--input", "s=2.0", "--dynamic", "x:0=N", "-o", path
    )
    assert found.code == 0, found.err
    return path


# ---------------------------------------------------------------- trace


def test_trace_function_and_module(script: Path, run: Run) -> None:
    path = script.parent / "m.gcz"
    found = run("trace", f"{script}:model", "--input", "x=f32[8,1,4,4]", "-o", path, "--json")
    assert found.code == 0 and found.json["state"] == 4
    program = graphc.load(path)
    assert program(graphc.zeros(8, 1, 4, 4)).shape == (8, 3)


def test_trace_keeps_what_the_script_prints_out_of_json(script: Path, run: Run) -> None:
    found = run("trace", f"{script}:shows", "--input", "x=f32[3]", "-o", script.parent / "s.gcz", "--json")
    assert found.json["nodes"] > 0 and "seen" in found.err


def test_a_training_step_from_file_to_check(tmp_path: Path, run: Run) -> None:
    (tmp_path / "training.py").write_text(TRAINING)
    path = tmp_path / "step.gcz"
    labels = ["--input", "y=i64[16]:10"]
    found = run("trace", f"{tmp_path / 'training.py'}:step", "--input", "x=f32[16,1,8,8]", *labels, "-o", path)
    assert found.code == 0, found.err
    found = run("check", path, *labels)
    assert found.code == 0 and "all agree" in found.out
    found = run("explain", path)
    assert "state, updated" in found.out and "random numbers 1 time a run" in found.out
    facts = run("explain", path, "--json").json
    assert facts["plan"]["in_place"] == sum(o["kind"] == "state" for o in facts["outputs"]) > 6


def test_trace_inputs_from_a_file(script: Path, run: Run) -> None:
    np.savez(script.parent / "in.npz", table=np.arange(12, dtype=np.float32).reshape(4, 3), rows=np.array([3, 1]))
    path = script.parent / "p.gcz"
    assert run("trace", f"{script}:picks", "--inputs", script.parent / "in.npz", "-o", path).code == 0
    outputs = script.parent / "out.npz"
    assert run("run", path, "--inputs", script.parent / "in.npz", "-o", outputs).code == 0
    with np.load(outputs) as archive:
        assert archive["out0"].tolist() == [[18, 20, 22], [6, 8, 10]]


def test_trace_refusals_name_the_line(script: Path, run: Run) -> None:
    out = script.parent / "x.gcz"
    found = run("trace", f"{script}:prints_numbers", "--input", "x=f32[3]", "-o", out)
    assert found.code == 4 and _line_of("float(x.sum())") in found.err and not out.exists()
    found = run("trace", f"{script}:breaks", "--input", "x=f32[3]", "-o", out)
    assert found.code == 2 and _line_of("raise KeyError") in found.err and "KeyError" in found.err
    found = run("trace", f"{script}:wrong_shapes", "--input", "x=f32[2,3]", "-o", out)
    assert found.code == 2 and "matmul" in found.err and _line_of("x @ x") in found.err
    assert len(found.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "options", "message"),
    [
        ("net.py", [], "SCRIPT.py:FUNCTION"),
        ("none.py:f", [], "no such Python file"),
        ("net.py:nothing", [], "there is no 'nothing'"),
        ("net.py:number", [], "not a function"),
        ("net.py:step", ["--input", "x=f32[4,1,4,4]"], "needs 's'"),
        ("net.py:step", ["--input", "y=f32[4]"], "no parameter 'y'"),
        ("net.py:step", ["--input", "x=f99[4]"], "unknown dtype"),
        ("net.py:step", ["--input", "x"], "NAME=SPEC"),
        ("net.py:step", ["--input", "s=1", "--input", "s=2"], "twice"),
        ("net.py:step", ["--input", "s=one"], "'one'"),
        ("net.py:step", ["--dynamic", "x=N"], "NAME:AXIS=SIZE"),
        ("net.py:step", ["--input", "x=f32[4,1,4,4]", "--input", "s=1.0", "--dynamic", "z:0=N"], "'z'"),
        ("net.py:step", ["--inputs", "net.py"], "not a"),
        ("net.py:step", ["--inputs", "none.npz"], "No such file"),
    ],
)
def test_trace_usage(script: Path, run: Run, target: str, options: list[str], message: str) -> None:
    here = [str(script.parent / o) if o in ("net.py", "none.npz") else o for o in options]
    found = run("trace", script.parent / target, "-o", script.parent / "x.gcz", *here)
    assert found.code == 2 and message in found.err, found.err


def test_script_errors(tmp_path: Path, run: Run) -> None:
    out = tmp_path / "x.gcz"
    (tmp_path / "bad.py").write_text("x = 1\nx = = 2\n")
    found = run("trace", tmp_path / "bad.py:f", "-o", out)
    assert found.code == 2 and "bad.py:2: SyntaxError" in found.err
    (tmp_path / "worse.py").write_text("\n\n1 / 0\n")
    found = run("trace", tmp_path / "worse.py:f", "-o", out)
    assert found.code == 2 and "worse.py:3: ZeroDivisionError" in found.err
    (tmp_path / "extra.py").write_text("raise ModuleNotFoundError('no', name='sklearn.datasets')\n")
    found = run("trace", tmp_path / "extra.py:f", "-o", out)
    assert found.code == 5 and "graphc[examples]" in found.err


# ---------------------------------------------------------------- show


def test_show_recorded_is_the_text_form(model: Path, run: Run) -> None:
    found = run("show", model)
    assert found.code == 0
    assert found.out.rstrip() == print_graph(graphc.load(model).graph).rstrip()
    assert print_graph(parse_graph(found.out)).rstrip() == found.out.rstrip()


def test_show_every_stage(model: Path, run: Run) -> None:
    found = run("show", model, "--all", "--size", "N=5", "--json")
    assert found.code == 0, found.err
    stages = {s["stage"]: s for s in found.json["stages"]}
    assert list(stages) == list(STAGES)
    text = {name: "\n".join(line["text"] for line in s["lines"]) for name, s in stages.items()}
    assert "softmax(" in text["recorded"] and "f32[N, 3]" in text["recorded"]
    assert "softmax(" not in text["decompose"] and "f32[5, 3]" in text["decompose"] and "exp(" in text["decompose"]
    assert "group 0:" in text["fuse"] and "arena" in text["program"] and "contract" in text["kernels"]
    assert "define void @k_" in text["llvm"] and "ret" in text["asm"] and "\t" not in text["asm"]
    for name, stage in stages.items():
        places = {p for line in stage["lines"] for p in line["places"]}
        assert any(p.startswith(PLACE) for p in places), name


def test_show_lines_and_targets(model: Path, run: Run) -> None:
    found = run("show", model, "--lines")
    wanted = _line_of("self.pool(nn")
    assert any(line.startswith(f"{wanted} |") and "conv2d" in line for line in found.out.splitlines())
    for target, word in (("x86-64-v3", "ymm"), ("x86-64-v4", "zmm"), ("aarch64", "fmla")):
        found = run("show", model, "--stage", "asm", "--size", "N=5", "--target", target)
        assert found.code == 0 and word in found.out, target


def test_show_usage(model: Path, run: Run) -> None:
    assert "say --size N=NUMBER" in run("show", model, "--stage", "dce").err
    for bad in (
        ["--size", "M=3"],
        ["--size", "N"],
        ["--stage", "nothing"],
        ["--stage", "asm", "--size", "N=2", "--target", "z80"],
    ):
        found = run("show", model, *bad)
        assert found.code == 2 and found.err, bad
    assert run("show").code == 2
    assert run("nothing").code == 2


# ---------------------------------------------------------------- run


def test_run_gives_what_the_program_gives(model: Path, run: Run) -> None:
    x = np.random.default_rng(0).standard_normal((3, 1, 4, 4)).astype(np.float32)
    np.savez(model.parent / "in.npz", x=x, s=np.asarray(0.5))
    found = run("run", model, "--inputs", model.parent / "in.npz", "-o", model.parent / "out.npz", "--json")
    assert found.code == 0, found.err
    expected = graphc.load(model)(graphc.from_numpy(x), 0.5).numpy()
    with np.load(model.parent / "out.npz") as archive:
        assert archive["out0"].tobytes() == expected.tobytes()
    assert np.array_equal(np.asarray(found.json["outputs"][0]["values"], np.float32), expected)


def test_run_random_inputs_follow_the_seed(model: Path, run: Run) -> None:
    hashes = [run("run", model, "--size", "N=3", "--seed", s, "--json").json["outputs"][0]["sha256"] for s in (1, 1, 2)]
    assert hashes[0] == hashes[1] != hashes[2]
    assert "f32[3, 3]" in run("run", model, "--size", "N=3").out


def test_run_usage(model: Path, run: Run) -> None:
    for bad, message in (
        ([], "named size N"),
        (["--input", "x=f64[3,1,4,4]"], "expects f32[3, 1, 4, 4]"),
        (["--input", "x=f32[3,2,4,4]"], "expects f32[3, 1, 4, 4]"),
        (["--input", "z=f32[3]"], "no input 'z'"),
        (["--size", "N=3", "-o", model.parent / "no" / "such.npz"], "No such file"),
    ):
        found = run("run", model, *bad)
        assert found.code == 2 and message in found.err, found.err


def test_run_refuses_objects_in_archives(model: Path, run: Run) -> None:
    np.savez(model.parent / "in.npz", x=np.array([{}], dtype=object))
    found = run("run", model, "--inputs", model.parent / "in.npz")
    assert found.code == 2 and "not a readable .npz file" in found.err


def test_run_other_branch(script: Path, run: Run) -> None:
    np.savez(script.parent / "up.npz", x=np.ones(3, np.float32))
    np.savez(script.parent / "down.npz", x=-np.ones(3, np.float32))
    path = script.parent / "b.gcz"
    assert run("trace", f"{script}:branches", "--inputs", script.parent / "up.npz", "-o", path).code == 0
    found = run("run", path, "--inputs", script.parent / "up.npz", "--json")
    assert [o["values"] for o in found.json["outputs"]] == [[2, 2, 2]]  # the tested value is no output
    found = run("run", path, "--inputs", script.parent / "down.npz")
    assert found.code == 4 and _line_of("if x.sum()") in found.err
    assert _line_of("if x.sum()") in run("explain", path).out


# ---------------------------------------------------------------- check


def test_check_agrees(model: Path, run: Run) -> None:
    found = run("check", model, "--size", "N=5", "--json")
    assert found.code == 0 and found.json["ok"], found.out
    status = {c["check"]: c["status"] for c in found.json["checks"]}
    assert status["NumPy reference"] == status["kernel interpreter"] == "close"
    assert all(status[f"after {p}"] == "same" for p in ("decompose", "fold", "simplify", "cse", "dce"))
    native = [name for name in status if name.startswith("compiled for")]
    assert {name.partition(", ")[2] for name in native} == {"1 thread", "2 threads"}
    assert all(status[name] == "same" for name in native)
    found = run("check", model, "--size", "N=2")
    assert found.code == 0 and "all agree" in found.out


def test_check_finds_a_wrong_pass(model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.ir.passes import simplify

    def wrong(graph: Graph) -> Graph:
        copy, _ = copy_graph(graph)
        for node in copy.nodes:
            if node.op.name == "exp":
                node.op = op_named("abs")
        return copy

    monkeypatch.setattr(simplify, "run", wrong)
    found = run("check", model, "--size", "N=2", "--json")
    assert found.code == 1
    status = {c["check"]: c for c in found.json["checks"]}
    assert status["after fold"]["status"] == "same"
    first = status["after simplify"]
    assert first["status"] == "differs" and "softmax" in first["detail"] and first["place"] == _line_of("softmax(-1)")
    found = run("check", model, "--size", "N=2")
    assert found.code == 1 and f"({_line_of('softmax(-1)')})" in found.out and "DIFFERENT" in found.out


def test_check_finds_wrong_native_code(model: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    honest = compiler.compile_graph

    def wrong(graph: Graph, **options: Any) -> Callable[..., Any]:
        executable = honest(graph, **options)

        def call(arrays: Any) -> Any:
            results = executable(arrays)
            if any(node.op.name == "linear" for node in graph.nodes):
                results[0] = np.nextafter(results[0], np.float32(np.inf))
            return results

        return call

    monkeypatch.setattr(compiler, "compile_graph", wrong)
    found = run("check", model, "--size", "N=2", "--json")
    assert found.code == 1
    differing = [c for c in found.json["checks"] if c["status"] == "differs"]
    assert all(c["check"].startswith("compiled for") and c["detail"].startswith("linear") for c in differing)
    assert {c["place"] for c in differing} == {_line_of("self.fc(h")}


def test_check_finds_a_wrong_reference(model: Path, run: Run) -> None:
    op: Op = op_named("relu")
    honest = op.reference
    object.__setattr__(op, "reference", lambda x: honest(x) + np.float32(0.01))
    try:
        found = run("check", model, "--size", "N=2", "--json")
    finally:
        object.__setattr__(op, "reference", honest)
    first = found.json["checks"][0]
    assert found.code == 1 and first["check"] == "NumPy reference" and first["detail"].startswith("relu")
    assert first["place"] == _line_of("relu(self.conv")


# ---------------------------------------------------------------- explain


def test_explain(model: Path, run: Run) -> None:
    found = run("explain", model)
    assert found.code == 0 and "--size N=NUMBER" in found.out and "model.fc.weight" in found.out
    found = run("explain", model, "--size", "N=5", "--json")
    facts = found.json
    assert facts["id"] == artifact.verify_file(model)
    assert [i["name"] for i in facts["inputs"]] == ["x", "s"] and len(facts["state"]) == 4
    # convolution: 5 images of 4x4, 4 channels, 9 taps; linear: 16 -> 3
    assert facts["plan"]["contraction_flops"] == 2 * (5 * 16 * 4 * 9 + 5 * 16 * 3)
    assert facts["plan"]["kernel_calls"] > 0 and facts["plan"]["arena_bytes"] > 0
    assert "one native call" in run("explain", model, "--size", "N=5").out


# ---------------------------------------------------------------- errors, escapes, start-up


def test_bad_files(model: Path, run: Run, tmp_path: Path) -> None:
    data = model.read_bytes()
    files = {"cut": data[: len(data) // 2], "empty": b"", "text": b"hello" * 100}
    for name, content in files.items():
        path = tmp_path / name
        path.write_bytes(content)
        for command in ("show", "run", "check", "explain"):
            found = run(command, path)
            assert found.code == 3 and len(found.err.splitlines()) == 1 and not found.out, (command, found.err)
    assert run("show", tmp_path / "missing.gcz").code == 3


@pytest.mark.parametrize(
    ("error", "code"), [(InternalError("odd"), 70), (ZeroDivisionError("odd"), 70), (UnsupportedError("odd"), 4)]
)
def test_exit_codes(model: Path, run: Run, monkeypatch: pytest.MonkeyPatch, error: Exception, code: int) -> None:
    def fails(*_: Any, **__: Any) -> Any:
        raise error

    monkeypatch.setattr(graphc, "load", fails)
    found = run("show", model)
    assert found.code == code and len(found.err.splitlines()) == 1 and "odd" in found.err
    assert ("report" in found.err) == (code == 70)
    monkeypatch.setattr("graphc.config.config.debug", 1)
    assert "Traceback" in run("show", model).err


def test_hostile_names(run: Run, tmp_path: Path) -> None:
    """Names and places of a file reach the terminal only escaped, and are never read as Rich markup."""
    escape, markup, turn = "\x1b[2J", "[bold red]x[/bold red]", "\u202eabc"
    graph = Graph("g" + markup)
    x = graph.add_input(TensorType(float32, (2,)), markup)
    y = graph.add_input(TensorType(float32, (2,)), turn)
    graph.loc = Location(file=f"{markup[1:4]}{turn}.py", number=7)
    graph.add_output(op_named("add")(x, y), "[link=http://example.org]out[/link]")
    graphc.trace(lambda a, b: a + b, graphc.ones(2), graphc.ones(2)).save(tmp_path / "honest.gcz")
    signature: dict[str, Any] = dict(artifact.load(tmp_path / "honest.gcz").signature)
    arguments = [{**a, "name": n} for a, n in zip(signature["arguments"], (markup, turn), strict=True)]
    signature |= {"arguments": arguments, "notes": [f"note {escape} {markup}"]}
    path = tmp_path / f"{markup.replace('/', '')}.gcz"
    artifact.save(path, graph, {}, signature)
    seen = ""
    for command in (
        ["explain"],
        ["run"],
        ["check"],
        ["show", "--all"],
        ["show", "--all", "--lines"],
        ["run", "--json"],
    ):
        found = run(command[0], path, *command[1:])
        assert found.code == 0, (command, found.err)
        seen += found.out + found.err
    assert "\x1b" not in seen and "\u202e" not in seen
    assert "[bold red]" in seen and "\\x1b[2J" in seen and "\\u202e" in seen and "[link=http" in seen
    found = run("run", path, "--input", f"{escape}=f32[2]")
    assert found.code == 2 and "\x1b" not in found.err and "[bold red]" in found.err
    graph.loc = Location(file=f"{escape}.py", number=7)
    graph.add_output(op_named("neg")(x), "more")
    artifact.save(path, graph, {}, signature)
    found = run("show", path)  # control characters in a graph are refused outright
    assert found.code == 3 and "\x1b" not in found.err


def test_escapes() -> None:
    assert plain("a\x1b[0m\u202e\tü\n\U000e0001") == "a\\x1b[0m\\u202e\\x09ü\n\\U000e0001"
    assert one_line("a\nb\x9b") == "a\\nb\\x9b"
    assert [bytes_text(n) for n in (0, 1023, 1536, 3 << 30)] == ["0 B", "1023 B", "1.5 KiB", "3.0 GiB"]


def _npy(header: str) -> bytes:
    text = header.encode() + b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def test_damaged_archives(run: Run, model: Path) -> None:
    """Whatever is wrong with a .npz file is the fault of that file, and the message names it."""
    path = model.parent / "in.npz"
    np.savez_compressed(path, x=np.arange(1000, dtype=np.float32))
    good, start = path.read_bytes(), 100  # inside of the compressed data
    entry = good.index(b"PK\1\2")
    damaged = [good[:-30], good[:start] + b"\xff" * 40 + good[start + 40 :]]
    for at, value in ((entry + 8, 1), (entry + 10, 99), (entry + 6, 99)):  # encrypted, odd compression, newer version
        damaged.append(good[:at] + bytes([value]) + good[at + 1 :])
    for header in ("[", f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 70},)}}"):
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x.npy", _npy(header))
        damaged.append(path.read_bytes())
    for data in damaged:
        path.write_bytes(data)
        found = run("run", model, "--inputs", path)
        assert found.code == 2 and "not a readable .npz file" in found.err, found.err


def test_too_little_memory_is_no_internal_error(run: Run, tmp_path: Path) -> None:
    """A small file may ask for more memory than there is."""
    path, n = tmp_path / "large.gcz", 1 << 40
    program = graphc.trace(lambda x: x.expand(4) * 1, graphc.ones(1))
    program.save(path)
    text = print_graph(program.graph).replace("f32[4]", f"f32[{n}]").replace("(4,)", f"({n},)")
    artifact.save(path, parse_graph(text), {}, artifact.load(path).signature)
    found = run("run", path)
    assert found.code == 4 and "not enough memory" in found.err, found.err


def test_the_commands_are_imported_one_way() -> None:
    """No two modules of the command line import one another, late imports included."""
    folder = Path(graphc.__file__).parent / "cli"
    wanted = {
        path.stem: re.findall(r"^ *from graphc\.cli\.(\w+) import", path.read_text(), re.M)
        for path in sorted(folder.glob("*.py"))
    }
    assert "check" in wanted["app"]  # a late one
    tuple(TopologicalSorter(wanted).static_order())  # raises CycleError


def test_process(tmp_path: Path) -> None:
    """As a process: --version and --help load neither NumPy nor LLVM; a closed pipe and an error end quietly."""
    check = (
        "import sys; from graphc.cli.entry import run_app; code = run_app(['{}']);"
        "assert not {{'numpy', 'llvmlite', 'networkx', 'rich', 'safetensors'}} & set(sys.modules); sys.exit(code)"
    )
    for option in ("--help", "--version"):
        done = subprocess.run([sys.executable, "-c", check.format(option)], capture_output=True, text=True)
        assert done.returncode == 0 and "graphc" in done.stdout, done.stderr
    done = subprocess.run(
        [sys.executable, "-m", "graphc", "show", "none.gcz"], capture_output=True, text=True, cwd=tmp_path
    )
    assert done.returncode == 3 and done.stderr.startswith("graphc: ") and "Traceback" not in done.stderr
    done = subprocess.run(
        f"{sys.executable} -m graphc check --help | true", shell=True, capture_output=True, text=True, cwd=tmp_path
    )
    assert done.stderr == ""


def _line_of(text: str) -> str:
    return PLACE + str(next(k for k, line in enumerate(SCRIPT.splitlines(), 1) if text in line))
