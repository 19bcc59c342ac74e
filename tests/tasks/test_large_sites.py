"""Losses of large maps, in pieces: values, gradients and memory."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from benchmarks.dense_losses import peak_bytes
from torch import Tensor

from stillhouse.batches import Batch
from stillhouse.distributed import combine
from stillhouse.functional import site_maps
from stillhouse.methods.logit import Logits
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.objectives import presets
from stillhouse.tasks.semantic import Semantic
from stillhouse.types import Clock, Terms, Trace

CLASSES, CLOCK = 5, Clock(0, 10, 5)
SITES = ("pixel", "every_pixel", "aux")
PRESETS: dict[str, Any] = {
    "kd": presets.kd(temperature=4, sites=SITES),
    "lskd": presets.lskd(sites=SITES),
    "dkd": presets.dkd(sites=("pixel", "aux")),
    "tld": presets.tld(sites=SITES),
    "mse": presets.mse(sites=SITES),
    "dist": presets.dist(temperature=2, sites=SITES),
    "dist reference": presets.dist(temperature=2, variant="reference", sites=SITES),
    "dist cosine": presets.dist(distance="cosine", sites=SITES),
    "dist kl": presets.dist(distance="kl", sites=SITES),
}


def outputs(dtype: torch.dtype = torch.double) -> tuple[Segmentation, Segmentation]:
    random = torch.Generator().manual_seed(0)

    def maps(height: int, width: int) -> Tensor:
        return torch.randn(2, CLASSES, height, width, generator=random, dtype=dtype)

    student = Segmentation(maps(6, 8).requires_grad_(), maps(6, 8).requires_grad_())
    return student, Segmentation(maps(6, 8), maps(3, 4))


def some_mask() -> Tensor:
    random = torch.Generator().manual_seed(1)
    mask = torch.randint(0, CLASSES, (2, 24, 32), generator=random)
    mask[:, 5:12] = 255
    return mask.to(torch.uint8)


def terms_of(
    preset: Any, mask: Tensor | None, dtype: torch.dtype = torch.double
) -> tuple[Terms, Tensor, Tensor]:
    """The terms of a method, and the gradients of both of the student's maps."""
    student, teacher = outputs(dtype)
    keys = torch.arange(2)
    batch = Batch(torch.zeros(2, 3, 24, 32), mask, keys, torch.zeros_like(keys))
    lesson = Semantic(CLASSES).lesson(Trace(student), Trace(teacher), batch, CLOCK)
    terms = Logits(preset)(lesson)
    assert student.auxiliary is not None
    maps = student.logits, student.auxiliary
    slopes = torch.autograd.grad(combine(terms), maps, allow_unused=True, materialize_grads=True)
    return terms, *slopes


@pytest.mark.parametrize("labelled", [True, False])
@pytest.mark.parametrize("name", PRESETS)
def test_pieces_have_the_loss_and_the_gradient_of_the_whole(
    name: str, labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if name == "dkd" and not labelled:
        pytest.skip("it needs labels")
    mask = some_mask() if labelled else None
    whole, *slopes = terms_of(PRESETS[name], mask)
    monkeypatch.setattr(site_maps, "LARGE", 1)
    monkeypatch.setitem(site_maps.ELEMENTS_OF_A_PIECE, "cpu", CLASSES * 8 * 2)
    found, *own = terms_of(PRESETS[name], mask)
    assert found.keys() == whole.keys()
    for key, term in whole.items():
        same = found[key]
        assert (same.weight, same.shared) == (term.weight, term.shared)
        torch.testing.assert_close(same.total, term.total, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(same.mass, term.mass)
    for slope, expected in zip(own, slopes, strict=True):
        assert expected.any()
        torch.testing.assert_close(slope, expected, rtol=1e-8, atol=1e-13)


def test_half_precision_counts_every_pixel() -> None:
    term = terms_of(PRESETS["kd"], some_mask(), torch.bfloat16)[0]["pixel/kd"]
    assert term.mass.dtype is torch.float32 and term.total.dtype is torch.float32


# ------------------------------------------------------------------------------------------- memory

SHAPE = (2, 19, 512, 1024)


def at_cityscapes(stride: int) -> tuple[Tensor, Tensor, Batch[Any]]:
    number, classes, height, width = SHAPE
    student, teacher = torch.randn(2, number, classes, height // stride, width // stride)
    mask = torch.randint(0, classes, (number, height, width), dtype=torch.uint8)
    keys = torch.arange(number)
    images = torch.zeros(1).expand(number, 3, height, width)
    return student.requires_grad_(), teacher, Batch(images, mask, keys, torch.zeros_like(keys))


def copies(loss: Any) -> float:
    """Peak of forward and backward, in copies of logits of that shape."""
    return peak_bytes(lambda: loss().backward()) / (4 * torch.Size(SHAPE).numel())


@pytest.mark.parametrize(
    "preset",
    [
        presets.kd(temperature=4, sites=("pixel",)),
        presets.tld(sites=("pixel",)),
        presets.dist(sites=("pixel",)),
    ],
    ids=["kd", "tld", "dist"],
)
def test_a_method_never_needs_more_than_two_copies_of_the_logits(preset: Any) -> None:
    student, teacher, batch = at_cityscapes(1)
    task, trace = Semantic(SHAPE[1]), Trace(Segmentation(student))
    method = Logits(preset)

    def loss() -> Tensor:
        return combine(method(task.lesson(trace, Trace(Segmentation(teacher)), batch, CLOCK)))

    assert 1 < copies(loss) <= 2


def test_the_label_loss_of_pieces_is_that_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    mask, found = some_mask(), []
    for limit in (2**20, CLASSES * 8 * 2):
        monkeypatch.setattr(site_maps, "LARGE", limit)
        monkeypatch.setitem(site_maps.ELEMENTS_OF_A_PIECE, "cpu", limit)
        for target in (mask, mask[:, :6, :8]):  # larger than the logits, and of their size
            student, _ = outputs()
            term = Semantic(CLASSES).label_term(student.logits, target)
            found.append((term, torch.autograd.grad(term.total, student.logits)[0]))
    for (term, slope), (other, expected) in zip(found[:2], found[2:], strict=True):
        torch.testing.assert_close(other.total, term.total)
        torch.testing.assert_close(slope, expected)


@pytest.mark.parametrize("stride", [1, 8])
def test_the_label_loss_never_needs_more_than_two_copies(stride: int) -> None:
    student, _, batch = at_cityscapes(stride)
    task, trace = Semantic(SHAPE[1]), Trace(Segmentation(student))
    assert copies(lambda: combine(task.supervise(trace, batch))) <= 2


def test_what_counts_does_count() -> None:
    student, teacher, _ = at_cityscapes(1)

    def plain() -> Tensor:
        p, q = student.log_softmax(1), teacher.softmax(1)
        return (q * (q.log() - p)).sum()

    assert copies(plain) > 3
