"""Data sets, samplers and loaders."""

__all__: list[str] = []
