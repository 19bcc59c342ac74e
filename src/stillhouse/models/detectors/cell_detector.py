"""A network with a mask for each cell: backbone, feature pyramid, head, and its family."""

from __future__ import annotations

from torch import Tensor

from stillhouse.models.backbones import Backbone
from stillhouse.models.detectors.cell_masks import CellFamily, CellMasks
from stillhouse.models.detectors.detector import PyramidNetwork
from stillhouse.models.detectors.solov2_head import SOLOv2Head, strides_of_grids
from stillhouse.models.fpn import FPN


class CellDetector(PyramidNetwork):
    """(N, C, H, W) -> CellMasks, in training and in evaluation alike."""

    def __init__(self, backbone: Backbone, neck: FPN, head: SOLOv2Head, family: CellFamily) -> None:
        super().__init__(backbone, neck)
        self.head, self.family = head, family

    def forward(self, images: Tensor) -> CellMasks:
        """(N, C, H, W) -> CellMasks."""
        return self.predict(self.make_levels(images), (images.shape[-2], images.shape[-1]))

    def predict(self, levels: list[Tensor], size: tuple[int, int]) -> CellMasks:
        """The predictions of the head for maps of all levels of images of one size."""
        scores, kernels, features = self.head(levels)
        strides = strides_of_grids([self.neck.strides[index] for index in self.head.read])
        return CellMasks(scores, kernels, features, self.head.grids, strides, size, self.family)
