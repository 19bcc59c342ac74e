"""Paths in a recipe, which are relative to the file that they stand in."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

KEYS = ("path", "weights", "pretrained", "classes")  # of sections that name files
NETWORKS = ("student", "teacher")


def anchor_paths(content: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """The content of a recipe file in a folder, with its paths relative to the working directory.

    Options of readers and of methods are left as they are: they are relative to `data.path`.
    """
    anchored = anchor_sections(content, ("data", *NETWORKS), folder)
    if isinstance(study := anchored.get("study"), dict):
        study = dict(study)
        if isinstance(teachers := study.get("teachers"), dict):
            study["teachers"] = anchor_sections(teachers, tuple(teachers), folder)
        if isinstance(pairs := study.get("pairs"), dict):
            study["pairs"] = {
                label: anchor_sections(pair, NETWORKS, folder) if isinstance(pair, dict) else pair
                for label, pair in pairs.items()
            }
        anchored["study"] = study
    return anchored


def anchor_sections(
    content: Mapping[str, Any], names: tuple[str, ...], folder: Path
) -> dict[str, Any]:
    """The content with the paths in the sections of some names."""
    return {
        key: anchor_section(value, folder) if key in names else value
        for key, value in content.items()
    }


def anchor_section(section: Any, folder: Path) -> Any:
    """A section of data, of a network or of a store, with its paths and those of its parts."""
    if isinstance(section, list):
        return [anchor_section(item, folder) for item in section]
    if not isinstance(section, dict):
        return section
    anchored = anchor_sections(section, ("members", "store", "unlabelled"), folder)
    for key in KEYS:
        if isinstance(path := anchored.get(key), str) and not path.startswith("~"):
            anchored[key] = os.path.normpath(folder / path)
    return anchored
