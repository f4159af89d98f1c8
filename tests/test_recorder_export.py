"""The recorder: programs for files, and sizes known by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, GraphcError, GuardError, RecordingError
from tests.recorder_checks import bits, marked_lines


def x34() -> Any:
    return graphc.arange(12.0).reshape(3, 4) / 4 - 1.5


def rows(n: int) -> Any:
    return graphc.arange(float(n * 4)).reshape(n, 4) / 8 - 1


def reload(program: Any, folder: Path) -> Any:
    program.save(folder / "p.gcz")
    return graphc.load(folder / "p.gcz")


# ---- programs


def test_trace_leaves_everything_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3), nn.Dropout(0.5))
    opt = optim.SGD(model.parameters(), lr=0.1)
    x = x34()

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        x.add_(1)
        return loss

    before = (
        bits(model.state_dict()),
        bits(x),
        bits(graphc.get_rng_state()),
        [p.grad for p in model.parameters()],
        opt.state_dict()["state"],
    )
    graphc.trace(step, x)
    after = (
        bits(model.state_dict()),
        bits(x),
        bits(graphc.get_rng_state()),
        [p.grad for p in model.parameters()],
        opt.state_dict()["state"],
    )
    assert after == before


def test_trace_of_an_error_leaves_everything_as_it_was() -> None:
    w = graphc.ones(4)

    def f(x: Any) -> Any:
        w.add_(1)
        graphc.rand(2)
        raise KeyError("no")

    before = bits(graphc.get_rng_state())
    with pytest.raises(KeyError):
        graphc.trace(f, x34())
    assert w.tolist() == [1.0] * 4 and bits(graphc.get_rng_state()) == before


def test_trace_restores_after_a_refusal() -> None:
    model = nn.BatchNorm1d(4)
    kept: list[Any] = []

    def f(x: Any) -> Any:
        y = model(x)
        kept.append(y)
        return y

    before = bits(model.state_dict())
    with pytest.raises(RecordingError):
        graphc.trace(f, x34())
    assert bits(model.state_dict()) == before


def test_state_names_of_a_module_are_those_of_its_state_dict(tmp_path: Path) -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.features = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3))
            self.head = nn.Linear(3, 2)

        def forward(self, x: Any) -> Any:
            return self.head(self.features(x))

    net = Net()
    program = graphc.trace(net, x34())
    used = (
        set(net.state_dict())
        if "features.1.num_batches_tracked" in program.state
        else set(net.state_dict()) - {"features.1.num_batches_tracked"}
    )
    assert set(program.state) == used
    assert set(reload(program, tmp_path).state) == used

    def closure(x: Any) -> Any:
        return net(x)

    assert {"net.features.0.weight", "net.head.bias"} <= set(graphc.trace(closure, x34()).state)
    assert {"features.0.weight", "head.bias"} <= set(graphc.trace(net.forward, x34()).state)


def test_state_names_of_an_optimizer() -> None:
    model = nn.Sequential(nn.Linear(4, 2))
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).sum()
        loss.backward()
        opt.step()
        return loss

    names = set(graphc.trace(step, x34()).state)
    assert {
        "model.0.weight",
        "model.0.bias",
        "opt.lr",
        "opt.momentum",
        "opt.model.0.weight.momentum_buffer",
        "opt.model.0.bias.momentum_buffer",
    } <= names


def test_program_trains_as_eager(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.Linear(3, 1))
    opt = optim.Adam(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    program = reload(graphc.trace(step, x34()), tmp_path)
    for _ in range(5):
        assert bits(program(x34())) == bits(step(x34()))
    assert program.state["model.0.weight"].tobytes() == model[0].weight.detach().numpy().tobytes()


def test_program_arguments_and_results(tmp_path: Path) -> None:
    def f(batch: Any, scale: float, mode: str, n: int = 2) -> Any:
        return {"y": batch["x"] * scale + n, "same": batch["x"], "mode": mode, "s": batch["x"].sum().item()}

    program = reload(graphc.trace(f, {"x": x34()}, 0.5, "fast", 3), tmp_path)
    for scale in (0.5, 2.0, -0.0):
        assert bits(program({"x": x34()}, scale, "fast", 3)) == bits(f({"x": x34()}, scale, "fast", 3))
    for wrong in [
        ({"x": x34()}, 0.5, "slow", 3),
        ({"x": x34()}, 0.5, "fast", 4),
        ({"x": rows(2)}, 0.5, "fast", 3),
        ({"x": x34().double()}, 0.5, "fast", 3),
        (x34(), 0.5, "fast", 3),
    ]:
        with pytest.raises(ArgumentError):
            program(*wrong)


def test_constants_of_a_program(tmp_path: Path) -> None:
    """Dtypes, complex numbers and bytes, as arguments and as results; equal numbers of other bits are others."""

    def f(x: Any, dtype: Any, c: complex, b: bytes, flag: Any) -> Any:
        return x.to(dtype), dtype, c, b, graphc.float64, c.real < 0, flag

    given: Any = (graphc.float16, complex(1, -0.0), b"ab", True)
    program = reload(graphc.trace(f, x34(), *given), tmp_path)
    found = program(x34(), *given)
    assert bits(found) == bits(f(x34(), *given)) and found[1] is graphc.float16 and found[4] is graphc.float64
    for k, other in enumerate((graphc.float32, complex(1, 0.0), b"abc", 1)):
        with pytest.raises(ArgumentError, match="trace again with it"):
            program(x34(), *given[:k], other, *given[k + 1 :])


def test_a_constant_float_is_compared_by_its_bits() -> None:
    def f(x: Any, k: float) -> Any:
        return x * 2 if type(k) is float and k == 0 else x

    program = graphc.trace(f, x34(), 0.0)
    assert {a.name: a.kind for a in program.signature.arguments}["k"] == "constant"
    assert bits(program(x34(), 0.0)) == bits(x34() * 2)
    for other in (-0.0, float("nan"), 0):
        with pytest.raises(ArgumentError, match="cannot be"):
            program(x34(), other)


def test_program_takes_any_layout(tmp_path: Path) -> None:
    program = reload(graphc.trace(lambda x: (x * 2).sum(1), x34()), tmp_path)
    wide = graphc.arange(24.0).reshape(3, 8)
    for x in (x34(), x34().t().contiguous().t(), wide[:, ::2], x34().numpy()):
        t = x if isinstance(x, graphc.Tensor) else graphc.from_numpy(x)
        assert bits(program(x)) == bits((t * 2).sum(1))


def test_program_guard_is_an_error(tmp_path: Path) -> None:
    def f(x: Any, w: Any) -> Any:
        w.add_(1)
        return x * 2 if x.sum() > 0 else x

    program = reload(graphc.trace(f, graphc.ones(3), graphc.ones(2)), tmp_path)
    w = graphc.ones(2)
    assert program(graphc.ones(3), w).tolist() == [2.0] * 3 and w.tolist() == [2.0, 2.0]
    with pytest.raises(GuardError, match=r"test_recorder_export\.py"):
        program(-graphc.ones(3), w)
    assert w.tolist() == [2.0, 2.0]


def test_outputs_of_a_program_stay() -> None:
    program = graphc.trace(lambda x: x + 1, graphc.zeros(2))
    outs = [program(graphc.full((2,), float(k))) for k in range(4)]
    assert [o[0].item() for o in outs] == [1.0, 2.0, 3.0, 4.0]


def test_errors_about_arguments_say_what_was_given() -> None:
    program = graphc.trace(lambda x, y: x + y, graphc.ones(2, 3), graphc.ones(3), dynamic={"x": {0: "N"}})
    with pytest.raises(ArgumentError, match=r"expected x \(tensor\), y \(tensor\), got \(Tensor, z=NoneType\)"):
        program(graphc.ones(2, 3), z=None)
    with pytest.raises(ArgumentError, match=r"dynamic\['x'\] must be a dict .* such as \{0: 'N'\}, got 0"):
        graphc.trace(lambda x: x, graphc.ones(2), dynamic={"x": 0})


def test_an_unused_argument_and_a_constant_result(tmp_path: Path) -> None:
    program = reload(graphc.trace(lambda x, y: (x * 2, None, 3, graphc.ones(2)), x34(), x34()), tmp_path)
    assert bits(program(x34(), x34())) == bits((x34() * 2, None, 3, graphc.ones(2)))


def test_the_same_argument_twice(tmp_path: Path) -> None:
    x = x34()
    program = reload(graphc.trace(lambda a, b: a * b, x, x), tmp_path)
    assert bits(program(x, x)) == bits(x * x)
    assert (
        bits(program(x, x + 1)) == bits(x * (x + 1))
        if "b" in {a.name for a in program.signature.arguments if a.kind == "tensor"}
        else True
    )


def test_arguments_that_overlap_and_are_written() -> None:
    base = graphc.arange(6.0)

    def f(a: Any, b: Any) -> Any:
        a.add_(1)
        return b * 2

    with pytest.raises(GraphcError):
        graphc.trace(f, base[:4], base[2:])
    program = graphc.trace(f, graphc.ones(4), graphc.ones(4))
    x = graphc.ones(4)
    try:
        out = program(x, x)
    except GraphcError:
        return
    assert out.tolist() == [4.0] * 4


# ---- named sizes


def dynamic(f: Any, n: int = 3) -> Any:
    return graphc.trace(f, rows(n), dynamic={"x": {0: "N"}})


def right_for_all_sizes(f: Any, tmp_path: Path, sizes: Any = (1, 2, 3, 5, 8)) -> Any:
    program = reload(dynamic(f), tmp_path)
    for n in sizes:
        assert bits(program(rows(n))) == bits(f(rows(n))), n
    return program


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x * 2 + 1,
        lambda x: x.sum(0),
        lambda x: x.mean(0),
        lambda x: x.mean(),
        lambda x: (x @ x.t()).sum(1),
        lambda x: x.reshape(-1),
        lambda x: x.view(x.shape[0], 2, 2).flatten(1),
        lambda x: x.reshape(x.shape[0] * 4),
        lambda x: x.reshape(x.shape[0] * 2, -1),
        lambda x: x / x.shape[0],
        lambda x: x * x.size(0) + x.shape[0] * x.shape[0],
        lambda x: x.sum() / x.numel(),
        lambda x: x + graphc.arange(x.shape[0]).unsqueeze(1),
        lambda x: graphc.zeros(x.shape[0], 2) + x[:, :2],
        lambda x: graphc.cat([x, x * 2]),
        lambda x: nn.functional.softmax(x, 0),
        lambda x: nn.functional.layer_norm(x, (4,)),
        lambda x: nn.functional.cross_entropy(x, graphc.zeros(x.shape[0], dtype=graphc.int64)),
        lambda x: x.unsqueeze(1).expand(-1, 3, -1).sum(1),
        lambda x: x.new_zeros(x.shape) + x if hasattr(x, "new_zeros") else x,
        lambda x: graphc.zeros_like(x) + x,
        lambda x: x.var(0, correction=0),
        lambda x: (x.t(), x.shape[1] * x),
        lambda x: (x.double() * (x.shape[0] + 1) * 2 - x.shape[0]).sum(0),
    ],
)
def test_named_sizes_stay_named(f: Any, tmp_path: Path) -> None:
    right_for_all_sizes(f, tmp_path)


def test_named_model_and_training_step(tmp_path: Path) -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Dropout(0.2), nn.Linear(5, 3))
    model.eval()
    right_for_all_sizes(model, tmp_path) if False else None
    program = (
        graphc.trace(model, rows(3), dynamic={"input": {0: "N"}})
        if "input" in _names(model)
        else graphc.trace(model, rows(3), dynamic={_names(model)[0]: {0: "N"}})
    )
    for n in (1, 2, 3, 7):
        assert bits(program(rows(n))) == bits(model(rows(n)).detach())
    model.train()
    opt = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = model(x).square().mean()
        loss.backward()
        opt.step()
        return loss.detach()

    program = reload(dynamic(step), tmp_path)
    for n in (1, 4, 3, 2, 6):
        assert bits(program(rows(n))) == bits(step(rows(n)))


def _names(model: Any) -> list[str]:
    import inspect

    return list(inspect.signature(model.forward).parameters)


FORCED: dict[str, Any] = {
    "range": lambda x: sum(x[k] for k in range(x.shape[0])),
    "int": lambda x: x * int(x.shape[0]),
    "float": lambda x: x * float(x.shape[0]),
    "index": lambda x: x * [1, 2, 3, 4, 5][x.shape[0]],
    "iteration": lambda x: sum(row for row in x),
    "len": lambda x: x * len(x),
    "list": lambda x: x * len([0] * x.shape[0]),
}


@pytest.mark.parametrize("how", sorted(FORCED))
def test_forcing_a_named_size_is_an_error(how: str) -> None:
    with pytest.raises((GraphcError, TypeError)) as error:
        dynamic(FORCED[how])
    if isinstance(error.value, RecordingError):
        assert "test_recorder_export.py" in str(error.value)
    else:
        assert any("test_recorder_export.py" in str(entry.path) for entry in error.traceback)


COMPARED: dict[str, Any] = {
    "==": lambda x: x * 2 if x.shape[0] == 3 else x * 5,
    "!=": lambda x: x * 2 if x.shape[0] != 3 else x * 5,
    "<": lambda x: x * 2 if x.shape[0] < 4 else x * 5,
    ">=": lambda x: x * 2 if x.shape[0] >= 3 else x * 5,
    "shape ==": lambda x: x * 2 if x.shape == (3, 4) else x * 5,
    "shape !=": lambda x: x * 2 if x.shape != (3, 4) else x * 5,
    "in": lambda x: x * 2 if x.shape[0] in (3, 6) else x * 5,
    "%": lambda x: x * 2 if x.shape[0] % 2 == 1 else x * 5,
    "//": lambda x: x * 2 if x.shape[0] // 2 == 1 else x * 5,
    "size": lambda x: x * 2 if x.size() == (3, 4) else x * 5,
    "numel": lambda x: x * 2 if x.numel() == 12 else x * 5,
    "bool": lambda x: x * 2 if x.shape[0] else x * 5,
    "max": lambda x: x * max(x.shape[0], 3),
    "dict": lambda x: x * {3: 2.0}.get(x.shape[0], 5.0),
    "reversed": lambda x: x * 2 if 3 == x.shape[0] else x * 5,  # noqa: SIM300
    "sum": lambda x: x * 2 if x.shape[0] + 1 == 4 else x * 5,
    "size(0)": lambda x: x * 2 if x.size(0) == 3 else x * 5,
    "unpack": lambda x: (lambda n, c: x * 2 if n == 3 else x * 5)(*x.shape),
    "same": lambda x: x * 2 if x.shape == (x + 1).shape else x * 5,
}


@pytest.mark.parametrize("how", sorted(COMPARED))
def test_comparing_a_named_size_is_an_error_or_a_guard(how: str) -> None:
    f = COMPARED[how]
    try:
        program = dynamic(f)
    except RecordingError as error:
        assert "test_recorder_export.py" in str(error)
        return
    except GraphcError:
        return
    answered = 0
    for n in (3, 1, 2, 4, 6, 9):
        try:
            out = program(rows(n))
        except (GuardError, ArgumentError):
            continue
        answered += 1
        assert bits(out) == bits(f(rows(n))), n
    assert answered


def test_named_sizes_that_cannot_hold_are_errors(tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="at least 2"):
        graphc.trace(lambda x: x * 2, rows(1), dynamic={"x": {0: "N"}})
    with pytest.raises(ArgumentError, match="dynamic names"):
        graphc.trace(lambda x: x * 2, rows(3), dynamic={"z": {0: "N"}})
    with pytest.raises(GraphcError):
        dynamic(lambda x: x + graphc.ones(3, 1))
    with pytest.raises(GraphcError):
        dynamic(lambda x: x.reshape(3, 4))
    third = dynamic(lambda x: x[2])
    assert bits(third(rows(5))) == bits(rows(5)[2])
    with pytest.raises(GraphcError):
        third(rows(2))
    program = graphc.trace(lambda x, y: x + y, rows(3), rows(3), dynamic={"x": {0: "N"}, "y": {0: "N"}})
    assert program(rows(5), rows(5)).shape == (5, 4)
    with pytest.raises(ArgumentError):
        program(rows(5), rows(4))


def test_two_named_sizes(tmp_path: Path) -> None:
    def f(x: Any, y: Any) -> Any:
        return (x @ y).sum(0) * x.shape[0] + y.shape[1]

    program = reload(
        graphc.trace(f, rows(3), rows(3).t().contiguous()[:, :2], dynamic={"x": {0: "N"}, "y": {1: "M"}}), tmp_path
    )
    for n, m in ((1, 1), (3, 2), (4, 7), (2, 2)):
        assert bits(program(rows(n), rows(m).t().contiguous())) == bits(f(rows(n), rows(m).t().contiguous()))


def test_a_size_returned_is_a_number() -> None:
    def f(x: Any) -> Any:
        return x * 2, x.shape[0]

    try:
        program = dynamic(f)
    except RecordingError as error:
        assert "test_recorder_export.py" in str(error) or "returns" in str(error)
        return
    for n in (1, 3, 5):
        assert program(rows(n))[1] == n


def test_a_named_size_is_shown() -> None:
    shown: list[str] = []

    def f(x: Any) -> Any:
        assert f"{x.shape[0]}" and str(x.shape) and repr(x.shape)
        return x * 2

    dynamic(f)
    assert not shown


def test_refused_lines_of_trace() -> None:
    def f(x: Any) -> Any:
        return x * float(x.sum())  # here

    with pytest.raises(RecordingError, match=marked_lines(f)[0]):
        graphc.trace(f, x34())


def test_numpy_results_are_own_memory() -> None:
    program = graphc.trace(lambda x: (x, x[1:], x * 1), x34())
    x = x34()
    out = program(x)
    assert not any(np.shares_memory(o.numpy(), x.numpy()) for o in out)


def test_a_file_checks_its_indices(tmp_path: Any) -> None:
    def f(x: Any, y: Any) -> Any:
        return graphc.nn.functional.cross_entropy(x, y), x[y]

    x, y = graphc.randn(4, 3), graphc.tensor([0, 1, 2, 0])
    graphc.trace(f, x, y).save(tmp_path / "f.gcz")
    program = graphc.load(tmp_path / "f.gcz")
    assert bits(program(x, y)) == bits(f(x, y))
    for bad in (3, 7, -101):  # the first is a row but no class
        with pytest.raises(GuardError, match="out of range"):
            program(x, graphc.tensor([0, 1, bad, 0]))


def test_a_scalar_leaf_has_a_gradient_given_to_a_program() -> None:
    """Where there is none before the call, the program is given minus zero, an array of no axes."""

    def f(x: Any) -> Any:
        (x * x).backward()
        return x + 1

    program = graphc.trace(f, graphc.tensor(3.0).requires_grad_())
    x = graphc.tensor(-0.0).requires_grad_()
    assert program(x).item() == 1.0
    assert bits(x.grad) == bits(graphc.tensor(-0.0))
    program(x)
    assert x.grad.shape == ()
