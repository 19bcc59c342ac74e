"""GID: which instances it selects, their features and relations, in plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import roi_align

from detectors import SIZE, small_detector, small_two_stage, some_batch
from level_room import EXAMPLE, LAST, LevelRoom
from stillhouse.batches import Objects
from stillhouse.distiller import Distiller
from stillhouse.errors import UserError
from stillhouse.functional.boxes import giou
from stillhouse.methods.gid import GID, relation_term
from stillhouse.methods.instances import align_features, select_instances
from stillhouse.methods.levels import LevelPair
from stillhouse.methods.predictions import pair_predictions
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.output import Dense
from stillhouse.models.taps import Tapped
from stillhouse.tasks.detection import Detection
from stillhouse.types import Lesson

Box = list[float]
SIZES = torch.tensor([[48, 64], [40, 50], [33, 61]])


def room_of(family: str = "gfocal", **options: float) -> LevelRoom:
    return LevelRoom(GID(**options), family).randomise()  # type: ignore[arg-type]


def overlap(a: Box, b: Box) -> float:
    sides = [max(0.0, min(a[k + 2], b[k + 2]) - max(a[k], b[k])) for k in (0, 1)]
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return sides[0] * sides[1] / (sum(areas) - sides[0] * sides[1])


def instances(student: Dense, teacher: Dense, sizes: Tensor, most: int) -> list[list[Box]]:
    """The boxes of each image, by hand."""
    found = []
    centres = student.priors.centres.tolist()
    for n, (height, width) in enumerate(sizes.tolist()):
        ranked = []
        for p, (x, y) in enumerate(centres):
            s, t = (out.scores[n, p].sigmoid().tolist() for out in (student, teacher))
            score = max(abs(a - b) for a, b in zip(s, t, strict=True))
            box = (teacher if max(t) > max(s) else student).decoded[n, p].tolist()
            limits = (width, height, width, height)
            box = [min(max(v, 0.0), limit) for v, limit in zip(box, limits, strict=True)]
            if x <= width and y <= height and (box[2] - box[0]) * (box[3] - box[1]) > 0:
                ranked.append((score, box))
        kept: list[Box] = []
        for _, box in sorted(ranked, key=lambda pair: -pair[0]):
            if len(kept) < most and all(overlap(box, other) <= 0.3 for other in kept):
                kept.append(box)
        found.append(kept)
    return found


@torch.no_grad()
@pytest.mark.parametrize("family", ["gfocal", "retinanet", "reppoints"])
@pytest.mark.parametrize("most", [2, 10])
def test_instances_are_where_the_networks_differ_most(family: str, most: int) -> None:
    lesson = room_of(family).lesson()
    student, teacher = lesson.student.out, lesson.teacher.out
    found = select_instances(pair_predictions(student, teacher), SIZES, most=most)
    want = instances(student, teacher, SIZES, most)
    assert found.images == 3 and not found.labels.any()
    for n, boxes in enumerate(want):
        own = found.boxes[found.image == n]
        torch.testing.assert_close(own, torch.tensor(boxes, dtype=torch.double))
    assert len(found.boxes) > 3


def test_equal_networks_have_no_instances() -> None:
    lesson = room_of().lesson()
    out = lesson.teacher.out
    assert len(select_instances(pair_predictions(out, out), SIZES).boxes) == 0


def test_no_images_have_no_instances() -> None:
    lesson = room_of().lesson(some_batch(1).rows(slice(0, 0)))
    found = select_instances(pair_predictions(lesson.student.out, lesson.teacher.out), SIZES[:0])
    assert len(found.boxes) == 0 and found.images == 0


def three_levels() -> list[LevelPair]:
    random = torch.Generator().manual_seed(0)
    levels = []
    for number, stride in enumerate((4, 8, 16)):
        shape = 2, 3, 256 // stride, 320 // stride
        s, t = (torch.randn(shape, generator=random, dtype=torch.double) for _ in range(2))
        levels.append(LevelPair(s, t, s, number, stride))
    return levels


def test_each_instance_is_read_from_the_level_of_its_size() -> None:
    """The finest one has stride 4, and the boxes whose side is below 112."""
    levels = three_levels()
    sides = [250.0, 20.0, 130.0, 100.0, 223.0]
    boxes = torch.tensor([[10.0, 3, 10 + side, 3 + side] for side in sides], dtype=torch.double)
    image = torch.tensor([0, 0, 1, 1, 1])
    found = align_features(levels, Objects(boxes, image * 0, image, images=2), 6)
    for k, place in enumerate([2, 0, 1, 0, 1]):
        for number, network in enumerate(("student", "teacher")):
            maps = getattr(levels[place], network)[image[k]][None]
            scale = 1 / levels[place].stride
            want = roi_align(maps, [boxes[k][None]], 6, scale, 2, aligned=True)[0]
            torch.testing.assert_close(found[number][k], want)


def smooth(x: float) -> float:
    return x * x / 2 if abs(x) < 1 else abs(x) - 0.5


def test_relations_are_those_of_the_instances_of_an_image() -> None:
    random = torch.Generator().manual_seed(0)
    image = torch.tensor([0, 0, 0, 1, 3, 3])  # the third image has none
    s, t = (torch.randn(6, 2, 3, generator=random, dtype=torch.double) for _ in range(2))
    found = relation_term(s, t, Objects(torch.zeros(6, 4), image * 0, image, images=4))
    total = 0.0
    for n in (0, 3):
        own = (image == n).nonzero()[:, 0].tolist()
        pairs = [(i, j) for i in own for j in own if i != j]
        tables = []
        for x in (s, t):
            table = [math.dist(x[i].flatten().tolist(), x[j].flatten().tolist()) for i, j in pairs]
            mean = sum(table) / len(table)
            tables.append([d / mean for d in table])
        total += sum(smooth(a - b) for a, b in zip(*tables, strict=True)) / len(pairs)
    assert float(found.mass) == 2
    assert float(found.mean()) == pytest.approx(total / 2, rel=1e-9)


@torch.no_grad()
@pytest.mark.parametrize("family", ["gfocal", "retinanet"])
def test_features_and_predictions(family: str) -> None:
    room = room_of(family, weight=2.0, relation=3.0, classes=4.0, boxes=5.0)
    lesson = room.lesson()
    student, teacher = lesson.student.out, lesson.teacher.out
    found = select_instances(pair_predictions(student, teacher), lesson.sizes)
    s, t = align_features(room.method.levels(lesson), found, 10)
    terms = room.terms(lesson)
    total = 0.0
    for k in range(len(found.boxes)):
        total += sum(float(((s - t)[k, :, y, x] ** 2).sum()) for y in range(10) for x in range(10))
    assert float(terms["instance"].mean()) == pytest.approx(
        total / 100 / len(found.boxes), rel=1e-9
    )
    assert terms["relation"].total == relation_term(s, t, found).total
    index = student.family.assign(student, found).index
    losses, boxes, count = 0.0, 0.0, 0
    for n, p in (index >= 0).nonzero().tolist():
        z, q = student.scores[n, p], teacher.scores[n, p].sigmoid()
        own = F.binary_cross_entropy_with_logits(z, q, reduction="sum")
        least = F.binary_cross_entropy(q, q, reduction="sum")
        losses += float(own - least)
        boxes += 1 - float(giou(student.decoded[n, p], teacher.decoded[n, p]))
        count += 1
    assert count > 5
    assert float(terms["class/gid"].mean()) == pytest.approx(losses / count, rel=1e-9)
    assert float(terms["box/gid"].mean()) == pytest.approx(boxes / count, rel=1e-9)
    assert [term.weight for term in terms.values()] == [2.0, 3.0, 4.0, 5.0]


def test_predictions_get_a_gradient_at_the_student_only() -> None:
    room = room_of()
    lesson = room.lesson()
    terms = room.terms(lesson)
    (terms["class/gid"].total + terms["box/gid"].total).backward()
    for leaf in (lesson.student.out.scores, lesson.student.out.boxes):
        assert leaf.grad is not None and leaf.grad.abs().sum() > 0
    for leaf in (lesson.teacher.out.scores, lesson.teacher.out.boxes):
        assert leaf.grad is None


def test_boxes_that_nobody_has_decoded_before_keep_their_gradient() -> None:
    """As with a family whose label loss reads deltas."""
    lesson = room_of("retinanet").lesson()
    out = lesson.student.out
    select_instances(pair_predictions(out, lesson.teacher.out), SIZES)
    assert out.decoded.requires_grad


def test_it_reads_no_ground_truth() -> None:
    room = room_of()
    lesson = room.lesson()
    other = room.terms(replace(lesson, objects=None, assigned=None))
    for name, term in room.terms(lesson).items():
        assert torch.equal(term.total, other[name].total)


# --------------------------------------------------------------------------------------- two stages


def region_lesson() -> tuple[Lesson, Any]:
    """A Faster R-CNN with a box for each class, and a Cascade R-CNN with one for all."""
    torch.manual_seed(0)
    student = small_two_stage().double().train()
    teacher = small_two_stage("cascade_rcnn", backbone="stillhouse/medium").double().eval()
    for network in (student, teacher):
        for head in network.heads:
            torch.nn.init.normal_(head.scores.weight, std=0.5)
            torch.nn.init.normal_(head.boxes.weight, std=0.3)
    batch = some_batch(2, 0, 3)
    method = GID(weight=2.0, relation=3.0, classes=4.0, boxes=5.0).build(
        Setting(student, teacher, EXAMPLE)
    )
    method.double()
    task, taps = Detection(5), (method.student_taps, method.teacher_taps)
    traces = [
        Tapped(network, names, (EXAMPLE,))(batch.images)
        for network, names in zip((student, teacher), taps, strict=True)
    ]
    assigned = task.assign(traces[0], batch)
    return task.lesson(traces[0], traces[1], batch, LAST, assigned), method


def test_instances_of_two_stages_are_those_of_the_teachers_proposals() -> None:
    lesson, method = region_lesson()
    assert method.sites == ("roi",)
    student, teacher = lesson.student.out, lesson.teacher.out
    first = teacher.stages[0]
    with torch.no_grad():
        scored = student.score(first.boxes, first.image)
    ranked: list[list[tuple[float, Box]]] = [[], [], []]
    rows = []
    for k, n in enumerate(first.image.tolist()):
        s, t = (out.scores[k].softmax(-1) for out in (scored, first))
        best = int(t[:-1].argmax())
        boxes = scored.decoded[k, best], first.decoded[k, 0]
        height, width = SIZES[n].tolist()
        box = boxes[int(t[:-1].max() > s[:-1].max())].tolist()
        limits = (width, height, width, height)
        box = [min(max(v, 0.0), limit) for v, limit in zip(box, limits, strict=True)]
        x, y = (float(first.boxes[k, i] + first.boxes[k, i + 2]) / 2 for i in (0, 1))
        rows.append(tuple(part.detach() for part in (s, t, *boxes)))
        if x <= width and y <= height and (box[2] - box[0]) * (box[3] - box[1]) > 0:
            ranked[n].append((float((s - t).detach()[:-1].abs().max()), box))
    found = select_instances(pair_predictions(student, teacher), SIZES)
    for n, own in enumerate(ranked):
        kept: list[Box] = []
        for _, box in sorted(own, key=lambda pair: -pair[0]):
            if len(kept) < 10 and all(overlap(box, other) <= 0.3 for other in kept):
                kept.append(box)
        assert len(kept) > 1
        torch.testing.assert_close(
            found.boxes[found.image == n], torch.tensor(kept, dtype=torch.double)
        )
    losses, boxes_apart, count = 0.0, 0.0, 0
    for (s, t, own_box, other), box, n in zip(
        rows, first.boxes.tolist(), first.image.tolist(), strict=True
    ):
        if any(overlap(box, b) >= 0.5 for b in found.boxes[found.image == n].tolist()):
            losses += float((t * (t.log() - s.log())).sum())
            boxes_apart += 1 - float(giou(own_box, other))
            count += 1
    terms = method(replace(lesson, sizes=SIZES))
    assert 0 < count < len(rows)
    assert float(terms["class/gid"].mean()) == pytest.approx(losses / count, rel=1e-9)
    assert float(terms["box/gid"].mean()) == pytest.approx(boxes_apart / count, rel=1e-9)
    assert [term.weight for term in terms.values()] == [2.0, 3.0, 4.0, 5.0]
    (terms["class/gid"].total + terms["box/gid"].total).backward()
    assert all(p.grad is None for p in lesson.teacher.out.scorer.parameters())
    assert lesson.student.out.scorer.heads[0].boxes.weight.grad.abs().sum() > 0


def test_detectors_of_two_kinds_have_no_predictions_in_common() -> None:
    student, teacher = small_two_stage(), small_detector("fcos")
    outputs = [network(torch.zeros(1, 3, *SIZE)) for network in (student, teacher)]
    text = "the student gives a TwoStage and the teacher a Dense; take networks of `stillhouse mo"
    with pytest.raises(UserError, match=text):
        pair_predictions(*outputs)
    made = Distiller(student, teacher, GID(), "detection", example=torch.zeros(1, 3, *SIZE))
    batch = some_batch(1)
    with pytest.raises(UserError, match="of two dense or of two two-stage detectors"):
        made(replace(batch, images=batch.images.float()))
