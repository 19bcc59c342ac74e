"""Losses on the relations of predictions within a row and within the batch."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.objectives.activation import (
    Probabilities,
    Responses,
    SampleSoftmax,
    Softmax,
)
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import Cosine, Pearson
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets.base import LogitPreset, Objectives, Variant
from stillhouse.spec import spec


def inter_and_intra(
    activation: type[Probabilities] | type[Responses],
    temperature: float,
    beta: float,
    gamma: float,
    variant: Variant,
    measure: type[Pearson] | type[Cosine] = Pearson,
) -> Objectives:
    """Correlations within each row, and within each class along the batch."""
    reference = variant == "reference"
    distance = measure(mode="add") if reference else measure()
    kappa: Literal["square", "none"] = "square" if reference else "none"
    rows, columns = activation(temperature), activation(temperature, "batch")
    return {
        "inter": LogitObjective(activation=rows, distance=distance, weight=beta, kappa=kappa),
        "intra": LogitObjective(activation=columns, distance=distance, weight=gamma, kappa=kappa),
    }


def divergences(temperature: float, beta: float, gamma: float, variant: Variant) -> Objectives:
    """KL within each row, and within each class along the batch."""
    # without the squared temperature, which the relations of the paper do not have
    kappa: Literal["square", "none"] = "square" if variant == "reference" else "none"
    rows, columns = Softmax(temperature), SampleSoftmax(temperature)
    return {
        "inter": LogitObjective(activation=rows, weight=beta, kappa=kappa),
        "intra": LogitObjective(activation=columns, weight=gamma, kappa=kappa),
    }


@spec
class DIST(LogitPreset):
    """Correlation of class probabilities within images and within classes (Huang et al., 2022).

    `variant` "reference" multiplies by the squared temperature and adds the epsilon to the
    denominator, as the authors' code does; the paper has neither. `distance` and `relations` are
    the paper's ablations: the cosine does not centre, and KL compares softmaxes over the classes of
    an image and over the images of a class.
    """

    temperature: float = 1.0
    beta: float = 2.0
    gamma: float = 2.0
    variant: Variant = "paper"
    distance: Literal["pearson", "cosine", "kl"] = "pearson"
    relations: Literal["both", "inter", "intra"] = "both"
    name: Literal["dist"] = "dist"
    card: ClassVar[Card] = Card(
        "Relations of predictions",
        "beta / N * sum_n (1 - rho(Y_s[n,:], Y_t[n,:])) + gamma / C * sum_c (1 - "
        "rho(Y_s[:,c], Y_t[:,c])),  "
        "Y = softmax(z / tau)",
        "Huang et al.: Knowledge distillation from a stronger teacher, NeurIPS 2022",
        ("logits", "batch"),
        "one softmax, one correlation per row and per column; rows of all ranks are gathered",
        "With two classes or two images the correlation is only a sign. If the teacher is almost "
        "one-hot on the training data, raise the temperature.",
    )

    def objectives(self) -> Objectives:
        """Inter-class and intra-class relations."""
        tau, weights = self.temperature, (self.beta, self.gamma)
        if self.distance == "kl":
            both = divergences(tau, *weights, self.variant)
        else:
            measure = Cosine if self.distance == "cosine" else Pearson
            both = inter_and_intra(Probabilities, tau, *weights, self.variant, measure)
        return both if self.relations == "both" else {self.relations: both[self.relations]}
