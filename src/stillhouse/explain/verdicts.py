"""Which detections are correct, and from which score on they are worth showing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.tasks.meters.detection_rows import DetectionRows, ObjectRows, Rows
from stillhouse.tasks.meters.pairs import Pairs, match_greedily, pair_rows, rank_detections

IOU = 0.5  # of a correct detection
FALLBACK = 0.5  # the score to show detections from where none is correct


class Verdicts(NamedTuple):
    """The detections of a network, highest score first, and the objects that they found."""

    detections: DetectionRows
    object: Tensor  # (D,) row of the object that a detection has, -1 for none
    objects: ObjectRows

    @property
    def correct(self) -> Tensor:
        """The detections that found an object: -> (D,) bool."""
        return (self.object >= 0) & ~self.ignored

    @property
    def ignored(self) -> Tensor:
        """The detections of crowds and difficult objects, neither correct nor wrong: -> (D,)."""
        return (self.object >= 0) & self.objects.ignored[self.object.clamp(min=0)]

    @property
    def wrong(self) -> Tensor:
        """The detections without an object: -> (D,) bool."""
        return self.object < 0

    def above(self, score: float) -> Verdicts:
        """The detections with at least this score; the objects that they have are the same."""
        kept = self.detections.score >= score
        return Verdicts(
            DetectionRows(*(column[kept] for column in self.detections)),
            self.object[kept],
            self.objects,
        )

    def found(self) -> Tensor:
        """The objects that a detection has: -> (M,) bool."""
        found = torch.zeros(len(self.objects.key), dtype=torch.bool)
        found[self.object[self.object >= 0]] = True
        return found

    def missed(self) -> Tensor:
        """The objects that none has, but should: -> (M,) bool."""
        return ~self.found() & ~self.objects.ignored


def judge(rows: Rows) -> Verdicts:
    """The verdicts on rows that are in order, matched at IoU .5 as by COCO."""
    detections, objects = rank_detections(rows.detections), rows.objects
    if not len(objects.key):
        return Verdicts(detections, torch.full_like(detections.label, -1), objects)
    return judge_pairs(detections, objects, pair_rows(detections, objects, IOU))


def judge_pairs(detections: DetectionRows, objects: ObjectRows, pairs: Pairs) -> Verdicts:
    """The verdicts on ranked detections, from the pairs that overlap enough, of any classes."""
    same = detections.label[pairs.detection] == objects.label[pairs.object]
    crowd = objects.crowd > 0
    match = match_greedily(pairs.select(same), objects.ignored, crowd, len(detections.key))
    return Verdicts(detections, match, objects)


def best_score(verdicts: Verdicts) -> float:
    """The score from which on F1 is highest, over all images and classes together.

    It is 0.5 if no detection is correct.
    """
    correct = verdicts.correct.cumsum(0, dtype=torch.double)
    counted = (~verdicts.ignored).cumsum(0, dtype=torch.double)
    total = int((~verdicts.objects.ignored).sum())
    if not len(correct) or not bool(correct[-1] > 0):
        return FALLBACK
    score = verdicts.detections.score
    last = torch.ones_like(verdicts.wrong)
    last[:-1] = score[:-1] != score[1:]  # detections of equal scores are shown together
    f1 = (2 * correct / (counted + total)).masked_fill(~last, -1)
    return float(score[f1.argmax()])
