"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

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
    """Shows the progress of a run."""

    def start(self, step: int) -> None:
        """Begin to count at a step, that of a checkpoint in a resumed run."""

    def update(self, step: int, values: Values) -> None:
        """Set the number of finished steps and the latest values."""

    def note(self, text: str) -> None:
        """Print a line that is not overwritten."""

    def close(self) -> None:
        """Restore the terminal."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def create_progress(
    steps: int,
    *,
    start: int = 0,
    images: int = 0,
    first_rank: bool = True,
    stream: TextIO | None = None,
) -> Progress:
    """A bar on a terminal, lines elsewhere; `images` is the number of images per step, if known.

    Values given to `update` may be tensors on a device: they are only read when they are printed,
    so that it can be called after every step.
    """
    if not first_rank:
        return NoProgress()
    stream = sys.stderr if stream is None else stream
    pace = Pace(steps, start, images)
    if not on_terminal(stream):
        return ProgressLines(pace, stream)
    from rich.console import Console

    return ProgressBar(pace, Console(file=stream))


def on_terminal(stream: TextIO) -> bool:
    """Whether the stream is a terminal that can redraw a line."""
    plain = os.environ.get("CI") or os.environ.get("TERM", "").lower() in ("dumb", "unknown")
    return stream.isatty() and not plain


class StatusItem(NamedTuple):
    """A text of the status line, and its priority where the line is too long."""

    text: str
    priority: int  # the lowest is removed last


class Pace:
    """Speed of the run, over about the last half minute."""

    def __init__(
        self, steps: int, start: int = 0, images: int = 0, seconds: Seconds = time.monotonic
    ) -> None:
        self.steps, self.step, self.images, self.seconds = steps, start, images, seconds
        self.restart(start)

    def restart(self, step: int) -> None:
        """Measure from this step and from now on, so that steps of an earlier process, and the
        time to load, do not count.
        """
        self.step = step
        self._marks = deque([(self.seconds(), step)])

    def advance(self, step: int) -> None:
        """Set the number of finished steps."""
        now = self.seconds()
        self.step = step
        # At most one mark per second; the first mark is the oldest one in the window.
        if len(self._marks) < 2 or now - self._marks[-2][0] >= 1:
            self._marks.append((now, step))
        else:
            self._marks[-1] = (now, step)
        while len(self._marks) > 2 and now - self._marks[1][0] > 30:
            self._marks.popleft()

    @property
    def fraction(self) -> float:
        """The finished fraction of the run, from 0 to 1."""
        return min(1.0, self.step / max(1, self.steps))

    @property
    def speed(self) -> float:
        """Steps per second, 0 until there are two measurements."""
        (then, first), (now, last) = self._marks[0], self._marks[-1]
        return max(0, last - first) / (now - then) if now > then else 0.0

    def items(self, values: Values) -> list[StatusItem]:
        """The texts of the status line, in their order."""
        items = [StatusItem(f"{100 * self.fraction:.0f}%", 0)]
        for index, (name, value) in enumerate(values.items()):
            items.append(StatusItem(f"{name} {float(value):.4g}", 4 if index else 1))
        if self.speed and self.images:
            items.append(StatusItem(f"{_short(self.speed * self.images)} images/s", 3))
        if self.speed:
            left = max(0, self.steps - self.step) / self.speed
            items.append(StatusItem(f"{format_clock(left)} left", 2))
        return items


def format_clock(seconds: float) -> str:
    """A duration as 0:42, 1:02:03 or 2 d 3 h."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours >= 24:
        return f"{hours // 24} d {hours % 24} h"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _short(number: float) -> str:
    return f"{number:.0f}" if number >= 10 else f"{number:.2g}"


class _ClosedOnExit:
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


class NoProgress(_ClosedOnExit):
    """Prints nothing; for all ranks but the first."""

    def start(self, step: int) -> None:
        """Do nothing."""

    def update(self, step: int, values: Values) -> None:
        """Do nothing."""

    def note(self, text: str) -> None:
        """Do nothing."""


