"""Losses on yes-or-no answers, one a class: multi-label heads and dense detectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.objectives.activation import PartialSoftmax, Responses, Sigmoid
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import KL, CrossEntropy
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets.base import LogitPreset, Objectives, Variant
from stillhouse.objectives.presets.relation import inter_and_intra
from stillhouse.objectives.weighting import Disagreement
from stillhouse.spec import spec


@spec
class MLD(LogitPreset):
    """One Bernoulli KL a class (Yang P. et al., 2023)."""

    weight: float = 1.0
    name: Literal["mld"] = "mld"
    card: ClassVar[Card] = Card(
        "Multi-label logits distillation",
        "weight / N * sum_n sum_c KL( [p_t, 1 - p_t] || [p_s, 1 - p_s] ),  p = sigmoid(z)",
        "Yang P. et al.: Multi-label knowledge distillation, ICCV 2023",
        ("logits",),
        "one sigmoid a class; nothing trainable",
        "Summed over classes, so its weight must be read beside the label loss's own reduction.",
    )

    def objectives(self) -> Objectives:
        """One KL of two states a class."""
        return {"mld": LogitObjective(activation=Sigmoid(), weight=self.weight)}


@spec
class TLD(LogitPreset):
    """Tempered sigmoids, one a class; a temperature below 1 picks out the hard classes.

    The paper's cross-entropy keeps the teacher's entropy; `subtract_entropy` gives a loss that
    ends at 0, with the same gradient.
    """

    temperature: float = 0.5
    weight: float = 1.0
    subtract_entropy: bool = False
    name: Literal["tld"] = "tld"
    card: ClassVar[Card] = Card(
        "Tempered-sigmoid logit distillation",
        "-weight * tau^2 / N * sum_n sum_c ( p_t log p_s + (1 - p_t) log(1 - p_s) ),  "
        "p = sigmoid(z / tau)",
        "Unleashing the potential of temperature scaling for multi-label logit distillation",
        ("logits",),
        "one sigmoid a class; nothing trainable",
        "Not shift invariant. Far above temperature 1 it turns into logit regression.",
    )

    def objectives(self) -> Objectives:
        """One binary cross-entropy a class."""
        distance = KL() if self.subtract_entropy else CrossEntropy()
        sigmoid = Sigmoid(self.temperature)
        return {"tld": LogitObjective(activation=sigmoid, distance=distance, weight=self.weight)}


@spec
class TLDDist(LogitPreset):
    """TLD with the distance of DIST: correlations of tempered sigmoids.

    The source leaves the squared temperature open: "paper" has none, "reference" has it.
    """

    temperature: float = 0.5
    beta: float = 1.0
    gamma: float = 1.0
    variant: Variant = "paper"
    name: Literal["tld_dist"] = "tld_dist"
    card: ClassVar[Card] = Card(
        "Tempered-sigmoid logit distillation with relations",
        "beta / N * sum_n (1 - rho(P_s[n,:], P_t[n,:])) + gamma / C * sum_c (1 - "
        "rho(P_s[:,c], P_t[:,c])),  "
        "P = sigmoid(z / tau)",
        "Unleashing the potential of temperature scaling for multi-label logit distillation",
        ("logits", "batch"),
        "a sigmoid and a correlation a row and a column; rows of all ranks are gathered",
        "A class that the batch does not show has a column of tiny numbers, whose correlation "
        "is noise.",
    )

    def objectives(self) -> Objectives:
        """Inter-class and intra-class relations of responses."""
        return inter_and_intra(Responses, self.temperature, self.beta, self.gamma, self.variant)


@spec
class BCD(LogitPreset):
    """Binary classification distillation, classes weighed by disagreement (Yang L. et al., 2023).

    The authors' code lets the gradient flow through the weight; `detach` stops it.
    """

    beta: float = 1.0
    weight: float = 1.0
    detach: bool = False
    name: Literal["bcd"] = "bcd"
    card: ClassVar[Card] = Card(
        "Binary classification distillation",
        "weight / N * sum_n sum_c |p_t - p_s|^beta BCE(p_s, p_t),  p = sigmoid(z)",
        "Yang L. et al.: Bridging cross-task protocol inconsistency for distillation in dense "
        "object detection, ICCV 2023",
        ("logits",),
        "one sigmoid a class; nothing trainable",
        "The loss has a kink where both agree. On dense heads it is divided by positives, "
        "which the task says.",
    )

    def objectives(self) -> Objectives:
        """One weighted binary cross-entropy a class."""
        return {
            "bcd": LogitObjective(
                activation=Sigmoid(),
                distance=CrossEntropy(),
                weighting=Disagreement(self.beta, self.detach),
                weight=self.weight,
            )
        }


@spec
class PS(LogitPreset):
    """For each positive class, a softmax over it and all negatives (Song et al., 2021)."""

    weight: float = 1.0
    name: Literal["ps"] = "ps"
    card: ClassVar[Card] = Card(
        "Partial softmax",
        "weight / N * sum_n sum_{k positive} KL( softmax over {k and negatives}: teacher || "
        "student )",
        "Song et al.: Handling difficult labels for multi-label image classification via "
        "uncertainty distillation, ACM MM 2021",
        ("logits", "labels"),
        "one softmax a row; nothing trainable",
        "An image without labels, or with all of them, teaches nothing.",
    )

    def objectives(self) -> Objectives:
        """One KL a positive class."""
        return {"ps": LogitObjective(activation=PartialSoftmax(), weight=self.weight)}
