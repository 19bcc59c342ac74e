"""Recipes from YAML files and `key=value` overrides."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from copy import deepcopy
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from stillhouse.data.catalogue import entries
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.files import check_inside, read_limited
from stillhouse.models.factories import search_folder
from stillhouse.recipes.complaints import RENAMED, describe_error, describe_renamed_value
from stillhouse.recipes.defaults import with_defaults
from stillhouse.recipes.paths import anchor_paths
from stillhouse.recipes.plain_yaml import FILE_LIMIT, parse_yaml
from stillhouse.recipes.schema import Recipe

ADAPTER: TypeAdapter[Recipe] = TypeAdapter(Recipe)
# Sections that a string names: `student=timm/resnet18` changes the name and keeps the rest.
NAMED_SECTIONS = ("student", "teacher", "data", "task")
CLASSIFICATION = "classification"
TASK_OF_KIND = {
    "labels": "multilabel",
    "objects": "detection",
    "masks": "semantic",
    "instances": "instance",
}
# Keys that belong to the network of a section, and go when a string names another one.
OF_NETWORK = {
    "student": ("options", "weights", "pretrained"),
    "teacher": (
        *("options", "weights", "pretrained", "classes", "mean", "std", "size"),
        *("members", "ensemble"),
    ),
}
RECIPE_FILE = "recipe.yaml"  # the name of the resolved recipe in the folder of a run
MAX_FILES = 50  # that extend each other
# Keys that may differ between two runs of the same experiment.
NOT_IN_DIGEST = ("engine", "title", "paper", "control", "study")


@cache
def zoo() -> Mapping[str, Path]:
    """The recipes that come with the package, by name."""
    folder = Path(str(files("stillhouse.recipes").joinpath("zoo")))
    paths = sorted(folder.rglob("*.yaml"))
    return {str(path.relative_to(folder).with_suffix("")): path for path in paths}


@cache
def zoo_files() -> frozenset[Path]:
    """The files of the recipes that come with the package."""
    return frozenset(path.resolve() for path in zoo().values())


def find_recipe(recipe: str | Path) -> Path:
    """The file of a recipe: a path, the folder of a run, or a name from `zoo`."""
    path = Path(recipe)
    if os.path.isfile(path):  # which is false for a name that no file system takes
        return path
    if os.path.isfile(path / RECIPE_FILE):
        return path / RECIPE_FILE
    known = zoo()
    name = str(recipe).removesuffix(".yaml")
    if name in known:
        return known[name]
    if os.path.isdir(path):
        raise UserError(f"{path} is a folder; a recipe must be a YAML file")
    if replacement := RENAMED.get(f"extends={name}"):
        raise UserError(f"recipe `{name}` is now `{replacement}`")
    near = [str(p) for p in path.parent.glob("*.y*ml")] if os.path.isdir(path.parent) else []
    raise UserError(
        f"recipe {quote(str(recipe))} not found: neither a file nor listed by "
        "`stillhouse recipes ls`" + did_you_mean(str(recipe), [*known, *near])
    )


def load(recipe: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """A recipe from a file, the folder of a run or a name from the zoo, with overrides applied.

    Raises:
        UserError: if the file, an override or a value is wrong, with the place.
    """
    path = find_recipe(recipe)
    search_folder(path.parent)
    if path.name == RECIPE_FILE and os.path.isdir(recipe):
        return load_resolved(path, overrides)
    return validate_recipe(apply_overrides(read_recipe(path), overrides), path, overrides)


def load_resolved(path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The recipe in a folder of results, which is whole: it extends no other file.

    Raises UserError for one that would bring in files from outside of the folder.
    """
    check_inside(path, path.parent)
    content = read_yaml(path)
    if "extends" in content:
        raise UserError(
            f"{path} extends other files, which the recipe in a folder of results does not; copy "
            "it to another folder to use it"
        )
    return validate_recipe(apply_overrides(content, overrides), path, overrides)


def validate_recipe(content: Any, path: Path, overrides: Sequence[str] = ()) -> Recipe:
    """The typed recipe of a mapping; `path` and `overrides` tell where an error is."""
    if message := describe_renamed_value(content, path, overrides):
        raise UserError(message)
    try:
        return ADAPTER.validate_python(with_defaults(with_task(content)))
    except ValidationError as error:
        raise UserError(describe_error(error, path, overrides)) from error


def with_task(content: Any) -> Any:
    """The content with the name of the task that its data are for, if it names none."""
    if not isinstance(content, dict):
        return content
    task = content.get("task", {})
    if not isinstance(task, dict) or "name" in task:
        return content
    data = content.get("data")
    name = data.get("name") if isinstance(data, dict) else data
    default = task_of_data(str(name))
    known = default != CLASSIFICATION
    return {**content, "task": {"name": default, **task}} if known else content


