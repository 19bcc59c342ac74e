"""The recipe of a command: a file, a name, a folder, or `key=value` words alone."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from stillhouse.recipes.schema import Recipe


def is_override(word: str) -> bool:
    """Whether the first word of a command is `key=value`, so that there is no recipe."""
    return "=" in word.lstrip("=") and not os.path.exists(word)


def read_recipe_argument(word: str, overrides: Sequence[str]) -> Recipe:
    """The recipe that the words of a command name, or describe."""
    if is_override(word):
        from stillhouse.build.completion import complete_recipe

        return complete_recipe([word, *overrides])
    from stillhouse.recipes import load

    return load.load(word, overrides)


def run_name(word: str, recipe: Recipe) -> str:
    """The default name of a folder of results: that of the recipe file, of the run or the data."""
    if is_override(word):
        data = recipe.data
        return data.path.expanduser().absolute().name if data.path else data.name.replace("/", "-")
    path = Path(word)
    return path.parent.name if path.name == "recipe.yaml" else path.stem
