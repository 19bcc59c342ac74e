"""Images in folders, one folder per class."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stillhouse.data.source import Sample, fingerprint_of_files, from_pil
from stillhouse.errors import UserError, did_you_mean

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")
SPLITS = ("train", "training", "val", "valid", "validation", "test", "testing")

_BROKEN = ("fail", "skip")


class Folder:
    """A source of the images under `root/class/`, decoded when they are asked for."""

    def __init__(
        self,
        root: Path,
        classes: Sequence[str],
        paths: Sequence[str],
        skipped: Sequence[Path] = (),
    ) -> None:
        self.root = root
        self.classes = tuple(classes)
        self.paths = tuple(paths)  # relative to the root, with slashes, sorted
        self.skipped = tuple(skipped)
        self.name = f"{root.parent.name}/{root.name}".strip("/")

    @cached_property
    def targets(self) -> Tensor:
        """Class of each sample, from the names of the folders: -> (N,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([index[path.split("/", 1)[0]] for path in self.paths])

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes and classes of the files, not of what they hold."""
        sizes = [size_of(self.root / path) for path in self.paths]
        labels = self.targets.tolist()
        return fingerprint_of_files(zip(self.paths, sizes, labels, strict=True), self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), int(self.targets[index]), index)


def folder(root: str | Path, broken: str = "fail") -> Folder:
    """The images under `root/class/`, at any depth, in RGB and upright.

    `key` is the index in the sorted relative paths. An empty class folder keeps its place among
    the classes. A damaged image stops the run when it is read (`fail`), or all are read at once
    and the damaged ones are left out and listed in `skipped` (`skip`).
    """
    if broken not in _BROKEN:
        raise UserError(
            f"broken is {broken!r}, and can be 'fail' or 'skip'{did_you_mean(broken, _BROKEN)}"
        )
    place = Path(root).expanduser().absolute()
    classes = class_folders(place)
    paths = sorted(path for name in classes for path in images_below(place, name))
    if not paths:
        raise UserError(
            f"{place} has folders but no image in them; images are files that end in "
            f"{', '.join(SUFFIXES)}"
        )
    if broken == "fail":
        return Folder(place, classes, paths)
    with ThreadPoolExecutor() as pool:
        intact = list(pool.map(is_intact, [place / path for path in paths]))
    kept = [path for path, good in zip(paths, intact, strict=True) if good]
    skipped = [place / path for path, good in zip(paths, intact, strict=True) if not good]
    if not kept:
        raise UserError(f"{place}: none of its {len(paths)} images can be read; copy them again")
    return Folder(place, classes, kept, skipped)


def decode_image(file: BinaryIO) -> Tensor:
    """The image in an open file, in RGB and upright by its EXIF orientation: -> (3, H, W) uint8.

    Raises whatever Pillow raises.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 8 and leave a white image; the upper 8 bits are the image.
        high = np.clip(np.asarray(image, dtype=np.int64) // 256, 0, 255)
        image = Image.fromarray(high.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # to RGB at once, Pillow warns of each such file
    return from_pil(image if image.mode == "RGB" else image.convert("RGB"))


def class_folders(root: Path) -> list[str]:
    """The folders of a split, each of which is a class, sorted."""
    if not root.exists():
        siblings = [entry.name for entry in root.parent.glob("*") if entry.is_dir()]
        hint = did_you_mean(root.name, siblings) or "; give the folder that holds train/ and val/"
        raise UserError(f"{root} does not exist{hint}")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give the folder that holds one folder per class")
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not entries:
        raise UserError(f"{root} is empty; it needs one folder of images per class")
    if not names:
        raise UserError(
            f"{root} has no folders in it; put the images of each class into a folder of their own"
        )
    _refuse_splits(root, names)
    return names


def _refuse_splits(root: Path, names: Sequence[str]) -> None:
    splits = [name for name in names if name.lower() in SPLITS]
    # A class may well be called "train" where buses and cars are classes too.
    if len(splits) == len(names) or (len(splits) > 1 and "train" in splits):
        inner = root / ("train" if "train" in splits else splits[0])
        raise UserError(
            f"{root} holds the splits {', '.join(splits)}, not classes; give one of them, "
            f"such as {inner}"
        )


def images_below(root: Path, name: str) -> Iterator[str]:
    """The images of one class at any depth: their paths relative to the root."""
    # Links are followed because large data sets are often assembled out of them.
    for place, folders, files in os.walk(root / name, followlinks=True):
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        for file in files:
            if file.lower().endswith(SUFFIXES) and not file.startswith("."):
                yield Path(place, file).relative_to(root).as_posix()


def read_image(path: Path) -> Tensor:
    """The image in a file, as `decode_image` gives it: -> (3, H, W) uint8."""
    try:
        with path.open("rb") as file:
            return decode_image(file)
    except Exception as error:  # The decoders of Pillow raise nearly anything.
        raise UserError(
            f"{path} cannot be read as an image ({error}); mend it, or leave such files out "
            "with broken='skip'"
        ) from error


def is_intact(path: Path) -> bool:
    """Whether a file can be read as an image."""
    try:
        read_image(path)
    except UserError:
        return False
    return True


def size_of(path: Path) -> int:
    """The size of a file in bytes."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(f"{path} was there and is gone; put it back, or start again") from error
