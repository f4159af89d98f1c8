"""`graphc fuzz`: its oracle finds planted faults, a crash or a hang ends one case alone, its report is repeatable."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import graphc
from graphc.cli.app import app
from graphc.errors import ArgumentError
from graphc.fuzz import campaign, checks, programs, runs, worker
from graphc.fuzz.checks import check_text, imported
from graphc.fuzz.shrink import count_ops
from graphc.runtime.code import library

HEAD = "import graphc\n\n\n"
GOOD = HEAD + "def make():\n    def f(x):\n        return x * 2 + 1\n    return f, (graphc.ones(3),), []\n"
CRASH = HEAD + (
    "import os\nimport signal\n\n\ndef make():\n    os.kill(os.getpid(), signal.SIGSEGV)\n    return None, (), []\n"
)
NULL = HEAD + "import ctypes\n\n\ndef make():\n    ctypes.string_at(0)\n"
HANG = HEAD + "def make():\n    while True:\n        pass\n"
LARGE = HEAD + "def make():\n    x = bytearray(1 << 42)\n    return None, (x,), []\n"


def planted(monkeypatch: pytest.MonkeyPatch, texts: dict[int, str]) -> None:
    """Some seeds give these programs, all others a good one."""
    monkeypatch.setattr(programs, "source", lambda seed, **_: texts.get(seed, GOOD))
    monkeypatch.setattr(campaign, "source", lambda seed, **_: texts.get(seed, GOOD))


def wrong_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simplifier takes x - y for y - x."""
    from graphc.ir.graph import Graph
    from graphc.ir.passes import simplify

    right = simplify.run

    def run(graph: Graph) -> Graph:
        graph = right(graph)
        for node in graph.nodes:
            if node.op.name == "sub":
                node.inputs = node.inputs[::-1]
        return graph

    monkeypatch.setattr(simplify, "run", run)


SUB = HEAD + (
    "def make():\n    a = graphc.ones(3)\n    def f(x, s):\n        y = x.exp() - x\n        z = y.tanh() * s\n"
    "        return z + 1, y\n    return f, (a, 2.0), []\n"
)


def test_good_programs() -> None:
    report = graphc.testing.fuzz(12, 300, jobs=2)
    assert report.ok, report
    assert report.run == 12
    assert sum(report.outcomes.values()) == 12
    assert report.outcomes["same"] >= 4


def test_same_seed_same_report_whatever_the_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong_pass(monkeypatch)
    planted(monkeypatch, {3: SUB, 8: SUB})
    one, two = (graphc.testing.fuzz(10, jobs=jobs, shrink=False) for jobs in (1, 2))
    assert [f.seed for f in one.findings] == [3, 8]
    assert str(one) == str(two)


def test_difference_is_found_and_made_small(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong_pass(monkeypatch)
    planted(monkeypatch, {1: SUB})
    report = graphc.testing.fuzz(3, jobs=1, out=tmp_path)
    (found,) = report.findings
    assert (found.seed, found.kind) == (1, "difference")
    assert found.what.startswith("compiled")
    assert found.confirmed
    assert found.ops <= 2
    assert "tanh" not in found.program
    assert found.command == "graphc fuzz --programs 1 --seed 1"
    assert report.outcomes == {"same": 2}
    assert (tmp_path / "seed_1.py").read_text() == found.program
    with imported(found.program, "found"), pytest.raises(AssertionError, match="compiled"):
        check_text(found.program, 1)


def test_program_of_a_finding_runs_by_itself(tmp_path: Path) -> None:
    from graphc.fuzz.findings import runnable

    path = tmp_path / "seed_1.py"
    path.write_text(runnable(SUB, 1, gradients=True, deep=False))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "same\n"), done.stderr
    broken = "from graphc.ir.passes import simplify\n\nright = simplify.run\n"
    broken += "simplify.run = lambda graph: wrong(graph)\n"
    broken += "\n\ndef wrong(graph):\n    for node in graph.nodes:\n        if node.op.name == 'sub':\n"
    broken += "            node.inputs = node.inputs[::-1]\n    return right(graph)\n\n\n"
    path.write_text(broken + runnable(SUB, 1, gradients=False, deep=False))
    done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True)
    assert done.returncode == 1
    assert "AssertionError: compiled" in done.stderr


@pytest.mark.parametrize(
    ("text", "kind", "what"),
    [
        (CRASH, "signal", "the process died of SIGSEGV"),
        (NULL, "signal", "the process died of SIGSEGV"),
        (HANG, "hang", "no end after 1 s"),
        (LARGE, "memory", "MemoryError"),
        (HEAD + "import os\nos._exit(3)\n", "exit", "the process ended with status 3"),
        (HEAD + "def make():\n    raise KeyError('x')\n", "error", "KeyError: 'x'"),
    ],
    ids=["signal", "null", "hang", "memory", "exit", "error"],
)
def test_what_ends_a_worker_is_a_finding_and_the_others_go_on(
    monkeypatch: pytest.MonkeyPatch, text: str, kind: str, what: str
) -> None:
    planted(monkeypatch, {1: text})
    report = graphc.testing.fuzz(4, jobs=1, shrink=False, time_limit=1.0 if kind == "hang" else 60.0)
    (found,) = report.findings
    assert (found.seed, found.kind, found.confirmed) == (1, kind, True), found
    assert found.what.startswith(what)
    assert text.strip() in found.program
    assert "program_1.py" in found.detail or kind == "exit"
    assert report.outcomes == {"same": 3}


