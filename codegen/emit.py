"""A small builder of LLVM text in SSA form: explicit phis and vectors, no alloca, no fast-math flags, no library calls.

The text is meant to be compiled without optimisation passes, so whoever emits hoists and folds. Instructions that
could change bits between targets cannot be written: intrinsics come from one closed table and every float instruction
is plain IEEE 754. Intrinsics need no declarations (LLVM declares them from the call): texts can be joined as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from graphc.codegen.literals import float_text
from graphc.codegen.target import Target
from graphc.errors import InternalError
from graphc.ir.types import DTYPES, DType, bool_, float32, float64


@dataclass(frozen=True, slots=True)
class Ty:
    """An LLVM type: a scalar, or a vector of `width` of them."""

    elem: str  # i1 i8 i16 i32 i64 i128 half float double ptr
    width: int = 1

    def __str__(self) -> str:
        return self.elem if self.width == 1 else f"<{self.width} x {self.elem}>"

    def of(self, elem: str) -> Ty:
        """The same width with another element."""
        return Ty(elem, self.width)

    @property
    def bits(self) -> int:
        """Bits of one element."""
        return _BITS[self.elem]

    @property
    def suffix(self) -> str:
        """The name of this type in an intrinsic's name."""
        short = {"half": "f16", "float": "f32", "double": "f64", "ptr": "p0"}.get(self.elem, self.elem)
        return short if self.width == 1 else f"v{self.width}{short}"


@dataclass(frozen=True, slots=True)
class V:
    """A value: its text and its type."""

    ref: str
    ty: Ty


Int = V | int  # an i64 that may be known now
_BITS = {
    "i1": 1, "i8": 8, "i16": 16, "i32": 32, "i64": 64, "i128": 128, "half": 16, "float": 32, "double": 64, "ptr": 64,
}  # fmt: skip
I1, I32, I64, PTR, F32, F64 = Ty("i1"), Ty("i32"), Ty("i64"), Ty("ptr"), Ty("float"), Ty("double")
# what has no arithmetic (16-bit floats, complex) is an integer of its bits
_ELEM = {bool_: "i1", float32: "float", float64: "double"} | {
    t: f"i{t.bits}" for t in DTYPES if t not in (bool_, float32, float64)
}
_MEMORY = _ELEM | {bool_: "i8"}

# The closed table: name -> number of operands; all operands and the result have one type.
_PLAIN = {
    "floor": 1, "ceil": 1, "trunc": 1, "roundeven": 1, "sqrt": 1, "fabs": 1, "copysign": 2, "fma": 3,
    "maximum": 2, "minimum": 2, "smax": 2, "smin": 2, "umax": 2, "umin": 2,
    "arithmetic.fence": 1,
}  # fmt: skip

_INTEGER = ("add", "sub", "mul", "and", "or", "xor", "shl", "lshr", "ashr", "sdiv", "srem", "udiv", "urem")
_BINARY = frozenset((*_INTEGER, "fadd", "fsub", "fmul", "fdiv"))
_CONVERSIONS = frozenset(("sitofp", "uitofp", "fptosi", "fpext", "fptrunc", "zext", "sext", "trunc", "bitcast"))


def elem(dtype: DType) -> str:
    """The register element of a dtype (bool: i1)."""
    return _ELEM[dtype]


def memory_elem(dtype: DType) -> str:
    """The memory element of a dtype (bool: i8, one byte 0 or 1)."""
    return _MEMORY[dtype]


@dataclass(slots=True)
class Loop:
    """A loop being written: `i` counts, `carried` are the values as the body starts; set `next` before it ends."""

    i: V
    carried: list[V]
    next: list[V]
    out: list[V]  # the carried values after the loop, valid once it has ended


