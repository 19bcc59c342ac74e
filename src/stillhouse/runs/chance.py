"""Warnings about a student that has learned nothing, and about classes without images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stillhouse.data.source import Source
from stillhouse.tasks.base import Task

NAMED = 3  # classes that a warning names


def chance_warnings(
    task: Task[Any], summary: Mapping[str, float], split: str, images: int
) -> list[str]:
    """A sentence for scores that are not clearly better than chance, by the task."""
    if not summary or task.passes(summary, images):
        return []
    headline = task.headline
    return [
        f"the student reaches {headline} {summary[headline]:.2f} on {split}, where chance is "
        f"{task.chance:.2f}: it has learned next to nothing; lower the learning rate, train "
        "longer, or check the labels"
    ]


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
