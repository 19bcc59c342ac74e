"""Images and masks of one's own in two folders of each split."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stillhouse.data.formats.text import require_folder
from stillhouse.data.semantic.build import MaskFiles, build_source
from stillhouse.data.semantic.classes import read_classes
from stillhouse.data.semantic.places import pair_files
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import MaskSource

NAME = "folder/semantic"


def read_folder(
    path: Path,
    split: str,
    *,
    classes: Sequence[object] | None = None,
    colours: Mapping[str, Sequence[int]] | None = None,
    ignore: object = None,
    **policy: Any,
) -> MaskSource:
    """The images in `path/split/images` with the masks in `path/split/masks`, sorted by path.

    A mask has the path of its image with another suffix. Its values are indices of classes, or
    colours where there is a table of them: `colours`, else `classes.csv`. The classes are
    `classes`, else the names of that table, else the lines of `classes.txt`. `ignore` is one or
    several values, colours or names whose pixels are ignored, by default the value 255. `policy`
    has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root = require_folder(NAME, path)
    known, table = read_classes(root, classes, colours, ignore)
    name = f"{root.name}/{split}"
    images, masks = pair_files(name, root, f"{split}/images", f"{split}/masks")
    return build_source(MaskFiles(name, root, images, masks, known, table), checked)
