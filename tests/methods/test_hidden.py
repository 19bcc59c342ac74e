"""What all methods on hidden maps have in common."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from settings import changed, heard, images, loss, setting
from stillhouse.distributed import combine
from stillhouse.engine.optimisers import SGD
from stillhouse.engine.pupil import Pupil
from stillhouse.methods.base import Method
from stillhouse.methods.catalogue import MethodSpec, composed_methods
from stillhouse.models.taps import Tapped
from stillhouse.tasks.classification import Classification
from stillhouse.types import Clock, Lesson, Trace

NAMES = ["fitnet", "at", "ofd", "ab", "ft", "vid", "reviewkd", "catkd", "srrl", "mgd"]
FIRST, LATER = Clock(0, 40, 10), Clock(20, 40, 10)
TRAINS = {"fitnet", "ofd", "ab", "ft", "vid", "reviewkd", "srrl", "mgd"}
every = pytest.mark.parametrize("name", NAMES)


def made(name: str, **options: Any) -> Any:
    return composed_methods()[name](**options)


def certain(name: str, **options: Any) -> Any:
    """A spec whose loss does not roll dice."""
    return made(name, **options, **({"masked": 0.0} if name == "mgd" else {}))


def active(name: str) -> Clock:
    """A time at which the student learns from the teacher."""
    return FIRST if name == "ab" else LATER


def double(lesson: Lesson) -> Lesson:
    def cast(trace: Trace) -> Trace:
        return replace(trace, taps={k: v.detach().double() for k, v in trace.taps.items()})

    return replace(lesson, student=cast(lesson.student), teacher=cast(lesson.teacher))


def leaves(lesson: Lesson) -> dict[str, Tensor]:
    return {name: tap.detach().requires_grad_() for name, tap in lesson.student.taps.items()}


@every
def test_a_recipe_may_name_it_and_no_option_that_it_does_not_have(name: str) -> None:
    read = TypeAdapter(MethodSpec).validate_python
    assert read({"name": name}) == made(name)
    with pytest.raises(ValidationError, match="nonsense"):
        read({"name": name, "nonsense": 1})


@every
def test_its_card_is_complete(name: str) -> None:
    spec = made(name)
    assert all(spec.card)
    assert "features" in spec.card.needs
    assert ("head" in spec.card.needs) == (name in ("srrl", "catkd"))
    assert not spec.card.storable
    assert spec.label_share == 1.0
    assert made(name, label_weight=0.5).label_share == 0.5


@every
def test_the_student_learns_and_the_teacher_does_not(name: str) -> None:
    at = setting()
    method = made(name).build(at)
    lesson = heard(at, method, clock=active(name))
    loss(method(lesson)).backward()
    assert all(p.grad is None for p in at.teacher.parameters())
    learnt = [p.grad for p in at.student.parameters() if p.grad is not None]
    assert any(grad.abs().sum() > 0 for grad in learnt)
    assert all(grad.isfinite().all() for grad in learnt)


@every
def test_what_it_trains_is_in_its_group_and_has_a_gradient(name: str) -> None:
    at = setting()
    method = made(name).build(at)
    (group,) = method.groups().values()
    found = {id(p) for p in group}
    assert found == {id(p) for p in method.parameters()}
    assert bool(found) == (name in TRAINS)
    assert not found & {id(p) for p in (*at.student.parameters(), *at.teacher.parameters())}
    names = []
    for clock in (FIRST, LATER):
        terms = method(heard(at, method, clock=clock))
        loss(terms).backward()
        names.append(list(terms))
        lonely = [key for key, p in method.named_parameters() if p.grad is None]
        assert not lonely or method.unused_parameters
        if clock is FIRST and not method.unused_parameters:
            assert all(p.grad.isfinite().all() for p in method.parameters())
    assert [key for key, p in method.named_parameters() if p.grad is None] == []
    assert names[0] == names[1]  # what is recorded is the same at any time


@every
@pytest.mark.parametrize("fill", [0.0, 2.0])
def test_one_image_and_maps_that_are_all_alike(name: str, fill: float) -> None:
    at = setting()
    method = made(name).build(at)
    lesson = heard(at, method, images(1), clock=active(name))
    taps = {key: torch.full_like(tap, fill) for key, tap in leaves(lesson).items()}
    taps = {key: tap.requires_grad_() for key, tap in taps.items()}
    value = loss(method(changed(lesson, taps)))
    slopes = torch.autograd.grad(value, [*taps.values()])
    assert value.isfinite()
    assert all(slope.isfinite().all() for slope in slopes)


@every
def test_images_without_weight_are_as_if_absent(name: str) -> None:
    at = setting()
    method = certain(name).build(at).eval()  # BatchNorm sees every image while it learns
    shown, weight = images(), torch.tensor([1.0, 0.0, 2.0, 0.0])
    at.student.eval()
    whole = loss(method(heard(at, method, shown, active(name), weight)))
    there, counted = shown[[0, 2]], torch.tensor([1.0, 2.0])
    few = loss(method(heard(at, method, there, active(name), counted)))
    torch.testing.assert_close(whole, few)


@every
def test_shards_of_any_size_make_the_whole(name: str) -> None:
    at = setting()
    method = certain(name).build(at).eval()
    at.student.eval()
    shown = images(5)
    whole = loss(method(heard(at, method, shown, active(name))))
    one, rest = (method(heard(at, method, part, active(name))) for part in shown.split([1, 4]))
    total = 0.0
    for key, term in one.items():
        both = (term.total + rest[key].total) / (term.mass + rest[key].mass)
        total = total + term.weight * both
    torch.testing.assert_close(whole, total)


@every
def test_double_precision_stays_and_half_is_raised(name: str) -> None:
    at = setting()
    method = certain(name).build(at).eval()
    lesson = heard(at, method, clock=active(name))
    want = loss(method(lesson))
    halved = changed(lesson, {k: v.bfloat16() for k, v in lesson.student.taps.items()})
    with torch.autocast("cpu", torch.bfloat16):
        found = loss(method(halved))
    assert found.dtype == torch.float32
    exact = changed(lesson, {k: v.bfloat16().float() for k, v in lesson.student.taps.items()})
    torch.testing.assert_close(found, loss(method(exact)))
    at.student.double()  # whose classifier one of them reads
    precise = loss(method.double()(double(lesson)))
    assert precise.dtype == torch.double
    torch.testing.assert_close(want.double(), precise, rtol=1e-4, atol=1e-6)


@every
def test_what_it_trains_comes_back_from_a_checkpoint(name: str) -> None:
    at = setting()
    method, other = certain(name).build(at), certain(name).build(at)
    lesson = heard(at, method, clock=active(name))
    loss(method(lesson)).backward()
    with torch.no_grad():
        for p in method.parameters():
            p.add_(p.grad if p.grad is not None else 0.0, alpha=-1e-3)
    other.load_state_dict(method.state_dict())
    kept = leaves(lesson)
    one, two = (loss(m.eval()(changed(lesson, kept))) for m in (method, other))
    assert torch.equal(one, two)


@every
def test_weights_rise_over_the_warm_up(name: str) -> None:
    at = setting()
    length = {"init": 1.0} if name == "ab" else {"init": 0.0} if name == "ft" else {}
    method = made(name, warmup=4, **length).build(at)
    full = made(name, **length).build(at)
    one, all_ = (m(heard(at, m, clock=FIRST)) for m in (method, full))
    for key, term in all_.items():
        assert one[key].weight == pytest.approx(term.weight / 4)


@every
def test_a_step_of_training_lowers_it(name: str) -> None:
    """The method, its student and an optimiser go down together."""
    at = setting("tiny", "small")
    spec = certain(name)
    method: Method = spec.build(at)
    pupil = Pupil(Tapped(at.student, method.student_taps, (at.example,)), method, Classification())
    named = [pair for group in pupil.groups().values() for pair in group]
    optimiser = SGD(lr=1e-2, momentum=0.0).build(named)
    shown, values = images(8), []
    for _ in range(4):
        lesson = heard(at, method, shown, active(name))
        value = combine(method(lesson))
        value.backward()
        torch.nn.utils.clip_grad_norm_(pupil.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        values.append(float(value.detach()))
    assert values[-1] < values[0]
