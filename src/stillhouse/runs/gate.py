"""The teacher gate: a check of the teacher's scores before training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stillhouse.errors import UserError
from stillhouse.tasks.base import Task


def gate(name: str, task: Task[Any], summary: Mapping[str, float], images: int) -> None:
    """Raise UserError for a teacher that is not clearly better than chance, by the task."""
    if not task.passes(summary, images):
        headline = task.headline
        raise UserError(
            f"the teacher {name} reaches {headline} {summary[headline]:.1f} on {images} validation "
            f"images, where chance is {task.chance:.1f}; check its weights, its class order "
            "(teacher.classes) and its normalisation (teacher.mean, std and size), or set "
            "teacher.gate=false to use it anyway"
        )
