"""Memory shared with NumPy and, by DLPack, with anything: both ways, without a copy, checked before it is used."""

from __future__ import annotations

import ctypes
import gc
import weakref
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import graphc
from graphc.errors import ArgumentError, AutogradError, DTypeError, RecordingError, UnsupportedError
from graphc.frontend import dlpack
from graphc.ir.types import DTYPES, DType

EXCHANGED = tuple(t for t in DTYPES if t is not graphc.bfloat16)  # by NumPy's own capsules


# ---------------------------------------------------------------- NumPy


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_numpy_shares_memory_in_every_dtype(dtype: DType) -> None:
    x = graphc.tensor([0, 1, 0, 1], dtype=dtype)
    array = x.numpy()
    assert array.dtype == dtype.np
    array[0] = 1
    assert x.tolist() == [1, 1, 0, 1]
    back = graphc.from_numpy(array[1::2])
    assert back.dtype is dtype
    assert back.stride() == (2,)
    back.zero_()
    assert x.tolist() == [1, 0, 0, 0]
    assert np.asarray(x).dtype == dtype.np
    assert np.array(x, copy=True) is not array


def layouts() -> dict[str, tuple[np.ndarray, str]]:
    """Arrays with what from_numpy says of them ("" for those it takes)."""
    base = np.arange(12.0).reshape(3, 4)
    frozen = base.copy()
    frozen.flags.writeable = False
    raw = np.zeros(33, np.uint8)
    record = np.zeros(3, np.dtype([("a", np.float32), ("b", np.int8)]))
    return {
        "row-major": (base, ""),
        "strided": (base[::2, 1:3], ""),
        "transposed": (base.T, ""),
        "broadcast": (np.broadcast_to(base[:1], (3, 4)), ""),
        "read-only": (frozen, ""),
        "0-d": (np.array(2.5), ""),
        "empty": (base[:0], ""),
        "backwards": (base[::-1], "negative strides"),
        "unaligned": (raw[1:33].view(np.float64), "not aligned"),
        "swapped": (base.astype(base.dtype.newbyteorder()), "byte order"),
        "field": (record["a"], "no multiple of the element size|not aligned"),
        "uint16": (np.ones(2, np.uint16), "dtype uint16 is not supported"),
    }


@pytest.mark.parametrize("name", list(layouts()))
def test_layouts_of_arrays(name: str) -> None:
    array, problem = layouts()[name]
    if problem:
        with pytest.raises(ArgumentError, match=problem):
            graphc.from_numpy(array)
    else:
        shared = graphc.from_numpy(array)
        assert shared.tolist() == array.tolist()
        assert not array.size or np.may_share_memory(shared.numpy(), array)
        assert graphc.as_tensor(array)._a.ctypes.data == array.ctypes.data
    if name == "uint16":
        assert graphc.tensor(array, dtype=graphc.int32).tolist() == array.tolist()
        return
    for copied in (graphc.tensor(array), graphc.as_tensor(array)):
        assert copied.tolist() == array.tolist()
    assert graphc.tensor(array).is_contiguous()
    assert not np.may_share_memory(graphc.tensor(array).numpy(), array)


def test_memory_that_is_read_only_is_not_written() -> None:
    array = np.ones(2)
    array.flags.writeable = False
    x = graphc.from_numpy(array)
    assert (x + 1).tolist() == [2.0, 2.0]
    with pytest.raises(ArgumentError, match=r"add_: the memory of this tensor is read-only; clone\(\) it first"):
        x.add_(1)


def test_asarray_says_when_a_copy_is_needed() -> None:
    array = np.arange(4.0)
    assert graphc.asarray(array, copy=False)._a.ctypes.data == array.ctypes.data
    assert graphc.asarray(array, copy=True)._a.ctypes.data != array.ctypes.data
    for bad in (array[::-1], [1.0, 2.0]):
        with pytest.raises(ArgumentError, match="cannot be used without a copy"):
            graphc.asarray(bad, copy=False)
    with pytest.raises(ArgumentError, match="cannot be used without a copy"):
        graphc.asarray(array, dtype=graphc.float32, copy=False)

    class Foreign:
        def __dlpack__(self, **options: Any) -> Any:
            return array.__dlpack__(**options)

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    assert graphc.asarray(Foreign(), copy=False)._a.ctypes.data == array.ctypes.data
    assert graphc.asarray(Foreign(), dtype=graphc.int8).tolist() == [0, 1, 2, 3]


