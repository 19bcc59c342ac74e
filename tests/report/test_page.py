"""One page, whole in itself."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from quick import quick
from stillhouse.recipes import load
from stillhouse.recipes.execute import Result
from stillhouse.recipes.schema import Recipe
from stillhouse.report.page import write_page, write_study
from stillhouse.study.demo import CONTROL, Study

EMPTY = {"meta", "br", "hr", "link", "img", "input"}


class Balanced(HTMLParser):
    """Every element is closed in order; what the page holds is kept."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def parsed(path: Path) -> Balanced:
    page = Balanced()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


def score(value: float, name: str = "stillhouse/tiny") -> dict[str, Any]:
    return {"test": {"top1": value}, "name": name, "parameters": 1382}


def page_of(folder: Path, recipe: Recipe | None = None, **scores: Any) -> Path:
    found = {"student": score(71.8), "teacher": score(74.0, "stillhouse/little")} | scores
    return write_page(Result(folder, "top1", **found), recipe or quick())


@pytest.fixture
def study() -> Study:
    scores = {
        CONTROL: [score(70.0), score(70.5)],
        "kd": [score(71.8), score(72.1)],
    }
    return Study(load.load("digits/numbers"), "top1", score(74.0, "stillhouse/large"), scores)


def widths(page: Balanced) -> list[tuple[str, str]]:
    return [
        (str(attrs["class"]).removeprefix("bar "), str(attrs["style"]))
        for tag, attrs in page.tags
        if tag == "span"
    ]


def test_a_run_s_page_has_the_answer_the_bars_and_the_recipe(tmp_path: Path) -> None:
    path = page_of(tmp_path, control=score(70.1))
    assert path == tmp_path / "report.html"
    page = parsed(path)
    text = "".join(page.text)
    assert "student top1 71.80, +1.70 over the control. One seed: no interval can be given" in text
    assert widths(page) == [
        ("teacher", "width: 74.0%"),
        ("control", "width: 70.1%"),
        ("student", "width: 71.8%"),
    ]
    assert load.text(quick()) in text
    assert "torch" in text and "1,382" in text and quick().title in text


def test_a_page_without_a_control_claims_no_gain(tmp_path: Path) -> None:
    text = "".join(parsed(page_of(tmp_path)).text)
    assert "student top1 71.80" in text and "over the control" not in text


def test_a_study_s_page_has_every_answer(tmp_path: Path, study: Study) -> None:
    page = parsed(write_study(study, tmp_path))
    text = "".join(page.text)
    assert all(answer in text for answer in study.answers()) and study.answers()
    assert [who for who, _ in widths(page)] == ["teacher", "control", "kd"]
    assert "71.95 ± 0.21" in re.sub(r"\s+", " ", text)


def test_it_asks_nobody_for_anything(tmp_path: Path, study: Study) -> None:
    for path in (page_of(tmp_path, control=score(1.0)), write_study(study, tmp_path)):
        content = path.read_text(encoding="utf-8")
        assert not re.search(r"https?://|//\w|@import|url\(", content)
        tags = parsed(path).tags
        assert not {tag for tag, _ in tags} & {"script", "link", "img", "iframe"}
        assert not any("src" in attrs or "href" in attrs for _, attrs in tags)
        assert len(content.encode()) < 100_000


def test_what_a_user_wrote_is_text_and_not_html(tmp_path: Path) -> None:
    bad = "<script>alert('1')</script> & <b>"
    recipe = quick(f'title="{bad}"')
    assert recipe.title == bad
    path = page_of(tmp_path, recipe, student=score(50.0, "<i>net</i>"))
    page = parsed(path)
    assert not {tag for tag, _ in page.tags} & {"script", "b", "i"}
    assert bad in "".join(page.text) and "<i>net</i>" in "".join(page.text)


def test_a_score_that_is_no_number_still_gives_a_page(tmp_path: Path) -> None:
    page = parsed(page_of(tmp_path, student=score(-3.0)))
    assert ("student", "width: 0.0%") in widths(page)


def test_the_recipe_on_the_page_gives_the_same_run(tmp_path: Path) -> None:
    page = parsed(page_of(tmp_path))
    (shown,) = (text for text in page.text if text.startswith("data:"))
    (tmp_path / "again.yaml").write_text(shown)
    assert load.digest(load.load(tmp_path / "again.yaml")) == load.digest(quick())
