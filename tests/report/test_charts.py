"""Charts as small, well-formed, labelled SVG in CSS variables."""

from __future__ import annotations

import base64
import io
import math
import re
import subprocess
import sys
from dataclasses import replace
from itertools import pairwise
from random import Random
from xml.etree import ElementTree as Tree

import numpy as np
import pytest
from PIL import Image

import pages
from stillhouse.explain.section import (
    BarChart,
    DensityPlot,
    Heatmap,
    Histogram2D,
    LineChart,
    ScatterPlot,
    Series,
)
from stillhouse.report.charts import Drawable, draw_chart
from stillhouse.report.charts.colormap import SHADES, colormap, srgb_to_oklab
from stillhouse.report.charts.density import contour_level, smoothed_counts
from stillhouse.report.charts.drawing import Drawing
from stillhouse.report.charts.heatmap import MAX_CELLS, shrink, to_array
from stillhouse.report.charts.styles import series_styles

RANDOM = Random(0)
NAN, INF = math.nan, math.inf
ODD = "naïve – 模型 $x_1$ <b>&\x00\x1b " + "long " * 30
KINDS: dict[str, Drawable] = {
    "lines": pages.curves(RANDOM),
    "many lines": pages.many_lines(RANDOM),
    "spread": pages.spread(),
    "gaps": pages.sparse(),
    "bars": pages.gains(RANDOM),
    "grouped": pages.grouped(RANDOM),
    "upright": pages.upright(RANDOM),
    "matrix": pages.matrix(RANDOM),
    "small": pages.small(),
    "cloud": pages.cloud(RANDOM, 10),
    "crowd": pages.cloud(RANDOM, 100),
    "joint": pages.joint(RANDOM),
}


def series(name: str = "student", *y: float | None, error: tuple[float, ...] = ()) -> Series:
    return Series(name, tuple(map(float, range(len(y)))), y, error=error)


def lines(*many: Series) -> LineChart:
    return LineChart("Title", "step", "loss", many)


def sound(drawing: Drawing) -> list[Tree.Element]:
    """The parsed drawings, which hold nothing that a page must not."""
    roots = [Tree.fromstring(text) for text in drawing.svgs]
    for text, root in zip(drawing.svgs, roots, strict=True):
        assert not re.search(r"https?:|url\(|xmlns|<style|clip-path|#f00d|nan|inf\b", text)
        assert root.tag == "svg" and root.get("role") == "img" and root.get("aria-label")
        assert root.get("viewBox") and not root.get("width")
        names = [node.get("id") for node in root.iter() if node.get("id")]
        used = [node.get("href", "#").removeprefix("#") for node in root.iter("use")]
        assert len(names) == len(set(names)) and set(names) == set(used)
    return roots


def texts(root: Tree.Element) -> list[str]:
    return [node.text or "" for node in root.iter("text")]


@pytest.mark.parametrize("chart", KINDS.values(), ids=KINDS)
def test_every_kind_is_drawn(chart: Drawable) -> None:
    drawing = draw_chart(chart, "chart-1")
    roots = sound(drawing)
    assert roots and all(chart.title in str(root.get("aria-label")) for root in roots)
    assert draw_chart(chart, "chart-1") == drawing
    assert sum(map(len, drawing.svgs)) < 250_000


def test_two_charts_share_no_id() -> None:
    chart = pages.cloud(RANDOM, 3)
    found = [
        node.get("id")
        for ident in ("chart-1", "chart-11")
        for root in sound(draw_chart(chart, ident))
        for node in root.iter()
        if node.get("id")
    ]
    assert found and len(found) == len(set(found))


