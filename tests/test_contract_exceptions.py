"""RECORDER.md, after exceptions: user code raises in every place where graphc calls it, in the first recording, in the
second, where the function was compiled and in lockstep; each time everything is as eager execution leaves it.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import graphc
from graphc import nn, optim
from graphc.config import config
from graphc.frontend.mode import mode
from graphc.frontend.record import rng
from tests.recorder_checks import bits

CALLS = 10
WHEN = ((0,), (1,), (2,), (4,), (6,), (0, 2, 6, 7))  # the calls that raise


class Stop(Exception):
    """Raised in the middle of a call."""


class Fuse:
    """Blown in the calls that raise."""

    blown = False

    def check(self) -> None:
        if self.blown:
            raise Stop("the fuse is blown")


def x43() -> Any:
    return graphc.arange(12.0).reshape(4, 3) * 0.1 - 0.5


def leaf() -> Any:
    return x43().requires_grad_()


Made = tuple[Callable[..., Any], tuple[Any, ...], Callable[[], Any]]


def tensor_hook(fuse: Fuse) -> Made:
    w, v = leaf(), leaf()

    def hook(g: Any) -> Any:
        fuse.check()
        return g * 2

    def f(x: Any) -> Any:
        y = w * x * graphc.rand(4, 3)
        y.register_hook(hook)
        (y * v).sum().backward()
        return y.detach()

    return f, (x43(),), lambda: [w.grad, v.grad]


def leaf_hook(fuse: Fuse) -> Made:
    w, v = leaf(), leaf()
    w.register_hook(lambda g: fuse.check())

    def f(x: Any) -> Any:
        loss = (w * x).sum() + (v * graphc.rand(4, 3)).sum()
        loss.backward()
        return loss.detach()

    return f, (x43(),), lambda: [w.grad, v.grad]


def post_accumulate_hook(fuse: Fuse) -> Made:
    w, v = leaf(), leaf()
    w.register_post_accumulate_grad_hook(lambda p: fuse.check())

    def f(x: Any) -> Any:
        (w * x * v).sum().backward()
        return x + 1

    return f, (x43(),), lambda: [w.grad, v.grad]


def module_hooks(fuse: Fuse, which: str) -> Made:
    graphc.manual_seed(1)
    m = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    if which == "pre":
        m[2].register_forward_pre_hook(lambda m, args: fuse.check())
    elif which == "forward":
        m[1].register_forward_hook(lambda m, args, out: fuse.check())
    else:
        m[0].register_full_backward_hook(lambda m, gi, go: fuse.check())

    def f(x: Any) -> Any:
        y = m(x)
        y.square().sum().backward()
        return y.detach()

    return f, (x43(),), lambda: [p.grad for p in m.parameters()] + list(m.buffers())


def function_rule(fuse: Fuse, which: str) -> Made:
    class Scale(graphc.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            if which == "forward":
                fuse.check()
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx: Any, g: Any) -> Any:
            if which == "backward":
                fuse.check()
            (x,) = ctx.saved_tensors
            return g * x

    w, v = leaf(), leaf()

    def f(x: Any) -> Any:
        (Scale.apply(w * x) * v * graphc.rand(4, 3)).sum().backward()
        return x + 1

    return f, (x43(),), lambda: [w.grad, v.grad]


def host_callback(fuse: Fuse) -> Made:
    s = x43()

    def look(t: Any) -> Any:
        fuse.check()
        return t + 1

    def f(x: Any) -> Any:
        s.add_(x)
        y = graphc.host(look, x * graphc.rand(4, 3))
        s.mul_(0.5)
        return y * 2

    return f, (x43(),), lambda: s


def host_callback_before_backward(fuse: Fuse) -> Made:
    w = leaf()
    o = optim.Adam([w], lr=0.1)

    def f(x: Any) -> Any:
        o.zero_grad()
        loss = (w * x).square().sum()
        graphc.host(lambda t: fuse.check(), loss)
        loss.backward()
        o.step()
        return loss.detach()

    return f, (x43(),), lambda: [w, w.grad]


def branch_of_a_guard(fuse: Fuse) -> Made:
    s, x = x43(), x43()

    def f(x: Any) -> Any:
        s.add_(1)
        y = x + graphc.rand(4, 3)
        if x.sum() > 50:
            s.mul_(2)
            raise Stop(f"the sum is {x.sum() > 60}")
        return y

    def seen() -> Any:
        return s

    def g(x: Any) -> Any:
        return f(x + 100) if fuse.blown else f(x)

    return g, (x,), seen


def value_of_an_argument(fuse: Fuse) -> Made:
    s = x43()

    def f(x: Any, limit: float) -> Any:
        s.add_(1)
        y = s * graphc.rand(4, 3)
        if x.max() > limit:
            raise Stop
        s.mul_(0.5)
        return y

    return f, (x43(), lambda: 0.0 if fuse.blown else 9.0), lambda: s


def backward_of_the_caller(fuse: Fuse) -> Made:
    w, v = leaf(), leaf()

    def hook(g: Any) -> None:
        fuse.check()

    def f(x: Any) -> Any:
        y = w * x
        if y.requires_grad:
            y.register_hook(hook)
        return (y * v).sum()

    return f, (x43(),), lambda: [w.grad, v.grad]


def optimiser_hook(fuse: Fuse) -> Made:
    w = leaf()
    o = optim.SGD([w], lr=0.1, momentum=0.9)
    o.register_step_post_hook(lambda o, args, kwargs: fuse.check())

    def f(x: Any) -> Any:
        o.zero_grad()
        loss = (w * x).square().sum()
        loss.backward()
        o.step()
        return loss.detach()

    return f, (x43(),), lambda: [w, w.grad, *[t for s in o.state.values() for t in s.values()]]


def closure_of_an_optimiser(fuse: Fuse) -> Made:
    w = leaf()
    o = optim.SGD([w], lr=0.1)

    def f(x: Any) -> Any:
        def closure() -> Any:
            o.zero_grad()
            loss = (w * x).square().sum()
            loss.backward()
            fuse.check()
            return loss

        return o.step(closure).detach()

    return f, (x43(),), lambda: [w, w.grad]


def contexts(fuse: Fuse) -> Made:
    w = leaf()

    def f(x: Any) -> Any:
        with graphc.no_grad():
            y = w * x
            fuse.check()
        with graphc.enable_grad():
            z = y * w * graphc.rand(4, 3)
            fuse.check()
        return z

    return f, (x43(),), lambda: [graphc.is_grad_enabled()]


def grad_mode_left(fuse: Fuse) -> Made:
    w = leaf()

    def f(x: Any) -> Any:
        if fuse.blown:
            graphc.set_grad_enabled(False)
            y = w * x
            raise Stop(str(y.requires_grad))
        return w * x

    return f, (x43(),), lambda: [graphc.is_grad_enabled()]


def training_flag_left(fuse: Fuse) -> Made:
    m = nn.Sequential(nn.Dropout(0.5), nn.BatchNorm1d(3))

    def f(x: Any) -> Any:
        m.eval()
        y = m(x)
        fuse.check()
        m.train()
        return y + m(x)

    return f, (x43(),), lambda: [m.training, m[0].training, *m.buffers()]


def default_dtype_left(fuse: Fuse) -> Made:
    def f(x: Any) -> Any:
        graphc.set_default_dtype(graphc.float64)
        y = x * graphc.ones(3)
        fuse.check()
        graphc.set_default_dtype(graphc.float32)
        return y

    return f, (x43(),), lambda: [str(graphc.get_default_dtype())]


def caught_inside(fuse: Fuse) -> Made:
    w, v = leaf(), leaf()

    def hook(g: Any) -> None:
        fuse.check()

    def f(x: Any) -> Any:
        y = w * x * graphc.rand(4, 3)
        y.register_hook(hook)
        try:
            (y * v).sum().backward()
        except Stop:
            return y.detach() - 1
        return y.detach()

    return f, (x43(),), lambda: [w.grad, v.grad]


def nested_compiled(fuse: Fuse) -> Made:
    s = x43()

    @graphc.compile
    def inner(x: Any) -> Any:
        s.add_(x)
        fuse.check()
        return s * graphc.rand(4, 3)

    return lambda x: inner(x) + inner(x * 2), (x43(),), lambda: s


def generator_inside(fuse: Fuse) -> Made:
    s = x43()

    def parts(x: Any) -> Any:
        for row in x:
            yield row * graphc.rand(3)
            s.add_(row)
            fuse.check()

    return lambda x: sum(parts(x)), (x43(),), lambda: s


def stop_iteration(fuse: Fuse) -> Made:
    s = x43()

    def f(x: Any) -> Any:
        s.add_(x)
        return s * next(iter([] if fuse.blown else [2.0]))

    return f, (x43(),), lambda: s


def keyboard_interrupt(fuse: Fuse) -> Made:
    s = x43()

    def f(x: Any) -> Any:
        s.add_(x)
        if fuse.blown:
            raise KeyboardInterrupt
        return s * graphc.rand(4, 3)

    return f, (x43(),), lambda: s


def index_of_an_argument(fuse: Fuse) -> Made:
    s = x43()

    def f(x: Any, i: Any) -> Any:
        s.add_(x)
        y = x[i] * graphc.rand(3)
        s.mul_(2)
        return y

    return f, (x43(), lambda: graphc.tensor([0, 9 if fuse.blown else 1])), lambda: s


def shapes_that_do_not_fit(fuse: Fuse) -> Made:
    s = x43()

    def f(x: Any, y: Any) -> Any:
        s.add_(x)
        return x * y * graphc.rand(1)

    return f, (x43(), lambda: graphc.ones(2 if fuse.blown else 3)), lambda: s


ERRORS = ("Stop", "StopIteration", "KeyboardInterrupt", "IndexingError", "ShapeError")
REFUSED = (
    "a hook after a gradient is added", "the caller's backward()", "train() and eval() are left",
    "the default dtype is left",
)  # fmt: skip

CASES: dict[str, Callable[[Fuse], Made]] = {
    "a hook on a tensor": tensor_hook,
    "a hook on a leaf": leaf_hook,
    "a hook after a gradient is added": post_accumulate_hook,
    "a hook before a Module": lambda fuse: module_hooks(fuse, "pre"),
    "a hook behind a Module": lambda fuse: module_hooks(fuse, "forward"),
    "a hook on a Module's gradients": lambda fuse: module_hooks(fuse, "backward"),
    "Function.forward": lambda fuse: function_rule(fuse, "forward"),
    "Function.backward": lambda fuse: function_rule(fuse, "backward"),
    "a callback of host()": host_callback,
    "a callback of host() before backward()": host_callback_before_backward,
    "a branch of a guard": branch_of_a_guard,
    "a branch of an argument's value": value_of_an_argument,
    "the caller's backward()": backward_of_the_caller,
    "a hook on an optimiser": optimiser_hook,
    "the closure of an optimiser": closure_of_an_optimiser,
    "inside no_grad() and enable_grad()": contexts,
    "the gradient mode is left": grad_mode_left,
    "train() and eval() are left": training_flag_left,
    "the default dtype is left": default_dtype_left,
    "caught inside": caught_inside,
    "a nested compiled function": nested_compiled,
    "a generator inside": generator_inside,
    "StopIteration": stop_iteration,
    "KeyboardInterrupt": keyboard_interrupt,
    "an index out of range": index_of_an_argument,
    "shapes that do not fit": shapes_that_do_not_fit,
}


def history(make: Callable[[Fuse], Made], when: tuple[int, ...], how: str) -> tuple[list[Any], Any]:
    """What calls give, raise and leave behind: the function itself (""), "compiled" or in "lockstep"."""
    graphc.manual_seed(5)
    fuse = Fuse()
    f, given, seen = make(fuse)
    log: list[int] = []

    def logged(*args: Any) -> Any:
        log.append(len(log))
        return f(*args)

    fn = graphc.compile({"": f, "compiled": f, "lockstep": logged}[how]) if how else f
    found: list[Any] = []
    outer = graphc.is_grad_enabled(), graphc.get_default_dtype()
    for k in range(CALLS):
        fuse.blown = k in when
        args = [a() if callable(a) and not isinstance(a, graphc.Tensor) else a for a in given]
        try:
            y = fn(*args)
            if make is backward_of_the_caller:
                y.backward()
            found.append(bits(y))
        except (Exception, KeyboardInterrupt) as error:
            found.append((type(error).__name__, str(error)))
        fuse.blown = False
        ambient = graphc.is_grad_enabled(), str(graphc.get_default_dtype())
        found.append((bits(seen()), rng.state_array().tolist(), ambient))
        graphc.set_grad_enabled(outer[0])
        graphc.set_default_dtype(outer[1])
        assert mode.get().recorder is None and sys.getprofile() is None
    return found, SimpleNamespace(fn=fn, log=log)


@pytest.mark.parametrize("how", ["compiled", "lockstep"])
@pytest.mark.parametrize("name", CASES)
def test_raised_in(name: str, how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "lockstep", "always")
    for when in WHEN:
        expected, _ = history(CASES[name], when, "")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", graphc.RecordingWarning)
            found, ran = history(CASES[name], when, how)
        for k, (a, b) in enumerate(zip(expected, found, strict=True)):
            assert a == b, f"raised in {when}, call {k // 2}: {str(a)[:400]} != {str(b)[:400]}\n{ran.fn.explain()}"
        assert [k for k in range(CALLS) if expected[2 * k][0] in ERRORS] == ([] if name == "caught inside" else [*when])
        if how == "compiled":
            assert ran.fn.stats.hits or name in REFUSED, ran.fn.explain()
        if how == "lockstep":
            assert ran.log == list(range(CALLS)) and ran.fn.stats.lockstep, ran.fn.explain()


@pytest.mark.parametrize("name", CASES)
def test_raised_while_a_file_is_made(name: str) -> None:
    for blown in (True, False):
        fuse = Fuse()
        f, given, seen = CASES[name](fuse)
        fuse.blown = blown
        args = [a() if callable(a) and not isinstance(a, graphc.Tensor) else a for a in given]
        before = bits(seen()), rng.state_array().tolist(), graphc.is_grad_enabled(), graphc.get_default_dtype()
        try:
            graphc.trace(f, *args)
            raised = ""
        except (Exception, KeyboardInterrupt) as error:
            raised = type(error).__name__
        stops = blown and name not in ("caught inside", "the caller's backward()")
        assert raised in (*(ERRORS if stops else ("",)), "RecordingError")
        after = bits(seen()), rng.state_array().tolist(), graphc.is_grad_enabled(), graphc.get_default_dtype()
        assert after == before
        assert mode.get().recorder is None and sys.getprofile() is None
