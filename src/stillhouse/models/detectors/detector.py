"""A dense detector: backbone, feature pyramid, head, and the family that reads its predictions."""

from __future__ import annotations

from torch import Tensor, nn

from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.output import Dense, Family
from stillhouse.models.detectors.priors import Grid, Priors, make_priors
from stillhouse.models.fpn import FPN
from stillhouse.models.places import Places


class PyramidNetwork(nn.Module):
    """A network with a backbone and a feature pyramid.

    Places: the stages of the backbone, and the levels `p2`, `p3`, ... of the neck.
    """

    def __init__(self, backbone: Backbone, neck: FPN) -> None:
        super().__init__()
        self.backbone, self.neck = backbone, neck

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

    def make_levels(self, images: Tensor) -> list[Tensor]:
        """(N, C, H, W) -> a map for each level, the largest first."""
        levels: list[Tensor] = self.neck(self.backbone(images))
        return levels

    def make_priors(self, grid: Grid, levels: list[Tensor]) -> Priors:
        """The priors of a grid at all levels."""
        sizes = [(level.shape[-2], level.shape[-1]) for level in levels]
        return make_priors(grid, sizes, self.neck.strides, levels[0])


class Detector(PyramidNetwork):
    """(N, C, H, W) -> Dense, in training and in evaluation alike.

    Detections are made of it by `suppress.detect`.
    """

    def __init__(
        self, backbone: Backbone, neck: FPN, head: nn.Module, family: Family, grid: Grid
    ) -> None:
        super().__init__(backbone, neck)
        self.head = head
        self.family, self.grid = family, grid

    def forward(self, images: Tensor) -> Dense:
        """(N, C, H, W) -> Dense."""
        return self.predict(self.make_levels(images))

    def predict(self, levels: list[Tensor]) -> Dense:
        """The predictions of the head for maps of all levels, L x (N, C, H, W)."""
        raw = self.head(levels)
        priors = self.make_priors(self.grid, levels)
        return Dense(raw.scores, raw.boxes, priors, self.family, raw.quality, raw.initial)
