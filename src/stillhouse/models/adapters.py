"""Small modules that map a student's features to the shape of a teacher's."""

from __future__ import annotations

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from stillhouse.errors import UserError
from stillhouse.functional.pooling import pool
from stillhouse.spec import spec


@spec
class NoAdapter:
    """No adapter: the features are compared as they are, and must have the same channels."""

    kind: Literal["none"] = "none"

    def build(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """An identity for two shapes with the same number of channels, batch axis first."""
        before, after = _channels(student, teacher)
        if before != after:
            raise UserError(
                f"adapter 'none' needs the same channels in both networks, but the student has "
                f"{before} and the teacher {after}; use adapter 'pointwise'"
            )
        return nn.Identity()


@spec
class Pointwise:
    """A linear map of channels without bias, the same at every position."""

    kind: Literal["pointwise"] = "pointwise"

    def build(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """A 1x1 convolution of maps (N, C, H, W), a matrix of vectors and tokens (..., C)."""
        before, after = _channels(student, teacher)
        adapter = (
            nn.Conv2d(before, after, 1, bias=False)
            if len(student) == 4
            else nn.Linear(before, after, bias=False)
        )
        nn.init.kaiming_normal_(adapter.weight, mode="fan_in", nonlinearity="linear")
        return adapter


@spec
class WhereNeeded:
    """A `Pointwise` where the numbers of channels differ, and nothing elsewhere."""

    kind: Literal["auto"] = "auto"

    def build(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """The module for two shapes, batch axis first."""
        before, after = _channels(student, teacher)
        chosen = NoAdapter() if before == after else Pointwise()
        return chosen.build(student, teacher)


@spec
class Regressor:
    """A convolution to the teacher's shape, BatchNorm, ReLU (Romero et al., 2015).

    Its output is never negative: the teacher's tap has to be one after a ReLU.
    """

    kind: Literal["regressor"] = "regressor"

    def build(self, student: torch.Size, teacher: torch.Size) -> nn.Module:
        """(N, C, H, W) of the student -> (N, C, H, W) of the teacher."""
        before, after = _channels(student, teacher)
        if len(student) != 4:
            raise UserError(
                f"adapter 'regressor' needs maps, but the student's tap has shape "
                f"{_shape(student)}; use adapter 'pointwise'"
            )
        conv = resize_conv(before, after, student[2:], teacher[2:])
        nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
        return nn.Sequential(conv, SafeBatchNorm2d(after), nn.ReLU())


Adapter = Annotated[NoAdapter | Pointwise | Regressor, Field(discriminator="kind")]


class SafeBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm that uses its running statistics for a batch with one value per channel, or none.

    A last batch of one image, as a map of one pixel, has no deviation to divide by.
    """

    def forward(self, input: Tensor) -> Tensor:
        """(N, C, H, W) -> (N, C, H, W)."""
        if self.training and input.numel() <= self.num_features:
            mean, variance = self.running_mean, self.running_var
            return F.batch_norm(input, mean, variance, self.weight, self.bias, eps=self.eps)
        return super().forward(input)


def align(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Two maps at the smaller of their resolutions; vectors and tokens are returned unchanged.

    (N, C, H, W), (N, D, h, w) -> the same with min(H, h) rows and min(W, w) columns, by averages.
    """
    if student.ndim != 4 or teacher.ndim != 4:
        return student, teacher
    height = min(student.shape[2], teacher.shape[2])
    width = min(student.shape[3], teacher.shape[3])
    return pool(student, height, width), pool(teacher, height, width)


def resize_student(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """The student's map interpolated to the teacher's resolution, by bilinear samples.

    (N, C, H, W), (N, D, h, w) -> (N, C, h, w), (N, D, h, w). Maps of one size, vectors and tokens
    are returned unchanged.
    """
    if student.ndim != 4 or student.shape[2:] == teacher.shape[2:]:
        return student, teacher
    size = teacher.shape[2:]
    return F.interpolate(student, size, mode="bilinear", align_corners=False), teacher


def resize_conv(
    before: int, after: int, student: tuple[int, ...], teacher: tuple[int, ...]
) -> nn.Conv2d | nn.ConvTranspose2d:
    """A convolution from the student's resolution (H, W) to the teacher's.

    Raises UserError where the teacher's map is neither twice as large nor smaller.
    """
    pairs = list(zip(student, teacher, strict=True))
    if all(s == 2 * t for s, t in pairs):
        return nn.Conv2d(before, after, 3, stride=2, padding=1, bias=False)
    if all(2 * s == t for s, t in pairs):
        return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=False)
    if all(s >= t for s, t in pairs):
        height, width = (1 + s - t for s, t in pairs)
        return nn.Conv2d(before, after, (height, width), bias=False)
    raise UserError(
        f"a convolution doubles a map or makes it smaller, but the student's is {_shape(student)} "
        f"and the teacher's {_shape(teacher)}; pair other taps, or use adapter 'pointwise' where "
        "the method has one"
    )


def _channels(student: torch.Size, teacher: torch.Size) -> tuple[int, int]:
    """The channels of two taps with the same axes: (N, C), (N, T, C) or (N, C, H, W)."""
    if len(student) != len(teacher) or len(student) not in (2, 3, 4):
        raise UserError(
            f"the student's tap has shape {_shape(student)} and the teacher's {_shape(teacher)}; "
            "tap two vectors (N, C), two token sequences (N, T, C) or two maps (N, C, H, W)"
        )
    if len(student) == 3 and student[1] != teacher[1]:
        raise UserError(
            f"the student's tap has {student[1]} tokens and the teacher's {teacher[1]}; "
            "give both networks the same image size and patch size"
        )
    axis = 1 if len(student) == 4 else -1
    return student[axis], teacher[axis]


def _shape(size: tuple[int, ...]) -> str:
    return " x ".join(map(str, size))
