"""The text files that describe a data set."""

from __future__ import annotations

from pathlib import Path

from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.files import open_regular


def require_folder(name: str, path: Path) -> Path:
    """The absolute path of a data set; raises a UserError where it is not a folder."""
    if not path.exists():
        siblings = [entry.name for entry in path.parent.glob("*")]
        hint = did_you_mean(path.name, siblings)
        hint = hint or "; set data.path to the folder of the data set"
        raise UserError(f"{name}: {path} does not exist{hint}")
    if not path.is_dir():
        raise UserError(f"{name}: {path} is a file; give the folder of the data set")
    return path.absolute()


def read_bytes(path: Path, remedy: str) -> bytes:
    """The content of a file; the remedy ends the message where it cannot be read."""
    try:
        with open_regular(path) as file:
            return file.read()
    except FileNotFoundError:
        siblings = [entry.name for entry in path.parent.glob("*")]
        hint = did_you_mean(path.name, siblings)
        raise UserError(f"{path} does not exist; {remedy}{hint}") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}); {remedy}") from error


def read_text(path: Path, remedy: str) -> str:
    """The content of a UTF-8 file, with or without a byte order mark."""
    try:
        return read_bytes(path, remedy).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error


def read_lines(path: Path, remedy: str) -> dict[int, str]:
    """The lines of a text file that are not blank, stripped, by line number."""
    lines = enumerate(read_text(path, remedy).splitlines(), 1)
    return {number: line.strip() for number, line in lines if line.strip()}


def read_names(path: Path, remedy: str) -> tuple[str, ...]:
    """The names in a text file, one per line; raises a UserError for duplicates."""
    lines: dict[str, int] = {}
    for number, name in read_lines(path, remedy).items():
        if name in lines:
            raise UserError(
                f"{path}, line {number}: {quote(name)} is already in line {lines[name]}; "
                "remove one of them"
            )
        lines[name] = number
    if not lines:
        raise UserError(f"{path} is empty; {remedy}")
    return tuple(lines)
