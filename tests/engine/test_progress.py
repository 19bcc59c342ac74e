"""Progress: clean text in a pipe, one line that fits on a terminal."""

import io
import re

import pytest
import torch
from rich.console import Console

from stillhouse.engine.progress import (
    NoProgress,
    Pace,
    ProgressBar,
    ProgressLines,
    create_progress,
    format_clock,
    on_terminal,
)

CONTROL = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|\r")


class Clock:
    """Seconds that pass when they are told to."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def lines(stream: io.StringIO) -> list[str]:
    return stream.getvalue().splitlines()


def test_a_line_says_all_there_is(monkeypatch):
    clock, stream = Clock(), io.StringIO()
    bar = ProgressLines(Pace(940, 0, 64, clock), stream)
    clock.now += 40
    bar.update(200, {"loss": 1.23449})
    # 200 steps in 40 s are 5 a second, 320 images; 740 steps are left, which is 148 s.
    assert lines(stream) == ["step 200/940  21%  loss 1.234  320 images/s  2:28 left"]


def test_lines_come_first_at_intervals_and_last():
    clock, stream = Clock(), io.StringIO()
    bar = ProgressLines(Pace(100, 0, 0, clock), stream, interval=10)
    for step in range(1, 101):
        clock.now += 1
        bar.update(step, {"loss": step} if step == 1 else {})
    steps = [int(re.match(r"step (\d+)/100", line).group(1)) for line in lines(stream)]
    assert steps == [1, 11, 21, 31, 41, 51, 61, 71, 81, 91, 100]
    assert all("loss 1" in line for line in lines(stream))  # the newest there was
    bar.update(100, {})
    assert len(lines(stream)) == 11


def test_lines_at_percentages():
    clock, stream = Clock(), io.StringIO()
    bar = ProgressLines(Pace(1000, 0, 0, clock), stream, percents=(25, 50))
    for step in range(1, 1001):
        bar.update(step, {})
    assert [line.split("/")[0] for line in lines(stream)] == [
        "step 1", "step 250", "step 500", "step 1000",
    ]  # fmt: skip


def test_a_pipe_gets_clean_text(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    stream = io.StringIO()
    with create_progress(10, stream=stream, images=4) as progress:
        assert isinstance(progress, ProgressLines)
        progress.update(1, {"loss": torch.tensor(0.5)})
        progress.note("[bold]evaluated[/bold]")
        progress.update(10, {"loss": float("nan")})
    assert "\r" not in stream.getvalue() and "\x1b" not in stream.getvalue()
    assert lines(stream)[1] == "[bold]evaluated[/bold]" and "loss nan" in lines(stream)[2]


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb"), ("TERM", "unknown")])
def test_a_terminal_that_cannot_redraw_gets_lines(monkeypatch, name, value):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    assert on_terminal(Terminal()) and not on_terminal(io.StringIO())
    monkeypatch.setenv(name, value)
    assert isinstance(create_progress(10, stream=Terminal()), ProgressLines)


def test_no_colour_is_obeyed(monkeypatch):
    monkeypatch.delenv("CI", raising=False)
    monkeypatch.setenv("TERM", "xterm-256color")
    for forbidden in (False, True):
        if forbidden:
            monkeypatch.setenv("NO_COLOR", "1")
        else:
            monkeypatch.delenv("NO_COLOR", raising=False)
        stream = Terminal()
        with create_progress(10, stream=stream) as bar:
            assert isinstance(bar, ProgressBar)
            bar.update(5, {"loss": 1.0})
        coloured = re.search(r"\x1b\[[0-9;]*3[0-9][0-9;]*m", stream.getvalue())
        assert bool(coloured) != forbidden


@pytest.mark.parametrize("width", [1, 5, 20, 24, 40, 80, 200])
def test_the_bar_fits(width):
    clock, stream = Clock(), io.StringIO()
    console = Console(file=stream, width=width, height=10, force_terminal=True)
    with ProgressBar(Pace(1000, 0, 64, clock), console) as bar:
        for step in range(0, 1001, 50):
            clock.now += 7
            bar.update(step, {"loss": 1.25, "cross_entropy": 0.5, "kd": 0.75})
    # One drawn line each time: nothing moves the cursor up, so nothing can have wrapped.
    assert not re.search(r"\x1b\[\d*A", stream.getvalue())
    drawn = [CONTROL.sub("", line).rstrip("\n") for line in stream.getvalue().split("\r")]
    assert len(drawn) >= 20 and all("\n" not in x and len(x) <= width for x in drawn)
    last = drawn[-1]
    assert ("100%" in last) == (width >= 5)
    assert ("loss 1.25" in last) == (width >= 20)
    assert ("0:00 left" in last) == (width >= 40)
    assert ("images/s" in last) == ("cross_entropy" in last) == (width >= 80)
    assert ("━" * 40 in last) == (width == 200)


def test_the_bar_is_drawn_a_few_times_a_second():
    clock, stream = Clock(), io.StringIO()
    read = []

    class Loss:
        def __float__(self) -> float:
            read.append(clock.now)
            return 1.0

    console = Console(file=stream, width=60, force_terminal=True)
    with ProgressBar(Pace(10_000, 0, 0, clock), console, interval=0.2) as bar:
        for step in range(1000):
            clock.now += 0.01
            bar.update(step, {"loss": Loss()})
    assert 45 <= len(read) <= 52  # ten seconds; a device is not waited for at every step


def test_a_note_stays_above_the_bar():
    stream = io.StringIO()
    console = Console(file=stream, width=24, force_terminal=True)
    with ProgressBar(Pace(10), console) as bar:
        bar.update(1, {"loss": 1.0})
        bar.note("[evaluation] accuracy 0.5 after one step")
        bar.update(2, {"loss": 1.0})
    assert "[evaluation] accuracy 0.5 after one step\n" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[?25h")  # the cursor is visible again


def test_a_reader_that_went_away_ends_nothing():
    class Gone(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    with create_progress(10, stream=Gone()) as progress:
        progress.update(1, {"loss": 1.0})
        progress.note("still here")


def test_other_ranks_are_silent(capsys):
    with create_progress(10, first_rank=False) as progress:
        assert isinstance(progress, NoProgress)
        progress.update(1, {"loss": 1.0})
        progress.note("no")
    assert capsys.readouterr() == ("", "")


def test_the_pace_is_of_late_and_counts_from_the_start_of_this_process():
    clock = Clock()
    pace = Pace(2000, 1000, 0, clock)
    for step in range(1001, 1101):  # slow at first, at one step a second
        clock.now += 1
        pace.advance(step)
    assert pace.speed == pytest.approx(1.0)
    for step in range(1101, 1501):  # then ten a second, for forty seconds
        clock.now += 0.1
        pace.advance(step)
    assert pace.speed == pytest.approx(10.0, rel=0.01)
    assert pace.items({})[-1].text == "0:50 left"

    pace = Pace(2000, 0, 64, clock)
    clock.now += 600  # to load the data and the checkpoint
    pace.restart(1500)
    for step in range(1501, 1511):
        clock.now += 1
        pace.advance(step)
    assert pace.speed == pytest.approx(1.0)
    assert [item.text for item in pace.items({})] == ["76%", "64 images/s", "8:10 left"]
    assert Pace(0).fraction == 0.0 and Pace(10).items({}) == [("0%", 0)]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (42.4, "0:42"), (59.7, "1:00"), (3723, "1:02:03"), (97_200, "1 d 3 h")],
)
def test_durations(seconds, text):
    assert format_clock(seconds) == text
