"""What holds for the code running in this context: gradient mode and the recorder. One ContextVar holds it all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from graphc.frontend.tensor import Tensor
    from graphc.ir.op import Attrs, Op
    from graphc.ir.types import Dim, Size, TensorType


class LockstepHooks(Protocol):
    """What eager execution asks while its operations are compared with those of earlier calls."""

    def apply(self, op: Op, tensors: tuple[Tensor, ...], attrs: Attrs, grad: bool) -> Any:
        """What the operation gives, to be computed later; None to run it now."""

    def write(self, target: Tensor, value: Tensor, name: str, grad: bool) -> bool:
        """True when the write, which was checked, is taken over; False to do it now."""

    def alias(self, base: Tensor, share_version: bool) -> Tensor | None:
        """The alias of a tensor whose memory is not there yet; None for others."""

    def backward(self, run: Callable[[], None], root: Tensor, retain: bool) -> None:
        """Do what `run()` does: root.backward(retain_graph=retain)."""

    def update(self, optimizer: Any) -> None:
        """Do what `optimizer._step()` does."""

    def layer(self, module: Any, args: tuple[Any, ...]) -> Any:
        """Do what `module.forward(*args)` does."""


class RecorderHooks(Protocol):
    """What eager execution tells a recorder. Every method may raise RecordingError to refuse."""

    first_ticket: int  # tells this recording from others

    @property
    def lockstep(self) -> LockstepHooks | None:
        """Who is asked first, if anyone."""

    def on_op(self, op: Op, operands: tuple[Tensor, ...], attrs: Attrs, outputs: tuple[Tensor, ...]) -> None:
        """`outputs = op(*operands, **attrs)` was run. Attributes may hold named sizes."""

    def on_tape(self, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
        """The tape got a node for the operation just run."""

    def on_write(self, target: Tensor, value: Tensor) -> None:
        """The elements `target` looks at were replaced by those of `value` (same shape and dtype)."""

    def on_host_data(self, tensor: Tensor, source: Any) -> None:
        """`tensor` was made from host data (a list, a number, an ndarray `source`)."""

    def on_random(self) -> tuple[Tensor, int]:
        """The random state tensor to use and how many random calls were made before this one."""

    def random_mark(self) -> tuple[Any, Any]:
        """The state random numbers would be drawn from now without a recorder, and what the recording knows of it."""

    def follows(self, place: Any) -> bool:
        """True for a place in the row of random numbers that this recording noted."""

    def changed(self) -> Any:
        """What was written until now of all that outlives the call; compared by ==."""

    def rewound(self, place: Any) -> Any:
        """A context manager: random numbers inside are drawn from `place` on."""

    def on_seed(self, seed: int) -> None:
        """`manual_seed` was called."""

    def on_item(self, tensor: Tensor, number: bool | int | float) -> Any:
        """`tensor.item()` was asked for; gives what the caller gets."""

    def on_bool(self, tensor: Tensor, value: bool) -> None:
        """Python branches on a value."""

    def on_int(self, tensor: Tensor, number: int) -> None:
        """Python uses the int read from a 0-d tensor."""

    def on_range(self, index: Tensor, low: float | None, high: float | Dim, ignored: int | None = None) -> None:
        """All elements of `index` were found to lie in [low, high), or to be `ignored`; `low` None: -high."""

    def on_size(self, count: Tensor) -> Size:
        """The number in `count` (0-d int64) is about to be the size of a tensor; gives the size to use."""

    def visible_size(self, size: Dim) -> Any:
        """What the user gets for a named size."""

    def plain_size(self, size: Dim) -> int | None:
        """A named size as a number, where this recording can make it one."""

    def on_failure(self, tensor: Tensor) -> None:
        """An error is about to be raised because of the values of `tensor`."""

    def on_escape(self, tensor: Tensor, what: str, instead: str | None = None) -> None:
        """The elements become visible to Python (`numpy()`, `tolist()`, a buffer). `instead`: what a graph can do."""

    def on_new_module(self, module: Any) -> None:
        """A module is made: its attributes are its own until something outside holds it."""

    def on_show(self, tensor: Tensor) -> None:
        """The tensor is printed."""

    def on_text(self, tensor: Tensor) -> None:
        """A number read from the tensor becomes text."""

    def on_grad_read(self, leaf: Tensor, sums: bool = False) -> None:
        """`.grad` of `leaf` is looked at; with `sums` to add to it."""

    def on_grad_write(self, leaf: Tensor, grad: Tensor | None) -> None:
        """`.grad` of `leaf` is about to be replaced."""

    def on_metadata(self, tensor: Tensor, what: str) -> None:
        """Metadata of an existing tensor is changed in place (`requires_grad_`, `data =`, `resize_`)."""

    def on_ambient(self, what: str) -> None:
        """A mode is about to change that a graph knows nothing of."""

    def on_attribute(self, owner: Any, name: str, old: Any, new: Any) -> None:
        """An attribute of a Module or Optimizer that existed before is about to change."""

    def on_setting(self, owner: Any, group: int, key: str | tuple[str, int], value: float) -> Tensor:
        """An Optimizer reads the float `param_groups[group][key]`; gives the 0-d float64 tensor to use."""

    def symbolic_type(self, tensor: Tensor) -> TensorType:
        """The type of `tensor` with named sizes, where this recording has any."""

    def module_enter(self, module: Any) -> None:
        """`module.forward` is about to run."""

    def module_exit(self, module: Any) -> None:
        """`module.forward` has ended (also by an exception)."""

    def phase(self, name: str) -> Any:
        """A context manager: operations inside belong to `name` ("backward" or "update")."""

    def paused(self) -> Any:
        """A context manager: operations inside are not recorded."""


@dataclass(frozen=True, slots=True)
class Mode:
    """Immutable; replaced as a whole."""

    grad: bool = True
    recorder: RecorderHooks | None = None


DEFAULT = Mode()
mode: ContextVar[Mode] = ContextVar("graphc_mode", default=DEFAULT)


# what is switched on for the whole process and only eager execution knows of: compiled functions run eagerly meanwhile
debugging: list[str] = []


class Watching(Protocol):
    """What calls of some length tell a profile (frontend/profiler)."""

    def span(self, kind: str, name: str) -> AbstractContextManager[Any]:
        """A context manager: an event from entering to leaving."""

    def calls(self, compiled: Any, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, which answers a call of a compiled function, with an event around it."""


watching: list[Watching] = []  # the profile that runs, if any


def current() -> Mode:
    """The mode of this context."""
    return mode.get()


@contextmanager
def using(**changes: Any) -> Iterator[None]:
    """Run the body with some fields of the mode replaced."""
    token = mode.set(replace(mode.get(), **changes))
    try:
        yield
    finally:
        mode.reset(token)


def refuse_values(tensor: Tensor) -> None:
    """Call before raising an error that depends on the values of `tensor`: a recording must know."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_failure(tensor)
