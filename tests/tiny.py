"""Small things that every test can afford."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects
from stillhouse.data.mixing import Mix, mix_batch
from stillhouse.methods.base import Method
from stillhouse.types import Clock, Lesson, Site, Terms, Trace

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


class Looking(Method):
    """Keeps the lesson that it is given."""

    def __init__(self, **needs: Any) -> None:
        super().__init__()
        for name, value in needs.items():
            setattr(self, name, value)

    def forward(self, lesson: Lesson) -> Terms:
        self.lesson = lesson
        return {}


def batch(n: int = 8, classes: int = 5, size: int = 12) -> Batch:
    keys = torch.arange(n)
    images = torch.randn(n, 3, size, size, dtype=torch.double)
    return Batch(images, keys % classes, keys, torch.zeros_like(keys))


def same(a: Batch, b: Batch) -> bool:
    """Whether two batches are equal in every tensor."""
    one, other = a.plain(), b.plain()
    named = [name for name in one if name != "target"]
    if one.keys() != other.keys() or not all(torch.equal(one[n], other[n]) for n in named):
        return False
    return same_target(a.target, b.target)


def same_target(a: Any, b: Any) -> bool:
    """Whether two targets, of samples or of batches, are equal in every tensor."""
    if isinstance(a, Objects) and isinstance(b, Objects):
        one, other = a.tensors(), b.tensors()
        alike = a.images == b.images and one.keys() == other.keys()
        return alike and all(same_target(one[name], other[name]) for name in one)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return type(a) is type(b) and a == b


def mixed(
    images: Tensor, labels: Tensor, classes: int, how: Mix, seed: int
) -> tuple[Tensor, Tensor]:
    """Images and shares of a mixed batch, which is the same batch otherwise."""
    keys = torch.arange(len(images)).flip(0)
    given = Batch(images, labels, keys, keys + 1)
    found = mix_batch(given, classes, how, seed)
    assert torch.equal(found.keys, keys) and torch.equal(found.views, keys + 1)
    assert isinstance(found.target, Tensor)
    return found.images, found.target


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
