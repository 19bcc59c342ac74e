"""Losses on class probabilities."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.objectives.activation import Raw, RestSoftmax, Softmax, TargetVsRest
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import CrossEntropy, MeanSquaredError
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import LabelTemperature, Scale
from stillhouse.objectives.presets.base import LogitPreset, Objectives
from stillhouse.objectives.weighting import PowerSum
from stillhouse.spec import require, spec


@spec
class KD(LogitPreset):
    """KL between softened class probabilities (Hinton et al., 2015).

    The weight is that of the formula, 1. CRD's authors have 0.9 for CIFAR-100, with the same
    temperature and weight of the labels (Tian et al., 2020): the recipe `cifar100/methods/kd`.
    """

    temperature: float = 4.0
    weight: float = 1.0
    name: Literal["kd"] = "kd"
    labels: ClassVar[float] = 0.1
    card: ClassVar[Card] = Card(
        "Knowledge distillation",
        "tau^2 / N * sum_n KL( softmax(z_t / tau) || softmax(z_s / tau) )",
        "Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015",
        ("logits",),
        "one softmax per row; nothing trainable",
        "It is 0 with a single class. If the teacher is almost one-hot on the training data, "
        "raise the temperature.",
    )

    def objectives(self) -> Objectives:
        """One tempered KL per row."""
        return {"kd": LogitObjective(activation=Softmax(self.temperature), weight=self.weight)}


@spec
class TTM(LogitPreset):
    """KL to a power of the teacher's softmax; student temperature 1 (Zheng & Yang, 2024)."""

    gamma: float = 0.25
    beta: float = 1.0
    name: Literal["ttm"] = "ttm"
    card: ClassVar[Card] = Card(
        "Transformed teacher matching",
        "beta / N * sum_n KL( softmax(gamma z_t) || softmax(z_s) ),  no tau^2",
        "Zheng, Yang: Knowledge distillation based on transformed teacher matching, ICLR 2024",
        ("logits",),
        "one softmax per row; nothing trainable",
        "The paper tunes beta for each pair of networks (1 to 45).",
    )

    def __post_init__(self) -> None:
        require(self.gamma > 0, "gamma", "positive and finite", self.gamma)
        super().__post_init__()

    def objectives(self) -> Objectives:
        """One KL against the power-transformed teacher."""
        return {
            "ttm": LogitObjective(
                teacher_transform=Scale(self.gamma), activation=Softmax(1.0), weight=self.beta
            )
        }


@spec
class WTTM(LogitPreset):
    """TTM with more weight for samples with a flat teacher (Zheng & Yang, 2024)."""

    gamma: float = 0.25
    beta: float = 1.0
    name: Literal["wttm"] = "wttm"
    card: ClassVar[Card] = Card(
        "Weighted transformed teacher matching",
        "beta / N * sum_n U_n KL( softmax(gamma z_t) || softmax(z_s) ),  U_n = sum_c p_t^gamma",
        "Zheng, Yang: Knowledge distillation based on transformed teacher matching, ICLR 2024",
        ("logits",),
        "one softmax per row; nothing trainable",
        "U is up to C^(1 - gamma), so beta must be smaller with many classes.",
    )

    def __post_init__(self) -> None:
        require(self.gamma > 0, "gamma", "positive and finite", self.gamma)
        super().__post_init__()

    def objectives(self) -> Objectives:
        """One KL against the power-transformed teacher, rows weighted."""
        return {
            "wttm": LogitObjective(
                teacher_transform=Scale(self.gamma),
                activation=Softmax(1.0),
                weighting=PowerSum(self.gamma),
                weight=self.beta,
            )
        }


@spec
class ATS(LogitPreset):
    """A temperature of its own for the teacher's target class (Li et al., 2022)."""

    labelled: float = 4.0  # tau_1
    others: float = 2.0  # tau_2
    temperature: float = 1.0  # the student's
    weight: float = 0.5
    name: Literal["ats"] = "ats"
    labels: ClassVar[float] = 0.5
    card: ClassVar[Card] = Card(
        "Asymmetric temperature scaling",
        "weight * tau_s^2 / N * sum_n CE( softmax_c(z_t / tau_c), softmax(z_s / tau_s) ),  "
        "tau_c = labelled where c = y, others elsewhere",
        "Li et al.: Asymmetric temperature scaling makes larger networks teach well again, "
        "NeurIPS 2022",
        ("logits", "labels", "class"),
        "one softmax per row; nothing trainable",
        "It needs one integer label per sample. With labelled far above others the softened "
        "teacher may rank another class first.",
    )

    def __post_init__(self) -> None:
        require(self.temperature > 0, "temperature", "positive and finite", self.temperature)
        super().__post_init__()

    def objectives(self) -> Objectives:
        """One cross-entropy with the asymmetrically softened teacher."""
        return {
            "ats": LogitObjective(
                teacher_transform=LabelTemperature(
                    self.labelled / self.temperature, self.others / self.temperature
                ),
                activation=Softmax(self.temperature),
                distance=CrossEntropy(),
                weight=self.weight,
            )
        }


@spec
class DKD(LogitPreset):
    """KD split into target against rest, and the distribution of the rest (Zhao et al., 2022)."""

    temperature: float = 4.0
    alpha: float = 1.0
    beta: float = 8.0
    name: Literal["dkd"] = "dkd"
    card: ClassVar[Card] = Card(
        "Decoupled knowledge distillation",
        "tau^2 / N * sum_n ( alpha KL(b_t || b_s) + beta KL(p_t without y || p_s without y) ),  "
        "b = [p_y, 1 - p_y]",
        "Zhao et al.: Decoupled knowledge distillation, CVPR 2022",
        ("logits", "labels", "class"),
        "two softmaxes per row; nothing trainable",
        "It needs one integer label per sample (no mixup). With two classes the second part is 0. "
        "The paper has a warm-up of 20 of 240 epochs: set warmup.",
    )

    def objectives(self) -> Objectives:
        """The target part and the rest."""
        target, rest = TargetVsRest(self.temperature), RestSoftmax(self.temperature)
        return {
            "target": LogitObjective(activation=target, weight=self.alpha),
            "rest": LogitObjective(activation=rest, weight=self.beta),
        }


@spec
class MSE(LogitPreset):
    """Mean squared difference of logits (Ba & Caruana, 2014)."""

    weight: float = 1.0
    name: Literal["mse"] = "mse"
    card: ClassVar[Card] = Card(
        "Logit regression",
        "weight / (N C) * sum (z_s - z_t)^2",
        "Ba, Caruana: Do deep nets really need to be deep?, NeurIPS 2014",
        ("logits",),
        "one subtraction; nothing trainable",
        "It also matches the mean and the scale of the teacher's logits, which may exceed the "
        "capacity of a small student.",
    )

    def objectives(self) -> Objectives:
        """One squared difference."""
        return {
            "mse": LogitObjective(activation=Raw(), distance=MeanSquaredError(), weight=self.weight)
        }
