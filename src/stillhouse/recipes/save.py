"""Writing a recipe to a file of its own."""

from __future__ import annotations

from pathlib import Path

import yaml

from stillhouse.errors import UserError
from stillhouse.files import write_text
from stillhouse.recipes.load import to_dict
from stillhouse.recipes.paths import relate_paths
from stillhouse.recipes.schema import Recipe


def save_recipe(recipe: Recipe, path: Path) -> None:
    """Write all keys of a recipe, with paths relative to the file.

    Raises UserError for a file that exists with another content.
    """
    if not path.parent.is_dir():
        raise UserError(f"--save: there is no folder {path.parent}; create it, or choose another")
    content = relate_paths(to_dict(recipe), path.parent)
    text = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    if path.exists():
        if path.is_file() and path.read_text(encoding="utf-8", errors="replace") == text:
            return
        raise UserError(f"--save: {path} already exists; choose another file")
    write_text(path, text)
