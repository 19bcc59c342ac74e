"""The Distiller on detectors of torchvision, in a loop and with batches of torchvision's form."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from detectors import SIZE, some_objects
from stillhouse.batches import Objects
from stillhouse.distiller import Distiller
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.detectors.torchvision.adapter import TorchvisionDetector
from stillhouse.objectives import presets
from torchvision_detectors import (
    CLASSES,
    STRIDES,
    listed,
    own_outputs,
    seeded,
    small_fcos,
    small_retinanet,
)

Batch = tuple[Tensor, list[dict[str, Tensor]]]


def scenes(*counts: int) -> Batch:
    """Images with so many objects each, as torchvision's references have them."""
    random = torch.Generator().manual_seed(3)
    images = torch.randn(len(counts), 3, *SIZE, generator=random)
    found = listed(some_objects(*counts, classes=CLASSES))
    return images, [{"boxes": one["boxes"].float(), "labels": one["labels"]} for one in found]


def distiller(make: Any, method: Any = None, **options: Any) -> Distiller:
    student, teacher = seeded(make), make()
    return Distiller(
        student, teacher, method or presets.tld(subtract_entropy=True), task="detection", **options
    )


@pytest.mark.parametrize(("make", "rate"), [(small_fcos, 0.01), (small_retinanet, 0.3)])
def test_the_student_learns_and_the_teacher_does_not(make: Any, rate: float) -> None:
    made, batch = distiller(make), scenes(3, 0, 4)
    teacher = made.teacher.network.model
    before = made.teacher.fingerprint()
    optimiser = torch.optim.SGD(made.parameters(), rate, momentum=0.9)
    losses = []
    for _ in range(20):
        optimiser.zero_grad()
        loss, terms = made(batch)
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
        assert all(bool(value.isfinite()) for value in terms.values())
    assert losses[-1] < 0.85 * losses[0]
    assert all(parameter.grad is not None for parameter in made.student.parameters())
    assert all(p.grad is None and not p.requires_grad for p in teacher.parameters())
    assert made.teacher.fingerprint() == before
    assert made.student.training and not teacher.training


def test_the_label_terms_are_those_of_torchvision_and_the_method_is_beside_them() -> None:
    made, (images, targets) = distiller(small_fcos, presets.tld(label_weight=1.0)), scenes(2, 1)
    loss, terms = made((images, targets))
    assert isinstance(made.student, TorchvisionDetector)
    model: Any = made.student.model
    raw, anchors, counts = own_outputs(model, images)
    own = model.compute_loss(targets, raw, anchors, counts)
    assert {name for name in terms if "/" not in name} == {"class", "box", "quality"}
    torch.testing.assert_close(terms["class"], own["classification"])
    torch.testing.assert_close(terms["box"], own["bbox_regression"])
    torch.testing.assert_close(terms["quality"], own["bbox_ctrness"])
    torch.testing.assert_close(loss.detach(), sum(terms.values(), torch.zeros(())))
    (distilled,) = (value for name, value in terms.items() if "/" in name)
    assert float(distilled) > 0


def test_scores_of_equal_detectors_do_not_differ() -> None:
    equal = TorchvisionDetector(seeded(small_fcos))  # adapted already
    for teacher, differ in ((equal, False), (small_fcos(), True)):
        made = Distiller(seeded(small_fcos), teacher, presets.mse(), task="detection")
        terms = made(scenes(2, 1))[1]
        assert (float(terms["class/mse"]) > 0) is differ


def test_forms_of_a_batch_give_one_loss() -> None:
    made, (images, targets) = distiller(small_retinanet).eval(), scenes(2, 0)
    labels = torch.cat([one["labels"] for one in targets])
    boxes = torch.cat([one["boxes"] for one in targets])
    objects = Objects(boxes, labels, torch.tensor([0, 0]), images=2)
    forms = [(images, targets), (list(images), targets), (images, objects)]
    losses = torch.stack([made(form)[0].detach() for form in forms])
    assert (losses == losses[0]).all() and losses[0] > 0


def test_the_users_module_is_trained_in_place_and_stays_itself() -> None:
    student, batch = seeded(small_fcos), scenes(2, 1)
    state = {name: part.clone() for name, part in student.state_dict().items()}
    made = Distiller(student, small_fcos(), presets.tld(), task="detection")
    made(batch)[0].backward()
    torch.optim.SGD(made.parameters(), 0.1).step()
    assert student.state_dict().keys() == state.keys()
    assert not torch.equal(
        student.state_dict()["backbone.stem.0.weight"], state["backbone.stem.0.weight"]
    )
    found = student.eval()([torch.rand(3, 48, 64)])
    assert found[0].keys() == {"boxes", "scores", "labels"}


def test_levels_of_two_pyramids_are_compared_too() -> None:
    method = [presets.tld(), presets.mimic(pairs="levels")]
    example = scenes(1, 1)[0]
    made = Distiller(
        small_retinanet(8), small_retinanet(16), method, task="detection", example=example
    )
    loss, terms = made(scenes(2, 1))
    loss.backward()
    assert sum("mimic" in name for name in terms) == 3 and all(
        float(value) > 0 for value in terms.values()
    )


def test_a_student_of_ours_learns_from_a_teacher_of_torchvision() -> None:
    student = zoo.create(
        "detector/fcos",
        CLASSES,
        backbone="stillhouse/small",
        strides=(4, 8),
        neck={"width": 16, "extra": 1},
        head={"width": 16, "depth": 1},
    )
    made = Distiller(student, small_fcos(), presets.tld(), task="detection")
    loss, terms = made(scenes(2, 1))
    assert loss.isfinite() and float(terms["class/tld"]) > 0
    assert student(scenes(1)[0]).priors.strides == STRIDES


def test_grids_that_differ_are_a_sentence() -> None:
    made = Distiller(small_fcos(), small_retinanet(), presets.tld(), task="detection")
    with pytest.raises(UserError, match=r"level 0: priors per cell 1 and 6; .*|priors per cell 1"):
        made(scenes(2))
