"""Distillation of activation boundaries (Heo et al., 2019)."""

from __future__ import annotations

from dataclasses import field
from typing import ClassVar, Literal

from torch import Tensor

from stillhouse.functional.boundary import activation_boundary
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.phases import check_length, in_first_phase
from stillhouse.methods.setting import Setting
from stillhouse.models.connectors import shape_connector
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import require, spec
from stillhouse.types import Clock, Lesson, Terms


@spec
class AB(PairedSpec):
    """Matches which neurons are active in the first phase of a run; labels only afterwards.

    `init` is the length of the first phase: epochs, or below 1 a fraction of the run; the default
    is the 30 of 240 epochs of the paper. `weight` is that of the last stage; each earlier stage has
    half the weight of the next.
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
        "a convolution with BatchNorm for each stage whose shapes differ, discarded after training",
        "It is an initialisation: labels have weight 0 during `init` and full weight afterwards, "
        "so with `init` as long as the run the classifier is never trained. At a stage without a "
        "tap before its ReLU every neuron counts as active. It is a sum over the map, so its "
        "weight depends on the image size.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.init)
        require(self.margin > 0, "margin", "positive", self.margin)

    def build(self, setting: Setting) -> Method:
        """The method, with a connector for each pair, tapped before the ReLU where possible."""
        pairs = setting.before_activation(self.taps(setting), "student")
        maps = check_maps(setting, setting.before_activation(pairs, "teacher"))
        return Boundaries(
            self,
            [
                AdaptedPair(p.student, p.teacher, shape_connector(p.student_shape, p.teacher_shape))
                for p in maps
            ],
        )


class Boundaries(Paired):
    """Activation boundaries at each pair; the only loss during the first phase of a run."""

    def __init__(self, spec: AB, pairs: list[AdaptedPair]) -> None:
        last = len(pairs) - 1
        super().__init__(spec, pairs, [spec.weight * 2.0 ** (i - last) for i in range(last + 1)])
        self.margin, self.init = spec.margin, spec.init

    def share(self, clock: Clock) -> float:
        """The weight of the label terms: 0 in the first phase."""
        return 0.0 if in_first_phase(self.init, clock) else self.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """One term per pair, of weight 0 after the first phase.

        The terms stay in the graph, so that connectors get a gradient in every step.
        """
        factor = float(in_first_phase(self.init, lesson.clock))
        terms = super().forward(lesson)
        return {name: term._replace(weight=factor * term.weight) for name, term in terms.items()}

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The loss of each image: (N, C, H, W), (N, C, H, W) -> (N,)."""
        return activation_boundary(student, teacher, self.margin)
