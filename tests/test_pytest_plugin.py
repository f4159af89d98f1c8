"""The pytest plugin, used the way a project with models of its own uses it."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

TESTS = """
import graphc
from graphc import nn

net = nn.Linear(3, 2)


def test_same(graphc_same):
    assert graphc_same(net, graphc.ones(4, 3)).stats.hits == 2


def test_same_finds_a_difference(graphc_same):
    graphc_same(lambda x: x + 1 if graphc.is_compiling() else x, graphc.ones(2))


def test_both_ways(graphc_compile):
    run = graphc_compile(lambda x: net(x).relu())
    for _ in range(4):
        assert run(graphc.ones(4, 3)).shape == (4, 2)


def test_fails_compiled_only(graphc_compile):
    run = graphc_compile(lambda x: x.sum().item() + 1)
    for _ in range(3):
        run(graphc.ones(3))
    assert not hasattr(run, "stats"), "is compiled"


def test_never_compiled(graphc_compile):
    run = graphc_compile(lambda x: x + 1)
    for n in range(1, 5):
        run(graphc.ones(n))


def test_seed(graphc_seed):
    first = graphc.rand(3).tolist()
    graphc_seed(0)
    assert graphc.rand(3).tolist() == first


def test_refused():
    @graphc.compile
    def step(x):
        return graphc.from_numpy(x.numpy())

    step(graphc.ones(2))
"""


def run(folder: Path, *options: str) -> str:
    """What pytest prints for TESTS."""
    (folder / "test_models.py").write_text(TESTS)
    command = [sys.executable, "-m", "pytest", "-p", "graphc.pytest_plugin", "-p", "no:cacheprovider", "-rA", *options]
    found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    return found.stdout + found.stderr


def outcome(text: str, name: str) -> str:
    """The last word pytest prints before the name of a test: that of its teardown, where that failed."""
    lines = [line.split() for line in text.splitlines()]
    return [words[0] for words in lines if len(words) > 1 and words[1] == f"test_models.py::{name}"][-1]


def test_fixtures(tmp_path: Path) -> None:
    text = run(tmp_path)
    good = ("test_same", "test_both_ways[eager]", "test_both_ways[compiled]", "test_never_compiled[eager]", "test_seed")
    assert [outcome(text, name) for name in good] == ["PASSED"] * 5
    assert outcome(text, "test_same_finds_a_difference") == "FAILED" and "differs from eager" in text
    assert outcome(text, "test_fails_compiled_only[eager]") == "PASSED"
    assert outcome(text, "test_fails_compiled_only[compiled]") == "FAILED"
    assert "graphc explain" in text and "is compiled" in text
    assert outcome(text, "test_never_compiled[compiled]") == "ERROR"
    assert "no call was answered by a compiled graph" in text
    assert outcome(text, "test_refused") == "PASSED" and "RecordingWarning" in text


def test_options(tmp_path: Path) -> None:
    text = run(tmp_path, "--graphc-no-compile", "-o", "graphc_strict=true", "-k", "both or refused or difference")
    for name in ("test_both_ways[eager]", "test_both_ways[compiled]", "test_same_finds_a_difference", "test_refused"):
        assert outcome(text, name) == "PASSED"
    text = run(tmp_path, "--graphc-threads", "3", "-o", "graphc_strict=true", "-k", "same or refused")
    assert outcome(text, "test_same") == "PASSED" and outcome(text, "test_refused") == "FAILED"
    assert "expects numbers" in run(tmp_path, "--graphc-threads", "0")


def test_nothing_is_imported_for_tests_that_do_not_ask() -> None:
    code = "import sys, graphc.pytest_plugin; sys.exit('graphc.frontend' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_pytest_finds_the_plugin() -> None:
    import tomllib

    project = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["pytest11"] == {"graphc.pytest_plugin": "graphc.pytest_plugin"}
    assert importlib.util.find_spec("graphc.pytest_plugin") is not None
