"""The data sets that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from stillhouse.data.entry import IMAGENET, SPLITS, Entry, Kind, Open, needed
from stillhouse.data.instances.catalogue import INSTANCES
from stillhouse.data.semantic.catalogue import MASKS
from stillhouse.data.source import Source
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.plugins import entry_points

__all__ = ["ENTRIES", "IMAGENET", "SPLITS", "Entry", "Kind", "entries", "entry", "open_source"]

PLUGINS = "stillhouse.datasets"  # the entry point group: NAME -> (path, split, **options) -> Source


def numbers(path: Path | None, split: str, **options: Any) -> Source:
    """Two-digit numbers, 100 classes."""
    from stillhouse.data.embedded.digits import make_numbers as make

    counts = {"train": 6000, "val": 2000, "test": 5000}
    return make(split, **{"count": counts[split], "cache": True, **options})


def raw(path: Path | None, split: str, **options: Any) -> Source:
    """Handwritten digits, 10 classes."""
    from stillhouse.data.embedded.digits import make_raw as make

    options.pop("seed", None)  # not random
    return make(split, **({"count": 200, **options} if split == "train" else options))


def scene_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Multi-label scenes of several digits."""
    from stillhouse.data.embedded.digits import make_multilabel as make

    counts = {"train": 4000, "val": 1000, "test": 1500}
    return make(split, **{"count": counts[split], "cache": True, **options})


def scene_objects(path: Path | None, split: str, **options: Any) -> Source:
    """Scenes of several digits with their boxes."""
    from stillhouse.data.embedded.digits import make_objects as make

    counts = {"train": 4000, "val": 1000, "test": 1500}
    return make(split, **{"count": counts[split], "cache": True, **options})


def cifar10(path: Path | None, split: str, **options: Any) -> Source:
    """CIFAR-10 from its archive."""
    from stillhouse.data.single.cifar import read_cifar10 as read

    return read(needed(path, "cifar10"), split, **options)


def cifar100(path: Path | None, split: str, **options: Any) -> Source:
    """CIFAR-100 from its archive."""
    from stillhouse.data.single.cifar import read_cifar100 as read

    return read(needed(path, "cifar100"), split, **options)


def folder(path: Path | None, split: str, **options: Any) -> Source:
    """Images in one folder per class, below one folder per split or without splits."""
    from stillhouse.data.single.folder import read_split as read

    return read(needed(path, "folder"), split, **options)


def table(path: Path | None, split: str, **options: Any) -> Source:
    """Images and the class of each in CSV tables."""
    from stillhouse.data.single.table import read_table as read

    return read(needed(path, "csv"), split, **options)


def shards(path: Path | None, split: str, **options: Any) -> Source:
    """Tar shards, below one folder per split."""
    from stillhouse.data.single.shards import read_shards as read

    return read(needed(path, "shards") / split, **options)


def coco_labels(path: Path | None, split: str, **options: Any) -> Source:
    """COCO as a multi-label data set: the categories of the objects of each image."""
    from stillhouse.data.multilabel.coco import read_coco as read

    return read(needed(path, "coco/labels"), split, **options)


def voc_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Pascal VOC as a multi-label data set: the classes of the objects of each image."""
    from stillhouse.data.multilabel.voc import read_voc as read

    return read(needed(path, "voc/labels"), split, **options)


def nuswide_labels(path: Path | None, split: str, **options: Any) -> Source:
    """NUS-WIDE: the concepts of each image."""
    from stillhouse.data.multilabel.nuswide import read_nuswide as read

    return read(needed(path, "nuswide/labels"), split, **options)


def csv_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Images and their labels in CSV tables."""
    from stillhouse.data.multilabel.table import read_table as read

    return read(needed(path, "csv/labels"), split, **options)


