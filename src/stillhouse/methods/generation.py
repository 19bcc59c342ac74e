"""Masked generative distillation (Yang Z. et al., 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.methods.base import Method
from stillhouse.methods.maps import MapPair, check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import align
from stillhouse.models.connectors import generator, pointwise
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec


@spec
class MGD(PairedSpec):
    """Squared difference of the teacher's map and one generated from the student's masked map.

    `masked` is the probability with which a part of the student's map is set to zero: each channel
    of an image, as for classification, or with `mask` "location" each place of it in all channels,
    as for detection and segmentation.
    """

    alpha: float = 7e-5
    masked: float = 0.15
    mask: Literal["channel", "location"] = "channel"
    name: Literal["mgd"] = "mgd"
    card: ClassVar[Card] = Card(
        "Masked generative distillation",
        "alpha / N * sum ( G(M * align(f_s)) - f_t )^2,  G = conv3x3, ReLU, conv3x3; M zero for a "
        "channel or a location with probability `masked`",
        "Yang Z. et al.: Masked generative distillation, ECCV 2022",
        ("features",),
        "two 3x3 convolutions at the teacher's width, which may be larger than the student; "
        "discarded after training",
        "It is a sum over the map, so alpha depends on the image size. The mask is random, so two "
        "runs are equal only with the same seed.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.masked < 1, "masked", "in [0, 1)", self.masked)

    def build(self, setting: Setting) -> Method:
        """The method, with a generator per pair, and a 1x1 convolution where channels differ."""
        maps = check_maps(setting, self.taps(setting))
        return Generation(
            self,
            [AdaptedPair(p.student, p.teacher, aligner(p)) for p in maps],
            [generator(p.teacher_shape[1]) for p in maps],
        )


def aligner(pair: MapPair) -> nn.Module:
    """An adapter to the teacher's number of channels: (N, C, H, W) -> (N, D, H, W).

    As in the public code of MGD, FGD and MasKD it has a bias, which begins at 0.
    """
    before, after = pair.student_shape[1], pair.teacher_shape[1]
    return nn.Identity() if before == after else pointwise(before, after)


class Generation(Paired):
    """Generated maps compared at each pair of taps; the larger map is pooled to the smaller."""

    def __init__(
        self, spec: MGD, pairs: list[AdaptedPair], generators: list[nn.Sequential]
    ) -> None:
        super().__init__(spec, pairs, [spec.alpha] * len(pairs))
        self.generators = nn.ModuleList(generators)
        self.masked, self.by_channel = spec.masked, spec.mask == "channel"

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, C, h, w) -> (N,)."""
        student, teacher = align(student, teacher)
        generated = self.generators[index](student * self.mask(student))
        losses: Tensor = (generated - teacher).square().flatten(1).sum(1)
        return losses

    def mask(self, maps: Tensor) -> Tensor:
        """A new random mask of 0 and 1: (N, C, H, W) -> (N, C, 1, 1) or (N, 1, H, W)."""
        count, channels, height, width = maps.shape
        shape = (count, channels, 1, 1) if self.by_channel else (count, 1, height, width)
        drawn = torch.rand(shape, device=maps.device)
        return (drawn >= self.masked).to(maps.dtype)
