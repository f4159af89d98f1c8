"""What grows: memory, Python objects, files and threads over many calls of one thing, or many compilations.

Run as a program in a process of its own; `tests/test_lifetime.py` runs few calls of each, a person may run more:

    PYTHONPATH=. python tests/lifetime_runs.py small,training 100000 2000

The numbers: how many calls are measured, and how many come before. `nogc` after them: without the garbage collector.
"""

from __future__ import annotations

import copy
import ctypes
import gc
import json
import os
import sys
import tempfile
import time
import warnings
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import graphc
from graphc import nn, optim
from graphc.config import config
from graphc.nn import functional as F
from graphc.runtime.code import library

Call = Callable[[int], Any]
MAKERS: dict[str, Callable[[], Call]] = {}  # by name: what makes the call that is repeated


class _MallInfo(ctypes.Structure):
    """What glibc's mallinfo2 gives; `uordblks`: bytes handed out from its heaps, `hblkhd`: bytes mapped one by one."""

    _fields_ = [
        *[(name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks")],
        *[(name, ctypes.c_size_t) for name in ("fsmblks", "uordblks", "fordblks", "keepcost")],
    ]


_libc = ctypes.CDLL(None)


def _malloc_bytes() -> int:
    """Bytes the C library has handed out, or 0 where it cannot say."""
    ask = getattr(_libc, "mallinfo2", None)
    if ask is None:
        return 0
    ask.restype = _MallInfo
    info = ask()
    return int(info.uordblks + info.hblkhd)


def measured() -> dict[str, int]:
    """What this process holds: KB resident, bytes of malloc, blocks of the interpreter, open files, threads."""
    gc.collect()  # also empties the interpreter's free lists
    return {
        "rss": int(Path("/proc/self/statm").read_text().split()[1]) * (os.sysconf("SC_PAGE_SIZE") // 1024),
        "malloc": _malloc_bytes(),
        "blocks": sys.getallocatedblocks(),
        "files": len(os.listdir("/proc/self/fd")),
        "threads": len(os.listdir("/proc/self/task")),
    }


def maker(make: Callable[[], Call]) -> Callable[[], Call]:
    MAKERS[make.__name__] = make
    return make


def model() -> nn.Module:
    graphc.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.LayerNorm(16), nn.GELU(), nn.Linear(16, 4))


# ---------------------------------------------------------------- calls of one thing


@maker
def small() -> Call:
    x, w = graphc.ones(4, 4), graphc.ones(4, 4)
    f = graphc.compile(lambda x: (x @ w + 1).relu().sum(-1))
    return lambda k: f(x)


@maker
def several_results() -> Call:
    x = graphc.ones(4, 6)
    f = graphc.compile(lambda x: {"views": x.split(2, 1), "same": x, "n": 3, "y": (x + 1, x.t())})
    return lambda k: f(x)


@maker
def new_inputs() -> Call:
    f = graphc.compile(lambda x, y: (x * y).softmax(-1).to(graphc.float16))
    a = np.ones((3, 7), np.float32)
    return lambda k: f(graphc.from_numpy(a), graphc.tensor([1.0, 2.0, 3.0] * 2 + [float(k % 5)]))


@maker
def numbers() -> Call:
    x = graphc.ones(3)
    f = graphc.compile(lambda x, n, s: x * n + s)
    return lambda k: f(x, k, k * 0.5)


@maker
def training() -> Call:
    net, target = model(), graphc.tensor([0, 1, 2, 3, 0])
    opt = optim.Adam(net.parameters(), lr=0.001)

    @graphc.compile
    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(net(x), target)
        loss.backward()
        opt.step()
        return loss.detach()

    x = graphc.randn(5, 8)
    return lambda k: step(x)


@maker
def schedule() -> Call:
    net = model()
    opt = optim.SGD(net.parameters(), lr=0.001, momentum=0.9)
    plan = optim.lr_scheduler.CosineAnnealingLR(opt, 50)

    @graphc.compile
    def step(x: Any) -> Any:
        opt.zero_grad()
        loss = F.dropout(net(x), 0.2).square().mean()
        loss.backward()
        opt.step()
        plan.step()
        return loss.detach()

    x = graphc.randn(5, 8)
    return lambda k: step(x)


@maker
def two_traces() -> Call:
    @graphc.compile
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x - 1

    signs = (graphc.ones(5), -graphc.ones(5))
    return lambda k: f(signs[k % 3 % 2])


@maker
def backward_outside() -> Call:
    net = model()
    f = graphc.compile(lambda x: net(x).square().mean())
    x = graphc.randn(5, 8)

    def call(k: int) -> Any:
        net.zero_grad()
        f(x).backward()

    return call


@maker
def backward_dropped() -> Call:
    net = model()
    f = graphc.compile(lambda x: net(x).square().mean())
    x = graphc.randn(5, 8)
    return lambda k: f(x)


@maker
def compiled_model() -> Call:
    net = graphc.compile(model())
    x = graphc.randn(5, 8)
    return lambda k: net(x)


@maker
def lockstep() -> Call:
    config.lockstep = "always"
    w, seen = graphc.ones(8, 8), [0]

    @graphc.compile
    def f(x: Any) -> Any:
        y = (x @ w).relu()
        seen[0] = len(str(y.numpy()[0, 0]))
        return (y + 1).sum(-1)

    x = graphc.ones(4, 8)
    return lambda k: f(x)


@maker
def lockstep_training() -> Call:
    config.lockstep = "always"
    net, target, losses = model(), graphc.tensor([0, 1, 2, 3, 0]), [0.0]
    opt = optim.AdamW(net.parameters(), lr=0.001)

    @graphc.compile
    def step(x: Any) -> None:
        opt.zero_grad()
        loss = F.cross_entropy(net(x), target)
        losses[0] = float(loss.detach().numpy())
        loss.backward()
        opt.step()

    x = graphc.randn(5, 8)
    return lambda k: step(x)


@maker
def loaded() -> Call:
    program = graphc.trace(model(), graphc.ones(5, 8))
    with tempfile.TemporaryDirectory() as folder:
        program.save(Path(folder) / "m.gcz")
        run = graphc.load(Path(folder) / "m.gcz")
    x = graphc.randn(5, 8)
    return lambda k: run(x)


@maker
def eager() -> Call:
    x, w = graphc.randn(4, 6), graphc.randn(6, 5)
    places = graphc.tensor([0, 2])

    def call(k: int) -> Any:
        y = (x @ w + 1).softmax(-1)
        y[places] *= 2.0
        y[0:2].t().add_(1)
        return graphc.cat([y, y]).sort(0).values.cumsum(0)[:, ::2].sum().item()

    return call


@maker
def eager_training() -> Call:
    net, target = model(), graphc.tensor([0, 1, 2, 3, 0])
    opt = optim.Adam(net.parameters(), lr=0.001)
    x = graphc.randn(5, 8)

    def call(k: int) -> Any:
        opt.zero_grad()
        loss = F.cross_entropy(F.dropout(net(x), 0.1), target)
        loss.backward()
        opt.step()
        return loss.item()

    return call


# ---------------------------------------------------------------- graphs of gradients, without the collector


def leaf() -> Any:
    return graphc.tensor([[1.0, -2.0, 0.5], [0.25, 3.0, -1.0]], requires_grad=True)


@maker
def tape_backward() -> Call:
    x, w = leaf(), graphc.ones(3, 3, requires_grad=True)

    def call(k: int) -> Any:
        x.grad = w.grad = None
        y = (x @ w) * 3.0
        part = y[0]
        part.mul_(2.0)
        (y.softmax(-1) * x).sum().backward()

    return call


@maker
def tape_dropped() -> Call:
    x, w = leaf(), graphc.ones(3, 3, requires_grad=True)

    def call(k: int) -> Any:
        y = (x @ w).exp()
        y.retain_grad()
        return y[0].mul_(2.0).sum(), y.grad_fn, y.view(6), y.detach()

    return call


@maker
def tape_hooks() -> Call:
    x, seen = leaf(), [0]

    def count(*_: Any) -> None:
        seen[0] += 1

    def call(k: int) -> Any:
        x.grad = None
        y = x * 2
        handle = y.register_hook(count)
        z = y.detach()
        y.register_hook(lambda g: g + z * 0)
        y.grad_fn.register_hook(count)
        y.grad_fn.register_prehook(count)
        x.register_post_accumulate_grad_hook(count).remove()
        y.sum().backward()
        handle.remove()

    return call


@maker
def tape_second_order() -> Call:
    x = leaf()

    def call(k: int) -> Any:
        x.grad = None
        (g,) = graphc.autograd.grad((x.exp() * x).sum(), x, create_graph=True)
        g.square().sum().backward()

    return call


@maker
def tape_create_graph_into_grad() -> Call:
    x = leaf()

    def call(k: int) -> Any:
        (x * x).sum().backward(create_graph=True)
        x.grad = None

    return call


@maker
def tape_checkpoint() -> Call:
    x, layer = leaf(), nn.Linear(3, 3)

    def call(k: int) -> Any:
        x.grad = None
        graphc.utils.checkpoint.checkpoint(lambda y: F.gelu(layer(y)), x, use_reentrant=False).sum().backward()
        graphc.utils.checkpoint.checkpoint(layer, x, use_reentrant=False)

    return call


class _Cube(graphc.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        out = x * x * x
        ctx.save_for_backward(x, out)
        ctx.other = x
        return out

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        x, _ = ctx.saved_tensors
        return 3 * x * x * g


@maker
def tape_function() -> Call:
    x = leaf()

    def call(k: int) -> Any:
        x.grad = None
        _Cube.apply(x).sum().backward()
        _Cube.apply(x)
        (g,) = graphc.autograd.grad(_Cube.apply(x * 2).sum(), x, create_graph=True)
        g.sum().backward()

    return call


@maker
def tape_failed() -> Call:
    x = leaf()

    def call(k: int) -> Any:
        y = x.exp()
        z = y.sin()
        y.add_(1)  # sin needed what y was
        try:
            z.sum().backward()
        except graphc.errors.GraphcError:
            return
        raise SystemExit("that must be an error")

    return call


@maker
def modules() -> Call:
    def call(k: int) -> Any:
        net = model()
        net.register_forward_hook(lambda *_: None)
        opt = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
        net(graphc.ones(2, 8)).sum().backward()
        opt.step()
        return copy.deepcopy(net).state_dict()

    return call


@maker
def recurrent() -> Call:
    net = nn.LSTM(3, 4, num_layers=2, bidirectional=True)
    x = graphc.ones(5, 2, 3)

    def call(k: int) -> Any:
        net.zero_grad()
        net(x)[0].sum().backward()

    return call


@maker
def compiled_dropped() -> Call:
    """Compiled functions and Modules that nobody holds any more, used or not."""

    def call(k: int) -> Any:
        net = graphc.compile(nn.Linear(3, 2))
        f = graphc.compile(lambda x: net(x).relu().sum())
        for _ in range(4):
            f(graphc.ones(4, 3)).backward()
            net(graphc.ones(1, 3))
        return weakref.ref(f)

    return call


# ---------------------------------------------------------------- compilations


@maker
def compiles() -> Call:
    """Another graph each time, dropped at once."""
    library()._kept = 32  # kernels, which may serve again
    names = ("relu", "exp", "tanh", "sigmoid", "sin", "cos", "abs", "neg")

    def call(k: int) -> Any:
        steps = [names[k >> (3 * j) & 7] for j in range(5)]

        def f(x: Any) -> Any:
            for step in steps:
                x = getattr(x, step)() * 0.5
            return x.sum(-1)

        run = graphc.compile(f)
        x = graphc.ones(2 + k % 7, 3)
        for _ in range(3):
            run(x)

    return call


@maker
def compiled_training_steps() -> Call:
    library()._kept = 32

    def call(k: int) -> Any:
        net = nn.Sequential(nn.Linear(3, 4 + k % 10), nn.ReLU(), nn.Linear(4 + k % 10, 2))
        opt = optim.Adam(net.parameters())

        @graphc.compile
        def step(x: Any) -> Any:
            opt.zero_grad()
            loss = net(x).square().sum()
            loss.backward()
            opt.step()
            return loss.detach()

        x = graphc.ones(2, 3)
        for _ in range(4):
            step(x)

    return call


@maker
def one_that_changes() -> Call:
    """One function that is recorded again and again, for shapes, numbers and objects never seen before."""

    @graphc.compile
    def f(x: Any, scale: Any) -> Any:
        return (x * scale).tanh().sum(-1)

    def call(k: int) -> Any:
        x = graphc.ones(1 + k % 17, 1 + k // 17)
        for _ in range(3):
            f(x, 0.5 + k)

    return call


@maker
def one_that_is_reset() -> Call:
    @graphc.compile
    def f(x: Any, offset: Any) -> Any:
        return (x + offset).relu()

    def call(k: int) -> Any:
        for _ in range(3):
            f(graphc.ones(1 + k % 40, 3), k % 2 == 0)
        if k % 10 == 9:
            f.reset()

    return call


@maker
def eager_shapes() -> Call:
    def call(k: int) -> Any:
        x = graphc.ones(1 + k % 19, 1 + k // 19)
        return (x * 2 + 1).softmax(-1).sum(0)

    return call


@maker
def kernels() -> Call:
    """New kernels each time: constants in the code."""

    def call(k: int) -> Any:
        f = graphc.compile(lambda x: x.sin().clamp(-1.0 - k, 2.0 + k).pow(2 + k % 9).sum(k % 2))
        for _ in range(3):
            f(graphc.ones(3, 2))

    return call


# ---------------------------------------------------------------- measuring


def growth(name: str, calls: int, warm: int, collect: bool = True) -> dict[str, float]:
    """What `calls` calls leave behind, after `warm` of them.

    Not `collect`: without Python's garbage collector, and "cycles" is how much it then finds to do.
    """
    call = MAKERS[name]()
    for k in range(warm):
        call(k)
    before, started = measured(), time.perf_counter()
    if not collect:
        gc.disable()
    for k in range(warm, warm + calls):
        call(k)
    seconds, cycles = time.perf_counter() - started, 0 if collect else gc.collect()
    after = measured()
    gc.enable()
    return {"seconds": seconds, "cycles": cycles, **{key: after[key] - before[key] for key in after}}


def main(names: str, calls: str, warm: str, *options: str) -> None:
    """Measure each of the names (with commas between) and print what was found as JSON."""
    warnings.simplefilter("ignore", graphc.RecordingWarning)
    print(json.dumps({n: growth(n, int(calls), int(warm), "nogc" not in options) for n in names.split(",")}))


if __name__ == "__main__":
    main(*sys.argv[1:])
