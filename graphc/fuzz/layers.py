"""Layers, losses and optimisers in random programs."""

from __future__ import annotations

from graphc.fuzz.modules import MORE_LAYERS, WITHOUT_PARAMETERS
from graphc.fuzz.parts import Parts, Shape, Var
from graphc.fuzz.steps import MORE_OPTIMISERS

# kind -> what is made for n features, the shape of {x}, the call
LAYERS: dict[str, tuple[str, str, str]] = {
    "Linear": ("nn.Linear({n}, {n} + 1)", "2, {n}", "{m}({x})"),
    "Bare": ("nn.Linear({n}, 2, bias=False)", "2, {n}", "{m}({x})"),
    "BatchNorm1d": ("nn.BatchNorm1d({n})", "3, {n}", "{m}({x})"),
    "Plain": ("nn.BatchNorm1d({n}, affine=False, momentum=None)", "3, {n}", "{m}({x})"),
    "LayerNorm": ("nn.LayerNorm({n})", "2, {n}", "{m}({x})"),
    "RMSNorm": ("nn.RMSNorm({n})", "2, {n}", "{m}({x})"),
    "Dropout": ("nn.Dropout(0.3)", "2, {n}", "{m}({x})"),
    "Conv": ("nn.Sequential(nn.Conv2d({n}, 2, 2), nn.BatchNorm2d(2), nn.ReLU())", "1, {n}, 3, 3", "{m}({x})"),
    "Grouped": ("nn.Conv2d({n}, 2 * {n}, 3, padding=1, groups={n})", "1, {n}, 2, 3", "{m}({x})"),
    "Conv1d": ("nn.Conv1d({n}, 3, 2, stride=2, dilation=2)", "2, {n}, 5", "{m}({x})"),
    "Transposed": ("nn.ConvTranspose2d({n}, 2, 2, stride=2)", "1, {n}, 2, 2", "{m}({x})"),
    "Transposed1d": ("nn.ConvTranspose1d({n}, {n}, 3, padding=1, groups={n})", "1, {n}, 4", "{m}({x})"),
    "GroupNorm": ("nn.GroupNorm(1, {n})", "2, {n}, 2", "{m}({x})"),
    "InstanceNorm": ("nn.InstanceNorm1d({n}, affine=True)", "2, {n}, 3", "{m}({x})"),
    "PReLU": ("nn.PReLU({n})", "2, {n}", "{m}({x})"),
    "Attention": ("nn.MultiheadAttention({n}, 1, batch_first=True)", "1, 3, {n}", "{m}({x}, {x}, {x})[0]"),
    "Encoder": ("nn.TransformerEncoderLayer({n}, 1, 4, 0.1, batch_first=True)", "1, 2, {n}", "{m}({x})"),
    "LSTM": ("nn.LSTM({n}, 2)", "3, 1, {n}", "{m}({x})[0]"),
    "LSTMCell": ("nn.LSTMCell({n}, 2)", "2, {n}", "{m}({x})[1]"),
    "GRU": ("nn.GRU({n}, 2, bidirectional=True)", "2, 1, {n}", "{m}({x})[1]"),
    "RNN": ("nn.RNN({n}, 2, nonlinearity='relu')", "2, 2, {n}", "{m}({x})[0]"),
    "Bilinear": ("nn.Bilinear({n}, {n}, 2)", "2, {n}", "{m}({x}, {x} * 0.5)"),
    "Tied": ("nn.Linear({n}, {n})", "2, {n}", "{m}({m}({x}).tanh()) @ {m}.weight.t()"),
}
OPTIMISERS = [
    "SGD({}, lr=0.1)", "SGD({}, lr=0.1, momentum=0.9)",
    "SGD({}, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.01)",
    "Adam({}, lr=0.01)", "AdamW({}, lr=0.01)", "Adam({}, lr=0.01, amsgrad=True, weight_decay=0.1)",
    "RMSprop({}, lr=0.01)", "RMSprop({}, lr=0.01, centered=True, momentum=0.5)", "Adagrad({}, lr=0.1)",
    "Adadelta({})", "NAdam({}, lr=0.01)", "RAdam({}, lr=0.01)", "Adamax({}, lr=0.01)", "ASGD({}, lr=0.1)",
    "Rprop({}, lr=0.01)", "AdamW({}, lr=0.01, maximize=True)",
]  # fmt: skip
SCHEDULES = [
    "StepLR(opt, 2)", "ExponentialLR(opt, 0.9)", "CosineAnnealingLR(opt, 5)", "LambdaLR(opt, lambda e: 0.9**e)",
    "OneCycleLR(opt, 0.2, total_steps=200)",
]  # fmt: skip
LOSSES = [
    "F.mse_loss({v}, {o})", "F.l1_loss({v}, {o})", "F.smooth_l1_loss({v}, {o}, beta=0.5)", "F.huber_loss({v}, {o})",
    "F.binary_cross_entropy_with_logits({v}, {o}.sigmoid())", "F.kl_div(F.logsigmoid({v}), {o}.sigmoid())",
    "F.soft_margin_loss({v}, {o}.detach().sign())", "F.cosine_similarity({v}.reshape(1, -1), {o}.reshape(1, -1)).sum()",
]  # fmt: skip
ACTIVATIONS = [
    "silu", "leaky_relu", "elu", "selu", "softplus", "hardswish", "hardtanh", "mish", "relu6", "logsigmoid", "softsign",
    "hardsigmoid", "tanhshrink", "softshrink",
]  # fmt: skip


