"""nn and optim against PyTorch, where it is installed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn.functional as F
from graphc import nn, optim

torch = pytest.importorskip("torch")

TIGHT = {"float64": (1e-12, 1e-14), "float32": (2e-5, 2e-6)}
SETTINGS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.1, "momentum": 0.9}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.3, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.1, "momentum": 0.9, "nesterov": True}),
    ("SGD", {"lr": 0.01, "momentum": 0.5, "maximize": True, "weight_decay": 0.1}),
    ("Adam", {}),
    ("Adam", {"lr": 0.05, "betas": (0.8, 0.95), "eps": 1e-4, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.05, "amsgrad": True}),
    ("Adam", {"lr": 0.01, "maximize": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.05, "weight_decay": 0.3}),
    ("AdamW", {"lr": 0.05, "amsgrad": True, "maximize": True}),
    ("RMSprop", {"lr": 0.01}),
    ("RMSprop", {"lr": 0.01, "momentum": 0.5, "centered": True, "weight_decay": 0.1}),
    ("Adagrad", {"lr": 0.1, "lr_decay": 0.1, "initial_accumulator_value": 0.1}),
    ("Adadelta", {"weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1}),
    ("NAdam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True, "momentum_decay": 0.1}),
    ("RAdam", {"lr": 0.05}),
    ("RAdam", {"lr": 0.05, "betas": (0.8, 0.9), "weight_decay": 0.1, "maximize": True}),
    ("Adamax", {"lr": 0.05, "weight_decay": 0.1}),
    ("ASGD", {"lr": 0.1, "lambd": 0.01, "t0": 10.0, "weight_decay": 0.1}),
    ("Rprop", {"lr": 0.05}),
    ("Adam", {"fused": False, "capturable": False, "foreach": False}),
    ("Adam", {"lr": 0.05, "weight_decay": 0.1, "decoupled_weight_decay": True}),
]


def data(rng: np.random.Generator, *shape: int, dtype: str = "float64") -> np.ndarray[Any, Any]:
    """Random numbers of a shape."""
    return rng.standard_normal(shape).astype(dtype)


def both(array: np.ndarray[Any, Any], grad: bool = False) -> tuple[Any, Any]:
    """The same numbers as a tensor of each library."""
    mine, theirs = graphc.tensor(array), torch.tensor(array)
    return (mine.requires_grad_(), theirs.requires_grad_()) if grad else (mine, theirs)


def close(mine: Any, theirs: Any, dtype: str = "float64") -> None:
    """Assert equal shapes and close numbers."""
    a, b = mine.detach().numpy(), theirs.detach().numpy()
    assert a.shape == b.shape
    rtol, atol = TIGHT[dtype]
    np.testing.assert_allclose(a, b, rtol=rtol, atol=atol)


def twins(make: Callable[[Any], Any], dtype: str = "float64") -> tuple[Any, Any]:
    """A module made by each library, with the same parameters and buffers."""
    mine, theirs = make(nn), make(torch.nn)
    mine.double() if dtype == "float64" else mine.float()
    theirs.double() if dtype == "float64" else theirs.float()
    state = {key: graphc.tensor(value.numpy()) for key, value in theirs.state_dict().items()}
    assert str(mine.load_state_dict(state)) == "<All keys matched successfully>"
    return mine, theirs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("name", "settings"), SETTINGS)
def test_twenty_steps(name: str, settings: dict[str, Any], dtype: str) -> None:
    """Parameters follow PyTorch's through twenty updates of a problem that is not linear."""
    rng = np.random.default_rng(1)
    pairs = [both(data(rng, *shape, dtype=dtype), grad=True) for shape in ((3, 4), (4,))]
    x, y = both(data(rng, 5, 3, dtype=dtype))
    mine = getattr(optim, name)([a for a, _ in pairs], **settings)
    theirs = getattr(torch.optim, name)([b for _, b in pairs], **settings)
    for _ in range(20):
        mine.zero_grad()
        theirs.zero_grad()
        (((x @ pairs[0][0]).tanh() + pairs[1][0]) ** 2).mean().backward()
        (((y @ pairs[0][1]).tanh() + pairs[1][1]) ** 2).mean().backward()
        mine.step()
        theirs.step()
    for a, b in pairs:
        if name in ("ASGD", "NAdam"):  # PyTorch holds their factors in float32
            np.testing.assert_allclose(a.tolist(), b.tolist(), rtol=3e-4, atol=1e-6)
        else:
            close(a, b, dtype)
    settings_of = [{k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (mine, theirs)]
    assert settings_of[0] == settings_of[1]
    if name != "SGD":  # whose first step has a name of its own here
        keys = [[sorted(state) for state in o.state_dict()["state"].values()] for o in (mine, theirs)]
        assert keys[0] == keys[1]


LBFGS: list[dict[str, Any]] = [
    {"lr": 0.3},
    {"max_iter": 4, "history_size": 2},
    {"line_search_fn": "strong_wolfe"},
    {"lr": 3.0, "max_iter": 6, "line_search_fn": "strong_wolfe"},
]


@pytest.mark.parametrize("settings", LBFGS)
def test_lbfgs(settings: dict[str, Any]) -> None:
    """Losses and parameters of five steps on a curved valley."""

    def run(library: Any) -> tuple[list[float], list[float]]:
        x = library.tensor([-1.2, 1.0, 0.5], dtype=library.float64, requires_grad=True)
        optimizer = library.optim.LBFGS([x], **settings)

        def closure() -> Any:
            optimizer.zero_grad()
            loss = (10 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum()
            loss.backward()
            return loss

        return [optimizer.step(closure).item() for _ in range(5)], x.tolist()

    for mine, theirs in zip(run(graphc), run(torch), strict=True):
        np.testing.assert_allclose(mine, theirs, rtol=1e-6, atol=1e-9)


SCHEDULES: list[Callable[[Any, Any], Any]] = [
    lambda s, o: s.StepLR(o, 3, 0.5),
    lambda s, o: s.MultiStepLR(o, [2, 5, 5], 0.3),
    lambda s, o: s.ExponentialLR(o, 0.9),
    lambda s, o: s.LambdaLR(o, lambda epoch: 1 / (1 + epoch)),
    lambda s, o: s.LambdaLR(o, [lambda epoch: 0.95**epoch, lambda epoch: 1.0]),
    lambda s, o: s.CosineAnnealingLR(o, 10, 0.01),
    lambda s, o: s.LinearLR(o, 0.25, 1.0, 4),
    lambda s, o: s.ConstantLR(o, 0.5, 3),
    lambda s, o: s.PolynomialLR(o, 6, 2.0),
    lambda s, o: s.CosineAnnealingWarmRestarts(o, 3, 2),
    lambda s, o: s.MultiplicativeLR(o, lambda epoch: 0.9 if epoch % 2 else 1.05),
    lambda s, o: s.OneCycleLR(o, 0.4, 12, cycle_momentum=False),
    lambda s, o: s.OneCycleLR(o, [0.4, 0.8], epochs=3, steps_per_epoch=5, anneal_strategy="linear"),
    lambda s, o: s.OneCycleLR(o, 0.4, 13, three_phase=True, pct_start=0.4),
    lambda s, o: s.CyclicLR(o, 0.01, 0.4, 3),
    lambda s, o: s.CyclicLR(o, 0.01, 0.4, 2, 4, mode="triangular2"),
    lambda s, o: s.CyclicLR(o, 0.01, 0.4, 2, mode="exp_range", gamma=0.9, cycle_momentum=False),
    lambda s, o: s.CyclicLR(o, 0.01, 0.4, 2, scale_fn=lambda k: 1 / k, scale_mode="cycle"),
    lambda s, o: s.SequentialLR(o, [s.LinearLR(o, 0.1, 1.0, 4), s.ExponentialLR(o, 0.5)], [4]),
    lambda s, o: s.SequentialLR(o, [s.ConstantLR(o, 0.1, 3), s.StepLR(o, 2), s.CosineAnnealingLR(o, 4)], [3, 7]),
    lambda s, o: s.ChainedScheduler([s.ConstantLR(o, 0.1, 3), s.ExponentialLR(o, 0.9)]),
]


@pytest.mark.parametrize("make", SCHEDULES)
def test_schedules(make: Callable[[Any, Any], Any]) -> None:
    """The rates of twelve epochs are PyTorch's."""

    def rates(library: Any) -> list[list[float]]:
        tensors = [library.zeros(1, requires_grad=True) for _ in range(2)]
        optimizer = library.optim.SGD(
            [{"params": tensors[:1]}, {"params": tensors[1:], "lr": 0.5}], lr=0.1, momentum=0.9
        )
        schedule = make(library.optim.lr_scheduler, optimizer)
        seen = []
        for _ in range(12):
            optimizer.step()
            schedule.step()
            seen.append(schedule.get_last_lr() + [group["momentum"] for group in optimizer.param_groups])
        return seen

    np.testing.assert_allclose(rates(graphc), rates(torch), rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("make", [SCHEDULES[11], SCHEDULES[13], SCHEDULES[17]])
def test_schedules_of_adam(make: Callable[[Any, Any], Any]) -> None:
    """Where there are betas, a cycle moves the first of them."""

    def betas(library: Any) -> list[float]:
        optimizer = library.optim.Adam([library.zeros(1, requires_grad=True) for _ in range(2)], lr=0.1)
        optimizer.add_param_group({"params": [library.zeros(1, requires_grad=True)], "lr": 0.2})
        schedule = make(library.optim.lr_scheduler, optimizer)
        seen = []
        for _ in range(6):
            optimizer.step()
            schedule.step()
            seen += [beta for group in optimizer.param_groups for beta in group["betas"]]
        return seen

    np.testing.assert_allclose(betas(graphc), betas(torch), rtol=1e-12)


def test_plateau() -> None:
    """ReduceLROnPlateau lowers the rate where PyTorch's does."""
    values = [1.0, 0.9, 0.9, 0.9, 0.9, 0.85, 0.86, 0.9, 0.9, 0.9, 0.9, 0.9]

    def rates(library: Any) -> list[float]:
        optimizer = library.optim.SGD([library.zeros(1, requires_grad=True)], lr=0.1)
        schedule = library.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=0.5, patience=2, cooldown=1)
        seen = []
        for value in values:
            schedule.step(value)
            seen.append(optimizer.param_groups[0]["lr"])
        return seen

    assert rates(graphc) == rates(torch)


LAYERS: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.Linear(4, 3), (2, 5, 4)),
    (lambda m: m.Linear(4, 3, bias=False), (4,)),
    (lambda m: m.Conv2d(2, 3, 3, padding=1), (2, 2, 5, 6)),
    (lambda m: m.Conv2d(2, 3, (3, 2), stride=2, padding=(1, 0), dilation=(1, 2), bias=False), (2, 2, 7, 6)),
    (lambda m: m.Conv2d(2, 3, 3, padding="same"), (2, 5, 6)),
    (lambda m: m.Conv1d(2, 3, 3, stride=2, padding=1), (2, 2, 7)),
    (lambda m: m.BatchNorm1d(3), (6, 3)),
    (lambda m: m.BatchNorm1d(3, affine=False), (6, 3, 4)),
    (lambda m: m.BatchNorm2d(3, momentum=None), (2, 3, 4, 4)),
    (lambda m: m.BatchNorm2d(3, track_running_stats=False), (2, 3, 4, 4)),
    (lambda m: m.BatchNorm2d(3, momentum=0.3, eps=0.01), (2, 3, 4, 4)),
    (lambda m: m.LayerNorm((3, 4)), (2, 3, 4)),
    (lambda m: m.LayerNorm(4, bias=False), (2, 3, 4)),
    (lambda m: m.RMSNorm(4), (2, 3, 4)),
    (lambda m: m.GroupNorm(2, 4), (2, 4, 3)),
    (lambda m: m.MaxPool2d(2), (2, 2, 5, 6)),
    (lambda m: m.MaxPool2d(3, 2, 1, ceil_mode=True), (2, 2, 6, 6)),
    (lambda m: m.AvgPool2d(2), (2, 2, 5, 6)),
    (lambda m: m.AvgPool2d(3, 2, 1, count_include_pad=False), (2, 2, 5, 6)),
    (lambda m: m.AdaptiveAvgPool2d(1), (2, 2, 5, 6)),
    (lambda m: m.AdaptiveAvgPool2d((2, 3)), (2, 2, 4, 6)),
    (lambda m: m.Flatten(), (2, 3, 4)),
    (lambda m: m.Unflatten(1, (2, 3)), (2, 6)),
    (lambda m: m.ReLU(), (3, 4)),
    (lambda m: m.ReLU6(), (3, 4)),
    (lambda m: m.LeakyReLU(0.2), (3, 4)),
    (lambda m: m.ELU(0.7), (3, 4)),
    (lambda m: m.SELU(), (3, 4)),
    (lambda m: m.SiLU(), (3, 4)),
    (lambda m: m.Mish(), (3, 4)),
    (lambda m: m.GELU(), (3, 4)),
    (lambda m: m.GELU("tanh"), (3, 4)),
    (lambda m: m.Hardtanh(-0.5, 0.75), (3, 4)),
    (lambda m: m.Hardswish(), (3, 4)),
    (lambda m: m.PReLU(), (3, 4)),
    (lambda m: m.PReLU(4), (3, 4, 2)),
    (lambda m: m.Softplus(2.0, 1.0), (3, 4)),
    (lambda m: m.LogSigmoid(), (3, 4)),
    (lambda m: m.Tanh(), (3, 4)),
    (lambda m: m.Sigmoid(), (3, 4)),
    (lambda m: m.Softmax(dim=1), (3, 4)),
    (lambda m: m.LogSoftmax(dim=-1), (3, 4)),
    (lambda m: m.Upsample(scale_factor=2), (2, 2, 3, 4)),
    (lambda m: m.PixelShuffle(2), (2, 8, 3, 4)),
    (lambda m: m.ZeroPad2d((1, 2, 0, 1)), (2, 2, 3, 4)),
    (lambda m: m.ReflectionPad2d(2), (2, 2, 3, 4)),
    (lambda m: m.ReplicationPad2d((2, 0, 1, 1)), (2, 2, 3, 4)),
    (lambda m: m.InstanceNorm2d(2), (2, 2, 3, 4)),
    (lambda m: m.InstanceNorm2d(2, affine=True), (2, 2, 3, 4)),
    (lambda m: m.ConvTranspose2d(2, 3, 4, stride=2, padding=1), (2, 2, 3, 4)),
    (lambda m: m.ConvTranspose2d(2, 3, 3, stride=2, output_padding=1, bias=False), (2, 2, 3, 4)),
]


