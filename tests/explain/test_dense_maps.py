"""Maps of losses and of score errors, against loops over the places of small detectors."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detectors import small_detector, some_batch
from stillhouse.batches import Batch, Objects
from stillhouse.explain import loss_maps, score_errors
from stillhouse.explain.catalogue import run_diagnoses
from stillhouse.explain.dense_maps import (
    DenseBatch,
    ImageCells,
    Level,
    cell_maps,
    in_boxes,
    levels_of,
)
from stillhouse.explain.detections import DetectionPredictions, collect_detections
from stillhouse.explain.map_strips import encode_strip, enlarge_cells, strides_text
from stillhouse.explain.section import ImageGrid, Section, sections_to_json
from stillhouse.explain.subset import SubsetLoader
from stillhouse.methods import BCKD, LD, RM
from stillhouse.models.detectors.assign import IGNORED
from stillhouse.models.detectors.output import Dense
from stillhouse.objectives.presets import dist, kd, tld
from stillhouse.tasks.detection import Detection
from stillhouse.types import Trace

CLASSES = tuple("abcde")
TASK = Detection(5)
MAPS = ("loss_maps", "score_errors")


def detector(family: str, seed: int, **options: Any) -> nn.Module:
    torch.manual_seed(seed)
    made = small_detector(family, **options).double().eval()
    with torch.no_grad():  # scores that differ from place to place
        for name, parameter in made.named_parameters():
            if name.startswith("head"):
                parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def padded_batch() -> Batch[Objects]:
    """Three images with 2, 0 and 3 objects; the last has 36 rows and 40 columns without padding."""
    sizes = torch.tensor([[48, 64], [48, 64], [36, 40]])
    return replace(some_batch(2, 0, 3), sizes=sizes)


def predictions(batch: Batch[Objects], **networks: nn.Module) -> DetectionPredictions:
    def batches(keys: Tensor) -> Iterable[Batch[Any]]:
        return [batch.rows(part) for part in keys.split(2)]

    def pixels(images: Tensor) -> Tensor:
        return (60 * images + 128).clamp(0, 255).to(torch.uint8)

    return collect_detections(
        networks,
        TASK,
        lambda: [batch],
        CLASSES,
        lambda key: pixels(batch.images[key]),
        loader=SubsetLoader(batches, pixels),
    )


def compared(family: str = "fcos", **options: Any) -> DetectionPredictions:
    names = ("teacher", "control", "student")
    networks = {name: detector(family, seed, **options) for seed, name in enumerate(names)}
    return predictions(padded_batch(), **networks)


def outputs(found: DetectionPredictions, *names: str) -> list[DenseBatch]:
    assert found.dense is not None
    return [*found.dense(names)]


def places(out: Dense) -> list[list[tuple[int, int, int]]]:
    """For each level, row and column the index of the first prior; counted by hand."""
    found, start = [], 0
    for height, width in out.priors.sizes:
        level = []
        for row in range(height):
            for column in range(width):
                level.append((row, column, start))
                start += out.priors.each
        found.append(level)
    return found


# ---------------------------------------------------------------------------------------- collected


@pytest.mark.parametrize("family", ["fcos", "retinanet"])
def test_rows_are_cells_level_by_level(family: str) -> None:
    out = detector(family, 0)(padded_batch().images)
    priors = out.priors
    levels = levels_of(out)
    assert [level.stride for level in levels] == [4, 8, 16]
    rows = torch.arange(3 * len(priors), dtype=torch.double)
    maps = cell_maps(rows, levels)
    for image in range(3):
        for level, of_level, values in zip(levels, places(out), maps, strict=True):
            for row, column, first in of_level:
                own = [image * len(priors) + first + n for n in range(priors.each)]
                assert float(values[image, row, column]) == sum(own)
                centre = priors.boxes[first].reshape(2, 2).mean(0)
                torch.testing.assert_close(level.centres[row, column], centre)


def test_cells_of_an_image_are_not_those_of_its_padding() -> None:
    (first, second) = outputs(compared(), "student")
    assert [*first.students] == ["student"] and len(first.batch) == 2 and len(second.batch) == 1
    (cells,) = second.images()
    assert cells.pixels.shape == (3, 36, 40) and len(cells.boxes) == 3
    for level, inside, boxed in zip(second.levels, cells.inside, cells.on_object, strict=True):
        for row, column in np.ndindex(*inside.shape):
            x, y = level.centres[row, column].tolist()
            assert bool(inside[row, column]) == (x <= 40 and y <= 36)
            within = any(x1 <= x < x2 and y1 <= y < y2 for x1, y1, x2, y2 in cells.boxes.tolist())
            assert bool(boxed[row, column]) == within
    assert not cells.inside[0].all() and cells.inside[0].any()


def test_networks_are_as_they_were_and_gradients_are_on() -> None:
    networks = [detector("fcos", 0).train(), detector("fcos", 1).train()]
    found = predictions(padded_batch(), teacher=networks[0], student=networks[1])
    before = [one.state_dict() for one in networks]
    for batch in outputs(found, "student"):
        assert torch.is_grad_enabled()
        assert not batch.teacher.out.scores.requires_grad
    for network, state in zip(networks, before, strict=True):
        assert network.training
        for name, value in network.state_dict().items():
            assert torch.equal(value, state[name])


def test_ignored_objects_are_not_outlined() -> None:
    batch = padded_batch()
    crowd = torch.tensor([True, False, False, False, True])
    batch = replace(batch, target=replace(batch.target, crowd=crowd))
    networks = {"teacher": detector("fcos", 0), "student": detector("fcos", 1)}
    found = outputs(predictions(batch, **networks), "student")
    assert [len(cells.boxes) for one in found for cells in one.images()] == [1, 0, 2]


def test_without_boxes_no_place_is_in_one() -> None:
    assert not in_boxes(torch.rand(4, 5, 2), torch.zeros(0, 4)).any()
    assert not in_boxes(torch.tensor([[[3.0, 3.0]]]), torch.tensor([[3.0, 3, 3, 9]])).any()


# --------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("family", ["fcos", "retinanet"])
def test_a_loss_map_is_the_loss_of_each_cell(family: str) -> None:
    found = compared(family)
    losses = {"tld": loss_maps.Loss(tld(0.5).objectives()["tld"])}
    first, _ = outputs(found, "control", "student")
    maps = loss_maps.loss_maps(first, losses)
    assert {*maps} == {("tld", "control"), ("tld", "student")}
    out, teacher = first.students["student"].out, first.teacher.out
    index = TASK.assign(Trace(out), first.batch).index  # type: ignore[union-attr]
    each = out.priors.each
    for of_level, values in zip(places(out), maps["tld", "student"], strict=True):
        for image in range(2):
            for row, column, start in of_level:
                total = 0.0
                for prior in range(start, start + each):
                    if index[image, prior] == IGNORED:
                        continue
                    pairs = zip(out.scores[image, prior], teacher.scores[image, prior], strict=True)
                    for s, t in pairs:
                        q, p = torch.sigmoid(2 * s), torch.sigmoid(2 * t)
                        total -= float(p * q.log() + (1 - p) * (1 - q).log()) / 4
                assert float(values[image, row, column]) == pytest.approx(total, rel=1e-4)
    if family == "retinanet":
        assert bool((index == IGNORED).any())


def cells_of(inside: list[Tensor], boxed: list[Tensor], boxes: int = 1) -> ImageCells:
    pixels = torch.zeros(3, 8, 8, dtype=torch.uint8)
    return ImageCells(pixels, torch.rand(boxes, 4), tuple(inside), tuple(boxed))


def test_share_and_entropy_are_counted_by_hand() -> None:
    fine = torch.tensor([[1.0, 2.0, 100.0], [1.0, 4.0, 100.0]])
    coarse = torch.tensor([[6.0, 6.0]])
    inside = [torch.tensor([[1, 1, 0], [1, 1, 0]]).bool(), torch.tensor([[1, 1]]).bool()]
    boxed = [torch.tensor([[0, 1, 1], [0, 1, 0]]).bool(), torch.tensor([[1, 0]]).bool()]
    found = loss_maps.measure_spread([fine, coarse], cells_of(inside, boxed))
    assert found.share == pytest.approx((2 + 4 + 6) / (8 + 12))
    # scaled 0, 1/3, 0, 1: probabilities 1/4 and 3/4 of four cells; the coarse level is even
    own = -(0.25 * math.log(0.25) + 0.75 * math.log(0.75)) / math.log(4)
    assert found.entropy == pytest.approx((own + 1) / 2)
    empty = loss_maps.measure_spread([fine, coarse], cells_of(inside, boxed, boxes=0))
    assert math.isnan(empty.share) and empty.entropy == found.entropy
    nothing = loss_maps.measure_spread([0 * fine, 0 * coarse], cells_of(inside, boxed))
    assert math.isnan(nothing.share) and nothing.entropy == 1.0


@pytest.mark.parametrize(
    ("values", "wanted"),
    [([3.0, 3.0, 3.0], 1.0), ([0.0, 0.0, 5.0], 0.0), ([0.0, 2.0, 2.0], math.log(2) / math.log(3))],
)
def test_entropy_is_between_one_place_and_all(values: list[float], wanted: float) -> None:
    assert loss_maps.entropy(torch.tensor(values).double()) == pytest.approx(wanted)


def test_entropy_of_one_place_is_undefined() -> None:
    assert math.isnan(loss_maps.entropy(torch.tensor([2.0])))


def test_images_without_a_value_are_left_out_of_the_mean() -> None:
    spreads = [
        loss_maps.Spread(0.5, 0.25),
        loss_maps.Spread(math.nan, 0.75),
        loss_maps.Spread(0.0, math.nan),
    ]
    assert loss_maps.mean_spread(spreads) == (0.25, 0.5)
    assert loss_maps.mean_spread(spreads[1:2]) == (None, 0.75)


def test_losses_of_the_run_come_first_and_once() -> None:
    method = (tld(0.5, 20.0), kd(3.0), dist(), BCKD(), RM(), LD(rest=0))
    losses, without = loss_maps.compared_losses(method)
    assert [*losses][:6] == [
        "TLD, temperature 0.5 (this run)",
        "kd (this run)",
        "dist/inter (this run)",
        "bckd/bcd (this run)",
        "bckd/ild (this run)",
        "ld/main (this run)",
    ]
    assert len(losses) == 7 + 5 and "TLD, temperature 0.5" not in losses
    (sentence,) = without
    assert sentence.endswith("without a map: dist/intra, rm.")
    named, nothing = loss_maps.compared_losses((tld(sites=("class_main", "edge")),))
    assert named["tld at class_main (this run)"].site == "class_main"
    assert nothing[0].endswith(": tld at edge.")
    assert loss_maps.compared_losses(())[1] == ()


def test_the_section_has_shares_and_entropies_of_both_students() -> None:
    found = compared()
    method = (tld(0.5), dist(), BCKD())
    result = loss_maps.section(found, method)
    assert result is not None and not result.failed
    (table,) = result.tables
    assert table.columns[1:] == (
        "control, % in boxes",
        "student, % in boxes",
        "control, entropy",
        "student, entropy",
    )
    losses, _ = loss_maps.compared_losses(method)
    assert [row[0] for row in table.rows] == [*losses, "equal at all places"]
    label = "TLD, temperature 0.5 (this run)"
    shares, entropies = [], []
    for batch in outputs(found, "student"):
        maps = loss_maps.loss_maps(batch, losses)[label, "student"]
        for index, cells in enumerate(batch.images()):
            one = loss_maps.measure_spread([level[index] for level in maps], cells)
            entropies.append(one.entropy)
            if len(cells.boxes):
                shares.append(one.share)
    assert len(shares) == 2 and len(entropies) == 3
    assert table.rows[0][2] == pytest.approx(100 * sum(shares) / 2)
    assert table.rows[0][4] == pytest.approx(sum(entropies) / 3)
    assert table.rows[-1][3:] == (1.0, 1.0) and table.rows[-1][1] == table.rows[-1][2]
    assert "on 3 images. In the boxes of objects (2 images with any) lie" in result.sentences[0]
    assert len(result.charts) == 2  # the images with objects
    for grid in result.charts:
        assert isinstance(grid, ImageGrid) and grid.columns == 2
        assert len(grid.pictures) == 2 * len(losses)
        assert grid.pictures[1].caption == f"student: {label}"


# ------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("family", ["fcos", "retinanet"])
def test_score_errors_are_differences_of_sums(family: str) -> None:
    found = compared(family)
    first, _ = outputs(found, "control", "student")
    maps = score_errors.error_maps(first, "student")
    out, teacher = first.students["student"].out, first.teacher.out
    each = out.priors.each
    for of_level, values in zip(places(out), maps, strict=True):
        for image in range(2):
            for row, column, start in of_level:
                total = 0.0
                for prior in range(start, start + each):
                    s, t = (
                        sum(1 / (1 + math.exp(-z)) for z in one.scores[image, prior].tolist())
                        for one in (out, teacher)
                    )
                    total += abs(s - t) / each
                assert float(values[image, row, column]) == pytest.approx(total, abs=1e-5)


def test_the_table_of_score_errors_has_means_over_cells_then_images() -> None:
    found = compared()
    result = score_errors.section(found)
    assert result is not None
    (table,) = result.tables
    assert table.columns == ("level", "control", "student")
    assert [row[0] for row in table.rows] == [
        "stride 4",
        "stride 8",
        "stride 16",
        "mean of the levels",
    ]
    means: list[list[float]] = [[], [], []]
    for batch in outputs(found, "student"):
        maps = score_errors.error_maps(batch, "student")
        for index, cells in enumerate(batch.images()):
            for level, values, inside in zip(means, maps, cells.inside, strict=True):
                kept = [float(v) for v in values[index][inside]]
                level.append(sum(kept) / len(kept))
    wanted = [sum(level) / 3 for level in means]
    assert [row[2] for row in table.rows] == pytest.approx([*wanted, sum(wanted) / 3])
    (grid,) = result.charts
    assert (
        isinstance(grid, ImageGrid)
        and [one.caption for one in grid.pictures]
        == [
            "control",
            "student",
        ]
        * 2
    )


def test_a_student_that_is_the_teacher_has_no_errors() -> None:
    same = detector("fcos", 0)
    result = score_errors.section(predictions(padded_batch(), teacher=same, student=same))
    assert result is not None and [row[1] for row in result.tables[0].rows] == [0.0] * 4
    (grid,) = result.charts
    assert isinstance(grid, ImageGrid)
    pixels = opened(grid.pictures[0].png)
    assert (np.ptp(pixels.astype(int), 2) < 12).all()  # grey: no place has a colour


# ------------------------------------------------------------------------------------ both sections


def test_both_are_made_with_a_teacher_and_fit_into_a_file() -> None:
    sections = run_diagnoses(MAPS, compared(), (tld(),))
    assert [(one.name, one.failed) for one in sections] == [(name, False) for name in MAPS]
    assert sections[0].tables[0].rows[0][0] == "TLD, temperature 0.5 (this run)"
    sections_to_json(sections)


def test_without_a_teacher_there_is_neither() -> None:
    networks = {"control": detector("fcos", 0), "student": detector("fcos", 1)}
    assert run_diagnoses(MAPS, predictions(padded_batch(), **networks)) == ()


def test_a_network_of_another_grid_is_left_out() -> None:
    coarse = detector("fcos", 1, strides=(2, 4))
    networks = {"teacher": detector("fcos", 0), "student": detector("fcos", 2)}
    found = predictions(padded_batch(), control=coarse, **networks)
    for one in run_diagnoses(MAPS, found):
        assert not one.failed and "Left out is control: the predictions" in one.sentences[-1]
        assert "control" not in " ".join(one.tables[0].columns)
    alone = predictions(padded_batch(), teacher=networks["teacher"], student=coarse)
    for one in run_diagnoses(MAPS, alone):
        assert len(one.sentences) == 1 and "their grids differ" in one.sentences[0]
        assert not one.charts and not one.tables


def test_each_fails_alone() -> None:
    def broken(keys: Tensor) -> Iterable[Batch[Any]]:
        raise OSError("the disk is gone")

    found = compared()
    other = predictions_with(found, broken)
    sections = run_diagnoses(("detection_errors", *MAPS), other)
    assert [one.failed for one in sections] == [False, True, True]
    assert "the disk is gone" in sections[1].sentences[0]


def predictions_with(found: DetectionPredictions, batches: Any) -> DetectionPredictions:
    def failing(names: Any) -> Any:
        return batches(torch.zeros(0))

    return replace(found, dense=failing)


# ----------------------------------------------------------------------------------------- pictures


def opened(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


def level_of(stride: int, height: int, width: int, offset: float) -> Level:
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return Level(stride, (torch.stack([x, y], -1) + offset) * float(stride), 1)


@pytest.mark.parametrize("offset", [0.0, 0.5])
@pytest.mark.parametrize("factor", [1.0, 1.5])
def test_each_pixel_shows_its_nearest_cell(offset: float, factor: float) -> None:
    level = level_of(4, 5, 6, offset)
    values = torch.rand(5, 6, generator=torch.Generator().manual_seed(0))
    size = (round(18 * factor), round(22 * factor))
    heat = enlarge_cells(values, level, size, factor)
    assert heat.shape == size
    centres = level.centres.reshape(-1, 2)
    for y, x in np.ndindex(*size):
        point = torch.tensor([x + 0.5, y + 0.5]) / factor
        distance = (centres - point).square().sum(-1)
        nearest = values.flatten()[distance <= distance.min() + 1e-4]
        assert float(heat[y, x]) in nearest.tolist()


def test_a_strip_has_the_four_finest_levels_side_by_side() -> None:
    pixels = torch.full((3, 48, 72), 100, dtype=torch.uint8)
    levels = [level_of(stride, 48 // stride, 72 // stride, 0.5) for stride in (4, 8, 12, 24, 24)]
    maps = [torch.zeros(level.centres.shape[:2]) for level in levels]
    maps[1][2, 3] = 1.0  # x 24 to 32, y 16 to 24
    cells = ImageCells(pixels, torch.tensor([[4.0, 4.0, 20.0, 12.0]]), (), ())
    strip = opened(encode_strip(cells, levels, maps))
    assert strip.shape == (96, 4 * 144 + 3 * 6, 3)
    bright = strip[..., 0].astype(int) - strip[..., 2] > 60
    rows, columns = bright.nonzero()
    start = 144 + 6
    assert (rows.min(), rows.max()) == (32, 47)
    assert (columns.min(), columns.max()) == (start + 48, start + 63)
    for tile in range(4):  # the outline
        assert (strip[8, tile * 150 + 8 : tile * 150 + 40] > 240).all()
    assert strides_text(levels) == "strides 4, 8, 12 and 24"
    assert strides_text(levels[:1]) == "stride 4"


def test_a_map_is_scaled_by_what_is_inside() -> None:
    values = torch.tensor([[1.0, 3.0, 9.0]])
    inside = torch.tensor([[True, True, False]])
    assert loss_maps.scale_map(values, inside).tolist() == [[0.0, 1.0, 1.0]]
    assert loss_maps.scale_map(torch.ones(1, 3), inside).tolist() == [[0.0] * 3]
    assert loss_maps.scale_map(values, ~inside & inside).tolist() == [[0.0] * 3]


def test_sections_name_the_source() -> None:
    found = replace(compared(), source="tiny/test")
    sections: list[Section | None] = [loss_maps.section(found), score_errors.section(found)]
    assert all(one is not None and "3 images of tiny/test" in one.sentences[0] for one in sections)
