"""Settings read from the environment once, at first use. Every one is documented in docs/config.md."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path


def _flag(name: str, default: bool) -> bool:
    value = os.environ.get(name)
    return default if value is None else value.strip().lower() not in ("0", "false", "no", "off", "")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _threads() -> int:
    value = os.environ.get("GRAPHC_NUM_THREADS", "")
    return max(1, int(value)) if value.isdigit() else _cores()


def _cache_dir() -> Path:
    explicit = os.environ.get("GRAPHC_CACHE_DIR")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "graphc" / "v1"


@dataclass
class Config:
    """The settings of this process. Change them before the first compilation."""

    compile: bool = field(default_factory=lambda: _flag("GRAPHC_COMPILE", True))
    # "auto": where it is faster, "always", or "never"
    lockstep: str = field(default_factory=lambda: os.environ.get("GRAPHC_LOCKSTEP", "auto").strip().lower())
    cache: bool = field(default_factory=lambda: _flag("GRAPHC_CACHE", True))
    cache_dir: Path = field(default_factory=_cache_dir)
    num_threads: int = field(default_factory=_threads)
    target: str = field(default_factory=lambda: os.environ.get("GRAPHC_TARGET", ""))
    verify: bool = field(default_factory=lambda: _flag("GRAPHC_VERIFY", False))
    audit: str = field(default_factory=lambda: os.environ.get("GRAPHC_AUDIT", "").strip().lower())  # see audit_default
    debug: int = field(default_factory=lambda: int(os.environ.get("GRAPHC_DEBUG", "0") or "0"))

    def audit_default(self) -> bool | int | float:
        """What compile(audit=…) is where it is not given."""
        text = self.audit
        if text in ("", "0", "false", "no", "off"):
            return False
        if text in ("true", "yes", "on"):
            return True
        return int(text) if text.isdigit() else float(text)


config = Config()
