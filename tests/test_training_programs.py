"""Training programs as users write them: each one trace, each eager's bits at every step."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
from graphc.testing import assert_same


class Block(nn.Module):
    """A transformer block: causal attention, layer norm, GELU, dropout, residuals."""

    def __init__(self, width: int = 24, heads: int = 3, p: float = 0.1) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.act, self.drop = nn.GELU(), nn.Dropout(p)

    def attend(self, x: Any) -> Any:
        b, t, d = x.shape
        q, k, v = (y.view(b, t, self.heads, d // self.heads).transpose(1, 2) for y in self.qkv(x).chunk(3, dim=-1))
        scores = q @ k.transpose(-2, -1) / math.sqrt(d // self.heads)
        hidden = graphc.triu(graphc.ones(t, t, dtype=graphc.bool), diagonal=1)
        weights = self.drop(F.softmax(scores.masked_fill(hidden, float("-inf")), dim=-1))
        return self.proj((weights @ v).transpose(1, 2).reshape(b, t, d))

    def forward(self, x: Any) -> Any:
        x = x + self.drop(self.attend(self.norm1(x)))
        return x + self.drop(self.down(self.act(self.up(self.norm2(x)))))


class Language(nn.Module):
    """Embeddings, one block, logits through the embedding's own weight."""

    def __init__(self, vocab: int = 17, width: int = 24, context: int = 8) -> None:
        super().__init__()
        self.tokens, self.places = nn.Embedding(vocab, width), nn.Embedding(context, width)
        self.block, self.norm = Block(width), nn.LayerNorm(width)
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, ids: Any) -> Any:
        x = self.tokens(ids) + self.places(graphc.arange(ids.shape[1]))
        return self.head(self.norm(self.block(x)))


def transformer(steps: int) -> tuple[Any, Any, Any, Any]:
    """Model, optimiser, schedule and step: AdamW, warm-up and cosine, clipping, two accumulated micro-batches."""
    graphc.manual_seed(3)
    model = Language()
    optimizer = graphc.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=0.01)
    schedule = graphc.optim.lr_scheduler.LambdaLR(
        optimizer, lambda k: min(1.0, (k + 1) / 50) * 0.5 * (1 + math.cos(math.pi * k / steps))
    )

    def step(ids: Any, targets: Any) -> Any:
        optimizer.zero_grad()
        total = 0.0
        for part, wanted in zip(ids.chunk(2), targets.chunk(2), strict=True):
            loss = F.cross_entropy(model(part).flatten(0, 1), wanted.flatten()) / 2
            loss.backward()
            total = total + loss.detach()
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        return total, norm

    return model, optimizer, schedule, step


def batches(count: int, seed: int = 0) -> list[tuple[Any, Any]]:
    """Sequences that count upwards modulo 17 from a random start: learnable."""
    rng = np.random.default_rng(seed)
    made = []
    for _ in range(count):
        ids = (rng.integers(0, 17, (4, 1)) + np.arange(9)) % 17
        made.append((graphc.from_numpy(ids[:, :-1].copy()), graphc.from_numpy(ids[:, 1:].copy())))
    return made


def test_a_transformer_under_a_schedule_of_a_thousand_steps_is_one_trace() -> None:
    data = batches(20)
    runs = []
    for compiled in (False, True):
        model, optimizer, schedule, step = transformer(1000)
        run = graphc.compile(step, fullgraph=True) if compiled else step
        count = 1000 if compiled else 40  # eager's losses are compared as far as it ran
        losses = []
        for k in range(count):
            loss, norm = run(*data[k % len(data)])
            losses.append((loss.item().hex(), norm.item().hex()))
            schedule.step()
            if k == 39:
                runs.append((list(losses), {n: p.detach().numpy().copy() for n, p in model.named_parameters()}))
        if compiled:
            assert run.stats.recordings == 2 and run.stats.hits == 998 and len(run.traces) == 1
            assert float.fromhex(losses[-1][0]) < 0.2 < float.fromhex(losses[0][0])
            assert optimizer.param_groups[0]["lr"] < 1e-7
    assert runs[0][0] == runs[1][0]
    assert all((runs[0][1][name] == runs[1][1][name]).all() for name in runs[0][1])


def test_a_transformer_step_is_the_same_every_way() -> None:
    model, optimizer, _, step = transformer(1000)
    compiled = assert_same(step, *batches(1)[0], state=[model, optimizer], calls=5)
    assert compiled.stats.recordings == 2 and len(compiled.traces) == 1


