"""Running a Module's forward between its hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError
from graphc.frontend.autograd import Handle
from graphc.frontend.mode import mode
from graphc.frontend.tensor import Tensor

Hook = Callable[..., Any]


def add_hook(hooks: dict[int, Any], hook: Hook, prepend: bool) -> Handle:
    """Register `hook`, first in line when `prepend`."""
    handle = Handle(hooks, hook)
    if prepend:
        first = hooks.pop(handle.id)
        rest = dict(hooks)
        hooks.clear()
        hooks[handle.id] = first
        hooks.update(rest)
    return handle


def call_module(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward` with pre-hooks before, hooks after, and the recorder told where it is."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.module_enter(module)
    try:
        if not (module._forward_pre_hooks or module._forward_hooks or module._backward_hooks):
            return module.forward(*args, **kwargs)
        return _call_with_hooks(module, args, kwargs)
    finally:
        if recorder is not None:
            recorder.module_exit(module)


def _call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    for hook, with_kwargs in list(module._forward_pre_hooks.values()):
        changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
        if changed is None:
            continue
        if with_kwargs:
            args, kwargs = _pair(changed)
        else:
            args = changed if isinstance(changed, tuple) else (changed,)
    backward = list(module._backward_hooks.values())
    watch = _BackwardWatch(module, backward) if backward else None
    if watch is not None:
        args = watch.inputs(args)
    result = module.forward(*args, **kwargs)
    for hook, with_kwargs in list(module._forward_hooks.values()):
        changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
        if changed is not None:
            result = changed
    return result if watch is None else watch.outputs(result)


def _pair(changed: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
        raise ArgumentError("a forward pre-hook with_kwargs must return None or (args, kwargs)")
    return changed


class _BackwardWatch:
    """Full backward hooks: called with the gradients of a module's inputs and outputs once those of the inputs are known.

    Inputs and outputs pass through identity views, so that the gradients seen are those that cross the module's border.
    """

    def __init__(self, module: Any, hooks: list[Hook]) -> None:
        self.module = module
        self.hooks = hooks
        self.out_grads: list[Tensor | None] = []
        self.count = 0

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, each differentiable tensor behind an identity that calls the hooks."""
        wanted = [k for k, x in enumerate(args) if isinstance(x, Tensor) and x.requires_grad]
        seen: dict[int, Tensor] = {}
        changed = list(args)
        for k in wanted:
            changed[k] = args[k].view(args[k].shape)

            def collect(g: Tensor, k: int = k) -> Tensor | None:
                seen[k] = g
                return self._finish(args, seen) if len(seen) == len(wanted) and len(wanted) == 1 else self._maybe(args, seen, wanted)

            changed[k].register_hook(collect)
        self.count = len(wanted)
        return tuple(changed)

    def _maybe(self, args: tuple[Any, ...], seen: dict[int, Tensor], wanted: list[int]) -> Tensor | None:
        if len(seen) == len(wanted):
            self._finish(args, seen)
        return None

    def _finish(self, args: tuple[Any, ...], seen: dict[int, Tensor]) -> Tensor | None:
        grads = tuple(seen.get(k) for k in range(len(args)))
        answer: Tensor | None = None
        for hook in self.hooks:
            changed = hook(self.module, grads, tuple(self.out_grads))
            if changed is not None:
                grads = changed if isinstance(changed, tuple) else (changed,)
                answer = next((g for g in grads if g is not None), None)
        return answer

    def outputs(self, result: Any) -> Any:
        """The result, each differentiable tensor noting its gradient."""
        items = result if isinstance(result, tuple) else (result,)
        self.out_grads = [None] * len(items)
        changed = list(items)
        for k, x in enumerate(items):
            if isinstance(x, Tensor) and x.requires_grad:
                changed[k] = x.view(x.shape)
                changed[k].register_hook(self._note(k))
        return tuple(changed) if isinstance(result, tuple) else changed[0]

    def _note(self, k: int) -> Hook:
        def note(g: Tensor) -> None:
            self.out_grads[k] = g
            if self.count == 0:
                for hook in self.hooks:
                    hook(self.module, (), tuple(self.out_grads))

        return note
