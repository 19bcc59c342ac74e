"""NUS-WIDE with its 81 concepts, from the folders as its authors publish them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from stillhouse.data.formats.text import read_bytes, read_lines, read_names, require_folder
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy
from stillhouse.data.problems import check_choice
from stillhouse.errors import UserError, quote

_NAME = "nuswide/labels"
_PARTS = {"train": "Train", "test": "Test"}
_PLACES = ("Flickr", "images", ".")
_REMEDY = "unpack that part of NUS-WIDE there"


def read_nuswide(
    path: Path,
    split: str,
    *,
    images: str | None = None,
    unlabelled: str = "keep",
    missing: str = "fail",
    broken: str = "fail",
) -> FileSource:
    """The images of NUS-WIDE's train or test list, in its order, below the folder `images`.

    An image has the concepts whose label file has a 1 in the line of the image.
    """
    policy = SkipPolicy(unlabelled, missing=missing, broken=broken)
    check_choice("split", split, tuple(_PARTS))
    root, part = require_folder(_NAME, path), _PARTS[split]
    concepts = read_names(root / "ConceptsList" / "Concepts81.txt", _REMEDY)
    listed = root / "ImageList" / f"{part}Imagelist.txt"
    paths = [line.replace("\\", "/") for line in read_lines(listed, _REMEDY).values()]
    labels: list[list[str]] = [[] for _ in paths]
    for concept in concepts:
        file = root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"
        for row in _marked(file, len(paths), listed):
            labels[row].append(concept)
    scanned = ScannedImages(
        name=f"{_NAME}/{split}",
        root=_place(root, images),
        paths=paths,
        labels=labels,
        classes=concepts,
        remedy="",
    )
    return build_source(scanned, policy)


def _place(root: Path, images: str | None) -> Path:
    if images is None:
        return next(root / place for place in _PLACES if (root / place).is_dir())
    if not (root / images).is_dir():
        raise UserError(
            f"{_NAME}: {root / images} is not a folder; set `images` to the image folder"
        )
    return root / images


def _marked(file: Path, count: int, listed: Path) -> list[int]:
    """The indices of the lines that are 1."""
    data = read_bytes(file, _REMEDY).replace(b"\r", b"")
    marks = _parse_fast(data, count)
    if marks is None:
        marks = _parse_lines(file, data, count, listed)
    return marks.nonzero()[0].tolist()


def _parse_fast(data: bytes, count: int) -> npt.NDArray[np.bool_] | None:
    """Parse a file with one digit per line; None where it is anything else: -> (count,) bool."""
    pairs = np.frombuffer(data if data.endswith(b"\n") else data + b"\n", np.uint8)
    if len(pairs) != 2 * count:
        return None
    digits, ends = pairs.reshape(-1, 2).T
    plain = (ends == ord("\n")).all() and ((digits == ord("0")) | (digits == ord("1"))).all()
    return digits == ord("1") if plain else None


def _parse_lines(file: Path, data: bytes, count: int, listed: Path) -> npt.NDArray[np.bool_]:
    """Parse line by line, and raise a UserError that names the wrong line: -> (count,) bool."""
    lines = [line.strip() for line in data.rstrip().split(b"\n")] if data.strip() else []
    for number, line in enumerate(lines, 1):
        if line not in (b"0", b"1"):
            text = line[:40].decode("latin1")
            raise UserError(
                f"{file}, line {number}: expected 0 or 1, got {quote(text)}; {_REMEDY} again"
            )
    if len(lines) != count:
        raise UserError(
            f"{file} has {len(lines)} lines, but {listed} lists {count} images; {_REMEDY} again"
        )
    return np.array([line == b"1" for line in lines], dtype=bool)