class ProgressLines(_ClosedOnExit):
    """One plain line after the first update, at the end, and once per interval in between.

    `percents` adds a line at each of these percentages of the run.
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
        self._last: tuple[float, float] | None = None  # time and fraction of the last line

    def start(self, step: int) -> None:
        """Begin to count at a step."""
        self._pace.restart(step)

    def update(self, step: int, values: Values) -> None:
        """Update the values, and print a line if one is due."""
        self._pace.advance(step)
        self._values.update(values)
        now, fraction = self._pace.seconds(), self._pace.fraction
        if self._due(now, fraction):
            self._last = (now, fraction)
            text = "  ".join(item.text for item in self._pace.items(self._values))
            self.note(f"step {step}/{self._pace.steps}  {text}")

    def _due(self, now: float, fraction: float) -> bool:
        if self._last is None:
            return True
        then, before = self._last
        crossed = any(before < percent / 100 <= fraction for percent in self._percents)
        return now - then >= self._interval or crossed or before < fraction == 1

    def note(self, text: str) -> None:
        """Print a line."""
        # A closed pipe must not end a run.
        with contextlib.suppress(OSError):
            print(text, file=self._stream, flush=True)


class ProgressBar(_ClosedOnExit):
    """One line that is redrawn, cut to the width of the terminal."""

    def __init__(self, pace: Pace, console: Console, interval: float = 0.2) -> None:
        from rich.live import Live

        self._pace, self._console, self._interval = pace, console, interval
        self._values: dict[str, SupportsFloat] = {}
        self._drawn = float("-inf")
        # Redrawn by `update`, not by a thread, since loader workers are forked.
        self._live = Live(
            console=console,
            auto_refresh=False,
            # Other output is printed above the bar, unless it is redirected to a file.
            redirect_stdout=sys.stdout.isatty(),
            redirect_stderr=sys.stderr.isatty(),
            vertical_overflow="crop",
        )
        self._live.start()

    def start(self, step: int) -> None:
        """Begin to count at a step."""
        self._pace.restart(step)

    def update(self, step: int, values: Values) -> None:
        """Update the values, and redraw a few times per second."""
        self._pace.advance(step)
        self._values.update(values)
        now = self._pace.seconds()
        if now - self._drawn >= self._interval or self._pace.fraction == 1:
            self._drawn = now
            with contextlib.suppress(OSError):
                self._live.update(self._line(), refresh=True)

    def _line(self) -> RenderableType:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        # Terminals wrap a line that fills them to the last column.
        width = max(1, self._console.width - 1)
        text = fit_to_width(self._pace.items(self._values), width)
        line = Table.grid()
        cells: list[RenderableType] = [Text(text, no_wrap=True, overflow="crop")]
        if width - len(text) - 2 >= 6:
            bar = min(40, width - len(text) - 2)
            line.add_column(width=bar)
            line.add_column(width=2)
            cells[:0] = [ProgressBar(total=1.0, completed=self._pace.fraction, width=bar), ""]
        line.add_column(no_wrap=True)
        line.add_row(*cells)
        return line

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        with contextlib.suppress(OSError):
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def close(self) -> None:
        """Keep the last line, and show the cursor again."""
        with contextlib.suppress(OSError):
            self._live.stop()


def fit_to_width(items: list[StatusItem], width: int) -> str:
    """As many items as fit into the width, those of the lowest priority value first."""
    kept: list[int] = []
    for index in sorted(range(len(items)), key=lambda index: items[index].priority):
        longer = sorted([*kept, index])
        if len(_join(items, longer)) > width:
            break
        kept = longer
    return _join(items, kept)


def _join(items: list[StatusItem], indices: Iterable[int]) -> str:
    return "  ".join(items[index].text for index in indices)
