"""RKD, PKT and SP at pairs of taps, and correlation congruence in both variants."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from references import batchwise
from stillhouse.errors import UserError
from stillhouse.functional import relation
from stillhouse.methods.correlation import CC
from stillhouse.methods.relational import PKT, RKD, SP, spatial_mean, vector_tap
from stillhouse.methods.review import ReviewKD
from stillhouse.methods.setting import Setting
from stillhouse.models import zoo
from stillhouse.models.labelwise import LabelwiseHead, labelwise
from stillhouse.models.small import small_resnet
from stillhouse.models.taps import Tapped
from stillhouse.types import Clock, Lesson, Term
from tiny import CLOCK, lesson

SPECS = [RKD(), PKT(), SP(), CC(), CC(variant="reference")]
every = pytest.mark.parametrize("spec", SPECS, ids=["rkd", "pkt", "sp", "cc", "cc-reference"])


def setting() -> Setting:
    example = torch.zeros(2, 1, 8, 8)
    return Setting(
        small_resnet("tiny", 4, channels=1), small_resnet("small", 4, channels=1), example
    )


def taught(n: int = 5, weight: Tensor | None = None, **fields: Any) -> Lesson:
    """Vectors as wide as those of the setting, and maps."""
    student = {"penultimate": torch.randn(n, 8), "last": torch.randn(n, 8, 4, 4)}
    teacher = {"penultimate": torch.randn(n, 32), "last": torch.randn(n, 32, 2, 2)}
    student = {name: tap.requires_grad_() for name, tap in student.items()}
    teacher = {name: tap.requires_grad_() for name, tap in teacher.items()}
    return lesson(student=student, teacher=teacher, weight=weight, **fields)


def rows(at: Lesson, tap: str) -> tuple[list[Any], list[Any]]:
    s, t = (trace.taps[tap].double().flatten(1).tolist() for trace in (at.student, at.teacher))
    return s, t


def worth(terms: dict[str, Term]) -> float:
    return sum(term.weight * term.mean().item() for term in terms.values())


def test_the_terms_are_the_losses_of_loops_with_the_weights_of_the_papers() -> None:
    at = taught()
    vectors, maps = rows(at, "penultimate"), rows(at, "last")
    want = {
        "rkd": 25 * batchwise.rkd_distance(*vectors) + 50 * batchwise.rkd_angle(*vectors),
        "pkt": 3e4 * batchwise.pkt(*vectors),
        "sp": 3000 * batchwise.sp(*maps),
        "cc": 100 * batchwise.cc(*vectors),
    }
    for spec in SPECS[:4]:
        found = worth(spec.build(setting())(at))
        assert found == pytest.approx(want[spec.name].real, rel=1e-4), spec.name


def test_distances_and_angles_are_terms_of_their_own() -> None:
    terms = RKD(distance=2.0, angle=3.0).build(setting())(taught())
    assert {name: term.weight for name, term in terms.items()} == {
        "penultimate/distance": 2.0,
        "penultimate/angle": 3.0,
    }
    assert list(RKD(angle=0).build(setting())(taught())) == ["penultimate/distance"]


def test_the_reference_variant_of_cc_embeds_both_networks() -> None:
    method, at = CC(variant="reference", dim=6).build(setting()), taught()
    (term,) = method(at).values()
    embedded = (
        method.student[0](at.student.taps["penultimate"]),
        method.teacher[0](at.teacher.taps["penultimate"]),
    )
    assert term.weight == 0.02
    torch.testing.assert_close(term.mean(), relation.neighbour_relation(*embedded))
    term.mean().backward()
    assert method.teacher[0].weight.grad.abs().sum() > 0  # the layer learns, the teacher does not
    assert at.teacher.taps["penultimate"].grad is None


@every
def test_the_teacher_gets_no_gradient_and_the_student_some(spec: Any) -> None:
    at, method = taught(), spec.build(setting())
    sum(term.mean() for term in method(at).values()).backward()
    (tap,) = method.student_taps
    assert at.student.taps[tap].grad.abs().sum() > 0
    assert all(tap.grad is None for tap in at.teacher.taps.values())


@every
def test_images_without_weight_are_as_if_absent(spec: Any) -> None:
    method, at = spec.build(setting()), taught(weight=torch.tensor([1.0, 0, 2, 0, 1]))
    kept = [0, 2, 4]
    few = lesson(
        student={name: tap[kept] for name, tap in at.student.taps.items()},
        teacher={name: tap[kept] for name, tap in at.teacher.taps.items()},
    )
    torch.testing.assert_close(worth(method(at)), worth(method(few)))


@every
def test_weights_rise_by_the_epoch(spec: Any) -> None:
    risen = type(spec)(**{**vars(spec), "warmup": 4.0}).build(setting())
    start, end = risen(taught(clock=Clock(0, 40, 10))), risen(taught(clock=Clock(30, 40, 10)))
    for name, term in start.items():
        assert term.weight == end[name].weight / 4


def test_several_taps_are_several_terms() -> None:
    pairs = (("penultimate", "penultimate"), ("penultimate", "last"))
    terms = PKT(pairs=pairs).build(setting())(taught())
    assert list(terms) == ["penultimate-penultimate/pkt", "penultimate-last/pkt"]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: RKD(distance=0, angle=0), "distance and angle are both 0"),
        (lambda: RKD(eps=0), "`eps` must be positive"),
        (lambda: PKT(eps=0), "`eps` must be positive"),
        (lambda: CC(gamma=0), "`gamma` must be positive, got 0"),
        (lambda: CC(order=0), "`order` must be at least 1, got 0"),
        (lambda: CC(dim=0), "`dim` must be at least 1, got 0"),
        (lambda: SP(pairs=()), "`pairs` must name at least one"),
    ],
)
def test_options_that_make_no_loss_are_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_map_is_no_vector_to_embed() -> None:
    spec = CC(variant="reference", pairs=(("last", "last"),))
    with pytest.raises(UserError, match=r"tap 'last' gives 2 x 8 x 4 x 4; name vectors"):
        spec.build(setting())


# --------------------------------------------------------------- where no classifier reads a vector


IMAGE = torch.randn(2, 3, 32, 32)


def labelwise_pair(name: str = "stillhouse/small") -> Setting:
    head = LabelwiseHead(8, 2, 8)
    student, teacher = (
        labelwise(zoo.create(one, 4), 4, IMAGE, head) for one in (name, "stillhouse/medium")
    )
    return Setting(student, teacher, IMAGE)


@pytest.mark.parametrize("spec", [RKD(), PKT()], ids=["rkd", "pkt"])
def test_what_a_labelwise_head_looks_at_stands_for_the_vector(spec: Any) -> None:
    setting = labelwise_pair()
    method = spec.build(setting)
    assert method.student_taps == method.teacher_taps == ("tokens",)
    images = torch.randn(6, 3, 32, 32)
    ours, theirs = (
        Tapped(network.eval(), ["tokens", "last"], (setting.example,))(images)
        for network in (setting.student, setting.teacher)
    )
    terms = method(Lesson(ours, theirs, {}, CLOCK))
    pooled = ours.taps["last"].mean((2, 3)), theirs.taps["last"].mean((2, 3))
    assert len(terms) == len(spec.relations())
    for name, (compare, weight) in spec.relations().items():
        torch.testing.assert_close(terms[f"tokens/{name}"].mean(), compare(*pooled))
        assert terms[f"tokens/{name}"].weight == weight


def test_a_network_without_a_vector_has_its_last_map_related() -> None:
    bare = nn.Sequential(nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3))  # a map of scores
    assert vector_tap(bare, torch.randn(2, 3, 12, 12)) == "last"
    whole = zoo.create("stillhouse/small", 4)
    assert vector_tap(whole, torch.randn(2, 3, 32, 32)) == "penultimate"


@pytest.mark.parametrize("shape", [(5, 3), (5, 7, 3), (5, 3, 2, 4)])
def test_places_are_averaged(shape: tuple[int, ...]) -> None:
    tap = torch.randn(shape)
    found = spatial_mean(tap)
    assert found.shape == (5, 3)
    for row in range(5):
        for channel in range(3):
            if len(shape) == 2:
                values = tap[row, channel]
            elif len(shape) == 3:
                values = tap[row, :, channel]
            else:
                values = tap[row, channel]
            assert float(found[row, channel]) == pytest.approx(float(values.mean()), abs=1e-6)


def test_levels_without_vectors_are_reviewed_by_their_maps() -> None:
    pairs = ReviewKD().taps(labelwise_pair())
    assert all(student.startswith("stage") for student, _ in pairs) and len(pairs) == 3
    plain = Setting(zoo.create("stillhouse/small", 4), zoo.create("stillhouse/medium", 4), IMAGE)
    assert ReviewKD().taps(plain)[-1] == ("penultimate", "penultimate")
