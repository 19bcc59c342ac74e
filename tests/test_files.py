"""Reading and writing files that others may have prepared."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from stillhouse.errors import UserError
from stillhouse.files import (
    atomic_write,
    check_inside,
    lock,
    open_regular,
    read_json,
    read_limited,
    write_text,
)


def plain(content: dict[str, Any]) -> dict[str, Any]:
    return content


@pytest.mark.parametrize(
    "content",
    [
        "[" * 100_000,
        '{"a": ' * 100_000,
        '{"a": 1' + "0" * 400 + "}",
        '{"a": 1' + "0" * 5000 + "}",
        '{"a": 1e400}',
        '{"a": NaN}',
        '{"a": "\\ud800"}',
        '{"\\ud800": 1}',
        "null",
        "[]",
        "",
        "{",
        '{"b": 1}',
    ],
)
def test_a_damaged_file_is_one_sentence(content: str, tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text(content)
    with pytest.raises(UserError) as error:
        read_json(file, lambda found: found["a"], "write it again")
    assert str(error.value) == f"{file} is damaged; write it again"


def test_bytes_that_are_not_utf_8(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_bytes(b'{"a": "\xff"}')
    with pytest.raises(UserError, match="is damaged; write it again"):
        read_json(file, plain, "write it again")


def test_escapes_of_whole_characters_are_read(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    file.write_text('{"a": "\\ud83d\\ude00", "b": 9007199254740993}')
    assert read_json(file, plain, "") == {"a": "\U0001f600", "b": 9007199254740993}


def test_a_large_file_is_not_read(tmp_path: Path) -> None:
    file = tmp_path / "score.json"
    with file.open("wb") as opened:
        opened.truncate(2**40)  # a sparse file
    with pytest.raises(UserError, match=r"cannot be read: it has more than .* bytes; write it"):
        read_json(file, plain, "write it again")


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    foreign, folder = tmp_path / "foreign.json", tmp_path / "run"
    foreign.write_text('{"secret": 1}')
    (folder / "inner").mkdir(parents=True)
    (folder / "score.json").symlink_to(foreign)
    with pytest.raises(UserError, match=r"score\.json leads out of .*run"):
        read_json(folder / "score.json", plain, "")
    with pytest.raises(UserError, match="leads out of"):
        check_inside(folder / ".." / "foreign.json", folder)
    (folder / "own.json").write_text('{"own": 1}')
    (folder / "inner" / "score.json").symlink_to(folder / "own.json")
    with pytest.raises(UserError, match="leads out of"):
        read_json(folder / "inner" / "score.json", plain, "")
    assert read_json(folder / "inner" / "score.json", plain, "", inside=folder) == {"own": 1}


def test_a_linked_folder_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "score.json").write_text("{}")
    (tmp_path / "link").symlink_to(tmp_path / "run")
    assert read_json(tmp_path / "link" / "score.json", plain, "") == {}


def test_pipes_devices_and_folders_are_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        open_regular(tmp_path / "pipe")
    with pytest.raises(OSError, match="it is a pipe or a device"):
        read_limited(Path("/dev/zero"), 10)
    with pytest.raises(IsADirectoryError):
        open_regular(tmp_path)
    with pytest.raises(UserError, match="cannot be read: it is a pipe or a device"):
        read_json(tmp_path / "pipe", plain, "remove it")


# ----------------------------------------------------------------------------------------- writing


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    victim, folder = tmp_path / "victim", tmp_path / "run"
    victim.write_text("kept")
    folder.mkdir()
    (folder / f".page.html.{os.getpid()}.partial").symlink_to(victim)
    write_text(folder / "page.html", "page")
    assert victim.read_text() == "kept"
    assert (folder / "page.html").read_text() == "page"
    assert [path.name for path in folder.iterdir()] == ["page.html"]


def test_a_link_that_is_planted_meanwhile_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    monkeypatch.setattr(Path, "unlink", lambda self, missing_ok=False: None)
    (tmp_path / f".page.html.{os.getpid()}.partial").symlink_to(victim)
    with pytest.raises(UserError, match="could not write"), atomic_write(tmp_path / "page.html"):
        pass
    assert victim.read_text() == "kept"


def test_the_mode_of_a_written_file_follows_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_text(tmp_path / "page.html", "page")
    finally:
        os.umask(before)
    assert (tmp_path / "page.html").stat().st_mode & 0o777 == 0o640


def test_a_linked_lock_is_not_emptied(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("kept")
    (tmp_path / ".lock").symlink_to(victim)
    with pytest.raises(OSError):
        lock(tmp_path / ".lock")
    assert victim.read_text() == "kept"
