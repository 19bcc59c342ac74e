"""The data sets of images with a class for each pixel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stillhouse.data.entry import Entry, needed
from stillhouse.data.source import Source


def scene_masks(path: Path | None, split: str, **options: Any) -> Source:
    """Scenes of several digits with the class of each pixel."""
    from stillhouse.data.embedded.digits import make_semantic as make

    counts = {"train": 4000, "val": 1000, "test": 1500}
    return make(split, **{"count": counts[split], "cache": True, **options})


def cityscapes(path: Path | None, split: str, **options: Any) -> Source:
    """Cityscapes, or a data set in its layout."""
    from stillhouse.data.semantic.cityscapes import read_cityscapes as read

    return read(needed(path, "cityscapes/semantic"), split, **options)


def voc(path: Path | None, split: str, **options: Any) -> Source:
    """Pascal VOC, or a data set in its format, with the masks of SBD if they are wanted."""
    from stillhouse.data.semantic.voc import read_voc as read

    return read(needed(path, "voc/semantic"), split, **options)


def ade20k(path: Path | None, split: str, **options: Any) -> Source:
    """The scene parsing benchmark of ADE20K."""
    from stillhouse.data.semantic.ade20k import read_ade20k as read

    return read(needed(path, "ade20k/semantic"), split, **options)


def camvid(path: Path | None, split: str, **options: Any) -> Source:
    """CamVid in the layout of SegNet."""
    from stillhouse.data.semantic.camvid import read_camvid as read

    return read(needed(path, "camvid/semantic"), split, **options)


def folder(path: Path | None, split: str, **options: Any) -> Source:
    """Images and masks of one's own."""
    from stillhouse.data.semantic.folder import read_folder as read

    return read(needed(path, "folder/semantic"), split, **options)


MASKS = (
    Entry(
        "digits/semantic",
        "scenes of one to four handwritten digits with the class of each pixel, 11 classes, "
        "offline",
        "no files: 4000 train, 1000 val and 1500 test images of 48 x 48, or `count` per split and "
        "`size`",
        scene_masks,
        (0.25, 0.25, 0.25),
        (0.25, 0.25, 0.25),
        kind="masks",
        files=False,
    ),
    Entry(
        "cityscapes/semantic",
        "Cityscapes, 2,975 train and 500 val images (as test), 19 classes, masks",
        "path/leftImg8bit/train/CITY/*_leftImg8bit.png beside "
        "path/gtFine/train/CITY/*_gtFine_labelIds.png, the same for val; set data.holdout=300",
        cityscapes,
        kind="masks",
    ),
    Entry(
        "voc/semantic",
        "VOC 2012, 1,464 train and 1,449 val images (as test), 20 classes and background, masks; "
        "10,582 train images with SBD",
        "path/VOC2012 (or VOCdevkit/VOC2012) with JPEGImages, SegmentationClass, "
        "ImageSets/Segmentation/*.txt; or these in the path itself; set data.holdout=200",
        voc,
        kind="masks",
    ),
    Entry(
        "ade20k/semantic",
        "ADE20K scene parsing, 20,210 train and 2,000 val images (as test), 150 classes, masks",
        "path/images/training/*.jpg, path/annotations/training/*.png, the same for validation, and "
        "path/objectInfo150.txt; set data.holdout=1000",
        ade20k,
        kind="masks",
    ),
    Entry(
        "camvid/semantic",
        "CamVid, 367 train, 101 val and 233 test images, 11 classes, masks",
        "path/train/*.png, path/trainannot/*.png, the same for val and test",
        camvid,
        kind="masks",
    ),
    Entry(
        "folder/semantic",
        "your own images with masks",
        "path/train/images/*.jpg, path/train/masks/*.png, the same for val, and path/test if there "
        "is one; path/classes.txt, or path/classes.csv with name,r,g,b for masks in colours",
        folder,
        kind="masks",
        place="{split}",
    ),
)
