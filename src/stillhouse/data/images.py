"""Image files: which there are, and decoding them."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageOps, TiffImagePlugin
from torch import Tensor

from stillhouse.data.source import from_pil
from stillhouse.errors import UserError

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")

_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden files are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def list_images(root: Path, folder: str) -> Iterator[str]:
    """The images in a folder of the root at any depth: paths relative to the root."""
    # Links are followed because large data sets are often assembled from them.
    for place, folders, files in os.walk(root / folder, followlinks=True):
        folders[:] = [inner for inner in folders if not inner.startswith(".")]
        for file in filter(is_image_name, files):
            yield Path(place, file).relative_to(root).as_posix()


def find_missing(root: Path, paths: Sequence[str]) -> npt.NDArray[np.bool_]:
    """Which files do not exist, listing each folder once: (N,) paths -> (N,)."""
    present: dict[str, frozenset[str]] = {}
    missing = np.zeros(len(paths), dtype=bool)
    for i, path in enumerate(paths):
        folder, name = os.path.split(path)
        if folder not in present:
            present[folder] = _file_names(root / folder)
        missing[i] = name not in present[folder]
    return missing


def _file_names(folder: Path) -> frozenset[str]:
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries)
    except (FileNotFoundError, NotADirectoryError):
        return frozenset()
    except OSError as error:
        raise UserError(f"{folder} cannot be read ({error.strerror}); make it readable") from error


def decode_image(file: BinaryIO, upright: bool = True) -> Tensor:
    """The image in an open file, in RGB: -> (3, H, W) uint8.

    It is turned by its EXIF orientation unless `upright` is false. Raises whatever Pillow raises.
    """
    with Image.open(file) as opened:
        image = ImageOps.exif_transpose(opened) if upright else opened.copy()
    if image.mode.startswith("I"):
        # Pillow would clip 16 bits to 8 and leave a white image; the upper 8 bits are the image.
        high = np.clip(np.asarray(image, dtype=np.int64) // 256, 0, 255)
        image = Image.fromarray(high.astype(np.uint8))
    if image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")  # converting to RGB directly, Pillow warns for each such file
    return from_pil(image if image.mode == "RGB" else image.convert("RGB"))


def read_image(path: Path, upright: bool = True) -> Tensor:
    """The image in a file, as `decode_image` returns it: -> (3, H, W) uint8."""
    try:
        with path.open("rb") as file:
            return decode_image(file, upright)
    except Exception as error:  # The decoders of Pillow raise nearly anything.
        raise UserError(
            f"{path} cannot be read as an image ({error}); repair it, or skip such files with "
            "broken='skip'"
        ) from error


def are_readable(paths: Sequence[Path]) -> list[bool]:
    """Whether each file can be decoded, by decoding all of them."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_is_readable, paths))


def _is_readable(path: Path) -> bool:
    try:
        read_image(path)
    except UserError:
        return False
    return True


def read_shapes(paths: Sequence[Path]) -> list[tuple[int, int]]:
    """Height and width of each image when upright, from its header; 0, 0 for a broken file."""
    with ThreadPoolExecutor() as pool:
        return list(pool.map(_read_shape, paths))


def _read_shape(path: Path) -> tuple[int, int]:
    try:
        with Image.open(path) as image:
            # The method of PNG images would decode the pixels to look for metadata behind them.
            turned = Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1) in _TURNED
            width, height = image.size
            if isinstance(image, TiffImagePlugin.TiffImageFile):
                # The size of TIFF images is upright, but not in older versions of Pillow.
                tags = ExifTags.Base
                width, height = image.tag_v2[tags.ImageWidth], image.tag_v2[tags.ImageLength]
            return (width, height) if turned else (height, width)
    except Exception:  # The decoders of Pillow raise nearly anything.
        return 0, 0


def file_size(path: Path) -> int:
    """The size of a file in bytes."""
    try:
        return path.stat().st_size
    except OSError as error:
        raise UserError(
            f"{path} is gone since the data set was scanned; restore it, or start again"
        ) from error
