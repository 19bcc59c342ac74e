"""The predictions of several networks for the same images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from stillhouse.explain import row_statistics
from stillhouse.explain.roles import CONTROL, TEACHER
from stillhouse.explain.subset import Subset

MAX_IMAGES = 5000  # the standard error of most shares is then below a percentage point

Layout = Literal["tsne", "pca"]


@dataclass(frozen=True)
class ExplainOptions:
    """Options of `stillhouse explain`."""

    limit: int = MAX_IMAGES  # images of the test split
    layout: Layout = "tsne"  # how features are projected to two dimensions
    recompute: bool = False  # compute also what the folder already has


DEFAULT_OPTIONS = ExplainOptions()


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of one network."""

    name: str  # teacher, control, student, or the name of a method or run
    logits: Tensor  # (N, C) float32, on the CPU
    features: Tensor | None = None  # (N, D) the input of its classifier
    nearest: Tensor | None = None  # (Q, K) nearest images of each query, the nearest first
    labelwise: bool = False  # whether they are nearest by label-wise embedding, not by features
    maps: Tensor | None = None  # (M, h, w) class activation map of each image of the subset
    maps_error: str = ""  # why they could not be computed, if that failed


@dataclass(frozen=True)
class Predictions:
    """The outputs of a teacher, a control and students for one split, in this order."""

    outputs: tuple[Outputs, ...]
    labels: Tensor  # (N,) class index, or (N, C) where values above 0 are positive labels
    classes: tuple[str, ...]
    image: Callable[[int], Tensor]  # index of an image -> (C, H, W) uint8
    layout: Layout = "tsne"
    baseline: str = CONTROL  # the name of the network that the student is compared with
    subset: Subset | None = None
    missing: Mapping[str, str] = field(default_factory=dict)  # network -> why it has no outputs

    @property
    def multilabel(self) -> bool:
        """Whether an image has any number of classes."""
        return self.labels.ndim == 2

    @property
    def positives(self) -> Tensor:
        """Which classes each image has: -> (N, C) bool."""
        if self.multilabel:
            return self.labels > 0
        return self.labels[:, None] == torch.arange(len(self.classes))

    def probabilities(self, outputs: Outputs) -> row_statistics.Rows:
        """Softmax of the logits, or their sigmoid where images have several classes: -> (N, C)."""
        if self.multilabel:
            return row_statistics.sigmoid_rows(outputs.logits)
        return row_statistics.softmax_rows(outputs.logits)

    @property
    def teacher(self) -> Outputs | None:
        """The teacher, if there is one."""
        return next((one for one in self.outputs if one.name == TEACHER), None)

    @property
    def control(self) -> Outputs | None:
        """The baseline of the student: the control, or another run; None if there is none."""
        return next((one for one in self.outputs if one.name == self.baseline), None)

    @property
    def students(self) -> tuple[Outputs, ...]:
        """All networks except the teacher: the control first, if there is one."""
        return tuple(one for one in self.outputs if one.name != TEACHER)

    @property
    def student(self) -> Outputs:
        """The last network, which the page is about."""
        return self.outputs[-1]

    @property
    def main(self) -> tuple[Outputs, ...]:
        """Teacher, control and student, the networks of large charts."""
        names = (TEACHER, self.baseline, self.student.name)
        return tuple(one for one in self.outputs if one.name in names)

    @property
    def main_students(self) -> tuple[Outputs, ...]:
        """Control and student."""
        return tuple(one for one in self.main if one.name != TEACHER)
