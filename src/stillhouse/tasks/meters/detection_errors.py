"""What is wrong with detections, by kind, and what each kind costs (TIDE, Bolya et al., 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

from stillhouse.tasks.meters.coco import RECALLS
from stillhouse.tasks.meters.detection_rows import ObjectRows, Rows, number_in_group
from stillhouse.tasks.meters.pairs import (
    Pairs,
    best_pairs,
    match_greedily,
    pair_rows,
    rank_detections,
)
from stillhouse.tasks.meters.precision_curve import precision_curve, sample_curve

FOREGROUND, BACKGROUND = 0.5, 0.1  # the IoUs of a match, and of any relation to an object
KINDS = ("class", "localisation", "both", "duplicate", "background")  # of detections
MISSED = "missed"


@dataclass(frozen=True)
class DetectionErrors:
    """The number of errors of each kind, and the AP50 that each costs, in points of percent."""

    ap50: float  # percent
    counts: Mapping[str, int]
    costs: Mapping[str, float]  # the gain of AP50 if this kind alone was mended: dAP


class _Ranked(NamedTuple):
    """What AP50 is computed from."""

    label: Tensor  # (D,) of detections, highest score first
    hit: Tensor  # (D,) bool: it has an object
    counted: Tensor  # (D,) bool
    objects: Tensor  # (C,) number of objects of each class


class _Judged(NamedTuple):
    """What is wrong with D detections."""

    kind: Tensor  # (D,) index in KINDS, -1 for no error
    target: Tensor  # (D,) the object that an error of class or localisation points at, or -1


def detection_errors(rows: Rows, classes: int) -> DetectionErrors:
    """The errors in rows that are in order, at IoU .5.

    Detections are matched as by COCO, without its limit of 100. One that is matched to an ignored
    object does not count; any other one without an object is, by the first that applies:

    - `localisation`: its largest IoU with objects of its class is in [.1, .5);
    - `class`: its largest IoU with objects of other classes is at least .5;
    - `duplicate`: its largest IoU with objects of its class is at least .5, but a better detection
      has that object;
    - `background`: its IoU with every object is below .1;
    - `both`: its largest IoU with objects of other classes is in [.1, .5).

    An object is `missed` if no detection has it and no error of class or localisation points at it.

    An oracle corrects the class, or the box, of the best detection of both these kinds that points
    at an object which no detection has, and removes the others of its kind. Of the kinds `both`,
    `duplicate` and `background` it removes all. Missed objects are taken off the number of objects;
    a class that has none left stays in the mean, with 0. Where the paper leaves the order of kinds
    and the best detection open, this is what the published tool does.
    """
    detections, objects = rank_detections(rows.detections), rows.objects
    pairs = pair_rows(detections, objects, BACKGROUND)
    same = detections.label[pairs.detection] == objects.label[pairs.object]
    near = pairs.select(same & (pairs.overlap >= FOREGROUND))
    match = match_greedily(near, objects.ignored, objects.crowd > 0, len(detections.label))
    counted = ~objects.ignored
    base = _rank(detections.label, match, objects, classes)
    found = torch.zeros_like(counted)
    found[match[base.hit]] = True
    plain = counted[pairs.object]
    judged = _judge(pairs.select(plain & same), pairs.select(plain & ~same), match < 0)
    return _report(base, judged, found, objects)


def _rank(label: Tensor, match: Tensor, objects: ObjectRows, classes: int) -> _Ranked:
    """What AP50 is computed from, by the object that each detection has: (D,), (D,)."""
    counted, matched = ~objects.ignored, match >= 0
    hit = matched.clone()
    hit[matched] = counted[match[matched]]
    number = objects.label[counted].bincount(minlength=classes)
    return _Ranked(label, hit, hit | ~matched, number)


def _judge(own: Pairs, other: Pairs, unmatched: Tensor) -> _Judged:
    """The errors, by pairs with objects of the class of the detection and of other classes."""
    own_iou, own_object = _nearest(own, len(unmatched))
    other_iou, other_object = _nearest(other, len(unmatched))
    kind = torch.full_like(own_object, KINDS.index("both"))
    kind[(own_iou < BACKGROUND) & (other_iou < BACKGROUND)] = KINDS.index("background")
    kind[own_iou >= FOREGROUND] = KINDS.index("duplicate")
    kind[other_iou >= FOREGROUND] = wrong_class = KINDS.index("class")
    kind[(own_iou >= BACKGROUND) & (own_iou < FOREGROUND)] = wrong_box = KINDS.index("localisation")
    kind[~unmatched] = -1
    target = other_object.where(kind == wrong_class, -1)
    return _Judged(kind, own_object.where(kind == wrong_box, target))


def _nearest(pairs: Pairs, detections: int) -> tuple[Tensor, Tensor]:
    """Largest IoU, or 0, and the object it is with, or -1: P pairs -> (D,), (D,)."""
    best = best_pairs(pairs)
    overlap = torch.zeros(detections, dtype=torch.double)
    row = torch.full((detections,), -1)
    overlap[best.detection], row[best.detection] = best.overlap, best.object
    return overlap, row


def _report(base: _Ranked, judged: _Judged, found: Tensor, objects: ObjectRows) -> DetectionErrors:
    missed = ~objects.ignored & ~found
    missed[judged.target[judged.target >= 0]] = False
    gone = objects.label[missed].bincount(minlength=len(base.objects))
    correctable = _best_of_each(judged.target, found)
    corrected = base.label.clone()
    corrected[correctable] = objects.label[judged.target[correctable]]
    mended = {
        name: _mend(base, judged.kind == index, correctable, corrected)
        for index, name in enumerate(KINDS)
    }
    mended[MISSED] = base._replace(objects=base.objects - gone)
    counts = {name: int((judged.kind == index).sum()) for index, name in enumerate(KINDS)}
    defined = base.objects > 0
    ap50 = _ap50(base, defined)
    return DetectionErrors(
        ap50,
        counts | {MISSED: int(missed.sum())},
        {name: _ap50(ranked, defined) - ap50 for name, ranked in mended.items()},
    )


def _best_of_each(target: Tensor, found: Tensor) -> Tensor:
    """The first detection that points at each object that is not found: (D,), (M,) -> (D,) bool."""
    rows = (target >= 0).nonzero().flatten()
    rows = rows[~found[target[rows]]]
    best = torch.zeros_like(target, dtype=torch.bool)
    best[rows[number_in_group(target[rows]) == 0]] = True
    return best


def _mend(base: _Ranked, kind: Tensor, correctable: Tensor, label: Tensor) -> _Ranked:
    """The detections after an oracle corrected or removed those of a kind; (D,) each."""
    corrected = kind & correctable
    return base._replace(
        label=label.where(corrected, base.label),
        hit=base.hit | corrected,
        counted=(base.counted & ~kind) | corrected,
    )


def _ap50(ranked: _Ranked, defined: Tensor) -> float:
    """The mean AP in percent over the classes (C,) that are `defined`; 0 if none is."""
    total = 0.0
    for label in defined.nonzero().flatten().tolist():
        if ranked.objects[label] > 0:
            hits = ranked.hit[ranked.counted & (ranked.label == label)]
            curve = precision_curve(hits, int(ranked.objects[label]))
            total += float(sample_curve(curve, RECALLS).precision.mean())
    return 100 * total / max(1, int(defined.sum()))
