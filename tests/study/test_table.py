"""The table of a study in every format."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import pytest

from quick import quick
from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.recipes.schema import Comparison, Recipe, Searched
from stillhouse.study.results import ArmResult, Study
from stillhouse.study.statistics import IntervalKind, holm_correction, p_value, t_interval
from stillhouse.study.table import (
    TABLE_FILES,
    as_latex,
    escape_latex,
    format_table,
    make_rows,
    search_lines,
    write_tables,
)

VALUES = {
    "none": [70.0, 70.5, 69.7],
    "kd": [71.8, 72.1, 71.5],
    "a|b_&": [69.0, 70.9, 70.1],
    "dist": [73.0, 72.4, 73.3],
}


def score(value: float, **more: Any) -> dict[str, Any]:
    return {
        "split": "test",
        "test": {"top1": value, "loss": 1.0},
        "best": {"top1": value + 1},
        "seconds": 2.0,
    } | more


def study_of(folder: Path = Path("nowhere"), kind: IntervalKind = "t", **recipe: Any) -> Study:
    arms = tuple(
        ArmResult(
            n, n, "" if n == "none" else "t", "none", folder / n, dict(enumerate(map(score, v)))
        )
        for n, v in VALUES.items()
    )
    searched = {"kd": Searched(8, space={"method.temperature": "1 … 16 (log)"}, score=80.0)}
    section = Comparison({"kd": (presets.kd(),)}, searched=searched)
    loaded: Recipe = replace(quick(), study=section, **recipe)
    teachers = {"t": {"test": {"top1": 74.04}, "validation": {"top1": 75.0}}}
    return Study(folder, "A study", "top1", arms, teachers, loaded, kind=kind)


def test_rows_are_the_statistics_of_the_scores() -> None:
    rows = {row.method: row for row in make_rows(study_of(paper={"kd": 73.3}), "kd")}
    assert [*rows] == ["none", "dist", "kd", "a|b_&"]  # the control, then from best to worst
    p = {name: p_value(v, VALUES["none"]) for name, v in VALUES.items() if name != "none"}
    for name, row in rows.items():
        assert (row.mean, row.deviation) == (mean(VALUES[name]), stdev(VALUES[name]))
        if name == "none":
            assert row.gain is row.p is row.p_holm is None
            continue
        assert (row.gain, row.low, row.high) == t_interval(VALUES[name], VALUES["none"])
        assert row.p == p[name] and row.p_holm == holm_correction(p)[name]
    wanted = t_interval(VALUES["dist"], VALUES["kd"])
    assert (rows["dist"].against, rows["dist"].against_low, rows["dist"].against_high) == wanted
    assert rows["kd"].against is None and rows["none"].against is not None
    assert {n: row.rank for n, row in rows.items()}["dist"] == 1
    assert rows["kd"].paper == 73.3 and rows["dist"].paper is None
    assert (rows["kd"].trials, rows["none"].trials, rows["dist"].trials) == (8, 0, None)
    assert rows["kd"].searched == "method.temperature in 1 … 16 (log)"


def test_csv_and_json_hold_every_number() -> None:
    study = study_of()
    rows = make_rows(study)
    table = [*csv.DictReader(io.StringIO(format_table(study, "csv")))]
    content = json.loads(format_table(study, "json"))
    assert content["headline"] == "top1"
    assert {line["split"] for line in table} == {"test"} == {x["split"] for x in content["rows"]}
    for row, line, entry in zip(rows, table, content["rows"], strict=True):
        assert line["method"] == entry["method"] == row.method
        for name in ("mean", "gain", "low", "high", "p_holm", "rank"):
            value = getattr(row, name)
            assert entry[name] == value
            assert line[name] == ("" if value is None else str(value))


def test_markdown_escapes_labels() -> None:
    head, rule, *lines = format_table(study_of(), "markdown").splitlines()
    count = head.count("|")
    assert (
        "| method | seeds | top1 on test | gain |" in head
        and "p (Holm)" in head
        and "paper" not in head
    )
    assert set(rule) <= set("|- :") and len(lines) == 4
    assert all(line.replace("\\|", "").count("|") == count for line in lines)
    assert "| kd | 3 | 71.80 ± 0.30 | +1.73 (" in lines[2]


def test_latex_escapes_labels() -> None:
    text = format_table(study_of(), "latex", "kd")
    body = text.split("\\midrule\n")[1].split("\n\\bottomrule")[0].splitlines()
    columns = text.splitlines()[0].partition("{l")[2].rstrip("}").count("r") + 1
    for line in body:
        assert line.endswith(r" \\") and line.replace(r"\&", "").count("&") == columns - 1
    assert r"a|b\_\&" in text and "±" not in text and "…" not in text
    assert escape_latex("50% of $x_1^2$ {~}\\") == (
        r"50\% of \$x\_1\textasciicircum{}2\$ \{\textasciitilde{}\}\textbackslash{}"
    )
    assert as_latex(make_rows(study_of()), "top_1", None).count("top\\_1") == 1


def test_table_files_and_all_jobs(tmp_path: Path) -> None:
    study = study_of(tmp_path)
    paths = write_tables(study, "kd")
    assert {path.name for path in paths} == {*TABLE_FILES.values(), "cells.csv", "scores.csv"}
    for kind, name in TABLE_FILES.items():
        assert (tmp_path / name).read_text(encoding="utf-8") == format_table(study, kind, "kd")
    cells = [*csv.DictReader((tmp_path / "cells.csv").open())]
    assert len(cells) == 12
    assert [float(x["test/top1"]) for x in cells if x["method"] == "kd"] == VALUES["kd"]
    assert [*cells[0]] == [
        "method",
        "teacher",
        "seed",
        "test/top1",
        "test/loss",
        "validation/best_top1",
    ]


def test_unknown_arms_and_formats_are_refused() -> None:
    with pytest.raises(UserError, match="there is no arm 'kdd'; did you mean 'kd'"):
        make_rows(study_of(), "kdd")
    with pytest.raises(UserError, match="unknown format 'html'; choose from csv, json"):
        format_table(study_of(), "html")


def test_summaries_name_the_type_of_interval() -> None:
    assert "95 % bootstrap interval" in study_of(kind="bootstrap").summaries()[0]
    assert study_of().summaries()[0] == (
        "KD: student 71.8 ± 0.3, control 70.1 ± 0.4, teacher 74.0 on test: "
        "+1.7 (95 % interval 1.4 … 2.0, 3 seeds)"
    )


def on_validation(study: Study) -> Study:
    """The same study, as if its data had no test split."""
    for arm in study.arms:
        for one in arm.scores.values():
            one |= {"split": "validation", "validation": one["test"], "test": {}}
    return replace(study, measured="validation", images={"train": "a", "val": "b"})


def test_every_table_names_validation_where_there_is_no_test_split(tmp_path: Path) -> None:
    study = on_validation(study_of(tmp_path))
    assert "control 70.1 ± 0.4, teacher 75.0 on validation: +1.7" in study.summaries()[0]
    write_tables(study)
    for path in tmp_path.iterdir():
        text = path.read_text(encoding="utf-8")
        assert "validation" in text and "test" not in text.replace("best_", "")
    cells = [*csv.DictReader((tmp_path / "cells.csv").open())]
    assert [float(x["validation/top1"]) for x in cells if x["method"] == "kd"] == VALUES["kd"]


def test_scores_of_the_best_epoch_are_of_validation() -> None:
    study = replace(study_of(), by="best")
    assert (
        "student 72.8 ± 0.3, control 71.1 ± 0.4, teacher 75.0 on validation"
        in (study.summaries()[0])
    )
    assert "| top1 on validation |" in format_table(study, "markdown")


@pytest.mark.parametrize("images", ["b", "c", ""])
def test_a_search_on_the_images_of_the_scores_is_named(images: str) -> None:
    study = on_validation(study_of())
    searched = {"kd": Searched(8, images=images), "dist": Searched(8, images="c")}
    assert study.recipe.study is not None
    methods = {"kd": (presets.kd(),), "dist": (presets.dist(),)}
    section = replace(study.recipe.study, methods=methods, searched=searched)
    recipe = replace(study.recipe, study=section)
    found = replace(study, recipe=recipe)
    lines = [line for line in search_lines(found, make_rows(found)) if "on the images" in line]
    same = "search: the options of kd were chosen on the images of these scores, which favours"
    assert [line.startswith(same) for line in lines] == ([True] if images == "b" else [])
    tested = replace(found, measured="test", images={"val": "b", "test": "d"})
    assert tested.searched_on_same == []


def test_search_lines() -> None:
    study = study_of()
    assert search_lines(study, make_rows(study)) == [
        "search: 8 trials on validation each for kd",
        "search: none for the control, dist, a|b_&",
    ]
    assert study.recipe.study is not None
    result = {"kd": Searched(8, edges=("temperature",))}
    edged = replace(study.recipe, study=replace(study.recipe.study, searched=result))
    messages = search_lines(replace(study, recipe=edged), make_rows(study))
    assert messages[-1] == "search: chosen near the end of the searched range: kd (temperature)"
    bare = replace(study, recipe=replace(study.recipe, study=None))
    assert search_lines(bare, make_rows(bare))[0].startswith("search: none; options are those")


def test_a_study_without_results_has_an_empty_table() -> None:
    arms = tuple(replace(arm, scores={}, failures={0: "no"}) for arm in study_of().arms)
    study = replace(study_of(), arms=arms)
    assert "0 (1 missing)" in format_table(study, "markdown")
    assert all(row.mean is None for row in make_rows(study))
