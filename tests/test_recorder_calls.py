"""The recorder: kinds of functions, threads, and refusals."""

from __future__ import annotations

import copy
import functools
import pickle
import threading
import time
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.errors import GraphcError, RecordingError
from graphc.testing import assert_same
from tests.recorder_checks import bits, follows, refused


def v4(scale: float = 1.0) -> Any:
    return graphc.tensor([1.0, -2.0, 3.0, 0.5]) * scale


# ---- functions


def test_generator_and_async_functions_are_refused_at_decoration() -> None:
    def generator(x: Any) -> Any:
        yield x

    async def coroutine(x: Any) -> Any:
        return x

    async def agenerator(x: Any) -> Any:
        yield x

    for fn in (generator, coroutine, agenerator):
        with pytest.raises(TypeError, match="generator or async"):
            graphc.compile(fn)
        with pytest.raises(TypeError, match="generator or async"):
            graphc.trace(fn, v4())
    with pytest.raises(TypeError, match="expected a function"):
        graphc.compile(3)


def test_generator_inside_is_fine() -> None:
    def rows(x: Any) -> Any:
        for k in range(4):
            yield x[k] * k

    assert_same(lambda x: sum(rows(x)), v4())


def test_decorator_forms_and_switch() -> None:
    @graphc.compile
    def f(x: Any) -> Any:
        """Doc."""
        return x * 2

    @graphc.compile(fullgraph=True)
    def g(x: Any) -> Any:
        return x * 2

    assert f.__name__ == "f" and f.__doc__ == "Doc." and graphc.compile(f) is f
    for _ in range(3):
        assert bits(f(v4())) == bits(g(v4()))


def test_compiled_module_keeps_its_interface() -> None:
    model = nn.Sequential(nn.Linear(4, 2), nn.Dropout(0.5))
    compiled = graphc.compile(model)
    assert list(compiled.state_dict()) == list(model.state_dict())
    assert [n for n, _ in compiled.named_parameters()] == [n for n, _ in model.named_parameters()]
    compiled.eval()
    assert not model.training and not compiled.training
    assert compiled[0] is model[0] if hasattr(type(compiled), "__getitem__") else True
    compiled.extra = 3
    assert model.extra == 3


# ---- threads


def test_an_op_on_recorded_tensors_in_another_thread_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            y = x * 2
            out: list[Any] = []
            worker = threading.Thread(target=lambda: out.append(y + 1))  # here
            worker.start()
            worker.join()
            return out[0] * 3  # here

        return f, (v4(),)

    refused(make)


def test_two_threads_call_one_compiled_function() -> None:
    compiled = graphc.compile(lambda x: (x * 2).sum(), fullgraph=True)
    wrong: list[Any] = []

    def work(k: int) -> None:
        for i in range(20):
            x = v4(float(k + i))
            if bits(compiled(x)) != bits((x * 2).sum()):
                wrong.append((k, i))

    threads = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not wrong


def test_eager_work_in_another_thread_is_not_recorded() -> None:
    stop = threading.Event()

    def noise() -> None:
        while not stop.is_set():
            v4() * 3

    worker = threading.Thread(target=noise)
    worker.start()
    try:
        compiled = graphc.compile(lambda x: (time.sleep(0.01), x * 2)[1], fullgraph=True)
        for _ in range(3):
            compiled(v4())
        assert len(compiled.graph.nodes) <= 2
    finally:
        stop.set()
        worker.join()


# ---- refusals


def test_a_refused_function_keeps_all_effects_once() -> None:
    log: list[float] = []

    def f(x: Any) -> Any:
        y = x.sum().item()
        log.append(float(y))
        x.add_(1)
        return x * 2

    compiled = graphc.compile(f)
    x, x2 = v4(), v4()
    with pytest.warns(graphc.RecordingWarning) as caught:
        for k in range(4):
            assert bits(compiled(x)) == bits(x2.add_(1) * 2)
            assert bits(x) == bits(x2) and len(log) == k + 1 and type(log[-1]) is float
    assert len(caught) == 1
    assert compiled.stats.refused == 1 and (compiled.stats.eager, compiled.stats.lockstep) == (2, 1)
    assert "test_recorder_calls.py" in compiled.explain()


