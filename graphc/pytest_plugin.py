"""A pytest plugin for tests of models: pytest finds it by itself where graphc is installed.

Fixtures: `graphc_same` (eager, compiled and reloaded give the same bits), `graphc_compile` (the test runs twice, with
functions as they are and compiled), `graphc_seed` (a fixed random state, put back afterwards). Options:
`--graphc-threads`, `--graphc-no-compile`. Setting: `graphc_strict = true` makes a function that cannot be compiled an
error. Nothing of graphc is imported before a test asks for it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from functools import partial
from typing import Any

import pytest

_SECTIONS = pytest.StashKey[list[Any]]()  # compiled functions of a test, to be explained when it fails


def pytest_addoption(parser: pytest.Parser) -> None:
    """The options and the setting."""
    group = parser.getgroup("graphc", "models compiled by graphc")
    group.addoption(
        "--graphc-threads", default="1,2", metavar="N,M", help="numbers of threads graphc_same runs with (default 1,2)"
    )
    group.addoption(
        "--graphc-no-compile", action="store_true", help="run everything eagerly: does a failure come from compiling?"
    )
    parser.addini("graphc_strict", "a function that cannot be compiled is an error, not a warning", "bool", False)


def pytest_configure(config: pytest.Config) -> None:
    """Check and apply the options."""
    _threads(config)
    if config.getini("graphc_strict"):
        config.addinivalue_line("filterwarnings", "error::graphc.RecordingWarning")
    if config.getoption("--graphc-no-compile"):
        from graphc.config import config as settings

        settings.compile = False


def _threads(config: pytest.Config) -> tuple[int, ...]:
    text = str(config.getoption("--graphc-threads"))
    parts = text.split(",")
    if not all(p.strip().isdigit() and int(p) > 0 for p in parts):
        raise pytest.UsageError(f"--graphc-threads expects numbers such as 1,2, got {text!r}")
    return tuple(map(int, parts))


@pytest.fixture
def graphc_same(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """`graphc_same(fn, *inputs, state=(), calls=4)`: `graphc.testing.assert_same`, every bit, on the numbers of threads
    of --graphc-threads. Under --graphc-no-compile it only calls the function.
    """
    if request.config.getoption("--graphc-no-compile"):
        return _only_call
    from graphc.testing import assert_same

    return partial(assert_same, threads=_threads(request.config))


def _only_call(fn: Callable[..., Any], *inputs: Any, calls: int = 4, **options: Any) -> None:
    for _ in range(calls):
        fn(*inputs)


@pytest.fixture(params=["eager", "compiled"])
def graphc_compile(request: pytest.FixtureRequest) -> Iterator[Callable[..., Any]]:
    """`graphc_compile(fn)`: in one run of the test `fn` itself, in the other `graphc.compile(fn, fullgraph=True)`.

    The test fails where a function compiled this way was called three times or more and no compiled graph ever
    answered. When it fails, the report tells the traces and guards.
    """
    if request.param == "eager" or request.config.getoption("--graphc-no-compile"):
        yield lambda fn: fn
        return
    from graphc import compile as compiled

    made: list[Any] = []
    request.node.stash[_SECTIONS] = made

    def wrap(fn: Callable[..., Any]) -> Any:
        made.append(compiled(fn, fullgraph=True))
        return made[-1]

    yield wrap
    idle = [c for c in made if c.stats.calls >= 3 and not c.stats.hits]
    if idle:
        pytest.fail(f"no call was answered by a compiled graph:\n{idle[0].explain()}", pytrace=False)


@pytest.fixture
def graphc_seed() -> Iterator[Any]:
    """The random state of `graphc.manual_seed(0)` during the test, the former one afterwards; call it with another
    seed.
    """
    import graphc

    before = graphc.get_rng_state()
    graphc.manual_seed(0)
    yield graphc.manual_seed
    graphc.set_rng_state(before)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, Any]:
    """Add what the compiled functions of a failed test were to its report."""
    report = yield
    if report.when == "call" and report.failed:
        report.sections += [("graphc explain", c.explain()) for c in item.stash.get(_SECTIONS, [])]
    return report
