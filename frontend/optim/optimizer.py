"""Optimizer: parameter groups, state, and one update rule written with tensor operations.

Hyperparameters that are floats enter an update as 0-d float64 tensors, and the step count is a 0-d tensor, so that a
compiled step takes them as inputs: a learning-rate schedule never records again, and eager and compiled compute the
same bits.
"""

from __future__ import annotations

import copy
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Iterable, Mapping
from contextlib import nullcontext
from typing import Any

from graphc.errors import ArgumentError, StateError, UnsupportedError
from graphc.frontend.autograd import Handle
from graphc.frontend.dispatch import scalar_tensor
from graphc.frontend.grad_mode import enable_grad
from graphc.frontend.mode import mode, using, watching
from graphc.frontend.optim.updates import run_update
from graphc.frontend.tensor import Tensor
from graphc.ir.types import DType, float64

__all__ = ["Optimizer"]

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]


class Optimizer:
    """Base of all optimisers. A subclass gives `_make_state(p, group)` and `_update(p, g, state, group, hyper)`."""

    _graphc_optimizer = True
    followed: tuple[str, ...] = ()  # settings that are tuples of floats which an update asks of Hyper.item alone
    param_groups: list[dict[str, Any]]
    state: defaultdict[Tensor, dict[str, Any]]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self.state = defaultdict(dict)
        self.param_groups = []
        self._pre_hooks: dict[int, Callable[..., Any]] = OrderedDict()
        self._post_hooks: dict[int, Callable[..., Any]] = OrderedDict()
        if isinstance(params, Tensor):
            raise ArgumentError(
                f"{type(self).__name__}: params should be an iterable of Tensors or dicts, got a Tensor; use a list"
            )
        if not isinstance(params, Iterable):
            raise ArgumentError(
                f"{type(self).__name__}: params should be an iterable of Tensors or dicts, got "
                f"{type(params).__name__}; use model.parameters()"
            )
        groups: list[Any] = list(params)
        if not groups:
            raise ArgumentError(
                f"{type(self).__name__}: optimizer got an empty parameter list; a generator of parameters is empty "
                "once used, so make a list of it"
            )
        for group in groups if isinstance(groups[0], dict) else [{"params": groups}]:
            self.add_param_group(group)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add parameters with their own settings.

        Raises ArgumentError for tensors that are no leaves or are in a group already.
        """
        name = type(self).__name__
        if not isinstance(param_group, dict):
            raise ArgumentError(f"{name}: param_group must be a dict, but got {type(param_group).__name__}")
        group = dict(param_group)
        if "params" not in group:
            raise ArgumentError(
                f"{name}: a parameter group needs 'params', got {sorted(group)}; add the list of Tensors"
            )
        given = group["params"]
        if isinstance(given, (set, frozenset)):
            raise ArgumentError(f"{name}: parameters need an order that is the same in every run, but got a set")
        params = [given] if isinstance(given, Tensor) else [p[1] if isinstance(p, tuple) else p for p in given]
        for p in params:
            if not isinstance(p, Tensor):
                raise ArgumentError(f"{name}: can only optimize Tensors, but one of the params is {type(p).__name__}")
            if not p.is_leaf:
                raise ArgumentError(
                    f"{name}: can't optimize a non-leaf Tensor {p._l.type}; give the leaf it comes from, or detach() it"
                )
        taken = {id(p) for g in self.param_groups for p in g["params"]}
        if len({id(p) for p in params}) != len(params) or any(id(p) in taken for p in params):
            raise ArgumentError(f"{name}: some parameters appear in more than one parameter group or twice in one")
        group["params"] = params
        for key, value in self.defaults.items():
            group.setdefault(key, value)
        self.param_groups.append(group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget (or zero) the gradients of all parameters."""
        for group in self.param_groups:
            for p in group["params"]:
                if set_to_none:
                    p.grad = None
                elif p.grad is not None:
                    p.grad.detach_().zero_()

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update every parameter that has a gradient. `closure` evaluates the model again and returns the loss."""
        for hook in list(self._pre_hooks.values()):
            hook(self, (), {} if closure is None else {"closure": closure})
        loss = None
        if closure is not None and not callable(closure):
            raise ArgumentError(
                f"{type(self).__name__}: step: closure must be a function, got {type(closure).__name__}"
            )
        if closure is not None:
            with enable_grad():
                loss = closure()
        recorder = mode.get().recorder
        with using(grad=False), nullcontext() if recorder is None else recorder.phase("update"):
            if recorder is not None and recorder.lockstep is not None:
                recorder.lockstep.update(self)
            elif watching:
                with watching[0].span("update", f"Optimizer.step#{type(self).__name__}.step"):
                    self._step()
            else:
                self._step()
        for hook in list(self._post_hooks.values()):
            hook(self, (), {})
        return loss

    def _step(self) -> None:
        for number, group in enumerate(self.param_groups):
            todo = [p for p in group["params"] if p.grad is not None]
            if not todo:
                continue
            hyper = Hyper(self, number, group)
            if mode.get().recorder is not None:
                for p in todo:
                    self._update(p, p.grad, self._state_of(p, group), group, hyper)
                continue
            for p in todo:
                run_update(self, p, p.grad, self._state_of(p, group), group, hyper)

    def _state_of(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        state = self.state[p]
        if not state:
            recorder = mode.get().recorder
            if recorder is None:
                state.update(self._make_state(p, group))
            else:
                with recorder.paused():  # made before the recording sees it: it is state from outside
                    state.update(self._make_state(p, group))
        return state

    def _make_state(self, p: Tensor, group: dict[str, Any]) -> dict[str, Any]:
        raise NotImplementedError

    def _update(self, p: Tensor, g: Tensor, state: dict[str, Any], group: dict[str, Any], hyper: Hyper) -> None:
        raise NotImplementedError

    def register_step_pre_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(optimizer, args, kwargs)` before each step."""
        return Handle(self._pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> Handle:
        """Call `hook(optimizer, args, kwargs)` after each step."""
        return Handle(self._post_hooks, hook)

    # ---- state

    def state_dict(self) -> dict[str, Any]:
        """{"state": {number: {…}}, "param_groups": […]} with parameters as numbers, as in PyTorch.

        The state is empty before the first step; its tensors share memory with the optimiser's.
        """
        numbers: dict[int, int] = {}
        groups = []
        for group in self.param_groups:
            for p in group["params"]:
                numbers.setdefault(id(p), len(numbers))  # the groups hold the parameters
            own = {key: value for key, value in group.items() if key != "params"}
            groups.append({**own, "params": [numbers[id(p)] for p in group["params"]]})
        return {"state": {numbers[id(p)]: dict(s) for p, s in self.state.items() if s}, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over settings and a copy of the state, in the dtypes of the parameters.

        Raises ArgumentError when the groups do not fit, StateError for what is no state dict.
        """
        missing = [k for k in ("state", "param_groups") if not isinstance(state_dict, Mapping) or k not in state_dict]
        if missing:
            raise StateError(
                f"{type(self).__name__}: load_state_dict: {missing[0]!r} is missing in the "
                f"{type(state_dict).__name__}; give what state_dict() of an optimizer returned"
            )
        groups = state_dict["param_groups"]
        if len(groups) != len(self.param_groups):
            raise ArgumentError(
                f"{type(self).__name__}: loaded state dict has {len(groups)} parameter groups, "
                f"expected {len(self.param_groups)}"
            )
        params: dict[int, Tensor] = {}
        for k, (mine, given) in enumerate(zip(self.param_groups, groups, strict=True)):
            if len(given["params"]) != len(mine["params"]):
                raise ArgumentError(
                    f"{type(self).__name__}: loaded group {k} has {len(given['params'])} parameters, "
                    f"expected {len(mine['params'])}"
                )
            params.update(zip(given["params"], mine["params"], strict=True))
        state = {params[number]: self._loaded(params[number], e) for number, e in state_dict["state"].items()}
        self.state = defaultdict(dict, state)
        for mine, given in zip(self.param_groups, groups, strict=True):
            mine.update({key: value for key, value in given.items() if key != "params"})

    def _loaded(self, p: Tensor, entries: Mapping[str, Any]) -> dict[str, Any]:
        copies: dict[str, Any] = {}
        for key, value in entries.items():
            if isinstance(value, Tensor) and value.ndim and tuple(value.shape) != tuple(p.shape):
                raise StateError(
                    f"{type(self).__name__}: loaded {key!r} is {value._l.type}, but its parameter is {p._l.type}"
                )
            if isinstance(value, Tensor):
                kept = value.detach().clone()
                like = key != "step" and kept.dtype.is_floating_point  # a count of steps keeps its own dtype
                copies[key] = kept.to(p.dtype) if like else kept
            else:
                copies[key] = copy.deepcopy(value)
        return copies

    def __repr__(self) -> str:
        lines = [f"{type(self).__name__} ("]
        for i, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {i}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


class Hyper:
    """The float settings of a group during one step, as 0-d tensors: inputs of a recording, constants otherwise."""

    def __init__(self, owner: Optimizer, number: int, group: dict[str, Any]) -> None:
        self.owner, self.number, self.group = owner, number, group
        self._made: dict[tuple[str, DType], Tensor] = {}
        self._read: dict[str, Any] = {}

    def watched(self, read: dict[str, Any]) -> Hyper:
        """The same settings, nothing of them computed yet; `read` gets those that do not become an input."""
        made = Hyper(self.owner, self.number, self.group)
        made._read = read
        return made

    def __getitem__(self, key: str) -> Tensor:
        """The setting as float64."""
        value = self.group[key]
        recorder = mode.get().recorder
        if isinstance(value, Tensor):
            self._read[key] = value
            return value.to(float64)
        if isinstance(value, float) and recorder is not None:
            return recorder.on_setting(self.owner, self.number, key, value)
        self._read[key] = value
        return scalar_tensor(float(value), float64)

    def item(self, key: str, place: int) -> Tensor:
        """One number of a setting that is a tuple, as float64."""
        value = self.group[key][place]
        recorder = mode.get().recorder
        if isinstance(value, Tensor):
            self._read[key] = self.group[key]
            return value.to(float64)
        if recorder is not None:
            return recorder.on_setting(self.owner, self.number, (key, place), float(value))
        self._read[key] = self.group[key]
        return scalar_tensor(float(value), float64)

    def get(self, key: str, dtype: DType) -> Tensor:
        """The setting rounded to `dtype`."""
        return self.once(key, dtype, lambda: self[key])

    def once(self, name: str, dtype: DType, make: Callable[[], Tensor]) -> Tensor:
        """What `make()` computes in float64, rounded to `dtype`; done for the first parameter of the group alone."""
        found = self._made.get((name, dtype))
        if found is None:
            found = self._made[(name, dtype)] = make().to(dtype)
        return found


Optimizer.__module__ = "graphc.optim"


def check_range(name: str, what: str, value: Any, upper: float | None = None) -> None:
    """Raise ArgumentError for a setting below 0, NaN, or not below `upper`."""
    if not isinstance(value, (int, float, Tensor)) and not hasattr(value, "__float__"):
        raise ArgumentError(f"{name}: {what} must be a number, got {type(value).__name__} {value!r}")
    number = float(value)
    if not number >= 0.0 or (upper is not None and not number < upper):
        below = "" if upper is None else f" and below {upper:g}"
        raise ArgumentError(f"{name}: invalid {what}: {value}; give a number of at least 0{below}")


def pair(name: str, what: str, value: Any) -> None:
    """Raise ArgumentError for what is no pair of numbers."""
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        raise ArgumentError(f"{name}: {what} must be two numbers, got {value!r}; give them as a tuple")


def ways(name: str, differentiable: bool, **how: bool | None) -> dict[str, bool | None]:
    """Settings that choose how PyTorch computes an update (foreach, fused, capturable), kept for its state dicts.

    There is one way here, so they change nothing. Raises UnsupportedError for `differentiable`, ArgumentError for both
    foreach and fused.
    """
    if differentiable:
        raise UnsupportedError(
            f"{name}: differentiable=True is not supported; write the update with tensor operations and autograd.grad"
        )
    if how.get("foreach") and how.get("fused"):
        raise ArgumentError(f"{name}: `fused` and `foreach` cannot be `True` together.")
    return {**how, "differentiable": differentiable}
