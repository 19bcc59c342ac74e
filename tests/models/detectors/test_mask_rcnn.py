"""Two-stage detectors with masks: targets, losses and instances, against plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from detectors import SIZE, small_two_stage, some_batch, some_objects
from mask_regions import BOTH, COUNTS, OPTIONS, SIDE, far, masked, masked_objects, small
from stillhouse.errors import UserError
from stillhouse.models import zoo
from stillhouse.models.detectors.mask_head import MaskHead
from stillhouse.models.detectors.region_head import pool_regions
from stillhouse.models.detectors.region_masks import crop_masks, mask_term
from stillhouse.models.detectors.two_stage import SampledMasks
from stillhouse.types import Term


def mask_terms(terms: dict[str, Term]) -> dict[str, Term]:
    return {name: term for name, term in terms.items() if name.startswith("mask")}


# ---------------------------------------------------------------------------------------- network


@pytest.mark.parametrize(
    ("family", "backbone", "whole", "heads"),
    [
        ("mask_rcnn", "resnet50", 44_396_336, 16_949_985),
        ("mask_rcnn", "resnet18", 31_327_536, 16_949_985),
        ("cascade_mask_rcnn", "resnet18", 64_255_806, 49_878_255),
        ("cascade_mask_rcnn", "resnext101_64x4d", 135_222_846, 49_878_255),
    ],
)
@pytest.mark.usefixtures("unfilled")
def test_parameters_equal_the_published_detectors_with_masks(
    family: str, backbone: str, whole: int, heads: int
) -> None:
    network: Any = zoo.create(f"detector/{family}", 80, backbone=f"timm/{backbone}")
    assert sum(p.numel() for p in network.parameters()) == whole
    parts = [*network.heads.parameters(), *network.mask_heads.parameters()]
    assert sum(p.numel() for p in parts) == heads


def test_masks_have_twice_the_side_of_pooled_regions() -> None:
    for depth in (0, 3):
        head = MaskHead(6, 4, width=8, depth=depth, side=7)
        assert head(torch.randn(2, 6, 7, 7)).shape == (2, 4, 14, 14)
        assert head(torch.randn(0, 6, 7, 7)).shape == (0, 4, 14, 14)
    shares = MaskHead(6, 4)(torch.randn(3, 6, 14, 14)).sigmoid()
    assert (shares - 0.5).abs().max() < 0.05


@pytest.mark.parametrize(
    ("family", "options", "text"),
    [
        ("mask_rcnn", {"side": 0}, "`side` of the mask head must be at least 1, got 0"),
        ("mask_rcnn", {"depth": -1}, "`depth` of the mask head must be at least 0, got -1"),
        ("mask_rcnn", {"dept": 3}, "mask_head=.*unexpected keyword argument 'dept'"),
        ("faster_rcnn", {"side": 3}, "detector/faster_rcnn has no mask head; leave out"),
    ],
)
def test_a_wrong_mask_option_is_one_sentence(family: str, options: Any, text: str) -> None:
    with pytest.raises(UserError, match=text):
        small_two_stage(family, mask_head=options)


def test_a_detector_without_masks_is_refused() -> None:
    out = small_two_stage("faster_rcnn").eval()(torch.zeros(1, 3, *SIZE))
    with pytest.raises(UserError, match="the detector has no mask head; take detector/mask_rcnn"):
        out.segment(0, SIZE, OPTIONS)


# ---------------------------------------------------------------------------------------- targets


def bilinear(mask: list[list[float]], y: float, x: float) -> float:
    """RoIAlign's value at a point: the border is repeated for one pixel, then there is nothing."""
    height, width = len(mask), len(mask[0])
    if not (-1 <= y <= height and -1 <= x <= width):
        return 0.0
    y, x = (min(max(p, 0.0), side - 1.0) for p, side in ((y, height), (x, width)))
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    dy, dx = y - top, x - left
    return (
        (1 - dy) * (1 - dx) * mask[top][left]
        + (1 - dy) * dx * mask[top][left + 1]
        + dy * (1 - dx) * mask[top + 1][left]
        + dy * dx * mask[top + 1][left + 1]
    )