ONE = ((1.0,),)
EMPTY: list[Drawable] = [
    lines(),
    lines(Series("a", (), ())),
    lines(series("a", None, None)),
    lines(series("a", NAN, INF)),
    BarChart("Title", "share", (), ()),
    BarChart("Title", "share", ("a", "b"), (series("a", None, None),)),
    BarChart("Title", "share", (), (series("a", 1.0),)),
    Heatmap("Title", "x", "y", ()),
    Heatmap("Title", "x", "y", ((), ())),
    Heatmap("Title", "x", "y", ((None, None), (None,))),
    ScatterPlot("Title", ()),
    ScatterPlot("Title", (series("a", None), Series("b", (), ()))),
    DensityPlot("Title", "x", "y", (), (), ()),
    DensityPlot("Title", "x", "y", (0.0, 1.0), (0.0, 1.0), (Histogram2D("a", ((0.0,),)),)),
    DensityPlot("Title", "x", "y", (0.0,), (0.0, 1.0), (Histogram2D("a", ONE),)),
]


@pytest.mark.parametrize("chart", EMPTY, ids=range(len(EMPTY)))
def test_a_chart_without_values_says_so(chart: Drawable) -> None:
    assert draw_chart(chart, "c") == Drawing(note="No values to draw.")


WILD = tuple(10.0**power * (-1) ** power for power in range(-9, 10))
NARROW: list[Drawable] = [
    lines(series("a", 5.0)),
    lines(series("a", 0.0), series("b", None, 1e9)),
    lines(series("a", *WILD), series("b", *map(abs, WILD))),
    lines(series("a", 1e9, 1e9 + 1e-3), series("b", INF, -INF, 3.0)),
    lines(*(series(f"{ODD}{n}", float(n), 2.0, None, error=(0.1, 5.0)) for n in range(30))),
    lines(series("", 1.0, None, 2.0, error=(NAN, 1.0, INF))),
    LineChart("", "", "", (series("a", 1.0, 2.0),), diagonal=True),
    BarChart(ODD, ODD, (ODD, "b"), (series(ODD, 1e-9, -1e9), series("b", 0.0, None, 7.0))),
    BarChart("Title", "share", ("a",), (series("a", 0.0),)),
    BarChart(
        "Title", "y", tuple(map(str, range(50))), (series("a", *[-1e9] * 50, error=(1e9,) * 50),)
    ),
    BarChart("Title", "y", ("a", "b"), tuple(series(f"s{n}", float(n), 1.0) for n in range(30))),
    Heatmap(ODD, ODD, ODD, ONE),
    Heatmap("Title", "x", "y", ((0.0, 0.0),), diverging=True),
    Heatmap("Title", "x", "y", ((1e-9, 1e9), (None, -1e9), (INF, NAN))),
    Heatmap("Title", "x", "y", (tuple(map(float, range(500))),)),
    Heatmap("Title", "x", "y", tuple((float(n),) for n in range(500)), diverging=True),
    ScatterPlot(ODD, (Series(ODD, (1.0,), (1.0,)), Series("b", WILD, WILD, (3, 1)))),
    ScatterPlot("Title", tuple(series(f"s{n}", 1.0, 2.0, None) for n in range(30)), (ODD,)),
    DensityPlot(ODD, ODD, ODD, (0.0, 1.0), (0.0, 1.0), (Histogram2D(ODD, ONE),)),
    DensityPlot("T", "x", "y", (0.0, 1e-9, 2e-9), (-1e9, 1e9), (Histogram2D("a", ((1e9, None),)),)),
    DensityPlot(
        "T", "x", "y", (0.0, 1.0), (0.0, 1.0), tuple(Histogram2D(f"{n}", ONE) for n in range(30))
    ),
]


@pytest.mark.parametrize("chart", NARROW, ids=range(len(NARROW)))
def test_a_chart_of_unusual_values_is_drawn(chart: Drawable) -> None:
    assert sound(draw_chart(chart, "c"))


def test_a_missing_value_is_a_gap_and_an_isolated_point_a_marker() -> None:
    chart = lines(series("student", *[1.0] * 8, None, 3.0, None, *[2.0] * 9))
    (root,) = sound(draw_chart(chart, "c"))
    (curve,) = (n for n in root.iter("path") if "var(--student)" in n.get("style", ""))
    strokes = [stroke for stroke in curve.get("d", "").split("M") if "L" in stroke]
    assert len(strokes) == 2
    assert len(list(root.iter("use"))) == 1


