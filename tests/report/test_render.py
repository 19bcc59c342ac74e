"""One self-contained page: its order, its text, and what it must not contain."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

import pages
from browser import contrast
from stillhouse.explain.section import CaptionedImage, ImageGrid, Table
from stillhouse.report import render as rendering
from stillhouse.report.cost_table import cost_table
from stillhouse.report.page import NetworkCost, Page, ScoreBar
from stillhouse.report.render import render, write_page, write_pages

EMPTY = {"meta", "br", "hr", "link", "img", "input"}
STYLE = Path(rendering.__file__).parent / "templates" / "style.css"


class Balanced(HTMLParser):
    """Every element is closed in order; what the page holds is kept."""

    def __init__(self, content: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text: list[str] = []
        self.feed(content)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        assert len(attrs) == len(dict(attrs)), (tag, attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in EMPTY:
            assert self.open and self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        if not {"script", "style"} & set(self.open):
            self.text.append(data)

    def all(self, *tags: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag in tags]

    def words(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.text))


@pytest.fixture(scope="module")
def rich(rich_html: str) -> Balanced:
    return Balanced(rich_html)


def every_page(rich_html: str) -> list[str]:
    return [rich_html, render(pages.bare()), render(pages.run(), pages.bare())]


def test_the_parts_come_in_order(rich: Balanced) -> None:
    text = rich.words()
    marks = [
        "Ten methods",
        "KD: student 81.4",
        "L2D : student 77.4",
        "± standard deviation",
        "Size and speed",
        "The run of mld",
        "On this page",
        "Top-1 accuracy on validation",
        "Comparison of the methods",
        "Diagnostics",
        "Confusion matrix of the student",
        "Examples",
        "Recipe",
        "Environment",
        "How to reproduce",
    ]
    places = [text.index(mark) for mark in marks[:6]]
    for mark in marks[6:]:  # the table of contents names some of them first
        places.append(text.index(mark, places[-1]))
    assert places == sorted(places)


def test_a_page_is_self_contained(rich_html: str) -> None:
    for content in every_page(rich_html):
        assert not re.search(r"https?:|//\w+\.|@import|url\(|src=\"(?!data:)|srcdoc|<base", content)
        page = Balanced(content)
        assert not page.all("link", "iframe", "object", "embed", "form", "base")
        assert all(attrs["href"].startswith("#") for attrs in page.all("a", "use"))
        assert all(attrs["src"].startswith("data:image/png;base64,") for attrs in page.all("img"))
        assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]


def test_the_page_allows_its_own_script_and_nothing_else(rich_html: str) -> None:
    script = re.search(r"<script>(.*?)</script>", rich_html, re.S)
    assert script is not None
    digest = base64.b64encode(hashlib.sha256(script[1].encode()).digest()).decode()
    (policy,) = re.findall(r"Content-Security-Policy\" content=\"(.*?)\"", rich_html)
    assert f"script-src 'sha256-{digest}'" in policy and policy.startswith("default-src 'none'")


def test_a_rich_page_is_small_and_deterministic(rich_html: str) -> None:
    assert len(rich_html.encode()) < 1_000_000  # of the 5 MB that it may take
    assert len(render(pages.bare()).encode()) < 25_000
    assert render(pages.rich()) == rich_html


def test_what_a_user_wrote_is_text_and_not_html() -> None:
    bad = pages.BAD
    table = Table((bad, "n"), ((bad, 1),), bad)
    page = Page(
        bad,
        (bad, f"{bad}: {bad}"),
        bad,
        bad,
        bars=(ScoreBar(bad, 1.0, 0.1, 2.0),),
        costs=(NetworkCost(bad, bad, 1), NetworkCost("student", bad, 2)),
        machine=bad,
        notes=(bad,),
        curves=(ImageGrid(bad, (CaptionedImage('AA"><b>', bad, bad),)),),
        tables=(table,),
        recipe=bad,
        environment=bad,
        again=(bad,),
    )
    content = render(page)
    found = Balanced(content)
    assert "<script>alert" not in content and "<b>" not in content
    assert found.words().count("alert('1')") > 20
    assert found.all("img")[0]["alt"] == bad


def test_names_are_unique_and_links_lead_somewhere(rich_html: str) -> None:
    for content in every_page(rich_html):
        page = Balanced(content)
        names = [attrs["id"] for _, attrs in page.tags if "id" in attrs]
        assert len(names) == len(set(names))
        meant = [attrs["href"][1:] for attrs in page.all("a", "use")]
        meant += [attrs["aria-labelledby"] for _, attrs in page.tags if "aria-labelledby" in attrs]
        assert set(meant) <= set(names)


def test_it_is_accessible_to_screen_readers(rich_html: str) -> None:
    for content in every_page(rich_html):
        page = Balanced(content)
        assert page.all("html")[0]["lang"] == "en"
        assert len(page.all("main")) == len(page.all("header")) == len(page.all("h1")) == 1
        assert page.all("a")[0] == {"class": "skip", "href": "#main"}
        assert all(attrs["alt"].strip() for attrs in page.all("img"))
        for attrs in page.all("svg"):
            assert attrs.get("aria-hidden") == "true" or (
                attrs["role"] == "img" and attrs["aria-label"].strip()
            )
        assert len(page.all("table")) == len(page.all("caption"))
        assert all("scope" in attrs for attrs in page.all("th"))
        levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
        assert levels[0] == 1 and all(b - a <= 1 for a, b in pairwise(levels))
        for attrs in page.all("div"):
            if attrs.get("class") == "scroll":
                assert attrs["tabindex"] == "0" and attrs["role"] == "region"
                assert attrs.get("aria-label") or attrs.get("aria-labelledby")


def test_the_minimal_page_has_no_empty_parts() -> None:
    page = Balanced(render(pages.bare()))
    assert "student top1 71.8" in page.words()
    assert not page.all("nav", "table", "section", "figure", "details", "ul", "pre")


def test_bars_have_numbers_and_axis_labels() -> None:
    page = Balanced(render(pages.run()))
    text = page.words()
    assert "control 76.10 ± 2.30 75.20" in text and "teacher 86.10" in text
    assert "from 0 0 25 50 75 100" in text and "magnified, from 70 70 75 80 85 90" in text
    bars = [attrs["style"] for attrs in page.all("b")]
    assert bars == [f"left:0.0%;width:{width}%" for width in (86.1, 76.1, 81.4)]
    dots = [attrs["style"] for attrs in page.all("u")]
    assert dots == [f"left:{place}%" for place in (80.5, 30.5, 57.0)]


@pytest.mark.parametrize(
    ("values", "shown"),
    [
        ((0.861, 0.761), ["0.8610", "0.7610"]),
        ((-3.0, 4.0), ["−3.00", "4.00"]),
        ((float("nan"), 50.0), ["–", "50.00"]),
        ((float("inf"),), ["∞"]),
        ((0.0, 0.0), ["0.0000", "0.0000"]),
        ((1e-9, 1e9), ["0.00", "1,000,000,000.00"]),
    ],
)
def test_any_scores_have_bars(values: tuple[float, ...], shown: list[str]) -> None:
    bars = tuple(ScoreBar(f"n{place}", value) for place, value in enumerate(values))
    content = render(Page("t", ("a",), "top1", "test", bars=bars))
    assert re.findall(r"<strong>(.*?)</strong>", content) == shown
    assert "magnified" not in content or values == (0.861, 0.761)
    shares = re.findall(r"[\";](?:left|width):(.*?)%", content)
    assert all(0 <= float(share) <= 100 for share in shares)


def test_costs_are_in_units_and_compared_in_words() -> None:
    text = Balanced(render(pages.run())).words()
    assert "22,780 1.9 MFLOPs 1.2 ms 9.8 ms 3.4 MB" in text
    assert "student vs. teacher 14 × fewer 9.4 × fewer 3.1 × faster 4.2 × faster" in text
    assert "Measured on 8 cores of a processor" in text


def test_costs_that_were_not_measured_are_left_out() -> None:
    alone = cost_table([NetworkCost("student", "net", parameters=1200)])
    assert alone.headings == ("parameters",) and alone.against == ()
    pair = cost_table([NetworkCost("a", "x", 100, 5), NetworkCost("b", "y", 200)])
    assert pair.rows[1][1] == ("200", "–")
    assert pair.versus == "b vs. a" and pair.against == ("2.0 × more", "–")
    study = cost_table([NetworkCost("student", "x", 100), NetworkCost("large", "y", 900)])
    assert study.versus == "student vs. large" and study.against == ("9.0 × fewer",)


def test_numbers_are_right_aligned_and_long_tables_folded() -> None:
    short = Table(("who", "n", "mixed", "none"), (("a", 1, "81 ± 2", None), ("b", 2.5, "x", None)))
    assert rendering.numeric_columns(short) == [False, True, False, False]
    long = Table(("n",), tuple((n,) for n in range(13)), "Many")
    page = Balanced(render(Page("t", ("a",), "top1", "test", tables=(short, long))))
    assert len(page.all("details")) == 1 and "Many 13 rows" in page.words()
    assert [a.get("class") for a in page.all("td")][:3] == ["number", None, None]
    ragged = Table(("a", "b"), (("x",), ("y", 1), ("z", 2, 3)))
    assert "z 2 3" in Balanced(render(Page("t", ("a",), "top1", "test", tables=(ragged,)))).words()


def test_the_recipe_is_shown_unchanged() -> None:
    assert pages.run().recipe in Balanced(render(pages.run())).text


def test_small_pictures_keep_their_pixels() -> None:
    random = pages.Random(0)
    small, large = pages.png(random, 24), pages.png(random, 200)
    chart = ImageGrid("t", tuple(CaptionedImage(png, "c", "a") for png in (small, large, "bad")))
    content = render(Page("t", ("a",), "top1", "test", curves=(chart,)))
    found = [
        (a.get("width"), a.get("height"), a.get("class")) for a in Balanced(content).all("img")
    ]
    assert found == [("24", "24", "coarse"), ("200", "200", None), (None, None, "coarse")]


def test_several_pages_fit_in_one(tmp_path: Path) -> None:
    path = write_pages([pages.run(), pages.run(), pages.bare()], tmp_path / "all.html")
    page = Balanced(path.read_text(encoding="utf-8"))
    assert len(page.all("article")) == 3 and len(page.all("h1")) == 1
    assert page.words().count("+5.3 (95 % interval") == 2
    assert {"#page-1-costs", "#page-2-costs", "#page-3-top"} <= {
        attrs["href"] for attrs in page.all("a")
    }


def test_a_page_is_written(tmp_path: Path) -> None:
    path = tmp_path / "report.html"
    assert write_page(pages.run(), path) == path
    assert path.read_text(encoding="utf-8") == render(pages.run())
    assert list(tmp_path.iterdir()) == [path]


# ----------------------------------------------------------------------------------------- contrast


def palettes() -> list[dict[str, str]]:
    """The colours of the light page and of the dark one."""
    blocks = re.findall(r":root \{(.*?)\}", STYLE.read_text(encoding="utf-8"), re.S)
    found = [dict(re.findall(r"--([\w-]+): (#\w{6})", block)) for block in blocks]
    assert len(found) == 2 and found[0].keys() == found[1].keys()
    return found


@pytest.mark.parametrize("colours", palettes(), ids=["light", "dark"])
def test_text_and_marks_have_enough_contrast(colours: dict[str, str]) -> None:
    for ink in ("ink", "soft", "link"):
        for paper in ("paper", "wash"):
            assert contrast(colours[ink], colours[paper]) >= 4.5, (ink, paper)
    for ink in ("ink", "warn"):
        assert contrast(colours[ink], colours["warn-wash"]) >= 4.5, ink
    marks = ["teacher", "control", "student", *(name for name in colours if "hue" in name)]
    assert len(marks) == 11
    assert all(contrast(colours[mark], colours["paper"]) >= 3 for mark in marks)
