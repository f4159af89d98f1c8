"""The op table as attributes: `ops.add(x, y)`. The families are imported at the first use, not with the package."""

from __future__ import annotations

from graphc.ir.op import Op, op_named


class _Ops:
    """Looks an op up once; afterwards it is a plain attribute."""

    def __getattr__(self, name: str) -> Op:
        try:
            found = op_named(name)
        except KeyError:
            raise AttributeError(f"no op is called {name}") from None
        self.__dict__[name] = found
        return found


ops = _Ops()
