"""What users call: compile, trace, load and their companions."""

from __future__ import annotations

from graphc.frontend import methods as methods  # Tensor gets its methods
from graphc.frontend.record.compiled import RecordingWarning, compile, is_compiling, no_retrace
from graphc.frontend.record.export import Program, load, trace

__all__ = ["Program", "RecordingWarning", "compile", "is_compiling", "load", "no_retrace", "trace"]