def task_of_data(name: str) -> str:
    """The name of the task that a data set is for."""
    kinds = {known.name: known.kind for known in entries()}
    return TASK_OF_KIND.get(kinds.get(name, "class"), CLASSIFICATION)


# -------------------------------------------------------------------------------------- from files


def read_recipe(path: Path) -> dict[str, Any]:
    """The content of a recipe file, merged over all recipes that it `extends`."""
    content, *layers = read_layers(path).values()
    for layer in layers:
        content = merge_sections(content, layer)
    return content


def read_layers(
    path: Path,
    parents: tuple[Path, ...] = (),
    found: dict[Path, dict[Path, dict[str, Any]]] | None = None,
) -> dict[Path, dict[str, Any]]:
    """The content of a file and of each file it extends, in the order in which they are merged.

    A base that several files extend comes once, before all of them, so that a file for a pair of
    networks and a file for a method can be combined. `found` has the layers of files that were
    read before.
    """
    here, found = path.resolve(), {} if found is None else found
    if here in found:
        return found[here]
    if here in parents:
        circle = " -> ".join(str(one) for one in (*parents[parents.index(here) :], here))
        raise UserError(f"{path}: circular extends: {circle}; remove one of them")
    if len(found) + len(parents) >= MAX_FILES:
        raise UserError(f"{path}: more than {MAX_FILES} files extend each other; merge some")
    content = read_yaml(path)
    if here not in zoo_files():  # those of the package name files of the working directory
        content = anchor_paths(content, path.parent)
    layers: dict[Path, dict[str, Any]] = {}
    for base in base_files(path, content.pop("extends", [])):
        for place, layer in read_layers(base, (*parents, here), found).items():
            layers.setdefault(place, layer)
    found[here] = {**layers, here: content}
    return found[here]


def base_files(path: Path, extends: Any) -> list[Path]:
    """The files that `extends` names: files next to this one, or recipes from the zoo."""
    names = [extends] if isinstance(extends, str) else extends
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise UserError(
            f"{path}: extends must be the name of a recipe or a list of names, got {quote(extends)}"
        )
    beside = {name: path.parent / name for name in names}
    return [beside[n] if os.path.isfile(beside[n]) else find_recipe(n) for n in names]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file."""
    text = ""
    try:
        text = read_limited(path, FILE_LIMIT).decode("utf-8")
        content = parse_yaml(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # which may be after the last line
        line = f":{min(mark.line + 1, len(text.splitlines()))}" if mark else ""
        problem = getattr(error, "problem", None) or "cannot be parsed"
        raise UserError(f"{path}{line}: not valid YAML: {problem}") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read as text: {reason}") from error
    if not isinstance(content, dict):
        raise UserError(
            f"{path}: a recipe must be a mapping of keys to values, got {type(content).__name__}"
        )
    return content


def merge_sections(base: dict[str, Any], update: dict[str, Any]) -> dict[str, Any]:
    """One mapping merged over another, section by section; lists are replaced."""
    return merge_mappings(drop_replaced(base, update), update)


def merge_mappings(base: Mapping[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of both mappings; where both have one, the update's value. Neither is changed."""
    merged = {str(key): deepcopy(value) for key, value in base.items()}
    for key, value in update.items():
        old = merged.get(str(key))
        if isinstance(old, dict) and isinstance(value, dict):
            merged[str(key)] = merge_mappings(old, value)
        else:
            merged[str(key)] = deepcopy(value)
    return merged


def drop_replaced(base: dict[str, Any], update: Mapping[str, Any]) -> dict[str, Any]:
    """The base without the sections that the update replaces instead of merging into them.

    A method, optimiser or schedule with another name takes no options from the one before.
    """
    kept = dict(base)
    for key, value in update.items():
        old = kept.get(key)
        if not isinstance(old, dict) or not isinstance(value, dict):
            kept.pop(key, None)  # a list is not merged into a mapping, nor into another list
            continue
        renamed = any(k in value and value[k] != old.get(k) for k in ("kind", "name"))
        if renamed and key not in NAMED_SECTIONS:
            kept[key] = {}
        else:
            kept[key] = drop_replaced(old, value)
    return kept


# --------------------------------------------------------------------------------------- overrides


