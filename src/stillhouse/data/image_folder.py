"""Images in a folder, at any depth, without labels."""

from __future__ import annotations

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
    read_shapes,
)
from stillhouse.data.problems import Problem, check_choice, settle
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError

_BROKEN = Problem("broken", "images cannot be read", "repair them")


class ImageFolder:
    """A source of all images below a folder, decoded on access, in the order of their paths."""

    classes: tuple[str, ...] = ()

    def __init__(self, root: Path, paths: tuple[str, ...], notes: tuple[str, ...] = ()) -> None:
        self.root, self.paths, self.notes = root, paths, notes
        self.name = str(root)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the paths and sizes of the files, not of their content."""
        return fingerprint_of_files(
            ((path, file_size(self.root / path), []) for path in self.paths), ()
        )

    @cached_property
    def shapes(self) -> Tensor:
        """The height and width of each image, from the headers of the files: -> (N, 2)."""
        return torch.tensor(read_shapes([self.root / path for path in self.paths]))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Sample:
        return Sample(read_image(self.root / self.paths[index]), None, index)


def read_image_folder(root: Path, broken: str = "fail") -> ImageFolder:
    """The images below a folder, in RGB and upright.

    A damaged image raises when it is read (`fail`), or all images are decoded at the start and the
    damaged ones are left out and counted (`skip`).
    """
    check_choice("broken", broken, ("fail", "skip"))
    root = root.expanduser().absolute()
    if not root.is_dir():
        what = "is no folder" if root.exists() else "does not exist"
        raise UserError(f"data.unlabelled.path: {root} {what}; set it to a folder of images")
    paths = sorted(list_images(root, ""))
    if not paths:
        raise UserError(
            f"data.unlabelled.path: {root} has no images; image files end in "
            f"{', '.join(IMAGE_SUFFIXES)}"
        )
    if broken == "fail":
        return ImageFolder(root, tuple(paths))
    affected = ~torch.tensor(are_readable([root / path for path in paths])).numpy()
    kept, notes = settle(str(root), _BROKEN, affected, broken, lambda i: str(root / paths[i]))
    if not kept.any():
        raise UserError(f"{root}: none of the {len(paths)} images can be read; copy them again")
    return ImageFolder(root, tuple(compress(paths, kept)), notes)
