"""The parts of a data set in a recipe: its splits, and images without labels."""

from __future__ import annotations

from dataclasses import field
from pathlib import Path
from typing import Any, Literal

from stillhouse.spec import require, spec


@spec
class SplitSpec:
    """The options of one split of a data set."""

    count: int | None = None
    seed: int | None = None
    subset: int | float | None = None  # number or share of its samples, stratified; None: all
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        part = self.subset
        fits = part is None or (0 < part <= 1 if isinstance(part, float) else part >= 1)
        require(fits, "subset", "a count of at least 1, or a share in (0, 1]", part)


@spec
class UnlabelledSpec(SplitSpec):
    """Training images without labels: image files, or those of the training split of a data set."""

    path: Path | None = None  # a folder of images, at any depth; with `name`, that of its files
    name: str | None = None  # a data set, whose labels are not used
    alone: bool = False  # train on these images only; val and test keep their labels
    broken: Literal["skip", "fail"] | None = None  # None: as `data.broken`

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.path is None and self.name is None:
            raise ValueError("unlabelled names no images; set its path to a folder of images")
