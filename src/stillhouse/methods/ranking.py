"""Rank mimicking: how the priors of each object are ranked (Li G. et al., 2022)."""

from __future__ import annotations

from dataclasses import field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from stillhouse.errors import UserError
from stillhouse.functional.boxes import iou
from stillhouse.functional.dtype import full_precision, upcast
from stillhouse.methods.base import Method
from stillhouse.methods.setting import ComposedMethod, Setting
from stillhouse.models.detectors.output import Dense
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Term, Terms

Score = Literal["class", "iou"]


@spec
class RM(ComposedMethod):
    """Rank mimicking: a softmax over the positive priors of each object.

    The score of a prior is the probability of the object's class, or with `score: iou` the IoU of
    its predicted box with the object. Scores from 0 to 1 give nearly uniform softmaxes; a
    `temperature` below 1 sharpens them. The paper's weight is not known to us.
    """

    weight: float = 1.0
    temperature: float = 1.0
    score: Score = field(default="class", kw_only=True)
    name: Literal["rm"] = "rm"
    card: ClassVar[Card] = Card(
        "Rank mimicking",
        "weight / O * sum_o KL( softmax_{i in A_o} r_t(i) / tau || softmax_{i in A_o} r_s(i) / tau "
        "),  A_o the positive priors of object o, O the objects with any",
        "Li G. et al.: Knowledge distillation for object detection via rank mimicking and "
        "prediction-guided feature imitation, AAAI 2022",
        ("logits", "boxes", "objects"),
        "a softmax over the positive priors of each object; nothing trainable",
        "An object with one positive prior adds nothing.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.temperature > 0, "temperature", "positive", self.temperature)

    def build(self, setting: Setting) -> Method:
        """The method; it has no trainable parameters."""
        return RankMimicking(self)


class RankMimicking(Method):
    """KL between softmaxes over the priors of each object."""

    sites = ("class_main",)  # it reads the assignment of a dense task

    def __init__(self, published: RM) -> None:
        super().__init__()
        self.spec = published
        self.label_share = published.label_share

    def forward(self, lesson: Lesson) -> Terms:
        """The term `rank`."""
        ramp = self.spec.ramp_factor(lesson.clock)
        student, assigned = lesson.student.out, lesson.assigned
        count = 0 if assigned is None else len(lesson.objects.labels)
        if not count:
            nothing = 0.0 * student.scores.sum()
            return {"rank": Term(nothing, torch.zeros_like(nothing), ramp * self.spec.weight)}
        with full_precision(student.scores):
            group = assigned.index.clamp(min=-1) + 1  # 0 collects priors without an object
            s, t = (
                log_softmax_in_groups(self.scores(out, assigned), group, count)
                for out in (student, lesson.teacher.out)
            )
            known = group > 0
            losses = (t.detach().exp() * (t.detach() - s)).where(known, 0)
            present = torch.zeros(count + 1, dtype=losses.dtype, device=losses.device)
            present = present.scatter(0, group.flatten(), 1.0)[1:]
        return {"rank": Term(losses.sum(), present.sum(), ramp * self.spec.weight)}

    def scores(self, out: Any, assigned: Any) -> Tensor:
        """The score of each prior over the temperature, 0 without an object: -> (N, P)."""
        if self.spec.score == "iou":
            if not isinstance(out, Dense):
                raise UserError(
                    "method rm compares boxes with score: iou, and these networks predict none; "
                    "set method.score=class"
                )
            score = iou(out.decoded, assigned.boxes)
        else:
            labels = assigned.labels.clamp(min=0)[..., None]
            score = upcast(out.scores).gather(-1, labels)[..., 0].sigmoid()
        return score.where(assigned.positive, 0) / self.spec.temperature


def log_softmax_in_groups(values: Tensor, group: Tensor, count: int) -> Tensor:
    """The logarithm of the softmax over the elements of each group: (...), (...) in 0 .. count."""
    flat, index = values.flatten(), group.flatten()
    highest = flat.new_zeros(count + 1)
    highest = highest.scatter_reduce(0, index, flat.detach(), "amax", include_self=False)
    moved = flat - highest[index]
    sums = flat.new_zeros(count + 1).scatter_add(0, index, moved.exp())
    return (moved - sums.log()[index]).view_as(values)
