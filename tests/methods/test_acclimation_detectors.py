"""Teacher acclimation in detectors: which priors count, and which layers of the teacher learn."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone

from detectors import FAMILIES, SIZE, small_detector, some_batch
from references.plain import correlation, softmax
from stillhouse.batches import Batch, Objects
from stillhouse.build.run import check_labels
from stillhouse.data.source import Pixels
from stillhouse.distiller import Distiller
from stillhouse.errors import UserError
from stillhouse.methods.acclimation import Acclimating, Acclimation, swap_roles
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.last_layers import last_layers
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.runs.execute import execute
from stillhouse.tasks.detection import Detection
from stillhouse.types import Clock, Lesson, Site, Trace
from tiny import lesson

CLASS_LAYERS = {
    **{family: ["head.class_tower", "head.score"] for family in FAMILIES},
    "reppoints": ["head.class_tower", "head.score", "head.class_points"],
}
CLOCK = Clock(0, 10, 5)


def learning_lesson(family: str, *counts: int) -> tuple[Lesson, Tensor]:
    """The lesson with the site whose teacher learns, and the teacher's scores as a leaf."""
    batch, task = some_batch(*counts), Detection(5)
    student, teacher = (small_detector(family).double().eval()(batch.images) for _ in range(2))
    noise = torch.randn(2, *student.scores.shape, dtype=torch.double)
    leaf = (teacher.scores + 2 * noise[1]).detach().requires_grad_()
    own = Trace(replace(student, scores=student.scores + 2 * noise[0])).detached()
    reverse = task.lesson(
        own, Trace(replace(teacher, scores=leaf)), batch, CLOCK, task.assign(own, batch)
    )
    return replace(reverse, sites={"class@teacher": reverse.sites["class"]}), leaf


def rest(row: list[float], label: int) -> list[complex]:
    return [p for c, p in enumerate(softmax(row)) if c != label]


@pytest.mark.parametrize("family", FAMILIES)
def test_it_is_the_mean_over_positive_priors(family: str) -> None:
    made, leaf = learning_lesson(family, 2, 0, 3)
    labels = made.assigned.labels
    each = []
    for n, p in (labels >= 0).nonzero().tolist():
        s, t = (x[n, p].tolist() for x in (made.student.out.scores, leaf.detach()))
        label = int(labels[n, p])
        each.append(1 - correlation(rest(s, label), rest(t, label)).real)
    assert len(each) > 3
    term = Acclimating(Acclimation())(made)["class/acclimation"]
    assert float(term.mass) == len(each)
    assert float(term.mean().detach()) == pytest.approx(sum(each) / len(each), rel=1e-9)
    term.mean().backward()
    slope = leaf.grad
    assert slope is not None and not slope[labels < 0].any()
    assert (slope[labels >= 0].abs().sum(-1) > 0).all()


def test_the_kl_of_the_ablation_counts_the_same_priors() -> None:
    made, leaf = learning_lesson("atss", 2, 3)
    positive = made.assigned.labels >= 0
    s, t = made.student.out.scores[positive], leaf.detach()[positive]
    want = (s.softmax(1) * (s.log_softmax(1) - t.log_softmax(1))).sum(1).mean()
    method = Acclimating(Acclimation(classes="all", distance="kl"))
    torch.testing.assert_close(method(made)["class/acclimation"].mean().detach(), want)


@pytest.mark.parametrize("unlabelled", [False, True])
def test_without_a_positive_prior_it_is_exactly_zero(unlabelled: bool) -> None:
    made, leaf = learning_lesson("gfocal", 0, 0)
    if unlabelled:
        batch = replace(some_batch(0, 0), target=None)
        teacher = Trace(replace(made.teacher.out, scores=leaf))
        site = Detection(5).lesson(made.student, teacher, batch, CLOCK, None).sites["class"]
        made = replace(made, sites={"class@teacher": site})
    term = Acclimating(Acclimation())(made)["class/acclimation"]
    assert float(term.mass) == 0 and float(term.mean().detach()) == 0
    term.mean().backward()
    assert leaf.grad is not None and not leaf.grad.any()


def test_priors_without_weight_do_not_count() -> None:
    made, _ = learning_lesson("atss", 3, 2)
    site = made.sites["class@teacher"]
    assert site.weight is not None and site.target is not None
    place = int((site.target >= 0).nonzero()[0])
    weight = site.weight.clone()
    weight[place] = 0
    swapped = swap_roles(replace(site, weight=weight))
    assert swapped.weight is not None and swapped.weight.sum() == (site.target >= 0).sum() - 1
    assert swapped.weight[place] == 0


@pytest.mark.parametrize(("count", "classes"), [(1, "rest"), (2, "rest"), (1, "all")])
def test_too_few_classes_have_no_correlation(count: int, classes: Any) -> None:
    rows = torch.zeros(3, count)
    site = Site(rows, rows, torch.tensor([0, -1, 0]), torch.ones(3), torch.tensor(1.0))
    with pytest.raises(UserError, match="in each row, and needs 2 or more; leave it out"):
        Acclimating(Acclimation(classes=classes))(lesson({"class@teacher": site}))


