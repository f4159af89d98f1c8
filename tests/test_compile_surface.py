"""What surrounds compiled functions: Modules that stay Modules, methods, decorators, options, disable, reset."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
import warnings
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, RecordingError, UnsupportedError
from graphc.frontend.record import front
from tests.recorder_checks import bits, marked_lines

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def x34() -> Any:
    return graphc.linspace(-1.0, 1.0, 12).reshape(3, 4)


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(4, 4)
        self.drop = nn.Dropout(0.5)
        self.scale = 2.0

    def forward(self, x: Any) -> Any:
        return self.drop(self.inner(x)) * self.scale

    def double(self) -> str:  # hides Module.double
        return "mine"


def net() -> Any:
    graphc.manual_seed(0)
    return Net()


# ---- Modules


def test_a_compiled_module_is_a_module_of_its_class() -> None:
    model = net()
    compiled = graphc.compile(model, fullgraph=True)
    assert isinstance(compiled, Net) and isinstance(compiled, nn.Module)
    assert type(compiled).__name__ == "Net" and repr(compiled) == f"compiled {model!r}"
    assert compiled._orig_mod is model and compiled.function is model
    assert graphc.compile(compiled) is compiled
    assert type(graphc.compile(net())) is type(compiled)
    assert list(compiled.state_dict()) == ["inner.weight", "inner.bias"]
    assert compiled.double() == "mine"
    assert dict(compiled.named_parameters()).keys() == dict(model.named_parameters()).keys()
    assert [type(m).__name__ for m in compiled.modules()] == ["Net", "Linear", "Dropout"]


def test_a_compiled_module_inside_other_modules() -> None:
    def run(compile: Any) -> Any:
        graphc.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 4), compile(Net()), nn.ModuleList([compile(nn.Linear(4, 2))])[0])
        keys = list(model.state_dict())
        opt = graphc.optim.SGD(model.parameters(), lr=0.1)
        seen: list[Any] = [keys]
        for _ in range(5):
            opt.zero_grad()
            loss = model(x34()).square().sum()
            loss.backward()
            opt.step()
            seen.append(bits(loss))
        return seen, bits(model.state_dict()), model

    (expected, state, _), (found, same, model) = run(lambda m: m), run(lambda m: graphc.compile(m, fullgraph=True))
    assert found == expected and same == state
    assert model[1].stats.hits == model[2].stats.hits == 3
    step = graphc.compile(lambda x: model(x).sum(), fullgraph=True)
    before = model[1].stats.calls
    for _ in range(4):
        step(x34())
    assert model[1].stats.calls == before and step.stats.hits == 2  # part of the outer graph
    assert any(n.module == "1.inner" for n in step.graph.nodes)


def test_what_is_set_on_one_is_set_on_the_other() -> None:
    model = net()
    compiled = graphc.compile(model, fullgraph=True)
    compiled.eval()
    assert not model.training and not model.drop.training
    for _ in range(3):
        assert bits(compiled(x34())) == bits(model(x34()))
    compiled.scale = 3.0
    assert model.scale == 3.0
    handle = compiled.register_forward_hook(lambda m, a, out: out + 1)
    for _ in range(3):
        assert bits(compiled(x34())) == bits(model(x34()))
    handle.remove()
    model.extra = nn.Parameter(graphc.ones(1))
    assert "extra" in compiled.state_dict() and compiled.extra is model.extra
    del compiled.extra
    assert not hasattr(model, "extra")
    compiled.to(graphc.float64)
    assert model.inner.weight.dtype is graphc.float64
    assert bits(compiled(x34().double())) == bits(model(x34().double()))
    compiled.train()
    graphc.manual_seed(4)
    first = bits(compiled(x34().double()))
    graphc.manual_seed(4)
    assert first == bits(model(x34().double()))
    compiled.apply(lambda m: setattr(m, "seen", True))
    assert model.seen and model.inner.seen
    compiled.load_state_dict({k: v * 0 for k, v in model.state_dict().items()})
    assert model.inner.weight.sum().item() == 0.0
    with pytest.raises(AttributeError, match="nothing"):
        _ = compiled.nothing


def test_names_of_the_module_come_first() -> None:
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stats = "mine"

        def explain(self) -> str:
            return "mine, too"

        def forward(self, x: Any) -> Any:
            return x * 2

    compiled = graphc.compile(Counting())
    assert compiled.stats == "mine" and compiled.explain() == "mine, too"
    assert compiled.function.stats == "mine" and not compiled.traces


def test_subclasses_are_not_announced() -> None:
    heard: list[str] = []

    class Base(nn.Module):
        def __init_subclass__(cls) -> None:
            heard.append(cls.__name__)

    class Leaf(Base):
        __slots__ = ("place",)

        def forward(self, x: Any) -> Any:
            return x + self.place

    model = Leaf()
    model.place = 1.0
    compiled = graphc.compile(model)
    assert heard == ["Leaf"]
    for _ in range(3):
        assert compiled(graphc.ones(1)).item() == 2.0
    assert compiled.place == 1.0


def test_copies_and_pickles_of_modules() -> None:
    compiled = graphc.compile(net().eval(), fullgraph=True)
    for _ in range(3):
        compiled(x34())
    whole = nn.Sequential(compiled, nn.Tanh())
    for other in (copy.deepcopy(whole)[0], pickle.loads(pickle.dumps(compiled)), copy.deepcopy(compiled)):
        assert type(other) is type(compiled) and other.fullgraph and other.stats.calls == 0
        assert other._orig_mod is not compiled._orig_mod
        assert bits(other(x34())) == bits(compiled(x34()))
        with graphc.no_grad():
            other.inner.weight.zero_()
        assert bits(other(x34())) != bits(compiled(x34()))
    assert copy.copy(compiled).inner is compiled.inner


def test_compile_in_place() -> None:
    model, other = net(), net()
    assert model.compile(fullgraph=True) is None
    for k in range(5):
        graphc.manual_seed(k)
        a = model(x34())
        graphc.manual_seed(k)
        assert bits(a) == bits(other(x34()))
    engine = model._compiled_call
    assert engine.stats.hits == 3 and type(model) is Net
    assert list(model.state_dict()) == list(other.state_dict())
    twin = copy.deepcopy(model)
    assert twin._compiled_call.function is twin and twin._compiled_call.stats.calls == 0
    twin(x34())
    assert (twin._compiled_call.stats.calls, engine.stats.calls) == (1, 5)
    again = pickle.loads(pickle.dumps(model))
    assert again._compiled_call.function is again
    whole = nn.Sequential(model, nn.Tanh())
    step = graphc.compile(lambda x: whole(x).sum(), fullgraph=True)
    for _ in range(3):
        step(x34())
    assert engine.stats.calls == 5 and step.stats.hits == 1
    model.compile(disable=True)
    assert "_compiled_call" not in model.__dict__
    assert bits(model.eval()(x34())) == bits(other.eval()(x34()))


@quiet
def test_compile_in_place_of_what_cannot_be_recorded() -> None:
    class Chatty(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * self.calls

    model = Chatty()
    model.compile()
    assert [model(graphc.ones(1)).item() for _ in range(5)] == [1.0, 2.0, 3.0, 4.0, 5.0]


# ---- methods and decorators


def test_methods_are_compiled_for_each_instance() -> None:
    class Scaler:
        def __init__(self, k: float) -> None:
            self.k = k
            self.w = graphc.full((3,), k)

        @graphc.compile(fullgraph=True)
        def run(self, x: Any) -> Any:
            return x * self.w + self.k

        @staticmethod
        @graphc.compile
        def still(x: Any) -> Any:
            return x * 3

        @graphc.compile
        @classmethod
        def kind(cls, x: Any) -> Any:
            return x * len(cls.__name__)

    a, b = Scaler(1.0), Scaler(2.0)
    for k in range(5):
        x = graphc.full((3,), float(k))
        assert bits(a.run(x)) == bits(x * a.w + 1.0)
        assert bits(b.run(x)) == bits(x * b.w + 2.0)
        assert bits(Scaler.still(x)) == bits(x * 3) == bits(a.still(x))
        assert bits(a.kind(x)) == bits(x * 6)
    assert Scaler.run.stats.compilations == 2 and Scaler.run.stats.hits == 6
    assert a.run.__func__ is Scaler.run and a.run.stats is Scaler.run.stats


def test_forward_as_a_compiled_method() -> None:
    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(graphc.ones(3))

        @graphc.compile(fullgraph=True)
        def forward(self, x: Any) -> Any:
            return (x * self.w).sum()

    model = Model()
    for k in range(4):
        model.zero_grad()
        model(graphc.full((3,), float(k))).backward()
        assert model.w.grad is not None and model.w.grad.tolist() == [float(k)] * 3
    assert Model.forward.stats.hits == 2


def test_nested_compiled_functions_are_one_graph() -> None:
    @graphc.compile
    def inner(x: Any) -> Any:
        return x.exp()

    @graphc.compile(fullgraph=True)
    def outer(x: Any) -> Any:
        return inner(x) + inner(-x)

    for _ in range(4):
        assert bits(outer(x34())) == bits(x34().exp() + (-x34()).exp())
    assert outer.stats.hits == 2 and inner.stats.calls == 0
    assert sum(n.op.name == "exp" for n in outer.graph.nodes) == 2


# ---- disable, reset, is_compiling


def test_disabled_functions() -> None:
    @graphc.compile
    def deep(x: Any) -> Any:
        return x * 2

    @graphc.compiler.disable
    def apart(x: Any) -> Any:
        """Doc."""
        assert not graphc.compiler.is_compiling()
        return deep(x) + 1

    assert apart.__name__ == "apart" and apart.__doc__ == "Doc."
    for _ in range(4):
        assert apart(graphc.ones(1)).item() == 3.0
    assert deep.stats.calls == 0

    @graphc.compiler.disable(recursive=False)
    def shallow(x: Any) -> Any:
        return deep(x) + 1

    for _ in range(4):
        assert shallow(graphc.ones(1)).item() == 3.0
    assert deep.stats.hits == 2
    assert graphc.compiler.disable(deep)(graphc.ones(1)).item() == 2.0
    assert deep.stats.calls == 4


def test_disabled_functions_inside_compiled_ones() -> None:
    @graphc.compiler.disable(reason="it talks to the disk")
    def apart(x: Any) -> Any:
        return x + 1

    def outer(x: Any) -> Any:
        y = x * 2
        return apart(y) * 3  # here

    lines = marked_lines(test_disabled_functions_inside_compiled_ones)
    compiled = graphc.compile(outer)
    with pytest.warns(graphc.RecordingWarning, match="talks to the disk") as caught:
        assert [bits(compiled(x34())) for _ in range(4)] == [bits(outer(x34()))] * 4
    assert len(caught) == 1 and any(line in str(caught[0].message) for line in lines)
    with pytest.raises(RecordingError, match="apart"):
        graphc.compile(outer, fullgraph=True)(x34())


def test_disable_refuses_what_it_cannot_keep_out() -> None:
    for wrong in (net(), 3):
        with pytest.raises(ArgumentError, match="disable: expected a function"):
            graphc.compiler.disable(wrong)


@quiet
def test_is_compiling() -> None:
    seen = []

    def f(x: Any) -> Any:
        seen.append((graphc.is_compiling(), graphc.compiler.is_compiling()))
        return x * 2

    f(x34())
    graphc.compile(f)(x34())
    assert seen == [(False, False), (True, True)]


def test_reset_forgets_everything() -> None:
    compiled = graphc.compile(lambda x: x * 2, fullgraph=True)
    model = graphc.compile(net())
    for _ in range(4):
        compiled(x34())
        model(x34())
    graphc.compiler.reset()
    assert (compiled.stats.calls, compiled.traces, model.stats.calls, model.traces) == (0, [], 0, [])
    for _ in range(3):
        assert bits(compiled(x34())) == bits(x34() * 2)
    assert (compiled.stats.recordings, compiled.stats.hits) == (2, 1)


def test_the_names_of_the_pipeline_s_module() -> None:
    assert graphc.compiler.is_compiling is graphc.is_compiling
    with pytest.raises(AttributeError, match="cudagraph_mark_step_begin"):
        _ = graphc.compiler.cudagraph_mark_step_begin


def test_switched_off_by_the_environment() -> None:
    code = (
        "import graphc\n"
        "f = graphc.compile(lambda x: x * 2, fullgraph=True)\n"
        "m = graphc.compile(graphc.nn.Linear(2, 2))\n"
        "for _ in range(4): f(graphc.ones(2)); m(graphc.ones(1, 2))\n"
        "assert f.stats.calls == m.stats.calls == 0\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, env={**__import__("os").environ, "GRAPHC_COMPILE": "0"})


# ---- options


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"backend": "inductor"}, "graphc's own compiler"),
        ({"backend": "eager"}, "compiles nothing"),
        ({"mode": "max-autotune"}, "changes nothing"),
        ({"options": {"trace.enabled": True}}, "trace.enabled"),
        ({"dynamic": False}, "dynamic=False"),
    ],
)
def test_options_say_once_what_they_mean(given: dict[str, Any], said: str) -> None:
    front._told.clear()
    with pytest.warns(graphc.CompileNote, match=said) as caught:
        compiled = graphc.compile(lambda x: x * 2, **given)
        graphc.compile(lambda x: x * 2, **given)
        decorated = graphc.compile(**given)(lambda x: x * 2)
    assert len(caught) == 1 and caught[0].filename == __file__
    for _ in range(3):
        assert bits(compiled(x34())) == bits(decorated(x34())) == bits(x34() * 2)
    assert hasattr(compiled, "stats") is (given.get("backend") != "eager")


def test_options_without_a_note() -> None:
    def f(x: Any) -> Any:
        return x

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert graphc.compile(f, disable=True) is f
        assert graphc.compile(disable=True)(f) is f
        graphc.compile(f, mode="default", backend="graphc", dynamic=None)


def test_options_that_are_refused() -> None:
    def f(x: Any) -> Any:
        return x

    for given, error, match in [
        ({"backend": "cudagraphs"}, ArgumentError, "'graphc', 'inductor'"),
        ({"backend": lambda g, x: g}, UnsupportedError, "backend"),
        ({"mode": "fast"}, ArgumentError, "'max-autotune'"),
        ({"mode": "default", "options": {}}, ArgumentError, "both"),
        ({"dynamic": "yes"}, ArgumentError, "dynamic"),
    ]:
        with pytest.raises(error, match=match):
            graphc.compile(f, **given)  # type: ignore[arg-type]
    with pytest.raises(TypeError):
        graphc.compile(f, fast=True)


# ---- warm


def test_warm_leaves_no_trace_but_the_compiled_one() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))
    opt = graphc.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    twin = copy.deepcopy(model)
    other = graphc.optim.SGD(twin.parameters(), lr=0.1, momentum=0.9)

    def step(model: Any, opt: Any, x: Any) -> Any:
        opt.zero_grad()
        x.mul_(2)
        loss = model(x).square().sum()
        loss.backward()
        opt.step()
        return loss

    compiled = graphc.compile(lambda x: step(model, opt, x), fullgraph=True)
    graphc.manual_seed(3)
    x, y = x34(), x34()
    before = bits(model.state_dict()), bits(graphc.get_rng_state()), bits(x)
    assert compiled.warm(x) is None
    assert (bits(model.state_dict()), bits(graphc.get_rng_state()), bits(x)) == before
    assert all(p.grad is None for p in model.parameters()) and opt.state_dict()["state"] == {}
    assert (compiled.stats.calls, compiled.stats.recordings, compiled.stats.compilations) == (0, 2, 1)
    graphc.manual_seed(3)
    expected = [bits(step(twin, other, y)) for _ in range(4)]
    graphc.manual_seed(3)
    assert [bits(compiled(x)) for _ in range(4)] == expected and bits(x) == bits(y)
    assert bits(model.state_dict()) == bits(twin.state_dict())


def test_the_first_call_after_warm_is_a_hit() -> None:
    compiled = graphc.compile(net().eval(), fullgraph=True)
    compiled.warm(x34())
    compiled.warm(x34())  # nothing more to do
    compiled(x34())
    assert (compiled.stats.hits, compiled.stats.recordings) == (1, 2)
    with pytest.raises(RecordingError):
        graphc.compile(lambda x: float(x.sum()), fullgraph=True).warm(x34())
