"""The folder of a run."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from stillhouse.errors import UserError
from stillhouse.files import (
    PARTIAL,
    check_inside,
    lock,
    lock_owner,
    unlock,
    write_error,
    write_text,
)

LOCK = ".lock"
MARK = ".run"  # marks the folder of a run; contains the hash of its recipe


class FolderInUse(UserError):
    """A folder that another process has locked."""


@dataclass
class FolderLock:
    """The exclusive right to write into a run folder, until `release` or the end of the process."""

    folder: Path
    _lock: int | None

    def release(self) -> None:
        """Release the lock of the folder."""
        if self._lock is not None:
            unlock(self._lock)
            self._lock = None

    def __enter__(self) -> FolderLock:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


def lock_folder(
    folder: str | Path,
    *,
    resume: bool,
    overwrite: bool = False,
    recipe: str = "",
    timeout: float = 0.0,
    kept: Collection[str] = (),
) -> FolderLock:
    """Create a run folder, or resume an existing one, and lock it for this process.

    Call it on one rank, before anything else is written there. `recipe` is a hash of the recipe; a
    run can only be resumed with the hash it was started with. Resuming in an empty folder starts a
    new run, so that one command is enough for a job that is restarted after interruptions.
    `timeout` is the number of seconds to wait for another process to release the folder. `kept` are
    the names of what stays in a folder that is overwritten.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise UserError(f"{folder} cannot be both resumed and overwritten; choose one of them")
    _create(folder)
    folder_lock = FolderLock(folder, _lock(folder, timeout))
    try:
        _check(folder, resume=resume, overwrite=overwrite, recipe=recipe, kept=kept)
        remove_partial_files(folder)
        write_text(folder / MARK, recipe + "\n")
    except BaseException:
        folder_lock.release()
        raise
    return folder_lock


def _create(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError):
        raise UserError(f"{folder} is a file, not a folder; choose another folder") from None
    except OSError as error:
        raise UserError(
            f"could not create the folder {folder}: {error.strerror}; choose another folder"
        ) from error


def _lock(folder: Path, timeout: float) -> int | None:
    try:
        return lock(folder / LOCK, timeout)
    except BlockingIOError:
        raise FolderInUse(
            f"{folder} is being written by process {lock_owner(folder / LOCK)}; wait until it "
            "ends, "
            "or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"could not write into {folder}: {error.strerror}; make it writable, "
            "or choose another folder"
        ) from error


def _check(
    folder: Path, *, resume: bool, overwrite: bool, recipe: str, kept: Collection[str]
) -> None:
    mark = folder / MARK
    names = {LOCK, MARK}
    files = [p for p in folder.iterdir() if p.name not in names and not p.name.endswith(PARTIAL)]
    if not files:
        return  # new, or of a run that ended before it wrote anything
    if not mark.is_file():
        raise UserError(f"{folder} is not a run folder but contains files; choose another folder")
    if overwrite:
        for path in files:  # but not the mark, so that a half emptied folder is still a run folder
            if path.name not in kept:
                _remove(path)
        if kept:
            _check_links(folder)
        return
    if not resume:
        raise UserError(
            f"{folder} already contains a run; add --resume to continue it, --overwrite to train "
            "its student again, or choose another folder"
        )
    before = mark.read_text(encoding="utf-8", errors="replace").strip()
    if before != recipe:
        raise UserError(
            f"{folder} contains a run of another recipe; resume it with the recipe it was started "
            "with, add --overwrite instead of --resume to train the student with this one, or "
            "choose another folder"
        )
    _check_links(folder)


def _check_links(folder: Path) -> None:
    # A resumed run appends to its files, and would append to whatever a link names.
    for place, folders, files in os.walk(folder):
        for path in (Path(place, name) for name in (*folders, *files)):
            if path.is_symlink():
                check_inside(path, folder)


def _remove(path: Path) -> None:
    try:
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    except OSError as error:
        raise write_error(path, error) from error


def remove_partial_files(folder: Path) -> None:
    """Remove what a killed process left half written; needs the lock of the folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        with contextlib.suppress(OSError):
            path.unlink()
