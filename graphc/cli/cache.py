"""`graphc cache`: where compiled code is kept, and cleaning it."""

from __future__ import annotations

import click

from graphc.cli.output import bytes_text, counted, say, say_json
from graphc.config import config
from graphc.runtime.cache import ObjectCache


def run(clear: bool, verify: bool, as_json: bool) -> int:
    """The command. Nothing in the folder is ever needed: what is missing is compiled again."""
    if clear and verify:
        raise click.UsageError("--clear and --verify exclude each other")
    store = ObjectCache(config.cache_dir / "objects")
    damaged = store.verify() if verify else 0
    before = store.info()
    if clear:
        store.clear()
    left = store.info()
    if as_json:
        say_json(
            {
                "folder": str(store.folder),
                "enabled": config.cache,
                "entries": left.entries,
                "bytes": left.nbytes,
                "limit_bytes": store.max_bytes,
                "deleted": before.entries - left.entries + damaged,
            }
        )
        return 0
    say(str(store.folder) + ("" if config.cache else " (not used: GRAPHC_CACHE=0)"))
    if clear:
        say(f"{counted(before.entries - left.entries, 'object')} deleted, {bytes_text(before.nbytes - left.nbytes)}")
    elif verify:
        say(f"{counted(damaged, 'damaged object')} deleted")
    say(f"{counted(left.entries, 'object')}, {bytes_text(left.nbytes)} of at most {bytes_text(store.max_bytes)}")
    return 0
