"""Printing canonical expressions as LLVM scalars and vectors.

A `Printer` holds what is known at the place where code is being written. Values that do not depend on the vector axis
are scalars: `hoist` writes them (and their splats) before a loop, in the innermost `scope`. `block` says where the
vector axis stands; inside it `value` and `stores` write vectors of `width` lanes, touching memory only where the mask
is on.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from graphc.codegen.canonical import ACC, DENSE, RESULT, Node, Num, StoreNode, below
from graphc.codegen.casts import literal
from graphc.codegen.dense import picked, spread
from graphc.codegen.emit import Emitter, Int, ParamBlock, Ty, V, memory_elem
from graphc.codegen.functions import apply_function, floor_div, floor_rem, philox
from graphc.codegen.target import Target
from graphc.ir.types import bool_, complex64, complex128, float32, float64, int64

_WIDE = (float64, int64, complex64, complex128)
_PREDICATES = {"eq": "eq", "ne": "ne", "lt": "slt", "le": "sle", "gt": "sgt", "ge": "sge"}
_FAR = 1 << 30  # further than any lane
_IN_FLOAT64 = ("pow", "fmod", "frem")  # computed in float64 whatever their type


def kernel_width(target: Target, nodes: Iterable[Node]) -> int:
    """Lanes for a kernel made of these nodes: those of its widest data (addresses and comparisons of indices aside)."""
    for n in nodes:
        computed = n.op not in ("affine", "const", "eq", "ne", "lt", "le", "gt", "ge", "and", "or", "not")
        if (computed and n.dtype in _WIDE) or n.op in _IN_FLOAT64:
            return target.lanes(float64)
    return target.lanes(float32)


class Printer:
    """Writes nodes at the emitter's current place. `vector_axis` None: scalars only (width 1)."""

    def __init__(self, e: Emitter, block: ParamBlock, vector_axis: int | None, width: int) -> None:
        self.e = e
        self.words = block
        self.axis = vector_axis
        self.width = width if vector_axis is not None else 1
        self._known: dict[int, V] = {}
        self._memos: list[dict[tuple[str, object], V]] = [{}]
        self._prefixes: dict[Node, tuple[Int, frozenset[int]]] = {}
        self._at: Int = 0
        self._mask: V | None = None
        self._count: V | None = None

    # -- places ---------------------------------------------------------------------------------------------------

    @contextmanager
    def scope(self, axes: Mapping[int, V] | None = None) -> Iterator[None]:
        """A place where more axes (or RESULT + stage tokens) are known. Enter one inside every loop that is opened."""
        before = self._known, self._prefixes
        self._known, self._prefixes = {**self._known, **(axes or {})}, dict(self._prefixes)
        self._memos.append({})
        yield
        self._memos.pop()
        self._known, self._prefixes = before

    @contextmanager
    def block(
        self,
        at: Int,
        mask: V | None,
        acc: V | None = None,
        given: Mapping[Node, V] | None = None,
        count: V | None = None,
    ) -> Iterator[None]:
        """Lanes at, at + 1, … of the vector axis; lanes off in `mask` touch no memory.

        `acc` is the value of acc(), `given` holds values of nodes that are known already. `count`: where known, the
        number of lanes that are on in `mask`, the first ones (it may be larger than the width).
        """
        with self.scope():
            saved = self._at, self._mask, self._count
            self._at, self._mask, self._count = at, mask, count
            if acc is not None:
                self._known[ACC] = acc
            for n, v in (given or {}).items():
                self._keep("vector", n, v)
            yield
            self._at, self._mask, self._count = saved

    def set_result(self, stage: int, value: V) -> None:
        """result(stage) is `value` (a scalar, or one value a lane) until the current scope ends."""
        self._known[RESULT + stage] = value

    def give(self, n: Node, value: V) -> None:
        """`n` is `value`, one value a lane, until the current scope ends."""
        self._keep("vector", n, value)

    def hoist(self, *roots: Node) -> None:
        """Write all that is known here and does not depend on the vector axis, where vectors of `roots` will use it."""
        for n in self._needed(roots):
            if self.uniform(n):
                self._splat(n)
                continue
            if n.op == "affine":
                self._prepare_affine(n)
            elif self._is_position(n):
                self._prepare_affine(n.args[0])
                self.scalar(n.args[1])
            elif n.op == "load" and self._is_run(n.args[0]):
                self._prepare_affine(n.args[0])
                if self._base_known(n.args[0]):
                    self.row_address(n.value, n.args[0], memory_elem(n.dtype))

    def hoist_stores(self, stores: Iterable[StoreNode]) -> None:
        """`hoist` for everything `stores` will use, their addresses too."""
        for s in stores:
            self.hoist(s.value, *([s.where] if s.where is not None else []))
            if self._is_run(s.flat):
                self._prepare_affine(s.flat)
                if self._base_known(s.flat):
                    self.row_address(s.operand, s.flat, memory_elem(s.dtype))
            else:
                self.hoist(s.flat)

    def hoist_vectors(self, stores: Iterable[StoreNode]) -> None:
        """Inside a block around the loops of the other axes: write what depends on no axis but those known here."""
        stores = list(stores)
        roots = [n for s in stores for n in (s.value, s.where) if n is not None]
        roots += [s.flat for s in stores if not self._is_run(s.flat)]
        for n in self._needed(roots):
            if not self.uniform(n) and all(d == self.axis or d in self._known for d in n.depends):
                self.value(n)

    def _needed(self, roots: Iterable[Node]) -> list[Node]:
        """Nodes under `roots` that vector code will ask for, users first; nothing below what is uniform here."""
        seen: dict[int, Node] = {}
        stack = list(reversed(list(roots)))
        while stack:
            n = stack.pop()
            if n.number in seen:
                continue
            seen[n.number] = n
            if self.uniform(n):
                continue
            stack.extend(reversed(self._vector_operands(n)))
        return list(seen.values())

    def _vector_operands(self, n: Node) -> tuple[Node, ...]:
        """What `n` needs as vectors: not an address that is a run."""
        if self._is_position(n):
            return ()
        return n.args[1:] if n.op == "load" and self._is_run(n.args[0]) else n.args

    def uniform(self, n: Node) -> bool:
        """True when `n` is a scalar known here."""
        return all(d in self._known and (self._known[d].ty.width == 1) for d in n.depends)

    # -- values ---------------------------------------------------------------------------------------------------

    def num(self, n: Num) -> Int:
        """A number of a node: literal 0 or 1, or a param."""
        return n if isinstance(n, int) else self.words.param(n.k)

    def value(self, n: Node) -> V:
        """`n` in every lane."""
        if self.width == 1:
            return self.scalar(n)
        for x in self._vectors_below(n):  # operands first: no deep recursion
            self._keep("vector", x, self._vector(x))
        return self._memo("vector", n) or self._splat(n)

    def scalar(self, n: Node) -> V:
        """`n`, which must be uniform here (see `uniform`)."""
        for x in self._scalars_below(n):
            self._keep("scalar", x, self._scalar(x))
        found = self._memo("scalar", n)
        assert found is not None
        return found

    def stores(self, stores: Sequence[StoreNode]) -> None:
        """Compute every value, then write them: stores of one point never see one another."""
        for s in stores:
            self.value(s.value)
        for s in stores:
            self.store(s)

    def store(self, s: StoreNode) -> None:
        """Write one store. For several at one point use `stores`."""
        mask = self._mask_with(s.where)
        value = self.value(s.value)
        if s.dtype is bool_:
            value = self.e.convert("zext", value, "i8")
        if self.width == 1:
            self._store_scalar(s, value, mask)
            return
        address, consecutive = self._address(s.operand, s.flat, memory_elem(s.dtype))
        if not consecutive:
            self.e.scatter(value, address, mask)
        elif mask is None:
            self.e.store(value, address)
        else:
            self.e.masked_store(value, address, mask)

    # -- memos ----------------------------------------------------------------------------------------------------

    def _memo(self, kind: str, what: object) -> V | None:
        for memo in reversed(self._memos):
            found = memo.get((kind, what))
            if found is not None:
                return found
        return None

    def _keep(self, kind: str, what: object, value: V) -> V:
        self._memos[-1][kind, what] = value
        return value

    # -- scalars --------------------------------------------------------------------------------------------------

    def _scalars_below(self, n: Node) -> list[Node]:
        return below(n, lambda x: self._memo("scalar", x) is not None, lambda x: x.args)

    def _scalar(self, n: Node) -> V:
        if n.op == "affine":
            return self.e.i64(self._affine_base(n))
        if n.op == "load":
            return self._load_scalar(n)
        return self._apply(n, [self.scalar(a) for a in n.args])

    def _load_scalar(self, n: Node) -> V:
        mem = Ty(memory_elem(n.dtype))
        address = self.e.gep(self.words.operand(n.value), self.scalar(n.args[0]), mem.elem)
        if len(n.args) == 2:
            address = self._allowed(address, self.scalar(n.args[1]))
        loaded = self.e.load(address, mem)
        return self.e.icmp("ne", loaded, 0) if n.dtype is bool_ else loaded

    def _store_scalar(self, s: StoreNode, value: V, mask: V | None) -> None:
        address = self.e.gep(self.words.operand(s.operand), self.scalar(s.flat), memory_elem(s.dtype))
        if mask is None:
            self.e.store(value, address)
        else:
            self.e.when(mask, lambda: self.e.store(value, address))

    # -- vectors --------------------------------------------------------------------------------------------------

    def _splat(self, n: Node) -> V:
        if n.op == "const" or self.width == 1:
            return self.e.splat(self.scalar(n), self.width)
        return self._memo("splat", n) or self._keep("splat", n, self.e.splat(self.scalar(n), self.width))

    def _vectors_below(self, n: Node) -> list[Node]:
        return below(n, lambda x: self.uniform(x) or self._memo("vector", x) is not None, self._vector_operands)

    def _vector(self, n: Node) -> V:
        if n.op == "affine":
            return self._affine_vector(n)
        if n.op == "load":
            return self._load_vector(n)
        if self._is_position(n):
            return self._position_mask(n, 0, self._step(n.args[0]))
        return self._apply(n, [self.value(a) for a in n.args])

    def _apply(self, n: Node, args: list[V]) -> V:
        if n.op == "const":
            return literal(self.e, n.dtype, n.value)
        if n.op in ("result", "acc"):
            return self._known[RESULT + n.value if n.op == "result" else ACC]
        if n.op in ("divpos", "rempos"):
            return self._divide(n, args[0])
        if n.op == "philox":
            return self._philox(n, args)
        return apply_function(self.e, n.op, n.dtype, args, n.args[0].dtype)

    def _philox(self, n: Node, args: list[V]) -> V:
        words = [self._memo(f"philox{k}", n.args) for k in range(4)]
        if words[0] is None:
            made = philox(self.e, *args)
            words = [self._keep(f"philox{k}", n.args, w) for k, w in enumerate(made)]
        return [w for w in words if w is not None][int(n.value)]

    def _divide(self, n: Node, x: V) -> V:
        divisor = self.e.splat(self.e.i64(self.num(n.nums[0])), x.ty.width)
        if n.value != "small":
            return (floor_div if n.op == "divpos" else floor_rem)(self.e, x, divisor)
        if x.ty.width == 1:
            return self.e.bin("udiv" if n.op == "divpos" else "urem", x, divisor)
        # both are integers below 2**52: the rounded quotient lies on the right side of every integer
        dividend, by = (self.e.convert("sitofp", v, "double") for v in (x, divisor))
        whole = self.e.convert("fptosi", self.e.bin("fdiv", dividend, by), "i64")
        return whole if n.op == "divpos" else self.e.bin("sub", x, self.e.bin("mul", whole, divisor))

    # -- affine indices -------------------------------------------------------------------------------------------

    def _is_run(self, flat: Node) -> bool:
        """An address that moves by a fixed step along the vector axis."""
        return flat.op == "affine" and all(self._invariant(a) for a in flat.args)

    def _is_position(self, n: Node) -> bool:
        """A comparison of what is known here with an index that takes small steps forwards along the vector axis."""
        if n.op not in _PREDICATES or self.width == 1 or not self._is_run(n.args[0]):
            return False
        return self._step(n.args[0]) in (1, *DENSE[1:]) and self.uniform(n.args[1]) and self._base_known(n.args[0])

    def _position_mask(self, n: Node, start: int, stride: Num) -> V:
        """That comparison where the index is start, start + stride, … further than at the first lane."""
        e, index = self.e, n.args[0]
        assert isinstance(stride, int)
        bound = self._memo("bound", n)
        if bound is None:
            first = e.iadd(self._base(index), self._moved(index))
            near = e.intrinsic("smax", e.i64(e.imin(e.isub(self.scalar(n.args[1]), first), _FAR)), e.i64(-_FAR))
            bound = self._keep("bound", n, e.splat(e.convert("trunc", near, "i32"), self.width))
        return e.icmp(_PREDICATES[n.op], e.steps(start, stride, self.width), bound)

    def _invariant(self, n: Node) -> bool:
        """True when `n` is the same in every lane, known here or not."""
        return not any(d in (self.axis, ACC) or (d in self._known and self._known[d].ty.width > 1) for d in n.depends)

    def _base_known(self, n: Node) -> bool:
        known = all(a == self.axis or a in self._known for a in n.axes)
        return known and all(self.uniform(a) for a in n.args if self._invariant(a))

    def _affine_base(self, n: Node) -> Int:
        """offset + the known axes' share + the share of scalar atoms; the vector axis left out."""
        total, done = self._prefixes.get(n) or (self.num(n.nums[0]), frozenset())
        for axis, k in zip(n.axes, n.nums[1:], strict=False):
            if axis != self.axis and axis not in done:
                total = self.e.iadd(total, self.e.imul(self._known[axis], self.num(k)))
        for a, k in zip(n.args, n.nums[1 + len(n.axes) :], strict=True):
            if self.uniform(a):
                total = self.e.iadd(total, self.e.imul(self.scalar(a), self.num(k)))
        return total

    def _base(self, n: Node) -> V:
        return self._memo("base", n) or self._keep("base", n, self.e.i64(self._affine_base(n)))

    def vector_step(self, flat: Node) -> Int:
        """How far an affine address moves along the vector axis."""
        return self.num(self._step(flat))

    def _step(self, n: Node) -> Num:
        """Coefficient on the vector axis."""
        return n.nums[1 + n.axes.index(self.axis)] if self.axis in n.axes else 0

    def _lane_steps(self, step: Num) -> V:
        """0, step, 2 * step, …"""
        lanes = self.e.lanes(Ty("i64", self.width))
        if step == 1:
            return lanes
        found = self._memo("lanes", step)
        if found is None:
            steps = self.e.splat(self.e.i64(self.num(step)), self.width)
            found = self._keep("lanes", step, self.e.bin("mul", lanes, steps))
        return found

    def _prepare_affine(self, n: Node) -> None:
        if self._step(n) != 0:
            self._lane_steps(self._step(n))
        if self._base_known(n):
            self._base(n)
            return
        total, done = self._prefixes.get(n) or (self.num(n.nums[0]), frozenset())
        for axis, k in zip(n.axes, n.nums[1:], strict=False):
            if axis in self._known and axis not in done:
                total, done = self.e.iadd(total, self.e.imul(self._known[axis], self.num(k))), done | {axis}
        if done:
            self._prefixes[n] = total, done

    def _affine_vector(self, n: Node) -> V:
        start = self.e.iadd(self._base(n), self._moved(n))
        total = self.e.splat(self.e.i64(start), self.width)
        if self._step(n) != 0:
            total = self.e.bin("add", total, self._lane_steps(self._step(n)))
        for a, k in zip(n.args, n.nums[1 + len(n.axes) :], strict=True):
            if not self.uniform(a):
                part = self.value(a)
                if k != 1:
                    part = self.e.bin("mul", part, self.e.splat(self.e.i64(self.num(k)), self.width))
                total = self.e.bin("add", total, part)
        return total

    def _moved(self, n: Node) -> Int:
        """The vector axis' share at the first lane."""
        return self.e.imul(self._at, self.num(self._step(n)))

    # -- memory ---------------------------------------------------------------------------------------------------

    def row_address(self, operand: int, flat: Node, of: str) -> V:
        """Address of element 0 of the vector axis, for an affine `flat` whose other axes are known."""
        what = (operand, flat)
        return self._memo("row", what) or self._keep(
            "row", what, self.e.gep(self.words.operand(operand), self._base(flat), of)
        )

    def _address(self, operand: int, flat: Node, of: str) -> tuple[V, bool]:
        """(address of the first lane, True) for consecutive elements, else (an address a lane, False)."""
        if not self._is_run(flat) or self._step(flat) == 0:
            return self.e.gep(self.words.operand(operand), self.value(flat), of), False
        first = self.e.gep(self.row_address(operand, flat, of), self._moved(flat), of)
        if self._step(flat) == 1:
            return first, True
        return self.e.gep(first, self._lane_steps(self._step(flat)), of), False

    def _load_vector(self, n: Node) -> V:
        mask = self._mask_with(n.args[1] if len(n.args) == 2 else None)
        ty = Ty(memory_elem(n.dtype), self.width)
        if self.uniform(n.args[0]) and mask is not None:
            loaded = self._load_one(n, ty, mask)
        elif self._dense(n.args[0]):
            loaded = self._load_dense(n, mask, ty)
        else:
            address, consecutive = self._address(n.value, n.args[0], ty.elem)
            loaded = self._load_lanes(address, consecutive, mask, ty)
        return self.e.icmp("ne", loaded, 0) if n.dtype is bool_ else loaded

    def _dense(self, flat: Node) -> bool:
        """Whether to read whole vectors and pick lanes."""
        return self._is_run(flat) and self._step(flat) in DENSE

    def _load_dense(self, n: Node, mask: V | None, ty: Ty) -> V:
        """Lanes a small step apart, out of whole vectors. Nothing outside of the first and the last lane is touched."""
        step, e, width = self._step(n.args[0]), self.e, self.width
        where = n.args[1] if len(n.args) == 2 else None
        assert isinstance(step, int)
        first = e.gep(self.row_address(n.value, n.args[0], ty.elem), self._moved(n.args[0]), ty.elem)
        if step == -1:
            address = e.gep(first, 1 - width, ty.elem)
            found = e.load(address, ty) if mask is None else e.masked_load(address, self._wide_mask(where, -1, 0), ty)
            return e.shuffle(found, None, range(width - 1, -1, -1))
        starts = [k * width for k in range(step)]
        if mask is None:  # the last vector ends at the last lane
            starts[-1] = step * (width - 1) + 1 - width
        at = [e.gep(first, start, ty.elem) for start in starts]
        if mask is None:
            return picked(e, [e.load(x, ty) for x in at], starts, step)
        masks = [self._wide_mask(where, step, k) for k in range(step)]
        return picked(e, [e.masked_load(x, m, ty) for x, m in zip(at, masks, strict=True)], starts, step)

    def _wide_mask(self, where: Node | None, step: int, part: int) -> V:
        """The elements of vector `part` of a stretch of memory that hold lanes which are on."""
        what = (where, step, part)
        found = self._memo("wide", what)
        if found is not None:
            return found
        if where is None:
            found = self._wide_block(step, part)
        elif where.op == "and":
            found = self.e.bin("and", *(self._wide_mask(x, step, part) for x in where.args))
        elif self.uniform(where):
            found = self.e.bin("and", self._splat(where), self._wide_mask(None, step, part))
        elif self._is_position(where) and self._step(where.args[0]) == step:
            lanes = self._position_mask(where, part * self.width, 1)  # elements between lanes stay off
            found = self.e.bin("and", lanes, spread(self.e, self._all_or_mask(), step, part))
        else:
            found = spread(self.e, self._mask_with(where) or self.value(where), step, part)
        return self._keep("wide", what, found)

    def _wide_block(self, step: int, part: int) -> V:
        """`_wide_mask` for the lanes of the block, elements between them too."""
        if self._mask is None:
            return spread(self.e, self._all_or_mask(), step, part)
        if self._count is None or step == -1:
            return spread(self.e, self._mask, step, part)
        count = self.e.imul(self.e.imin(self._count, self.width), step)
        return self.e.tail_mask(self.e.isub(count, step - 1 + part * self.width), self.width)

    def _all_or_mask(self) -> V:
        return self._mask or self.e.const(Ty("i1", self.width), True)

    def _load_lanes(self, address: V, consecutive: bool, mask: V | None, ty: Ty) -> V:
        if not consecutive:
            return self.e.gather(address, mask, ty)
        return self.e.load(address, ty) if mask is None else self.e.masked_load(address, mask, ty)

    def _load_one(self, n: Node, ty: Ty, mask: V) -> V:
        """One address that only some lanes may read: read when any lane does."""
        address = self.e.gep(self.words.operand(n.value), self.scalar(n.args[0]), ty.elem)
        address = self._allowed(address, self.e.any_lane(mask))
        return self.e.splat(self.e.load(address, Ty(ty.elem)), self.width)

    def _allowed(self, address: V, allowed: V) -> V:
        """`address`, or where nothing may be read that of the block: always readable, the value is not used."""
        return self.e.op(f"select i1 {allowed.ref}, ptr {address.ref}, ptr {self.words.pointer.ref}", address.ty)

    def _mask_with(self, where: Node | None) -> V | None:
        """The tail mask and `where`."""
        if where is None:
            return self._mask
        own = self.value(where)
        if self._mask is None:
            return own
        return self._memo("mask", where) or self._keep("mask", where, self.e.bin("and", self._mask, own))
