"""Agreement, counted image by image, and images of disagreement."""

from __future__ import annotations

import base64
import io
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from synthetic import image, make_predictions, row, three_networks

from stillhouse.explain import agreement
from stillhouse.explain.section import ImageGrid
from stillhouse.explain.thumbnails import encode_thumbnail


def opened(code: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(code)))


def test_shares_are_those_counted_by_hand() -> None:
    predictions = three_networks(n=60)
    section = agreement.section(predictions)
    assert section is not None
    predicted = {v.name: v.logits.argmax(1).tolist() for v in predictions.outputs}
    true = predictions.labels.tolist()
    for name in ("control", "student"):
        rows = list(zip(predicted[name], predicted["teacher"], true, strict=True))
        cases = [
            sum(s == t == y for s, t, y in rows),
            sum(s == y != t for s, t, y in rows),
            sum(t == y != s for s, t, y in rows),
            sum(s == t != y for s, t, y in rows),
            sum(s not in (y, t) and t != y for s, t, y in rows),
        ]
        assert sum(cases) == 60 and min(cases) > 0
        assert row(section.tables[1], name) == pytest.approx([100 * k / 60 for k in cases])
        assert row(section.tables[0], name)[0] == pytest.approx(100 * (cases[0] + cases[3]) / 60)
    same = sum(a == b for a, b in zip(predicted["student"], predicted["control"], strict=True))
    assert row(section.tables[0], "student")[1] == pytest.approx(100 * same / 60)
    assert row(section.tables[0], "control")[1] is None


def test_equal_predictions_agree_on_all_images() -> None:
    same = torch.randn(12, 5)
    section = agreement.section(make_predictions("teacher", "student", teacher=same, student=same))
    assert section is not None
    assert row(section.tables[0], "student") == (100,) and section.charts == ()
    assert "on 100.0 % of images." in section.sentences[0]


def test_without_a_teacher_the_control_is_the_reference() -> None:
    section = agreement.section(make_predictions("control", "student"))
    assert section is not None
    assert section.sentences[0].startswith("The student agrees with the control on ")
    assert len(section.tables) == 1
    assert agreement.section(make_predictions("student")) is None
    assert agreement.section(make_predictions("control")) is None


def test_the_most_confident_disagreements_come_first() -> None:
    student, teacher = torch.zeros(20, 3), torch.zeros(20, 3)
    student[:, 0], teacher[:, 1] = torch.arange(20.0), 30.0
    teacher[19] = student[19]  # agrees
    predictions = make_predictions(
        "teacher", "student", n=20, c=3, teacher=teacher, student=student
    )
    shown_images: list[int] = []

    def picture(index: int) -> torch.Tensor:
        shown_images.append(index)
        return image(index)

    predictions = replace(predictions, image=picture)
    chart = agreement.disagreement_images(predictions, predictions.student, predictions.outputs[0])
    assert isinstance(chart, ImageGrid) and len(chart.pictures) == 12
    assert shown_images == list(range(18, 6, -1))
    assert chart.pictures[0].caption == "true: c0; student: c0 (100.0 %); teacher: c1 (100.0 %)"
    assert "class c0" in chart.pictures[0].alt and "teacher: c1" in chart.pictures[0].alt
    assert np.unique(np.asarray(opened(chart.pictures[0].png))).tolist() == [18]


@pytest.mark.parametrize(
    ("shape", "size", "mode"),
    [
        ((1, 8, 8), (64, 64), "L"),
        ((3, 32, 20), (40, 64), "RGB"),
        ((3, 64, 64), (64, 64), "RGB"),
        ((4, 80, 80), (80, 80), "RGB"),
        ((2, 60, 60), (120, 120), "L"),
        ((3, 300, 600), (96, 48), "RGB"),
    ],
)
def test_thumbnails_have_their_size(
    shape: tuple[int, int, int], size: tuple[int, int], mode: str
) -> None:
    shown = opened(encode_thumbnail(torch.randint(0, 256, shape, dtype=torch.uint8)))
    assert (shown.size, shown.mode, shown.format) == (size, mode, "PNG")


def test_a_small_image_keeps_its_pixels() -> None:
    pixels = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    shown = np.asarray(opened(encode_thumbnail(pixels)))
    np.testing.assert_array_equal(shown[::4, ::4], pixels.permute(1, 2, 0).numpy())
    np.testing.assert_array_equal(shown[3::4, 3::4], pixels.permute(1, 2, 0).numpy())
