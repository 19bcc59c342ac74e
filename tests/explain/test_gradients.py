"""Gradients of terms against autograd by hand, and their verdicts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial

import pytest
import torch
from synthetic import row
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.engine.pupil import Pupil
from stillhouse.explain.gradients import TermGradient, section, term_gradients
from stillhouse.explain.section import BarChart
from stillhouse.methods.logit import Logits
from stillhouse.models import small
from stillhouse.models.taps import Tapped
from stillhouse.models.weights import state_hash
from stillhouse.objectives.presets.softmax import KD
from stillhouse.tasks.classification import Classification
from stillhouse.teachers.base import observe
from stillhouse.teachers.frozen import Frozen
from stillhouse.types import Clock, Term, Terms, Trace
from tiny import CLOCK, batch

Extra = Callable[[Tensor, Tensor], Tensor]


class Toy(nn.Module):
    """A pupil whose label loss is |w - x|^2 / 2 summed, and whose other term is given."""

    def __init__(self, extra: Extra, weight: float = 1.0) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 2.0]))
        self.extra, self.weight = extra, weight

    def forward(self, batch: Tensor, teacher: Mapping[str, Trace], clock: Clock) -> Terms:
        label = (self.w - batch).square().sum() / 2
        mass = torch.tensor(float(len(batch)))
        return {
            "label": Term(label, mass),
            "other": Term(self.extra(self.w, batch), mass, self.weight),
        }


def labels_loss(w: Tensor, x: Tensor) -> Tensor:
    return (w - x).square().sum() / 2


def other_gradient(extra: Extra, weight: float = 1.0) -> TermGradient:
    toy = Toy(extra, weight)
    batches = [torch.tensor([[0.0, 1.0], [3.0, -1.0]]), torch.tensor([[0.5, 0.5]])]
    return term_gradients(toy, toy.parameters(), lambda _: {"": Trace(None)}, batches, CLOCK)[1]


@pytest.mark.parametrize(
    ("extra", "weight", "ratio", "cosine", "verdict"),
    [
        (labels_loss, 3.0, 3, 1, "ok"),
        (labels_loss, 11.0, 11, 1, "dominant"),
        (labels_loss, 9e-4, 9e-4, 1, "negligible"),
        (lambda w, x: -labels_loss(w, x), 1.0, 1, -1, "conflicting"),
        (lambda w, x: 0 * w.sum(), 1.0, 0, None, "negligible"),
        (lambda w, x: x.sum(), 1.0, 0, None, "negligible"),
        (labels_loss, 0.0, 0, None, "negligible"),
    ],
)
def test_the_verdict_is_that_of_the_loss(
    extra: Extra, weight: float, ratio: float, cosine: float | None, verdict: str
) -> None:
    found = other_gradient(extra, weight)
    assert found.ratio == pytest.approx(ratio)
    assert found.cosine == (None if cosine is None else pytest.approx(cosine))
    assert found.verdict == verdict


def test_norm_is_that_of_the_mean_gradient_of_batches() -> None:
    toy = Toy(lambda w, x: (w * x).sum(), 2.0)
    batches = [torch.tensor([[0.0, 1.0], [3.0, -1.0]]), torch.tensor([[0.5, 0.5]])]
    label, other = term_gradients(toy, [toy.w], lambda _: {"": Trace(None)}, batches, CLOCK)
    w = toy.w.detach()
    mine = sum(w - b.mean(0) for b in batches) / 2
    theirs = 2.0 * sum(b.mean(0) for b in batches) / 2
    assert label.norm == pytest.approx(float(mine.norm())) and label.verdict == "label term"
    assert other.norm == pytest.approx(float(theirs.norm()))
    assert other.ratio == pytest.approx(float(theirs.norm() / mine.norm()))
    cosine = torch.nn.functional.cosine_similarity(mine, theirs, dim=0)
    assert other.cosine == pytest.approx(float(cosine))


def test_without_label_terms_nothing_is_compared() -> None:
    toy = Toy(labels_loss)
    batches = [torch.zeros(1, 2)]
    (_, other) = term_gradients(
        toy, [toy.w], lambda _: {"": Trace(None)}, batches, CLOCK, label_terms=()
    )
    assert (other.ratio, other.cosine, other.verdict) == (None, None, "ok")
    shown = section({"end": [other]})
    assert shown is not None and "the labels have no gradient" in shown.sentences[0]
    assert shown.charts == ()


class Noisy(nn.Module):
    """Batch statistics, dropout, and a buffer that is replaced at each call."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.drop = small.small_resnet("tiny", 5, 3), nn.Dropout(0.5)
        self.calls: Tensor
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        self.calls = self.calls + 1
        scores: Tensor = self.drop(self.net(image))
        return scores


def images(n: int) -> Batch[Tensor]:
    made = batch(n)
    return replace(made, images=made.images.float())


