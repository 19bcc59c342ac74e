"""Errors in a recipe as one sentence with file, line and a suggestion."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from stillhouse.data.formats.yaml_limits import LOADER
from stillhouse.errors import QUOTED, did_you_mean, quote
from stillhouse.recipes.schema import Recipe

UNKNOWN_KEY = ("unexpected_keyword_argument", "extra_forbidden")
WHOLE = "the recipe"  # the place of an error that belongs to no key

# Names of earlier versions, each with the name that replaced it:
#   "train.average": "train.ema_decay"  a key, wherever its dotted path ends like this
#   "data.name=digits/raw": "digits"    a value under a key (short forms such as `data: x` included)
#   "extends=digits/raw": "digits/one"  a recipe of the package
RENAMED: dict[str, str] = {
    "train.average": "train.ema_decay",
    "train.course": "train.schedule_epochs",
    "schedule.rise": "schedule.pct_start",
    "student.start": "student.pretrained",
    "teacher.start": "teacher.pretrained",
    "teacher.teach": "teacher.ensemble",
    "teacher.ensemble=apart": "separate",
    "teacher.ensemble=together": "mean",
}


def describe_error(error: ValidationError, path: Path, overrides: Sequence[str]) -> str:
    """The most telling error of a validation, with its place."""
    problems = error.errors(include_url=False)
    # A misspelt key also causes errors about the key that is then missing.
    first = next((p for p in problems if p["type"] in UNKNOWN_KEY), problems[0])
    unknown = first["type"] in UNKNOWN_KEY
    keys, line = locate(path, first["loc"], keep_last=unknown)
    whole = ".".join(keys) or WHOLE
    dotted = whole if len(whole) <= QUOTED else f"{whole[:QUOTED]}…"
    said = describe_problem(first, dotted)
    overrides_here = [o for o in overrides if sets_place(o, whole, said, unknown=unknown)]
    more = 0 if unknown else len(problems) - 1
    also = f" (and {more} more error{'s' if more > 1 else ''})" if more else ""
    place = describe_place(path, line, overrides_here)
    return f"{place}: {said}{also}"


def sets_place(override: str, place: str, said: str, *, unknown: bool) -> bool:
    """Whether an override sets what an error at a place is about.

    It sets the place, a section around it, or an option inside it that the message names.
    """
    key = override.partition("=")[0]
    if key == place or place.startswith(f"{key}."):
        return True
    if place != WHOLE and not key.startswith(f"{place}."):
        return False
    # `nosuch.key=3` is the place of the unknown key `nosuch`
    return unknown or re.search(rf"\b{re.escape(key.rpartition('.')[2])}\b", said) is not None


def describe_place(path: Path, line: int | None, overrides: Sequence[str]) -> str:
    """The override that set a key, if there is one, else file and line."""
    if overrides:
        return quote(overrides[-1])  # the last one wins
    return f"{path}:{line}" if line else str(path)


def describe_problem(problem: Mapping[str, Any], dotted: str) -> str:
    """An error of pydantic as a short message."""
    context = problem.get("ctx", {})
    match problem["type"]:
        case kind if kind in UNKNOWN_KEY:
            if replacement := renamed_key(dotted):
                return f"`{dotted}` is now `{replacement}`"
            key = dotted.rpartition(".")[2]
            hint = full_key_hint(dotted) or did_you_mean(key, sibling_keys(problem["loc"]))
            return f"unknown key {dotted}{hint}"
        case "union_tag_invalid":
            tags = [tag.strip().strip("'") for tag in context["expected_tags"].split(",")]
            tag = context["tag"]
            hint = did_you_mean(tag, tags) or f"; choose from {', '.join(sorted(tags))}"
            return f"{dotted}: unknown {discriminator(context)} {quote(tag)}{hint}"
        case "union_tag_not_found":
            return f"{dotted}: {discriminator(context)} is missing"
        case "missing" | "missing_argument":
            return f"{dotted} is missing"
        case "value_error":
            reason = str(context["error"])
            return reason if dotted == WHOLE else f"{dotted}: {reason}"
    message = problem["msg"][:1].lower() + problem["msg"][1:]
    return f"{dotted}: {message}; got {quote(problem.get('input'))}"


def discriminator(context: Mapping[str, Any]) -> str:
    """The key that selects the member of a union: `name` or `kind`."""
    return str(context["discriminator"]).strip("'")


# ------------------------------------------------------------------------ renamed keys and values


def renamed_key(dotted: str) -> str | None:
    """The dotted path that replaced a key of an earlier version; None if it never existed."""
    parts = [part for part in dotted.split(".") if not part.isdigit()]
    for start in range(len(parts)):
        replacement = RENAMED.get(".".join(parts[start:]))
        if replacement is not None:
            return ".".join([*parts[:start], replacement])
    return None


def describe_renamed_value(content: Any, path: Path, overrides: Sequence[str]) -> str | None:
    """The message for a value of an earlier version, with its place; None if there is none.

    The schema cannot refuse all of these: names of data sets and networks are free text to it.
    """
    renamed = [old.partition("=")[::2] for old in RENAMED if "=" in old]
    for loc, value in walk_values(content) if renamed else ():
        dotted = ".".join(part for part in map(str, loc) if not part.isdigit())
        for key, old in renamed:
            section, _, last = key.rpartition(".")
            # `data: x` is short for {name: x}, `schedule: x` for {kind: x}
            forms = (key, section) if section and last in ("name", "kind") else (key,)
            if value == old and any(f".{dotted}".endswith(f".{form}") for form in forms):
                _, line = locate(path, loc, keep_last=True)
                set_by = [o for o in overrides if o.partition("=")[2] == old]
                place = describe_place(path, line, set_by)
                return f"{place}: {dotted} `{old}` is now `{RENAMED[f'{key}={old}']}`"
    return None


def walk_values(content: Any, loc: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, str]]:
    """Every string value of nested mappings and lists with its location."""
    if isinstance(content, str):
        yield loc, content
    elif isinstance(content, Mapping):
        for key, value in content.items():
            yield from walk_values(value, (*loc, str(key)))
    elif isinstance(content, list | tuple):
        for number, value in enumerate(content):
            yield from walk_values(value, (*loc, number))


# --------------------------------------------------------------------------------------- the place


def locate(path: Path, loc: Sequence[Any], *, keep_last: bool) -> tuple[list[str], int | None]:
    """The keys of an error's location as the file has them, and the line of the last one there.

    The location that pydantic gives also contains the tags of unions, which are no keys of a file.
    """
    try:
        node: Any = yaml.compose(path.read_text(encoding="utf-8"), LOADER)
    except (OSError, UnicodeDecodeError, yaml.YAMLError):
        node = None
    keys: list[str] = []
    line = None
    known = known_keys()
    for position, part in enumerate(loc):
        inner = child_node(node, part)
        if inner is not None:
            line, node = inner[0].start_mark.line + 1, inner[1]
        elif not (str(part) in known or (keep_last and position == len(loc) - 1)):
            continue
        else:
            node = None
        keys.append(str(part))
    return keys, line


def child_node(node: Any, part: Any) -> tuple[Any, Any] | None:
    """The key node and the value node under a key or index of a YAML node."""
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if key.value == str(part):
                return key, value
    if isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
        return node.value[part], node.value[part]
    return None


@cache
def recipe_schema() -> dict[str, Any]:
    """The JSON schema of a recipe, which takes a third of a second to make."""
    return TypeAdapter(Recipe).json_schema()


def known_keys() -> set[str]:
    """The keys of all sections of a recipe."""
    schema = recipe_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return {key for part in parts for key in part.get("properties", {})}


SHORT = {  # keys that are often written alone
    **{key: f"train.{key}" for key in ("epochs", "schedule", "optimiser", "clip", "accumulate")},
    **{key: f"train.optimiser.{key}" for key in ("lr", "weight_decay", "momentum")},
    **{key: f"data.{key}" for key in ("batch", "path", "transforms", "views", "holdout")},
    **{key: f"method.{key}" for key in ("temperature", "weight", "alpha", "beta", "warmup")},
    **{key: f"engine.{key}" for key in ("device", "precision", "workers", "threads", "compile")},
    "learning_rate": "train.optimiser.lr",
    "batch_size": "data.batch",
    "weights": "teacher.weights",
    "seeds": "study.seeds",
}


def full_key_hint(dotted: str) -> str:
    """A suggestion of the whole path of a key that was written alone; empty for other keys."""
    return f"; did you mean '{SHORT[dotted]}'?" if dotted in SHORT else ""


def sibling_keys(loc: Sequence[Any]) -> list[str]:
    """The keys of the section of a location; of all sections if it is not known which it is."""
    schema = recipe_schema()
    if len(loc) == 1:
        return list(schema["properties"])
    tag = str(loc[-2]).lower()
    for title, part in schema.get("$defs", {}).items():
        properties = part.get("properties", {})
        consts = {str(properties.get(k, {}).get("const", "")).lower() for k in ("kind", "name")}
        if tag in consts or title.lower() == tag:
            return list(properties)
    return sorted(known_keys())
