"""A student's stage that is to become a teacher's, through a regressor (Romero et al., 2015)."""

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

ADAPTERS: dict[str, Regressor | Pointwise] = {"regressor": Regressor(), "pointwise": Pointwise()}


@spec
class FitNet(PairedSpec):
    """Mean squared difference to the teacher's hint, learnt beside the labels.

    `adapter` "regressor" is a convolution to the teacher's shape, BatchNorm and ReLU; "pointwise" a
    1x1 convolution, which fits any two shapes and taps before a ReLU.
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
        "one convolution a pair, thrown away after training",
        "r is never negative, so the teacher's tap has to be one after a ReLU. It asks for the "
        "teacher's scale as well; the paper trains the hint first, here it learns beside the "
        "labels as later benchmarks have it.",
    )

    def build(self, setting: Setting) -> Method:
        """A regressor for each pair."""
        pairs, adapter = self.taps(setting), ADAPTERS[self.adapter]
        ours, theirs = zip(*pairs, strict=True)
        before, after = setting.student_shapes(ours), setting.teacher_shapes(theirs)
        return Hints(
            self, [AdaptedPair(s, t, adapter.build(before[s], after[t])) for s, t in pairs]
        )


class Hints(Paired):
    """Squared differences, the larger map pooled to the smaller."""

    def __init__(self, spec: FitNet, pairs: list[AdaptedPair]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """(N, C, ...), (N, C, ...) -> (N,)."""
        student, teacher = align(student, teacher)
        return mse(student.flatten(1), teacher.flatten(1))
