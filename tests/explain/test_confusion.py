"""Confusion matrices of classifiers, and the scales and names of heat maps that are compared."""

from __future__ import annotations

import torch
from synthetic import make_predictions, three_networks

from stillhouse.explain import confusion, relations
from stillhouse.explain.section import Heatmap


def one_hot(*classes: int, count: int = 3) -> torch.Tensor:
    return 5.0 * torch.nn.functional.one_hot(torch.tensor(classes), count).float()


def test_the_matrix_counts_images_by_label_and_prediction() -> None:
    labels, predicted = torch.tensor([0, 0, 1, 2, 2, -1]), torch.tensor([0, 1, 1, 0, 0, 2])
    assert confusion.confusion_matrix(labels, predicted, 3).tolist() == [
        [1, 1, 0],
        [0, 1, 0],
        [2, 0, 0],
    ]


def test_few_classes_have_a_heat_map_of_each_network_on_one_scale() -> None:
    # the labels are 0, 1, 2, 0, 1, 2
    logits = {"teacher": one_hot(0, 1, 2, 0, 1, 2), "student": one_hot(0, 0, 2, 1, 0, 1)}
    section = confusion.section(make_predictions("teacher", "student", n=6, c=3, **logits))
    assert section is not None
    first, second = section.charts
    assert isinstance(first, Heatmap) and isinstance(second, Heatmap)
    assert first.title.endswith(": teacher") and second.title.endswith(": student")
    assert first.limits == second.limits == (0, 100)
    assert second.row_names == second.column_names == ("c0", "c1", "c2")
    assert first.values == ((100, 0, 0), (0, 100, 0), (0, 0, 100))
    assert second.values == ((50, 50, 0), (100, 0, 0), (0, 50, 50))
    assert section.tables[0].columns == ("label", "predicted", "teacher, %", "student, %")
    assert section.tables[0].rows == (
        ("c1", "c0", 0, 100),
        ("c0", "c1", 0, 50),
        ("c2", "c1", 0, 50),
    )


def test_many_classes_have_the_table_only() -> None:
    section = confusion.section(three_networks(n=80, c=31))
    assert section is not None and section.charts == ()
    assert len(section.tables[0].rows) == confusion.PAIRS


def test_a_student_without_errors_has_no_table() -> None:
    logits = {"student": one_hot(0, 1, 2)}
    section = confusion.section(make_predictions("student", n=3, c=3, **logits))
    assert section is not None and section.tables == () and len(section.charts) == 1


def test_relations_of_control_and_student_have_one_scale_and_the_names_of_classes() -> None:
    section = relations.section(three_networks(n=30, c=5))
    assert section is not None
    control, student = section.charts
    assert isinstance(control, Heatmap) and isinstance(student, Heatmap)
    values = [abs(v) for chart in (control, student) for row in chart.values for v in row if v]
    assert control.limits == student.limits == (-max(values), max(values))
    assert control.row_names == student.column_names == ("c0", "c1", "c2", "c3", "c4")


def test_names_of_neighbours_are_those_of_the_first() -> None:
    section = relations.section(three_networks(n=30, c=250))
    assert section is not None
    (chart, _) = section.charts
    assert isinstance(chart, Heatmap) and len(chart.values) == len(chart.row_names) == 84
    assert chart.row_names[:2] == ("c0", "c3")
