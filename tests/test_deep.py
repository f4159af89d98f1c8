"""Deep checks: random graphs and programs pass them, every op has its comparison, and each part finds a planted bug."""

from __future__ import annotations

import ctypes
import faulthandler
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from op_checks import cases, sample_arrays
from wide_graphs import laid_inputs, wide_graph

import graphc
from graphc import compiler
from graphc.codegen import assemble, vmath
from graphc.codegen.target import X86_64_V3, host_target
from graphc.compiler import eager_run
from graphc.errors import ArgumentError
from graphc.fuzz import deep_exact, deep_memory
from graphc.fuzz.checks import imported
from graphc.fuzz.deep import deep_check, deep_check_graph
from graphc.fuzz.deep_exact import check_op, comparison
from graphc.fuzz.deep_variants import Variant, ablations, chosen, targets
from graphc.fuzz.difference import Difference, differing, first_difference, same_bits
from graphc.fuzz.layouts import copied, relaid
from graphc.fuzz.programs import source
from graphc.ir.expr import apply, iconst, isub, load
from graphc.ir.graph import Graph
from graphc.ir.op import Array, all_ops, op_named
from graphc.ir.passes import plan, simplify
from graphc.ir.rewrite import rebuild
from graphc.ir.types import TensorType, bfloat16, dtype_of, float32, int64
from graphc.runtime import code, driver, executable
from graphc.runtime.code import KernelLibrary
from graphc.runtime.program import BufferRef

FEW = 3  # cases of an op

# how each op of the table is judged; what is not named here: "bits"
RULES = {
    "ulp": "exp log tanh sigmoid erf sin cos pow",
    "kernel": "matmul conv2d conv2d_input_grad conv2d_weight_grad atan asin acos atan2 erfc lgamma polygamma randn "
    "logcumsumexp",
    "graphs": "cond while_loop scan",
    "parts": "log1p expm1 silu gelu softplus elu linear sinh cosh asinh acosh atanh erfinv var std logsumexp softmax "
    "log_softmax batch_norm_train batch_norm_grad batch_norm_eval mse_loss l1_loss smooth_l1_loss huber_loss "
    "binary_cross_entropy_with_logits binary_cross_entropy kl_div nll_loss cross_entropy cross_entropy_grad layer_norm "
    "layer_norm_grad rms_norm group_norm avg_pool2d max_pool2d celu tanhshrink",
}


# ---------------------------------------------------------------- every op has a comparison, which can fail


def test_the_comparison_of_every_op() -> None:
    named = {name: rule for rule, names in RULES.items() for name in names.split()}
    assert not set(named) - set(all_ops())
    for name, op in all_ops().items():
        assert comparison(op) == named.get(name, "bits"), name


