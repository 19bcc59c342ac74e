"""NUS-WIDE with its 81 concepts, from the folders as its authors publish them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillhouse.data.multilabel.album import Album, Found, album
from stillhouse.data.multilabel.policy import Policy, check_choice
from stillhouse.data.multilabel.text import bytes_of, existing, lines_of, names_of
from stillhouse.errors import UserError

_NAME = "nuswide/labels"
_PARTS = {"train": "Train", "test": "Test"}
_PLACES = ("Flickr", "images", ".")
_MEND = "unpack its part of NUS-WIDE there"


def nuswide(
    path: Path,
    split: str,
    *,
    images: str | None = None,
    unlabelled: str = "keep",
    missing: str = "fail",
    broken: str = "fail",
) -> Album:
    """The images of a list of NUS-WIDE, in its order, below the folder `images`.

    An image has the concepts for which its line says 1.
    """
    policy = Policy(unlabelled, missing=missing, broken=broken)
    check_choice("split", split, tuple(_PARTS))
    root, part = existing(_NAME, path), _PARTS[split]
    concepts = names_of(root / "ConceptsList" / "Concepts81.txt", _MEND)
    listed = root / "ImageList" / f"{part}Imagelist.txt"
    paths = [line.replace("\\", "/") for line in lines_of(listed, _MEND).values()]
    labels: list[list[str]] = [[] for _ in paths]
    for concept in concepts:
        file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
        for row in _marked(file, len(paths), listed):
            labels[row].append(concept)
    found = Found(
        name=f"{_NAME}/{split}",
        root=_place(root, images),
        paths=paths,
        labels=labels,
        classes=concepts,
        mend="",
    )
    return album(found, policy)


def _place(root: Path, images: str | None) -> Path:
    if images is None:
        return next(root / place for place in _PLACES if (root / place).is_dir())
    if not (root / images).is_dir():
        raise UserError(f"{_NAME}: {root / images} is no folder; name that of the images")
    return root / images


def _marked(file: Path, count: int, listed: Path) -> list[int]:
    """The places of the lines that hold 1."""
    data = bytes_of(file, _MEND).replace(b"\r", b"")
    marks = _quickly(data, count)
    if marks is None:
        marks = _slowly(file, data, count, listed)
    return marks.nonzero()[0].tolist()


def _quickly(data: bytes, count: int) -> npt.NDArray[np.bool_] | None:
    """The marks of a file of single digits, or None where it is something else: -> (count,)."""
    pairs = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", np.uint8)
    if len(pairs) != 2 * count:
        return None
    digits, ends = pairs.reshape(-1, 2).T
    plain = (ends == ord("\n")).all() and ((digits == ord("0")) | (digits == ord("1"))).all()
    return digits == ord("1") if plain else None


def _slowly(file: Path, data: bytes, count: int, listed: Path) -> npt.NDArray[np.bool_]:
    """The same line by line, with a sentence on what is wrong: -> (count,)."""
    lines = [line.strip() for line in data.rstrip().split(b"\n")] if data.strip() else []
    for number, line in enumerate(lines, 1):
        if line not in (b"0", b"1"):
            text = line[:40].decode("latin1")
            raise UserError(f"{file}, line {number}: {text!r} should be 0 or 1; {_MEND} again")
    if len(lines) != count:
        raise UserError(
            f"{file} has {len(lines)} lines, and {listed} names {count} images; {_MEND} again"
        )
    return np.array([line == b"1" for line in lines], dtype=bool)
