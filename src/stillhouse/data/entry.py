"""What is known of a data set before it is opened."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from stillhouse.data.source import Source
from stillhouse.errors import UserError

SPLITS = ("train", "val", "test")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Open = Callable[..., Source]
# one class, several labels, boxes, the classes of pixels, or boxes with masks of an image
Kind = Literal["class", "labels", "objects", "masks", "instances"]


@dataclass(frozen=True)
class Entry:
    """A data set by name: a summary, the expected files, and the statistics of its images."""

    name: str
    summary: str
    layout: str
    open: Open
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    splits: tuple[str, ...] = SPLITS
    kind: Kind = "class"  # of its targets
    files: bool = True  # whether each image is a file, which may be broken
    # of a split below data.path, as {split}.csv, where val and test may be absent; "": the reader
    # raises MissingSplit for them
    place: str = ""


def needed(path: Path | None, name: str) -> Path:
    """The path of a data set that is read from files; raises a UserError without one."""
    if path is None:
        raise UserError(f"{name} is read from files; set data.path=FOLDER")
    return Path(path).expanduser()
