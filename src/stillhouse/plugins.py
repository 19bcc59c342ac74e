"""What installed packages register: networks, data sets and methods."""

from __future__ import annotations

from functools import cache
from importlib import metadata


@cache
def entry_points(group: str) -> tuple[metadata.EntryPoint, ...]:
    """The entry points of a group, read once: to find them opens files of every package."""
    return tuple(metadata.entry_points(group=group))
