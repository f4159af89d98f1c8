"""Making a failing program small: what is left of it shows what is wrong.

Structured delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002) on the
syntax tree: statements go in runs that halve, then blocks are unwrapped, values replaced by what they are made of,
expressions by their parts, constants by simpler ones, until nothing more can go.
"""

from __future__ import annotations

import ast
import time
import warnings
from collections.abc import Callable
from contextlib import suppress

from graphc.fuzz import shrink_edits as edits
from graphc.fuzz.shrink_count import count_ops, size
from graphc.fuzz.shrink_lift import lift
from graphc.fuzz.shrink_names import fill, prune, repair
from graphc.fuzz.shrink_tidy import tidied

__all__ = ["count_ops", "shrink"]

FINDERS = (
    edits.unwrap, edits.unfold, edits.substitute, edits.reduce, edits.thin, edits.hoist, lift, edits.settle,
    edits.inline,
)  # fmt: skip


def shrink(text: str, fails: Callable[[str], bool], *, budget_s: float = 60.0, max_tries: int = 3000) -> str:
    """The smallest program found that still fails.

    `text` is a module with `make() -> (f, args, state)`; `fails(text)` tells whether a program shows the fault that is
    looked for, and must not raise. It is asked once for each different text, at most `max_tries` times, and not after
    `budget_s` seconds; the best program so far is the result. Apart from that limit the same text and answers give the
    same result. A text that does not fail comes back as it is. Raises SyntaxError for what is no Python.
    """
    plain = ast.unparse(ast.parse(text)) + "\n"
    search = _Search(fails, plain, time.monotonic() + budget_s, max_tries)
    if not search.asked(plain):
        return text
    with suppress(_Enough):
        search.run()
    return search.finished()


class _Enough(Exception):
    """The budget is spent."""


class _Search:
    """The best program so far, and what was asked."""

    def __init__(self, fails: Callable[[str], bool], text: str, deadline: float, tries: int) -> None:
        self.fails = fails
        self.text = text
        self.size = size(ast.parse(text), text)
        self.deadline = deadline
        self.tries = tries
        self.known: dict[str, bool] = {}

    def asked(self, text: str) -> bool:
        """Whether `text` fails. Raises _Enough once the budget is spent."""
        found = self.known.get(text)
        if found is None:
            if len(self.known) >= self.tries or (self.known and time.monotonic() > self.deadline):
                raise _Enough
            found = self.known[text] = bool(self.fails(text))
        return found

    def run(self) -> None:
        """All kinds of edits in turn until none helps."""
        self.every(edits.cut_short)
        while True:
            before = self.size
            self.remove()
            for find in FINDERS:
                self.every(find)
                if find in (edits.substitute, edits.hoist) and self.size < before:
                    self.every(edits.remove(1))
            if self.size == before:
                self.every(edits.constants)
            if self.size == before:
                return

    def remove(self) -> None:
        """Runs of statements, halved from the whole down to one."""
        length = max(len(edits.statements(ast.parse(self.text))) // 2, 1)
        while True:
            self.every(edits.remove(length))
            if length == 1:
                return
            length //= 2

    def every(self, find: edits.Find) -> None:
        """Try the edits of one kind; after one that helps, go on at the same place of what is then there."""
        k, found = 0, find(ast.parse(self.text))
        while k < len(found):
            if self.tried(found[k]):
                found = find(ast.parse(self.text))
            else:
                k += 1

    def tried(self, edit: edits.Edit) -> bool:
        """Keep the result of an edit if it is a smaller program that still fails."""
        tree = ast.parse(self.text)
        if not edit(tree) or not repair(tree):
            return False
        prune(tree)
        fill(tree)
        text = written(tree)
        if self.known.get(text) is False or (edits.loose(text) and not edits.loose(self.text)):
            return False
        parsed = parsed_quietly(text)
        if parsed is None:
            return False
        measured = size(parsed, text)
        if measured >= self.size or not self.asked(text):
            return False
        self.text, self.size = text, measured
        return True

    def finished(self) -> str:
        """The best program with names in order, if that fails as well."""
        for text in tidied(self.text):
            try:
                if self.known.get(text) or (text not in self.known and self.fails(text)):
                    return text
            except SyntaxError:
                continue
        return self.text


def written(tree: ast.Module) -> str:
    """The text of a tree that edits changed; "" where it has none."""
    try:
        return ast.unparse(ast.fix_missing_locations(tree)) + "\n"
    except (ValueError, TypeError, AttributeError, IndexError, RecursionError):
        return ""


def parsed_quietly(text: str) -> ast.Module | None:
    """The tree of a program; None for what is none, or one that Python warns of."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            tree = ast.parse(text)
            compile(tree, "candidate", "exec")
    except (SyntaxError, ValueError, RecursionError):
        return None
    return tree if text else None