def apply_overrides(content: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """A mapping with `key=value` overrides applied; each value is parsed as YAML.

    `student=NAME` and `teacher=NAME` are applied first, because they drop what belongs to the
    network before, but nothing that another override says.
    """
    for override in sorted(overrides, key=lambda override: not names_network(override)):
        key, equals, text = override.partition("=")
        if not equals or not key:
            raise UserError(
                f"{quote(override)} is not an override; write key=value, as in method.temperature=2"
            )
        value = parse_yaml_value(text, override) if text else None
        if isinstance(value, str) and isinstance(section := content.get(key), dict):
            dropped = OF_NETWORK.get(key, ())
            content = {**content, key: {k: v for k, v in section.items() if k not in dropped}}
        content = merge_sections(content, nest_override(content, key.split("."), value))
    return content


def names_network(override: str) -> bool:
    """Whether an override is `student=NAME` or `teacher=NAME`."""
    key, _, text = override.partition("=")
    return key in OF_NETWORK and isinstance(parse_yaml_value(text, override), str)


def parse_yaml_value(text: str, argument: str) -> Any:
    """A value written in YAML; `argument` is what an error quotes as its place."""
    try:
        return parse_yaml(text)
    except yaml.YAMLError as error:
        raise UserError(
            f"{quote(argument)}: {quote(text)} is not a valid YAML value; quote it"
        ) from error


def nest_override(content: Mapping[str, Any], keys: Sequence[str], value: Any) -> dict[str, Any]:
    """`a.b=value` as nested mappings; a string for a named section is its name."""
    head, *rest = keys
    current = content.get(head)
    if rest and isinstance(current, list) and rest[0].isdigit():
        return {head: replace_item(current, head, rest, value)}
    if rest:
        # `method: kd` in the file and `method.temperature=2` over it make one mapping
        section = {"name": current} if isinstance(current, str) else current
        nested = nest_override(section if isinstance(section, Mapping) else {}, rest, value)
        return {head: {"name": current, **nested} if isinstance(current, str) else nested}
    if isinstance(value, str) and head in (*NAMED_SECTIONS, "method"):
        return {head: {"name": value}}
    return {head: value}


def replace_item(items: list[Any], head: str, keys: Sequence[str], value: Any) -> list[Any]:
    """A list with the item at index `keys[0]` replaced, or changed at the keys that follow."""
    index, *rest = int(keys[0]), *keys[1:]
    if index >= len(items):
        raise UserError(
            f"{head}.{index}: index out of range; {head} has {len(items)} items, counted from 0"
        )
    item = {"name": items[index]} if isinstance(items[index], str) else items[index]
    changed = merge_sections(item, nest_override(item, rest, value)) if rest else value
    return [*items[:index], changed, *items[index + 1 :]]


def replace_sections(
    recipe: Recipe, sections: Mapping[str, Any], overrides: Sequence[str] = ()
) -> Recipe:
    """The recipe with whole sections replaced, then with `key=value` overrides applied."""
    content = {**to_dict(recipe), **sections}
    if isinstance(content["method"], list) and len(content["method"]) == 1:
        content["method"] = content["method"][0]  # so that `method.temperature` has a place
    return validate_recipe(apply_overrides(content, overrides), Path("the recipe"), overrides)


# ----------------------------------------------------------------------------------------- to text


def to_dict(recipe: Recipe) -> dict[str, Any]:
    """The recipe as plain values that YAML and JSON can hold."""
    content = ADAPTER.dump_python(recipe, mode="json")
    assert isinstance(content, dict)
    return content


@cache
def adapter_of(method: type[Any]) -> TypeAdapter[Any]:
    """The adapter of one type of method; building it takes longer than using it."""
    return TypeAdapter(method)


def method_to_dict(method: Any) -> dict[str, Any]:
    """One method as it is written in a recipe."""
    kind: Any = type(method)
    content = adapter_of(kind).dump_python(method, mode="json")
    assert isinstance(content, dict)
    return content


def to_yaml(recipe: Recipe) -> str:
    """The resolved recipe as the text of a YAML file."""
    return yaml.safe_dump(to_dict(recipe), sort_keys=False, allow_unicode=True, width=100)


def digest(recipe: Recipe) -> str:
    """A hash of everything in a recipe that its result depends on: 16 hexadecimal digits."""
    content = {k: v for k, v in to_dict(recipe).items() if k not in NOT_IN_DIGEST}
    teacher = content["teacher"] or {}
    if store := teacher.get("store"):
        del store["path"]  # the location of the store does not change the result
    # Keys of later versions are left out where they are not set, so that recipes keep their hash.
    data = content["data"]
    unset = [(data, key) for key in ("max_pixels", "broken", "unlabelled")]
    unset += [(data[split], "subset") for split in ("train", "val", "test")]
    for section, key in unset:
        if section[key] is None:
            del section[key]
    for network in (teacher, *teacher.get("members", ())):
        if network and network["classes"] is None:
            del network["classes"]
    text = json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
