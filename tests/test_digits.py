"""The example on real data: its first step against NumPy in float64, and the whole run."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import subprocess
import sys
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
from graphc.config import config
from graphc.ir.ops.random import rand_array
from graphc.ir.types import float32

ROOT = Path(__file__).resolve().parent.parent
Array = np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def digits() -> Any:
    """The example as a module."""
    spec = importlib.util.spec_from_file_location("digits_example", ROOT / "examples" / "digits.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def conv(x: Array, w: Array, b: Array) -> tuple[Array, Array]:
    """3x3 convolution with padding 1, and the patches [N, C, H, W, 3, 3] it saw."""
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    patches = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(2, 3))
    return np.einsum("nchwij,ocij->nohw", patches, w) + b[:, None, None], patches


def conv_backward(g: Array, patches: Array, w: Array) -> tuple[Array, Array, Array]:
    """Gradients of input, weight and bias."""
    spread = np.einsum("nohw,ocij->nchwij", g, w)
    n, c, h, v = spread.shape[:4]
    padded = np.zeros((n, c, h + 2, v + 2))
    for i in range(3):
        for j in range(3):
            padded[:, :, i : i + h, j : j + v] += spread[..., i, j]
    return padded[:, :, 1:-1, 1:-1], np.einsum("nohw,nchwij->ocij", g, patches), g.sum((0, 2, 3))


def norm(x: Array, w: Array, b: Array) -> tuple[Array, tuple[Array, Array, Array]]:
    """Batch norm with the batch's statistics."""
    mean, var = x.mean((0, 2, 3), keepdims=True), x.var((0, 2, 3), keepdims=True)
    scale = 1 / np.sqrt(var + 1e-5)
    hat = (x - mean) * scale
    return hat * w[:, None, None] + b[:, None, None], (hat, scale, w)


def norm_backward(g: Array, kept: tuple[Array, Array, Array]) -> tuple[Array, Array, Array]:
    """Gradients of input, weight and bias."""
    hat, scale, w = kept
    gh = g * w[:, None, None]
    axes = (0, 2, 3)
    gx = scale * (gh - gh.mean(axes, keepdims=True) - hat * (gh * hat).mean(axes, keepdims=True))
    return gx, (g * hat).sum(axes), g.sum(axes)


