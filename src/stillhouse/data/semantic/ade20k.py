"""The scene parsing benchmark of ADE20K as masks."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stillhouse.batches import IGNORE
from stillhouse.data.formats.table import check_classes
from stillhouse.data.formats.text import read_lines
from stillhouse.data.semantic.build import MaskFiles, build_source
from stillhouse.data.semantic.places import find_part, find_root, pair_files
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import MaskSource
from stillhouse.data.semantic.values import ClassTable
from stillhouse.errors import UserError

NAME = "ade20k/semantic"
NAMES = "objectInfo150.txt"

_PARTS = {"train": "training", "test": "validation"}  # the masks of its test set are not public


def read_ade20k(
    path: Path,
    split: str,
    *,
    part: str = "",
    classes: Sequence[object] | None = None,
    **policy: Any,
) -> MaskSource:
    """The images of a split, sorted by name; the value 0 is ignored, and 1 is the first class.

    Test is the folder `validation`; `part` names another. The classes are `classes`, else the names
    in objectInfo150.txt. `policy` has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root = find_root(NAME, path, "annotations", "ADEChallengeData2016")
    folder = find_part(NAME, split, part, _PARTS)
    known = read_names(root / NAMES) if classes is None else check_classes(classes)
    name = f"{NAME}/{split}"
    images, masks = pair_files(name, root, f"images/{folder}", f"annotations/{folder}")
    table = ClassTable({0: IGNORE, **{i + 1: i for i in range(len(known))}})
    return build_source(MaskFiles(name, root, images, masks, known, table), checked)


def read_names(file: Path) -> tuple[str, ...]:
    """The first synonym of each row of a table with a header that ends in `Name`.

    All synonyms are kept where the first ones are not unique.
    """
    remedy = "download it again, or list the classes with classes=[NAME, ...]"
    header, *rows = read_lines(file, remedy).values() or [""]
    columns = header.split()
    if not rows or columns[-1:] != ["Name"]:
        raise UserError(f"{file}: expected a header that ends in Name, and rows; {remedy}")
    names = [row.split(None, len(columns) - 1)[-1].strip() for row in rows]
    short = tuple(name.partition(",")[0] for name in names)
    return short if len(set(short)) == len(short) else check_classes(names)
