"""The charts, images and tables of a page as files."""

from __future__ import annotations

import base64
import csv
import io
import re
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree as Tree

import pytest
from PIL import Image

import pages
from stillhouse.errors import UserError
from stillhouse.explain.section import CaptionedImage, ImageGrid, LineChart, Section, Series, Table
from stillhouse.report.chart_files import (
    check_output_folder,
    page_colours,
    slug,
    table_csv,
    unique_name,
    write_chart_files,
)
from stillhouse.report.page import Page
from stillhouse.report.render import render

SVG, HREF = "{http://www.w3.org/2000/svg}", "{http://www.w3.org/1999/xlink}href"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("files") / "deep" / "down"
    write_chart_files(pages.rich(), path)
    return path


def read(path: Path) -> list[list[str]]:
    return [*csv.reader(io.StringIO(path.read_text(encoding="utf-8")))]


# --------------------------------------------------------------------------------------- which


def test_there_is_one_file_per_item(folder: Path) -> None:
    page = pages.rich()
    charts = [*page.curves, *(c for s in page.sections for c in s.charts)]
    several = [c for c in charts if isinstance(c, ImageGrid)]
    tables = [*page.tables, *(t for s in page.sections for t in s.tables)]
    found = write_chart_files(page, folder)  # over those that are there
    assert found == (
        len(list(folder.glob("*.svg"))),
        sum(len(c.pictures) for c in several),
        len(tables) + 1,  # and the costs
    )
    assert len(list(folder.glob("*.png"))) == found.images
    assert len(list(folder.glob("*.csv"))) == found.tables + len(several)
    drawn = [c for c in charts if not isinstance(c, ImageGrid)]
    assert 0 < found.charts <= len(drawn)
    assert not [path for path in folder.iterdir() if path.name.startswith(".")]


def test_file_names_come_from_section_and_title_and_are_unique() -> None:
    taken: set[str] = set()
    assert unique_name("relations", "student minus teacher: correlation", taken) == (
        "relations-student-minus-teacher-correlation"
    )
    assert unique_name("gradient", "", taken) == "gradient"
    assert unique_name("gradient", "", taken) == "gradient-2"
    assert unique_name("gradient", "2", taken) == "gradient-2-2"
    assert unique_name("a", "../../etc/passwd", taken) == "a-etc-passwd"
    assert len(unique_name("a", "long " * 90, taken)) <= 80
    assert slug("Beside the teacher's Größe, %") == "beside-the-teachers-groe"


# -------------------------------------------------------------------------------------- charts


def test_chart_files_are_self_contained(folder: Path) -> None:
    for path in folder.glob("*.svg"):
        text = path.read_text(encoding="utf-8")
        assert "var(" not in text and "dark" not in text and "class=" not in text, path
        root = Tree.fromstring(text)
        width, height = (float(root.attrib[side]) for side in ("width", "height"))
        assert root.attrib["viewBox"] == f"0 0 {root.attrib['width']} {root.attrib['height']}"
        assert 0 < width < 900 and 0 < height < 900
        for node in root.iter():
            assert node.tag.startswith(SVG)
            link = node.attrib.get(HREF, "#")
            assert link.startswith(("#", "data:image/png;base64,")), path
            assert "href" not in node.attrib
        names = [node.attrib["id"] for node in root.iter() if "id" in node.attrib]
        links = {node.attrib[HREF] for node in root.iter() if HREF in node.attrib}
        inner = {link.removeprefix("#") for link in links if link.startswith("#")}
        assert inner <= {*names} and len({*names}) == len(names)


def test_a_chart_has_its_title_its_legend_and_the_colours_of_the_page(tmp_path: Path) -> None:
    names = [f"a rather long name, number {n}" for n in range(9)] + ["student"]
    series = tuple(Series(name, (0.0, 1.0), (0.0, float(n))) for n, name in enumerate(names))
    chart = LineChart("Losses <& more>", "step", "loss", series)
    page = Page("p", ("a",), "top1", "test", curves=(chart,))
    assert write_chart_files(page, tmp_path) == (1, 0, 0)
    text = (tmp_path / "curves-losses-more.svg").read_text()
    root = Tree.fromstring(text)
    texts = {node.text for node in root.iter(f"{SVG}text")}
    assert {"Losses <& more>", *names} <= texts
    assert page_colours()["student"] in text and page_colours()["teacher"] not in text
    places = [
        tuple(map(float, re.findall(r"[\d.]+", node.attrib["transform"])))
        for node in root.iter(f"{SVG}g")
        if node.attrib.get("transform", "").startswith("translate")
    ][1:]
    assert len(places) == 10 == len({*places})  # marks lie in rows, none on another
    assert all(0 <= x < float(root.attrib["width"]) - 26 for x, _ in places)
    assert max(y for _, y in places) < float(root.attrib["height"]) - 12


