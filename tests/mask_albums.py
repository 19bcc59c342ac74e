"""Small images and masks, in the files and folders of their authors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from stillhouse.errors import UserError

Pixels = npt.NDArray[Any]
SHAPE = (6, 9)


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def photo(seed: int, shape: tuple[int, ...] = SHAPE) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (*shape, 3), dtype=np.uint8)


def values(seed: int, known: Sequence[int], shape: tuple[int, ...] = SHAPE) -> Pixels:
    """A mask that has each of some values where there are pixels enough."""
    drawn = np.random.default_rng(seed).choice(np.array(known), shape)
    drawn.flat[: len(known)] = known
    return drawn.astype(np.uint8 if max(known) < 256 else np.uint16)


def save(path: Path, pixels: Pixels) -> Path:
    """An image of 8 or 16 bits, grey or RGB, in the format of its suffix."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def save_palette(path: Path, pixels: Pixels) -> Path:
    """Indices with a palette of bright colours, as VOC has them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(pixels).convert("L")
    image.putpalette(np.random.default_rng(0).permutation(256).repeat(3).astype(np.uint8).tolist())
    assert image.mode == "P"
    image.save(path)
    return path


def write_folder(root: Path, split: str = "train", count: int = 4, classes: int = 3) -> Path:
    """Grey masks with all classes beside images, and a list of the classes."""
    for i in range(count):
        save(root / split / "images" / f"{i}.png", photo(i))
        save(root / split / "masks" / f"{i}.png", values(i, range(classes)))
    names = "".join(f"class {number}\n" for number in range(classes))
    (root / "classes.txt").write_text(names)
    return root
