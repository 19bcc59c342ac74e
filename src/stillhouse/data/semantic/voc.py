"""Pascal VOC, with the masks of SBD where they are wanted, and data sets in its format."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.batches import IGNORE
from stillhouse.data.formats.table import check_classes
from stillhouse.data.formats.text import require_folder
from stillhouse.data.formats.voc import CLASSES, YEARS, find_root, image_sets, read_image_set
from stillhouse.data.images import list_images
from stillhouse.data.problems import check_choice
from stillhouse.data.semantic.build import MaskFiles, build_source
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import MaskSource
from stillhouse.data.semantic.values import SBD, ClassTable
from stillhouse.errors import UserError

NAME = "voc/semantic"
SETS = "Segmentation"


def read_voc(
    path: Path,
    split: str,
    *,
    year: int = 2012,
    set: str = "",
    masks: str = "SegmentationClass",
    sbd: str = "",
    classes: Sequence[object] | None = None,
    **policy: Any,
) -> MaskSource:
    """The images of an image set, in its order, with background and the 20 classes.

    The image set is `set`, by default the split; test is `val` where there is no image set of test,
    as in VOC 2012. Masks are in the folder `masks`, indices of a palette with 255 at borders. With
    `sbd`, the folder of SBD, train has its images too (Hariharan et al., 2011), except those of the
    image set val. `classes` names the indices of data of one's own. `policy` has the options of
    `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    check_choice("year", year, YEARS)
    root = find_root(NAME, require_folder(NAME, path), year)
    known = ("background", *CLASSES) if classes is None else check_classes(classes)
    names = read_image_set(root, set or _image_set(root, split), SETS)
    files = [f"{masks}/{name}.png" for name in names]
    if sbd and split == "train":
        held = {*names, *read_image_set(root, "val", SETS)}
        more = {name: file for name, file in find_sbd(path / sbd).items() if name not in held}
        names, files = [*names, *more], [*files, *more.values()]
    # sorted, so that of a.jpg and a.png the first is taken
    images = {Path(file).stem: file for file in sorted(list_images(root, "JPEGImages"))[::-1]}
    return build_source(
        MaskFiles(
            f"{NAME}/{split}",
            root,
            [images.get(name, f"JPEGImages/{name}.jpg") for name in names],
            files,
            known,
            ClassTable({**{i: i for i in range(len(known))}, IGNORE: IGNORE}),
        ),
        checked,
    )


def _image_set(root: Path, split: str) -> str:
    """The image set of a split; val is held out of train where it is used as test."""
    if "test" in image_sets(root, SETS) or split == "train":
        return split
    if split == "test":
        return "val"
    raise UserError(
        f"{NAME}: there is no val split, as the images of val.txt are `test`; hold out samples of "
        "train with data.holdout=COUNT, or choose image sets with "
        "data.val.options.set=NAME and data.test.options.set=NAME"
    )


def find_sbd(folder: Path) -> dict[str, str]:
    """The absolute path of each mask of SBD by the name of its image, sorted."""
    root = require_folder(NAME, folder)
    for place in (root, root / "dataset", root / "benchmark_RELEASE" / "dataset"):
        if files := sorted((place / "cls").glob(f"*{SBD}")):
            return {file.stem: file.as_posix() for file in files}
    raise UserError(f"{NAME}: {root} contains no cls/*{SBD}; set sbd to the folder of SBD")
