"""device: this version computes on the CPU; the name is accepted wherever PyTorch takes one."""

from __future__ import annotations

from typing import Any

from graphc.errors import ArgumentError, UnsupportedError

__all__ = ["device"]


class device:
    """Where tensors live: `device("cpu")`. Raises UnsupportedError for a kind this version does not have."""

    __slots__ = ("index", "type")

    def __init__(self, type: str | device, index: int | None = None) -> None:
        if isinstance(type, device):
            self.type: str = type.type
            self.index: int | None = type.index
            return
        if not isinstance(type, str):
            raise ArgumentError(f"device: expected a string such as 'cpu', got {type!r}")
        kind, _, number = type.partition(":")
        if kind != "cpu":
            raise UnsupportedError(f"device: {type!r} is not available; tensors live on 'cpu'")
        if number and not number.isdigit():
            raise ArgumentError(f"device: invalid device string {type!r}; use 'cpu'")
        self.type = kind
        self.index = int(number) if number else index

    def __eq__(self, other: object) -> bool:
        return isinstance(other, device) and (self.type, self.index) == (other.type, other.index)

    def __hash__(self) -> int:
        return hash((self.type, self.index))

    def __repr__(self) -> str:
        return (
            f"device(type={self.type!r})" if self.index is None else f"device(type={self.type!r}, index={self.index})"
        )

    def __str__(self) -> str:
        return self.type if self.index is None else f"{self.type}:{self.index}"


device.__module__ = "graphc"
CPU = device("cpu")


def check_device(name: str, given: Any) -> None:
    """Accept None, "cpu" and device("cpu"). Raises UnsupportedError, ArgumentError."""
    if given is not None and given is not CPU:
        try:
            device(given)
        except UnsupportedError as error:
            raise UnsupportedError(f"{name}: {error}") from None
