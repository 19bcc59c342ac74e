"""Image files: which there are, and decoding them."""

from __future__ import annotations

import os
import threading
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
from stillhouse.files import open_regular

IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp", ".ppm", ".tif", ".tiff", ".gif")

MAX_PIXELS = 89_478_485  # of one image, where Pillow begins to warn of its size
_limit = MAX_PIXELS
_opening = threading.Lock()

_TURNED = (5, 6, 7, 8)  # EXIF orientations that exchange height and width


def is_image_name(name: str) -> bool:
    """Whether a file of this name is taken for an image; hidden files are not."""
    return name.lower().endswith(IMAGE_SUFFIXES) and not name.startswith(".")


def list_images(root: Path, folder: str) -> Iterator[str]:
    """The images in a folder of the root at any depth: paths relative to the root.

    A folder that links lead to several times is listed once, and one that contains it never.
    """
    # Links are followed because large data sets are often assembled from them.
    listed = {str(above) for above in Path(os.path.realpath(root / folder)).parents}
    for place, folders, files in os.walk(root / folder, followlinks=True):
        real = os.path.realpath(place)
        if real in listed:
            folders.clear()
            continue
        listed.add(real)
        folders[:] = sorted(inner for inner in folders if not inner.startswith("."))
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


def limit_pixels(most: int | None) -> None:
    """Set the largest number of pixels that an image may have in this process; None: the default.

    It keeps a small file from taking gigabytes when it is decoded.
    """
    global _limit
    _limit = MAX_PIXELS if most is None else most


def pixel_limit() -> int:
    """The largest number of pixels that an image may have in this process."""
    return _limit


def open_image(file: BinaryIO) -> Image.Image:
    """An image whose pixels are not decoded yet; raises ValueError for one of too many."""
    with _opening:  # Pillow has a limit of its own, which warns before it refuses
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            opened = Image.open(file)
        finally:
            Image.MAX_IMAGE_PIXELS = before
    width, height = opened.size
    if width * height > _limit:
        raise ValueError(
            f"it has {height:,} x {width:,} pixels, where data.max_pixels allows {_limit:,}"
        )
    return opened


def decode_image(file: BinaryIO, upright: bool = True) -> Tensor:
    """The image in an open file, in RGB: -> (3, H, W) uint8.

    It is turned by its EXIF orientation unless `upright` is false. Raises whatever Pillow raises.
    """
    with open_image(file) as opened:
        image = ImageOps.exif_transpose(opened) if upright else opened.copy()
    if image.mode.startswith("F"):
        # Pillow would clip them to 8 bits, and an image of values from 0 to 1 would be black.
        raise ValueError("its pixels are floating-point numbers: save it with 8 or 16 bits")
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
        with open_regular(path) as file:
            return decode_image(file, upright)
    except Exception as error:  # The decoders of Pillow raise nearly anything.
        raise UserError(
            f"{path} cannot be read as an image ({error}); repair it, or skip such files with "
            "data.broken=skip"
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
        with open_regular(path) as file, Image.open(file) as image:
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
