"""CamVid in the layout of SegNet as masks."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.batches import IGNORE
from stillhouse.data.semantic.build import MaskFiles, build_source
from stillhouse.data.semantic.places import find_root, pair_files
from stillhouse.data.semantic.policy import MaskPolicy
from stillhouse.data.semantic.source import MaskSource
from stillhouse.data.semantic.values import ClassTable

NAME = "camvid/semantic"
CLASSES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)


def read_camvid(path: Path, split: str, **policy: Any) -> MaskSource:
    """The images of a split, sorted by name, with 11 classes (Badrinarayanan et al., 2017).

    The value 11 of a mask is unlabelled and ignored. `policy` has the options of `MaskPolicy`.
    """
    checked = MaskPolicy(**policy)
    root = find_root(NAME, path, "trainannot", "CamVid", "camvid")
    name = f"{NAME}/{split}"
    images, masks = pair_files(name, root, split, f"{split}annot")
    values = {i: i for i in range(len(CLASSES))}
    table = ClassTable({**values, len(CLASSES): IGNORE, IGNORE: IGNORE})
    return build_source(MaskFiles(name, root, images, masks, CLASSES, table), checked)
