"""Where the images and masks of a split are."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath

from stillhouse.data.formats.text import require_folder
from stillhouse.data.images import list_images
from stillhouse.errors import UserError

_INEXACT = (".jpg", ".jpeg", ".webp")


def find_root(name: str, path: Path, folder: str, *inner: str) -> Path:
    """The path, or a folder of it by one of the names `inner`, that has `folder`."""
    root = require_folder(name, path)
    for place in (root, *(root / part for part in inner)):
        if (place / folder).is_dir():
            return place
    raise UserError(f"{name}: {root} contains no {folder}; unpack the data set there")


def find_part(name: str, split: str, part: str, known: Mapping[str, str]) -> str:
    """The folder of a split: `part` where it is given, else that of the table `known`."""
    if part or split in known:
        return part or known[split]
    raise UserError(
        f"{name}: there is no {split} split, as the {known['test']} images are `test`; hold out "
        "samples of train with data.holdout=COUNT, or name folders with "
        "data.val.options.part=FOLDER and data.test.options.part=FOLDER"
    )


def pair_files(name: str, root: Path, images: str, masks: str) -> tuple[list[str], list[str]]:
    """The images in a folder, sorted, and of each the mask of the same name in another folder.

    A mask that does not exist gets the name of a PNG file.
    """
    found = sorted(list_images(root, images))
    if not found:
        raise UserError(f"{name}: {root / images} contains no images; put them there")
    known: dict[PurePosixPath, str] = {}
    for mask in sorted(list_images(root, masks), key=lambda path: path.endswith(_INEXACT)):
        known.setdefault(PurePosixPath(mask).relative_to(masks).with_suffix(""), mask)
    stems = [PurePosixPath(image).relative_to(images).with_suffix("") for image in found]
    paired = [known.get(stem, f"{masks}/{stem}.png") for stem in stems]
    for mask in paired:
        if mask.lower().endswith(_INEXACT):
            raise UserError(
                f"{name}: {root / mask} is compressed with losses, which changes the values of a "
                "mask; save masks as PNG"
            )
    return found, paired
