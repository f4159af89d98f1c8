"""The commands on models of every kind: narrow and complex numbers, orders and scans, sizes that depend on values,
branches and loops.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.cli.compare import close, same_bits
from graphc.cli.entry import run_app
from graphc.cli.inputs import read_archive

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = run_app([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call


def narrow(x: Any) -> Any:
    return graphc.exp(x @ x.t()).softmax(-1)


def masked(x: Any) -> Any:
    kept = x[x > 0]
    return kept * 2, kept.sum()


def looped(x: Any) -> Any:
    return graphc.while_loop(lambda i, y: i < 5, lambda i, y: (i + 1, y * 2), (graphc.tensor(0), x))


def ordered(x: Any) -> Any:
    values, places = x.sort(-1)
    return values.cumsum(-1), places


MODELS: dict[str, tuple[Callable[[Any], Any], Any, tuple[str, ...]]] = {
    "bfloat16": (narrow, graphc.ones(2, 4).bfloat16(), ()),
    "float16": (narrow, graphc.ones(2, 4).half(), ()),
    "uint8": (lambda x: x // 3 + x.float(), graphc.tensor([1, 200, 3], dtype=graphc.uint8), ()),
    "complex": (lambda x: (x[1:], x.flip(0)), graphc.zeros(4, dtype=graphc.complex64), ()),
    "ordered": (ordered, graphc.randn(3, 8), ()),
    "masked": (masked, graphc.tensor([1.0, -2.0, 3.0, 4.0] * 4), ("--size", "u0=5")),
    "looped": (looped, graphc.ones(4), ()),
}


@pytest.fixture(params=MODELS)
def model(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, tuple[str, ...]]:
    function, x, sizes = MODELS[request.param]
    path = tmp_path / f"{request.param}.gcz"
    graphc.trace(function, x).save(path)
    return path, sizes


def test_every_command_knows_every_kind(model: tuple[Path, tuple[str, ...]], run: Run, tmp_path: Path) -> None:
    path, sizes = model
    for command in (
        ("run", path), ("run", path, "--json"), ("check", path), ("explain", path), ("show", path),
        ("bench", path, "--rounds", 1, "--threads", 1), ("bench", path, "--rounds", 1, "--threads", 1, "--json"),
        ("show", path, "--all", *sizes), ("show", path, "--diff", "recorded", "program", *sizes),
        ("show", path, "--after", "cse", "--json", *sizes),
    ):  # fmt: skip
        code, out, err = run(*command)
        assert (code, err) == (0, ""), command
        if "--json" in command:
            json.loads(out)


def test_counted_sizes_are_told(run: Run, tmp_path: Path) -> None:
    path, data = tmp_path / "m.gcz", tmp_path / "in.npz"
    graphc.trace(masked, MODELS["masked"][1]).save(path)
    np.savez(data, x=np.array([1.0] * 7 + [-1.0] * 9, np.float32))
    assert "u0=7 counted: all agree" in run("check", path, "--inputs", data)[1]
    assert json.loads(run("bench", path, "--inputs", data, "--rounds", 1, "--json")[1])["sizes"] == {"u0": 7}
    assert "f32[9]" in run("show", path, "--stage", "cse", "--size", "u0=9")[1]
    code, _, err = run("show", path, "--stage", "cse")
    assert code == 2 and "the size u0 depends on values; say --size u0=NUMBER" in err
    assert "at least 2" in run("show", path, "--stage", "cse", "--size", "u0=1")[2]
    np.savez(data, x=np.full(16, -1.0, np.float32))
    code, _, err = run("check", path, "--inputs", data)
    assert code == 4 and "is less than 2 for these inputs" in err


def test_bench_writes_a_chrome_trace(run: Run, tmp_path: Path) -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh())
    graphc.trace(lambda x: net(x), graphc.randn(4, 6)).save(tmp_path / "net.gcz")
    assert run("bench", tmp_path / "net.gcz", "--rounds", 1, "--trace", tmp_path / "out.json")[0] == 0
    events = json.loads((tmp_path / "out.json").read_text())["traceEvents"]
    runs = [e for e in events if e.get("cat") == "user_annotation"]
    kernels = [e for e in events if e.get("cat") == "kernel"]
    assert len(runs) == 10 and len(kernels) % 10 == 0 and kernels[0]["args"]["line"].startswith("test_cli_kinds.py:")
    assert runs[0]["ts"] <= kernels[0]["ts"] <= runs[0]["ts"] + runs[0]["dur"]


def test_a_loop_counts_the_kernels_of_every_turn(run: Run, tmp_path: Path) -> None:
    graphc.trace(lambda x: graphc.while_loop(lambda y: y.sum() < 100, lambda y: (y * 2,), (x,)), graphc.ones(2)).save(
        tmp_path / "loop.gcz"
    )
    np.savez(tmp_path / "in.npz", x=np.ones(2, np.float32))
    command = ("bench", tmp_path / "loop.gcz", "--inputs", tmp_path / "in.npz", "--rounds", 1, "--json")
    found = json.loads(run(*command)[1])
    assert found["kernel_calls"] >= len(found["kernels"]) > 0


def test_bfloat16_goes_through_npz_files(run: Run, tmp_path: Path) -> None:
    graphc.trace(lambda x: x * 2, graphc.ones(3).bfloat16()).save(tmp_path / "m.gcz")
    np.savez(tmp_path / "in.npz", x=np.array([1.5, 2.0, -3.0], ml_dtypes.bfloat16))
    assert run("run", tmp_path / "m.gcz", "--inputs", tmp_path / "in.npz", "-o", tmp_path / "out.npz")[0] == 0
    found = read_archive(tmp_path / "out.npz")["out0"]
    assert found.dtype == ml_dtypes.bfloat16 and found.tolist() == [3.0, 4.0, -6.0]


def test_complex_numbers_in_json(run: Run, tmp_path: Path) -> None:
    graphc.trace(lambda x: x[1:], graphc.zeros(3, dtype=graphc.complex64)).save(tmp_path / "m.gcz")
    np.savez(tmp_path / "in.npz", x=np.array([0, 1 + 2j, 3j], np.complex64))
    out = json.loads(run("run", tmp_path / "m.gcz", "--inputs", tmp_path / "in.npz", "--json")[1])
    assert out["outputs"][0]["values"] == [[1.0, 2.0], [0.0, 3.0]]


def test_a_bound_must_fit_the_dtype(run: Run, tmp_path: Path) -> None:
    graphc.trace(lambda x: x + 1, graphc.zeros(3, dtype=graphc.uint8)).save(tmp_path / "m.gcz")
    assert run("run", tmp_path / "m.gcz", "--input", "x=u8[3]:256")[0] == 0
    code, _, err = run("run", tmp_path / "m.gcz", "--input", "x=u8[3]:2000")
    assert code == 2 and "integers below 2000 do not all fit in u8" in err


def test_narrow_numbers_are_compared_as_numbers() -> None:
    a = np.array([1.0, np.nan, 0.0], ml_dtypes.bfloat16)
    assert same_bits(a, a.copy()) and not same_bits(a, np.array([1.0, np.nan, -0.0], ml_dtypes.bfloat16))
    assert close(a, np.array([1.01, np.nan, 0.0], ml_dtypes.bfloat16), 1.0)
    assert not close(a, np.array([1.5, np.nan, 0.0], ml_dtypes.bfloat16), 1.0)
    c = np.array([1 + 1j], np.complex64)
    assert same_bits(c, c.copy()) and not same_bits(c, c + 1)
