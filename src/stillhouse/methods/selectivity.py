"""Neuron selectivity transfer (Huang and Wang, 2017)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.functional.channels import channel_rows, selectivity
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import align
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import spec


@spec
class NST(PairedSpec):
    """Maximum mean discrepancy between the channels of both maps; their numbers may differ."""

    weight: float = 50.0
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["nst"] = "nst"
    card: ClassVar[Card] = Card(
        "Neuron selectivity transfer",
        "weight / N * sum (mean_ab k(s_a, s_b) + mean_cd k(t_c, t_d) - 2 mean_ac k(s_a, t_c)),  "
        "k(a, b) = <a, b>^2 of unit channels, summed over pairs",
        "Huang, Wang: Like what you like: knowledge distill via neuron selectivity transfer, 2017",
        ("features",),
        "a product for each pair of channels of an image at each stage",
        "It ignores the scale and the sign of channels. A map of one pixel carries no "
        "information. The larger map is pooled to the smaller.",
    )

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        pairs = [
            AdaptedPair(student, teacher, nn.Identity()) for student, teacher in self.taps(setting)
        ]
        return Selectivity(self, pairs, [self.weight] * len(pairs))


class Selectivity(Paired):
    """The discrepancy of channels at each pair of taps."""

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, D, h, w) -> (N,)."""
        s, t = align(student, teacher)
        return selectivity(channel_rows(s), channel_rows(t))
