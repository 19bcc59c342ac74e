"""Parsing of the command-line arguments that name methods, teachers and grids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import CONTROL
from stillhouse.recipes import load
from stillhouse.recipes.schema import Comparison, Recipe, TeacherSpec

# Names of papers for several methods at once.
COMBINED = {"dist+": ("dist", "channel_relation", "spatial_relation", "acclimation")}


def split_list(argument: str) -> list[str]:
    """Split `a,b(1,2),c` at the commas that are not inside brackets."""
    depth, parts = 0, [""]
    for character in argument:
        depth += (character in "[({") - (character in "])}")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part.strip() for part in parts if part.strip()]


# ---------------------------------------------------------------------------------------- methods


def method_names(study: Comparison | None) -> list[str]:
    """The names that an item of `--methods` may start with."""
    labels = study.methods if study else {}
    return [CONTROL, *labels, *published(), *COMBINED]


def parse_method(text: str, recipe: Recipe) -> list[dict[str, Any]]:
    """An item of `--methods` as a recipe writes it.

    `kd`, `dist:temperature=4`, `lskd:base=dkd:weight=4`, `dist+channel_relation`, or a label in
    `study.methods` of the recipe. Options that are not given are those of the method of the
    recipe if it has the same name, else the defaults.
    """
    labels = recipe.study.methods if recipe.study else {}
    if text in labels:
        return [load.method_to_dict(method) for method in labels[text]]
    parts = COMBINED.get(text) or text.split("+")
    return [parse_method_part(part, text, recipe) for part in parts]


def parse_method_part(part: str, text: str, recipe: Recipe) -> dict[str, Any]:
    """`NAME:key=value:...` as a mapping; `text` is the whole item."""
    name, *options = part.split(":")
    known = published()
    if name not in known:
        names = method_names(recipe.study)
        hint = did_you_mean(name, names) or f"; choose from {', '.join(names)}"
        raise UserError(f"--methods: unknown method {quote(name)} in {quote(text)}{hint}")
    same = [method for method in recipe.method if method.name == name]
    content = dict(load.method_to_dict(same[0])) if same else {"name": name}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise UserError(
                f"--methods: {quote(option)} in {quote(text)} is not an option; write key=value"
            )
        content[key] = load.parse_yaml_value(value, text)
    return content


def fixed_options(text: str) -> frozenset[str]:
    """The options that an item of `--methods` sets, which a search therefore leaves alone.

    `weight`, or `1.weight` with the index of the method if there are several.
    """
    parts = [text] if text in COMBINED else text.split("+")
    return frozenset(
        f"{index}.{key}" if len(parts) > 1 else key
        for index, part in enumerate(parts)
        for key in (option.partition("=")[0] for option in part.split(":")[1:])
    )


# --------------------------------------------------------------------------------------- teachers


def parse_teachers(argument: str, recipe: Recipe) -> dict[str, TeacherSpec]:
    """`NAME`, `NAME=WEIGHTS`, or a label in `study.teachers` of the recipe: teachers by label."""
    labels = recipe.study.teachers if recipe.study else {}
    teachers: dict[str, TeacherSpec] = {}
    for item in split_list(argument):
        name, _, file = item.partition("=")
        teachers[name] = labels[item] if item in labels else parse_teacher(name, file, recipe)
    return teachers


def parse_teacher(name: str, file: str, recipe: Recipe) -> TeacherSpec:
    """A teacher by its network and its file of weights, otherwise as in the recipe."""
    base = load.to_dict(recipe)["teacher"] or {}
    content = {**base, "name": name, "weights": file or None, "options": {}}
    if file and not Path(file).is_file():
        raise UserError(f"--teachers: there is no file {quote(file)} with the weights of {name}")
    teacher = load.replace_sections(recipe, {"teacher": content}).teacher
    assert teacher is not None
    return teacher


# ------------------------------------------------------------------------------------------- grids


class GridValue(NamedTuple):
    """One key of a grid or search with one of its values, as written in an override."""

    key: str
    text: str

    @classmethod
    def parse(cls, override: str) -> GridValue:
        """The value of an override such as `train.epochs=10`."""
        key, _, text = override.partition("=")
        return cls(key, text)

    @property
    def override(self) -> str:
        """`method.temperature=2`."""
        return f"{self.key}={self.text}"

    @property
    def label(self) -> str:
        """`temperature=2` for `method.temperature=2`."""
        return f"{self.key.removeprefix('method.')}={self.text}"


def parse_grid(arguments: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """`key=a,b,c` arguments as values by key."""
    grid = {}
    for argument in arguments:
        key, equals, text = argument.partition("=")
        if not equals or not key or not split_list(text):
            raise UserError(
                f"--grid: {quote(argument)} must be key=value,value, as in method.beta=1,2"
            )
        grid[key] = tuple(load.parse_yaml_value(part, argument) for part in split_list(text))
    return grid


def grid_points(grid: Mapping[str, Iterable[Any]]) -> list[tuple[GridValue, ...]]:
    """Every combination of the values of a grid; one empty combination if the grid is empty."""
    axes = [[GridValue(key, format_value(one)) for one in values] for key, values in grid.items()]
    return list(product(*axes))


def format_value(value: Any) -> str:
    """A value as written in an override."""
    return value if isinstance(value, str) else json.dumps(value)


def folder_names(labels: Iterable[str]) -> dict[str, str]:
    """The folder name of each label; no two are equal, also where upper case is ignored."""
    names: dict[str, str] = {}
    taken: set[str] = set()
    for label in labels:
        name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", label).strip("_.") or "arm"
        while name.lower() in taken:
            name += "_"
        names[label] = name
        taken.add(name.lower())
    return names