def test_the_three_roles_have_fixed_styles_and_others_differ() -> None:
    names = ["teacher", "none", "kd", "Student", "control", *map(str, range(31))]
    found = series_styles(names)
    assert [look.variable for look in found[:2]] == ["teacher", "control"]
    assert found[3].variable == "student" and found[4] == found[1]
    others = [found[2], *found[5:]]
    assert len(set(others)) == 32
    assert all(a.variable != b.variable and a.dash != b.dash for a, b in pairwise(others))


def test_a_legend_names_what_is_drawn() -> None:
    drawing = draw_chart(lines(series("teacher", 1.0, 2.0), series("kd", None)), "c")
    assert [(key.name, key.style.variable) for key in drawing.legend] == [("teacher", "teacher")]
    assert "teacher ends at 2" in str(sound(drawing)[0].get("aria-label"))


def test_what_a_user_wrote_is_text() -> None:
    chart = BarChart("<b>", "a < b & $x_1$", ("<script>", "$y$"), (series("a", 1.0, 2.0),))
    (root,) = sound(draw_chart(chart, "c"))
    assert {"a < b & $x_1$", "<script>", "$y$"} <= set(texts(root))


def test_values_over_decades_have_a_logarithmic_axis() -> None:
    (root,) = sound(draw_chart(lines(series("a", 1e-4, 1.0, 50.0)), "c"))
    assert "loss (log scale)" in texts(root)
    assert {"1e−4", "0.01", "1", "100"} <= set(texts(root))


def test_few_bars_are_horizontal_and_many_vertical() -> None:
    (lying,) = sound(
        draw_chart(BarChart("T", "y", ("one", "two"), (series("a", 1.25, -3.0),)), "c")
    )
    assert {"one", "two", "1.25", "−3.00"} <= set(texts(lying))
    many = BarChart("T", "y", tuple(f"l{n}" for n in range(80)), (series("a", *[2.0] * 80),))
    (standing,) = sound(draw_chart(many, "c"))
    assert "l0" in texts(standing) and "l1" not in texts(standing)
    bars = [n for n in standing.iter("path") if "fill:var(--hue-1)" in n.get("style", "")]
    assert len(bars) == 80


# -------------------------------------------------------------------------------------------- heat


