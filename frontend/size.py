"""Size: the shape of a tensor as users see it."""

from __future__ import annotations

from typing import Any

__all__ = ["Size"]


class Size(tuple[Any, ...]):
    """A tuple of sizes."""

    __slots__ = ()

    def numel(self) -> int:
        """The product of the sizes."""
        total: Any = 1
        for s in self:
            total = total * s
        return int(total) if isinstance(total, int) else total

    def __getitem__(self, index: Any) -> Any:
        found = tuple.__getitem__(self, index)
        return Size(found) if isinstance(index, slice) else found

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __repr__(self) -> str:
        return f"graphc.Size([{', '.join(map(str, self))}])"


Size.__module__ = "graphc"