# ---------------------------------------------------------------------------------- the teacher


@pytest.mark.parametrize("family", FAMILIES)
def test_the_last_block_and_the_layers_of_class_scores_learn(family: str) -> None:
    teacher = small_detector(family, backbone="stillhouse/medium")
    example = torch.zeros(1, 3, *SIZE)
    layers = last_layers(teacher, example)
    assert sorted(layers[1:]) == sorted(CLASS_LAYERS[family])
    assert layers[0] == "backbone.body.stage3.0"
    inside = [name for name, _ in teacher.named_parameters() if name.startswith(tuple(layers))]
    teacher(torch.randn(2, 3, *SIZE)).scores.sum().backward()
    assert all(teacher.get_parameter(name).grad is not None for name in inside)


@pytest.mark.parametrize("kind", [FCOS, RetinaNet])
def test_detectors_of_torchvision(kind: Any) -> None:
    backbone = resnet_fpn_backbone(backbone_name="resnet18", weights=None)
    layers = last_layers(adapt_detector(kind(backbone, 5)), torch.zeros(1, 3, *SIZE))
    assert layers == ["model.backbone.body.layer4.1", "model.head.classification_head"]


def float_batch(*counts: int) -> Batch[Objects]:
    batch = some_batch(*counts)
    return replace(batch, images=batch.images.float())


@pytest.mark.parametrize("family", ["gfocal", "reppoints"])
def test_only_these_layers_change_and_the_students_gradient_does_not(family: str) -> None:
    example, batch = torch.zeros(1, 3, *SIZE), float_batch(2, 0, 3)
    slopes, teachers = [], []
    for methods in ([presets.tld()], [presets.tld(), Acclimation(rate=1.0)]):
        torch.manual_seed(0)
        student = small_detector(family)
        teacher = small_detector(family, backbone="stillhouse/medium")
        before = {name: x.clone() for name, x in teacher.state_dict().items()}
        made = Distiller(student, teacher, methods, task="detection", example=example)
        loss, terms = made(batch)
        loss.backward()
        slopes.append([p.grad for p in student.parameters()])
        if len(methods) > 1:
            assert float(terms["acclimation/class/acclimation"]) > 0
            own = made.teacher_parameters()
            assert own and all(p.grad is not None for p in own)
            torch.optim.SGD(own, 1.0, weight_decay=0.1).step()
            layers = tuple(f"{layer}." for layer in last_layers(teacher, example))
            for name, tensor in teacher.state_dict().items():
                moved = name.startswith(layers) and name in dict(teacher.named_parameters())
                assert torch.equal(tensor, before[name]) is not moved, name
        teachers.append(teacher)
    for one, other in zip(*slopes, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)


def test_it_goes_towards_the_student() -> None:
    example, batch = torch.zeros(1, 3, *SIZE), float_batch(3, 4)
    torch.manual_seed(0)
    networks = small_detector("atss"), small_detector("atss", backbone="stillhouse/medium")
    for network in networks:
        torch.nn.init.normal_(network.head.score.weight, std=0.3)
    methods = [presets.tld(), Acclimation()]
    made = Distiller(*networks, methods, task="detection", example=example)
    optimiser = torch.optim.SGD(made.teacher_parameters(), 0.3)
    found = []
    for _ in range(8):
        loss, terms = made(batch)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        found.append(float(terms["acclimation/class/acclimation"]))
    assert found[-1] < 0.9 * found[0]


# ---------------------------------------------------------------------------------- recipes


def test_a_run_trains_both(tmp_path: Path) -> None:
    options = (
        "{backbone: stillhouse/small, strides: [4, 8], neck: {width: 16, extra: 0}, "
        "head: {width: 16, depth: 1}, scale: 4}"
    )
    recipe = load.load(
        "digits/objects",
        [
            *(f"data.{split}.count=8" for split in ("train", "val", "test")),
            "data.batch=4",
            f"student.options={options}",
            f"teacher.options={options}",
            "teacher.train.epochs=1",
            "teacher.gate=false",
            "train.epochs=1",
            "engine.device=cpu",
            "engine.tensorboard=false",
            "method=[tld, {name: acclimation, rate: 1.0}]",
        ],
    )
    made = execute(recipe, tmp_path / "run", say=lambda _: None)
    assert set(made.student["acclimation"]) == {"before", "after"}
    assert (tmp_path / "run" / "teacher.safetensors").is_file()


def test_several_classes_per_image_are_still_refused_without_boxes() -> None:
    images, hot = torch.zeros(2, 3, 8, 8, dtype=torch.uint8), torch.ones(2, 5)
    several = Pixels(images, hot, tuple("abcde"), "print", "toy")
    with pytest.raises(UserError, match="method acclimation needs one class per image, but toy"):
        check_labels([presets.dist(), Acclimation()], several)
