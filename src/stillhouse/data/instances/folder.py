"""Images of one's own with masks that number their objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.formats.table import CLASSES, given_classes
from stillhouse.data.formats.text import require_folder
from stillhouse.data.instances.mask_files import InstanceSource, InstanceTable, build_instances
from stillhouse.data.instances.table import (
    TABLE,
    ListedObjects,
    OneClass,
    names_in_table,
    read_objects_table,
)
from stillhouse.data.semantic.build import MaskFiles
from stillhouse.data.semantic.places import pair_files
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.errors import UserError

NAME = "folder/instances"


def read_folder(
    path: Path, split: str, *, classes: Sequence[object] | None = None, **policy: Any
) -> InstanceSource:
    """The images in `path/split/images` with the masks in `path/split/masks`, sorted by path.

    A mask has the path of its image with another suffix, 0 for the background, and a number for
    each object: a grey value, an index of a palette, or red + 256 green + 65536 blue. The class of
    each number is in `path/split/instances.csv`, which is not needed for one class. The classes are
    `classes`, else the lines of `classes.txt`, else the sorted names of the training table.
    `policy` has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root = require_folder(NAME, path)
    known = given_classes(root, classes) or names_in_table(root / "train" / TABLE, root / CLASSES)
    name = f"{root.name}/{split}"
    images, masks = pair_files(name, root, f"{split}/images", f"{split}/masks")
    table = _table(root, split, known)
    files = MaskFiles[InstanceTable](name, root, images, masks, known, table)
    return build_instances(files, checked)


def _table(root: Path, split: str, classes: tuple[str, ...]) -> InstanceTable:
    file = root / split / TABLE
    if file.is_file():
        return ListedObjects(root / split / "masks", read_objects_table(file, classes))
    if len(classes) == 1:
        return OneClass()
    raise UserError(
        f"{file} does not exist, but there are {len(classes)} classes; list the class of each "
        "object there under the header mask,value,class"
    )
