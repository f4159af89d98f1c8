"""Packed sequences, against PyTorch where it is installed and against plain loops; eager and compiled bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc import nn
from graphc.errors import ArgumentError, DTypeError, ShapeError
from graphc.nn.utils import rnn

SORTED, ANY = [5, 3, 3, 1], [1, 5, 3, 3]


def padded(seed: int = 0, steps: int = 6, wide: int = 4) -> Any:
    """[T, 4, wide] random numbers."""
    return graphc.tensor(np.random.default_rng(seed).standard_normal((steps, 4, wide)))


def packed() -> rnn.PackedSequence:
    """Four random sequences in order."""
    return rnn.pack_padded_sequence(padded(), SORTED)


LAYERS: list[tuple[str, dict[str, Any], bool]] = [
    ("LSTM", {}, True),
    ("LSTM", {"num_layers": 2, "bidirectional": True}, False),
    ("LSTM", {"num_layers": 2, "bidirectional": True, "proj_size": 3, "bias": False}, True),
    ("GRU", {"bidirectional": True, "batch_first": True}, False),
    ("RNN", {"num_layers": 2}, False),
]


@pytest.mark.parametrize(("kind", "options", "in_order"), LAYERS)
def test_layers_as_torch(kind: str, options: dict[str, Any], in_order: bool) -> None:
    """Names, outputs, states and gradients from no state and from a given one."""
    torch = pytest.importorskip("torch")
    lengths = SORTED if in_order else ANY
    mine = getattr(nn, kind)(4, 5, **options).double()
    theirs = getattr(torch.nn, kind)(4, 5, **options).double()
    assert list(mine.state_dict()) == list(theirs.state_dict()) and repr(mine) == repr(theirs)
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in mine.state_dict().items()})
    first = options.get("batch_first", False)

    def run(lib: Any, layer: Any, utils: Any) -> list[Any]:
        x = lib.tensor(padded().transpose(0, 1).numpy() if first else padded().numpy(), requires_grad=True)
        rows = utils.pack_padded_sequence(x, lib.tensor(lengths), first, in_order)
        _, start = layer(rows)
        found, ends = layer(rows, start)
        out, counts = utils.pad_packed_sequence(found, first, -1.0, 7)
        ends = ends if isinstance(ends, tuple) else (ends,)
        sum((y * y).sum() for y in (out, *ends)).backward()
        return [counts, found.batch_sizes, out, *ends, x.grad, *(p.grad for p in layer.parameters())]

    for a, b in zip(run(graphc, mine, rnn), run(torch, theirs, torch.nn.utils.rnn), strict=True):
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), rtol=1e-11, atol=1e-13)


def test_packed_is_each_sequence_alone() -> None:
    """A packed batch gives each sequence the bits it gets alone, in both directions."""
    layer = nn.GRU(4, 3, bidirectional=True).double()
    x = padded()
    layer.requires_grad_(False)
    out, last = layer(rnn.pack_padded_sequence(x, ANY, enforce_sorted=False))
    for k, y in enumerate(rnn.unpack_sequence(out)):
        alone, end = layer(x[: ANY[k], k])
        assert y.numpy().tobytes() == alone.numpy().tobytes()
        assert last[:, k].numpy().tobytes() == end.numpy().tobytes()


def test_compiled_layer() -> None:
    """Packing, two directions and unpacking in one recording; other lengths get a recording of their own."""
    layer = nn.LSTM(4, 3, bidirectional=True)

    def run(x: Any, lengths: Any) -> Any:
        layer.zero_grad()
        out, (h, c) = layer(rnn.pack_padded_sequence(x, lengths, enforce_sorted=False))
        y, counts = rnn.pad_packed_sequence(out, batch_first=True, padding_value=2.0)
        ((y * y).sum() + h.sum() + c.sum()).backward()
        return y.detach(), counts, h.detach(), c.detach()

    x = padded().float()
    graphc.testing.assert_same(run, x, graphc.tensor(ANY), state=layer)
    compiled = graphc.compile(run, fullgraph=True)
    for lengths in (ANY, [4, 2, 6, 2]):
        for _ in range(3):
            assert compiled(x, graphc.tensor(lengths))[1].tolist() == lengths
    assert compiled.stats.hits == 2 and compiled.stats.compilations == 2


def test_packed_sequences_cross_the_border() -> None:
    """A PackedSequence as argument and as result of a compiled function."""
    layer = nn.RNN(4, 3)
    graphc.testing.assert_same(lambda p: layer(p), packed().float(), state=layer)
    again = graphc.compile(lambda p: p._replace(data=p.data * 2))(packed())
    assert type(again) is rnn.PackedSequence and again.sorted_indices is None


def test_round_trips() -> None:
    """pack, unpack and pad undo each other, for integers too."""
    parts = [graphc.arange(n) + 10 * n for n in (2, 4, 1)]
    rows = rnn.pack_sequence(parts, enforce_sorted=False)
    assert rows.data.tolist() == [40, 20, 10, 41, 21, 42, 43]
    assert rows.batch_sizes.tolist() == [3, 2, 1, 1]
    assert rows.sorted_indices is not None and rows.sorted_indices.tolist() == [1, 0, 2]
    assert [p.tolist() for p in rnn.unpack_sequence(rows)] == [p.tolist() for p in parts]
    whole, lengths = rnn.pad_packed_sequence(rows, batch_first=True, padding_value=-1)
    assert whole.tolist() == [[20, 21, -1, -1], [40, 41, 42, 43], [10, -1, -1, -1]] and lengths.tolist() == [2, 4, 1]
    assert [p.tolist() for p in rnn.unpad_sequence(whole, [2, 4, 1], True)] == [p.tolist() for p in parts]
    made = rnn.PackedSequence(rows.data, rows.batch_sizes, rows.sorted_indices)
    assert made.unsorted_indices is not None and made.unsorted_indices.tolist() == [1, 0, 2]
    assert made.double().data.dtype is graphc.float64 and made.to(graphc.int64) is made and not made.is_cuda


REFUSED: list[tuple[type[Exception], str, Any]] = [
    (ArgumentError, "enforce_sorted=False", lambda: rnn.pack_padded_sequence(padded(), ANY)),
    (ArgumentError, "must be 1 to 6", lambda: rnn.pack_padded_sequence(padded(), [3, 2, 1, 0])),
    (ArgumentError, "must be 1 to 6", lambda: rnn.pack_padded_sequence(padded(), [7, 2, 1, 1])),
    (ShapeError, "4 sequences", lambda: rnn.pack_padded_sequence(padded(), [3, 2])),
    (ShapeError, "one dimension", lambda: rnn.pack_padded_sequence(padded(), graphc.ones(2, 2))),
    (DTypeError, "integers", lambda: rnn.pack_padded_sequence(padded(), graphc.ones(4))),
    (ShapeError, r"\[T, N", lambda: rnn.pack_padded_sequence(graphc.ones(4), [1])),
    (ArgumentError, "total_length", lambda: rnn.pad_packed_sequence(packed(), total_length=4)),
    (ArgumentError, "use pack_padded_sequence", lambda: rnn.PackedSequence(graphc.ones(3))),
    (ShapeError, "packed", lambda: nn.GRU(3, 2)(packed())),
    (ArgumentError, "only supported for LSTM", lambda: nn.GRU(3, 2, proj_size=1)),
    (ArgumentError, "below hidden_size", lambda: nn.LSTM(3, 2, proj_size=2)),
]  # fmt: skip


@pytest.mark.parametrize(("error", "match", "call"), REFUSED)
def test_refused(error: type[Exception], match: str, call: Any) -> None:
    """What does not fit is refused with the reason."""
    with pytest.raises(error, match=match):
        call()


def test_projection_and_places_of_arguments() -> None:
    """proj_size compiled; RNN takes the nonlinearity in the fourth place, as PyTorch."""
    layer = nn.LSTM(4, 5, proj_size=2)
    out, (h, c) = layer(padded().float())
    assert out.shape == (6, 4, 2) and h.shape == (1, 4, 2) and c.shape == (1, 4, 5)
    graphc.testing.assert_same(lambda x: layer(x), padded().float(), state=layer)
    assert nn.RNN(3, 4, 1, "relu").nonlinearity == "relu"
