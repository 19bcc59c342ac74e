"""The Distiller with methods that have parts of their own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from stillhouse import methods
from stillhouse.batches import IGNORE, Batch
from stillhouse.distiller import Distiller
from stillhouse.errors import UserError
from stillhouse.methods.catalogue import composed_methods
from stillhouse.methods.labelwise import LabelwiseSpec
from stillhouse.models import cost, zoo
from stillhouse.models.labelwise import LabelwiseHead, labelwise
from stillhouse.objectives import presets

SAMPLES = torch.arange(24) % 4
OPTIONS = {"crd": {"negatives": 8}}
NARROW = LabelwiseHead(8, 2, 8)


def rows(n: int = 6) -> Batch:
    keys = torch.arange(n)
    images, strong = torch.randn(2, n, 1, 16, 32)
    return Batch(images, SAMPLES[keys], keys, torch.zeros_like(keys), strong)


def several() -> Batch:
    """The same images with three classes of four each."""
    batch = rows()
    own = batch.target[:, None] == torch.arange(4)
    return replace(batch, target=(own | own.roll(1, 1) | own.roll(2, 1)).float())


def distiller(method: Any, **options: Any) -> Distiller:
    torch.manual_seed(0)
    networks = zoo.create("stillhouse/small", 4, 1), zoo.create("stillhouse/medium", 4, 1)
    if isinstance(method, LabelwiseSpec):
        networks = tuple(labelwise(n, 4, rows().images, NARROW) for n in networks)
        options["task"] = "multilabel"
    return Distiller(*networks, method, example=rows().images, labels=SAMPLES, **options)


def take_steps(made: Distiller, batch: Batch[Any], steps: int = 4) -> None:
    optimiser = torch.optim.SGD(made.parameters(), lr=0.01)
    for _ in range(steps):
        loss, terms = made(batch)
        assert loss.isfinite() and len(terms) > 1
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()


IMAGE_METHODS = [
    name
    for name, spec in composed_methods().items()
    if not {"boxes", "masks"} & set(spec.card.needs)
]
MASK_METHODS = [n for n, s in composed_methods().items() if "masks" in s.card.needs]


@pytest.mark.parametrize("name", IMAGE_METHODS)
def test_every_method_takes_steps_in_a_loop_of_one_s_own(name: str) -> None:
    method = composed_methods()[name](**OPTIONS.get(name, {}))
    made = distiller(method, steps=4, steps_per_epoch=2)
    take_steps(made, several() if isinstance(method, LabelwiseSpec) else rows())
    assert not any(p.requires_grad for p in made.teacher.network.parameters()) or (
        name == "acclimation"
    )


@pytest.mark.parametrize("name", MASK_METHODS)
def test_methods_of_masks_take_steps_with_segmenters(name: str) -> None:
    torch.manual_seed(0)
    backbones = "stillhouse/small", "stillhouse/medium"
    networks = [zoo.create("segmenter/fpn", 4, 1, backbone=b, width=8) for b in backbones]
    made = Distiller(
        *networks, composed_methods()[name](), "semantic", steps=4, example=rows().images
    )
    masks = torch.randint(0, 4, (6, 16, 32), dtype=torch.uint8)
    masks[:, :4] = IGNORE
    take_steps(made, replace(rows(), target=masks))


def test_a_teacher_that_moves_has_an_optimiser_of_its_own() -> None:
    made = distiller([presets.dist(temperature=4), methods.acclimation()])
    own = made.teacher_parameters()
    assert {id(p) for p in own}.isdisjoint(id(p) for p in made.parameters())
    before = [p.detach().clone() for p in own]
    loss, terms = made(rows())
    loss.backward()
    torch.optim.SGD(own, lr=0.1).step()
    assert "acclimation/class/acclimation" in terms
    assert any(not torch.equal(a, b) for a, b in zip(before, own, strict=True))
    still = [p for p in made.teacher.network.parameters() if not p.requires_grad]
    assert still and all(p.grad is None for p in still)


def test_a_student_of_another_shape_is_the_one_that_learns() -> None:
    made = distiller(methods.simkd())
    bare = zoo.create("stillhouse/small", 4, 1)
    assert cost.parameters(made.student) > cost.parameters(bare)
    assert made.student(rows().images).shape == (6, 4)


def test_what_remembers_samples_needs_to_know_them() -> None:
    made = distiller(methods.crd(negatives=8))
    with pytest.raises(UserError, match="pass batches as stillhouse.Batch"):
        made((rows().images, rows().target))
    networks = zoo.create("stillhouse/small", 4, 1), zoo.create("stillhouse/medium", 4, 1)
    with pytest.raises(UserError, match="or give Distiller"):
        Distiller(*networks, methods.crd(), example=rows().images)


def test_shapes_have_to_be_seen() -> None:
    networks = nn.Linear(4, 3), nn.Linear(4, 3)
    for method in (methods.ctkd(mode="instance"), methods.rkd(), presets.cwd()):
        with pytest.raises(UserError, match="needs the shapes of features"):
            Distiller(*networks, method)


def test_a_second_view_has_to_be_there() -> None:
    made = distiller(methods.mlkd())
    with pytest.raises(UserError, match="needs two views of each image"):
        made(replace(rows(), strong=None))
