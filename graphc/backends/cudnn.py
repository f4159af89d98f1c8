"""cuDNN: not available in this version. Its switches can be set and change nothing: bits are always the same."""

enabled = True
benchmark = False
deterministic = False
allow_tf32 = True


def is_available() -> bool:
    """False."""
    return False


def version() -> None:
    """None: there is none."""
