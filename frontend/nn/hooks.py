"""Running a Module's forward between its hooks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from graphc.errors import ArgumentError, AutogradError
from graphc.frontend.autograd import Handle, observers
from graphc.frontend.autograd_function import Function, FunctionCtx
from graphc.frontend.given import callable_given
from graphc.frontend.mode import debugging, mode
from graphc.frontend.tensor import Tensor
from graphc.ir.op import op_named

__all__ = [
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]

Hook = Callable[..., Any]


def add_hook(hooks: dict[int, Any], hook: Any, prepend: bool = False) -> Handle:
    """Register `hook` (a function, or one and its options), first in line when `prepend`. Raises ArgumentError."""
    callable_given("Module", "a hook", hook[0] if isinstance(hook, tuple) else hook)
    handle = Handle(hooks, hook)
    if prepend:
        first = hooks.pop(handle.id)
        rest = dict(hooks)
        hooks.clear()
        hooks[handle.id] = first
        hooks.update(rest)
    return handle


class GlobalHooks:
    """Hooks of every module: meant for debugging, so that compiled functions run eagerly while there are any."""

    def __init__(self) -> None:
        self.forward_pre: dict[int, Any] = {}
        self.forward: dict[int, Any] = {}
        self.backward_pre: dict[int, Any] = {}
        self.backward: dict[int, Any] = {}

    def add(self, hooks: dict[int, Any], hook: Any) -> Handle:
        """Register `hook` in one of the tables."""
        _ambient()
        debugging.append(_GLOBAL)
        return _GlobalHandle(hooks, hook)


class _GlobalHandle(Handle):
    def remove(self) -> None:
        """Take the hook away; doing it twice is harmless."""
        if self.id in self.hooks:
            _ambient()
            debugging.remove(_GLOBAL)
        super().remove()


_GLOBAL = "global module hooks"
every = GlobalHooks()


def _ambient() -> None:
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.on_ambient("a hook of all modules is added or removed")


def register_module_forward_pre_hook(hook: Hook) -> Handle:
    """Call `hook(module, args)` before the forward of every module; a returned value replaces the arguments.

    While there is a global hook, compiled functions run eagerly.
    """
    return every.add(every.forward_pre, (hook, False))


def register_module_forward_hook(hook: Hook, *, with_kwargs: bool = False, always_call: bool = False) -> Handle:
    """Call `hook(module, args, output)` after the forward of every module, before the module's own hooks.

    A returned value replaces the output; `with_kwargs` and `always_call` as in Module.register_forward_hook(). While
    there is a global hook, compiled functions run eagerly.
    """
    return every.add(every.forward, (hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Hook) -> Handle:
    """Call `hook(module, grad_output)` before the backward of every module; a returned value replaces the gradients.

    While there is a global hook, compiled functions run eagerly.
    """
    return every.add(every.backward_pre, hook)


def register_module_full_backward_hook(hook: Hook) -> Handle:
    """Call `hook(module, grad_input, grad_output)` in the backward of every module; a returned value replaces the
    input gradients.

    While there is a global hook, compiled functions run eagerly.
    """
    return every.add(every.backward, hook)


def call_module(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`module.forward` with pre-hooks before, hooks after, and the recorder told where it is."""
    recorder = mode.get().recorder
    if recorder is not None:
        recorder.module_enter(module)
    try:
        if not (
            module._forward_pre_hooks
            or module._forward_hooks
            or module._backward_hooks
            or module._backward_pre_hooks
            or debugging
        ):
            if recorder is not None and recorder.lockstep is not None and not kwargs and not observers:
                return recorder.lockstep.layer(module, args)
            return module.forward(*args, **kwargs)
        return _call_with_hooks(module, args, kwargs)
    finally:
        if recorder is not None:
            recorder.module_exit(module)


