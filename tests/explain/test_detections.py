"""Sections on detections of a few boxes, with numbers that are counted by hand."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from detection_cases import Found, Scene, Truth
from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.explain import box_precision, catalogue, detection_errors, detection_sheet
from stillhouse.explain.catalogue import collector, run_diagnoses
from stillhouse.explain.collect import collect_predictions
from stillhouse.explain.detections import (
    DetectionOutputs,
    DetectionPredictions,
    collect_detections,
    detections_of,
)
from stillhouse.explain.drawing import WHITE, Mark, class_colour, draw_marks, readable_on
from stillhouse.explain.section import BarChart, ImageGrid, LineChart, sections_to_json
from stillhouse.explain.verdicts import best_score, judge
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.detection import Detection
from stillhouse.tasks.meters.detection_rows import DetectionRows, ObjectRows, Rows, order_rows
from stillhouse.types import Trace

CLASSES = ("cat", "dog", "cow")
A, B, C = [0.0, 0.0, 20.0, 20.0], [30.0, 30.0, 50.0, 50.0], [10.0, 40.0, 20.0, 60.0]
NEAR_A = [0.0, 0.0, 20.0, 16.0]  # IoU .8
FAR_A = [0.0, 0.0, 20.0, 6.0]  # IoU .3


def rows_of(scenes: list[Scene]) -> Rows:
    found = [(s.key, n, f) for s in scenes for n, f in enumerate(s.found)]
    truth = [(s.key, n, t) for s in scenes for n, t in enumerate(s.truth)]

    def column(values: list[Any], dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.tensor(values, dtype=dtype)

    flags = torch.uint8
    return order_rows(
        Rows(
            column([s.key for s in scenes]),
            DetectionRows(
                column([key for key, _, _ in found]),
                column([place for _, place, _ in found]),
                column([f.label for *_, f in found]),
                column([f.score for *_, f in found], torch.double),
                column([f.box for *_, f in found], torch.double).reshape(-1, 4),
            ),
            ObjectRows(
                column([key for key, _, _ in truth]),
                column([place for _, place, _ in truth]),
                column([t.label for *_, t in truth]),
                column([t.box for *_, t in truth], torch.double).reshape(-1, 4),
                column([t.crowd for *_, t in truth], flags),
                column([t.difficult for *_, t in truth], flags),
                column([t.size for *_, t in truth], torch.double),
            ),
        )
    )


TRUTH = {3: [Truth(0, A), Truth(1, B)], 5: [Truth(0, A)], 8: [Truth(1, C, difficult=True)], 9: []}


def scenes(**found: list[Found]) -> list[Scene]:
    """The four images, with detections by `at3`, `at5`, `at8` and `at9`."""
    return [Scene(key, TRUTH[key], found.get(f"at{key}", [])) for key in TRUTH]


PERFECT = scenes(at3=[Found(0, 0.9, A), Found(1, 0.8, B)], at5=[Found(0, 0.7, A)])
WEAK = scenes(
    at3=[Found(0, 0.9, NEAR_A), Found(2, 0.6, B), Found(0, 0.3, NEAR_A)],  # right, class, duplicate
    at5=[Found(0, 0.4, FAR_A)],  # localisation
    at8=[Found(1, 0.5, C)],  # of a difficult object
    at9=[Found(2, 0.2, B)],  # background
)
BLIND = scenes()


def predictions(**networks: list[Scene]) -> DetectionPredictions:
    outputs = tuple(DetectionOutputs(name, rows_of(found)) for name, found in networks.items())
    return DetectionPredictions(outputs, CLASSES, picture, source="tiny/test")


def picture(key: int) -> Tensor:
    return torch.full((3, 64, 64), 10 * key, dtype=torch.uint8)


def opened(png: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"))


# ---------------------------------------------------------------------------------------- verdicts


def test_verdicts_are_those_of_the_list() -> None:
    verdicts = judge(rows_of(WEAK))
    assert verdicts.detections.score.tolist() == [0.9, 0.6, 0.5, 0.4, 0.3, 0.2]
    assert verdicts.correct.tolist() == [True, False, False, False, False, False]
    assert verdicts.ignored.tolist() == [False, False, True, False, False, False]
    assert verdicts.wrong.tolist() == [False, True, False, True, True, True]
    assert verdicts.missed().tolist() == [False, True, True, False]
    assert judge(rows_of(BLIND)).missed().tolist() == [True, True, True, False]
    nothing = judge(rows_of([Scene(9, [], [Found(0, 0.5, A)])]))
    assert nothing.wrong.tolist() == [True] and nothing.missed().tolist() == []


def test_the_best_score_has_the_highest_f1() -> None:
    # right at .9, wrong at .6: F1 2/4 then 2/5
    assert best_score(judge(rows_of(WEAK))) == 0.9
    assert best_score(judge(rows_of(PERFECT))) == 0.7
    assert best_score(judge(rows_of(BLIND))) == 0.5
    # two of one score are shown together: F1 2/5 with both, then 4/6
    tied = scenes(at3=[Found(0, 0.9, A), Found(2, 0.9, A), Found(1, 0.5, B)])
    assert best_score(judge(rows_of(tied))) == 0.5


def test_what_is_below_a_score_is_left_out() -> None:
    verdicts = judge(rows_of(PERFECT)).above(0.8)
    assert verdicts.correct.tolist() == [True, True]
    assert verdicts.missed().tolist() == [False, False, True, False]


# ------------------------------------------------------------------------------------------- sheet


def test_the_sheet_has_truth_and_networks_beside_each_other() -> None:
    section = detection_sheet.section(predictions(teacher=PERFECT, control=WEAK, student=PERFECT))
    (grid,) = section.charts
    assert isinstance(grid, ImageGrid) and grid.columns == 4 and len(grid.pictures) == 16
    # image 3 differs in one object, as does image 5; the student errs in neither
    captions = [one.caption for one in grid.pictures]
    assert captions[:4] == [
        "truth: 2 objects",
        "teacher: 2 of 2 found, 0 wrong",
        "control: 1 of 2 found, 0 wrong",
        "student: 2 of 2 found, 0 wrong",
    ]
    assert captions[4] == "truth: 1 object" and captions[8] == "truth: 0 objects"
    assert "cat (ignored)" not in grid.pictures[8].alt and "dog (ignored)" in grid.pictures[8].alt
    assert "missed dog" in grid.pictures[2].alt and "cat 0.90" in grid.pictures[2].alt
    (table,) = section.tables
    assert table.rows == (
        ("teacher", 0.7, 3, 0, 0, 100.0),
        ("control", 0.9, 1, 0, 2, 50.0),
        ("student", 0.7, 3, 0, 0, 100.0),
    )
    assert section.sentences[0] == (
        "Those of 4 images where the student and the control differ most, in the objects that only "
        "one of them finds and in the number of wrong detections; they are not typical."
    )
    assert (
        "4 images of tiny/test: teacher 0.70, control 0.90, student 0.70." in section.sentences[1]
    )


def test_the_images_that_differ_most_come_first() -> None:
    def chosen(**networks: list[Scene]) -> list[int]:
        given = predictions(**networks)
        shown = {one.name: detection_sheet.Shown(judge(one.rows), 0.0) for one in given.outputs}
        return detection_sheet.choose_images(given, shown)[0]

    # 3: dog found by one, two wrong more; 5: cat found by one, one wrong more; 9: one wrong more
    assert chosen(control=PERFECT, student=WEAK) == [3, 5, 9, 8]
    # 3 and 5 differ in the first network's objects only, and image 3 in two
    assert chosen(control=PERFECT, student=BLIND) == [3, 5, 8, 9]
    # alone: the errors of the student, 3 in image 3, 2 in image 5, 1 in image 9
    assert chosen(student=WEAK) == [3, 5, 9, 8]


def test_at_most_six_images_are_shown() -> None:
    many = [Scene(key, [Truth(0, A)], []) for key in range(20)]
    (grid,) = detection_sheet.section(predictions(student=many)).charts
    assert isinstance(grid, ImageGrid) and len(grid.pictures) == 12


def test_correct_boxes_are_solid_wrong_ones_dashed_and_missed_ones_white() -> None:
    verdicts = judge(rows_of(WEAK))
    marks, caption = detection_sheet.network_marks(verdicts, 3, CLASSES)
    assert caption == "1 of 2 found, 2 wrong"
    shown = {mark.text: (mark.dashed, mark.colour, list(mark.box)) for mark in marks}
    assert shown == {
        "missed dog": (True, WHITE, B),
        "cat 0.30": (True, class_colour(0), NEAR_A),
        "cow 0.60": (True, class_colour(2), B),
        "cat 0.90": (False, class_colour(0), NEAR_A),
    }
    assert marks[-1].text == "cat 0.90"  # on top
    assert detection_sheet.network_marks(verdicts, 8, CLASSES) == ([], "0 of 0 found, 0 wrong")


# -------------------------------------------------------------------------------------- drawing


def test_an_outline_is_where_its_box_is() -> None:
    image = torch.full((3, 400, 400), 90, dtype=torch.uint8)
    colour = class_colour(0)
    drawn = np.asarray(draw_marks(image, [Mark((100, 120, 300, 320), "", colour)]))
    assert drawn.shape == (400, 400, 3)
    outline = (drawn == colour).all(2)
    for y, x in ((120, 200), (320, 200), (200, 100), (200, 300)):
        assert outline[y - 1 : y + 2, x - 1 : x + 2].any()
    inside = drawn[125:315, 105:295]
    assert (inside == 90).all() and (drawn[:110] == 90).all()
    rim = drawn[200, 100 - 3 : 100 + 4]
    assert (rim == 0).all(1).any()  # dark, whatever is behind


def test_a_dashed_outline_has_gaps() -> None:
    image = torch.full((1, 400, 400), 90, dtype=torch.uint8)
    solid, dashed = (
        np.asarray(draw_marks(image, [Mark((50, 50, 350, 350), "", WHITE, dashed=dashes)]))
        for dashes in (False, True)
    )
    line = [(drawn[48:53, 60:340] == 255).all(2).any(0) for drawn in (solid, dashed)]
    assert line[0].all() and 0.3 < line[1].mean() < 0.7


@pytest.mark.parametrize(
    ("shape", "largest", "size"),
    [
        ((3, 48, 48), None, (288, 288)),
        ((1, 32, 64), None, (320, 160)),
        ((3, 480, 640), None, (640, 480)),
        ((3, 480, 640), 320, (320, 240)),
        ((3, 48, 48), 320, (288, 288)),
        ((3, 1, 3000), 320, (320, 1)),
    ],
)
def test_images_are_enlarged_by_whole_factors_or_reduced(
    shape: tuple[int, ...], largest: int | None, size: tuple[int, int]
) -> None:
    image = torch.randint(0, 256, shape, dtype=torch.uint8)
    drawn = draw_marks(image, [], largest)
    assert drawn.size == size and drawn.mode == "RGB"
    if size[0] > shape[2]:
        factor = size[0] // shape[2]
        back = np.asarray(drawn)[::factor, ::factor].transpose(2, 0, 1)
        assert np.array_equal(back, image.expand(3, -1, -1).numpy())


@pytest.mark.parametrize("box", [(0, 0, 47, 47), (-9, -9, 99, 99), (47, 47, 48, 48), (5, 5, 5, 5)])
def test_texts_stay_inside_whatever_the_box(box: tuple[float, float, float, float]) -> None:
    image = torch.zeros(3, 48, 48, dtype=torch.uint8)
    colour = class_colour(3)
    for below in (False, True):
        mark = Mark(box, "a long name 0.99", colour, below=below)
        drawn = np.asarray(draw_marks(image, [mark]))
        filled = (drawn == colour).all(2)
        assert filled.sum() > 800  # the ground of the text, at least


def test_colours_of_classes_differ_and_can_be_written_on() -> None:
    colours = [class_colour(label) for label in range(80)]
    assert len(set(colours)) == 80

    def luminance(colour: tuple[int, ...]) -> float:
        parts = [c / 255 for c in colour]
        parts = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for one, next_one in pairwise(colours):
        assert sum(abs(a - b) for a, b in zip(one, next_one, strict=True)) > 100
    for one in colours:
        light, dark = sorted((luminance(one), luminance(readable_on(one))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5  # WCAG AA


# --------------------------------------------------------------------------------------- precision


def test_average_precisions_are_counted_by_hand() -> None:
    section = box_precision.section(predictions(teacher=PERFECT, control=WEAK, student=PERFECT))
    table, sizes = section.tables
    assert table.columns == (
        "class",
        "objects",
        "teacher, %",
        "control, %",
        "student, %",
        "gain over the control",
    )
    # the weak network finds one cat of two with an IoU of .8: precision 1 up to recall .5, which
    # are 51 of 101 recalls, at 7 of 10 IoUs
    cat = 100 * 51 / 101 * 7 / 10
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["cat"] == pytest.approx((2, 100.0, cat, 100.0, 100 - cat))
    assert rows["dog"] == pytest.approx((1, 100.0, 0.0, 100.0, 100.0))
    assert "cow" not in rows
    assert section.sentences[0] == (
        "AP of the student, by COCO (mean over IoU 0.5 to 0.95), on 4 images of tiny/test with 3 "
        f"objects: 100.0 % (control {cat / 2:.1f} %); teacher 100.0 %."
    )
    assert sizes.rows[0][:2] == ("small", 3) and len(sizes.rows) == 1
    assert sizes.rows[0][2:] == pytest.approx((100.0, cat / 2, 100.0))
    curves = [chart for chart in section.charts if isinstance(chart, LineChart)]
    assert [curve.title.split(",")[0] for curve in curves] == [
        "Precision over recall at IoU 0.5",
        "Precision over recall at IoU 0.75",
    ]
    control = curves[0].series[1]
    assert control.name == "control" and len(control.x) == 101
    assert control.y[:51] == pytest.approx([50.0] * 51) and control.y[51:] == (0.0,) * 50
    bars = [chart for chart in section.charts if isinstance(chart, BarChart)]
    assert [series.name for series in bars[0].series] == ["teacher", "control", "student"]
    assert bars[0].labels == ("cat", "dog")
    assert bars[-1].labels == ("small (3)",)


def test_sizes_are_by_area_as_annotated_without_ignored_objects() -> None:
    big = [0.0, 0.0, 200.0, 200.0]
    truth = [Truth(0, A), Truth(0, big), Truth(0, big, area=9216.0), Truth(1, big, crowd=True)]
    truth.append(Truth(0, A, area=1024.0))
    objects = rows_of([Scene(0, truth, [])]).objects
    assert box_precision.count_sizes(objects) == (2, 1, 1)


def test_without_objects_there_is_no_precision() -> None:
    section = box_precision.section(predictions(student=[Scene(1, [], [Found(0, 0.5, A)])]))
    assert section.sentences == ("No image has an object.",) and not section.charts


# ------------------------------------------------------------------------------------------ errors


def test_errors_are_counted_by_kind() -> None:
    section = detection_errors.section(predictions(control=PERFECT, student=WEAK))
    (table,) = section.tables
    assert table.columns[2:] == (
        "class",
        "localisation",
        "both",
        "duplicate",
        "background",
        "missed",
    )
    rows = {row[0]: row[1:] for row in table.rows}
    assert rows["control"] == (100.0, 0, 0, 0, 0, 0, 0)
    ap50 = 100 * (51 / 101) / 2  # of cats, and 0 of dogs
    assert rows["student"][0] == pytest.approx(ap50)
    assert rows["student"][1:] == (1, 1, 0, 1, 1, 0)
    (bars,) = section.charts
    assert isinstance(bars, BarChart) and bars.labels == table.columns[2:]
    costs = dict(zip(bars.labels, bars.series[1].y, strict=True))
    # with the right class the dog is found: AP50 of dogs 100; with the right box both cats are
    assert costs["class"] == pytest.approx(50.0)
    assert costs["localisation"] == pytest.approx(100 * (50 / 101) / 2)
    assert section.sentences[0] == (
        f"The student reaches an AP50 of {ap50:.1f} % on 4 images of tiny/test; most is lost to "
        "wrong classes, without which it would be 50.0 points higher."
    )
    assert section.sentences[1] == (
        f"Against the control (100.0 %), AP50 changes by {ap50 - 100:+.1f} points, and what errors "
        "cost by: localisation +24.8, class +50.0."
    )


def test_equal_networks_have_equal_errors() -> None:
    section = detection_errors.section(predictions(control=WEAK, student=WEAK))
    assert section.sentences[1].endswith(
        "AP50 changes by +0.0 points; no kind of error costs more or less than there."
    )
    alone = detection_errors.section(predictions(student=WEAK))
    assert len(alone.sentences) == len(section.sentences) - 1


# -------------------------------------------------------------------------------------- collecting


class Given(nn.Module):
    """Gives the detections of images by the value of their first pixel, the key."""

    def __init__(self, logit: float = 0.0) -> None:
        super().__init__()
        self.logit = logit

    def forward(self, images: Tensor) -> Tensor:
        return images[:, 0, 0, 0] + self.logit


class Task(Detection):
    """One detection per image, at a quarter of it."""

    def collect(self, trace: Trace) -> Tensor:
        return trace.out[:, None]

    def detect(self, trace: Trace, batch: Batch[Any]) -> Objects:
        count = len(batch)
        boxes = torch.tensor([[0.0, 0.0, 4.0, 2.0]]).expand(count, 4)
        labels = batch.keys % 2
        return Objects(boxes, labels, torch.arange(count), count, scores=torch.full((count,), 0.5))


def batches() -> Iterator[Batch[Objects]]:
    for keys in torch.arange(7, -1, -1).split(3):
        images = keys[:, None, None, None].expand(-1, 3, 8, 8).float()
        count = len(keys)
        boxes = torch.tensor([[1.0, 1.0, 3.0, 3.0]]).expand(count, 4)
        target = Objects(boxes, keys % 2, torch.arange(count), count)
        sizes = torch.tensor([[4, 8]]).expand(count, 2)
        yield Batch(images, target, keys, keys, sizes=sizes, originals=sizes * 3)


def collect(limit: int = 100, **networks: nn.Module) -> DetectionPredictions:
    return collect_detections(networks, Task(), batches, CLASSES, picture, limit)


def test_detections_are_collected_in_pixels_of_the_files() -> None:
    found = collect(limit=5, teacher=Given(), student=Given())
    assert [one.name for one in found.outputs] == ["teacher", "student"]
    assert found.images.tolist() == [3, 4, 5, 6, 7] and found.student.count == 5
    assert found.objects.box[0].tolist() == [3.0, 3.0, 9.0, 9.0]
    detections = found.student.rows.detections
    assert detections.box[0].tolist() == [0.0, 0.0, 12.0, 6.0]
    assert detections.label.tolist() == [1, 0, 1, 0, 1]
    assert all(one.finite for one in found.outputs)


def test_a_network_that_fails_is_named() -> None:
    class Failing(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            raise RuntimeError("no memory")

    found = collect(teacher=Failing(), student=Given())
    assert [*found.missing] == ["teacher"] and "no memory" in found.missing["teacher"]
    with pytest.raises(RuntimeError, match="no memory"):
        collect(teacher=Given(), student=Failing())


def test_scores_that_are_not_finite_leave_a_network_out() -> None:
    found = collect(control=Given(float("nan")), student=Given())
    (missing, *sections) = run_diagnoses(Detection.examine, found)
    assert (
        missing.name == "missing" and "Some logits of control are not finite." in missing.sentences
    )
    # without a teacher there are no maps of differences to it
    assert [section.name for section in sections] == [*Detection.examine[:3]]
    assert all(not one.failed and one.missing == ("control",) for one in sections)
    lost = run_diagnoses(Detection.examine, collect(control=Given(), student=Given(float("inf"))))
    assert [section.name for section in lost] == ["missing"]


def test_a_diagnosis_fails_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def unreadable(key: int) -> Tensor:
        raise UserError(f"image {key} is gone")

    found = replace(predictions(control=WEAK, student=PERFECT), image=unreadable)
    sections = run_diagnoses(Detection.examine, found)
    assert [section.failed for section in sections] == [True, False, False]
    assert sections[0].sentences == ("Detections could not be computed: image 3 is gone.",)
    sections_to_json(sections)


def test_images_without_objects_annotated_are_an_error() -> None:
    bare = [replace(batch, target=None) for batch in batches()]
    with pytest.raises(UserError, match="no objects annotated"):
        detections_of("student", Given(), Task(), bare)
    with pytest.raises(UserError, match="no images for student"):
        detections_of("student", Given(), Task(), [])


def test_a_task_s_diagnoses_say_what_is_collected() -> None:
    assert collector(Detection.examine) is collect_detections
    assert collector(Classification(5).examine) is collect_predictions
    assert collector(("nothing", *Detection.examine)) is collect_detections
    kinds = {catalogue.DIAGNOSES[name].collect for name in Detection.examine}
    assert len(kinds) == 1