def share(mask: list[list[float]], box: list[float], row: int, column: int, side: int) -> float:
    """The mean of a mask over the samples of a cell of a box."""
    x1, y1, x2, y2 = box
    height, width = (y2 - y1) / side, (x2 - x1) / side
    down, across = math.ceil(height), math.ceil(width)
    values = [
        bilinear(
            mask,
            y1 + (row + (i + 0.5) / down) * height - 0.5,
            x1 + (column + (j + 0.5) / across) * width - 0.5,
        )
        for i in range(down)
        for j in range(across)
    ]
    return sum(values) / len(values)


def test_cropped_masks_are_those_of_a_loop() -> None:
    objects = masked_objects(3)
    assert objects.masks is not None
    boxes = torch.tensor(
        [[3.2, 4.1, 30.7, 40.4], [0, 0, 64, 48], [-4, 30.5, 17, 52], [5, 5, 8, 9]]
    ).double()
    index = torch.tensor([0, 2, 1, 0])
    found = crop_masks(objects.masks, boxes, index, 6)
    for k, box in enumerate(boxes.tolist()):
        mask = objects.masks[index[k]].double().tolist()
        wanted = [[share(mask, box, r, c, 6) for c in range(6)] for r in range(6)]
        torch.testing.assert_close(found[k], torch.tensor(wanted).double())


def test_a_region_of_whole_cells_has_the_shares_of_its_pixels() -> None:
    mask = torch.rand(1, 12, 16, generator=torch.Generator().manual_seed(0)) < 0.5
    found = crop_masks(mask, torch.tensor([[2.0, 4, 14, 10]]), torch.tensor([0]), 3)
    wanted = F.avg_pool2d(mask[:, 4:10, 2:14].float(), (2, 4))
    torch.testing.assert_close(found, wanted)


# ----------------------------------------------------------------------------------------- losses


