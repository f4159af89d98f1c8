"""Comparing eager with compiled, bit by bit."""

from __future__ import annotations

import dataclasses
import functools
import os
import tempfile
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from graphc.errors import ArgumentError
from graphc.frontend.record import rng
from graphc.frontend.record.compiled import Compiled
from graphc.frontend.record.export import Program, load, trace
from graphc.frontend.record.tree import flatten
from graphc.frontend.record.watch import is_module, is_optimizer
from graphc.frontend.tensor import Tensor
from graphc.ir.op import Array
from graphc.ir.types import DType
from graphc.runtime.pool import get_num_threads, set_num_threads

__all__ = ["assert_same"]


def assert_same(
    fn: Callable[..., Any],
    *inputs: Any,
    state: Any = (),
    calls: int = 4,
    fullgraph: bool = True,
    reload: bool = True,
    threads: Sequence[int] = (1, 2),
) -> Compiled:
    """Assert that `fn(*inputs)` gives the same bits eagerly, compiled with each number of `threads`, and reloaded from
    a file.

    Calls it `calls` (at least 4) times each way from the same starting point and compares, after every call, what it
    returned, every tensor of `state` (Modules, Optimizers, tensors, or containers of them; those the function closes
    over are found by themselves), every `.grad`, the inputs and the random state. All of it is put back at the end.
    NaNs count as equal. With `fullgraph` the function must be compiled whole. Returns the compiled function of the last
    run. Raises AssertionError naming the first difference.
    """
    if calls < 4:
        raise ArgumentError(f"assert_same: needs at least 4 calls (two are recorded), got {calls}")
    world = _World([fn, inputs, state, _captured(fn)])
    start = world.snapshot()
    before = get_num_threads()
    try:
        expected = _eager_run(fn, inputs, calls, world)
        for count in threads:
            world.restore(start)
            set_num_threads(count)
            compiled = Compiled(fn, fullgraph)
            _compare_calls(compiled, inputs, expected, world, f"compiled, {count} thread{'s' if count > 1 else ''}")
            if fullgraph and compiled.stats.hits < calls - 2:
                raise AssertionError(
                    f"only {compiled.stats.hits} of {calls} calls were answered by the compiled graph:\n"
                    f"{compiled.explain()}"
                )
        if reload and fullgraph:
            world.restore(start)
            _compare_reloaded(fn, inputs, expected)
    finally:
        set_num_threads(before)
        world.restore(start)
    return compiled


def _captured(fn: Any) -> list[Any]:
    """Modules, optimisers and tensors among the closure variables and globals the function names."""
    function = getattr(fn, "__func__", fn)
    found = [getattr(fn, "__self__", None)]
    for cell in getattr(function, "__closure__", None) or ():
        try:
            found.append(cell.cell_contents)
        except ValueError:
            continue
    code = getattr(function, "__code__", None)
    globals_ = getattr(function, "__globals__", {})
    found += [globals_[name] for name in (code.co_names if code is not None else ()) if name in globals_]
    return [x for x in found if _is_state(x)]


def _is_state(x: Any) -> bool:
    if isinstance(x, (list, tuple)):
        return any(map(_is_state, x))
    if isinstance(x, dict):
        return any(map(_is_state, x.values()))
    return isinstance(x, Tensor) or is_module(x) or is_optimizer(x)


class _World:
    """Everything a call may change."""

    def __init__(self, roots: Iterable[Any]) -> None:
        self.tensors: dict[int, tuple[str, Tensor]] = {}
        self.modules: dict[int, Any] = {}
        self.optimizers: dict[int, Any] = {}
        for root in roots:
            self._visit(root, "")

    def _visit(self, x: Any, name: str) -> None:
        if isinstance(x, Tensor):
            self.tensors.setdefault(id(x), (name or "tensor", x))
        elif is_module(x):
            for path, module in x.named_modules():
                self.modules.setdefault(id(module), module)
                for key, t in (*module._parameters.items(), *module._buffers.items()):
                    if t is not None:
                        self._visit(t, ".".join(p for p in (path, key) if p))
        elif is_optimizer(x):
            self.optimizers[id(x)] = x
            for group in x.param_groups:
                for k, p in enumerate(group["params"]):
                    self._visit(p, f"param {k}")
        elif isinstance(x, dict):
            for key, item in x.items():
                self._visit(item, str(key))
        elif isinstance(x, (list, tuple, set)):
            for k, item in enumerate(x):
                self._visit(item, name or f"input {k}")
        elif dataclasses.is_dataclass(x) and not isinstance(x, (type, DType)):
            for field in dataclasses.fields(x):
                self._visit(getattr(x, field.name, None), field.name)

    def snapshot(self) -> dict[str, Any]:
        """Copies of everything."""
        return {
            "tensors": [(t, t._a.copy(), t._grad, _copied(t._grad)) for _, t in self.tensors.values()],
            "optimizers": [(o, _copied_state(o), [dict(g) for g in o.param_groups]) for o in self.optimizers.values()],
            "buffers": [(m, dict(m._buffers), dict(m._parameters), dict(m.__dict__)) for m in self.modules.values()],
            "random": rng.state_array(),
        }

    def restore(self, taken: dict[str, Any]) -> None:
        """Put everything back, keeping the objects that were there."""
        for t, content, grad, grad_content in taken["tensors"]:
            _put(t, content)
            t._grad = grad
            if grad is not None:
                _put(grad, grad_content)
        for optimizer, state, groups in taken["optimizers"]:
            optimizer.state.clear()
            for p, entries in state.items():
                for key, (value, content) in entries.items():
                    optimizer.state[p][key] = value
                    if content is not None:
                        _put(value, content)
            for group, old in zip(optimizer.param_groups, groups, strict=True):
                group.update(old)
        for module, buffers, parameters, fields in taken["buffers"]:
            module._buffers.clear()
            module._buffers.update(buffers)
            module._parameters.clear()
            module._parameters.update(parameters)
            for key in [k for k in module.__dict__ if k not in fields]:
                del module.__dict__[key]
            module.__dict__.update(fields)
        rng.set_state(taken["random"])

    def bits(self) -> dict[str, bytes]:
        """The bits of everything now, by name."""
        found: dict[str, bytes] = {"random state": rng.state_array().tobytes()}
        for k, (name, t) in enumerate(self.tensors.values()):
            found[f"{name} ({k})"] = _bits(t._a)
            found[f"{name}.grad ({k})"] = b"none" if t._grad is None else _bits(t._grad._a)
        for i, module in enumerate(self.modules.values()):
            for key, b in module._buffers.items():
                if b is not None:
                    found[f"buffer {key} of module {i}"] = _bits(b._a)
        for i, o in enumerate(self.optimizers.values()):
            for j, entries in enumerate(o.state.values()):
                for key, v in entries.items():
                    found[f"optimizer {i} state {j} {key}"] = _bits(v._a) if isinstance(v, Tensor) else repr(v).encode()
        return found


