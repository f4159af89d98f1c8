"""Module: parameters, buffers and submodules under one roof, as in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

from graphc.errors import ArgumentError, StateError
from graphc.frontend.autograd import Handle
from graphc.frontend.device import check_device
from graphc.frontend.given import callable_given
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.mode import mode
from graphc.frontend.nn import state
from graphc.frontend.nn.hooks import Hook, add_hook, call_module
from graphc.frontend.nn.parameter import Parameter, retype
from graphc.frontend.nn.state import IncompatibleKeys
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, bfloat16, float16, float32, float64

__all__ = ["Module"]

M = TypeVar("M", bound="Module")
_STORES = ("_parameters", "_buffers", "_modules")
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
_STATE_EVENTS = ("before", "after", "before load", "after load")


def _no_forward(self: Module, *args: Any) -> Any:
    raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')


class Module:
    """Base of all layers and models. Assign Parameters and Modules as attributes in `__init__` and write `forward`."""

    _graphc_module = True
    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    _forward_hooks: dict[int, Any]
    _forward_pre_hooks: dict[int, Any]
    _backward_hooks: dict[int, Any]
    _backward_pre_hooks: dict[int, Any]
    _state_callbacks: dict[str, dict[int, Any]]
    forward: Callable[..., Any] = _no_forward

    def __init__(self) -> None:
        fields = self.__dict__
        fields["training"] = True
        for name in (*_STORES, *_HOOKS):
            fields[name] = {}
        fields["_state_callbacks"] = {event: {} for event in _STATE_EVENTS}
        fields["_non_persistent"] = set()
        recorder = mode.get().recorder
        if recorder is not None:
            recorder.on_new_module(self)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward, with the hooks around it; compiled after compile()."""
        compiled = self.__dict__.get("_compiled_call")
        if compiled is not None and mode.get().recorder is None:
            return compiled(*args, **kwargs)
        return call_module(self, args, kwargs)

    def compile(self, **options: Any) -> None:
        """Run calls of this module compiled from now on, as graphc.compile(module) does; the same arguments. A copy of
        the module has recordings of its own.
        """
        from graphc.frontend.record.front import compile_in_place

        compile_in_place(self, **options)

    # ---- attributes

    def __getattr__(self, name: str) -> Any:
        for store in _STORES:
            entries = self.__dict__.get(store)
            if entries is not None and name in entries:
                return entries[name]
        raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")

    def __setattr__(self, name: str, value: Any) -> None:
        fields = self.__dict__
        if "_parameters" not in fields:
            if isinstance(value, (Parameter, Module)):
                raise AttributeError("cannot assign parameters or modules before Module.__init__() call")
            object.__setattr__(self, name, value)
            return
        self._tell_recorder(name, value)
        if isinstance(value, Parameter):
            self._store("_parameters", name, value)
        elif name in fields["_parameters"]:
            self._replace("_parameters", "parameter", Parameter, name, value)
        elif isinstance(value, Module):
            self._store("_modules", name, value)
        elif name in fields["_modules"]:
            self._replace("_modules", "child module", Module, name, value)
        elif name in fields["_buffers"]:
            self._replace("_buffers", "buffer", Tensor, name, value)
        else:
            object.__setattr__(self, name, value)

    def _store(self, store: str, name: str, value: Any) -> None:
        """Put `value` under `name` in one store; it keeps its place in the order if it is there already."""
        self.__dict__.pop(name, None)
        for other in _STORES:
            if other != store:
                self.__dict__[other].pop(name, None)
        self.__dict__[store][name] = value

    def _replace(self, store: str, what: str, kind: type, name: str, value: Any) -> None:
        if value is not None and not isinstance(value, kind):
            expected = "graphc.Tensor" if kind is Tensor else f"graphc.nn.{kind.__name__}"
            raise ArgumentError(
                f"cannot assign '{type(value).__name__}' as {what} '{name}' ({expected} or None expected)"
            )
        self.__dict__[store][name] = value

    def _tell_recorder(self, name: str, value: Any) -> None:
        recorder = mode.get().recorder
        if recorder is None:
            return
        old = self._current(name)
        if old is not value:
            recorder.on_attribute(self, name, old, value)

    def _current(self, name: str) -> Any:
        fields = self.__dict__
        for store in _STORES:
            if name in fields[store]:
                return fields[store][name]
        return fields.get(name)

    def __delattr__(self, name: str) -> None:
        for store in _STORES:
            if name in self.__dict__[store]:
                del self.__dict__[store][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (or None as a place for one). Raises StateError for a name that is taken or not allowed."""
        self._register("_parameters", Parameter, name, param)

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but no parameter; left out of state_dict unless `persistent`."""
        self._register("_buffers", Tensor, name, tensor)
        if persistent:
            self.__dict__["_non_persistent"].discard(name)
        else:
            self.__dict__["_non_persistent"].add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`. Raises StateError for a name that is taken or not allowed."""
        self._register("_modules", Module, name, module)

    add_module = register_module

    def _register(self, store: str, kind: type, name: str, value: Any) -> None:
        if store not in self.__dict__:
            raise AttributeError(f"cannot register {name!r} before Module.__init__() call")
        if not isinstance(name, str) or not name or "." in name:
            raise StateError(f"a name must be a non-empty string without dots, got {name!r}")
        if name not in self.__dict__[store] and hasattr(self, name):
            raise StateError(f"attribute '{name}' already exists")
        if value is not None and not isinstance(value, kind):
            raise ArgumentError(f"{name!r} must be a {kind.__name__} or None, got {type(value).__name__}")
        self.__dict__[store][name] = value

    # ---- walking

    def children(self) -> Iterator[Module]:
        """The direct submodules, each once."""
        for _, module in self.named_children():
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The direct submodules with their names, each once."""
        seen: set[int] = set()
        for name, module in self._modules.items():
            if module is not None and id(module) not in seen:
                seen.add(id(module))
                yield name, module

    def modules(self) -> Iterator[Module]:
        """Itself and every module below, each once."""
        for _, module in self.named_modules():
            yield module

    def named_modules(
        self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """Itself and every module below, with dotted names."""
        memo = set() if memo is None else memo
        if remove_duplicate:
            if self in memo:
                return
            memo.add(self)
        yield prefix, self
        for name, module in self._modules.items():
            if module is not None:
                yield from module.named_modules(memo, f"{prefix}.{name}" if prefix else name, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """Every parameter, each once (tied weights too)."""
        for _, p in self.named_parameters(recurse=recurse):
            yield p

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name."""
        yield from self._named("_parameters", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer, each once."""
        for _, b in self.named_buffers(recurse=recurse):
            yield b

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """Every buffer with its dotted name."""
        yield from self._named("_buffers", prefix, recurse, remove_duplicate)

    def _named(self, store: str, prefix: str, recurse: bool, once: bool) -> Iterator[tuple[str, Any]]:
        seen: set[int] = set()
        modules = self.named_modules(prefix=prefix, remove_duplicate=once) if recurse else iter([(prefix, self)])
        for path, module in modules:
            for name, item in module.__dict__[store].items():
                if item is None or (once and id(item) in seen):
                    continue
                seen.add(id(item))
                yield (f"{path}.{name}" if path else name), item

    def get_submodule(self, target: str) -> Module:
        """The module at a dotted path. Raises AttributeError."""
        module: Any = self
        for part in target.split(".") if target else ():
            module = getattr(module, part)
            if not isinstance(module, Module):
                raise AttributeError(f"'{part}' of '{target}' is not a Module")
        found: Module = module
        return found

    def get_parameter(self, target: str) -> Parameter:
        """The parameter at a dotted path. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._parameters.get(name)
        if found is None:
            raise AttributeError(f"'{target}' is not a Parameter of {type(self).__name__}")
        return found

    def get_buffer(self, target: str) -> Tensor:
        """The buffer at a dotted path. Raises AttributeError."""
        path, _, name = target.rpartition(".")
        found = self.get_submodule(path)._buffers.get(name)
        if found is None:
            raise AttributeError(f"'{target}' is not a buffer of {type(self).__name__}")
        return found

    def apply(self: M, fn: Callable[[Module], None]) -> M:
        """Call `fn` on every submodule, then on itself; returns itself."""
        callable_given(f"{type(self).__name__}.apply", "fn", fn)
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # ---- modes and conversion

    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below; returns itself."""
        if not isinstance(mode, bool):
            raise ArgumentError("training mode is expected to be boolean")
        if self.training is not mode:
            self.training = mode
        for module in self.children():
            module.train(mode)
        return self

    def eval(self: M) -> M:
        """Set evaluation mode here and below; returns itself."""
        return self.train(False)

    def requires_grad_(self: M, requires_grad: bool = True) -> M:
        """Whether gradients are collected, for every parameter; returns itself."""
        for p in self.parameters():
            p.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget (or zero) the gradient of every parameter."""
        for p in self.parameters():
            if set_to_none:
                p.grad = None
            elif p.grad is not None:
                p.grad.detach_().zero_()

    def to(self: M, *args: Any, dtype: DType | None = None, device: Any = None, non_blocking: bool = False) -> M:
        """Convert floating-point parameters and buffers to a dtype, in place; returns itself.

        The only device is the CPU. Raises ArgumentError for other dtypes.
        """
        for x in args:
            if isinstance(x, DType):
                dtype = x
            elif isinstance(x, Tensor):
                dtype = x.dtype
            elif not isinstance(x, bool):
                device = x
        check_device("Module.to", device)
        if dtype is not None:
            if not dtype.is_floating_point:
                raise ArgumentError(f"nn.Module.to only accepts floating point dtypes, but got {dtype}")
            self._convert(dtype)
        return self

    def _convert(self, dtype: DType) -> None:
        with no_grad():
            for module in self.modules():
                for p in module._parameters.values():
                    if p is not None and p.dtype.is_floating_point:
                        retype(p, dtype)
                for name, b in module._buffers.items():
                    if b is not None and b.dtype.is_floating_point:
                        module._buffers[name] = b.to(dtype)

    def float(self: M) -> M:
        """Convert to float32."""
        return self.to(float32)

    def double(self: M) -> M:
        """Convert to float64."""
        return self.to(float64)

    def half(self: M) -> M:
        """Convert to float16."""
        return self.to(float16)

    def bfloat16(self: M) -> M:
        """Convert to bfloat16."""
        return self.to(bfloat16)

    def type(self: M, dst_type: Any) -> M:
        """Convert floating-point parameters and buffers to a dtype (or "HalfTensor"), in place; returns itself."""
        from graphc.frontend.legacy import TensorType, dtype_called

        if isinstance(dst_type, str):
            dst_type = dtype_called("Module.type", dst_type)
        return self.to(dst_type.dtype if isinstance(dst_type, TensorType) else dst_type)

    def cpu(self: M) -> M:
        """Itself: the only device is the CPU."""
        return self

    def cuda(self: M, device: Any = None) -> M:
        """Raises UnsupportedError: this version computes on the CPU."""
        check_device("Module.cuda", "cuda")
        return self

    # ---- hooks

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> Handle:
        """Call `hook(module, args)` before forward; a returned value replaces the arguments.

        With `with_kwargs` it is `hook(module, args, kwargs)` and returns None or both.
        """
        return add_hook(self._forward_pre_hooks, (hook, with_kwargs), prepend)

    def register_forward_hook(
        self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False, always_call: bool = False
    ) -> Handle:
        """Call `hook(module, args, output)` after forward; a returned value replaces the output.

        With `with_kwargs` it is `hook(module, args, kwargs, output)`; with `always_call` it is also called, with the
        output None, when forward raises.
        """
        return add_hook(self._forward_hooks, (hook, with_kwargs, always_call), prepend)

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> Handle:
        """Call `hook(module, grad_input, grad_output)` in backward; a returned value replaces the input gradients."""
        return add_hook(self._backward_hooks, hook, prepend)

    register_backward_hook = register_full_backward_hook

    def register_full_backward_pre_hook(self, hook: Hook, prepend: bool = False) -> Handle:
        """Call `hook(module, grad_output)` before the module's backward; a returned value replaces the gradients."""
        return add_hook(self._backward_pre_hooks, hook, prepend)

    def register_state_dict_pre_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, prefix, keep_vars)` before this module's part of state_dict() is made."""
        return add_hook(self._state_callbacks["before"], hook)

    def register_state_dict_post_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, state_dict, prefix, local_metadata)` after this module's part was added."""
        return add_hook(self._state_callbacks["after"], hook)

    def register_load_state_dict_pre_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, state_dict, prefix, local_metadata, strict, [], [], [])` before load_state_dict().

        It may edit the state dict it is given, which is a copy of the caller's.
        """
        return add_hook(self._state_callbacks["before load"], hook)

    def register_load_state_dict_post_hook(self, hook: Hook) -> Handle:
        """Call `hook(module, incompatible_keys)` after load_state_dict()."""
        return add_hook(self._state_callbacks["after load"], hook)

    # ---- state

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """Parameters and persistent buffers by dotted name, sharing memory with the module."""
        return state.gather(self, destination, prefix, keep_vars)

    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> IncompatibleKeys:
        """Copy values (or, with `assign`, the tensors themselves) into parameters and buffers.

        Raises StateError naming every missing, unexpected (when `strict`) or wrongly shaped entry; then nothing was
        changed.
        """
        return state.load(self, state_dict, strict, assign)

    # ---- printing

    def extra_repr(self) -> str:
        """What a layer shows of its settings."""
        return ""

    def _get_name(self) -> str:
        return type(self).__name__

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = [f"({name}): " + repr(module).replace("\n", "\n  ") for name, module in self._modules.items()]
        if not lines:
            return f"{self._get_name()}({extra})"
        head = [extra] if extra else []
        return f"{self._get_name()}(\n  " + "\n  ".join(head + lines) + "\n)"


Module.__module__ = "graphc.nn"
