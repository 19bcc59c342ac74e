"""What a person sees while a run goes on: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Protocol, Self, SupportsFloat, TextIO

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

Values = Mapping[str, SupportsFloat]
Seconds = Callable[[], float]


class Progress(Protocol):
    """Something that can be told how far a run is."""

    def update(self, step: int, values: Values) -> None:
        """Say that `step` steps are done, and the newest of any numbers."""

    def note(self, text: str) -> None:
        """Print a line that stays."""

    def close(self) -> None:
        """Leave the terminal as it was."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def show(
    steps: int,
    *,
    start: int = 0,
    images: int = 0,
    first_rank: bool = True,
    stream: TextIO | None = None,
) -> Progress:
    """The progress that suits where it is written: `images` is how many one step takes, if known.

    Numbers given to `update` may be tensors on a device: they are read only when they are shown,
    so that it may be called after every step.
    """
    if not first_rank:
        return Silent()
    stream = sys.stderr if stream is None else stream
    pace = Pace(steps, start, images)
    if not on_terminal(stream):
        return Lines(pace, stream)
    from rich.console import Console

    return Bar(pace, Console(file=stream))


def on_terminal(stream: TextIO) -> bool:
    """Whether a person watches the stream through something that can redraw a line."""
    plain = os.environ.get("CI") or os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return stream.isatty() and not plain


class Part(NamedTuple):
    """Something to say, and what has to give way where there is little room."""

    text: str
    rank: int  # the lowest stay longest


class Pace:
    """How fast steps go by, over the last half minute or so."""

    def __init__(
        self, steps: int, start: int = 0, images: int = 0, seconds: Seconds = time.monotonic
    ) -> None:
        self.steps, self.step, self.images, self.seconds = steps, start, images, seconds
        self._marks = deque([(seconds(), start)])

    def reach(self, step: int) -> None:
        """Say that `step` steps are done."""
        now = self.seconds()
        self.step = step
        # One mark a second keeps the window short; its first mark is the oldest that is needed.
        if len(self._marks) < 2 or now - self._marks[-2][0] >= 1:
            self._marks.append((now, step))
        else:
            self._marks[-1] = (now, step)
        while len(self._marks) > 2 and now - self._marks[1][0] > 30:
            self._marks.popleft()

    @property
    def share(self) -> float:
        """The part of the run that is done, from 0 to 1."""
        return min(1.0, self.step / max(1, self.steps))

    @property
    def speed(self) -> float:
        """Steps in a second, 0 until there are two moments to compare."""
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        return max(0, last - first) / (now - then) if now > then else 0.0

    def parts(self, values: Values) -> list[Part]:
        """What there is to say, in the order in which it is read."""
        said = [Part(f"{100 * self.share:.0f}%", 0)]
        for index, (name, value) in enumerate(values.items()):
            said.append(Part(f"{name} {float(value):.4g}", 4 if index else 1))
        if self.speed and self.images:
            said.append(Part(f"{_short(self.speed * self.images)} images/s", 3))
        if self.speed:
            left = max(0, self.steps - self.step) / self.speed
            said.append(Part(f"{duration(left)} left", 2))
        return said


def duration(seconds: float) -> str:
    """A time as people write it: 0:42, 1:02:03, 2 d 3 h."""
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


class _Closing:
    """Closes at the end of a `with` block."""

    def close(self) -> None:
        """Nothing to close."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class Silent(_Closing):
    """Says nothing: for every rank but the first."""

    def update(self, step: int, values: Values) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class Lines(_Closing):
    """One plain line after the first update, at the end, and once in an interval between.

    `percents` adds a line when each of these parts of the run is done.
    """

    def __init__(
        self,
        pace: Pace,
        stream: TextIO,
        interval: float = 10.0,
        percents: tuple[float, ...] = (),
    ) -> None:
        self._pace, self._stream, self._interval = pace, stream, interval
        self._percents = percents
        self._values: dict[str, SupportsFloat] = {}
        self._last: tuple[float, float] | None = None  # when, and at what share

    def update(self, step: int, values: Values) -> None:
        """Take the news, and print it if a line is due."""
        self._pace.reach(step)
        self._values.update(values)
        now, share = self._pace.seconds(), self._pace.share
        if self._due(now, share):
            self._last = (now, share)
            said = "  ".join(part.text for part in self._pace.parts(self._values))
            self.note(f"step {step}/{self._pace.steps}  {said}")

    def _due(self, now: float, share: float) -> bool:
        if self._last is None:
            return True
        then, before = self._last
        crossed = any(before < percent / 100 <= share for percent in self._percents)
        return now - then >= self._interval or crossed or before < share == 1

    def note(self, text: str) -> None:
        """Print a line."""
        # A reader that went away must not end a run of days.
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)


class Bar(_Closing):
    """One line that is redrawn, as much of it as the terminal is wide."""

    def __init__(self, pace: Pace, console: Console, interval: float = 0.2) -> None:
        from rich.live import Live

        self._pace, self._console, self._interval = pace, console, interval
        self._values: dict[str, SupportsFloat] = {}
        self._drawn = float("-inf")
        # Redrawn by `update`, not by a thread, which the workers of a loader would be forked from.
        self._live = Live(
            console=console,
            auto_refresh=False,
            # Other people's prints go above the bar, unless they are on their way to a file.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
            vertical_overflow="crop",
        )
        self._live.start()

    def update(self, step: int, values: Values) -> None:
        """Take the news, and redraw a few times a second."""
        self._pace.reach(step)
        self._values.update(values)
        now = self._pace.seconds()
        if now - self._drawn >= self._interval or self._pace.share == 1:
            self._drawn = now
            with contextlib.suppress(OSError):
                self._live.update(self._line(), refresh=True)

    def _line(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # Terminals wrap a line that fills them to the last column.
        room = max(1, self._console.width - 1)
        said = fitting(self._pace.parts(self._values), room)
        line = Table.grid()
        cells: list[RenderableType] = [Text(said, no_wrap=True, overflow="crop")]
        if room - len(said) - 2 >= 6:
            width = min(40, room - len(said) - 2)
            line.add_column(width=width)
            line.add_column(width=2)
            cells[:0] = [ProgressBar(total=1.0, completed=self._pace.share, width=width), ""]
        line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        with contextlib.suppress(OSError):
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Leave the last line where it is, and the cursor visible."""
        with contextlib.suppress(OSError):
            self._live.stop()


def fitting(parts: list[Part], room: int) -> str:
    """As much of it as a line has room for, the least needed left out first."""
    kept: list[int] = []
    for index in sorted(range(len(parts)), key=lambda index: parts[index].rank):
        wider = sorted([*kept, index])
        if len(_join(parts, wider)) > room:
            break
        kept = wider
    return _join(parts, kept)


def _join(parts: list[Part], indices: Iterable[int]) -> str:
    return "  ".join(parts[index].text for index in indices)
