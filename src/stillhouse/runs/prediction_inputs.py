"""The images that predictions are made for, and where their results are written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from stillhouse.data.images import IMAGE_SUFFIXES, list_images
from stillhouse.errors import UserError
from stillhouse.files import check_inside, write_error

DRAWN = (".png", ".jpg", ".jpeg")  # suffixes that a drawn image keeps


class Picture(NamedTuple):
    """One image file."""

    path: Path
    name: str  # relative to the folder that all inputs are in, with slashes
    number: int  # from 1, in the order of the inputs

    @property
    def drawn(self) -> str:
        """The name of the image with its detections: the same, with `.png` where it is needed."""
        return self.name if self.name.lower().endswith(DRAWN) else f"{self.name}.png"


class Seen(NamedTuple):
    """The images of a batch as they were read."""

    pictures: Sequence[Picture]
    pixels: Sequence[Tensor]  # (C, H, W) uint8 each


def find_pictures(inputs: Sequence[Path], out: Path) -> list[Picture]:
    """The files and the images in folders at any depth, without those in a folder `out` below.

    Raises UserError for an input that does not exist, or if there are no images at all.
    """
    for path in inputs:
        if not path.exists():
            raise UserError(f"there is no file or folder {path}; name images or folders of images")
    base = os.path.commonpath(
        [os.path.abspath(path if path.is_dir() else path.parent) for path in inputs]
    )
    found = {os.path.abspath(path): path for one in inputs for path in _files(one, out)}
    if not found:
        raise UserError(
            f"there are no images in {', '.join(map(str, inputs))}; names of images end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    return [
        Picture(path, Path(os.path.relpath(place, base)).as_posix(), number)
        for number, (place, path) in enumerate(found.items(), 1)
    ]


def _files(path: Path, out: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    written, inside = out.resolve(), path.resolve() in out.resolve().parents
    for name in sorted(list_images(path, "")):
        if not inside or written not in (path / name).resolve().parents:
            yield path / name


def make_folder(out: Path) -> None:
    """Make the folder of the results; raises UserError where that is not possible."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise UserError(f"{out} is not a folder; name another one with --out") from error
    except OSError as error:
        raise write_error(out, error) from error


def check_outputs(pictures: Sequence[Picture], out: Path, names: Sequence[str]) -> None:
    """Raise UserError if a file that is written to `out` would replace an input."""
    inputs = {picture.path.resolve() for picture in pictures}
    for name in names:
        if (out / name).resolve() in inputs:
            raise UserError(f"{out / name} is an input; name another folder with --out")


def check_output_links(run: Path, out: Path, names: Sequence[str]) -> None:
    """Raise UserError if a folder of the results, which are in the folder of a run, leads out."""
    for parent in dict.fromkeys((out / name).parent for name in names):
        check_inside(parent, run)
