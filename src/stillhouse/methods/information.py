"""Variational information distillation (Ahn et al., 2019)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor, nn

from stillhouse.functional.likelihood import gaussian_nll
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import align
from stillhouse.models.connectors import VariationalRegressor
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import require, spec


@spec
class VID(PairedSpec):
    """Gaussian likelihood of the teacher's maps, with a trained variance for each channel."""

    weight: float = 1.0
    variance: float = 5.0  # at the start
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["vid"] = "vid"
    card: ClassVar[Card] = Card(
        "Variational information distillation",
        "weight * sum over stages of 1 / (N C H W) * sum ( (mu(f_s) - f_t)^2 / v_c + log v_c ) / 2",
        "Ahn et al.: Variational information distillation for knowledge transfer, CVPR 2019",
        ("features",),
        "three 1x1 convolutions at the teacher's width and a variance per channel, for each stage; "
        "discarded after training",
        "A constant is left out, so the loss may be negative. Channels that the student cannot "
        "predict get a large variance and hardly any gradient. Some ports do not train the "
        "variance; here it is trained.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.variance >= 1e-3, "variance", "at least 0.001", self.variance)

    def build(self, setting: Setting) -> Method:
        """The method, with a predictor of the teacher's map for each pair."""
        maps = check_maps(setting, self.taps(setting))
        return Information(
            self,
            [AdaptedPair(p.student, p.teacher, nn.Identity()) for p in maps],
            [
                VariationalRegressor(p.student_shape[1], p.teacher_shape[1], self.variance)
                for p in maps
            ],
        )


class Information(Paired):
    """Negative log-likelihood at each pair of taps; the larger map is pooled to the smaller."""

    def __init__(
        self, spec: VID, pairs: list[AdaptedPair], expectations: list[VariationalRegressor]
    ) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))
        self.expectations = nn.ModuleList(expectations)

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, D, h, w) -> (N,)."""
        student, teacher = align(student, teacher)
        mean, variance = self.expectations[index](student)
        return gaussian_nll(mean, teacher, variance)
