"""Hosts that flush denormals or round otherwise: eager and compiled functions give the same bits, and the mode back."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.compiler import compile_graph, eager_run
from graphc.fuzz.deep_variants import threads
from graphc.fuzz.difference import same_bits
from graphc.ir.graph import Graph
from graphc.ir.op import op_named
from graphc.ir.types import TensorType, float32
from graphc.runtime.executable import trial
from graphc.runtime.float_mode import float_mode, get_float_mode, plain_mode

MODES = [(True, "nearest"), (False, "up"), (False, "zero"), (True, "down")]

FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "a number": lambda x: x * 1e-40 + 0.1,
    "numbers that are folded": lambda x: x + graphc.tensor(1e-40) * graphc.tensor(3.0),
    "a filled tensor that is folded": lambda x: x + graphc.full((3,), 1e-40) * 3.0,
    "filled tensors": lambda x: (graphc.full((2,), 0.1), graphc.full_like(x, 1e-40), x.new_full((2,), 0.3)),
    "filled in place": lambda x: x.clone().fill_(0.1),
    "a limit": lambda x: x.clamp(min=1e-40),
    "a choice": lambda x: graphc.where(x > 1e-41, x, 1e-39),
    "comparisons": lambda x: (x == 0, x > 0, x != x.abs(), x.bool(), x < 1e-40),
    "order": lambda x: (x.max(), x.argmin(), x.sort().values, x.topk(2).values),
    "places": lambda x: (x.nonzero(), x[x > 0]),
    "a branch": lambda x: graphc.cond(x.sum() > 0, lambda a: a + 1e-40, lambda a: a, (x,)),
    "a branch of Python": lambda x: x * 2 if (x > 0).any() else x,
    "conversions": lambda x: (x.to(graphc.float16).float(), x.to(graphc.bfloat16) * 0.1, x.double() * 1e-3),
    "16 bits": lambda x: graphc.full((2,), 0.1, dtype=graphc.float16) * 0.3,
    "ranges": lambda x: (graphc.arange(0, 1, 0.1), graphc.linspace(0, 1, 7)),
    "data": lambda x: graphc.tensor([0.1, 1e-40]),
}


def bits(result: Any) -> list[bytes]:
    """The bits of one tensor or several."""
    return [t.detach().numpy().tobytes() for t in (result if isinstance(result, tuple) else (result,))]


@pytest.mark.parametrize(("flush", "rounding"), MODES)
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(name: str, flush: bool, rounding: str) -> None:
    fn = FUNCTIONS[name]
    x = graphc.tensor([1e-40, -3e-41, 0.0])
    wanted = bits(fn(x))
    compiled = graphc.compile(fn)
    for run in (fn, compiled, compiled, compiled, compiled):
        with float_mode(flush, rounding) as mode:
            found = run(x)
            after = get_float_mode()
        assert bits(found) == wanted and after == mode


def test_gradients_and_random_numbers() -> None:
    def f(x: Any) -> Any:
        (g,) = graphc.autograd.grad((x.exp() * 1e-39 + graphc.rand(3)).sum(), x)
        return g, graphc.randn(5), graphc.nn.functional.dropout(x, 0.3)

    x = graphc.tensor([1e-40, 0.5, 1.0], requires_grad=True)
    compiled = graphc.compile(f)
    graphc.manual_seed(0)
    wanted = [bits(f(x)) for _ in range(4)]
    for run in (f, compiled):
        graphc.manual_seed(0)
        for expected in wanted:
            with float_mode(True, "up"):
                found = run(x)
            assert bits(found) == expected


def test_the_mode_within_is_the_hosts_again_on_every_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "split", True)
    graph = Graph("many")
    x = graph.add_input(TensorType(float32, (4000,)), "x")
    graph.add_output(op_named("mul")(x, 1.5), "y")
    exe = compile_graph(graph)
    tiny = np.full(4000, 3e-40, np.float32)
    (wanted,) = exe([tiny])
    assert (wanted != 0).all()
    for count in (1, 2, 3):
        with threads(count), float_mode(True, "zero") as mode:
            found = [exe([tiny])[0] for _ in range(5)]
            after = get_float_mode()
        assert after == mode and all(same_bits(wanted, y) for y in found)


def test_modes() -> None:
    before = get_float_mode()
    tiny, one = np.array([1e-40], np.float32), np.ones(1, np.float32)
    with float_mode(True, "up") as mode:
        inside = get_float_mode()
        flushed = (tiny * one).tobytes()
        ours = eager_run(op_named("mul"), [tiny, one], {})[0].tobytes()
        with plain_mode():
            plain, kept = get_float_mode(), (tiny * one).tobytes()
        after = get_float_mode()
    assert inside == mode == after != before == plain == get_float_mode()
    assert flushed == bytes(4) and ours == kept == tiny.tobytes()
    with plain_mode():
        assert get_float_mode() == before
