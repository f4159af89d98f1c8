"""What everyday programs do, some of it by mistake."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import graphc
from graphc import nn
from graphc.errors import ArtifactError, MissingFileError
from graphc.nn import functional as F
from graphc.runtime.artifact import read_manifest

HERE = Path(__file__).name


@pytest.mark.parametrize("name", ["mse_loss", "l1_loss", "smooth_l1_loss", "huber_loss"])
def test_losses_of_unequal_sizes_broadcast_with_a_warning(name: str) -> None:
    """Was refused."""
    loss = getattr(F, name)
    x, y = graphc.randn(3, 1, requires_grad=True), graphc.randn(3)
    with pytest.warns(UserWarning, match=r"target size \(graphc.Size\(\[3\]\)\) that is different") as caught:
        found = loss(x, y)
    assert Path(caught[0].filename).name == HERE
    wanted = loss(x.expand(3, 3), y.expand(3, 3))
    assert graphc.equal(found, wanted)
    found.backward()
    assert x.grad is not None and x.grad.shape == (3, 1)


def test_a_missing_file_is_what_python_calls_it(tmp_path: Path) -> None:
    """`try: load(...) except FileNotFoundError: start anew` is how programs resume. Was an ArtifactError alone."""
    for load in (graphc.load, read_manifest):
        with pytest.raises(FileNotFoundError, match=r"cannot read .*none.pt: No such file"):
            load(tmp_path / "none.pt")
    assert issubclass(MissingFileError, ArtifactError)
    with pytest.raises(ArtifactError) as caught:
        graphc.load(tmp_path)
    assert not isinstance(caught.value, FileNotFoundError)


def test_recordings_that_never_agree_say_what_differs() -> None:
    compiled = graphc.compile(lambda x, k: x[:k] * 2)
    with pytest.warns(graphc.RecordingWarning, match=rf"no two alike; the last two: .*{HERE}:\d+") as caught:
        for k in range(1, 13):
            compiled(graphc.ones(20), k)
    assert "None" not in str(caught[0].message)


def test_a_language_model_step_is_one_graph() -> None:
    """Embeddings tied to the head, attention, a schedule, clipping: the same bits as eagerly."""

    class Model(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.tok, self.pos = nn.Embedding(11, 8), nn.Embedding(6, 8)
            self.norm, self.qkv = nn.LayerNorm(8), nn.Linear(8, 24, bias=False)
            self.head = nn.Linear(8, 11, bias=False)
            self.head.weight = self.tok.weight

        def forward(self, ids: Any) -> Any:
            b, t = ids.shape
            x = self.tok(ids) + self.pos(graphc.arange(t))
            q, k, v = (p.view(b, t, 2, 4).transpose(1, 2) for p in self.qkv(self.norm(x)).split(8, dim=2))
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            return self.head(x + y.transpose(1, 2).reshape(b, t, 8))

    def fit(compiled: bool) -> list[Any]:
        graphc.manual_seed(0)
        model = Model()
        opt = graphc.optim.AdamW(model.parameters(), lr=1e-2)
        plan = graphc.optim.lr_scheduler.LambdaLR(opt, lambda k: 1 / (1 + k))

        def step(ids: Any) -> Any:
            opt.zero_grad()
            logits = model(ids[:, :-1])
            loss = F.cross_entropy(logits.reshape(-1, 11), ids[:, 1:].reshape(-1))
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            opt.step()
            return loss.detach()

        run = graphc.compile(step, fullgraph=True) if compiled else step
        losses = []
        for _ in range(5):
            losses.append(run(graphc.randint(0, 11, (3, 7))))
            plan.step()
        if compiled:
            assert run.stats.recordings <= 3 and run.stats.hits >= 2
        return [*losses, *model.state_dict().values()]

    assert all(graphc.equal(a, b) for a, b in zip(fit(False), fit(True), strict=True))


def test_the_switches_at_the_start_of_programs() -> None:
    """Were AttributeErrors."""
    from graphc.backends import cudnn

    assert graphc.backends.cudnn is cudnn and not cudnn.is_available() and not graphc.backends.mps.is_available()
    before = cudnn.benchmark
    cudnn.benchmark = not before
    assert graphc.backends.cudnn.benchmark is not before
    cudnn.benchmark = before
    graphc.backends.cuda.matmul.allow_tf32 = False
    assert graphc.get_float32_matmul_precision() == "highest"
    graphc.set_float32_matmul_precision("high")
    assert graphc.get_float32_matmul_precision() == "high"
    graphc.set_float32_matmul_precision("highest")
    with pytest.raises(ValueError, match="one of highest, high, medium, got 'low'"):
        graphc.set_float32_matmul_precision("low")
    graphc.use_deterministic_algorithms(True, warn_only=True)
    assert graphc.are_deterministic_algorithms_enabled()
    assert graphc.is_deterministic_algorithms_warn_only_enabled()
    graphc.use_deterministic_algorithms(False)
    assert not graphc.are_deterministic_algorithms_enabled()
    graphc.set_default_device("cpu")
    assert graphc.get_default_device() == graphc.device("cpu")
    with pytest.raises(RuntimeError, match="set_default_device: device: 'cuda' is not available"):
        graphc.set_default_device("cuda")


@pytest.mark.parametrize("name", ["sum", "mean", "amax", "max", "std", "logsumexp", "argmin", "all", "median"])
def test_numpys_names_of_arguments(name: str) -> None:
    """PyTorch takes `axis` and `keepdims`. Was a TypeError."""
    x = graphc.randn(3, 4)
    for _ in range(3):  # also on the hot path
        for call in (getattr(graphc, name), lambda t, **named: getattr(t, name)(**named)):
            found, wanted = call(x, axis=1, keepdims=True), call(x, dim=1, keepdim=True)
            pairs = zip(found, wanted, strict=True) if isinstance(found, tuple) else [(found, wanted)]
            assert all(graphc.equal(a, b) and a.shape == (3, 1) for a, b in pairs)
    with pytest.raises(TypeError, match=f"{name}: axis and dim are the same argument"):
        getattr(graphc, name)(x, axis=1, dim=1)
    with pytest.raises(TypeError):
        getattr(graphc, name)(x, axes=1)


def test_axis_elsewhere_and_compiled() -> None:
    x = graphc.randn(4, 4)

    def f(x: Any) -> Any:
        y = graphc.cat([x.cumsum(axis=0), graphc.stack([x, x], axis=0).sum(axis=0)], axis=1)
        return y.sort(axis=1)[0], x.softmax(axis=-1), graphc.unsqueeze(x, axis=0), x.topk(2, axis=0)[1]

    assert graphc.cat([x, x], axis=1).shape == (4, 8) and graphc.stack([x, x], axis=1).shape == (4, 2, 4)
    graphc.testing.assert_same(f, x)


def test_state_of_another_optimiser_is_a_value_error() -> None:
    """As in PyTorch; was not."""
    one, two = nn.Linear(2, 2), nn.Linear(2, 2, bias=False)
    state = graphc.optim.Adam(one.parameters()).state_dict()
    with pytest.raises(ValueError, match="loaded group 0 has 2 parameters, expected 1"):
        graphc.optim.Adam(two.parameters()).load_state_dict(state)
    groups = graphc.optim.Adam([{"params": [p]} for p in one.parameters()]).state_dict()
    with pytest.raises(ValueError, match="loaded state dict has 2 parameter groups, expected 1"):
        graphc.optim.Adam(one.parameters()).load_state_dict(groups)


def test_a_trace_with_keywords(tmp_path: Path) -> None:
    """Was refused: `trace(net, x)` knew positions alone."""

    def f(x: Any, *, scale: float = 1.0, both: bool = False) -> Any:
        return (x * scale, x) if both else x * scale

    x = graphc.randn(3)
    graphc.trace(f, x, kwargs={"scale": 2.0, "both": True}).save(tmp_path / "f.gcz")
    loaded = graphc.load(tmp_path / "f.gcz")
    found = loaded(x, scale=2.0, both=True)
    assert len(found) == 2 and graphc.equal(found[0], x * 2.0)
    with pytest.raises(ValueError, match="expected"):
        loaded(x)
    named = graphc.trace(f, kwargs={"x": x}, dynamic={"x": {0: "N"}})
    assert graphc.equal(named(x=graphc.ones(5)), graphc.ones(5))


def test_an_item_set_by_name_in_a_hook_has_its_line() -> None:
    """Was "an unknown line"."""
    seen: dict[str, Any] = {}
    net = nn.Linear(2, 2)
    net.register_forward_hook(lambda module, given, out: seen.__setitem__("out", out))
    with pytest.warns(graphc.RecordingWarning, match=rf"seen.* is changed at {HERE}:\d+"):
        graphc.compile(net)(graphc.ones(1, 2))
