"""From a file and `key=value` words to a recipe."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from stillhouse.errors import UserError, did_you_mean
from stillhouse.recipes.complaints import explain
from stillhouse.recipes.schema import Recipe

LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C where it can be, ten times as fast
ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)
# Sections that a bare word names: `student=timm/resnet18` changes the name and keeps the rest.
NAMED = ("student", "teacher", "data", "task")
RECIPE = "recipe.yaml"  # what a run's folder calls its own
# What may differ between two runs that are the same experiment.
DISPLAY = ("engine", "title", "paper", "control", "study")


def zoo() -> dict[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("stillhouse.recipes").joinpath("zoo")))
    found = sorted(folder.rglob("*.yaml"))
    return {str(path.relative_to(folder).with_suffix("")): path for path in found}


def find(recipe: str | Path) -> Path:
    """The file of a recipe: a path, or the name of one in the zoo."""
    path = Path(recipe)
    if path.is_file():
        return path
    if (path / RECIPE).is_file():
        return path / RECIPE  # a run
    known = zoo()
    name = str(recipe).removesuffix(".yaml")
    if name in known:
        return known[name]
    if path.is_dir():
        raise UserError(f"{path} is a folder, and a recipe is a YAML file")
    near = [str(p) for p in path.parent.glob("*.y*ml")] if path.parent.is_dir() else []
    raise UserError(
        f"no recipe {recipe}: neither a file nor in `stillhouse recipes ls`"
        + did_you_mean(str(recipe), [*known, *near])
    )


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe with `key=value` words laid over it."""
    path = find(recipe)
    content = read(path)
    merged = override(content, overrides)
    return check(merged, path, overrides)


