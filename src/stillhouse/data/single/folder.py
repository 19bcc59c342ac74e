"""Images in folders, one folder per class."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path

import torch
from torch import Tensor

from stillhouse.data.images import (
    IMAGE_SUFFIXES,
    are_readable,
    file_size,
    list_images,
    read_image,
)
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean, quote

SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test", "testing")

_BROKEN = ("fail", "skip")


class FolderSource:
    """A source of the images under `root/class/`, decoded on access."""

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

    @property
    def notes(self) -> tuple[str, ...]:
        """How many images were left out, in one sentence, if there are any."""
        if not self.skipped:
            return ()
        count, first = len(self.skipped), self.skipped[0]
        total = count + len(self)
        text = f"{count} of {total} images cannot be read and are skipped; the first is {first}"
        return (f"{self.name}: {text}",)

    @cached_property
    def targets(self) -> Tensor:
        """Class index of each sample, from the names of the folders: -> (N,)."""
        index = {name: i for i, name in enumerate(self.classes)}
        return torch.tensor([index[path.split("/", 1)[0]] for path in self.paths])

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the paths, sizes and classes of the files, not of their content."""
        sizes = [file_size(self.root / path) for path in self.paths]
        labels = self.targets.tolist()
        return fingerprint_of_files(zip(self.paths, sizes, labels, strict=True), self.classes)

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), int(self.targets[index]), index)


def read_folder(root: str | Path, broken: str = "fail") -> FolderSource:
    """The images under `root/class/`, at any depth, in RGB and upright.

    `key` is the index in the sorted relative paths. An empty class folder keeps its place among
    the classes. A damaged image raises when it is read (`fail`), or all images are decoded at the
    start and the damaged ones are left out and listed in `skipped` (`skip`).
    """
    if broken not in _BROKEN:
        hint = did_you_mean(broken, _BROKEN)
        raise UserError(f"`broken` must be 'fail' or 'skip', got {quote(broken)}{hint}")
    root = Path(root).expanduser().absolute()
    classes = class_folders(root)
    paths = sorted(path for name in classes for path in list_images(root, name))
    if not paths:
        raise UserError(
            f"{root} has class folders, but no images in them; image files end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    if broken == "fail":
        return FolderSource(root, classes, paths)
    readable = are_readable([root / path for path in paths])
    kept = list(compress(paths, readable))
    skipped = [root / path for path, good in zip(paths, readable, strict=True) if not good]
    if not kept:
        raise UserError(f"{root}: none of the {len(paths)} images can be read; copy them again")
    return FolderSource(root, classes, kept, skipped)


def read_split(path: Path, split: str, broken: str = "fail") -> FolderSource:
    """The images of a split, under `path/split/class/`; as `read_folder`.

    Where there are no splits, train has the images under `path/class/`.
    """
    path = path.expanduser().absolute()
    if split == "train" and path.is_dir():
        _check_training(path)
        if not (path / split).exists():
            return read_folder(path, broken)
    return read_folder(path / split, broken)


def _check_training(path: Path) -> None:
    """Raise a UserError where it is not clear which folders are classes and which are splits."""
    names, training = _folder_names(path), path / "train"
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    classes = [name for name in names if name not in splits]
    if training.exists():
        if classes and training.is_dir() and not _folder_names(training):
            raise UserError(
                f"{training} has no class folders, but is beside {', '.join(classes[:3])}; if "
                f"these are classes, move all class folders into {training}"
            )
        return
    hint = did_you_mean("train", names)
    if splits:
        among = f"the class folders of the training images into {training}"
        if classes:
            raise UserError(
                f"{path} has no folder train, but {', '.join(classes[:3])} beside "
                f"{', '.join(splits)}, which are names of splits; put {among}{hint}"
            )
        raise UserError(f"{path} has no folder train, but {', '.join(splits)}; put {among}{hint}")
    if inner := next((name for name in names if (path / name / "train").is_dir()), None):
        raise UserError(
            f"{path} has no folder train, but {path / inner} has one; set data.path={path / inner}"
        )
    if len(names) == 1:
        raise UserError(
            f"{path} has neither a folder train nor several classes, only {names[0]}; give the "
            f"folder that contains train/ and val/, or one folder per class{hint}"
        )


def _folder_names(path: Path) -> list[str]:
    """The sorted names of the folders in a folder, without hidden ones."""
    entries = (entry for entry in path.iterdir() if not entry.name.startswith("."))
    return sorted(entry.name for entry in entries if entry.is_dir())


def class_folders(root: Path) -> list[str]:
    """The sorted names of the class folders of a split."""
    if not root.exists():
        siblings = [entry.name for entry in root.parent.glob("*") if entry.is_dir()]
        hint = (
            did_you_mean(root.name, siblings) or "; give the folder that contains train/ and val/"
        )
        raise UserError(f"{root} does not exist{hint}")
    if not root.is_dir():
        raise UserError(f"{root} is a file; give a folder with one folder per class")
    entries = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
    names = sorted(entry.name for entry in entries if entry.is_dir())
    if not entries:
        raise UserError(f"{root} is empty; it needs one folder of images per class")
    if not names:
        raise UserError(
            f"{root} contains no folders; put the images of each class into a folder of their own"
        )
    _refuse_splits(root, names)
    return names


def _refuse_splits(root: Path, names: Sequence[str]) -> None:
    splits = [name for name in names if name.lower() in SPLIT_NAMES]
    # A class may well be called "train" where buses and cars are classes too.
    if len(splits) == len(names) or (len(splits) > 1 and "train" in splits):
        inner = root / ("train" if "train" in splits else splits[0])
        raise UserError(
            f"{root} contains the splits {', '.join(splits)}, not classes; give one of them, "
            f"such as {inner}"
        )
