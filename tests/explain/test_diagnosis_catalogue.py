"""All parts together, and what a file holds of them."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from time import perf_counter

import pytest
import torch
from synthetic import everyone, hearing, looked_at, several

from stillhouse.explain.predictions import Hearing, Voice
from stillhouse.explain.catalogue import sections
from stillhouse.explain.section import (
    Bars,
    Cloud,
    Density,
    Heat,
    Joint,
    Lines,
    Picture,
    Pictures,
    Section,
    Series,
    Table,
    dump,
    parse,
)
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.multilabel import Multilabel

TASK = Classification(5)
EVERY = Section(
    "name",
    "Title",
    ("One sentence.",),
    (Table(("", "a", "b"), (("x", 1.5, None), ("y", 3, "z")), "t", 3),),
    (
        Lines("l", "x", "y", (Series("s", (1.0, 2.0), (None, 3.0), error=(0.1, 0.2)),), True),
        Bars("b", "y", ("p",), (Series("s", (0.0,), (1.0,)),)),
        Heat("h", "x", "y", ((0.5, None),), True),
        Cloud("c", (Series("s", (1.0,), (2.0,), (0,)),), ("cat",)),
        Joint("j", "x", "y", (0.0, 1.0), (0.0, 1.0), (Density("d", ((3,),)),)),
        Pictures("p", (Picture("AAAA", "caption", "alt"),)),
        Pictures("q", (Picture("AAAA", "caption", "alt"),) * 2, 2),
    ),
)


def written(found: tuple[Section, ...]) -> str:
    return json.dumps(dump(found), allow_nan=False)


# ------------------------------------------------------------------------------------------ a file


def test_a_file_gives_back_what_was_put_into_it() -> None:
    assert parse(json.loads(written((EVERY, EVERY)))) == (EVERY, EVERY)


def test_numbers_are_short_and_finite() -> None:
    cells = (("x", math.pi * 1e-4, math.nan, math.inf, 123456.0, 7, 2 / 3),)
    (found,) = dump([Section("n", "t", tables=(Table(("",) * 7, cells),))])
    assert found["tables"][0]["rows"] == [["x", 0.00031416, None, None, 123456.0, 7, 0.66667]]
    (again,) = parse([found])
    assert dump([again]) == [found]


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
        parse(content)


# --------------------------------------------------------------------------------------- all parts

NAMES = [
    "agreement",
    "consistency",
    "correlation",
    "relations",
    "logits",
    "calibration",
    "classes",
    "embedding",
]


def test_a_classifier_s_page_has_every_part() -> None:
    found = sections(TASK, everyone(n=30, features=4))
    assert [section.name for section in found] == NAMES
    assert all(section.said and section.title for section in found)
    assert dump(parse(json.loads(written(found)))) == dump(found)


def test_an_unknown_task_has_no_parts() -> None:
    assert sections(object(), everyone()) == ()


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
def test_whoever_was_heard_there_is_a_page(names: tuple[str, ...], n: int, c: int) -> None:
    found = sections(TASK, hearing(*names, n=n, c=c, features=3))
    assert {"logits", "calibration", "classes"} <= {section.name for section in found}
    text = written(found)
    assert "nan" not in text.lower().replace("kd", "") and parse(json.loads(text))


@pytest.mark.parametrize("size", [1e4, 1e30, 0.0])
def test_extreme_logits_are_no_crash(size: float) -> None:
    heard = everyone(n=30)
    loud = tuple(replace(v, logits=size * v.logits) for v in heard.voices)
    assert written(sections(TASK, replace(heard, voices=loud)))


def test_a_network_that_lost_its_way_is_named_and_left_out() -> None:
    broken = torch.full((12, 5), math.nan)
    found = sections(TASK, hearing("teacher", "control", "student", control=broken))
    assert found[0].name == "lost" and "control" in found[0].said[0]
    assert "(control" not in " ".join(found[1].said)
    (only,) = sections(TASK, hearing("teacher", "student", student=broken))
    assert only.name == "lost" and written((only,))


def test_nobody_and_nothing_is_an_empty_page() -> None:
    assert sections(TASK, hearing("teacher")) == () == sections(TASK, hearing())
    assert sections(TASK, everyone(n=0)) == ()


def study(n: int, c: int, learners: int) -> Hearing:
    names = ("teacher", "control", *(f"m{i}" for i in range(learners - 1)))
    heard = hearing(*names, n=n, c=c, features=64)
    return replace(heard, picture=lambda i: torch.randint(0, 256, (3, 96, 96), dtype=torch.uint8))


def test_a_study_s_sections_take_seconds_and_stay_small() -> None:
    heard = study(600, 100, 3)
    start = perf_counter()
    text = written(sections(TASK, heard))
    assert perf_counter() - start < 30  # about 2 on an idle core
    assert len(text) < 1_000_000


# ------------------------------------------------------------------------------- several classes


def neighbours(voice: Voice) -> torch.Tensor:
    """Anybody, for more queries than there are."""
    return torch.randint(0, len(voice.logits), (200, min(5, len(voice.logits))))


def closely(*names: str, n: int, c: int) -> Hearing:
    heard = looked_at(
        several(*names, n=n, c=c), nearest=neighbours, maps=lambda v: torch.rand(n, 4, 4)
    )
    assert heard.close is not None
    queries, places = len(heard.close.queries), len(heard.close.samples)
    voices = (
        replace(v, nearest=v.nearest[:queries], maps=v.maps[:places])
        for v in heard.voices
        if v.nearest is not None and v.maps is not None
    )
    return replace(heard, voices=tuple(voices))


def test_a_page_of_several_classes_has_every_part() -> None:
    found = sections(Multilabel(5), closely("teacher", "control", "student", n=30, c=5))
    assert [section.name for section in found] == [
        "agreement",
        "decisions",
        "precision",
        "correlation",
        "relations",
        "retrieval",
        "activation",
    ]
    assert all(section.said and section.title for section in found)
    assert dump(parse(json.loads(written(found)))) == dump(found)
    assert len(written(found)) < 1_000_000


@pytest.mark.parametrize(
    "names",
    [("student",), ("teacher", "student"), ("control", "student"), ("teacher", "kd", "ttm")],
)
@pytest.mark.parametrize(("n", "c"), [(30, 5), (2, 2), (7, 1), (3, 3)])
def test_whoever_says_several_classes_there_is_a_page(
    names: tuple[str, ...], n: int, c: int
) -> None:
    found = sections(Multilabel(c), closely(*names, n=n, c=c))
    assert {"decisions", "precision", "retrieval"} <= {section.name for section in found}
    assert parse(json.loads(written(found)))


def test_no_image_with_a_class_is_no_crash() -> None:
    heard = several("teacher", "control", "student")
    bare = replace(heard, labels=torch.zeros_like(heard.labels))
    assert written(sections(Multilabel(5), bare))
    assert written(sections(Multilabel(5), replace(bare, labels=torch.ones_like(bare.labels))))
