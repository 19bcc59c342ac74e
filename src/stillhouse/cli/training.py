"""`demo` and `run`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from stillhouse.cli import STOPPED, Ended
from stillhouse.errors import UserError


def first(word: str) -> str:
    """What a run's folder is called after a recipe."""
    path = Path(word)
    return path.parent.name if path.name == "recipe.yaml" else path.stem


def run(
    recipe: str,
    overrides: Sequence[str],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    explain: bool = True,
) -> None:
    """Train what a recipe says, and print teacher, control and student."""
    from stillhouse.distributed import leave, rank
    from stillhouse.engine.devices import forget_ranks
    from stillhouse.recipes import load
    from stillhouse.runs.execute import execute

    is_run = (Path(recipe) / "recipe.yaml").is_file()
    loaded = load.load(recipe, overrides)
    if out is None:
        out = Path(recipe) if is_run else Path("runs") / first(recipe)
    if not resume and not overwrite and (out / "state.pt").exists() and sys.stdin.isatty():
        resume, overwrite = ask(out)
    again = f"stillhouse run {out} --resume"
    try:
        with stoppable(again):
            result = execute(loaded, out, resume=resume, overwrite=overwrite, say=tell)
        first_rank = rank() == 0
    finally:
        leave()
    if first_rank:
        from stillhouse.report.run import write_run

        forget_ranks()  # a page is one process's work, and the others have gone
        page = write_run(result.folder, explain=explain)
        print("\n".join([*result.lines(), f"report: {page}"]))


def demo(out: Path, seeds: int, epochs: float) -> None:
    """Teacher, control and two methods over seeds, and what came of it."""
    from stillhouse.report.study import write_study
    from stillhouse.study.demo import demo_plan, demonstrate
    from stillhouse.study.jobs import crew, processes

    plan = demo_plan(seeds, epochs)
    again = f"stillhouse demo --out {out} --seeds {seeds} --epochs {epochs:g}"
    with stoppable(again), crew(processes()) as workers:
        study = demonstrate(plan, out, workers, say=print)
    page = write_study(study)
    print("\n".join(["", *study.answers(), f"report: {page}"]))


def tell(text: str) -> None:
    """News on its way; what comes of it is printed apart, for a pipe to read."""
    print(text, file=sys.stderr)


def ask(folder: Path) -> tuple[bool, bool]:
    """What a person wants of a folder that already holds a run: resume, overwrite."""
    said = (
        typer.prompt(
            f"{folder} already holds a run: resume it, overwrite it, or stop?", default="resume"
        )
        .strip()
        .lower()
    )
    if said and "resume".startswith(said):
        return True, False
    if said and "overwrite".startswith(said):
        return False, True
    raise UserError(f"nothing was done; choose another folder with --out, {folder} is as it was")


@contextmanager
def stoppable(again: str) -> Iterator[None]:
    """Inside, a stop that was asked for ends with how to go on, and exit code 130."""
    from stillhouse.engine.interrupt import Stopped

    try:
        yield
    except Stopped as stop:
        print(f"stopped after a whole step, all saved; go on with: {again}", file=sys.stderr)
        raise Ended(STOPPED) from stop
