"""Limits of YAML files, checked before their content is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NoReturn

import yaml

MAX_DEPTH = 40  # mappings and lists inside each other
MAX_VALUES = 100_000  # with those that an alias repeats
MAX_LETTERS = 4096  # of one text, which may be a path

TOO_DEEP = f"more than {MAX_DEPTH} mappings and lists inside each other"
# in C where it can be, ten times as fast
LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


def refuse(problem: str, mark: Any, cause: Exception | None = None) -> NoReturn:
    """Raise a YAMLError with its place."""
    raise yaml.MarkedYAMLError(problem=problem, problem_mark=mark) from cause


@dataclass
class Extent:
    """How many values a collection has, and how deep it is, with what its aliases repeat.

    A long text counts as several values.
    """

    anchor: str | None = None
    values: int = 1
    depth: int = 0


def check_limits(text: str) -> None:
    """Raise a YAMLError for data that are too deep or too many, without making them.

    Loading alone would end in a crash for deep nesting, and in a hang for aliases of aliases.
    """
    anchors: dict[str, Extent] = {}
    open_ones = [Extent()]
    for event in yaml.parse(text, LOADER):
        if isinstance(event, yaml.CollectionStartEvent):
            anchors.pop(str(event.anchor), None)  # until its end, an alias would be in itself
            open_ones.append(Extent(event.anchor, depth=1))
            if len(open_ones) > MAX_DEPTH:
                refuse(TOO_DEEP, event.start_mark)
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            inner = open_ones.pop()
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor not in anchors:
                name = str(event.anchor)[:20]
                refuse(f"the alias *{name} has no anchor before it", event.start_mark)
            inner = anchors[event.anchor]
        elif isinstance(event, yaml.ScalarEvent):
            inner = Extent(event.anchor, 1 + len(event.value) // 64)
            if len(event.value) > MAX_LETTERS:
                refuse(f"a text of more than {MAX_LETTERS} letters", event.start_mark)
        else:
            continue
        if inner.anchor:
            anchors[inner.anchor] = inner
        outer = open_ones[-1]
        outer.values += inner.values
        outer.depth = max(outer.depth, inner.depth + 1)
        if outer.values > MAX_VALUES:
            refuse(f"more than {MAX_VALUES:,} values", event.start_mark)
        if len(open_ones) + inner.depth > MAX_DEPTH:
            refuse(TOO_DEEP, event.start_mark)
