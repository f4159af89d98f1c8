"""Train a small CNN on real handwritten digits, line by line and compiled; ship it as one file; run that elsewhere.

Both trainings print the same losses, bit for bit. Run it with: python examples/digits.py
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import graphc
import graphc.nn as nn
from graphc.optim import SGD
from graphc.optim.lr_scheduler import StepLR
from graphc.utils.data import DataLoader, TensorDataset

EPOCHS, BATCH = 12, 64


class Net(nn.Module):
    """8x8 images to ten logits."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(),
            nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2),
        )  # fmt: skip
        self.classifier = nn.Sequential(nn.Flatten(), nn.Dropout(0.25), nn.Linear(32 * 4 * 4, 10))

    def forward(self, x: graphc.Tensor) -> graphc.Tensor:
        """[N, 1, 8, 8] -> [N, 10]."""
        return self.classifier(self.features(x))


def data() -> tuple[TensorDataset, TensorDataset]:
    """1,797 scans of handwritten digits: 1,437 to learn from, 360 held out."""
    digits = load_digits()
    images = graphc.from_numpy((digits.images / 16.0).astype(np.float32)[:, None])
    labels = graphc.from_numpy(digits.target.astype(np.int64))
    order = graphc.randperm(len(labels))
    images, labels = images[order], labels[order]
    return TensorDataset(images[:1437], labels[:1437]), TensorDataset(images[1437:], labels[1437:])


def train(compiled: bool) -> tuple[Net, list[float], TensorDataset, float]:
    """Train from the same seed; returns the model, every loss, the held-out set and the seconds it took."""
    graphc.manual_seed(0)
    learn, held_out = data()
    model = Net()
    loss_fn = nn.CrossEntropyLoss()
    optimizer = SGD(model.parameters(), lr=0.05, momentum=0.9)
    scheduler = StepLR(optimizer, step_size=4, gamma=0.5)

    def step(x: graphc.Tensor, y: graphc.Tensor) -> graphc.Tensor:
        optimizer.zero_grad()
        loss = loss_fn(model(x), y)
        loss.backward()
        optimizer.step()
        return loss

    run = graphc.compile(step, fullgraph=True) if compiled else step
    losses: list[float] = []
    start = time.perf_counter()
    for epoch in range(EPOCHS):
        model.train()
        for x, y in DataLoader(learn, batch_size=BATCH, shuffle=True, drop_last=True):
            losses.append(run(x, y).item())
        scheduler.step()
        print(f"  epoch {epoch + 1:2}  loss {losses[-1]:.6f}  ({losses[-1].hex()})")
    seconds = time.perf_counter() - start
    if compiled:
        (trace,) = run.traces
        native = trace.executable.stats
        print(f"  1 trace of {len(trace.graph.nodes)} nodes, {run.stats.recordings} calls recorded;")
        ran, made = f"{run.stats.hits} of {run.stats.calls}", native.native_calls
        print(f"  {ran} calls ran compiled, each as one native call: {made} made")
    return model, losses, held_out, seconds


RELOAD = """
import sys, numpy as np, graphc
program = graphc.load(sys.argv[1])           # no class of ours is defined here
np.save(sys.argv[3], program(graphc.from_numpy(np.load(sys.argv[2]))).numpy())
"""


def ship(model: Net, images: graphc.Tensor, logits: graphc.Tensor) -> None:
    """Write one file, run it in a fresh process, compare the logits, look inside."""
    with tempfile.TemporaryDirectory() as folder:
        file, inputs, outputs = (str(Path(folder) / name) for name in ("digits.gcz", "x.npy", "y.npy"))
        graphc.trace(model, images, dynamic={"x": {0: "N"}}).save(file)
        np.save(inputs, images.numpy())
        subprocess.run([sys.executable, "-c", RELOAD, file, inputs, outputs], check=True)
        same = np.load(outputs).tobytes() == logits.numpy().tobytes()
        print(f"  {Path(file).stat().st_size:,} bytes; logits in a fresh process identical: {same}")
        if not same:
            raise SystemExit("the reloaded model differs")
        subprocess.run([sys.executable, "-m", "graphc", "explain", file], check=True)


def main() -> None:
    """The whole path."""
    print("line by line:")
    _, eager, _, eager_seconds = train(compiled=False)
    print("compiled:")
    model, compiled, held_out, seconds = train(compiled=True)
    if eager != compiled:
        raise SystemExit("the losses differ")
    print(f"{len(eager)} losses identical to the bit; line by line {eager_seconds:.1f} s, compiled {seconds:.1f} s")
    model.eval()
    images, labels = held_out.tensors
    with graphc.no_grad():
        logits = model(images)
    accuracy = (logits.argmax(1) == labels).float().mean().item()
    print(f"held-out accuracy {accuracy:.1%}")
    print("one file:")
    with graphc.no_grad():
        ship(model, images, logits)


if __name__ == "__main__":
    main()
