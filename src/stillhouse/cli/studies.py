"""`study` and `sweep`."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from stillhouse.cli.json_output import print_json, quiet_stdout
from stillhouse.cli.recipe_argument import read_recipe_argument, run_name
from stillhouse.cli.report_options import ReportOptions
from stillhouse.cli.training import print_progress, resumable
from stillhouse.errors import UserError

if TYPE_CHECKING:
    from stillhouse.study.jobs import Workers
    from stillhouse.study.plan import StudyPlan
    from stillhouse.study.results import Study


@dataclass(frozen=True)
class StudyArguments:
    """The arguments that say what is compared."""

    recipe: str
    overrides: Sequence[str]
    methods: str | None
    seeds: int | None
    teachers: str | None
    grid: Sequence[str] = ()
    pairs: str | None = None

    def make_plan(self) -> StudyPlan:
        """The plan for these arguments; `recipe` may be the folder of a study."""
        from stillhouse.recipes import load
        from stillhouse.study.plan import make_plan
        from stillhouse.study.results import STUDY_RECIPE_FILE

        inside = Path(self.recipe) / STUDY_RECIPE_FILE
        if inside.is_file():
            recipe = load.load_resolved(inside, self.overrides)
        else:
            recipe = read_recipe_argument(self.recipe, self.overrides)
        return make_plan(recipe, self.methods, self.seeds, self.teachers, self.grid, self.pairs)

    def output_folder(self, plan: StudyPlan, out: Path | None, suffix: str) -> Path:
        """`--out`, else the folder of the study itself, else one named after the recipe."""
        from stillhouse.study.results import STUDY_RECIPE_FILE

        if out is not None:
            return out
        if (Path(self.recipe) / STUDY_RECIPE_FILE).is_file():
            return Path(self.recipe)
        return Path("runs") / f"{run_name(self.recipe, plan.recipe)}-{suffix}"


@dataclass(frozen=True)
class WorkerOptions:
    """The options that say where trainings run."""

    jobs: int | None
    ray: str | None
    cpus: float
    gpus: float

    @contextmanager
    def workers(self, count: int) -> Iterator[Workers]:
        """Workers for so many jobs: processes of this machine, or a Ray cluster."""
        from stillhouse.study.cluster import ray_workers
        from stillhouse.study.jobs import default_processes, process_workers

        if self.ray is not None:
            with ray_workers(self.ray, self.cpus, self.gpus) as remote:
                yield remote
            return
        processes = min(self.jobs or default_processes(), max(1, count))
        with process_workers(processes) as local:
            yield local


def train_study(
    arguments: StudyArguments,
    worker_options: WorkerOptions,
    out: Path | None,
    overwrite: bool,
    options: ReportOptions,
    as_json: bool = False,
) -> None:
    """Run all jobs of a study, then print and write the results."""
    from stillhouse.study.runner import run_study
    from stillhouse.study.table import check_against

    plan = arguments.make_plan()
    folder = arguments.output_folder(plan, out, "study")
    check_against(options.against, (arm.label for arm in plan.arms))  # before anything is trained
    with (
        quiet_stdout(as_json),
        resumable(f"stillhouse study {folder}"),
        worker_options.workers(plan.size) as workers,
    ):
        run_study(plan, folder, workers, print_progress, overwrite=overwrite)
    report_study(options.read_study(folder), options, as_json)


def report_study(study: Study, options: ReportOptions, as_json: bool = False) -> None:
    """Print the results of a study, and write its tables and its report.

    Raises:
        UserError: at the end, if some runs failed.
    """
    from stillhouse.report.study import write_study
    from stillhouse.study.scores import study_scores
    from stillhouse.study.table import write_tables

    with quiet_stdout(as_json):
        tables = write_tables(study, options.against)
        page = write_study(study, options.against, explain=options.explain)
    if as_json:
        scores = study_scores(study, options.against)
        print_json({"folder": str(study.folder), **scores, "report": str(page)})
    else:
        lines = [*result_lines(study, options.against), f"table: {tables[0]}", f"report: {page}"]
        print("\n".join(lines))
    failures = [reason for arm in study.arms for reason in arm.failures.values()]
    if failures:
        count = "1 run" if len(failures) == 1 else f"{len(failures)} runs"
        raise UserError(
            f"{count} failed; the first error: {failures[0]} "
            f"(retry with `stillhouse study {study.folder}`)"
        )


def result_lines(study: Study, against: str | None) -> list[str]:
    """The summary of each arm, the best first, and the cost of the search."""
    from stillhouse.study.table import make_rows, search_lines, summarize_rows

    rows = make_rows(study, against)
    return [*summarize_rows(study, rows), *search_lines(study, rows)]


def search_options(
    arguments: StudyArguments,
    worker_options: WorkerOptions,
    out: Path | None,
    trials: int,
    seed: int,
    prune: bool,
    space: Sequence[str],
) -> None:
    """Search options on the validation split, and print what was chosen, and the next command."""
    try:
        import optuna  # noqa: F401
    except ImportError as error:
        raise UserError("sweep needs an extra: pip install 'stillhouse[sweep]'") from error
    from stillhouse.study.space import parse_space
    from stillhouse.study.sweep import run_sweep

    requested = parse_space(space)
    plan = arguments.make_plan()
    folder = arguments.output_folder(plan, out, "sweep")
    command = f"the same command, with --out {folder}"
    with resumable(command), worker_options.workers(plan.size) as workers:
        result = run_sweep(
            plan,
            folder,
            workers,
            print_progress,
            trials=trials,
            seed=seed,
            prune=prune,
            space=requested,
        )
    chosen = result.recipe
    lines = [*result.choices, f"chosen: {chosen}", f"next: stillhouse study {chosen} --seeds 5"]
    print("\n".join(lines))
