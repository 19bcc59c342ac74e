"""How numbers and networks are called in sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from stillhouse.explain.predictions import CONTROL, TEACHER, Hearing, Voice

NOTHING = "no number"


def percent(share: float | None) -> str:
    """0.8312 as `83.1 %`."""
    return NOTHING if share is None else f"{100 * share:.1f} %"


def points(share: float) -> str:
    """A difference of shares: 0.0312 as `+3.1`."""
    return f"{100 * share:+.1f}"


def decimal(value: float | None, digits: int = 2) -> str:
    """A number with so many digits after the point."""
    return NOTHING if value is None else f"{value:.{digits}f}"


def hundred(share: float | None) -> float | None:
    """A share in percent, for a cell of a table."""
    return None if share is None else 100 * share


def the(voice: Voice) -> str:
    """`the student`, or the bare name of a method."""
    return f"the {voice.name}" if voice.name in (TEACHER, CONTROL, "student") else voice.name


def base(hearing: Hearing) -> str:
    """The one that the student is compared with, as a sentence calls it."""
    return "nobody" if hearing.control is None else the(hearing.control)


def start(sentence: str) -> str:
    """What begins a sentence: `The student`; a method keeps its name."""
    return f"T{sentence[1:]}" if sentence.startswith("the ") else sentence


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first few of many, and how many more there are; `none` of none."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more if names else "none"


def compared(hearing: Hearing, texts: Mapping[str, str], of: str = "") -> str:
    """What is said of the student, of what, and in brackets what is said of the control."""
    student, control = hearing.student.name, hearing.control
    if control is None or control.name == student or control.name not in texts:
        return f"{texts[student]}{of}"
    return f"{texts[student]}{of} ({control.name} {texts[control.name]})"
