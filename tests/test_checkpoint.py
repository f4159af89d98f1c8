"""graphc.save and graphc.load of values."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy

import graphc
from graphc import nn, optim
from graphc.errors import ArgumentError, ArtifactError


def through(value: Any) -> Any:
    """Saved to memory and loaded."""
    file = io.BytesIO()
    graphc.save(value, file)
    file.seek(0)
    return graphc.load(file)


def test_training_goes_on_from_a_file(tmp_path: Path) -> None:
    graphc.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    optimizer = optim.Adam(model.parameters(), lr=0.1)
    x = graphc.randn(6, 3)

    def step(m: nn.Module, o: optim.Optimizer) -> None:
        o.zero_grad()
        (m(x) ** 2).mean().backward()
        o.step()

    step(model, optimizer)
    path = tmp_path / "state.safetensors"
    graphc.save({"model": model.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 3}, path)
    other = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    resumed = optim.Adam(other.parameters())
    found = graphc.load(path, map_location="cpu")
    other.load_state_dict(found["model"])
    resumed.load_state_dict(found["optimizer"])
    assert found["epoch"] == 3 and resumed.param_groups[0]["betas"] == (0.9, 0.999)
    step(model, optimizer)
    step(other, resumed)
    for a, b in zip(model.state_dict().values(), other.state_dict().values(), strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_kinds_of_values() -> None:
    value = {
        "a": [1, True, None, "x", 0.1, float("inf")],
        2: (graphc.arange(3), graphc.tensor(True)),
        "": {"deep": [[]]},
        "__metadata__": graphc.zeros(0, 2, dtype=graphc.float64),
        "bad\nname": graphc.ones(2, 3).t(),
    }
    found = through(value)
    assert list(found) == list(value) and found["a"] == value["a"] and type(found["a"][1]) is bool
    assert isinstance(found[2], tuple) and found[2][0].tolist() == [0, 1, 2] and found[2][1].dtype is graphc.bool
    assert found["__metadata__"].shape == (0, 2) and found["bad\nname"].tolist() == [[1.0, 1.0]] * 3
    assert found[""] == {"deep": [[]]} and np.isnan(through(float("nan"))) and through(graphc.tensor(2.0)).item() == 2.0


def test_tensors_keep_what_they_are() -> None:
    p = nn.Parameter(graphc.ones(2))
    found = through({"p": p, "again": p, "leaf": graphc.ones(1, requires_grad=True), "half": graphc.arange(6)[::2]})
    assert isinstance(found["p"], nn.Parameter) and found["p"] is found["again"] and found["p"].requires_grad
    assert found["leaf"].requires_grad and found["half"].tolist() == [0, 2, 4]
    found["half"].add_(1)


def test_files_of_other_tools(tmp_path: Path) -> None:
    path = tmp_path / "plain.safetensors"
    safetensors.numpy.save_file({"w": np.arange(3.0)}, path)
    assert graphc.load(path)["w"].tolist() == [0, 1, 2]
    graphc.save({"layer": {"w": graphc.ones(2)}}, path)
    assert list(safetensors.numpy.load_file(path)) == ["layer.w"]


def test_programs_still_load(tmp_path: Path) -> None:
    path = tmp_path / "program.gcz"
    graphc.trace(lambda x: x * 2, graphc.ones(2)).save(path)
    assert graphc.load(path)(graphc.ones(2)).tolist() == [2.0, 2.0]


@pytest.mark.parametrize("value", [object(), {1.5: 1}, [nn.Linear(1, 1)], {"a": np.ones(2)}])
def test_values_that_cannot_be_saved(value: Any, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError):
        graphc.save(value, tmp_path / "x")
    assert not list(tmp_path.iterdir())


def test_broken_files(tmp_path: Path) -> None:
    path = tmp_path / "x"
    graphc.save({"a": graphc.ones(3), "n": [1, (2.5, "s")]}, path)
    whole = path.read_bytes()
    for k in range(0, len(whole), 3):
        for data in (whole[:k], whole[:k] + bytes([whole[k] ^ 0x15]) + whole[k + 1 :]):
            path.write_bytes(data)
            try:
                graphc.load(path)  # a changed number or letter may still be a valid file
            except ArtifactError as error:
                assert str(path) in str(error)
    for structure in (
        '["tensor","b",false,false]',
        '["dict",[[[],1]]]',
        "[]",
        '["value",1.5]',
        "[" * 3000,
        '["float",1]',
    ):
        path.write_bytes(safetensors.numpy.save({"a": np.ones(1)}, {"graphc.structure": structure}))
        with pytest.raises(ArtifactError):
            graphc.load(path)
    with pytest.raises(ArtifactError):
        graphc.load(tmp_path / "missing")
    with pytest.raises(ArtifactError):
        graphc.save(1, tmp_path / "no" / "folder")
