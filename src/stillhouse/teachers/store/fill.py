"""Asking a teacher for all that a store is to hold: once, by one process, and never twice."""

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
from stillhouse.teachers.store.outputs import Rows
from stillhouse.teachers.store.store import LOCK, Store, amount

BLOCK = 1024  # rows, at least, that are written together

B = TypeVar("B", bound=Keyed)


@dataclass(frozen=True)
class Filling(Generic[B]):
    """Who is asked about what, who hears of it, and whether it is to end."""

    teacher: Teacher[B]
    storable: Storable  # the part of its output that is kept
    name: str
    read: Callable[[int], Generator[B, None, None]]  # batches in the order of rows, from a row on
    say: Callable[[str], None]
    stop: Callable[[], bool]


class Answered(NamedTuple):
    """Which rows a batch is, and what the teacher said."""

    rows: Tensor  # (N,)
    out: Tensor  # (N, C)


def fill(store: Store, filling: Filling[B]) -> None:
    """Ask for what is missing, unless another process does, which then is waited for.

    When it is to end, it keeps all that the teacher has said, and returns.
    """
    if filling.teacher.groups():
        raise UserError(
            f"the teacher {filling.name} moves while it teaches, and a teacher that moves cannot "
            "be stored; say teacher.store=false"
        )
    if store.kept() == store.rows:
        return
    with alone(store, filling) as here:
        if here:
            first = store.prepare()
            if first < store.rows:  # else another process was quicker
                ask_from(first, store, filling)


def ask_from(first: int, store: Store, filling: Filling[B]) -> None:
    """Ask for every row from one on, and write them block by block."""
    waiting: list[Rows] = []
    row = first
    with closing(filling.read(first)) as batches:
        answers = (answer(filling.teacher, batch, store, filling.storable) for batch in batches)
        begun, pace = begin(answers)
        left = store.rows - first
        filling.say(f"teacher: storing {words(store, filling.name, pace, left)}")
        for rows, out in chain(begun, answers):
            row += len(rows)
            assert rows.tolist() == list(range(row - len(rows), row)), "out of order"
            waiting.append(store.form.pack(out))
            stop = filling.stop()
            if row - first >= BLOCK or row == store.rows or stop:
                store.write(first, joined(waiting))
                waiting, first = [], row
            if stop:
                return
    assert row == store.rows, "the batches ended early"


@torch.no_grad()
def answer(teacher: Teacher[B], batch: B, store: Store, storable: Storable) -> Answered:
    """What the teacher says, where it can be written down."""
    rows = batch.views * store.identity.samples + batch.keys
    out = storable(teacher(batch).out)
    return Answered(rows.cpu(), out.to("cpu", torch.float32))


def begin(answers: Iterator[Answered]) -> tuple[list[Answered], float]:
    """The first two answers, of which one warms up, and the seconds that a row of the other took.

    The time is that of loading, too.
    """
    begun: list[Answered] = []
    pace = 0.0
    for _ in range(2):
        since = time.perf_counter()
        if (said := next(answers, None)) is not None:
            begun.append(said)
            pace = (time.perf_counter() - since) / len(said.rows)
    return begun, pace


def words(store: Store, name: str, pace: float, left: int) -> str:
    """What is stored: how much of it, where, and how long that takes."""
    count = f"{left:,}" if left == store.rows else f"{left:,} more of {store.rows:,}"
    return f"{count} {answers_of(store, name)}, about {span(left * pace)}"


def answers_of(store: Store, name: str) -> str:
    """Whose answers they are, what they take and where."""
    return f"answers of {name} in {amount(store.size)} at {store.folder}"


@contextmanager
def alone(store: Store, filling: Filling[B]) -> Iterator[bool]:
    """Inside, no other process fills the store; False if it was to end while another did."""
    told, path = False, store.folder / LOCK
    while True:
        try:
            store.folder.mkdir(parents=True, exist_ok=True)
            held = lock(path)
            break
        except BlockingIOError:
            if not told:
                who = f"{store.rows:,} {answers_of(store, filling.name)}"
                filling.say(f"teacher: waiting for process {lock_owner(path)}, which stores {who}")
                told = True
        except OSError as error:
            raise write_error(store.folder, error) from error
        if filling.stop():
            yield False
            return
        time.sleep(0.1)
    try:
        yield True
    finally:
        unlock(held)


def joined(parts: list[Rows]) -> Rows:
    """Rows after rows, as one block."""
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def span(seconds: float) -> str:
    """A duration, in words."""
    for unit, one in (("h", 3600), ("min", 60)):
        if seconds >= 2 * one:
            return f"{seconds / one:.0f} {unit}"
    return f"{max(1, round(seconds))} s"