def folder_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Images in folders, with the same file in the folder of each of its classes."""
    from stillhouse.data.multilabel.folders import read_folders as read

    return read(needed(path, "folder/labels"), split, **options)


def coco_objects(path: Path | None, split: str, **options: Any) -> Source:
    """COCO, or an export in its format: the boxes of each image."""
    from stillhouse.data.objects.coco import read_coco as read

    return read(needed(path, "coco/objects"), split, **options)


def voc_objects(path: Path | None, split: str, **options: Any) -> Source:
    """Pascal VOC, or an export in its format: the boxes of each image."""
    from stillhouse.data.objects.voc import read_voc as read

    return read(needed(path, "voc/objects"), split, **options)


def yolo_objects(path: Path | None, split: str, **options: Any) -> Source:
    """Images with boxes in the text files of YOLO."""
    from stillhouse.data.objects.yolo import read_yolo as read

    return read(needed(path, "yolo/objects"), split, **options)


def csv_objects(path: Path | None, split: str, **options: Any) -> Source:
    """Images with boxes in CSV tables."""
    from stillhouse.data.objects.table import read_table as read

    return read(needed(path, "csv/objects"), split, **options)


ENTRIES = (
    Entry(
        "digits/numbers",
        "two handwritten digits per image, 100 classes; drawn from scikit-learn's digits, offline",
        "no files: 6000 train, 2000 val and 5000 test images of 16 x 32, or `count` per split",
        numbers,
        (0.25,),
        (0.25,),
        files=False,
    ),
    Entry(
        "digits/raw",
        "the handwritten digits of scikit-learn themselves, 10 classes, offline",
        "no files: 200 train images (more with `count`), 360 val, 359 test, of 8 x 8",
        raw,
        (0.25,),
        (0.25,),
        files=False,
    ),
    Entry(
        "digits/labels",
        "scenes of one to four handwritten digits, 10 classes, multi-label, offline",
        "no files: 4000 train, 1000 val and 1500 test images of 48 x 48, or `count` per split",
        scene_labels,
        (0.25, 0.25, 0.25),
        (0.25, 0.25, 0.25),
        kind="labels",
        files=False,
    ),
    Entry(
        "digits/objects",
        "scenes of one to four handwritten digits with their boxes, 10 classes, offline",
        "no files: 4000 train, 1000 val and 1500 test images of 48 x 48, or `count` per split and "
        "`size`",
        scene_objects,
        (0.25, 0.25, 0.25),
        (0.25, 0.25, 0.25),
        kind="objects",
        files=False,
    ),
    Entry(
        "cifar10",
        "CIFAR-10, 50,000 train and 10,000 test images of 32 x 32",
        "path contains cifar-10-batches-py or -bin, or its .tar.gz; set data.holdout=5000",
        cifar10,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        ("train", "test"),
        files=False,
    ),
    Entry(
        "cifar100",
        "CIFAR-100 with its fine labels, 50,000 train and 10,000 test images of 32 x 32",
        "path contains cifar-100-python or -binary, or its .tar.gz; set data.holdout=5000",
        cifar100,
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
        ("train", "test"),
        files=False,
    ),
    Entry(
        "folder",
        "your own images, one folder per class",
        "path/train/CLASS/*.jpg and path/val/CLASS/*.jpg, and path/test if there is one; or "
        "path/CLASS/*.jpg with data.holdout=0.2",
        folder,
        place="{split}",
    ),
    Entry(
        "csv",
        "your own images listed in CSV tables, one class per image",
        "path/train.csv and path/val.csv, and path/test.csv if there is one; columns path and "
        "label",
        table,
        place="{split}.csv",
    ),
    Entry(
        "shards",
        "your own images in tar shards, NAME.jpg beside NAME.cls",
        "path/train/*.tar and path/val/*.tar, and path/test if there is one (extra: stream)",
        shards,
        place="{split}",
    ),
    Entry(
        "coco/labels",
        "COCO, 82,081 train and 40,137 val images (as test), 80 classes, multi-label",
        "path/annotations/instances_train2014.json beside path/train2014/*.jpg, the same for val; "
        "set data.holdout=4000",
        coco_labels,
        splits=("train", "test"),
        kind="labels",
    ),
    Entry(
        "voc/labels",
        "VOC 2007, 5,011 trainval and 4,952 test images, 20 classes, multi-label",
        "path/VOC2007 (or VOCdevkit/VOC2007) with JPEGImages, Annotations, ImageSets/Main/*.txt",
        voc_labels,
        kind="labels",
    ),
    Entry(
        "nuswide/labels",
        "NUS-WIDE, 161,789 train and 107,859 test images, 81 classes, multi-label",
        "path contains ConceptsList, ImageList, Groundtruth/TrainTestLabels and Flickr/*/*.jpg; "
        "set data.holdout=8000",
        nuswide_labels,
        splits=("train", "test"),
        kind="labels",
    ),
    Entry(
        "csv/labels",
        "your own images listed in CSV tables, multi-label",
        "path/train.csv and path/val.csv, and path/test.csv if there is one; columns path and "
        "labels (a;b), or path and a column of 0 and 1 for each class",
        csv_labels,
        kind="labels",
        place="{split}.csv",
    ),
    Entry(
        "folder/labels",
        "your own images, a copy or a link in the folder of each class, multi-label",
        "path/train/CLASS/*.jpg and path/val/CLASS/*.jpg, and path/test if there is one",
        folder_labels,
        kind="labels",
        place="{split}",
    ),
    Entry(
        "coco/objects",
        "COCO, 118,287 train and 5,000 val images (as test), 80 classes, boxes; or an export",
        "path/annotations/instances_train2017.json beside path/train2017/*.jpg, the same for val; "
        "set data.holdout=4000; or path/train/_annotations.coco.json beside the images",
        coco_objects,
        kind="objects",
    ),
    Entry(
        "voc/objects",
        "VOC 2007, 2,501 train, 2,510 val, 4,952 test images, 20 classes, boxes; or an export",
        "path/VOC2007 (or VOCdevkit/VOC2007) with JPEGImages, Annotations, ImageSets/Main/*.txt; "
        "or these in the path itself",
        voc_objects,
        kind="objects",
    ),
    Entry(
        "yolo/objects",
        "your own images with boxes in the text files of YOLO",
        "path/data.yaml with names, train, val and perhaps test; images/*/*.jpg beside "
        "labels/*/*.txt of lines `class x y width height`",
        yolo_objects,
        kind="objects",
    ),
    Entry(
        "csv/objects",
        "your own images with boxes in CSV tables",
        "path/train.csv and path/val.csv, and path/test.csv if there is one; columns path, label, "
        "x1, y1, x2, y2, a row for each box",
        csv_objects,
        kind="objects",
        place="{split}.csv",
    ),
    *MASKS,
    *INSTANCES,
)


def entries() -> tuple[Entry, ...]:
    """Every data set that can be named, including those of installed packages."""
    plugins = [
        Entry(point.name, f"plugin {point.value}", "see that package", _lazily(point.load))
        for point in entry_points(group=PLUGINS)
    ]
    return (*ENTRIES, *plugins)


def entry(name: str) -> Entry:
    """A data set by name."""
    known: Mapping[str, Entry] = {entry.name: entry for entry in entries()}
    if name not in known:
        hint = did_you_mean(name, known) or f"; known: {', '.join(known)}"
        raise UserError(f"there is no data set {quote(name)}{hint}")
    return known[name]


def open_source(name: str, path: Path | None, split: str, **options: Any) -> Source:
    """One split of a data set by name."""
    data = entry(name)
    if split not in data.splits:
        raise UserError(
            f"{name} has no {split} split, only {' and '.join(data.splits)}; "
            "hold out samples of train with data.holdout=COUNT"
        )
    try:
        return data.open(path, split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        word = str(error).rpartition("argument ")[2]
        raise UserError(f"data.{split}: {name} has no option {word}") from error


def _lazily(load: Callable[[], Open]) -> Open:
    def open_(path: Path | None, split: str, **options: Any) -> Source:
        return load()(path, split, **options)

    return open_
