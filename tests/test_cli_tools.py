"""The commands for looking closer: bench, cache, and the difference between two stages."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import compiler, nn
from graphc.cli.diff import diff_stages
from graphc.cli.entry import run_app
from graphc.cli.stages import graph_stage
from graphc.ir.text import parse_graph
from graphc.runtime.cache import ObjectCache
from graphc.runtime.profile import KernelTimes, Watch

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Run:
    def call(*arguments: Any) -> tuple[int, str, str]:
        code = run_app([str(a) for a in arguments])
        return (code, *capsys.readouterr())

    return call


@pytest.fixture
def model(tmp_path: Path) -> Path:
    graphc.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 5), nn.GELU(), nn.Linear(5, 3), nn.Softmax(-1)).eval()
    path = tmp_path / "net.gcz"
    graphc.trace(lambda x: net(x) * 1.0, graphc.randn(4, 6)).save(path)
    return path


def graph(*lines: str) -> Any:
    return parse_graph("\n".join(['graph g(%x: f32[3] input "x", %y: f32[3] input "y") {', *lines, "}", ""]))


# ---------------------------------------------------------------- show


def test_show_after_a_pass_is_that_stage(model: Path, run: Run) -> None:
    for name in ("decompose", "fuse"):
        assert run("show", model, "--after", name) == run("show", model, "--stage", name)


def test_show_takes_one_question(model: Path, run: Run) -> None:
    assert run("show", model, "--after", "cse", "--all")[0] == 2
    assert run("show", model, "--diff", "cse", "dce", "--stage", "cse")[0] == 2
    assert run("show", model, "--diff", "cse", "dce", "--lines")[0] == 2
    assert run("show", model, "--diff", "cse", "everything")[0] == 2


def test_a_diff_shows_what_a_pass_removed(model: Path, run: Run) -> None:
    code, out, _ = run("show", model, "--diff", "fold", "simplify")
    assert code == 0 and out.startswith("--- fold\n+++ simplify\n")
    gone = [line for line in out.splitlines() if line.startswith("-  ")]
    assert len(gone) == 2 and " = mul(" in gone[0] and gone[1].startswith("-  return")
    found = json.loads(run("show", model, "--diff", "fold", "simplify", "--json")[1])
    assert (found["added"], found["removed"]) == (1, 2)


def test_equal_stages_are_said_to_be_equal(model: Path, run: Run) -> None:
    assert run("show", model, "--diff", "cse", "cse")[1] == "cse and cse are equal\n"


def test_a_diff_follows_renumbered_values() -> None:
    before = graph(
        "  %0: f32[3] = neg(%x)",
        "  %1: f32[3] = exp(%y)",
        "  %2: f32[3] = mul(%1, %y)",
        "  %3: f32[3] = add(%2, %1)",
        '  return %3 output "out"',
    )
    after = graph(
        "  %0: f32[3] = exp(%y)",
        "  %1: f32[3] = mul(%0, %x)",
        "  %2: f32[3] = tanh(%1)",
        "  %3: f32[3] = add(%2, %0)",
        '  return %3 output "out"',
    )
    lines = [x for x in diff_stages(graph_stage("a", before), graph_stage("b", after))[2:] if x[0] in "+-"]
    assert lines == [
        "-  %0: f32[3] = neg(%x)",
        "-  %2: f32[3] = mul(%1, %y)",
        "-  %3: f32[3] = add(%2, %1)",
        "+  %2: f32[3] = mul(%1, %x)",
        "+  %2': f32[3] = tanh(%2)",
        "+  %3: f32[3] = add(%2', %1)",
    ]


# ---------------------------------------------------------------- bench


def test_bench_times_calls_and_kernels(model: Path, run: Run) -> None:
    code, out, err = run("bench", model, "--rounds", "3", "--threads", "1", "--threads", "2", "--kernels", "1")
    assert code == 0, err
    assert "1 thread " in out and "2 threads " in out and "GFLOP/s" in out and "100.0 %" not in out
    found = json.loads(run("bench", model, "--rounds", "3", "--json")[1])
    assert found["kernel_calls"] == len(found["kernels"]) > 1
    assert all(c["q1_s"] <= c["median_s"] <= c["q3_s"] and c["median_s"] > 0 for c in found["calls"])
    times = [k["median_s"] for k in found["kernels"]]
    assert times == sorted(times, reverse=True) and all(k["place"] for k in found["kernels"])


def test_bench_leaves_the_number_of_threads(model: Path, run: Run) -> None:
    before = graphc.runtime.pool.get_num_threads()
    assert run("bench", model, "--rounds", "1", "--threads", str(before + 1))[0] == 0
    assert graphc.runtime.pool.get_num_threads() == before


def test_a_watched_run_gives_the_same_bits_kernel_by_kernel() -> None:
    net = nn.Sequential(nn.Linear(6, 5), nn.Tanh(), nn.LayerNorm(5))
    g = graphc.trace(lambda x: net(x).sum(), graphc.randn(4, 6)).graph
    exe = compiler.compile_graph(g)
    inputs = [np.random.default_rng(k).standard_normal(i.value.type.sizes, np.float32) for k, i in enumerate(g.inputs)]
    expected = exe.run(inputs)[0].tobytes()
    seen: list[KernelTimes] = []
    with Watch(seen.append), pytest.raises(RuntimeError, match="another profile"), Watch(seen.append):
        pass
    with Watch(seen.append):
        watched = exe.run(inputs)[0].tobytes()
    assert watched == expected == exe.run(inputs)[0].tobytes()
    assert [len(s.spans) for s in seen] == [len(exe.program.calls)] and seen[0].executable is exe
    flat = [t for span in seen[0].spans for t in span]
    assert flat == sorted(flat) and 0 < seen[0].total <= flat[-1] - flat[0]


# ---------------------------------------------------------------- cache


def test_cache_tells_verifies_and_clears(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graphc.config.config, "cache_dir", tmp_path / "cache")
    store = ObjectCache(tmp_path / "cache" / "objects")
    assert json.loads(run("cache", "--json")[1])["entries"] == 0
    for k in range(3):
        store.put(bytes([k]) * 32, b"code" * k)
    found = json.loads(run("cache", "--json")[1])
    assert found["entries"] == 3 and found["bytes"] > 0 and found["folder"] == str(store.folder)
    damaged = store.folder / f"{(bytes([1]) * 32).hex()}.gco"
    damaged.write_bytes(damaged.read_bytes()[:-1] + b"?")
    code, out, _ = run("cache", "--verify")
    assert code == 0 and "1 damaged object deleted" in out and "2 objects" in out
    assert run("cache", "--clear", "--verify")[0] == 2
    assert "2 objects deleted" in run("cache", "--clear")[1]
    assert store.info().entries == 0
