"""The recipes of detection: what they say, and two steps of each on files of the true format."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from albums import write_coco_objects, write_voc
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from zoo_runs import SMALL, random_weights, two_steps, value_at

HERE = "detection"
FAMILIES = ("retinanet", "fcos", "atss", "gfocal", "reppoints", "faster_rcnn")
DISTILLED = tuple(f"{HERE}/{part}" for part in ("distil", "methods/", "pairs/", "tables/"))
NAMES = [  # those with a teacher are in test_zoo_distilled_detectors
    name for name in load.zoo() if name.startswith(f"{HERE}/") and not name.startswith(DISTILLED)
]
COCO = [name for name in NAMES if name.startswith(f"{HERE}/coco/")]


@cache
def loaded(name: str) -> Recipe:
    return load.load(f"{HERE}/{name}")


PROTOCOL: dict[str, Any] = {
    "task.name": "detection",
    "task.protocol": "coco",
    "data.name": "coco/objects",
    "data.batch": 16,
    "data.pad": 32,
    "data.group_by_aspect": True,
    "data.evaluation.0.size": 800,
    "data.evaluation.0.longest": 1333,
    "train.optimiser.kind": "sgd",
    "train.optimiser.momentum": 0.9,
    "train.optimiser.weight_decay": 1e-4,
    "train.optimiser.nesterov": False,
    "train.schedule.drop": 0.1,
}


@pytest.mark.parametrize("name", COCO)
def test_all_recipes_of_coco_have_one_protocol(name: str) -> None:
    recipe = load.to_dict(load.load(name))
    rate = 0.02 if "rcnn" in name else 0.01
    wanted = {**PROTOCOL, "train.optimiser.lr": rate}
    assert {key: value_at(recipe, key) for key in wanted} == wanted
    family, _, schedule = name.rpartition("/")[2].rpartition("_")
    assert recipe["student"]["name"] == f"detector/{family}"
    schedules = {"1x": (12, [8, 11]), "20e": (20, [16, 19])}
    epochs, milestones = schedules.get(schedule, (24, [16, 22]))
    assert recipe["train"]["epochs"] == epochs
    assert recipe["train"]["schedule"]["milestones"] == milestones


def test_every_family_has_both_schedules() -> None:
    names = {name.rpartition("/")[2] for name in COCO}
    assert {f"{family}_{schedule}" for family in FAMILIES for schedule in ("1x", "2x")} <= names


def test_warm_up_takes_500_steps_of_sixteen_images() -> None:
    schedule = loaded("coco_1x").train.schedule
    images = 117_266 - 1000  # training images with objects, without those held out
    assert schedule.warmup * (images // 16) == pytest.approx(500, abs=1)
    factor = loaded("coco/fcos_1x").train.schedule.factor
    per_epoch = images // 16
    assert [round(factor(step, 10**5, per_epoch), 4) for step in (0, 499, 501)] == [
        0.3333,
        0.3333,
        1,
    ]


SCORES = {
    "retinanet_1x": 36.5,
    "retinanet_2x": 37.4,
    "fcos_1x": 36.6,
    "atss_1x": 39.4,
    "gfocal_1x": 40.2,
    "reppoints_1x": 38.1,
    "gfocal_ms2x": 44.9,
    "fcos_ms2x": 40.8,
    "faster_rcnn_2x": 38.4,
}


@pytest.mark.parametrize(("name", "score"), SCORES.items())
def test_the_numbers_of_the_papers(name: str, score: float) -> None:
    assert loaded(f"coco/{name}").paper == {"none": score}


# ------------------------------------------------------------------------------- two steps of each

TINY = (
    "data.transforms=[{kind: resize, size: 64, longest: 96}, {kind: flip}]",
    "data.evaluation=[{kind: resize, size: 64, longest: 96}]",
    "train.epochs=2",
    "train.schedule={kind: constant}",
)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_objects(tmp_path_factory.mktemp("coco"), 18, 4)


def trained(name: str, path: Path, folder: Path, *words: str) -> list[dict[str, Any]]:
    backbone = random_weights("timm/resnet18", 3, folder)
    recipe = load.load(
        name,
        [
            *SMALL,
            *TINY,
            f"data.path={path}",
            "student.options.backbone=timm/resnet18",
            "student.options.neck.width=32",
            "student.options.head.width=32",
            f"student.pretrained={backbone}",
            *words,
        ],
    )
    return two_steps(recipe, folder / "run", "ap")


@pytest.mark.parametrize("name", [name for name in COCO if not name.endswith("_2x")])
def test_two_steps_on_files_like_those_of_coco(name: str, coco: Path, tmp_path: Path) -> None:
    # 18 images with objects are left of 19; of 16, of like aspect, are two batches of eight
    lines = trained(
        name, coco, tmp_path, "data.holdout=2", "data.group_by_aspect=false", "train.epochs=1"
    )
    assert any({"term/class", "term/class_1"} & set(line) for line in lines)


def test_two_steps_on_files_like_those_of_voc(tmp_path: Path) -> None:
    path = write_voc(tmp_path / "voc", 16, 4)
    trained("detection/voc", path, tmp_path, "data.group_by_aspect=false")


def test_two_steps_of_own_images(coco: Path, tmp_path: Path) -> None:
    trained("detection/folder", coco, tmp_path, "data.holdout=2", "data.batch=8", "train.epochs=1")


def test_other_backbones_take_the_same_recipe() -> None:
    for backbone in ("timm/resnet34", "timm/mobilenetv2_100", "torchvision/swin_t"):
        words = [f"student.options.backbone={backbone}"]
        recipe = load.load("detection/coco/gfocal_1x", words)
        network = zoo.create(recipe.student.name, 5, **recipe.student.options)
        assert weights.state_hash(network)


def test_every_recipe_is_tried() -> None:
    rest = {name.removeprefix(f"{HERE}/") for name in NAMES if name not in COCO}
    assert rest == {"coco_1x", "coco_2x", "voc", "folder"}
