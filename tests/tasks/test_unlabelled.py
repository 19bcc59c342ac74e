"""Images without labels: the labels of the others count as if these were not there."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from stillhouse.batches import Batch, Target
from stillhouse.build.run import check_labels, training_labels
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.source import FromTorch, Pixels, targets_of
from stillhouse.data.transforms import Flip, Resize
from stillhouse.distiller import Distiller
from stillhouse.distributed import combine, mean_terms
from stillhouse.errors import UserError
from stillhouse.functional.losses import BCE, Asymmetric, Focal
from stillhouse.methods.catalogue import published
from stillhouse.objectives import presets
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.types import Clock, Trace
from tiny import Net, batch

CLASSES, IMAGES = 5, 12
UNKNOWN = [1, 4, 5, 11]  # images without a label
KNOWN = [i for i in range(IMAGES) if i not in UNKNOWN]


def indices() -> list[int]:
    return [i % CLASSES for i in range(IMAGES)]


def hot() -> Tensor:
    """An image may have no class, which is not the same as no label."""
    found = (torch.rand(IMAGES, CLASSES) < 0.4).float()
    found[0] = 0
    return found


def source(several: bool, unknown: list[int]) -> FromTorch:
    labels: list[Any] = list(hot()) if several else indices()
    images = torch.randint(0, 256, (IMAGES, 3, 12, 12)).to(torch.uint8)
    pairs = [(image, None if i in unknown else labels[i]) for i, image in enumerate(images)]
    return FromTorch(pairs, "abcde", "toy")


def target_of(several: bool, unknown: list[int]) -> Target:
    """The target of all images, out of a loader."""
    data = source(several, unknown)
    loader = Loader(data, BatchSampler(IMAGES, IMAGES), (0.5,) * 3, (0.2,) * 3, transforms=[Flip()])
    return next(loader.epoch(0)).target


def rows(target: Target) -> Batch[Any]:
    return replace(batch(IMAGES, CLASSES), target=target)


def scores() -> Tensor:
    return (3 * torch.randn(IMAGES, CLASSES, dtype=torch.double)).requires_grad_()


def slope(loss: Tensor, out: Tensor) -> Tensor:
    (found,) = torch.autograd.grad(loss, out)
    return found


# -------------------------------------------------------------------------------------- the loader


def test_what_a_loader_gives_for_them() -> None:
    index = target_of(False, UNKNOWN)
    assert isinstance(index, Tensor) and index.dtype == torch.int64
    assert index.tolist() == [-1 if i in UNKNOWN else i % CLASSES for i in range(IMAGES)]
    shares = target_of(True, UNKNOWN)
    assert isinstance(shares, Tensor) and shares.shape == (IMAGES, CLASSES)
    assert ((shares == -1).all(1).nonzero().flatten().tolist()) == UNKNOWN
    assert shares[KNOWN].min() == 0 and shares[KNOWN].max() == 1
    for several in (False, True):
        assert target_of(several, list(range(IMAGES))) is None
        assert targets_of(source(several, list(range(IMAGES)))) is None


@pytest.mark.parametrize("workers", [0, 1])
def test_a_batch_may_have_no_label_at_all(workers: int) -> None:
    data = source(False, [0, 1, 2, 3])
    loader = Loader(
        data,
        BatchSampler(IMAGES, 4),
        (0.5,) * 3,
        (0.2,) * 3,
        transforms=[Resize(6)],
        strong=[Resize(6), Flip()],
        workers=workers,
    )
    first, second, _ = loader.epoch(0)
    assert first.target is None and len(first) == 4 and first.strong is not None
    assert second.target.tolist() == [4, 0, 1, 2]
    assert first.rows(slice(1, 3)).target is None
    assert first.second_view().target is None


# ------------------------------------------------------------------------------------------ classes


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_one_class_an_image(smoothing: float) -> None:
    out, task = scores(), Classification(CLASSES, smoothing)
    term = task.supervise(Trace(out), rows(target_of(False, UNKNOWN)))["label"]
    total = 0.0
    for image in KNOWN:
        logs = out[image].detach() - out[image].detach().logsumexp(0)
        for c, log in enumerate(logs.tolist()):
            share = (1 - smoothing) * (c == image % CLASSES) + smoothing / CLASSES
            total -= share * log
    assert float(term.total.detach()) == pytest.approx(total, rel=1e-12)
    assert float(term.mass) == len(KNOWN)
    found = slope(term.mean(), out)
    assert not found[UNKNOWN].any()
    goal = F.one_hot(torch.tensor(indices()), CLASSES).double()
    goal = (1 - smoothing) * goal + smoothing / CLASSES
    want = (out.detach().softmax(1) - goal)[KNOWN] / len(KNOWN)
    torch.testing.assert_close(found[KNOWN], want, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("reduction", ["batch", "mean", "sum"])
@pytest.mark.parametrize("loss", [BCE(), Asymmetric(), Focal()], ids=lambda loss: loss.kind)
def test_several_classes_an_image(reduction: Any, loss: Any) -> None:
    out, task = scores(), Multilabel(CLASSES, loss, reduction)
    target = target_of(True, UNKNOWN)
    assert isinstance(target, Tensor)
    term = task.supervise(Trace(out), rows(target))["label"]
    total, alone = 0.0, out.detach().clone().requires_grad_()
    for image in KNOWN:
        for c in range(CLASSES):
            total += float(loss(alone[image, c].detach(), target[image, c].double()))
    assert float(term.total.detach()) == pytest.approx(total, rel=1e-9)
    mass = {"batch": len(KNOWN), "mean": len(KNOWN) * CLASSES, "sum": 1}[reduction]
    assert (float(term.mass), term.shared) == (mass, reduction == "sum")
    found = slope(term.mean(), out)
    assert not found[UNKNOWN].any()
    want = slope(loss(alone[KNOWN], target[KNOWN].double()).sum() / mass, alone)
    torch.testing.assert_close(found, want, rtol=1e-12, atol=1e-15)


def test_binary_cross_entropy_by_a_loop() -> None:
    out = scores()
    target = target_of(True, UNKNOWN)
    assert isinstance(target, Tensor)
    term = Multilabel(CLASSES).supervise(Trace(out), rows(target))["label"]
    total = 0.0
    for z, y in zip(out[KNOWN].flatten().tolist(), target[KNOWN].flatten().tolist(), strict=True):
        p = 1 / (1 + math.exp(-z))
        total -= math.log(p) if y else math.log(1 - p)
    assert float(term.mean().detach()) == pytest.approx(total / len(KNOWN), rel=1e-9)


TASKS = {
    "classification": Classification(CLASSES),
    "smoothed": Classification(CLASSES, 0.1),
    **{
        reduction: Multilabel(CLASSES, reduction=reduction)
        for reduction in ("batch", "mean", "sum")
    },
}
every_task = pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)


@every_task
@pytest.mark.parametrize("form", ["none", "all unknown"])
def test_no_label_at_all_is_an_exact_zero(task: Any, form: str) -> None:
    out = scores()
    absent = torch.full((IMAGES,), -1)
    if isinstance(task, Multilabel):
        absent = -torch.ones(IMAGES, CLASSES)
    terms = task.supervise(Trace(out), rows(None if form == "none" else absent))
    assert list(terms) == ["label"]
    term = terms["label"]
    # a plain sum is divided by one, whatever there is: its mass is that of all ranks
    assert float(term.total.detach()) == 0
    assert (float(term.mass), term.shared) == ((1, True) if task is TASKS["sum"] else (0, False))
    loss = combine(terms)
    assert float(loss.detach()) == 0 and float(mean_terms(terms)["label"]) == 0
    assert not slope(loss, out).any()


@every_task
def test_a_lesson_without_labels_has_its_site(task: Any) -> None:
    out = Trace(scores())
    lesson = task.lesson(out, Trace(torch.randn(IMAGES, CLASSES)), rows(None), Clock(0, 1, 1))
    assert lesson.labels is None and lesson.sites["class"].target is None


# ------------------------------------------------------------------------------------------- scores


def test_images_without_a_label_are_not_measured() -> None:
    for task, several in ((Classification(CLASSES), False), (Multilabel(CLASSES), True)):
        out, target = scores().detach(), target_of(several, UNKNOWN)
        assert isinstance(target, Tensor)
        found, want = task.meter(), task.meter()
        found.update(Trace(out), rows(target))
        found.update(Trace(out), rows(None))
        want.update(Trace(out[KNOWN]), rows(target).rows(torch.tensor(KNOWN)))
        assert dict(found.summary()) == pytest.approx(dict(want.summary()), rel=1e-12)
        nothing = task.meter()
        nothing.update(Trace(out), rows(None))
        assert dict(nothing.summary()) == dict(task.meter().summary())


# ---------------------------------------------------------------------------------------- a pupil


@pytest.mark.parametrize("task", ["classification", "multilabel"])
def test_a_teacher_teaches_images_without_labels(task: str) -> None:
    several = task == "multilabel"
    made = Distiller(Net().double(), Net(8).double(), presets.tld(), task)
    images = batch(IMAGES, CLASSES).images
    partly, none = target_of(several, UNKNOWN), None
    terms = {
        name: made((images, target))[1] for name, target in (("partly", partly), ("none", none))
    }
    loss, said = made({"images": images})
    assert said["class/tld"] == terms["none"]["class/tld"] == terms["partly"]["class/tld"] > 0
    assert terms["none"]["label"] == said["label"] == 0 < terms["partly"]["label"]
    torch.testing.assert_close(loss.detach(), said["class/tld"])
    loss.backward()
    assert all(p.grad is not None and p.grad.any() for p in made.student.parameters())


def data(form: str, several: bool, unknown: list[int]) -> Any:
    found = source(several, unknown)
    if form == "torch":
        return found
    images = torch.stack([image for image, _ in found.dataset])
    return Pixels(images, targets_of(found), tuple("abcde"), "print", "toy")


NEEDY = [name for name, spec in published().items() if {"labels", "class"} & set(spec().needs)]


@pytest.mark.parametrize("name", NEEDY)
def test_methods_that_need_labels_are_refused(name: str) -> None:
    spec = published()[name]()
    several = "class" not in spec.needs
    for form, unknown in (("torch", [0]), ("pixels", [7]), ("pixels", list(range(IMAGES)))):
        with pytest.raises(UserError, match=f"method {name} needs the labels of every image, but"):
            check_labels([presets.kd(), spec], data(form, several, unknown))
    check_labels([presets.kd(), spec], data("pixels", several, []))
    check_labels([presets.kd()], data("pixels", several, [7]))


def test_a_memory_of_labels_needs_all_of_them() -> None:
    for unknown in ([7], list(range(IMAGES))):
        with pytest.raises(UserError, match="needs one label tensor of all samples, which toy"):
            training_labels(data("torch", False, unknown))
    assert training_labels(data("torch", False, [])).tolist() == indices()


@pytest.mark.parametrize("form", ["pixels", "torch"])
@pytest.mark.parametrize("several", [False, True])
def test_labels_that_are_not_there_are_not_mixed(form: str, several: bool) -> None:
    with pytest.raises(UserError, match=r"data\.mix mixes the labels of images, but some"):
        next(
            Loader(
                data(form, several, [7]),
                BatchSampler(IMAGES, IMAGES),
                (0.5,) * 3,
                (0.2,) * 3,
                mixing=Mix(mixup=1.0),
            ).epoch(0)
        )
