"""The documentation is true: its examples are run, the files, commands and settings it names exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import doc_blocks
import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
WITH_EXAMPLES = {
    "README.md": 10,
    "adding-an-op.md": 8,
    "recorder.md": 8,
    "numerics.md": 2,
    "files.md": 3,
    "layout.md": 5,
}


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_examples(page: Path, tmp_path: Path) -> None:
    script = ROOT / "tests" / "doc_blocks.py"
    environment = {**os.environ, "PYTHONWARNINGS": "error", "COLUMNS": "200"}
    done = subprocess.run(
        [sys.executable, str(script), str(page)], cwd=tmp_path, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert int(done.stdout.split()[-1]) >= WITH_EXAMPLES.get(page.name, 0)


def test_a_wrong_example_fails(tmp_path: Path) -> None:
    for text in ("```python\n>>> 1 + 1\n3\n```\n", "```console\n$ echo a\nb\n```\n", "```python\n1 / 0\n```\n"):
        page = tmp_path / "page.md"
        page.write_text(text)
        done = subprocess.run([sys.executable, doc_blocks.__file__, str(page)], cwd=tmp_path, capture_output=True)
        assert done.returncode != 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.name)
def test_links_and_paths_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    links = [t for t in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text) if "://" not in t]
    assert [t for t in links if not (page.parent / t).exists()] == []
    named = re.findall(r"`((?:graphc|frontend|ir|codegen|runtime|tests|examples|docs)/[\w./-]*\w)`", text)
    assert [n for n in named if not (ROOT / n).exists()] == []


def test_every_setting_is_documented() -> None:
    found: dict[str, None] = {}
    for folder in ("graphc", "frontend", "ir", "codegen", "runtime"):
        for path in (ROOT / folder).rglob("*.py"):
            found |= dict.fromkeys(re.findall(r'"(GRAPHC_\w+)"', path.read_text(encoding="utf-8")))
    table = (ROOT / "docs" / "config.md").read_text(encoding="utf-8")
    assert set(re.findall(r"^\| `(GRAPHC_\w+)`", table, re.M)) == set(found)


def test_the_table_of_accuracy_names_every_function() -> None:
    from test_vmath import BOUNDS

    text = (ROOT / "docs" / "numerics.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| [\d.]+ \| ([\d.]+) \|", text, re.M)
    assert [name for name, _, _ in rows] == list(BOUNDS)
    assert all(float(f32) <= BOUNDS[name][0] and float(f64) <= BOUNDS[name][1] for name, f32, f64 in rows)


def test_every_command_and_option_is_in_the_readme() -> None:
    from graphc.cli.app import STAGES, app

    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert [name for name in app.commands if f"`graphc {name}" not in text] == []
    assert [stage for stage in STAGES if stage not in text] == []


def test_every_package_is_in_the_layout() -> None:
    import tomllib

    text = (ROOT / "docs" / "layout.md").read_text(encoding="utf-8")
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    facades = ("graphc.autograd", "graphc.backends", "graphc.nn", "graphc.optim", "graphc.utils", "graphc.cli")
    folders = [p.removeprefix("graphc.").replace(".", "/") for p in listed if not p.startswith(facades)]
    assert [f for f in folders if f"`{f}/" not in text and f"`graphc/{f}/" not in text] == []
