"""Paths in a recipe, which are relative to the file that they stand in."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

KEYS = ("path", "weights", "pretrained", "classes")  # of sections that name files
NETWORKS = ("student", "teacher")
Change = Callable[[str], str]


def anchor_paths(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a recipe file in a folder, with its paths relative to the working directory.

    Options of readers and of methods are left as they are: they are relative to `data.path`.
    """
    return change_paths(content, lambda path: os.path.normpath(folder / path))


def relate_paths(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a recipe with its paths relative to a folder, for a file in that folder."""
    return change_paths(content, lambda path: os.path.relpath(path, folder))


def change_paths(content: Mapping[str, Any], change: Change) -> dict[str, Any]:
    """The content of a recipe with each of its paths changed."""
    changed = change_sections(content, ("data", *NETWORKS), change)
    if isinstance(study := changed.get("study"), dict):
        study = dict(study)
        if isinstance(teachers := study.get("teachers"), dict):
            study["teachers"] = change_sections(teachers, tuple(teachers), change)
        if isinstance(pairs := study.get("pairs"), dict):
            study["pairs"] = {
                label: change_sections(pair, NETWORKS, change) if isinstance(pair, dict) else pair
                for label, pair in pairs.items()
            }
        changed["study"] = study
    return changed


def change_sections(
    content: Mapping[str, Any], names: tuple[str, ...], change: Change
) -> dict[str, Any]:
    """The content with the paths in the sections of some names changed."""
    return {
        key: change_section(value, change) if key in names else value
        for key, value in content.items()
    }


def change_section(section: Any, change: Change) -> Any:
    """A section of data, of a network or of a store, with its paths and those of its parts."""
    if isinstance(section, list):
        return [change_section(item, change) for item in section]
    if not isinstance(section, dict):
        return section
    changed = change_sections(section, ("members", "store", "unlabelled"), change)
    for key in KEYS:
        if isinstance(path := changed.get(key), str) and not path.startswith("~"):
            changed[key] = change(path)
    return changed
