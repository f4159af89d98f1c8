"""The rules of the repository itself: tools, packages, links, imports, what must not be there."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import graphc

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("frontend", "ir", "codegen", "runtime")
MAX_LINES = 500
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
TOP = {"pyproject.toml", "README.md", "graphc", *FOLDERS, "tests", "examples", "LICENSE", "CHANGELOG.md", "docs"}
TOP |= {"CONTRIBUTING.md", "graphc.egg-info", "build"}


def _files() -> list[Path]:
    """Every file of the repository that a person wrote, real folders only."""
    found = []
    for folder, names, files in os.walk(ROOT):
        names[:] = [n for n in names if n not in ("__pycache__", "build") and not n.endswith(".egg-info")]
        if Path(folder) == ROOT:
            names[:] = [n for n in names if not n.startswith(".") or n == ".ci"]
            names[:] = [n for n in names if n in TOP or n == ".ci"]
        found += [Path(folder) / f for f in files if not f.endswith(".pyc")]
    return sorted(found)


def _sources() -> list[Path]:
    """The modules of the package."""
    return [p for p in _files() if p.suffix == ".py" and p.relative_to(ROOT).parts[0] in ("graphc", *FOLDERS)]


def _names(paths: list[Path]) -> list[str]:
    return [str(p.relative_to(ROOT)) for p in paths]


def _run(*command: str) -> None:
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"


# ---------------------------------------------------------------- tools


def test_ruff() -> None:
    _run(sys.executable, "-m", "ruff", "check", "--no-cache", ".")


def test_mypy(tmp_path: Path) -> None:
    _run(sys.executable, "-m", "mypy", "--strict", "--cache-dir", str(tmp_path), "-p", "graphc")


def test_imports_point_one_way() -> None:
    command = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    _run(sys.executable, "-c", command)


# ---------------------------------------------------------------- packages and links


def test_packages_are_listed() -> None:
    on_disk = set()
    for top in ("graphc", *FOLDERS):
        for init in (ROOT / top).rglob("__init__.py"):
            parts = init.parent.relative_to(ROOT).parts
            on_disk.add(".".join(parts if parts[0] == "graphc" else ("graphc", *parts)))
    listed = PYPROJECT["tool"]["setuptools"]["packages"]
    assert len(listed) == len(set(listed))
    assert set(listed) == {p for p in on_disk if not p.startswith(tuple(f"graphc.{f}.graphc" for f in FOLDERS))}


def test_every_module_is_in_a_package() -> None:
    assert [n for n in _names(_sources()) if not (ROOT / n).parent.joinpath("__init__.py").exists()] == []


def test_links() -> None:
    for folder in FOLDERS:
        link = ROOT / "graphc" / folder
        assert link.is_symlink() and os.readlink(link) == f"../{folder}"
        assert PYPROJECT["tool"]["setuptools"]["package-dir"][f"graphc.{folder}"] == folder


@pytest.mark.parametrize("name", [*FOLDERS, "codegen.cpu"])
def test_folders_refuse_other_names(name: str) -> None:
    done = subprocess.run([sys.executable, "-c", f"import {name}"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1 and "pip install -e ." in done.stderr, done.stderr


def test_top_level() -> None:
    assert {name for name in TOP - {"graphc.egg-info", "build"} if not (ROOT / name).exists()} == set()
    done = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True)
    if (ROOT / ".git").exists() and done.returncode == 0:
        tracked = {name.partition("/")[0] for name in done.stdout.splitlines()}
        assert {name for name in tracked if not name.startswith(".")} <= TOP, "the top level is fixed"


def test_version() -> None:
    assert PYPROJECT["project"]["version"] == graphc.__version__
    assert f"## {graphc.__version__}" in (ROOT / "CHANGELOG.md").read_text()


# ---------------------------------------------------------------- imports


def test_import_graphc_is_light() -> None:
    heavy = {"llvmlite", "networkx", "click", "rich", "safetensors", "ml_dtypes", "sklearn"}
    _run(sys.executable, "-c", f"import graphc, sys; found = set(sys.modules) & {heavy!r}; assert not found, found")


def test_eager_ops_need_no_networkx() -> None:
    code = (
        "import graphc, sys\n"
        "graphc.ones(3).sum()\n"
        "x = graphc.ones(8, 4, requires_grad=True)\n"
        "y = graphc.nn.LayerNorm(4)(x)\n"
        "graphc.nn.functional.cross_entropy(y, graphc.zeros(8, dtype=graphc.int64), label_smoothing=0.1).backward()\n"
        "graphc.nn.functional.conv2d(graphc.ones(1, 1, 8, 8), graphc.ones(4, 1, 3, 3))\n"
        "assert not {'networkx', 'click', 'rich', 'numpy.ma', 'numpy.random', 'logging'} & set(sys.modules)\n"
    )
    _run(sys.executable, "-c", code)


# ---------------------------------------------------------------- what must not be there

UNSAFE_MODULES = {"pickle", "_pickle", "cPickle", "marshal", "shelve", "dill", "cloudpickle", "joblib", "copyreg"}
UNSAFE_CALLS = {"eval", "exec", "compile", "__import__"}


def _unsafe(tree: ast.Module) -> list[str]:
    """Constructs that could run data: unsafe imports, calls of the builtins, np.load with objects allowed."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found += [a.name for a in node.names if a.name.partition(".")[0] in UNSAFE_MODULES]
        elif isinstance(node, ast.ImportFrom):
            found += [node.module] if (node.module or "").partition(".")[0] in UNSAFE_MODULES else []
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            found += [node.func.id] if node.func.id in UNSAFE_CALLS else []
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "shell"):
            allowed = isinstance(node.value, ast.Constant) and node.value.value is False
            found += [] if allowed else [node.arg]
    return found


