"""CD, ID and L2D: against loops, on any labels and weights, and where they cannot be."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from references import binary
from references import labelwise as loops
from stillhouse.errors import UserError
from stillhouse.methods.base import Method
from stillhouse.methods.labelwise import CD, ID, L2D
from stillhouse.methods.logit import Logits
from stillhouse.methods.setting import Setting
from stillhouse.models.labelwise import LabelwiseHead, labelwise
from stillhouse.models.small import small_resnet
from stillhouse.objectives import presets
from stillhouse.types import Clock, Lesson, Site, Term, Trace
from tiny import CLOCK

CLASSES, WIDTHS = 5, (4, 6)  # of the student's embeddings and the teacher's
LABELS = torch.tensor(  # images of 3, 4, 2, 1, 0, 5 classes; classes of 4, 3, 2, 4, 2 images
    [[1, 0, 0, 1, 1], [1, 1, 1, 1, 0], [1, 1, 0, 0, 0], [0, 0, 0, 1, 0], [0] * 5, [1] * 5]
)
SPECS = {"cd": CD, "id": ID, "l2d": L2D}
every = pytest.mark.parametrize("name", SPECS)
single = pytest.mark.parametrize("name", ["cd", "id"])
variants = pytest.mark.parametrize("variant", ["reference", "paper"])


def network(size: str, width: int, classes: int = CLASSES) -> nn.Module:
    example = torch.zeros(2, 1, 8, 8)
    head = LabelwiseHead(width, 2, 8, dropout=0.0)
    return labelwise(small_resnet(size, classes, channels=1), classes, example, head)


def setting(student: nn.Module | None = None, teacher: nn.Module | None = None) -> Setting:
    return Setting(
        student or network("tiny", WIDTHS[0]),
        teacher or network("little", WIDTHS[1]),
        torch.zeros(2, 1, 8, 8),
    )


def made(name: str, **options: Any) -> Method:
    return SPECS[name](**options).build(setting())


def taught(labels: Tensor = LABELS, weight: Tensor | None = None, clock: Clock = CLOCK) -> Lesson:
    """Embeddings and logits of both networks, all of which could get a gradient."""
    n = len(labels)
    taps = [torch.randn(n, CLASSES, w, dtype=torch.double, requires_grad=True) for w in WIDTHS]
    student, teacher = torch.randn(2, n, CLASSES, dtype=torch.double)
    ours = Trace(student.requires_grad_(), {"embeddings": taps[0]})
    theirs = Trace(teacher.requires_grad_(), {"embeddings": taps[1]})
    site = Site(student, teacher, labels, weight)
    return Lesson(ours, theirs, {"class": site}, clock, weight=weight, labels=labels)


def embeddings(at: Lesson) -> tuple[list[Any], list[Any]]:
    student, teacher = (trace.taps["embeddings"].tolist() for trace in (at.student, at.teacher))
    return student, teacher


def worth(terms: dict[str, Term]) -> float:
    return sum(term.weight * term.mean().item() for term in terms.values())


# --------------------------------------------------------------------------------------- values


@variants
def test_the_terms_are_the_losses_of_loops_with_the_weights_of_the_code(variant: str) -> None:
    at, paper = taught(), variant == "paper"
    labels = LABELS.tolist()
    for name, weight, loop in (
        ("cd", 100.0, loops.class_aware),
        ("id", 1000.0, loops.instance_aware),
    ):
        (place, term), *more = made(name, variant=variant)(at).items()
        assert not more
        assert (place, term.weight) == (f"embeddings/{name}", weight)
        want = loop(*embeddings(at), labels, paper).real
        assert want > 0.1
        assert term.mean().item() == pytest.approx(want)


def test_several_classes_are_those_of_a_share_above_zero() -> None:
    at = taught()
    shares = replace(at, labels=LABELS * torch.rand(LABELS.shape).clamp(min=0.1))
    for name in SPECS:
        assert worth(made(name)(shares)) == worth(made(name)(at))


def test_one_class_an_image_is_a_label_too() -> None:
    """Images of a class can be compared then, the classes of an image cannot."""
    index = torch.tensor([0, 3, 3, 0, 3, 3])
    at = taught(index)
    hot = replace(at, labels=nn.functional.one_hot(index, CLASSES))
    found = worth(made("cd")(at))
    assert found == worth(made("cd")(hot)) > 0
    (term,) = made("id")(at).values()
    term.mean().backward()
    assert term.total == 0
    assert not at.student.taps["embeddings"].grad.any()


@every
@variants
def test_a_gradient_is_where_a_class_is_in_a_group_of_three_and_nowhere_else(
    name: str, variant: str
) -> None:
    """Or of two, in the paper."""
    at, method = taught(), made(name, variant=variant)
    sum(term.mean() for term in method(at).values()).backward()
    least = 3 if variant == "reference" else 2
    ours = {
        "cd": LABELS * (LABELS.sum(0) >= least),
        "id": LABELS * (LABELS.sum(1) >= least)[:, None],
    }
    want = ours["cd"] + ours["id"] if name == "l2d" else ours[name]
    slope = at.student.taps["embeddings"].grad.abs().sum(2)
    assert torch.equal(slope > 0, want > 0)
    assert at.teacher.taps["embeddings"].grad is None
    assert at.teacher.out.grad is None


@every
def test_a_batch_without_classes_is_a_zero_with_a_gradient(name: str) -> None:
    for n in (0, 3):
        at = taught(torch.zeros(n, CLASSES))
        terms = made(name, **({"mld": 0} if name == "l2d" else {}))(at)
        sum(term.total for term in terms.values()).backward()
        assert worth(terms) == 0
        assert not at.student.taps["embeddings"].grad.any()


# -------------------------------------------------------------------------------------- weights


@every
def test_images_without_weight_are_as_if_absent(name: str) -> None:
    at, kept = taught(weight=torch.tensor([1.0, 0, 1, 1, 1, 1])), [0, 2, 3, 4, 5]
    few = taught(LABELS[kept])

    def part(trace: Trace) -> Trace:
        return Trace(trace.out[kept], {n: tap[kept] for n, tap in trace.taps.items()})

    site = at.sites["class"]
    rows = Site(site.student[kept], site.teacher[kept], LABELS[kept])
    few = replace(few, student=part(at.student), teacher=part(at.teacher), sites={"class": rows})
    assert worth(made(name)(at)) == pytest.approx(worth(made(name)(few)))
    assert worth(made(name)(at)) != pytest.approx(worth(made(name)(replace(at, weight=None))))


def test_an_image_counts_by_its_weight_in_id_and_whole_in_cd() -> None:
    weight = torch.tensor([0.5, 2, 1, 1, 1, 0.25])
    at = taught(weight=weight)
    want = loops.instance_aware(*embeddings(at), LABELS.tolist(), weight=weight.tolist())
    assert worth(made("id")(at)) == pytest.approx(1000 * want.real)
    assert worth(made("cd")(at)) == worth(made("cd")(replace(at, weight=None)))


def test_id_is_a_sum_over_images_and_not_a_mean() -> None:
    at = taught(LABELS.repeat(2, 1))
    (term,) = made("id")(at).values()
    assert (term.mass.item(), term.shared) == (1, True)
    (cd,) = made("cd")(at).values()
    assert (cd.mass.item(), cd.shared) == (1, False)  # every rank has the whole of it


@every
def test_weights_rise_by_the_epoch(name: str) -> None:
    risen = made(name, warmup=4.0)
    start, end = (risen(taught(clock=clock)) for clock in (Clock(0, 40, 10), Clock(30, 40, 10)))
    for place, term in start.items():
        assert term.weight == end[place].weight / 4


# ---------------------------------------------------------------------------------------- whole


@variants
def test_l2d_is_its_three_parts(variant: str) -> None:
    at = taught()
    parts = [Logits(presets.mld(weight=10.0)), made("cd", variant=variant)]
    parts.append(made("id", variant=variant))
    whole = made("l2d", variant=variant)(at)
    assert list(whole) == ["class/mld", "embeddings/cd", "embeddings/id"]
    want = {name: term for part in parts for name, term in part(at).items()}
    for name, term in whole.items():
        assert term.weight == want[name].weight
        assert abs(term.mean().item() - want[name].mean().item()) < 1e-12
    mld = binary.mld(at.student.out.tolist(), at.teacher.out.tolist())
    assert whole["class/mld"].mean().item() == pytest.approx(mld.real)


def test_l2d_s_options_reach_its_parts() -> None:
    method = made("l2d", mld=2.0, cd=3.0, id=0, label_weight=0.5, warmup=2.0)
    terms = method(taught(clock=Clock(0, 40, 10)))
    assert {name: term.weight for name, term in terms.items()} == {
        "class/mld": 1.0,
        "embeddings/cd": 1.5,
    }
    assert method.label_share == method.share(CLOCK) == 0.5


@every
def test_a_method_asks_for_labels_and_trains_nothing(name: str) -> None:
    method = made(name)
    assert method.needs_labels
    assert method.student_taps == method.teacher_taps == ("embeddings",)
    assert not list(method.parameters())


@single
def test_several_taps_are_several_terms(name: str) -> None:
    other = "embeddings.norms.2"
    method, at = made(name, pairs=(("embeddings",) * 2, (other, "embeddings"))), taught()
    student = Trace(at.student.out, at.student.taps | {other: at.teacher.taps["embeddings"]})
    terms = method(replace(at, student=student))
    assert list(terms) == [f"embeddings/{name}", f"{other}/{name}"]
    assert terms[f"{other}/{name}"].total == 0 < terms[f"embeddings/{name}"].total


# --------------------------------------------------------------------------------------- errors


@every
def test_a_network_without_label_wise_embeddings_is_told_where_to_get_them(name: str) -> None:
    plain = small_resnet("tiny", CLASSES, channels=1)
    for who, at in (("student", setting(student=plain)), ("teacher", setting(teacher=plain))):
        with pytest.raises(UserError) as raised:
            SPECS[name]().build(at)
        said = str(raised.value)
        want = f"method {name} needs label-wise embeddings, which the {who} does not give: Small"
        assert said.startswith(want)
        assert "SmallResNet has no module or alias 'embeddings'" in said
        assert "student.head=labelwise and teacher.head=labelwise" in said
        assert "method.pairs" in said


@pytest.mark.parametrize(
    ("tap", "gives"),
    [
        ("classifier", "2 x 5"),
        ("tokens", "2 x 16 x 8"),  # of 16 places, not of 5 classes
        ("trunk.model.stage1", "2 x 4 x 8 x 8"),
    ],
)
@every
def test_a_tap_of_another_shape_is_refused(name: str, tap: str, gives: str) -> None:
    sentence = f"the student's tap '{tap}' gives {gives}; set student.head=labelwise"
    with pytest.raises(UserError, match=sentence):
        made(name, pairs=((tap, "embeddings"),))


@every
def test_networks_of_other_classes_are_refused(name: str) -> None:
    at = setting(teacher=network("little", WIDTHS[1], classes=7))
    sentence = (
        "the student's tap 'embeddings' has 5 classes and the teacher's 'embeddings' 7; give both "
        "networks the classes of the data"
    )
    with pytest.raises(UserError, match=sentence):
        SPECS[name]().build(at)


@every
def test_stages_are_no_label_wise_embeddings(name: str) -> None:
    with pytest.raises(UserError, match=f"method {name} needs label-wise embeddings"):
        made(name, pairs="stages")


@single
def test_labels_have_to_be_there_and_fit(name: str) -> None:
    with pytest.raises(UserError, match=f"method {name} needs the classes of each image"):
        made(name)(replace(taught(), labels=None))
    with pytest.raises(UserError, match="there are 5 embeddings per image and 7 classes"):
        made(name)(replace(taught(), labels=torch.ones(6, 7)))


def test_options_that_make_no_loss_are_refused() -> None:
    with pytest.raises(ValueError, match="mld, cd and id are all 0"):
        L2D(mld=0, cd=0, id=0)
    with pytest.raises(ValueError, match="`pairs` must name at least one"):
        CD(pairs=())
