"""Atomic writes, bounded reads, file locks, and messages for files that cannot be used."""

from __future__ import annotations

import contextlib
import csv
import errno
import io
import json
import math
import os
import stat
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from stillhouse.errors import UserError

PARTIAL = ".partial"
JSON_LIMIT = 64 * 2**20  # bytes of a JSON file; the largest hold the images of a diagnosis
LARGEST_INTEGER = 2**63 - 1  # in a file; a longer one cannot become a float or a tensor

T = TypeVar("T")

_REMEDIES = {
    errno.ENOSPC: "free some space and resume",
    errno.EDQUOT: "free some space and resume",
    errno.EFBIG: "raise the file size limit and resume",
    errno.EACCES: "make it writable and try again",
    errno.EPERM: "make it writable and try again",
    errno.EROFS: "make it writable and try again",
    errno.ELOOP: "remove the link of that name and try again",
}
_NO_LINKS = getattr(os, "O_NOFOLLOW", 0)  # which Windows does not have
_NO_WAITING = getattr(os, "O_NONBLOCK", 0)  # for the other end of a pipe
_BINARY = getattr(os, "O_BINARY", 0)


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
        with _create_new(partial) as file:
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


def _create_new(path: Path) -> BinaryIO:
    # The name can be guessed. A link of that name is removed, and never written through.
    path.unlink(missing_ok=True)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _NO_LINKS | _BINARY
    return open(os.open(path, flags, 0o666), "wb")


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
    handle = os.open(path, os.O_RDWR | os.O_CREAT | _NO_LINKS | _NO_WAITING, 0o666)
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


# ----------------------------------------------------------------------------------------- reading


def open_regular(path: Path) -> io.BufferedReader:
    """Open a file for reading; raises OSError for a folder, a pipe or a device, without waiting."""
    handle = os.open(path, os.O_RDONLY | _NO_WAITING | _BINARY)
    mode = os.fstat(handle).st_mode
    if stat.S_ISREG(mode):
        return open(handle, "rb")
    os.close(handle)
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    raise OSError(errno.EINVAL, "it is a pipe or a device, not a file", str(path))


def read_limited(path: Path, limit: int) -> bytes:
    """The content of a regular file; raises OSError for one of more than `limit` bytes."""
    with open_regular(path) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it has more than {limit:,} bytes", str(path))
        return file.read()


def read_json(
    path: Path, parse: Callable[[dict[str, Any]], T], remedy: str, inside: Path | None = None
) -> T:
    """What `parse` makes of the JSON object in a file that this package has written.

    `inside` is the folder that the file may not lead out of, by default its own. `parse` may raise
    ValueError, KeyError or TypeError. Raises UserError, ending in `remedy`, for a damaged file.
    """
    check_inside(path, inside or path.parent)
    try:
        content = parse_json(read_limited(path, JSON_LIMIT))
        if not isinstance(content, dict):
            raise TypeError
        return parse(content)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or error}; {remedy}") from error
    except (ValueError, LookupError, TypeError, AttributeError, OverflowError) as error:
        raise UserError(f"{path} is damaged; {remedy}") from error


def parse_json(data: bytes) -> Any:
    """JSON in UTF-8; raises ValueError for what `write_json` never writes."""
    text = data.decode("utf-8")
    try:
        content = json.loads(text, parse_int=_integer, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if "\\u" in text:  # half a surrogate pair could not be written to a page
        json.dumps(content, ensure_ascii=False).encode("utf-8")
    return content


def _integer(text: str) -> int:
    number = int(text)
    if abs(number) > LARGEST_INTEGER:
        raise ValueError(f"{text[:20]}… is too large")
    return number


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:20]} is not a finite number")
    return number


def check_inside(path: Path, folder: Path) -> None:
    """Raise UserError for a path that leads out of a folder, by a link or by `..`."""
    if not Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder)):
        raise UserError(
            f"{path} leads out of {folder}, and files of a run stay inside its folder; replace the "
            "link by a copy"
        )


# ----------------------------------------------------------------------------------------- writing


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
