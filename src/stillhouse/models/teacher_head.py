"""A student that answers through its teacher's classifier (Chen D. et al., 2022)."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stillhouse.models.pooled_head import PooledHead
from stillhouse.models.taps import Tapped

NAME = "map"


class Projector(nn.Sequential):
    """1x1, 3x3, 1x1 with a narrow middle: (N, before, H, W) -> (N, after, H, W), never negative."""

    def __init__(self, before: int, after: int, reduction: int = 2) -> None:
        middle = max(1, after // reduction)
        super().__init__(
            *_layer(before, middle, 1), *_layer(middle, middle, 3), *_layer(middle, after, 1)
        )


class StudentWithTeacherHead(nn.Module):
    """Trunk, projector and the teacher's classifier: (N, C, H, W) -> (N, classes).

    The student's own classifier is gone, for nothing asks it any more. `size` is that of the
    teacher's map: a larger one of the student is pooled to it, as in training.
    """

    def __init__(
        self, trunk: nn.Module, map: str, projector: Projector, head: nn.Linear, size: torch.Size
    ) -> None:
        super().__init__()
        self.trunk = Tapped(trunk, {NAME: map})
        self.projector, self.head = projector, head.requires_grad_(False)
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        """The teacher's classifier on the mean of the projected map."""
        found = self.trunk(images).taps[NAME]
        if found.shape[2] > self.size[0] or found.shape[3] > self.size[1]:
            found = F.adaptive_avg_pool2d(found, (self.size[0], self.size[1]))
        answer: Tensor = self.head(self.projector(found).mean((2, 3)))
        return answer


def use_teacher_head(
    student: nn.Module,
    own: PooledHead,
    before: torch.Size,
    teacher: PooledHead,
    after: torch.Size,
    reduction: int = 2,
) -> StudentWithTeacherHead:
    """The student with its classifier taken off and its teacher's put on.

    `before` and `after` are the shapes of both networks' last maps, (N, C, H, W).
    """
    trunk = copy.deepcopy(student)
    parent, _, child = own.path.rpartition(".")
    setattr(trunk.get_submodule(parent), child, nn.Identity())
    projector = Projector(before[1], after[1], reduction)
    return StudentWithTeacherHead(
        trunk, own.map, projector, copy.deepcopy(teacher.linear), after[2:]
    )


def _layer(before: int, after: int, side: int) -> tuple[nn.Module, ...]:
    conv = nn.Conv2d(before, after, side, padding=side // 2, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return conv, nn.BatchNorm2d(after), nn.ReLU()
