"""Helpers for parameters."""

from __future__ import annotations

from collections.abc import Iterable

from graphc.frontend.creation import tensor
from graphc.frontend.functional import cat, stack
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.tensor import Tensor

__all__ = ["clip_grad_norm_", "clip_grad_value_", "parameters_to_vector"]


@no_grad()
def clip_grad_norm_(parameters: Tensor | Iterable[Tensor], max_norm: float, norm_type: float = 2.0) -> Tensor:
    """Scale all gradients so that their joint norm is at most `max_norm`; returns the norm before, 0-d."""
    given = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    grads = [p.grad for p in given if p.grad is not None]
    if not grads:
        return tensor(0.0)
    total = stack([g.norm(norm_type) for g in grads]).norm(norm_type)
    factor = (max_norm / (total + 1e-6)).clamp(max=1.0)
    for g in grads:
        g.mul_(factor)
    return total


@no_grad()
def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Clamp every gradient element to [-clip_value, clip_value]."""
    for p in [parameters] if isinstance(parameters, Tensor) else list(parameters):
        if p.grad is not None:
            p.grad.clamp_(-clip_value, clip_value)


def parameters_to_vector(parameters: Iterable[Tensor]) -> Tensor:
    """All parameters as one 1-d tensor."""
    return cat([p.reshape(-1) for p in parameters])
