"""What random programs found: each was a difference between eager and compiled code, or an error that was none."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.ir.op import op_named
from graphc.nn import functional as F
from graphc.testing import check_program


def x3() -> graphc.Tensor:
    return graphc.tensor([0.5, -1.0, 2.0])


def test_dtype_argument_beside_a_float() -> None:
    """A dtype argument was taken for a container of fields, which ended in a TypeError beside a float."""

    def f(x: Any, s: float, dt: Any) -> Any:
        return x.to(dt) * s, dt

    compiled = graphc.compile(f, fullgraph=True)
    for dt in (graphc.float64, graphc.float16, graphc.float64):
        for s in (0.5, 1.5, 2.5):
            y, same = compiled(x3(), s, dt)
            assert y.dtype is dt and same is dt
            assert y.tolist() == f(x3(), s, dt)[0].tolist()
    assert compiled.stats.recordings == 4 and compiled.stats.hits == 5
    program = graphc.trace(f, x3(), 0.5, graphc.float64)
    assert program(x3(), 1.5, graphc.float64)[0].tolist() == f(x3(), 1.5, graphc.float64)[0].tolist()
    with pytest.raises(graphc.errors.ArgumentError, match=r"dt was graphc\.float64 in the trace and cannot be"):
        program(x3(), 0.5, graphc.float16)


@pytest.mark.parametrize("how", ["copy_", "fill_", "zero_", "uniform_", "normal_", "exponential_"])
def test_write_to_a_leaf_that_requires_gradients_raises(how: str) -> None:
    """The short way of in-place writes wrote to such leaves without a word in eager code; compiled code raised."""
    arguments: dict[str, tuple[Any, ...]] = {"copy_": (x3(),), "fill_": (2.0,)}

    def f(w: Any) -> Any:
        return getattr(w, how)(*arguments.get(how, ()))

    for fn in (f, graphc.compile(f)):
        w = x3().requires_grad_()
        with pytest.raises(graphc.errors.AutogradError, match=f"{how}: a leaf Variable that requires grad"):
            fn(w)
        assert w.tolist() == [0.5, -1.0, 2.0]
        with graphc.no_grad():
            assert fn(w) is w


def accumulating(drop: bool) -> tuple[Any, graphc.Tensor]:
    """A function that adds to `.grad`, reads it and replaces it."""
    w = graphc.tensor([0.25, -0.5], requires_grad=True)

    def f(x: Any) -> Any:
        (w * w).sum().backward()
        with graphc.no_grad():
            w.sub_(w.grad * 0.125)
        w.grad = None
        y = w * x
        if not drop:
            y.exp().mean().backward()
        return y.detach()

    return f, w


def test_gradient_that_is_read_and_replaced_is_state_of_a_file() -> None:
    """The file kept the gradient that was read, not the one in its place."""
    f, _ = accumulating(drop=False)
    g, _ = accumulating(drop=False)
    for fn in (f, g):
        fn(graphc.ones(2))
    program = graphc.trace(f, graphc.ones(2))
    for _ in range(3):
        assert program(graphc.ones(2)).tolist() == g(graphc.ones(2)).tolist()


def test_gradient_that_is_read_and_dropped_has_no_place_in_a_file() -> None:
    f, w = accumulating(drop=True)
    w.grad = graphc.ones(2)
    with pytest.raises(graphc.errors.RecordingError, match=r"\.grad is a tensor at .*None after the call.*trace\(\)"):
        graphc.trace(f, graphc.ones(2))
    w.grad = None
    assert graphc.trace(f, graphc.ones(2))(graphc.ones(2)).tolist() == f(graphc.ones(2)).tolist()


@pytest.mark.parametrize("how", ["mul_", "fill_", "setitem"])
def test_write_to_a_view_of_a_leaf_that_is_a_view_itself(how: str) -> None:
    """Such a write was let through, and the leaf had a history afterwards."""

    def f(w: Any) -> Any:
        v = w.view(3)
        if how == "setitem":
            v[0] = 2.0
        else:
            getattr(v, how)(2.0)
        return v * 1

    for fn in (f, graphc.compile(f)):
        w = x3().reshape(3, 1).reshape(3).requires_grad_()
        with pytest.raises(graphc.errors.AutogradError, match="a view of a leaf Variable that requires grad"):
            fn(w)
        assert w.is_leaf and w.tolist() == [0.5, -1.0, 2.0]
        with graphc.no_grad():
            fn(w)


@pytest.mark.parametrize(
    "name",
    [
        "get_num_threads",
        "get_float32_matmul_precision",
        "are_deterministic_algorithms_enabled",
        "is_deterministic_algorithms_warn_only_enabled",
    ],
)
def test_settings_of_the_process_are_no_constants_of_a_graph(name: str) -> None:
    """Compiled calls went on with the answer that was recorded when the setting had another value."""

    def f(x: Any) -> Any:
        return x * 2, getattr(graphc, name)()

    with pytest.raises(graphc.errors.RecordingError, match=rf"{name}\(\) at .* a graph follows no setting"):
        graphc.compile(f, fullgraph=True)(x3())
    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="runs eagerly"):
        assert compiled(x3())[1] == getattr(graphc, name)()


def test_threads_changed_after_compiling() -> None:
    before = graphc.get_num_threads()
    compiled = graphc.compile(lambda x: (x * 2, graphc.get_num_threads()))
    try:
        with pytest.warns(graphc.RecordingWarning):
            for threads in (1, 1, 1, 2, 1):
                graphc.set_num_threads(threads)
                assert compiled(x3())[1] == threads
    finally:
        graphc.set_num_threads(before)


def test_settings_are_not_changed_in_a_graph() -> None:
    with pytest.raises(graphc.errors.RecordingError, match=r"set_num_threads\(\) at"):
        graphc.compile(lambda x: (graphc.set_num_threads(1), x)[1], fullgraph=True)(x3())


@pytest.mark.parametrize("n, size, step", [(3, 3, 1), (4, 4, 2), (1, 1, 3), (5, 2, 2), (7, 3, 2)])
def test_write_to_windows_that_overlap_only_by_their_sizes(n: int, size: int, step: int) -> None:
    """A single window wider than its stride was written in eager code and refused as overlapping in graphs."""

    def f(x: Any) -> Any:
        windows = x.unfold(0, size, step)
        windows.mul_(2.0)
        return windows.clone(), x.sum()

    def make() -> Any:
        return f, (graphc.arange(n).float(),), []

    if n == 7:  # three windows that do overlap
        with pytest.raises(graphc.errors.GraphcError, match="single memory location"):
            graphc.compile(f)(*make()[1])
    check_program(make, deep=n == 3)


UNMOVED = (
    lambda x: F.interpolate(x, size=(2, 2)),
    lambda x: F.interpolate(x, scale_factor=1.0, mode="bilinear"),
    lambda x: F.interpolate(x, size=2, mode="nearest-exact"),
    lambda x: F.unfold(x, 2),
    lambda x: F.unfold(x, 1),
    lambda x: F.pixel_shuffle(x, 1),
    lambda x: F.pixel_shuffle(x[:, :, :1, :1], 2),
    lambda x: F.pixel_unshuffle(x, 1),
    lambda x: F.channel_shuffle(x, 1),
)


@pytest.mark.parametrize("k", range(len(UNMOVED)))
def test_images_that_stay_as_they_are_are_new_ones(k: int) -> None:
    """Where nothing moves the result was a view of the argument: writes to it changed the argument."""

    def f(x: Any) -> Any:
        y = UNMOVED[k](x)
        y.add_(1.0)
        return y, x

    def make() -> Any:
        return f, (graphc.arange(16).reshape(1, 4, 2, 2).float(),), []

    given = make()[1][0]
    y, x = f(given)
    assert x is given and x.tolist() == make()[1][0].tolist() and y._s is not x._s
    check_program(make)


def test_gradient_without_dimensions_that_a_file_begins_with() -> None:
    """The gradient of -0.0 that trace() begins with was a number, no array, for a leaf without dimensions."""

    def make() -> Any:
        w = graphc.tensor(0.5, requires_grad=True)

        def f(x: Any) -> Any:
            ((w * 2).sum() + (w * w).sum()).backward()
            return w * x, w.grad

        return f, (graphc.ones(2),), [w]

    check_program(make)


@pytest.mark.parametrize("how", ["bias", "cat"])
def test_operands_that_come_and_go_in_lockstep(how: str) -> None:
    """In lockstep an operation with another number of operands than before ended in a ValueError."""

    def make() -> Any:
        graphc.manual_seed(0)
        x = graphc.ones(3)
        net = graphc.nn.Linear(3, 3)
        bias = net.bias
        parts = [x, x]

        def between(call: int) -> None:
            net.bias = bias if call % 4 < 2 else None
            parts[:] = [x, x] if call % 4 < 2 else [x, x, x]

        def f(x: Any, y: Any) -> Any:
            x[:] = 1  # beside another argument in its memory: no graph repeats it
            return net(graphc.ones(3)) if how == "bias" else graphc.cat(parts)

        return f, (x, x[:]), [net, bias, between]

    for seed in (11, 115):  # lockstep at once, and when it pays
        check_program(make, seed=seed)


class Same(graphc.autograd.Function):
    """A Function whose tape no graph gives back."""

    @staticmethod
    def forward(ctx: Any, a: Any) -> Any:
        return a

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return g


def test_compositions_of_16_bits_round_once_in_lockstep() -> None:
    """With gradients such an operation is made of others: in lockstep each of those rounded to 16 bits."""

    def make() -> Any:
        graphc.manual_seed(57)
        w = graphc.nn.Parameter(graphc.randn(7, 3))
        scale = graphc.zeros(3, dtype=graphc.bfloat16)

        def f() -> Any:
            g, x = w.to(graphc.bfloat16), graphc.randint(2, (7, 3)).to(graphc.bfloat16)
            return Same.apply(op_named("layer_norm_grad")(g, x, scale, normalized_dims=1, eps=1e-5)[1])

        return f, (), [w]

    check_program(make, seed=233)


METADATA: dict[str, Callable[[Any], Any]] = {
    "shape": lambda t: len(t.shape),
    "numel": lambda t: t.numel(),
    "ndim": lambda t: t.ndim,
    "dtype": lambda t: t.dtype is graphc.float32,
    "stride": lambda t: t.stride(),
    "bytes": lambda t: t.nbytes,
    "contiguous": lambda t: t.is_contiguous(),
    "requires_grad": lambda t: t.requires_grad,
    "is_leaf": lambda t: t.is_leaf,
    "offset": lambda t: t.storage_offset(),
    "kind": lambda t: isinstance(t, graphc.nn.Parameter),
}


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("how", METADATA)
@pytest.mark.parametrize("place", ["closure", "list", "argument"])
def test_what_is_read_of_a_tensor_that_no_operation_sees(how: str, place: str) -> None:
    """Of a tensor found by its name, whose shape, dtype … were all that was read, nothing was a condition; of views,
    the place in their memory never was one.
    """
    read = METADATA[how]
    memory = graphc.arange(12.0)
    first, w = memory[1:3], graphc.nn.Parameter(graphc.ones(2))
    others = [memory[4:6], graphc.ones(2, 2, dtype=graphc.float64), w, w * 2, graphc.ones(4)[::2]]
    c, holder = first, [first]

    def f(x: Any) -> Any:
        found = x if place == "argument" else c if place == "closure" else holder[0]
        return read(found), graphc.ones(2) * 2

    compiled = graphc.compile(f)
    for call in range(3 * len(others)):
        c = holder[0] = others[call // 3] if call % 3 == 2 else first
        assert compiled(c)[0] == read(c), call


def test_elements_of_an_argument_that_share_their_memory() -> None:
    """A write to a part of an expanded argument changed only that part's elements in the graph."""

    def f(x: Any) -> Any:
        x[:1].add_(1)
        return x * 1

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match="changes more than one element of x, which share"):
        compiled(graphc.ones(1).expand(3))
    for _ in range(4):
        x = graphc.ones(1).expand(3)
        assert compiled(x).tolist() == [2.0, 2.0, 2.0] == x.tolist()
    with pytest.raises(graphc.errors.RecordingError, match="which share their memory; clone"):
        graphc.trace(f, graphc.ones(1).expand(3))
    program = graphc.trace(f, graphc.ones(3))
    with pytest.raises(graphc.errors.ArgumentError, match="writes to x, in whose memory elements overlap"):
        program(graphc.ones(1).expand(3))