def test_the_unsafe_gate_itself() -> None:
    bad = ["import pickle", "from marshal import loads", "eval('1')", "exec(x)", "np.load(f, allow_pickle=True)"]
    assert all(_unsafe(ast.parse(text)) for text in bad)
    assert not _unsafe(ast.parse("model.eval(); re.compile('x'); np.load(f, allow_pickle=False)"))


# the fuzzer runs what it wrote itself, in a process of its own; nothing of it comes from a file
WRITTEN_HERE = {"graphc/fuzz/checks.py": ["exec", "compile"], "graphc/fuzz/shrink.py": ["compile"]}


def test_nothing_runs_data() -> None:
    found = {str(p.relative_to(ROOT)): _unsafe(ast.parse(p.read_text())) for p in _sources()}
    assert {name: unsafe for name, unsafe in found.items() if unsafe} == WRITTEN_HERE


def test_only_the_runtime_and_targets_touch_llvm() -> None:
    allowed = {"runtime/llvm.py", "codegen/target.py"}
    found = {n for n in _names(_sources()) if re.search(r"^\s*(import|from) llvmlite", (ROOT / n).read_text(), re.M)}
    assert found <= allowed


def test_modules_are_short() -> None:
    lengths = {str(p.relative_to(ROOT)): len(p.read_text().splitlines()) for p in _sources()}
    assert {name: n for name, n in lengths.items() if n >= MAX_LINES} == {}


# a machine's own folders; what a test makes up is called /home/someone
_MACHINE = re.compile(r"(?<![\w.])/(?:home|Users)/(?!someone\b)\w+|(?<![\w.])/(?:work|root)/|/tmp/\w")


def test_no_machine_paths() -> None:
    assert _MACHINE.search("see /home/" + "ann/x") and _MACHINE.search("(/work" + "/main)")
    assert not _MACHINE.search("/home/someone/model.py and a/work/b")
    texts = [p for p in _files() if p.suffix in (".py", ".md", ".toml", ".graph", "") and not p.is_symlink()]
    assert len(texts) > 100
    assert [str(p.relative_to(ROOT)) for p in texts if _MACHINE.search(p.read_text())] == []


def test_no_leftovers() -> None:
    marker = re.compile("TO" + "DO|FIX" + "ME|X" + "XX")
    assert [n for n in _names(_sources()) if marker.search((ROOT / n).read_text())] == []


def test_ci_runs_the_command_of_the_readme() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
    lines = [line for line in (ROOT / "README.md").read_text().splitlines() if "pytest -n" in line]
    assert len(lines) == 1 and lines[0].startswith("python3 -m venv .venv && ")
    assert "grep -m 1 -F 'pytest -n' README.md" in (ROOT / ".ci" / "run").read_text()
