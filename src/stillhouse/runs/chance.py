"""Warnings about networks that have learned nothing or got worse, and classes without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stillhouse.data.source import Source
from stillhouse.tasks.base import Task

NAMED = 3  # classes that a warning names
LOST = 5  # percentage points that acclimation may cost a teacher without a warning


def chance_warnings(
    task: Task[Any], summary: Mapping[str, float], split: str, measured: Source
) -> list[str]:
    """A sentence for scores that are not clearly better than chance, by the task.

    Accuracy is compared with that of always predicting the most frequent class, too.
    """
    if not summary:
        return []
    score = summary[task.headline]
    if not task.passes(summary, len(measured)):
        reached = f"chance is {task.chance:.2f}"
    elif (top := most_frequent(measured)) and task.headline == "top1" and score <= top[1]:
        reached = f"always predicting {top[0]!r} reaches {top[1]:.2f}"
    else:
        return []
    return [
        f"the student reaches {task.headline} {score:.2f} on {split}, where {reached}: it has "
        "learned next to nothing; lower the learning rate, train longer, or check the labels"
    ]


def acclimation_warnings(
    task: Task[Any], scores: Mapping[str, Mapping[str, Mapping[str, float]]]
) -> list[str]:
    """A sentence for a teacher that lost accuracy, from its scores `before` and `after`."""
    headline = task.headline
    before, after = (scores[when]["validation"][headline] for when in ("before", "after"))
    if before - after <= LOST:
        return []
    return [
        f"acclimation lowered the teacher from {headline} {before:.2f} to {after:.2f} on "
        "validation; lower the rate of acclimation"
    ]


def most_frequent(source: Source) -> tuple[str, float] | None:
    """The class with the most samples and its share in percent, where labels are in memory."""
    labels = getattr(source, "targets", None)
    if not isinstance(labels, Tensor) or labels.ndim != 1 or not bool((labels >= 0).any()):
        return None
    counts = torch.bincount(labels[labels >= 0])
    return source.classes[int(counts.argmax())], 100 * int(counts.max()) / int(counts.sum())


def empty_class_notes(train: Source) -> list[str]:
    """A sentence on the classes that no training image has, where the labels are in memory."""
    labels, present = getattr(train, "targets", None), getattr(train, "presence", None)
    if isinstance(present, Tensor):
        if not bool(present.any()):  # masks that are read when they are needed
            return []
        counts = present.sum(0)
    elif isinstance(labels, Tensor) and labels.ndim == 1:
        counts = torch.bincount(labels[labels >= 0], minlength=len(train.classes))
    else:
        return []
    names = [name for name, count in zip(train.classes, counts.tolist(), strict=True) if not count]
    if not names:
        return []
    return [
        f"{train.name} has no image of {join_names(names)}, which the student cannot learn; add "
        "images, or remove the class"
    ]


def join_names(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(map(repr, names[:NAMED]))
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more classes"
