"""Rank mimicking at the cells of SOLOv2, whose objects have several cells each."""

from __future__ import annotations

import math

import pytest

from instance_room import batch_of, learn, lesson_of, pair, pupil_of
from stillhouse.errors import UserError
from stillhouse.methods.ranking import RM


def test_the_cells_of_each_object_are_ranked() -> None:
    """By loops over objects and their cells."""
    student, teacher = pair("solov2")
    batch = batch_of(2, 0, 3)
    lesson = lesson_of(student, teacher, batch)
    assigned, losses = lesson.assigned, []
    scores = [trace.out.scores.detach().sigmoid() for trace in (lesson.student, lesson.teacher)]
    for number in range(len(batch.target.labels)):
        cells = (assigned.index == number).nonzero().tolist()
        if not cells:
            continue
        s, t = (
            [float(of[image, cell, assigned.labels[image, cell]]) / 0.5 for image, cell in cells]
            for of in scores
        )
        s, t = ([v - math.log(sum(map(math.exp, values))) for v in values] for values in (s, t))
        losses.append(sum(math.exp(b) * (b - a) for a, b in zip(s, t, strict=True)))
    assert len(losses) > 1 and max(losses) > 0
    pupil, taught = pupil_of(student, teacher, RM(temperature=0.5))
    term = learn(pupil, taught, batch)["rank"]
    assert float(term.mass) == len(losses)
    assert float(term.mean().detach()) == pytest.approx(sum(losses) / len(losses), rel=1e-9)
    term.mean().backward()
    gradients = [p.grad for p in student.parameters() if p.grad is not None]
    assert any(bool(g.any()) for g in gradients) and all(
        bool(g.isfinite().all()) for g in gradients
    )


def test_networks_without_boxes_have_no_overlap_to_rank() -> None:
    pupil, teacher = pupil_of(*pair("solov2"), RM(score="iou"))
    with pytest.raises(UserError, match="set method.score=class"):
        learn(pupil, teacher, batch_of(2, 1))
