"""The command as a whole: speed, help, errors, pipes and terminals."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from quick import WORDS, Call, caller
from stillhouse import __version__
from stillhouse.cli import main
from stillhouse.errors import UserError

COMMAND = [sys.executable, "-m", "stillhouse"]


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str]) -> Call:
    return caller(capsys)


def spent() -> float:
    """CPU seconds of the finished child processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def test_help_is_fast_and_imports_no_torch() -> None:
    code = (
        "import sys\n"
        "from stillhouse.cli import main\n"
        "try:\n    main(['--help'])\n"
        "except SystemExit as end:\n    assert end.code == 0\n"
        "heavy = {'torch', 'numpy', 'pydantic', 'timm', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    times = []
    for _ in range(2):  # the better of two, on a machine that others use
        since = spent()
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        times.append(spent() - since)
        assert done.returncode == 0, done.stderr
        assert "Knowledge distillation" in done.stdout
        if times[-1] < 1:
            break
    assert min(times) < 1.0, times


def test_version(call: Call) -> None:
    assert call("--version") == (0, f"{__version__}\n", "")


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_every_command_is_in_the_help(call: Call, words: list[str]) -> None:
    ended = call(*words)
    output = ended.out + ended.err
    for command in ("demo", "run", "doctor", "evaluate", "methods", "models", "datasets"):
        assert f"\n  {command} " in output
    assert "--debug" in output
    assert ended.code == (0 if words else 2)


@pytest.mark.parametrize("command", ["run", "doctor", "evaluate", "methods", "demo", "recipes cp"])
def test_every_command_has_help(call: Call, command: str) -> None:
    ended = call(*command.split(), "--help")
    assert ended.code == 0 and ended.out.startswith(f"Usage: stillhouse {command}")


def test_a_misspelt_command_has_a_suggestion(call: Call) -> None:
    ended = call("metods")
    assert ended.code == 2 and ended.out == ""
    assert "No such command 'metods'. Did you mean 'methods'" in ended.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["run", "digits/raw", "--resme"], "No such option: --resme"),
        (["evaluate"], "Missing argument"),
        (["demo", "--seeds", "1"], "--seeds"),
        (["demo", "--epochs", "none"], "--epochs"),
    ],
)
def test_a_wrong_option_is_named(call: Call, words: list[str], message: str) -> None:
    ended = call(*words)
    assert ended.code == 2 and message in ended.err and "Traceback" not in ended.err


def test_debug_shows_the_traceback(call: Call) -> None:
    for words in (["recipes", "cp", "nosuch", "--debug"], ["--debug", "recipes", "cp", "nosuch"]):
        with pytest.raises(
            UserError, match="recipe 'nosuch' not found"
        ):  # and Python shows the rest
            main(words)
    assert "recipe 'nosuch' not found" in call("recipes", "cp", "nosuch").error


@pytest.mark.parametrize("words", [["--help"], ["methods"]])
def test_a_closed_pipe_is_not_an_error(words: list[str]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([*COMMAND, *words], stdout=writer, stderr=subprocess.PIPE, text=True)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("columns", ["20", "1", "1000"])
def test_output_fits_the_terminal(
    call: Call, columns: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", columns)
    for words in (["methods"], ["methods", "kd"], ["datasets"], ["recipes", "ls"]):
        ended = call(*words)
        assert ended.code == 0 and ended.err == ""
        lines = ended.out.splitlines()
        longest = max(len(word) for line in lines for word in line.split())
        assert max(map(len, lines)) <= max({"1000": 100}.get(columns, 20), longest + 2, 42)
        # text is a column that can be read, and not one letter wide
        assert sum(len(line.strip()) == 1 for line in lines) < len(lines) / 4


def test_piped_output_has_no_control_characters(
    call: Call, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "20")
    words = ["run", "digits/raw", *WORDS, "train.epochs=1", "teacher=null", "method=none"]
    ended = call(*words, "--out", str(tmp_path / "run"))
    assert ended.code == 0
    assert not {"\x1b", "\r", "\b"} & set(ended.out + ended.err)
    assert "step 6/6  100%" in ended.err
    assert ended.out.splitlines()[-1] == f"report: {tmp_path}/run/report.html"