def few_cases(name: str) -> list[tuple[list[Array], Any]]:
    op = all_ops()[name]
    found = cases(op)
    spread = [found[k * len(found) // FEW] for k in range(FEW)] if len(found) > FEW else found
    with np.errstate(all="ignore"):
        return [([np.array(a, order="C") for a in sample_arrays(s, d)], s.attrs) for s, d in spread]


@pytest.mark.parametrize("name", sorted(all_ops()))
def test_each_op_passes_and_a_wrong_bit_is_found(name: str) -> None:
    op = all_ops()[name]
    noticed = 0
    for arrays, attrs in few_cases(name):
        found = eager_run(op, arrays, attrs)
        check_op(op, arrays, attrs, found, "here", lambda: name)
        for k, a in enumerate(found):
            if a.size and not (dtype_of(a.dtype).is_floating_point and np.isnan(a).all()):
                wrong = [_wrong(x) if k == j else x for j, x in enumerate(found)]
                with pytest.raises(Difference, match="differs"):
                    check_op(op, arrays, attrs, wrong, "here", lambda: name)
                noticed += 1
    assert noticed or name in ("full",)


def _wrong(a: Array) -> Array:
    """One bit of an element that is not NaN is another."""
    bad = np.array(a, order="C")
    words = bad.reshape(-1).view(np.uint8)
    number = next(k for k in range(a.size) if not _is_nan(bad.flat[k]))
    words[number * a.itemsize] ^= 1
    return bad


def _is_nan(x: Any) -> bool:
    return bool(x != x)


@pytest.mark.parametrize("name", ["exp", "log", "tanh", "sigmoid", "erf", "sin", "cos", "pow"])
def test_functions_are_held_to_their_units(name: str) -> None:
    op = op_named(name)
    x = np.linspace(0.1, 3, 50, dtype=np.float32)
    operands = [x, x[::-1].copy()] if name == "pow" else [x]

    def off(op: Any, arrays: Any, attrs: Any) -> list[Array]:
        (found,) = eager_run(op, arrays, attrs)
        found[17] += 4 * np.spacing(found[17])
        return [found]

    deep_exact.expected(op, operands, {})
    with pytest.raises(Difference, match=r"ulp off.*allowed: " + name):
        deep_exact.expected(op, operands, {}, off)


def test_differences() -> None:
    nan, quiet = np.array([np.nan, 1.0]), np.array([-np.nan, 1.0])
    assert same_bits(nan, quiet) and not same_bits(nan, np.array([1.0, np.nan]))
    assert first_difference(np.array([[0.0, 1.0]]), np.array([[-0.0, 1.0]])) == (0, 0)
    assert first_difference(np.zeros(2), np.zeros(2, np.float32)) == "dtype"
    assert first_difference(np.zeros(2), np.zeros((1, 2))) == "shape"
    short = np.array([1.0, np.nan], bfloat16.np)
    assert same_bits(short, -short * -1) and not same_bits(short, -short)
    assert differing(np.array([1 + 2j]), np.array([1 - 2j])).all()
    error = Difference("y differs", "variants", "add", np.array([1.0]), np.array([2.0]))
    assert "variants: y differs" in str(error) and "first at [0]: expected 1.0 (3ff0" in str(error)


# ---------------------------------------------------------------- what is right passes


@pytest.mark.parametrize("seed", range(12))
def test_random_graphs(seed: int) -> None:
    graph = wide_graph(seed + 5000, most=12)
    deep_check_graph(graph, laid_inputs(graph, seed + 5000), seed)


@pytest.mark.parametrize("seed", range(10))
def test_random_programs(seed: int) -> None:
    with imported(source(seed + 5000), f"deep_{seed}") as module:
        deep_check(*module.make(), seed=seed)


def test_everything_of_one_graph() -> None:
    graph, arrays = mixed()
    deep_check_graph(graph, arrays, 1, full=True)


def test_a_program_with_a_size_that_depends_on_values_and_one_with_branches() -> None:
    def f(x: Any) -> Any:
        return (x[x > 0] * 2).cumsum(0)

    deep_check(f, [graphc.tensor([1.0, -2.0, 3.0, 0.5])])

    def g(x: Any) -> Any:
        return graphc.cond(x.sum() > 0, lambda a: a.exp() + 1, lambda a: a - 1, (x,))

    for sign in (1.0, -1.0):
        deep_check(g, [graphc.tensor([[1.0, 2.0], [3.0, 4.0]]) * sign], seed=1)


def test_what_cannot_be_exported_is_skipped() -> None:
    deep_check(lambda x: [float(v) for v in x.numpy()], [graphc.ones(3)])
    deep_check(lambda x: [][int(x.shape[0])], [graphc.ones(3)])
    with pytest.raises(ArgumentError, match="unknown part 'node'"):
        deep_check_graph(*mixed(), parts=("node",))


def test_variants_by_seed() -> None:
    every = chosen(0, True)
    assert len(every) == len(targets()) * len(ablations(host_target())) and len(ablations(host_target())) == 8
    found = [chosen(seed, False) for seed in range(len(every))]
    assert {v for pair in found for v in pair} == set(every) and all(pair[0] == every[0] for pair in found)
    assert str(Variant(X86_64_V3, ("cse",), False)) == "x86-64-v3, without cse, fuse"


def test_other_layouts_hold_the_same() -> None:
    rng = np.random.default_rng(0)
    array = rng.standard_normal((3, 4))
    for _ in range(9):
        other = relaid(array, rng)
        again = copied(other)
        assert same_bits(array, other) and same_bits(array, again) and again.strides == other.strides
        assert not np.may_share_memory(again, other)


# ---------------------------------------------------------------- planted bugs


def mixed() -> tuple[Graph, list[Array]]:
    """A graph of a map, a row kernel, a product, a scatter and a state."""
    graph = Graph("mixed")
    types = [TensorType(float32, (6, 37)), TensorType(float32, (6, 37)), TensorType(float32, (37,))]
    x, y, s = (graph.add_input(t, n, k) for t, n, k in zip(types, "xys", ("input", "input", "state"), strict=True))
    with graph.building():
        a = op_named("maximum")(x, y)
        b = op_named("exp")(op_named("mul")(a, 0.5))
        c = op_named("softmax")(b, dim=1)
        d = op_named("matmul")(c, y, tb=True)
        e = op_named("index_add")(d, graph.constant(np.array([1, 1, 5])), op_named("slice")(
            d, dim=0, start=0, stop=3, step=1), dim=0)  # fmt: skip
        f = op_named("relu")(op_named("sub")(e, 0.25))
        t = op_named("add")(s, op_named("sum")(a, dim=(0,), keepdim=False))
    graph.add_output(f, "f")
    graph.add_output(op_named("permute")(a, dims=(1, 0)), "a")
    graph.add_output(t, "s", "state")
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(t.sizes).astype(np.float32) for t in types]
    arrays[0][0, :3] = np.nan, -0.0, 1e-40
    arrays[1][0, 1:3] = 0.0, -1e-40
    return graph, arrays


Rewrite = Callable[[str, Any], str]


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[Rewrite], None]]:
    """Machine code of its own, from texts that `planted(rewrite)` changes."""
    fresh = KernelLibrary(None)
    monkeypatch.setattr(compiler, "_eager", {})
    monkeypatch.setattr(executable, "library", lambda: fresh)
    real = code.llvm.compile_text

    def plant(rewrite: Rewrite) -> None:
        monkeypatch.setattr(code.llvm, "compile_text", lambda text, target: real(rewrite(text, target), target))

    yield plant


