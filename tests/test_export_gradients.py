"""Gradients as state of files: which are, which come with arguments, which are refused."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, RecordingError
from tests.recorder_checks import bits as bits_of
from tests.recorder_checks import marked_lines

Made = tuple[Callable[..., Any], tuple[Any, ...]]


def bits(x: Any) -> Any:
    """Those of the values: what a file returns has no history."""
    if isinstance(x, tuple):
        return tuple(map(bits, x))
    return bits_of(x.detach() if isinstance(x, graphc.Tensor) else x)


def leaf(*numbers: float) -> Any:
    return graphc.tensor(list(numbers or (-1.0, 2.0, 0.0)), requires_grad=True)


def signs() -> Any:
    """Gradients of products with it hold zeros of both signs."""
    return graphc.tensor([-0.0, 0.0, 2.0])


def reload(program: Any, folder: Path) -> Any:
    program.save(folder / "p.gcz")
    return graphc.load(folder / "p.gcz")


def same_as_eager(make: Callable[[], Made], folder: Path, calls: int = 4) -> Any:
    """A file gives and leaves behind what eager calls do; the trace leaves the leaves as they were."""
    f, args = make()
    wanted = [(bits(f(*args)), [(bits(a), bits(a.grad)) for a in args]) for _ in range(calls)]
    f, args = make()
    program = reload(graphc.trace(f, *args), folder)
    assert all(a.grad is None for a in args if a.requires_grad)
    for k, (outputs, arguments) in enumerate(wanted):
        assert bits(program(*args)) == outputs, k
        assert [(bits(a), bits(a.grad)) for a in args] == arguments, k
    return program


# ---- gradients of what the function reaches by itself


def stepped(before: str, after: str, held: bool, kind: Any = optim.SGD, **options: Any) -> Callable[[], Made]:
    """A training step with zero_grad() in one of two ways before it, or after it, or neither."""

    def make() -> Made:
        w, unused = leaf(), leaf()
        opt = kind([w, unused], lr=0.1, **options)
        if held:
            w.grad = graphc.tensor([1.0, -0.0, 2.0])

        def f(x: Any) -> Any:
            if before:
                opt.zero_grad(set_to_none=before == "none")
            loss = (w * w * x).sum() + (w * x).sum()
            loss.backward()
            seen = w.grad * 1
            opt.step()
            if after:
                opt.zero_grad(set_to_none=after == "none")
            return loss, seen, w * 1

        return f, (signs(),)

    return make


@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize(
    ("before", "after", "state"),
    [("", "", True), ("none", "", False), ("", "none", False), ("", "zeros", True), ("none", "none", False)],
)
def test_steps_from_a_file(before: str, after: str, state: bool, held: bool, kind: Any, tmp_path: Path) -> None:
    make = stepped(before, after, held, kind)
    if held and (before, after) == ("", "none"):
        with pytest.raises(RecordingError, match=r"\.grad is a tensor at .*, and None after the call.*before trace"):
            graphc.trace(*_flat(make()))
        return
    program = same_as_eager(make, tmp_path)
    assert ("w.grad" in program.state) is state, sorted(program.state)


def _flat(made: Made) -> tuple[Any, ...]:
    return (made[0], *made[1])


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_zeros_before_need_a_gradient_to_be_zeroed(momentum: float, tmp_path: Path) -> None:
    """The first call takes -0.0 as it is, all others add it to 0.0: two programs."""
    with pytest.raises(RecordingError, match=r"\.grad is None at .*call the function once before trace\(\)"):
        graphc.trace(*_flat(stepped("zeros", "", False, momentum=momentum)()))
    assert "w.grad" in same_as_eager(stepped("zeros", "", True, momentum=momentum), tmp_path).state


def test_gradients_bound_anew_after_a_step(tmp_path: Path) -> None:
    """The step of a call takes the gradients of the call before it."""

    def make(held: bool) -> Made:
        w = leaf()
        opt = optim.SGD([w], lr=0.1, momentum=0.5)
        if held:
            w.grad = graphc.ones(3)

        def f(x: Any) -> Any:
            opt.step()  # here
            opt.zero_grad()
            loss = (w * w * x).sum()
            loss.backward()
            return loss, w.grad

        return f, (signs(),)

    f, args = make(False)
    with pytest.raises(RecordingError, match=marked_lines(f)[0]):
        graphc.trace(f, *args)
    program = same_as_eager(lambda: make(True), tmp_path)
    assert {"w", "w.grad"} <= set(program.state)


def test_several_backward_calls_add_up(tmp_path: Path) -> None:
    def make() -> Made:
        w, v = leaf(), leaf(3.0, -0.0, 1.0)

        def f(x: Any) -> Any:
            (w * x).sum().backward()
            first = w.grad * 1
            (w * v).sum().backward()
            return first, w.grad, v.grad

        return f, (signs(),)

    program = same_as_eager(make, tmp_path)
    assert {"w.grad", "v.grad"} <= set(program.state)


@pytest.mark.parametrize("dtype", [graphc.float64, graphc.float16, graphc.bfloat16])
def test_the_first_contribution_is_taken_as_it_is(dtype: Any, tmp_path: Path) -> None:
    def make() -> Made:
        w = graphc.tensor([1.0, 2.0, 3.0, 4.0], dtype=dtype).requires_grad_()

        def f(x: Any) -> Any:
            (w * x).sum().backward()
            return w.grad

        return f, (graphc.tensor([-0.0, 0.0, float("inf"), 1e-7], dtype=dtype),)

    same_as_eager(make, tmp_path)


def test_a_gradient_keeps_its_layout(tmp_path: Path) -> None:
    def make() -> Made:
        w = graphc.arange(6.0).reshape(2, 3).t().requires_grad_()

        def f(x: Any) -> Any:
            (w.t() * x).sum().backward()
            return w.grad, int(w.grad.is_contiguous())

        return f, (graphc.ones(2, 3),)

    same_as_eager(make, tmp_path)


def test_a_gradient_replaced_by_another(tmp_path: Path) -> None:
    def make() -> Made:
        w = leaf()

        def f(x: Any) -> Any:
            (w * w * x).sum().backward()
            w.grad = w.grad.clamp(-1, 1)
            return w.grad * 2

        return f, (graphc.ones(3),)

    assert "w.grad" in same_as_eager(make, tmp_path).state


def test_a_gradient_replaced_by_a_tensor_from_outside_is_refused() -> None:
    w, g = leaf(), graphc.ones(3)

    def f(x: Any) -> Any:
        (w * x).sum().backward()
        w.grad = g  # here
        return w * 1

    with pytest.raises(
        RecordingError, match=rf"{marked_lines(f)[0]} that shares memory with a tensor from outside.*clone"
    ):
        graphc.trace(f, signs())
    assert w.grad is None


def test_a_gradient_that_is_asked_for_is_refused_where_it_changes() -> None:
    w = leaf()

    def f(x: Any) -> Any:
        known = w.grad is not None  # here
        (w * x).sum().backward()
        return x * 2 if known else x

    with pytest.raises(RecordingError, match=rf"None at {marked_lines(f)[0]}, and a tensor after"):
        graphc.trace(f, signs())


def test_second_order_without_a_gradient_is_refused_and_with_one_adds_up(tmp_path: Path) -> None:
    """The first contribution would be the result itself, in one memory with it; later ones are sums."""

    def make(held: bool) -> Made:
        w = leaf()
        w.grad = graphc.ones(3) if held else None

        def f(x: Any) -> Any:
            (w * w * x).sum().backward(create_graph=True)
            return (w.grad * 2).detach()

        return f, (signs(),)

    with pytest.raises(RecordingError, match="and a tensor after the call"):
        graphc.trace(*_flat(make(False)))
    same_as_eager(lambda: make(True), tmp_path)


def test_state_of_a_model_that_gathers_gradients(tmp_path: Path) -> None:
    model = nn.Linear(3, 2)

    def gather(x: Any) -> Any:
        loss = model(x).square().sum()
        loss.backward()
        return loss

    program = reload(graphc.trace(gather, graphc.ones(4, 3), dynamic={"x": {0: "N"}}), tmp_path)
    assert set(program.state) == {"model.weight", "model.bias", "model.weight.grad", "model.bias.grad"}
    assert model.weight.grad is None
    for n in (4, 2, 7):
        assert bits(program(graphc.ones(n, 3) / n)) == bits(gather(graphc.ones(n, 3) / n))
    for name, p in model.named_parameters():
        assert bits(program.state_dict()[f"model.{name}.grad"]) == bits(p.grad)


# ---- gradients of arguments


def test_gradients_of_arguments_come_and_go_with_them(tmp_path: Path) -> None:
    def f(x: Any, k: Any) -> Any:
        (x * x * k).sum().backward()
        return x.grad * 1

    def make() -> Made:
        return f, (leaf(), signs())

    program = same_as_eager(make, tmp_path)
    assert not program.state
    for other in (leaf(5.0, -0.0, 1.0), leaf(0.0, 0.0, -0.0)):
        mine, theirs = other, other.detach().clone().requires_grad_()
        for _ in range(2):
            held = mine.grad
            assert bits(program(mine, signs())) == bits(f(theirs, signs()))
            assert bits(mine.grad) == bits(theirs.grad)
            assert held is None or held is mine.grad  # added to in place, as in eager mode
    assert program(leaf().detach(), signs()).tolist() == [0.0, 0.0, 0.0]
    plain = leaf().detach()
    program(plain, signs())
    assert plain.grad is None  # wants none
    assert program(np.array([1, 2, 3], np.float32), signs()).tolist() == [-0.0, 0.0, 12.0]


def test_a_trace_with_a_gradient_takes_arguments_without(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 1

    x = leaf()
    x.grad = graphc.full((3,), 9.0)
    program = reload(graphc.trace(f, x), tmp_path)
    assert x.grad.tolist() == [9.0] * 3
    for other in (leaf(), x):
        twin = other.detach().clone().requires_grad_()
        twin.grad = None if other.grad is None else other.grad.clone()
        assert bits(program(other)) == bits(f(twin)) and bits(other.grad) == bits(twin.grad)


def test_gradients_of_arguments_of_named_sizes(tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        (x * x).sum().backward()
        return x.grad * 1

    program = reload(graphc.trace(f, graphc.ones(3, 2).requires_grad_(), dynamic={"x": {0: "N"}}), tmp_path)
    for n in (1, 3, 5):
        mine, theirs = graphc.ones(n, 2).requires_grad_(), graphc.ones(n, 2).requires_grad_()
        for _ in range(3):
            assert bits(program(mine)) == bits(f(theirs))
        assert bits(mine.grad) == bits(theirs.grad)


@pytest.mark.parametrize("how", ["bind", "drop", "ask", "replace"])
def test_gradients_of_arguments_that_are_replaced(how: str, tmp_path: Path) -> None:
    def f(x: Any) -> Any:
        if how in ("bind", "drop"):
            x.grad = None
        if how == "ask" and x.grad is None:
            return x * 2
        (x * x).sum().backward()
        g = x.grad * 1
        if how == "drop":
            x.grad = None
        if how == "replace":
            x.grad = x.grad.clamp(-1, 1)
        return g

    program = same_as_eager(lambda: (f, (leaf(),)), tmp_path)
    held, theirs = leaf(), leaf()
    held.grad, theirs.grad = graphc.ones(3), graphc.ones(3)
    if how == "ask":
        with pytest.raises(ArgumentError, match=r"x\.grad was None in the trace at test_export_gradients\.py.* now"):
            program(held)
        return
    assert bits(program(held)) == bits(f(theirs)) and bits(held.grad) == bits(theirs.grad)


def test_one_tensor_as_two_arguments_with_gradients_is_refused() -> None:
    def f(x: Any, y: Any) -> Any:
        (x * y).sum().backward()  # here
        return x.grad * 1, y.grad * 1

    x = leaf()
    with pytest.raises(RecordingError, match=rf"\.grad of y is used at {marked_lines(f)[0]}.*clone"):
        graphc.trace(f, x, x)
    assert x.grad is None
    program = graphc.trace(f, x, leaf())
    with pytest.raises(ArgumentError, match="x and y, which are one tensor; pass a copy"):
        program(x, x)


def test_a_gradient_of_an_argument_that_is_held_elsewhere_is_refused() -> None:
    x = leaf()
    x.grad = g = graphc.ones(3)

    def f(x: Any) -> Any:
        return x * 1 + g

    with pytest.raises(RecordingError, match=r"x\.grad is read .* found on another way"):
        graphc.trace(f, x)


# ---- one tensor in two places


class Cell(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("h", graphc.ones(3))
        self.register_buffer("c", graphc.zeros(3))


def swapped(cell: Any, w: Any, v: Any, x: Any) -> Any:
    cell.h, cell.c = cell.c, cell.h
    return cell.h * 1, cell.c * 1


def detached_gradient(cell: Any, w: Any, v: Any, x: Any) -> Any:
    (w * x).sum().backward()
    w.grad = w.grad.detach()
    return w.grad * 1


def two_attributes(cell: Any, w: Any, v: Any, x: Any) -> Any:
    seen = cell.h * 1, cell.c * 1
    cell.h.add_(1)
    cell.h = cell.c = cell.c + x  # here
    return seen


def two_gradients(cell: Any, w: Any, v: Any, x: Any) -> Any:
    (w * x).sum().backward()
    (v * x).sum().backward()
    w.grad = v.grad = w.grad + v.grad  # here
    return w.grad * 1


def another_gradient(cell: Any, w: Any, v: Any, x: Any) -> Any:
    (w * x).sum().backward()
    (v * x).sum().backward()
    w.grad = v.grad  # here
    return w.grad * 1


def view_of_state(cell: Any, w: Any, v: Any, x: Any) -> Any:
    (w * x).sum().backward()
    w.grad = cell.c[:]  # here
    cell.c.add_(1)
    return w.grad * 1


def gradient_as_attribute(cell: Any, w: Any, v: Any, x: Any) -> Any:
    (w * x).sum().backward()
    seen = cell.h * 1
    cell.h = w.grad  # here
    return seen


def argument_as_attribute(cell: Any, w: Any, v: Any, x: Any) -> Any:
    seen = cell.h * 1
    cell.h = x  # here
    return seen


def with_state(program: Any) -> Made:
    cell, w, v = Cell(), leaf(), leaf()
    return (lambda x: program(cell, w, v, x)), (signs(),)


@pytest.mark.parametrize("program", [swapped, detached_gradient])
def test_places_that_get_tensors_of_their_own(program: Any, tmp_path: Path) -> None:
    same_as_eager(lambda: with_state(program), tmp_path)


@pytest.mark.parametrize(
    "program",
    [two_attributes, two_gradients, another_gradient, view_of_state, gradient_as_attribute, argument_as_attribute],
)
def test_one_tensor_in_two_places_is_refused(program: Any) -> None:
    """Later calls would write to both in eager mode; a file has an array for each."""
    f, args = with_state(program)
    with pytest.raises(RecordingError, match=rf"{marked_lines(program)[0]} that shares memory with .*; clone\(\) it"):
        graphc.trace(f, *args)


def test_a_gradient_held_elsewhere_and_replaced_is_refused() -> None:
    w = leaf()
    w.grad = g = graphc.ones(3)

    def f(x: Any) -> Any:
        seen = w.grad * x, g * x
        w.grad = w.grad + 1  # here
        return seen

    with pytest.raises(RecordingError, match=rf"is replaced at {marked_lines(f)[0]}.*found on another way"):
        graphc.trace(f, signs())


# ---- random rows of uses


class Uses:
    """What one call works on."""

    def __init__(self, w: Any, v: Any, opt: Any, x: Any, k: Any) -> None:
        self.w, self.v, self.opt, self.x, self.k = w, v, opt, x, k
        self.seen: list[Any] = []


USES: dict[str, Callable[[Uses], Any]] = {
    "backward": lambda s: (s.w * s.w * s.x * s.k).sum().backward(),
    "backward of v": lambda s: (s.v * s.k).sum().backward(),
    "forget": lambda s: s.opt.zero_grad(),
    "zero": lambda s: s.opt.zero_grad(set_to_none=False),
    "step": lambda s: s.opt.step(),
    "forget x": lambda s: setattr(s.x, "grad", None),
    "forget w": lambda s: setattr(s.w, "grad", None),
    "read w": lambda s: s.seen.append(s.k if s.w.grad is None else s.w.grad * 1),
    "read x": lambda s: s.seen.append(s.k if s.x.grad is None else s.x.grad * 1),
    "replace": lambda s: None if s.w.grad is None else setattr(s.w, "grad", s.w.grad.clamp(-1, 1)),
    "clip": lambda s: nn.utils.clip_grad_norm_([s.w, s.v], 1.0),
    "write": lambda s: None if s.w.grad is None else s.w.grad.mul_(2),
}
KINDS: list[Callable[[Any], Any]] = [
    lambda params: optim.SGD(params, lr=0.1),
    lambda params: optim.SGD(params, lr=0.1, momentum=0.9),
    lambda params: optim.Adam(params, lr=0.1),
]


def row(seed: int) -> tuple[Any, tuple[Any, Any], Any, Any]:
    """A function of one to five uses, its arguments, and the leaves it closes over, some with gradients."""
    rng = random.Random(seed)
    w, v, x = leaf(), leaf(3.0, -0.0, 1.0), leaf(-0.0, 1.0, 2.0)
    for t in (w, v, x):
        t.grad = graphc.tensor([1.0, -0.0, 2.0]) if rng.random() < 0.3 else None
    opt = rng.choice(KINDS)([w, v])
    names = rng.choices(sorted(USES), k=rng.randint(1, 5))

    def f(x: Any, k: Any) -> Any:
        s = Uses(w, v, opt, x, k)
        for name in names:
            USES[name](s)
        return (*s.seen, w * 1, v * 1)

    return f, (x, signs()), w, v


def everything(x: Any, w: Any, v: Any) -> dict[str, Any]:
    return {"x.grad": bits(x.grad), "w": bits(w), "v": bits(v), "w.grad": bits(w.grad), "v.grad": bits(v.grad)}


def file_against_eager(seed: int) -> str:
    f, args, w, v = row(seed)
    wanted = [(bits(f(*args)), everything(args[0], w, v)) for _ in range(4)]
    f, args, w, v = row(seed)
    before = everything(args[0], w, v)
    try:
        program = graphc.trace(f, *args)
    except RecordingError as error:
        assert "the next call goes another way" in str(error), seed
        return "refused"
    finally:
        assert everything(args[0], w, v) == before, seed
    for k, (outputs, places) in enumerate(wanted):
        try:
            assert bits(program(*args)) == outputs, (seed, k)
        except ArgumentError as error:
            assert k and "the call would go another way" in str(error), seed
            return "another way"
        assert bits(args[0].grad) == places["x.grad"], (seed, k)
        for name, t in program.state_dict().items():
            assert name not in places or bits(t) == places[name], (seed, k, name)
    return "same"


def test_random_rows_of_uses() -> None:
    """Results, gradients of arguments and the state of the file, after each call, are eager's."""
    outcomes = [file_against_eager(seed) for seed in range(80)]
    assert outcomes.count("same") > 40 and "refused" in outcomes
