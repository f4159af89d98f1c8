"""A number that a recording follows is a float, an int or a bool wherever the function takes it: the same results, the
same errors.
"""

from __future__ import annotations

import array
import bisect
import collections
import copy
import datetime
import functools
import heapq
import itertools
import math
import numbers
import operator
import pickle
import random
import string
import struct
import time
from types import ModuleType
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.nn import functional as F

PARTS = 12
GIVEN = ("s", "s, s", "y, s", "s, y", "y, y, s", "y, s, y", "y, 0, s", "y, dim=s", "[s, s]", "y, (s,)", "y, [s]")
NOT_CALLED = frozenset({"compile", "trace", "load", "save", "host", "freeze", "use_deterministic_algorithms"})
MODULES: tuple[ModuleType, ...] = (
    array, bisect, collections, copy, datetime, functools, heapq, itertools, math, numbers, operator, pickle, random,
    string, struct, time,
)  # fmt: skip
EXPRESSIONS = """
y[s]; y[s:]; y[:s]; y[::s]; y[[s]]; y[None, s]; y + s; s - y; y ** s; s ** y; y // s; s // y; y % s; s % y; y @ s;
y & s; y << s; s < y; y == s; round(s); abs(s); -s; +s; s + 1; s / 2; s // 2; s % 2; s ** 2; divmod(s, 2); 2 ** s;
int(s); float(s); bool(s); str(s); repr(s); format(s, '.2f'); f'{s:.1f}'; hash(s); s == 1; s < 2; min(s, 2);
max(s, 2); sum([s, s]); sorted([s, 0]); list(range(s)); s.__class__.__name__; s.real; s.imag; s.is_integer(); s.hex();
s.bit_length(); s.conjugate(); complex(1, s); pow(s, 2); {s: 1}; {s: 1}[s]; s in (1, 2); [0.5, 1].index(s);
isinstance(s, float); isinstance(s, int); s or 3; s and 3; not s; y if s else -y; callable(s); hasattr(s, 'foo');
chr(s); hex(s); ~s; s << 1; s & 1; 1 << s; math.sqrt(s); math.floor(s); math.exp(s); math.gcd(s, 2);
math.isclose(s, 0.5); math.prod([s, 2]); np.sqrt(s); np.array([s, 1]); np.ones(2, np.float32) * s;
s + np.ones(2, np.float32); np.add(s, s); np.full(2, s); graphc.tensor([s, 1]); graphc.tensor([[s], [s]]);
graphc.full((2,), s); graphc.arange(s); graphc.zeros(s); graphc.tensor(s); graphc.tensor(s, dtype=graphc.float64);
graphc.tensor(s).add_(1); operator.index(s); functools.reduce(operator.add, [s, s]); copy.copy(s); copy.deepcopy([s]);
pickle.loads(pickle.dumps(s)); random.Random(s).random(); list(itertools.repeat(1, s)); struct.pack('d', s);
time.gmtime(s).tm_year; datetime.timedelta(seconds=s).seconds; '%d' % s; '%s' % s; '{:>5}'.format(s);
string.Template('$a').substitute(a=s); next(enumerate([1], s)); array.array('d', [s])[0]; collections.Counter([s]);
collections.deque([1, 2], s); heapq.nsmallest(1, [s, 1]); bisect.bisect([0, 1, 2], s); round(s, 1);
float.__add__(s, 1.0); float.hex(s); int.__mul__(s, 2); type(s)(2); isinstance(s, numbers.Real); 1 < s < 3;
iter([s]).__next__(); s @ s; s[0]; s()
"""
FORMS = ("return {e}, y * 2", "q = {e}\n    return q, y * 2", "return y * ({e})", "return h(s, y), y")
NUMBERS = ((0.5, 0.5, 0.25, 0.75, 0.5), (1, 1, 0, 2, 3, 1), (True, True, False, True), (1, 0.5, 2, 1.5, True, 1))


def outcome(f: Any, s: Any) -> str:
    """The result or the error of a call, as text without the place."""
    graphc.manual_seed(0)
    try:
        return repr(f(graphc.ones(3) * 0.5, s))
    except Exception as error:
        return f"{type(error).__name__}: {error}".split(" (at ")[0]


def compare(text: str, given: tuple[Any, ...]) -> None:
    """Call the function `f` of a text with these numbers, compiled and as it is."""
    around = {m.__name__: m for m in MODULES} | {"graphc": graphc, "F": F, "np": np}
    exec(text, around)
    f: Any = around["f"]
    compiled = graphc.compile(f)
    for s in given:
        assert outcome(compiled, s) == outcome(f, s), f"{text} {s}"


def functions() -> list[str]:
    """Public functions, by the names they are called by."""
    found = []
    for name, module in (("graphc", graphc), ("F", F)):
        for key in sorted(set(dir(module)) - NOT_CALLED):
            x = getattr(module, key)
            if callable(x) and not isinstance(x, type) and not key.startswith(("_", "set_")):
                found.append(f"{name}.{key}")
    return found


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("part", range(PARTS))
def test_as_an_argument_of_functions(part: int) -> None:
    for name in functions()[part::PARTS]:
        for k, given in enumerate(GIVEN):
            compare(f"def f(y, s):\n    return {name}({given})", NUMBERS[k % 2][:4])


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("given", NUMBERS)
def test_in_expressions(given: tuple[Any, ...]) -> None:
    for expression in EXPRESSIONS.replace("\n", " ").split(";"):
        e = expression.strip()
        for form in FORMS:
            compare(f"def h(s, y):\n    return {e}\ndef f(y, s):\n    {form.format(e=e)}", given)
