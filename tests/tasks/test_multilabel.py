"""Any number of classes an image: its terms, its lesson, its meter."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.metrics import average_precision_score, f1_score, precision_score, recall_score
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.engine.pupil import Pupil
from stillhouse.errors import UserError
from stillhouse.functional.losses import Asymmetric, Focal
from stillhouse.methods.logit import Logits
from stillhouse.models.taps import Tapped
from stillhouse.objectives import presets
from stillhouse.tasks.images import multi_hot
from stillhouse.tasks.meters.average_precision import MeanAveragePrecision
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.types import Trace
from tiny import CLOCK, Looking, Net, batch


def seen(n: int = 40, classes: int = 7, soft: bool = False) -> tuple[Trace, Batch]:
    """Scores and labels; an image may have no label, and the last class is nowhere."""
    share = torch.rand(n, classes, dtype=torch.double)
    label = share if soft else (share < 0.3).double()
    label[:, -1] = 0
    rows = replace(batch(n, classes, size=2), target=label)
    return Trace(3 * torch.randn(n, classes, dtype=torch.double)), rows


def several() -> Batch:
    """Images in two views, with several classes each."""
    rows = batch()
    label = (torch.rand(8, 5) < 0.4).double()
    return replace(rows, target=label, strong=torch.randn_like(rows.images))


def loop(trace: Trace, rows: Batch) -> float:
    """The cross-entropies of all labels, summed."""
    total = 0.0
    for scores, labels in zip(trace.out.tolist(), rows.target.tolist(), strict=True):
        for z, y in zip(scores, labels, strict=True):
            p = 1 / (1 + math.exp(-z))
            total -= y * math.log(p) + (1 - y) * math.log(1 - p)
    return total


# ---------------------------------------------------------------------------------------- the terms


@pytest.mark.parametrize(("reduction", "mass"), [("batch", 40), ("sum", 1), ("mean", 280)])
@pytest.mark.parametrize("soft", [False, True], ids=["hard", "soft"])
def test_labels_are_taught_by_binary_cross_entropy(reduction: Any, mass: int, soft: bool) -> None:
    trace, rows = seen(soft=soft)
    terms = Multilabel(7, reduction=reduction).supervise(trace, rows)
    assert list(terms) == ["label"]
    term, total = terms["label"], loop(trace, rows)
    assert term.total.item() == pytest.approx(total, rel=1e-9)
    assert term.mean().item() == pytest.approx(total / mass, rel=1e-9)
    assert term.mass.item() == mass
    assert term.weight == 1.0
    assert term.shared == (reduction == "sum")


@pytest.mark.parametrize(("reduction", "torchs"), [("sum", "sum"), ("mean", "mean")])
def test_torch_has_the_same_loss_and_gradient(reduction: Any, torchs: str) -> None:
    trace, rows = seen()
    out = trace.out.requires_grad_()
    loss = Multilabel(reduction=reduction).supervise(Trace(out), rows)["label"].mean()
    want = F.binary_cross_entropy_with_logits(out, rows.target, reduction=torchs)
    torch.testing.assert_close(loss, want)
    torch.testing.assert_close(
        *(torch.autograd.grad(value, out)[0] for value in (loss, want)), rtol=1e-9, atol=1e-12
    )


def test_the_gradient_of_the_paper_is_the_error_over_the_images() -> None:
    trace, rows = seen()
    out = trace.out.requires_grad_()
    Multilabel().supervise(Trace(out), rows)["label"].mean().backward()
    torch.testing.assert_close(out.grad, (out.detach().sigmoid() - rows.target) / 40)


@pytest.mark.parametrize("loss", [Asymmetric(), Focal()], ids=lambda loss: loss.kind)
def test_another_loss_can_be_named(loss: Any) -> None:
    trace, rows = seen()
    term = Multilabel(loss=loss).supervise(trace, rows)["label"]
    torch.testing.assert_close(term.total, loss(trace.out, rows.target).sum())
    assert term.mass == 40


def test_both_views_are_taught_where_there_are_two() -> None:
    net, rows = Net().double(), several()
    pupil: Pupil[Any] = Pupil(Tapped(net), Looking(views=2), Multilabel(5))
    traces = {view: Trace(torch.randn(8, 5)) for view in ("", "strong")}
    terms = pupil(rows, traces, CLOCK)
    assert list(terms) == ["label", "label_strong"]
    first, second = Trace(net(rows.images)), Trace(net(rows.strong))
    assert terms["label"].total.item() == pytest.approx(loop(first, rows), rel=1e-9)
    assert terms["label_strong"].total.item() == pytest.approx(loop(second, rows), rel=1e-9)


def test_a_class_index_is_one_label_of_its_image() -> None:
    trace, _ = seen()
    rows = batch(40, 7, size=2)
    one_hot = replace(rows, target=F.one_hot(rows.target, 7).double())
    for reduction in ("batch", "sum", "mean"):
        task = Multilabel(reduction=reduction)
        got, want = (task.supervise(trace, some)["label"] for some in (rows, one_hot))
        assert torch.equal(got.total, want.total)
        assert got.mass == want.mass


@pytest.mark.parametrize("reduction", ["batch", "sum", "mean"])
def test_no_images_are_a_zero_with_a_gradient(reduction: Any) -> None:
    out = torch.randn(0, 7, requires_grad=True)
    rows = replace(batch(0, 7), target=torch.zeros(0, 7))
    term = Multilabel(reduction=reduction).supervise(Trace(out), rows)["label"]
    term.mean().backward()
    assert term.total == 0
    assert term.mass == (1 if reduction == "sum" else 0)
    assert out.grad is not None


def test_half_precision_is_raised_for_the_labels() -> None:
    trace, rows = seen()
    half = Trace(trace.out.bfloat16())
    term = Multilabel().supervise(half, replace(rows, target=rows.target.bfloat16()))["label"]
    assert term.total.dtype == torch.float
    want = F.binary_cross_entropy_with_logits(
        half.out.float(), rows.target.float(), reduction="sum"
    )
    torch.testing.assert_close(term.total, want)


@pytest.mark.parametrize(
    "label",
    [
        torch.zeros(4, 6),
        torch.zeros(3, 5),
        torch.zeros(4, 1),
        torch.zeros(4),
        torch.tensor([0, 1, 2]),
        torch.tensor([0, 1, 2, 5]),
        torch.tensor([0, 1, 2, -1]),
    ],
    ids=["wide", "few", "narrow", "no index", "few indices", "too high", "below zero"],
)
def test_labels_that_do_not_fit_are_refused_in_a_sentence(label: Tensor) -> None:
    rows, student = replace(batch(4), target=label), Trace(torch.randn(4, 5))
    meter = Multilabel().meter()
    shape = ", ?".join(map(str, label.shape))
    want = rf"labels of dtype {label.dtype} and shape \({shape},?\) do not fit "
    for act in (
        lambda: Multilabel().supervise(student, rows),
        lambda: Multilabel().lesson(student, student, rows, CLOCK),
        lambda: meter.update(student, rows),
    ):
        with pytest.raises(UserError, match=want + r"scores of shape \(4, 5\); expected \(N, C\)"):
            act()
    assert len(meter.state()["scores"]) == 0


@pytest.mark.parametrize(
    ("options", "complaint"),
    [
        ({"reduction": "total"}, "reduction must be batch, sum or mean, got 'total'"),
        ({"share": -1}, "share must be from 0 to 100 percent, got -1"),
        ({"share": 101.0}, "share must be from 0 to 100 percent, got 101.0"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Multilabel(**options)


# --------------------------------------------------------------------------------------- the lesson


def test_the_lesson_has_one_site_with_the_classes_of_each_image() -> None:
    (student, rows), (teacher, _) = seen(), seen()
    lesson = Multilabel(7).lesson(student, teacher, rows, CLOCK)
    assert list(lesson.sites) == ["class"]
    at = lesson.sites["class"]
    assert at.student is student.out
    assert at.teacher is teacher.out
    assert at.target is lesson.labels is rows.target
    assert (at.weight, at.mass, lesson.weight) == (None, None, None)
    assert lesson.keys is rows.keys
    assert lesson.clock is CLOCK


def test_without_a_teacher_there_is_no_site() -> None:
    student, rows = seen()
    lesson = Multilabel().lesson(student, Trace(None), rows, CLOCK)
    assert lesson.sites == {}
    assert lesson.labels is rows.target


def test_an_index_becomes_a_row_of_classes_in_the_lesson() -> None:
    student, _ = seen(3)
    rows = batch(3, 7, size=2)
    lesson = Multilabel().lesson(student, student, rows, CLOCK)
    want = torch.eye(7, dtype=torch.double)[:3]
    whole = Multilabel().lesson(student, student, replace(rows, target=want.long()), CLOCK)
    for found in (lesson.labels, lesson.sites["class"].target, whole.labels):
        assert found is not None
        assert found.dtype == torch.double
        assert torch.equal(found, want)


def test_the_second_view_a_learning_teacher_and_each_of_several_have_sites_of_their_own() -> None:
    net, rows = Net().double(), several()
    method = Looking(views=2, members=2, moves_teacher=True)
    pupil: Pupil[Any] = Pupil(Tapped(net), method, Multilabel(5))
    learning = torch.randn(8, 5, dtype=torch.double, requires_grad=True)
    third, *members = torch.randn(5, 8, 5, dtype=torch.double)
    weak, strong = (
        {f"members.{number}": member for number, member in enumerate(pair)}
        for pair in (members[:2], members[2:])
    )
    pupil(rows, {"": Trace(learning, weak), "strong": Trace(third, strong)}, CLOCK)
    sites = method.lesson.sites
    first, second = net(rows.images), net(rows.strong)
    want = {
        "class": (first, learning),
        "class@strong": (second, third),
        "class@teacher": (first, learning),
        "class@members.0": (first, members[0]),
        "class@members.1": (first, members[1]),
        "class@strong@members.0": (second, members[2]),
        "class@strong@members.1": (second, members[3]),
    }
    assert sorted(sites) == sorted(want)
    for name, (student, teacher) in want.items():
        assert torch.equal(sites[name].student, student), name
        assert torch.equal(sites[name].teacher, teacher), name
        assert sites[name].target is rows.target
        # each site has one side with a gradient
        assert sites[name].student.requires_grad == (name != "class@teacher"), name
        assert sites[name].teacher.requires_grad == (name == "class@teacher"), name
    assert sites["class@teacher"].teacher is learning


def test_networks_get_the_images_and_the_second_view_is_asked_for() -> None:
    rows = batch()
    (given,) = Multilabel().inputs(rows)
    assert given is rows.images
    second = replace(rows, strong=rows.images + 1).second_view()
    assert torch.equal(second.images, rows.images + 1)
    assert second.strong is None
    with pytest.raises(UserError, match="the method needs two views of each image"):
        rows.second_view()


def test_a_guess_ranks_a_class_as_well_as_it_is_frequent() -> None:
    assert Multilabel(share=3.6).chance == 3.6
    assert Multilabel().headline in Multilabel().meter().summary()
    rows = replace(batch(20_000, 2, size=1), target=(torch.rand(20_000, 2) < 0.2).float())
    meter = Multilabel().meter()
    meter.update(Trace(torch.randn(20_000, 2)), rows)
    frequency = float(100 * rows.target.mean())
    assert meter.summary()["map"] == pytest.approx(frequency, rel=0.05)


@pytest.mark.parametrize("preset", [presets.tld(), presets.mld(), presets.ps()])
def test_a_method_of_several_labels_learns_from_the_lesson(preset: Any) -> None:
    net, rows = Net(4).double(), replace(batch(), target=(torch.rand(8, 5) < 0.4).double())
    pupil: Pupil[Any] = Pupil(Tapped(net), Logits(preset), Multilabel(5))
    teacher = Trace(Net(8).double()(rows.images).detach())
    terms = pupil(rows, {"": teacher}, CLOCK)
    assert len(terms) == 2
    for term in terms.values():
        (slope,) = torch.autograd.grad(term.mean(), net.head.weight, retain_graph=True)
        assert slope.abs().sum() > 0


# ---------------------------------------------------------------------------------------- the meter


def f1s(name: str, labels: Any, predicted: Any) -> dict[str, float]:
    options = {"average": "macro", "zero_division": 0}
    p, r = precision_score(labels, predicted, **options), recall_score(labels, predicted, **options)
    return {
        f"of1{name}": 100 * f1_score(labels, predicted, average="micro", zero_division=0),
        f"cf1{name}": 100 * 2 * p * r / (p + r),
        f"macro_f1{name}": 100 * f1_score(labels, predicted, **options),
    }


def measured(trace: Trace, rows: Batch) -> dict[str, float]:
    """Each number of the meter by scikit-learn; the scores have no ties."""
    scores, labels = trace.out.float().double().numpy(), (rows.target > 0).numpy()
    there = labels.any(0)
    areas = average_precision_score(labels[:, there], scores[:, there], average="macro")
    order = (-scores).argsort(1).argsort(1)  # place of each class in its row
    torchs = F.binary_cross_entropy_with_logits(
        torch.tensor(scores), torch.tensor(labels).double(), reduction="sum"
    )
    return {
        "map": 100 * areas,
        **f1s("", labels, scores > 0),
        **f1s("_oracle", labels, order < labels.sum(1, keepdims=True)),
        **f1s("_top3", labels, order < 3),
        "loss": float(torchs) / len(labels),
        "classes_without_positives": float((~there).sum()),
    }


def meter_of(*parts: tuple[Trace, Batch], classes: int | None = None) -> MeanAveragePrecision:
    meter = Multilabel(classes).meter()
    for trace, rows in parts:
        meter.update(trace, rows)
    return meter


def split(trace: Trace, rows: Batch, *cuts: int) -> list[tuple[Trace, Batch]]:
    return [
        (Trace(trace.out[a:b]), rows.rows(slice(a, b)))
        for a, b in zip((0, *cuts), (*cuts, len(rows.target)), strict=True)
    ]


@pytest.mark.parametrize("classes", [3, 7, 12])
def test_the_meter_says_what_scikit_learn_says(classes: int) -> None:
    trace, rows = seen(200, classes)
    summary, want = meter_of((trace, rows)).summary(), measured(trace, rows)
    assert list(summary) == list(want)
    assert summary == pytest.approx(want, rel=1e-9)
    assert want["classes_without_positives"] == 1
    assert len({round(value, 6) for value in want.values()}) > 7 or classes == 3


def test_neither_the_order_nor_the_size_of_batches_matters() -> None:
    trace, rows = seen(53)
    trace = Trace(trace.out.half())
    want = meter_of((trace, rows)).summary()
    parts = split(trace, rows, 10, 11, 11, 40)
    for order in (parts, parts[::-1]):
        got = meter_of(*order).summary()
        assert got == pytest.approx(want, rel=1e-12)
        assert got["map"] == want["map"]


def test_labels_as_indices_are_measured_as_rows_of_classes() -> None:
    trace, _ = seen(40)
    rows = batch(40, 7, size=2)
    one_hot = replace(rows, target=multi_hot(rows.target, trace.out))
    summary = meter_of((trace, rows)).summary()
    assert summary == meter_of((trace, one_hot)).summary()
    hits = (trace.out.argmax(1) == rows.target).double().mean()
    assert summary["of1_oracle"] == pytest.approx(float(100 * hits))  # one label: top-1


def test_a_perfect_network_has_all_and_its_reverse_has_little() -> None:
    _, rows = seen(60)
    kept = replace(rows, target=rows.target[:, :-1])
    right, wrong = (Trace(sign * (2 * kept.target - 1) * 30) for sign in (1, -1))
    summary = meter_of((right, kept)).summary()
    for name in ("map", "of1", "cf1", "macro_f1", "of1_oracle", "cf1_oracle", "macro_f1_oracle"):
        assert summary[name] == pytest.approx(100), name
    assert summary["loss"] == pytest.approx(0, abs=1e-9)
    worst = meter_of((wrong, kept)).summary()
    assert worst["of1"] == worst["macro_f1"] == 0
    assert worst["map"] < 60
    assert worst["loss"] == pytest.approx(30 * 6)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_no_numbers_do_not_crash_and_the_headline_stays_one(value: float) -> None:
    trace, rows = seen()
    trace.out[::3, ::2] = value
    summary = meter_of((trace, rows)).summary()
    shares = {k: v for k, v in summary.items() if k not in ("loss", "classes_without_positives")}
    assert all(0 <= share <= 100 for share in shares.values())
    lost = meter_of((Trace(torch.full((40, 7), value)), rows)).summary()
    assert lost["map"] == pytest.approx(float(100 * rows.target[:, :-1].mean()))


def test_labels_without_a_positive_are_no_precision_and_no_nan() -> None:
    trace, rows = seen()
    summary = meter_of((trace, replace(rows, target=torch.zeros(40, 7)))).summary()
    assert summary["map"] == 0.0
    assert summary["classes_without_positives"] == 7
    assert all(math.isfinite(value) for value in summary.values())


@pytest.mark.parametrize("classes", [None, 7])
def test_a_meter_that_saw_nothing_says_zero_and_has_empty_rows(classes: int | None) -> None:
    empty = Multilabel(classes).meter()
    summary = dict(empty.summary())
    assert summary.keys() == meter_of(seen()).summary().keys()
    assert summary.pop("classes_without_positives") == (classes or 0)
    assert set(summary.values()) == {0.0}
    assert {x.shape for x in empty.state().values()} == {(0, classes or 0)}
    full = meter_of(seen())
    assert {n: x.dtype for n, x in full.state().items()} == {
        n: x.dtype for n, x in empty.state().items()
    }
    assert empty.rows == empty.state().keys()


def test_a_state_is_taken_over_and_added_to() -> None:
    trace, rows = seen(53)
    want = meter_of((trace, rows)).summary()
    first, second = split(trace, rows, 20)
    meter = Multilabel().meter()
    meter.load(meter_of(first).state())
    meter.update(*second)
    assert meter.summary() == pytest.approx(want, rel=1e-12)


def test_a_meter_keeps_no_graph_and_no_view_of_what_it_was_given() -> None:
    trace, rows = seen()
    out = trace.out.float().requires_grad_()
    meter = meter_of((Trace(out), rows))
    want = meter.summary()
    with torch.no_grad():
        out.mul_(-1)
        rows.target.fill_(0)
    assert not any(value.requires_grad for value in meter.state().values())
    assert meter.summary() == want
    kept = meter.state()
    assert (kept["scores"].dtype, kept["labels"].dtype) == (torch.float, torch.uint8)
    np.testing.assert_array_equal(kept["scores"].shape, (40, 7))
