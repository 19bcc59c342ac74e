"""All scores and kinds of errors of a study of results that were made up."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean
from typing import Any

import pytest

from quick import quick
from stillhouse.explain.section import BarChart
from stillhouse.report.changes import ERRORS, change_table, error_chart
from stillhouse.report.study import result_charts, result_tables
from stillhouse.study.changes import Change, error_changes, score_changes, write_changes
from stillhouse.study.results import ArmResult, Study, read_study
from stillhouse.study.statistics import IntervalKind, bootstrap_interval, t_interval
from stillhouse.study.table import make_rows

Costs = Mapping[str, Sequence[float | None]]  # by kind, one for each seed

COSTS: dict[str, Costs] = {
    "none": {"class": [9.0, 8.0, 8.5], "localisation": [4.0, 4.5, 5.0]},
    "bcd": {"class": [6.0, 6.5, 6.1], "localisation": [4.1, 4.4, 5.2]},
    "ild": {"class": [9.2, 8.1, 8.0], "localisation": [2.0, 2.2, 2.1]},
}


def score(errors: Mapping[str, float | None]) -> dict[str, Any]:
    known = {kind: cost for kind, cost in errors.items() if cost is not None}
    return {
        "split": "test",
        "test": {"ap": 30.0, "objects": 7.0},
        "best": {"ap": 31.0},
        "seconds": 2.0,
        **({"errors": known} if known else {}),
    }


def arm(label: str, costs: Costs) -> ArmResult:
    seeds = range(max(map(len, costs.values())))
    scores = {seed: score({kind: values[seed] for kind, values in costs.items()}) for seed in seeds}
    return ArmResult(label, label, "", "none", Path(label), scores)


def study_of(
    costs: Mapping[str, Costs], folder: Path = Path("nowhere"), kind: IntervalKind = "t"
) -> Study:
    arms = tuple(arm(label, one) for label, one in costs.items())
    return Study(folder, "A study", "ap", arms, {}, quick(), kind=kind)


def by_name(rows: Sequence[Change]) -> dict[tuple[str, str], Change]:
    return {(row.method, row.name): row for row in rows}


@pytest.mark.parametrize("kind", ["t", "bootstrap"])
def test_changes_are_paired_with_the_control(kind: IntervalKind) -> None:
    rows = by_name(error_changes(study_of(COSTS, kind=kind)))
    assert [*rows] == [(m, k) for m in COSTS for k in ("class", "localisation")]
    interval = t_interval if kind == "t" else bootstrap_interval
    for (method, name), row in rows.items():
        values = [v for v in COSTS[method][name] if v is not None]
        assert (row.seeds, row.mean) == (3, mean(values))
        if method == "none":
            assert row.change is row.low is row.high is None
        else:
            baseline = [v for v in COSTS["none"][name] if v is not None]
            assert (row.change, row.low, row.high) == interval(values, baseline)
    assert rows["bcd", "class"].change == pytest.approx((6 - 9 + 6.5 - 8 + 6.1 - 8.5) / 3)


def test_only_common_seeds_are_compared() -> None:
    control: Costs = {"class": [9.0, None, None]}
    rows = by_name(error_changes(study_of({"none": control, "bcd": COSTS["bcd"]})))
    one = rows["bcd", "class"]
    assert (one.seeds, one.change, one.low, one.high) == (3, 6.0 - 9.0, None, None)
    lost = rows["bcd", "localisation"]
    assert lost.change is None and lost.mean == pytest.approx(13.7 / 3)


def test_the_file_has_a_row_for_each_method_and_kind(tmp_path: Path) -> None:
    study = study_of(COSTS, tmp_path)
    paths = write_changes(study)
    assert paths == [tmp_path / "scores.csv", tmp_path / "errors.csv"]
    path = paths[-1]
    lines = [*csv.DictReader(path.open())]
    rows = error_changes(study)
    assert [*lines[0]] == ["method", "split", "kind", "seeds", "mean", "change", "low", "high"]
    for line, row in zip(lines, rows, strict=True):
        assert (line["method"], line["kind"]) == (row.method, row.name)
        assert float(line["mean"]) == row.mean
        assert line["change"] == ("" if row.change is None else str(row.change))


def test_a_study_without_kinds_has_no_file_table_or_chart(tmp_path: Path) -> None:
    study = study_of({name: {"class": [None, None]} for name in COSTS}, tmp_path)
    assert error_changes(study) == [] and write_changes(study) == [tmp_path / "scores.csv"]
    assert not (tmp_path / "errors.csv").exists()
    assert change_table([], ERRORS) is None and error_chart([]) is None
    rows = make_rows(study)
    assert len(result_tables(study, rows, None)) == 2 and len(result_charts(study, rows)) == 1


def test_the_page_has_a_table_and_bars() -> None:
    study = study_of(COSTS)
    rows = by_name(error_changes(study))
    *_, table = result_tables(study, make_rows(study), None)
    assert table.columns == ("method", "seeds", "class", "localisation")
    cells = {line[0]: line[1:] for line in table.rows}
    assert cells["none"] == (3, "8.50", "4.50")
    bcd = rows["bcd", "class"]
    assert cells["bcd"][1] == f"{bcd.change:+.2f} ({bcd.low:.2f} … {bcd.high:.2f})"
    gains, chart = result_charts(study, make_rows(study))
    assert isinstance(gains, BarChart) and isinstance(chart, BarChart)
    assert chart.labels == ("class", "localisation")
    assert [series.name for series in chart.series] == ["bcd", "ild"]
    for series in chart.series:
        for place, name in enumerate(chart.labels):
            row = rows[series.name, name]
            assert row.low is not None and row.high is not None
            assert (series.x[place], series.y[place]) == (place, row.change)
            assert series.error[place] == (row.high - row.low) / 2


def test_a_single_seed_has_changes_without_intervals() -> None:
    study = study_of({"none": {"class": [9.0]}, "bcd": {"class": [7.25]}})
    rows = error_changes(study)
    table, chart = change_table(rows, ERRORS), error_chart(rows)
    assert table is not None and chart is not None
    assert table.rows == (("none", 1, "9.00"), ("bcd", 1, "-1.75"))
    assert chart.series[0].error == (0.0,) and chart.series[0].y == (-1.75,)


def test_a_kind_that_a_method_lacks_is_an_empty_cell() -> None:
    study = study_of({"none": COSTS["none"], "bcd": {"localisation": [4.0, 4.0, 4.0]}})
    table = change_table(error_changes(study), ERRORS)
    assert table is not None and table.rows[1][2] is None


def test_results_are_read_from_the_folder_of_a_study(tmp_path: Path) -> None:
    from stillhouse.study.plan import make_plan
    from stillhouse.study.results import write_plan

    plan = make_plan(quick(), "kd", 2)
    write_plan(plan, tmp_path, "ap", "test")
    costs = {"none": [3.0, 5.0], "kd": [2.0, 1.0]}
    for label, folder in plan.folders.items():
        for seed, cost in enumerate(costs[label]):
            place = tmp_path / folder / str(seed)
            place.mkdir(parents=True)
            (place / "result.json").write_text(json.dumps(score({"class": cost})))
    rows = by_name(error_changes(read_study(tmp_path)))
    assert rows["kd", "class"].change == pytest.approx(-2.5)
    assert rows["none", "class"] == Change("none", "test", "class", 2, 4.0)


def test_scores_beside_the_headline() -> None:
    """Counts are left out, and the headline has a table of its own."""
    made = study_of({"none": COSTS["none"], "bcd": COSTS["bcd"]})
    for number, arm in enumerate(made.arms):
        for seed, one in arm.scores.items():
            one["test"] |= {"ap50": 50.0 + 2 * number + seed * (1 + number)}
    rows = by_name(score_changes(made))
    assert [*rows] == [(m, s) for m in ("none", "bcd") for s in ("ap", "ap50")]
    own, control = [52.0, 54.0, 56.0], [50.0, 51.0, 52.0]
    found = rows["bcd", "ap50"]
    assert (found.change, found.low, found.high) == t_interval(own, control)
    title = "Other scores on test: the control, and changes against it"
    table = next(one for one in result_tables(made, make_rows(made), None) if one.title == title)
    assert table.columns == ("method", "seeds", "AP50")
    assert table.rows[0] == ("none", 3, "51.00")
    assert table.rows[1] == ("bcd", 3, f"+3.00 ({found.low:.2f} … {found.high:.2f})")
