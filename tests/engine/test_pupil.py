"""The student's step: views, sites by name, and what is refused before training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from torch import Tensor

from quick import quick, run
from stillhouse import methods
from stillhouse.batches import Batch
from stillhouse.distiller import Distiller
from stillhouse.engine.pupil import Pupil, available_sites, check_method_sites
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.build import make_method
from stillhouse.methods.combined import Combined, NoTerms
from stillhouse.methods.logit import Logits
from stillhouse.methods.per_teacher import PerTeacher
from stillhouse.methods.setting import Setting
from stillhouse.models.ensemble import Ensemble
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Lesson, Site, Term, Terms, Trace
from tiny import CLOCK, Looking, Net, batch

TASK = Classification(5)


@dataclass(frozen=True)
class Edged(Classification):
    """With a second site, whose rows are pairs of classes."""

    sites = ("class", "edge")

    def lesson(self, student: Trace, teacher: Trace, batch: Batch, *rest: Any) -> Lesson:
        lesson = super().lesson(student, teacher, batch, *rest)
        if teacher.out is None:
            return lesson
        edge = Site(pairs(student.out), pairs(teacher.out))
        return replace(lesson, sites={**lesson.sites, "edge": edge})


def pairs(out: Tensor) -> Tensor:
    """Each class beside the next: (N, C) -> (N C, 2)."""
    return torch.stack([out, out.roll(1, 1)], -1).flatten(0, 1)


def views() -> Batch:
    rows = batch()
    return replace(rows, strong=torch.randn_like(rows.images))


def mlkd(**options: Any) -> Method:
    networks = Setting(Net(), Net(8), torch.zeros(2, 3, 12, 12))
    return make_method([methods.mlkd(**options)], networks)


# ------------------------------------------------------------------------------------------- sites


def test_methods_of_one_list_speak_at_sites_of_their_own() -> None:
    student, teacher, rows = Net().double(), Net(8).double(), batch()
    method = Combined(
        {
            "tld": Logits(presets.tld()),
            "kd": Logits(presets.kd(sites=("edge",))),
            "dist": Logits(presets.dist(sites=("edge", "class"))),
        }
    )
    assert method.sites == ("class", "edge")
    pupil: Pupil[Any] = Pupil(Tapped(student), method, Edged(5))
    terms = pupil(rows, observe(Frozen(teacher, TASK.inputs), rows), CLOCK)
    assert list(terms) == [
        "label",
        "tld/class/tld",
        "kd/edge/kd",
        *(f"dist/edge/{name}" for name in ("inter", "intra")),
        *(f"dist/class/{name}" for name in ("inter", "intra")),
    ]
    out, other = student(rows.images), teacher(rows.images)
    got = terms["kd/edge/kd"]
    torch.testing.assert_close(got.weight * got.mean(), presets.kd()(pairs(out), pairs(other)))


def test_what_is_available_is_what_a_lesson_has() -> None:
    rows = views()
    out = torch.randn(8, 5, dtype=torch.double)
    taps = {f"members.{number}": out for number in range(3)}
    for options in (
        {},
        {"views": 2},
        {"moves_teacher": True},
        {"members": 2},
        {"views": 2, "members": 3},
        {"views": 2, "members": 2, "moves_teacher": True},
    ):
        method = Looking(**options)
        pupil: Pupil[Any] = Pupil(Tapped(Net().double()), method, Edged(5))
        traces = {view: Trace(out, taps) for view in ("", "strong")}
        pupil(rows, traces, CLOCK)
        assert sorted(method.lesson.sites) == sorted(available_sites(method, Edged(5)))
        for site in method.lesson.sites:
            check_method_sites(Looking(**options, sites=(site,)), Edged(5))


@pytest.mark.parametrize(
    ("site", "options", "available"),
    [
        ("edge", {}, "class"),
        ("clas", {}, "class"),
        ("class@strong", {}, "class"),
        ("class@strong", {"moves_teacher": True}, "class, class@teacher"),
        ("class@teacher", {"views": 2}, "class, class@strong"),
        ("class@members.0", {}, "class"),
        ("class@members.2", {"members": 2}, "class, class@members.0, class@members.1"),
        ("class@members", {"members": 1}, "class, class@members.0"),
        ("class@week", {"views": 2}, "class, class@strong"),
        ("edge@strong", {"views": 2}, "class, class@strong"),
        ("", {}, "class"),
    ],
)
def test_a_site_that_no_lesson_has_is_refused(
    site: str, options: dict[str, Any], available: str
) -> None:
    method = Looking(sites=("class", site), **options)
    with pytest.raises(UserError) as error:
        Pupil(Tapped(Net()), method, TASK)
    assert str(error.value) == (
        f"the method compares the networks at site {site!r}, but this task and method have "
        f"{available}; set sites to one of them"
    )


def test_a_method_without_sites_needs_none() -> None:
    Pupil(Tapped(Net()), NoTerms(), TASK)


def test_a_preset_can_be_at_the_second_view_beside_a_method_that_has_one() -> None:
    student, teacher, rows = Net().double(), Net(8).double(), views()
    strong = presets.kd(sites=("class@strong",))
    method = Combined({"mlkd": mlkd(), "kd": Logits(strong)})
    assert method.views == 2 and method.sites == ("class", "class@strong")
    pupil: Pupil[Any] = Pupil(Tapped(student), method, TASK)
    terms = pupil(rows, observe(Frozen(teacher, TASK.inputs), rows, 2), CLOCK)
    got = terms["kd/class@strong/kd"]
    want = strong(student(rows.strong), teacher(rows.strong))
    torch.testing.assert_close(got.weight * got.mean(), want)
    assert {"label", "label_strong"} < set(terms)


@pytest.mark.parametrize("name", ["mlkd", "ctkd", "acclimation"])
def test_methods_with_parts_of_their_own_are_held_to_the_sites_too(name: str) -> None:
    spec = getattr(methods, name)(sites=("klass",))
    with pytest.raises(UserError, match="at site 'klass.*but this task and method have class"):
        Distiller(Net(), Net(8), [presets.kd(), spec], example=torch.zeros(2, 3, 12, 12))


def test_a_preset_needs_a_site() -> None:
    with pytest.raises(ValueError, match="sites must name at least one site, such as class"):
        presets.kd(sites=())


# ------------------------------------------------------------------------------- labels, gradients


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_labels_weigh_what_the_method_says(share: float) -> None:
    rows, method = views(), Looking(views=2)
    method.label_share = share
    out = torch.randn(8, 5, dtype=torch.double)
    pupil: Pupil[Any] = Pupil(Tapped(Net().double()), method, TASK)
    terms = pupil(rows, {view: Trace(out) for view in ("", "strong")}, CLOCK)
    assert list(terms) == ["label", "label_strong"]
    assert [term.weight for term in terms.values()] == [share, share]


def test_only_the_site_of_a_trained_teacher_has_its_gradient() -> None:
    rows, method = batch(), Looking(moves_teacher=True)
    out = torch.randn(8, 5, dtype=torch.double, requires_grad=True)
    pupil: Pupil[Any] = Pupil(Tapped(Net().double()), method, TASK)
    pupil(rows, {"": Trace(out, {"map": out * 2})}, CLOCK)
    sites, teacher = method.lesson.sites, method.lesson.teacher
    has_gradient = {
        name: (site.student.requires_grad, site.teacher.requires_grad)
        for name, site in sites.items()
    }
    assert has_gradient == {"class": (True, False), "class@teacher": (False, True)}
    assert not teacher.out.requires_grad and not teacher.taps["map"].requires_grad


# ---------------------------------------------------------------------------- teachers taught apart


@pytest.mark.parametrize("kind", ["kd", "mlkd"])
def test_each_teacher_has_the_terms_that_it_has_alone(kind: str) -> None:
    student, rows = Net().double(), views()
    teachers = [Net(width).double() for width in (4, 8)]

    def made() -> Method:
        return mlkd() if kind == "mlkd" else Logits(presets.kd())

    apart = PerTeacher([made(), made()])
    assert apart.members == 2
    assert apart.sites == tuple(f"{s}@members.{n}" for n in range(2) for s in made().sites)
    pupil: Pupil[Any] = Pupil(Tapped(student), apart, TASK)
    ensemble = Frozen(Ensemble(teachers), TASK.inputs, apart.teacher_taps)
    terms = pupil(rows, observe(ensemble, rows, apart.views), CLOCK)
    assert ("label_strong" in terms) == (kind == "mlkd")
    for number, teacher in enumerate(teachers):
        alone: Pupil[Any] = Pupil(Tapped(student), made(), TASK)
        frozen = Frozen(teacher, TASK.inputs)
        for name, term in alone(rows, observe(frozen, rows, apart.views), CLOCK).items():
            if name.startswith("label"):
                continue
            got = terms[f"{number}/{name}"]
            torch.testing.assert_close(got.mean(), term.mean())
            assert got.weight == pytest.approx(term.weight / 2)


# ----------------------------------------------------------------------------------------- a recipe


@pytest.mark.parametrize(
    ("method", "site"),
    [
        ("{name: kd, sites: [edge]}", "edge"),
        ("{name: tld, sites: [class, class@strong]}", "class@strong"),
        ("[kd, {name: mlkd, sites: [klass]}]", "klass"),
        ("[{name: dist, temperature: 4}, {name: acclimation, sites: [mask]}]", "mask@teacher"),
    ],
)
def test_a_recipe_with_an_unknown_site_is_a_sentence(method: str, site: str, tmp_path: Any) -> None:
    with pytest.raises(UserError, match=f"at site '{site}'") as error:
        run(tmp_path / "run", f"method={method}", "teacher.remember=false")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "run" / "student.safetensors").exists()


def test_a_recipe_says_its_sites() -> None:
    (spec,) = quick("method={name: tld, sites: [class]}").method
    assert spec == presets.tld(sites=("class",)) == presets.tld()
    with pytest.raises(UserError, match="sites must name at least one site"):
        quick("method={name: tld, sites: []}")


def test_a_term_may_not_take_the_name_of_a_label_term() -> None:
    class Clash(Method):
        def forward(self, lesson: Lesson) -> Terms:
            return {"label": Term(torch.zeros(()), torch.ones(()))}

    images, labels = torch.randn(2, 3), torch.tensor([0, 1])
    two = Batch(images, labels, torch.arange(2), torch.zeros_like(labels))
    pupil = Pupil(Tapped(torch.nn.Linear(3, 4)), Clash(), Classification(4))
    with pytest.raises(UserError, match="has a term 'label', which is the name of a label term"):
        pupil(two, {"": Trace(None)}, CLOCK)
