"""x[...]: NumPy is the oracle for reads and writes (PyTorch and NumPy agree on the keys used here)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, DTypeError, IndexingError, ShapeError
from graphc.testing import assert_same

SHAPE = (3, 4, 5)
VIEWS: list[Any] = [
    0, -1, slice(None), slice(1, 3), slice(None, None, 2), slice(5, 1), slice(-100, 100), Ellipsis, None, (),
    (0, 1), (0, 1, 2), (slice(None), 2), (Ellipsis, 0), (Ellipsis, slice(1, 4, 2)), (0, Ellipsis, 1), (None, 0, None),
    (slice(1), slice(2, 3), slice(0, 5, 3)), (1, slice(None), slice(4, 0)), np.int64(1), (slice(np.int64(1), None), -2),
]  # fmt: skip
PICKS: list[Any] = [
    [0, 2], [2, 0, 2], np.array([1, -1]), np.array([[0, 1], [2, 0]]), (slice(None), [3, 1]), (Ellipsis, [4, 0]),
    ([0, 1], [2, 3]), (np.array([[0], [1]]), [2, 3]), (slice(1, 3), [0, 2], [1, 1]), ([0, 1], slice(None), [2, 3]),
    (None, [0, 1]), (slice(0, 2), None, [0, 1]),
    np.array([], np.int64), (np.arange(3), np.arange(3), np.arange(3)),
]  # fmt: skip
MASKS: list[Any] = [
    np.arange(3) > 0,
    np.arange(12).reshape(3, 4) % 2 == 0,
    np.arange(60).reshape(SHAPE) % 7 < 3,
    np.zeros(3, bool),
]


def key_for(key: Any) -> Any:
    """NumPy arrays in a key as tensors; lists stay lists."""
    if isinstance(key, tuple):
        return tuple(map(key_for, key))
    return graphc.tensor(key) if isinstance(key, np.ndarray) else key


def pair() -> tuple[np.ndarray, graphc.Tensor]:
    array = np.arange(60).reshape(SHAPE)
    return array, graphc.tensor(array)


@pytest.mark.parametrize("key", VIEWS, ids=str)
def test_basic_keys_read_as_views(key: Any) -> None:
    array, x = pair()
    found = x[key_for(key)]
    np.testing.assert_array_equal(found.numpy(), array[key])
    assert found._s is x._s
    assert found is not x


@pytest.mark.parametrize("key", PICKS + MASKS, ids=lambda k: str(k).replace("\n", ""))
def test_tensor_keys_read_as_copies(key: Any) -> None:
    array, x = pair()
    found = x[key_for(key)]
    np.testing.assert_array_equal(found.numpy(), array[key])
    assert found._s is not x._s


@pytest.mark.parametrize("key", VIEWS + PICKS + MASKS, ids=lambda k: str(k).replace("\n", ""))
def test_writes(key: Any) -> None:
    array, x = pair()
    array[key] = -7
    x[key_for(key)] = -7
    np.testing.assert_array_equal(x.numpy(), array)
    if isinstance(array[key], np.ndarray) and array[key].size:
        array, x = pair()
        shape = array[key].shape
        values = np.arange(array[key].size).reshape(shape) * 10
        array[key] = values
        x[key_for(key)] = graphc.tensor(values)
        np.testing.assert_array_equal(x.numpy(), array)


def test_writes_broadcast_convert_and_take_lists() -> None:
    x = graphc.zeros(2, 3)
    x[0] = graphc.tensor([1, 2, 3])
    x[:, 1] = graphc.tensor(9.0)
    x[1] = [[4, 5, 6]]
    assert x.tolist() == [[1.0, 9.0, 3.0], [4.0, 5.0, 6.0]]
    whole = graphc.zeros(2, dtype=graphc.int64)
    whole[0] = 1.9
    assert whole.tolist() == [1, 0]
    x[x > 4] = x[x > 4] * 10
    assert x.tolist() == [[1.0, 90.0, 3.0], [4.0, 50.0, 60.0]]


def test_the_last_of_several_writes_to_a_place_wins() -> None:
    x = graphc.zeros(3)
    x[graphc.tensor([1, 1, 1])] = graphc.tensor([1.0, 2.0, 3.0])
    assert x.tolist() == [0.0, 3.0, 0.0]


def test_a_0d_mask() -> None:
    x = graphc.tensor(3.0)
    assert x[x > 2].tolist() == [3.0]
    x[x > 2] = 1.0
    assert x.item() == 1.0


def test_nonzero_and_masked_select() -> None:
    x = graphc.tensor([[0, 2], [3, 0]])
    assert x.nonzero().tolist() == [[0, 1], [1, 0]]
    assert [t.tolist() for t in graphc.nonzero(x, as_tuple=True)] == [[0, 1], [1, 0]]
    assert x.masked_select(graphc.tensor([True, False])).tolist() == [0, 3]


@pytest.mark.parametrize(
    ("key", "kind", "message"),
    [
        (3, IndexingError, "index 3 is out of bounds for dimension 0 with size 3"),
        ((0, -5), IndexingError, "index -5 is out of bounds for dimension 0 with size 4"),
        ((0, 0, 0, 0), IndexingError, "too many indices for tensor of dimension 3"),
        (graphc.tensor([0, 7]), IndexingError, "index 7 is out of bounds for dimension 0 with size 3"),
        ((slice(None), [-9]), IndexingError, "index -9 is out of bounds for dimension 1 with size 4"),
        (1.5, IndexingError, "valid indices \\(got float 1.5\\)"),
        ("a", IndexingError, "valid indices \\(got str .a.\\)"),
        (graphc.tensor([1.0]), IndexingError, "must be long, int, byte or bool tensors, got f32"),
        (slice(None, None, -1), ArgumentError, "slice step must be greater than zero, got -1 for .*; use flip"),
        (slice(0.5), IndexingError, "slice indices must be integers or None, got float"),
        ((Ellipsis, Ellipsis), IndexingError, "a single ellipsis"),
        (graphc.tensor([True, False]), IndexingError, "the shape of the mask b1\\[2\\]"),
    ],
)
def test_bad_keys(key: Any, kind: type[Exception], message: str) -> None:
    _, x = pair()
    with pytest.raises(kind, match=message):
        x[key]
    with pytest.raises(kind, match=message):
        x[key] = 1
    assert x.sum().item() == 60 * 59 // 2


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        (0, graphc.ones(4, 6), "setitem: the expanded size 5 must match the existing size 6"),
        ([0, 1], graphc.ones(3, 4, 5), "must match the existing size 3"),
        (graphc.tensor([True, True, False]), graphc.ones(3, 4, 5), "3 values cannot be assigned to the 2 elements"),
    ],
)
def test_bad_values(key: Any, value: graphc.Tensor, message: str) -> None:
    _, x = pair()
    with pytest.raises(ShapeError, match=message):
        x[key] = value


# ---------------------------------------------------------------- keys of every kind, by chance

COUNT = 250


def random_key(rng: np.random.Generator, shape: tuple[int, ...]) -> tuple[Any, ...]:
    """A key for an array of `shape` out of every kind of part; arrays in it broadcast together."""
    parts: list[Any] = []
    common = tuple(rng.integers(1, 4, rng.integers(1, 3)))
    axis, dots = 0, False
    while axis < len(shape) and rng.random() < 0.85:
        size, kind = shape[axis], rng.integers(0, 9)
        if kind == 0:
            parts.append(int(rng.integers(-size, size)))
        elif kind in (1, 2):
            low, high = sorted(rng.integers(-size - 1, size + 2, 2))
            parts.append(slice(int(low), int(high), int(rng.integers(1, 3))))
        elif kind == 3:
            parts.append(None)
            continue
        elif kind == 4 and not dots:
            dots = True
            parts.append(Ellipsis)
            axis += int(rng.integers(0, len(shape) - axis + 1))
            continue
        elif kind == 5:
            parts.append(np.array(int(rng.integers(-size, size))))
        elif kind == 6 and axis + 1 < len(shape) and common == (common[0],):
            mask = np.zeros(shape[axis : axis + 2], bool)
            mask.flat[rng.permutation(mask.size)[: common[0]]] = True
            if mask.sum() != common[0]:
                continue
            parts.append(mask)
            axis += 1
        elif kind == 7:
            own = tuple(n if rng.random() < 0.7 else 1 for n in common)
            parts.append(rng.integers(-size, size, own))
        else:
            parts.append(rng.integers(-size, size, common[-1:]).tolist())
        axis += 1
    return tuple(parts)


def is_mask(part: Any) -> bool:
    return isinstance(part, np.ndarray) and part.dtype.kind == "b"


def resolved(array: np.ndarray, key: tuple[Any, ...]) -> tuple[np.ndarray, tuple[Any, ...]]:
    """What NumPy is asked instead: a view with the ints applied, and a key of slices and arrays for it.

    PyTorch takes ints (and 0-d tensors) first; to NumPy they are arrays among the others.
    """
    used = sum(p.ndim if is_mask(p) else 1 for p in key if p is not None and p is not Ellipsis)
    wide: list[Any] = []
    for part in key:
        wide += [slice(None)] * (array.ndim - used) if part is Ellipsis else [part]
    first: list[Any] = []
    second: list[Any] = []
    for part in wide:
        if isinstance(part, np.ndarray) and not part.ndim:
            part = int(part)
        if isinstance(part, int):
            first.append(part)
        elif part is None or isinstance(part, slice):
            first.append(part)
            second.append(slice(None))
        else:
            first += [slice(None)] * (part.ndim if is_mask(part) else 1)
            second.append(part)
    return array[(*first, Ellipsis)], tuple(second)


def cases() -> list[tuple[np.ndarray, tuple[Any, ...]]]:
    rng = np.random.default_rng(7)
    found = []
    for _ in range(COUNT):
        shape = tuple(rng.integers(2, 5, rng.integers(1, 5)))
        found.append((rng.standard_normal(shape), random_key(rng, shape)))
    return found


def test_random_keys_read_as_numpy_says() -> None:
    several = 0
    for array, key in cases():
        view, rest = resolved(array, key)
        found = graphc.tensor(array)[key_for(key)]
        np.testing.assert_array_equal(found.numpy(), view[rest], err_msg=repr(key))
        several += sum(isinstance(p, (list, np.ndarray)) for p in key) > 1
    assert several > COUNT // 5, "keys with several arrays are what this is about"


def test_random_keys_write_as_numpy_says() -> None:
    rng = np.random.default_rng(8)
    for array, key in cases():
        for spread in (False, True):
            expected = array.copy()
            view, rest = resolved(expected, key)
            shape = view[rest].shape
            values = rng.standard_normal(tuple(1 if spread and rng.random() < 0.5 else n for n in shape))
            x = graphc.tensor(array)
            places = np.zeros(view.shape, int)
            np.add.at(places, rest, 1)
            if places.max(initial=0) > 1:  # NumPy does not say which write wins; here it is the last
                values = np.full_like(values, 3.0)
            view[rest] = values
            x[key_for(key)] = graphc.tensor(values)
            np.testing.assert_array_equal(x.numpy(), expected, err_msg=repr(key))
        filled = graphc.tensor(array)
        filled[key_for(key)] = -1.5
        view[rest] = -1.5
        np.testing.assert_array_equal(filled.numpy(), expected, err_msg=repr(key))


def test_gradients_of_random_keys() -> None:
    rng = np.random.default_rng(9)
    for array, key in cases():
        view, rest = resolved(array, key)
        weights = rng.integers(-4, 5, view[rest].shape).astype(float)
        x = graphc.tensor(array, requires_grad=True)
        (x[key_for(key)] * graphc.tensor(weights)).sum().backward()
        expected = np.zeros_like(array)
        part, again = resolved(expected, key)
        np.add.at(part, again, weights)
        assert x.grad is not None
        np.testing.assert_array_equal(x.grad.numpy(), expected, err_msg=repr(key))


def test_gradients_of_writes() -> None:
    for array, key in cases()[:60]:
        view, rest = resolved(array, key)
        once = np.zeros(view.shape, int)
        np.add.at(once, rest, 1)
        if once.max(initial=0) > 1:
            continue
        x = graphc.tensor(array, requires_grad=True)
        v = graphc.tensor(np.ones(view[rest].shape), requires_grad=True)
        y = x * 1
        y[key_for(key)] = v * 2
        (y * graphc.tensor(np.arange(array.size, dtype=float).reshape(array.shape))).sum().backward()
        weights = np.arange(array.size, dtype=float).reshape(array.shape)
        part, again = resolved(weights, key)
        assert v.grad is not None
        np.testing.assert_array_equal(v.grad.numpy(), 2 * part[again], err_msg=repr(key))
        part[again] = 0
        left = x.grad.numpy() if x.grad is not None else np.zeros_like(weights)  # None: all of it was replaced
        np.testing.assert_array_equal(left, weights, err_msg=repr(key))


# ---------------------------------------------------------------- PyTorch's own rules


def test_ints_and_0d_tensors_count_as_nothing_between_arrays() -> None:
    x = graphc.arange(120).reshape(2, 3, 4, 5)
    i, z = graphc.tensor([0, 1]), graphc.tensor(1)
    for key, shape in (
        ((0, slice(None), i), (3, 2, 5)),
        ((z, slice(None), i), (3, 2, 5)),
        ((slice(None), z, slice(None), i), (2, 4, 2)),
        ((i, slice(None), z), (2, 3, 5)),
        ((i, None, i), (2, 1, 4, 5)),
        ((i, Ellipsis, i), (2, 3, 4)),
        ((slice(None), True, i), (2, 2, 4, 5)),
    ):
        assert x[key].shape == shape, key


def test_bools_add_an_axis() -> None:
    x = graphc.arange(6).reshape(2, 3)
    assert x[True].tolist() == [x.tolist()]
    assert x[False].shape == (0, 2, 3)
    assert x[:, graphc.tensor(True)].shape == (2, 1, 3)
    x[graphc.tensor(False)] = 9
    assert x.max().item() == 5
    x[True] = 7
    assert x.min().item() == 7


def test_indices_of_other_dtypes() -> None:
    x = graphc.arange(4)
    assert x[graphc.tensor([1, 3], dtype=graphc.int32)].tolist() == [1, 3]
    with pytest.warns(UserWarning, match="uint8 is deprecated"):
        assert x[graphc.tensor([1, 0, 0, 1], dtype=graphc.uint8)].tolist() == [0, 3]
    for dtype in (graphc.int8, graphc.int16, graphc.float16):
        with pytest.raises(IndexingError, match="must be long, int, byte or bool tensors"):
            x[graphc.tensor([1], dtype=dtype)]
    assert x[range(2)].tolist() == [0, 1]
    assert x[(1, 2),].tolist() == [1, 2]
    assert x[[True, False, False, True]].tolist() == [0, 3]
    assert x[[]].shape == (0,)


def test_index_put() -> None:
    x = graphc.zeros(2, 3)
    i, j = graphc.tensor([0, 1, 0]), graphc.tensor([2, 0, 2])
    assert x.index_put((i, j), graphc.tensor([1.0, 2.0, 4.0]), accumulate=True).tolist() == [[0, 0, 5], [2, 0, 0]]
    assert x.index_put((i, j), graphc.tensor(3.0)).tolist() == [[0, 0, 3], [3, 0, 0]]
    mask = graphc.tensor([[True, False, True], [False, False, False]])
    assert x.index_put((mask,), graphc.tensor([5.0, 6.0])).tolist() == [[5, 0, 6], [0, 0, 0]]
    assert x.index_put((None, graphc.tensor([1])), graphc.tensor(8.0)).tolist() == [[0, 8, 0], [0, 8, 0]]
    assert x.index_put_((i, j), graphc.ones(3), accumulate=True) is x
    v = graphc.ones(3, requires_grad=True)
    graphc.zeros(2, 3).index_put((i, j), v, accumulate=True)[0, 2].backward()
    assert v.grad.tolist() == [1, 0, 1]
    with pytest.raises(DTypeError, match="index_put: requires the source and destination dtypes match"):
        x.index_put((i, j), graphc.tensor([1, 2, 3]))
    with pytest.raises(IndexingError, match="index 7 is out of bounds for dimension 0 with size 2"):
        x.index_put((graphc.tensor([7]),), graphc.tensor(1.0))


KEYS: list[Any] = [
    lambda i: (i,), lambda i: (slice(None), i), lambda i: (i, slice(None), i), lambda i: (Ellipsis, i),
    lambda i: (0, slice(None), i), lambda i: (i[:, None], i), lambda i: (i, None, slice(1, 3), i),
    lambda i: ([0, 1], i),
]  # fmt: skip


@pytest.mark.parametrize("make", KEYS)
def test_integer_keys_in_a_graph(make: Any) -> None:
    def fn(x: graphc.Tensor, i: graphc.Tensor) -> tuple[graphc.Tensor, ...]:
        y = x * 2
        y[make(i)] = x[make(i)] + 1
        z = y.index_put((i,), y[i], accumulate=True)
        return y, z, z[make(i)].sum()

    assert_same(fn, graphc.arange(48.0).reshape(3, 4, 4), graphc.tensor([0, 2]), threads=(1,))
