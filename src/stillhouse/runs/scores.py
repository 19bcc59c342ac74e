"""The scores in the files of a run, and the split that they were measured on."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from stillhouse.data.record import measured_split
from stillhouse.errors import UserError
from stillhouse.files import read_json
from stillhouse.recipes.schema import Recipe

MANIFEST = "manifest.json"
Score = dict[str, Any]  # the content of result.json; score[score["split"]] is what is reported


def optimistic_note(recipe: Recipe) -> str:
    """What scores of validation are worth, where there is no test split."""
    teacher = recipe.teacher if recipe.distils else None
    gate = "by the teacher gate and " if teacher is not None and teacher.gate else ""
    return (
        f"there is no test split, so that scores are those of validation; its images are also used "
        f"{gate}for any choice of epochs, options or methods, which makes the scores of what was "
        "chosen too high"
    )


def parse_result(content: dict[str, Any], folder: Path) -> Score:
    """The content of result.json in a folder; raises ValueError, KeyError or TypeError.

    Files of older versions do not name the split. Their `test` is of val where there was no test.
    """
    score = parse_score(content)
    if "split" in score:
        if score["split"] not in ("test", "validation"):
            raise ValueError("there is no such split")
        return score
    split = measured_split(read_manifest(folder)) if score["test"] else "validation"
    if split == "validation" and score["test"]:
        score = {**score, "validation": score["test"], "test": {}}
    return {**score, "split": split}


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a training; empty if it cannot be read."""
    with suppress(UserError):
        return read_json(folder / MANIFEST, parse_manifest, "delete it")
    return {}


def parse_manifest(content: dict[str, Any]) -> dict[str, Any]:
    """The content of a manifest; raises ValueError, KeyError or TypeError."""
    if not isinstance(content["data"], dict) or not isinstance(content.get("samples", {}), dict):
        raise TypeError("not a mapping")
    return content


def parse_score(content: dict[str, Any]) -> Score:
    """The content of a file of scores; raises ValueError, KeyError or TypeError."""
    for name in ("name", "headline", "recipe", "teacher"):
        if not isinstance(content.get(name, ""), str):
            raise TypeError(f"{name} is not a text")
    for name in ("warnings", "notes"):
        if not all(isinstance(text, str) for text in content.get(name, ())):
            raise TypeError(f"{name} are not texts")
    history = content.get("history", [])
    parts = [content.get(name, {}) for name in ("validation", "best", "errors")]
    for numbers in (content, *history, *parts, content["test"]):
        check_numbers(numbers, SCALARS if numbers is content else numbers)
    return content


SCALARS = ("format", "seed", "parameters", "steps", "of", "seconds")  # of a score


def check_numbers(content: Mapping[str, Any], names: Iterable[str]) -> None:
    """Raise TypeError where a value that is there is neither a number nor null."""
    for name in names:
        if not name or type(content.get(name)) not in (int, float, type(None)):
            raise TypeError(f"{name!r} is not a number")
