"""A tape node that stands for many: what one compiled call did, run backwards by one executable.

Where that cannot give what eager code gives (gradients of gradients, hooks in the midst, a saved tensor written since,
a second backward), the node is opened: the eager nodes it stands for are made and take its place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import InternalError
from graphc.frontend.autograd import AccumulateGrad, Edge, Node
from graphc.frontend.mode import debugging
from graphc.frontend.tensor import Tensor


class Region(Node):
    """Base of the nodes of compiled calls. Output k of it is output `number` of inner node `node`: `places[k]`."""

    nodes: list[Node] | None = None  # the eager nodes, once opened
    places: Sequence[tuple[int, int]] = ()
    interior: frozenset[int] = frozenset()  # outputs that the call itself went on with: gradients also come from inside

    def open(self) -> list[Node]:
        """The eager nodes, oldest first; made at the first call."""
        if self.nodes is None:
            self.nodes = self.make()
            for k, kept in (self.retained or {}).items():
                node, number = self.inner(k)
                node.retained = {**(node.retained or {}), number: kept}
            self.retained = None
        return self.nodes

    def make(self) -> list[Node]:
        """Make the eager nodes."""
        raise InternalError("a region without nodes")

    def reaching(self, needs: tuple[bool, ...], targets: set[int]) -> set[int]:
        """The inner nodes from which a target, or an edge that needs a gradient, is reached."""
        raise InternalError("a region without nodes")

    def ready(self, given: tuple[int, ...], needs: tuple[bool, ...], prior: tuple[bool, ...]) -> Any:
        """What runs the gradients of the outputs `given` to the edges that need them, some of which have a `prior`
        gradient; None where only the eager nodes give eager's results.
        """
        return None

    def run(
        self, code: Any, slot: dict[int, Tensor], priors: Sequence[Tensor | None], retain: bool
    ) -> list[tuple[int, Tensor]] | None:
        """Run what `ready` gave: (edge number, gradient) in the order they first arrive; a prior gradient is part of
        them. None, with nothing done, when a saved tensor has been written by now.
        """
        raise InternalError("a region without code")

    def inner(self, k: int) -> tuple[Node, int]:
        """Where output k is on the tape now."""
        if self.nodes is None:
            return self, k
        node, number = self.places[k]
        return self.nodes[node], number

    def opened(self, k: int) -> tuple[Node, int]:
        """The eager node behind output k, and its output."""
        self.open()
        return self.inner(k)

    def name(self) -> str:
        """A name for messages."""
        return "CompiledBackward0"


class Walk:
    """What the backward pass that is running knows: gradients by node, the wanted edges and how to reach them."""

    def __init__(
        self,
        grads: dict[Any, dict[int, Tensor]],
        send: Callable[[Edge, Tensor], None],
        wanted: Sequence[Edge] | None,
        needed: set[Any] | None,
    ) -> None:
        self.grads = grads
        self.send = send
        self.needed = needed
        self.keys = set(wanted or ())
        self.targets = {node for node, _ in self.keys}
        self._leading: dict[Region, set[int]] = {}

    def wants(self, edge: Edge | None) -> bool:
        """Whether a gradient along `edge` is of any use."""
        if edge is None or self.needed is None:
            return edge is not None
        node = edge[0]
        if isinstance(node, Region):
            return node.places[edge[1]][0] in self._inner(node)
        return node in self.needed or node in self.targets

    def _inner(self, region: Region) -> set[int]:
        """The inner nodes of a region that are wanted or lead to what is."""
        found = self._leading.get(region)
        if found is None:
            targets = {region.places[k][0] for node, k in self.keys if node is region}
            needs = tuple(map(self.wants, region.edges))
            found = self._leading[region] = targets | region.reaching(needs, targets)
        return found

    def ready(self, region: Region, slot: dict[int, Tensor]) -> Any:
        """What can run the region; None when something in its midst is looked at, or it cannot run as a whole."""
        if region.nodes is not None or debugging:
            return None
        seen = {k for node, k in self.keys if node is region} | set(region.retained or ())
        if seen & region.interior:
            return None
        needs = tuple(map(self.wants, region.edges))
        priors = self._priors(region, needs)
        return region.ready(tuple(sorted(slot)), needs, tuple(p is not None for p in priors))

    def _priors(self, region: Region, needs: Sequence[bool]) -> list[Tensor | None]:
        return [
            self.grads.get(e[0], {}).get(e[1]) if need and e is not None else None
            for e, need in zip(region.edges, needs, strict=True)
        ]

    def run(self, region: Region, code: Any, slot: dict[int, Tensor], retain: bool) -> bool:
        """Run the region's code on the gradients of its outputs; False when it has to be opened."""
        priors = self._priors(region, tuple(map(self.wants, region.edges)))
        found = region.run(code, slot, priors, retain)
        if found is None:
            return False
        for number, g in found:
            edge = region.edges[number]
            assert edge is not None
            if priors[number] is not None:
                self.grads[edge[0]][edge[1]] = g
                continue
            if self.needed is None and _takes_all(edge[0]):
                g._alone = True
            self.send(edge, g)
        return True

    def open(self, region: Region, slot: dict[int, Tensor]) -> None:
        """Let the eager nodes of the region go on with the gradients of its outputs."""
        nodes = region.open()
        for k in [k for node, k in self.keys if node is region]:
            inner = region.inner(k)
            self.keys.add(inner)
            self.targets.add(inner[0])
        if self.needed is not None:
            for node in nodes:
                if any(map(self.wants, node.edges)):
                    self.needed.add(node)
        for k, g in slot.items():
            self.send(region.inner(k), g)


def _takes_all(node: Any) -> bool:
    """True for a leaf whose `.grad` may be the very tensor it is sent: nobody looks at it on the way."""
    return isinstance(node, AccumulateGrad) and not node.hooks and not node.leaf._hooks
