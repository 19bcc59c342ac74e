"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stillhouse.cli.options import (
    Against,
    By,
    Cpus,
    Gpus,
    Interval,
    Jobs,
    Json,
    Methods,
    NoExplain,
    Overrides,
    Ray,
    RecipeArgument,
    Seeds,
    Teachers,
)
from stillhouse.cli.recipes import recipes_app

app = typer.Typer(
    name="stillhouse",
    help="Knowledge distillation for vision networks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="All commands accept --debug, which shows the traceback of an error, and --trust, which "
    "lets recipes run code of their own: networks named package.module:factory.",
)
app.add_typer(recipes_app, name="recipes")
runs_app = typer.Typer(no_args_is_help=True, help="List runs and studies.")
app.add_typer(runs_app, name="runs")


def print_version(requested: bool) -> None:
    """Print the version and exit."""
    if requested:
        from stillhouse import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=print_version, is_eager=True, help="Show the version and exit."
        ),
    ] = False,
) -> None:
    """Knowledge distillation for vision networks."""


@app.command("demo")
def demo_command(
    task: Annotated[
        str,
        typer.Option(
            metavar="TASK",
            help="classification, multilabel, detection, semantic or instance.",
        ),
    ] = "classification",
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: runs/demo, or runs/demo-TASK.")
    ] = None,
    seeds: Annotated[
        int | None, typer.Option(min=2, help="Number of seeds. Default: 3, or 2 of dense tasks.")
    ] = None,
    epochs: Annotated[
        float | None, typer.Option(min=0.1, help="Number of epochs per student.")
    ] = None,
) -> None:
    """Compare one or two methods with a control on embedded data, offline, in minutes."""
    from stillhouse.cli import training

    training.train_demo(task, out, seeds, epochs)


@app.command("run")
def run_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: runs/ and the recipe's name.")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run in the output folder.")
    ] = False,
    overwrite: Annotated[
        bool,
        typer.Option(
            "--overwrite",
            help="Train the student in the output folder again. A finished control is kept if its "
            "own recipe has not changed.",
        ),
    ] = False,
    save: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the whole recipe to a new file, too."),
    ] = None,
    no_explain: NoExplain = False,
    as_json: Json = False,
) -> None:
    """Train and evaluate a recipe, and write its report."""
    from stillhouse.cli import training

    training.train_run(
        recipe,
        overrides or [],
        out,
        resume,
        overwrite,
        explain=not no_explain,
        save=save,
        as_json=as_json,
    )


@app.command("study")
def study_command(
    recipe: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE",
            help="Recipe file, recipe name from `recipes ls`, or study folder to continue.",
        ),
    ],
    overrides: Overrides = None,
    methods: Methods = None,
    seeds: Seeds = None,
    teachers: Teachers = None,
    grid: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=LIST",
            help="Values to combine, as in method.temperature=1,2,4. Repeatable.",
        ),
    ] = None,
    pairs: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Pairs of the recipe, comma-separated. Default: all."),
    ] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: runs/ and the recipe's name.")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Retrain runs that had other options.")
    ] = False,
    against: Against = None,
    by: By = "last",
    interval: Interval = "t",
    no_explain: NoExplain = False,
    as_json: Json = False,
) -> None:
    """Compare methods with a control over several seeds."""
    from stillhouse.cli import studies
    from stillhouse.cli.report_options import ReportOptions

    arguments = studies.StudyArguments(
        recipe, overrides or [], methods, seeds, teachers, grid or [], pairs
    )
    workers = studies.WorkerOptions(jobs, ray, cpus, gpus)
    options = ReportOptions(against, by, interval, not no_explain)
    studies.train_study(arguments, workers, out, overwrite, options, as_json)


@app.command("sweep")
def sweep_command(
    recipe: RecipeArgument,
    overrides: Overrides = None,
    methods: Methods = None,
    trials: Annotated[int, typer.Option(min=1, help="Number of trials per method.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds per trial.")] = 1,
    space: Annotated[
        list[str] | None,
        typer.Option(
            metavar="KEY=RANGE",
            help="Search space: KEY=LOW..HIGH or KEY=a|b. Repeatable. Default: each number of a "
            "method from a quarter to four times its value.",
        ),
    ] = None,
    teachers: Teachers = None,
    seed: Annotated[int, typer.Option(help="Random seed of the search.")] = 0,
    no_prune: Annotated[
        bool, typer.Option("--no-prune", help="Do not stop unpromising trials early.")
    ] = False,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: runs/ and the recipe's name.")
    ] = None,
) -> None:
    """Search the options of methods on the validation split."""
    from stillhouse.cli import studies

    arguments = studies.StudyArguments(recipe, overrides or [], methods, seeds, teachers)
    workers = studies.WorkerOptions(jobs, ray, cpus, gpus)
    studies.search_options(arguments, workers, out, trials, seed, not no_prune, space or [])


