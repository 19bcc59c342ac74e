"""Every benchmark runs, for one round, and writes its table."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import consistency
import detection_comparison
import detection_steps
import detector_families
import detector_steps
import keep
import labelwise
import losses
import steps
import store
import temperatures
import unlabelled
from alone import Alone
from quick import kept_teacher, quick
from rows import Options
from stillhouse.methods.catalogue import published
from stillhouse.models import zoo
from stillhouse.recipes import load
from stillhouse.study.plan import make_plan
from stillhouse.study.runner import run_study

RESULTS = Path(losses.__file__).parent / "results"


def table(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def once(path: Path, *more: str) -> list[str]:
    """The words for one round."""
    return ["--rounds", "1", "--warmup", "0", "--out", str(path), *more]


def test_losses(tmp_path: Path) -> None:
    path = tmp_path / "losses.csv"
    losses.main(once(path))
    rows = table(path)
    assert len(rows) == len(losses.SHAPES) * len(losses.losses())
    assert all(float(row["ratio_to_plain_kd"]) > 0 for row in rows)


def test_detection_comparison(tmp_path: Path) -> None:
    """Gains over the control of each study, the method of the largest share first."""
    scores = {
        ".": {"none": (50, 52), "bckd": (54, 57), "fgd": (51, 54)},
        "features": {"none": (50, 52), "defeat": (60, 61)},
        "two_stage": {"none": (40, 40), "fgd": (44, 46)},
        "cells": {"none": (70, 70), "bckd": (69, 69)},
    }
    for folder, methods in scores.items():
        lines = [f"{m},,{s},{v}" for m, values in methods.items() for s, v in enumerate(values)]
        (tmp_path / folder).mkdir(exist_ok=True)
        text = "\n".join(["method,teacher,seed,test/ap", *lines])
        (tmp_path / folder / "cells.csv").write_text(text)
    detection_comparison.main([str(tmp_path)])
    rows = [
        [cell.strip() for cell in line.strip("|\n").split("|")]
        for line in (tmp_path / "comparison.md").read_text().splitlines()
        if line.startswith("|")
    ]
    assert rows[0][0] == "method" and [row[0] for row in rows[2:]] == ["DeFeat", "FGD", "BCKD"]
    defeat, fgd, bckd = rows[2:]
    assert defeat[1].startswith("+9.5 (3.1 … 15.9)") and defeat[4:] == ["100 %", "1"]
    # 1.5 of 9.5 and 5 of 5 points
    assert fgd[2].startswith("+5.0") and fgd[4:] == ["58 %", "2"]
    assert bckd[3] == "-1.0 (-1.0 … -1.0)" and bckd[2] == ""


def test_the_comparison_is_that_of_the_kept_studies() -> None:
    root = detection_comparison.RESULTS
    text = detection_comparison.write_page(detection_comparison.find_gains(root))
    assert (root / "comparison.md").read_text(encoding="utf-8") == text


def test_what_images_without_labels_add(tmp_path: Path) -> None:
    rows = {"none": ((50, 52, 54), (51, 52, 53)), "kd": ((60, 61, 62), (70, 71, 75))}
    lines = [
        f"{method} of {pair},,{seed},{score}"
        for method, pairs in rows.items()
        for pair, scores in zip(("labelled", "unlabelled"), pairs, strict=True)
        for seed, score in enumerate(scores)
    ]
    (tmp_path / "cells.csv").write_text("\n".join(["method,teacher,seed,test/top1", *lines]))
    unlabelled.main([str(tmp_path)])
    found = (tmp_path / "comparison.md").read_text(encoding="utf-8").splitlines()[2:]
    # gains of 1, 0 and -1 points, and of 10, 10 and 13; t of two degrees of freedom is 4.303
    assert found[0] == "| none | 52.0 | 52.0 | +0.0 (-2.5 … 2.5) |"
    assert found[1] == "| kd | 61.0 | 72.0 | +11.0 (6.7 … 15.3) |"


def test_labelwise(tmp_path: Path) -> None:
    path = tmp_path / "labelwise.csv"
    labelwise.main(once(path))
    rows = table(path)
    assert [row["method"] for row in rows] == ["cd", "id", "cd", "id"]
    assert list(rows[0]) == list(table(RESULTS / path.name)[0])


def test_steps(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    steps.main(once(path, "--steps", "1"))
    rows = {row["method"]: row for row in table(path)}
    image_methods = [n for n, one in published().items() if not steps.DENSE & set(one.card.needs)]
    assert set(rows) == {"none", "dist+", *image_methods} - set(steps.ELSEWHERE)
    assert int(rows["none"]["trained"]) == 0 < int(rows["fitnet"]["trained"])
    assert list(rows["none"]) == list(table(RESULTS / path.name)[0])


def test_steps_of_distilled_detectors(tmp_path: Path) -> None:
    path = tmp_path / "steps.csv"
    detection_steps.main(once(path, "--steps", "1"))
    rows = {row["method"]: row for row in table(path)}
    assert {"none", "bckd", "tld", "pkd+tld", "dist+", "rm"} <= set(rows)
    assert int(rows["bckd"]["trained"]) == 0 < int(rows["dist+"]["trained"])


def test_store(tmp_path: Path) -> None:
    path = tmp_path / "store.csv"
    store.main(once(path, "--steps", "1", "--recipe", "digits/raw"))
    found = {(row["what"], row["case"]): float(row["value"]) for row in table(path)}
    assert {case for what, case in found if what.startswith("step")} == set(store.recipes())
    assert found["gradient error, mse", "full"] == 0 < found["gradient error, mse", "half"] < 1e-2
    old = {(row["what"], row["case"]) for row in table(RESULTS / path.name)}
    assert found.keys() == old


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds of KD at two temperatures, and of KD beside a teacher that moves."""
    kept_teacher()
    folder = tmp_path_factory.mktemp("study") / "study"
    grid = ["method.temperature=2,4"]
    plan = make_plan(quick("train.epochs=1"), "kd,kd+acclimation", 2, grid=grid)
    run_study(plan, folder, Alone(), lambda _: None)
    return folder


