"""The data sets of images with objects that have a mask each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.data.entry import Entry, needed
from stillhouse.data.source import Source


def scene_instances(path: Path | None, split: str, **options: Any) -> Source:
    """Scenes of several digits with the mask of each."""
    from stillhouse.data.embedded.digits import make_instances as make

    counts = {"train": 4000, "val": 1000, "test": 1500}
    return make(split, **{"count": counts[split], "cache": True, **options})


def coco(path: Path | None, split: str, **options: Any) -> Source:
    """COCO, or an export in its format: the masks of each image."""
    from stillhouse.data.instances.coco import read_coco as read

    return read(needed(path, "coco/instances"), split, **options)


def cityscapes(path: Path | None, split: str, **options: Any) -> Source:
    """Cityscapes, or a data set in its layout: the masks of each image."""
    from stillhouse.data.instances.cityscapes import read_cityscapes as read

    return read(needed(path, "cityscapes/instances"), split, **options)


def folder(path: Path | None, split: str, **options: Any) -> Source:
    """Images and masks of one's own."""
    from stillhouse.data.instances.folder import read_folder as read

    return read(needed(path, "folder/instances"), split, **options)


INSTANCES = (
    Entry(
        "digits/instances",
        "scenes of one to four handwritten digits with their boxes and masks, 10 classes, offline",
        "no files: 4000 train, 1000 val and 1500 test images of 48 x 48, or `count` per split and "
        "`size`",
        scene_instances,
        (0.25, 0.25, 0.25),
        (0.25, 0.25, 0.25),
        kind="instances",
        files=False,
    ),
    Entry(
        "coco/instances",
        "COCO, 118,287 train and 5,000 val images (as test), 80 classes, masks of objects; or an "
        "export",
        "path/annotations/instances_train2017.json beside path/train2017/*.jpg, the same for val; "
        "set data.holdout=4000; or path/train/_annotations.coco.json beside the images",
        coco,
        kind="instances",
    ),
    Entry(
        "cityscapes/instances",
        "Cityscapes, 2,975 train and 500 val images (as test), 8 classes, masks of objects",
        "path/leftImg8bit/train/CITY/*_leftImg8bit.png beside "
        "path/gtFine/train/CITY/*_gtFine_instanceIds.png, the same for val; set data.holdout=300",
        cityscapes,
        kind="instances",
    ),
    Entry(
        "folder/instances",
        "your own images with masks that number their objects",
        "path/train/images/*.jpg, path/train/masks/*.png, path/train/instances.csv with "
        "mask,value,class, the same for val, and path/test if there is one",
        folder,
        kind="instances",
        place="{split}",
    ),
)