@pytest.mark.parametrize(("make", "shape"), LAYERS)
def test_layers(make: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    """Text, output, gradients and buffers of every layer after two training steps, then evaluation."""
    rng = np.random.default_rng(2)
    mine, theirs = twins(make)
    assert repr(mine) == repr(theirs)
    for step in range(3):
        if step == 2:
            mine.eval()
            theirs.eval()
        x, y = both(data(rng, *shape), grad=True)
        a, b = mine(x), theirs(y)
        close(a, b)
        weights = data(rng, *a.shape)
        (a * graphc.tensor(weights)).sum().backward()
        (b * torch.tensor(weights)).sum().backward()
        close(x.grad, y.grad)
    for (name, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        close(p.grad, q.grad)
    for (name, c), (other, d) in zip(mine.named_buffers(), theirs.named_buffers(), strict=True):
        assert name == other
        close(c, d)


RECURRENT: list[tuple[Callable[[Any], Any], tuple[int, ...]]] = [
    (lambda m: m.RNN(3, 4), (5, 2, 3)),
    (lambda m: m.RNN(3, 4, nonlinearity="relu", bias=False), (5, 3)),
    (lambda m: m.GRU(3, 4, num_layers=2, batch_first=True), (2, 5, 3)),
    (lambda m: m.LSTM(3, 4, num_layers=2, bidirectional=True), (5, 2, 3)),
    (lambda m: m.LSTM(3, 4, batch_first=True), (2, 5, 3)),
    (lambda m: m.RNNCell(3, 4), (2, 3)),
    (lambda m: m.GRUCell(3, 4), (2, 3)),
    (lambda m: m.LSTMCell(3, 4, bias=False), (2, 3)),
]


@pytest.mark.parametrize(("make", "shape"), RECURRENT)
def test_recurrent(make: Callable[[Any], Any], shape: tuple[int, ...]) -> None:
    """Text, outputs, last states and gradients, from no state and from a given one."""
    rng = np.random.default_rng(7)
    mine, theirs = twins(make)
    assert repr(mine) == repr(theirs)

    def flat(found: Any) -> list[Any]:
        return [x for item in found for x in flat(item)] if isinstance(found, tuple) else [found]

    x, y = both(data(rng, *shape), grad=True)
    a, b = mine(x), theirs(y)
    starts = (a[1], b[1]) if not type(mine).__name__.endswith("Cell") else (a, b)
    a, b = [*flat(a), *flat(mine(x, starts[0]))], [*flat(b), *flat(theirs(y, starts[1]))]
    for one, other in zip(a, b, strict=True):
        close(one, other)
    sum((one * one).sum() for one in a).backward()
    sum((one * one).sum() for one in b).backward()
    close(x.grad, y.grad)
    for (name, p), (other, q) in zip(mine.named_parameters(), theirs.named_parameters(), strict=True):
        assert name == other
        close(p.grad, q.grad)


CLASSES = [
    {},
    {"reduction": "sum"},
    {"reduction": "none"},
    {"ignore_index": 1},
    {"weight": True},
    {"weight": True, "ignore_index": 2, "reduction": "sum"},
]


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("shape", [(5, 3), (2, 3, 4)])
@pytest.mark.parametrize("settings", CLASSES)
def test_cross_entropy(settings: dict[str, Any], shape: tuple[int, ...], smoothing: float) -> None:
    """Values and gradients of CrossEntropyLoss and NLLLoss."""
    rng = np.random.default_rng(3)
    x, y = both(data(rng, *shape), grad=True)
    c, d = both(rng.integers(0, 3, (shape[0], *shape[2:])))
    w = {"weight": both(rng.random(shape[1]))} if "weight" in settings else {}
    plain = {key: value for key, value in settings.items() if key != "weight"}
    a = nn.CrossEntropyLoss(**plain, **{k: v[0] for k, v in w.items()}, label_smoothing=smoothing)(x, c)
    b = torch.nn.CrossEntropyLoss(**plain, **{k: v[1] for k, v in w.items()}, label_smoothing=smoothing)(y, d)
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    close(x.grad, y.grad)
    close(
        nn.NLLLoss(**plain, **{k: v[0] for k, v in w.items()})(F.log_softmax(x, 1), c),
        torch.nn.NLLLoss(**plain, **{k: v[1] for k, v in w.items()})(torch.nn.functional.log_softmax(y, 1), d),
    )


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("MSELoss", {}),
        ("L1Loss", {}),
        ("SmoothL1Loss", {"beta": 0.5}),
        ("HuberLoss", {"delta": 0.5}),
        ("BCELoss", {}),
        ("BCEWithLogitsLoss", {}),
        ("BCEWithLogitsLoss", {"pos_weight": True}),
        ("BCELoss", {"weight": True}),
        ("KLDivLoss", {}),
        ("KLDivLoss", {"log_target": True}),
    ],
)
def test_pair_losses(name: str, settings: dict[str, Any], reduction: str) -> None:
    """Values and gradients of the losses of two tensors."""
    rng = np.random.default_rng(4)
    array = rng.random((4, 3)) if name == "BCELoss" else data(rng, 4, 3)
    x, y = both(array, grad=True)
    t, u = both(rng.random((4, 3)))
    extra = [both(rng.random(3) + 0.5) for key, value in settings.items() if key.endswith("weight")]
    ours = {k: extra[0][0] if k.endswith("weight") else v for k, v in settings.items()}
    other = {k: extra[0][1] if k.endswith("weight") else v for k, v in settings.items()}
    reduction = "batchmean" if name == "KLDivLoss" and reduction == "mean" else reduction  # PyTorch warns of "mean"
    a = getattr(nn, name)(reduction=reduction, **ours)(x, t)
    b = getattr(torch.nn, name)(reduction=reduction, **other)(y, u)
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    close(x.grad, y.grad)


