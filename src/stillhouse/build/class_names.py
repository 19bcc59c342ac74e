"""The names of a network's outputs, from a recipe or from a file beside its weights."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.formats.text import read_names, read_text
from stillhouse.errors import UserError

_REMEDY = (
    "teacher.classes must be a list of names, a text file with one name per line, a JSON file with "
    "a list of names or with id2label, or the number of classes"
)


def read_class_names(classes: Sequence[str] | Path) -> tuple[str, ...]:
    """The names, or those in a file; raises UserError for one that has none, or one name twice."""
    if not isinstance(classes, Path):
        names, place = tuple(classes), "teacher.classes"
    elif classes.suffix == ".json":
        names, place = parse_names(classes), str(classes)
    else:
        return read_names(classes, _REMEDY)
    if not names:
        raise UserError(f"{place} has no names; {_REMEDY}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UserError(f"{place} has {twice!r} twice; give each class a name of its own")
    return names


def parse_names(path: Path) -> tuple[str, ...]:
    """The names in a JSON file: a list, {"0": NAME}, or either under `id2label` or `classes`."""
    try:
        content: Any = json.loads(read_text(path, _REMEDY))
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is not valid JSON; {_REMEDY}") from error
    if isinstance(content, Mapping):
        content = content.get("id2label") or content.get("classes") or content
    if isinstance(content, Mapping):  # the index of each class as a text
        numbers = [str(number) for number in range(len(content))]
        content = [content[n] for n in numbers] if set(numbers) == set(content) else None
    if not isinstance(content, list) or not all(isinstance(name, str) for name in content):
        raise UserError(f"{path} has no names of classes; {_REMEDY}")
    return tuple(content)
