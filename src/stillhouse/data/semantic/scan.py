"""Which classes masks contain, by reading all of them."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from stillhouse.batches import IGNORE
from stillhouse.data.cache import cached
from stillhouse.data.problems import BoolArray
from stillhouse.data.semantic.values import UNKNOWN, MaskTable
from stillhouse.data.source import fingerprint_of_recipe
from stillhouse.errors import UserError


class Scan(NamedTuple):
    """What is in N masks."""

    present: Tensor  # (N, 255) bool: each class that there can be
    readable: BoolArray  # (N,)
    unknown: BoolArray  # (N,) whether they have values that are no class

    def rows(self, kept: BoolArray) -> Scan:
        """Some of the masks: (N,) -> fewer."""
        return Scan(self.present[torch.from_numpy(kept)], self.readable[kept], self.unknown[kept])


def scan_masks(paths: Sequence[Path | None], table: MaskTable) -> Scan:
    """Read N masks, of which None has no class; what is found is kept in the disk cache."""

    def read() -> dict[str, Tensor]:
        with ThreadPoolExecutor() as pool:
            rows = list(pool.map(lambda path: _scan(path, table), paths))
        return {"rows": torch.from_numpy(np.stack(rows))}

    recipe = {"files": [_stamp(path) for path in paths], **table.recipe}
    rows = cached("masks", fingerprint_of_recipe(recipe), read)["rows"]
    readable, unknown = rows[:, IGNORE + 1].numpy(), rows[:, UNKNOWN].numpy()
    return Scan(rows[:, :IGNORE], readable, unknown)


def _scan(path: Path | None, table: MaskTable) -> BoolArray:
    """The classes 0 to 255 of a mask, whether it was read, and whether it has other values."""
    row = np.zeros(IGNORE + 3, dtype=bool)
    row[IGNORE + 1] = True
    if path is None:
        return row
    try:
        classes = table.classes_in(path)
    except UserError:
        row[IGNORE + 1] = False
        return row
    counts = np.bincount(classes - UNKNOWN, minlength=IGNORE + 2)
    row[: IGNORE + 1], row[UNKNOWN] = counts[-UNKNOWN:] > 0, counts[0] > 0
    return row


def _stamp(path: Path | None) -> list[str | int]:
    """The path, size and time of a file."""
    if path is None:
        return []
    status = path.stat()
    return [str(path), status.st_size, status.st_mtime_ns]
