"""The recorder: branches, numbers and other ways out of a compiled function."""

from __future__ import annotations

import io
import logging
import math
import pickle
import re
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import RecordingError
from tests.recorder_checks import bits, follows, refused

quiet = pytest.mark.filterwarnings("ignore::graphc.frontend.record.compiled.RecordingWarning")


def v4(scale: float = 1.0) -> Any:
    return graphc.tensor([1.0, -2.0, 3.0, 0.5]) * scale


# ---- branches


@pytest.mark.parametrize(
    "test",
    [
        lambda x: bool(x.sum() > 0),
        lambda x: x.sum() > 0,
        lambda x: graphc.equal(x, x.abs()),
        lambda x: graphc.allclose(x, x.abs()),
        lambda x: 3.0 in x,
        lambda x: (x > 0).any() and not (x > 2.5).all(),
        lambda x: x.sum().item() > 0,
        lambda x: not x[0],
        lambda x: x.max() in [graphc.tensor(3.0), graphc.tensor(-1.0)],
    ],
)
def test_a_branch_on_a_value_is_a_guard(test: Any) -> None:
    def f(x: Any) -> Any:
        return x * 2 if test(x) else x - 1

    forms = [v4(), v4(-1.0), v4(0.0), v4().abs()]
    compiled = follows(f, *[(x,) for x in forms for _ in range(3)], *[(x,) for x in forms])
    assert compiled.stats.hits >= 4


def test_guards_name_line_and_value() -> None:
    def f(x: Any) -> Any:
        if x.sum() > 0:
            return x * 2
        return x

    compiled = follows(f, *[(v4(),)] * 3)
    assert "test_recorder_leaving.py:" in compiled.explain() and "is True" in compiled.explain()


def test_assert_is_a_guard() -> None:
    def f(x: Any) -> Any:
        assert (x < 10).all(), "too large"
        return x * 2

    compiled = follows(f, *[(v4(),)] * 4)
    with pytest.raises(AssertionError, match="too large"):
        compiled(v4(100.0))
    assert compiled(v4()).tolist() == (v4() * 2).tolist()
    assert compiled.stats.hits == 3


def test_data_dependent_loop() -> None:
    def f(x: Any) -> Any:
        while x.abs().max() > 1:
            x = x / 2
        return x

    follows(f, *[(v4(s),) for s in (1.0, 1.0, 1.0, 0.1, 0.1, 0.1, 2.0, 2.0, 2.0, 1.0, 0.1)])


@pytest.mark.parametrize("fullgraph", [False, True])
def test_more_than_eight_paths_run_eagerly_with_one_warning(fullgraph: bool) -> None:
    def f(x: Any) -> Any:
        while x.max() > 1:
            x = x / 2
        return x

    compiled = graphc.compile(f, fullgraph=fullgraph)
    for k in range(1, 9):
        for _ in range(2):
            compiled(v4(2.0**k))
    assert compiled.stats.compilations == 8
    if fullgraph:
        with pytest.raises(RecordingError, match="8 different paths"):
            compiled(v4(2.0**9))
        return
    with pytest.warns(graphc.RecordingWarning, match="8 different paths") as caught:
        for k in (9, 10, 11, 9, 3):
            assert bits(compiled(v4(2.0**k))) == bits(f(v4(2.0**k)))
    assert len(caught) == 1
    assert compiled.stats.compilations == 8


def test_guards_come_before_the_first_write() -> None:
    def step(x: Any, w: Any) -> Any:
        w.add_(1)
        if (x + w).sum() > 0:
            w.mul_(2)
        return w + x

    w, w2 = graphc.zeros(4), graphc.zeros(4)
    compiled = graphc.compile(step, fullgraph=True)
    for s in (1.0, 1.0, 1.0, -1000.0, -1000.0, -1000.0, 1.0, -1000.0):
        assert bits(compiled(v4(s), w)) == bits(step(v4(s), w2))
        assert bits(w) == bits(w2)
    assert compiled.stats.hits == 4


# ---- numbers


def test_item_in_arithmetic() -> None:
    def f(x: Any) -> Any:
        s = x.sum().item()
        return x * s + (s + 1) / 2 - 2 * s, 1 - s, s / 3, -s, abs(s)

    compiled = follows(f, *[(v4(k),) for k in (1.0, -2.0, 0.3, 5.0)])
    assert compiled.stats.hits == 2


def test_int_item_in_arithmetic() -> None:
    def f(x: Any) -> Any:
        n = x.argmax().item()
        return x + n, n + 1, n * 2 - 1, n / 2, n // 2, n % 2, -n, 7 - n

    follows(f, (v4(),), (v4(-1.0),), (v4(),), (v4(-1.0),))


def test_bool_item() -> None:
    follows(
        lambda x: (x.any().item(), x * x.any().item(), x.any().item() + 1), (v4(),), (v4(0.0),), (v4(),), (v4(0.0),)
    )


