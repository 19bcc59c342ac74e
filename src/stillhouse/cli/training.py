"""`demo` and `run`."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import typer

from stillhouse.cli import INTERRUPTED, CommandExit
from stillhouse.cli.json_output import print_json, quiet_stdout
from stillhouse.cli.recipe_argument import read_recipe_argument, run_name
from stillhouse.errors import UserError

PARENT = os.getppid()  # read as early as possible: torchrun gives its ranks no id of its own


def train_run(
    recipe: str,
    overrides: Sequence[str],
    out: Path | None,
    resume: bool,
    overwrite: bool,
    explain: bool = True,
    save: Path | None = None,
    as_json: bool = False,
) -> None:
    """Run a recipe, print the scores of teacher, control and student, and write the report."""
    from stillhouse.distributed import destroy_process_group, rank
    from stillhouse.engine.devices import clear_rank_environment, launched_world_size
    from stillhouse.engine.interrupt import exit_with_parent
    from stillhouse.recipes import load
    from stillhouse.recipes.save import save_recipe
    from stillhouse.runs.execute import execute

    is_run = (Path(recipe) / load.RECIPE_FILE).is_file()
    loaded = read_recipe_argument(recipe, overrides)
    if save is not None:
        save_recipe(loaded, save)
    if out is None:
        out = Path(recipe) if is_run else Path("runs") / run_name(recipe, loaded)
    if not resume and not overwrite and (out / "state.pt").exists() and sys.stdin.isatty():
        resume, overwrite = ask_resume_or_overwrite(out)
    command = f"stillhouse run {out} --resume"
    if launched_world_size() > 1:
        exit_with_parent(PARENT)
    try:
        with quiet_stdout(as_json), resumable(command):
            result = execute(loaded, out, resume=resume, overwrite=overwrite, say=print_progress)
        first_rank = rank() == 0
    finally:
        destroy_process_group()
    if first_rank:
        from stillhouse.report.run import write_run
        from stillhouse.study.scores import run_scores

        clear_rank_environment()  # one process writes the report, the others have ended
        with quiet_stdout(as_json):
            page = write_run(result.folder, explain=explain)
        if as_json:
            scores = run_scores(result)
            print_json({"folder": str(result.folder), **scores, "report": str(page)})
        else:
            print("\n".join([*result.lines(), f"report: {page}"]))


def train_demo(task: str, out: Path | None, seeds: int | None, epochs: float | None) -> None:
    """Run the demo study of a task, print its results and write the report."""
    from stillhouse.report.study import write_study
    from stillhouse.study.demo import find_demo, make_demo_plan, run_demo
    from stillhouse.study.jobs import default_processes, process_workers

    demo = find_demo(task)
    plan = make_demo_plan(demo, seeds, epochs)
    out = out or Path("runs") / ("demo" if task == "classification" else f"demo-{task}")
    words = {"task": task, "out": out, "seeds": seeds, "epochs": epochs}
    given = [f"--{name} {value}" for name, value in words.items() if value is not None]
    command = " ".join(["stillhouse demo", *given])
    with resumable(command), process_workers(default_processes()) as workers:
        study = run_demo(demo, plan, out, workers, say=print)
    page = write_study(study)
    print("\n".join(["", *study.summaries(), f"report: {page}"]))


def print_progress(text: str) -> None:
    """Print a progress message to stderr; stdout holds only the results."""
    print(text, file=sys.stderr)


def ask_resume_or_overwrite(folder: Path) -> tuple[bool, bool]:
    """Ask what to do with a folder that already holds a run: (resume, overwrite)."""
    question = f"{folder} already holds a run: resume it, overwrite it, or stop?"
    reply = typer.prompt(question, default="resume").strip().lower()
    if reply and "resume".startswith(reply):
        return True, False
    if reply and "overwrite".startswith(reply):
        return False, True
    raise UserError(f"{folder} was left unchanged; choose another folder with --out")


@contextmanager
def resumable(command: str) -> Iterator[None]:
    """Exit with code 130 if training inside is interrupted, and print how to continue it."""
    from stillhouse.engine.interrupt import Stopped
    from stillhouse.models.factories import trust_word

    try:
        yield
    except Stopped as stop:
        again = f"{command}{trust_word()}"
        print(f"interrupted; the state is saved. Continue with: {again}", file=sys.stderr)
        raise CommandExit(INTERRUPTED) from stop
