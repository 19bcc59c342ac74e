"""`methods`, `models`, `datasets` and `recipes`."""

from __future__ import annotations

import shutil
from dataclasses import MISSING, fields
from pathlib import Path
from textwrap import fill
from typing import Any

import typer

from stillhouse.errors import UserError, did_you_mean, quote


def text_width() -> int:
    """The width of printed text: that of the terminal, between 20 and 100 columns."""
    return max(20, min(100, shutil.get_terminal_size((100, 24)).columns))


def format_rows(rows: dict[str, str], max_margin: int = 24) -> str:
    """Names with their texts in two columns, wrapped to the terminal.

    The column of names has at most `max_margin` characters.
    """
    margin = min(max((len(name) for name in rows), default=0) + 2, max_margin)
    if margin > text_width() // 2:  # no room for two columns
        return "\n".join(f"{name}\n{wrap_text(text, '  ', '  ')}" for name, text in rows.items())
    return "\n".join(
        wrap_text(text, f"{name:<{margin - 1}} ", " " * margin) for name, text in rows.items()
    )


def wrap_text(text: str, first: str, others: str) -> str:
    """Text wrapped to the terminal, with these indents; names with hyphens are not broken."""
    return fill(
        text, text_width(), initial_indent=first, subsequent_indent=others, break_on_hyphens=False
    )


def print_methods(name: str | None) -> None:
    """Print one line for each method, or everything about one method."""
    from stillhouse.methods.catalogue import published

    known = published()
    if name is None:
        titles = {n: method.card.title for n, method in known.items()}
        print(format_rows({"none": "No distillation: the control"} | titles))
        print(f"\n{fill('For details of a method: stillhouse methods NAME', text_width())}")
        return
    if name == "none":
        print("none: the control, the same student without a teacher, same budget and seeds")
        return
    if name not in known:
        raise UserError(f"unknown method {quote(name)}" + did_you_mean(name, known))
    print(format_method(known[name]))


def print_support() -> None:
    """Print a table in Markdown of the tasks that methods work for."""
    from stillhouse.methods.support import support_table

    print(support_table())


NEEDS = {
    "batch": "outputs for the whole batch",
    "features": "feature maps of both networks",
    "class": "one class per image",
    "views": "two views of each image",
    "keys": "sample keys",
    "head": "the classifier of the teacher",
    "moves": "a trainable teacher",
    "masks": "a class for each pixel",
    "objects": "the objects of every image",
}


def format_method(preset: Any) -> str:
    """Everything about one method: formula, paper, requirements, defaults, cost, limits."""
    card = preset.card
    from stillhouse.methods.support import TASKS, tasks_of

    tasks = [heading for task, heading in TASKS.items() if task in tasks_of(preset.name)]
    return format_rows(
        {
            "name": f"{preset.name}: {card.title}",
            "tasks": ", ".join(tasks),
            "formula": card.formula,
            "paper": card.paper,
            "needs": ", ".join(NEEDS.get(need, need) for need in card.needs),
            "defaults": format_defaults(preset),
            "labels": f"weight {preset().label_share:g} unless label_weight is set",
            "cost": card.cost,
            "limits": card.limits,
        }
    )


def format_defaults(preset: Any) -> str:
    """The options of a method with their defaults."""
    options = []
    for field in sorted(fields(preset), key=lambda field: bool(field.kw_only)):
        if field.name in ("name", "label_weight") or field.default is MISSING:
            continue
        default = getattr(field.default, "name", field.default)
        options.append(f"{field.name}={default}")
    return ", ".join(options)


def print_models(pattern: str, options: list[str]) -> None:
    """Print the networks whose names match; one in detail if it is named, or has options."""
    from stillhouse.models.zoo import list_models

    matches = list_models(pattern)
    if options or pattern in matches or ":" in pattern:
        from stillhouse.cli.networks import print_network

        print_network(pattern, options)
        return
    if not matches:
        raise UserError(
            f"no network matches {quote(pattern)}" + did_you_mean(pattern, list_models())
        )
    print("\n".join(matches))


def print_datasets(name: str | None) -> None:
    """Print one line for each data set, or everything about one data set."""
    from stillhouse.data.catalogue import entries

    known = {entry.name: entry for entry in entries()}
    if name is None:
        print(format_rows({n: entry.summary for n, entry in known.items()}))
        return
    if name not in known:
        raise UserError(f"unknown data set {quote(name)}" + did_you_mean(name, known))
    entry = known[name]
    print(format_rows({"name": entry.name, "what": entry.summary, "layout": entry.layout}))


MAX_LISTED = 9  # recipes of one folder that are listed with titles


def print_recipes(pattern: str) -> None:
    """Print the recipes of the package whose names match, with their titles, by folder.

    Without a pattern a folder with many recipes is one line.
    """
    from stillhouse.recipes import load

    folders: dict[str, dict[str, Path]] = {}
    for name, path in load.zoo().items():
        if pattern in name:
            folders.setdefault(name.rpartition("/")[0], {})[name] = path
    if not folders:
        raise UserError(f"no recipe matches {quote(pattern)}" + did_you_mean(pattern, load.zoo()))
    parts = []
    for folder, paths in sorted(folders.items()):
        if not pattern and len(paths) > MAX_LISTED:
            names = ", ".join(name.rpartition("/")[2] for name in paths)
            parts.append(format_rows({f"{folder}/...": names}))
        else:
            titles = {n: str(load.read_yaml(p).get("title", "")) for n, p in paths.items()}
            parts.append(format_rows(titles, max_margin=44))
    if not pattern:
        more = "For recipes with titles: stillhouse recipes ls PATTERN"
        parts.append(fill(more, text_width()))
    print("\n\n".join(parts))


def print_keys(section: str) -> None:
    """Print the page on all keys in Markdown, or the keys of one section."""
    from stillhouse.recipes.keys import SECTIONS, list_keys, write_reference

    if not section:
        print(write_reference(), end="")
        return
    if section not in SECTIONS:
        known = [name for name in SECTIONS if name]
        hint = did_you_mean(section, known) or f"; known: {', '.join(known)}"
        raise UserError(f"a recipe has no section {quote(section)}{hint}")
    rows = {k.path: f"{k.type}, default {k.default}. {k.sentence}" for k in list_keys(section)}
    print(format_rows(rows, max_margin=28))


def copy_recipe(name: str, target: Path | None) -> None:
    """Copy a recipe to a new file; an existing file is not overwritten."""
    from stillhouse.recipes import load

    source = load.find_recipe(name)
    target = target or Path(source.name)
    if target.is_dir():
        target = target / source.name
    if target.exists():
        raise UserError(f"{target} already exists; choose another file")
    try:
        shutil.copyfile(source, target)
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}") from error
    print(target)


def validate_recipes(recipes: list[str]) -> None:
    """Print for each recipe whether it is valid; exit with code 2 if one is not."""
    from stillhouse.recipes import load

    invalid = 0
    for recipe in recipes:
        try:
            load.load(recipe)
            print(f"ok       {recipe}")
        except UserError as error:
            invalid += 1
            print(f"invalid  {error}")
    if invalid:
        raise typer.Exit(2)
