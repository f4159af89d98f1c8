"""Shared test options and fixtures."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"

# what the helpers of tests assert also holds under `python -O`
pytest.register_assert_rewrite(
    *sorted(f"tests.{p.stem}" for p in GOLDEN.parent.glob("[!t_]*.py") if p.stem != "conftest")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--update-golden", action="store_true", help="rewrite the files under tests/golden")


def pytest_configure(config: pytest.Config) -> None:
    """One object cache for the session and all its workers, fresh: the user's own is neither read nor written."""
    if not hasattr(config, "workerinput"):
        folder = tempfile.mkdtemp(prefix="graphc-tests-")
        config.add_cleanup(lambda: shutil.rmtree(folder, ignore_errors=True))
        os.environ["GRAPHC_CACHE_DIR"] = folder


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """`golden(name, text)` compares with tests/golden/<name>; with --update-golden it writes that file."""

    def check(name: str, text: str) -> None:
        path = GOLDEN / name
        if request.config.getoption("--update-golden"):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.exists(), f"{path} is missing; run pytest with --update-golden and look at what it wrote"
        assert text == path.read_text(encoding="utf-8"), f"{name} differs; if that is meant, run with --update-golden"

    return check
