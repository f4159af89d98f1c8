"""Compiling text, loading objects, and the table of kernels."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from graphc.errors import InternalError
from graphc.runtime import driver, elf, llvm, mapped
from graphc.runtime.cache import ObjectCache
from graphc.runtime.code import KernelLibrary
from tests.runtime_kernels import HostTarget, host_target

ANSWER = "define i64 @{name}() nounwind {{\n  ret i64 {value}\n}}\n"


def answer(name: str = "answer", value: int = 42) -> bytes:
    return llvm.compile_text(ANSWER.format(name=name, value=value), host_target())


def call(address: int) -> int:
    return int(ctypes.CFUNCTYPE(ctypes.c_int64)(address)())


def test_compile_load_call() -> None:
    loaded = llvm.load_objects([answer(), answer("other", 7)])
    assert (call(loaded.address("answer")), call(loaded.address("other"))) == (42, 7)


def test_text_is_compiled_to_the_same_bytes_each_time() -> None:
    assert answer() == answer()


@pytest.mark.parametrize("text", ["this is not llvm", 'target triple = "x"', 'module asm "nop"', "; \0"])
def test_bad_text_is_refused(text: str) -> None:
    with pytest.raises(InternalError):
        llvm.compile_text(text, host_target())


def test_type_errors_in_text_are_refused() -> None:
    with pytest.raises(InternalError, match="LLVM refused"):
        llvm.compile_text("define i64 @f() {\n  ret float 1.0\n}\n", host_target())


def test_undefined_symbols_are_refused_unless_allowed() -> None:
    body = "  %y = call float @expf(float %x)\n  ret float %y\n"
    text = "declare float @expf(float)\ndefine float @f(float %x) {\n" + body + "}\n"
    with pytest.raises(InternalError, match="expf"):
        llvm.compile_text(text, host_target())
    assert elf.read_symbols(llvm.compile_text(text, host_target(), {"expf"})).undefined >= {"expf"}


def test_unknown_symbol_and_doubles_are_refused() -> None:
    with pytest.raises(InternalError, match="does not define"):
        llvm.load_objects([answer()]).address("question")
    with pytest.raises(InternalError, match="two objects"):
        llvm.load_objects([answer(), answer()])


def test_every_truncation_is_refused_before_llvm_sees_it() -> None:
    data = answer()
    for length in range(len(data)):
        with pytest.raises(InternalError):
            llvm.load_objects([data[:length]])


def test_object_of_another_machine_is_refused() -> None:
    other = "aarch64-unknown-linux-gnu" if llvm.host()[0].startswith("x86_64") else "x86_64-unknown-linux-gnu"
    data = llvm.compile_text(ANSWER.format(name="f", value=1), HostTarget(other, "generic"))
    with pytest.raises(InternalError, match="another machine"):
        llvm.load_objects([data])


@pytest.mark.parametrize("triple", ["x86_64-unknown-linux-gnu", "aarch64-unknown-linux-gnu"])
def test_driver_compiles_for_each_machine_and_calls_nothing(triple: str) -> None:
    cpu = "x86-64-v3" if triple.startswith("x86_64") else "generic"
    symbols = elf.read_symbols(llvm.compile_text(driver.driver_text(triple), HostTarget(triple, cpu)))
    assert "graphc_run" in symbols.defined
    assert symbols.undefined <= {"_GLOBAL_OFFSET_TABLE_"}


def test_a_closed_load_is_unusable() -> None:
    loaded = llvm.load_objects([answer()])
    loaded.close()
    with pytest.raises(InternalError):
        loaded.address("answer")


def _emit_answer(seen: list[str], value: int = 42) -> object:
    def emit(target: HostTarget) -> str:
        seen.append(target.triple)
        return ANSWER.format(name=f"a{value}", value=value)

    return emit


def test_library_compiles_once_for_sixteen_threads() -> None:
    found: list[int] = []
    kernels, seen = KernelLibrary(), []
    start = threading.Barrier(16)

    def work() -> None:
        start.wait()
        found.extend(kernels.addresses([("k", "a42", _emit_answer(seen))], host_target()))  # type: ignore[list-item]

    threads = [threading.Thread(target=work) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 16 and len(set(found)) == 1 and len(seen) == 1
    assert call(found[0]) == 42


def test_library_uses_the_cache_and_tells_targets_apart(tmp_path: Path) -> None:
    for compiled, cached in ((2, 0), (0, 2)):
        kernels = KernelLibrary(ObjectCache(tmp_path / "cache"))
        requests = [(f"k{v}", f"a{v}", _emit_answer([], v)) for v in (1, 2)]
        codes = kernels.load([*requests, requests[0]], host_target())  # type: ignore[list-item]
        assert [call(code.address) for code in codes] == [1, 2, 1]
        assert (kernels.compiled, kernels.from_cache) == (compiled, cached)
    narrow = HostTarget(host_target().triple, "x86-64" if "x86_64" in host_target().triple else "cortex-a53")
    kernels.load(requests, narrow)  # type: ignore[arg-type]
    assert kernels.compiled == 2


def test_library_forgets_unused_code_beyond_its_bound() -> None:
    kernels = KernelLibrary(kept=2)
    held = kernels.load([("k1", "a1", _emit_answer([], 1))], host_target())  # type: ignore[list-item]
    for value in range(2, 6):
        kernels.load([(f"k{value}", f"a{value}", _emit_answer([], value))], host_target())  # type: ignore[list-item]
    again: list[str] = []
    kernels.load([("k1", "a1", _emit_answer(again, 1))], host_target())  # type: ignore[list-item]
    assert not again and call(held[0].address) == 1  # in use: found although it fell out of the recent ones
    kernels.load([("k2", "a2", _emit_answer(again, 2))], host_target())  # type: ignore[list-item]
    assert len(again) == 1


def test_a_kernel_without_its_symbol_is_an_internal_error() -> None:
    with pytest.raises(InternalError, match="does not define"):
        KernelLibrary().load([("k", "wrong", _emit_answer([]))], host_target())  # type: ignore[list-item]


LEAK = """
from graphc.runtime import llvm
from tests.runtime_kernels import host_target

