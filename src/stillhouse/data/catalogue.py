"""The data sets that a recipe can name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from stillhouse.data.source import Source
from stillhouse.errors import UserError, did_you_mean

PLUGINS = "stillhouse.datasets"  # the entry point group: NAME -> (path, split, **options) -> Source
SPLITS = ("train", "val", "test")
IMAGENET = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)

Open = Callable[..., Source]


@dataclass(frozen=True)
class Entry:
    """A data set by name: what it is, the layout it is read in, and what its images are like."""

    name: str
    summary: str
    layout: str
    open: Open
    mean: tuple[float, ...] = IMAGENET[0]
    std: tuple[float, ...] = IMAGENET[1]
    splits: tuple[str, ...] = SPLITS
    several: bool = False  # whether an image has several labels
    test: str = ""  # what lies below the path where there is a test split; "": it always does


def numbers(path: Path | None, split: str, **options: Any) -> Source:
    """Two-digit numbers, 100 classes."""
    from stillhouse.data.embedded.digits import numbers as make

    counts = {"train": 6000, "val": 2000, "test": 5000}
    return make(split, **{"count": counts[split], "cache": True, **options})


def raw(path: Path | None, split: str, **options: Any) -> Source:
    """Handwritten digits, 10 classes."""
    from stillhouse.data.embedded.digits import raw as make

    options.pop("seed", None)  # they are what they are
    return make(split, **({"count": 200, **options} if split == "train" else options))


def scene_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Scenes of several digits, each with its classes."""
    from stillhouse.data.embedded.digits import several as make

    counts = {"train": 4000, "val": 1000, "test": 1500}
    return make(split, **{"count": counts[split], "cache": True, **options})


def cifar10(path: Path | None, split: str, **options: Any) -> Source:
    """CIFAR-10 from its archive."""
    from stillhouse.data.single.cifar import cifar10 as read

    return read(needed(path, "cifar10"), split, **options)


def cifar100(path: Path | None, split: str, **options: Any) -> Source:
    """CIFAR-100 from its archive."""
    from stillhouse.data.single.cifar import cifar100 as read

    return read(needed(path, "cifar100"), split, **options)


def folder(path: Path | None, split: str, **options: Any) -> Source:
    """A folder of images, one folder a class, below a folder a split."""
    from stillhouse.data.single.folder import folder as read

    return read(needed(path, "folder") / split, **options)


def shards(path: Path | None, split: str, **options: Any) -> Source:
    """Tar shards, below a folder a split."""
    from stillhouse.data.single.shards import shards as read

    return read(needed(path, "shards") / split, **options)


def coco_labels(path: Path | None, split: str, **options: Any) -> Source:
    """COCO, each image with the categories of its objects."""
    from stillhouse.data.multilabel.coco import coco as read

    return read(needed(path, "coco/labels"), split, **options)


def voc_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Pascal VOC, each image with the classes of its objects."""
    from stillhouse.data.multilabel.voc import voc as read

    return read(needed(path, "voc/labels"), split, **options)


def nuswide_labels(path: Path | None, split: str, **options: Any) -> Source:
    """NUS-WIDE, each image with its concepts."""
    from stillhouse.data.multilabel.nuswide import nuswide as read

    return read(needed(path, "nuswide/labels"), split, **options)


def csv_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Images that a table lists, each with its labels."""
    from stillhouse.data.multilabel.table import table as read

    return read(needed(path, "csv/labels"), split, **options)


def folder_labels(path: Path | None, split: str, **options: Any) -> Source:
    """Images in folders, the same file in that of each of its classes."""
    from stillhouse.data.multilabel.folders import folders as read

    return read(needed(path, "folder/labels"), split, **options)


