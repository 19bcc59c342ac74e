"""Files that a reader finds whole or not at all, and what is said when the system refuses one."""

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

_MEND = {
    errno.ENOSPC: "free some space and resume",
    errno.EDQUOT: "free some space and resume",
    errno.EFBIG: "raise the limit on the size of files and resume",
    errno.EACCES: "make it writable and try again",
    errno.EPERM: "make it writable and try again",
    errno.EROFS: "make it writable and try again",
}


def write_error(path: Path, error: OSError, kept: str = "") -> UserError:
    """The sentence for a write that the system refused; `kept` says what survived it."""
    reason = error.strerror or str(error) or type(error).__name__
    mend = _MEND.get(error.errno or 0, "mend that and resume")
    return UserError(f"could not write {path}: {reason}; {f'{kept}, ' if kept else ''}{mend}")


@contextlib.contextmanager
def replacing(path: Path, noun: str = "file") -> Iterator[BinaryIO]:
    """A file under a temporary name that takes its own name only once it is wholly on the disk."""
    partial = path.with_name(f".{path.name}.{os.getpid()}{PARTIAL}")
    try:
        with open(partial, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
        _sync_folder(path.parent)
    except Exception as error:
        refused = _system_error(error)
        if refused is None:
            raise
        kept = f"the previous {noun} is kept" if os.path.exists(path) else ""
        raise write_error(path, refused, kept) from error
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _system_error(error: BaseException | None) -> OSError | None:
    # torch.save on a full disk raises a RuntimeError about positions in an archive; the system's
    # own words are in the chain behind it.
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def lock(path: Path, patience: float = 0.0) -> int | None:
    """Hold a file for this process alone until `unlock`; None where the system has no locks.

    What is given is a bare descriptor, which no garbage collector closes early. BlockingIOError
    says that another process holds the file, and the file says which; `patience` is how many
    seconds it has to let go.
    """
    until = time.monotonic() + patience
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
    with contextlib.suppress(OSError):  # a courtesy to who waits
        os.truncate(handle, 0)
        os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def unlock(handle: int | None) -> None:
    """Let others hold the file."""
    if handle is not None:
        with contextlib.suppress(ImportError, OSError):
            import fcntl

            fcntl.flock(handle, fcntl.LOCK_UN)  # a process forked meanwhile holds it else
        os.close(handle)


def owner(path: Path) -> str:
    """The number of the process that holds a file, as far as it is known."""
    with contextlib.suppress(OSError):
        if said := path.read_text(encoding="utf-8", errors="replace").strip():
            return said
    return "of unknown number"


def _sync_folder(folder: Path) -> None:
    # Without this a power cut may undo the renaming. Not every file system can do it.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Write a text file so that a reader sees the old one or the new one, never half of it."""
    with replacing(path) as file:
        file.write(text.encode("utf-8"))


def csv_text(lines: Sequence[Mapping[str, Any]], empty: Sequence[str] = ()) -> str:
    """Lines as comma-separated values, columns in the order of first mention; `empty` if none."""
    # A dict keeps the order in which columns first appear.
    columns = list(dict.fromkeys(name for line in lines for name in line))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns or empty, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def write_json(path: Path, value: object) -> None:
    """Write valid JSON in the same way; numbers that JSON does not know become null."""
    text = json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(path, text + "\n")


def finite(value: Any) -> Any:
    """The same value with null where a number is infinite or none at all."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: finite(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [finite(inner) for inner in value]
    return value
