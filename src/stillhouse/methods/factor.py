"""A teacher's last map said in fewer channels, which a student translates (Kim et al., 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.functional.attention import attended_factor_transfer, factor_transfer
from stillhouse.functional.distance import mse
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.maps import met
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.phases import check_length, opening
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.adapters import align
from stillhouse.models.connectors import Paraphraser, factor_encoder
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class FT(PairedSpec):
    """Factors of the teacher's map, learnt in the first part of the run and translated afterwards.

    `init` is how long the paraphraser learns, while the student learns from labels alone: epochs,
    or below 1 a share of the run; the default is the 30 epochs of the paper's 240. `share_of_width`
    is the number of factors for each channel of the teacher. `variant` "paper" compares factors as
    they are, "reference" their attention, as the port does that the weight comes from.
    """

    weight: float = 200.0
    share_of_width: float = 0.5
    init: float = 0.125
    variant: Literal["paper", "reference"] = "reference"
    name: Literal["ft"] = "ft"
    card: ClassVar[Card] = Card(
        "Factor transfer",
        "weight * mean | F_s/|F_s| - F_t/|F_t| |,  F_t = paraphraser(f_t), F_s = translator(f_s); "
        "before it, mean ( decoder(F_t) - f_t )^2 for the paraphraser",
        "Kim, Park, Kwak: Paraphrasing complex network: Network compression via factor transfer, "
        "NeurIPS 2018",
        ("features",),
        "an autoencoder of 3x3 convolutions at the teacher's width, which may be larger than the "
        "student; all thrown away after training",
        "A short `init` leaves factors that say little of the teacher; they are frozen afterwards. "
        "Neither variant sees the scale of the factors.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.init)
        require(self.share_of_width > 0, "share_of_width", "positive", self.share_of_width)

    def build(self, setting: Setting) -> Method:
        """A paraphraser and a translator for each pair."""
        pairs, paraphrasers = [], []
        for pair in met(setting, self.taps(setting)):
            before, after = pair.before[1], pair.after[1]
            factors = max(1, round(self.share_of_width * after))
            pairs.append(
                AdaptedPair(pair.student, pair.teacher, factor_encoder(before, factors, norm=True))
            )
            paraphrasers.append(Paraphraser(after, factors))
        return Factors(self, pairs, paraphrasers)


class Factors(Paired):
    """First the paraphrasers learn to say a map again, then the student to say it like them."""

    idle = True  # one of both networks of each pair has no gradient

    def __init__(self, spec: FT, pairs: list[AdaptedPair], paraphrasers: list[Paraphraser]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))
        self.paraphrasers = nn.ModuleList(paraphrasers)
        self.init = spec.init
        self.distance = factor_transfer if spec.variant == "paper" else attended_factor_transfer

    def forward(self, lesson: Lesson) -> Terms:
        """Two terms a pair, one of which is 0 at any time."""
        learning, rise = opening(self.init, lesson.clock), self.spec.ramp_factor(lesson.clock)
        terms = {}
        for index, (place, weight) in enumerate(zip(self.names, self.weights, strict=True)):
            student = upcast(lesson.student.taps[self.student_taps[index]])
            teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
            none = student.new_zeros(len(student))
            with full_precision(student):
                said = self.rebuild(index, teacher) if learning else none
                losses = none if learning else self.compare(index, student, teacher)
            factor = 0.0 if learning else rise * weight
            terms[f"{place}/paraphrase"] = row_term(said, lesson.weight, float(learning))
            terms[f"{place}/factor"] = row_term(losses, lesson.weight, factor)
        return terms

    def rebuild(self, index: int, teacher: Tensor) -> Tensor:
        """How far the paraphraser is from the map that it says again: (N, C, H, W) -> (N,)."""
        return mse(self.paraphrasers[index](teacher).flatten(1), teacher.flatten(1))

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """Both maps as factors, the larger pooled: (N, C, H, W), (N, D, h, w) -> (N,).

        Without a gradient the paraphraser has none to be decayed by either: an optimiser passes
        over what has no gradient at all.
        """
        paraphraser = self.paraphrasers[index]
        assert isinstance(paraphraser, Paraphraser)
        with torch.no_grad():
            factors = paraphraser.encoder(teacher)
        return self.distance(*align(upcast(self.adapters[index](student)), factors))
