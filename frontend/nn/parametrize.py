"""Parametrizations: parameters computed by modules from others, which are trained instead."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from graphc.errors import ArgumentError, DTypeError, ShapeError, StateError
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.mode import debugging, mode
from graphc.frontend.nn.computed import base_class, computed_of, set_computed
from graphc.frontend.nn.containers import ModuleDict, ModuleList
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

_CACHED = "parametrize.cached()"


class _Cache:
    """Values computed inside of cached(), each with the list that made it (so that no other one takes its id)."""

    def __init__(self) -> None:
        self.depth = 0
        self.values: dict[int, tuple[ParametrizationList, Tensor]] = {}


_cache = _Cache()


@contextmanager
def cached() -> Iterator[None]:
    """Inside, a parametrized tensor is computed once and kept. Compiled functions run eagerly meanwhile."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_ambient("parametrize.cached() is entered")
    _cache.depth += 1
    debugging.append(_CACHED)
    try:
        yield
    finally:
        debugging.remove(_CACHED)
        _cache.depth -= 1
        if not _cache.depth:
            _cache.values.clear()


class ParametrizationList(ModuleList):
    """The modules that compute one tensor, applied in order, and what the first of them starts from: `original`, or
    `original0`, `original1`, … where its right_inverse gives several tensors.
    """

    def __init__(self, modules: Sequence[Module], original: Tensor, unsafe: bool = False) -> None:
        if not modules:
            raise ArgumentError("ParametrizationList requires one or more modules")
        super().__init__(modules)
        self.unsafe = unsafe
        with no_grad():
            new = self._inverted(original)
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        kind, dtype = original._l.type, original.dtype
        if isinstance(new, Tensor):
            if new.dtype is not dtype and not unsafe:
                raise DTypeError(f"parametrization: right_inverse gives {new._l.type} for {kind}; keep the dtype")
            _assign(original, new)
            self._keep("original", original)
        else:
            for k, part in enumerate(new):
                wanted = original.requires_grad and part.dtype.is_floating_point
                self._keep(f"original{k}", Parameter(part.clone(), wanted) if isinstance(original, Parameter) else part)
        if not unsafe:
            with no_grad():
                _check_result("parametrization", self(), kind)

    def _keep(self, name: str, value: Tensor) -> None:
        if isinstance(value, Parameter):
            self.register_parameter(name, value)
        else:
            self.register_buffer(name, value)

    def _originals(self) -> list[Tensor]:
        if self.is_tensor:
            return [self.original]
        return [getattr(self, f"original{k}") for k in range(self.ntensors)]

    def _inverted(self, value: Any) -> Any:
        """What the originals are for this value; modules without right_inverse are taken to change nothing."""
        for module in reversed(list(self)):
            inverse = getattr(module, "right_inverse", None)
            if inverse is not None:
                try:
                    value = inverse(value)
                except NotImplementedError:
                    continue
        if isinstance(value, Tensor):
            return value
        if not isinstance(value, Sequence) or not all(isinstance(v, Tensor) for v in value):
            raise ArgumentError(
                f"parametrization: right_inverse must return a Tensor or a sequence of them, got {type(value).__name__}"
            )
        return list(value)

    def right_inverse(self, value: Tensor) -> None:
        """Set the originals so that the tensor becomes `value`, as far as right_inverse of the modules can say.

        Raises StateError where a module has none.
        """
        for module in self:
            if not hasattr(module, "right_inverse"):
                raise StateError(f"parametrization {type(module).__name__} does not implement right_inverse")
        with no_grad():
            found = self._inverted(value)
            parts = [found] if isinstance(found, Tensor) else found
            for original, part in zip(self._originals(), parts, strict=True):
                if part.dtype is not original.dtype:
                    raise DTypeError(f"parametrization: {original._l.type} cannot be set to {part._l.type}")
                _assign(original, part)

    def forward(self) -> Tensor:
        """The tensor."""
        first, *rest = self
        x: Tensor = first(*self._originals())
        for module in rest:
            x = module(x)
        return x


def _assign(target: Tensor, value: Tensor) -> None:
    """Give `target` the elements of `value`, in new memory where the shape changes."""
    if value is target:
        return
    if value._l.shape == target._l.shape:
        with no_grad():
            target.copy_(value)
    else:
        target.data = value.detach().clone()