def check(content: Any, path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The typed recipe, or one sentence that says where it is wrong."""
    try:
        return ADAPTER.validate_python(content)
    except ValidationError as error:
        raise UserError(explain(error, path, overrides)) from error


def read(path: Path) -> dict[str, Any]:
    """The plain content of a recipe file, laid over all that it `extends`."""
    content, *above = layers(path).values()
    for layer in above:
        content = merge(content, layer)
    return content


def layers(path: Path, above: tuple[Path, ...] = ()) -> dict[Path, dict[str, Any]]:
    """What each file says itself, the lowest first: the later of a list lies over the earlier.

    What several extend lies once beneath them all, so that a pair and a method of one base combine.
    """
    here = path.resolve()
    if here in above:
        circle = " -> ".join(str(one) for one in (*above[above.index(here) :], here))
        raise UserError(f"{path}: extends goes round in a circle: {circle}; take one of them out")
    content = parse(path)
    found: dict[Path, dict[str, Any]] = {}
    for base in bases(path, content.pop("extends", [])):
        for place, layer in layers(base, (*above, here)).items():
            found.setdefault(place, layer)
    return {**found, here: content}


def bases(path: Path, said: Any) -> list[Path]:
    """The files of what `extends` says: names of the zoo, or files beside this one."""
    names = [said] if isinstance(said, str) else said
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(f"{path}: extends names a recipe or a list of them, and is {said!r}")
    beside = {name: path.parent / name for name in names}
    return [beside[name] if beside[name].is_file() else find(name) for name in names]


def parse(path: Path) -> dict[str, Any]:
    """The mapping that a YAML file holds."""
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), LOADER)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or "it cannot be parsed"
        raise UserError(f"{path}{line}: this is no YAML: {problem}") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text: {error}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: a recipe is a mapping of keys, and this is {type(content).__name__}"
        )
    return content


def merge(below: dict[str, Any], above: dict[str, Any]) -> dict[str, Any]:
    """One mapping over another, key by key."""
    return laid(settle(below, above), above)


def laid(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Both mappings in one, and a copy of whatever either holds."""
    merged = {str(key): deepcopy(value) for key, value in below.items()}
    for key, value in above.items():
        old = merged.get(str(key))
        both = isinstance(old, dict) and isinstance(value, dict)
        merged[str(key)] = laid(old, value) if both else deepcopy(value)
    return merged


def settle(below: dict[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """The lower mapping without what the upper one replaces as a whole.

    A method, optimiser or schedule of another name takes none of the options of the one before.
    """
    settled = dict(below)
    for key, value in above.items():
        old = settled.get(key)
        if not isinstance(old, dict) or not isinstance(value, dict):
            settled.pop(key, None)  # a list is not merged into a mapping, nor into another list
            continue
        renamed = any(k in value and value[k] != old.get(k) for k in ("kind", "name"))
        if renamed and key not in NAMED:
            settled[key] = {}
        else:
            settled[key] = settle(old, value)
    return settled


def override(content: dict[str, Any], words: Sequence[str]) -> dict[str, Any]:
    """A mapping with `key=value` words laid over it, each value read as YAML."""
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key:
            raise UserError(f"{word!r} is no override; write key=value, as in method.temperature=2")
        value = spelt(text, word) if text else None
        content = merge(content, nest(content, key.split("."), value))
    return content


def spelt(text: str, word: str) -> Any:
    """What a piece of a word says, read as YAML."""
    try:
        return yaml.load(text, LOADER)
    except yaml.YAMLError as error:
        raise UserError(f"{word!r}: {text!r} is no YAML value; quote it") from error


def nest(content: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """`a.b=value` as a mapping of mappings; a bare word for a named section is its name."""
    head, *rest = keys
    inside = content.get(head)
    if rest and isinstance(inside, list) and rest[0].isdigit():
        return {head: replaced(inside, head, rest, value)}
    if rest:
        # `method: kd` in the file and `method.temperature=2` over it are one mapping
        below = {"name": inside} if isinstance(inside, str) else inside
        deeper = nest(below if isinstance(below, Mapping) else {}, rest, value)
        return {head: {"name": inside, **deeper} if isinstance(inside, str) else deeper}
    if isinstance(value, str) and head in (*NAMED, "method"):
        return {head: {"name": value}}
    return {head: value}


def replaced(several: list[Any], head: str, keys: Sequence[str], value: Any) -> list[Any]:
    """A list in which one thing, called by its number, has another value under a key."""
    number, *rest = int(keys[0]), *keys[1:]
    if number >= len(several):
        raise UserError(
            f"{head}.{number}: {head} lists {len(several)}, counted from 0; name one of them"
        )
    below = {"name": several[number]} if isinstance(several[number], str) else several[number]
    one = merge(below, nest(below, rest, value)) if rest else value
    return [*several[:number], one, *several[number + 1 :]]


def plain(recipe: Recipe) -> dict[str, Any]:
    """The recipe as YAML and JSON can say it."""
    content = ADAPTER.dump_python(recipe, mode="json")
    assert isinstance(content, dict)
    return content


@cache
def adapter_of(method: type) -> TypeAdapter[Any]:
    """What writes the methods of a type; making it takes longer than writing."""
    return TypeAdapter(method)


def plain_method(method: Any) -> dict[str, Any]:
    """One method as a recipe would spell it."""
    content = adapter_of(type(method)).dump_python(method, mode="json")
    assert isinstance(content, dict)
    return content


def changed(recipe: Recipe, parts: Mapping[str, Any], words: Sequence[str] = ()) -> Recipe:
    """The recipe with whole sections replaced, then with `key=value` words laid over it."""
    content = {**plain(recipe), **parts}
    if isinstance(content["method"], list) and len(content["method"]) == 1:
        content["method"] = content["method"][0]  # so that `method.temperature` has a place
    return check(override(content, words), Path("the recipe"), words)


def text(recipe: Recipe) -> str:
    """The resolved recipe as a YAML file."""
    return yaml.safe_dump(plain(recipe), sort_keys=False, allow_unicode=True, width=100)


def digest(recipe: Recipe) -> str:
    """A hash of all that a result depends on."""
    content = {k: v for k, v in plain(recipe).items() if k not in DISPLAY}
    if store := (content["teacher"] or {}).get("store"):
        del store["path"]  # where answers lie changes none of them
    words = json.dumps(content, sort_keys=True)
    return hashlib.sha256(words.encode()).hexdigest()[:16]
