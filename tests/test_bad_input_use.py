"""Wrong use of layers, optimisers, loaders, state dicts, files, `compile`, `trace`: typed errors at the user's line."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import graphc
import graphc.nn as nn
import graphc.nn.functional as F
import graphc.optim as optim
from graphc.errors import (
    ArgumentError,
    ArtifactError,
    AutogradError,
    DTypeError,
    GraphcError,
    GraphError,
    GuardError,
    IndexingError,
    MissingFileError,
    RecordingError,
    ShapeError,
    StateError,
    UnsupportedError,
)
from graphc.ir.graph import Graph
from graphc.ir.op import op_named
from graphc.ir.types import TensorType, float32
from graphc.utils.data import DataLoader, TensorDataset
from tests.test_artifact import edit_manifest, replace_text, rewrite

HERE = Path(__file__).name
NAN = float("nan")


def ones(*shape: int) -> Any:
    return graphc.ones(*shape)


def leaf(*shape: int) -> Any:
    return graphc.ones(*shape).requires_grad_()


def ints(*values: int) -> Any:
    return graphc.tensor(list(values))


def linear() -> nn.Linear:
    return nn.Linear(3, 4)


def loaded(**changes: Any) -> None:
    state = {**linear().state_dict(), **changes}
    linear().load_state_dict({k: v for k, v in state.items() if v is not None})


def samples(count: int = 5) -> TensorDataset:
    return TensorDataset(graphc.arange(count))


def generator(x: Any) -> Iterator[Any]:
    yield x * 2


def program() -> Any:
    return graphc.trace(lambda x, y: x @ y, ones(2, 3), ones(3, 2))


def two_graphs() -> Any:
    a, b = (Graph(name).add_input(TensorType(float32, (2,)), "x") for name in ("first", "second"))
    return op_named("add")(a, b)


def graph_and_tensor() -> Any:
    return op_named("add")(Graph("first").add_input(TensorType(float32, (2,)), "x"), ones(2))


class Lost(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(2, 2)
        self.second = nn.Linear(2, 2)
        self.second.weight = self.first.weight


USES: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    # layers
    (
        "Linear of a string",
        lambda: nn.Linear("3", 4),
        ArgumentError,
        ("Linear: in_features", "str '3'", "must be an int"),
    ),
    (
        "Linear of a negative size",
        lambda: nn.Linear(3, -4),
        ArgumentError,
        ("Linear: out_features", "-4", "at least 0"),
    ),
    (
        "Linear of a float",
        lambda: nn.Linear(2.5, 4),
        ArgumentError,
        ("Linear: in_features", "float 2.5", "must be an int"),
    ),
    ("Linear of None", lambda: linear()(None), ArgumentError, ("linear: expected a Tensor", "NoneType")),
    ("Linear of an array", lambda: linear()(np.ones((2, 3))), ArgumentError, ("linear: expected a Tensor", "ndarray")),
    (
        "Linear of integers",
        lambda: linear()(ones(2, 3).long()),
        DTypeError,
        ("linear:", "i64[2, 3]", "f32[4, 3]", "convert one"),
    ),
    (
        "Linear of float64",
        lambda: linear()(ones(2, 3).double()),
        DTypeError,
        ("linear:", "f64[2, 3]", "f32[4, 3]", "convert one"),
    ),
    (
        "Conv2d groups",
        lambda: nn.Conv2d(3, 4, 3, groups=2),
        ArgumentError,
        ("Conv2d: in_channels 3", "groups 2", "divisible"),
    ),
    ("Conv2d kernel", lambda: nn.Conv2d(3, 4, "3"), ArgumentError, ("Conv2d: kernel_size", "'3'", "must be an int")),
    (
        "Conv2d padding",
        lambda: nn.Conv2d(3, 4, 3, padding="full"),
        ArgumentError,
        ("Conv2d: padding", "'full'", "'same'"),
    ),
    (
        "Conv2d padding mode",
        lambda: nn.Conv2d(3, 4, 3, padding_mode="x"),
        ArgumentError,
        ("Conv2d: padding_mode", "zeros, reflect", "'x'"),
    ),
    (
        "Conv2d channels",
        lambda: nn.Conv2d(3, 4, 3)(ones(1, 5, 8, 8)),
        ShapeError,
        ("conv2d: input", "f32[1, 5, 8, 8]", "f32[4, 3, 3, 3]"),
    ),
    (
        "Dropout of more than 1",
        lambda: nn.Dropout(1.5),
        ArgumentError,
        ("Dropout: dropout probability", "p=1.5", "0.5"),
    ),
    ("Dropout of a string", lambda: nn.Dropout("a"), ArgumentError, ("Dropout: dropout probability", "p='a'", "0.5")),
    ("Embedding of floats", lambda: nn.Embedding(3, 4)(ones(2)), DTypeError, ("embedding:", "f32[2]", ".long()")),
    (
        "BatchNorm1d channels",
        lambda: nn.BatchNorm1d(5)(ones(2, 3)),
        ShapeError,
        ("BatchNorm1d: input", "f32[2, 3]", "5 channels"),
    ),
    (
        "BatchNorm1d of one sample",
        lambda: nn.BatchNorm1d(3)(ones(1, 3)),
        ShapeError,
        ("batch_norm:", "f32[1, 3]", "eval()"),
    ),
    (
        "LSTM of another size",
        lambda: nn.LSTM(3, 4)(ones(2, 2, 5)),
        ShapeError,
        ("LSTM: expected [T, N, 3]", "f32[2, 2, 5]"),
    ),
    (
        "attention heads",
        lambda: nn.MultiheadAttention(10, 3),
        ArgumentError,
        ("MultiheadAttention: embed_dim", "10 and 3", "divisible"),
    ),
    ("Sequential of a number", lambda: nn.Sequential(3), ArgumentError, ("Sequential: int is not a Module",)),
    (
        "a parameter that is a number",
        lambda: setattr(linear(), "weight", 3),
        ArgumentError,
        ("'int'", "'weight'", "Parameter or None"),
    ),
    (
        "a parameter of integers",
        lambda: nn.Parameter(ints(1, 2)),
        AutogradError,
        ("requires_grad_:", "i64[2]", ".float()"),
    ),
    (
        "two things of one name",
        lambda: linear().register_buffer("weight", ones(1)),
        StateError,
        ("'weight'", "already exists"),
    ),
    ("a name with a dot", lambda: linear().register_buffer("a.b", ones(1)), StateError, ("'a.b'", "without dots")),
    ("Module.to(integers)", lambda: linear().to(graphc.int64), ArgumentError, ("Module.to", "int64", "floating point")),
    # state dicts
    ("missing key", lambda: loaded(weight=None), StateError, ("Linear", "Missing key", "'weight'")),
    ("unexpected key", lambda: loaded(extra=ones(1)), StateError, ("Linear", "Unexpected key", "'extra'")),
    ("wrong shape", lambda: loaded(weight=ones(1)), StateError, ("size mismatch for weight", "[1]", "[4, 3]")),
    ("no tensor", lambda: loaded(weight=3), StateError, ("'weight'", "expected a Tensor", "int")),
    (
        "no state dict",
        lambda: linear().load_state_dict([1]),
        ArgumentError,
        ("load_state_dict: expected a dict", "list"),
    ),
    # optimisers
    ("no parameters", lambda: optim.SGD([], lr=0.1), ArgumentError, ("SGD:", "empty parameter list", "make a list")),
    (
        "rate NaN",
        lambda: optim.Adam([leaf(2)], lr=NAN),
        ArgumentError,
        ("Adam: invalid learning rate", "nan", "at least 0"),
    ),
    (
        "rate negative",
        lambda: optim.SGD([leaf(2)], lr=-1),
        ArgumentError,
        ("SGD: invalid learning rate", "-1", "at least 0"),
    ),
    (
        "rate a string",
        lambda: optim.SGD([leaf(2)], lr="a"),
        ArgumentError,
        ("SGD: learning rate", "must be a number", "str 'a'"),
    ),
    (
        "rate None",
        lambda: optim.Adam([leaf(2)], lr=None),
        ArgumentError,
        ("Adam: learning rate", "must be a number", "NoneType"),
    ),
    ("one beta", lambda: optim.Adam([leaf(2)], betas=0.9), ArgumentError, ("Adam: betas", "two numbers", "0.9")),
    (
        "a beta beyond 1",
        lambda: optim.Adam([leaf(2)], betas=(1.5, 0.9)),
        ArgumentError,
        ("Adam: invalid beta", "1.5", "below 1"),
    ),
    (
        "a Module for parameters",
        lambda: optim.SGD(linear(), lr=0.1),
        ArgumentError,
        ("SGD: params", "Linear", "model.parameters()"),
    ),
    (
        "a tensor for parameters",
        lambda: optim.SGD(leaf(2), lr=0.1),
        ArgumentError,
        ("SGD: params", "a Tensor", "use a list"),
    ),
    (
        "numbers for parameters",
        lambda: optim.SGD([1], lr=0.1),
        ArgumentError,
        ("SGD: can only optimize Tensors", "int"),
    ),
    (
        "no leaf",
        lambda: optim.SGD([leaf(2) * 2], lr=0.1),
        ArgumentError,
        ("SGD:", "non-leaf Tensor f32[2]", "detach()"),
    ),
    (
        "a group without params",
        lambda: optim.SGD([{"lr": 1.0}]),
        ArgumentError,
        ("SGD: a parameter group", "'params'", "['lr']"),
    ),
    (
        "a parameter twice",
        lambda: optim.SGD([leaf(2)] * 2, lr=0.1),
        ArgumentError,
        ("SGD: some parameters appear", "twice"),
    ),
    (
        "no optimiser state",
        lambda: optim.SGD([leaf(2)], lr=0.1).load_state_dict({}),
        StateError,
        ("SGD: load_state_dict", "'state'", "state_dict()"),
    ),
    (
        "a closure that is a number",
        lambda: optim.SGD([leaf(2)], lr=0.1).step(3),
        ArgumentError,
        ("SGD: step: closure", "int"),
    ),
    (
        "a schedule of a number",
        lambda: optim.lr_scheduler.StepLR(3, 1),
        ArgumentError,
        ("StepLR: int is not an Optimizer",),
    ),
    (
        "a step of 0",
        lambda: optim.lr_scheduler.StepLR(optim.SGD([leaf(1)]), 0),
        ArgumentError,
        ("StepLR: step_size", "at least 1", "0"),
    ),
    (
        "a lambda that is a number",
        lambda: optim.lr_scheduler.LambdaLR(optim.SGD([leaf(1)]), 3),
        ArgumentError,
        ("LambdaLR: lr_lambda", "int"),
    ),
    (
        "a norm that is a string",
        lambda: nn.utils.clip_grad_norm_([leaf(2)], "a"),
        ArgumentError,
        ("clip_grad_norm_: max_norm", "str 'a'"),
    ),
    # data
    (
        "batches of 0",
        lambda: DataLoader(samples(), batch_size=0),
        ArgumentError,
        ("DataLoader: batch_size", "positive", "=0"),
    ),
    (
        "batches of a half",
        lambda: DataLoader(samples(), batch_size=2.5),
        ArgumentError,
        ("DataLoader: batch_size", "positive", "=2.5"),
    ),
    (
        "no data set",
        lambda: DataLoader(3),
        ArgumentError,
        ("DataLoader: dataset is a int", "__getitem__", "give a sequence"),
    ),
    (
        "shuffle and sampler",
        lambda: DataLoader(samples(), shuffle=True, sampler=[1]),
        ArgumentError,
        ("DataLoader: sampler", "shuffle"),
    ),
    (
        "negative workers",
        lambda: DataLoader(samples(), num_workers=-1),
        ArgumentError,
        ("DataLoader: num_workers", "non-negative"),
    ),
    (
        "samples of other sizes",
        lambda: list(DataLoader([ones(2), ones(3)], batch_size=2)),
        ShapeError,
        ("default_collate:", "[2] and [3]", "collate_fn"),
    ),
    (
        "a sample that is not there",
        lambda: list(DataLoader(samples(), sampler=[9])),
        IndexingError,
        ("TensorDataset: index 9", "5 samples"),
    ),
    (
        "tensors of other lengths",
        lambda: TensorDataset(ones(2), ones(3)),
        ShapeError,
        ("TensorDataset: argument 1", "f32[3]", "f32[2]", "must be equal"),
    ),
    (
        "parts that do not add up",
        lambda: graphc.utils.data.random_split(samples(), [3, 3]),
        ArgumentError,
        ("random_split:", "6", "5 samples"),
    ),
    # arrays and numbers
    (
        "an array that is not aligned",
        lambda: graphc.from_numpy(np.zeros(13, np.uint8)[1:].view(np.float32)),
        ArgumentError,
        ("from_numpy:", "not aligned", "copy"),
    ),
    (
        "a foreign byte order",
        lambda: graphc.from_numpy(np.ones(3, ">f4")),
        ArgumentError,
        ("from_numpy: the byte order", "astype"),
    ),
    (
        "negative strides",
        lambda: graphc.from_numpy(np.ones(3)[::-1]),
        ArgumentError,
        ("from_numpy: negative strides", "copy"),
    ),
    (
        "an array of objects",
        lambda: graphc.tensor(np.array([object()])),
        ArgumentError,
        ("dtype object", "astype", "float32"),
    ),
    ("an array of strings", lambda: graphc.tensor(np.array(["a"])), ArgumentError, ("dtype <U1", "astype", "float32")),
    (
        "a masked array",
        lambda: graphc.tensor(np.ma.array([1.0, 2.0], mask=[0, 1])),
        ArgumentError,
        ("tensor: a masked array", ".filled("),
    ),
    (
        "a masked array, shared",
        lambda: graphc.from_numpy(np.ma.array([1.0], mask=[1])),
        ArgumentError,
        ("from_numpy: a masked array", ".filled("),
    ),
    (
        "a masked array, either way",
        lambda: graphc.as_tensor(np.ma.array([1.0], mask=[1])),
        ArgumentError,
        ("tensor: a masked array", ".filled("),
    ),
    ("an array with gradients", lambda: leaf(3).numpy(), AutogradError, ("numpy()", "requires grad", "detach()")),
    (
        "a gradient of another shape",
        lambda: setattr(leaf(3), "grad", ones(4)),
        ShapeError,
        ("grad:", "f32[4]", "f32[3]"),
    ),
    (
        "a deviation below 0",
        lambda: graphc.normal(0.0, -1.0, (2,)),
        ArgumentError,
        ("normal: expects std >= 0", "-1.0"),
    ),
    ("an empty range of numbers", lambda: graphc.randint(5, 2, (3,)), ArgumentError, ("randint:", "from=5", "to=2")),
    ("no threads", lambda: graphc.set_num_threads(0), ArgumentError, ("set_num_threads:", "1 to 256", "0")),
    (
        "integers as the default",
        lambda: graphc.set_default_dtype(graphc.int64),
        DTypeError,
        ("set_default_dtype:", "floating-point", "int64"),
    ),
    # graphs
    (
        "values of two graphs",
        two_graphs,
        GraphError,
        ("add: operand 1", "f32[2]", "'second'", "'first'", "in one graph"),
    ),
    ("a graph and a tensor", graph_and_tensor, ArgumentError, ("add: operand 1", "Tensor", "'first'", "add_input()")),
    # compile and trace
    (
        "compile of a number",
        lambda: graphc.compile(3),
        ArgumentError,
        ("compile: expected a function or Module", "int"),
    ),
    (
        "compile of a generator",
        lambda: graphc.compile(generator),
        ArgumentError,
        ("compile: generator is a generator", "one step of it"),
    ),
    (
        "an unknown mode",
        lambda: graphc.compile(linear(), mode="fast"),
        ArgumentError,
        ("compile:", "mode='fast'", "'reduce-overhead'"),
    ),
    (
        "an unknown backend",
        lambda: graphc.compile(linear(), backend="xla"),
        ArgumentError,
        ("compile: unknown backend", "'xla'", "'graphc'"),
    ),
    (
        "dynamic that is a string",
        lambda: graphc.compile(linear(), dynamic="yes"),
        ArgumentError,
        ("compile: dynamic", "bool or None", "'yes'"),
    ),
    (
        "trace of a number",
        lambda: graphc.trace(3, ones(2)),
        ArgumentError,
        ("trace: expected a function or Module", "int"),
    ),
    (
        "dynamic that is a number",
        lambda: graphc.trace(F.relu, ones(2), dynamic=3),
        ArgumentError,
        ("trace: dynamic must be a dict", "int"),
    ),
    (
        "dynamic of an unknown name",
        lambda: graphc.trace(lambda x: x * 2, ones(2), dynamic={"y": {0: "n"}}),
        ArgumentError,
        ("trace: dynamic", "'y'", "are x"),
    ),
    (
        "a program of another shape",
        lambda: program()(ones(3, 2), ones(3, 2)),
        ArgumentError,
        ("x is f32[3, 2]", "expected f32[2, 3]"),
    ),
    (
        "a program of another dtype",
        lambda: program()(ones(2, 3).double(), ones(3, 2)),
        ArgumentError,
        ("x is f64[2, 3]", "expected f32[2, 3]"),
    ),
    (
        "a program of fewer arguments",
        lambda: program()(ones(2, 3)),
        ArgumentError,
        ("expected x (tensor), y (tensor)", "(Tensor)", "as in the trace"),
    ),
    (
        "a program of more arguments",
        lambda: program()(ones(2, 3), ones(3, 2), 1),
        ArgumentError,
        ("expected x (tensor), y (tensor)", "int", "as in the trace"),
    ),
    ("a program of strings", lambda: program()("a", "b"), ArgumentError, ("program: x", "str", "NumPy array")),
    # files
    (
        "a file that is not there",
        lambda: graphc.load("/none/model.pt"),
        MissingFileError,
        ("/none/model.pt", "No such file"),
    ),
    ("a number for a file", lambda: graphc.load(3), ArgumentError, ("load: expected a path", "int 3")),
    (
        "an object in a file",
        lambda: graphc.save({"a": object()}, "/none"),
        ArgumentError,
        ("save: a is a object", "state_dict()"),
    ),
    # what is not there
    ("ones on a GPU", lambda: graphc.ones(2, device="cuda"), UnsupportedError, ("ones: device", "'cuda'", "'cpu'")),
    ("a layer on a GPU", lambda: linear().to("cuda"), UnsupportedError, ("Module.to: device", "'cuda'", "'cpu'")),
]


# further calls a new user gets wrong
MORE: list[tuple[str, Callable[[], Any], type[Exception], tuple[str, ...]]] = [
    ("cat of a list", lambda: graphc.cat([ones(2), [1, 2]]), ArgumentError, ("cat: expected a Tensor", "list")),
    (
        "where without a mask",
        lambda: graphc.where(ones(2), 1, 2),
        DTypeError,
        ("where: expected condition", "f32[2]", "compare it"),
    ),
    ("where of one value", lambda: graphc.where(ones(2) > 0, 1), ArgumentError, ("where:", "both input and other")),
    ("clamp to a string", lambda: ones(2).clamp("a"), ArgumentError, ("clamp: expected a Tensor or a number", "str")),
    ("view of a float", lambda: ones(2).view(2.0), ArgumentError, ("view: sizes must be ints", "float 2.0")),
    ("permute of too few", lambda: ones(2, 3).permute(0), ShapeError, ("permute:", "f32[2, 3]", "[0]")),
    ("t of three axes", lambda: ones(2, 3, 4).t(), ShapeError, ("t: expects", "f32[2, 3, 4]", "use mT")),
    ("unsqueeze without a place", lambda: ones(2).unsqueeze(None), ArgumentError, ("unsqueeze: dim", "NoneType")),
    ("roll by a string", lambda: ones(2).roll("a"), ArgumentError, ("roll: shifts", "str 'a'")),
    ("topk of a float", lambda: ones(2).topk(1.5), ArgumentError, ("topk: k", "float 1.5")),
    ("kthvalue of None", lambda: ones(2).kthvalue(None), ArgumentError, ("kthvalue: k", "NoneType")),
    (
        "a correction that is a string",
        lambda: ones(2).std(correction="a"),
        ArgumentError,
        ("std: correction", "str 'a'"),
    ),
    (
        "a probability that is a string",
        lambda: F.dropout(ones(2), p="x"),
        ArgumentError,
        ("dropout: dropout probability", "p='x'", "0.5"),
    ),
    (
        "a probability beyond 1",
        lambda: F.alpha_dropout(ones(2), p=2),
        ArgumentError,
        ("alpha_dropout: dropout probability", "p=2", "0.5"),
    ),
    (
        "an unknown padding mode",
        lambda: F.pad(ones(1, 2, 2), (1, 1), mode="x"),
        ArgumentError,
        ("pad: unrecognised padding mode", "'x'", "reflect"),
    ),
    ("a filter that is a string", lambda: F.conv2d(ones(1, 1, 3, 3), "w"), ArgumentError, ("conv2d: weight", "str")),
    ("a filter that is None", lambda: F.conv2d(ones(1, 1, 3, 3), None), ArgumentError, ("conv2d: weight", "NoneType")),
    (
        "a window larger than the image",
        lambda: F.max_pool2d(ones(1, 1, 3, 3), 5),
        ShapeError,
        ("max_pool2d: kernel", "f32[1, 1, 3, 3]"),
    ),
    (
        "layer_norm over a number",
        lambda: F.layer_norm(ones(2, 3), 3),
        ArgumentError,
        ("layer_norm: normalized_shape", "tuple"),
    ),
    ("groups that do not divide", lambda: nn.GroupNorm(2, 3), ArgumentError, ("GroupNorm: num_channels", "3 and 2")),
    (
        "Embedding of a negative size",
        lambda: nn.Embedding(-3, 4),
        ArgumentError,
        ("Embedding: num_embeddings", "int -3"),
    ),
    ("LSTM of a string", lambda: nn.LSTM("a", 4), ArgumentError, ("LSTM: input_size", "str 'a'")),
    ("BatchNorm of a string", lambda: nn.BatchNorm2d("a"), ArgumentError, ("BatchNorm2d: num_features", "str 'a'")),
    ("LayerNorm of a string", lambda: nn.LayerNorm("a"), ArgumentError, ("LayerNorm: normalized_shape", "'a'")),
    (
        "a hidden state of another size",
        lambda: nn.GRU(3, 4)(ones(2, 2, 3), ones(1, 2, 5)),
        ShapeError,
        ("GRU: expected a hidden state", "f32[1, 2, 5]"),
    ),
    (
        "a module that is not there",
        lambda: nn.Sequential(linear())[3],
        IndexingError,
        ("Sequential: index 3", "1 modules", "use -1 to 0"),
    ),
    (
        "a module by name in a list",
        lambda: nn.ModuleList([linear()])["a"],
        ArgumentError,
        ("ModuleList: index", "str 'a'"),
    ),
    ("apply of a number", lambda: linear().apply(3), ArgumentError, ("Linear.apply: fn", "int 3")),
    (
        "a hook that is a number",
        lambda: linear().register_forward_hook(3),
        ArgumentError,
        ("a hook must be a function", "int 3"),
    ),
    (
        "a hook of a tensor that is a number",
        lambda: leaf(2).register_hook(3),
        ArgumentError,
        ("register_hook: hook", "int 3"),
    ),
    (
        "targets that are None",
        lambda: F.mse_loss(ones(2), None),
        ArgumentError,
        ("mse_loss: expected a Tensor", "NoneType"),
    ),
    (
        "class weights of another size",
        lambda: F.cross_entropy(ones(2, 3), ints(0, 1), weight=ones(5)),
        ShapeError,
        ("cross_entropy: the weight", "f32[5]", "f32[3]"),
    ),
    (
        "a delta below 0",
        lambda: F.huber_loss(ones(2), ones(2), delta=-1.0),
        ArgumentError,
        ("huber_loss: delta", "-1.0"),
    ),
    (
        "grad of a number",
        lambda: graphc.autograd.grad(3, [leaf(2)]),
        ArgumentError,
        ("grad: outputs must be Tensors", "int"),
    ),
    (
        "grad for a number",
        lambda: graphc.autograd.grad(leaf(2).sum(), [3]),
        ArgumentError,
        ("grad: inputs must be Tensors", "int"),
    ),
    ("backward from a string", lambda: leaf(2).sum().backward("a"), ArgumentError, ("backward: the gradient", "str")),
    (
        "gradcheck of a number",
        lambda: graphc.autograd.gradcheck(3, (leaf(2),)),
        ArgumentError,
        ("gradcheck: func", "int 3"),
    ),
    ("no_grad of a number", lambda: graphc.no_grad()(3), ArgumentError, ("no_grad: what it decorates", "int 3")),
    ("scan of a number", lambda: graphc.scan(3, ones(2), ones(2)), ArgumentError, ("scan: combine_fn", "int 3")),
    ("einsum of a number", lambda: graphc.einsum(3, ones(2, 2)), ArgumentError, ("einsum: equation", "int")),
    ("eye of a string", lambda: graphc.eye("a"), ArgumentError, ("eye: n", "str 'a'")),
    ("randint to a string", lambda: graphc.randint("a", (2,)), ArgumentError, ("randint: high", "str 'a'")),
    (
        "probabilities beyond 1",
        lambda: graphc.bernoulli(ones(2) * 3),
        ArgumentError,
        ("bernoulli: the probabilities", "f32[2]", "3.0"),
    ),
    ("a dict as data", lambda: graphc.tensor({"a": 1}), ArgumentError, ("tensor:", "dict", "nested lists")),
    ("a string to fill with", lambda: graphc.full((2,), "a"), ArgumentError, ("full: fill_value", "str")),
    (
        "allclose of other shapes",
        lambda: graphc.allclose(ones(2), ones(3)),
        ShapeError,
        ("operand 1", "f32[2], f32[3]", "make the sizes equal"),
    ),
    ("save to a number", lambda: graphc.save(ones(2), 3), ArgumentError, ("save: expected a path", "int 3")),
    ("a program saved to a number", lambda: program().save(3), ArgumentError, ("save: expected a path", "int 3")),
    (
        "a cosine of no epochs",
        lambda: optim.lr_scheduler.CosineAnnealingLR(optim.SGD([leaf(2)]), 0),
        ArgumentError,
        ("CosineAnnealingLR: T_max", "0"),
    ),
    (
        "one milestone",
        lambda: optim.lr_scheduler.MultiStepLR(optim.SGD([leaf(2)]), 3),
        ArgumentError,
        ("MultiStepLR: milestones", "3"),
    ),
    ("betas of one", lambda: optim.AdamW([leaf(2)], betas=(0.9,)), ArgumentError, ("AdamW: betas", "two numbers")),
    ("a step without a closure", lambda: optim.LBFGS([leaf(2)]).step(), ArgumentError, ("LBFGS: step()", "closure")),
]
USES += MORE


@pytest.mark.parametrize(("use", "error", "says"), [u[1:] for u in USES], ids=[u[0] for u in USES])
def test_uses(use: Callable[[], Any], error: type[Exception], says: tuple[str, ...]) -> None:
    with pytest.raises(GraphcError) as caught:
        use()
    assert type(caught.value) is error
    assert [s for s in says if s not in str(caught.value)] == []
    place = caught.value.place
    assert place.startswith(f"{HERE}:") and str(caught.value).endswith(f" (at {place})")


ABSENT = [
    ("out= of a pointwise operation", lambda x: graphc.add(x, x, out=x), TypeError, "out"),
    ("out= of a product", lambda x: graphc.matmul(x, x, out=x), TypeError, "out"),
    ("ONNX", lambda x: graphc.onnx.export(x), AttributeError, "onnx"),
    ("properties of a GPU", lambda x: graphc.cuda.get_device_properties(0), AttributeError, "get_device_properties"),
    ("memory of a GPU", lambda x: graphc.cuda.memory_allocated(), AttributeError, "memory_allocated"),
]


@pytest.mark.parametrize(("use", "error", "name"), [u[1:] for u in ABSENT], ids=[u[0] for u in ABSENT])
def test_what_is_absent_says_so(use: Callable[[Any], Any], error: type[Exception], name: str) -> None:
    assert not graphc.cuda.is_available()
    for function in (use, graphc.compile(use)):
        with pytest.raises(error, match=name):
            function(ones(2, 2))


def test_wrong_arguments_of_a_compiled_function_are_those_of_the_function() -> None:
    def scaled(x: Any, factor: Any = 1) -> Any:
        return x * factor

    compiled: Any = graphc.compile(scaled)
    calls: list[Callable[[Any], Any]] = [
        lambda f: f(), lambda f: f(ones(2), 1, 2), lambda f: f(ones(2), other=1), lambda f: f(ones(2), x=ones(2)),
        lambda f: f(ones(2), None), lambda f: f(ones(2), "a"), lambda f: f(ints(1), 2**70), lambda f: f(None),
    ]  # fmt: skip
    for call in calls:
        texts = []
        for function in (scaled, compiled):
            with pytest.raises(TypeError) as caught:
                call(function)
            texts.append(str(caught.value))
        assert texts[0] == texts[1]
    assert compiled(ones(2), 3).tolist() == [3.0, 3.0]


def test_errors_of_the_users_own_pass_through_and_leave_nothing() -> None:
    def fails(x: Any, how: int) -> Any:
        y = x * 2
        if how == 1:
            raise KeyError("mine")
        if how == 2:
            return y @ ones(7, 7)
        return y + 1

    compiled: Any = graphc.compile(fails)
    for how, error in ((1, KeyError), (2, ShapeError), (1, KeyError)):
        with pytest.raises(error):
            compiled(ones(2), how)
        assert not graphc.compiler.is_compiling()
        assert compiled(ones(2), 0).tolist() == [3.0, 3.0]
    assert sys.getprofile() is None


def test_tracing_what_depends_on_values_names_the_line() -> None:
    def branch(x: Any) -> Any:
        if x.sum() > 0:
            return x * 1
        return -x

    def length(x: Any) -> Any:
        return graphc.zeros(int(x[0].item()))

    traced = graphc.trace(branch, ones(2))
    line = branch.__code__.co_firstlineno
    with pytest.raises(GuardError, match=f"branch: what is tested at {HERE}:{line + 1} was True.*trace that case"):
        traced(-ones(2))
    with pytest.raises(RecordingError, match=rf"int\(\) at {HERE}:{length.__code__.co_firstlineno + 1} hands"):
        graphc.trace(length, ones(2))
    compiled = graphc.compile(branch)
    for sign in (1, 1, -1, -1, 1):
        assert compiled(ones(2) * sign).tolist() == [1.0, 1.0]


def test_an_index_out_of_range_in_a_file_names_the_line(tmp_path: Path) -> None:
    def pick(x: Any, i: Any) -> Any:
        return x[i] * 2

    graphc.trace(pick, ones(4), ints(0, 1)).save(tmp_path / "pick.gcz")
    again: Any = graphc.load(tmp_path / "pick.gcz")
    with pytest.raises(
        GuardError, match=rf"tested at {HERE}:{pick.__code__.co_firstlineno + 1}.*index is out of range"
    ):
        again(ones(4), ints(0, 7))
    assert again(ones(4), ints(3, 2)).tolist() == [2.0, 2.0]


def test_effects_in_a_graph_name_the_line() -> None:
    kept: list[Any] = []

    def keeps(x: Any) -> Any:
        kept.append(x)
        return x * 2

    line = f"{HERE}:{keeps.__code__.co_firstlineno + 1}"
    with pytest.raises(RecordingError, match=rf"kept \(list\) is changed at {line}"):
        graphc.compile(keeps, fullgraph=True)(ones(2))
    with pytest.warns(graphc.RecordingWarning, match=rf"keeps runs eagerly.*{line}"):
        graphc.compile(keeps)(ones(2))


def test_closures_random_numbers_nesting_and_recursion() -> None:
    factor = 2.0

    def scaled(x: Any) -> Any:
        return x * factor

    def deep(x: Any, n: int) -> Any:
        return x if n == 0 else deep(x * 2, n - 1)

    compiled = graphc.compile(scaled)
    assert [compiled(ones(1)).item() for _ in range(3)] == [2.0] * 3
    factor = 5.0
    assert compiled(ones(1)).item() == 5.0
    outer = graphc.compile(lambda x: compiled(x) + 1)
    assert [outer(ones(1)).item() for _ in range(3)] == [6.0] * 3
    assert graphc.compile(deep)(ones(1), 5).item() == 32.0
    noise = graphc.compile(lambda x: x + graphc.rand(3))
    for function in (noise, lambda x: x + graphc.rand(3)):
        graphc.manual_seed(3)
        rows = [function(graphc.zeros(3)).tolist() for _ in range(4)]
        assert len({tuple(r) for r in rows}) == 4
    graphc.manual_seed(3)
    assert [noise(graphc.zeros(3)).tolist() for _ in range(4)] == rows
    random.seed(0)


def test_endless_recursion_is_pythons_error() -> None:
    def endless(x: Any) -> Any:
        return endless(x)

    for function in (endless, graphc.compile(endless)):
        with pytest.raises(RecursionError):
            function(ones(1))
    assert not graphc.compiler.is_compiling()


def test_tied_weights_are_saved_once(tmp_path: Path) -> None:
    lost = Lost()
    graphc.save(lost.state_dict(), tmp_path / "tied")
    graphc.save({"weight": ones(2, 2), "biases": ones(2, 2)}, tmp_path / "two")
    again = graphc.load(tmp_path / "tied")
    assert again["first.weight"] is again["second.weight"]
    assert [n for n, _ in lost.named_parameters()] == ["first.weight", "first.bias", "second.bias"]
    lost.load_state_dict(again)
    assert lost.first.weight is lost.second.weight


def test_a_data_set_shorter_than_a_batch() -> None:
    assert [x[0].tolist() for x in DataLoader(samples(3), batch_size=10)] == [[0, 1, 2]]
    assert list(DataLoader(samples(3), batch_size=10, drop_last=True)) == []
    assert list(DataLoader([])) == [] and list(DataLoader([], shuffle=True)) == []


def test_a_layer_without_inputs_warns_as_pytorch_does() -> None:
    with pytest.warns(UserWarning, match="zero-element tensors is a no-op"):
        layer = nn.Linear(0, 3, bias=False)
    assert layer(ones(2, 0)).tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda path: rewrite(path, replace_text(b"mul(", b"foo(")),
            "unknown op 'foo'; the file may come from a newer",
        ),
        (lambda path: edit_manifest(path, lambda m: m.update(format=9)), "format 9 is newer than 1.*upgrade graphc"),
    ],
)
def test_files_of_the_future(tmp_path: Path, change: Callable[[Path], Any], says: str) -> None:
    path = tmp_path / "a.gcz"
    graphc.trace(lambda x: x * 2, ones(2)).save(path)
    change(path)
    with pytest.raises(ArtifactError, match=f"a.gcz: .*{says}") as caught:
        graphc.load(path)
    assert str(caught.value).endswith(f" (at {caught.value.place})") and caught.value.place.startswith(HERE)


def test_a_cache_that_cannot_be_written(tmp_path: Path) -> None:
    """A full disk, or a file where the folder should be: everything works, nothing is kept."""
    (tmp_path / "file").write_text("")
    code = "import graphc\nf = graphc.compile(lambda x: x * 2)\nprint([f(graphc.ones(2)).tolist() for _ in range(3)])"
    for folder in (tmp_path / "file", Path("/dev/full")):
        environment = {**os.environ, "GRAPHC_CACHE_DIR": str(folder)}
        done = subprocess.run([sys.executable, "-OO", "-c", code], env=environment, capture_output=True, text=True)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.strip() == "[[2.0, 2.0], [2.0, 2.0], [2.0, 2.0]]"


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["show"], 2, "Missing argument"),
        (["show", "none.gcz"], 3, "none.gcz: No such file"),
        (["nothing"], 2, "No such command 'nothing'"),
        (["trace", "none.py:f", "-o", "x.gcz"], 2, "none.py"),
        (["trace", "model.py:lost", "-o", "x.gcz"], 2, "lost"),
        (["trace", "model.py:f", "--input", "x=q8[2]", "-o", "x.gcz"], 2, "q8"),
        (
            ["trace", "model.py:f", "--input", "x=f32[2,3]", "-o", "x.gcz"],
            2,
            "model.py:4: ShapeError: matmul: operands",
        ),
        (["bench", "model.py", "--runs", "-1"], 2, "--runs"),
    ],
)
def test_the_command_line(tmp_path: Path, arguments: list[str], code: int, says: str) -> None:
    (tmp_path / "model.py").write_text("import graphc\n\ndef f(x):\n    return x @ graphc.ones(4, 5)\n")
    command = [sys.executable, "-m", "graphc", *arguments]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    assert says in done.stderr and len(done.stderr.splitlines()) == 1 and "Traceback" not in done.stderr


def test_anomaly_mode_names_the_forward_line() -> None:
    def failing() -> None:
        w = leaf(3)
        y = w * 1
        z = y * y  # here
        y.add_(1)
        z.sum().backward()

    with (
        pytest.warns(UserWarning, match="Anomaly"),
        graphc.autograd.detect_anomaly(),
        pytest.raises(AutogradError) as caught,
    ):
        failing()
    line = failing.__code__.co_firstlineno
    assert caught.value.place == f"{HERE}:{line + 5}"
    assert caught.value.__notes__ == [f"Error detected in MulBackward0; the forward operation ran at {HERE}:{line + 3}"]
