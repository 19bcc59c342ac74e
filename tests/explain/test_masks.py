"""What the page says of predicted masks: sheet, IoU of classes, confusions, losses of pixels."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from stillhouse.batches import Batch
from stillhouse.errors import UserError
from stillhouse.explain import class_iou, mask_confusion, mask_sheet, pixel_losses
from stillhouse.explain.catalogue import collector, run_diagnoses
from stillhouse.explain.drawing import class_colour
from stillhouse.explain.mask_drawing import draw_difference, draw_mask, labels_of
from stillhouse.explain.mask_predictions import collect_masks
from stillhouse.explain.section import ImageGrid
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models.segmenters.output import Segmentation
from stillhouse.objectives import presets
from stillhouse.tasks.semantic import Semantic

CLASSES = ("sky", "road", "tree", "never")
SIZE = (12, 16)
COUNT = 5


class Painted(nn.Module):
    """Logits from the images: channel c of an image is the score of class c."""

    def __init__(self, wrong: float, stride: int = 1) -> None:
        super().__init__()
        self.wrong, self.stride = wrong, stride

    def forward(self, images: Tensor) -> Segmentation:
        scores = 4 * images
        random = torch.Generator().manual_seed(int(1000 * self.wrong))
        noise = 8 * torch.rand(scores.shape[1:], generator=random)  # the same for each image
        scores = scores + noise * (torch.rand(SIZE, generator=random) < self.wrong)
        scores = torch.cat([scores, scores[:, :1] - 50], 1)
        return Segmentation(scores[..., :: self.stride, :: self.stride])


def truth_of(keys: Tensor) -> Tensor:
    """Stripes of the first three classes, moved by the key; the first column is ignored."""
    columns = torch.arange(SIZE[1])
    masks = torch.stack([((columns + int(key)) // 5 % 3).expand(SIZE) for key in keys])
    masks = masks.clone()
    masks[..., 0] = 255
    return masks


def images_of(keys: Tensor) -> Tensor:
    masks = truth_of(keys)
    masks = masks.where(masks != 255, 0)
    return nn.functional.one_hot(masks, 3).movedim(-1, 1).float()


def batch_of(keys: Tensor) -> Batch[Any]:
    sizes = torch.tensor([SIZE, (9, 10)])[(keys == 3).long()]
    masks = truth_of(keys)
    for mask, (height, width) in zip(masks, sizes.tolist(), strict=True):
        mask[height:], mask[:, width:] = 255, 255
    return Batch(images_of(keys), masks, keys, torch.zeros_like(keys), sizes=sizes)


def collected(task: Semantic | None = None, **networks: nn.Module) -> Any:
    keys = torch.arange(COUNT)
    batches = [batch_of(part) for part in keys.split(2)]
    loader = SubsetLoader(
        lambda wanted: [batch_of(part) for part in wanted.split(2)],
        lambda images: (255 * images).to(torch.uint8),
    )
    found = collect_masks(
        networks, task or Semantic(4), lambda: batches, CLASSES, lambda key: images_of(
            torch.tensor([key]))[0], loader=loader,
    )  # fmt: skip
    return replace(found, source="streets/test")


@pytest.fixture(scope="module")
def predictions() -> Any:
    return collected(
        teacher=Painted(0.02), control=Painted(0.5, stride=2), student=Painted(0.2, stride=2)
    )


def pixels_of(png: str) -> Any:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def test_counts_are_those_of_all_pixels_with_a_class(predictions: Any) -> None:
    task, student = Semantic(4), predictions.student
    confusion = torch.zeros(4, 4)
    for start in range(0, COUNT, 2):
        batch = batch_of(torch.arange(COUNT)[start : start + 2])
        found = task.segment(_trace(Painted(0.2, 2)(batch.images)), batch)
        for label, other in zip(batch.target.flatten(), found.flatten(), strict=True):
            if label != 255:
                confusion[label, other] += 1
    assert torch.equal(student.confusion.float(), confusion)
    assert student.keys.tolist() == [0, 1, 2, 3, 4] and student.finite
    wrong = 1 - float(confusion.diagonal().sum() / confusion.sum())
    assert 0 < wrong < 0.5 and float(student.wrong.mean()) == pytest.approx(wrong, rel=0.3)


def _trace(out: Any) -> Any:
    from stillhouse.types import Trace

    return Trace(out)


def test_the_sheet_has_the_images_that_differ_most(predictions: Any) -> None:
    section = mask_sheet.section(predictions)
    assert section is not None
    legend, sheet = section.charts
    assert isinstance(sheet, ImageGrid) and isinstance(legend, ImageGrid)
    assert sheet.columns == 6 and len(sheet.pictures) == 6 * COUNT
    captions = [picture.caption for picture in sheet.pictures[:6]]
    assert captions[:2] == ["image", "truth"] and captions[5] == "student and control"
    assert [c.split(":")[0] for c in captions[2:5]] == ["teacher", "control", "student"]
    assert "5 images of streets/test in which the shares of wrong pixels" in section.sentences[0]
    assert sheet.pictures[1].alt == "The labels of an image: sky, road, tree."
    difference = (predictions.student.wrong - predictions.control.wrong).abs()
    keys, _ = mask_sheet.choose_images(predictions)
    assert keys[0] == predictions.images[difference.argmax()]
    share = float(captions[4].split(": ")[1].split(" %")[0])
    assert share == pytest.approx(100 - 100 * float(predictions.student.wrong[keys[0]]), abs=0.06)
    small = keys.tolist().index(3)  # without its padding
    drawn = pixels_of(sheet.pictures[6 * small + 1].png)
    assert drawn.shape[0] * 10 == drawn.shape[1] * 9


def test_without_a_control_the_images_are_those_with_most_errors() -> None:
    alone = collected(teacher=Painted(0.02), student=Painted(0.4))
    section = mask_sheet.section(alone)
    assert section is not None and "in which the student has most wrong" in section.sentences[0]
    assert section.charts[1].columns == 4
    keys, _ = mask_sheet.choose_images(alone)
    assert keys[0] == alone.images[alone.student.wrong.argmax()]


def test_colours_are_those_of_classes() -> None:
    image = torch.full((3, 2, 3), 100, dtype=torch.uint8)
    mask = torch.tensor([[0, 1, 255], [2, 2, 2]])
    drawn = np.asarray(draw_mask(image, mask))
    assert drawn.shape[:2] == (2 * 106, 3 * 106)
    for (y, x), label in {(0, 0): 0, (0, 1): 1, (1, 0): 2}.items():
        want = [round(0.35 * 100 + 0.65 * part) for part in class_colour(label)]
        assert drawn[y * 106 + 5, x * 106 + 5].tolist() == pytest.approx(want, abs=1)
    assert drawn[5, -5].tolist() == [35] * 3
    truth = torch.tensor([[0, 0, 255], [0, 0, 0]])
    other = torch.tensor([[0, 1, 0], [0, 1, 1]])
    own = torch.tensor([[0, 0, 1], [1, 1, 0]])
    drawn = np.asarray(draw_difference(image, truth, own, other))
    colours = {(y, x): drawn[y * 106 + 5, x * 106 + 5].tolist() for y in (0, 1) for x in range(3)}
    grey = [100] * 3
    assert (
        colours[0, 0] == colours[0, 2] == colours[1, 1] == grey
    )  # both right, ignored, both wrong
    assert colours[0, 1] == colours[1, 2] and colours[0, 1][1] > colours[0, 1][0]  # only the first
    assert colours[1, 0][0] > colours[1, 0][1]  # only the second
    assert labels_of([mask, truth]) == [0, 1, 2] and labels_of([]) == []


def test_iou_of_each_class(predictions: Any) -> None:
    section = class_iou.section(predictions)
    confusion = predictions.student.confusion
    rows = {str(row[0]): row for row in section.tables[0].rows}
    assert section.tables[0].columns[2:] == ("teacher, IoU %", "control, IoU %", "student, IoU %")
    for c in range(3):
        both = float(confusion[c, c])
        either = float(confusion[c].sum() + confusion[:, c].sum()) - both
        assert rows[CLASSES[c]][4] == pytest.approx(100 * both / either)
    assert rows["never"][2:] == (None, None, None)
    assert rows["mean"][4] == pytest.approx(np.mean([rows[name][4] for name in CLASSES[:3]]))
    first, absent, change = section.sentences
    assert "a mean IoU of" in first and "on 5 images of streets/test" in first
    assert "Left out of the mean: never, in neither" in absent
    assert "3 of 4 classes gain" in change and "0 lose (none)" in change
    assert len(section.charts[0].labels) == 4


def test_confusions(predictions: Any) -> None:
    section = mask_confusion.section(predictions)
    assert [chart.title.rpartition(": ")[2] for chart in section.charts] == [
        "teacher",
        "control",
        "student",
    ]
    assert {chart.limits for chart in section.charts} == {(0, 100)}
    assert {chart.row_names for chart in section.charts} == {CLASSES}
    values = section.charts[-1].values
    assert sum(values[0]) == pytest.approx(100) and values[3] == (0, 0, 0, 0)
    label, taken, *_, share = section.tables[0].rows[0]
    wrong = predictions.student.confusion.clone()
    wrong.fill_diagonal_(0)
    place = int(wrong.argmax())
    assert (label, taken) == (CLASSES[place // 4], CLASSES[place % 4])
    assert share == pytest.approx(values[place // 4][place % 4])


def test_losses_of_pixels(predictions: Any) -> None:
    method = (presets.kd(temperature=2, sites=("pixel",)), presets.dist(sites=("pixel",)))
    section = pixel_losses.section(predictions, method)
    assert section is not None
    rows = {str(row[0]): row for row in section.tables[0].rows}
    assert next(iter(rows)) == "kd (this run)" and "TLD, temperature 0.5" in rows
    even = rows["equal at all pixels"]
    near = total = 0
    for start in range(0, COUNT, 2):
        batch = batch_of(torch.arange(COUNT)[start : start + 2])
        for mask in batch.target[:, 1::2, 1::2]:
            for y in range(6):
                for x in range(8):
                    total += int(mask[y, x] != 255)
                    around = mask[max(0, y - 1) : y + 2, max(0, x - 1) : x + 2]
                    near += bool(
                        mask[y, x] != 255
                        and 0 < y < 5
                        and 0 < x < 7
                        and (around != mask[y, x]).any()
                    )
    assert even[1] == even[2] == pytest.approx(100 * near / total)
    assert all(0 <= cell <= 100 for row in rows.values() for cell in row[1:])
    assert "Without a loss for each pixel" in section.sentences[-1]
    assert "dist/inter at pixel" in section.sentences[-1] or "dist" in section.sentences[-1]
    grid = section.charts[0]
    assert isinstance(grid, ImageGrid) and len(grid.pictures) == 4 * len(rows) - 4
    assert pixel_losses.section(collected(student=Painted(0.2))) is None


def test_the_task_asks_for_these(predictions: Any) -> None:
    names = Semantic(4).examine
    assert collector(names) is collect_masks
    sections = run_diagnoses(names, predictions, (presets.kd(sites=("pixel",)),))
    assert [section.name for section in sections] == list(names)
    assert not any(section.failed for section in sections)


def test_images_without_masks_are_refused() -> None:
    batch = replace(batch_of(torch.arange(2)), target=None)
    with pytest.raises(UserError, match="the images have no masks, which the diagnoses need"):
        collect_masks({"student": Painted(0.1)}, Semantic(4), lambda: [batch], CLASSES, lambda k: k)  # type: ignore[arg-type, return-value]
    with pytest.raises(UserError, match="the split has no images for student"):
        collect_masks({"student": Painted(0.1)}, Semantic(4), list, CLASSES, lambda k: k)  # type: ignore[arg-type, return-value]
