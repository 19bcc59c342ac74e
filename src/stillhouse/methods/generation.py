"""A teacher's map made again from part of a student's (Yang Z. et al., 2022)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.methods.base import Method
from stillhouse.methods.maps import Met, met
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import Pointwise, align
from stillhouse.models.connectors import generator
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec


@spec
class MGD(PairedSpec):
    """Squared difference of the teacher's last map and one generated from some of the channels.

    `masked` is how likely each channel of each image is left out.
    """

    alpha: float = 7e-5
    masked: float = 0.15
    name: Literal["mgd"] = "mgd"
    card: ClassVar[Card] = Card(
        "Masked generative distillation",
        "alpha / N * sum ( G(M * align(f_s)) - f_t )^2,  G = conv3x3, ReLU, conv3x3; M zero for a "
        "channel with probability `masked`",
        "Yang Z. et al.: Masked generative distillation, ECCV 2022",
        ("features",),
        "two 3x3 convolutions at the teacher's width, which may be larger than the student; thrown "
        "away after training",
        "It is a sum over the map, so alpha belongs to a size of images. It is random: two runs "
        "agree only with the same seed.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.masked < 1, "masked", "in [0, 1)", self.masked)

    def build(self, setting: Setting) -> Method:
        """A generator for each pair, and a 1x1 convolution where channels differ."""
        found = met(setting, self.taps(setting))
        return Generation(
            self,
            [AdaptedPair(p.student, p.teacher, aligner(p)) for p in found],
            [generator(p.after[1]) for p in found],
        )


def aligner(pair: Met) -> nn.Module:
    """The student's map at the teacher's width: (N, C, H, W) -> (N, D, H, W)."""
    same = pair.before[1] == pair.after[1]
    return nn.Identity() if same else Pointwise().build(pair.before, pair.after)


class Generation(Paired):
    """Generated maps at each pair, the larger of both maps pooled to the smaller first."""

    def __init__(
        self, spec: MGD, pairs: list[AdaptedPair], generators: list[nn.Sequential]
    ) -> None:
        super().__init__(spec, pairs, [spec.alpha] * len(pairs))
        self.generators = nn.ModuleList(generators)
        self.masked = spec.masked

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, h, w) -> (N,)."""
        student, teacher = align(student, teacher)
        made = self.generators[index](student * self.mask(student))
        losses: Tensor = (made - teacher).square().flatten(1).sum(1)
        return losses

    def mask(self, maps: Tensor) -> Tensor:
        """Which channels of which images stay: (N, C, H, W) -> (N, C, 1, 1), drawn anew."""
        drawn = torch.rand(*maps.shape[:2], 1, 1, device=maps.device)
        return (drawn >= self.masked).to(maps.dtype)
