"""Losses on class probabilities."""

from __future__ import annotations

from typing import ClassVar, Literal

from stillhouse.objectives.activation import Raw, RestSoftmax, Softmax, TargetVsRest
from stillhouse.objectives.card import Card
from stillhouse.objectives.distance import MSE as MeanSquare
from stillhouse.objectives.distance import CrossEntropy
from stillhouse.objectives.logit import LogitObjective
from stillhouse.objectives.preprocess import LabelTemperature, Scale
from stillhouse.objectives.presets.base import LogitPreset, Objectives
from stillhouse.objectives.weighting import PowerSum
from stillhouse.spec import spec


@spec
class KD(LogitPreset):
    """Softened class probabilities (Hinton et al., 2015)."""

    temperature: float = 4.0
    weight: float = 1.0
    name: Literal["kd"] = "kd"
    labels: ClassVar[float] = 0.1
    card: ClassVar[Card] = Card(
        "Knowledge distillation",
        "tau^2 / N * sum_n KL( softmax(z_t / tau) || softmax(z_s / tau) )",
        "Hinton, Vinyals, Dean: Distilling the knowledge in a neural network, 2015",
        ("logits",),
        "one softmax a row; nothing trainable",
        "With one class it is 0. A teacher that is one-hot on the training data says little: "
        "raise the temperature.",
    )

    def objectives(self) -> Objectives:
        """One KL of softened rows."""
        return {"kd": LogitObjective(activation=Softmax(self.temperature), weight=self.weight)}


@spec
class TTM(LogitPreset):
    """The teacher's softmax to a power; the student keeps temperature 1 (Zheng & Yang, 2024)."""

    gamma: float = 0.25
    beta: float = 1.0
    name: Literal["ttm"] = "ttm"
    card: ClassVar[Card] = Card(
        "Transformed teacher matching",
        "beta / N * sum_n KL( softmax(gamma z_t) || softmax(z_s) ),  no tau^2",
        "Zheng, Yang: Knowledge distillation based on transformed teacher matching, ICLR 2024",
        ("logits",),
        "one softmax a row; nothing trainable",
        "beta is chosen for each pair (1 to 45 in the paper), so an untuned beta compares little.",
    )

    def objectives(self) -> Objectives:
        """One KL against the power-transformed teacher."""
        return {
            "ttm": LogitObjective(
                teacher_transform=Scale(self.gamma), activation=Softmax(1.0), weight=self.beta
            )
        }


@spec
class WTTM(LogitPreset):
    """TTM where samples with a flat teacher count more (Zheng & Yang, 2024)."""

    gamma: float = 0.25
    beta: float = 1.0
    name: Literal["wttm"] = "wttm"
    card: ClassVar[Card] = Card(
        "Weighted transformed teacher matching",
        "beta / N * sum_n U_n KL( softmax(gamma z_t) || softmax(z_s) ),  U_n = sum_c p_t^gamma",
        "Zheng, Yang: Knowledge distillation based on transformed teacher matching, ICLR 2024",
        ("logits",),
        "one softmax a row; nothing trainable",
        "U grows to C^(1 - gamma), so beta must shrink where there are many classes.",
    )

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
    """The teacher's labelled class softened otherwise than the rest (Li et al., 2022)."""

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
        "one softmax a row; nothing trainable",
        "Needs one integer label a sample. With labelled much above others the softened teacher "
        "may rank another class first.",
    )

    def objectives(self) -> Objectives:
        """One cross-entropy against the asymmetrically softened teacher."""
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
    """KD split into "the target or not" and "which of the others" (Zhao et al., 2022)."""

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
        "two softmaxes a row; nothing trainable",
        "Needs one integer label a sample (no mixup). With two classes the second part is 0. "
        "The paper warms up over 20 of 240 epochs: set warmup.",
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
        "It asks for the teacher's level and scale as well, which a small student may not "
        "have room for.",
    )

    def objectives(self) -> Objectives:
        """One squared difference."""
        return {"mse": LogitObjective(activation=Raw(), distance=MeanSquare(), weight=self.weight)}