def _copied(x: Any) -> Array | None:
    return x._a.copy() if isinstance(x, Tensor) else None


def _copied_state(optimizer: Any) -> dict[Tensor, dict[str, tuple[Any, Array | None]]]:
    return {p: {key: (v, _copied(v)) for key, v in entries.items()} for p, entries in optimizer.state.items()}


def _put(t: Tensor, content: Array) -> None:
    if t._a.tobytes() != content.tobytes():
        np.copyto(t._a, content)
        t._s.version += 1
        t._v.value += 1


def _bits(array: Array) -> bytes:
    """Shape, dtype and elements; every NaN as one."""
    about = f"{_named(array.dtype)}{array.shape}"
    if array.dtype.kind not in "biu":
        array = _one_nan(array)
    return about.encode() + array.tobytes()


def _one_nan(array: Array) -> Array:
    """The array with every NaN, also in a part of a complex number, as the same one."""
    if array.dtype.kind == "c":
        parts = np.ascontiguousarray(array).reshape(-1)
        return _one_nan(parts.view(parts.real.dtype))
    strange = np.isnan(array)
    return np.where(strange, array.dtype.type(np.nan), array) if strange.any() else array


@functools.cache
def _named(dtype: np.dtype[Any]) -> str:
    """The name of a dtype, which NumPy composes anew each time."""
    return str(dtype)


def _leaf_bits(result: Any) -> list[bytes]:
    leaves, spec = flatten(result)
    found = [repr(spec).encode()]
    for x in leaves:
        found.append(
            _bits(x._a) + str(x.requires_grad).encode()
            if isinstance(x, Tensor)
            else f"{type(x).__name__} {_number(x)}".encode()
        )
    return found


def _number(x: Any) -> str:
    return float(x).hex() if isinstance(x, float) else repr(x)


Calls = list[tuple[list[bytes], dict[str, bytes], Any, list[bytes]]]


def _eager_run(fn: Callable[..., Any], inputs: Sequence[Any], calls: int, world: _World) -> Calls:
    done: Calls = []
    kept = []
    for _ in range(calls):
        result = fn(*inputs)
        kept.append(result)
        done.append((_leaf_bits(result), world.bits(), _plain_outputs(result), []))
    for result, (_, _, _, later) in zip(kept, done, strict=True):
        later += _leaf_bits(result)  # a returned state tensor changes with later calls
    return done


def _plain_outputs(result: Any) -> list[bytes]:
    return [_bits(x._a) if isinstance(x, Tensor) else _number(x).encode() for x in flatten(result)[0]]


def _compare_calls(fn: Callable[..., Any], inputs: Sequence[Any], expected: Calls, world: _World, how: str) -> None:
    kept: list[tuple[int, Any]] = []
    for k, (outputs, state, _, _) in enumerate(expected):
        result = fn(*inputs)
        kept.append((k, result))
        for i, (a, b) in enumerate(zip(outputs, _leaf_bits(result), strict=False)):
            if a != b:
                raise AssertionError(
                    f"{how}: call {k + 1}: {'the structure' if i == 0 else f'output {i - 1}'} differs from eager"
                )
        now = world.bits()
        wrong = next((name for name in state if now.get(name) != state[name]), None)
        if wrong is not None or len(now) != len(state):
            raise AssertionError(f"{how}: call {k + 1}: {wrong or 'the set of tensors'} differs from eager")
    for k, result in kept:
        if _leaf_bits(result)[1:] != expected[k][3][1:]:
            raise AssertionError(f"{how}: the output of call {k + 1} was changed by a later call, unlike eager's")


def _compare_reloaded(fn: Callable[..., Any], inputs: Sequence[Any], expected: Calls) -> None:
    program: Program = trace(fn, *inputs)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.gcz")
        program.save(path)
        again = load(path)
    if str(again.graph) != str(program.graph):
        raise AssertionError("reloaded: the graph's text differs from the saved one")
    for k, (_, _, outputs, _) in enumerate(expected):
        if _plain_outputs(again(*inputs)) != outputs:
            raise AssertionError(f"reloaded: call {k + 1}: outputs differ from eager")
