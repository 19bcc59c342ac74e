"""The numbers of a run: JSON lines as they come, a table and TensorBoard beside them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, SupportsFloat, TextIO

from stillhouse.errors import UserError
from stillhouse.files import csv_text, finite, replacing, write_error, write_text

LINES = "metrics.jsonl"
TABLE = "metrics.csv"
EVENTS = "tensorboard"

Kind = Literal["train", "evaluate"]
_OWN = ("kind", "step", "epoch")


class Records:
    """What one run writes down, on the first rank alone.

    `step` counts finished steps, as a checkpoint does, so that `truncate` to the checkpoint's step
    leaves what an undisturbed run would have written by then.
    """

    def __init__(self, folder: str | Path, *, tensorboard: bool = False) -> None:
        self.folder = Path(folder)
        self._path = self.folder / LINES
        self._tensorboard = tensorboard
        self._events: Any = None
        self._from_step = 0
        _mend(self._path)
        self._file: TextIO | None = _append_to(self._path)

    def write(self, kind: Kind, step: int, epoch: int, values: Mapping[str, SupportsFloat]) -> None:
        """Add one line, and see it out to the system before going on."""
        if self._file is None:
            raise ValueError("these records are closed")
        if clash := values.keys() & set(_OWN):
            raise ValueError(f"a value cannot be called {sorted(clash)[0]!r}")
        numbers = {name: float(value) for name, value in values.items()}
        line = {"kind": kind, "step": int(step), "epoch": int(epoch), **numbers}
        try:
            self._file.write(json.dumps(finite(line), ensure_ascii=False, allow_nan=False) + "\n")
            self._file.flush()
        except OSError as error:
            raise write_error(self._path, error, "the last checkpoint is kept") from error
        self._show(kind, step, numbers)

    def _show(self, kind: Kind, step: int, numbers: Mapping[str, float]) -> None:
        if self._tensorboard and self._events is None:
            self._events = _events(self.folder / EVENTS, self._from_step)
            self._tensorboard = self._events is not None
        if self._events is not None:
            for name, value in numbers.items():
                self._events.add_scalar(f"{kind}/{name}", value, step)

    def truncate(self, step: int) -> None:
        """Drop what was written after the first `step` steps: a resumed run writes it again."""
        if self._file is not None:
            self._file.close()
        kept = [line for line in _parse(self._path) if line["step"] <= step]
        write_text(self._path, "".join(json.dumps(x, ensure_ascii=False) + "\n" for x in kept))
        self._file = _append_to(self._path)
        self._from_step = step + 1

    def close(self) -> None:
        """End the record and write the table."""
        if self._file is None:
            return
        self._file.close()
        self._file = None
        if self._events is not None:
            self._events.close()
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


def read(folder: str | Path) -> list[dict[str, Any]]:
    """Every line of a run's record; a last line that was cut short is left out."""
    path = Path(folder) / LINES
    if not path.is_file():
        raise UserError(f"there is no record at {path}; give the folder of a run")
    return _parse(path)


def _parse(path: Path) -> list[dict[str, Any]]:
    lines = path.read_bytes().split(b"\n")
    parsed = []
    for number, line in enumerate(lines, start=1):
        value = _object(line)
        if value is not None:
            parsed.append(value)
        elif line.strip() and number < len(lines):
            raise UserError(
                f"line {number} of {path} is not a line of a record; delete that line, or put "
                "back a copy of the file"
            )
    return parsed


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        value = json.loads(line)
    except ValueError:  # JSON or UTF-8 that ends too early
        return None
    whole = isinstance(value, dict) and all(name in value for name in _OWN)
    return value if whole else None


def _mend(path: Path) -> None:
    """Cut a last line that a killed process left half written, lest the next one be glued to it."""
    if not path.is_file():
        return
    content = path.read_bytes()
    start = content.rfind(b"\n") + 1
    last = content[start:]
    if not last:
        return
    with replacing(path) as file:
        file.write(content + b"\n" if _object(last) is not None else content[:start])


def _append_to(path: Path) -> TextIO:
    try:
        return open(path, "a", encoding="utf-8", newline="\n")
    except OSError as error:
        raise write_error(path, error) from error


def _write_table(path: Path, lines: list[dict[str, Any]]) -> None:
    write_text(path, csv_text(lines, _OWN))


def _events(folder: Path, from_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    # What an interrupted run wrote beyond its checkpoint is hidden, not shown twice.
    return SummaryWriter(str(folder), purge_step=from_step or None)
