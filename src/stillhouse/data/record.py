"""The data of a training in plain values, to notice where they have changed since."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Literal

from stillhouse.data.source import Source

ScoreSplit = Literal["test", "validation"]  # that scores are measured on


def describe_sources(splits: Mapping[str, Source]) -> dict[str, Any]:
    """The classes, and the fingerprint (`data`) and number of samples of each split."""
    classes = next(iter(splits.values())).classes
    return {
        "data": {name: source.fingerprint for name, source in splits.items()},
        "classes": list(classes),
        "samples": {name: len(source) for name, source in splits.items()},
    }


def find_change(
    before: Mapping[str, Any], now: Mapping[str, Any], splits: Iterable[str] | None = None
) -> str:
    """What has changed between two descriptions, in some words; "" if nothing has.

    `splits` are the names of those that are compared, by default all. What `before` does not say
    counts as equal, as in files of older versions. There, val stood in for a missing test split.
    """
    known, found = before.get("data", {}), now["data"]
    names = [name for name in splits or found if known.get(name, found[name]) != found[name]]
    if not names:
        return "" if splits else describe_test(known, found)
    first, others = names[0], before.get("classes", now["classes"])
    if others != now["classes"]:
        return describe_classes(others, now["classes"])
    count, counted = before.get("samples", {}).get(first), now["samples"][first]
    if count not in (None, counted):
        return f"{first} had {count:,} samples, and has {counted:,} now"
    return f"{first} has as many samples as before, but other images or labels"


def describe_test(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Whether a test split was added or removed, by the fingerprints of the splits."""
    if before and "test" not in before and "test" in now:
        return "there was no test split, and is one now"
    if "test" not in now and before.get("test", before.get("val")) != before.get("val"):
        return "there was a test split, and is none now"
    return ""


def measured_split(described: Mapping[str, Any]) -> ScoreSplit:
    """The split that scores are measured on, by a description of the data."""
    data = described.get("data", {})
    return (
        "test" if not data or data.get("test", data.get("val")) != data.get("val") else "validation"
    )


def describe_classes(before: list[str], now: list[str]) -> str:
    """The first difference between two lists of classes."""
    if len(before) != len(now):
        return f"there were {len(before)} classes, and are {len(now)} now"
    pairs = enumerate(zip(before, now, strict=True))
    index, (old, new) = next(pair for pair in pairs if pair[1][0] != pair[1][1])
    return f"class {index} was {old!r}, and is {new!r} now"