def test_temperatures(study: Path, tmp_path: Path) -> None:
    temperatures.main([str(study)])
    rows = table(study / "temperatures.csv")
    assert [(row["method"], row["temperature"]) for row in rows] == [("kd", "2"), ("kd", "4")]
    assert {"temperatures.svg", "temperatures.png"} <= {path.name for path in study.iterdir()}


def test_consistency(study: Path) -> None:
    consistency.main([str(study), "--against", "kd temperature=2", "--arms", "none", "kd*"])
    rows = {row["arm"]: row for row in table(study / "consistency.csv")}
    moved = "kd+acclimation, beside the teacher as it ended"
    assert set(rows) == {"none", "kd temperature=2", "kd temperature=4", "kd+acclimation", moved}
    assert {row["seeds"] for row in rows.values()} == {"2"}
    assert rows[moved]["nc"] != "" != rows[moved]["nc_over"]


def test_keep(study: Path, tmp_path: Path) -> None:
    (study / "cells.csv").write_text("a,b\n")
    keep.main([str(tmp_path / "kept"), str(study)])
    assert (tmp_path / "kept" / "cells.csv").read_text() == "a,b\n"
    assert not (tmp_path / "kept" / "study.json").exists()


@pytest.mark.parametrize("size", detector_families.SIZES)
def test_detectors_are_those_that_the_table_names(size: str) -> None:
    kept = table(RESULTS / "detector_families.csv")
    for family in detector_families.FAMILIES:
        recipe = load.load(detector_families.RECIPE, detector_families.overrides(family, size, 1))
        network = zoo.create(recipe.student.name, 10, **recipe.student.options)
        counts = {
            row["parameters"] for row in kept if (row["family"], row["size"]) == (family, size)
        }
        assert counts == {str(sum(p.numel() for p in network.parameters()))}
        assert recipe.seed == 1 and not recipe.distils
    assert len(kept) == 3 * len(detector_families.SIZES) * len(detector_families.FAMILIES)


def test_steps_of_detectors(tmp_path: Path) -> None:
    rows = detector_steps.measure(Options(1, 0, tmp_path / "steps.csv", 1))
    assert [row["network"] for row in rows] == ["ours", "adapted", "torchvision"]
    assert all(float(row["images_s"]) > 0 and float(row["ratio"]) > 0 for row in rows)
