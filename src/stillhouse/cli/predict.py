"""`predict`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from stillhouse.cli import INTERRUPTED, CommandExit


def print_predictions(
    run: Path, images: Sequence[Path], out: Path | None, weights: Path | None, threshold: float
) -> None:
    """Write the predictions of the student of a run, and print what was written."""
    from stillhouse.runs.predict import FOLDER, predict_run

    try:
        print(predict_run(run, images, out, weights, threshold))
    except KeyboardInterrupt as stop:
        print(
            f"interrupted; files in {out or run / FOLDER} are whole, but the list of predictions "
            "was not written",
            file=sys.stderr,
        )
        raise CommandExit(INTERRUPTED) from stop
