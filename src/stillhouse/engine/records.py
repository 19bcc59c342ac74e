"""The metrics of a run, as JSON lines, a CSV table and TensorBoard events."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, SupportsFloat, TextIO

from stillhouse.errors import UserError
from stillhouse.files import (
    atomic_write,
    check_inside,
    csv_text,
    parse_json,
    read_limited,
    replace_nonfinite,
    write_error,
    write_text,
)

LINES = "metrics.jsonl"
TABLE = "metrics.csv"
EVENTS = "tensorboard"

Kind = Literal["train", "evaluate"]
_KEYS = ("kind", "step", "epoch")
_LIMIT = 2**30  # bytes; a line has about 500


class Records:
    """The metrics of one run, written by the first rank.

    `step` counts finished steps, as in a checkpoint, so that after `truncate` to the step of the
    checkpoint the file is what an uninterrupted run would have written up to then.
    """

    def __init__(self, folder: str | Path, *, tensorboard: bool = False) -> None:
        self.folder = Path(folder)
        self._path = self.folder / LINES
        self._tensorboard = tensorboard
        self._events: Any = None
        self._from_step = 0
        _repair(self._path)
        self._file: TextIO | None = _append_to(self._path)

    def write(self, kind: Kind, step: int, epoch: int, values: Mapping[str, SupportsFloat]) -> None:
        """Append one line and flush it."""
        if self._file is None:
            raise ValueError("the records are closed")
        if reserved := values.keys() & set(_KEYS):
            raise ValueError(f"the name {sorted(reserved)[0]!r} of a value is reserved")
        numbers = {name: float(value) for name, value in values.items()}
        line = {"kind": kind, "step": int(step), "epoch": int(epoch), **numbers}
        try:
            self._file.write(
                json.dumps(replace_nonfinite(line), ensure_ascii=False, allow_nan=False) + "\n"
            )
            self._file.flush()
        except OSError as error:
            raise write_error(self._path, error, "the last checkpoint is kept") from error
        self._write_events(kind, step, numbers)

    def _write_events(self, kind: Kind, step: int, numbers: Mapping[str, float]) -> None:
        if self._tensorboard and self._events is None:
            self._events = _events(self.folder / EVENTS, self._from_step)
            self._tensorboard = self._events is not None
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def truncate(self, step: int) -> None:
        """Remove what was written after step `step`, which a resumed run writes again."""
        if self._file is not None:
            self._file.close()
        lines = [line for line in _parse(self._path) if line["step"] <= step]
        write_text(self._path, "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in lines))
        self._file = _append_to(self._path)
        self._from_step = step + 1

    def close(self) -> None:
        """Close the files and write the table."""
        if self._file is None:
            return
        file, self._file = self._file, None
        try:
            file.close()
            if self._events is not None:
                self._events.close()
        except OSError as error:  # a full disk, where what was written before could not be
            raise write_error(self.folder, error, "the last checkpoint is kept") from error
        _write_table(self.folder / TABLE, _parse(self._path))

    def __enter__(self) -> Records:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def read_records(folder: str | Path) -> list[dict[str, Any]]:
    """Every line of the metrics of a run; an incomplete last line is left out."""
    path = Path(folder) / LINES
    if not path.is_file():
        raise UserError(f"{path} does not exist; give the folder of a run")
    check_inside(path, path.parent)
    return _parse(path)


def _parse(path: Path) -> list[dict[str, Any]]:
    try:
        lines = read_limited(path, _LIMIT).split(b"\n")
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; restore a copy of it") from error
    parsed = []
    for number, line in enumerate(lines, start=1):
        value = _object(line)
        if value is not None:
            parsed.append(value)
        elif line.strip() and number < len(lines):
            raise UserError(
                f"{path}, line {number}: not a line of metrics; delete that line, or restore a "
                "copy "
                "of the file"
            )
    return parsed


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = parse_json(line)
    except ValueError:  # incomplete JSON or UTF-8
        return None
    if not isinstance(value, dict) or not isinstance(value.get("kind"), str):
        return None
    numbers = [value.get("step"), value.get("epoch")]
    others = [number for name, number in value.items() if name != "kind"]
    whole = all(type(number) in (int, float) for number in numbers)
    return value if whole and all(type(x) in (int, float, type(None)) for x in others) else None


def _repair(path: Path) -> None:
    """Remove an incomplete last line of a killed process, so that no line is appended to it."""
    if not path.is_file():
        return
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; make it readable") from error
    start = content.rfind(b"\n") + 1
    last = content[start:]
    if not last:
        return
    with atomic_write(path) as file:
        file.write(content + b"\n" if _object(last) is not None else content[:start])


def _append_to(path: Path) -> TextIO:
    try:
        return open(path, "a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise write_error(path, error) from error


def _write_table(path: Path, lines: list[dict[str, Any]]) -> None:
    write_text(path, csv_text(lines, _KEYS))


def _events(folder: Path, from_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # Events that an interrupted run wrote after its checkpoint are hidden, not shown twice.
    return SummaryWriter(str(folder), purge_step=from_step or None)