def test_program_that_cannot_be_written_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def source(seed: int, **_: Any) -> str:
        assert seed != 1
        return GOOD

    monkeypatch.setattr(campaign, "source", source)
    report = graphc.testing.fuzz(3)
    (found,) = report.findings
    assert (found.seed, found.kind) == (1, "error")
    assert found.what.startswith("InternalError: no program was written: AssertionError")
    assert report.outcomes == {"same": 2}


def test_crash_is_made_small(monkeypatch: pytest.MonkeyPatch) -> None:
    text = HEAD + (
        "import os\nimport signal\n\n\ndef make():\n    a = graphc.ones(3)\n\n    def f(x):\n        y = x * 2\n"
        "        os.kill(os.getpid(), signal.SIGBUS)\n        return y + 1\n    return f, (a,), []\n"
    )
    planted(monkeypatch, {0: text})
    (found,) = graphc.testing.fuzz(1).findings
    assert (found.kind, found.what) == ("signal", "the process died of SIGBUS")
    assert found.ops <= 2
    assert "os.kill(" in found.program


def test_campaign_stops_after_enough_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, dict.fromkeys(range(2, 9), HEAD + "def make():\n    1 / 0\n"))
    report = graphc.testing.fuzz(40, jobs=1, shrink=False, max_findings=2)
    assert report.stopped == "2 findings"
    assert [f.seed for f in report.findings] == [2, 3]
    assert "stopped: 2 findings" in str(report)


def test_interrupted_campaign_tells_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, {1: HEAD + "def make():\n    1 / 0\n"})

    def progress(done: int, findings: int) -> None:
        if done == 3:
            raise KeyboardInterrupt

    report = graphc.testing.fuzz(40, jobs=1, shrink=False, progress=progress)
    assert (report.run, report.stopped, [f.seed for f in report.findings]) == (3, "interrupted", [1])


def test_deep_checks_run_on_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """What only they see is a finding, and it is made small with them."""
    from graphc.fuzz import deep

    planted(monkeypatch, dict.fromkeys(range(8), SUB))

    def checked(fn: Any, args: Any, state: Any, **_: Any) -> None:
        if "tanh" in "".join(fn.__code__.co_names):
            raise AssertionError("deep: a tanh")

    monkeypatch.setattr(deep, "deep_check", checked)
    assert graphc.testing.fuzz(4, jobs=1).ok
    report = graphc.testing.fuzz(8, jobs=1, deep=0.3, max_findings=1)
    (found,) = report.findings
    assert found.what == "deep: a tanh"
    assert found.command.endswith(f"--seed {found.seed} --deep 1")
    assert "exp" not in found.program
    assert found.program.endswith(f"check_program(make, seed={found.seed}, deep=True)\n")


def test_outcomes_are_told_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    body = HEAD + "def make():\n    a = graphc.ones(3)\n    log = []\n\n    def f(x):\n        {}\n"
    body += "    return f, (a,), [log]\n"
    texts = {
        0: body.format("return x.reshape(2)"),
        1: body.format("log.append(x.sum().item()); return x * len(log)"),
        2: HEAD + "def make():\n    graphc.ones(2).reshape(3)\n",
    }
    planted(monkeypatch, texts)
    report = graphc.testing.fuzz(4)
    assert report.outcomes == {"raises": 1, "refused": 1, "unmade": 1, "same": 1}, report


def test_only_programs_with_gradients() -> None:
    report = graphc.testing.fuzz(6, 40, gradients=True, jobs=2)
    assert report.ok, report
    assert report.run == 6


def test_eager_code_that_writes_without_counting_is_seen() -> None:
    text = HEAD + (
        "def make():\n    a = graphc.ones(3)\n\n    def f(x):\n        x._a[0] = 5.0\n        return x * 2\n"
        "    return f, (a,), []\n"
    )
    with pytest.raises(AssertionError, match=r"wrote|without a counted write|differs"):
        check_text(text, 0)


