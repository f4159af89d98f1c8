"""Arguments of random programs: special numbers, sizes at the edges of the kernels' blocks, memory of every layout."""

from __future__ import annotations

from graphc.fuzz.parts import KIND, WHOLE, Parts, Shape

_FLOATS = [
    "graphc.nan",
    "graphc.inf",
    "-graphc.inf",
    "-0.0",
    "0.0",
    "1.0",
    "-1.0",
    "0.5",
    "2.0",
    "2.0",
    "-2.0",
    "1.5",
    "2.5",
    "-0.5",
    "1e-6",
    "3.0",
    "1024.0",
    "-7.0",
    "0.1",
]
_EXTREMES = {
    "float16": ["6e-8", "65504.0", "-65504.0", "6.1e-5"],
    "bfloat16": ["1e-40", "3e38", "-3e38", "1.2e-38", "16777216.0"],
    "float32": ["1e-45", "1e-40", "3.4e38", "-3.4e38", "1.17549435e-38", "16777217.0", "1e10"],
    "float64": ["5e-324", "1e-310", "1.7e308", "-1.7e308", "2.3e-308", "9007199254740993.0", "1e-300"],
}
_BITS = {"uint8": 8, "int8": 8, "int16": 16, "int32": 32, "int64": 64}
# sizes at the edges of vectors (8, 16), of partial sums (32), of blocks of rows and of depth (512, 1024)
_EDGE_SIZES = (7, 8, 9, 15, 16, 17, 31, 32, 33)
_BLOCK_SIZES = (31, 33, 64, 65, 127, 255, 511, 512, 513, 1023, 1024, 1025)


class Data(Parts):
    """What the function is given."""

    def shape(self) -> Shape:
        """Small; now and then none, empty or at an edge."""
        if self.follow is None:
            return super().shape()
        if self.chance(0.05):
            return ()
        shape = [self.rng.choice([1, 2, 2, 3, 3, 4, 5]) for _ in range(self.rng.choice([1, 1, 2, 2, 2, 2, 3, 3, 4]))]
        if self.chance(0.04):
            shape[self.rng.randrange(len(shape))] = 0
        elif self.limit > 1000 and self.chance(0.7):
            shape = shape[:2]
            shape[self.rng.randrange(len(shape))] = self.rng.choice(_BLOCK_SIZES)
        elif self.chance(0.1):
            shape = shape[:2]
            shape[self.rng.randrange(len(shape))] = self.rng.choice(_EDGE_SIZES)
        return tuple(shape)

    def fill(self, shape: Shape, dtype: str) -> str:
        """The text of a new tensor; in one of three, numbers that are hard to get right."""
        if self.follow is None:
            return super().fill(shape, dtype)
        size = 1
        for n in shape:
            size *= n
        kind = self.rng.choice(["random", "random", "special", "ties", "random", "powers"])
        if kind == "special" and size and dtype != "bool":
            return self._listed(self._special(dtype), shape, size, dtype)
        if kind == "powers" and KIND[dtype] == 2 and size:
            numbers = [f"{self.rng.choice(['', '-'])}{2.0 ** self.rng.randrange(-9, 10)}" for _ in range(7)]
            return self._listed(numbers, shape, size, dtype)
        if dtype == "bool":
            return f"graphc.rand({shape}) > 0.5"
        if kind == "ties" or KIND[dtype] == 1:
            low, high = self.rng.choice([(-4, 5), (-1, 2), (0, 3)])
            made = f"graphc.randint({0 if dtype == 'uint8' else low}, {high}, {shape}, dtype=graphc."
            return f"{made}{dtype})" if KIND[dtype] == 1 else f"{made}int64).to(graphc.{dtype})"
        if self.chance(0.1) and shape and dtype != "bfloat16":
            return self._from_numpy(shape, size, dtype)
        return f"graphc.randn({shape}, dtype=graphc.{dtype})"

    def _special(self, dtype: str) -> list[str]:
        if dtype in WHOLE:
            top = 2 ** (_BITS[dtype] - (dtype != "uint8"))
            low = 0 if dtype == "uint8" else -top
            numbers = [low, top - 1, low + 1, 0, 1, 2, 3, top // 2, 7, top - 2]
            return [str(n) for n in self.rng.sample(numbers, self.rng.choice([3, 5, 10]))]
        plain = self.rng.sample(_FLOATS[3:], self.rng.choice([3, 5, 8]))
        if self.chance(0.5):
            plain += self.rng.sample(_FLOATS[:3], self.rng.choice([1, 2]))
        if self.chance(0.5):
            plain += self.rng.sample(_EXTREMES[dtype], self.rng.choice([1, 2, 3]))
        self.rng.shuffle(plain)
        return plain

    def _listed(self, numbers: list[str], shape: Shape, size: int, dtype: str) -> str:
        text = f"graphc.tensor([{', '.join(numbers)}], dtype=graphc.{dtype})"
        times = -(-size // len(numbers))
        if not shape:
            return f"{text}[0].clone()"
        return f"{text}{f'.repeat({times})' if times > 1 else ''}[:{size}].clone().reshape({shape})"

    def _from_numpy(self, shape: Shape, size: int, dtype: str) -> str:
        """A tensor of an array: a reversed one is copied, others share their memory."""
        if "import numpy as np" not in self.imports:
            self.imports.append("import numpy as np")
        array = f"(np.arange({size}, dtype=np.{dtype}) - {size // 2}).reshape({shape})"
        form = self.rng.choice(["[::-1]", "[..., ::-1]", "T", "plain"])
        if form == "T":
            quarters = f"(np.arange({size}, dtype=np.{dtype}) / 4).astype(np.{dtype})"
            return f"graphc.from_numpy({quarters}.reshape({shape[::-1]}).T)"
        return f"graphc.from_numpy({array})" if form == "plain" else f"graphc.tensor({array}{form})"

    def laid_out(self, outer: str, shape: Shape) -> tuple[str, str, bool] | None:
        """A layout for argument `outer` (name, the line that makes it, whether elements overlap)."""
        forms = [
            ("unfold", len(shape) == 1 and shape[0] > 2),
            ("offset", len(shape) >= 1 and shape[0] > 1),
            ("diagonal", len(shape) >= 2 and 0 not in shape),
            ("column", len(shape) >= 2 and shape[1] > 1),
            ("permute", len(shape) >= 3),
            ("rows", len(shape) >= 1 and 0 not in shape),
        ]
        fits = [name for name, ok in forms if ok]
        if not fits:
            return None
        form = self.rng.choice(fits)
        order = self.rng.sample(range(len(shape)), len(shape))
        text = {
            "unfold": f"{outer}.unfold(0, 2, 1)",
            "offset": f"{outer}[1:]",
            "diagonal": f"{outer}.diagonal()",
            "column": f"{outer}[:, 1]",
            "permute": f"{outer}.permute({', '.join(map(str, order))})",
            "rows": f"{outer}[:1].expand({', '.join(map(str, (3, *shape[1:])))})",
        }[form]
        return outer, f"{outer} = {text}", form in ("unfold", "rows")
