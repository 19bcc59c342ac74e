"""What is wrong with the detections, by kind, and what each kind costs."""

from __future__ import annotations

from collections.abc import Mapping

from stillhouse.explain.detections import DetectionPredictions
from stillhouse.explain.phrases import (
    baseline_name,
    count_of,
    sentence_start,
    with_article,
)
from stillhouse.explain.section import BarChart, Cell, Section, Series, Table
from stillhouse.tasks.meters.detection_errors import (
    KINDS,
    MISSED,
    DetectionErrors,
    detection_errors,
)

TITLE = "Errors of the detections"
ALL = (*KINDS, MISSED)
MEANING = (
    "Kinds of errors: class, a wrong class for the right place; localisation, IoU of 0.1 to 0.5 "
    "with an object of the class; both; duplicate, a second detection of an object; background, no "
    "object; missed, an object that none of these explains."
)

Results = Mapping[str, DetectionErrors]  # by network


def section(predictions: DetectionPredictions) -> Section:
    """The cost in AP50 of each kind of error of teacher, control and student, and the counts."""
    results = {
        one.name: detection_errors(one.rows, len(predictions.classes)) for one in predictions.main
    }
    return Section(
        "detection_errors",
        TITLE,
        (*_sentences(predictions, results), MEANING),
        (_table(results),),
        (cost_bars(results),),
    )


def cost_bars(results: Results) -> BarChart:
    """What each kind of error costs."""
    places = tuple(map(float, range(len(ALL))))
    series = tuple(
        Series(name, places, tuple(errors.costs[kind] for kind in ALL))
        for name, errors in results.items()
    )
    return BarChart("AP50 that each kind of error costs", "points of AP50", ALL, series)


def _table(results: Results) -> Table:
    rows: list[tuple[Cell, ...]] = [
        (name, errors.ap50, *(errors.counts[kind] for kind in ALL))
        for name, errors in results.items()
    ]
    return Table(("network", "AP50, %", *ALL), tuple(rows), "Number of errors", digits=1)


def _sentences(predictions: DetectionPredictions, results: Results) -> tuple[str, ...]:
    errors = results[predictions.student.name]
    student = sentence_start(with_article(predictions.student))
    kind = max(ALL, key=lambda one: errors.costs[one])
    images = count_of(len(predictions.images), "image")
    split = f" of {predictions.source}" if predictions.source else ""
    sentence = (
        f"{student} reaches an AP50 of {errors.ap50:.1f} % on {images}{split}; most is lost to "
        f"{_named(kind)}, without which it would be {errors.costs[kind]:.1f} points higher."
    )
    control = predictions.control
    if control is None or control is predictions.student:
        return (sentence,)
    return (sentence, compare_errors(errors, results[control.name], baseline_name(predictions)))


def compare_errors(errors: DetectionErrors, other: DetectionErrors, name: str) -> str:
    """How the student differs from its baseline: AP50, and the cost of each kind that changed."""
    changes = {kind: errors.costs[kind] - other.costs[kind] for kind in ALL}
    shown = [kind for kind in ALL if abs(changes[kind]) >= 0.05]
    shown.sort(key=lambda kind: changes[kind])
    start = (
        f"Against {name} ({other.ap50:.1f} %), AP50 changes by {_signed(errors.ap50 - other.ap50)}"
    )
    if not shown:
        return f"{start} points; no kind of error costs more or less than there."
    texts = ", ".join(f"{kind} {_signed(changes[kind])}" for kind in shown)
    return f"{start} points, and what errors cost by: {texts}."


def _named(kind: str) -> str:
    return {
        "class": "wrong classes",
        "localisation": "wrong places",
        "both": "wrong places of a wrong class",
        "duplicate": "duplicates",
        "background": "detections of background",
        MISSED: "missed objects",
    }[kind]


def _signed(points: float) -> str:
    return f"{round(points, 1) + 0.0:+.1f}"
