"""What the name of a tap says: which module, its output or its input, and which call of it."""

from __future__ import annotations

import re
from typing import NamedTuple

INPUT = "@input"  # after a path: the first tensor that the module is given, not its output
PRE = "@pre"  # after a path or an alias: the map before the ReLU that ends it

_TAP = re.compile(rf"(.*?)({INPUT})?(?:@(\d+))?")


class TapPath(NamedTuple):
    """`PATH`, `PATH@input`, `PATH@1`, `PATH@input@1`: a tensor of one forward."""

    module: str  # a path of `named_modules()`; "" is the network itself
    is_input: bool = False
    call: int | None = None  # which call of the module, from 0; None where it runs once

    @classmethod
    def parse(cls, text: str) -> TapPath:
        """The parts of a tap's path."""
        match = _TAP.fullmatch(text)
        if match is None:  # a line break, which no path has
            return cls(text)
        module, is_input, call = match.groups()
        return cls(module, is_input is not None, None if call is None else int(call))

    def __str__(self) -> str:
        call = "" if self.call is None else f"@{self.call}"
        return f"{self.module}{INPUT if self.is_input else ''}{call}"

    def inside(self, prefix: str) -> TapPath:
        """The same tap of a network that holds this one at the path `prefix`."""
        return self._replace(module=join(prefix, self.module))


def join(prefix: str, path: str) -> str:
    """Two paths in one; either may be empty."""
    return f"{prefix}.{path}" if prefix and path else prefix or path