# ---------------------------------------------------------------- DLPack


@pytest.mark.parametrize("dtype", EXCHANGED, ids=str)
def test_dlpack_with_numpy_shares_memory(dtype: DType) -> None:
    x = graphc.tensor([[0, 1, 1], [1, 1, 0]], dtype=dtype)
    array = np.from_dlpack(x)
    assert array.dtype == dtype.np
    assert array.ctypes.data == x._a.ctypes.data
    assert x._s.exposed
    assert x.__dlpack_device__() == (1, 0)
    back = graphc.from_dlpack(array[:, ::2])
    assert back.dtype is dtype
    assert back.stride() == (3, 2)
    assert back._s.exposed
    back.zero_()
    assert x.tolist() == [[0, 1, 0], [0, 1, 0]]


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("version", [None, (1, 0)])
def test_capsules_of_every_dtype(dtype: DType, version: tuple[int, int] | None) -> None:
    x = graphc.tensor([0, 1, 1], dtype=dtype)
    y = graphc.from_dlpack(x.__dlpack__(max_version=version))
    assert y.dtype is dtype
    y[0] = 1
    assert x.tolist() == [1, 1, 1]
    copied = graphc.from_dlpack(x.__dlpack__(max_version=version), copy=True)
    copied.zero_()
    assert x.tolist() == [1, 1, 1]
    for shape in ((), (0, 3)):
        z = graphc.zeros(shape, dtype=dtype)
        assert graphc.from_dlpack(graphc.to_dlpack(z)).shape == shape


def test_memory_lives_as_long_as_anyone_needs_it() -> None:
    array = np.ones(1000)
    alive = weakref.ref(array)
    x = graphc.from_numpy(array)
    far = np.from_dlpack(x)
    back = graphc.from_dlpack(far[10:])
    del array, x, far
    gc.collect()
    assert alive() is not None
    assert back.sum().item() == 990.0
    del back
    gc.collect()
    assert alive() is None
    graphc.ones(3).__dlpack__()  # a capsule nobody uses gives its memory back


def test_what_cannot_be_handed_out() -> None:
    leaf = graphc.ones(2, requires_grad=True)
    with pytest.raises(AutogradError, match=r"__dlpack__\(\) on a Tensor that requires grad"):
        leaf.__dlpack__()
    with pytest.raises(AutogradError, match="requires grad"):
        np.asarray(leaf)
    assert graphc.from_dlpack(leaf.detach()).tolist() == [1.0, 1.0]
    with pytest.raises(UnsupportedError, match="take no stream"):
        graphc.ones(2).__dlpack__(stream=1)
    with pytest.raises(UnsupportedError, match=r"device \(2, 0\) is not available"):
        graphc.ones(2).__dlpack__(dl_device=(2, 0))
    frozen = np.ones(2)
    frozen.flags.writeable = False
    with pytest.raises(ArgumentError, match=r"cannot be handed out.*clone\(\) it"):
        graphc.from_numpy(frozen).__dlpack__()
    kept = graphc.from_dlpack(graphc.from_numpy(frozen))
    with pytest.raises(ArgumentError, match="read-only"):
        kept.add_(1)


def test_a_recording_refuses_to_hand_memory_out() -> None:
    def fn(x: graphc.Tensor) -> Any:
        return graphc.from_dlpack((x * 2).__dlpack__())

    with pytest.raises(RecordingError, match=r"__dlpack__\(\)"):
        graphc.compile(fn, fullgraph=True)(graphc.ones(2))

    def enters(x: graphc.Tensor) -> Any:
        return x + graphc.from_dlpack(ARRAY)

    with pytest.raises(RecordingError, match="NumPy array"):
        graphc.compile(enters, fullgraph=True)(graphc.ones(2))


ARRAY = np.ones(2, np.float32)

