"""Every stage of a model as text, each line with the places of the user's program it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from graphc import compiler
from graphc.cli.parts import parts
from graphc.ir.graph import Graph, Location, Node
from graphc.ir.subgraph import Subgraph
from graphc.ir.text import print_graph

if TYPE_CHECKING:
    from graphc.codegen.target import Target
    from graphc.runtime.program import KernelCall, Program


@dataclass(frozen=True, slots=True)
class Line:
    """One line of text. `places`: file and line of what it shows, "" where there is none."""

    text: str
    places: str = ""


@dataclass(frozen=True, slots=True)
class Stage:
    """A stage: its lines, and how many nodes (or kernels) it shows."""

    name: str
    lines: list[Line]
    count: int

    def text(self, gutter: bool = False) -> str:
        """The lines; with `gutter` the places stand to the left of each."""
        if not gutter:
            return "\n".join(line.text for line in self.lines)
        width = min(max((len(line.places) for line in self.lines), default=0), 40)
        return "\n".join(f"{line.places[:width]:<{width}} | {line.text}" for line in self.lines)


def graph_stage(name: str, graph: Graph) -> Stage:
    """A graph: `text()` is what parse_graph reads."""
    texts = print_graph(graph).rstrip("\n").split("\n")
    places = ["", *(place for node in graph.nodes for place in _node_places(node)), "", ""]
    return Stage(name, [Line(t, p) for t, p in zip(texts, places, strict=True)], len(graph.nodes))


def stages(recorded: Graph, bound: Graph | None, names: Sequence[str], target: Target | None) -> Iterable[Stage]:
    """The stages `names` in the order of the pipeline. `bound`: the graph with numbers for its sizes, or None when
    "recorded" is the only one.
    """
    if "recorded" in names:
        yield graph_stage("recorded", recorded)
    if bound is None or set(names) <= {"recorded"}:
        return
    seen: list[Stage] = []
    graph = compiler.optimise(bound, trace=lambda name, g: seen.append(graph_stage(name, g)))
    yield from (stage for stage in seen if stage.name in names)
    if not set(names) & {"fuse", "program", "kernels", "llvm", "asm"}:
        return
    cut = parts(graph)
    if "fuse" in names:
        yield _joined("fuse", map(_fuse_stage, cut))
    if not set(names) & {"program", "kernels", "llvm", "asm"}:
        return
    programs = [compiler.lower(part) for part in cut]
    if "program" in names:
        yield _joined("program", map(_program_stage, programs))
    if "kernels" in names:
        yield _joined("kernels", map(_kernels_stage, programs))
    for name in ("llvm", "asm"):
        if name in names:
            yield _joined(name, (_code_stage(name, program, target) for program in programs))


def _joined(name: str, found: Iterable[Stage]) -> Stage:
    """The stages of the parts of a graph as one."""
    each = list(found)
    return Stage(name, [line for stage in each for line in stage.lines], sum(stage.count for stage in each))


def _place(node: Node) -> str:
    return str(node.loc) if node.loc is not None and node.loc.filename else ""


def _node_places(node: Node) -> list[str]:
    """The place of every line a node's text has: the graphs of branches and loops have lines of their own, two of them
    without a node.
    """
    found = [_place(node)]
    for value in node.attrs.values():
        if isinstance(value, Subgraph):
            found += [place for inner in value.graph.nodes for place in _node_places(inner)]
            found += ["", ""]
    return found


def _places(locations: Iterable[Location | None]) -> str:
    found = dict.fromkeys(str(loc) for loc in locations if loc is not None and loc.filename)
    return " ".join(found)


def _fuse_stage(graph: Graph) -> Stage:
    from graphc.ir.passes.fuse import fuse

    fusion = fuse(graph)
    counts = f"{len(graph.nodes)} nodes in {len(fusion.groups)} groups, {len(fusion.inlined)} inlined"
    lines = [Line(f"{graph.name}: {counts}")]
    for k, group in enumerate(fusion.groups):
        domain = f"{list(group.domain)}" + (f" over axes {list(group.dims)}" if group.dims else "")
        lines.append(Line(f"group {k}: {group.kind} {domain}", _places(n.loc for n in group.nodes)))
        lines += [Line(f"  {_results(node)} = {node.op.name}", _place(node)) for node in group.nodes]
    if fusion.inlined:
        lines.append(Line("computed where they are read:"))
        lines += [Line(f"  {v.type} = {v.node.op.name}", _place(v.node)) for v in fusion.inlined if v.node is not None]
    return Stage("fuse", lines, len(fusion.groups))


def _results(node: Node) -> str:
    return ", ".join(str(v.type) for v in node.outputs)


def _program_stage(program: Program) -> Stage:
    lines = _header(program)
    for k, call in enumerate(program.calls):
        operands = ", ".join(map(str, call.operands))
        kind = type(call.kernel).__name__.lower()
        lines.append(Line(f"  call {k}: {kind} {call.label}({operands})", _places(call.locs)))
    return Stage("program", lines, len(program.calls))


def _header(program: Program) -> list[Line]:
    """What print_program writes before the first call."""
    from graphc.runtime.program import print_program

    whole = print_program(program).split("\n")
    stop = next((k for k, line in enumerate(whole) if line.startswith("  call ")), len(whole))
    return [Line(line) for line in whole[:stop]]


def _kernels_stage(program: Program) -> Stage:
    from graphc.runtime.program import kernel_lines

    lines = []
    for k, call in enumerate(program.calls):
        lines.append(Line(f"kernel {k}: {call.label}", _places(call.locs)))
        lines += [Line("  " + text) for text in kernel_lines(call)]
    return Stage("kernels", lines, len(program.calls))


def _code_stage(name: str, program: Program, target: Target | None) -> Stage:
    """LLVM text or assembly, each piece of code once, with the calls that use it above it."""
    from graphc.codegen.cpu import lower_kernel
    from graphc.codegen.target import host_target
    from graphc.runtime.llvm import assembly_of

    target = target or host_target()
    comment = ";" if name == "llvm" else "#" if target.name.startswith("x86") else "//"
    users: dict[str, list[int]] = {}
    kernels = [lower_kernel(call.kernel) for call in program.calls]
    for k, kernel in enumerate(kernels):
        users.setdefault(kernel.key, []).append(k)
    lines: list[Line] = []
    for numbers in users.values():
        calls: list[KernelCall] = [program.calls[k] for k in numbers]
        places = _places(loc for call in calls for loc in call.locs)
        title = ", ".join(f"kernel {k}: {call.label}" for k, call in zip(numbers, calls, strict=True))
        lines.append(Line(f"{comment} {title} for {target.name}", places))
        text = kernels[numbers[0]].emit(target)
        text = text if name == "llvm" else assembly_of(text, target).expandtabs(8)
        lines += [Line(t) for t in text.rstrip("\n").split("\n")]
    return Stage(name, lines, len(users))
