"""Module: parameters, buffers and submodules under one roof, as in PyTorch."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from graphc.errors import ArgumentError, StateError
from graphc.frontend.autograd import Handle
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.mode import mode
from graphc.frontend.nn.hooks import Hook, add_hook, call_module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, float32, float64

__all__ = ["IncompatibleKeys", "Module"]

M = TypeVar("M", bound="Module")
_MISSING = object()


class IncompatibleKeys(NamedTuple):
    """What load_state_dict did not find or could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


class Module:
    """Base of all layers and models. Assign Parameters and Modules as attributes in `__init__` and write `forward`."""

    _graphc_module = True
    training: bool
    _parameters: dict[str, Parameter | None]
    _buffers: dict[str, Tensor | None]
    _modules: dict[str, Module | None]
    forward: Callable[..., Any]

    def __init__(self) -> None:
        fields = self.__dict__
        fields["training"] = True
        for name in ("_parameters", "_buffers", "_modules", "_forward_hooks", "_forward_pre_hooks", "_backward_hooks"):
            fields[name] = {}
        fields["_non_persistent"] = set()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run forward, with the hooks around it."""
        if not hasattr(type(self), "forward"):
            raise NotImplementedError(f'Module [{type(self).__name__}] is missing the required "forward" function')
        return call_module(self, args, kwargs)

    # -- attributes --------------------------------------------------------------------------------------------------------

    def __getattr__(self, name: str) -> Any:
        for store in ("_parameters", "_buffers", "_modules"):
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
            self._forget(name)
            fields["_parameters"][name] = value
        elif name in fields["_parameters"]:
            if value is not None:
                raise ArgumentError(f"cannot assign '{type(value).__name__}' as parameter '{name}' (graphc.nn.Parameter or None expected)")
            fields["_parameters"][name] = None
        elif isinstance(value, Module):
            self._forget(name)
            fields["_modules"][name] = value
        elif name in fields["_modules"]:
            if value is not None:
                raise ArgumentError(f"cannot assign '{type(value).__name__}' as child module '{name}' (graphc.nn.Module or None expected)")
            fields["_modules"][name] = None
        elif name in fields["_buffers"]:
            if value is not None and not isinstance(value, Tensor):
                raise ArgumentError(f"cannot assign '{type(value).__name__}' as buffer '{name}' (graphc.Tensor or None expected)")
            fields["_buffers"][name] = value
        else:
            object.__setattr__(self, name, value)

    def _tell_recorder(self, name: str, value: Any) -> None:
        recorder = mode.get().recorder
        if recorder is None:
            return
        old = self._current(name)
        if old is not value:
            recorder.on_attribute(self, name, old, value)

    def _current(self, name: str) -> Any:
        fields = self.__dict__
        for store in ("_parameters", "_buffers", "_modules"):
            if name in fields[store]:
                return fields[store][name]
        return fields.get(name)

    def _forget(self, name: str) -> None:
        fields = self.__dict__
        fields.pop(name, None)
        for store in ("_parameters", "_buffers", "_modules"):
            fields[store].pop(name, None)

    def __delattr__(self, name: str) -> None:
        for store in ("_parameters", "_buffers", "_modules"):
            if name in self.__dict__[store]:
                del self.__dict__[store][name]
                return
        object.__delattr__(self, name)

    def __dir__(self) -> list[str]:
        return sorted({*object.__dir__(self), *self._parameters, *self._buffers, *self._modules})

    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Add a parameter (or None as a place for one). Raises KeyError for a name that is taken or not allowed."""
        self._check_name(name)
        if param is not None and not isinstance(param, Parameter):
            raise ArgumentError(f"cannot assign '{type(param).__name__}' object to parameter '{name}' (graphc.nn.Parameter or None required)")
        self._parameters[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Add a tensor that is state but no parameter; left out of state_dict unless `persistent`."""
        self._check_name(name)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise ArgumentError(f"cannot assign '{type(tensor).__name__}' object to buffer '{name}' (graphc.Tensor or None required)")
        self._buffers[name] = tensor
        if not persistent:
            self.__dict__["_non_persistent"].add(name)

    def register_module(self, name: str, module: Module | None) -> None:
        """Add a submodule under `name`."""
        self._check_name(name)
        if module is not None and not isinstance(module, Module):
            raise ArgumentError(f"{type(module).__name__} is not a Module subclass")
        self._modules[name] = module

    add_module = register_module

    def _check_name(self, name: str) -> None:
        if "_parameters" not in self.__dict__:
            raise AttributeError("cannot register anything before Module.__init__() call")
        if not isinstance(name, str) or not name or "." in name:
            raise StateError(f"a name must be a non-empty string without dots, got {name!r}")
        if hasattr(self, name) and name not in self._parameters and name not in self._buffers and name not in self._modules:
            raise StateError(f"attribute '{name}' already exists")

    # -- walking -----------------------------------------------------------------------------------------------------------

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

    def named_modules(self, memo: set[Module] | None = None, prefix: str = "", remove_duplicate: bool = True) -> Iterator[tuple[str, Module]]:
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

    def named_parameters(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Parameter]]:
        """Every parameter with its dotted name."""
        yield from self._named("_parameters", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """Every buffer, each once."""
        for _, b in self.named_buffers(recurse=recurse):
            yield b

    def named_buffers(self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True) -> Iterator[tuple[str, Tensor]]:
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
        for module in self.children():
            module.apply(fn)
        fn(self)
        return self

    # -- modes and conversion ----------------------------------------------------------------------------------------------

    def train(self: M, mode: bool = True) -> M:
        """Set training mode here and below; returns itself."""
        if not isinstance(mode, bool):
            raise ArgumentError("training mode is expected to be boolean")
        for module in self.modules():
            object.__setattr__(module, "training", mode)
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
        """Convert floating-point parameters and buffers to a dtype, in place; returns itself. The only device is the CPU."""
        from graphc.frontend.device import check_device

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
                        p.data = p.data.to(dtype)
                        if p.grad is not None:
                            p.grad.data = p.grad.data.to(dtype)
                for name, b in module._buffers.items():
                    if b is not None and b.dtype.is_floating_point:
                        module._buffers[name] = b.to(dtype)

    def float(self: M) -> M:
        """Convert to float32."""
        return self.to(float32)

    def double(self: M) -> M:
        """Convert to float64."""
        return self.to(float64)

    def cpu(self: M) -> M:
        """Itself: the only device is the CPU."""
        return self

    # -- hooks -------------------------------------------------------------------------------------------------------------

    def register_forward_pre_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> Handle:
        """Call `hook(module, args)` before forward; a returned value replaces the arguments."""
        return add_hook(self.__dict__["_forward_pre_hooks"], (hook, with_kwargs), prepend)  # type: ignore[arg-type]

    def register_forward_hook(self, hook: Hook, *, prepend: bool = False, with_kwargs: bool = False) -> Handle:
        """Call `hook(module, args, output)` after forward; a returned value replaces the output."""
        return add_hook(self.__dict__["_forward_hooks"], (hook, with_kwargs), prepend)  # type: ignore[arg-type]

    def register_full_backward_hook(self, hook: Hook, prepend: bool = False) -> Handle:
        """Call `hook(module, grad_input, grad_output)` in backward; a returned value replaces the input gradients."""
        return add_hook(self.__dict__["_backward_hooks"], hook, prepend)

    # -- state -------------------------------------------------------------------------------------------------------------

    def state_dict(self, *, destination: Any = None, prefix: str = "", keep_vars: bool = False) -> dict[str, Any]:
        """Parameters and persistent buffers by dotted name, sharing memory with the module."""
        out: dict[str, Any] = OrderedDict() if destination is None else destination
        for name, p in self._parameters.items():
            if p is not None:
                out[prefix + name] = p if keep_vars else p.detach()
        for name, b in self._buffers.items():
            if b is not None and name not in self.__dict__["_non_persistent"]:
                out[prefix + name] = b if keep_vars else b.detach()
        for name, module in self._modules.items():
            if module is not None:
                module.state_dict(destination=out, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
        return out

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> IncompatibleKeys:
        """Copy values (or, with `assign`, the tensors themselves) into parameters and buffers.

        Raises StateError naming every missing, unexpected (when `strict`) or wrongly shaped entry; then nothing was changed.
        """
        own = self.state_dict(keep_vars=True)
        missing = [k for k in own if k not in state_dict]
        unexpected = [k for k in state_dict if k not in own]
        problems = _mismatches(own, state_dict)
        if strict:
            if unexpected:
                problems.insert(0, f"Unexpected key(s) in state_dict: {', '.join(map(repr, unexpected))}.")
            if missing:
                problems.insert(0, f"Missing key(s) in state_dict: {', '.join(map(repr, missing))}.")
        if problems:
            raise StateError(f"Error(s) in loading state_dict for {type(self).__name__}:\n\t" + "\n\t".join(problems))
        with no_grad():
            for key, target in own.items():
                if key in state_dict:
                    self._place(key, target, state_dict[key], assign)
        return IncompatibleKeys(missing, unexpected)

    def _place(self, key: str, target: Tensor, value: Tensor, assign: bool) -> None:
        if not assign:
            target.copy_(value)
            return
        path, _, name = key.rpartition(".")
        owner = self.get_submodule(path)
        if name in owner._parameters:
            owner._parameters[name] = value if isinstance(value, Parameter) else Parameter(value, target.requires_grad)
        else:
            owner._buffers[name] = value

    # -- printing ----------------------------------------------------------------------------------------------------------

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


def _mismatches(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, target in own.items():
        value = given.get(key, _MISSING)
        if value is _MISSING:
            continue
        if not isinstance(value, Tensor):
            problems.append(f"While copying {key!r}: expected a Tensor, got {type(value).__name__}.")
        elif tuple(value.shape) != tuple(target.shape):
            problems.append(f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, the shape in current model is {target.shape}.")
    return problems


Module.__module__ = "graphc.nn"
