"""`doctor` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from stillhouse.cli.catalogue import format_rows
from stillhouse.cli.json_output import print_json, quiet_stdout
from stillhouse.cli.recipe_argument import read_recipe_argument
from stillhouse.errors import UserError, did_you_mean, quote

SPLITS = ("train", "val", "test")


def print_checks(recipe: str, overrides: Sequence[str], as_json: bool = False) -> None:
    """Print the result of every check; exit with code 2 if one failed."""
    from stillhouse.recipes import load
    from stillhouse.runs.doctor import check_recipe

    results = []
    is_run = (Path(recipe) / load.RECIPE_FILE).is_file()
    folder = Path(recipe) if is_run else Path("runs")
    with quiet_stdout(as_json):
        for check in check_recipe(read_recipe_argument(recipe, overrides), folder):
            results.append(check)
            status = {True: "ok", False: "FAIL", None: "skip"}[check.passed]
            print(format_rows({f"{status:<5}{check.name}": check.message}), flush=True)
    passed = all(check.passed is not False for check in results)
    if as_json:
        checks = [{"name": c.name, "passed": c.passed, "message": c.message} for c in results]
        print_json({"recipe": recipe, "passed": passed, "checks": checks})
    if not passed:
        raise typer.Exit(2)


def print_evaluation(
    folder: Path, split: str | None, weights: Path | None, as_json: bool = False
) -> None:
    """Print the metrics of the student of a run on a split."""
    from stillhouse.recipes import load
    from stillhouse.runs.execute import evaluate_run

    if split is not None and split not in SPLITS:
        hint = did_you_mean(split, SPLITS) or f"; choose from {', '.join(SPLITS)}"
        raise UserError(f"--split: unknown split {quote(split)}{hint}")
    recipe = folder / load.RECIPE_FILE
    if not recipe.is_file():
        raise UserError(f"{folder} is not a run folder: it has no {load.RECIPE_FILE}")
    with quiet_stdout(as_json):
        found = evaluate_run(load.load(folder), folder, split, weights)
    if as_json:
        scores = {found.split: dict(found.scores)}
        print_json({"folder": str(folder), "images": found.images, "scores": {"student": scores}})
        return
    print(f"student on {found.split}, {found.images:,} images")
    print(format_rows({name: f"{value:.4f}" for name, value in found.scores.items()}))
