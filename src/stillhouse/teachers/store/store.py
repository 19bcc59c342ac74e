"""A folder of what a teacher said, written once and read by many runs and processes."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any
from zlib import crc32

import numpy as np
from numpy.typing import NDArray

from stillhouse.errors import UserError
from stillhouse.files import PARTIAL, write_error, write_json
from stillhouse.teachers.store import index
from stillhouse.teachers.store.identity import MEND, Identity
from stillhouse.teachers.store.index import Block
from stillhouse.teachers.store.outputs import Rows

IDENTITY, LEDGER, LOCK = "identity.json", "ledger.txt", ".lock"


class Store:
    """Answers by (view, sample): a row each, in files of fixed width that are mapped into memory.

    Rows are written in their order. A row counts once the ledger names it, and from then on it is
    never asked for again.
    """

    def __init__(self, folder: Path, identity: Identity) -> None:
        self.folder, self.identity = folder, identity
        self.form, self.rows = identity.form, identity.rows
        self.columns = identity.form.columns()
        self.size = self.rows * sum(column.size for column in self.columns.values())
        self._arrays: Rows | None = None

    def kept(self) -> int:
        """Rows that are there; nothing is written, and a folder of something else is refused."""
        folder = self.folder
        if not folder.exists():
            return 0
        if not folder.is_dir():
            raise UserError(f"{folder} is a file, and a store is a folder; {MEND}")
        if not (folder / IDENTITY).exists():
            if any(path.name != LOCK and not _partial(path) for path in folder.iterdir()):
                raise UserError(
                    f"{folder} holds files that are no store's; give another teacher.store.path"
                )
            return 0
        self.identity.check(folder / IDENTITY)
        return index.end(self._blocks())

    def open(self) -> None:
        """Map the answers, every one of which must be there, and as it was written."""
        kept = self.kept()
        if kept < self.rows:
            raise UserError(
                f"{self.folder} holds {kept:,} of {self.rows:,} answers; fill it before it is read"
            )
        self._arrays = self._verified()

    def take(self, rows: NDArray[np.int64]) -> Rows:
        """The columns of some rows, in their order."""
        assert self._arrays is not None, "not open"
        return {name: np.asarray(array[rows]) for name, array in self._arrays.items()}

    def prepare(self) -> int:
        """Make the files, or look at those that are there; gives the first row that is missing."""
        kept = self.kept()
        if kept:
            self._verified()
            index.mend(self.folder / LEDGER)
            return kept
        free = shutil.disk_usage(self.folder).free
        if free < self.size:
            raise UserError(
                f"{self.rows:,} answers take {amount(self.size)}, and {self.folder} has room for "
                f"{amount(free)}; free some space, or give teacher.store.top or another path"
            )
        for path in filter(_partial, self.folder.iterdir()):
            path.unlink(missing_ok=True)  # of a process that was killed
        write_json(self.folder / IDENTITY, self.identity.plain())
        try:
            (self.folder / LEDGER).write_bytes(b"")
            for name, (kind, shape) in self.columns.items():
                path = self.folder / _file(name)
                np.lib.format.open_memmap(path, "w+", kind, (self.rows, *shape)).flush()
        except OSError as error:
            raise write_error(self.folder, error) from error
        return 0

    def write(self, first: int, rows: Rows) -> None:
        """Put a block of rows on the disk, and then into the ledger that it is there.

        Not through the mapping: on a full disk that would end the process without a word.
        """
        path = self.folder
        try:
            for name, block in rows.items():
                path, width = self.folder / _file(name), self.columns[name].size
                header = path.stat().st_size - self.rows * width
                with open(path, "r+b") as file:
                    file.seek(header + first * width)
                    file.write(block.data)
                    file.flush()
                    os.fsync(file.fileno())
            path = self.folder / LEDGER
            last = first + len(next(iter(rows.values())))
            index.add(path, Block(first, last, _check(rows)))
        except OSError as error:
            raise write_error(path, error, f"{first:,} answers are kept") from error

    def _blocks(self) -> list[Block]:
        try:
            blocks = index.read(self.folder / LEDGER)
        except (OSError, ValueError, TypeError) as error:
            raise self._damage(LEDGER, str(error)) from error
        if index.end(blocks) > self.rows:
            raise self._damage(LEDGER, "it names more rows than there are")
        return blocks

    def _verified(self) -> Rows:
        arrays = {name: self._map(name) for name in self.columns}
        for first, last, check in self._blocks():
            if _check({name: array[first:last] for name, array in arrays.items()}) != check:
                reason = f"rows {first:,} to {last - 1:,} are not what was written"
                raise self._damage(", ".join(map(_file, arrays)), reason)
        return arrays

    def _map(self, name: str) -> NDArray[Any]:
        column, path = self.columns[name], self.folder / _file(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(path.name, str(error)) from error
        wanted = (column.kind, (self.rows, *column.shape), array.offset + array.nbytes)
        if (array.dtype, array.shape, size) != wanted:
            raise self._damage(path.name, "it has another shape, type or length")
        mapped: NDArray[Any] = array
        return mapped

    def _damage(self, file: str, reason: str) -> UserError:
        return UserError(
            f"{self.folder} is damaged ({file}: {reason}); delete it, and it is filled anew"
        )


def amount(size: float) -> str:
    """Bytes, in words."""
    for unit, one in (("GB", 1e9), ("MB", 1e6)):
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _file(column: str) -> str:
    return f"{column}.npy"


def _partial(path: Path) -> bool:
    return path.name.endswith(PARTIAL)


def _check(rows: Rows) -> int:
    check = 0
    for block in rows.values():
        check = crc32(np.ascontiguousarray(block).data, check)
    return check
