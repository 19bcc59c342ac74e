"""Logit standardisation before any softmax loss."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from stillhouse.objectives.card import Card
from stillhouse.objectives.preprocess import Standardize
from stillhouse.objectives.presets.base import LogitPreset, Objectives, Variant
from stillhouse.objectives.presets.relation import DIST
from stillhouse.objectives.presets.softmax import ATS, DKD, KD, TTM, WTTM
from stillhouse.spec import BY_NAME, spec
from stillhouse.types import Clock

SoftmaxPreset = Annotated[KD | TTM | WTTM | ATS | DKD | DIST, Field(discriminator="name"), BY_NAME]


@spec
class LSKD(LogitPreset):
    """Each row of logits standardised before another softmax loss (Sun et al., 2024).

    `temperature` replaces that of the base and `weight` multiplies its weights, as in the authors'
    code; `variant` "paper" uses the population deviation, "reference" the sample deviation (of
    their code and figures).
    """

    temperature: float = 2.0
    weight: float = 9.0
    base: SoftmaxPreset = KD()
    variant: Variant = "reference"
    eps: float = 1e-7
    name: Literal["lskd"] = "lskd"
    card: ClassVar[Card] = Card(
        "Logit standardisation",
        "weight * L_base( Z(z_s), Z(z_t) ) at tau,  Z(z) = (z - mean z) / (std z + eps)",
        "Sun et al.: Logit standardization in knowledge distillation, CVPR 2024",
        ("logits",),
        "a mean and a deviation per row in addition to the base; nothing trainable",
        "A row of equal student logits gets no gradient. Standardisation couples the classes, so "
        "only softmax losses can be the base.",
    )

    @property
    def label_share(self) -> float:
        """The weight of the label loss: of the base, unless `label_weight` is set."""
        return self.base.label_share if self.label_weight is None else self.label_weight

    def ramp_factor(self, clock: Clock) -> float:
        """The factor of the weights: of the base, unless `warmup` or `ramp` is set."""
        scheduled = self.warmup > 0 or self.ramp is not None
        return super().ramp_factor(clock) if scheduled else self.base.ramp_factor(clock)

    def objectives(self) -> Objectives:
        """The base's objectives with standardised rows."""
        rows = Standardize(0 if self.variant == "paper" else 1, self.eps)
        base = self.base
        if isinstance(base, ATS):  # the temperatures of the teacher are not those of the student
            base = replace(base, temperature=self.temperature)
        return {
            name: replace(
                objective,
                preprocess=rows,
                activation=replace(objective.activation, temperature=self.temperature),
                weight=objective.weight * self.weight,
            )
            for name, objective in base.objectives().items()
        }
