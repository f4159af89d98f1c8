"""Tensor: a typed, strided view of memory with a place on the gradient tape."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from graphc.errors import AutogradError
from graphc.frontend.mode import mode
from graphc.ir.op import Array, Attrs, Op
from graphc.ir.types import DType, Layout, TensorType

if TYPE_CHECKING:
    from graphc.frontend.methods import TensorMethods
else:
    TensorMethods = object  # graphc.frontend.methods gives Tensor its table of methods at import

Chain = tuple[tuple[Op, dict[str, Any]], ...]
_new = object.__new__


class Storage:
    """Memory shared by a tensor and its views.

    Fields at their usual value live in the class: a new tensor costs little.
    """

    root: TensorType  # type of the tensor every chain of views starts from
    owner: Array  # that tensor's array
    version = 0  # content version: every write
    value = 0  # autograd version of the tensors that have no VersionCounter of their own
    history = 0  # writes that changed the gradient history of the root
    exposed = False  # memory was handed out (numpy(), from_numpy, DLPack)
    constant: tuple[Any, ...] = ()  # (the Python number this was lifted from,): a constant for the recorder
    slot: Any = None  # what a recorder knows of it


def _name_fields(made: Any, names: Iterable[str]) -> None:
    """Give a class's table of names all of them at once: one that comes late costs the instance a dict of its own."""
    for name in names:
        object.__setattr__(made, name, None)


_name_fields(Storage(), ("root", "owner", "value", "version", "history", "exposed", "constant", "slot"))


class VersionCounter:
    """An autograd version of its own, for `.data`: writes through it are not noticed by the tensors it came from."""

    value = 0


class Tensor(TensorMethods):
    """A multi-dimensional array of one dtype, as in PyTorch.

    Internals: `_a` the NumPy array over the memory, `_l` its interned Layout, `_s` its Storage, `_chain` the view
    operations that lead from the storage's root to it, `_edge` the tape node and output number that made it,
    `_gbase`/`_gskip` the tensor whose gradient history it is a view of and how many links of the chain that tensor
    has itself.
    """

    _a: Array
    _l: Layout
    _s: Storage
    _v: Storage | VersionCounter
    _chain: Chain = ()
    _edge: Any = None  # autograd.Edge | None
    _gbase: Tensor | None = None
    _gskip: int = 0
    _many: str = ""  # the function of several views this is an output, or a view of an output, of
    _history: int = 0
    _requires_grad: bool = False
    _grad: Tensor | None = None
    _hooks: dict[int, Callable[[Tensor], Tensor | None]] | None = None
    _leaf_node: Any = None
    _retain: bool = False
    _alone: bool = False  # a gradient that nothing else holds: a leaf may take it as its own
    _born: int = 0  # the recording inside which it was made as an alias
    _plain_class: type | None = None  # of a tensor that waits for its memory: the class it has otherwise
    _memo: Any = None  # a recorder's note: (recording, base value, value)

    def __new__(cls, *data: Any) -> Tensor:
        """`Tensor([1, 2])` copies data in the default dtype, `Tensor(2, 3)` makes a tensor of that shape."""
        from graphc.frontend.legacy import legacy_tensor

        return legacy_tensor(data)

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if all(name not in cls.__dict__ for name in _FIELDS):  # a class that computes one of them has other ways
            _name_fields(_new(cls), _FIELDS)

    apply_op: Callable[[Op, tuple[Any, ...], Attrs], Any]  # set by frontend.dispatch

    @property
    def ttype(self) -> TensorType:
        """dtype and shape; sizes are named inside a recording with named dimensions."""
        recorder = mode.get().recorder
        return self._l.type if recorder is None else recorder.symbolic_type(self)

    @property
    def dtype(self) -> DType:
        """Element type."""
        return self._l.type.dtype

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self._l.ndim

    @property
    def is_leaf(self) -> bool:
        """True for tensors that no recorded operation made."""
        from graphc.frontend.autograd import edge_of

        return self._requires_grad or edge_of(self) is None

    @property
    def requires_grad(self) -> bool:
        """True when gradients flow to this tensor."""
        from graphc.frontend.autograd import edge_of

        return self._requires_grad or edge_of(self) is not None

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Start (or stop) collecting gradients for this leaf; returns itself.

        Raises AutogradError for non-leaves and integers.
        """
        if not self.is_leaf and not requires_grad:
            raise AutogradError(
                "you can only change requires_grad flags of leaf variables; use detach() for a tensor without history"
            )
        if requires_grad and not self.dtype.is_floating_point:
            raise AutogradError(
                f"requires_grad_: only floating-point tensors can require gradients, this one is {self._l.type}; "
                "convert it with .float()"
            )
        recorder = mode.get().recorder
        if recorder is not None and requires_grad != self._requires_grad:
            recorder.on_metadata(self, "requires_grad_")
        if self.is_leaf:
            self._requires_grad = bool(requires_grad)
        return self


_FIELDS = tuple(name for name in Tensor.__annotations__ if name.startswith("_") and name != "_plain_class")
_name_fields(_new(Tensor), _FIELDS)


def fresh(array: Array, layout: Layout | None = None) -> Tensor:
    """A tensor that is the root of new storage over `array`."""
    t: Tensor = _new(Tensor)
    t._a = array
    t._l = layout = Layout.of(array) if layout is None else layout
    t._chain = ()
    t._edge = t._gbase = None  # as in the class: what every operation reads is found sooner in the tensor itself
    t._requires_grad = False
    t._s = t._v = storage = Storage()
    storage.root = layout.type
    storage.owner = array
    storage.value = 0
    return t


def view_of(base: Tensor, array: Array, link: Chain, layout: Layout | None = None) -> Tensor:
    """A tensor over `array`, a view of `base`'s memory; `link` is ((op, attrs),), the call that made it."""
    t: Tensor = _new(Tensor)
    t._a = array
    t._l = Layout.of(array) if layout is None else layout
    t._s = base._s
    t._v = base._v
    t._chain = base._chain + link
    t._edge = None
    t._requires_grad = False
    t._gbase = first = base if base._gbase is None else base._gbase
    t._gskip = first._gskip if first._gbase is not None else len(first._chain)
    t._history = t._s.history
    if base._many:
        t._many = base._many
    return t


def alias_of(base: Tensor, *, share_version: bool = True) -> Tensor:
    """The same memory without gradient history: detach() (shares the version counter) and `.data` (does not)."""
    recorder = mode.get().recorder
    if recorder is not None and recorder.lockstep is not None:
        later = recorder.lockstep.alias(base, share_version)
        if later is not None:
            return later
    t: Tensor = _new(Tensor)
    t._a, t._l, t._s, t._chain = base._a, base._l, base._s, base._chain
    t._v = base._v if share_version else VersionCounter()
    t._history = -1
    if recorder is not None:
        t._born = recorder.first_ticket
    return t


def as_array(x: Tensor) -> Array:
    """The NumPy array over a tensor's memory (not a copy, nothing is recorded)."""
    return x._a