def test_a_training_step_refused_in_the_middle_is_eager() -> None:
    def build() -> Any:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.2), nn.Linear(4, 2))
        return model, optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    logs: list[Any] = [[], []]

    def run(compile: bool) -> Any:
        model, opt = build()
        log = logs[compile]

        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = model(x).square().mean()
            loss.backward()
            log.append(loss.item())
            opt.step()
            return loss

        f = graphc.compile(step) if compile else step
        graphc.manual_seed(1)
        outs = [bits(f(graphc.randn(3, 4))) for _ in range(5)]
        return outs, bits(model.state_dict()), bits(opt.state_dict()["state"]), bits(graphc.get_rng_state())

    with pytest.warns(graphc.RecordingWarning):
        assert run(True) == run(False)
    assert logs[0] == logs[1] and [type(v) for v in logs[1]] == [float] * 5


def test_identical_calls_that_differ_are_shown_with_their_line() -> None:
    def f(x: Any) -> Any:
        return x * time.perf_counter()

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match=r"test_recorder_calls.py:\d+ was .*\d+\.\d+.* on the second call"):
        for _ in range(2):
            compiled(v4())


def test_follows_is_not_vacuous() -> None:
    with pytest.raises((AssertionError, RecordingError)):
        turn = iter(range(100))
        follows(lambda x: x + next(turn), (v4(),), (v4(),))


@pytest.mark.parametrize("what", ["grad mode", "default dtype"])
def test_ambient_state_changed_for_good_is_refused(what: str) -> None:
    def make() -> Any:
        graphc.set_grad_enabled(True)
        graphc.set_default_dtype(graphc.float32)

        def f(x: Any) -> Any:
            if what == "grad mode":
                graphc.set_grad_enabled(False)  # here
            else:
                graphc.set_default_dtype(graphc.float64)  # here
            return x * 2

        return f, (v4(),), lambda: (graphc.is_grad_enabled(), str(graphc.get_default_dtype()))

    try:
        refused(make, calls=1)
    finally:
        graphc.set_grad_enabled(True)
        graphc.set_default_dtype(graphc.float32)


# ---- modules made inside


def test_layers_made_inside() -> None:
    class Scale(nn.Module):
        def __init__(self, by: float) -> None:
            super().__init__()
            self.by = by
            self.by = self.by + 1
            self.inner = nn.Sequential(nn.Flatten(), nn.Softmax(dim=1))

        def forward(self, x: Any) -> Any:
            return self.inner(x) * self.by

    def f(x: Any, y: Any) -> Any:
        h = nn.Dropout(0.25)(nn.LeakyReLU(0.1)(x)) + Scale(2.0)(x)
        return nn.CrossEntropyLoss(label_smoothing=0.1)(h, y)

    compiled = assert_same(f, graphc.arange(12.0).reshape(3, 4) - 5, graphc.tensor([0, 3, 1]))
    assert compiled.stats.hits


def test_a_layer_made_inside_and_kept_is_refused() -> None:
    def make() -> Any:
        keep = functools.lru_cache(lambda layer: None)

        def f(x: Any) -> Any:
            layer = nn.ReLU()
            keep(layer)  # here: nobody can see into the cache
            return layer(x)

        return f, (graphc.ones(2),)

    refused(make)


