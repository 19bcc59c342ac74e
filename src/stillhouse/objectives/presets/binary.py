"""Losses on binary predictions, one per class: multi-label heads and dense detectors."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.objectives.activation import PartialSoftmax, Responses, Sigmoid
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import KL, CrossEntropy, DiceDistance
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.presets.base import LogitPreset, Objectives, Variant
from stillhouse.objectives.presets.relation import inter_and_intra
from stillhouse.objectives.weighting import Disagreement
from stillhouse.spec import spec


@spec
class MLD(LogitPreset):
    """One binary KL per class (Yang P. et al., 2023)."""

    weight: float = 1.0
    name: Literal["mld"] = "mld"
    card: ClassVar[Card] = Card(
        "Multi-label logits distillation",
        "weight / N * sum_n sum_c KL( [p_t, 1 - p_t] || [p_s, 1 - p_s] ),  p = sigmoid(z)",
        "Yang P. et al.: Multi-label knowledge distillation, ICCV 2023",
        ("logits",),
        "one sigmoid per class; nothing trainable",
        "It is summed over classes; choose its weight with the reduction of the label loss in "
        "mind.",
    )

    def objectives(self) -> Objectives:
        """One binary KL per class."""
        return {"mld": LogitObjective(activation=Sigmoid(), weight=self.weight)}


@spec
class TLD(LogitPreset):
    """Tempered sigmoids, one per class; a temperature below 1 emphasises hard classes.

    The paper's cross-entropy includes the teacher's entropy; with `subtract_entropy` the minimum of
    the loss is 0, with the same gradient.
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
        "one sigmoid per class; nothing trainable",
        "It is not invariant to shifts of the logits. At high temperatures it is logit regression.",
    )

    def objectives(self) -> Objectives:
        """One binary cross-entropy per class."""
        distance = KL() if self.subtract_entropy else CrossEntropy()
        sigmoid = Sigmoid(self.temperature)
        return {"tld": LogitObjective(activation=sigmoid, distance=distance, weight=self.weight)}


@spec
class TLDDist(LogitPreset):
    """TLD with the distance of DIST: correlations of tempered sigmoids.

    The paper does not say whether the loss is multiplied by the squared temperature: `variant`
    "paper" does not, "reference" does.
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
        "one sigmoid, one correlation per row and per column; rows of all ranks are gathered",
        "The column of a class that is absent from the batch has tiny values, whose correlation "
        "is noise.",
    )

    def objectives(self) -> Objectives:
        """Inter-class and intra-class relations of sigmoids."""
        return inter_and_intra(Responses, self.temperature, self.beta, self.gamma, self.variant)


@spec
class BCD(LogitPreset):
    """Binary classification distillation, weighted by disagreement (Yang L. et al., 2023).

    In the authors' code the gradient flows through the weight; `detach` stops it.
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
        "one sigmoid per class; nothing trainable",
        "The loss is not smooth where both agree. On dense heads it is divided by the number of "
        "positives, which the task provides.",
    )

    def objectives(self) -> Objectives:
        """One weighted binary cross-entropy per class."""
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
        "one softmax per row; nothing trainable",
        "The loss is 0 for images without labels or with all labels.",
    )

    def objectives(self) -> Objectives:
        """One KL per positive class."""
        return {"ps": LogitObjective(activation=PartialSoftmax(), weight=self.weight)}


@spec
class Dice(LogitPreset):
    """Overlap of sigmoids: the Dice loss with the teacher's probabilities in place of a mask.

    It is meant for the site `mask`, whose rows are masks of objects.
    """

    weight: float = 1.0
    name: Literal["dice"] = "dice"
    card: ClassVar[Card] = Card(
        "Overlap of masks",
        "weight / N * sum_n ( 1 - 2 <p_t, p_s> / (|p_t|^2 + |p_s|^2) ),  p = sigmoid(z)",
        "Milletari et al.: V-Net: Fully convolutional neural networks for volumetric medical image "
        "segmentation, 3DV 2016",
        ("logits",),
        "one sigmoid per pixel; nothing trainable",
        "No paper has settings for a teacher. Each mask counts the same, however large it is; the "
        "gradient of a mask that the teacher does not see is small.",
    )

    def objectives(self) -> Objectives:
        """One overlap per row."""
        return {
            "dice": LogitObjective(
                activation=Responses(), distance=DiceDistance(), weight=self.weight
            )
        }
