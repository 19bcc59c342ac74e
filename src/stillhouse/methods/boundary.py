"""Which neurons of each stage are on, taught before anything else (Heo et al., 2019)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.boundary import activation_boundary
from stillhouse.methods.base import Method
from stillhouse.methods.maps import met
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.phases import check_length, opening
from stillhouse.methods.setting import Setting
from stillhouse.models.connectors import shape_connector
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import require, spec
from stillhouse.types import Clock, Lesson, Terms


@spec
class AB(PairedSpec):
    """Activation boundaries alone for the first part of the run, labels alone afterwards.

    `init` is how long the first part lasts: epochs, or below 1 a share of the run; the default is
    the 30 epochs of the paper's 240. `weight` is that of the last stage; each one before it counts
    half of the next.
    """

    weight: float = 3e-3
    margin: float = 1.0
    init: float = 0.125
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["ab"] = "ab"
    card: ClassVar[Card] = Card(
        "Activation boundaries",
        "weight * sum over stages i of n of 2^-(n - 1 - i) / N * sum of ( margin - s )^2 where "
        "t > 0 and s < margin, ( s + margin )^2 where t <= 0 and s > -margin",
        "Heo et al.: Knowledge transfer via distillation of activation boundaries formed by hidden "
        "neurons, AAAI 2019",
        ("features",),
        "a convolution with BatchNorm for each stage whose shapes differ, thrown away after "
        "training",
        "It only begins the training: labels count nothing during `init` and all afterwards, so an "
        "`init` as long as the run leaves the classifier untaught. A stage without a tap before "
        "its ReLU can never be off. It is a sum over the map, so the weight belongs to a size of "
        "images.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.init)
        require(self.margin > 0, "margin", "positive", self.margin)

    def build(self, setting: Setting) -> Method:
        """A connector for each pair."""
        pairs = setting.before_activation(self.taps(setting), "student")
        found = met(setting, setting.before_activation(pairs, "teacher"))
        return Boundaries(
            self,
            [AdaptedPair(p.student, p.teacher, shape_connector(p.before, p.after)) for p in found],
        )


class Boundaries(Paired):
    """Boundaries at each pair, and a first part of the run in which nothing else counts."""

    def __init__(self, spec: AB, pairs: list[AdaptedPair]) -> None:
        last = len(pairs) - 1
        super().__init__(spec, pairs, [spec.weight * 2.0 ** (i - last) for i in range(last + 1)])
        self.margin, self.init = spec.margin, spec.init

    def share(self, clock: Clock) -> float:
        """Labels count nothing in the first part."""
        return 0.0 if opening(self.init, clock) else self.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """One term a pair, whose weight is 0 after the first part.

        It stays in the graph, so that every parameter of a connector has a gradient in every step.
        """
        factor = float(opening(self.init, lesson.clock))
        terms = super().forward(lesson)
        return {name: term._replace(weight=factor * term.weight) for name, term in terms.items()}

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """(N, C, H, W), (N, C, H, W) -> (N,)."""
        return activation_boundary(student, teacher, self.margin)
