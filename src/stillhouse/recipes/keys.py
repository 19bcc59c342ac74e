"""The reference of all keys of a recipe, made from its schema."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import MISSING, Field, fields, is_dataclass
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin, get_type_hints

from stillhouse.data.mixing import Mix
from stillhouse.data.mosaic import Mosaic
from stillhouse.recipes.key_sentences import SENTENCES
from stillhouse.recipes.schema import (
    Comparison,
    Data,
    Engine,
    Network,
    Recipe,
    Searched,
    StoreSpec,
    StudyPair,
    TeacherSpec,
    Training,
)
from stillhouse.recipes.splits import SplitSpec, UnlabelledSpec

SECTIONS: dict[str, Any] = {
    "": Recipe,
    "data": Data,
    "data.train": SplitSpec,
    "data.unlabelled": UnlabelledSpec,
    "data.mix": Mix,
    "data.mosaic": Mosaic,
    "student": Network,
    "teacher": TeacherSpec,
    "teacher.store": StoreSpec,
    "train": Training,
    "engine": Engine,
    "study": Comparison,
    "study.pairs.LABEL": StudyPair,
    "study.searched.LABEL": Searched,
}
WORDS = {int: "integer", float: "number", str: "text", bool: "true or false", Path: "path"}
PAGE = """# All keys of a recipe

This page is made from the schema by `stillhouse recipes keys`. [Recipes](recipes.md) explains the
keys with examples, and lists the options of optimisers, schedules and transforms;
`stillhouse methods NAME` lists those of a method.
"""


class Key(NamedTuple):
    """One key: its path, the type of its value, its default, and what it does."""

    path: str
    type: str
    default: str
    sentence: str


def list_keys(section: str) -> Iterator[Key]:
    """The keys of a section, in the order of its class."""
    spec = SECTIONS[section]
    hints = get_type_hints(spec, include_extras=True)
    for field in fields(spec):
        path = f"{section}.{field.name}".lstrip(".")
        sentence = SENTENCES[f"{spec.__name__}.{field.name}"]
        yield Key(path, describe_type(hints[field.name]), describe_default(field), sentence)


def describe_type(kind: Any) -> str:
    """The type of a value in words: `number or null`, `list of texts`."""
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return describe_type(parts[0])
    if origin is Literal:
        return " or ".join(str(part) for part in parts)
    if origin is tuple:
        inner = {describe_type(part) for part in parts if part is not Ellipsis}
        return f"list of {' and '.join(f'{word}s' for word in sorted(inner))}"
    if origin is dict:
        return f"mapping to {describe_type(parts[1])}"
    if parts:
        words = dict.fromkeys(describe_type(part) for part in parts)
        return " or ".join(words)
    if kind is NoneType:
        return "null"
    return WORDS.get(kind, "section" if is_dataclass(kind) else "any value")


def describe_default(field: Field[Any]) -> str:
    """The default of a key as a recipe writes it; "required" where there is none."""
    if field.default_factory is not MISSING:
        return "{}"
    value = field.default
    if value is MISSING:
        return "required"
    if is_dataclass(value):
        return str(getattr(value, "kind", getattr(value, "name", "its defaults")))
    if isinstance(value, tuple):
        names = (str(getattr(item, "name", item)) for item in value)
        return f"[{', '.join(names)}]"
    return value if isinstance(value, str) and value else json.dumps(value)


def write_reference() -> str:
    """The page with a table of the keys of each section, in Markdown."""
    parts = [PAGE]
    for section, spec in SECTIONS.items():
        summary = str(spec.__doc__).partition("\n")[0]
        title = f"`{section}`" if section else "The recipe"
        rows = [
            f"| `{key.path}` | {key.type} | `{key.default}` | {key.sentence} |"
            for key in list_keys(section)
        ]
        head = ["| key | type | default | |", "|---|---|---|---|"]
        parts.append("\n".join([f"## {title}", "", summary, "", *head, *rows, ""]))
    return "\n".join(parts)
