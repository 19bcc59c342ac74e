"""Failures of the machine that any command can meet end in one sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from stillhouse import cli
from stillhouse.engine.records import Records
from stillhouse.errors import UserError


def call(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> tuple[object, str]:
    with pytest.raises(SystemExit) as ended:
        cli.main(arguments)
    return ended.value.code, capsys.readouterr().err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_an_output_that_is_full_is_said() -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "stillhouse", "methods"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert done.returncode == 2
    assert done.stderr == "error: the output: No space left on device; free some space\n"


def test_an_argument_that_is_no_utf8_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    word = b"caf\xe9.yaml".decode("utf-8", errors="surrogateescape")
    code, message = call(["run", word], capsys)
    assert code == 2
    assert message == (f"error: the argument {word!r} is not in UTF-8; rename the file or folder\n")
    assert call(["recipes", "validate", "café.yaml"], capsys)[1].count("not in UTF-8") == 0


def test_a_killed_loader_is_said(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(arguments: list[str]) -> int:
        raise RuntimeError("DataLoader worker (pid 7) is killed by signal: Killed. More follows")

    monkeypatch.setattr(cli, "invoke", fail)
    code, message = call([], capsys)
    assert code == 2 and message.count("\n") == 1
    assert message.startswith("error: DataLoader worker (pid 7) is killed by signal: Killed, most")
    monkeypatch.setattr(cli, "invoke", lambda arguments: int("x" and 1 / 0))
    with pytest.raises(ZeroDivisionError):
        cli.main([])


class Full:
    """A file on a full disk."""

    def close(self) -> None:
        raise OSError(28, "No space left on device")


def test_a_disk_that_is_full_at_the_end_is_said(tmp_path: Path) -> None:
    records = Records(tmp_path)
    records._file = Full()  # type: ignore[assignment]
    with pytest.raises(UserError, match="could not write .*: No space left on device; the last"):
        records.close()
    records.close()  # which has nothing left to do


def test_metrics_that_cannot_be_read_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    (tmp_path / "metrics.jsonl").write_text("{}\n")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"metrics\.jsonl cannot be read: Permission denied; make"):
        Records(tmp_path)
