"""All diagnoses together, their failures, and their form in a file."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from time import perf_counter

import pytest
import torch
from synthetic import make_multilabel, make_predictions, three_networks, with_subset

from stillhouse.errors import UserError
from stillhouse.explain import catalogue
from stillhouse.explain.catalogue import DIAGNOSES, Diagnosis, run_diagnoses
from stillhouse.explain.predictions import Outputs, Predictions
from stillhouse.explain.section import (
    BarChart,
    CaptionedImage,
    DensityPlot,
    Heatmap,
    Histogram2D,
    ImageGrid,
    LineChart,
    ScatterPlot,
    Section,
    Series,
    Table,
    sections_from_json,
    sections_to_json,
)
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.detection import Detection
from stillhouse.tasks.instance import Instance
from stillhouse.tasks.multilabel import Multilabel
from stillhouse.tasks.semantic import Semantic

SINGLE, SEVERAL = Classification(5).examine, Multilabel(5).examine
EVERY = Section(
    "name",
    "Title",
    ("One sentence.",),
    (Table(("", "a", "b"), (("x", 1.5, None), ("y", 3, "z")), "t", 3),),
    (
        LineChart("l", "x", "y", (Series("s", (1.0, 2.0), (None, 3.0), error=(0.1, 0.2)),), True),
        BarChart("b", "y", ("p",), (Series("s", (0.0,), (1.0,)),)),
        Heatmap("h", "x", "y", ((0.5, None),), True),
        ScatterPlot("c", (Series("s", (1.0,), (2.0,), (0,)),), ("cat",)),
        DensityPlot("j", "x", "y", (0.0, 1.0), (0.0, 1.0), (Histogram2D("d", ((3,),)),)),
        ImageGrid("p", (CaptionedImage("AAAA", "caption", "alt"),)),
        ImageGrid("q", (CaptionedImage("AAAA", "caption", "alt"),) * 2, 2),
    ),
)


def written(found: tuple[Section, ...]) -> str:
    return json.dumps(sections_to_json(found), allow_nan=False)


# ------------------------------------------------------------------------------------------ a file


def test_sections_survive_a_file() -> None:
    assert sections_from_json(json.loads(written((EVERY, EVERY)))) == (EVERY, EVERY)


def test_numbers_are_short_and_finite() -> None:
    cells = (("x", math.pi * 1e-4, math.nan, math.inf, 123456.0, 7, 2 / 3),)
    (found,) = sections_to_json([Section("n", "t", tables=(Table(("",) * 7, cells),))])
    assert found["tables"][0]["rows"] == [
        ["x", 0.000314159265359, None, None, 123456.0, 7, 0.666666666667]
    ]
    (again,) = sections_from_json([found])
    assert sections_to_json([again]) == [found]


@pytest.mark.parametrize(
    "content",
    [
        None,
        {},
        [{"name": "n"}],
        [{"name": "n", "title": "t", "charts": [{"kind": "pie"}]}],
        [{"name": "n", "title": "t", "more": 1}],
        [{"name": "n", "title": "t", "tables": [{"columns": ["a"], "rows": "no"}]}],
    ],
)
def test_wrong_content_is_a_value_error(content: object) -> None:
    with pytest.raises(ValueError):
        sections_from_json(content)


# --------------------------------------------------------------------------------------- all parts

NAMES = [
    "agreement",
    "consistency",
    "correlation",
    "relations",
    "logits",
    "calibration",
    "classes",
    "confusion",
    "embedding",
]


def test_every_task_names_diagnoses_that_exist() -> None:
    dense = (*Detection.examine, *Semantic.examine, *Instance.examine)
    assert {*SINGLE, *SEVERAL, *dense} == {*DIAGNOSES}


def test_a_classifier_s_page_has_every_part() -> None:
    found = run_diagnoses(SINGLE, three_networks(n=30, features=4))
    assert [section.name for section in found] == NAMES
    assert all(section.sentences and section.title for section in found)
    assert sections_to_json(sections_from_json(json.loads(written(found)))) == sections_to_json(
        found
    )


def test_no_names_are_no_sections() -> None:
    assert run_diagnoses((), three_networks()) == ()


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            RuntimeError("two lines\nof text"),
            "Calibration could not be computed: RuntimeError: two lines; run `stillhouse explain "
            "RUN --debug` for the traceback.",
        ),
        (
            ValueError(),
            "Calibration could not be computed: ValueError; run `stillhouse explain RUN --debug` "
            "for the traceback.",
        ),
        (UserError("say more"), "Calibration could not be computed: say more."),
    ],
)
def test_a_diagnosis_that_raises_is_named_and_the_others_are_shown(
    error: Exception,
    sentence: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(_: Predictions) -> None:
        raise error

    predictions = three_networks(n=30, features=4)
    whole = run_diagnoses(SINGLE, predictions)
    failing = {**DIAGNOSES, "calibration": Diagnosis("Calibration", broken)}
    monkeypatch.setattr(catalogue, "DIAGNOSES", failing)
    with caplog.at_level("DEBUG", "stillhouse"):
        sections = run_diagnoses(SINGLE, predictions)
    assert [section.name for section in sections] == NAMES
    place = NAMES.index("calibration")
    assert sections[place] == Section("calibration", "Calibration", (sentence,), failed=True)
    rest = [each for i, each in enumerate(sections) if i != place]
    assert rest == [each for i, each in enumerate(whole) if i != place]
    assert type(error).__name__ in caplog.text and "Traceback" in caplog.text
    assert sections_from_json(json.loads(written(sections)))[place].failed


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_is_not_caught(
    error: type[BaseException], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: Predictions) -> None:
        raise error

    monkeypatch.setattr(catalogue, "DIAGNOSES", {"logits": Diagnosis("Logits", interrupted)})
    with pytest.raises(error):
        run_diagnoses(("logits",), three_networks())


def test_an_unknown_diagnosis_is_named() -> None:
    first, second = run_diagnoses(("depth", "logits"), three_networks())
    assert first.failed and "asks for a diagnosis 'depth', but there is none" in first.sentences[0]
    assert not second.failed and second.name == "logits"


@pytest.mark.parametrize(
    "names",
    [
        ("student",),
        ("control",),
        ("teacher", "student"),
        ("teacher", "control"),
        ("control", "student"),
        ("teacher", "control", "kd", "ttm", "dist"),
        ("teacher", "kd"),
    ],
)
@pytest.mark.parametrize(("n", "c"), [(30, 5), (1, 5), (2, 2), (7, 1), (3, 3)])
def test_any_networks_have_sections(names: tuple[str, ...], n: int, c: int) -> None:
    found = run_diagnoses(SINGLE, make_predictions(*names, n=n, c=c, features=3))
    assert {"logits", "calibration", "classes"} <= {section.name for section in found}
    text = written(found)
    assert "nan" not in text.lower().replace("kd", "") and sections_from_json(json.loads(text))


@pytest.mark.parametrize("size", [1e4, 1e30, 0.0])
def test_extreme_logits(size: float) -> None:
    predictions = three_networks(n=30)
    loud = tuple(replace(v, logits=size * v.logits) for v in predictions.outputs)
    assert written(run_diagnoses(SINGLE, replace(predictions, outputs=loud)))


def test_a_network_with_infinite_logits_is_named_and_left_out() -> None:
    broken = torch.full((12, 5), math.nan)
    found = run_diagnoses(SINGLE, make_predictions("teacher", "control", "student", control=broken))
    assert found[0].name == "missing" and "control" in found[0].sentences[0]
    assert all(section.missing == ("control",) for section in found[1:])
    assert "(control" not in " ".join(found[1].sentences)
    (only,) = run_diagnoses(SINGLE, make_predictions("teacher", "student", student=broken))
    assert only.name == "missing" and written((only,))


def test_without_students_or_images_there_are_no_sections() -> None:
    assert (
        run_diagnoses(SINGLE, make_predictions("teacher"))
        == ()
        == run_diagnoses(SINGLE, make_predictions())
    )
    assert run_diagnoses(SINGLE, three_networks(n=0)) == ()


def study(n: int, c: int, learners: int) -> Predictions:
    names = ("teacher", "control", *(f"m{i}" for i in range(learners - 1)))
    predictions = make_predictions(*names, n=n, c=c, features=64)
    return replace(
        predictions, image=lambda i: torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8)
    )


def test_the_sections_of_a_study_are_fast_and_small() -> None:
    predictions = study(600, 100, 3)
    start = perf_counter()
    text = written(run_diagnoses(SINGLE, predictions))
    assert perf_counter() - start < 30  # about 2 on an idle core
    assert len(text) < 1_000_000


# --------------------------------------------------------------------------------- multi-label


def neighbours(outputs: Outputs) -> torch.Tensor:
    """Random neighbours, for more queries than there are."""
    return torch.randint(0, len(outputs.logits), (200, min(5, len(outputs.logits))))


def random_multilabel(*names: str, n: int, c: int) -> Predictions:
    predictions = with_subset(
        make_multilabel(*names, n=n, c=c), nearest=neighbours, maps=lambda v: torch.rand(n, 4, 4)
    )
    assert predictions.subset is not None
    queries, places = len(predictions.subset.queries), len(predictions.subset.samples)
    outputs = (
        replace(v, nearest=v.nearest[:queries], maps=v.maps[:places])
        for v in predictions.outputs
        if v.nearest is not None and v.maps is not None
    )
    return replace(predictions, outputs=tuple(outputs))


def test_a_multi_label_page_has_every_part() -> None:
    found = run_diagnoses(SEVERAL, random_multilabel("teacher", "control", "student", n=30, c=5))
    assert [section.name for section in found] == [
        "disagreement",
        "decisions",
        "average_precision",
        "correlation",
        "relations",
        "retrieval",
        "activation",
    ]
    assert all(section.sentences and section.title for section in found)
    assert sections_to_json(sections_from_json(json.loads(written(found)))) == sections_to_json(
        found
    )
    assert len(written(found)) < 1_000_000


@pytest.mark.parametrize(
    "names",
    [("student",), ("teacher", "student"), ("control", "student"), ("teacher", "kd", "ttm")],
)
@pytest.mark.parametrize(("n", "c"), [(30, 5), (2, 2), (7, 1), (3, 3)])
def test_any_multi_label_networks_have_sections(names: tuple[str, ...], n: int, c: int) -> None:
    found = run_diagnoses(SEVERAL, random_multilabel(*names, n=n, c=c))
    assert {"decisions", "average_precision", "retrieval"} <= {section.name for section in found}
    assert sections_from_json(json.loads(written(found)))


def test_labels_may_all_be_negative_or_positive() -> None:
    predictions = make_multilabel("teacher", "control", "student")
    bare = replace(predictions, labels=torch.zeros_like(predictions.labels))
    assert written(run_diagnoses(SEVERAL, bare))
    assert written(run_diagnoses(SEVERAL, replace(bare, labels=torch.ones_like(bare.labels))))