def test_item_compared_is_a_guard() -> None:
    def f(x: Any) -> Any:
        s = x.sum().item()
        if 0 < s <= 10:
            return x * s
        return x - s if s != 0 else x

    compiled = follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 0.0, 0.0, 0.0, 100.0, 90.0, 80.0)])
    assert compiled.stats.compilations >= 3


def test_item_returned_is_a_number() -> None:
    compiled = follows(
        lambda x: {"loss": x.sum().item(), "n": x.argmax().item(), "b": (x > 0).all().item()},
        *[(v4(k),) for k in (1.0, -1.0, 2.0, 3.0)],
    )
    out = compiled(v4())
    assert [type(v) for v in out.values()] == [float, int, bool]


def test_item_formatted_and_shown_at_once(capsys: Any) -> None:
    logger = logging.getLogger("graphc.unheard")

    def f(x: Any, n: int) -> Any:
        s = x.sum().item()
        print(f"{s:.1f} {s} {n}", [s], str(s), s, sep=";")
        logger.debug("%s " + f"{s!r}", s)
        return x * s * n

    program = graphc.trace(f, v4(), 3)
    assert any("shown while recording only: print at" in note for note in program.signature.notes)
    capsys.readouterr()
    expected = f(v4(), 3)
    shown = capsys.readouterr().out
    assert bits(program(v4(), 3)) == bits(expected) and not capsys.readouterr().out and shown.startswith("2.5 2.5 3")


def test_item_formatted_for_a_log_nobody_hears_is_compiled() -> None:
    logger = logging.getLogger("graphc.unheard")

    def f(x: Any) -> Any:
        s = x.sum().item()
        logger.debug("%s " + f"{s!r}", s)
        return x * s

    assert follows(f, *[(v4(k),) for k in (1.0, -1.0, 2.0, 3.0)]).stats.hits == 2


@pytest.mark.parametrize("how", ["len", "parse", "stored", "key", "tensor", "join"])
def test_text_of_a_value_is_refused(how: str) -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            s = x.sum().item()
            if how == "len":
                return x * len(str(s))  # here
            if how == "parse":
                return x * float(f"{s:.2f}")  # here
            if how == "stored":
                print(text := f"{s}")  # here
                return x * len(text)
            if how == "key":
                return {f"k{s}": x}  # here
            if how == "tensor":
                return x if "2" in repr(x * 2) else -x  # here
            return x * len("".join(str(v) for v in (s, 1.0)))  # here

        return f, (v4(),)

    refused(make, match="text made of a recorded value")


def test_an_int_in_a_text_is_a_guard() -> None:
    table = {"k1": 2.0, "k2": 3.0}

    def f(x: Any, n: int) -> Any:
        return x * table[f"k{n}"]

    compiled = follows(f, *[(v4(), n) for n in (1, 1, 2, 2, 2, 1, 1, 1, 2, 1)])
    assert compiled.stats.hits >= 4


def test_float_forced_is_refused() -> None:
    def forced() -> Any:
        def f(x: Any) -> Any:
            s = x.sum().item()
            return x * float(s)  # here

        return f, (v4(),)

    def sqrt() -> Any:
        def f(x: Any) -> Any:
            return x * math.sqrt(abs(x.sum().item()))  # here

        return f, (v4(),)

    def direct() -> Any:
        def f(x: Any) -> Any:
            return x * float(x.sum())  # here

        return f, (v4(),)

    def numpy_call() -> Any:
        def f(x: Any) -> Any:
            return x * np.sqrt(abs(x.sum().item()))  # here

        return f, (v4(),)

    refused(forced, match="float()")
    refused(sqrt)
    refused(direct)
    refused(numpy_call)


def test_int_forced_is_a_guard() -> None:
    def f(x: Any) -> Any:
        n = x.argmax().item()
        for _ in range(n):
            x = x * 2
        return x[n] + int(n) + graphc.zeros(n + 1).sum() + [5.0, 6.0, 7.0, 8.0][n]

    compiled = follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])
    assert compiled.stats.compilations == 2 and compiled.stats.hits == 4


def test_int_of_a_tensor_and_index_are_guards() -> None:
    def f(x: Any) -> Any:
        n = x.argmax()
        return x * int(n) + [1.0, 2.0, 3.0][n]

    follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])


def test_int_of_a_float_item_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return x * int(x.sum().item())  # here

        return f, (v4(),)

    refused(make)


