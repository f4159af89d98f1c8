"""Recurrent layers: a Python loop over time, in PyTorch's formulas, gate order and parameter names."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError, ShapeError
from graphc.frontend.creation import empty, zeros
from graphc.frontend.device import check_device
from graphc.frontend.functional import (
    cat,
    chunk,
    flip,
    index_select,
    linear,
    narrow,
    relu,
    sigmoid,
    split,
    stack,
    tanh,
    transpose,
    unbind,
)
from graphc.frontend.nn import init
from graphc.frontend.nn.checks import counts
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.pointwise import dropout
from graphc.frontend.nn.rnn_utils import PackedSequence, host_ints
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType

__all__ = ["GRU", "LSTM", "RNN", "GRUCell", "LSTMCell", "RNNCell"]

State = tuple[Tensor, ...]
Step = Callable[[Tensor, State], State]


def _lstm(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    """`x`: what the input adds to the four gates. i, f, g, o; c' = f c + i g; h' = o tanh(c')."""
    h, c = state
    i, f, g, o = chunk(x + linear(h, w, b), 4, -1)
    c = sigmoid(f) * c + sigmoid(i) * tanh(g)
    return sigmoid(o) * tanh(c), c


def _gru(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    """r, z, n; n takes r times the hidden part; h' = (1 - z) n + z h."""
    (h,) = state
    xr, xz, xn = chunk(x, 3, -1)
    hr, hz, hn = chunk(linear(h, w, b), 3, -1)
    z = sigmoid(xz + hz)
    n = tanh(xn + sigmoid(xr + hr) * hn)
    return ((1.0 - z) * n + z * h,)


def _tanh(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    return (tanh(x + linear(state[0], w, b)),)


def _relu(x: Tensor, state: State, w: Tensor, b: Tensor | None) -> State:
    return (relu(x + linear(state[0], w, b)),)


_STEPS = {"LSTM": _lstm, "GRU": _gru, "tanh": _tanh, "relu": _relu}
_GATES = {"LSTM": 4, "GRU": 3, "tanh": 1, "relu": 1}


def _over_time(step: Step, xs: tuple[Tensor, ...], state: State) -> tuple[Tensor, State]:
    """All outputs [T, N, …] and the last state of the steps over `xs`."""
    outs = []
    for x in xs:
        state = step(x, state)
        outs.append(state[0])
    return stack(outs, 0), state


def _rows(state: State, start: int, stop: int) -> State:
    return tuple(narrow(s, 0, start, stop - start) for s in state)


def _joined(parts: list[State]) -> State:
    return parts[0] if len(parts) == 1 else tuple(cat(list(same), 0) for same in zip(*parts, strict=True))


def _over_rows(step: Step, xs: tuple[Tensor, ...], sizes: list[int], state: State) -> tuple[Tensor, State]:
    """As _over_time for packed steps, of which step t has sizes[t] rows: sequences that are over keep their state."""
    outs, over = [], []
    for x, now, before in zip(xs, sizes, [sizes[0], *sizes], strict=False):
        if now < before:
            over.append(_rows(state, now, before))
            state = _rows(state, 0, now)
        state = step(x, state)
        outs.append(state[0])
    return cat(outs, 0), _joined([state, *reversed(over)])


def _over_rows_back(step: Step, xs: tuple[Tensor, ...], sizes: list[int], start: State) -> tuple[Tensor, State]:
    """As _over_rows from the last step to the first: a sequence joins in with its own start at its last element."""
    outs, state = [], _rows(start, 0, sizes[-1])
    for x, now, before in zip(reversed(xs), reversed(sizes), [sizes[-1], *reversed(sizes)], strict=False):
        if now > before:
            state = _joined([state, _rows(start, before, now)])
        state = step(x, state)
        outs.append(state[0])
    return cat(outs[::-1], 0), state


class _Weights(Module):
    """What layers and cells share: a kind of step and the names of its parameters."""

    kind = "tanh"

    def _add(self, suffix: str, inputs: int, hidden: int, bias: bool, dtype: DType | None, projected: int = 0) -> None:
        rows = _GATES[self.kind] * hidden
        shapes: dict[str, tuple[int, ...]] = {"weight_ih": (rows, inputs), "weight_hh": (rows, projected or hidden)}
        shapes |= {"bias_ih": (rows,), "bias_hh": (rows,)}
        if projected:
            shapes["weight_hr"] = (projected, hidden)
        for name, shape in shapes.items():
            given = bias or name.startswith("weight")
            if given or not suffix:
                self.register_parameter(name + suffix, Parameter(empty(*shape, dtype=dtype)) if given else None)

    def _fill(self, hidden: int) -> None:
        bound = 1.0 / math.sqrt(hidden) if hidden > 0 else 0.0
        for p in self.parameters():
            init.uniform_(p, -bound, bound)

    def _get(self, name: str) -> Any:
        return getattr(self, name, None)  # a parametrized weight is no parameter


class _Recurrent(_Weights):
    """Layers over [T, N, inputs] (or [N, T, inputs] with batch_first, or [T, inputs], or a PackedSequence)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: DType | None = None,
    ) -> None:
        super().__init__()
        check_device(type(self).__name__, device)
        counts(type(self).__name__, input_size=input_size, hidden_size=hidden_size, num_layers=num_layers)
        if proj_size and self.kind != "LSTM":
            raise ArgumentError(f"{type(self).__name__}: proj_size is only supported for LSTM, not RNN or GRU")
        if not 0 <= proj_size < max(hidden_size, 1):
            raise ArgumentError(f"LSTM: proj_size must be 0 or more and below hidden_size {hidden_size}")
        if hidden_size <= 0 or num_layers <= 0 or not 0 <= dropout <= 1:
            raise ArgumentError(
                f"{type(self).__name__}: sizes must be positive and dropout between 0 and 1, got "
                f"hidden_size={hidden_size}, num_layers={num_layers}, dropout={dropout}"
            )
        self.input_size, self.hidden_size, self.num_layers = input_size, hidden_size, num_layers
        self.bias, self.batch_first, self.dropout, self.bidirectional = bias, batch_first, dropout, bidirectional
        self.proj_size = proj_size
        for suffix, layer in self._parts():
            wide = input_size if layer == 0 else self._widths(1)[0] * (2 if bidirectional else 1)
            self._add(suffix, wide, hidden_size, bias, dtype, proj_size)
        self.reset_parameters()

    def _parts(self) -> list[tuple[str, int]]:
        ends = ("", "_reverse") if self.bidirectional else ("",)
        return [(f"_l{layer}{end}", layer) for layer in range(self.num_layers) for end in ends]

    def reset_parameters(self) -> None:
        """Uniform on +-1/sqrt(hidden_size), as PyTorch."""
        self._fill(self.hidden_size)

    def _run(self, input: Tensor, states: list[State], sizes: list[int] | None) -> tuple[Tensor, list[State]]:
        """`input` [T, N, …] through all layers; `states`: where each layer and direction starts. With `sizes` the
        input is packed, that many rows a step.
        """
        ends = []
        ways = 2 if self.bidirectional else 1
        for layer in range(self.num_layers):
            outs = []
            for way in range(ways):
                suffix, _ = self._parts()[layer * ways + way]
                out, end = self._one(input, states[layer * ways + way], suffix, bool(way), sizes)
                outs.append(out)
                ends.append(end)
            input = cat(outs, -1) if self.bidirectional else outs[0]
            if self.dropout and layer < self.num_layers - 1:
                input = dropout(input, self.dropout, self.training)
        return input, ends

    def _one(
        self, input: Tensor, state: State, suffix: str, back: bool, sizes: list[int] | None
    ) -> tuple[Tensor, State]:
        gates = _STEPS[self.kind]
        if back and sizes is None:
            input = flip(input, (0,))
        given = linear(input, self._get(f"weight_ih{suffix}"), self._get(f"bias_ih{suffix}"))
        w, b, project = (self._get(f"{name}{suffix}") for name in ("weight_hh", "bias_hh", "weight_hr"))

        def step(x: Tensor, before: State) -> State:
            after = gates(x, before, w, b)
            return after if project is None else (linear(after[0], project), *after[1:])

        if sizes is not None:
            return (_over_rows_back if back else _over_rows)(step, split(given, sizes), sizes, state)
        out, end = _over_time(step, unbind(given, 0), state)
        return (flip(out, (0,)) if back else out), end

    def _widths(self, count: int) -> tuple[int, ...]:
        """The sizes of h, and of c."""
        return (self.proj_size or self.hidden_size, self.hidden_size)[:count]

    def _start(self, x: Tensor, rows: Any, start: State | None, count: int) -> list[State]:
        """Where each layer and direction starts, from h (and c) [layers, rows, hidden], or zeros."""
        shapes = [(len(self._parts()), rows, wide) for wide in self._widths(count)]
        given = tuple(zeros(*shape, dtype=x.dtype) for shape in shapes) if start is None else start
        for s, shape in zip(given, shapes, strict=True):
            if s.ttype.shape != shape:
                raise ShapeError(f"{type(self).__name__}: expected a hidden state {list(shape)}, got {s._l.type}")
        return list(zip(*(unbind(s, 0) for s in given), strict=True))

    def _forward(self, input: Any, start: State | None, count: int) -> tuple[Any, State]:
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, start, count)
        name = type(self).__name__
        if input.ndim not in (2, 3) or input._l.shape[-1] != self.input_size:
            raise ShapeError(
                f"{name}: expected [T, N, {self.input_size}] or [T, {self.input_size}], got {input._l.type}"
            )
        batched = input.ndim == 3
        x = input if batched else input.unsqueeze(1)
        if batched and self.batch_first:
            x = transpose(x, 0, 1)
        if start is not None:
            start = tuple(s if s.ndim == 3 else s.unsqueeze(1) for s in start)
        out, ends = self._run(x, self._start(x, x.ttype.shape[1], start, count), None)
        final = tuple(stack(list(parts), 0) for parts in zip(*ends, strict=True))
        if not batched:
            return out.squeeze(1), tuple(s.squeeze(1) for s in final)
        return (transpose(out, 0, 1) if self.batch_first else out), final

    def _forward_packed(self, input: PackedSequence, start: State | None, count: int) -> tuple[PackedSequence, State]:
        x, sizes = input.data, host_ints(type(self).__name__, input.batch_sizes)
        if x.ndim != 2 or x._l.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__}: expected packed [rows, {self.input_size}], got {x._l.type}")
        if start is not None and input.sorted_indices is not None:
            start = tuple(index_select(s, 1, input.sorted_indices) for s in start)
        out, ends = self._run(x, self._start(x, sizes[0], start, count), sizes)
        final = tuple(stack(list(parts), 0) for parts in zip(*ends, strict=True))
        if input.unsorted_indices is not None:
            final = tuple(index_select(s, 1, input.unsorted_indices) for s in final)
        return input._replace(data=out), final

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        text = f"{self.input_size}, {self.hidden_size}" + (f", proj_size={self.proj_size}" if self.proj_size else "")
        defaults = {"num_layers": 1, "bias": True, "batch_first": False, "dropout": 0.0, "bidirectional": False}
        for name, usual in defaults.items():
            value = getattr(self, name)
            text += "" if value == usual else f", {name}={value}"
        return text


class RNN(_Recurrent):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu: [T, N, inputs] -> ([T, N, hidden], last h [layers, N,
    hidden]).
    """

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        if len(args) > 3:  # PyTorch has it in the fourth place
            nonlinearity, args = args[3], args[:3] + args[4:]
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNN: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.kind = nonlinearity
        super().__init__(*args, **kwargs)
        self.nonlinearity = nonlinearity

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Every output, and the last state of each layer."""
        out, (h,) = self._forward(input, None if hx is None else (hx,), 1)
        return out, h


class GRU(_Recurrent):
    """Gated recurrent units (Cho et al., 2014): [T, N, inputs] -> ([T, N, hidden], last h [layers, N, hidden])."""

    kind = "GRU"

    def forward(self, input: Any, hx: Tensor | None = None) -> tuple[Any, Tensor]:
        """Every output, and the last state of each layer."""
        out, (h,) = self._forward(input, None if hx is None else (hx,), 1)
        return out, h


class LSTM(_Recurrent):
    """Long short-term memory (Hochreiter and Schmidhuber, 1997): [T, N, inputs] -> ([T, N, hidden], (h, c)).

    With `proj_size` h, and so the output, is a linear map of it to that many numbers (Sak et al., 2014).
    """

    kind = "LSTM"

    def forward(self, input: Any, hx: tuple[Tensor, Tensor] | None = None) -> tuple[Any, State]:
        """Every output, and the last states of each layer."""
        return self._forward(input, hx, 2)


class _Cell(_Weights):
    """One step on [N, inputs] (or [inputs])."""

    def __init__(
        self, input_size: int, hidden_size: int, bias: bool = True, device: Any = None, dtype: DType | None = None
    ) -> None:
        super().__init__()
        check_device(type(self).__name__, device)
        self.input_size, self.hidden_size, self.bias = input_size, hidden_size, bias
        self._add("", input_size, hidden_size, bias, dtype)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Uniform on +-1/sqrt(hidden_size), as PyTorch."""
        self._fill(self.hidden_size)

    def _step(self, input: Tensor, state: State | None, count: int) -> State:
        if input.ndim not in (1, 2) or input._l.shape[-1] != self.input_size:
            raise ShapeError(f"{type(self).__name__}: expected [N, {self.input_size}], got {input._l.type}")
        shape = (*input.ttype.shape[:-1], self.hidden_size)
        given = tuple(zeros(*shape, dtype=input.dtype) for _ in range(count)) if state is None else state
        added = linear(input, self._get("weight_ih"), self._get("bias_ih"))
        return _STEPS[self.kind](added, given, self._get("weight_hh"), self._get("bias_hh"))

    def extra_repr(self) -> str:
        """Sizes and what differs from the defaults."""
        return f"{self.input_size}, {self.hidden_size}" + ("" if self.bias else ", bias=False")


class RNNCell(_Cell):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu."""

    def __init__(self, *args: Any, nonlinearity: str = "tanh", **kwargs: Any) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ArgumentError(f"RNNCell: nonlinearity must be 'tanh' or 'relu', got {nonlinearity!r}")
        self.kind = nonlinearity
        super().__init__(*args, **kwargs)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        return self._step(input, None if hx is None else (hx,), 1)[0]


class GRUCell(_Cell):
    """One step of GRU."""

    kind = "GRU"

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        """The next state."""
        return self._step(input, None if hx is None else (hx,), 1)[0]


class LSTMCell(_Cell):
    """One step of LSTM."""

    kind = "LSTM"

    def forward(self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None) -> State:
        """The next h and c."""
        return self._step(input, hx, 2)
