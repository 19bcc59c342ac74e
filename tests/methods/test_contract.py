"""What every method with parts of its own must keep; a new one falls under it by being named."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_args

import pytest
import torch
import yaml
from pydantic import TypeAdapter, ValidationError
from torch import Tensor
from torch.utils._pytree import tree_map

from classroom import CALM, CLOCKS, LABELS, Classroom, batch, calm, enrol, networks, rows, seated
from stillhouse.batches import Batch
from stillhouse.distributed import combine
from stillhouse.methods.catalogue import MethodSpec, composed_methods
from stillhouse.methods.combined import Combined
from stillhouse.objectives.card import Need
from stillhouse.objectives.published import Ramp
from stillhouse.types import Lesson, Terms, Trace

# those for detectors and segmenters: see test_level_methods and test_semantic_methods
CATALOGUE = {
    n: s for n, s in composed_methods().items() if not {"boxes", "masks"} & set(s.card.needs)
}
ADAPTER: TypeAdapter[Any] = TypeAdapter(MethodSpec)
every = pytest.mark.parametrize("name", CATALOGUE)
every_clock = pytest.mark.parametrize("clock", ["first", "last"])


def one_class() -> Batch:
    """Six images of the first class, all different."""
    return replace(batch(), keys=4 * torch.arange(6), target=torch.zeros(6, dtype=torch.long))


BATCHES = {
    "random": batch(),
    "black": replace(batch(), images=torch.zeros_like(batch().images), strong=batch().images * 0),
    "alike": rows(batch(), [2] * 6),
    "one image": rows(batch(), [2]),
    "one class": one_class(),
}


def room(name: str, **options: Any) -> Classroom:
    """With the method's defaults; images of one alone need BatchNorms that read no batch."""
    return enrol(CATALOGUE[name](**options)).still()


def means(terms: Terms) -> dict[str, Tensor]:
    return {name: term.mean().detach() for name, term in terms.items()}


def close(got: Terms, want: Terms, tolerance: float = 1e-5) -> None:
    assert got.keys() == want.keys()
    for name, mean in means(got).items():
        other = means(want)[name].to(mean.dtype)
        torch.testing.assert_close(
            mean, other, rtol=tolerance, atol=tolerance, msg=lambda m, n=name: f"{n}: {m}"
        )


# ----------------------------------------------------------------------------- values and gradients


@every_clock
@every
def test_terms_and_gradients_are_finite(name: str, clock: str) -> None:
    classroom = room(name, **CALM.get(name, {}))
    for kind, images in BATCHES.items():
        terms = classroom.learn(images, CLOCKS[clock])
        assert len(terms) > 1
        combine(terms).backward()
        for term, value in terms.items():
            assert value.total.isfinite(), (kind, term)
            assert value.mass.isfinite(), (kind, term)
            assert value.weight >= 0, (kind, term)
        for path, parameter in classroom.pupil.named_parameters():
            assert parameter.grad is None or parameter.grad.isfinite().all(), (kind, path)


@cache
def schooled(name: str) -> tuple[Classroom, list[str]]:
    """After backward at every clock, and the parameters that had no gradient at one of them."""
    classroom, without = enrol(calm(CATALOGUE[name])), []
    sums: dict[str, Tensor] = {}
    for clock in CLOCKS.values():
        classroom.pupil.zero_grad()
        combine(classroom.learn(batch(), clock)).backward()
        for path, p in classroom.pupil.named_parameters():
            if p.requires_grad and p.grad is None:
                without.append(path)
            elif p.grad is not None:
                sums[path] = sums.get(path, 0) + p.grad.abs()
    for path, p in classroom.pupil.named_parameters():
        p.grad = sums.get(path)
    return classroom, without


@every
def test_every_parameter_has_a_gradient_unless_the_method_says_it_is_idle(name: str) -> None:
    """As DDP asks of it."""
    classroom, without = schooled(name)
    assert classroom.method.unused_parameters or without == []


@every
def test_what_a_method_brings_learns_at_some_time(name: str) -> None:
    for path, p in schooled(name)[0].method.named_parameters():
        if p.requires_grad:
            assert p.grad is not None, path
            assert p.grad.abs().sum() > 0, path


