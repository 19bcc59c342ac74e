"""The predictions of several networks for the same images."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stillhouse.explain import row_statistics
from stillhouse.explain.compared import Compared, Layout
from stillhouse.explain.subset import Subset

MAX_IMAGES = 5000  # the standard error of most shares is then below a percentage point


@dataclass(frozen=True)
class ExplainOptions:
    """Options of `stillhouse explain`."""

    limit: int = MAX_IMAGES  # images of the split that scores are measured on
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

    @property
    def finite(self) -> bool:
        """Whether all logits are finite."""
        return bool(self.logits.isfinite().all())

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.logits)


@dataclass(frozen=True)
class Predictions(Compared[Outputs]):
    """The scores of each class for images; `image` takes the index of an image."""

    labels: Tensor  # (N,) class index, or (N, C) where values above 0 are positive labels
    subset: Subset | None = None

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
