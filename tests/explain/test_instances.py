"""What the page says of instances: which are correct, precision by mask, scores of cells."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.explain import cell_scores, instance_precision, instance_sheet
from stillhouse.explain.drawing import WHITE
from stillhouse.explain.instance_drawing import MaskMark, draw_instances
from stillhouse.explain.instance_predictions import (
    InstancePredictions,
    collect_instances,
    decode_mask,
    masks_by_place,
)
from stillhouse.explain.instance_verdicts import judge_masks
from stillhouse.explain.section import ImageGrid
from stillhouse.functional.mask_boxes import boxes_around
from stillhouse.models import zoo
from stillhouse.tasks.instance import Instance
from stillhouse.types import Trace

SIZE = (24, 32)
CLASSES = ("ring", "disc")
BLOCKS = ((2, 2, 10, 12), (12, 16, 22, 30))  # top, left, bottom, right of the objects of each image


def masks_of(*blocks: tuple[int, int, int, int]) -> Tensor:
    found = torch.zeros(len(blocks), *SIZE, dtype=torch.bool)
    for mask, (top, left, bottom, right) in zip(found, blocks, strict=True):
        mask[top:bottom, left:right] = True
    return found


def objects_of(masks: Tensor, labels: list[int], images: int = 1, **more: Any) -> Objects:
    image = torch.arange(images).repeat_interleave(len(masks) // images)
    return Objects(
        boxes_around(masks).float(), torch.tensor(labels), image, images, masks=masks, **more
    )


def batch(images: int = 3) -> Batch[Objects]:
    target = objects_of(masks_of(*BLOCKS * images), [0, 1] * images, images)
    keys = torch.arange(images)
    pixels = torch.rand(images, 3, *SIZE, generator=torch.Generator().manual_seed(0))
    return Batch(pixels, target, keys, torch.zeros_like(keys))


def photo(key: int) -> Tensor:
    return (255 * batch().images[key]).byte()


class Shifted(nn.Module):
    """A network whose masks are those of the objects, moved to the right."""

    def __init__(self, shift: int) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, images: Tensor) -> SimpleNamespace:
        return SimpleNamespace(shift=self.shift, images=len(images))


class Stub:
    """Each image has the two objects, shifted, and one more of class 0 where there is nothing."""

    def inputs(self, batch: Batch[Any], teacher: Trace | None = None) -> tuple[Tensor]:
        return (batch.images,)

    def collect(self, trace: Trace) -> Tensor:
        return torch.zeros(trace.out.images, 2)

    def segment(self, trace: Trace, batch: Batch[Any]) -> Iterator[Objects]:
        for _ in range(trace.out.images):
            masks = masks_of(*BLOCKS, (0, 20, 6, 30)).roll(trace.out.shift, 2)
            yield objects_of(masks, [0, 1, 0], scores=torch.tensor([0.9, 0.8, 0.3]))


def collected(**shifts: int) -> InstancePredictions:
    networks = {name: Shifted(shift) for name, shift in shifts.items()}
    return collect_instances(networks, Stub(), lambda: [batch()], CLASSES, photo, limit=3)


def test_masks_are_kept_as_codes() -> None:
    found = collected(student=0).found["student"].masks
    for place, mask in enumerate(masks_of(*BLOCKS * 3)):
        assert torch.equal(torch.from_numpy(decode_mask(found.objects[place], SIZE)), mask)


@pytest.mark.parametrize(("shift", "correct"), [(0, 2), (2, 2), (4, 1), (5, 0)])
def test_an_instance_is_correct_by_the_overlap_of_its_mask(shift: int, correct: int) -> None:
    """A shift by s of 10 and 14 columns leaves an overlap of (w - s) / (w + s)."""
    found = judge_masks(collected(student=shift).found["student"].masks)
    assert correct == sum((width - shift) / (width + shift) >= 0.5 for width in (10, 14))
    assert int(found.correct.sum()) == 3 * correct
    assert int(found.wrong.sum()) == 3 * (3 - correct)


def test_the_sheet_has_image_truth_and_each_network() -> None:
    predictions = collected(teacher=0, control=8, student=1)
    section = instance_sheet.section(predictions)
    (grid,) = section.charts
    assert isinstance(grid, ImageGrid) and grid.columns == 5
    assert len(grid.pictures) == 3 * 5
    assert "mask IoU of at least 0.5" in " ".join(section.sentences)


def test_correct_masks_are_filled_and_others_are_outlines_on_grey() -> None:
    image = torch.stack(
        [torch.full((40, 400), value, dtype=torch.uint8) for value in (30, 200, 60)]
    )
    mask = np.zeros((20, 200), bool)  # of half the size
    mask[5:15, 50:150] = True
    colour = (250, 0, 100)
    grey = draw_instances(image, ())
    level = float(np.asarray(grey)[0, 0, 0])
    assert (np.asarray(grey) == level).all()
    for filled, inner in ((True, 0.45 * level + 0.55 * np.array(colour)), (False, level)):
        drawn = np.asarray(draw_instances(image, [MaskMark(mask, "", colour, filled)]), float)
        assert np.abs(drawn[20, 200] - inner).max() <= 1
        assert (drawn[20, 100:102] == colour).all() and (drawn[10, 150] == colour).all()
        assert (drawn[9, 150] == level).all() and (drawn[20, 99] == level).all()
    empty = draw_instances(image, [MaskMark(np.zeros((20, 200), bool), "lost", colour)])
    assert (np.asarray(empty) == level).all()


def test_colours_are_those_of_the_objects() -> None:
    sheet = instance_sheet.Sheet(collected(student=4), {})
    found = collected(student=4).found["student"].masks
    sheet.codes["student"] = dict(masks_by_place(found))
    truth, caption = sheet.truth_marks(0)
    assert caption == "2 objects" and [one.text for one in truth] == ["ring", "disc"]
    marks, caption = sheet.network_marks("student", judge_masks(found), 0)
    assert caption == "1 of 2 found, 2 wrong"
    # the missed object first, then the best on top
    assert [one.text for one in marks] == ["missed ring", "ring 0.30", "disc 0.80", "ring 0.90"]
    assert [one.filled for one in marks] == [False, False, True, False]
    assert marks[0].colour == WHITE and marks[2].colour == truth[1].colour
    assert marks[1].colour not in {one.colour for one in (*truth, marks[3])}


def test_precision_is_that_of_masks() -> None:
    predictions = collected(teacher=0, control=8, student=1)
    text = " ".join(instance_precision.section(predictions).sentences)
    assert "on 3 images with 6 objects" in text.replace(" of digits/instances/test", "")
    assert "better than the control on 2 of 2 classes" in text


def test_networks_without_cells_have_no_scores_of_cells() -> None:
    assert cell_scores.section(collected(student=0)) is None


def test_scores_of_cells_are_the_highest_probabilities() -> None:
    torch.manual_seed(0)
    network = zoo.create(
        "detector/solov2",
        2,
        3,
        backbone="stillhouse/tiny",
        strides=[1, 2],
        grids=[6],
        ranges=[[1, 96]],
        levels=["p1"],
        neck={"width": 8, "extra": 0},
        head={"width": 8, "depth": 1, "mask_width": 8, "mask_channels": 4},
    ).eval()
    images = batch().images
    found = collect_instances(
        {"student": network}, Instance(2), lambda: [batch()], CLASSES, photo, 3
    )
    expected = network(images).scores.sigmoid().amax(-1).unflatten(1, (6, 6))
    cells = found.found["student"].cells
    assert [one.key for one in cells] == [0, 1, 2]
    for one in cells:
        torch.testing.assert_close(one.grids[0], expected[one.key])
    section = cell_scores.section(found)
    assert section is not None and len(section.charts) == 1


def test_images_without_annotations_are_refused() -> None:
    bare = Batch(torch.rand(1, 3, *SIZE), None, torch.zeros(1).long(), torch.zeros(1).long())
    with pytest.raises(UserError, match="the images have no objects annotated"):
        collect_instances({"student": Shifted(0)}, Stub(), lambda: [bare], CLASSES, photo)