def test_embedding() -> None:
    """Rows, and no gradient for the padding row."""
    mine, theirs = twins(lambda m: m.Embedding(5, 3, padding_idx=1))
    index = np.array([[0, 1, 4], [4, 1, 2]])
    a, b = mine(graphc.tensor(index)), theirs(torch.tensor(index))
    close(a, b)
    (a * a).sum().backward()
    (b * b).sum().backward()
    close(mine.weight.grad, theirs.weight.grad)


@pytest.mark.parametrize("causal", [False, True])
def test_attention(causal: bool) -> None:
    """scaled_dot_product_attention with and without a mask."""
    rng = np.random.default_rng(5)
    sides = [both(data(rng, 2, 3, 4, 5), grad=True) for _ in range(3)]
    a = F.scaled_dot_product_attention(*(s[0] for s in sides), is_causal=causal)
    b = torch.nn.functional.scaled_dot_product_attention(*(s[1] for s in sides), is_causal=causal)
    close(a, b)
    a.sum().backward()
    b.sum().backward()
    for s in sides:
        close(s[0].grad, s[1].grad)
    mask = rng.random((4, 4)) > 0.3
    mask[:, 0] = True
    close(
        F.scaled_dot_product_attention(*(s[0] for s in sides), attn_mask=graphc.tensor(mask)),
        torch.nn.functional.scaled_dot_product_attention(*(s[1] for s in sides), attn_mask=torch.tensor(mask)),
    )