class Layers(Parts):
    """Modules, functions of layers, optimisers."""

    def optimiser(self) -> None:
        listed = "[" + ", ".join(p if p.startswith("w") else f"*{p}.parameters()" for p in self.params) + "]"
        known = OPTIMISERS if self.follow is None else OPTIMISERS + MORE_OPTIMISERS
        if self.follow is not None and len(self.params) > 1 and self.params[0] == "w0" and self.chance(0.2):
            listed = f"[{{'params': [w0], 'lr': 0.5}}, {{'params': {listed.replace('w0, ', '')}}}]"
        self.setup.append(f"opt = optim.{self.rng.choice(known).format(listed)}")
        self.state.append("opt")
        self.optimizer = "opt"

    def module(self) -> None:
        n = self.rng.choice([2, 3, 4])
        more = () if self.follow is None else MORE_LAYERS
        kind = self.rng.choice([*LAYERS, "Embedding", "Padded", "Bag", *more])
        made = {"Embedding": "nn.Embedding(5, {n})", "Padded": "nn.Embedding(5, {n}, padding_idx=1)",
                "Bag": "nn.EmbeddingBag(5, {n}, mode='mean')"}.get(kind) or self._layer(kind)[0]  # fmt: skip
        self.setup.append(f"m = {made.format(n=n)}")
        self.state.append("m")
        if self.chance(0.25):
            self.setup.append("m.eval()")
        if kind not in WITHOUT_PARAMETERS:
            self.params.append("m")
        self.modules.append(("m", kind, n))

    def _layer(self, kind: str) -> tuple[str, str, str]:
        return LAYERS.get(kind) or MORE_LAYERS[kind]

    def use_module(self) -> None:
        if not self.modules:
            return
        name, kind, n = self.modules[0]
        if kind in ("Embedding", "Padded", "Bag"):
            i = self.pick(lambda v: v.dtype in ("int64", "int32"))
            if i is None:
                return
            if kind == "Bag":
                self.new(f"{name}(({i.name} % 5).reshape(1, -1))", (1, n), "float32", True)
            else:
                self.new(f"{name}({i.name} % 5)", (*i.shape, n), "float32", True)
            return
        given = tuple(int(d) for d in self._layer(kind)[1].format(n=n).split(","))
        v = self.pick(lambda v: v.dtype == "float32" and bool(v.shape))
        if v is None:
            return
        shape = layer_shape(kind, n, given)
        x = self.repeated(v, given)
        self.new(self._layer(kind)[2].format(m=name, x=x), shape, "float32", v.grad or kind not in WITHOUT_PARAMETERS)

    def repeated(self, v: Var, shape: Shape) -> str:
        """The elements of `v`, over and over, in a shape."""
        size = 1
        for d in shape:
            size *= d
        times = -(-size // v.size)
        flat = f"{v.name}.reshape(-1)" + (f".repeat({times})" if times > 1 else "")
        return f"{flat}[:{size}].reshape({', '.join(map(str, shape))})"

    def layered(self) -> None:
        """An activation or a loss."""
        v = self.pick(lambda v: v.real)
        if v is None:
            return
        o = self.pick(lambda o: o.dtype == v.dtype and o.shape == v.shape)
        if o is None or self.chance(0.5):
            self.new(f"F.{self.rng.choice(ACTIVATIONS)}({v.name})", v.shape, v.dtype, v.grad)
            return
        self.new(self.rng.choice(LOSSES).format(v=v.name, o=o.name), (), v.dtype, v.grad or o.grad)


def layer_shape(kind: str, n: int, given: Shape) -> Shape:
    """The shape of what a layer returns."""
    return {
        "Linear": (2, n + 1), "Bare": (2, 2), "Conv": (1, 2, 2, 2), "Grouped": (1, 2 * n, 2, 3), "Conv1d": (2, 3, 2),
        "Transposed": (1, 2, 4, 4), "LSTM": (3, 1, 2), "LSTMCell": (2, 2), "GRU": (2, 1, 2), "RNN": (2, 2, 2),
        "Bilinear": (2, 2),
    }.get(kind, given)  # fmt: skip