@every
def test_the_teacher_gets_no_gradient_unless_the_method_moves_it(name: str) -> None:
    """Nothing here keeps a gradient from it but the method."""
    classroom, _ = schooled(name)
    moved = [path for path, p in classroom.teacher.named_parameters() if p.grad is not None]
    assert bool(moved) == classroom.method.moves_teacher


@every
def test_each_parameter_of_a_method_is_in_a_group(name: str) -> None:
    classroom, _ = schooled(name)
    grouped = {p for group in classroom.pupil.groups().values() for _, p in group}
    assert {p for p in classroom.pupil.parameters() if p.requires_grad} <= grouped


@every
def test_the_student_learns_from_the_teacher(name: str) -> None:
    """The terms of the method alone move it, at some time."""
    classroom = enrol(calm(CATALOGUE[name]))
    for clock in CLOCKS.values():
        terms = classroom.teach(batch(), clock)
        combine(terms).backward()
    moved = any(
        p.grad is not None and p.grad.abs().sum() > 0 for p in classroom.pupil.student.parameters()
    )
    assert moved != classroom.method.moves_teacher


# ------------------------------------------------------------------------------- which images count


@every
def test_images_without_weight_are_as_if_absent(name: str) -> None:
    whole, kept = batch(), [0, 2, 4, 5]
    weight = torch.ones(len(LABELS))
    weight[whole.keys] = torch.tensor([1.0, 0.0, 0.5, 0.0, 2.0, 1.0])
    classroom, other = (enrol(calm(CATALOGUE[name]), weight).still() for _ in range(2))
    for clock in CLOCKS.values():
        close(classroom.teach(whole, clock), other.teach(rows(whole, kept), clock))


@every
def test_a_batch_is_the_mean_of_its_halves_unless_images_are_compared(name: str) -> None:
    """Or their sum, where a term is a sum over images."""
    if "keys" in CATALOGUE[name].card.needs:
        pytest.skip("its draws are by the place in the batch")
    images = batch()
    whole, first, second = (
        enrol(calm(CATALOGUE[name])).still().teach(part)
        for part in (images, rows(images, slice(3)), rows(images, slice(3, 6)))
    )
    alike = all(
        torch.isclose(
            term.mean(),
            (first[place].mean() + second[place].mean()) / (1 if term.shared else 2),
            rtol=1e-4,
        )
        for place, term in whole.items()
    )
    assert alike != ("batch" in CATALOGUE[name].card.needs)


# ---------------------------------------------------------------------------------------- precision


@every_clock
@every
def test_single_precision_is_near_double(name: str, clock: str) -> None:
    classroom, other = (enrol(calm(CATALOGUE[name])).still() for _ in range(2))
    other.pupil.double()
    lesson = classroom.lesson(batch(), CLOCKS[clock])
    close(classroom.method(lesson), other.method(as_type(lesson, torch.double)), 1e-4)


