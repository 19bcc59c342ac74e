"""CRD: a memory of every training sample, and negatives of other classes."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from references import batchwise
from stillhouse.errors import UserError
from stillhouse.methods.contrast import CRD, Contrastive, memory_scores
from stillhouse.methods.negatives import Negatives
from stillhouse.methods.setting import Setting
from stillhouse.models.small import small_resnet
from stillhouse.types import Clock, Lesson
from tiny import CLOCK, lesson

LABELS = torch.tensor([7, 2, 7, 2, 9, 2, 2, 9, 7, 2])  # of ten samples, in no order


def setting(labels: Tensor = LABELS) -> Setting:
    example = torch.zeros(2, 1, 8, 8)
    networks = small_resnet("tiny", 4, channels=1), small_resnet("small", 4, channels=1)
    return Setting(*networks, example, lambda: labels)


def made(**options: Any) -> Contrastive:
    method = CRD(**{"negatives": 6, "dim": 5, "temperature": 0.5, **options}).build(setting())
    return method.double()


def taught(keys: list[int], clock: Clock = CLOCK, weight: Tensor | None = None) -> Lesson:
    n = len(keys)
    student, teacher = (
        {"penultimate": torch.randn(n, width, dtype=torch.double).requires_grad_()}
        for width in (8, 32)
    )
    at = lesson(student=student, teacher=teacher, clock=clock, weight=weight)
    return replace(at, keys=torch.tensor(keys, dtype=torch.long))


def part(at: Lesson, kept: list[int]) -> Lesson:
    """Some of the images, all of which count."""
    student, teacher = (
        {"penultimate": trace.taps["penultimate"][kept]} for trace in (at.student, at.teacher)
    )
    few = lesson(student=student, teacher=teacher, clock=at.clock)
    return replace(few, keys=at.keys[kept])


def vectors(method: Contrastive, at: Lesson) -> tuple[list[Any], list[Any]]:
    """Where both networks put the images, of unit length."""
    sides = (method.parts[0].student, at.student), (method.parts[0].teacher, at.teacher)
    s, t = (layer(trace.taps["penultimate"]) for layer, trace in sides)
    return tuple([batchwise.unit(row) for row in x.tolist()] for x in (s, t))


def value(method: Contrastive, at: Lesson) -> Tensor:
    (term,) = method(at).values()
    return term.mean()


# ---------------------------------------------------------------------------------------- the loss


def test_the_loss_is_that_of_loops_with_the_scale_of_the_first_batch() -> None:
    method, at = made(), taught([3, 0, 8])
    before = method.parts[0].memory.tolist()  # the student's, the teacher's
    drawn = torch.cat((at.keys[:, None], method.negatives(at.keys, None, CLOCK)), 1).tolist()
    anchors = vectors(method, at)
    want = 0.0
    for anchor, memory in zip(anchors, reversed(before), strict=True):
        powers = [
            math.exp(batchwise.dot(v, memory[k]).real / 0.5)
            for v, ks in zip(anchor, drawn, strict=True)
            for k in ks
        ]
        scale = sum(powers) / len(powers) * len(LABELS)
        want += sum(
            batchwise.crd(v, memory, ks, 0.5, scale).real / 3
            for v, ks in zip(anchor, drawn, strict=True)
        )
    (term,) = method(at).values()
    torch.testing.assert_close(term.mean().item(), want)
    assert (term.weight, float(term.mass)) == (0.8, 3.0)


def test_both_layers_learn_and_the_teacher_does_not() -> None:
    method, at = made(), taught([3, 0, 8])
    value(method, at).backward()
    assert {name for name, p in method.named_parameters() if p.grad.abs().sum() > 0} == {
        f"parts.0.{side}.{what}" for side in ("student", "teacher") for what in ("weight", "bias")
    }
    assert at.student.taps["penultimate"].grad.abs().sum() > 0
    assert at.teacher.taps["penultimate"].grad is None


def test_the_scale_stays_that_of_the_first_batch_and_is_saved() -> None:
    method = made()
    assert method.parts[0].log_scale.tolist() == [-math.inf, -math.inf]
    value(method, taught([3, 0, 8]))
    first = method.parts[0].log_scale.clone()
    value(method, taught([1, 2]))
    assert first.isfinite().all()
    assert torch.equal(method.parts[0].log_scale, first)
    again = made()
    again.load_state_dict(method.state_dict())
    assert torch.equal(again.parts[0].log_scale, first)
    assert torch.equal(again.parts[0].memory, method.parts[0].memory)


def test_the_state_is_both_layers_both_memories_and_the_scale() -> None:
    assert {name: tuple(x.shape) for name, x in made().state_dict().items()} == {
        "parts.0.student.weight": (5, 8),
        "parts.0.student.bias": (5,),
        "parts.0.teacher.weight": (5, 32),
        "parts.0.teacher.bias": (5,),
        "parts.0.memory": (2, 10, 5),
        "parts.0.log_scale": (2,),
    }


def test_images_without_weight_are_as_if_absent() -> None:
    """For the loss, for the draws, for the scale, and for the memory."""
    method, other = made(), made()
    other.load_state_dict(method.state_dict())
    at = taught([3, 0, 8, 4], weight=torch.tensor([0.0, 1, 0, 1]))
    torch.testing.assert_close(value(method, at), value(other, part(at, [1, 3])))
    for name, found in method.state_dict().items():
        torch.testing.assert_close(found, other.state_dict()[name])


def test_a_batch_that_counts_nothing_changes_nothing() -> None:
    method = made()
    before = {name: x.clone() for name, x in method.state_dict().items()}
    for at in (taught([]), taught([3, 4], weight=torch.zeros(2))):
        loss = value(method, at)
        loss.backward()
        assert loss == 0
        assert not at.student.taps["penultimate"].grad.any()
    assert all(torch.equal(x, before[name]) for name, x in method.state_dict().items())


# -------------------------------------------------------------------------------------- the memory


def test_the_memory_moves_half_way_to_where_samples_were_seen() -> None:
    method, at = made(), taught([3, 0])
    before = method.parts[0].memory.clone()
    value(method, at)
    after = method.parts[0].memory
    for side, seen in enumerate(vectors(method, at)):
        for key, vector in zip((3, 0), seen, strict=True):
            old = before[side, key].tolist()
            middle = [(a + b.real) / 2 for a, b in zip(old, vector, strict=True)]
            want = torch.tensor([z.real for z in batchwise.unit(middle)], dtype=torch.double)
            torch.testing.assert_close(after[side, key], want)
    others = [k for k in range(10) if k not in (3, 0)]
    assert torch.equal(after[:, others], before[:, others])


def test_a_sample_that_is_there_twice_is_remembered_as_it_was_last() -> None:
    method, at = made(), taught([3, 5, 3])
    other = made()
    other.load_state_dict(method.state_dict())
    value(method, at)
    value(other, part(at, [1, 2]))
    torch.testing.assert_close(method.parts[0].memory, other.parts[0].memory)


def test_nothing_is_remembered_outside_of_training() -> None:
    method = made().eval()
    before = {name: x.clone() for name, x in method.state_dict().items()}
    assert value(method, taught([3, 0, 8])).isfinite()
    assert all(torch.equal(x, before[name]) for name, x in method.state_dict().items())


def test_what_is_remembered_does_not_disturb_the_gradient() -> None:
    """The memory is written between forward and backward."""
    method, still = made(), made()
    still.load_state_dict(method.state_dict())
    still.eval()
    at = taught([3, 0, 8])
    slopes = [
        torch.autograd.grad(value(m, at), at.student.taps["penultimate"]) for m in (method, still)
    ]
    torch.testing.assert_close(*slopes)


def test_the_memory_begins_spread_as_in_the_paper() -> None:
    memory = CRD(negatives=2).build(setting(torch.arange(500) % 5)).parts[0].memory
    bound = (128 / 3) ** -0.5
    assert memory.abs().max() <= bound
    assert memory.abs().max() > 0.99 * bound
    assert memory.mean().abs() < 0.01


def test_few_samples_are_looked_up_one_by_one_and_many_together() -> None:
    memory, anchors = torch.randn(9, 4), torch.randn(2, 4)
    few, many = torch.randint(9, (2, 4)), torch.randint(9, (2, 5))
    for samples in (few, many):
        want = (memory[samples] * anchors[:, None]).sum(2)
        torch.testing.assert_close(memory_scores(anchors, memory, samples), want)


# ----------------------------------------------------------------------------------- the negatives


def test_negatives_are_of_other_classes_and_all_of_them_come() -> None:
    keys = torch.arange(10)
    drawn = Negatives(LABELS, 600, seed=0)(keys, None, CLOCK)
    assert drawn.shape == (10, 600)
    for key, row in zip(keys, drawn, strict=True):
        others = (LABELS[key] != LABELS).nonzero().flatten()
        assert row.unique().tolist() == others.tolist()
        counts = torch.stack([(row == other).sum() for other in others])
        expected = 600 / len(others)
        assert ((counts - expected).abs() < 5 * expected**0.5).all()


def test_draws_are_those_of_the_step_and_the_seed() -> None:
    keys, later = torch.tensor([0, 1]), replace(CLOCK, step=CLOCK.step + 1)
    first = Negatives(LABELS, 20, seed=0)(keys, None, CLOCK)
    torch.randn(7)  # what else is random does not matter
    assert torch.equal(Negatives(LABELS, 20, seed=0)(keys, None, CLOCK), first)
    assert not torch.equal(Negatives(LABELS, 20, seed=0)(keys, None, later), first)
    assert not torch.equal(Negatives(LABELS, 20, seed=1)(keys, None, CLOCK), first)


# ---------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0}, "`temperature` must be positive, got 0"),
        ({"negatives": 0}, "`negatives` must be at least 1, got 0"),
        ({"momentum": 1.0}, r"`momentum` must be in \[0, 1\), got 1.0"),
        ({"seed": -1}, "`seed` must be non-negative, got -1"),
    ],
)
def test_options_that_make_no_loss_are_refused(options: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CRD(**options)


def test_samples_of_one_class_have_no_negatives() -> None:
    with pytest.raises(UserError, match="all 4 are of one class"):
        CRD().build(setting(torch.ones(4, dtype=torch.long)))


def test_images_of_several_classes_have_no_other_class() -> None:
    with pytest.raises(UserError, match="the labels have shape 4 x 3"):
        CRD().build(setting(torch.ones(4, 3)))


def test_the_classes_of_all_samples_have_to_be_known() -> None:
    with pytest.raises(UserError, match="needs their classes"):
        CRD().build(
            Setting(small_resnet("tiny", 4), small_resnet("tiny", 4), torch.zeros(2, 3, 8, 8))
        )


def test_which_sample_an_image_is_has_to_be_known() -> None:
    with pytest.raises(UserError, match="needs the index of each sample"):
        made()(replace(taught([1]), keys=None))
