"""`doctor` and `evaluate`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from stillhouse.cli.catalogue import rows
from stillhouse.errors import UserError, did_you_mean

SPLITS = ("train", "val", "test")


def doctor(recipe: str, overrides: Sequence[str]) -> None:
    """Print every check; end with 2 if one failed."""
    from stillhouse.recipes import load
    from stillhouse.runs.doctor import check_recipe

    failed = 0
    for check in check_recipe(load.load(recipe, overrides)):
        sign = {True: "ok", False: "FAIL", None: "skip"}[check.passed]
        print(rows({f"{sign:<5}{check.name}": check.message}), flush=True)
        failed += check.passed is False
    if failed:
        raise typer.Exit(2)


def evaluate(folder: Path, split: str, weights: Path | None) -> None:
    """Print what the student of a run reaches on a split."""
    from stillhouse.recipes import load
    from stillhouse.runs.execute import evaluate_run

    if split not in SPLITS:
        raise UserError(
            f"there is no split {split!r}"
            + (did_you_mean(split, SPLITS) or f"; say {', '.join(SPLITS)}")
        )
    if not (folder / "recipe.yaml").is_file():
        raise UserError(f"{folder} is no run: it has no recipe.yaml")
    summary = evaluate_run(load.load(folder / "recipe.yaml"), folder, split, weights)
    print(rows({name: f"{value:.4f}" for name, value in summary.items()}))
