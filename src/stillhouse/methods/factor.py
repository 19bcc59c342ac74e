"""Factor transfer: the student predicts factors of the teacher's map (Kim et al., 2018)."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.functional.attention import attended_factor_transfer, factor_transfer
from stillhouse.functional.distance import mse
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.maps import check_maps
from stillhouse.methods.paired import AdaptedPair, Paired, PairedSpec
from stillhouse.methods.phases import check_length, in_first_phase
from stillhouse.methods.setting import Setting
from stillhouse.methods.terms import row_term
from stillhouse.models.adapters import align
from stillhouse.models.connectors import Paraphraser, factor_encoder
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Terms


@spec
class FT(PairedSpec):
    """Factors of the teacher's map, learnt in the first phase and matched afterwards.

    `init` is how long the paraphraser is trained, while the student is trained on labels only:
    epochs, or below 1 a fraction of the run; the default is the 30 of 240 epochs of the paper.
    `share_of_width` is the number of factors per channel of the teacher. `variant` "paper" compares
    the factors, "reference" their attention maps, as in the port that the weight comes from.
    """

    weight: float = 200.0
    share_of_width: float = 0.5
    init: float = 0.125
    variant: Literal["paper", "reference"] = "reference"
    name: Literal["ft"] = "ft"
    card: ClassVar[Card] = Card(
        "Factor transfer",
        "weight * mean | F_s/|F_s| - F_t/|F_t| |,  F_t = paraphraser(f_t), F_s = translator(f_s); "
        "during `init`, mean ( decoder(F_t) - f_t )^2 for the paraphraser",
        "Kim, Park, Kwak: Paraphrasing complex network: Network compression via factor transfer, "
        "NeurIPS 2018",
        ("features",),
        "an autoencoder of 3x3 convolutions at the teacher's width, which may be larger than the "
        "student; discarded after training",
        "With a short `init` the factors describe the teacher poorly; they are frozen afterwards. "
        "Both variants ignore the scale of the factors.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_length(self.init)
        require(self.share_of_width > 0, "share_of_width", "positive", self.share_of_width)

    def build(self, setting: Setting) -> Method:
        """The method, with a paraphraser and a translator for each pair."""
        pairs, paraphrasers = [], []
        for pair in check_maps(setting, self.taps(setting)):
            student, teacher = pair.student_shape[1], pair.teacher_shape[1]
            factors = max(1, round(self.share_of_width * teacher))
            pairs.append(
                AdaptedPair(pair.student, pair.teacher, factor_encoder(student, factors, norm=True))
            )
            paraphrasers.append(Paraphraser(teacher, factors))
        return Factors(self, pairs, paraphrasers)


class Factors(Paired):
    """Trains the paraphrasers in the first phase, then the student and the translators."""

    unused_parameters = True  # in each step, the paraphraser or the translator has no gradient

    def __init__(self, spec: FT, pairs: list[AdaptedPair], paraphrasers: list[Paraphraser]) -> None:
        super().__init__(spec, pairs, [spec.weight] * len(pairs))
        self.paraphrasers = nn.ModuleList(paraphrasers)
        self.init = spec.init
        self.distance = factor_transfer if spec.variant == "paper" else attended_factor_transfer

    def forward(self, lesson: Lesson) -> Terms:
        """Two terms per pair, `TAP/paraphrase` and `TAP/factor`; one of them has weight 0."""
        first_phase = in_first_phase(self.init, lesson.clock)
        ramp = self.spec.ramp_factor(lesson.clock)
        terms = {}
        for index, (place, weight) in enumerate(zip(self.names, self.weights, strict=True)):
            student = upcast(lesson.student.taps[self.student_taps[index]])
            teacher = upcast(lesson.teacher.taps[self.teacher_taps[index]].detach())
            zeros = student.new_zeros(len(student))
            with full_precision(student):
                errors = self.reconstruct(index, teacher) if first_phase else zeros
                losses = zeros if first_phase else self.compare(index, student, teacher)
            factor = 0.0 if first_phase else ramp * weight
            terms[f"{place}/paraphrase"] = row_term(errors, lesson.weight, float(first_phase))
            terms[f"{place}/factor"] = row_term(losses, lesson.weight, factor)
        return terms

    def reconstruct(self, index: int, teacher: Tensor) -> Tensor:
        """The reconstruction error of the paraphraser, per image: (N, C, H, W) -> (N,)."""
        return mse(self.paraphrasers[index](teacher).flatten(1), teacher.flatten(1))

    def compare(self, index: int, student: Tensor, teacher: Tensor) -> Tensor:
        """The distance of the factors, the larger pooled: (N, C, H, W), (N, D, h, w) -> (N,).

        The paraphraser gets no gradient at all, so that the optimiser skips it and does not apply
        weight decay to it.
        """
        paraphraser = self.paraphrasers[index]
        assert isinstance(paraphraser, Paraphraser)
        with torch.no_grad():
            factors = paraphraser.encoder(teacher)
        return self.distance(*align(upcast(self.adapters[index](student)), factors))
