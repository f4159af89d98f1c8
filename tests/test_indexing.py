"""x[...]: NumPy is the oracle for reads and writes (PyTorch and NumPy agree on the keys used here)."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, IndexingError, ShapeError

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
        (1.5, IndexingError, "valid indices \\(got float\\)"),
        ("a", IndexingError, "valid indices \\(got str\\)"),
        (graphc.tensor([1.0]), IndexingError, "must be long, int, byte or bool tensors, got f32"),
        (slice(None, None, -1), ArgumentError, "slice step must be greater than zero, got -1; use flip"),
        (slice(0.5), IndexingError, "slice indices must be integers or None, got float"),
        ((Ellipsis, Ellipsis), IndexingError, "a single ellipsis"),
        (graphc.tensor([True, False]), IndexingError, "the shape of the mask \\[2\\]"),
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