# field of the description -> a value that must not be believed, and what is said
FORGED: list[tuple[str, Any, str]] = [
    ("device_type", 2, "the memory is on device 2:0"),
    ("device_id", 3, "the memory is on device 1:3"),
    ("ndim", -1, "the number of dimensions is -1"),
    ("ndim", 1000, "the number of dimensions is 1000"),
    ("data", None, "there is no memory"),
    ("byte_offset", 2**63, "lead out of the memory"),
    ("byte_offset", 1, "not aligned"),
    ("code", 3, "type 3"),
    ("code", 77, "type 77"),
    ("bits", 7, "of 7 bits is not supported"),
    ("bits", 128, "of 128 bits is not supported"),
    ("lanes", 4, "4 x float"),
    ("shape", -5, r"the shape \[-5, 3\] is not valid"),
    ("shape", 2**62, "is not valid"),
    ("strides", -3, "negative strides"),
    ("strides", 2**60, "lead out of the memory"),
]


@pytest.mark.parametrize(("name", "value", "message"), FORGED, ids=[f"{n}={v}" for n, v, _ in FORGED])
def test_descriptions_from_outside_are_checked(name: str, value: Any, message: str) -> None:
    array = np.ones((2, 3), np.float32)
    capsule = array.__dlpack__()
    found = dlpack._described(capsule)
    if name in ("shape", "strides"):
        pointer = getattr(found, name)
        was, pointer[0] = pointer[0], value
    elif name in ("code", "bits", "lanes"):
        was = getattr(found.dtype, name)
        setattr(found.dtype, name, value)
    else:
        was = getattr(found, name)
        setattr(found, name, value)
    with pytest.raises((ArgumentError, DTypeError, UnsupportedError), match=message):
        graphc.from_dlpack(capsule)
    if name in ("shape", "strides"):
        pointer[0] = was
    else:
        setattr(found.dtype if name in ("code", "bits", "lanes") else found, name, was)
    assert graphc.from_dlpack(capsule).shape == (2, 3), "a refused capsule is still whole"


def test_what_is_no_capsule() -> None:
    capsule = graphc.ones(2).__dlpack__()
    graphc.from_dlpack(capsule)
    with pytest.raises(ArgumentError, match="a capsule can be used once"):
        graphc.from_dlpack(capsule)
    for wrong in (3, [1.0], object()):
        with pytest.raises(ArgumentError, match="expected an unused capsule"):
            graphc.from_dlpack(wrong)

    class Elsewhere:
        def __dlpack__(self, **options: Any) -> Any:
            raise AssertionError("not asked")

        def __dlpack_device__(self) -> tuple[int, int]:
            return 2, 0

    with pytest.raises(UnsupportedError, match=r"device \(2, 0\); copy it to the CPU"):
        graphc.from_dlpack(Elsewhere())


def test_a_version_of_another_number_is_refused() -> None:
    capsule = np.ones(2).__dlpack__(max_version=(1, 0))
    address = dlpack._address(capsule, b"dltensor_versioned")
    assert address
    head = ctypes.c_uint32.from_address(address)
    head.value = 2
    with pytest.raises(ArgumentError, match=r"version 2\.0 of DLPack"):
        graphc.from_dlpack(capsule)
    head.value = 1
    assert graphc.from_dlpack(capsule).tolist() == [1.0, 1.0]


def test_a_library_from_before_versions() -> None:
    class Old:
        def __init__(self, array: np.ndarray) -> None:
            self.array = array

        def __dlpack__(self) -> Any:
            return self.array.__dlpack__()

        def __dlpack_device__(self) -> tuple[int, int]:
            return 1, 0

    array = np.ones(3)
    x = graphc.from_dlpack(Old(array))
    x.add_(1)
    assert array.tolist() == [2.0, 2.0, 2.0]


def test_bfloat16_is_an_ml_dtypes_array() -> None:
    array = np.array([1.5, 2.0], ml_dtypes.bfloat16)
    x = graphc.from_numpy(array)
    assert x.dtype is graphc.bfloat16
    x.mul_(2)
    assert array.tolist() == [3.0, 4.0]
    assert graphc.tensor(array, dtype=graphc.float32).tolist() == [3.0, 4.0]