class Emitter:
    """Builds functions of one module. `name` prefixes every symbol but the kernel's own."""

    def __init__(self, target: Target, name: str) -> None:
        self.target = target
        self.name = name
        self._done: list[str] = []
        self._tables: dict[str, str] = {}
        self._entry: list[str] = []
        self._lines: list[str] = []
        self._block = "start"
        self._count = 0

    # -- functions ------------------------------------------------------------------------------------------------

    @contextmanager
    def function(
        self, symbol: str, args: Sequence[tuple[Ty, str]], ret: Ty | None = None, internal: bool = False
    ) -> Iterator[list[V]]:
        """Write one function; the body must end with `self.ret(...)` for a result, `ret void` is added otherwise."""
        saved = (self._entry, self._lines, self._block)
        self._entry, self._lines, self._block = [], [], "start"
        yield [V(f"%{name}", ty) for ty, name in args]
        if ret is None:
            self.line("ret void")
        given = ", ".join(f"{t} %{n}" for t, n in args)
        head = f"define {'internal ' if internal else ''}{ret or 'void'} @{symbol}({given}) nounwind {{"
        self._done.append("\n".join([head, *self._entry, "  br label %start", "start:", *self._lines, "}"]))
        self._entry, self._lines, self._block = saved

    def text(self) -> str:
        """Everything written so far."""
        return "\n\n".join([*self._tables.values(), *self._done]) + "\n"

    def table(self, name: str, words: Sequence[int]) -> V:
        """The address of a constant array of i64, written once."""
        symbol, listed = f"@{self.name}.{name}", ", ".join(f"i64 {w}" for w in words)
        self._tables[name] = f"{symbol} = private unnamed_addr constant [{len(words)} x i64] [{listed}], align 8"
        return V(symbol, PTR)

    def line(self, text: str) -> None:
        """One instruction without a result."""
        self._lines.append(f"  {text}")

    def op(self, text: str, ty: Ty) -> V:
        """One instruction with a result of type `ty`."""
        self._count += 1
        self._lines.append(f"  %v{self._count} = {text}")
        return V(f"%v{self._count}", ty)

    def entry_op(self, text: str, ty: Ty) -> V:
        """As `op`, at the start of the function, where it is known to every block."""
        self._count += 1
        self._entry.append(f"  %v{self._count} = {text}")
        return V(f"%v{self._count}", ty)

    def ret(self, value: V) -> None:
        """Return `value`."""
        self.line(f"ret {value.ty} {value.ref}")

    # -- control flow ---------------------------------------------------------------------------------------------

    def _label(self) -> str:
        self._count += 1
        return f"b{self._count}"

    def _start(self, label: str) -> None:
        self._lines.append(f"{label}:")
        self._block = label

    def _branch(self, cond: V, yes: str, no: str) -> None:
        self.line(f"br i1 {cond.ref}, label %{yes}, label %{no}")

    @contextmanager
    def loop(self, lo: Int, hi: Int, step: Int = 1, carry: Sequence[V] = (), guard: bool = True) -> Iterator[Loop]:
        """for i = lo; i < hi; i += step (step > 0). Without `guard` the body runs at least once."""
        lo_, hi_, step_ = self.i64(lo), self.i64(hi), self.i64(step)
        head, end = self._label(), self._label()
        before = self._block
        if guard:
            self._branch(self.icmp("slt", lo_, hi_), head, end)
        else:
            self.line(f"br label %{head}")
        self._start(head)
        at = len(self._lines)
        self._count += 1 + len(carry)
        counter = V(f"%v{self._count - len(carry)}", I64)
        carried = [V(f"%v{self._count - len(carry) + 1 + k}", v.ty) for k, v in enumerate(carry)]
        loop = Loop(counter, carried, [], [])
        yield loop
        if len(loop.next) != len(carry):
            raise InternalError(f"a loop carries {len(carry)} values but {len(loop.next)} next values were given")
        # frozen, the counter is opaque to LLVM's loop strength reduction: it would take up to half of the compile time
        # to find addresses no faster than base + index
        following = self.op(f"freeze i64 {self.op(f'add nsw i64 {counter.ref}, {step_.ref}', I64).ref}", I64)
        again, latch = self.icmp("slt", following, hi_), self._block
        self._branch(again, head, end)
        phis = [(counter, lo_, following), *zip(carried, carry, loop.next, strict=True)]
        self._lines[at:at] = [f"  {p.ref} = phi {p.ty} [{a.ref}, %{before}], [{b.ref}, %{latch}]" for p, a, b in phis]
        self._start(end)
        loop.out = [self._phi([(a, before), (b, latch)]) if guard else b for a, b in zip(carry, loop.next, strict=True)]

    @contextmanager
    def repeat(self, carry: Sequence[V]) -> Iterator[Loop]:
        """do body while loop.i: the body sets `next` and replaces `i` by the i1 that asks for another round."""
        head, end = self._label(), self._label()
        before = self._block
        self.line(f"br label %{head}")
        self._start(head)
        at = len(self._lines)
        self._count += len(carry)
        carried = [V(f"%v{self._count - k}", v.ty) for k, v in enumerate(carry)]
        loop = Loop(V("", I1), carried, [], [])
        yield loop
        latch = self._block
        self._branch(loop.i, head, end)
        rows = zip(carried, carry, loop.next, strict=True)
        self._lines[at:at] = [f"  {p.ref} = phi {p.ty} [{a.ref}, %{before}], [{b.ref}, %{latch}]" for p, a, b in rows]
        self._start(end)
        loop.out = list(loop.next)

    def branch(self, cond: V, yes: Callable[[], Sequence[V]], no: Callable[[], Sequence[V]]) -> list[V]:
        """if cond then yes() else no(); both give values of the same types, joined after."""
        first, second, end = self._label(), self._label(), self._label()
        self._branch(cond, first, second)
        arms = []
        for label, body in ((first, yes), (second, no)):
            self._start(label)
            values = body()
            arms.append((values, self._block))
            self.line(f"br label %{end}")
        self._start(end)
        (a, from_a), (b, from_b) = arms
        return [self._phi([(x, from_a), (y, from_b)]) for x, y in zip(a, b, strict=True)]

    def when(self, cond: V, body: Callable[[], None]) -> None:
        """if cond then body()."""
        first, end = self._label(), self._label()
        self._branch(cond, first, end)
        self._start(first)
        body()
        self.line(f"br label %{end}")
        self._start(end)

    def _phi(self, rows: Sequence[tuple[V, str]]) -> V:
        ty = rows[0][0].ty
        return self.op(f"phi {ty} {', '.join(f'[{v.ref}, %{block}]' for v, block in rows)}", ty)

    # -- constants ------------------------------------------------------------------------------------------------

    def i64(self, x: Int) -> V:
        """An i64 as a value."""
        return V(str(x), I64) if isinstance(x, int) else x

    def const(self, ty: Ty, value: float | int | bool) -> V:
        """A literal, the same in every lane. Floats are rounded to `ty`."""
        if ty.elem in ("float", "double"):
            text = float_text(float(value), ty.elem == "float")
        elif ty.elem == "i1":
            text = "true" if value else "false"
        else:
            text = str(int(value))
        return V(text if ty.width == 1 else f"splat ({ty.elem} {text})", ty)

    def lanes(self, ty: Ty) -> V:
        """0, 1, 2, … of an integer vector type."""
        if ty.width == 1:
            return V("0", ty)
        return V("<" + ", ".join(f"{ty.elem} {k}" for k in range(ty.width)) + ">", ty)

    def steps(self, start: int, step: int, width: int) -> V:
        """start, start + step, … as i32."""
        return V("<" + ", ".join(f"i32 {start + step * k}" for k in range(width)) + ">", Ty("i32", width))

    # -- arithmetic -----------------------------------------------------------------------------------------------

    def iadd(self, a: Int, b: Int) -> Int:
        """i64 sum, folded where it is known."""
        if isinstance(a, int) and isinstance(b, int):
            return a + b
        if b == 0:
            return a
        return b if a == 0 else self.bin("add", self.i64(a), self.i64(b))

    def isub(self, a: Int, b: Int) -> Int:
        """i64 difference, folded where it is known."""
        if isinstance(a, int) and isinstance(b, int):
            return a - b
        return a if b == 0 else self.bin("sub", self.i64(a), self.i64(b))

    def imul(self, a: Int, b: Int) -> Int:
        """i64 product, folded where it is known."""
        if isinstance(a, int) and isinstance(b, int):
            return a * b
        if a == 0 or b == 0:
            return 0
        if b == 1:
            return a
        return b if a == 1 else self.bin("mul", self.i64(a), self.i64(b))

    def imin(self, a: Int, b: Int) -> Int:
        """Smaller of two signed i64."""
        if isinstance(a, int) and isinstance(b, int):
            return min(a, b)
        return self.intrinsic("smin", self.i64(a), self.i64(b))

    def bin(self, name: str, a: V, b: V | float | int) -> V:
        """add sub mul and or xor shl lshr ashr sdiv srem udiv urem fadd fsub fmul fdiv; `b` may be a literal."""
        if name not in _BINARY or (name[0] == "f") != (a.ty.elem in ("float", "double")):
            raise InternalError(f"instruction {name} on {a.ty}")
        b = b if isinstance(b, V) else self.const(a.ty, b)
        if a.ty != b.ty:
            raise InternalError(f"instruction {name} on {a.ty} and {b.ty}")
        return self.op(f"{name} {a.ty} {a.ref}, {b.ref}", a.ty)

    def neg(self, a: V) -> V:
        """Negation: the sign bit of floats, two's complement of integers."""
        if a.ty.elem in ("float", "double"):
            return self.op(f"fneg {a.ty} {a.ref}", a.ty)
        return self.bin("sub", self.const(a.ty, 0), a)

    def invert(self, a: V) -> V:
        """Bitwise not."""
        return self.bin("xor", a, self.const(a.ty, 1 if a.ty.elem == "i1" else -1))

    def icmp(self, pred: str, a: V, b: V | int) -> V:
        """Integer comparison: eq ne slt sle sgt sge ult ule ugt uge."""
        b = b if isinstance(b, V) else self.const(a.ty, b)
        return self.op(f"icmp {pred} {a.ty} {a.ref}, {b.ref}", a.ty.of("i1"))

    def fcmp(self, pred: str, a: V, b: V | float) -> V:
        """Float comparison: oeq olt ole ogt oge one, une ult …, ord uno."""
        b = b if isinstance(b, V) else self.const(a.ty, b)
        return self.op(f"fcmp {pred} {a.ty} {a.ref}, {b.ref}", a.ty.of("i1"))

    def select(self, cond: V, a: V | float | int, b: V | float | int) -> V:
        """cond ? a : b, lane by lane; one of a and b may be a literal."""
        ty = a.ty if isinstance(a, V) else b.ty if isinstance(b, V) else None
        if ty is None:
            raise InternalError("select between two literals")
        a, b = (x if isinstance(x, V) else self.const(ty, x) for x in (a, b))
        if a.ty != b.ty or cond.ty != a.ty.of("i1"):
            raise InternalError(f"select of {cond.ty}, {a.ty}, {b.ty}")
        return self.op(f"select {cond.ty} {cond.ref}, {a.ty} {a.ref}, {b.ty} {b.ref}", ty)

    def convert(self, name: str, a: V, to: str) -> V:
        """sitofp uitofp fptosi fpext fptrunc zext sext trunc bitcast, to element `to`. fptosi must be in range; to half
        there is fptrunc of float alone (any other is a library call), to bfloat nothing (it flushes denormals).
        """
        if name not in _CONVERSIONS:
            raise InternalError(f"conversion {name} is not allowed")
        if name == "fptrunc" and to == "half" and a.ty.elem != "float":
            raise InternalError(f"conversion {name} of {a.ty} to {to} is not allowed")
        ty = a.ty.of(to)
        return self.op(f"{name} {a.ty} {a.ref} to {ty}", ty)

    def intrinsic(self, name: str, *args: V) -> V:
        """Call a function of the closed table. Raises InternalError for any other."""
        if _PLAIN.get(name) != len(args) or any(a.ty != args[0].ty for a in args):
            raise InternalError(f"intrinsic {name} on {[str(a.ty) for a in args]} is not allowed")
        ty = args[0].ty
        return self.op(f"call {ty} @llvm.{name}.{ty.suffix}({', '.join(f'{ty} {a.ref}' for a in args)})", ty)

    def fma(self, a: V, b: V | float, c: V | float) -> V:
        """a * b + c rounded once."""
        b, c = (x if isinstance(x, V) else self.const(a.ty, x) for x in (b, c))
        return self.intrinsic("fma", a, b, c)

    # -- vectors --------------------------------------------------------------------------------------------------

    def splat(self, a: V, width: int) -> V:
        """A scalar in every lane."""
        if width == 1 or a.ty.width != 1:
            return a
        ty = Ty(a.ty.elem, width)
        if a.ref[0] not in "%@":
            return V(f"splat ({a.ty.elem} {a.ref})", ty)
        first = self.op(f"insertelement {ty} poison, {a.ty} {a.ref}, i64 0", ty)
        return self.op(f"shufflevector {ty} {first.ref}, {ty} poison, <{width} x i32> zeroinitializer", ty)

    def shuffle(self, a: V, b: V | None, pick: Sequence[int]) -> V:
        """Lanes `pick` of a followed by b (-1: any value)."""
        index = ", ".join(f"i32 {k if k >= 0 else 'poison'}" for k in pick)
        ty = Ty(a.ty.elem, len(pick))
        second = b.ref if b else "poison"
        return self.op(f"shufflevector {a.ty} {a.ref}, {a.ty} {second}, <{len(pick)} x i32> <{index}>", ty)

    def extract(self, a: V, lane: Int) -> V:
        """One lane as a scalar."""
        if a.ty.width == 1:
            return a
        return self.op(f"extractelement {a.ty} {a.ref}, i64 {self.i64(lane).ref}", Ty(a.ty.elem))

    def insert(self, a: V, x: V, lane: Int) -> V:
        """`a` with one lane replaced."""
        if a.ty.width == 1:
            return x
        return self.op(f"insertelement {a.ty} {a.ref}, {x.ty} {x.ref}, i64 {self.i64(lane).ref}", a.ty)

    def tail_mask(self, count: Int, width: int) -> V:
        """Lane k is on when k < count."""
        ty = Ty("i32" if 32 * width <= self.target.vector_bits else "i64", width)
        n = self.imin(count, width)
        small = V(str(n), Ty(ty.elem)) if isinstance(n, int) else n
        if small.ty.elem != ty.elem:
            small = self.convert("trunc", small, ty.elem)
        return self.icmp("slt", self.lanes(ty), self.splat(small, width))

    def any_lane(self, mask: V) -> V:
        """True when some lane of a mask is on."""
        if mask.ty.width == 1:
            return mask
        bits = Ty(f"i{mask.ty.width}")
        return self.op(f"icmp ne {bits} {self.op(f'bitcast {mask.ty} {mask.ref} to {bits}', bits).ref}, 0", I1)

    # -- memory ---------------------------------------------------------------------------------------------------

    def gep(self, base: V, index: Int, of: str) -> V:
        """Address of element `index` (an i64, or a vector of them) of type `of` from `base`."""
        if isinstance(index, int) and index == 0:
            return base
        at = self.i64(index)
        return self.op(f"getelementptr {of}, ptr {base.ref}, {at.ty} {at.ref}", Ty("ptr", at.ty.width))

    def load(self, address: V, ty: Ty, align: int | None = None) -> V:
        """Read a scalar or consecutive elements; aligned to an element unless told more."""
        return self.op(f"load {ty}, ptr {address.ref}, align {align or _bytes(ty)}", ty)

    def store(self, value: V, address: V, align: int | None = None) -> None:
        """Write a scalar or consecutive elements."""
        self.line(f"store {value.ty} {value.ref}, ptr {address.ref}, align {align or _bytes(value.ty)}")

    def masked_load(self, address: V, mask: V, ty: Ty, other: V | None = None) -> V:
        """Read the lanes that are on; the others are `other` (zero unless given) and not touched."""
        rest = other.ref if other else "zeroinitializer"
        args = f"ptr align {_bytes(ty)} {address.ref}, {mask.ty} {mask.ref}, {ty} {rest}"
        return self.op(f"call {ty} @llvm.masked.load.{ty.suffix}.p0({args})", ty)

    def masked_store(self, value: V, address: V, mask: V) -> None:
        """Write the lanes that are on."""
        ty = value.ty
        args = f"{ty} {value.ref}, ptr align {_bytes(ty)} {address.ref}, {mask.ty} {mask.ref}"
        self.line(f"call void @llvm.masked.store.{ty.suffix}.p0({args})")

    def gather(self, addresses: V, mask: V | None, ty: Ty) -> V:
        """Read one element an address, where the mask is on (zero elsewhere)."""
        mask = mask or self.const(ty.of("i1"), True)
        where = f"align {_bytes(ty)} {addresses.ref}, {mask.ty} {mask.ref}, {ty} zeroinitializer"
        return self.op(f"call {ty} @llvm.masked.gather.{ty.suffix}.{addresses.ty.suffix}({addresses.ty} {where})", ty)

    def scatter(self, value: V, addresses: V, mask: V | None) -> None:
        """Write one element an address, where the mask is on."""
        ty = value.ty
        mask = mask or self.const(ty.of("i1"), True)
        args = f"{ty} {value.ref}, {addresses.ty} align {_bytes(ty)} {addresses.ref}, {mask.ty} {mask.ref}"
        self.line(f"call void @llvm.masked.scatter.{ty.suffix}.{addresses.ty.suffix}({args})")


