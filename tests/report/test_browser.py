"""The page in a browser: mouse, keyboard, colour schemes, phone and print."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import pages
from browser import chromium, contrast
from stillhouse.explain.section import Table
from stillhouse.report.page import Page
from stillhouse.report.render import render, write_page

Open = Callable[..., Any]
CELLS = (
    ("b", "81.4 ± 0.3", 1234.5, "x10"),
    ("a", "9.5 ± 1.0", None, "x9"),
    ("d", "-3.0", -20.25, "x1"),
    ("c", "–", 0.5, "x2"),
    ("e", "81.4 ± 0.1", 99.0, "X9"),
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, rich_html: str) -> Path:
    path = tmp_path_factory.mktemp("pages")
    (path / "rich.html").write_text(rich_html, encoding="utf-8")
    (path / "both.html").write_text(render(pages.run(), pages.run()), encoding="utf-8")
    table = Table(("name", "score", "number", "word"), CELLS, "Sorted", digits=2)
    write_page(Page("Sorting", ("a",), "top1", "test", tables=(table,)), path / "table.html")
    write_page(pages.bare(), path / "bare.html")
    return path


@pytest.fixture
def open_page(browser: Any, folder: Path) -> Open:
    return lambda name, **how: opened(browser, folder / f"{name}.html", **how)


@contextmanager
def opened(browser: Any, path: Path, **how: Any) -> Iterator[Any]:
    """A page without console messages and without requests."""
    context = browser.new_context(**({"viewport": {"width": 1280, "height": 900}} | how))
    page = context.new_page()
    wrong: list[str] = []
    requests: list[str] = []
    page.on("console", lambda message: wrong.append(message.text))
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("request", lambda request: requests.append(request.url))
    try:
        page.goto(path.as_uri())
        yield page
        assert wrong == []
        assert [url for url in requests if not url.startswith("data:")] == [path.as_uri()]
    finally:
        context.close()


def column(page: Any, place: int) -> list[str]:
    cells = page.locator(f"tbody tr > :nth-child({place})")
    found: list[str] = cells.all_text_contents()
    return found


def shot(page: Any, path: Path, **how: Any) -> int:
    page.screenshot(path=path, **how)
    return path.stat().st_size


@pytest.mark.parametrize(
    ("name", "scheme"), [("rich", "light"), ("rich", "dark"), ("both", "light"), ("bare", "dark")]
)
def test_it_renders_without_console_messages(
    open_page: Open, tmp_path: Path, name: str, scheme: str
) -> None:
    with open_page(name, color_scheme=scheme) as page:
        assert page.locator("h1").is_visible() and page.locator(".answer").first.is_visible()
        assert shot(page, tmp_path / "whole.png", full_page=True) > 3000


@pytest.mark.parametrize(
    ("place", "up"),
    [(1, "abcde"), (2, "dabec"), (3, "dceba"), (4, "dcaeb")],
)
def test_clicks_sort_ascending_descending_and_back(open_page: Open, place: int, up: str) -> None:
    with open_page("table") as page:
        before = column(page, 1)
        head = page.locator("thead th").nth(place - 1)
        found = []
        for _ in range(3):
            head.locator("button").click()
            found.append(("".join(column(page, 1)), head.get_attribute("aria-sort")))
        down = {1: "edcba", 2: "beadc", 3: "becda", 4: "baecd"}[place]
        assert found == [
            (up, "ascending"),
            (down, "descending"),
            ("".join(before), None),
        ]


def test_the_keyboard_sorts_and_one_column_has_aria_sort(open_page: Open) -> None:
    with open_page("table") as page:
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "skip"
        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.className") == "scroll"
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        assert "".join(column(page, 1)) == "abcde"
        page.keyboard.press("Space")
        assert "".join(column(page, 1)) == "edcba"
        page.keyboard.press("Tab")
        page.keyboard.press("Space")
        heads = page.locator("thead th")
        assert [heads.nth(i).get_attribute("aria-sort") for i in range(4)] == [
            None,
            "ascending",
            None,
            None,
        ]
        outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


def test_it_is_complete_without_scripts(open_page: Open) -> None:
    with open_page("table", java_script_enabled=False) as page:
        assert page.locator("button").count() == 0
        assert page.locator("tbody tr").count() == len(CELLS)


def colours(page: Any) -> tuple[str, str, str]:
    """Ink, paper, and the ink of an axis in a chart, as six digits each."""
    say = """() => [getComputedStyle(document.body).color,
        getComputedStyle(document.body).backgroundColor,
        getComputedStyle(document.querySelector(".chart text")).fill]"""
    found = [re.findall(r"\d+", colour)[:3] for colour in page.evaluate(say)]
    ink, paper, axis = ("#" + "".join(f"{int(v):02x}" for v in each) for each in found)
    return ink, paper, axis


def test_light_dark_and_print_are_readable(open_page: Open) -> None:
    with open_page("rich") as page:
        found = {}
        for name, media in (
            ("day", {"color_scheme": "light", "media": "screen"}),
            ("night", {"color_scheme": "dark", "media": "screen"}),
            ("paper", {"color_scheme": "dark", "media": "print"}),
        ):
            page.emulate_media(**media)
            found[name] = colours(page)
            ink, paper, axis = found[name]
            assert contrast(ink, paper) >= 7 and contrast(axis, paper) >= 4.5
            seen = "dark" if name == "night" else "light"
            shown = page.locator(f"image.{seen}").first
            assert shown.evaluate("node => getComputedStyle(node).display") == "inline"
        assert found["day"] == found["paper"] != found["night"]
        assert found["paper"][1] == "#ffffff"


@pytest.mark.parametrize("name", ["rich", "both", "bare", "table"])
def test_on_a_phone_tables_scroll_and_the_page_does_not(
    open_page: Open, tmp_path: Path, name: str
) -> None:
    with open_page(name, viewport={"width": 360, "height": 740}) as page:
        for details in page.locator("details").all():
            details.evaluate("node => node.open = true")
        assert page.evaluate("document.documentElement.scrollWidth") == 360
        small = page.evaluate(
            """() => [...document.querySelectorAll("p, li, td, th, figcaption, text")]
            .filter(node => node.getClientRects().length)
            .map(node => parseFloat(getComputedStyle(node).fontSize)
                * (node.getScreenCTM ? node.getScreenCTM().a : 1))
            .reduce((a, b) => Math.min(a, b), 99)"""
        )
        assert small >= 9
        assert shot(page, tmp_path / "phone.png") > 3000


def test_the_answer_is_on_the_first_screen(open_page: Open) -> None:
    with open_page("both", viewport={"width": 1280, "height": 800}) as page:
        for what in (".answer", ".score tbody tr:last-child", ".against"):
            box = page.locator(what).first.bounding_box()
            assert box["y"] + box["height"] < 800, what


def test_print_shows_folded_and_wide_parts(open_page: Open, tmp_path: Path) -> None:
    with open_page("rich", viewport={"width": 720, "height": 1000}) as page:
        page.emulate_media(media="print")
        assert not page.locator("nav").is_visible()
        assert page.locator(".rows tbody tr").last.is_visible()
        assert page.locator(".folded pre").first.is_visible()
        wide = """() => [...document.querySelectorAll(".scroll")]
            .every(box => getComputedStyle(box).overflow === "visible")"""
        assert page.evaluate(wide)
        assert shot(page, tmp_path / "paper.png", full_page=True) > 3000
        page.pdf(path=tmp_path / "page.pdf", format="A4")
        assert (tmp_path / "page.pdf").read_bytes().startswith(b"%PDF")
        assert page.locator("details[open]").count() == 0  # printing leaves no trace


def test_a_link_to_a_folded_part_opens_it(open_page: Open) -> None:
    for name, place in (("rich", "recipe"), ("both", "page-2-recipe")):
        with open_page(name) as page:
            page.locator(f"nav a[href='#{place}']").click()
            assert page.locator(f"#{place} pre").is_visible()
            assert page.locator(f"#{place}").bounding_box()["y"] < 900