@app.command("explain")
def explain_command(
    run: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder of a run or study.")],
    other: Annotated[
        Path | None,
        typer.Argument(metavar="OTHER", help="Folder of another run to compare with."),
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Maximum number of images.")] = 5000,
    layout: Annotated[
        Literal["tsne", "pca"], typer.Option(help="Projection of the features to two dimensions.")
    ] = "tsne",
    files: Annotated[
        Path | None, typer.Option(help="Folder for charts (SVG), images (PNG) and tables (CSV).")
    ] = None,
) -> None:
    """Diagnose the student of a run, or the best one of a study."""
    from stillhouse.cli import pages

    pages.explain_run(run, other, limit, layout, files)


@app.command("report")
def report_command(
    folders: Annotated[
        list[Path], typer.Argument(metavar="FOLDER", help="Folders of runs and studies.")
    ],
    compare: Annotated[bool, typer.Option("--compare", help="Compare exactly two runs.")] = False,
    table: Annotated[
        str | None,
        typer.Option(
            metavar="FORMAT",
            help="Print the table of a study instead: csv, json, markdown or latex.",
        ),
    ] = None,
    against: Against = None,
    by: By = "last",
    interval: Interval = "t",
    out: Annotated[
        Path | None, typer.Option(help="Output file. Default: report.html, or compare.html.")
    ] = None,
) -> None:
    """Write the report of runs and studies, or print a table."""
    from stillhouse.cli import pages
    from stillhouse.cli.report_options import ReportOptions

    options = ReportOptions(against, by, interval)
    pages.report_folders(folders, compare, table, options, out)


@runs_app.command("ls")
def runs_ls_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Folder to search.")] = Path(
        "runs"
    ),
    as_json: Json = False,
) -> None:
    """List runs and studies with their results."""
    from stillhouse.cli import pages

    pages.print_runs(folder, as_json)


@app.command("doctor")
def doctor_command(
    recipe: RecipeArgument, overrides: Overrides = None, as_json: Json = False
) -> None:
    """Check everything that a recipe needs, before training."""
    from stillhouse.cli import inspection

    inspection.print_checks(recipe, overrides or [], as_json)


@app.command("evaluate")
def evaluate_command(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="Run folder.")],
    split: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Split to evaluate on: train, val or test. Default: test, or val without one.",
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights file. Default: the student of the run.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Evaluate the student of a run."""
    from stillhouse.cli import inspection

    inspection.print_evaluation(folder, split, weights, as_json)


@app.command("predict")
def predict_command(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="Run folder.")],
    images: Annotated[
        list[Path], typer.Argument(metavar="IMAGE", help="Image files, or folders of them.")
    ],
    out: Annotated[
        Path | None, typer.Option(help="Output folder. Default: RUN/predictions.")
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights file. Default: the student of the run.")
    ] = None,
    threshold: Annotated[
        float, typer.Option(min=0, max=1, help="Minimum score of a detection.")
    ] = 0.3,
) -> None:
    """Predict for image files with the student of a run."""
    from stillhouse.cli import predict

    predict.print_predictions(run, images, out, weights, threshold)


@app.command("methods")
def methods_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Method to show in detail.")
    ] = None,
    tasks: Annotated[
        bool, typer.Option("--tasks", help="Print a table of the tasks that methods work for.")
    ] = False,
) -> None:
    """List the distillation methods, or show one in detail."""
    from stillhouse.cli import catalogue

    if tasks:
        catalogue.print_support()
    else:
        catalogue.print_methods(name)


@app.command("models")
def models_command(
    pattern: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of a network, part of one, or a glob.")
    ] = "",
    options: Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE")] = None,
) -> None:
    """List the available networks, or show one, made with options such as classes=10."""
    from stillhouse.cli import catalogue

    catalogue.print_models(pattern, options or [])


@app.command("datasets")
def datasets_command(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Data set to show in detail.")
    ] = None,
) -> None:
    """List the available data sets, or show one in detail."""
    from stillhouse.cli import catalogue

    catalogue.print_datasets(name)
