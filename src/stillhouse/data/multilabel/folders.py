"""Images in folders, with the same file in the folder of each of its classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stillhouse.data.images import is_image_name, list_images
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy
from stillhouse.data.problems import check_choice
from stillhouse.data.single.folder import class_folders
from stillhouse.errors import UserError

_COMPARE = ("bytes", "sizes")


def read_folders(
    path: Path,
    split: str,
    *,
    compare: str = "bytes",
    unlabelled: str = "keep",
    unknown: str = "fail",
    broken: str = "fail",
) -> FileSource:
    """The images under `path/split/class/`; one file name in several classes is one image.

    Files of one name must be identical, which is checked by size and content (`bytes`) or by size
    alone (`sizes`). The classes are the folders of `train`. An image beside the class folders has
    no labels.
    """
    policy = SkipPolicy(unlabelled, unknown, broken=broken)
    check_choice("compare", compare, _COMPARE)
    path = path.absolute()
    root, training = path / split, path / "train"
    folders = class_folders(root)
    classes = class_folders(training) if training.is_dir() else folders
    copies = _copies(root, folders)
    _refuse_different(root, copies, compare)
    images = sorted((sorted(paths) for paths in copies), key=lambda paths: paths[0])
    return build_source(
        ScannedImages(
            name=f"{path.name}/{split}",
            root=root,
            paths=[paths[0] for paths in images],
            labels=[[p.split("/", 1)[0] for p in paths if "/" in p] for paths in images],
            classes=tuple(classes),
            remedy=f"make a folder of the same name in {training}",
        ),
        policy,
    )


def _copies(root: Path, classes: Sequence[str]) -> list[list[str]]:
    """The relative paths of each image."""
    copies: dict[str, list[str]] = {}
    for name in classes:
        for path in list_images(root, name):
            copies.setdefault(path.split("/", 1)[1], []).append(path)
    with os.scandir(root) as entries:
        files = [entry.name for entry in entries if entry.is_file()]
    for name in filter(is_image_name, files):
        copies.setdefault(name, []).append(name)
    return list(copies.values())


def _refuse_different(root: Path, copies: Sequence[Sequence[str]], compare: str) -> None:
    pairs = [(paths[0], other) for paths in copies for other in paths[1:]]
    with ThreadPoolExecutor() as pool:
        same = pool.map(lambda pair: _same(root / pair[0], root / pair[1], compare), pairs)
        different = sorted(pair for pair, equal in zip(pairs, same, strict=True) if not equal)
    if different:
        first, second = different[0]
        raise UserError(
            f"{root}: {len(different)} files have the name of a different image of another class, "
            f"the first are {first} and {second}; give each image a name of its own"
        )


def _same(first: Path, second: Path, compare: str) -> bool:
    one, other = first.stat(), second.stat()
    if os.path.samestat(one, other):  # a link, from which large data sets are often assembled
        return True
    if one.st_size != other.st_size:
        return False
    return compare == "sizes" or first.read_bytes() == second.read_bytes()