def _check_result(name: str, value: Any, kind: Any) -> None:
    if not isinstance(value, Tensor):
        raise ArgumentError(f"{name}: must return a Tensor, got {type(value).__name__}")
    if value.dtype is not kind.dtype:
        raise DTypeError(f"{name}: gives {value._l.type} for {kind}; keep the dtype, or pass unsafe=True")
    if value._l.type != kind:
        raise ShapeError(f"{name}: gives {value._l.type} for {kind}; keep the shape, or pass unsafe=True")


def _computed(owner: Any) -> Tensor:
    """The tensor of a ParametrizationList, from the cache inside of cached()."""
    if not _cache.depth:
        found: Tensor = owner()
        return found
    kept = _cache.values.get(id(owner))
    if kept is None:
        kept = _cache.values[id(owner)] = owner, owner()
    return kept[1]


@lru_cache(maxsize=256)
def _property(name: str) -> property:
    def get(self: Any) -> Tensor:
        return _computed(self.parametrizations[name])

    def put(self: Any, value: Tensor) -> None:
        self.parametrizations[name].right_inverse(value)

    return property(get, put)


def register_parametrization(
    module: Module, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> Module:
    """Let a parameter or buffer of `module` be what `parametrization` makes of it; returns `module`.

    `module.parametrizations.<name>` holds the parametrizations and the tensors trained instead (`original`). With
    `right_inverse(value)` a parametrization says what to start from, and assigning to the tensor works. Unless
    `unsafe`, shape and dtype must stay: raises ShapeError, DTypeError. Raises ArgumentError for an unknown name.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        kept: Any = module.parametrizations[tensor_name]
        if not unsafe:
            with no_grad():
                now = getattr(module, tensor_name)
                _check_result("register_parametrization", parametrization(now), now._l.type)
        kept.append(parametrization)
        kept.unsafe = kept.unsafe or unsafe
        return module
    original: Tensor | None = module._parameters.get(tensor_name)
    if original is None:
        original = module._buffers.get(tensor_name)
    if original is None:
        raise ArgumentError(
            f"register_parametrization: module '{type(module).__name__}' does not have a parameter, a buffer, or a "
            f"parametrized element with name '{tensor_name}'"
        )
    made = ParametrizationList([parametrization], original, unsafe)
    delattr(module, tensor_name)
    if not is_parametrized(module):
        module.parametrizations = ModuleDict()
    holder: Any = module.parametrizations
    holder[tensor_name] = made
    set_computed(module, {**computed_of(module), tensor_name: _property(tensor_name)}, "Parametrized")
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """True when the module has parametrizations; with a name, of that tensor."""
    held = module._modules.get("parametrizations")
    if not isinstance(held, ModuleDict):
        return False
    return len(held) > 0 if tensor_name is None else tensor_name in held


def remove_parametrizations(module: Module, tensor_name: str, leave_parametrized: bool = True) -> Module:
    """Make a parametrized tensor a plain one again: with its value now, or else with that of `original`.

    Raises ArgumentError for a tensor that is not parametrized, and without `leave_parametrized` where there are several
    originals.
    """
    if not is_parametrized(module, tensor_name):
        raise ArgumentError(
            f"remove_parametrizations: module {type(module).__name__} does not have a parametrization on {tensor_name}"
        )
    holder: Any = module.parametrizations
    kept = holder[tensor_name]
    if not kept.is_tensor and not leave_parametrized:
        raise ArgumentError(
            "remove_parametrizations: leaving unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors is not supported"
        )
    first = kept._originals()[0]
    if leave_parametrized:
        with no_grad():
            value = getattr(module, tensor_name).detach().clone()
            if kept.is_tensor:
                _assign(first, value)
            else:
                first = Parameter(value, first.requires_grad) if isinstance(first, Parameter) else value
    del holder[tensor_name]
    computed = computed_of(module)
    del computed[tensor_name]
    if not len(holder):
        delattr(module, "parametrizations")
    set_computed(module, computed, "Parametrized")
    if isinstance(first, Parameter):
        module.register_parameter(tensor_name, first)
    else:
        module.register_buffer(tensor_name, first)
    return module


def type_before_parametrizations(module: Module) -> type[Module]:
    """The class of the module without its parametrizations."""
    return base_class(module) if is_parametrized(module) else type(module)
