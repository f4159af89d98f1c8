"""Lowering of scans: a group of one node becomes one Scan kernel."""

from __future__ import annotations

from graphc.codegen.build import Builder, Memory
from graphc.errors import InternalError
from graphc.ir.expr import iconst, index, result
from graphc.ir.graph import Node
from graphc.ir.kernel import Scan
from graphc.ir.op import Scanning
from graphc.ir.steps import Call


def scan_call(memory: Memory, node: Node) -> Call:
    """The kernel call of a node whose lowering is Scanning."""
    lower, source, dim = node.op.lower, node.inputs[0], node.attrs["dim"]
    if not isinstance(lower, Scanning) or source.type.sizes != node.out.type.sizes:
        raise InternalError(f"{node.op.name} is not a scan of one operand")
    sizes = source.type.sizes
    axes = [d for d, n in enumerate(sizes) if d != dim and n != 1]
    space, run = tuple(sizes[d] for d in axes), sizes[dim]
    number = {d: k for k, d in enumerate([*axes, dim])}
    place = tuple(iconst(0) if n == 1 and d != dim else index(number[d]) for d, n in enumerate(sizes))
    builder = Builder(memory, (*space, run))
    value = builder.value(source, place)
    flat = builder.flat(node.out, tuple(iconst(0) if n == 1 else i for i, n in zip(place, sizes, strict=True)))
    out = node.out.type.dtype
    store = builder.store_to(memory.storage_of(node.out), out, flat, result(0, out))
    kernel = Scan(builder.types(), space, run, lower.kind, value, (store,), bool(node.attrs.get("descending", False)))
    return builder.call(kernel, [node])
