"""`methods`, `models`, `datasets` and `recipes`."""

from __future__ import annotations

import shutil
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import fill
from typing import Any

import typer

from stillhouse.errors import UserError, did_you_mean


def width() -> int:
    """The columns that text may take."""
    return max(20, min(100, shutil.get_terminal_size((100, 24)).columns))


def rows(pairs: dict[str, str], most: int = 24) -> str:
    """Names and what they are, wrapped to the terminal; names have a column of at most so many."""
    margin = min(max((len(name) for name in pairs), default=0) + 2, most)
    if margin > width() // 2:  # no room beside the names
        return "\n".join(f"{name}\n{indented(text, '  ', '  ')}" for name, text in pairs.items())
    return "\n".join(
        indented(text, f"{name:<{margin}}", " " * margin) for name, text in pairs.items()
    )


def indented(text: str, first: str, others: str) -> str:
    """Text wrapped to the terminal; names with hyphens stay whole."""
    return fill(
        text, width(), initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )


def methods(name: str | None) -> None:
    """All methods in a line each, or one in full."""
    from stillhouse.methods.catalogue import published

    known = published()
    if name is None:
        print(rows({"none": "No teaching: the control"} | {n: known[n].card.title for n in known}))
        print("\nstillhouse methods NAME says more of one.")
        return
    if name == "none":
        print("none: the same student without a teacher, at equal budget and seeds")
        return
    if name not in known:
        raise UserError(f"there is no method {name!r}" + did_you_mean(name, known))
    print(describe(known[name]))


def describe(preset: Any) -> str:
    """One method in full."""
    card = preset.card
    needs = {
        "batch": "the rows of the whole batch",
        "features": "feature maps of both networks",
        "class": "one class an image",
        "views": "two views of each image",
        "keys": "to know which sample each row is",
        "head": "the teacher's classifier",
        "moves": "a teacher that may be trained",
    }
    return rows(
        {
            "name": f"{preset.name}: {card.title}",
            "formula": card.formula,
            "paper": card.paper,
            "needs": ", ".join(needs.get(need, need) for need in card.needs),
            "defaults": options(preset),
            "labels": f"count {preset().label_share:g} beside it, unless label_weight says more",
            "cost": card.cost,
            "limits": card.limits,
        }
    )


def options(preset: Any) -> str:
    """The options of a method with their defaults."""
    shown = []
    for field in sorted(fields(preset), key=lambda field: bool(field.kw_only)):
        if field.name in ("name", "label_weight") or field.default is MISSING:
            continue
        default = getattr(field.default, "name", field.default)
        shown.append(f"{field.name}={default}")
    return ", ".join(shown)


def models(pattern: str) -> None:
    """The networks that match."""
    from stillhouse.models.zoo import names

    found = names(pattern)
    if not found:
        raise UserError(f"no network matches {pattern!r}" + did_you_mean(pattern, names()))
    print("\n".join(found))


def datasets(name: str | None) -> None:
    """All data sets in a line each, or one in full."""
    from stillhouse.data.catalogue import entries

    known = {entry.name: entry for entry in entries()}
    if name is None:
        print(rows({n: entry.summary for n, entry in known.items()}))
        return
    if name not in known:
        raise UserError(f"there is no data set {name!r}" + did_you_mean(name, known))
    entry = known[name]
    print(rows({"name": entry.name, "what": entry.summary, "layout": entry.layout}))


FEW = 6  # recipes of a folder that are told apart where all are listed


def recipes(pattern: str) -> None:
    """The recipes of the package that match, with their titles, folder by folder.

    Without a pattern a folder of many is one line.
    """
    from stillhouse.recipes import load

    folders: dict[str, dict[str, Path]] = {}
    for name, path in load.zoo().items():
        if pattern in name:
            folders.setdefault(name.rpartition("/")[0], {})[name] = path
    if not folders:
        raise UserError(f"no recipe matches {pattern!r}" + did_you_mean(pattern, load.zoo()))
    parts = []
    for folder, found in sorted(folders.items()):
        if not pattern and len(found) > FEW:
            leaves = ", ".join(name.rpartition("/")[2] for name in found)
            parts.append(rows({f"{folder}/...": leaves}))
        else:
            titles = {n: str(load.parse(p).get("title", "")) for n, p in found.items()}
            parts.append(rows(titles, most=44))
    if not pattern:
        more = "stillhouse recipes ls PART shows those whose names contain it, with titles."
        parts.append(fill(more, width()))
    print("\n\n".join(parts))


def copy(name: str, to: Path | None) -> None:
    """Copy a recipe to a file that is not there yet."""
    from stillhouse.recipes import load

    source = load.find(name)
    target = to or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UserError(f"{target} is there already; name another file")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    print(target)


def validate(files: list[str]) -> None:
    """Say of each recipe whether it loads; end with 2 if one does not."""
    from stillhouse.recipes import load

    bad = 0
    for name in files:
        try:
            load.load(name)
            print(f"ok     {name}")
        except UserError as error:
            bad += 1
            print(f"wrong  {error}")
    if bad:
        raise typer.Exit(2)