def found_by(*parts: str, seed: int = 0, full: bool = False) -> Difference:
    graph, arrays = mixed()
    with pytest.raises(Difference) as caught:
        deep_check_graph(graph, arrays, seed, parts, full)
    return caught.value


def test_minimum_for_maximum_is_found_by_nodes(planted: Any) -> None:
    planted(lambda text, target: text.replace("llvm.maximum", "llvm.minimum"))
    error = found_by()
    assert error.where == "nodes" and error.node.startswith("maximum(f32[6, 37]") and "NumPy reference" in error.what


def test_a_missing_nan_rule_is_found_by_nodes(planted: Any) -> None:
    planted(lambda text, target: text.replace("llvm.maximum", "llvm.maxnum"))
    assert found_by().node.startswith("maximum")


def test_a_comparison_that_takes_nan_for_less_is_found_by_nodes(planted: Any) -> None:
    planted(lambda text, target: text.replace("fcmp olt", "fcmp ult"))
    graph, arrays = mixed()
    arrays[0][:] = np.nan
    with pytest.raises(Difference, match=r"found 0\.0"):
        deep_check_graph(graph, arrays, 0, ())


def test_a_product_rounded_twice_is_found_by_nodes(planted: Any) -> None:
    def twice(text: str, target: Any) -> str:
        defined = [
            f"define internal {t} @twice.{n}({t} %a, {t} %b, {t} %c) {{\n"
            f"  %p = fmul {t} %a, %b\n  %s = fadd {t} %p, %c\n  ret {t} %s\n}}\n"
            for t, n in dict.fromkeys(re.findall(r"call (.+?) @llvm\.fma\.(\w+)\(", text))
        ]
        return text.replace("@llvm.fma.", "@twice.") + "".join(defined)

    planted(twice)
    graph = Graph("product")
    x = graph.add_input(TensorType(float32, (5, 7)), "x")
    graph.add_output(op_named("matmul")(x, x, tb=True), "y")
    rng = np.random.default_rng(0)
    with pytest.raises(Difference, match="its kernels interpreted"):
        deep_check_graph(graph, [rng.standard_normal((5, 7)).astype(np.float32)], 0, ())


def test_a_worse_function_is_found_by_nodes(monkeypatch: pytest.MonkeyPatch, planted: Any) -> None:
    monkeypatch.setattr(vmath, "EXP_32", [c * (1 + 1e-5) for c in vmath.EXP_32])
    planted(lambda text, target: text)
    error = found_by()
    assert "ulp off" in error.what and error.node.startswith("exp(")


def test_a_wrong_rule_is_found_by_variants(monkeypatch: pytest.MonkeyPatch, planted: Any) -> None:
    """A simplification drops the subtraction of a constant."""
    real = simplify.run

    def wrong(graph: Graph) -> Graph:
        def drop(out: Graph, node: Any, inputs: Any) -> Any:
            return (inputs[0],) if node.op.name == "sub" and node.inputs[1].type.ndim == 0 else None

        return real(rebuild(graph, drop))

    monkeypatch.setattr(simplify, "run", wrong)
    error = found_by("variants")
    assert "all passes, 1 thread" in error.where and error.node.startswith("relu")


def test_wrong_code_for_one_target_is_found_by_variants(planted: Any) -> None:
    if len(targets()) < 2:
        pytest.skip("one target alone")
    planted(lambda text, target: text.replace("fsub ", "fadd ") if target is X86_64_V3 else text)
    assert "x86-64-v3" in found_by("variants", full=True).where