def picture(root: Tree.Element, theme: str = "light") -> Image.Image:
    node = next(n for n in root.iter("image") if n.get("class") == theme)
    _, _, data = node.get("href", "").partition("base64,")
    return Image.open(io.BytesIO(base64.b64decode(data))).convert("RGBA")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_a_diverging_matrix_has_its_middle_at_0(theme: str) -> None:
    chart = Heatmap("T", "x", "y", ((0.0, 10.0, -1.0, None),), diverging=True)
    (root,) = sound(draw_chart(chart, "c"))
    pixels = [picture(root, theme).getpixel((x, 0)) for x in range(4)]
    colours = np.frombuffer(colormap(theme, True), np.uint8).reshape(-1, 3)
    assert pixels[0] == (*colours[SHADES // 2], 255)
    assert pixels[1] == (*colours[-1], 255)
    assert pixels[2] == (*colours[round(0.45 * (SHADES - 1))], 255)
    assert pixels[3][3] == 0
    assert draw_chart(chart, "c").note == "Empty cells have no value."


@pytest.mark.parametrize("diverging", [False, True])
@pytest.mark.parametrize("theme", ["light", "dark"])
def test_equal_steps_look_equal(theme: str, diverging: bool) -> None:
    colours = np.frombuffer(colormap(theme, diverging), np.uint8).reshape(-1, 3) / 255
    points = srgb_to_oklab(colours)
    for half in np.array_split(points, 2) if diverging else [points]:
        ten = np.linalg.norm(half[10:-1:10] - half[:-11:10], axis=1)
        assert ten.max() / ten.min() < 1.2


def test_a_large_matrix_keeps_what_is_farthest_from_0() -> None:
    values = np.zeros((1000, 700))
    values[501, 699], values[3, 3] = -5.0, 2.0
    values[10:20] = np.nan
    found, block = shrink(values)
    assert block == 4 and max(found.shape) <= MAX_CELLS
    assert found[125, 174] == -5 and found[0, 0] == 2 and np.isnan(found[3, 0])
    assert np.array_equal(shrink(to_array(((1.0, None),)))[0], [[1.0, np.nan]], equal_nan=True)


def test_few_cells_have_their_values_written() -> None:
    chart = Heatmap("T", "called", "true", ((3.0, 40.0), (None, 0.0)))
    (root,) = sound(draw_chart(chart, "c"))
    assert {"3", "40", "0", "called", "true"} <= set(texts(root))


# ------------------------------------------------------------------------------- clouds, densities


def test_a_scatter_plot_has_a_panel_per_series_and_a_legend_of_groups() -> None:
    drawing = draw_chart(pages.cloud(Random(0), 3), "c")
    assert [texts(root) for root in sound(drawing)] == [["teacher"], ["control"], ["student"]]
    assert [key.name for key in drawing.legend] == ["digit 0", "digit 1", "digit 2"]
    assert len({(key.style.variable, key.style.marker) for key in drawing.legend}) == 3
    many = draw_chart(pages.cloud(Random(0), 100), "c")
    assert many.legend == () and many.note == "Each colour is a class."


def test_very_many_points_are_thinned() -> None:
    places = tuple(map(float, range(20_000)))
    (root,) = sound(draw_chart(ScatterPlot("T", (Series("a", places, places),)), "c"))
    assert 1000 < len(list(root.iter("use"))) <= 1500


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_a_contour_encloses_its_share_of_the_samples(share: float) -> None:
    rng = np.random.default_rng(0)
    counts, _, _ = np.histogram2d(*rng.normal(size=(2, 20_000)), bins=30)
    each = smoothed_counts(Histogram2D("a", tuple(map(tuple, counts.tolist()))), 32, 32)
    inside = each[each > contour_level(each, share)].sum() / each.sum()
    assert abs(inside - share) < 0.02


# ------------------------------------------------------------------------------------- the library


def test_settings_of_matplotlib_change_nothing() -> None:
    import matplotlib

    before = draw_chart(KINDS["grouped"], "c")
    own = {"axes.grid": False, "axes.facecolor": "red", "svg.fonttype": "path", "font.size": 30}
    with matplotlib.rc_context(own):
        assert draw_chart(KINDS["grouped"], "c") == before
        assert matplotlib.rcParams["font.size"] == 30


def test_matplotlib_is_imported_to_draw_and_pyplot_never() -> None:
    say = (
        "import sys; from stillhouse.report import render; "
        "from stillhouse.explain.section import LineChart, Series; "
        "from stillhouse.report.charts import draw_chart; "
        "loaded = 'matplotlib' in sys.modules; "
        "draw_chart(LineChart('t', 'x', 'y', (Series('a', (1.0, 2.0), (1.0, 2.0)),)), 'c'); "
        "print(loaded, 'matplotlib' in sys.modules, 'matplotlib.pyplot' in sys.modules, "
        "'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", say], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True", "False", "False"]


def test_a_heatmap_names_its_rows_and_columns_and_keeps_its_limits() -> None:
    names = ("bicycle", "a very long name of a class", "car")
    values = ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (7.0, 8.0, 50.0))
    chart = Heatmap("Title", "x", "y", values, False, (0.0, 100.0), names, names)
    (svg,) = draw_chart(chart, "a").svgs
    texts = re.findall(r">([^<>]+)</text>", svg)
    assert texts.count("bicycle") == texts.count("car") == 2
    assert "100" in texts and "0" in texts  # the ends of the colour bar
    many = tuple(f"class {i}" for i in range(90))
    matrix = tuple(tuple(float(x == y) for x in range(90)) for y in range(90))
    (svg,) = draw_chart(replace(chart, values=matrix, row_names=many, column_names=many), "b").svgs
    shown = re.findall(r">(class \d+)</text>", svg)
    assert shown[0] == "class 0" and 20 < len(shown) < 70  # as many as there is room for
    assert "rotate(-90" in svg
