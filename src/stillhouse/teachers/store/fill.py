"""Fills a store with the outputs of a teacher, in one process at a time."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Generic, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.files import lock, lock_owner, unlock, write_error
from stillhouse.teachers.base import Teacher
from stillhouse.teachers.memory import Keyed, Storable
from stillhouse.teachers.store.outputs import RowArrays
from stillhouse.teachers.store.store import LOCK, Store, format_size

BLOCK = 1024  # rows that are written together, at least

B = TypeVar("B", bound=Keyed)


@dataclass(frozen=True)
class Filling(Generic[B]):
    """The teacher, its batches, and the callbacks of filling a store."""

    teacher: Teacher[B]
    storable: Storable  # the part of its output that is stored
    name: str  # of the teacher, in messages
    read: Callable[[int], Generator[B, None, None]]  # batches in the order of rows, from a row on
    say: Callable[[str], None]  # prints a message
    stop: Callable[[], bool]  # whether to stop after the current batch


class OutputRows(NamedTuple):
    """The rows of a batch in the store, and the teacher's outputs for them."""

    rows: Tensor  # (N,)
    out: Tensor  # (N, C)


def fill(store: Store, filling: Filling[B]) -> None:
    """Compute and write all missing rows; waits while another process fills the store.

    Returns early where `filling.stop()` is true, with all rows computed so far written. Raises
    UserError for a teacher that is trained.
    """
    if filling.teacher.groups():
        raise UserError(
            f"the teacher {filling.name} is trained with the student, so its outputs cannot be "
            "stored; set teacher.store=false"
        )
    if store.kept() == store.rows:
        return
    with exclusive(store, filling) as locked:
        if locked:
            first = store.prepare()
            if first < store.rows:  # another process may have filled it meanwhile
                fill_from(first, store, filling)


def fill_from(first: int, store: Store, filling: Filling[B]) -> None:
    """Compute every row from `first` on, and write them block by block."""
    pending: list[RowArrays] = []
    row = first
    with closing(filling.read(first)) as batches:
        outputs = (
            compute_rows(filling.teacher, batch, store, filling.storable) for batch in batches
        )
        timed, pace = measure_pace(outputs)
        left = store.rows - first
        filling.say(f"teacher: storing {describe_filling(store, filling.name, pace, left)}")
        for rows, out in chain(timed, outputs):
            row += len(rows)
            assert rows.tolist() == list(range(row - len(rows), row)), "rows are out of order"
            pending.append(store.row_format.pack(out))
            stop = filling.stop()
            if row - first >= BLOCK or row == store.rows or stop:
                store.write(first, concatenate(pending))
                pending, first = [], row
            if stop:
                return
    assert row == store.rows, "there were fewer batches than rows"


@torch.no_grad()
def compute_rows(teacher: Teacher[B], batch: B, store: Store, storable: Storable) -> OutputRows:
    """The outputs of the teacher for a batch, on the CPU in float32."""
    rows = batch.views * store.identity.samples + batch.keys
    out = storable(teacher(batch).out)
    return OutputRows(rows.cpu(), out.to("cpu", torch.float32))


def measure_pace(outputs: Iterator[OutputRows]) -> tuple[list[OutputRows], float]:
    """The first two batches of outputs, and the seconds per row of the second.

    The first batch is a warm-up. The time includes loading the images.
    """
    timed: list[OutputRows] = []
    pace = 0.0
    for _ in range(2):
        start = time.perf_counter()
        if (batch := next(outputs, None)) is not None:
            timed.append(batch)
            pace = (time.perf_counter() - start) / len(batch.rows)
    return timed, pace


def describe_filling(store: Store, name: str, pace: float, left: int) -> str:
    """The number of missing outputs, their size, folder and expected duration, for messages."""
    count = f"{left:,}" if left == store.rows else f"{left:,} more of {store.rows:,}"
    return f"{count} {describe_outputs(store, name)}, about {format_estimate(left * pace)}"


def describe_outputs(store: Store, name: str) -> str:
    """The teacher, size and folder of a store, for messages."""
    return f"outputs of {name} in {format_size(store.size)} at {store.folder}"


@contextmanager
def exclusive(store: Store, filling: Filling[B]) -> Iterator[bool]:
    """Hold the store's lock; gives False if `filling.stop()` while another process holds it."""
    announced, path = False, store.folder / LOCK
    while True:
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            handle = lock(path)
            break
        except BlockingIOError:
            if not announced:
                what = f"{store.rows:,} {describe_outputs(store, filling.name)}"
                filling.say(f"teacher: waiting for process {lock_owner(path)}, which stores {what}")
                announced = True
        except OSError as error:
            raise write_error(store.folder, error) from error
        if filling.stop():
            yield False
            return
        time.sleep(0.1)
    try:
        yield True
    finally:
        unlock(handle)


def concatenate(parts: list[RowArrays]) -> RowArrays:
    """One block of several consecutive ones."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def format_estimate(seconds: float) -> str:
    """A duration as text, in hours, minutes or seconds: "2 min"."""
    for unit, one in (("h", 3600), ("min", 60)):
        if seconds >= 2 * one:
            return f"{seconds / one:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
