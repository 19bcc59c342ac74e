"""Small things that every test can afford."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.types import Clock, Lesson, Site, Trace

CLOCK = Clock(step=1, steps=10, steps_per_epoch=5)


class Net(nn.Sequential):
    """Two maps, a vector and logits, without anything that differs between ranks."""

    def __init__(self, width: int = 4, classes: int = 5) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2, padding=1)
        self.act = nn.Tanh()
        self.body = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.flat = nn.Flatten()
        self.head = nn.Linear(2 * width, classes)


def batch(n: int = 8, classes: int = 5, size: int = 12) -> Batch:
    keys = torch.arange(n)
    images = torch.randn(n, 3, size, size, dtype=torch.double)
    return Batch(images, keys % classes, keys, torch.zeros_like(keys))


def site(n: int = 6, c: int = 5, **fields: Any) -> Site:
    """Rows of two networks that differ, in double precision, with labels."""
    student, teacher = 2 * torch.randn(2, n, c, dtype=torch.double)
    target = torch.randint(c, (n,))
    return Site(student.requires_grad_(), teacher, **{"target": target, **fields})


def lesson(
    sites: dict[str, Site] | None = None,
    student: dict[str, Tensor] | None = None,
    teacher: dict[str, Tensor] | None = None,
    clock: Clock = CLOCK,
    weight: Tensor | None = None,
) -> Lesson:
    return Lesson(
        Trace(None, student or {}), Trace(None, teacher or {}), sites or {}, clock, weight=weight
    )
