"""Images in folders, the same file in the folder of each of its classes."""

from __future__ import annotations

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from stillhouse.data.multilabel.album import Album, Found, album
from stillhouse.data.multilabel.policy import Policy, check_choice
from stillhouse.data.single.folder import SUFFIXES, class_folders, images_below
from stillhouse.errors import UserError

_COMPARE = ("bytes", "sizes")


def folders(
    path: Path,
    split: str,
    *,
    compare: str = "bytes",
    unlabelled: str = "keep",
    unknown: str = "fail",
    broken: str = "fail",
) -> Album:
    """The images under `path/split/class/`; one name in several classes is one image.

    Files of one name must be the same, which is held by their sizes and then their `bytes`, or by
    their `sizes` alone. The classes are the folders of `train`. An image beside the class folders
    has no label.
    """
    policy = Policy(unlabelled, unknown, broken=broken)
    check_choice("compare", compare, _COMPARE)
    path = path.absolute()
    root, training = path / split, path / "train"
    own = class_folders(root)
    classes = class_folders(training) if training.is_dir() else own
    copies = _copies(root, own)
    _refuse_strangers(root, copies, compare)
    found = sorted((sorted(paths) for paths in copies), key=lambda paths: paths[0])
    return album(
        Found(
            name=f"{path.name}/{split}",
            root=root,
            paths=[paths[0] for paths in found],
            labels=[[p.split("/", 1)[0] for p in paths if "/" in p] for paths in found],
            classes=tuple(classes),
            mend=f"make a folder of the same name in {training}",
        ),
        policy,
    )


def _copies(root: Path, classes: Sequence[str]) -> list[list[str]]:
    """The relative paths of each image."""
    found: dict[str, list[str]] = {}
    for name in classes:
        for path in images_below(root, name):
            found.setdefault(path.split("/", 1)[1], []).append(path)
    with os.scandir(root) as entries:
        loose = [entry.name for entry in entries if entry.is_file()]
    for name in loose:
        if name.lower().endswith(SUFFIXES) and not name.startswith("."):
            found.setdefault(name, []).append(name)
    return list(found.values())


def _refuse_strangers(root: Path, copies: Sequence[Sequence[str]], compare: str) -> None:
    pairs = [(paths[0], other) for paths in copies for other in paths[1:]]
    with ThreadPoolExecutor() as pool:
        same = pool.map(lambda pair: _same(root / pair[0], root / pair[1], compare), pairs)
        strangers = sorted(pair for pair, alike in zip(pairs, same, strict=True) if not alike)
    if strangers:
        first, second = strangers[0]
        raise UserError(
            f"{root}: {len(strangers)} files share their name with a different image of another "
            f"class, {first} and {second} are the first; give each image a name of its own"
        )


def _same(first: Path, second: Path, compare: str) -> bool:
    one, other = first.stat(), second.stat()
    if os.path.samestat(one, other):  # a link, as large data sets are often assembled of
        return True
    if one.st_size != other.st_size:
        return False
    return compare == "sizes" or first.read_bytes() == second.read_bytes()