def rss():
    return int(open("/proc/self/statm").read().split()[1]) * 4

def work(k):
    text = "define i64 @f() nounwind {\\n  ret i64 %d\\n}\\n" % k
    loaded = llvm.load_objects([llvm.compile_text(text, host_target())])
    loaded.address("f")

for k in range(50):
    work(k)
before = rss()
for k in range(300):
    work(k)
print((rss() - before) / 300)
"""


def test_compiling_and_dropping_leaks_little() -> None:
    command = [sys.executable, "-c", LEAK]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True, cwd=ROOT)
    assert float(done.stdout) < 4.0  # KB a compilation


LAZY = "import sys, graphc, graphc.runtime.executable\nassert 'llvmlite' not in sys.modules"
ROOT = Path(__file__).parent.parent


def test_importing_the_runtime_does_not_load_llvm_or_start_threads() -> None:
    more = "\nimport os\nassert len(os.listdir('/proc/self/task')) == threads, os.listdir('/proc/self/task')"
    code = "import os, numpy\nthreads = len(os.listdir('/proc/self/task'))\n" + LAZY + more
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


FORK = """
import ctypes, os, threading
from graphc.runtime import llvm
from graphc.runtime.code import KernelLibrary
from tests.runtime_kernels import host_target

kernels, stop = KernelLibrary(), threading.Event()

def emit(value):
    return lambda _: f"define i64 @f{value}() nounwind {{\\n  ret i64 {value}\\n}}\\n"

def load(value):
    (code,) = kernels.load([(f"k{value}", f"f{value}", emit(value))], host_target())
    assert ctypes.CFUNCTYPE(ctypes.c_int64)(code.address)() == value

def keep_compiling():
    value = 1000
    while not stop.is_set():
        load(value := value + 1)

compiler = threading.Thread(target=keep_compiling)
compiler.start()
for k in range(10):
    child = os.fork()
    if child == 0:
        load(k)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status == 0, status
stop.set()
compiler.join()
"""


def test_a_fork_while_another_thread_compiles() -> None:
    subprocess.run([sys.executable, "-W", "ignore", "-c", FORK], check=True, timeout=60, cwd=ROOT)


CONSTANTS = """
@table = private constant [4 x float] [float 1.0, float 2.5, float -3.0, float 4.0]
define void @{name}(ptr %to, i64 %k) nounwind {{
  %p = getelementptr [4 x float], ptr @table, i64 0, i64 %k
  %x = load float, ptr %p
  %y = fadd float %x, 0x3FB99999A0000000
  store float %y, ptr %to
  ret void
}}
"""


def _looked_up(address: int) -> list[float]:
    out = (ctypes.c_float * 4)()
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(address)
    for k in range(4):
        function(ctypes.addressof(out) + 4 * k, k)
    return [round(x, 4) for x in out]


@pytest.mark.parametrize("ours", [True, False])
def test_code_finds_its_constants_however_it_is_loaded(ours: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if ours and not llvm.host()[0].startswith("x86_64"):
        pytest.skip("only x86-64 objects are mapped without LLVM")
    objects = [llvm.compile_text(CONSTANTS.format(name=name), host_target()) for name in ("one", "two")]
    placed: list[object] = []
    monkeypatch.setattr(llvm, "place", lambda given: placed.append(mapped.place(given) if ours else None) or placed[-1])
    loaded = llvm.load_objects(objects)
    assert (placed[0] is not None) == ours
    for name in ("one", "two"):
        assert _looked_up(loaded.address(name)) == [1.1, 2.6, -2.9, 4.1]


def test_objects_that_take_a_linker_are_left_to_llvm() -> None:
    counter = (
        "@n = global i64 40\ndefine i64 @answer() {\n  %x = load i64, ptr @n\n  %y = add i64 %x, 2\n  ret i64 %y\n}\n"
    )
    data = llvm.compile_text(counter, host_target())
    assert mapped.place([data]) is None  # memory that can be written
    assert call(llvm.load_objects([data]).address("answer")) == 42


def test_damaged_relocations_are_refused_or_left_alone() -> None:
    data = llvm.compile_text(CONSTANTS.format(name="one"), host_target())
    _, sections = elf.read_sections(data)
    (table,) = (s for s in sections if s.kind == 4)
    for at in range(table.offset, table.offset + table.size):
        worse = bytearray(data)
        worse[at] ^= 0xFF
        try:
            found = mapped.place([bytes(worse)])
        except InternalError:
            continue
        if found is not None:
            found.unmap()


def test_mapped_code_can_be_run_but_not_written() -> None:
    found = mapped.place([answer()])
    if found is None:
        pytest.skip("only x86-64 objects are mapped without LLVM")
    lines = Path("/proc/self/maps").read_text().splitlines()
    spans = [(*(int(x, 16) for x in line.split()[0].split("-")), line.split()[1]) for line in lines]
    assert next(how for low, high, how in spans if low <= found.symbols["answer"] < high) == "r-xp"
    found.unmap()
