"""A student with the classifier of its teacher, as in SimKD (Chen D. et al., 2022)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.models.pooled_head import PooledHead
from stillhouse.models.taps import Tapped

MAP = "map"  # the name of the tap


class Projector(nn.Sequential):
    """1x1, 3x3, 1x1 convolutions with BatchNorm and ReLU: (N, before, H, W) -> (N, after, H, W).

    The inner ones have `after / reduction` channels.
    """

    def __init__(self, before: int, after: int, reduction: int = 2) -> None:
        middle = max(1, after // reduction)
        super().__init__(
            *_layer(before, middle, 1), *_layer(middle, middle, 3), *_layer(middle, after, 1)
        )


class StudentWithTeacherHead(nn.Module):
    """Trunk, projector and the teacher's classifier: (N, C, H, W) -> (N, classes).

    The student's own classifier is removed. `size` is the (H, W) of the teacher's map: a larger map
    of the student is pooled to it, as in training.
    """

    def __init__(
        self, trunk: nn.Module, map: str, projector: Projector, head: nn.Linear, size: torch.Size
    ) -> None:
        super().__init__()
        self.trunk = Tapped(trunk, {MAP: map})
        self.projector, self.head = projector, head.requires_grad_(False)
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """The classifier on the mean of the projected map: (N, C, H, W) -> (N, classes)."""
        features = self.trunk(images).taps[MAP]
        if features.shape[2] > self.size[0] or features.shape[3] > self.size[1]:
            features = F.adaptive_avg_pool2d(features, (self.size[0], self.size[1]))
        logits: Tensor = self.head(self.projector(features).mean((2, 3)))
        return logits


def use_teacher_head(
    student: nn.Module,
    student_head: PooledHead,
    before: torch.Size,
    teacher_head: PooledHead,
    after: torch.Size,
    reduction: int = 2,
) -> StudentWithTeacherHead:
    """A copy of the student with the teacher's classifier in place of its own.

    `before` and `after` are the shapes of both networks' last maps, (N, C, H, W).
    """
    trunk = copy.deepcopy(student)
    parent, _, child = student_head.path.rpartition(".")
    setattr(trunk.get_submodule(parent), child, nn.Identity())
    projector = Projector(before[1], after[1], reduction)
    return StudentWithTeacherHead(
        trunk, student_head.map, projector, copy.deepcopy(teacher_head.linear), after[2:]
    )


def _layer(before: int, after: int, side: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(after), nn.ReLU()
