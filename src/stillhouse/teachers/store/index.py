"""Which rows of a store are whole: a line for each finished block, added when it is on the disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class Block(NamedTuple):
    """Rows that were written together, and the CRC-32 of their bytes."""

    first: int
    last: int  # the row after them
    check: int


def read(path: Path) -> list[Block]:
    """The finished blocks; a ValueError says that the lines do not follow from one another."""
    if not path.exists():
        return []
    blocks: list[Block] = []
    for line in _whole(path).splitlines():
        block = Block(*map(int, line.split()))
        # Without locks two processes may have written the same rows, which does no harm.
        if not 0 <= block.first <= end(blocks) or block.first >= block.last:
            raise ValueError(f"line {len(blocks) + 1} does not follow the one before")
        blocks.append(block)
    return blocks


def end(blocks: list[Block]) -> int:
    """The first row that is missing."""
    return max((block.last for block in blocks), default=0)


def add(path: Path, block: Block) -> None:
    """One more line, which is on the disk afterwards."""
    with open(path, "ab") as file:
        file.write(f"{block.first} {block.last} {block.check}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def mend(path: Path) -> None:
    """Cut off a last line that a killed process did not end."""
    if path.exists():
        os.truncate(path, len(_whole(path)))


def _whole(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]