def test_every_css_variable_has_a_colour() -> None:
    from stillhouse.report.charts.styles import VARIABLES

    assert {*VARIABLES} <= {*page_colours()}
    assert page_colours()["paper"] == "#ffffff"


def test_a_chart_without_values_has_no_file(tmp_path: Path) -> None:
    empty = LineChart("NoTerms", "x", "y", (Series("s", (1.0,), (None,)),))
    assert write_chart_files(Page("p", ("a",), "top1", "test", curves=(empty,)), tmp_path) == (
        0,
        0,
        0,
    )
    assert [*tmp_path.iterdir()] == []


# ------------------------------------------------------------------------- pictures and tables


def png(side: int) -> str:
    file = io.BytesIO()
    Image.new("L", (side, side), side).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def test_image_files_have_a_table_of_captions(tmp_path: Path) -> None:
    several = tuple(CaptionedImage(png(n), f"true: {n}, x", f"An image, {n}.") for n in (5, 6, 7))
    section = Section("agreement", "Agreement", charts=(ImageGrid("Called so", several, 3),))
    found = write_chart_files(Page("p", ("a",), "top1", "test", sections=(section,)), tmp_path)
    assert found == (0, 3, 0)
    lines = read(tmp_path / "agreement-called-so.csv")
    assert lines[0] == ["file", "caption", "description"]
    for line, picture, side in zip(lines[1:], several, (5, 6, 7), strict=True):
        assert line[1:] == [picture.caption, picture.alt]
        assert (tmp_path / line[0]).read_bytes() == base64.b64decode(picture.png)
        assert Image.open(tmp_path / line[0]).size == (side, side)


def test_a_table_keeps_every_digit_and_odd_names() -> None:
    table = Table(("", "", 'a "b", c'), (("x,\ny", 1 / 3, None), ("", 7, -0.5)))
    found = [*csv.reader(io.StringIO(table_csv(table)))]
    assert found[0] == ["", "", 'a "b", c']
    assert found[1:] == [["x,\ny", str(1 / 3), ""], ["", "7", "-0.5"]]
    assert float(found[1][1]) == 1 / 3


def test_costs_are_a_table(folder: Path) -> None:
    (head, *lines) = read(folder / "costs.csv")
    costs = pages.rich().costs
    assert head[:3] == ["who", "name", "parameters"]
    assert [line[0] for line in lines] == [cost.who for cost in costs]
    assert [line[2] for line in lines] == [str(cost.parameters or "") for cost in costs]


# ------------------------------------------------------------------------------------- folders


def test_a_folder_that_cannot_be_written_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="file is a file; name a folder for the files"):
        check_output_folder(tmp_path / "file")
    with pytest.raises(UserError, match="could not write into .*: Not a directory; name another"):
        check_output_folder(tmp_path / "file" / "below")

    def refused(**_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refused)
    with pytest.raises(UserError, match="could not write into .*: Permission denied"):
        check_output_folder(tmp_path)


# ------------------------------------------------------------------------------------- the page


def test_image_grids_have_their_columns() -> None:
    several = ImageGrid("Rows", (CaptionedImage(png(9), "c", "a"),) * 4, 2)
    page = Page("p", ("a",), "top1", "test", sections=(Section("s", "S", charts=(several,)),))
    assert 'class="pictures rowed" style="--columns:2"' in render(page)
    loose = replace(several, columns=0)
    page = replace(page, sections=(Section("s", "S", charts=(loose,)),))
    assert 'class="pictures"' in render(page)
    assert "--columns:" not in render(page).partition("<main")[2]
