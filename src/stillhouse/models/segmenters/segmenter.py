"""A network for semantic segmentation: backbone, decoder, classifier."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.models.backbones import Backbone
from stillhouse.models.blocks import conv_norm_relu
from stillhouse.models.places import Places
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.models.stage_network import init_convolutions

MIN_WIDTH = 16  # of a decoder for a narrow backbone


class Decoder(nn.Module):
    """The maps of a backbone, the largest first -> the map (N, width, h, w) of a classifier.

    It is made from the widths and strides of the maps.
    """

    width: int

    def places(self, prefix: str) -> dict[str, str]:
        """The paths of its levels in a network that has this decoder at `prefix`."""
        return {}


class AuxiliaryHead(nn.Sequential):
    """Class scores from a map in the middle of a network: (N, before, h, w) -> (N, classes, h, w).

    The auxiliary loss of Zhao et al. (2017).
    """

    def __init__(self, before: int, width: int, classes: int, dropout: float) -> None:
        layers = conv_norm_relu(before, width, 3)
        super().__init__(*layers, nn.Dropout(dropout), nn.Conv2d(width, classes, 1))
        init_convolutions(nn.Sequential(*layers))


class Segmenter(nn.Module):
    """(N, C, H, W) -> Segmentation, at the stride of the decoder's map.

    Places: the stages of the backbone, the levels of the decoder, and the classifier, so that
    `last` is the map that it reads, after dropout. Classifiers start with torch's own weights: with
    those of N(0, 0.01^2), AdamW learns the background alone for many epochs.
    """

    def __init__(
        self,
        backbone: Backbone,
        decoder: Decoder,
        classes: int,
        dropout: float = 0.1,
        auxiliary: AuxiliaryHead | None = None,
    ) -> None:
        super().__init__()
        self.backbone, self.decoder, self.auxiliary = backbone, decoder, auxiliary
        self.dropout = nn.Dropout(dropout)
        self.classifier = nn.Conv2d(decoder.width, classes, 1)

    def forward(self, images: Tensor) -> Segmentation:
        """(N, C, H, W) -> Segmentation."""
        maps = self.backbone(images)
        logits = self.classifier(self.dropout(self.decoder(maps)))
        return Segmentation(logits, None if self.auxiliary is None else self.auxiliary(maps[-2]))

    @property
    def places(self) -> Places:
        """The stages of the backbone, the levels of the decoder, and the classifier."""
        levels = self.decoder.places("decoder")
        return Places(self.backbone.places("backbone"), levels, "classifier")

    @property
    def pretrained_part(self) -> nn.Module:
        """The network that weights of a classifier are for."""
        return self.backbone.body

    @property
    def frozen_parts(self) -> str:
        """What of the backbone is not trained, as words of a sentence; "" for nothing."""
        return self.backbone.frozen_parts


def check_counts(option: str, values: Sequence[int]) -> None:
    """Raise UserError unless an option has values, all of them positive integers."""
    whole = [isinstance(value, int) and not isinstance(value, bool) for value in values]
    if not values or not all(whole) or min(values) < 1:
        given = ", ".join(map(repr, values)) or "none"
        raise UserError(f"`{option}` must be positive integers, got {given}")