def _call_with_hooks(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    left = {**every.forward, **module._forward_hooks}
    try:
        args, kwargs = _before(module, args, kwargs)
        watched = module._backward_hooks or module._backward_pre_hooks or every.backward or every.backward_pre
        watch = _BackwardWatch(module) if watched else None
        if watch is not None:
            args = watch.inputs(args)
        result = module.forward(*args, **kwargs)
        while left:
            hook, with_kwargs, _ = left.pop(next(iter(left)))
            changed = hook(module, args, kwargs, result) if with_kwargs else hook(module, args, result)
            if changed is not None:
                result = changed
        return result if watch is None else watch.outputs(result)
    except Exception:
        for hook, with_kwargs, always in left.values():
            if always:
                hook(module, args, kwargs, None) if with_kwargs else hook(module, args, None)
        raise


def _before(module: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    for hook, with_kwargs in [*every.forward_pre.values(), *module._forward_pre_hooks.values()]:
        changed = hook(module, args, kwargs) if with_kwargs else hook(module, args)
        if changed is None:
            continue
        if with_kwargs:
            args, kwargs = _pair(changed)
        else:
            args = changed if isinstance(changed, tuple) else (changed,)
    return args, kwargs


def _pair(changed: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if not (isinstance(changed, tuple) and len(changed) == 2 and isinstance(changed[1], dict)):
        raise ArgumentError("a forward pre-hook with_kwargs must return None or (args, kwargs)")
    return changed


class BackwardHook(Function):
    """The identity on the tensors of one side of a module; `call(grads)` sees all their gradients at once, None for
    those there are not, and may give others.
    """

    _identity = True

    @staticmethod
    def forward(ctx: FunctionCtx, call: Hook, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The tensors, as views."""
        ctx.set_materialize_grads(False)
        views = tuple(op_named("reshape")(t, shape=t.ttype.shape) for t in tensors)
        ctx.mark_non_differentiable(*[v for v, t in zip(views, tensors, strict=True) if not t.requires_grad])
        ctx.call = call
        return views

    @staticmethod
    def backward(ctx: FunctionCtx, *grad_outputs: Tensor | None) -> tuple[Any, ...]:
        """The gradients, or what the hooks gave instead."""
        return None, *ctx.call(grad_outputs)


def _bordered(items: tuple[Any, ...], call: Callable[[tuple[Any, ...]], tuple[Any, ...]]) -> tuple[Any, ...]:
    """`items` with the tensors among them passed through one node. `call` gets and gives a gradient for every item."""
    places = [k for k, x in enumerate(items) if isinstance(x, Tensor)]

    def spread(grads: tuple[Any, ...]) -> tuple[Any, ...]:
        whole: list[Any] = [None] * count
        for k, g in zip(places, grads, strict=True):
            whole[k] = g
        found = call(tuple(whole))
        return tuple(found[k] for k in places)

    count, changed = len(items), list(items)
    for k, t in zip(places, BackwardHook.apply(spread, *[items[k] for k in places]), strict=True):
        changed[k] = t
    return tuple(changed)


class _BackwardWatch:
    """Full backward hooks: called with the gradients of a module's inputs and outputs once those of the inputs are
    known.

    Inputs and outputs pass through identities, so that the gradients seen are those that cross the module's border.
    """

    def __init__(self, module: Any) -> None:
        self.module = module
        self.hooks = [*every.backward.values(), *module._backward_hooks.values()]
        self.pre_hooks = [*every.backward_pre.values(), *module._backward_pre_hooks.values()]
        self.out_grads: tuple[Any, ...] | None = None
        self.plain_inputs: int | None = None  # how many there are, when no gradient flows to any

    def inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments, the tensors among them behind an identity that calls the hooks."""
        if mode.get().grad and any(isinstance(x, Tensor) and x.requires_grad for x in args):
            return _bordered(args, self._entered)
        self.plain_inputs = len(args)
        return args

    def outputs(self, result: Any) -> Any:
        """The result, the tensors among it behind an identity that notes their gradients."""
        items = result if isinstance(result, tuple) else (result,)
        if not any(isinstance(x, Tensor) and x.requires_grad for x in items):
            return result
        changed = _bordered(items, self._left)
        return changed if isinstance(result, tuple) else changed[0]

    def _left(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        grads = self.out_grads = _run(self.pre_hooks, grads, lambda hook, now: hook(self.module, now), "output")
        if self.plain_inputs is not None:
            found = self._entered((None,) * self.plain_inputs)
            if any(g is not None for g in found):
                raise AutogradError(
                    "Backward hook for Modules where no input requires gradient should always return None or None for "
                    "all gradients."
                )
        return grads

    def _entered(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        out_grads, self.out_grads = self.out_grads, None
        if out_grads is None:
            return grads
        return _run(self.hooks, grads, lambda hook, now: hook(self.module, now, out_grads), "input")


def _run(hooks: list[Hook], grads: tuple[Any, ...], call: Callable[[Hook, Any], Any], side: str) -> tuple[Any, ...]:
    """Call the hooks in order, each with what the ones before made of the gradients. Raises AutogradError when one
    gives another number of them.
    """
    for hook in hooks:
        changed = call(hook, grads)
        if changed is None:
            continue
        found = tuple(changed) if isinstance(changed, (tuple, list)) else (changed,)
        if len(found) != len(grads):
            raise AutogradError(
                f"Backward hook returned an invalid number of grad_{side}, got {len(found)}, but expected {len(grads)}"
            )
        grads = found
    return grads
