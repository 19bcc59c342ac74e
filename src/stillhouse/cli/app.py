"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

app = typer.Typer(
    name="stillhouse",
    help="Distil vision networks: a small student nearly as good as its teacher.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Every command takes --debug, which shows where an error came from.",
)
recipes_app = typer.Typer(no_args_is_help=True, help="List, copy and check recipes.")
app.add_typer(recipes_app, name="recipes")
runs_app = typer.Typer(no_args_is_help=True, help="What has been run, and what came of it.")
app.add_typer(runs_app, name="runs")

RecipeName = Annotated[str, typer.Argument(help="A recipe file, a name of `recipes ls`, or a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value laid over the recipe, as in method.temperature=2"),
]

MethodWords = Annotated[
    str | None,
    typer.Option(help="Comma-separated: kd, dist:temperature=4, kd+cwd, or the recipe's own."),
]
SeedCount = Annotated[int | None, typer.Option(min=1, help="How often each is trained.")]
TeacherWords = Annotated[
    str | None, typer.Option(help="Comma-separated: NAME, NAME=WEIGHTS, or the recipe's own.")
]
Jobs = Annotated[int | None, typer.Option(min=1, help="Processes side by side; one a core or GPU.")]
Ray = Annotated[
    str | None, typer.Option(help="A Ray cluster instead: its address, auto, or local.")
]
Cpus = Annotated[float, typer.Option(min=0.1, help="Cores of a training, with --ray.")]
Gpus = Annotated[float, typer.Option(min=0, help="GPUs of a training, with --ray.")]
By = Annotated[
    Literal["last", "best"],
    typer.Option(help="last: test, after the last epoch; best: validation, its best epoch."),
]
Against = Annotated[str | None, typer.Option(help="Also compare with this method.")]
Interval = Annotated[
    Literal["t", "bootstrap"], typer.Option(help="How the interval of a gain is made.")
]
NoExplain = Annotated[bool, typer.Option("--no-explain", help="Leave the diagnostics out.")]


def version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        from stillhouse import __version__

        print(__version__)
        raise typer.Exit


@app.callback()
def common(
    show_version: Annotated[
        bool, typer.Option("--version", callback=version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """Distil vision networks: a small student nearly as good as its teacher."""


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Where the runs are kept.")] = Path("runs/demo"),
    seeds: Annotated[int, typer.Option(min=2, help="How often each student is trained.")] = 3,
    epochs: Annotated[float, typer.Option(min=0.1, help="How long each student learns.")] = 10,
) -> None:
    """Teacher, control and two methods on embedded data, offline, in minutes."""
    from stillhouse.cli import training

    training.demo(out, seeds, epochs)


@app.command()
def run(
    recipe: RecipeName,
    overrides: Overrides = None,
    out: Annotated[Path | None, typer.Option(help="The run's folder.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on where the folder ends.")] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Empty the folder first, if it holds a run.")
    ] = False,
    no_explain: NoExplain = False,
) -> None:
    """Train what a recipe says, and measure teacher, control and student."""
    from stillhouse.cli import training

    training.run(recipe, overrides or [], out, resume, overwrite, not no_explain)


@app.command()
def study(
    recipe: Annotated[str, typer.Argument(help="A recipe, or a study's folder to go on with.")],
    overrides: Overrides = None,
    methods: MethodWords = None,
    seeds: SeedCount = None,
    teachers: TeacherWords = None,
    grid: Annotated[
        list[str] | None, typer.Option(help="key=value,value; several are combined.")
    ] = None,
    pairs: Annotated[
        str | None, typer.Option(help="Some of the recipe's pairs, by their labels.")
    ] = None,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    out: Annotated[Path | None, typer.Option(help="The study's folder.")] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Train anew what had other options.")
    ] = False,
    against: Against = None,
    by: By = "last",
    interval: Interval = "t",
    no_explain: NoExplain = False,
) -> None:
    """Methods x teachers x seeds beside a control: which one helps, and by how much."""
    from stillhouse.cli import studies
    from stillhouse.cli.report_options import View

    named = studies.Named(recipe, overrides or [], methods, seeds, teachers, grid or [], pairs)
    place = studies.Place(jobs, ray, cpus, gpus)
    view = View(against, by, interval, not no_explain)
    studies.study(named, place, out, overwrite, view)


