"""A teacher that counts what it is asked, and stores of what it says; run, it fills one slowly."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.store import fill as filling
from stillhouse.teachers.store.fill import Filling, fill
from stillhouse.teachers.store.identity import StoreIdentity
from stillhouse.teachers.store.outputs import RowFormat
from stillhouse.teachers.store.store import Store
from stillhouse.types import Trace
from tiny import Net

SAMPLES, VIEWS, CLASSES, BATCH, BLOCK = 20, 3, 5, 8, 16
ROWS = SAMPLES * VIEWS


class Counting:
    """A frozen teacher that notes the rows which it was asked for."""

    def __init__(self, pause: float = 0.0, log: Path | None = None) -> None:
        torch.manual_seed(3)
        self.frozen: Frozen[Any] = Frozen(Net(classes=CLASSES), lambda rows: (rows.images,))
        self.asked: list[int] = []
        self.pause, self.log = pause, log

    def __call__(self, rows: Batch) -> Trace:
        new = (rows.views * SAMPLES + rows.keys).tolist()
        self.asked += new
        if self.log:
            with self.log.open("a") as file:
                file.write("".join(f"{row}\n" for row in new))
        time.sleep(self.pause)
        return self.frozen(rows)

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {}

    def fingerprint(self) -> str:
        return self.frozen.fingerprint()


class Moving(Counting):
    """One whose head learns."""

    def groups(self) -> Mapping[str, Iterable[nn.Parameter]]:
        return {"teacher": self.frozen.network.parameters()}


def identity(form: RowFormat | None = None, **fields: Any) -> StoreIdentity:
    said = StoreIdentity(
        teacher={"name": "net", "state": Counting().fingerprint()},
        data="prints",
        samples=SAMPLES,
        transforms=[{"kind": "flip", "probability": 0.5}],
        mean=(0.5, 0.25, 0.1),
        std=(1.0, 1.0, 1.0),
        views=VIEWS,
        row_format=form or RowFormat(CLASSES, "full"),
    )
    return replace(said, **fields)


def rows_of(keys: Iterable[int], view: int) -> Batch:
    """Samples in one view, each an image of its own."""
    keys = torch.tensor(list(keys))
    made = torch.Generator().manual_seed(view)
    images = 3 * torch.randn(SAMPLES, 3, 12, 12, generator=made)[keys]
    return Batch(images, keys % CLASSES, keys, torch.full_like(keys, view))


def read(row: int) -> Generator[Batch, None, None]:
    first, key = divmod(row, SAMPLES)
    for view in range(first, VIEWS):
        for start in range(key, SAMPLES, BATCH):
            yield rows_of(range(start, min(start + BATCH, SAMPLES)), view)
        key = 0


def filling_by(
    teacher: Counting,
    say: Callable[[str], None] = lambda _: None,
    stop: Callable[[], bool] = bool,
) -> Filling[Batch]:
    return Filling(teacher, Tensor.detach, "net", read, say, stop)


def filled(folder: Path, form: RowFormat | None = None) -> Store:
    store = Store(folder, identity(form))
    fill(store, filling_by(Counting()))
    return store


if __name__ == "__main__":
    filling.BLOCK = BLOCK
    place, record = map(Path, sys.argv[1:])
    fill(Store(place, identity()), filling_by(Counting(0.1, record)))
