"""The commands of `stillhouse recipes`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

recipes_app = typer.Typer(no_args_is_help=True, help="List, copy, validate and explain recipes.")


@recipes_app.command("ls")
def recipes_ls_command(
    pattern: Annotated[str, typer.Argument(metavar="PATTERN", help="Part of a name.")] = "",
) -> None:
    """List the recipes that come with the package."""
    from stillhouse.cli import catalogue

    catalogue.print_recipes(pattern)


@recipes_app.command("cp")
def recipes_cp_command(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Recipe name from `recipes ls`.")],
    target: Annotated[
        Path | None,
        typer.Argument(metavar="FILE", help="File to write. Default: in the current folder."),
    ] = None,
) -> None:
    """Copy a recipe to a file of your own."""
    from stillhouse.cli import catalogue

    catalogue.copy_recipe(name, target)


@recipes_app.command("validate")
def recipes_validate_command(
    recipes: Annotated[list[str], typer.Argument(metavar="RECIPE", help="Recipe files or names.")],
) -> None:
    """Check whether recipes are valid."""
    from stillhouse.cli import catalogue

    catalogue.validate_recipes(recipes)


@recipes_app.command("keys")
def recipes_keys_command(
    section: Annotated[
        str, typer.Argument(metavar="SECTION", help="One section, such as train.")
    ] = "",
) -> None:
    """List all keys of a recipe with type, default and meaning."""
    from stillhouse.cli import catalogue

    catalogue.print_keys(section)
