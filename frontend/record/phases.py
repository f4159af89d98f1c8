"""What part of a program nodes belong to: the module whose forward runs, the phase of a training step."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from graphc.ir.graph import Graph


class Phases:
    """Part of a Recorder."""

    graph: Graph
    module_path = ""  # of the modules that run, outermost first
    _modules: list[tuple[Any, str]]
    _paused: int

    def module_enter(self, module: Any) -> None:
        """Nodes from here on belong to this module."""
        name = ""
        if self._modules:
            parent = self._modules[-1][0]
            name = next((n for n, child in parent._modules.items() if child is module), type(module).__name__)
        self._modules.append((module, name))
        self._find_path()

    def module_exit(self, module: Any) -> None:
        """The module's forward ended."""
        self._modules.pop()
        self._find_path()

    def _find_path(self) -> None:
        self.module_path = ".".join(name for _, name in self._modules if name)

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Nodes inside belong to `name`."""
        before, self.graph.phase = self.graph.phase, name
        try:
            yield
        finally:
            self.graph.phase = before

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Nothing inside is recorded (an optimiser making its state)."""
        self._paused += 1
        try:
            yield
        finally:
            self._paused -= 1
