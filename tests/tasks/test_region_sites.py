"""Two-stage detectors compared at the teacher's proposals."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from detectors import small_detector, small_two_stage, some_batch
from stillhouse import methods
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models.detectors.shared_proposals import best_of_each_image
from stillhouse.models.last_layers import last_layers
from stillhouse.models.taps import Tapped
from stillhouse.models.teacher_wrapper import TeacherWrapper
from stillhouse.objectives import presets
from stillhouse.tasks.detection import Detection
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.teachers.learner import Learner
from stillhouse.types import Clock, Lesson, Trace

COUNTS = (2, 0, 3)
CLOCK = Clock(0, 10, 5)
EXAMPLE = torch.zeros(1, 3, 48, 64, dtype=torch.double)
STANDARD = ((0.0,) * 3, (1.0,) * 3)
AT_REGIONS = (
    presets.kd(temperature=1, sites=("roi",)),
    presets.dkd(sites=("roi",)),
    presets.lskd(sites=("roi",)),
    presets.tld(sites=("roi",)),
    presets.dist(sites=("roi",)),
    presets.tld_dist(sites=("roi",)),
)


def networks(teacher: str = "cascade_rcnn") -> tuple[Any, Any]:
    torch.manual_seed(0)
    student = small_two_stage().double()
    return student, small_two_stage(teacher, backbone="stillhouse/medium").double().eval()


def lesson_of(student: Any, teacher: Any, batch: Any) -> Lesson:
    task = Detection(5)
    ours = Trace(student(batch.images))
    with torch.no_grad():
        theirs = Trace(teacher(batch.images))
    return task.lesson(ours, theirs, batch, CLOCK, task.assign(ours, batch))


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn"])
def test_rows_are_the_proposals_of_the_teacher(name: str) -> None:
    batch = some_batch(*COUNTS)
    student, teacher = networks(name)
    lesson = lesson_of(student.train(), teacher, batch)
    assert set(lesson.sites) == {"roi", "roi_main", "roi_rest"}
    site, first = lesson.sites["roi"], lesson.teacher.out.stages[0]
    assert torch.equal(site.teacher, first.scores) and len(first) == 3 * 30
    scored = lesson.student.out.score(first.boxes, first.image)
    torch.testing.assert_close(site.student, scored.scores)
    assert site.weight is None and site.mass is None
    assert site.target is not None
    for row, (box, image) in enumerate(zip(first.boxes, first.image, strict=True)):
        overlaps = []
        for other in batch.target.boxes[batch.target.image == image]:
            low, high = torch.maximum(box[:2], other[:2]), torch.minimum(box[2:], other[2:])
            shared = (high - low).clamp(min=0).prod()
            areas = [(b[2:] - b[:2]).prod() for b in (box, other)]
            overlaps.append(float(shared / (sum(areas) - shared)))
        best = max(range(len(overlaps)), key=overlaps.__getitem__, default=-1)
        hit = best >= 0 and overlaps[best] >= 0.5
        labels = batch.target.labels[batch.target.image == image]
        assert int(site.target[row]) == (int(labels[best]) if hit else 5)


def test_proposals_with_an_object_and_of_background() -> None:
    lesson = lesson_of(networks()[0].train(), networks()[1], some_batch(*COUNTS))
    every, main, rest = (lesson.sites[name] for name in ("roi", "roi_main", "roi_rest"))
    assert every.target is not None and main.weight is not None and rest.weight is not None
    assert main.weight.tolist() == [float(label < 5) for label in every.target.tolist()]
    assert torch.equal(main.weight + rest.weight, torch.ones_like(main.weight))
    assert 0 < main.weight.sum() < len(main.weight)
    assert main.student is every.student


def test_images_without_labels_have_no_targets() -> None:
    batch = replace(some_batch(1, 2), target=None)
    student, teacher = networks()
    lesson = lesson_of(student.eval(), teacher, batch)
    assert lesson.sites["roi"].target is None
    assert not lesson.sites["roi_main"].weight.any() and lesson.sites["roi_rest"].weight.all()
    terms = Detection(5).supervise(lesson.student, batch)
    assert list(terms) == list(Detection(5).supervise(lesson.student, some_batch(1, 2)))
    assert {float(term.mass) for term in terms.values()} == {0.0}


def test_only_the_best_proposals_of_each_image() -> None:
    image = torch.tensor([0, 0, 0, 1, 2, 2, 2, 2])
    kept = best_of_each_image(image, 2)
    assert kept.tolist() == [True, True, False, True, True, True, False, False]


@pytest.mark.parametrize("preset", AT_REGIONS, ids=lambda one: one.name)
def test_logit_methods_at_regions(preset: Any) -> None:
    """Their value is that of the preset on the rows of the site, with a gradient of the student."""
    batch = some_batch(*COUNTS)
    student, teacher = networks()
    method = make_method((preset,), Setting(student, teacher, EXAMPLE))
    pupil = Pupil(Tapped(student), method, Detection(5)).train()
    frozen = Frozen(teacher, Detection(5).inputs)
    terms = pupil(batch, observe(frozen, batch), CLOCK)
    labels = {"proposal", "proposal_box", "class", "box"}
    assert labels < set(terms) and all(t.total.isfinite() for t in terms.values())
    distilled = {name: term for name, term in terms.items() if name not in labels}
    assert all(name.startswith("roi/") for name in distilled)
    combine(distilled).backward()
    assert bool(student.heads[0].scores.weight.grad.any())
    assert all(p.grad is None for p in teacher.parameters())
    # the sampled regions change nothing
    site = lesson_of(student, teacher, batch).sites["roi"]
    want = replace(preset, sites=("class",))(site.student, site.teacher, site.target)
    assert float(combine(distilled).detach()) == pytest.approx(float(want.detach()), rel=1e-9)


@pytest.mark.parametrize("name", ["faster_rcnn", "cascade_rcnn"])
def test_acclimation_trains_the_class_scores_of_the_first_stage(name: str) -> None:
    batch, task = some_batch(*COUNTS), Detection(5)
    student, teacher = networks(name)
    method = make_method((methods.acclimation(sites=("roi",)),), Setting(student, teacher, EXAMPLE))
    layers = last_layers(teacher, EXAMPLE)
    assert layers[-1] == "heads.0.scores"
    learner = Learner(teacher, task.inputs, layers, (), (EXAMPLE,))
    pupil = Pupil(Tapped(student), method, task).train()
    term = pupil(batch, observe(learner, batch), CLOCK)["roi/acclimation"]
    (term.weight * term.mean()).backward()
    assert all(parameter.grad is None for parameter in student.parameters())
    moved = {name for name, p in teacher.named_parameters() if p.grad is not None and p.grad.any()}
    assert {"heads.0.scores.weight", "heads.0.scores.bias"} <= moved
    assert all(name.startswith(tuple(layers)) for name in moved)


def test_the_classes_of_the_teacher_are_chosen_by_name() -> None:
    batch = some_batch(*COUNTS)
    student, teacher = networks()
    chosen = TeacherWrapper(teacher, data=STANDARD, select=[4, 0, 1, 2, 3]).double()
    site = lesson_of(student.eval(), chosen, batch).sites["roi"]
    plain = lesson_of(student, teacher, batch).sites["roi"]
    torch.testing.assert_close(site.teacher, plain.teacher[:, [4, 0, 1, 2, 3, 5]])


def test_a_dense_and_a_two_stage_detector_have_features_in_common_only() -> None:
    batch = some_batch(*COUNTS)
    student = small_two_stage(neck={"width": 16, "extra": 0}).double()
    teacher = small_detector("retinanet", neck={"width": 16, "extra": 0}).double().eval()
    for method in (presets.pkd(pairs="levels"), presets.kd(sites=("roi",)), presets.kd()):
        made = make_method((method,), Setting(student, teacher, EXAMPLE))
        pupil = Pupil(Tapped(student, made.student_taps, (EXAMPLE,)), made, Detection(5))
        frozen = Frozen(teacher, Detection(5).inputs, made.teacher_taps, (EXAMPLE,))
        if method.name == "pkd":
            terms = pupil(batch, observe(frozen, batch), CLOCK)
            assert {"p2/pkd", "p3/pkd"} < set(terms)
        else:
            with pytest.raises(UserError, match="these two networks have no sites"):
                pupil(batch, observe(frozen, batch), CLOCK)