@app.command()
def sweep(
    recipe: RecipeName,
    overrides: Overrides = None,
    methods: MethodWords = None,
    trials: Annotated[int, typer.Option(min=1, help="Sets of options for each method.")] = 8,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings of each set.")] = 1,
    space: Annotated[
        list[str] | None,
        typer.Option(help="KEY=LOW..HIGH or KEY=a|b in place of a quarter to four times."),
    ] = None,
    teachers: TeacherWords = None,
    seed: Annotated[int, typer.Option(help="Of the search itself.")] = 0,
    no_prune: Annotated[bool, typer.Option("--no-prune", help="Give no trial up early.")] = False,
    jobs: Jobs = None,
    ray: Ray = None,
    cpus: Cpus = 1,
    gpus: Gpus = 0,
    out: Annotated[Path | None, typer.Option(help="Where the trials are kept.")] = None,
) -> None:
    """Choose the options of methods on the validation split, as many trials for each."""
    from stillhouse.cli import studies

    named = studies.Named(recipe, overrides or [], methods, seeds, teachers)
    place = studies.Place(jobs, ray, cpus, gpus)
    studies.sweep(named, place, out, trials, seed, not no_prune, space or [])


@app.command()
def explain(
    run: Annotated[Path, typer.Argument(help="The folder of a run or a study.")],
    other: Annotated[
        Path | None, typer.Argument(help="Another run, to be set beside the first.")
    ] = None,
    limit: Annotated[int, typer.Option(min=2, help="Test images that are looked at.")] = 5000,
    layout: Annotated[
        Literal["tsne", "pca"], typer.Option(help="How features are laid out in a plane.")
    ] = "tsne",
    files: Annotated[
        Path | None,
        typer.Option(help="A folder for charts as SVG, pictures as PNG, tables as CSV."),
    ] = None,
) -> None:
    """What a student has learnt of its teacher: consistency, calibration, gradients, pictures."""
    from stillhouse.cli import pages

    pages.explain(run, other, limit, layout, files)


@app.command()
def report(
    folders: Annotated[list[Path], typer.Argument(help="Folders of runs and studies.")],
    compare: Annotated[
        bool, typer.Option("--compare", help="Two runs, beside each other.")
    ] = False,
    table: Annotated[
        str | None, typer.Option(help="Print a table instead: csv, json, markdown or latex.")
    ] = None,
    against: Against = None,
    by: By = "last",
    interval: Interval = "t",
    out: Annotated[Path | None, typer.Option(help="The file to write.")] = None,
) -> None:
    """Write the page of runs and studies again, or print their table."""
    from stillhouse.cli import pages
    from stillhouse.cli.report_options import View

    view = View(against, by, interval)
    pages.report(folders, compare, table, view, out)


@runs_app.command("ls")
def runs_ls(
    folder: Annotated[Path, typer.Argument(help="Where runs are kept.")] = Path("runs"),
) -> None:
    """Every run and study below a folder, with its answer."""
    from stillhouse.cli import pages

    pages.runs(folder)


@app.command()
def doctor(recipe: RecipeName, overrides: Overrides = None) -> None:
    """Check everything that can fail, before anything runs."""
    from stillhouse.cli import inspection

    inspection.doctor(recipe, overrides or [])


@app.command()
def evaluate(
    folder: Annotated[Path, typer.Argument(help="The folder of a run.")],
    split: Annotated[str, typer.Option(help="train, val or test.")] = "test",
    weights: Annotated[
        Path | None, typer.Option(help="Other weights for the student of that run.")
    ] = None,
) -> None:
    """Measure the student of a run again."""
    from stillhouse.cli import inspection

    inspection.evaluate(folder, split, weights)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="One method, in full.")] = None,
) -> None:
    """The methods: formula, paper, needs, defaults, cost, and when each fails."""
    from stillhouse.cli import catalogue

    catalogue.methods(name)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="Part of a name, or a glob.")] = "",
) -> None:
    """The networks that a recipe can name."""
    from stillhouse.cli import catalogue

    catalogue.models(pattern)


@app.command()
def datasets(
    name: Annotated[str | None, typer.Argument(help="One data set, in full.")] = None,
) -> None:
    """The data sets that a recipe can name, and the layout that each expects."""
    from stillhouse.cli import catalogue

    catalogue.datasets(name)


@recipes_app.command("ls")
def recipes_ls(
    pattern: Annotated[str, typer.Argument(help="Part of a name.")] = "",
) -> None:
    """The recipes that come with the package."""
    from stillhouse.cli import catalogue

    catalogue.recipes(pattern)


@recipes_app.command("cp")
def recipes_cp(
    name: Annotated[str, typer.Argument(help="A name of `recipes ls`.")],
    to: Annotated[Path | None, typer.Argument(help="The file to write.")] = None,
) -> None:
    """Copy a recipe, which is then yours to edit."""
    from stillhouse.cli import catalogue

    catalogue.copy(name, to)


@recipes_app.command("validate")
def recipes_validate(
    files: Annotated[list[str], typer.Argument(help="Recipe files or names.")],
) -> None:
    """Say of each recipe whether it loads, and where not."""
    from stillhouse.cli import catalogue

    catalogue.validate(files)
