"""FitNet: hints from a stage of the teacher (Romero et al., 2015)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.distance import mse
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.setting import Setting
from stillhouse.models.adapters import Pointwise, Regressor, align
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import spec

REGRESSORS: dict[str, Regressor | Pointwise] = {"regressor": Regressor(), "pointwise": Pointwise()}


@spec
class FitNet(PairedSpec):
    """Mean squared difference between an adapted stage of the student and one of the teacher.

    `adapter` "regressor" is a convolution to the teacher's shape, BatchNorm and ReLU; "pointwise"
    is a 1x1 convolution, for any two shapes and for taps before a ReLU.
    """

    weight: float = 100.0
    adapter: Literal["regressor", "pointwise"] = "regressor"
    pairs: PairsOption = field(default=(("stage2", "stage2"),), kw_only=True)
    name: Literal["fitnet"] = "fitnet"
    card: ClassVar[Card] = Card(
        "FitNet: hints for thin deep nets",
        "weight / (N C H W) * sum ( r(f_s) - f_t )^2,  r = ReLU(BN(conv))",
        "Romero et al.: FitNets: Hints for thin deep nets, ICLR 2015",
        ("features",),
        "one convolution per pair, discarded after training",
        "r is never negative, so the teacher's tap must follow a ReLU. The student must match the "
        "teacher's scale as well. The paper trains on the hint before the labels; here both are "
        "trained together, as in later benchmarks.",
    )

    def build(self, setting: Setting) -> Method:
        """The method, with a regressor for each pair."""
        pairs, adapter = self.taps(setting), REGRESSORS[self.adapter]
        student_taps, teacher_taps = zip(*pairs, strict=True)
        student = setting.student_shapes(student_taps)
        teacher = setting.teacher_shapes(teacher_taps)
        return Hints(
            self, [AdaptedPair(s, t, adapter.build(student[s], teacher[t])) for s, t in pairs]
        )


class Hints(Paired):
    """Mean squared differences at each pair of taps; the larger map is pooled to the smaller."""

    def __init__(self, spec: FitNet, pairs: list[AdaptedPair]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, ...), (N, C, ...) -> (N,)."""
        student, teacher = align(student, teacher)
        return mse(student.flatten(1), teacher.flatten(1))
