"""Weight and spectral normalisation as parametrizations."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.functional import dot, mv, permute, reshape
from graphc.frontend.grad_mode import no_grad
from graphc.frontend.nn.conv_layers import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from graphc.frontend.nn.module import Module
from graphc.frontend.nn.normalise import normalize
from graphc.frontend.nn.parametrize import register_parametrization
from graphc.frontend.random_tensors import randn
from graphc.frontend.tensor import Tensor

__all__ = ["spectral_norm", "weight_norm"]

_TRANSPOSED = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)


def norm_except_dim(v: Tensor, dim: int) -> Tensor:
    """The Euclidean norm over all axes but `dim`, which stay with size 1; -1 for all axes: 0-d."""
    if dim == -1:
        return v.norm()
    return v.norm(2, [d for d in range(v.ndim) if d != dim], keepdim=True)


def weighted(g: Tensor, v: Tensor, dim: int) -> Tensor:
    """g * v / |v|, the norm over all axes but `dim`."""
    return v * (g / norm_except_dim(v, dim))


def check_dim(weight: Tensor, dim: int | None) -> int:
    """The axis whose slices have lengths of their own, -1 for all of the weight. Raises ArgumentError."""
    found = -1 if dim is None else dim
    if not -1 <= found < weight.ndim:
        raise ArgumentError(f"weight_norm: dim {dim} is out of range for {weight._l.type}; None for the norm over all")
    return found


class _WeightNorm(Module):
    """weight_g * weight_v / |weight_v| (Salimans and Kingma, 2016)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, weight_g: Tensor, weight_v: Tensor) -> Tensor:
        """The weight."""
        return weighted(weight_g, weight_v, self.dim)

    def right_inverse(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """(lengths, directions), which any multiple of stands for too."""
        return norm_except_dim(weight, self.dim), weight


def weight_norm(module: Module, name: str = "weight", dim: int | None = 0) -> Module:
    """Train the length of each slice of a parameter along `dim` (of all of it: None) and its direction apart.

    The trained ones are `parametrizations.<name>.original0` and `original1`; a state_dict of the older form loads.
    """
    register_parametrization(module, name, _WeightNorm(check_dim(getattr(module, name), dim)))

    def renamed(owner: Any, state: Any, prefix: str, *rest: Any) -> None:
        old = [f"{prefix}{name}_g", f"{prefix}{name}_v"]
        if all(key in state for key in old):
            for k, key in enumerate(old):
                state[f"{prefix}parametrizations.{name}.original{k}"] = state.pop(key)

    module.register_load_state_dict_pre_hook(renamed)
    return module


class Power:
    """The largest singular value of a weight by the power method (Miyato et al., 2018), axis `dim` as rows."""

    def __init__(self, steps: int, dim: int, eps: float) -> None:
        if steps <= 0:
            raise ArgumentError(f"spectral_norm: expected n_power_iterations to be positive, got {steps}")
        self.steps, self.dim, self.eps = steps, dim, eps

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight with axis `dim` as rows."""
        if self.dim:
            weight = permute(weight, self.dim, *(d for d in range(weight.ndim) if d != self.dim))
        return reshape(weight, (weight._l.shape[0], -1))

    def start(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Random unit vectors u and v."""
        u, v = (normalize(randn(n, dtype=weight.dtype), dim=0, eps=self.eps) for n in self.matrix(weight)._l.shape)
        return u, v

    def improve(self, weight: Tensor, u: Tensor, v: Tensor, steps: int, v_first: bool = False) -> None:
        """Steps of the method, in place."""
        with no_grad():
            rows = self.matrix(weight)
            turns = [(v, rows.t(), u), (u, rows, v)] if v_first else [(u, rows, v), (v, rows.t(), u)]
            for _ in range(steps):
                for target, matrix, vector in turns:
                    target.copy_(normalize(mv(matrix, vector), dim=0, eps=self.eps))

    def divided(self, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        """The weight divided by its largest singular value."""
        # clones: later steps write into the vectors that the gradient needs
        return weight / dot(u.clone(), mv(self.matrix(weight), v.clone()))


def rows_dim(module: Module, dim: int | None) -> int:
    """The axis of a layer's outputs in its weight, unless `dim` says another."""
    return dim if dim is not None else 1 if isinstance(module, _TRANSPOSED) else 0


class _SpectralNorm(Module):
    """The parametrization spectral_norm() registers."""

    _u: Tensor
    _v: Tensor

    def __init__(self, weight: Tensor, n_power_iterations: int = 1, dim: int = 0, eps: float = 1e-12) -> None:
        super().__init__()
        if not -weight.ndim <= dim < weight.ndim:
            raise ArgumentError(f"spectral_norm: dim {dim} is out of range for {weight._l.type}")
        self.dim, self.eps = dim % weight.ndim, eps
        self.n_power_iterations, self.power = n_power_iterations, Power(n_power_iterations, self.dim, eps)
        if weight.ndim > 1:
            with no_grad():
                u, v = self.power.start(weight)
                self.register_buffer("_u", u)
                self.register_buffer("_v", v)
                self.power.improve(weight, u, v, 15)

    def forward(self, weight: Tensor) -> Tensor:
        """The weight divided by its largest singular value; in training after a step of the method."""
        if weight.ndim == 1:
            return normalize(weight, dim=0, eps=self.eps)
        if self.training:
            self.power.improve(weight, self._u, self._v, self.n_power_iterations)
        return self.power.divided(weight, self._u, self._v)

    def right_inverse(self, value: Tensor) -> Tensor:
        """The value: it is taken to be normalised."""
        return value


def spectral_norm(
    module: Module, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12, dim: int | None = None
) -> Module:
    """Divide a parameter by its largest singular value, followed by the power method: a step at each use in training.

    Trained is `parametrizations.<name>.original`. Raises ArgumentError.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ArgumentError(f"spectral_norm: module '{module}' has no parameter or buffer with name '{name}'")
    made = _SpectralNorm(weight, n_power_iterations, rows_dim(module, dim), eps)
    return register_parametrization(module, name, made)