def test_memory_is_poisoned_on_every_way_into_native_code(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.runtime.executable import Executable

    fill, seen = Executable.fill, []

    def watched(self: Any, workspace: Any, results: Any) -> None:
        fill(self, workspace, results)
        way = sys._getframe(1).f_code.co_filename.rpartition("/")[2]
        seen.extend((way, int(r.reshape(-1).view(np.uint8)[0])) for r in results if r is not None and r.size)

    monkeypatch.setattr(Executable, "fill", watched)
    assert check_text(GOOD, 0) == "same"
    assert {("executable.py", 0xFF), ("bound.py", 0xFF), ("bound.py", 0xCC)} <= set(seen)


def test_settings_and_cache_are_put_back() -> None:
    from graphc.config import config
    from graphc.runtime.executable import trial

    before = config.verify, config.lockstep, trial.poison, trial.split, graphc.get_num_threads(), library()._cache
    check_text(GOOD, 5)
    graphc.testing.fuzz(1, jobs=1)
    after = config.verify, config.lockstep, trial.poison, trial.split, graphc.get_num_threads(), library()._cache
    assert after == before


@pytest.mark.parametrize(
    "options",
    [{"programs": 0}, {"seed": -1}, {"jobs": 0}, {"deep": 1.5}, {"time_limit": 0}, {"max_findings": 0}],
    ids=lambda o: next(iter(o)),
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(ArgumentError, match=f"fuzz: {next(iter(options))}"):
        graphc.testing.fuzz(**options)


def test_systems_without_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(worker.os, "fork")
    with pytest.raises(graphc.errors.UnsupportedError, match="forked processes"):
        graphc.testing.fuzz(1)


# ---- the command


def test_command_exits_with_0_when_all_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, {})
    done = CliRunner().invoke(app, ["fuzz", "--programs", "3", "--jobs", "1"], standalone_mode=False)
    assert done.return_value == 0, done.output
    assert "3 programs, seeds 0 to 2" in done.output
    assert "0 findings" in done.output


def test_command_exits_with_1_on_a_difference(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    wrong_pass(monkeypatch)
    planted(monkeypatch, {1: SUB})
    arguments = ["fuzz", "--programs", "3", "--jobs", "1", "--out", str(tmp_path), "--no-shrink"]
    done = CliRunner().invoke(app, arguments, standalone_mode=False)
    assert done.return_value == 1, done.output
    assert "seed 1: difference: compiled" in done.output
    assert "repeat: graphc fuzz --programs 1 --seed 1" in done.output
    assert "graphc.testing.check_program(make, seed=1)" in done.output
    assert (tmp_path / "seed_1.py").exists()


def test_command_as_json(monkeypatch: pytest.MonkeyPatch) -> None:
    planted(monkeypatch, {0: HEAD + "def make():\n    1 / 0\n"})
    done = CliRunner().invoke(app, ["fuzz", "--programs", "2", "--no-shrink", "--json"], standalone_mode=False)
    assert done.return_value == 1
    told = json.loads(done.output)
    assert told["findings"][0]["what"] == "ZeroDivisionError: division by zero"
    assert told["outcomes"] == {"same": 1, "found": 1}


def test_command_refuses_numbers_out_of_range() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "graphc", "fuzz", "--programs", "0"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "--programs" in done.stderr


def test_checks_know_their_conditions() -> None:
    found = {checks.Conditions.of(seed) for seed in range(48)}
    assert {c.threads for c in found} == {(1, 2), (2, 1)}
    assert any(c.verify for c in found)
    assert any(c.split and c.threads == (1, 2) for c in found)
    assert any(c.split and c.threads == (2, 1) for c in found)
    assert any(c.outer for c in found)
    assert any(c.lockstep == "always" for c in found)
    assert all(checks.Conditions.of(seed, gradients=True).outer for seed in range(9))


CHANGING = HEAD + (
    "def make():\n    held = [2.0]\n    def swing(call):\n        held[:] = [3.0] if call > 2 else [2.0]\n"
    "    def f(x):\n        return x * held[0]\n    return f, (graphc.ones(3),), [held, swing]\n"
)


def test_functions_of_the_state_change_it_between_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    from graphc.frontend.record import guards

    assert check_text(CHANGING, 0) == "same"
    monkeypatch.setitem(guards.CHECKS, "flat", lambda value, expected: True)
    with pytest.raises(AssertionError, match="call 4: output 0 differs"):
        check_text(CHANGING, 0)
    assert count_ops(CHANGING) == 2  # the product and the item, not what `swing` does


def test_arguments_change_their_layout_and_become_one() -> None:
    a, b, c = graphc.ones(2, 3), graphc.ones(2, 3), graphc.ones(2)
    laid = runs.varied((a, c, 1), "l")
    assert [t.stride() for t in laid[:2]] == [(1, 2), (2,)]
    assert (laid[0] == a).all() and (laid[1] == c).all() and laid[2] == 1
    same = runs.varied((a, b, c), "a")
    assert same[0] is a and same[1] is a and same[2] is c


def test_gradients_are_held_and_looked_at_later() -> None:
    w = graphc.ones(3).requires_grad_()

    def f(x: Any) -> Any:
        if w.grad is None:
            (w * x).sum().backward()
        assert w.grad is not None
        w.grad.add_(1)
        return x + 1

    seen = runs.history(f, (f, (graphc.ones(3),), [w]), False, ("", "g", ""))
    later = seen.later[2]  # of the gradient held after the second call, which the third has changed
    assert len(seen.later) == 4
    assert any(graphc.full((3,), 4.0).numpy().tobytes() in part for part in later)
