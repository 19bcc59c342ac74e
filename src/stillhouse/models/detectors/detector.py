"""A dense detector: backbone, feature pyramid, head, and the family that reads its predictions."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.output import Dense, Family
from stillhouse.models.detectors.priors import Grid, make_priors
from stillhouse.models.fpn import FPN
from stillhouse.models.places import Places


class Detector(nn.Module):
    """(N, C, H, W) -> Dense, in training and in evaluation alike.

    Detections are made of it by `suppress.detect`. Places: the stages of the backbone, and the
    levels `p3`, `p4`, ... of the neck.
    """

    def __init__(
        self, backbone: Backbone, neck: FPN, head: nn.Module, family: Family, grid: Grid
    ) -> None:
        super().__init__()
        self.backbone, self.neck, self.head = backbone, neck, head
        self.family, self.grid = family, grid

    @property
    def places(self) -> Places:
        """The stages of the backbone and the levels of the neck."""
        return Places(self.backbone.places("backbone"), self.neck.places("neck"))

    @property
    def pretrained_part(self) -> nn.Module:
        """The network that weights of a classifier are for."""
        return self.backbone.body

    @property
    def frozen_parts(self) -> str:
        """What of the backbone is not trained, as words of a sentence; "" for nothing."""
        return self.backbone.frozen_parts

    def forward(self, images: Tensor) -> Dense:
        """(N, C, H, W) -> Dense."""
        levels = self.neck(self.backbone(images))
        raw = self.head(levels)
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        priors = make_priors(self.grid, sizes, self.neck.strides, raw.scores)
        return Dense(raw.scores, raw.boxes, priors, self.family, raw.quality, raw.initial)
