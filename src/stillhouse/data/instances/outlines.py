"""Polygons and run-length codes of COCO as masks."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from stillhouse.data.formats.coco import Instances
from stillhouse.data.objects.annotations import IntArray
from stillhouse.data.problems import BoolArray
from stillhouse.errors import UserError
from stillhouse.files import open_regular

_FAR = 2  # sides of the image by which a corner may be outside; drawing takes time and memory


@dataclass(frozen=True, eq=False)
class Outlines:
    """The polygons or run-length codes of M objects, which stay in their file until they are used.

    Objects whose outline gives no mask have an empty one where `malformed` is skip.
    """

    file: Path
    stamp: tuple[int, int]  # size and time of the file
    digest: str  # of its content
    index: IntArray  # (M,) of the annotations
    spans: IntArray  # (M, 2) first byte and last byte + 1, equal without an outline
    malformed: str = "fail"

    def masks(self, first: int, last: int, shape: tuple[int, int]) -> BoolArray:
        """The masks of the objects from `first` to `last` - 1 of an image: -> (K, *shape)."""
        masks = np.zeros((last - first, *shape), dtype=bool)
        if last > first:
            with _opened(self.file, self.stamp) as file:
                for place, row in enumerate(range(first, last)):
                    masks[place] = self._mask(file, row, shape)
        return masks

    def _mask(self, file: BinaryIO, row: int, shape: tuple[int, int]) -> BoolArray:
        begin, end = self.spans[row].tolist()
        file.seek(begin)
        text = file.read(end - begin)
        try:
            return decode_outline(json.loads(text) if text else None, shape)
        except (ValueError, RuntimeError, RecursionError) as error:
            if self.malformed == "skip":
                return np.zeros(shape, dtype=bool)
            raise UserError(
                f"{self.file}: segmentation of annotations[{self.index[row]}] gives no mask "
                f"({error}); correct it, or leave such objects out with malformed='skip'"
            ) from error


def find_outlines(content: Instances, index: IntArray, malformed: str) -> Outlines:
    """The outlines of some annotations of a file: (M,) indices."""
    status = content.file.stat()
    spans = np.array(content.spans, dtype=np.int64).reshape(-1, 2)[index]
    stamp = status.st_size, status.st_mtime_ns
    return Outlines(content.file, stamp, content.digest, index, spans, malformed)


def _opened(file: Path, stamp: tuple[int, int]) -> BinaryIO:
    """An open file; raises a UserError if it is not the one that was read before."""
    try:
        opened = open_regular(file)
    except OSError as error:
        raise UserError(f"{file} cannot be read ({error.strerror}); restore it") from error
    status = os.fstat(opened.fileno())
    if (status.st_size, status.st_mtime_ns) != stamp:
        opened.close()
        raise UserError(f"{file} has changed since it was opened; start again")
    return opened


def decode_outline(outline: Any, shape: tuple[int, int]) -> BoolArray:
    """The mask of a value of `segmentation`: -> (H, W).

    A list of polygons, or run lengths in the order of columns, as numbers or compressed. Raises a
    ValueError or RuntimeError for others.
    """
    if isinstance(outline, Mapping):
        return _of_runs(outline, shape)
    if isinstance(outline, list) and outline:
        return _of_polygons(outline, shape)
    raise ValueError("it has neither polygons nor run lengths")


def _of_polygons(polygons: list[Any], shape: tuple[int, int]) -> BoolArray:
    from faster_coco_eval.core import mask as library

    height, width = shape
    corners = [_corners(polygon, np.array([width, height])) for polygon in polygons]
    code = library.merge(library.frPyObjects(corners, height, width))
    return np.asarray(library.decode(code), dtype=bool)


def _corners(polygon: Any, sides: IntArray) -> list[float]:
    """The numbers of a polygon; for others, the library fills the memory, or ends the process."""
    try:
        corners = np.array(polygon, dtype=np.float64)
    except (TypeError, ValueError):
        corners = np.zeros(0)
    if corners.ndim != 1 or len(corners) < 6 or len(corners) % 2:
        raise ValueError("a polygon must be a list x, y, x, y, ... of at least 3 corners")
    points = corners.reshape(-1, 2)
    if not ((points >= -_FAR * sides) & (points <= (1 + _FAR) * sides)).all():  # NaN, too
        raise ValueError("the corners of a polygon must lie in the image")
    return [float(number) for number in corners]


def _of_runs(code: Mapping[str, Any], shape: tuple[int, int]) -> BoolArray:
    from faster_coco_eval.core import mask as library

    size, counts = code.get("size"), code.get("counts")
    if size != list(shape):
        raise ValueError(f"its size is {size}, that of the image {list(shape)}")
    if isinstance(counts, str):
        compressed = {"size": size, "counts": counts.encode("ascii")}
        return np.asarray(library.decode(compressed), dtype=bool)
    if not isinstance(counts, list) or any(type(n) is not int or n < 0 for n in counts):
        raise ValueError("counts must be a string, or a list of run lengths")
    if sum(counts) != shape[0] * shape[1]:
        raise ValueError(f"its runs have {sum(counts)} pixels, the image {shape[0] * shape[1]}")
    inside = np.arange(len(counts)) % 2 == 1
    mask: BoolArray = inside.repeat(counts).reshape(shape[::-1]).T
    return mask
