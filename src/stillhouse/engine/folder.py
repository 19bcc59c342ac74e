"""The folder that holds everything a run produces."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from stillhouse.errors import UserError
from stillhouse.files import PARTIAL, lock, owner, unlock, write_error, write_text

LOCK = ".lock"
MARK = ".run"  # says that the folder is a run's, and of which recipe


@dataclass
class Claim:
    """The right to write into a run's folder, held until `release` or the end of the process."""

    folder: Path
    _lock: int | None

    def release(self) -> None:
        """Let others claim the folder."""
        if self._lock is not None:
            unlock(self._lock)
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


def claim(
    folder: str | Path,
    *,
    resume: bool,
    overwrite: bool = False,
    recipe: str = "",
    patience: float = 0.0,
) -> Claim:
    """Make a run's folder, or take up the one that is there, for this process alone.

    Call it on one rank, before anything else is written there. `recipe` is a hash of what the run
    is; a run resumes only under the hash it began with. Resuming where nothing is begins anew, so
    that a job which is restarted after every interruption needs one command only. `patience` is how
    many seconds another process has to let the folder go.
    """
    folder = Path(folder)
    if resume and overwrite:
        raise UserError(f"{folder} cannot be both resumed and overwritten; choose one of the two")
    _make(folder)
    held = Claim(folder, _lock(folder, patience))
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


def _lock(folder: Path, patience: float) -> int | None:
    try:
        return lock(folder / LOCK, patience)
    except BlockingIOError:
        raise UserError(
            f"{folder} is being written by process {owner(folder / LOCK)}; wait for it to end, "
            "or choose another folder"
        ) from None
    except OSError as error:
        raise UserError(
            f"could not write into {folder}: {error.strerror}; make it writable, "
            "or choose another folder"
        ) from error


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
