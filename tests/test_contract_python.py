"""RECORDER.md, "Values leaving": tensors and numbers of tensors in the hands of Python's own functions, compiled, in a
file, in threads and after exceptions.
"""

from __future__ import annotations

import bisect
import collections
import decimal
import functools
import heapq
import itertools
import json
import math
import operator
import statistics
import struct
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

import graphc
from tests.contract_runs import Case, contract, run
from tests.recorder_checks import bits


def _on(f: Callable[[Any], Any]) -> Callable[[], Any]:
    def make() -> Any:
        return f, (graphc.tensor([1.0, 2.0, 3.0]),)

    make.__wrapped__ = f  # type: ignore[attr-defined]  # whose line is marked
    return make


def matched(x: Any) -> Any:
    match x.long()[0].item():
        case 1:
            return x * 2
        case _:
            return x


# fmt: off
FOLLOWED: dict[str, Callable[[Any], Any]] = {
    "if torch.equal-like reads": lambda x: x * 2 if graphc.equal(x, x + 0) and graphc.is_nonzero(x[0]) else x,
    "not t, and, or": lambda x: x * 2 if not (x[0] > 5) and (x[1] > 1 or x[2] > 9) else x,
    "0 < t < 2": lambda x: x * 2 if 0 < x[0].item() < 2 else x,
    "t in list": lambda x: x * 2 if x[1] in [x[0], graphc.tensor(2.0)] else x,
    "number in t": lambda x: x * 2 if 2.0 in x else x,
    "list.index(t) and count(t)": lambda x: x * [x[0], x[1]].index(x[1] * 1) + [x[0], x[1]].count(x[1]),
    "[t] == [t]": lambda x: x * 2 if [x[0]] == [graphc.tensor(1.0)] else x,
    "any() and all()": lambda x: x * 2 if any(v > 2 for v in x) and all(x > 0) else x,
    "len(t)": lambda x: x * len(x),
    "iteration, enumerate and unpacking": lambda x: (lambda a, b, c: a * b + c)(*[v * k for k, v in enumerate(x)]),
    "zip and reversed": lambda x: sum(a * b for a, b in zip(x, reversed(x), strict=True)),
    "map, filter, reduce, accumulate": lambda x: functools.reduce(operator.mul, filter(lambda v: v > 1, map(
        graphc.exp, itertools.accumulate(x)))),
    "sum(list of tensors)": lambda x: sum([x[0], x[1], x[2]], x),
    "max(tensors)": lambda x: x * max(x[0], x[1]) + max(x) - min([x * 1, x * -1], key=lambda v: v.sum())[0],
    "max(numbers)": lambda x: x * max(x[0].item(), x[1].item()),
    "sorted(tensors)": lambda x: sorted([x[2], x[0], x[1]])[0] * x,
    "sorted by key": lambda x: sorted([x * 1, x * -1], key=lambda v: v.sum().item())[0],
    "heapq and bisect": lambda x: x * bisect.bisect([0.5, 1.5], x[1].item()) + heapq.nsmallest(1, [x[1], x[0]])[0],
    "math.prod(tensors)": lambda x: x * math.prod([x[0], x[1]]),
    "abs, pow, divmod of an int": lambda x: pow(abs(-x), 2) * (x.long()[2].item() % 2),
    "range(t)": lambda x: sum(x * k for k in range(x.long().sum())),
    "range(number)": lambda x: sum(x * k for k in range(x.long().sum().item())),
    "list[t] and x[:t]": lambda x: x[: x.long()[1]] * [1, 2, 3][x.long()[1]],
    "operator.index(t), int(t), hex(t)": lambda x: x * operator.index(x.long()[0]) * int(x.long()[1])
        + len(hex(x.long()[2])),
    "a number as a key": lambda x: x * {1: 2.0, 2: 3.0}[x.long()[0].item()],
    "a number in a set, in Counter": lambda x: x * len({v.item() for v in x.long()}) + collections.Counter(
        v.item() for v in x.long())[2],
    "an int in a text": lambda x: x * len(f"{x.long().sum().item()}-{x.long()[0].item():03d}"),
    "match": matched,
    "the number as a size": lambda x: graphc.arange(x.long()[2].item()) + x,
    "tensor([number]) and full(number)": lambda x: graphc.tensor([x[0].item(), 2.0]) + graphc.full((2,), x[1].item()),
    "isinstance(number, float)": lambda x: x * 2 if isinstance(x[0].item(), float) else x,
    "a loop until": lambda x: next(x * k for k in itertools.count() if k > x.max()),
    "a numpy scalar times t": lambda x: x * np.float32(2),
}

