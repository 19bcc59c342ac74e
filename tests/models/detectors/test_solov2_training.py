"""What SOLOv2 is trained on, and its losses, against plain loops in float64."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cells import RANGES, SIZE, small_solov2, some_images, some_instances
from stillhouse.batches import Objects
from stillhouse.data.embedded.scenes import make_scenes
from stillhouse.distributed import combine
from stillhouse.errors import UserError
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.models.detectors.cell_assignment import CellAssignment, centres_of_mass
from stillhouse.models.detectors.cell_masks import CellMasks

COUNTS = (4, 0, 6)
GRIDS = (9, 6)


def predictions(counts: tuple[int, ...] = COUNTS) -> tuple[CellMasks, Objects]:
    """Raw predictions that are not those of the start, and objects."""
    torch.manual_seed(0)
    out = small_solov2().double()(some_images(len(counts)))
    made: Any = {
        "scores": out.scores + 2 + torch.randn_like(out.scores),
        "kernels": torch.randn_like(out.kernels),
    }
    made = {name: part.detach().requires_grad_() for name, part in made.items()}
    return replace(out, features=out.features.detach().requires_grad_(), **made), some_instances(
        *counts
    )


def expected_cells(objects: Objects, region: float = 0.2) -> list[dict[int, int]]:
    """The object of each cell that has one, for each image."""
    assert objects.masks is not None
    found: list[dict[int, int]] = [{} for _ in range(objects.images)]
    height, width = SIZE
    for m, (mask, box) in enumerate(zip(objects.masks, objects.boxes.tolist(), strict=True)):
        places = [(y + 0.5, x + 0.5) for y, x in mask.nonzero().tolist()]
        if not places or objects.ignored[m]:
            continue
        y = sum(place[0] for place in places) / len(places)
        x = sum(place[1] for place in places) / len(places)
        w, h = box[2] - box[0], box[3] - box[1]
        start = 0
        for grid, (low, high) in zip(GRIDS, RANGES, strict=True):
            for row in range(grid):
                for column in range(grid):
                    near = (
                        abs(row - math.floor(y * grid / height)) <= 1
                        and abs(column - math.floor(x * grid / width)) <= 1
                    )
                    # the cell and the centre region have a point in common
                    touches = (
                        row <= (y + region * h / 2) * grid / height
                        and row + 1 > (y - region * h / 2) * grid / height
                        and column <= (x + region * w / 2) * grid / width
                        and column + 1 > (x - region * w / 2) * grid / width
                    )
                    if near and touches and low <= math.sqrt(w * h) <= high:
                        found[int(objects.image[m])][start + row * grid + column] = m
            start += grid * grid
    return found


def found_cells(assigned: CellAssignment) -> list[dict[int, int]]:
    return [
        {cell: int(m) for cell, m in enumerate(row) if m >= 0} for row in assigned.index.tolist()
    ]


# -------------------------------------------------------------------------------------- assignment


@pytest.mark.parametrize("region", [0.0, 0.2, 0.9])
def test_cells_near_the_centre_of_mass_have_the_object(region: float) -> None:
    out, _ = predictions()
    objects = some_instances(*COUNTS, seed=3)
    out = replace(out, family=replace(out.family, region=region))
    assigned = out.assign(objects)
    expected = expected_cells(objects, region)
    assert found_cells(assigned) == expected and sum(map(len, expected)) >= 8
    assert expected[1] == {}
    labels = objects.labels.tolist()
    for row, cells in zip(assigned.labels.tolist(), expected, strict=True):
        assert row == [labels[cells[p]] if p in cells else -1 for p in range(117)]
    rows = [[n, cell] for n, cells in enumerate(expected) for cell in sorted(cells)]
    assert assigned.rows.tolist() == rows
    assert assigned.positives.tolist() == [len(cells) for cells in expected]
    assert int(assigned.mass) == sum(max(1, len(cells)) for cells in expected)
    assert assigned.counted.all() and assigned.positive.sum() == len(rows)


def test_a_cell_of_two_objects_goes_to_the_last() -> None:
    objects = some_instances(3, seed=5)
    twice = replace(objects, **{n: torch.cat([p, p]) for n, p in objects.tensors().items()})
    found = found_cells(predictions((1,))[0].assign(twice))[0]
    assert found and min(found.values()) >= 3


def test_crowds_difficult_objects_and_empty_masks_have_no_cells() -> None:
    objects = some_instances(6, seed=5)
    assert objects.masks is not None
    flags = torch.arange(6)
    masks = objects.masks.clone()
    masks[2] = False
    objects = replace(objects, crowd=flags == 0, difficult=flags == 1, masks=masks)
    found = found_cells(predictions((1,))[0].assign(objects))
    assert found == expected_cells(objects) and set(found[0].values()) <= {3, 4, 5}


def test_centres_of_mass_do_not_depend_on_the_side_of_a_flip() -> None:
    masks = some_instances(5).masks
    assert masks is not None
    middle, flipped = centres_of_mass(masks), centres_of_mass(masks.flip(2))
    torch.testing.assert_close(flipped, torch.stack([SIZE[1] - middle[:, 0], middle[:, 1]], 1))


def test_masks_to_learn_are_those_of_objects_at_half_the_size() -> None:
    out, objects = predictions()
    assigned = out.assign(objects)
    assert objects.masks is not None and assigned.masks.shape == (10, 24, 32)
    shares = objects.masks.double().unflatten(1, (24, 2)).unflatten(3, (32, 2)).mean((2, 4))
    assert assigned.masks.equal(shares >= 0.5)
    index = [int(assigned.index[n, p]) for n, p in assigned.rows.tolist()]
    assert assigned.row_masks.equal(assigned.masks[index])


@pytest.mark.parametrize("masked", [True, False])
def test_images_without_objects(masked: bool) -> None:
    out, objects = predictions((0, 0))
    assigned = out.assign(objects if masked else replace(objects, masks=None))
    assert not assigned.positive.any() and assigned.rows.shape == (0, 2)
    assert assigned.row_masks.shape == (0, 24, 32) and (assigned.labels == -1).all()
    terms = out.terms(assigned)
    assert float(terms["mask"].mean().detach()) == 0
    combine(terms).backward()
    for part in (out.scores, out.kernels, out.features):
        assert part.grad is not None and part.grad.isfinite().all()


def test_objects_must_have_masks_of_the_size_of_images() -> None:
    out, objects = predictions((2,))
    with pytest.raises(UserError, match="learns from masks, but the objects have none; choose"):
        out.assign(replace(objects, masks=None))
    assert objects.masks is not None
    with pytest.raises(UserError, match="have 24 x 32 pixels, but the images 48 x 64; give both"):
        out.assign(replace(objects, masks=objects.masks[:, ::2, ::2]))


# ------------------------------------------------------------------------------------------ losses


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_losses_are_their_formulas() -> None:
    out, objects = predictions()
    terms = out.terms(out.assign(objects))
    expected, positives, kinds, dice = expected_cells(objects), 0, 0.0, 0.0
    labels = objects.labels.tolist()
    small = out.assign(objects).masks.double()
    for n, cells in enumerate(expected):
        for p, row in enumerate(out.scores[n].tolist()):
            label = labels[cells[p]] if p in cells else -1
            for c, z in enumerate(row):
                q = sigmoid(z)
                kinds -= (
                    0.25 * (1 - q) ** 2 * math.log(q)
                    if c == label
                    else 0.75 * q**2 * math.log(1 - q)
                )
        for p, m in cells.items():
            positives += 1
            features = out.features[n].detach()
            soft = (out.kernels[n, p].detach()[:, None, None] * features).sum(0).sigmoid()
            shared, squares = (soft * small[m]).sum(), soft.square().sum() + small[m].sum()
            dice += 1 - 2 * float(shared / (squares + 2e-3))
    assert terms.keys() == {"class", "mask"} and terms["mask"].weight == 3
    for name, value in (("class", kinds), ("mask", dice)):
        assert float(terms[name].mass) == positives and terms[name].least == 1
        assert float(terms[name].total.detach()) == pytest.approx(value, rel=1e-9)


def test_losses_have_gradients() -> None:
    out, objects = predictions((1, 0))
    assigned = out.assign(objects)
    part = {name: getattr(out, name).detach() for name in ("scores", "kernels", "features")}

    def total(scores: Tensor, kernels: Tensor, features: Tensor) -> Tensor:
        made = replace(out, scores=scores, kernels=kernels, features=features)
        return combine(made.terms(assigned))

    inputs = tuple(value.requires_grad_() for value in part.values())
    assert torch.autograd.gradcheck(total, inputs, fast_mode=True)


def test_ranks_with_some_of_the_images_have_the_same_totals() -> None:
    out, objects = predictions()
    whole = out.terms(out.assign(objects))
    parts = []
    for rows in (slice(0, 1), slice(1, 1), slice(1, 3)):
        own = replace(
            out,
            scores=out.scores[rows],
            kernels=out.kernels[rows],
            features=out.features[rows],
        )
        parts.append(own.terms(own.assign(objects.rows(rows))))
    for name, term in whole.items():
        for field in ("total", "mass"):
            found = sum(getattr(part[name], field) for part in parts)
            torch.testing.assert_close(found, getattr(term, field), rtol=1e-12, atol=0)


# ---------------------------------------------------------------------------------------- training


def test_a_light_network_learns_masks_and_classes() -> None:
    torch.manual_seed(0)
    network = small_solov2(10, grids=(12, 6), ranges=((1, 15), (12, 96)))
    scenes = make_scenes("train", 16)
    masks = scenes.instances[:, None] == torch.arange(1, 5)[:, None, None]
    image, number = (scenes.labels >= 0).nonzero().unbind(1)
    masks = masks[image, number]
    labels = scenes.labels[image, number]
    objects = Objects(boxes_around(masks), labels, image, 16, masks=masks)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)
    means: list[dict[str, float]] = []
    for _ in range(60):
        out = network(scenes.images / 128 - 1)
        terms = out.terms(out.assign(objects))
        means.append({name: float(term.mean().detach()) for name, term in terms.items()})
        optimiser.zero_grad()
        combine(terms).backward()
        optimiser.step()
    assert means[-1]["mask"] < 0.25 * means[0]["mask"]
    assert means[-1]["class"] < 0.6 * means[0]["class"]
