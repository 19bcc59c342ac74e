"""The instances of SOLOv2: peaks, matrix NMS, and masks at the size of images, by plain loops."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from cells import small_solov2, some_images
from stillhouse.batches import Objects
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.matrix_suppression import keep_peaks, matrix_decay
from stillhouse.models.detectors.output import Suppression

SIZE = (48, 64)
OPTIONS = Suppression(threshold=0.1, candidates=60, most=20)


def some_output() -> CellMasks:
    """Predictions of two images with smooth masks and many scores around the threshold."""
    torch.manual_seed(0)
    out = small_solov2().double()(some_images(2))
    noise = torch.randn(2, 6, 5, 6, dtype=torch.double)
    features = torch.nn.functional.interpolate(noise, out.mask_size, mode="bicubic")
    made: Any = {
        "scores": torch.randn_like(out.scores) - 2,
        "kernels": torch.randn_like(out.kernels),
        "features": features,
        "family": replace(out.family, least=0.07),
    }
    return replace(out, **made)


def overlap(one: Tensor, other: Tensor) -> float:
    return float((one & other).sum()) / float((one | other).sum())


def decays(masks: list[Tensor], labels: list[int], sigma: float) -> list[float]:
    """The smallest factor by which a better mask of the class decays each mask."""
    most = [
        max((overlap(masks[i], masks[j]) for j in range(i) if labels[j] == labels[i]), default=0.0)
        for i in range(len(masks))
    ]
    found = []
    for i, mask in enumerate(masks):
        factors = [
            math.exp(-sigma * overlap(masks[j], mask) ** 2) / math.exp(-sigma * most[j] ** 2)
            for j in range(i)
            if labels[j] == labels[i]
        ]
        found.append(min([1.0, *factors]))
    return found


# -------------------------------------------------------------------------------------- suppression


def test_peaks_are_not_below_the_cells_above_and_on_the_left() -> None:
    scores = (20 * torch.rand(25 + 9, 3, dtype=torch.double)).round() / 20
    found = keep_peaks(scores, (5, 3))
    start = 0
    for grid in (5, 3):
        for c in range(3):
            maps = scores[start : start + grid * grid, c].view(grid, grid).tolist()
            for y in range(grid):
                for x in range(grid):
                    near = [maps[v][u] for v in (y - 1, y) for u in (x - 1, x) if v >= 0 <= u]
                    expected = maps[y][x] if maps[y][x] >= max(near) else 0
                    assert float(found[start + y * grid + x, c]) == expected
        start += grid * grid
    assert (found == 0).any()


@pytest.mark.parametrize("sigma", [0.5, 2.0])
def test_masks_are_decayed_by_better_ones_of_their_class(sigma: float) -> None:
    random = torch.Generator().manual_seed(2)
    masks = torch.rand(12, 4, 5, generator=random) < 0.6
    masks[7] = masks[1]
    labels = torch.randint(0, 2, (12,), generator=random)
    labels[7] = labels[1]
    found = matrix_decay(masks.double(), labels, sigma)
    assert found.tolist() == pytest.approx(decays(list(masks), labels.tolist(), sigma), rel=1e-12)
    assert found[0] == 1 and found.min() < 0.75


def test_decay_of_no_masks() -> None:
    assert matrix_decay(torch.zeros(0, 3, 3), torch.zeros(0).long(), 2.0).shape == (0,)


# ---------------------------------------------------------------------------------------- instances


def expected_instances(
    out: CellMasks, index: int, options: Suppression
) -> list[tuple[float, int, Tensor]]:
    """Score, class and probabilities (h, w) of the instances of an image, the best first."""
    family: Any = out.family
    peaks = keep_peaks(out.scores[index].sigmoid(), out.grids)
    pairs = [(float(peaks[p, c]), p, c) for p in range(117) for c in range(5)]
    pairs = sorted((one for one in pairs if one[0] > options.threshold), key=lambda one: -one[0])
    found = []
    for score, p, c in pairs[: options.candidates]:
        kernel = out.kernels[index, p][:, None, None]
        soft = (kernel * out.features[index]).sum(0).sigmoid()
        inside = soft[soft > 0.5]
        if len(inside) > (4 if p < 81 else 8):
            found.append((score * float(inside.mean()), c, soft))
    found.sort(key=lambda one: -one[0])
    factors = decays([one[2] > 0.5 for one in found], [one[1] for one in found], family.sigma)
    decayed = [(f * s, c, soft) for f, (s, c, soft) in zip(factors, found, strict=True)]
    decayed = sorted((one for one in decayed if one[0] >= family.least), key=lambda one: -one[0])
    return decayed[: options.most]


@pytest.mark.parametrize("candidates", [60, 15])
@pytest.mark.parametrize("index", [0, 1])
def test_instances_are_those_of_plain_loops(index: int, candidates: int) -> None:
    out, options = some_output(), replace(OPTIONS, candidates=candidates)
    expected = expected_instances(out, index, options)
    found = out.segment(index, SIZE, options)
    assert found.scores is not None and found.masks is not None
    assert len(expected) > 5 and found.images == 1 and not found.image.any()
    assert found.scores.tolist() == pytest.approx([one[0] for one in expected], rel=1e-9)
    assert found.labels.tolist() == [one[1] for one in expected]
    for mask, box, (_, _, soft) in zip(found.masks, found.boxes.tolist(), expected, strict=True):
        for y in range(0, 48, 5):
            for x in range(0, 64, 7):
                # the place of the pixel's middle among the middles of the mask's pixels
                v, u = max(0.0, (y + 0.5) / 2 - 0.5), max(0.0, (x + 0.5) / 2 - 0.5)
                top, left = int(v), int(u)
                below, right = min(top + 1, 23), min(left + 1, 31)
                value = (1 - v + top) * (
                    (1 - u + left) * soft[top, left] + (u - left) * soft[top, right]
                )
                value += (v - top) * (
                    (1 - u + left) * soft[below, left] + (u - left) * soft[below, right]
                )
                assert bool(mask[y, x]) == bool(value > 0.5)
        rows, columns = mask.nonzero().unbind(1)
        corner = [int(columns.min()), int(rows.min())]
        assert box == [*corner, int(columns.max()) + 1, int(rows.max()) + 1]


def test_masks_are_cut_at_the_size_of_the_image() -> None:
    out = some_output()
    whole, cut = (out.segment(0, size, OPTIONS) for size in (SIZE, (30, 41)))
    assert whole.masks is not None and cut.masks is not None
    inside = whole.masks.clone()
    inside[:, 30:] = False
    inside[:, :, 41:] = False
    seen = inside.flatten(1).any(1)
    assert cut.masks.shape[1:] == SIZE and cut.masks.equal(inside[seen])
    assert (cut.boxes[:, 2] <= 41).all() and (cut.boxes[:, 3] <= 30).all()
    assert cut.scores is not None and whole.scores is not None
    assert cut.scores.equal(whole.scores[seen])


def test_instances_whose_mask_is_in_the_padding_are_dropped() -> None:
    out = some_output()
    features = torch.zeros_like(out.features)
    features[:, 0, :, 20:] = 9.0
    kernels = torch.zeros_like(out.kernels) - torch.tensor([0, 1, 0, 0, 0, 0]).double()
    kernels[..., 0] = 1.0
    features[:, 1] = 4.0
    out = replace(out, features=features, kernels=kernels)
    assert len(out.segment(0, SIZE, OPTIONS).labels) > 0
    assert len(out.segment(0, (48, 36), OPTIONS).labels) == 0


def test_limits_of_an_image() -> None:
    out = some_output()
    assert len(out.segment(0, SIZE, replace(OPTIONS, most=3)).labels) == 3
    none = out.segment(0, SIZE, replace(OPTIONS, threshold=1.0))
    assert isinstance(none, Objects) and none.masks is not None and none.scores is not None
    assert none.masks.shape == (0, *SIZE) and none.boxes.shape == (0, 4)
    assert len(none.scores) == len(none.labels) == 0
    assert out.family.suppression == Suppression(threshold=0.1, candidates=500, most=100)


def test_classes_that_were_chosen_keep_their_instances() -> None:
    out = some_output()
    options = replace(OPTIONS, candidates=1000, most=1000)
    every = out.segment(0, SIZE, options)
    some = out.select(torch.tensor([4, 1])).segment(0, SIZE, options)
    assert every.scores is not None and some.scores is not None
    for new, old in ((0, 4), (1, 1)):
        kept = every.scores[every.labels == old]
        torch.testing.assert_close(some.scores[some.labels == new], kept)
    assert len(some.labels) > 3


def test_odd_sizes_in_single_precision() -> None:
    network = small_solov2().eval()
    torch.nn.init.normal_(network.head.score.weight, std=1.0)
    torch.nn.init.normal_(network.head.kernel.weight, std=1.0)
    out = network(some_images(1, size=(47, 61)).float())
    found = out.segment(0, (45, 61), out.family.suppression)
    assert found.masks is not None and found.masks.shape[1:] == (47, 61)
    assert found.boxes.dtype == torch.float32 and not found.boxes.requires_grad
    assert len(found.labels) > 0 and not found.masks[:, 45:].any()
