"""Each thing that can be wrong is one sentence; what depends on it is not tried."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import safetensors.torch
from torch import nn

from quick import kept_teacher, quick
from stillhouse.runs import checks as checking
from stillhouse.runs import doctor
from stillhouse.runs.doctor import Check, check_recipe

NAMES = ("versions", "data", "student", "teacher", "contract", "taps", "step", "disk")


@pytest.fixture(scope="module", autouse=True)
def teacher() -> Path:
    return kept_teacher()


def checks(*words: str) -> dict[str, Check]:
    found = {check.name: check for check in check_recipe(quick(*words))}
    assert tuple(found) == NAMES
    assert all("\n" not in check.message and check.message for check in found.values())
    return found


def verdicts(found: dict[str, Check]) -> dict[str, bool | None]:
    return {name: check.passed for name, check in found.items() if not check.passed}


def test_a_whole_recipe_passes_and_says_what_it_is() -> None:
    found = checks()
    assert verdicts(found) == {}
    assert "200 train, 360 val, 359 test; 10 classes; images 1 x 8 x 8" in found["data"].message
    assert found["student"].message.startswith("stillhouse/tiny: 1,382 parameters")
    # one image of 360 more or less, by the processor
    assert re.search(r"top1 6[67]\.\d\d on validation", found["teacher"].message)
    assert "the same for both" in found["contract"].message
    assert "taps of the student: stage1" in found["taps"].message
    assert "12 steps" in found["step"].message and "kd" in found["step"].message
    assert "MB free" in found["disk"].message


def test_a_teacher_that_is_still_to_be_trained_passes() -> None:
    found = checks("teacher.seed=77")
    assert verdicts(found) == {}
    assert "is trained first, for 3 epochs" in found["teacher"].message


def test_a_run_without_a_teacher_passes() -> None:
    found = checks("method=none", "teacher=null")
    assert verdicts(found) == {}
    assert "trained on labels only" in found["teacher"].message


def test_taps_are_shown_with_their_shapes() -> None:
    words = ("method={name: cwd, pairs: [[stage1, stage2]]}", "teacher.remember=false")
    assert checks(*words)["taps"].message == (
        "stage1 (4x8x8) -> stage2 (64x4x4) through Conv2d of 256 parameters; "
        "pairs by size: [[stage1, stage1], [stage2, stage2]]"
    )


SKIP = None


@pytest.mark.parametrize(
    ("words", "name", "sentence", "skipped"),
    [
        (
            ["data=digits/rew"],
            "data",
            "no data set 'digits/rew'; did you mean 'digits/raw'",
            {"student", "teacher", "contract", "taps", "step", "disk"},
        ),
        (
            ["data=folder", "data.path=/nosuch/place"],
            "data",
            "/nosuch/place/train does not exist",
            {"student", "teacher", "contract", "taps", "step", "disk"},
        ),
        (
            ["data.train.count=5"],
            "data",
            "",
            {"student", "teacher", "contract", "taps", "step", "disk"},
        ),
        (
            ["student=stillhouse/tinny"],
            "student",
            "no network 'tinny'; did you mean 'tiny'?",
            {"taps", "step", "disk"},
        ),
        (
            ["student=timm/vit_tiny_patch16_224"],
            "student",
            "timm/vit_tiny_patch16_224 does not take images of 1 x 8 x 8",
            {"taps", "step", "disk"},
        ),
        (
            ["teacher=stillhouse/litle"],
            "teacher",
            "no network 'litle'; did you mean 'little'?",
            {"contract", "taps", "step"},
        ),
        (
            ["teacher.weights=/nosuch/file.safetensors"],
            "teacher",
            "there is no folder '/nosuch'",
            {"contract", "taps", "step"},
        ),
        (
            ["teacher.train=null"],
            "teacher",
            "has no weights; set teacher.weights=FILE",
            {"contract", "taps", "step"},
        ),
        (
            ["method={name: cwd, pairs: [[stage9, last]]}", "teacher.remember=false"],
            "taps",
            "no module or alias 'stage9'; did you mean 'stage",
            {"step"},
        ),
        (
            ["method=pkd", "teacher.remember=false"],
            "taps",
            "",
            {"step"},
        ),
        (
            ["train.groups={metod: {kind: sgd, lr: 0.1}}"],
            "step",
            "train.groups.metod: there is no such group of parameters, only student",
            set(),
        ),
        (
            ["method=cwd"],  # with the memory for logits on
            "step",
            "teacher.remember keeps logits only",
            set(),
        ),
    ],
)
def test_what_is_wrong_is_said_once(
    words: list[str], name: str, sentence: str, skipped: set[str]
) -> None:
    found = checks(*words)
    wanted: dict[str, bool | None] = dict.fromkeys(skipped, SKIP)
    assert verdicts(found) == wanted | {name: False}
    assert sentence in found[name].message
    for other in skipped:
        assert found[other].message == "not run, because a check above failed"


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([1, 2, 3, 4, 5, 6, 7, 8, 9, 0], "check its weights, its class order"),
        ([0, 1, 2], "the file has 3 classes, the recipe 10"),
    ],
)
def test_a_teacher_of_other_classes_is_said(tmp_path: Path, rows: list[int], sentence: str) -> None:
    state = safetensors.torch.load_file(kept_teacher())
    state |= {name: state[name][rows].clone() for name in ("head.weight", "head.bias")}
    safetensors.torch.save_file(state, tmp_path / "other.safetensors")
    found = checks(f"teacher.weights={tmp_path}/other.safetensors")
    assert found["teacher"].passed is False and sentence in found["teacher"].message
    assert set(verdicts(found)) >= {"teacher"}
    assert set(verdicts(found).values()) <= {False, None}


def test_a_full_disk_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = checking.shutil.disk_usage("/")._replace(free=1000)
    monkeypatch.setattr(checking.shutil, "disk_usage", lambda _: usage)
    found = checks()
    assert verdicts(found) == {"disk": False}
    assert (
        "0 MB are free at runs" in found["disk"].message
        and "another --out" in found["disk"].message
    )


def test_published_weights_that_expect_another_normalisation_are_noted(tmp_path: Path) -> None:
    from stillhouse.models import weights, zoo

    weights.save_weights(zoo.create("torchvision/resnet18", 10, 1), tmp_path / "r.safetensors")
    name = "torchvision/resnet18"
    said = checks(f"student={{name: {name}, weights: {tmp_path}/r.safetensors}}")[
        "contract"
    ].message
    assert f"published weights of {name} expect mean (0.485, 0.456, 0.406)" in said


def test_it_leaves_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    checks()
    assert list(tmp_path.iterdir()) == []


def test_the_disk_is_that_of_the_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    looked: list[Path] = []
    usage = checking.shutil.disk_usage("/")
    monkeypatch.setattr(checking.shutil, "disk_usage", lambda path: looked.append(path) or usage)
    place = tmp_path / "not" / "yet"
    made = doctor.Doctor(quick("method=none", "teacher=null"), place)
    made._student = nn.Linear(1, 1)
    assert f"MB free at {place}, checkpoints need" in made.check_disk()
    assert looked == [tmp_path]
