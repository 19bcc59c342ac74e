"""A folder of teacher outputs, written once and read by many runs and processes."""

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
from stillhouse.teachers.store.identity import STORE_REMEDY, StoreIdentity
from stillhouse.teachers.store.index import RowBlock
from stillhouse.teachers.store.outputs import RowArrays

IDENTITY, BLOCKS, LOCK = "identity.json", "blocks.txt", ".lock"


class Store:
    """Outputs by (view, sample): a row each, in memory-mapped files of fixed row width.

    Rows are written in order. A row is valid once `blocks.txt` lists it, and is then never computed
    again.
    """

    def __init__(self, folder: Path, identity: StoreIdentity) -> None:
        self.folder, self.identity = folder, identity
        self.row_format, self.rows = identity.row_format, identity.rows
        self.columns = identity.row_format.columns()
        self.size = self.rows * sum(column.size for column in self.columns.values())
        self._arrays: RowArrays | None = None

    def kept(self) -> int:
        """The number of valid rows; writes nothing, and raises UserError for another folder."""
        folder = self.folder
        if not folder.exists():
            return 0
        if not folder.is_dir():
            raise UserError(f"{folder} is a file, but a store is a folder; {STORE_REMEDY}")
        if not (folder / IDENTITY).exists():
            if any(path.name != LOCK and not _partial(path) for path in folder.iterdir()):
                raise UserError(
                    f"{folder} holds files that do not belong to a store; set another "
                    "teacher.store.path"
                )
            return 0
        self.identity.check(folder / IDENTITY)
        return index.next_row(self._blocks())

    def open(self) -> None:
        """Map the files into memory; raises UserError unless the store is full and undamaged."""
        kept = self.kept()
        if kept < self.rows:
            raise UserError(
                f"{self.folder} holds {kept:,} of {self.rows:,} outputs; fill it before it is read"
            )
        self._arrays = self._verified()

    def take(self, rows: NDArray[np.int64]) -> RowArrays:
        """The columns of some rows, in their order."""
        assert self._arrays is not None, "the store is not open"
        return {name: np.asarray(array[rows]) for name, array in self._arrays.items()}

    def prepare(self) -> int:
        """Create the files, or verify existing ones; returns the first missing row."""
        kept = self.kept()
        if kept:
            self._verified()
            index.drop_partial_line(self.folder / BLOCKS)
            return kept
        free = shutil.disk_usage(self.folder).free
        if free < self.size:
            raise UserError(
                f"{self.rows:,} outputs take {format_size(self.size)}, but {self.folder} has "
                f"{format_size(free)} free; free some space, or set teacher.store.top or another "
                "teacher.store.path"
            )
        for path in filter(_partial, self.folder.iterdir()):
            path.unlink(missing_ok=True)  # left by a process that was killed
        write_json(self.folder / IDENTITY, self.identity.plain())
        try:
            (self.folder / BLOCKS).write_bytes(b"")
            for name, (kind, shape) in self.columns.items():
                path = self.folder / _file(name)
                np.lib.format.open_memmap(path, "w+", kind, (self.rows, *shape)).flush()
        except OSError as error:
            raise write_error(self.folder, error) from error
        return 0

    def write(self, first: int, rows: RowArrays) -> None:
        """Write a block of rows to the disk, then list it in `blocks.txt`.

        It is not written through the memory map, which would crash the process on a full disk.
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
            path = self.folder / BLOCKS
            last = first + len(next(iter(rows.values())))
            index.append_block(path, RowBlock(first, last, _check(rows)))
        except OSError as error:
            raise write_error(path, error, f"{first:,} outputs are kept") from error

    def _blocks(self) -> list[RowBlock]:
        try:
            blocks = index.read_blocks(self.folder / BLOCKS)
        except (OSError, ValueError, TypeError) as error:
            raise self._damage(BLOCKS, str(error)) from error
        if index.next_row(blocks) > self.rows:
            raise self._damage(BLOCKS, "it lists more rows than the store has")
        return blocks

    def _verified(self) -> RowArrays:
        arrays = {name: self._map(name) for name in self.columns}
        for first, last, check in self._blocks():
            if _check({name: array[first:last] for name, array in arrays.items()}) != check:
                reason = f"rows {first:,} to {last - 1:,} differ from what was written"
                raise self._damage(", ".join(map(_file, arrays)), reason)
        return arrays

    def _map(self, name: str) -> NDArray[Any]:
        column, path = self.columns[name], self.folder / _file(name)
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            size = path.stat().st_size
        except (OSError, ValueError, EOFError) as error:
            raise self._damage(path.name, str(error)) from error
        expected = (column.kind, (self.rows, *column.shape), array.offset + array.nbytes)
        if (array.dtype, array.shape, size) != expected:
            raise self._damage(path.name, "it has another shape, dtype or length")
        mapped: NDArray[Any] = array
        return mapped

    def _damage(self, file: str, reason: str) -> UserError:
        return UserError(
            f"{self.folder} is damaged ({file}: {reason}); delete it, and it is filled again"
        )


def format_size(size: float) -> str:
    """A number of bytes as text, in GB, MB or kB: "1.2 kB"."""
    for unit, one in (("GB", 1e9), ("MB", 1e6)):
        if size >= one:
            return f"{size / one:,.1f} {unit}"
    return f"{size / 1e3:,.1f} kB"


def _file(column: str) -> str:
    return f"{column}.npy"


def _partial(path: Path) -> bool:
    return path.name.endswith(PARTIAL)


def _check(rows: RowArrays) -> int:
    check = 0
    for block in rows.values():
        check = crc32(np.ascontiguousarray(block).data, check)
    return check
