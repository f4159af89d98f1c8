"""Any public function or method in random programs, called with what its parameters' names ask for.

Nothing here lists functions: a new one is called as soon as it is public, as long as its parameters have names that
`_ARGUMENTS` knows. Calls that do not work are not kept (follow.py).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from typing import Any

import graphc
from graphc import linalg
from graphc.frontend.tensor import Tensor
from graphc.fuzz.parts import REAL, WHOLE, Parts, Var
from graphc.nn import functional

# what a program of tensors does not call, and why
NOT_CALLED = {
    # settings of the process, files, devices, compilation
    "compile",
    "is_compiling",  # it is there to differ
    "disable",
    "reset",
    "trace",
    "freeze",
    "host",
    "no_retrace",
    "save",
    "load",
    "cuda",
    "from_dlpack",
    "to_dlpack",
    "from_numpy",
    "set_default_dtype",
    "set_default_device",
    "set_default_tensor_type",
    "set_printoptions",
    "set_num_threads",
    "get_num_threads",  # it differs between the runs that are compared
    "set_float32_matmul_precision",
    "use_deterministic_algorithms",
    "set_grad_enabled",
    "fork_rng",
    "pin_memory",
    # the random state is set by make()
    "seed",
    "manual_seed",
    "set_rng_state",
    "get_rng_state",
    "initial_seed",
    "Generator",
    # settings of the process, which no graph reads
    "get_float32_matmul_precision",
    "are_deterministic_algorithms_enabled",
    "is_deterministic_algorithms_warn_only_enabled",
    # written by statements of their own
    "cond",
    "scan",
    "while_loop",
    "backward",
    "register_hook",
    "register_post_accumulate_grad_hook",
    "apply_op",
    # leave memory as it was found, or show addresses
    "empty",
    "empty_like",
    "new_empty",
    "new",
    "resize_",
    "resize_as_",
    "data_ptr",
    "numpy",
    "type",
    "storage_offset",
    # change what an argument is, which calls after this one see
    "requires_grad_",
    "detach_",
    "retain_grad",
    "t_",
    "transpose_",
    "squeeze_",
    "unsqueeze_",
    "swapaxes_",
    "swapdims_",
}
# the greatest element is the size of the result: extreme integers would want all memory there is
SIZED_BY_VALUES = {"bincount", "one_hot", "repeat_interleave"}
_NUMBERS = ["0", "1", "2", "-1", "3", "0.5", "-0.25", "1.5", "s", "k"]
_UNIT = ["0.25", "0.5", "0.9"]
_SMALL = ["0", "1", "2", "3"]
_FLAG = ["True", "False"]


@cache
def callables() -> tuple[tuple[str, tuple[tuple[str, bool, str], ...]], ...]:
    """Every public function and method: how it is called, and (name, required, kind) of each of its parameters."""
    found: list[tuple[str, Any]] = [(f"graphc.{n}", getattr(graphc, n)) for n in dir(graphc) if n[0].islower()]
    found += [(f"F.{n}", getattr(functional, n)) for n in sorted(dir(functional)) if n[0].islower()]
    found += [(f"graphc.linalg.{n}", getattr(linalg, n)) for n in sorted(dir(linalg)) if n[0].islower()]
    found += [(f"{{}}.{n}", getattr(Tensor, n)) for n in sorted(dir(Tensor)) if n[0].islower() or n in ("T", "mT")]
    return tuple(
        (text, _parameters(text, f)) for text, f in found if text.split(".")[-1] not in NOT_CALLED and _plain(f)
    )


def _plain(f: Any) -> bool:
    return callable(f) and not isinstance(f, type) and not inspect.ismodule(f)


@cache
def _in_place_parameters(name: str) -> tuple[tuple[str, bool, str], ...]:
    """An in-place method takes what the method it is made of takes."""
    plain = getattr(Tensor, name.removesuffix("_"), None) or getattr(graphc, name.removesuffix("_"), None)
    return () if plain is None else _parameters(f"{{}}.{name.removesuffix('_')}", plain)


def _parameters(text: str, f: Any) -> tuple[tuple[str, bool, str], ...]:
    found = [
        (p.name, p.default is p.empty and p.kind != p.VAR_KEYWORD, p.kind.name)
        for p in inspect.signature(f).parameters.values()
    ]
    if text.startswith("{}."):
        found = found[1:]
        if text.endswith("_") and found and found[0][2] == "VAR_POSITIONAL":
            return _in_place_parameters(text[3:])
    return tuple(found)


class Calls(Parts):
    """Statements that call something public."""

    def called(self) -> None:
        """Some function or method, with whatever works."""
        self.call(*self.rng.choice(callables()))

    def call(self, text: str, parameters: tuple[tuple[str, bool, str], ...]) -> bool:
        """Call a function or method with whatever works; tells whether anything did."""
        return any(self._try(text, parameters) for _ in range(6))

    def _try(self, text: str, parameters: tuple[tuple[str, bool, str], ...]) -> bool:
        v = self.pick_any()
        if text.split(".")[-1] in SIZED_BY_VALUES:
            if not v.whole:
                return False
            v = replace(v, name=f"({v.name} % 5)")
        given: list[str] = []
        named = False
        for name, required, kind in parameters:
            if kind == "VAR_KEYWORD" or not (required or self.chance(0.35)):
                named = True
                continue
            ask = _ARGUMENTS.get(name)
            if ask is None:
                if required:
                    return False
                named = True
                continue
            value = ask(self, v)
            if kind == "VAR_POSITIONAL":
                given += [value] if not value.startswith(("[", "(")) else [f"*{value}"]
            else:
                given.append(f"{name}={value}" if named or kind == "KEYWORD_ONLY" else value)
        line = f"{text.format(v.name)}({', '.join(given)})"
        if text.endswith("_"):
            if v.name[0] in "cw" and self.no_grad == 0 and v.leaf:
                return False
            return self.say(line)
        return self.made(line) is not None

    def any_of(self, *names: str) -> Var:
        """A name of one of these dtypes, or else any."""
        return self.pick_any(lambda v: v.dtype in names)

    def axes(self, v: Var) -> str:
        """Some axes: one, a tuple, or all."""
        if not v.shape or self.chance(0.1):
            return self.rng.choice(["0", "-1"])
        if self.chance(0.7):
            return str(self.rng.randrange(-len(v.shape), len(v.shape)))
        return str(tuple(self.rng.sample(range(len(v.shape)), self.rng.randrange(1, len(v.shape) + 1))))

    def like(self, v: Var) -> str:
        """A tensor that goes with `v`: of its shape, or any, or a number."""
        if self.chance(0.15):
            return self.rng.choice(_NUMBERS)
        same = self.pick_any(lambda o: o.shape == v.shape and o.dtype == v.dtype)
        if self.chance(0.7):
            return same.name if same.shape == v.shape else v.name
        return self.pick_any().name

    def index_like(self, v: Var) -> str:
        """An int64 tensor of places along the axes of `v`."""
        size = max(min(v.shape, default=1), 1)
        i = self.pick_any(lambda i: i.dtype == "int64" and (len(i.shape) <= 1 or i.shape == v.shape))
        if i.dtype == "int64" and self.chance(0.5):
            return f"{i.name} % {size}"
        if len(v.shape) > 1 and self.chance(0.5):
            return f"graphc.zeros_like({v.name}, dtype=graphc.int64)"
        places = [self.rng.randrange(size) for _ in range(self.rng.choice([1, 2, 3, 5]))]
        return f"graphc.tensor({places})"

    def mask_like(self, v: Var) -> str:
        """A bool tensor of the shape of `v`."""
        m = self.pick_any(lambda m: m.dtype == "bool" and m.shape == v.shape)
        return m.name if m.dtype == "bool" and m.shape == v.shape and self.chance(0.5) else f"({v.name} > 0)"

    def sizes(self, v: Var) -> str:
        """A shape: that of `v` in other words, or a small one."""
        shape = list(v.shape)
        how = self.rng.choice(["same", "flat", "longer", "small"])
        if how == "flat":
            shape = [-1]
        elif how == "longer":
            shape = [self.rng.choice([1, 2]), *shape]
        elif how == "small":
            shape = list(self.shape())
        return str(tuple(shape))


def _one(*choices: str) -> Callable[[Calls, Var], str]:
    return lambda g, v: g.rng.choice(choices)


def _like(g: Calls, v: Var) -> str:
    return g.like(v)


def _tensors(g: Calls, v: Var) -> str:
    same = [o.name for o in g.vars if o.shape == v.shape]
    return f"[{', '.join(g.rng.choices(same or [v.name], k=g.rng.choice([1, 2, 3])))}]"


_DTYPE = _one(*(f"graphc.{d}" for d in ("bool", *WHOLE, *REAL)))
_ARGUMENTS: dict[str, Callable[[Calls, Var], str]] = {
    **dict.fromkeys(("input", "self", "x", "A", "tensor"), lambda g, v: v.name),
    **dict.fromkeys(
        (
            "other",
            "target",
            "value",
            "values",
            "weight",
            "source",
            "src",
            "mat2",
            "vec2",
            "exponent",
            "tensor1",
            "tensor2",
            "x1",
            "x2",
            "y",
            "input1",
            "input2",
            "vec",
            "mat1",
            "batch1",
            "batch2",
            "var",
            "query",
            "key",
            "anchor",
            "positive",
            "negative",
            "weights",
            "prepend",
            "append",
            "bias",
            "abs",
            "angle",
            "imag",
            "real",
            "logits",
            "running_mean",
            "running_var",
            "min",
            "max",
            "test_elements",
            "elements",
            "grid",
            "pos_weight",
            "from_tensor",
        ),
        _like,
    ),
    **dict.fromkeys(
        ("dim", "dim0", "dim1", "dim2", "start_dim", "end_dim", "destination", "dims", "dimension"),
        lambda g, v: g.axes(v),
    ),
    **dict.fromkeys(
        (
            "keepdim",
            "sorted",
            "return_inverse",
            "return_counts",
            "descending",
            "stable",
            "largest",
            "right",
            "accumulate",
            "unbiased",
            "equal_nan",
            "periodic",
            "ceil_mode",
            "count_include_pad",
            "replacement",
            "return_indices",
            "align_corners",
            "swap",
            "full",
            "log_target",
            "log_input",
            "hard",
            "training",
            "upper",
            "invert",
            "assume_unique",
            "is_causal",
            "out_int32",
            "density",
            "inplace",
            "reverse",
        ),
        _one(*_FLAG),
    ),
    **dict.fromkeys(("p", "q", "momentum", "label_smoothing", "tau", "scale"), _one(*_UNIT)),
    **dict.fromkeys(
        (
            "alpha",
            "beta",
            "fill_value",
            "posinf",
            "neginf",
            "nan",
            "margin",
            "delta",
            "threshold",
            "lambd",
            "negative_slope",
            "lower",
            "end",
            "min_val",
            "max_val",
            "mean",
            "std",
            "dx",
            "start",
            "to",
            "from_",
        ),
        _one(*_NUMBERS),
    ),
    **dict.fromkeys(
        (
            "n",
            "k",
            "diagonal",
            "offset",
            "correction",
            "length",
            "step",
            "decimals",
            "shifts",
            "repeats",
            "chunks",
            "bins",
            "minlength",
            "num_samples",
            "window_length",
            "kernel_size",
            "stride",
            "padding",
            "dilation",
            "output_size",
            "groups",
            "num_groups",
            "upscale_factor",
            "downscale_factor",
            "index",
            "split_size_or_sections",
            "steps",
            "norm_type",
            "size",
            "output_padding",
            "scale_factor",
            "row",
            "col",
            "num_classes",
            "blank",
        ),
        _one(*_SMALL, "4", "(2,)", "-1"),
    ),
    **dict.fromkeys(("eps", "rtol", "atol"), _one("1e-3", "0.5")),
    **dict.fromkeys(("mask", "condition"), lambda g, v: g.mask_like(v)),
    "indices": lambda g, v: f"({g.index_like(v)},)" if g.chance(0.5) else g.index_like(v),
    "index": lambda g, v: g.index_like(v) if g.chance(0.8) else g.rng.choice(_SMALL),
    **dict.fromkeys(("dtype",), _DTYPE),
    **dict.fromkeys(("tensors", "operands"), _tensors),
    **dict.fromkeys(("shape", "sizes", "size", "normalized_shape", "split_sizes"), lambda g, v: g.sizes(v)),
    "repeats": _one("2", "(2, 1)", "(1, 2, 1)", "(2,)"),
    "limits": _one("5", "(1, 7)", "(0, 6, 2)"),
    "data": _one("[1, 2, 3]", "[[0.5, -0.0], [graphc.nan, 2]]", "3.5", "[True, False]"),
    "obj": _one("[1, 2]", "2.5"),
    "pad": _one("(1, 2)", "(0, 1, 2, 0)", "(1, -1)"),
    "reduction": _one("'none'", "'mean'", "'sum'"),
    "reduce": _one("'sum'", "'prod'", "'mean'", "'amax'", "'amin'"),
    "rounding_mode": _one("None", "'floor'", "'trunc'"),
    "mode": _one(
        "'constant'",
        "'reflect'",
        "'replicate'",
        "'circular'",
        "'nearest'",
        "'bilinear'",
        "'area'",
        "'sum'",
        "'bicubic'",
    ),
    "interpolation": _one("'linear'", "'lower'", "'higher'", "'nearest'", "'midpoint'"),
    "approximate": _one("'none'", "'tanh'"),
    "indexing": _one("'ij'", "'xy'"),
    "side": _one("'left'", "'right'"),
    "equation": _one("'ij,kj->ik'", "'ij,ij->i'", "'i,j->ij'", "'ii->i'", "'bij,bjk->bik'", "'ij->ji'", "'i,i->'"),
    "boundaries": lambda g, v: "graphc.tensor([-1.0, 0.0, 0.5, 2.0])",
    "sorted_sequence": lambda g, v: "graphc.tensor([-1.0, 0.0, 0.0, 2.0])",
    "padding_idx": _one("0", "None"),
    "ignore_index": _one("-100", "1"),
}
