"""state_dict and load_state_dict of a Module."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any, NamedTuple

from graphc.errors import ArgumentError, StateError
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.tensor import Tensor

_MISSING = object()


class IncompatibleKeys(NamedTuple):
    """What load_state_dict did not find or could not place."""

    missing_keys: list[str]
    unexpected_keys: list[str]

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return f"IncompatibleKeys(missing_keys={self.missing_keys}, unexpected_keys={self.unexpected_keys})"


def gather(module: Any, destination: Any, prefix: str, keep_vars: bool) -> dict[str, Any]:
    """Parameters and persistent buffers of `module` and below by dotted name, between its hooks."""
    out: dict[str, Any] = OrderedDict() if destination is None else destination
    hooks = module.__dict__["_state_callbacks"]
    for hook in list(hooks["before"].values()):
        hook(module, prefix, keep_vars)
    for name, p in module._parameters.items():
        if p is not None:
            out[prefix + name] = p if keep_vars else p.detach()
    for name, b in module._buffers.items():
        if b is not None and name not in module.__dict__["_non_persistent"]:
            out[prefix + name] = b if keep_vars else b.detach()
    for name, child in module._modules.items():
        if child is not None:
            child.state_dict(destination=out, prefix=f"{prefix}{name}.", keep_vars=keep_vars)
    for hook in list(hooks["after"].values()):
        hook(module, out, prefix, {})
    return out


def load(module: Any, given: Mapping[str, Any], strict: bool, assign: bool) -> IncompatibleKeys:
    """Copy values (or, with `assign`, the tensors themselves) into parameters and buffers.

    Raises StateError before anything is changed.
    """
    if not isinstance(given, Mapping):
        raise ArgumentError(f"load_state_dict: expected a dict, got {type(given).__name__}")
    state = OrderedDict(given)
    for path, child in module.named_modules(remove_duplicate=False):
        for hook in list(child.__dict__["_state_callbacks"]["before load"].values()):
            hook(child, state, f"{path}." if path else "", {}, strict, [], [], [])
    own = module.state_dict(keep_vars=True)
    found = IncompatibleKeys([k for k in own if k not in state], [k for k in state if k not in own])
    problems = _mismatches(own, state)
    if strict:
        for what, keys in (("Missing", found.missing_keys), ("Unexpected", found.unexpected_keys)):
            if keys:
                problems.append(f"{what} key(s) in state_dict: {', '.join(map(repr, keys))}.")
    if problems:
        raise StateError(f"Error(s) in loading state_dict for {type(module).__name__}:\n\t" + "\n\t".join(problems))
    with no_grad():
        for key, target in own.items():
            if key in state:
                _place(module, key, target, state[key], assign)
    for child in module.modules():
        for hook in list(child.__dict__["_state_callbacks"]["after load"].values()):
            hook(child, found)
    return found


def _place(module: Any, key: str, target: Tensor, value: Tensor, assign: bool) -> None:
    if not assign:
        target.copy_(value)
        return
    path, _, name = key.rpartition(".")
    owner = module.get_submodule(path)
    if name in owner._parameters:
        made = value if isinstance(value, Parameter) else Parameter(value, target.requires_grad)
        owner._parameters[name] = made.requires_grad_(target.requires_grad)
    else:
        owner._buffers[name] = value


def _mismatches(own: Mapping[str, Tensor], given: Mapping[str, Any]) -> list[str]:
    problems = []
    for key, target in own.items():
        value = given.get(key, _MISSING)
        if value is _MISSING:
            continue
        if not isinstance(value, Tensor):
            problems.append(f"While copying {key!r}: expected a Tensor, got {type(value).__name__}.")
        elif tuple(value.shape) != tuple(target.shape):
            problems.append(
                f"size mismatch for {key}: copying a param with shape {value.shape} from checkpoint, "
                f"the shape in current model is {target.shape}."
            )
    return problems