def pool(x: Array) -> tuple[Array, Array]:
    """2x2 maxima, and where in its window each was (first on ties)."""
    n, c, h, w = x.shape
    windows = x.reshape(n, c, h // 2, 2, w // 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, h // 2, w // 2, 4)
    place = windows.argmax(-1)
    return np.take_along_axis(windows, place[..., None], -1)[..., 0], place


def pool_backward(g: Array, place: Array) -> Array:
    """The gradient goes to the maximum of each window."""
    n, c, h, w = g.shape
    windows = np.zeros((n, c, h, w, 4))
    np.put_along_axis(windows, place[..., None], g[..., None], -1)
    return windows.reshape(n, c, h, w, 2, 2).transpose(0, 1, 2, 4, 3, 5).reshape(n, c, 2 * h, 2 * w)


def first_step(p: dict[str, Array], x: Array, y: Array, keep: Array) -> tuple[float, dict[str, Array]]:
    """Loss and gradients of the example's network in float64; `keep` is the dropout mask."""
    a1, patches1 = conv(x, p["features.0.weight"], p["features.0.bias"])
    b1, kept1 = norm(a1, p["features.1.weight"], p["features.1.bias"])
    r1 = np.maximum(b1, 0)
    a2, patches2 = conv(r1, p["features.3.weight"], p["features.3.bias"])
    b2, kept2 = norm(a2, p["features.4.weight"], p["features.4.bias"])
    pooled, place = pool(np.maximum(b2, 0))
    flat = pooled.reshape(len(x), -1)
    dropped = np.where(keep, flat / 0.75, 0.0)
    logits = dropped @ p["classifier.2.weight"].T + p["classifier.2.bias"]
    shifted = logits - logits.max(1, keepdims=True)
    logs = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    rows = np.arange(len(y))
    g: Array = np.exp(logs)
    g[rows, y] -= 1
    g /= len(y)
    grads = {"classifier.2.weight": g.T @ dropped, "classifier.2.bias": g.sum(0)}
    g = np.where(keep, (g @ p["classifier.2.weight"]) / 0.75, 0.0).reshape(pooled.shape)
    g = np.where(b2 > 0, pool_backward(g, place), 0.0)
    g, grads["features.4.weight"], grads["features.4.bias"] = norm_backward(g, kept2)
    g, grads["features.3.weight"], grads["features.3.bias"] = conv_backward(g, patches2, p["features.3.weight"])
    g = np.where(b1 > 0, g, 0.0)
    g, grads["features.1.weight"], grads["features.1.bias"] = norm_backward(g, kept1)
    _, grads["features.0.weight"], grads["features.0.bias"] = conv_backward(g, patches1, p["features.0.weight"])
    return float(-logs[rows, y].mean()), grads


def test_first_step_against_float64(digits: Any) -> None:
    graphc.manual_seed(0)
    learn, _ = digits.data()
    model = digits.Net()
    x, y = learn[:64]
    state = graphc.get_rng_state().numpy()
    keep = rand_array(state, shape=(64, 512), dtype=float32) >= 0.25
    loss = nn.CrossEntropyLoss()(model(x), y)
    loss.backward()
    p = {name: t.detach().numpy().astype(np.float64) for name, t in model.named_parameters()}
    expected, grads = first_step(p, x.numpy().astype(np.float64), y.numpy(), keep)
    assert abs(loss.item() - expected) < 1e-6 * expected
    for name, t in model.named_parameters():
        assert t.grad is not None
        # a bias before batch norm has gradient 0: what is left is the rounding of a sum of 4,096 terms of about 1e-4
        np.testing.assert_allclose(t.grad.numpy(), grads[name], atol=3e-7, rtol=2e-5, err_msg=name)


def _step(digits: Any, kind: str) -> tuple[Any, Callable[[], Any]]:
    """A training step of the example with effects on Python inside, and what they left."""
    graphc.manual_seed(0)
    model, loss_fn = digits.Net(), nn.CrossEntropyLoss()
    optimizer = digits.SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = digits.StepLR(optimizer, step_size=20, gamma=0.5)
    losses: list[graphc.Tensor] = []
    numbers: list[float] = []
    out = io.StringIO()

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss: graphc.Tensor = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss)
        print(f"{len(losses)} {loss:.6f}", file=out)
        scheduler.step()
        numbers.append(float(loss))
        return loss

    def seen() -> Any:
        rest = [x.detach().numpy().tobytes() for x in losses], numbers, out.getvalue(), optimizer.param_groups[0]["lr"]
        return [t.numpy().tobytes() for t in model.state_dict().values()], rest

    return (step if kind == "eager" else graphc.compile(step)), seen


def test_effects_on_python_inside_the_step(digits: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """All effects, eager's bits, and one native call a step."""
    monkeypatch.setattr(config, "lockstep", "always")
    learn, _ = digits.data()
    x, y = learn[:64]
    (eager, left), (locked, left_too) = (_step(digits, kind) for kind in ("eager", "lockstep"))
    for run in (eager, locked):
        graphc.manual_seed(1)  # dropout
        with pytest.warns(graphc.RecordingWarning, match="lockstep") if run is locked else nullcontext():
            for _ in range(30):
                run(x, y)
    assert left() == left_too()
    assert locked.stats.lockstep == 27
    assert [len(e.lockstep.scripts[0].segments) for e in locked._entries.values()] == [1]


def test_whole_run() -> None:
    command = [sys.executable, str(ROOT / "examples" / "digits.py")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=dict(os.environ), check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    text = done.stdout
    losses = re.findall(r"loss \S+  \((\S+)\)", text)
    assert len(losses) == 24 and losses[:12] == losses[12:]
    accuracy = re.search(r"held-out accuracy ([\d.]+)%", text)
    assert accuracy is not None and float(accuracy.group(1)) >= 97.0
    assert "1 trace of" in text and " 2 calls recorded" in text
    ran = re.search(r"(\d+) of (\d+) calls ran compiled, each as one native call: (\d+) made", text)
    assert ran is not None and ran.group(1) == ran.group(3) and int(ran.group(1)) == int(ran.group(2)) - 2
    assert "logits in a fresh process identical: True" in text
