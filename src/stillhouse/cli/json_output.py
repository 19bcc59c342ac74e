"""The output of `--json`: one object on stdout, and everything else on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, redirect_stdout
from typing import Any


@contextmanager
def quiet_stdout(requested: bool) -> Iterator[None]:
    """A context in which prints go to stderr if JSON is requested."""
    if not requested:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield


def print_json(content: Mapping[str, Any]) -> None:
    """Print one object; infinite and NaN numbers become null."""
    from stillhouse.files import replace_nonfinite

    print(json.dumps(replace_nonfinite(content), indent=2, ensure_ascii=False, allow_nan=False))
