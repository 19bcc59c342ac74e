"""Which data sets a folder may hold, by the names of its files and folders."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from stillhouse.data.formats.table import read_rows
from stillhouse.data.images import is_image_name
from stillhouse.errors import UserError, quote

SHOWN = 6  # entries of a folder that a message names
BOX_COLUMNS = {"x1", "y1", "x2", "y2"}
NOT_CLASSES = {"images", "masks", "labels", "annotations"}  # folders of other layouts


def find_layouts(path: Path) -> list[str]:
    """The names of the readers whose layout a folder has; raises UserError if there are none."""
    root = path.expanduser()
    if not root.is_dir():
        raise UserError(f"data.path: there is no folder {quote(str(path))}; correct it")
    found = [name for name, has_layout in LAYOUTS.items() if has_layout(root)]
    if not found and has_classes(root):
        return ["folder"]  # in one part, without splits
    if not found:
        inside = sorted(f"{entry.name}{'/' * entry.is_dir()}" for entry in root.iterdir())
        names = ", ".join(inside[:SHOWN]) + (", …" if len(inside) > SHOWN else "")
        raise UserError(
            f"{path} has no layout that is known, only {names or 'nothing'}; put images into "
            "train/CLASS and val/CLASS, or see `stillhouse datasets` and set data.name"
        )
    return found


def has_any(root: Path, *patterns: str) -> bool:
    """Whether a folder has a file or folder that matches one of some patterns."""
    return any(next(root.glob(pattern), None) is not None for pattern in patterns)


def has_classes(root: Path) -> bool:
    """Whether a folder has folders of images, by class."""
    folders = [entry for entry in root.iterdir() if entry.is_dir()] if root.is_dir() else []
    return any(
        folder.name not in NOT_CLASSES and any(is_image_name(f.name) for f in folder.iterdir())
        for folder in folders
    )


def has_coco(root: Path) -> bool:
    """Whether there are annotations of COCO."""
    return has_any(root, "annotations/instances_*.json", "*/_annotations.coco.json")


def has_voc(root: Path, part: str) -> bool:
    """Whether there are images of Pascal VOC, and a folder of annotations or masks."""
    places = ("", "VOC20*/", "VOCdevkit/VOC20*/")
    return has_any(root, *(f"{place}JPEGImages" for place in places)) and has_any(
        root, *(f"{place}{part}" for place in places)
    )


def has_pairs(root: Path) -> bool:
    """Whether `train` has images and masks."""
    return (root / "train" / "images").is_dir() and (root / "train" / "masks").is_dir()


def has_numbered_objects(root: Path) -> bool:
    """Whether a table has the class of each number in the masks of `train`."""
    return has_pairs(root) and (root / "train" / "instances.csv").is_file()


def has_cityscapes(root: Path) -> bool:
    """Whether there are the folders of Cityscapes."""
    return has_any(root, "leftImg8bit/train") and has_any(root, "gtFine/train")


def columns_of(root: Path) -> set[str]:
    """The columns of `train.csv`; empty without the file."""
    file = root / "train.csv"
    if not file.is_file():
        return set()
    _, header = next(read_rows(file, "write a header there"), (0, []))
    return {column.strip().lower() for column in header}


def has_boxes(root: Path) -> bool:
    """Whether `train.csv` has a box in each row."""
    return columns_of(root) >= BOX_COLUMNS


def has_one_class(root: Path) -> bool:
    """Whether `train.csv` has one class for each image."""
    columns = columns_of(root)
    return "label" in columns and not columns & BOX_COLUMNS


def has_labels(root: Path) -> bool:
    """Whether `train.csv` has several labels for each image."""
    columns = columns_of(root)
    return bool(columns) and "label" not in columns and not columns >= BOX_COLUMNS


LAYOUTS: dict[str, Callable[[Path], bool]] = {
    "folder": lambda root: has_classes(root / "train"),
    "csv": has_one_class,
    "csv/labels": has_labels,
    "csv/objects": has_boxes,
    "shards": lambda root: has_any(root, "train/*.tar"),
    "cifar10": lambda root: has_any(root, "cifar-10-batches-*", "cifar-10-*.tar.gz"),
    "cifar100": lambda root: has_any(root, "cifar-100-python*", "cifar-100-binary*"),
    "nuswide/labels": lambda root: has_any(root, "ConceptsList"),
    "yolo/objects": lambda root: has_any(root, "data.yaml"),
    "coco/labels": has_coco,
    "coco/objects": has_coco,
    "coco/instances": has_coco,
    "voc/labels": lambda root: has_voc(root, "Annotations"),
    "voc/objects": lambda root: has_voc(root, "Annotations"),
    "voc/semantic": lambda root: has_voc(root, "SegmentationClass"),
    "cityscapes/semantic": has_cityscapes,
    "cityscapes/instances": has_cityscapes,
    "ade20k/semantic": lambda root: has_any(root, "annotations/training"),
    "camvid/semantic": lambda root: has_any(root, "trainannot"),
    "folder/semantic": lambda root: has_pairs(root) and not has_numbered_objects(root),
    "folder/instances": has_numbered_objects,
}
