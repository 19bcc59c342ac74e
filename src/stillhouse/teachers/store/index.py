"""The index of a store: a line for each block, which is appended once the block is on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple


class RowBlock(NamedTuple):
    """The rows of a block, and the CRC-32 of their bytes."""

    first: int
    last: int  # exclusive
    check: int


def read_blocks(path: Path) -> list[RowBlock]:
    """The blocks on disk, [] without a file; raises ValueError where blocks are not contiguous."""
    if not path.exists():
        return []
    blocks: list[RowBlock] = []
    for line in _whole(path).splitlines():
        block = RowBlock(*map(int, line.split()))
        # On a file system without locks, two processes may have written the same rows.
        if not 0 <= block.first <= next_row(blocks) or block.first >= block.last:
            raise ValueError(f"line {len(blocks) + 1} does not continue the line before")
        blocks.append(block)
    return blocks


def next_row(blocks: list[RowBlock]) -> int:
    """The first missing row."""
    return max((block.last for block in blocks), default=0)


def append_block(path: Path, block: RowBlock) -> None:
    """Append a line and flush it to the disk."""
    with open(path, "ab") as file:
        file.write(f"{block.first} {block.last} {block.check}\n".encode())
        file.flush()
        os.fsync(file.fileno())


def drop_partial_line(path: Path) -> None:
    """Remove a last line without a line break, which a killed process may leave."""
    if path.exists():
        os.truncate(path, len(_whole(path)))


def _whole(path: Path) -> bytes:
    content = path.read_bytes()
    return content[: content.rfind(b"\n") + 1]
