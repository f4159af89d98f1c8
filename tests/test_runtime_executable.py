"""Executables on programs of hand-written kernels: binding, checks, contexts, floating-point mode, poison."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from graphc.config import config
from graphc.errors import ArgumentError, InternalError
from graphc.ir.types import Layout, float32
from graphc.runtime import executable as module
from graphc.runtime import workspace
from graphc.runtime.code import KernelLibrary, library
from graphc.runtime.executable import Executable
from graphc.runtime.guard import guarded_empty
from graphc.runtime.pool import get_num_threads, set_num_threads
from graphc.runtime.program import BufferRef, OutputSpec
from graphc.runtime.workspace import release_workspaces
from tests.runtime_kernels import (
    AFFINE,
    PRODUCT,
    THROUGH_SCRATCH,
    HandKernel,
    call,
    fresh,
    host_target,
    layout,
    program,
)

IN, OUT, ARENA = BufferRef("input", 0), BufferRef("output", 0), BufferRef("arena", 0, 64)
ROOT = Path(__file__).parent.parent


def affine(n: int, grain: int = 1 << 40) -> HandKernel:
    return HandKernel("affine", AFFINE, units=n, grain=grain)


def twice(n: int = 100, grain: int = 1 << 40) -> Executable:
    """y = affine(affine(x)), by way of the arena."""
    made = program((layout(n),), (fresh(n),), (call(IN, ARENA), call(ARENA, OUT)), arena_bytes=64 + 4 * n)
    return Executable(made, [affine(n, grain), affine(n, grain)], host_target())


def expected(x: np.ndarray) -> np.ndarray:
    return (x * np.float32(3) + np.float32(1)) * np.float32(3) + np.float32(1)


@pytest.fixture(params=[1, 3])
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = get_num_threads()
    set_num_threads(request.param)
    yield request.param
    set_num_threads(before)


@pytest.mark.parametrize("grain", [1, 1 << 40])
def test_a_chain_through_the_arena(threads: int, grain: int) -> None:
    exe = twice(1000, grain)
    x = np.random.default_rng(0).standard_normal(1000, np.float32)
    kept = x.copy()
    for _ in range(50):
        (y,) = exe([x])
        assert y.flags.owndata and y.flags.c_contiguous and y.dtype == np.float32
        assert np.array_equal(y, expected(x)) and np.array_equal(x, kept)
    assert exe.stats.native_calls == 50 and exe.stats.kernels == 2 and exe.stats.codes == 1


def test_large_results_start_on_a_cache_line() -> None:
    x = np.ones(1 << 13, np.float32)
    for _ in range(5):
        (y,) = twice(1 << 13)([x])
        assert y.ctypes.data % 64 == 0 and y.flags.c_contiguous and y.flags.writeable and (y == 13).all()


def test_params_tables_constants_and_scratch(threads: int) -> None:
    n = 500
    table = np.random.default_rng(0).permutation(n).astype(np.int64)
    kernel = HandKernel("scratch", THROUGH_SCRATCH, params=(5,), tables=(table,), units=n, grain=10, scratch=128)
    big = np.arange((1 << 18) + 1, dtype=np.float32)  # large constants are used in place
    for constants, value in (((np.float32([7]), big), 7), ((big[3:4], big), 3)):
        made = program((layout(n),), (fresh(n),), (call(IN, BufferRef("const", 0), OUT),), constants)
        x = np.arange(n, dtype=np.float32)
        assert np.array_equal(Executable(made, [kernel], host_target())([x])[0], x[table] + value + 5)
    made = program((layout(n),), (fresh(n),), (call(IN, BufferRef("const", 1, 4 * 9), OUT),), constants)
    assert np.array_equal(Executable(made, [kernel], host_target())([x])[0], x[table] + 9 + 5)


def test_offsets_into_inputs_and_several_outputs() -> None:
    calls = (call(BufferRef("input", 1, 8), BufferRef("output", 1)), call(IN, BufferRef("output", 0, 4)))
    made = program((layout(3), layout(6)), (fresh(4), fresh(3)), calls)
    a, b = np.float32([1, 2, 3]), np.arange(6, dtype=np.float32)
    first, second = Executable(made, [affine(3), affine(3)], host_target())([a, b])
    assert second.tolist() == [7, 10, 13] and first[1:].tolist() == [4, 7, 10]


def test_donated_outputs_are_written_in_place() -> None:
    donated = OutputSpec(layout(4), 0, "state", "w")
    exe = Executable(program((layout(4),), (donated,), (call(IN, OUT),)), [affine(4)], host_target())
    x = np.zeros(4, np.float32)
    (y,) = exe([x])
    assert y is x and x.tolist() == [1, 1, 1, 1]
    exe.poison = True
    assert exe([x])[0].tolist() == [4, 4, 4, 4]  # poison spares donated memory


def test_given_outputs() -> None:
    exe, x = twice(), np.ones(100, np.float32)
    out = np.zeros(100, np.float32)
    (y,) = exe([x], [out])
    assert y is out and (out == 13).all()
    for bad in (np.zeros(99, np.float32), np.zeros(100), np.zeros(200, np.float32)[::2]):
        with pytest.raises(ArgumentError):
            exe([x], [bad])
    out.flags.writeable = False
    with pytest.raises(ArgumentError, match="writeable"):
        exe([x], [out])
    with pytest.raises(ArgumentError, match="expected 1 output"):
        exe([x], [])


@pytest.mark.parametrize(
    "bad",
    [
        np.zeros(99, np.float32),
        np.zeros((100, 1), np.float32),
        np.zeros(100, np.float64),
        np.zeros(100, ">f4"),
        np.zeros(200, np.float32)[::2],
        np.zeros(1, np.float32).repeat(100)[::-1],
        [0.0] * 100,
        None,
    ],
)
def test_inputs_that_do_not_fit_are_refused(bad: object) -> None:
    with pytest.raises(ArgumentError):
        twice()([bad])  # type: ignore[list-item]


def test_the_number_of_inputs_is_checked() -> None:
    with pytest.raises(ArgumentError, match="expected 1 inputs, got 2"):
        twice()([np.zeros(100, np.float32)] * 2)


def test_strides_that_are_never_used_do_not_count() -> None:
    made = program((layout(1),), (fresh(1),), (call(IN, OUT),))
    exe = Executable(made, [affine(1)], host_target())
    assert exe([np.zeros(8, np.float32)[::8]])[0].tolist() == [1]
    assert exe([np.zeros(1, np.float32).view(_Subclass)])[0].tolist() == [1]


class _Subclass(np.ndarray):
    pass


def test_strided_inputs_and_views() -> None:
    layouts = (Layout(layout(3).type, (-1,)),)
    made = program(layouts, (fresh(1),), (call(IN, OUT),))
    exe = Executable(made, [affine(1)], host_target())
    assert exe([np.float32([1, 2, 3])[::-1]])[0].tolist() == [10]  # the address is that of the first element


def test_without_the_address_of_the_object(monkeypatch: pytest.MonkeyPatch) -> None:
    assert object.__basicsize__ == module.DATA_OFFSET
    monkeypatch.setattr(module, "DATA_OFFSET", -1)
    x = np.arange(100, dtype=np.float32)
    assert np.array_equal(twice()([x])[0], expected(x))


def test_programs_that_do_not_fit_are_internal_errors() -> None:
    for bad in (BufferRef("input", 1), BufferRef("arena", 0, 128), BufferRef("const", 0), BufferRef("heap", 0)):
        with pytest.raises(InternalError):
            Executable(program((layout(4),), (fresh(4),), (call(bad, OUT),)), [affine(4)], host_target())
    with pytest.raises(InternalError, match="1 calls but 0 kernels"):
        Executable(program((layout(4),), (fresh(4),), (call(IN, OUT),)), [], host_target())
    strided = OutputSpec(Layout(layout(4).type, (2,)), None, "value", "y")
    with pytest.raises(InternalError, match="contiguous"):
        Executable(program((layout(4),), (strided,), (call(IN, OUT),)), [affine(4)], host_target())


def test_poison_shows_what_nobody_wrote() -> None:
    made = program((layout(4),), (fresh(4),), (call(ARENA, OUT),), arena_bytes=128)
    exe = Executable(made, [affine(4)], host_target())
    exe.poison = True
    x = np.zeros(4, np.float32)
    assert np.isnan(exe([x])[0]).all()
    assert (exe([x])[0] < -1e8).all()  # 0xCCCCCCCC
    idle = Executable(program((layout(4),), (fresh(4),), ()), [], host_target())
    idle.poison = True
    assert np.isnan(idle([x])[0]).all()


def test_executables_share_workspaces_and_grow_them() -> None:
    release_workspaces()
    x, y = np.ones(100, np.float32), np.ones(50000, np.float32)
    small, large = twice(100), twice(50000)
    for exe, array in ((small, x), (large, y), (small, x), (large, y)):
        assert (exe([array])[0] == 13).all()
    assert [w.nbytes for w in workspace._free] == [64 + 4 * 50000]
    assert all(w.ctypes.data % 64 == 0 for w in workspace._free)
    release_workspaces()
    assert not workspace._free


def test_debug_checks_of_donated_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "verify", True)
    donated = OutputSpec(layout(4), 0, "state", "w")
    exe = Executable(program((layout(4), layout(4)), (donated,), (call(IN, OUT),)), [affine(4)], host_target())
    x = np.zeros(8, np.float32)
    exe([x[:4], x[4:]])
    with pytest.raises(ArgumentError, match="overlaps"):
        exe([x[:4], x[2:6]])
    x.flags.writeable = False
    with pytest.raises(ArgumentError, match="read-only"):
        exe([x[:4], x[4:]])


def test_concurrent_calls_of_one_executable(threads: int) -> None:
    exe, wrong = twice(2000, 50), []

    def work(seed: int) -> None:
        x = np.random.default_rng(seed).standard_normal(2000, np.float32)
        want = expected(x)
        for _ in range(300):
            if not np.array_equal(exe([x])[0], want):
                wrong.append(seed)

    callers = [threading.Thread(target=work, args=(k,)) for k in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong
    assert len(exe._free) <= module.KEPT_CONTEXTS


MODE = """define i64 @get_mode() nounwind {
  %m = alloca i32, align 4
  call void @llvm.x86.sse.stmxcsr(ptr %m)
  %v = load i32, ptr %m, align 4
  %w = zext i32 %v to i64
  ret i64 %w
}
define void @set_mode(i64 %v) nounwind {
  %m = alloca i32, align 4
  %w = trunc i64 %v to i32
  store i32 %w, ptr %m, align 4
  call void @llvm.x86.sse.ldmxcsr(ptr %m)
  ret void
}
declare void @llvm.x86.sse.stmxcsr(ptr)
declare void @llvm.x86.sse.ldmxcsr(ptr)
"""


@pytest.mark.skipif(not host_target().triple.startswith("x86_64"), reason="reads MXCSR")
@pytest.mark.parametrize("mode", [0x9FC0, 0x7F80, 0x3F80])  # flush to zero and denormals are zero; toward 0; down
def test_floating_point_mode_is_set_inside_and_restored_outside(threads: int, mode: int) -> None:
    loaded = library().module(lambda _: MODE, host_target())
    get = ctypes.CFUNCTYPE(ctypes.c_int64)(loaded.address("get_mode"))
    put = ctypes.CFUNCTYPE(None, ctypes.c_int64)(loaded.address("set_mode"))
    tiny, n = np.float32(1e-40), 64
    cases = [(tiny, np.float32(1)), (np.float32(1) / np.float32(3), np.float32(-1.1))]
    for x, y in cases:
        bits = tuple(int(v.view(np.uint32)) for v in (x, y))
        made = program((), (fresh(n),), (call(OUT),))
        exe = Executable(made, [HandKernel("product", PRODUCT, params=bits, units=n)], host_target())
        want = np.float32(x * y)
        before = get()
        put(mode)
        try:
            (found,) = exe([])
            after = get()
        finally:
            put(before)
        assert after & ~0x3F == mode  # all but the exception flags
        assert found.tolist() == [float(want)] * n


def test_kernels_are_shared_between_executables() -> None:
    kernels, first, second = KernelLibrary(), affine(8), affine(16)
    for kernel in (first, second):
        made = program((layout(kernel.units),), (fresh(kernel.units),), (call(IN, OUT),))
        Executable(made, [kernel], host_target(), kernels)
    assert kernels.compiled == 1 and not second.emitted


GUARD = """
import sys
import numpy as np
from graphc.runtime.guard import guarded_empty
array = guarded_empty(100, end={end})
array[:] = 1
address = array.ctypes.data
import ctypes
print("ready", flush=True)
ctypes.c_uint8.from_address(address + {offset}).value = 1
"""


@pytest.mark.parametrize(("end", "inside", "outside"), [(True, 99, 100), (False, 0, -1)])
def test_guard_pages_end_the_process(end: bool, inside: int, outside: int) -> None:
    def status(offset: int) -> int:
        code = GUARD.format(end=end, offset=offset)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, cwd=ROOT)
        assert done.stdout == b"ready\n", done.stderr
        return done.returncode

    assert status(inside) == 0
    assert status(outside) < 0


def test_guarded_arrays_as_operands() -> None:
    for end in (True, False):
        x = guarded_empty(400, end).view(np.float32)
        out = guarded_empty(400, end).view(float32.np)
        x[:] = 2
        (y,) = twice()([x], [out])
        assert (y == 22).all()
    assert guarded_empty(0).size == 0


def test_guarded_memory_is_given_back() -> None:
    def mapped() -> int:
        return int(Path("/proc/self/statm").read_text().split()[0])

    before = mapped()
    for _ in range(50):
        guarded_empty(1 << 22)[::4096] = 1
    assert mapped() - before < 20 * 1024


LEAK = """
import numpy as np
from tests.test_runtime_executable import twice
exe, x = twice(), np.zeros(100, np.float32)
rss = lambda: int(open("/proc/self/statm").read().split()[1]) * 4
for _ in range(2000):
    exe([x])
before = rss()
for _ in range(20000):
    exe([x])
grown = rss() - before
for _ in range(50):
    twice()
before = rss()
for _ in range(300):
    twice()([x])
print(grown, rss() - before)
"""


def test_calls_and_executables_leak_little() -> None:
    done = subprocess.run([sys.executable, "-c", LEAK], capture_output=True, text=True, timeout=120, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    calls, executables = map(int, done.stdout.split())
    assert calls < 1024 and executables < 1024  # KB