REFUSED: dict[str, Callable[[Any], Any]] = {
    "f-string of a 0-d tensor": lambda x: x * len(f"{x.sum()}"),  # here
    "f-string of a 0-d tensor with a format": lambda x: x * len(f"{x.sum():.2f}"),  # here
    "f-string of a float": lambda x: x * len(f"{x.sum().item():.2f}"),  # here
    "str(t)": lambda x: x * len(str(x)),  # here
    "% formatting": lambda x: x * len("%.3f" % x.sum()),  # noqa: UP031  # here
    "math.sqrt(t)": lambda x: x * math.sqrt(x.sum()),  # here
    "math.sqrt(number)": lambda x: x * math.sqrt(x.sum().item()),  # here
    "math.floor(t)": lambda x: x * math.floor(x.sum()),  # here
    "math.isnan(t)": lambda x: x * 2 if math.isnan(x.sum()) else x,  # here
    "math.fsum(tensors)": lambda x: x * math.fsum([x[0], x[1]]),  # here
    "float(t)": lambda x: x * float(x.sum()),  # here
    "int(float)": lambda x: x * int(x.sum().item()),  # here
    "complex(t)": lambda x: x * complex(x.sum()).real,  # here
    "round(number)": lambda x: x * round(x.sum().item(), 1),  # here
    "np.sin(t)": lambda x: graphc.from_numpy(np.sin(x)),  # here
    "np.array([number])": lambda x: x * float(np.array([x[0].item()])[0]),  # here
    "np.asarray(t)": lambda x: x * float(np.asarray(x)[0]),  # here
    "tolist()": lambda x: x * x.tolist()[0],  # here
    "a float as a key": lambda x: x * {1.0: 2.0}.get(x[0].item(), 5.0),  # here
    "type(number)": lambda x: x * 2 if type(x[0].item()) is float else x,  # here
    "json.dumps(number)": lambda x: x * len(json.dumps(x.sum().item())),  # here
    "Decimal(number)": lambda x: x * float(decimal.Decimal(x.sum().item())),  # here
    "statistics.mean(numbers)": lambda x: x * statistics.mean([v.item() for v in x]),  # here
    "struct.pack(number)": lambda x: x * struct.pack("f", x[0].item())[0],  # here
}
# fmt: on
CASES = [Case(name, _on(f)) for name, f in FOLLOWED.items()]
CASES += [Case(name, _on(f), refused=True) for name, f in REFUSED.items()]


@contract(CASES)
def test_row(case: Case, setting: str) -> None:
    run(case, setting)


def test_values_that_change_the_answer_are_followed() -> None:
    rows = ([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [2.0, 1.0, 3.0], [1.0, 2.5, 3.5], [1.0, 2.0, 9.0])
    for name, f in {**FOLLOWED, **REFUSED}.items():
        compiled = graphc.compile(f)
        for row in (*rows, *rows):
            x = graphc.tensor(row)
            assert _outcome(compiled, x) == _outcome(f, x), (name, row)


def _outcome(f: Any, x: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", graphc.RecordingWarning)
        try:
            return bits(f(x))
        except Exception as error:
            return type(error), str(error)
