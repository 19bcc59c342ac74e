"""Text files that a data set is described by."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import UserError, did_you_mean


def existing(name: str, path: Path) -> Path:
    """The folder that a data set is in, refused where it is none."""
    if not path.exists():
        siblings = [entry.name for entry in path.parent.glob("*")]
        hint = did_you_mean(path.name, siblings) or "; give data.path=FOLDER, that of the data set"
        raise UserError(f"{name}: {path} does not exist{hint}")
    if not path.is_dir():
        raise UserError(f"{name}: {path} is a file; give the folder that holds the data set")
    return path.absolute()


def bytes_of(path: Path, mend: str) -> bytes:
    """What a file holds; where it is not there, the mend says what to do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.glob("*")]
        raise UserError(f"{path} is not there; {mend}{did_you_mean(path.name, siblings)}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {mend}") from error


def text_of(path: Path, mend: str) -> str:
    """What a text file holds, with or without a byte order mark."""
    try:
        return bytes_of(path, mend).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is no text in UTF-8 ({error}); save it as such") from error


def lines_of(path: Path, mend: str) -> dict[int, str]:
    """The lines of a text file that hold something, by their number."""
    lines = enumerate(text_of(path, mend).splitlines(), 1)
    return {number: line.strip() for number, line in lines if line.strip()}


def names_of(path: Path, mend: str) -> tuple[str, ...]:
    """Names that a text file holds, one a line; none of them comes twice."""
    seen: dict[str, int] = {}
    for number, name in lines_of(path, mend).items():
        if name in seen:
            raise UserError(
                f"{path}, line {number}: {name!r} stands in line {seen[name]} already; "
                "take one of them out"
            )
        seen[name] = number
    if not seen:
        raise UserError(f"{path} is empty; {mend}")
    return tuple(seen)