ENTRIES = (
    Entry(
        "digits/numbers",
        "two handwritten digits an image, 100 classes; made of scikit-learn's digits, offline",
        "none: 6000 train, 2000 val and 5000 test images of 16 x 32, or `count` of each",
        numbers,
        (0.25,),
        (0.25,),
    ),
    Entry(
        "digits/raw",
        "the handwritten digits of scikit-learn themselves, 10 classes, offline",
        "none: 200 train images (`count` for more), 360 val, 359 test, of 8 x 8",
        raw,
        (0.25,),
        (0.25,),
    ),
    Entry(
        "digits/labels",
        "scenes of one to four handwritten digits, 10 classes, several an image; offline",
        "none: 4000 train, 1000 val and 1500 test images of 48 x 48, or `count` of each",
        scene_labels,
        (0.25, 0.25, 0.25),
        (0.25, 0.25, 0.25),
        several=True,
    ),
    Entry(
        "cifar10",
        "CIFAR-10, 50,000 train and 10,000 test images of 32 x 32",
        "path holds cifar-10-batches-py or -bin, or its .tar.gz; say data.holdout=5000",
        cifar10,
        (0.4914, 0.4822, 0.4465),
        (0.2470, 0.2435, 0.2616),
        ("train", "test"),
    ),
    Entry(
        "cifar100",
        "CIFAR-100 with its fine labels, 50,000 train and 10,000 test images of 32 x 32",
        "path holds cifar-100-python or -binary, or its .tar.gz; say data.holdout=5000",
        cifar100,
        (0.5071, 0.4867, 0.4408),
        (0.2675, 0.2565, 0.2761),
        ("train", "test"),
    ),
    Entry(
        "folder",
        "your own images, one folder a class",
        "path/train/CLASS/*.jpg and path/val/CLASS/*.jpg, and path/test if there is one",
        folder,
        test="test",
    ),
    Entry(
        "shards",
        "your own images in tar shards, NAME.jpg beside NAME.cls",
        "path/train/*.tar and path/val/*.tar, and path/test if there is one (extra: stream)",
        shards,
        test="test",
    ),
    Entry(
        "coco/labels",
        "COCO, 82,081 train and 40,137 val images (as test) of 80 classes, several an image",
        "path/annotations/instances_train2014.json beside path/train2014/*.jpg, the same of val; "
        "say data.holdout=4000",
        coco_labels,
        splits=("train", "test"),
        several=True,
    ),
    Entry(
        "voc/labels",
        "VOC 2007, 5,011 trainval and 4,952 test images of 20 classes, several an image",
        "path/VOC2007 (or VOCdevkit/VOC2007) with JPEGImages, Annotations, ImageSets/Main/*.txt",
        voc_labels,
        several=True,
    ),
    Entry(
        "nuswide/labels",
        "NUS-WIDE, 161,789 train and 107,859 test images of 81 classes, several an image",
        "path holds ConceptsList, ImageList, Groundtruth/TrainTestLabels and Flickr/*/*.jpg; "
        "say data.holdout=8000",
        nuswide_labels,
        splits=("train", "test"),
        several=True,
    ),
    Entry(
        "csv/labels",
        "your own images listed in tables, several classes an image",
        "path/train.csv and path/val.csv, and path/test.csv if there is one; columns path and "
        "labels (a;b), or path and one of 0 and 1 for each class",
        csv_labels,
        several=True,
        test="test.csv",
    ),
    Entry(
        "folder/labels",
        "your own images, a copy or a link in the folder of each of its classes",
        "path/train/CLASS/*.jpg and path/val/CLASS/*.jpg, and path/test if there is one",
        folder_labels,
        several=True,
        test="test",
    ),
)


def entries() -> tuple[Entry, ...]:
    """Every data set that can be named, those of installed packages among them."""
    brought = [
        Entry(point.name, f"brought by {point.value}", "see that package", _lazily(point.load))
        for point in entry_points(group=PLUGINS)
    ]
    return (*ENTRIES, *brought)


def entry(name: str) -> Entry:
    """A data set by name."""
    known: Mapping[str, Entry] = {entry.name: entry for entry in entries()}
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise UserError(f"there is no data set {name!r}{hint}")
    return known[name]


def open_source(name: str, path: Path | None, split: str, **options: Any) -> Source:
    """One split of a data set by name."""
    found = entry(name)
    if split not in found.splits:
        raise UserError(
            f"{name} has no {split} split, only {' and '.join(found.splits)}; "
            "hold samples of train out with data.holdout=COUNT"
        )
    try:
        return found.open(path, split, **options)
    except TypeError as error:
        if "unexpected keyword argument" not in str(error):
            raise
        word = str(error).rpartition("argument ")[2]
        raise UserError(f"data.{split}: {name} has no option {word}") from error


def needed(path: Path | None, name: str) -> Path:
    """The path, which this data set cannot do without."""
    if path is None:
        raise UserError(f"{name} is read from files: give data.path=FOLDER")
    return Path(path).expanduser()


def _lazily(load: Callable[[], Open]) -> Open:
    def open_(path: Path | None, split: str, **options: Any) -> Source:
        return load()(path, split, **options)

    return open_
