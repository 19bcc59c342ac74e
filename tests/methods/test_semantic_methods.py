"""What methods must keep at the maps of two segmenters, those that need masks among them."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from segment_room import CLASSES, EXAMPLE, LAST, SIDES, SegmentRoom, masks, rows, segmenters
from stillhouse import methods
from stillhouse.batches import Batch
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.build import make_method
from stillhouse.methods.catalogue import MethodSpec, composed_methods
from stillhouse.methods.combined import Combined
from stillhouse.methods.setting import Setting
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.objectives.published import Ramp
from stillhouse.tasks.semantic import Semantic
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock, Lesson, Terms, Trace
from tiny import Net

ADAPTER: TypeAdapter[Any] = TypeAdapter(MethodSpec)
QUEUES: dict[str, Any] = {"pixels": 7, "regions": 5, "pixel_samples": 12, "region_samples": 8}
SPECS: dict[str, Any] = {
    "skd": methods.skd(),
    "skd hinge": methods.skd(adversarial="hinge"),
    "skd wgan": methods.skd(adversarial="wgan", variant="reference"),
    "ifvd": methods.ifvd(),
    "ifvd reference": methods.ifvd(variant="reference"),
    "cirkd": methods.cirkd(**QUEUES),
    "cirkd reference": methods.cirkd(**QUEUES, variant="reference"),
}
NAMES = ("skd", "ifvd", "cirkd")
AT_LAST = (("last", "last"),)
FEATURES: dict[str, Any] = {
    "cwd": presets.cwd(),
    "mimic": presets.mimic(),
    "pkd": presets.pkd(adapter="pointwise"),
    "channel_relation": presets.channel_relation(),
    "spatial_relation": presets.spatial_relation(),
    "at": methods.at(pairs=AT_LAST),
    "fitnet": methods.fitnet(pairs=AT_LAST),
    "fitnet pointwise": methods.fitnet(pairs=AT_LAST, adapter="pointwise"),
    "mgd": methods.mgd(masked=0.0),
}
every = pytest.mark.parametrize("name", SPECS)
each = pytest.mark.parametrize("name", NAMES)


def still(room: SegmentRoom) -> SegmentRoom:
    """With BatchNorms and spectral norms that stay as they are."""
    room.method.eval()
    return room


def means(terms: Terms) -> dict[str, float]:
    return {name: float(term.mean().detach()) for name, term in terms.items()}


def as_type(lesson: Lesson, dtype: torch.dtype) -> Lesson:
    """Every floating number of a lesson in another precision."""

    def cast(trace: Trace) -> Trace:
        taps = {name: tap.detach().to(dtype) for name, tap in trace.taps.items()}
        return Trace(Segmentation(trace.out.logits.detach().to(dtype)), taps)

    return replace(lesson, student=cast(lesson.student), teacher=cast(lesson.teacher))


# ----------------------------------------------------------------------------- values and gradients


@every
def test_gradients_are_finite_and_the_teacher_has_none(name: str) -> None:
    mask = masks(3)
    one_class = torch.full_like(mask, 2)
    for labels in (mask, one_class, torch.full_like(mask, 255), None):
        for size in (1.0, 0.0, 1e4):
            room = SegmentRoom(SPECS[name])
            lesson = room.lesson(labels=labels, size=size)
            terms = room.terms(lesson)
            combine(terms).backward()
            for term, value in terms.items():
                assert value.total.isfinite() and value.mass.isfinite() and value.weight >= 0, term
            maps = lesson.student.taps["last"].grad
            assert maps is not None and maps.isfinite().all()
            assert lesson.teacher.taps["last"].grad is None
            assert lesson.teacher.out.logits.grad is None
            for path, p in room.method.named_parameters():
                assert p.grad is not None and p.grad.isfinite().all(), path


@every
def test_images_without_weight_are_as_if_absent(name: str) -> None:
    weight = torch.tensor([0.5, 0.0, 2.0, 0.0], dtype=torch.double)
    lesson = SegmentRoom(SPECS[name]).lesson(4, weight=weight)
    found = [means(SegmentRoom(SPECS[name]).terms(one)) for one in (lesson, rows(lesson, [0, 2]))]
    assert found[0] == pytest.approx(found[1], rel=1e-9)


@every
def test_a_batch_is_the_mean_of_its_images_unless_they_are_compared(name: str) -> None:
    room = still(SegmentRoom(SPECS[name]))
    mask = masks(1).repeat(2, 1, 1)  # as many pixels in each image
    lesson = room.lesson(2, labels=mask)
    parts = lesson, rows(lesson, [0]), rows(lesson, [1])
    whole, first, second = (means(room.terms(part)) for part in parts)
    alike = all(
        whole[term] == pytest.approx((first[term] + second[term]) / 2, rel=1e-9)
        for term in whole
        if term != "critic" or "wgan" not in name  # whose random points are by the place
    )
    assert alike != ("batch" in composed_methods()[name.split()[0]].card.needs)


# ---------------------------------------------------------------------------------------- precision


@every
def test_single_precision_is_near_double(name: str) -> None:
    room, other = (still(SegmentRoom(SPECS[name])) for _ in range(2))
    other.method.float()
    lesson = as_type(room.lesson(), torch.float32)
    found = room.terms(as_type(lesson, torch.double)), other.terms(lesson)
    assert means(found[0]) == pytest.approx(means(found[1]), rel=1e-4, abs=1e-5)


@every
def test_under_autocast_a_method_computes_in_single_precision(name: str) -> None:
    room = still(SegmentRoom(SPECS[name]))
    room.method.float()
    half = as_type(room.lesson(), torch.bfloat16)
    plain = means(room.terms(as_type(half, torch.float32)))
    with torch.autocast("cpu", torch.bfloat16):
        lower = room.terms(half)
    assert all(term.total.dtype == torch.float32 for term in lower.values())
    assert means(lower) == pytest.approx(plain, rel=1e-5, abs=1e-6)


# ---------------------------------------------------------------------------------- what is written


@each
def test_a_recipe_may_spell_it_out(name: str) -> None:
    spec = composed_methods()[name]
    for made in (spec(), spec(label_weight=0.5, ramp=Ramp(4, shape="cosine"), warmup=0.0)):
        plain = ADAPTER.dump_python(made, mode="json")
        assert ADAPTER.validate_python(yaml.safe_load(yaml.safe_dump(plain))) == made
        assert ADAPTER.validate_json(json.dumps(plain)) == made
        assert hash(made) == hash(ADAPTER.validate_python(plain))
    with pytest.raises(ValidationError, match="wieght"):
        ADAPTER.validate_python({"name": name, "wieght": 1.0})


@each
def test_the_card_says_all(name: str) -> None:
    card = composed_methods()[name].card
    for text in (card.title, card.formula, card.paper, card.cost, card.limits):
        assert len(text) > 5
    assert "features" in card.needs and not card.storable


@every
def test_a_saved_state_gives_the_same_terms(name: str) -> None:
    before, after = SegmentRoom(SPECS[name]), SegmentRoom(SPECS[name])
    for step in range(2):
        before.terms(before.lesson(seed=step, clock=replace(LAST, step=step)))
    with torch.no_grad():
        for p in before.method.parameters():
            p.add_(0.1)
    after.method.load_state_dict(before.method.state_dict())
    lesson = before.lesson(seed=5)
    assert means(before.terms(lesson)) == means(after.terms(lesson))


@every
def test_weights_rise_over_the_warm_up(name: str) -> None:
    early = Clock(0, 40, 10)
    warm, full = (SegmentRoom(replace(SPECS[name], **options)) for options in ({"warmup": 4.0}, {}))
    pairs = [one.terms(one.lesson(clock=early)) for one in (warm, full)]
    for term, value in pairs[1].items():
        share = 1 if term == "critic" else 4
        assert pairs[0][term].weight == pytest.approx(value.weight / share), term


@every
def test_two_of_a_kind_have_terms_and_parameters_of_their_own(name: str) -> None:
    room = SegmentRoom(SPECS[name])
    setting = Setting(room.student, room.teacher, EXAMPLE)
    both = Combined({who: SPECS[name].build(setting) for who in ("one", "two")}).double()
    few = list(room.terms(room.lesson()))
    assert list(both(room.lesson())) == [f"{who}/{term}" for who in ("one", "two") for term in few]
    alone = sum(1 for _ in room.method.parameters())
    assert sum(1 for _ in both.parameters()) == 2 * alone


# ------------------------------------------------------------------------------ networks and tasks


def taught(spec: Any, labels: Tensor | None) -> tuple[Pupil[Any], Terms, torch.nn.Module]:
    """One step of two segmenters with the task."""
    student, teacher = segmenters()
    made = make_method(spec, Setting(student, teacher, EXAMPLE)).double()
    task = Semantic(CLASSES)
    pupil = Pupil(Tapped(student, made.student_taps, (EXAMPLE,)), made, task)
    frozen = Frozen(teacher, task.inputs, made.teacher_taps, (EXAMPLE,))
    images = torch.randn(3, 3, *SIDES, dtype=torch.double)
    keys = torch.arange(3)
    batch = Batch(images, labels, keys, keys)
    terms: Terms = pupil(batch, observe(frozen, batch, 1), LAST)
    combine(terms).backward()
    return pupil, terms, teacher


@pytest.mark.parametrize("name", [*SPECS, *FEATURES])
def test_methods_at_the_last_maps_of_segmenters(name: str) -> None:
    """Of other channels and equal sizes, with masks and without."""
    spec = (SPECS | FEATURES)[name]
    pupil, terms, teacher = taught((spec,), masks(3))
    assert "label" in terms and len(terms) > 1
    for term in terms.values():
        assert term.total.isfinite() and float(term.mass) > 0
    for path, p in pupil.named_parameters():
        assert p.grad is not None and p.grad.isfinite().all(), path
    assert all(p.grad is None for p in teacher.parameters())
    _, terms, _ = taught((spec,), None)
    assert all(term.total.isfinite() for term in terms.values())
    assert float(terms["label"].mass) == 0


def test_the_published_combination() -> None:
    """As CIRKD is trained, and SKD in full."""
    specs = (
        presets.kd(temperature=1.0, weight=1.0, sites=("pixel",)),
        methods.cirkd(**QUEUES),
        methods.skd(adversarial="wgan"),
    )
    pupil, terms, _ = taught(specs, masks(3))
    assert {"kd/pixel/kd", "cirkd/last/batch", "skd/holistic", "skd/critic"} <= set(terms)
    assert set(pupil.groups()) == {"student", "method", "critic"}


def test_equal_channels_are_needed_without_an_adapter() -> None:
    with pytest.raises(UserError, match="adapter 'none' needs the same channels"):
        taught((presets.pkd(),), masks(3))


@pytest.mark.parametrize("name", ["ifvd", "cirkd"])
def test_classifiers_have_no_class_maps(name: str) -> None:
    setting = Setting(Net(4), Net(8), torch.zeros(2, 3, 12, 12))
    with pytest.raises(UserError, match=r"and segmentation needs those of each place"):
        composed_methods()[name](pairs=(("body", "body"),)).build(setting)
