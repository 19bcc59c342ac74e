"""Attention transfer (Zagoruyko and Komodakis, 2017)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.functional.attention import attention_transfer
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import align
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import require, spec


@spec
class AT(PairedSpec):
    """Squared difference of normalised attention maps, by default at all stages."""

    weight: float = 1000.0
    power: float = 2.0
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["at"] = "at"
    card: ClassVar[Card] = Card(
        "Attention transfer",
        "weight * sum over stages of 1 / (N H W) * sum ( Q_s/|Q_s| - Q_t/|Q_t| )^2,  "
        "Q = mean_c |F_c|^power",
        "Zagoruyko, Komodakis: Paying more attention to attention: Improving the performance of "
        "convolutional neural networks via attention transfer, ICLR 2017",
        ("features",),
        "one square and one mean per stage; no trainable parameters",
        "It ignores the sign of features and which channel they are in. A map of one pixel "
        "carries no information. The mean over pixels gives small maps more weight.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.power >= 1, "power", "at least 1", self.power)

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters. Raises UserError for taps without maps."""
        pairs = check_maps(setting, self.taps(setting))
        return Attention(self, [AdaptedPair(p.student, p.teacher, nn.Identity()) for p in pairs])


class Attention(Paired):
    """Attention maps compared at each pair of taps; the larger map is pooled to the smaller."""

    def __init__(self, spec: AT, pairs: list[AdaptedPair]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))
        self.power = spec.power

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, D, h, w) -> (N,)."""
        return attention_transfer(*align(student, teacher), self.power)
