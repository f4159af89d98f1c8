"""Weight and spectral normalisation in the older form, whose parameters stand in the module itself."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from graphc.errors import ArgumentError, StateError
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.computed import computed_of, set_computed
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.parameter import Parameter
from graphc.frontend.nn.parametrizations import Power, check_dim, norm_except_dim, rows_dim, weighted
from graphc.frontend.tensor import Tensor

__all__ = ["remove_spectral_norm", "remove_weight_norm", "spectral_norm", "weight_norm"]


@lru_cache(maxsize=256)
def _weight(name: str, dim: int) -> property:
    def get(self: Any) -> Tensor:
        return weighted(getattr(self, f"{name}_g"), getattr(self, f"{name}_v"), dim)

    return property(get)


def _take(what: str, module: Module, name: str) -> Tensor:
    """The parameter `name`, taken out of the module. Raises ArgumentError, StateError."""
    if name in computed_of(module):
        raise StateError(f"{what}: '{name}' of {type(module).__name__} is computed already")
    found = module._parameters.get(name)
    if found is None:
        raise ArgumentError(f"{what}: module {type(module).__name__} has no parameter with name '{name}'")
    delattr(module, name)
    return found


def _restore(what: str, module: Module, name: str, parts: tuple[str, ...]) -> None:
    computed = computed_of(module)
    if name not in computed or not all(f"{name}{part}" in dir(module) for part in parts):
        raise ArgumentError(f"{what} of '{name}' not found in {module}")
    value = getattr(module, name).detach().clone()
    for part in parts:
        delattr(module, f"{name}{part}")
    del computed[name]
    set_computed(module, computed)
    module.register_parameter(name, Parameter(value))


def weight_norm(module: Any, name: str = "weight", dim: int | None = 0) -> Any:
    """Train the length `<name>_g` of each slice of a parameter along `dim` (of all of it: None) and its direction
    `<name>_v` apart; returns `module`. Newer code uses nn.utils.parametrizations.weight_norm. Raises ArgumentError.
    """
    weight = _take("weight_norm", module, name)
    axis = check_dim(weight, dim)
    with no_grad():
        module.register_parameter(f"{name}_g", Parameter(norm_except_dim(weight, axis).clone()))
        module.register_parameter(f"{name}_v", Parameter(weight.detach()))
    set_computed(module, {**computed_of(module), name: _weight(name, axis)})
    return module


def remove_weight_norm(module: Any, name: str = "weight") -> Any:
    """Make the parameter a plain one with its value now; returns `module`. Raises ArgumentError."""
    _restore("weight_norm", module, name, ("_g", "_v"))
    return module


@lru_cache(maxsize=256)
def _divided(name: str, steps: int, dim: int, eps: float) -> property:
    power = Power(steps, dim, eps)

    def get(self: Any) -> Tensor:
        weight, u, v = (getattr(self, f"{name}{part}") for part in ("_orig", "_u", "_v"))
        return power.divided(weight, u, v)

    return property(get)


class _Steps:
    """The forward pre-hook of a module with a spectral norm: a step of the power method in training."""

    def __init__(self, name: str, power: Power) -> None:
        self.name, self.power = name, power

    def __call__(self, module: Any, args: Any) -> None:
        if module.training:
            weight, u, v = (getattr(module, f"{self.name}{part}") for part in ("_orig", "_u", "_v"))
            self.power.improve(weight, u, v, self.power.steps, v_first=True)


def spectral_norm(
    module: Any, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Any:
    """Divide a parameter, trained as `<name>_orig`, by its largest singular value; returns `module`. Newer code uses
    nn.utils.parametrizations.spectral_norm. Raises ArgumentError.
    """
    power = Power(n_power_iterations, rows_dim(module, dim), eps)
    weight = _take("spectral_norm", module, name)
    with no_grad():
        u, v = power.start(weight)
    module.register_parameter(f"{name}_orig", weight)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    set_computed(module, {**computed_of(module), name: _divided(name, n_power_iterations, power.dim, eps)})
    module.register_forward_pre_hook(_Steps(name, power))
    return module


def remove_spectral_norm(module: Any, name: str = "weight") -> Any:
    """Make the parameter a plain one with its value now; returns `module`. Raises ArgumentError."""
    _restore("spectral_norm", module, name, ("_orig", "_u", "_v"))
    hooks = module._forward_pre_hooks
    for key, (hook, _) in list(hooks.items()):
        if isinstance(hook, _Steps) and hook.name == name:
            del hooks[key]
    return module