@BOTH
def test_mask_losses_are_their_formulas(family: str) -> None:
    detector, objects = far(family), masked_objects(*COUNTS)
    assert objects.masks is not None
    out = detector(some_batch(*COUNTS).images)
    assigned = out.assign(objects)
    terms = mask_terms(out.terms(assigned))
    weights = (
        {"mask": 1.0} if family == "mask_rcnn" else {"mask_1": 1, "mask_2": 0.5, "mask_3": 0.25}
    )
    assert {name: term.weight for name, term in terms.items()} == weights
    for stage, (found, name) in enumerate(zip(assigned.stages, weights, strict=True)):
        assert found.masks is not None
        rows = found.masks.rows.tolist()
        assert rows == [r for r, label in enumerate(found.labels.tolist()) if label < 5]
        assert len(rows) >= sum(COUNTS)
        regions = found.regions
        pooled = pool_regions(out.levels, (4, 8), regions.boxes, regions.image, SIDE // 2)
        maps = detector.mask_heads[stage](pooled)
        total = 0.0
        for row in rows:
            z = maps[row, found.labels[row]].tolist()
            same = [
                m
                for m, box in enumerate(objects.boxes)
                if torch.equal(box, found.targets[row]) and objects.image[m] == regions.image[row]
            ]
            mask = objects.masks[same[0]].double().tolist()
            box = regions.boxes[row].tolist()
            for r in range(SIDE):
                for c in range(SIDE):
                    target = share(mask, box, r, c, SIDE) >= 0.5
                    total += math.log1p(math.exp(-z[r][c] if target else z[r][c]))
        assert int(terms[name].mass) == len(rows) * SIDE**2
        assert float(terms[name].total.detach()) == pytest.approx(total, rel=1e-9)


def test_the_gradient_of_the_mask_loss() -> None:
    random = torch.Generator().manual_seed(0)
    head = MaskHead(2, 3, width=2, depth=1, side=2).double()
    pooled = torch.randn(2, 2, 2, 2, generator=random).double().requires_grad_()
    targets = torch.rand(2, 4, 4, generator=random).double() < 0.5

    def loss(pooled: Tensor) -> Tensor:
        maps = 100 * head(pooled)
        return mask_term(SampledMasks(torch.arange(2), maps[[0, 1], [2, 0]], targets), 1.0).total

    assert torch.autograd.gradcheck(loss, (pooled,))


@BOTH
def test_splits_of_a_batch_have_the_totals_of_the_whole(family: str) -> None:
    detector, batch = far(family), some_batch(*COUNTS)
    batch = replace(batch, target=masked_objects(*COUNTS))

    def terms_of(part: slice) -> dict[str, Term]:
        rows = batch.rows(part)
        out = detector(rows.images)
        return mask_terms(out.terms(out.assign(rows.target)))

    whole = terms_of(slice(0, 3))
    parts = [terms_of(slice(*cut)) for cut in ((0, 0), (0, 2), (2, 3))]
    for name, term in whole.items():
        assert float(term.mass) == sum(float(part[name].mass) for part in parts) > 0
        total = sum(float(part[name].total.detach()) for part in parts)
        assert float(term.total.detach()) == pytest.approx(total, rel=1e-12)


@BOTH
@pytest.mark.parametrize("counts", [(0,), (0, 0), (3, 1), ()])
def test_images_without_objects_have_finite_mask_losses(
    family: str, counts: tuple[int, ...]
) -> None:
    """Nor do batches without images, as a rank may have them."""
    detector = small(family).double().train(bool(counts))
    batch = some_batch(*counts) if counts else some_batch(1).rows(slice(0, 0))
    out = detector(batch.images)
    terms = out.terms(out.assign(masked(batch.target)))
    assert all(bool(term.total.isfinite()) for term in terms.values())
    assert all((float(t.mass) > 0) == bool(sum(counts)) for t in mask_terms(terms).values())
    assert all(bool(term.mean().isfinite()) for term in mask_terms(terms).values())
    sum((term.total for term in terms.values()), torch.zeros(())).backward()
    slopes = {name: p.grad for name, p in detector.named_parameters()}
    assert all(slope is not None and bool(slope.isfinite().all()) for slope in slopes.values())


def test_crowds_have_no_masks_to_learn() -> None:
    detector, objects = far("mask_rcnn"), masked_objects(2)
    out = detector(some_batch(2).images)
    alone = replace(objects, crowd=torch.tensor([True, False]))
    (found,) = out.assign(alone).stages
    (wanted,) = out.assign(objects.objects(torch.tensor([1]))).stages
    assert found.masks is not None and wanted.masks is not None and len(found.masks.rows)
    assert torch.equal(found.masks.targets, wanted.masks.targets)
    (none,) = out.assign(replace(objects, crowd=torch.tensor([True, True]))).stages
    assert none.masks is not None and not len(none.masks.rows)


def test_objects_without_masks_are_refused() -> None:
    out = far("mask_rcnn")(some_batch(1, 1).images)
    with pytest.raises(UserError, match="the objects of the batch have no masks; take a data set"):
        out.assign(some_objects(1, 1))
    (nothing,) = out.assign(some_objects(0, 0)).stages
    assert nothing.masks is not None and nothing.masks.targets.shape == (0, SIDE, SIDE)


def test_a_light_detector_learns_masks() -> None:
    torch.manual_seed(0)
    detector = small("mask_rcnn").train()
    batch, objects = some_batch(2, 3), masked_objects(2, 3)
    objects = replace(objects, boxes=objects.boxes.float())
    optimiser = torch.optim.Adam(detector.parameters(), 1e-2)
    losses = []
    for _ in range(20):
        out = detector(batch.images.float())
        terms = out.terms(out.assign(objects))
        optimiser.zero_grad()
        sum((term.weight * term.mean() for term in terms.values()), torch.zeros(())).backward()
        optimiser.step()
        losses.append(float(terms["mask"].mean().detach()))
    assert losses[0] == pytest.approx(math.log(2), rel=0.05) and losses[-1] < 0.8 * losses[0]
