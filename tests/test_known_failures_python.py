"""Known failures of other compilers, one test each: Python inside the compiled function, and very deep models."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import RecordingError
from graphc.nn import functional as F
from graphc.testing import assert_same
from tests.failure_checks import Made, cases, either, fallback, fresh, nothing, same, x34
from tests.recorder_checks import bits

CONFIG = {"scale": 2.0, "nested": SimpleNamespace(eps=0.5)}

# ---- print changes nothing


def _print_of_a_tensor() -> Made:
    net = nn.Linear(4, 2)

    def f(x: Any) -> Any:
        y = net(x)
        print("y", y.detach().sum() > 0)  # here
        return y * 2

    return f, fresh(3, 4), nothing


def _print_of_a_shape() -> Made:
    def f(x: Any) -> Any:
        y = x * 2
        print(y.shape, y.dtype)  # here
        return y.T

    return f, fresh(3, 4), nothing


def _print_in_a_module_in_training() -> Made:
    class Loud(nn.Module):
        def forward(self, x: Any) -> Any:
            print("forward", x.mean().item())  # here
            return x * 2

    net = nn.Sequential(nn.Linear(4, 3), Loud(), nn.Dropout(0.5))
    opt = graphc.optim.SGD(net.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return step, fresh(3, 4), lambda: [list(net.parameters()), [p.grad for p in net.parameters()]]


@cases(_print_of_a_tensor, _print_of_a_shape, _print_in_a_module_in_training)
def test_a_print_inside_changes_nothing(make: Any, capsys: Any) -> None:
    """The print split the graph, and the parts computed something else; or it came once, or never."""
    fn, given, _ = make()
    for k in range(9):
        fn(*given(k))
    one = capsys.readouterr().out.count("\n")
    fallback(make, lockstep=4)
    shown = capsys.readouterr().out.count("\n")
    assert shown >= 2 * one, "eagerly and compiled: a line a call"


# ---- recursion, generators, nested compile


def _recursive(x: Any, n: int) -> Any:
    return x if n == 0 else _recursive(x * 0.5 + n, n - 1)


def _recursion_by_a_number() -> Made:
    return _recursive, lambda k: (x34(k), 5 if k % 2 else 3), nothing


def _recursion_over_a_tree() -> Made:
    tree = {"a": x34(), "b": [x34(1.0), {"c": x34(2.0)}]}

    def total(t: Any) -> Any:
        if isinstance(t, dict):
            return sum(total(v) for v in t.values())
        return sum(map(total, t)) if isinstance(t, list) else t * 2

    return lambda x: x + total(tree), fresh(3, 4), nothing


def _recursion_of_modules() -> Made:
    class Tree(nn.Module):
        def __init__(self, depth: int) -> None:
            super().__init__()
            self.here = nn.Linear(4, 4)
            self.left = Tree(depth - 1) if depth else None
            self.right = Tree(depth - 1) if depth else None

        def forward(self, x: Any) -> Any:
            y = self.here(x)
            if self.left is None or self.right is None:
                return y
            return self.left(y) + self.right(y)

    net = Tree(2)
    return net, fresh(3, 4), lambda: list(net.parameters())


def _recursion_by_the_values() -> Made:
    def halve(x: Any) -> Any:
        return x if x.abs().max() < 1 else halve(x / 2)

    return halve, lambda k: (x34(k % 2),), nothing


@cases(_recursion_by_a_number, _recursion_over_a_tree, _recursion_of_modules, _recursion_by_the_values)
def test_recursion(make: Any) -> None:
    """The inner call found the compiled function half made, or took its constants."""
    same(make, hits=3)


def test_recursion_through_the_compiled_function_itself() -> None:
    """The recursion went through the compiled name, which compiled itself for ever."""

    @graphc.compile(fullgraph=True)
    def power(x: Any, n: int) -> Any:
        return x if n == 1 else x * power(x, n - 1)

    for _ in range(4):
        assert bits(power(x34(), 4)) == bits(x34() * (x34() * (x34() * x34())))
    assert power.stats.hits == 2 and power.stats.calls == 4


def _nested_function() -> Made:
    inner = graphc.compile(lambda x: x.exp() + 1)
    return lambda x: inner(x) * inner(x * 2), fresh(3, 4), nothing


def _nested_module() -> Made:
    inner = graphc.compile(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)))
    outer = nn.Sequential(inner, nn.Linear(4, 2))

    def step(x: Any) -> Any:
        outer.zero_grad()
        y = outer(x)
        y.sum().backward()
        return y.detach()

    return step, fresh(3, 4), lambda: [list(outer.state_dict().values()), [p.grad for p in outer.parameters()]]


def _nested_and_called_alone() -> Made:
    inner = graphc.compile(lambda x, n: x * n)

    def given(k: int) -> Any:
        inner(x34(), 2.0 + k)
        return (x34(k),)

    return lambda x: inner(x, 3) + inner(x, 2.5), given, nothing


def _nested_and_refused() -> Made:
    seen: list[float] = []

    @graphc.compile
    def inner(x: Any) -> Any:
        seen.append(len(seen) + 1.0)
        return x * 2

    return lambda x: inner(x) + 1, fresh(3, 4), lambda: list(seen)


@cases(_nested_function, _nested_module, _nested_and_called_alone)
def test_nested_compile(make: Any) -> None:
    """The inner graph was a constant of the outer one, or took its state apart from it."""
    same(make)


def test_nested_compile_of_what_is_refused() -> None:
    """The effect of the inner function was lost."""
    either(_nested_and_refused, warned="seen")


# ---- a helper that reads a config float, random numbers of Python and NumPy


def _helper(x: Any) -> Any:
    return x * CONFIG["scale"] + CONFIG["nested"].eps  # type: ignore[attr-defined]


def _config_of_a_global() -> Made:
    def given(k: int) -> Any:
        CONFIG["scale"] = 2.0 if k < 4 else 3.0
        return (x34(k),)

    return lambda x: _helper(x), given, nothing


def _config_deeper() -> Made:
    def given(k: int) -> Any:
        CONFIG["nested"].eps = 0.5 if k < 4 else 0.25  # type: ignore[attr-defined]
        return (x34(k),)

    return lambda x: F.relu(_helper(x)), given, nothing


def _config_of_a_class() -> Made:
    class Config:
        eps = 0.5

    config = Config()

    class Net(nn.Module):
        def helper(self, x: Any) -> Any:
            return x / config.eps

        def forward(self, x: Any) -> Any:
            return self.helper(x)

    def given(k: int) -> Any:
        Config.eps = 0.5 if k < 3 else 0.25
        if k == 6:
            config.eps = 8.0
        return (x34(k),)

    return Net(), given, nothing


def _config_read_in_a_branch() -> Made:
    config = {"gate": 0.5, "unused": 1.0}

    def f(x: Any) -> Any:
        return x * 2 if x.sum().item() * 0 + config["gate"] > 0.4 else x * 3

    def given(k: int) -> Any:
        config["gate"] = 0.5 if k < 4 else 0.25
        config["unused"] = 1.0
        return (x34(k),)

    return f, given, nothing


@cases(_config_of_a_global, _config_deeper, _config_of_a_class, _config_read_in_a_branch)
def test_a_helper_that_reads_a_config_float(make: Any) -> None:
    """A number that a helper read was no condition."""
    same(make, hits=2)


def _python_random() -> Made:
    random.seed(0)

    def f(x: Any) -> Any:
        return x * random.random()  # here

    return f, fresh(3, 4), lambda: random.getstate()[1][-1]


def _python_random_in_a_branch() -> Made:
    random.seed(0)

    def f(x: Any) -> Any:
        if random.random() < 2.0:  # here
            return x + 1
        return x

    return f, fresh(3, 4), lambda: random.getstate()[1][-1]


def _python_shuffle() -> Made:
    random.seed(0)
    layers = [nn.Linear(4, 4) for _ in range(3)]

    def f(x: Any) -> Any:
        for layer in random.sample(layers, 3):  # here
            x = layer(x)
        return x

    return f, fresh(3, 4), lambda: random.getstate()[1][-1]


def _numpy_random() -> Made:
    np.random.seed(0)

    def f(x: Any) -> Any:
        return x * float(np.random.rand())  # here

    return f, fresh(3, 4), lambda: np.random.get_state()[2]


def _numpy_random_as_an_index() -> Made:
    np.random.seed(0)

    def f(x: Any) -> Any:
        return x[int(np.random.randint(0, 3))] * 2  # here

    return f, fresh(3, 4), lambda: np.random.get_state()[2]


@cases(_python_random, _python_random_in_a_branch, _python_shuffle, _numpy_random, _numpy_random_as_an_index)
def test_random_numbers_of_python_and_numpy(make: Any) -> None:
    """The number of the first call was a constant; the generator stood still."""
    fallback(make)


# ---- 200 equal layers


def _layers(count: int, training: bool) -> tuple[Any, Any]:
    graphc.manual_seed(0)
    net = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.GELU(), nn.LayerNorm(8)) for _ in range(count)])
    opt = graphc.optim.SGD(net.parameters(), lr=0.01, momentum=0.5)

    def step(x: Any) -> Any:
        if not training:
            with graphc.no_grad():
                return net(x)
        opt.zero_grad()
        loss = net(x).square().mean()
        loss.backward()
        opt.step()
        return loss

    return step, net


@pytest.mark.parametrize(("training", "counts"), [(False, (20, 200)), (True, (8, 40))], ids=["forward", "training"])
def test_many_equal_layers_have_a_constant_number_of_kernels(training: bool, counts: tuple[int, int]) -> None:
    """Every layer had kernels of its own: compiling took minutes and the code did not fit any cache."""
    found, seconds = [], []
    x = graphc.full((4, 8), 0.5)
    for count in counts:
        step, net = _layers(count, training)
        other, copied = _layers(count, training)
        expected = [other(x) for _ in range(4)]  # compiles the eager kernels, too
        compiled = graphc.compile(step, fullgraph=True)
        start = time.process_time()
        assert bits([compiled(x) for _ in range(4)]) == bits(expected)
        seconds.append(time.process_time() - start)
        assert bits(list(net.parameters())) == bits(list(copied.parameters()))
        assert compiled.stats.hits == 2
        found.append(compiled.traces[0].executable.stats)
    few, many = found
    assert many.codes <= few.codes + 2 < many.kernels
    more = counts[1] // counts[0]
    assert many.kernels > more * few.kernels * 0.8
    assert seconds[1] < 4 * more * seconds[0] + 1, seconds


# ---- the first call of a process


def test_the_first_call_of_a_process_is_recorded_whole() -> None:
    """What the compiler imports while a function is recorded was taken for an effect of the function."""
    text = (
        "import graphc\n"
        "def f(x): return x * 2, graphc.ones(2), graphc.tensor([1.0, 2.0]).exp()\n"
        "g = graphc.compile(f, fullgraph=True)\n"
        "for _ in range(4): g(graphc.full((3,), 1.5))\n"
        "print(g.stats.hits)\n"
    )
    path = [sys.executable, "-c", f"exec(compile({text!r}, 'program.py', 'exec'))"]
    env = {"GRAPHC_CACHE": "0", "PATH": "", "PYTHONPATH": ":".join(p for p in sys.path if p)}
    done = subprocess.run(path, capture_output=True, text=True, env=env, timeout=60, check=False)
    assert done.stdout.strip() == "2", done.stderr


def test_one_line_of_each() -> None:
    """The forms that are compiled also go to a file and back, with two threads."""
    assert_same(lambda x: _recursive(x, 4), x34())
    assert_same(lambda x: sum(row * 2 for row in x), x34())
    with pytest.raises(RecordingError):
        graphc.trace(lambda x: x * random.random(), x34())
