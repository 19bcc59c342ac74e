"""General instance distillation (Dai et al., 2021)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from stillhouse.batches import Objects
from stillhouse.functional.boxes import giou
from stillhouse.functional.relation import distance_relation
from stillhouse.methods.base import Method
from stillhouse.methods.instances import align_features, select_instances
from stillhouse.methods.levels import AtLevels, LevelPair, LevelsSpec
from stillhouse.methods.paired import AdaptedPair
from stillhouse.methods.predictions import PairedPredictions, pair_predictions
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.losses import masked_sum
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.objectives.card import Card
from stillhouse.spec import require, spec
from stillhouse.types import Lesson, Term, Terms


@spec
class GID(LevelsSpec):
    """Features, relations and predictions of the instances at which both networks differ most.

    `iou` is that of suppression, `most` the instances of an image, `side` that of their features.
    """

    weight: float = 0.005  # of features
    relation: float = 40.0
    classes: float = 0.1
    boxes: float = 0.1
    iou: float = 0.3
    most: int = 10
    side: int = 10
    name: Literal["gid"] = "gid"
    card: ClassVar[Card] = Card(
        "General instance distillation",
        "weight * mean_k |f_t - W f_s|^2 + relation * mean_ij smooth L1( d_ij / mean d of student "
        "and teacher ) + 1/P sum_p ( classes KL(p_t || p_s) + boxes (1 - GIoU) ),  k, i, j "
        "instances of the largest max_c |p_t - p_s| after suppression, f their features by "
        "RoIAlign, p the P priors that the student's assigner gives to them, or the P of the "
        "teacher's proposals that overlap them by 0.5",
        "Dai et al.: General instance distillation for object detection, CVPR 2021",
        ("logits", "boxes", "features"),
        "suppression, RoIAlign, and a 3x3 convolution per level, which is discarded after training",
        "It reads no ground truth. The authors have published neither weights nor code; the "
        "weights are those of a re-implementation. Boxes are compared by GIoU, where the paper "
        "has the box loss of the detector. Relations are those of instances of one image. Of "
        "two-stage detectors the first stages are compared, p with the background.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.iou <= 1, "iou", "in [0, 1]", self.iou)
        require(self.most >= 1, "most", "at least 1", self.most)
        require(self.side >= 1, "side", "at least 1", self.side)

    def build(self, setting: Setting) -> Method:
        """The method, with an adapter for each level."""
        pairs = [
            AdaptedPair(
                pair.student,
                pair.teacher,
                nn.Conv2d(pair.student_shape[1], pair.teacher_shape[1], 3, padding=1),
            )
            for pair in self.level_pairs(setting)
        ]
        two_stage = isinstance(setting.student_output(), TwoStage)
        return InstanceDistillation(self, pairs, "roi" if two_stage else "class_main")


class InstanceDistillation(AtLevels):
    """The terms `instance`, `relation`, `class/gid` and `box/gid`."""

    spec: GID

    def __init__(self, published: GID, pairs: Sequence[AdaptedPair], site: str) -> None:
        super().__init__(published, pairs)
        self.sites = (site,)  # which two detectors of one kind have

    def compare(self, levels: Sequence[LevelPair], lesson: Lesson) -> Terms:
        """The losses at the instances of one batch."""
        pairs = pair_predictions(lesson.student.out, lesson.teacher.detached().out)
        assert lesson.sizes is not None
        found = select_instances(pairs, lesson.sizes, self.spec.iou, self.spec.most)
        s, t = align_features(levels, found, self.spec.side)
        losses = (s - t).square().sum(1).mean((1, 2))
        mass = losses.new_tensor(len(losses))
        return {
            "instance": Term(losses.sum(), mass, self.spec.weight),
            "relation": relation_term(s, t, found)._replace(weight=self.spec.relation),
            **self.responses(pairs, found),
        }

    def responses(self, pairs: PairedPredictions, found: Objects) -> Terms:
        """The losses of the places that belong to the instances."""
        boxes = 1 - giou(pairs.student_boxes, pairs.teacher_boxes)
        with torch.no_grad():
            positive = pairs.positive(found)
        mass = positive.sum().to(boxes.dtype)
        return {
            "class/gid": Term(masked_sum(pairs.divergence, positive), mass, self.spec.classes),
            "box/gid": Term(masked_sum(boxes, positive), mass, self.spec.boxes),
        }


def relation_term(student: Tensor, teacher: Tensor, found: Objects) -> Term:
    """Smooth L1 of the relative distances of instances, the mean over pairs of each image.

    (K, ...) twice -> Term, whose mass is the number of images with two instances or more.
    """
    total, mass = [0 * student.sum()], 0
    for number in range(found.images):
        own = found.image == number
        count = int(own.sum())
        if count > 1:
            loss = distance_relation(student[own].flatten(1), teacher[own].flatten(1))
            total.append(loss * count / (count - 1))  # the mean without the diagonal
            mass += 1
    return Term(torch.stack(total).sum(), student.new_tensor(float(mass)))
