"""The values of mask files, and the classes that they stand for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from stillhouse.batches import IGNORE
from stillhouse.data.images import open_image
from stillhouse.errors import UserError
from stillhouse.files import open_regular

ValueArray = npt.NDArray[Any]  # (H, W) uint8, or int32 for values above 255
ClassArray = npt.NDArray[np.int16]

UNKNOWN = -1  # the class of values that no table has
SBD = ".mat"  # the suffix of the masks of SBD
Colour = tuple[int, int, int]

_GREY = ("1", "L", "P", "I")  # and I;16, modes of Pillow with one whole number a pixel


class MaskTable(Protocol):
    """What the values of mask files stand for."""

    @property
    def recipe(self) -> Mapping[str, object]:
        """All that it says of values, for digests."""
        ...

    def read(self, path: Path) -> ValueArray:
        """The values of a mask file: -> (H, W)."""
        ...

    def classes_in(self, path: Path) -> ClassArray:
        """The classes in a mask file, with `IGNORE` and `UNKNOWN`, in any order and number."""
        ...


@dataclass(frozen=True, eq=False)
class ClassTable:
    """The class of each value of mask files; a colour is the value r * 65536 + g * 256 + b."""

    classes: Mapping[int, int]  # of each value, IGNORE for those that are ignored
    colours: bool = False

    @property
    def recipe(self) -> Mapping[str, object]:
        """The class of each value, for digests."""
        return {"values": sorted(self.classes.items()), "colours": self.colours}

    def read(self, path: Path) -> ValueArray:
        """The values of a mask file: -> (H, W)."""
        return read_values(path, self.colours)

    def classes_in(self, path: Path) -> ClassArray:
        """The class of each pixel of a mask file: -> (H * W,)."""
        return self.look_up(self.read(path)).ravel()

    def look_up(self, values: ValueArray) -> ClassArray:
        """The class of each pixel, -1 where the value has none: (H, W) -> (H, W)."""
        if values.dtype == np.uint8:
            return self._find(np.arange(256, dtype=np.int32))[values]
        return self._find(values)

    def _find(self, values: ValueArray) -> ClassArray:
        keys = np.array(sorted(self.classes), dtype=np.int32)
        classes = np.array([self.classes[key] for key in keys.tolist()], dtype=np.int16)
        place = np.searchsorted(keys, values).clip(max=len(keys) - 1)
        return np.where(keys[place] == values, classes[place], np.int16(UNKNOWN))

    def describe(self, value: int) -> str:
        """A value as users know it: a number, or red, green and blue."""
        return f"the colour {split_colour(value)}" if self.colours else f"the value {value}"


def join_colour(colour: Colour) -> int:
    """Red, green and blue as one number."""
    red, green, blue = colour
    return red << 16 | green << 8 | blue


def split_colour(value: int) -> Colour:
    """Red, green and blue of one number."""
    return value >> 16, value >> 8 & 255, value & 255


def read_values(path: Path, colours: bool) -> ValueArray:
    """The values of a mask file: grey levels, indices of a palette, or colours: -> (H, W)."""
    try:
        if path.suffix == SBD:
            return _read_sbd(path)
        with open_regular(path) as file, open_image(file) as image:
            image.load()
            if colours:
                return _colours_of(image)
            if image.mode.partition(";")[0] in _GREY:
                pixels = np.asarray(image)
                return pixels.astype(np.uint8 if pixels.dtype.itemsize == 1 else np.int32)
            mode = image.mode
    except Exception as error:  # The decoders of Pillow raise nearly anything.
        raise UserError(
            f"{path} cannot be read as a mask ({error}); repair it, or skip such files with "
            "data.broken=skip"
        ) from error
    raise UserError(
        f"{path} has colours ({mode}) where indices of classes are expected; save it as grey or "
        "palette PNG, or read it with folder/semantic and a table of colours"
    )


def _colours_of(image: Image.Image) -> ValueArray:
    if image.mode == "P":
        image = image.convert("RGBA")  # to RGB directly, Pillow warns of transparency
    red, green, blue = np.moveaxis(np.asarray(image.convert("RGB"), dtype=np.int32), -1, 0)
    joined: ValueArray = red << 16 | green << 8 | blue
    return joined


def _read_sbd(path: Path) -> ValueArray:
    """The mask of a file of SBD: the field Segmentation of GTcls."""
    from scipy.io import loadmat

    with open_regular(path) as file:
        content = loadmat(file, squeeze_me=True, struct_as_record=False)
    return np.asarray(content["GTcls"].Segmentation, dtype=np.uint8)


def read_mask(path: Path, table: ClassTable, unknown: str = "fail") -> npt.NDArray[np.uint8]:
    """The class of each pixel of a mask file, 255 for ignored ones: -> (H, W).

    Values that no class has are ignored, or raise a UserError where `unknown` is to fail.
    """
    values = table.read(path)
    classes = table.look_up(values)
    wrong = classes == UNKNOWN
    if unknown != "ignore" and wrong.any():
        row, column = np.unravel_index(int(wrong.argmax()), wrong.shape)
        raise UserError(
            f"{path} has {table.describe(int(values[row, column]))} in row {row}, column {column}, "
            "which is no class; correct it, or ignore such pixels with unknown='ignore'"
        )
    return np.where(wrong, IGNORE, classes).astype(np.uint8)
