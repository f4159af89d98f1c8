"""Simplify: rewrite nodes by rules that hold exactly, bit for bit, for every input (all NaNs counted equal).

Each rule is one function with its algebra. A rule gets the graph's node with its operands already simplified and
returns the value that stands for the result, or None where it does not apply. What looks tempting and is wrong, so is
not here: x + 0.0 → x (-0.0 + 0.0 is 0.0), x * 0 → 0 for floats (NaN, inf, -0.0), x - x → 0 (NaN, inf), -(a - b) →
b - a (the sign of zero), reciprocals.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from graphc.ir.graph import Graph, Node, Value
from graphc.ir.op import op_named
from graphc.ir.rewrite import Replacement, rebuild_some, uniform
from graphc.ir.types import DType, bool_, float64

Inputs = tuple[Value, ...]
Rule = Callable[[Node, Inputs], Value | None]

_MAX_ROUNDS = 64  # every rule shrinks the graph or an operand chain; a bound keeps a wrong rule from running for ever


def run(graph: Graph) -> Graph:
    """Apply the rules until none applies. Operands left unused stay for dce."""
    made = graph.nodes
    for _ in range(_MAX_ROUNDS):
        graph, made = rebuild_some(graph, _simplify, _has_rules)
        if not made or not _apply_again(graph, made):
            break
    return graph


def _has_rules(node: Node) -> bool:
    return node.op.name in RULES


def _apply_again(graph: Graph, made: Sequence[Node]) -> bool:
    """Whether a rule applies to one of the nodes that rules made. To the others none does: rules look at a node and
    what is above it, and those have been looked at as they are now. `graph` is ours, and left as it was.
    """
    start = len(graph.nodes)
    try:
        with graph.building():
            return any(_simplify(graph, node, node.inputs) is not None for node in made)
    finally:
        del graph.nodes[start:]


def _simplify(out: Graph, node: Node, inputs: Inputs) -> Replacement:
    for rule in RULES.get(node.op.name, ()):
        found = rule(node, inputs)
        # a rule that drops an operand may also drop what that operand broadcast
        if found is not None and found.type is node.out.type:
            return found
    return None


# ---------------------------------------------------------------- reading operands


def _is(value: Value, number: float) -> bool:
    """True if every element of `value` is `number`, the sign of zero included."""
    found = uniform(value)
    return found is not None and found == number and math.copysign(1, found) == math.copysign(1, number)


def _operand(value: Value, name: str) -> Value | None:
    """x if `value` is `name(x, …)`."""
    return value.node.inputs[0] if value.node is not None and value.node.op.name == name else None


def _call(name: str, *operands: Value, **attrs: Any) -> Value:
    result: Value = op_named(name)(*operands, **attrs)
    return result


def _is_float(value: Value) -> bool:
    return value.type.dtype.is_floating_point


# ---------------------------------------------------------------- arithmetic


def add_nothing(node: Node, inputs: Inputs) -> Value | None:
    """x + -0.0 = x for floats: -0.0 + -0.0 = -0.0 and 0.0 + -0.0 = 0.0. x + 0 = x for integers."""
    x, y = inputs
    zero = -0.0 if _is_float(x) else 0
    return x if _is(y, zero) else y if _is(x, zero) else None


def sub_nothing(node: Node, inputs: Inputs) -> Value | None:
    """x - 0 = x; for floats 0.0 alone: -0.0 - 0.0 = -0.0, but 0.0 - -0.0 = 0.0 and -0.0 - -0.0 = 0.0."""
    x, y = inputs
    return x if _is(y, 0.0) else None


def mul_one(node: Node, inputs: Inputs) -> Value | None:
    """x * 1 = x, denormals and signed zeros included."""
    x, y = inputs
    return x if _is(y, 1) else y if _is(x, 1) else None


def mul_minus_one(node: Node, inputs: Inputs) -> Value | None:
    """x * -1 = -x: the sign of a product is exact."""
    x, y = inputs
    kept = x if _is(y, -1) else y if _is(x, -1) else None
    return None if kept is None or kept.type is not node.out.type else _call("neg", kept)


def mul_zero(node: Node, inputs: Inputs) -> Value | None:
    """x * 0 = 0 for integers."""
    x, y = inputs
    if _is_float(x):
        return None
    return y if _is(y, 0) else x if _is(x, 0) else None


def div_one(node: Node, inputs: Inputs) -> Value | None:
    """x / 1 = x."""
    x, y = inputs
    return x if _is(y, 1) else None


def div_power_of_two(node: Node, inputs: Inputs) -> Value | None:
    """x / 2^k = x * 2^-k when both powers are normal numbers: either one rounds the same exact quotient."""
    x, y = inputs
    number = uniform(y)
    if not isinstance(number, float) or not math.isfinite(number) or number == 0:
        return None
    fraction, exponent = math.frexp(number)
    if abs(fraction) != 0.5 or number == 1 or abs(exponent) > (1000 if y.type.dtype is float64 else 120):
        return None
    return _call("mul", x, y.graph.scalar(1.0 / number, y.type.dtype))


def add_negated(node: Node, inputs: Inputs) -> Value | None:
    """x + -y = x - y and -x + y = y - x: subtraction is defined as addition of the negated number."""
    x, y = inputs
    negated = _operand(y, "neg")
    if negated is not None:
        return _call("sub", x, negated)
    negated = _operand(x, "neg")
    return None if negated is None else _call("sub", y, negated)


def sub_negated(node: Node, inputs: Inputs) -> Value | None:
    """x - -y = x + y."""
    negated = _operand(inputs[1], "neg")
    return None if negated is None else _call("add", inputs[0], negated)


def neg_neg(node: Node, inputs: Inputs) -> Value | None:
    """--x = x: negation flips the sign bit; for integers modulo 2^64."""
    return _operand(inputs[0], "neg")


def abs_of_sign(node: Node, inputs: Inputs) -> Value | None:
    """||x|| = |x| and |-x| = |x|."""
    if _operand(inputs[0], "abs") is not None:
        return inputs[0]
    negated = _operand(inputs[0], "neg")
    return None if negated is None else _call("abs", negated)


def same_twice(node: Node, inputs: Inputs) -> Value | None:
    """max(x, x) = min(x, x) = x & x = x | x = x."""
    return inputs[0] if inputs[0] is inputs[1] else None


def rounded_twice(node: Node, inputs: Inputs) -> Value | None:
    """floor, ceil, trunc and round give whole numbers, which each of them keeps."""
    inner = inputs[0].node
    return inputs[0] if inner is not None and inner.op.name in ("floor", "ceil", "trunc", "round") else None


def relu_twice(node: Node, inputs: Inputs) -> Value | None:
    """relu(relu(x)) = relu(x): it is never below 0, and NaN and -0.0 pass both."""
    return inputs[0] if _operand(inputs[0], "relu") is not None else None


def int_power_one(node: Node, inputs: Inputs) -> Value | None:
    """x ** 1 = x for integers (for floats what the pow kernel gives stands)."""
    return inputs[0] if not _is_float(inputs[0]) and _is(inputs[1], 1) else None


# ---------------------------------------------------------------- bits, choice, casts


def and_neutral(node: Node, inputs: Inputs) -> Value | None:
    """x & True = x, x & False = False; for integers with -1 and 0."""
    x, y = inputs
    return _absorb(x, y, neutral=True if x.type.dtype is bool_ else -1, zero=0)


def or_neutral(node: Node, inputs: Inputs) -> Value | None:
    """x | False = x, x | True = True; for integers with 0 and -1."""
    x, y = inputs
    return _absorb(x, y, neutral=0, zero=True if x.type.dtype is bool_ else -1)


def _absorb(x: Value, y: Value, neutral: int, zero: int) -> Value | None:
    if _is(y, neutral) or _is(x, zero):
        return x
    return y if _is(x, neutral) or _is(y, zero) else None


def xor_zero(node: Node, inputs: Inputs) -> Value | None:
    """x ^ 0 = x."""
    x, y = inputs
    return x if _is(y, 0) else y if _is(x, 0) else None


def not_not(node: Node, inputs: Inputs) -> Value | None:
    """Not of not x is x."""
    return _operand(inputs[0], "bitwise_not")


def where_known(node: Node, inputs: Inputs) -> Value | None:
    """where(True, x, y) = x, where(False, x, y) = y."""
    known = uniform(inputs[0])
    return None if known is None else inputs[1] if known else inputs[2]


def where_same(node: Node, inputs: Inputs) -> Value | None:
    """where(c, x, x) = x."""
    return inputs[1] if inputs[1] is inputs[2] else None


def where_not(node: Node, inputs: Inputs) -> Value | None:
    """where(not c, x, y) = where(c, y, x)."""
    condition = _operand(inputs[0], "bitwise_not")
    return None if condition is None else _call("where", condition, inputs[2], inputs[1])


def cast_same(node: Node, inputs: Inputs) -> Value | None:
    """A cast to the dtype it has already."""
    return inputs[0]


def cast_back(node: Node, inputs: Inputs) -> Value | None:
    """A cast of a cast goes straight when the first one loses nothing: bool → any, float32 → float64, int8 → int32.

    Not by way of a float from integer to integer: that one saturates where a direct one wraps.
    """
    x = _operand(inputs[0], "cast")
    if x is None or not _holds(inputs[0].type.dtype, x.type.dtype):
        return None
    source, middle, target = x.type.dtype, inputs[0].type.dtype, node.out.type.dtype
    if source.is_integer and middle.kind == "f" and target.is_integer and not _holds(target, source):
        return None
    return x if x.type is node.out.type else _call("cast", x, dtype=node.attrs["dtype"])


def _holds(wide: DType, narrow: DType) -> bool:
    """True if every value of `narrow` is a value of `wide`."""
    if narrow is bool_ or narrow is wide:
        return True
    if narrow.is_integer and wide.is_integer:
        return wide.is_signed and wide.itemsize > narrow.itemsize
    if narrow.is_integer and wide.kind == "f":
        return narrow.bits - narrow.is_signed <= _DIGITS[wide.short]
    return narrow.kind == wide.kind == "f" and wide.itemsize > narrow.itemsize


_DIGITS = {"bf16": 8, "f16": 11, "f32": 24, "f64": 53}  # binary digits of a whole number that a float type holds


# ---------------------------------------------------------------- movement


def keeps_type(node: Node, inputs: Inputs) -> Value | None:
    """A reshape, expand or slice that changes no size keeps every element where it is."""
    return inputs[0]


def reshape_reshape(node: Node, inputs: Inputs) -> Value | None:
    """Only the last shape counts: row-major order is kept by each."""
    x = _operand(inputs[0], "reshape")
    return None if x is None else _call("reshape", x, shape=node.attrs["shape"])


def expand_expand(node: Node, inputs: Inputs) -> Value | None:
    """Only the last shape counts: both repeat axes of size 1 and add leading ones."""
    x = _operand(inputs[0], "expand")
    return None if x is None else _call("expand", x, shape=node.attrs["shape"])


def permute_identity(node: Node, inputs: Inputs) -> Value | None:
    """Axes in their own order."""
    return inputs[0] if node.attrs["dims"] == tuple(range(node.out.type.ndim)) else None


def permute_permute(node: Node, inputs: Inputs) -> Value | None:
    """Axis k of the result is axis first[second[k]] of x."""
    x = _operand(inputs[0], "permute")
    if x is None or inputs[0].node is None:
        return None
    first = inputs[0].node.attrs["dims"]
    return _call("permute", x, dims=tuple(first[d] for d in node.attrs["dims"]))


def slice_slice(node: Node, inputs: Inputs) -> Value | None:
    """x[a:b:s][c:d:t] = x[a + c*s : a + (d-1)*s + 1 : s*t] along one axis; an empty range keeps its own form."""
    x, inner = _operand(inputs[0], "slice"), inputs[0].node
    if x is None or inner is None or inner.attrs["dim"] != node.attrs["dim"]:
        return None
    a, s = inner.attrs["start"], inner.attrs["step"]
    c, d, t = (node.attrs[k] for k in ("start", "stop", "step"))
    if not all(isinstance(n, int) for n in (a, c, d)) or d <= c:
        return None
    return _call("slice", x, dim=node.attrs["dim"], start=a + c * s, stop=a + (d - 1) * s + 1, step=s * t)


def flip_flip(node: Node, inputs: Inputs) -> Value | None:
    """An axis flipped twice stands as before."""
    x, inner = _operand(inputs[0], "flip"), inputs[0].node
    if x is None or inner is None:
        return None
    dims = tuple(sorted(set(inner.attrs["dims"]) ^ set(node.attrs["dims"])))
    return _call("flip", x, dims=dims) if dims else x


def flip_nothing(node: Node, inputs: Inputs) -> Value | None:
    """Flipping axes of size 0 or 1, or none, moves nothing."""
    return inputs[0] if all(node.out.type.shape[d] in (0, 1) for d in node.attrs["dims"]) else None


def pad_nothing(node: Node, inputs: Inputs) -> Value | None:
    """A pad of no elements."""
    return inputs[0] if all(low == 0 and high == 0 for low, high in node.attrs["pads"]) else None


def cat_parts(node: Node, inputs: Inputs) -> Value | None:
    """Empty parts add nothing; one part is itself."""
    dim = node.attrs["dim"]
    kept = [x for x in inputs if x.type.shape[dim] != 0]
    if len(kept) == len(inputs) > 1:
        return None
    return kept[0] if len(kept) == 1 else _call("cat", *kept, dim=dim) if kept else inputs[0]


def clone_clone(node: Node, inputs: Inputs) -> Value | None:
    """A copy of a copy that the graph made itself is that copy."""
    return inputs[0] if _operand(inputs[0], "clone") is not None else None


def reduce_nothing(node: Node, inputs: Inputs) -> Value | None:
    """A sum, product, maximum or minimum over axes of size 1 is the element: x + -0.0 = x and x * 1.0 = x."""
    x = inputs[0]
    if any(x.type.shape[d] != 1 for d in node.attrs["dim"]):
        return None
    return _call("reshape", x, shape=node.out.type.shape)


RULES: dict[str, Sequence[Rule]] = {
    "add": (add_nothing, add_negated),
    "sub": (sub_nothing, sub_negated),
    "mul": (mul_one, mul_minus_one, mul_zero),
    "div": (div_one, div_power_of_two),
    "pow": (int_power_one,),
    "neg": (neg_neg,),
    "abs": (abs_of_sign,),
    "maximum": (same_twice,),
    "minimum": (same_twice,),
    "floor": (rounded_twice,),
    "ceil": (rounded_twice,),
    "trunc": (rounded_twice,),
    "round": (rounded_twice,),
    "relu": (relu_twice,),
    "bitwise_and": (same_twice, and_neutral),
    "bitwise_or": (same_twice, or_neutral),
    "bitwise_xor": (xor_zero,),
    "bitwise_not": (not_not,),
    "where": (where_known, where_same, where_not),
    "cast": (cast_same, cast_back),
    "reshape": (keeps_type, reshape_reshape),
    "expand": (keeps_type, expand_expand),
    "permute": (permute_identity, permute_permute),
    "slice": (keeps_type, slice_slice),
    "flip": (flip_nothing, flip_flip),
    "pad": (pad_nothing,),
    "cat": (cat_parts,),
    "clone": (clone_clone,),
    "sum": (reduce_nothing,),
    "prod": (reduce_nothing,),
    "amax": (reduce_nothing,),
    "amin": (reduce_nothing,),
}
