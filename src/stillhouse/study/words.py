"""What a person names on the command line: methods, teachers and grids."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

from stillhouse.errors import UserError, did_you_mean
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import CONTROL
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe, TeacherSpec

# What the papers call by one name and a recipe says as several methods.
TOGETHER = {"dist+": ("dist", "channel_relation", "spatial_relation", "acclimation")}


def split(words: str) -> list[str]:
    """`a,b(1,2),c` at the commas that stand outside of brackets."""
    depth, parts = 0, [""]
    for sign in words:
        depth += (sign in "[({") - (sign in "])}")
        if sign == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += sign
    return [part.strip() for part in parts if part.strip()]


def known_methods(recipe: Recipe) -> list[str]:
    """Every name that a word may begin with."""
    own = recipe.study.methods if recipe.study else {}
    return [CONTROL, *own, *published(), *TOGETHER]


def method(word: str, recipe: Recipe) -> Any:
    """The method of a word, as a recipe would spell it.

    `kd`, `dist:temperature=4`, `lskd:base=dkd:weight=4`, `dist+channel_relation`, or a label of the
    recipe's own `study.methods`. Options that are not said are those of the recipe's own method
    where it is the one that is named, else the defaults.
    """
    own = recipe.study.methods if recipe.study else {}
    if word in own:
        return [load.plain_method(one) for one in own[word]]
    parts = TOGETHER.get(word) or word.split("+")
    return [one_method(part, word, recipe) for part in parts]


def one_method(part: str, word: str, recipe: Recipe) -> dict[str, Any]:
    """`NAME:key=value:…` as a mapping."""
    name, *options = part.split(":")
    known = published()
    if name not in known:
        everything = known_methods(recipe)
        hint = did_you_mean(name, everything) or f"; there are {', '.join(everything)}"
        raise UserError(f"--methods: there is no method {name!r} in {word!r}{hint}")
    same = [one for one in recipe.method if one.name == name]
    content = dict(load.plain_method(same[0])) if same else {"name": name}
    for option in options:
        key, equals, text = option.partition("=")
        if not equals:
            raise UserError(f"--methods: {option!r} in {word!r} is no option; write key=value")
        content[key] = load.spelt(text, word)
    return content


def held(word: str) -> frozenset[str]:
    """The options that a word says itself: a search leaves them as they are.

    `weight`, or of several methods at once `1.weight` with the number of the one.
    """
    parts = [word] if word in TOGETHER else word.split("+")
    return frozenset(
        f"{number}.{key}" if len(parts) > 1 else key
        for number, part in enumerate(parts)
        for key in (option.partition("=")[0] for option in part.split(":")[1:])
    )


def teachers(words: str, recipe: Recipe) -> dict[str, TeacherSpec]:
    """`NAME`, `NAME=WEIGHTS`, or a label of the recipe's own `study.teachers`, by label."""
    own = recipe.study.teachers if recipe.study else {}
    found: dict[str, TeacherSpec] = {}
    for word in split(words):
        name, _, file = word.partition("=")
        found[name] = own[word] if word in own else named_teacher(name, file, recipe)
    return found


def named_teacher(name: str, file: str, recipe: Recipe) -> TeacherSpec:
    """A network's name and its weights, the rest as the recipe says of its teacher."""
    below = load.plain(recipe)["teacher"] or {}
    content = {**below, "name": name, "weights": file or None, "options": {}}
    if file and not Path(file).is_file():
        raise UserError(f"--teachers: there is no file {file!r} for {name}")
    checked = load.changed(recipe, {"teacher": content}).teacher
    assert checked is not None
    return checked


class Choice(NamedTuple):
    """One key of a grid, and one of its values as it was written."""

    key: str
    text: str

    @property
    def word(self) -> str:
        """As an override."""
        return f"{self.key}={self.text}"

    @property
    def short(self) -> str:
        """As a label: `temperature=2` of `method.temperature=2`."""
        return f"{self.key.removeprefix('method.')}={self.text}"


def grid(words: Iterable[str]) -> dict[str, tuple[Any, ...]]:
    """`key=a,b,c` words as values by key."""
    axes = {}
    for word in words:
        key, equals, text = word.partition("=")
        if not equals or not key or not split(text):
            raise UserError(f"--grid: {word!r} should be key=value,value, as in method.beta=1,2")
        axes[key] = tuple(load.spelt(part, word) for part in split(text))
    return axes


def combinations(axes: Mapping[str, Iterable[Any]]) -> list[tuple[Choice, ...]]:
    """Every combination of a grid; one empty combination where there is none."""
    spelt = [[Choice(key, spell(one)) for one in values] for key, values in axes.items()]
    return list(product(*spelt))


def spell(one: Any) -> str:
    """A value as an override says it."""
    return one if isinstance(one, str) else json.dumps(one)


def labels(found: Iterable[str]) -> dict[str, str]:
    """What the folder of each label is called; two labels never share one."""
    folders: dict[str, str] = {}
    taken: set[str] = set()
    for label in found:
        name = re.sub(r"[^A-Za-z0-9._+=-]+", "_", label).strip("_.") or "arm"
        while name.lower() in taken:
            name += "_"
        folders[label] = name
        taken.add(name.lower())
    return folders
