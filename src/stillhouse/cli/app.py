"""The commands and their options."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

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

RecipeName = Annotated[str, typer.Argument(help="A recipe file, a name of `recipes ls`, or a run.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(help="key=value laid over the recipe, as in method.temperature=2"),
]


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
) -> None:
    """Train what a recipe says, and measure teacher, control and student."""
    from stillhouse.cli import training

    training.run(recipe, overrides or [], out, resume, overwrite)


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