def test_wrong_shares_of_threads_are_found_by_variants(planted: Any) -> None:
    """A thread that does not begin at the first unit leaves one out."""

    def late(text: str, target: Any) -> str:
        head, mark, body = text.partition("i64 %lo, i64 %hi, ptr %scratch) nounwind {\n")
        if not mark:
            return text
        shift = "  %late = icmp sgt i64 %lo0, 0\n  %by = zext i1 %late to i64\n  %lo = add i64 %lo0, %by\n"
        return head + mark.replace("%lo", "%lo0") + shift + body

    planted(late)
    assert "2 threads" in found_by("variants").where


def test_memory_freed_early_is_found_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = plan.lifetimes
    monkeypatch.setattr(plan, "lifetimes", lambda calls: {s: (a, max(a, b - 1)) for s, (a, b) in real(calls).items()})
    assert found_by("memory").where == "memory (plan)"


def test_memory_that_overlaps_is_found_by_memory_and_variants(monkeypatch: pytest.MonkeyPatch) -> None:
    real = plan._FreeList.take
    monkeypatch.setattr(plan._FreeList, "take", lambda self, size: max(real(self, size) - 64, 0))
    assert found_by("memory").where == "memory (plan)"
    assert found_by("variants").where.startswith("variants")


def test_a_written_input_is_found_by_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    real = assemble._Apart.__call__

    def wrong(self: Any, storage: Any) -> BufferRef:
        found = real(self, storage)
        piece = storage.kind == "arena" and storage.nbytes == 6 * 37 * 4
        return BufferRef("input", 0) if piece and storage.name == "exp" else found

    monkeypatch.setattr(assemble._Apart, "__call__", wrong)
    monkeypatch.setattr(deep_memory, "arrange", lambda graph, layouts: assemble.arrange(graph, layouts, fused=False))
    error = found_by("memory")
    assert error.where == "memory" and error.node == "input 0"


def crashes(check: Callable[[], None]) -> bool:
    """Whether a forked child that does it ends by SIGSEGV; fails if it ends in another way than that or well."""
    child = os.fork()
    if not child:
        faulthandler.disable()
        try:
            check()
        except BaseException:
            os._exit(3)
        os._exit(0)
    status = os.waitpid(child, 0)[1]
    assert status in (0, int(signal.SIGSEGV)), status
    return bool(status)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs fork")
@pytest.mark.parametrize("before", [False, True])
def test_a_stray_access_ends_the_process(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    """One unit of work more than there is, or memory read in front of an operand."""
    graph = Graph("one")
    x = graph.add_input(TensorType(int64, (64,)), "x")
    graph.add_output(op_named("add")(x, 1), "y")
    arrays = [np.arange(64)]
    real = deep_memory.lower_kernel

    def beyond(kernel: Any) -> Any:
        made = real(kernel)
        return replace(made, units=made.units + 1, params=tuple(n + 1 if n == 64 else n for n in made.params))

    def in_front(kernel: Any) -> Any:
        (store,) = kernel.stores
        left = load(0, int64, isub(store.flat, iconst(1)))  # its sign is 0
        value = apply("add", store.value, apply("shr", left, iconst(63)))
        return real(replace(kernel, stores=(replace(store, value=value),)))

    monkeypatch.setattr(deep_memory, "lower_kernel", real)
    assert not crashes(lambda: deep_check_graph(graph, arrays, 0, ("memory",)))
    monkeypatch.setattr(deep_memory, "lower_kernel", in_front if before else beyond)
    assert crashes(lambda: deep_check_graph(graph, arrays, 0, ("memory",)))


def test_a_mode_that_is_not_set_is_found_by_modes(monkeypatch: pytest.MonkeyPatch, planted: Any) -> None:
    """The native loop leaves the host's mode as it is."""
    machine = driver.machine_of(driver.native_target().triple)
    plain = replace(machine, set_mode="", restore_mode="")
    monkeypatch.setattr(driver, "machine_of", lambda triple: plain)
    target = driver.native_target()
    loaded = KernelLibrary(None).module(lambda spec: driver.driver_text(spec.triple), target)
    run = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(loaded.address("graphc_run"))
    real = driver.native()
    monkeypatch.setattr(executable, "native", lambda: replace(real, run=run))
    assert found_by("modes").where.startswith("modes (flush to zero, round up, 1 thread)")


def test_a_window_of_both_zeros_passes() -> None:
    """The greatest of -0 and +0 is +0 (docs/numerics.md), whichever comes first."""
    op = op_named("max_pool2d")
    x = np.array([[[[-0.0, 0.0], [-0.0, -0.0]]]], np.float32)
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "dilation": (1, 1), "ceil_mode": False}
    found = eager_run(op, [x], attrs)
    check_op(op, [x], attrs, found, "here", lambda: "max_pool2d")
    assert not np.signbit(found[0]).any() and found[1].tolist() == [[[[0]]]]