@pytest.mark.parametrize("norm", [1.0, 2.0, float("inf")])
def test_clip_grad(norm: float) -> None:
    """The norm and the scaled gradients."""
    rng = np.random.default_rng(6)
    pairs = [both(data(rng, *shape), grad=True) for shape in ((3, 4), (5,))]
    for a, b in pairs:
        (a * a).sum().backward()
        (b * b).sum().backward()
    close(
        nn.utils.clip_grad_norm_([a for a, _ in pairs], 1.5, norm),
        torch.nn.utils.clip_grad_norm_([b for _, b in pairs], 1.5, norm),
    )
    for a, b in pairs:
        close(a.grad, b.grad)


def test_container_texts() -> None:
    """Containers print as in PyTorch."""

    def texts(m: Any) -> list[str]:
        return [
            repr(m.ModuleList([m.Linear(2, 3), m.Linear(2, 3), m.ReLU()])),
            repr(m.ModuleDict({"a": m.Sequential(m.Conv2d(1, 2, 3), m.Tanh()), "b": m.Identity()})),
            repr(m.Sequential()),
        ]

    assert texts(nn) == texts(torch.nn)


def test_momentum_moves_between_the_libraries() -> None:
    """SGD goes on from a state PyTorch wrote, which has no count of steps, and PyTorch from ours."""
    rng = np.random.default_rng(9)
    start, x = data(rng, 3, 2), data(rng, 4, 2)

    def steps(lib: Any, w: Any, optimizer: Any, count: int) -> Any:
        for _ in range(count):
            optimizer.zero_grad()
            (lib.tensor(x) @ w.T).square().mean().backward()
            optimizer.step()
        return w

    def moved(state: dict[str, Any], convert: Callable[[Any], Any]) -> dict[str, Any]:
        entries = {k: {n: v if v is None else convert(v) for n, v in s.items()} for k, s in state["state"].items()}
        return {"state": entries, "param_groups": state["param_groups"]}

    for options in ({"momentum": 0.9}, {"momentum": 0.9, "dampening": 0.5}, {"momentum": 0.0}):
        mine, theirs = both(start, grad=True)
        theirs_optimizer = torch.optim.SGD([theirs], lr=0.1, **options)
        steps(torch, theirs, theirs_optimizer, 2)
        with graphc.no_grad():
            mine.copy_(graphc.tensor(theirs.detach().numpy()))
        optimizer = optim.SGD([mine], lr=0.3)
        optimizer.load_state_dict(moved(theirs_optimizer.state_dict(), lambda t: graphc.tensor(t.numpy())))
        close(steps(graphc, mine, optimizer, 2), steps(torch, theirs, theirs_optimizer, 2))
        theirs_optimizer.load_state_dict(moved(optimizer.state_dict(), lambda t: torch.tensor(t.numpy())))
        close(steps(graphc, mine, optimizer, 2), steps(torch, theirs, theirs_optimizer, 2))
