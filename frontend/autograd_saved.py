"""Who keeps the tensors that the tape saves: hooks that pack and unpack them, or whoever else asks to."""

from __future__ import annotations

import contextlib
import threading
import weakref
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any, Protocol

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend import autograd
from graphc.frontend.autograd import Edge, Node, Saved
from graphc.frontend.mode import using
from graphc.frontend.tensor import Chain, Storage, Tensor, alias_of, fresh
from graphc.ir.op import op_named
from graphc.ir.types import Layout

__all__ = ["disable_saved_tensors_hooks", "save_on_cpu", "saved_tensors_hooks"]


class Keeper(Protocol):
    """Decides what happens to the tensors a new node saves."""

    def keep(self, node: Node) -> None:
        """`node` was put on the tape with what it saves in place."""


_keepers: ContextVar[tuple[Keeper, ...]] = ContextVar("graphc_keepers", default=())
_disabled: ContextVar[str | None] = ContextVar("graphc_saved_hooks_disabled", default=None)
_lock = threading.Lock()
_active: list[Keeper] = []  # in any thread


def _observe(node: Node, operands: tuple[Tensor, ...], outputs: tuple[Tensor, ...]) -> None:
    keepers = _keepers.get()
    if keepers:
        keepers[-1].keep(node)


@contextlib.contextmanager
def keeping(keeper: Keeper) -> Iterator[None]:
    """Inside, in this context, `keeper` is told of every node put on the tape."""
    with _lock:
        _active.append(keeper)
        if len(_active) == 1:
            autograd.observers.append(_observe)
    token = _keepers.set((*_keepers.get(), keeper))
    try:
        yield
    finally:
        _keepers.reset(token)
        with _lock:
            _active.pop()
            if not _active:
                autograd.observers.remove(_observe)


class Packed(Saved):
    """A saved tensor in the form a pack hook gave it. Nothing but the hook's value keeps the memory alive."""

    __slots__ = ("_storage", "content", "hooks")

    def __init__(self, saved: Saved, hooks: saved_tensors_hooks) -> None:
        self.hooks = hooks
        self.layout: Layout = saved.layout
        self.chain: Chain = saved.chain
        self.edge = saved.edge
        self.leaf = None
        self._storage = weakref.ref(saved.storage)
        with using(grad=False):
            self.content = hooks.pack_hook(saved.leaf if saved.leaf is not None else saved.unpack_now())

    packed = True

    @property
    def storage(self) -> Storage | None:  # type: ignore[override]
        """Where the tensor was, if that memory is still there."""
        return self._storage()

    def unpack(self, node: Node, edge: Edge | None) -> Tensor:
        """What the unpack hook gives. Raises AutogradError unless it is a tensor of the packed one's type."""
        with using(grad=False):
            t = self.hooks.unpack_hook(self.content)
        if not isinstance(t, Tensor):
            raise AutogradError(f"saved_tensors_hooks: unpack_hook returned a {type(t).__name__}, expected a Tensor")
        if t._l.type is not self.layout.type:
            raise AutogradError(
                f"saved_tensors_hooks: unpack_hook returned {t._l.type} for a tensor {self.layout.type} saved by "
                f"{node.name()}"
            )
        found = alias_of(t)
        found._edge = edge
        return found

    def copied(self) -> Saved:
        """Packed again, before the memory is written."""
        storage = self._storage()
        if storage is None:
            return self
        array = storage.owner
        for op, attrs in self.chain:
            array = op.reference(array, **attrs)
        t = fresh(array)
        t._s = t._v = storage
        t._chain, t._history = self.chain, -1
        with using(grad=False):
            return Packed(Saved(op_named("clone")(t), self.edge), self.hooks)


class saved_tensors_hooks:
    """Context manager: inside, what the tape saves for backward is given to `pack_hook(tensor)`, whose value is kept in
    its place, and `unpack_hook(value)` gives the tensor back in backward.

    Writes to the memory of a packed tensor are not noticed. In a compiled function the hooks run while recording; what
    they compute is recorded. Raises AutogradError inside disable_saved_tensors_hooks().
    """

    def __init__(self, pack_hook: Callable[[Tensor], Any], unpack_hook: Callable[[Any], Tensor]) -> None:
        for name, hook in (("pack_hook", pack_hook), ("unpack_hook", unpack_hook)):
            if not callable(hook):
                raise ArgumentError(f"saved_tensors_hooks: {name} must be callable, got {type(hook).__name__}")
        self.pack_hook = pack_hook
        self.unpack_hook = unpack_hook
        self._entered: list[Any] = []

    def __enter__(self) -> None:
        message = _disabled.get()
        if message is not None:
            raise AutogradError(message)
        context = keeping(self)
        context.__enter__()
        self._entered.append(context)

    def __exit__(self, *error: Any) -> None:
        self._entered.pop().__exit__(*error)

    def keep(self, node: Node) -> None:
        """Pack what a new node saves, but for the numbers of the program."""
        node.saved_in = tuple(map(self._packed, node.saved_in))
        if node.saved_out is not None:
            node.saved_out = tuple(map(self._packed, node.saved_out))

    def _packed(self, s: Saved | None) -> Saved | None:
        return s if s is None or s.storage.constant else Packed(s, self)


class save_on_cpu(saved_tensors_hooks):
    """Context manager: inside, what the tape saves is copied to CPU memory of its own."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        if pin_memory:
            raise ArgumentError("save_on_cpu: pin_memory needs a GPU; there is none here")
        super().__init__(lambda t: t.detach().clone(), lambda t: t)


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Inside, saved_tensors_hooks() raises AutogradError with this message."""
    token = _disabled.set(error_message)
    try:
        yield
    finally:
        _disabled.reset(token)
