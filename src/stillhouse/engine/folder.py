"""The folder that holds everything a run produces."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO

from stillhouse.errors import UserError

LOCK = ".lock"
MARK = ".run"  # says that the folder is a run's, and of which recipe
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


@dataclass
class Claim:
    """The right to write into a run's folder, held until `release` or the end of the process."""

    folder: Path
    _lock: int | None  # a bare descriptor, which no garbage collector closes early

    def release(self) -> None:
        """Let others claim the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def __enter__(self) -> Claim:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def claim(folder: str | Path, *, resume: bool, overwrite: bool = False, recipe: str = "") -> Claim:
    """Make a run's folder, or take up the one that is there, for this process alone.

    Call it on one rank, before anything else is written there. `recipe` is a hash of what the run
    is; a run resumes only under the hash it began with. Resuming where nothing is begins anew, so
    that a job which is restarted after every interruption needs one command only.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise UserError(f"{folder} cannot be both resumed and overwritten; choose one of the two")
    _make(folder)
    held = Claim(folder, _lock(folder))
    try:
        _admit(folder, resume=resume, overwrite=overwrite, recipe=recipe)
        _sweep(folder)
        write_text(folder / MARK, recipe + "\n")
    except BaseException:
        held.release()
        raise
    return held


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(
            f"{folder} cannot hold a run because a file is in its place; choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"could not make the folder {folder}: {error.strerror}; choose another folder"
        ) from error


def _lock(folder: Path) -> int | None:
    try:
        handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise UserError(
            f"could not write into {folder}: {error.strerror}; make it writable, "
            "or choose another folder"
        ) from error
    try:
        import fcntl

        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        owner = os.read(handle, 32).decode(errors="replace").strip() or "of unknown number"
        os.close(handle)
        raise UserError(
            f"{folder} is being written by process {owner}; wait for it to end, "
            "or choose another folder"
        ) from None
    except (ImportError, OSError):
        os.close(handle)  # a system or a network disk without locks: the run goes on without one
        return None
    os.truncate(handle, 0)
    os.write(handle, f"{os.getpid()}\n".encode())
    return handle


def _admit(folder: Path, *, resume: bool, overwrite: bool, recipe: str) -> None:
    mark = folder / MARK
    own = {LOCK, MARK}
    others = [p for p in folder.iterdir() if p.name not in own and not p.name.endswith(PARTIAL)]
    if not others:
        return  # new, or claimed by a run that ended before it wrote anything
    if not mark.is_file():
        raise UserError(f"{folder} already holds files that are no run's; choose another folder")
    if overwrite:
        for path in others:  # and not the mark, lest a half emptied folder be taken for another's
            _remove(path)
        return
    if not resume:
        raise UserError(
            f"{folder} already holds a run; add --resume to continue it, or choose another folder"
        )
    before = mark.read_text(encoding="utf-8").strip()
    if before != recipe:
        raise UserError(
            f"{folder} holds a run of another recipe; resume it with the recipe that it was "
            "begun with, or choose another folder"
        )


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise write_error(path, error) from error


def _sweep(folder: Path) -> None:
    # What a killed process left half written. Nobody else writes here: the lock is ours.
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
