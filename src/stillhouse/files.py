"""Atomic writes, file locks, and messages for failed writes."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from stillhouse.errors import UserError

PARTIAL = ".partial"

_REMEDIES = {
    errno.ENOSPC: "free some space and resume",
    errno.EDQUOT: "free some space and resume",
    errno.EFBIG: "raise the file size limit and resume",
    errno.EACCES: "make it writable and try again",
    errno.EPERM: "make it writable and try again",
    errno.EROFS: "make it writable and try again",
}


def write_error(path: Path, error: OSError, kept: str = "") -> UserError:
    """The UserError of a failed write; `kept` is a remark on what was not lost."""
    reason = error.strerror or str(error) or type(error).__name__
    remedy = _REMEDIES.get(error.errno or 0, "fix that and resume")
    return UserError(f"could not write {path}: {reason}; {f'{kept}, ' if kept else ''}{remedy}")


@contextlib.contextmanager
def atomic_write(path: Path, noun: str = "file") -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` once it is completely on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except Exception as error:
        os_error = _system_error(error)
        if os_error is None:
            raise
        kept = f"the previous {noun} is kept" if os.path.exists(path) else ""
        raise write_error(path, os_error, kept) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _system_error(error: BaseException | None) -> OSError | None:
    # torch.save on a full disk raises a RuntimeError about positions in an archive, caused by the
    # OSError.
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def lock(path: Path, timeout: float = 0.0) -> int | None:
    """Lock a file for this process until `unlock`: a descriptor, None where there are no locks.

    The process id is written into the file. Raises BlockingIOError if another process has the lock
    for `timeout` seconds.
    """
    until = time.monotonic() + timeout
    while True:
        try:
            return _lock(path)
        except BlockingIOError:
            if time.monotonic() >= until:
                raise
        time.sleep(0.1)


def _lock(path: Path) -> int | None:
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(handle)
        raise
    except (ImportError, OSError):
        os.close(handle)
        return None
    with contextlib.suppress(OSError):  # for messages of waiting processes
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def unlock(handle: int | None) -> None:
    """Release a lock."""
    if handle is not None:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_UN)  # else a process forked meanwhile keeps it
        os.close(handle)


def lock_owner(path: Path) -> str:
    """The id of the process that has the lock of a file, or "(unknown)"."""
    with contextlib.suppress(OSError):
        if number := path.read_text(encoding="utf-8", errors="replace").strip():
            return number
    return "(unknown)"


def _sync_folder(folder: Path) -> None:
    # Without this a power failure may undo the renaming. Not every file system supports it.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, in UTF-8."""
    with atomic_write(path) as file:
        file.write(text.encode("utf-8"))


def csv_text(lines: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> str:
    """Lines as CSV, columns in order of first occurrence; `empty` are the columns without lines."""
    # A dict keeps the order in which columns first appear.
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or empty, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def write_json(path: Path, value: object) -> None:
    """Write JSON atomically; infinite and NaN numbers become null."""
    text = json.dumps(replace_nonfinite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def replace_nonfinite(value: Any) -> Any:
    """The same value with None for infinite and NaN numbers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: replace_nonfinite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [replace_nonfinite(inner) for inner in value]
    return value
