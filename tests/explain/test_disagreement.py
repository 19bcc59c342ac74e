"""The classes that two networks predict, image by image."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from synthetic import image, make_multilabel, row

from stillhouse.explain import disagreement
from stillhouse.explain.section import ImageGrid


def test_shares_are_those_counted_by_hand() -> None:
    predictions = make_multilabel("teacher", "control", "student", n=60, c=4)
    section = disagreement.section(predictions)
    assert section is not None
    true = (predictions.labels > 0).tolist()
    predicted = {v.name: (v.logits.sigmoid() > 0.5).tolist() for v in predictions.outputs}
    for number, other in enumerate(("teacher", "control")):
        for name in {"control", "student"} - {other}:
            pairs = [
                (s, t, y)
                for ss, tt, yy in zip(predicted[name], predicted[other], true, strict=True)
                for s, t, y in zip(ss, tt, yy, strict=True)
            ]
            same = sum(a == b for a, b in zip(predicted[name], predicted[other], strict=True))
            apart = [(s, y) for s, t, y in pairs if s != t]
            right = sum(s == y for s, y in apart)
            assert row(section.tables[number], name) == pytest.approx(
                (100 * same / 60, len(apart) / 60, 100 * right / len(apart))
            )
    assert [line[0] for line in section.tables[1].rows] == ["student"]
    assert section.sentences[0].startswith(
        "The student predicts the same set of classes as the teacher"
    )


def test_equal_predictions_have_no_images() -> None:
    same = torch.randn(12, 5)
    section = disagreement.section(
        make_multilabel("teacher", "student", teacher=same, student=same)
    )
    assert section is not None and section.charts == ()
    assert row(section.tables[0], "student") == (100.0, 0.0, None)
    assert len(section.sentences) == 2  # nothing of who is right
    assert disagreement.section(make_multilabel("student")) is None
    assert disagreement.section(make_multilabel("control")) is None


def test_the_most_different_come_first_and_captions_name_the_classes() -> None:
    teacher, student = torch.full((12, 5), -4.0), torch.full((12, 5), -4.0)
    student[2, :3] = 4.0  # three classes more
    student[7, 1] = 1.0  # one, and not far
    student[4, 1] = 4.0  # one, and far
    teacher[9, :2], student[9, 1:3] = 4.0, 4.0  # two
    predictions = make_multilabel("teacher", "student", teacher=teacher, student=student)
    labels = torch.zeros(12, 5)
    labels[2, 4] = 1
    shown_images: list[int] = []

    def picture(index: int) -> torch.Tensor:
        shown_images.append(index)
        return image(index)

    predictions = replace(predictions, labels=labels, image=picture)
    section = disagreement.section(predictions)
    assert section is not None and isinstance(section.charts[0], ImageGrid)
    assert shown_images == [2, 9, 4, 7]
    captions = [one.caption for one in section.charts[0].pictures]
    assert captions[0] == "true: c4; student: c0, c1, c2; teacher: none"
    assert captions[1] == "true: none; student: c1, c2; teacher: c0, c1"
    assert section.charts[0].pictures[1].alt.startswith("An image. true: none")


def test_there_are_at_most_twelve_images_and_long_lists_are_cut() -> None:
    predictions = make_multilabel("teacher", "student", n=30, c=8, student=torch.full((30, 8), 9.0))
    section = disagreement.section(predictions)
    assert section is not None and isinstance(section.charts[0], ImageGrid)
    assert len(section.charts[0].pictures) == 12
    assert "student: c0, c1, c2, c3, c4 and 3 more" in section.charts[0].pictures[0].caption
