"""Instance segmentation from recipe to result: a run, its scores, its page, and predictions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from instance_room import FAMILIES, Pictures, batch_of, pair
from stillhouse.build.session import Session
from stillhouse.distiller import Distiller
from stillhouse.errors import UserError
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.diagnosis import sections_of_run
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.execute import Result, evaluate_run, execute
from stillhouse.runs.predict import predict_run

SOLO = (
    "{backbone: stillhouse/small, strides: [2, 4, 8], neck: {width: 8, extra: 0}, grids: [8, 6], "
    "ranges: [[1, 16], [12, 64]], levels: [p2, p3], "
    "head: {width: 8, depth: 1, mask_width: 8, mask_channels: 8}}"
)
WORDS = (
    "data.train.count=16",
    "data.val.count=4",
    "data.test.count=6",
    "data.batch=8",
    "data.transforms=[{kind: flip}]",
    f"student.options={SOLO}",
    f"teacher.options={SOLO}",
    "teacher.train.epochs=1",
    "teacher.gate=false",
    "train.epochs=1",
    "task.threshold=0.001",
    "engine.device=cpu",
    "engine.tensorboard=false",
)
NAMES = ["instances", "mask_precision", "cell_scores", "gradients"]


def recipe_of(*words: str) -> Recipe:
    return load.load("digits/solov2", [*WORDS, *words])


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Result:
    folder = tmp_path_factory.mktemp("instance") / "run"
    return execute(recipe_of("control=true"), folder, say=lambda _: None)


def test_a_run_has_scores_of_masks_and_boxes(done: Result) -> None:
    assert done.headline == "ap" and done.teacher is not None and done.control is not None
    for score in (done.teacher, done.control, done.student):
        assert {"ap", "ap50", "box_ap", "objects", "detections"} <= set(score["test"])
    again = evaluate_run(load.load(done.folder), done.folder, "test", None).scores
    assert again == pytest.approx(done.student["test"])


def test_a_run_has_every_diagnosis(done: Result) -> None:
    recipe = recipe_of("control=true")
    sections = sections_of_run(done.folder, recipe, Session.open(recipe, quiet=True))
    assert [section.name for section in sections] == NAMES
    assert not any(section.failed or section.missing for section in sections)
    sheet: Any = sections[0].charts[0]
    assert sheet.columns == 5 and len(sheet.pictures) == 30
    (table,) = (table for table in sections[1].tables if table.title.startswith("AP by size"))
    ((size, count, *found),) = table.rows
    assert (size, count) == ("small", int(done.student["test"]["objects"]))
    assert found[-1] == pytest.approx(done.student["test"]["ap"], abs=1e-3)


def test_doctor_passes_and_names_the_terms() -> None:
    checks = {check.name: check for check in check_recipe(recipe_of())}
    assert all(check.passed for check in checks.values()), checks
    assert "class/tld" in checks["step"].message and "neck.p2" in checks["taps"].message


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.name=digits/labels", "data.pad=1", "data.transforms=[]"], "needs images with mask"),
        (["data.name=digits/objects"], "the objects have none; choose a data set of instances"),
        (["teacher.options.grids=[8, 5]"], "grid 1: 6 x 6 cells and 5 x 5"),
        (["method.sites=[box]"], "'box'"),
        (["method.sites=[roi]"], "these two networks have class, class_main, class_gated, mask"),
        (["teacher.remember=true", "data.views=1"], "set teacher.remember=false"),
    ],
)
def test_what_does_not_fit_is_refused(words: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        execute(recipe_of(*words), tmp_path / "run", say=lambda _: None)
    assert text in str(caught.value) and "\n" not in str(caught.value)


def test_a_detector_without_masks_is_refused(tmp_path: Path) -> None:
    few = [word for word in WORDS if word.startswith(("data", "engine"))]
    words = ["task=instance", "data.name=digits/instances", "method=none", "teacher=null", *few]
    text = "which has no masks of objects; take detector/solov2, detector/mask_rcnn"
    with pytest.raises(UserError, match=text):
        execute(load.load("digits/objects", words), tmp_path / "run", say=lambda _: None)


def test_predictions_of_image_files(done: Result, tmp_path: Path) -> None:
    """Of a student that is sure of its cells, on two files of different sizes."""
    state = load_file(done.folder / "student.safetensors")
    state["head.score.bias"] += 4
    state["head.kernel.weight"] *= 50
    save_file(state, tmp_path / "sure.safetensors")
    for name, size in (("a.png", (48, 48)), ("b.png", (60, 50))):
        noise = torch.randint(0, 256, (size[1], size[0], 3), dtype=torch.uint8)
        Image.fromarray(noise.numpy()).save(tmp_path / name)
    files = [tmp_path / "a.png", tmp_path / "b.png"]
    said = predict_run(done.folder, files, tmp_path / "out", tmp_path / "sure.safetensors", 0.05)
    written = json.loads((tmp_path / "out" / "instances.json").read_text())
    assert said.startswith(f"2 images, {len(written['annotations'])} instance")
    assert [one["file_name"] for one in written["images"]] == ["a.png", "b.png"]
    assert written["annotations"]
    sizes = {1: [48, 48], 2: [50, 60]}
    for one in written["annotations"]:
        assert one["segmentation"]["size"] == sizes[one["image_id"]]
    lines = (tmp_path / "out" / "instances.csv").read_text().splitlines()
    assert len(lines) == 1 + len(written["annotations"])
    assert Image.open(tmp_path / "out" / "b.png").size == (300, 250)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_distiller_takes_batches_as_torchvision_has_them(family: str) -> None:
    student, teacher = (network.float() for network in pair(family))
    distiller = Distiller(student, teacher, presets.dice(sites=("mask",)), "instance")
    pictures = Pictures(batch_of(2, 0, 1))
    loss, terms = distiller(tuple(zip(*(pictures[i] for i in range(3)), strict=True)))
    loss.backward()
    assert terms["mask/dice"] > 0 and loss.isfinite()
    assert all(p.grad is not None for p in student.parameters())
