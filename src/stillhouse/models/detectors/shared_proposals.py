"""Proposals of a teacher that both networks of a pair score."""

from __future__ import annotations

import torch
from torch import Tensor

from stillhouse.models.detectors.sampling import rank_within
from stillhouse.models.detectors.two_stage import Regions, TwoStage

MOST = 512  # of an image


def score_proposals(student: TwoStage, teacher: TwoStage) -> tuple[Regions, Regions]:
    """The predictions of the first stages of both networks for the teacher's best proposals.

    At most 512 of each image, in the order of their images.
    """
    first = teacher.predicted[0]
    first = first.rows(best_of_each_image(first.image))
    return student.score(first.boxes, first.image), first


def best_of_each_image(image: Tensor, most: int = MOST) -> Tensor:
    """Which proposals are among the first of their image, where they are sorted: (R,) -> (R,)."""
    order = torch.arange(len(image), device=image.device, dtype=torch.float64) / max(1, len(image))
    return rank_within(image, order, torch.ones_like(image, dtype=torch.bool)) < most
