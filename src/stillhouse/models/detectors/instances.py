"""What the predictions of a network for instance segmentation can be asked for."""

from __future__ import annotations

from typing import Protocol

from stillhouse.batches import Objects
from stillhouse.models.detectors.output import Suppression


class Instances(Protocol):
    """The predictions of a network that segments instances, for a batch of images."""

    def segment(self, index: int, size: tuple[int, int], options: Suppression) -> Objects:
        """The instances of one image, the best first: boxes, labels, scores, masks (K, H, W) bool.

        `size` is height and width of the image before padding; masks have the (padded) size of the
        batch's images, and are False in the padding. images=1.
        """
        ...
