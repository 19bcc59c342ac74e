"""Flow of the solution procedure (Yim et al., 2017)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field
from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.errors import UserError
from stillhouse.functional.channels import channel_rows, fsp_matrix
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.paired import AdaptedPair, PairedSpec, term_names
from stillhouse.methods.phases import check_length, in_first_phase
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.adapters import NoAdapter, Pointwise, align
from stillhouse.objectives.card import Card
from stillhouse.objectives.presets.feature import PairsOption
from stillhouse.spec import spec
from stillhouse.types import Clock, Lesson, Terms


@spec
class FSP(PairedSpec):
    """Matches the correlations between the channels of two consecutive stages.

    `init` is how long this is the only loss, as in the paper; afterwards its weight is 0. It is in
    epochs, or below 1 a fraction of the run (30 epochs in public code). With 0, this loss and the
    label loss are used together throughout the run.
    """

    weight: float = 50.0
    init: float = 0.0
    pairs: PairsOption = field(default="stages", kw_only=True)
    name: Literal["fsp"] = "fsp"
    movable: ClassVar[bool] = False
    card: ClassVar[Card] = Card(
        "Flow of the solution procedure",
        "weight / N * sum mean_ab (G_s - G_t)^2,  G_ab = mean over positions of f_a of a stage "
        "times f_b of the next, summed over stages",
        "Yim et al.: A gift from knowledge distillation: fast optimization, network minimization "
        "and transfer learning, CVPR 2017",
        ("features",),
        "a product of all channels of two stages; a 1x1 convolution on each student stage whose "
        "number of channels differs from the teacher's",
        "The paper uses networks with equal numbers of channels. With a convolution between them, "
        "the convolution may learn the flow instead of the student. The loss grows with the scale "
        "of features.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.init)
        if not isinstance(self.pairs, str) and len(self.pairs) < 2:
            raise ValueError("pairs must name at least two stages: each is compared with the next")

    def build(self, setting: Setting) -> Method:
        """The method, with an adapter at each stage whose number of channels differs."""
        pairs = self.taps(setting)
        if len(pairs) < 2:
            raise UserError(
                "fsp needs at least two stages, but the networks have one in common; name more "
                "under method.pairs, as in pairs: [[layer1, blocks.2], [layer2, blocks.5]]"
            )
        student = setting.student_shapes([tap for tap, _ in pairs])
        teacher = setting.teacher_shapes([tap for _, tap in pairs])
        return Flow(self, [AdaptedPair(s, t, adapter(student[s], teacher[t])) for s, t in pairs])


class Flow(Method):
    """One term for each two consecutive stages, named `FIRST-SECOND`."""

    def __init__(self, spec: FSP, pairs: Sequence[AdaptedPair]) -> None:
        super().__init__()
        self.spec = spec
        self.label_share = spec.label_share
        self.student_taps = tuple(pair.student for pair in pairs)
        self.teacher_taps = tuple(pair.teacher for pair in pairs)
        self.adapters = nn.ModuleList(pair.adapter for pair in pairs)
        self.names = [f"{first}-{second}" for first, second in pairwise(term_names(pairs))]

    def share(self, clock: Clock) -> float:
        """The weight of the label terms: 0 in the first phase."""
        return 0.0 if in_first_phase(self.spec.init, clock) else self.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """The terms of all stages; in each network the larger map of two is pooled to the other."""
        finished = self.spec.init > 0 and not in_first_phase(self.spec.init, lesson.clock)
        factor = 0.0 if finished else self.spec.weight * self.spec.ramp_factor(lesson.clock)
        student = [upcast(lesson.student.taps[tap]) for tap in self.student_taps]
        teacher = [upcast(lesson.teacher.taps[tap].detach()) for tap in self.teacher_taps]
        terms = {}
        with full_precision(student[0]):
            adapted = [adapt(tap) for adapt, tap in zip(self.adapters, student, strict=True)]
            for place, s, t in zip(self.names, flows(adapted), flows(teacher), strict=True):
                losses = (s - t).square().mean((1, 2))
                terms[place] = row_term(losses, lesson.weight, factor)
        return terms


def flows(stages: Sequence[Tensor]) -> list[Tensor]:
    """The flow matrix between each stage and the next: maps (N, C, H, W) -> (N, C, D) each."""
    aligned = (align(first, second) for first, second in pairwise(stages))
    return [fsp_matrix(channel_rows(first), channel_rows(second)) for first, second in aligned]


def adapter(student: torch.Size, teacher: torch.Size) -> nn.Module:
    """A 1x1 convolution where the numbers of channels differ, else the identity."""
    axis = 1 if len(student) == 4 else -1
    same = len(student) == len(teacher) and student[axis] == teacher[axis]
    return (NoAdapter() if same else Pointwise()).build(student, teacher)