def test_gradients_are_those_of_training_and_the_pupil_is_not_changed() -> None:
    student = Noisy()
    student.net.stem.eval()
    teacher: Frozen[Batch[Tensor]] = Frozen(
        small.small_resnet("tiny", 5, 3), Classification(5).inputs
    )
    pupil: Pupil[Tensor] = Pupil(Tapped(student), Logits(KD()), Classification(5))
    pupil.student.model.drop.eval()
    parameters = list(student.parameters())
    parameters[0].grad = torch.ones_like(parameters[0])
    modes = [m.training for m in pupil.modules()]
    given, calls = [images(8), images(6)], student.calls
    before, taught, random = state_hash(pupil), teacher.fingerprint(), torch.get_rng_state()
    found = term_gradients(pupil, parameters, partial(observe, teacher), given, CLOCK)
    assert state_hash(pupil) == before and teacher.fingerprint() == taught
    assert [m.training for m in pupil.modules()] == modes and student.calls is calls
    assert parameters[0].grad is not None and bool((parameters[0].grad == 1).all())
    assert all(p.grad is None for p in parameters[1:])
    assert torch.equal(torch.get_rng_state(), random)
    assert [p.term for p in found] == ["label", "class/kd"] and min(p.norm for p in found) > 0


def test_two_calls_give_the_same_gradients() -> None:
    pupil: Pupil[Tensor] = Pupil(Tapped(Noisy()), Logits(KD()), Classification(5))
    teacher: Frozen[Batch[Tensor]] = Frozen(
        small.small_resnet("tiny", 5, 3), Classification(5).inputs
    )
    given, parameters = [images(8)], list(pupil.student.parameters())
    one = term_gradients(pupil, parameters, partial(observe, teacher), given, CLOCK)
    assert term_gradients(pupil, parameters, partial(observe, teacher), given, CLOCK) == one


def test_gradients_of_a_pupil_are_those_of_backward() -> None:
    pupil: Pupil[Tensor] = Pupil(
        Tapped(small.small_resnet("tiny", 5, 3)), Logits(KD()), Classification(5)
    )
    teacher: Frozen[Batch[Tensor]] = Frozen(
        small.small_resnet("tiny", 5, 3), Classification(5).inputs
    )
    given = images(8)
    traces_of = partial(observe, teacher)
    found = {
        p.term: p for p in term_gradients(pupil, pupil.parameters(), traces_of, [given], CLOCK)
    }
    grads = {}
    for name in found:
        pupil.zero_grad()
        term = pupil.train()(given, traces_of(given), CLOCK)[name]
        (term.weight * term.total / term.mass).backward()
        grads[name] = torch.cat(
            [p.grad.flatten() for p in pupil.parameters() if p.grad is not None]
        )
    label, kd = grads["label"], grads["class/kd"]
    assert found["class/kd"].norm == pytest.approx(float(kd.norm()), rel=1e-4)
    assert found["class/kd"].ratio == pytest.approx(float(kd.norm() / label.norm()), rel=1e-4)
    cosine = float(torch.nn.functional.cosine_similarity(kd, label, dim=0))
    assert found["class/kd"].cosine == pytest.approx(cosine, abs=1e-4)


@pytest.mark.parametrize(
    ("ratio", "cosine", "verdict"),
    [
        (9.9, 0.0, "ok"),
        (10.1, -0.5, "dominant"),
        (1.1e-3, 0.0, "ok"),
        (0.9e-3, -0.5, "negligible"),
        (1.0, -0.09, "ok"),
        (1.0, -0.11, "conflicting"),
    ],
)
def test_verdicts_change_at_their_thresholds(ratio: float, cosine: float, verdict: str) -> None:
    assert TermGradient("kd", ratio, ratio, cosine).verdict == verdict


def test_several_moments_share_a_table_and_a_chart() -> None:
    label = TermGradient("label", 2.0, 1.0, 1.0, is_label=True)
    moments = {
        "start": [label, TermGradient("kd", 30.0, 15.0, 0.5)],
        "end": [label, TermGradient("kd", 1.0, 0.5, -0.4), TermGradient("at", 0.0, 0.0, None)],
    }
    shown = section(moments)
    assert shown is not None
    (table,), (chart,) = shown.tables, shown.charts
    assert [line[-1] for line in table.rows] == [
        "label term", "dominant", "label term", "conflicting", "negligible",
    ]  # fmt: skip
    assert row(table, "end") == ("label", 2.0, 1.0, 1.0, "label term")
    assert isinstance(chart, BarChart) and chart.labels == ("kd", "at")
    assert [s.y for s in chart.series] == [(15.0, None), (0.5, 0.0)]
    assert shown.sentences[0].startswith("Start, kd: gradient norm 15 times that of the label loss")
    assert "decrease its weight" in shown.sentences[0]
    assert "conflicts with the labels" in shown.sentences[1] and "no gradient" in shown.sentences[2]
    assert section({}) is None
