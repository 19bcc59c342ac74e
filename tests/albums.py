"""Images of several labels, a few of each data set in the files of its authors."""

from __future__ import annotations

import json
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

import numpy as np
from PIL import Image

# places in a list of classes, for one image after the other; three make a group that teaches
LABELS = ((0, 1, 2), (1,), (0, 2, 3), (3, 4), (0, 1, 2, 4), (2, 3, 4))


def labels_of(count: int, classes: Sequence[str]) -> list[list[str]]:
    """The classes of so many images."""
    return [[classes[i] for i in chosen] for _, chosen in zip(range(count), cycle(LABELS))]


def save_image(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = (40 + seed % 5, 48 - seed % 7, 3)
    pixels = np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)
    Image.fromarray(pixels).save(path, "JPEG")


def write_coco(root: Path, train: int, test: int) -> Path:
    """Numbers of categories have gaps, and an image of train has no object, as in COCO."""
    names = ("person", "car", "bird", "fork", "toothbrush")
    categories = [{"id": 1 + 20 * i, "name": name} for i, name in enumerate(names)]
    for part, count in (("train2014", train), ("val2014", test)):
        images, annotations = [], []
        for i, labels in enumerate([*labels_of(count, names), []]):
            image = {"id": 9 + 16 * i, "file_name": f"COCO_{part}_{9 + 16 * i:012d}.jpg"}
            images.append(image)
            save_image(root / part / str(image["file_name"]), i)
            annotations += [
                {
                    "id": 1000 * i + j,
                    "image_id": image["id"],
                    "category_id": 1 + 20 * names.index(label),
                    "iscrowd": 0,
                    "bbox": [1, 2, 20, 20],
                    "segmentation": [[1.0, 2.0, 21.0, 2.0, 21.0, 22.0]],
                }
                for j, label in enumerate(labels)
            ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def boxes_of(seed: int, count: int) -> list[list[int]]:
    """Boxes x, y, width, height inside any image of `save_image`."""
    random = np.random.default_rng(seed)
    corners, sides = random.integers(0, 12, (count, 2)), random.integers(10, 28, (count, 2))
    return np.concatenate([corners, sides], 1).tolist()  # type: ignore[no-any-return]


def write_coco_objects(root: Path, train: int, test: int) -> Path:
    """COCO 2017: sizes, boxes, areas and crowds; the last image of each part has no object."""
    names = ("person", "car", "bird", "fork", "toothbrush")
    categories = [{"id": 1 + 20 * i, "name": name} for i, name in enumerate(names)]
    for part, count in (("train2017", train), ("val2017", test)):
        images, annotations = [], []
        for i, labels in enumerate([*labels_of(count, names), []]):
            name = f"{9 + 16 * i:012d}.jpg"
            save_image(root / part / name, i)
            with Image.open(root / part / name) as image:
                width, height = image.size
            images.append({"id": 9 + 16 * i, "file_name": name, "width": width, "height": height})
            annotations += [
                {
                    "id": 1000 * i + j,
                    "image_id": 9 + 16 * i,
                    "category_id": 1 + 20 * names.index(label),
                    "iscrowd": int(j == 2),
                    "area": box[2] * box[3] / 2,
                    "bbox": box,
                    "segmentation": [[1.0, 2.0, 21.0, 2.0, 21.0, 22.0]],
                }
                for j, (label, box) in enumerate(zip(labels, boxes_of(i, len(labels)), strict=True))
            ]
        content = {"images": images, "annotations": annotations, "categories": categories}
        file = root / "annotations" / f"instances_{part}.json"
        file.parent.mkdir(exist_ok=True)
        file.write_text(json.dumps(content))
    return root


def write_voc(root: Path, train: int, test: int) -> Path:
    """Train and val are halves of trainval."""
    place = root / "VOCdevkit" / "VOC2007"
    for folder in ("Annotations", "ImageSets/Main"):
        (place / folder).mkdir(parents=True)
    classes = ("aeroplane", "bird", "cat", "person", "tvmonitor")
    names = [f"{5 + 3 * i:06d}" for i in range(train + test)]
    for i, (name, labels) in enumerate(zip(names, labels_of(len(names), classes), strict=True)):
        save_image(place / "JPEGImages" / f"{name}.jpg", i)
        objects = "".join(
            f"<object><name>{label}</name><difficult>0</difficult><bndbox><xmin>1</xmin>"
            "<ymin>2</ymin><xmax>20</xmax><ymax>22</ymax></bndbox></object>"
            for label in labels
        )
        with Image.open(place / "JPEGImages" / f"{name}.jpg") as image:
            size = f"<size><width>{image.width}</width><height>{image.height}</height></size>"
        content = f"<annotation><filename>{name}.jpg</filename>{size}{objects}</annotation>"
        (place / "Annotations" / f"{name}.xml").write_text(content)
    half = train // 2
    lists = {"train": names[:half], "val": names[half:train], "trainval": names[:train]}
    for part, listed in (lists | {"test": names[train:]}).items():
        (place / "ImageSets" / "Main" / f"{part}.txt").write_text("\n".join(listed) + "\n")
    return root


def write_nuswide(root: Path, train: int, test: int) -> Path:
    """Paths have backslashes, and each concept has a file of 0 and 1 a part."""
    for folder in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    concepts = ("airport", "animal", "beach", "sky", "zebra")
    (root / "ConceptsList" / "Concepts81.txt").write_text("\n".join(concepts) + "\n")
    for part, count in (("Train", train), ("Test", test)):
        paths = [f"{concepts[i % 5]}/{i:04d}_{part.lower()}.jpg" for i in range(count)]
        for i, path in enumerate(paths):
            save_image(root / "Flickr" / path, i)
        listed = "\n".join(path.replace("/", "\\") for path in paths)
        (root / "ImageList" / f"{part}Imagelist.txt").write_text(listed + "\n")
        labels = labels_of(count, concepts)
        for concept in concepts:
            marks = "\n".join(str(int(concept in of_one)) for of_one in labels)
            file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
            file.write_text(marks + "\n")
    return root