def test_the_line_of_an_error_in_a_computation_of_the_host() -> None:
    """What LAPACK refused in a compiled call was said to be at the line of the call."""

    def f(x: Any) -> Any:
        return graphc.linalg.cholesky(x) + 1

    def g(x: Any) -> Any:
        return graphc.host(lambda y: y if y.sum() > 0 else 5, x)

    for fn, message in ((f, "not positive definite"), (g, "the callback returned a int")):
        compiled = graphc.compile(fn)
        for x in (graphc.eye(2), graphc.eye(2), graphc.eye(2), -graphc.eye(2), -graphc.eye(2)):
            if x.sum() > 0:
                compiled(x)
                continue
            with pytest.raises(graphc.errors.GraphcError, match=message) as info:
                compiled(x)
            assert str(info.value).endswith(f"(at {Path(__file__).name}:{fn.__code__.co_firstlineno + 1})")


def test_a_program_that_raises_for_other_numbers_of_a_file() -> None:
    """The oracle took an error that eager code gives for other arguments for a difference."""

    def make() -> Any:
        def f(x: Any, s: float) -> Any:
            return F.triplet_margin_with_distance_loss(x, x, x, margin=s)

        return f, (x3(), 1.0), []

    check_program(make, seed=157)


@pytest.mark.parametrize(
    "key", [slice(12), slice(-12, None), slice(2, 12, 3), slice(5, 4), slice(-4, -9), slice(30, 40)]
)
def test_a_slice_that_is_cut_to_a_size_that_depends_on_values(key: slice) -> None:
    """Nothing was cut: where the size was smaller than in the recording, the next recording raised a ShapeError."""

    def f(x: Any) -> Any:
        return x.masked_select(x > 0).repeat(3)[key] * 2

    compiled = graphc.compile(f, fullgraph=True)
    program = graphc.trace(f, graphc.ones(8))
    for n in (6, 6, 5, 3, 3, 2, 1, 0, 2, 3, 8, 6):
        x = graphc.arange(8.0) + 1
        x[n:] = -1
        assert compiled(x).tolist() == f(x).tolist(), n
        with contextlib.suppress(graphc.errors.GuardError):
            assert program(x).tolist() == f(x).tolist(), n
    assert compiled.stats.hits >= 2


