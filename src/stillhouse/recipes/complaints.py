"""What is wrong with a recipe, in one sentence with file, line and a did-you-mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from stillhouse.errors import did_you_mean
from stillhouse.recipes.schema import Recipe

UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def explain(error: ValidationError, path: Path, overrides: Sequence[str]) -> str:
    """The first and most telling complaint, with its place."""
    complaints = error.errors(include_url=False)
    # a misspelt key is the cause of what else is missing
    first = next((c for c in complaints if c["type"] in UNKNOWN), complaints[0])
    keys, line = locate(path, first["loc"], keep_last=first["type"] in UNKNOWN)
    dotted = ".".join(keys) or "the recipe"
    given = next((w for w in overrides if w.partition("=")[0] == dotted), None)
    place = f"{given!r}" if given else f"{path}:{line}" if line else str(path)
    more = len(complaints) - 1
    also = f" (and {more} more)" if more and first["type"] not in UNKNOWN else ""
    return f"{place}: {sentence(first, dotted)}{also}"


def sentence(complaint: Mapping[str, Any], dotted: str) -> str:
    """What one complaint says."""
    context = complaint.get("ctx", {})
    match complaint["type"]:
        case kind if kind in UNKNOWN:
            key = dotted.rpartition(".")[2]
            return f"unknown key {dotted}{did_you_mean(key, siblings(complaint['loc']))}"
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
            tag = context["tag"]
            hint = did_you_mean(tag, tags) or f"; there are {', '.join(sorted(tags))}"
            return f"{dotted} has no {bare(context)} {tag!r}{hint}"
        case "union_tag_not_found":
            return f"{dotted} must say its {bare(context)}"
        case "missing" | "missing_argument":
            return f"{dotted} is missing"
        case "value_error":
            reason = str(context["error"])
            return reason if dotted == "the recipe" else f"{dotted}: {reason}"
    value = complaint.get("input")
    said = complaint["msg"][:1].lower() + complaint["msg"][1:]
    return f"{dotted}: {said}, and is {value!r}"


def bare(context: Mapping[str, Any]) -> str:
    """The key that tells the members of a union apart."""
    return str(context["discriminator"]).strip("'")


def locate(path: Path, loc: Sequence[Any], *, keep_last: bool) -> tuple[list[str], int | None]:
    """The keys of a complaint as the file has them, and the line of the last that it has.

    The path of a complaint also holds the tags of unions, which no file spells as keys.
    """
    try:
        node: Any = yaml.compose(path.read_text(encoding="utf-8"))
    except (OSError, yaml.YAMLError):
        node = None
    keys: list[str] = []
    line = None
    known = names()
    for position, part in enumerate(loc):
        inner = child(node, part)
        if inner is not None:
            line, node = inner[0].start_mark.line + 1, inner[1]
        elif not (str(part) in known or (keep_last and position == len(loc) - 1)):
            continue
        else:
            node = None
        keys.append(str(part))
    return keys, line


def child(node: Any, part: Any) -> tuple[Any, Any] | None:
    """The key and value nodes of a part of a YAML node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


def names() -> set[str]:
    """Every key that some part of a recipe has."""
    schema = TypeAdapter(Recipe).json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}


def siblings(loc: Sequence[Any]) -> list[str]:
    """The keys that could have been meant: of the section if it can be told, else of all."""
    schema = TypeAdapter(Recipe).json_schema()
    if len(loc) == 1:
        return list(schema["properties"])
    defs = schema.get("$defs", {})
    tag = str(loc[-2]).lower()
    for title, part in defs.items():
        properties = part.get("properties", {})
        consts = {str(properties.get(k, {}).get("const", "")).lower() for k in ("kind", "name")}
        if tag in consts or title.lower() == tag:
            return list(properties)
    return sorted(names())