def _bytes(ty: Ty) -> int:
    """Alignment of an element in memory: a complex number is aligned as its parts are."""
    return min(max(ty.bits // 8, 1), 8)


class ParamBlock:
    """Reads a kernel's block of 8-byte words, [operand addresses…][params…][table addresses…], at function entry."""

    def __init__(self, e: Emitter, block: V, operands: int, params: int, tables: int = 0) -> None:
        self.pointer = block  # always readable: a safe address for lanes that must not touch memory
        self._e = e
        self._counts = (operands, params, tables)
        self._seen: dict[int, V] = {}

    def _word(self, slot: int, ty: Ty) -> V:
        found = self._seen.get(slot)
        if found is None:
            address = self._e.entry_op(f"getelementptr i64, ptr {self.pointer.ref}, i64 {slot}", PTR)
            found = self._e.entry_op(f"load {ty}, ptr {address.ref}, align 8, !invariant.load !{{}}", ty)
            self._seen[slot] = found
        return found

    def _check(self, kind: int, k: int) -> None:
        if not 0 <= k < self._counts[kind]:
            raise InternalError(f"block slot {k} of {self._counts[kind]} {('operands', 'params', 'tables')[kind]}")

    def operand(self, k: int) -> V:
        """Address of operand k."""
        self._check(0, k)
        return self._word(k, PTR)

    def param(self, k: int) -> V:
        """Param k, an i64."""
        self._check(1, k)
        return self._word(self._counts[0] + k, I64)

    def table(self, k: int) -> V:
        """Address of table k."""
        self._check(2, k)
        return self._word(self._counts[0] + self._counts[1] + k, PTR)
