"""What two detectors of one kind predict at the same places."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.errors import UserError
from stillhouse.functional.divergence import sigmoid_kl, softmax_kl
from stillhouse.functional.dtype import upcast
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.rcnn import match_regions
from stillhouse.models.detectors.shared_proposals import score_proposals
from stillhouse.models.detectors.two_stage import TwoStage

OVERLAP = 0.5  # with an object, from which a proposal belongs to it


@dataclass(frozen=True, eq=False)
class PairedPredictions:
    """What a student and a teacher predict at R places of N images, in the order of the images.

    Places are the priors of dense detectors, or the teacher's proposals.
    """

    student: Tensor  # (R, C) probabilities, without the background
    teacher: Tensor  # (R, C)
    student_boxes: Tensor  # (R, 4) in pixels
    teacher_boxes: Tensor  # (R, 4)
    divergence: Tensor  # (R,) of the class scores
    centres: Tensor  # (R, 2) of the places, x and y
    image: Tensor  # (R,)
    images: int
    positive: Callable[[Objects], Tensor]  # which places belong to objects: -> (R,) bool


def pair_predictions(student: Any, teacher: Any) -> PairedPredictions:
    """The predictions of two detectors; raises UserError unless both are dense or two-stage."""
    if isinstance(student, Dense) and isinstance(teacher, Dense):
        return pair_dense(student, teacher)
    if isinstance(student, TwoStage) and isinstance(teacher, TwoStage):
        return pair_regions(student, teacher)
    raise UserError(
        "the method compares the predictions of two dense or of two two-stage detectors, but the "
        f"student gives a {type(student).__name__} and the teacher a {type(teacher).__name__}; "
        "take networks of `stillhouse models detector`"
    )


def pair_dense(student: Dense, teacher: Dense) -> PairedPredictions:
    """The predictions of all priors; classes are independent of each other."""
    images, priors = student.scores.shape[:2]
    own, others = (upcast(out.scores).flatten(0, 1) for out in (student, teacher))
    others = others.detach()
    centres = student.priors.centres
    return PairedPredictions(
        own.sigmoid(),
        others.sigmoid(),
        student.decoded.flatten(0, 1),
        teacher.decoded.detach().flatten(0, 1),
        sigmoid_kl(own, others).sum(-1),
        centres.repeat(images, 1),
        torch.arange(images, device=centres.device).repeat_interleave(priors),
        images,
        lambda found: student.family.assign(student, found).positive.flatten(),
    )


def pair_regions(student: TwoStage, teacher: TwoStage) -> PairedPredictions:
    """The predictions of both first stages for the teacher's proposals.

    Where boxes are predicted for each class, they are those of the teacher's best class.
    """
    own, others = score_proposals(student, teacher)
    boxes, image = others.boxes, others.image
    best = others.scores[:, :-1].argmax(1)
    s, t = upcast(own.scores), upcast(others.scores.detach())

    def positive(found: Objects) -> Tensor:
        return match_regions(boxes, image, found, OVERLAP) >= 0

    return PairedPredictions(
        s.softmax(-1)[:, :-1],
        t.softmax(-1)[:, :-1],
        own.boxes_of(best),
        others.boxes_of(best).detach(),
        softmax_kl(s, t),
        boxes.unflatten(1, (2, 2)).mean(1),
        image,
        len(teacher),
        positive,
    )