@pytest.mark.parametrize(
    "what", ["round", "hash", "dict key", "float index", "log", "exp", "pow", "floordiv", "mod", "hex"]
)
def test_other_uses_of_an_item(what: str) -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            s = x.sum().item()
            if what == "round":
                return x * round(s)  # here
            if what == "hash":
                return x * (hash(s) % 3)  # here
            if what == "dict key":
                return x * {2.5: 3.0}[s]  # here
            if what == "float index":
                return x * math.floor(s)  # here
            if what == "log":
                return x * math.log(s)  # here
            if what == "pow":
                return x * s**2  # here
            if what == "floordiv":
                return x * (s // 2)  # here
            if what == "mod":
                return x * (s % 2)  # here
            if what == "hex":
                return x * len(s.hex())  # here
            return x * math.exp(s)  # here

        return f, (v4(),)

    refused(make)


def test_min_max_sum_of_items_are_guards_and_nodes() -> None:
    def f(x: Any) -> Any:
        a, b = x[0].item(), x[1].item()
        return x * min(a, b) + max(a, b, 0.0) + sum([a, b])

    follows(f, *[(v4(k),) for k in (1.0, 2.0, 1.5, -1.0, -2.0, -3.0, 1.0, -1.0)])


# ---- hard escapes


@pytest.mark.parametrize("how", ["numpy", "tolist", "asarray", "data_ptr", "pickle", "memoryview", "ufunc"])
def test_escapes_are_refused(how: str) -> None:
    actions: dict[str, Any] = {
        "numpy": lambda t: t.numpy(),
        "tolist": lambda t: t.tolist(),
        "asarray": np.asarray,
        "data_ptr": lambda t: t.data_ptr(),
        "pickle": pickle.dumps,
        "memoryview": lambda t: np.array(t, copy=True).data,
        "ufunc": lambda t: np.asarray(t) + 1,
    }
    act = actions[how]

    def make() -> Any:
        def f(x: Any) -> Any:
            y = x * 2
            if how == "pickle":
                pickle.dumps(y)  # here
            else:
                call(y)  # here
            return y

        def call(y: Any) -> Any:
            return act(y)

        return f, (v4(),)

    def inside() -> Any:
        def f(x: Any) -> Any:
            y = x * 2
            {"numpy": y.numpy, "tolist": y.tolist, "data_ptr": y.data_ptr}[how]()  # here
            return y

        return f, (v4(),)

    if how in ("numpy", "tolist", "data_ptr"):
        refused(inside)
        return
    act(v4())  # eagerly it is a way out
    with pytest.raises(RecordingError):
        graphc.compile(make()[0], fullgraph=True)(v4())
    compiled = graphc.compile(make()[0])
    with pytest.warns(graphc.RecordingWarning):
        assert bits(compiled(v4())) == bits(v4() * 2)


def test_refusal_says_the_ways_out() -> None:
    with pytest.raises(RecordingError, match="return"):
        graphc.compile(lambda x: x.numpy().sum(), fullgraph=True)(v4())


# ---- shown


def test_print_prints_at_every_call(capsys: Any) -> None:
    def f(x: Any) -> Any:
        print("x is", x)
        return x * 2

    compiled = graphc.compile(f)
    with pytest.warns(graphc.RecordingWarning, match=r"lockstep.*print at test_recorder_leaving\.py") as caught:
        for _ in range(6):
            compiled(v4())
    assert len(caught) == 1
    assert capsys.readouterr().out.count("x is") == 6
    assert compiled.stats.hits == 0 and compiled.stats.recordings == 1
    with pytest.raises(RecordingError, match=r"test_recorder_leaving\.py"):
        graphc.compile(f, fullgraph=True)(v4())


@pytest.mark.parametrize("how", ["file", "log", "buffer"])
def test_output_is_done_at_every_call(how: str, tmp_path: Path) -> None:
    logger = logging.getLogger("graphc.test")
    with (tmp_path / "log.txt").open("w") as file:
        logger.addHandler(handler := logging.StreamHandler(file))

        def f(x: Any) -> Any:
            if how == "file":
                file.write("step\n")
            elif how == "log":
                logger.warning("step")
            else:
                io.StringIO().write("nothing leaves")
            return x * 2

        compiled = graphc.compile(f)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            for _ in range(5):
                compiled(v4())
        logger.removeHandler(handler)
    assert compiled.stats.hits == (3 if how == "buffer" else 0)
    assert (tmp_path / "log.txt").read_text().count("step") == (0 if how == "buffer" else 5)
    assert [bool(re.search(r"output at test_recorder_leaving\.py", str(w.message))) for w in caught] == (
        [] if how == "buffer" else [True]
    )


def test_repr_of_a_tensor_that_is_kept_is_refused_or_shown() -> None:
    def make() -> Any:
        log: list[str] = []

        def f(x: Any) -> Any:
            log.append(repr(x * 2))  # here
            return x * 2

        return f, (v4(),), lambda: list(log)

    refused(make)


def test_repr_returned_is_refused() -> None:
    def make() -> Any:
        def f(x: Any) -> Any:
            return x * 2, repr(x * 2)  # here

        return f, (v4(),)

    refused(make)