@pytest.mark.parametrize("name", ["sort", "argsort", "topk", "multinomial", "randperm"])
def test_sorting_is_part_of_a_graph(name: str) -> None:
    """All of these ended a recording before there was a kernel that sorts."""
    calls: dict[str, Any] = {
        "sort": lambda x: x.sort(dim=1).values,
        "argsort": lambda x: x.argsort(descending=True),
        "topk": lambda x: x.topk(2).indices,
        "multinomial": lambda x: (graphc.multinomial(x, 3), graphc.multinomial(x[0], 9, replacement=True)),
        "randperm": lambda x: x[0, graphc.randperm(4)],
    }
    graphc.manual_seed(2)
    rows = [graphc.rand(2, 4) for _ in range(4)]
    graphc.manual_seed(3)
    wanted = [bits(calls[name](x)) for x in rows]
    graphc.manual_seed(3)
    compiled = graphc.compile(calls[name], fullgraph=True)
    assert [bits(compiled(x)) for x in rows] == wanted
    assert compiled.stats.hits == 2
    graphc.manual_seed(3)
    program = graphc.trace(calls[name], rows[0])
    assert bits(program(rows[0])) == wanted[0]


def test_bad_probabilities_raise_in_a_compiled_call() -> None:
    compiled = graphc.compile(lambda x: graphc.multinomial(x, 1), fullgraph=True)
    for _ in range(3):
        compiled(graphc.ones(3))
    with pytest.raises(GraphcError, match="must be finite, not negative"):
        compiled(graphc.tensor([1.0, -1.0, 1.0]))


@graphc.compile
def _doubled(x: Any) -> Any:
    return x * 2


def test_copies_and_pickles_of_compiled_functions() -> None:
    model = graphc.compile(graphc.nn.Linear(2, 2), fullgraph=True)
    x = graphc.ones(1, 2)
    for _ in range(3):
        model(x)
    for other in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert type(other) is type(model) and other.fullgraph
        assert other.function is not model.function
        assert bits(other(x)) == bits(model(x))
        with graphc.no_grad():
            other.weight.mul_(3)
        assert bits(other(x)) != bits(model(x))
    assert pickle.loads(pickle.dumps(_doubled)) is _doubled
    twin = copy.deepcopy(_doubled)
    assert twin is not _doubled and twin.stats.calls == 0 and bits(twin(x)) == bits(x * 2)
    assert repr(twin).startswith("<compiled <function _doubled")


def test_static_and_class_methods_in_any_order() -> None:
    class A:
        k = 2.0

        @graphc.compile
        @staticmethod
        def first(x: Any) -> Any:
            return x * 3

        @classmethod
        @graphc.compile
        def second(cls, x: Any) -> Any:
            return x * cls.k

        @graphc.compile
        @classmethod
        def third(cls, x: Any) -> Any:
            return x * cls.k + 1

    for _ in range(4):
        assert A().first(graphc.ones(1)).tolist() == [3.0]
        assert A.second(graphc.ones(1)).tolist() == [2.0]
        assert A().third(graphc.ones(1)).tolist() == [3.0]
    assert A.first.stats.hits == 2


def test_containers_that_hold_themselves_run_eagerly() -> None:
    loop: list[Any] = [graphc.ones(1)]
    loop.append(loop)

    def out(x: Any) -> Any:
        made: list[Any] = [x * 2]
        made.append(made)
        return made

    for fn, given in ((lambda items: items[0] * 2, loop), (out, graphc.ones(1))):
        compiled = graphc.compile(fn)
        with pytest.warns(graphc.RecordingWarning, match="hold themselves") as caught:
            for _ in range(3):
                found = compiled(given)
        assert len(caught) == 1 and caught[0].filename == __file__
        assert (found[0] if isinstance(found, list) else found).tolist() == [2.0]
        with pytest.raises(RecordingError, match="hold themselves"):
            graphc.compile(fn, fullgraph=True)(given)


def test_a_tensor_as_a_key() -> None:
    key = graphc.ones(2)
    compiled = follows(lambda d: sum(d.values()), *[({key: graphc.ones(1) * k},) for k in range(4)])
    assert compiled.stats.hits == 2