def test_a_gan_step_with_two_optimisers() -> None:
    graphc.manual_seed(4)
    generator = nn.Sequential(nn.Linear(5, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 8), nn.Tanh())
    critic = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Dropout(0.2), nn.Linear(16, 1), nn.Flatten(0))
    opt_g = graphc.optim.Adam(generator.parameters(), lr=2e-3, betas=(0.5, 0.999))
    opt_c = graphc.optim.RMSprop(critic.parameters(), lr=1e-3, momentum=0.5)
    bce = F.binary_cross_entropy_with_logits

    def step(real: Any) -> Any:
        noise = graphc.randn(real.shape[0], 5)
        opt_c.zero_grad()
        fake = generator(noise)
        r, f = critic(real), critic(fake.detach())
        loss_c = bce(r, graphc.ones_like(r)) + bce(f, graphc.zeros_like(f))
        loss_c.backward()
        opt_c.step()
        opt_g.zero_grad()
        f = critic(fake)
        loss_g = bce(f, graphc.ones_like(f))
        loss_g.backward()
        opt_g.step()
        return loss_c.detach(), loss_g.detach()

    compiled = assert_same(step, graphc.randn(12, 8), state=[generator, critic, opt_g, opt_c], calls=6)
    assert compiled.stats.recordings == 2


def test_tied_weights() -> None:
    graphc.manual_seed(5)
    encoder = nn.Linear(12, 4, bias=False)
    decoder = nn.Linear(4, 12)
    decoder.weight = nn.Parameter(encoder.weight.detach().t().contiguous())
    tied = nn.ModuleList([nn.Embedding(9, 12), nn.Linear(12, 9, bias=False), encoder, decoder])
    tied[1].weight = tied[0].weight
    optimizer = graphc.optim.SGD(tied.parameters(), lr=0.1, momentum=0.9, nesterov=True)

    def step(ids: Any) -> Any:
        optimizer.zero_grad()
        x = tied[0](ids)
        rebuilt = F.linear(F.linear(x, encoder.weight), encoder.weight.t())
        loss = F.cross_entropy(tied[1](rebuilt + decoder(encoder(x))), ids) + (rebuilt - x).square().mean()
        loss.backward()
        optimizer.step()
        return loss.detach()

    assert tied[1].weight is tied[0].weight and len(list(tied.parameters())) == 4
    compiled = assert_same(step, graphc.arange(9), state=[tied, optimizer], calls=6)
    assert compiled.stats.recordings == 2 and tied[1].weight is tied[0].weight


def test_an_rnn_written_as_a_python_loop() -> None:
    graphc.manual_seed(6)

    class Loop(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.outer, self.out = nn.Linear(6, 10), nn.Linear(10, 10, bias=False), nn.Linear(10, 3)

        def forward(self, x: Any) -> Any:
            h = x.new_zeros(x.shape[0], 10)
            steps = []
            for t in range(x.shape[1]):
                h = graphc.tanh(self.inner(x[:, t]) + self.outer(h))
                steps.append(h)
            return self.out(graphc.stack(steps, dim=1))

    model = Loop()
    optimizer = graphc.optim.Adagrad(model.parameters(), lr=0.05)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        loss = F.mse_loss(model(x), y)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        return loss.detach()

    x = graphc.randn(5, 11, 6)
    compiled = assert_same(step, x, graphc.randn(5, 11, 3), state=[model, optimizer], calls=6)
    assert compiled.stats.recordings == 2


def test_a_gradient_penalty_is_compiled_with_its_second_derivatives() -> None:
    graphc.manual_seed(7)
    critic = nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1), nn.SiLU(), nn.Flatten(), nn.Linear(4 * 36, 8), nn.Tanh(), nn.Linear(8, 1)
    )
    optimizer = graphc.optim.Adam(critic.parameters(), lr=1e-3)

    def step(real: Any, fake: Any) -> Any:
        optimizer.zero_grad()
        mix = graphc.rand(real.shape[0], 1, 1, 1)
        between = (mix * real + (1 - mix) * fake).requires_grad_()
        (slope,) = graphc.autograd.grad(critic(between).sum(), between, create_graph=True)
        penalty = ((slope.flatten(1).norm(2, dim=1) - 1) ** 2).mean()
        loss = critic(fake).mean() - critic(real).mean() + 10 * penalty
        loss.backward()
        optimizer.step()
        return loss.detach(), penalty.detach()

    inputs = graphc.randn(6, 1, 6, 6), graphc.randn(6, 1, 6, 6)
    compiled = assert_same(step, *inputs, state=[critic, optimizer], calls=6)
    assert compiled.stats.recordings == 2
