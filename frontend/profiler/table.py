"""The table of a profile, as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from graphc.errors import ArgumentError

_ORDERS: dict[str, Callable[[Any], Any]] = {
    "cpu_time_total": lambda e: -e.cpu_time_total,
    "self_cpu_time_total": lambda e: -e.self_cpu_time_total,
    "cpu_time": lambda e: -e.cpu_time,
    "count": lambda e: -e.count,
    "flops": lambda e: -e.flops,
    "name": lambda e: e.key,
}


def time_text(us: float) -> str:
    """Microseconds in a fitting unit."""
    if us >= 1e6:
        return f"{us / 1e6:.3f}s"
    return f"{us / 1e3:.3f}ms" if us >= 1e3 else f"{us:.3f}us"


def _share(part: float, whole: float) -> str:
    return f"{100 * part / whole:.2f}%" if whole else "0.00%"


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 3] + "..."


def build_table(
    rows: Sequence[Any],
    total: float,
    sort_by: str | None,
    row_limit: int,
    widths: tuple[int, int, int],
    header: str | None,
) -> str:
    """One line an event. Raises ArgumentError for an unknown `sort_by`."""
    if sort_by is not None:
        if sort_by not in _ORDERS:
            raise ArgumentError(f"table: cannot sort by {sort_by!r}; choose from {', '.join(_ORDERS)}")
        rows = sorted(rows, key=_ORDERS[sort_by])
    chosen = rows if row_limit < 0 else rows[:row_limit]
    names, shapes = [_cut(e.key, widths[0]) for e in chosen], any(e.input_shapes for e in chosen)
    titles = ["Name", "Self CPU %", "Self CPU", "CPU total %", "CPU total", "CPU time avg", "# of Calls"]
    flops, sources = any(e.flops for e in chosen), any(e.stack for e in chosen)
    titles += ["Input Shapes"] * shapes + ["Total MFLOPs"] * flops + ["Source Location"] * sources
    cells = []
    for name, e in zip(names, chosen, strict=True):
        row = [name, _share(e.self_cpu_time_total, total), time_text(e.self_cpu_time_total)]
        row += [_share(e.cpu_time_total, total), time_text(e.cpu_time_total), time_text(e.cpu_time), str(e.count)]
        row += [_cut(str(e.input_shapes), widths[2])] * shapes
        row += [f"{e.flops / 1e6:.3f}" if e.flops else "--"] * flops
        cells.append(row + [_cut(e.stack[0] if e.stack else "", widths[1])] * sources)
        cells += [[""] * len(row) + [_cut(line, widths[1])] for line in e.stack[1:]]
    return _drawn(titles, cells, header) + f"\nSelf CPU time total: {time_text(total)}\n"


def _drawn(titles: list[str], cells: list[list[str]], header: str | None) -> str:
    wide = [max(map(len, column)) for column in zip(titles, *cells, strict=True)]
    rule = "  ".join("-" * w for w in wide)

    def line(row: list[str]) -> str:
        first, *rest = zip(row, wide, strict=True)
        return "  ".join([first[0].ljust(first[1]), *(text.rjust(w) for text, w in rest)])

    lines = [rule, line(titles), rule, *map(line, cells), rule]
    return "\n".join(lines if header is None else [header, *lines])