@every_clock
@every
def test_under_autocast_a_method_computes_in_single_precision(name: str, clock: str) -> None:
    """It differs from single precision by what the networks said, and by nothing that it did."""
    classroom, other = (enrol(calm(CATALOGUE[name])) for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        lesson = classroom.lesson(batch(), CLOCKS[clock])
        lower = classroom.method(lesson)
    assert all(term.total.dtype == torch.float32 for term in lower.values())
    close(lower, other.method(as_type(lesson, torch.float32)))


def as_type(lesson: Lesson, dtype: torch.dtype) -> Lesson:
    """Every floating number of a lesson in another precision."""

    def cast(x: Any) -> Any:
        return x.to(dtype) if isinstance(x, Tensor) and x.is_floating_point() else x

    def trace(t: Trace) -> Trace:
        taps = {name: cast(tap) for name, tap in t.taps.items()}
        return replace(t, out=tree_map(cast, t.out), taps=taps)

    def sites(places: Any) -> Any:
        return {
            place: replace(site, **{f.name: cast(getattr(site, f.name)) for f in fields(site)})
            for place, site in places.items()
        }

    return replace(
        lesson,
        student=trace(lesson.student),
        teacher=trace(lesson.teacher),
        sites=sites(lesson.sites),
    )


# ---------------------------------------------------------------------------------- what is written


@every
def test_a_saved_state_gives_the_same_terms(name: str) -> None:
    before, after = enrol(CATALOGUE[name]()), enrol(CATALOGUE[name](), seed=1)
    combine(before.learn(batch(seed=3))).backward()  # what it remembers is part of the state
    after.pupil.load_state_dict(before.pupil.state_dict())
    got = []
    for classroom in (before, after):
        torch.manual_seed(7)
        got.append(classroom.learn(batch()))
    assert {n: float(m) for n, m in means(got[0]).items()} == {
        n: float(m) for n, m in means(got[1]).items()
    }


@every
def test_the_teacher_is_not_in_the_state_of_the_pupil(name: str) -> None:
    """Parts of it may be, its classifier for one, but never all."""
    classroom, _ = schooled(name)
    teacher = sum(p.numel() for p in classroom.teacher.parameters())
    frozen = [p for p in classroom.pupil.parameters() if not p.requires_grad]
    assert sum(p.numel() for p in frozen) < teacher / 2


@every
def test_a_recipe_may_spell_it_out(name: str) -> None:
    for spec in (
        CATALOGUE[name](),
        CATALOGUE[name](label_weight=0.5, ramp=Ramp(4, shape="cosine"), warmup=0.0),
    ):
        plain = ADAPTER.dump_python(spec, mode="json")
        assert plain["name"] == name
        assert ADAPTER.validate_python(yaml.safe_load(yaml.safe_dump(plain))) == spec
        assert ADAPTER.validate_json(json.dumps(plain)) == spec
        assert hash(spec) == hash(ADAPTER.validate_python(plain))


@every
def test_an_option_that_it_does_not_have_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="wieght"):
        ADAPTER.validate_python({"name": name, "wieght": 1.0})


@every
def test_the_card_says_all(name: str) -> None:
    spec, method = CATALOGUE[name], schooled(name)[0].method
    card = spec.card
    for text in (card.title, card.formula, card.paper, card.cost, card.limits):
        assert len(text) > 5
    assert card.needs
    assert set(card.needs) <= set(get_args(Need))
    assert ("features" in card.needs) == bool(method.teacher_taps)
    assert ("views" in card.needs) == (method.views > 1)
    assert ("moves" in card.needs) == method.moves_teacher
    assert spec.__doc__


# -------------------------------------------------------------------------------- weights over time


@every
def test_labels_count_what_the_recipe_says(name: str) -> None:
    last = CLOCKS["last"]
    classroom = room(name, label_weight=0.25)
    assert classroom.method.share(last) == 0.25
    terms = classroom.learn(batch(), last)
    assert terms["label"].weight == 0.25
    assert schooled(name)[0].method.share(last) == CATALOGUE[name]().label_share


@every
def test_weights_rise_over_the_warm_up(name: str) -> None:
    first = CLOCKS["first"]
    warm, steady = room(name, warmup=4.0), room(name, ramp=Ramp(1.0, start=1.0), warmup=0.0)
    early, full = (classroom.teach(batch(), first) for classroom in (warm, steady))
    assert early.keys() == full.keys()
    scaled = [early[t].weight == pytest.approx(full[t].weight / 4) for t in full]
    # a term of what the method brings may learn at full weight; the student's terms never
    assert any(scaled)
    ended = warm.teach(batch(), CLOCKS["last"])
    want = steady.teach(batch(), CLOCKS["last"])
    assert {n: t.weight for n, t in ended.items()} == {n: t.weight for n, t in want.items()}


@every
def test_two_of_a_kind_have_terms_and_parameters_of_their_own(name: str) -> None:
    spec = calm(CATALOGUE[name])
    setting = networks(0, spec)
    setting = replace(setting, student=spec.reshape(setting))
    both = {name: spec.build(setting) for name in ("one", "two")}
    classroom, alone = seated(Combined(both), setting), enrol(spec)
    terms, few = classroom.teach(batch()), alone.teach(batch())
    assert list(terms) == [f"{who}/{term}" for who in ("one", "two") for term in few]
    count = sum(1 for _ in classroom.method.parameters())
    assert count == 2 * sum(1 for _ in alone.method.parameters())
    assert len({term.total.data_ptr() for term in terms.values()}) == len(terms)
