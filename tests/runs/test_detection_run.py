"""Detection from recipe to result: runs, resuming, precision, the gate, doctor, study and sweep."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from stillhouse.errors import UserError
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from stillhouse.runs.doctor import check_recipe
from stillhouse.runs.execute import Result, evaluate_run, execute, run_job

TINY = (
    "{backbone: stillhouse/small, strides: [4, 8], neck: {width: 16, extra: 0}, "
    "head: {width: 16, depth: 1}, scale: 4}"
)
WORDS = (
    "data.train.count=48",
    "data.val.count=16",
    "data.test.count=16",
    "data.batch=8",
    "data.transforms=[{kind: flip}]",
    f"student.options={TINY}",
    f"teacher.options={TINY}",
    "teacher.train.epochs=1",
    "teacher.gate=false",
    "train.epochs=2",
    "engine.device=cpu",
    "engine.tensorboard=false",
)


def recipe_of(*words: str) -> Recipe:
    return load.load("digits/objects", [*WORDS, *words])


def student_of(folder: Path) -> bytes:
    return (folder / "student.safetensors").read_bytes()


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A teacher, a control and a student of TLD at the class scores."""
    folder = tmp_path_factory.mktemp("detection") / "run"
    return execute(recipe_of("control=true"), folder, say=lambda _: None)


def test_a_run_has_scores_of_all_three(done: Result) -> None:
    assert done.headline == "ap" and done.teacher is not None and done.control is not None
    for score in (done.teacher, done.control, done.student):
        assert {"ap", "ap50", "ap75"} <= set(score["test"])
        assert all(0 <= score["test"][name] <= 100 for name in ("ap", "ap50", "ap75"))
    lines = [json.loads(x) for x in (done.folder / "metrics.jsonl").read_text().splitlines()]
    terms = {name for line in lines for name in line if name.startswith("term/")}
    assert terms == {"term/class", "term/box", "term/edge", "term/class/tld"}


def test_evaluate_gives_the_scores_of_the_run_again(done: Result) -> None:
    recipe = load.load(done.folder)
    assert evaluate_run(recipe, done.folder, "test", None).scores == pytest.approx(
        done.student["test"]
    )


def test_a_run_is_taken_up_bit_for_bit(done: Result, tmp_path: Path) -> None:
    recipe = recipe_of("control=true")
    run_job(recipe, tmp_path / "run", until=1)
    assert not (tmp_path / "run" / "student.safetensors").exists()
    run_job(recipe, tmp_path / "run")
    assert student_of(tmp_path / "run") == student_of(done.folder)


def test_bfloat16_trains(tmp_path: Path) -> None:
    words = ("method=none", "engine.precision=bfloat16", "train.epochs=1")
    score = execute(recipe_of(*words), tmp_path / "run", say=lambda _: None).student
    assert 0 <= score["test"]["ap"] <= 100


def test_doctor_passes_and_names_the_levels() -> None:
    checks = {check.name: check for check in check_recipe(recipe_of())}
    assert all(check.passed for check in checks.values()), checks
    assert "class/tld" in checks["step"].message and "neck.p2" in checks["taps"].message
    assert "48 train" in checks["data"].message


def test_a_teacher_that_finds_nothing_is_refused(tmp_path: Path) -> None:
    options = load.to_dict(recipe_of())["teacher"]["options"]
    network = zoo.create("detector/gfocal", 10, 3, **options)
    weights.save_weights(network, tmp_path / "random.safetensors")
    words = (f"teacher.weights={tmp_path}/random.safetensors", "teacher.gate=true")
    with pytest.raises(UserError, match="detector/gfocal reaches ap 0.0 on 16 validation images"):
        execute(recipe_of(*words), tmp_path / "run", say=lambda _: None)
    assert not (tmp_path / "run" / "student.safetensors").exists()


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["teacher.options.strides=[2, 4]"], "level 0: stride 4 and 2"),
        (["teacher.name=detector/retinanet"], "priors per cell 1 and 9"),
        (["teacher.remember=true", "data.views=1"], "set teacher.remember=false"),
        (["method=crd"], "method crd needs one class per image"),
        (["method.sites=[edges]"], "'edges'"),
        (
            ["teacher.name=detector/retinanet", "student.name=detector/retinanet", "method=ld"],
            "at site 'edge', but these two networks have class, class_main",
        ),
        (["student=stillhouse/small"], "stillhouse/small"),
        (["data.mix={mixup: 0.2}"], "leave data.mix out"),
        (["student.options.scal=3"], "did you mean 'scale'"),
        (
            ["student.options.backbone=timm/resnet18", "student.options.strides=[4, 8]"],
            "the stem and the first 1 stages and the statistics of batch norms would be frozen",
        ),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    words: list[str], text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> None:
        raise AssertionError("it was trained")

    monkeypatch.setattr("stillhouse.runs.training.train", never)
    with pytest.raises(UserError) as caught:
        execute(recipe_of("control=true", *words), tmp_path / "run", say=lambda _: None)
    assert text in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["data.name=digits/labels", "data.pad=1", "data.transforms=[]"], "images with boxes"),
        (["task=classification"], "set task=detection"),
        (["task=multilabel"], "set task=detection"),
        (["task.protocol=pascal"], "'coco', 'voc' or 'voc07'"),
        (["task.threshold=2"], "`threshold` must be in [0, 1]"),
    ],
)
def test_a_task_that_does_not_fit_the_data(words: list[str], text: str, tmp_path: Path) -> None:
    with pytest.raises(UserError) as caught:
        execute(recipe_of(*words), tmp_path / "run", say=lambda _: None)
    assert text in str(caught.value)


def test_other_protocols_score_the_same_detections(done: Result) -> None:
    scores = {}
    for protocol in ("coco", "voc", "voc07"):
        recipe = load.load(done.folder, [f"task.protocol={protocol}"])
        scores[protocol] = evaluate_run(recipe, done.folder, "train", None).scores
    assert set(scores["voc"]) >= {"ap"} and "ap75" not in scores["voc"]
    assert scores["voc"]["ap"] == pytest.approx(scores["coco"]["ap50"], abs=3)


def test_a_trained_detector_goes_on_in_another_run(done: Result, tmp_path: Path) -> None:
    """As the teacher of a smaller set, and as pretrained weights for other classes."""
    student = done.folder / "student.safetensors"
    words = [f"teacher.weights={student}", "train.epochs=1"]
    score = execute(recipe_of(*words), tmp_path / "run", say=lambda _: None)
    assert score.teacher is not None
    assert score.teacher["test"] == pytest.approx(done.student["test"])
    network = zoo.create("detector/gfocal", 3, 3, **load.to_dict(recipe_of())["student"]["options"])
    report = weights.load_pretrained(network, student)
    assert report.tensors == len(network.state_dict()) - 2  # without the scores of other classes


def test_weights_of_a_classifier_go_into_the_backbone(tmp_path: Path) -> None:
    classifier = zoo.create("stillhouse/small", 7)
    weights.save_weights(classifier, tmp_path / "classifier.safetensors")
    network = zoo.create("detector/fcos", 3, backbone="stillhouse/small", strides=(4, 8))
    weights.load_pretrained(network, tmp_path / "classifier.safetensors")
    body = network.get_submodule("backbone.body")
    assert torch.equal(
        body.get_parameter("stem.0.weight"), classifier.get_parameter("stem.0.weight")
    )
