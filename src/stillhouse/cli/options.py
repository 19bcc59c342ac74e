"""Arguments and options that several commands have."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

RecipeArgument = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        help="Recipe file, recipe name from `recipes ls`, or run folder. Without one, the first "
        "KEY=VALUE: data.path=photos teacher=timm/resnet50 student=timm/resnet18.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE", help="Overrides of the recipe, as in method.temperature=2."
    ),
]
Methods = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Methods, comma-separated: kd, dist:temperature=4, kd+cwd, or labels of the recipe. "
        "Default: those of the recipe.",
    ),
]
Seeds = Annotated[
    int | None, typer.Option(min=1, help="Number of seeds. Default: that of the recipe, or 3.")
]
Teachers = Annotated[
    str | None,
    typer.Option(
        metavar="LIST",
        help="Teachers, comma-separated: NAME, NAME=WEIGHTS, or labels of the recipe. "
        "Default: those of the recipe.",
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(min=1, help="Number of parallel processes. Default: one per GPU, else per core."),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Run on a Ray cluster: its address, `auto` or `local`."),
]
Cpus = Annotated[float, typer.Option(min=0.1, help="Cores per training, with --ray.")]
Gpus = Annotated[float, typer.Option(min=0, help="GPUs per training, with --ray.")]
By = Annotated[
    Literal["last", "best"],
    typer.Option(
        help="Score to compare. last: test, or validation without a test split, after the last "
        "epoch. best: validation at the best epoch."
    ),
]
Against = Annotated[
    str | None,
    typer.Option(metavar="LABEL", help="Also compare every method with this one."),
]
Interval = Annotated[
    Literal["t", "bootstrap"], typer.Option(help="Type of the confidence intervals.")
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON object on stdout, and nothing else.")
]
NoExplain = Annotated[bool, typer.Option("--no-explain", help="Skip the diagnostics.")]
