"""`doctor` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from stillhouse.cli.catalogue import format_rows
from stillhouse.cli.recipe_argument import read_recipe_argument
from stillhouse.errors import UserError, did_you_mean, quote

SPLITS = ("train", "val", "test")


def print_checks(recipe: str, overrides: Sequence[str]) -> None:
    """Print the result of every check; exit with code 2 if one failed."""
    from stillhouse.recipes import load
    from stillhouse.runs.doctor import check_recipe

    failed = 0
    is_run = (Path(recipe) / load.RECIPE_FILE).is_file()
    folder = Path(recipe) if is_run else Path("runs")
    for check in check_recipe(read_recipe_argument(recipe, overrides), folder):
        status = {True: "ok", False: "FAIL", None: "skip"}[check.passed]
        print(format_rows({f"{status:<5}{check.name}": check.message}), flush=True)
        failed += check.passed is False
    if failed:
        raise typer.Exit(2)


def print_evaluation(folder: Path, split: str, weights: Path | None) -> None:
    """Print the metrics of the student of a run on a split."""
    from stillhouse.recipes import load
    from stillhouse.runs.execute import evaluate_run

    if split not in SPLITS:
        hint = did_you_mean(split, SPLITS) or f"; choose from {', '.join(SPLITS)}"
        raise UserError(f"--split: unknown split {quote(split)}{hint}")
    recipe = folder / load.RECIPE_FILE
    if not recipe.is_file():
        raise UserError(f"{folder} is not a run folder: it has no {load.RECIPE_FILE}")
    metrics = evaluate_run(load.load(folder), folder, split, weights)
    print(format_rows({name: f"{value:.4f}" for name, value in metrics.items()}))