def test_hooks_that_an_error_leaves_behind() -> None:
    """The oracle ran the program again with the hook that its first run had not come to remove."""

    def make() -> Any:
        w = graphc.nn.Parameter(graphc.ones(2))

        def f() -> Any:
            w.grad = None
            (w * w).sum().backward()
            w.register_post_accumulate_grad_hook(lambda p: p.grad.mul_(0.5))
            return w.reshape(3)

        return f, (), [w]

    check_program(make)


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("ask", [lambda x: hasattr(x, "note"), lambda x: getattr(x, "note", None)])
def test_an_attribute_that_was_not_there_of_what_is_another_thing_now(ask: Callable[[Any], Any]) -> None:
    """Looking for the attributes of an object that had none, where a number was by now, ended in a TypeError."""
    marked = graphc.ones(2)
    marked.note = 3  # type: ignore[attr-defined]
    things = [graphc.ones(2), 5, None, "text", graphc.ones(3), marked, [1], {"note": 2}, graphc.nn.Linear(2, 2)]
    held = [things[0]]

    def f(y: Any) -> Any:
        return ask(held[0]), y * 2

    compiled = graphc.compile(f)
    for call in range(4 * len(things)):
        held[0] = things[call // 4] if call % 4 > 1 else things[0]
        assert compiled(graphc.ones(2))[0] == ask(held[0])


@pytest.mark.parametrize("form", ["name", "later", "call"])
def test_the_type_of_a_number(form: str) -> None:
    """A followed number is none of Python's: only comparisons of its type in one line were seen."""

    def f(y: Any, s: Any) -> Any:
        if form == "name":
            return y * 2, type(s).__name__
        kind = type(s)
        if form == "later":
            return (y * 2 if kind is float else y * 3), ""
        return y * kind(3), ""

    compiled = graphc.compile(f)
    for s in (0.5, 0.5, 0.25, 1, 2, 0.5, 1, 1, 3.0, 0.5, 0.5):
        y, name = compiled(x3(), s)
        expected = f(x3(), s)
        assert (y.tolist(), name) == (expected[0].tolist(), expected[1])


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("case", ["size", "complex"])
def test_errors_and_branches_of_numbers_that_are_not_followed(case: str) -> None:
    """A followed float as a size was another error than in eager code, the truth of a complex number an error."""

    def f(y: Any, d: Any) -> Any:
        if case == "complex":
            return y * 2 if graphc.tensor(d["k"]) else y
        return y.reshape(d["k"])

    compiled = graphc.compile(f)
    for k in (1.0, 2.0, 2.0, 1, 1, 3, 3) if case == "size" else (1j, 1j, 0j, 1j, 1j):
        try:
            expected: Any = f(x3(), {"k": k}).tolist()
        except graphc.errors.GraphcError as error:
            with pytest.raises(type(error)) as info:
                compiled(x3(), {"k": k})
            assert str(info.value).split(" (at")[0] == str(error).split(" (at")[0]
        else:
            assert compiled(x3(), {"k": k}).tolist() == expected


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("what", ["tensor", "function"])
def test_attributes_that_come_and_change(what: str) -> None:
    """That a tensor had no such attribute was a condition where hasattr or getattr is named, not where the error is
    caught; of functions that are only looked at nothing was one.
    """
    held: Any = [x3() if what == "tensor" else lambda y: y]

    def f(y: Any) -> Any:
        try:
            return held[0].note, y * 2
        except AttributeError:
            return "none", y * 2

    compiled = graphc.compile(f, fullgraph=True)
    for call in range(16):
        if call in (5, 11):
            held[0].note = call
        if call == 8:
            del held[0].note
        assert compiled(x3())[0] == getattr(held[0], "note", "none")
    assert compiled.stats.hits


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
@pytest.mark.parametrize("what", ["generator", "bytearray", "array", "text", "bytes", "out"])
def test_effects_that_nobody_saw(what: str) -> None:
    """A generator in a loop always stops at the same place; what arrays and streams in memory hold was not compared."""
    numbers = (i for i in range(100))
    next(numbers)
    found: dict[str, Any] = {
        "generator": numbers, "bytearray": bytearray(b"a"), "array": np.zeros(2), "text": io.StringIO(),
        "bytes": io.BytesIO(), "out": np.zeros(2),
    }  # fmt: skip
    x = found[what]
    change: Callable[[], Any] = {
        "generator": lambda: next(x), "bytearray": lambda: x.append(1), "array": lambda: x.__setitem__(0, x[0] + 1),
        "text": lambda: x.write("a"), "bytes": lambda: x.write(b"a"), "out": lambda: np.add(x, 1, out=x),
    }[what]  # fmt: skip

    def f(y: Any) -> Any:
        change()
        return y * 2

    compiled = graphc.compile(f)
    for _ in range(7):
        compiled(x3())
    seven: dict[str, Any] = {
        "generator": lambda: next(x) == 8, "bytearray": lambda: len(x) == 8, "array": lambda: x[0] == 7,
        "text": lambda: x.tell() == 7, "bytes": lambda: x.tell() == 7, "out": lambda: x.tolist() == [7, 7],
    }  # fmt: skip
    assert seven[what]()


@pytest.mark.filterwarnings("ignore::graphc.RecordingWarning")
def test_parameters_made_in_lockstep() -> None:
    """A Parameter made of a value that waited to be computed had no array."""
    held: dict[str, Any] = {}

    def f(x: Any) -> Any:
        held["w"] = graphc.nn.Parameter(graphc.ones(3) * 2)
        held["layer"] = graphc.nn.Linear(3, 3)
        return x * held["w"]

    compiled = graphc.compile(f)
    for _ in range(6):
        assert compiled(x3()).tolist() == [1.0, -2.0, 4.0]
        assert held["w"].tolist() == [2.0, 2.0, 2.0] and held["layer"](x3()).shape == (3,)


def test_print_options_are_numbers() -> None:
    """Anything was taken, and the next tensor shown ended in a TypeError."""
    for name, value in (
        ("threshold", [1]),
        ("precision", 2.5),
        ("edgeitems", -1),
        ("linewidth", "80"),
        ("precision", True),
    ):
        with pytest.raises(graphc.errors.ArgumentError, match=f"set_printoptions: {name} must be a number"):
            graphc.set_printoptions(**{name: value})  # type: ignore[arg-type]
    assert "0.5000" in repr(x3())


def test_what_is_said_of_a_tensor_that_no_operation_sees() -> None:
    c = graphc.ones(2)

    def f(x: Any) -> Any:
        return x * len(c.shape)

    compiled = graphc.compile(f)
    for _ in range(3):
        compiled(x3())
    c = graphc.ones(2, 2)
    with graphc.no_retrace(), pytest.raises(graphc.errors.GuardError, match=r"c was a Tensor f32\[2\] and is tensor"):
        compiled(x3())


def test_a_view_that_is_equal_to_another_argument() -> None:
    """The argument itself came back, where the function gives a new view."""

    def make() -> Any:
        a = graphc.arange(6.0).reshape(3, 2)

        def f(x: Any, y: Any) -> Any:
            return x[1:], y[:], x[1:]

        return f, (a, a[1:]), []

    f, (x, y), _ = make()
    compiled = graphc.compile(f)
    for _ in range(4):
        first, second, third = compiled(x, y)
        assert first is not y and first is not third and first._s is y._s
    assert (second is y) is (f(x, y)[1] is y)
    check_program(make)
