"""What every method at the levels of two detectors must keep."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from detectors import small_detector, small_two_stage, some_batch
from level_room import EXAMPLE, FIRST, LAST, LevelRoom, rows, values, with_maps
from stillhouse import methods
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.methods.catalogue import composed_methods
from stillhouse.methods.levels import grid_of, level_numbers
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.models.detectors.priors import PointGrid, make_priors
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.places import declared_places
from stillhouse.models.taps import Tapped
from stillhouse.objectives.published import Ramp
from stillhouse.tasks.classification import Classification
from stillhouse.types import Lesson, Trace
from torchvision_detectors import small_fcos

SPECS: dict[str, Any] = {
    "fgd": methods.fgd(),
    "fgd reference": methods.fgd(variant="reference"),
    "fkd": methods.fkd(temperature=2.0),
    "fkd reference": methods.fkd(variant="reference"),
    "fgfi": methods.fgfi(),
    "fgfi reference": methods.fgfi(variant="reference"),
    "defeat": methods.defeat(finest=6.0),
    "gid": methods.gid(),
    "maskd": methods.maskd(),
    "maskd reference": methods.maskd(variant="reference", customise=2.0),
}
LABELS = {"proposal", "proposal_box", "class", "box"}
NAMES = ("fgd", "fkd", "fgfi", "defeat", "gid", "maskd")
TERMS = {
    "fgd": {"foreground", "background", "attention", "context"},
    "fkd": {"attention", "channel", "space", "relation"},
    "fgfi": {"imitation"},
    "defeat": {f"{p}/{kind}" for p in ("p2", "p3", "p4") for kind in ("foreground", "background")},
    "gid": {"instance", "relation", "class/gid", "box/gid"},
    "maskd": {"tokens", "diversity", "masked"},
}
every = pytest.mark.parametrize("name", SPECS)
each = pytest.mark.parametrize("name", NAMES)
TIMES = {name: (name, LAST) for name in NAMES} | {"maskd, first phase": ("maskd", FIRST)}
at_times = pytest.mark.parametrize("when", TIMES)


def leaves(lesson: Lesson) -> list[Tensor]:
    return [*lesson.student.taps.values()]


# ----------------------------------------------------------------------------- values and gradients


@each
def test_terms_and_taps(name: str) -> None:
    room = LevelRoom(SPECS[name])
    terms = room.terms(room.lesson())
    assert set(terms) == TERMS[name]
    assert room.method.student_taps == room.method.teacher_taps == ("p2", "p3", "p4")
    assert all(term.total.dtype == torch.double for term in terms.values())


@at_times
@pytest.mark.parametrize("family", ["retinanet", "reppoints"])
def test_gradients_are_finite_and_reach_what_learns(when: str, family: str) -> None:
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name], family).randomise()
    lesson = room.lesson(clock=clock)
    combine(room.terms(lesson)).backward()
    slopes = {path: p.grad for path, p in room.method.named_parameters()}
    for path, slope in slopes.items():
        if slope is None:
            assert room.method.unused_parameters, path
        else:
            assert slope.isfinite().all(), path
    learns = name != "maskd" or clock is LAST
    for leaf in leaves(lesson):
        assert (leaf.grad is not None) == learns
        assert leaf.grad is None or leaf.grad.isfinite().all()
    if name != "maskd":
        assert any(slope is not None and slope.abs().sum() > 0 for slope in slopes.values())


@at_times
def test_the_teacher_gets_no_gradient(when: str) -> None:
    """Nothing here keeps one from it but the method."""
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name]).randomise()
    assert all(p.requires_grad for p in room.teacher.head.parameters())
    lesson = room.lesson(clock=clock)
    combine(room.terms(lesson)).backward()
    assert all(tap.grad is None for tap in lesson.teacher.taps.values())
    assert all(p.grad is None for p in room.teacher.parameters())


@every
def test_the_gradient_is_the_slope_of_the_value(name: str, monkeypatch: Any) -> None:
    """Along a random direction of all maps and parameters."""
    spec = SPECS[name]
    if name.startswith("maskd"):  # masks of the student's maps have no gradient
        spec = replace(spec, customise=2.0)
    room = LevelRoom(spec).randomise()
    lesson = room.lesson()
    if name.startswith("fkd"):  # whose attention has no gradient
        fixed: dict[Any, Tensor] = {}
        attend = room.method.attention

        def remember(student: Tensor, teacher: Tensor) -> Tensor:
            return fixed.setdefault(student.shape, attend(student, teacher))

        monkeypatch.setattr(room.method, "attention", remember)
    moved = [*leaves(lesson), *room.method.parameters()]
    combine(room.terms(lesson)).backward()
    random = torch.Generator().manual_seed(3)
    ways = [torch.randn(x.shape, generator=random, dtype=x.dtype) for x in moved]
    slope = sum(
        float((x.grad * way).sum())
        for x, way in zip(moved, ways, strict=True)
        if x.grad is not None
    )
    found = []
    step = 1e-5
    idle = [x.grad is None for x in moved]
    with torch.no_grad():
        for sign in (1, -2):
            for x, way, still in zip(moved, ways, idle, strict=True):
                if not still:
                    x.add_(sign * step * way)
            found.append(float(combine(room.terms(lesson))))
    assert (found[0] - found[1]) / (2 * step) == pytest.approx(slope, rel=2e-6)


@each
def test_equal_maps_have_no_loss(name: str) -> None:
    """With adapters that are identities and blocks as they start."""
    room = LevelRoom(SPECS[name])
    make_identity(room.method)
    lesson = room.lesson()
    maps = {key: tap.detach().abs() for key, tap in lesson.teacher.taps.items()}
    student = {key: tap.clone().requires_grad_() for key, tap in maps.items()}
    equal = with_maps(lesson, student, maps)
    if name == "gid":
        equal = replace(equal, student=replace(equal.student, out=equal.teacher.out))
    terms = room.terms(equal)
    for key, term in terms.items():
        assert abs(float(term.total.detach())) < 1e-12, key
    combine(terms).backward()
    for leaf in student.values():
        assert leaf.grad is None or float(leaf.grad.abs().max()) < 1e-12


@torch.no_grad()
def make_identity(method: nn.Module) -> None:
    """Convolutions and matrices of equal widths become identities, but for those in blocks."""
    for path, layer in method.named_modules():
        if "block" in path or "context" in path or "tokens" in path:
            continue
        if isinstance(layer, nn.Conv2d | nn.Linear):
            weight = layer.weight
            weight.zero_()
            centre = tuple(side // 2 for side in weight.shape[2:])
            for channel in range(len(weight)):
                weight[(channel, channel, *centre)] = 1
            if layer.bias is not None:
                layer.bias.zero_()


# --------------------------------------------------------------------------------------- any images


@at_times
def test_images_without_boxes(when: str) -> None:
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name])
    for counts in ((0, 0), (0, 2), ()):
        batch = some_batch(*counts) if counts else rows(some_batch(1), slice(0, 0))
        lesson = room.lesson(batch, clock)
        terms = room.terms(lesson)
        assert all(term.total.isfinite() and term.mass.isfinite() for term in terms.values())
        combine(terms).backward()
        for p in [*room.method.parameters(), *leaves(lesson)]:
            assert p.grad is None or p.grad.isfinite().all(), counts


@at_times
def test_images_without_labels_are_like_those_without_objects(when: str) -> None:
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name])
    lesson = room.lesson(some_batch(0, 0), clock)
    found = values(room.terms(replace(lesson, objects=None, assigned=None)))
    want = values(room.terms(lesson))
    if name.startswith("maskd"):
        assert found.pop("tokens") == 0
        want.pop("tokens")
    assert found == pytest.approx(want, rel=1e-12)


@pytest.mark.parametrize("name", ["fgd", "fgfi", "defeat"])
def test_crowds_and_difficult_objects_are_background(name: str) -> None:
    room = LevelRoom(SPECS[name])
    batch = some_batch(2, 1)
    lesson = room.lesson(batch)
    crowd = torch.tensor([True, False, False])
    marked = replace(lesson, objects=replace(lesson.objects, crowd=crowd))
    without = replace(lesson, objects=lesson.objects.objects(~crowd))
    assert values(room.terms(marked)) == values(room.terms(without))
    assert values(room.terms(marked)) != values(room.terms(lesson))


@at_times
def test_the_order_of_images_does_not_matter(when: str) -> None:
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name]).randomise()
    lesson = room.lesson(clock=clock)
    order = torch.tensor([2, 0, 1])
    again = room.lesson(rows(some_batch(2, 0, 3), order), clock)
    turned = with_maps(
        again,
        {key: tap[order] for key, tap in lesson.student.taps.items()},
        {key: tap[order] for key, tap in lesson.teacher.taps.items()},
    )
    assert values(room.terms(turned)) == pytest.approx(values(room.terms(lesson)), rel=1e-9)


@each
def test_extreme_maps_stay_finite(name: str) -> None:
    room = LevelRoom(SPECS[name])
    for size in (0.0, 1e-30, 1e4):
        for clock in (FIRST, LAST):
            lesson = room.lesson(clock=clock, size=size)
            combine(room.terms(lesson)).backward()
            for leaf in [*leaves(lesson), *room.method.parameters()]:
                assert leaf.grad is None or leaf.grad.isfinite().all(), size


@at_times
def test_under_autocast_it_computes_in_single_precision(when: str) -> None:
    name, clock = TIMES[when]
    room = LevelRoom(SPECS[name], own=True)
    lesson = room.lesson(clock=clock)
    room.method.float()
    room.teacher.float()
    single = with_maps(
        lesson,
        {key: tap.detach().bfloat16() for key, tap in lesson.student.taps.items()},
        {key: tap.detach().bfloat16() for key, tap in lesson.teacher.taps.items()},
    )
    with torch.autocast("cpu", torch.bfloat16):
        lower = room.terms(single)
    whole = room.terms(
        with_maps(
            lesson,
            {key: tap.float() for key, tap in single.student.taps.items()},
            {key: tap.float() for key, tap in single.teacher.taps.items()},
        )
    )
    for key, value in values(whole).items():
        loose = 0.05 if key == "tokens" else 1e-4  # the head runs in the precision of the networks
        assert values(lower)[key] == pytest.approx(value, rel=loose, abs=1e-6), key


# ------------------------------------------------------------------------------------------ options


@each
def test_weights_follow_the_ramp(name: str) -> None:
    half = Ramp(4, start=0.5, end=0.5)
    spec = SPECS[name]
    plain, ramped = (
        LevelRoom(one).terms(LevelRoom(one).lesson()) for one in (spec, replace(spec, ramp=half))
    )
    for key, term in plain.items():
        assert ramped[key].weight == pytest.approx(term.weight / 2)


@each
def test_what_it_says_of_itself(name: str) -> None:
    spec: Any = composed_methods()[name]
    assert {"boxes", "features"} <= set(spec.card.needs)
    assert spec().pairs == "levels" and not spec.card.storable
    method = LevelRoom(spec()).method
    assert method.label_share == 1
    assert method.unused_parameters is (name == "maskd")


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: methods.fgd(temperature=0.0), "`temperature` must be positive"),
        (lambda: methods.fkd(temperature=-1.0), "`temperature` must be positive"),
        (lambda: methods.fkd(images=0), "`images` must be at least 1"),
        (lambda: methods.fgfi(share=1.0), r"`share` must be in \[0, 1\)"),
        (lambda: methods.defeat(finest=0.0), "`finest` must be positive"),
        (lambda: methods.gid(iou=1.5), r"`iou` must be in \[0, 1\]"),
        (lambda: methods.gid(most=0), "`most` must be at least 1"),
        (lambda: methods.gid(side=0), "`side` must be at least 1"),
        (lambda: methods.maskd(tokens=0), "`tokens` must be at least 1"),
        (lambda: methods.maskd(init=-1.0), "`init` must be a number of epochs"),
        (lambda: methods.maskd(customise=-1.0), "`customise` must be non-negative"),
    ],
)
def test_options_out_of_range(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# ------------------------------------------------------------------------------ levels and refusals


@each
def test_a_detector_of_torchvision(name: str) -> None:
    student, teacher = (adapt_detector(small_fcos()) for _ in range(2))
    setting = Setting(student, teacher, EXAMPLE.float())
    if name == "maskd":
        with pytest.raises(UserError, match="has no head that can be run alone; take a te"):
            SPECS[name].build(setting)
        return
    method = SPECS[name].build(setting)
    assert method.student_taps == tuple(declared_places(student).levels)


@each
def test_two_stage_detectors(name: str) -> None:
    """Anchors are those of the proposals."""
    student, teacher, batch = small_two_stage(), small_two_stage(), some_batch(2, 1)
    assert batch.target is not None
    single = replace(batch.target, boxes=batch.target.boxes.float())
    batch = replace(batch, images=batch.images.float(), target=single)
    loss, terms = Distiller(student, teacher, SPECS[name], "detection", example=batch.images)(batch)
    loss.backward()
    new = {term: value for term, value in terms.items() if term not in LABELS}
    assert {term.split("/")[-1] for term in new} == {term.split("/")[-1] for term in TERMS[name]}
    assert all(value.isfinite() for value in new.values()) and sum(new.values()) > 0
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in student.parameters())


@each
def test_maps_of_two_sizes_are_refused(name: str) -> None:
    pairs = (("p2", "p3"), ("p3", "p4"))
    setting = Setting(small_detector("fcos"), small_detector("fcos"), EXAMPLE.float())
    with pytest.raises(UserError, match=r"'p2' gives maps of 12 x 16 and the teacher's 'p3' of 6 "):
        replace(SPECS[name], pairs=pairs).build(setting)


@pytest.mark.parametrize("name", [name for name in NAMES if name != "maskd"])
def test_classifiers_are_refused(name: str) -> None:
    student, teacher = (zoo.create("stillhouse/small", 5) for _ in range(2))
    setting = Setting(student, teacher, torch.zeros(1, 3, 16, 16))
    with pytest.raises(UserError, match="pairs: levels needs networks that declare their levels"):
        SPECS[name].build(setting)
    method = replace(SPECS[name], pairs=(("stage1", "stage1"),)).build(setting)
    taps = {"stage1": torch.zeros(2, *setting.student_shapes(["stage1"])["stage1"][1:])}
    with pytest.raises(UserError):
        if name == "gid":
            Pupil(Tapped(student, method.student_taps), method, Classification(5))
        trace = Trace(torch.zeros(2, 5), taps)
        method(Lesson(trace, trace, {}, LAST))


def test_each_map_finds_its_level() -> None:
    sizes, strides = [(side, side) for side in (8, 4, 2, 1, 1)], [8, 16, 32, 64, 128]
    priors = make_priors(PointGrid(), sizes, strides, torch.zeros(1))
    sides = (4, 1, 1)
    maps = [torch.zeros(2, 3, side, side) for side in sides]
    assert level_numbers(maps, ("p4", "p6", "p7"), priors) == [1, 3, 4]
    with pytest.raises(UserError, match="tap 'stage1' gives a map of 16 x 16, which is no level"):
        level_numbers([torch.zeros(2, 3, 16, 16)], ("stage1",), priors)
    two_stage = SimpleNamespace(proposal=SimpleNamespace(priors=priors))
    assert grid_of(two_stage) is priors
    with pytest.raises(UserError, match="compares levels of detectors, but the student gives a Te"):
        grid_of(torch.zeros(2, 5))
