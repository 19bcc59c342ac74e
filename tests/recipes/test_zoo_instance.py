"""The recipes of instance segmentation: what they say, and two steps of each."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from albums import write_coco_objects
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from zoo_runs import SMALL, folder_of, numbers_of, plan_of, random_weights, two_steps, value_at

WORDS = [
    "data.train.count=8",
    "data.val.count=2",
    "data.test.count=4",
    "data.batch=4",
    "engine.device=cpu",
    "engine.tensorboard=false",
    "engine.workers=0",
    "engine.log_every=1",
    "train.epochs=1",
    "teacher.train.epochs=1",
    "teacher.gate=false",
]
SAID = {"solov2": {"class", "mask", "class/tld"}, "mask_rcnn": {"mask", "roi/inter", "roi/intra"}}


# ----------------------------------------------------------------------------------------- digits


@pytest.mark.parametrize("name", SAID)
def test_two_steps_on_embedded_scenes(name: str, tmp_path: Path) -> None:
    lines = two_steps(load.load(f"digits/{name}", WORDS), tmp_path / "run", "ap")
    said = {key.removeprefix("term/") for key in lines[0] if key.startswith("term/")}
    assert said >= SAID[name]


@pytest.mark.parametrize("name", SAID)
def test_the_student_is_much_smaller_than_the_teacher(name: str) -> None:
    recipe = load.load(f"digits/{name}")
    assert recipe.teacher is not None
    student, teacher = (
        sum(p.numel() for p in zoo.create(spec.name, 10, 3, **spec.options).parameters())
        for spec in (recipe.student, recipe.teacher)
    )
    assert student < 150_000 and 5 * student < teacher


# --------------------------------------------------------------------------- what those of COCO say

HERE = "instance"
NAMES = [name for name in load.zoo() if name.startswith(f"{HERE}/")]
FOUR = ("p2", "p3", "p4", "p5")
LEVELS = {"pairs": "levels"}
TLD = ("tld", {"temperature": 0.5, "weight": 2.5, "sites": ("class",)})
OF_NECK = tuple((f"neck.{level}.conv", f"neck.{level}.conv") for level in FOUR)
METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tld": [TLD],
    "kd": [("kd", {"temperature": 10, "weight": 10 / 80, "sites": ("class",)})],
    "dist": [("tld_dist", {"temperature": 1, "beta": 1, "gamma": 1, "sites": ("class",)})],
    "cwd": [("cwd", {"temperature": 1, "weight": 10, "adapter": "none", **LEVELS})],
    "pkd": [("pkd", {"weight": 6, "pairs": tuple((p, p) for p in FOUR)})],
    "mgd": [("mgd", {"alpha": 2e-5, "masked": 0.65, "pairs": OF_NECK})],
    "dice": [TLD, ("dice", {"weight": 1, "sites": ("mask",)})],
}
PROTOCOL: dict[str, Any] = {
    "task.name": "instance",
    "data.name": "coco/instances",
    "data.batch": 16,
    "data.pad": 32,
    "data.holdout": 1000,
    "data.evaluation.0.size": 800,
    "data.evaluation.0.longest": 1333,
    "train.epochs": 12,
    "train.optimiser.kind": "sgd",
    "train.optimiser.weight_decay": 1e-4,
    "train.schedule.milestones": [8, 11],
}


@cache
def loaded(name: str) -> Recipe:
    return load.load(f"{HERE}/{name}")


@pytest.mark.parametrize("name", NAMES)
def test_all_recipes_of_coco_have_one_protocol(name: str) -> None:
    recipe = load.to_dict(load.load(name))
    rate, clip = (0.02, 0) if "rcnn" in name else (0.01, 35)
    wanted = {**PROTOCOL, "train.optimiser.lr": rate, "train.clip": clip}
    assert {key: value_at(recipe, key) for key in wanted} == wanted
    family = "detector/mask_rcnn" if "rcnn" in name else "detector/solov2"
    assert recipe["student"]["name"] == family
    if recipe["teacher"] is not None:
        assert recipe["teacher"]["name"] == family
        assert recipe["teacher"]["options"] == {"backbone": "timm/resnet50"}
        assert recipe["student"]["options"] == {"backbone": "timm/resnet18"}


def test_each_method_has_a_file() -> None:
    assert folder_of(f"{HERE}/methods") == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_weights_and_all_of_the_labels(name: str) -> None:
    recipe = loaded(f"methods/{name}")
    assert [one.name for one in recipe.method] == [known for known, _ in METHODS[name]]
    for one, (_, options) in zip(recipe.method, METHODS[name], strict=True):
        assert {key: getattr(one, key) for key in options} == options
        assert one.label_share == 1
    assert recipe.student.inherit == (("neck", "head") if name == "mgd" else ())


NUMBERS = {  # table 9 of TLD
    "none": 30.8,
    "KL": 31.4,
    "BCE": 31.3,
    "CWD": 31.9,
    "DIST": 31.8,
    "PKD": 31.8,
    "MGD": 32.5,
    "TLD": 32.3,
    "TLD+FitNet": 32.8,
    "TLD+MGD": 33.1,
}


def test_the_numbers_of_the_paper_reach_the_table(tmp_path: Path) -> None:
    assert numbers_of(plan_of(f"{HERE}/tables/tld_solov2"), tmp_path) == NUMBERS
    assert folder_of(f"{HERE}/tables") == {"tld_solov2"}


def test_the_table_has_the_weights_of_the_files_of_methods() -> None:
    known = [one for name in METHODS for one in loaded(f"methods/{name}").method]
    other: dict[str, Any] = {}
    for arm in plan_of(f"{HERE}/tables/tld_solov2").arms:
        assert arm.recipe.train == loaded("solov2_1x").train and not arm.recipe.student.inherit
        for one in () if arm.is_control else arm.recipe.method:
            other |= {} if one in known else {arm.label: one}
    assert set(other) == {"BCE", "TLD+FitNet"}
    assert (other["BCE"].name, other["BCE"].temperature, other["BCE"].weight) == ("tld", 1, 2.5)
    assert (other["TLD+FitNet"].name, other["TLD+FitNet"].weight) == ("fitnet", 1)


def test_the_pair_has_the_numbers_of_the_table() -> None:
    paper = loaded("pairs/solov2_resnet50-resnet18").paper
    labels = {"none": "none", "kd": "KL", "cwd": "CWD", "tld_dist": "DIST", "pkd": "PKD"}
    labels |= {"mgd": "MGD", "tld": "TLD"}
    assert paper == {name: NUMBERS[label] for name, label in labels.items()}


# ------------------------------------------------------------------------------- two steps of each

SOLO: dict[str, Any] = {
    "backbone": "stillhouse/small",
    "strides": [4],
    "neck": {"width": 16, "extra": 3, "extra_from": "p5"},
    "head": {"width": 16, "depth": 1, "mask_width": 8, "mask_channels": 8},
    "grids": [12, 8, 6, 4],
    "ranges": [[1, 32], [24, 48], [40, 64], [48, 256]],
}
REGIONS: dict[str, Any] = {
    "backbone": "stillhouse/small",
    "strides": [4],
    "neck": {"width": 16, "extra": 3},
    "head": {"width": 16},
    "mask_head": {"width": 8, "depth": 1},
    "sampled": 32,
    "training_proposals": 32,
    "proposals": 32,
}
LABELS = {"solov2": {"class", "mask"}}
LABELS["mask_rcnn"] = {"proposal", "proposal_box", "class", "box", "mask"}


def of(method: str, *terms: str) -> set[str]:
    return {f"{method}/{term}" for term in terms}


TERMS: dict[str, set[str]] = {
    "methods/tld": {"class/tld"},
    "methods/kd": {"class/kd"},
    "methods/dist": {"class/inter", "class/intra"},
    "methods/cwd": {f"{level}/cwd" for level in FOUR},
    "methods/pkd": {f"{level}/pkd" for level in FOUR},
    "methods/mgd": {f"neck.{level}.conv" for level in FOUR},
    "methods/dice": {"tld/class/tld", "dice/mask/dice"},
    "mask_rcnn_1x": {"dist/roi/inter", "dist/roi/intra", "dice/mask/dice"},
}
RESIZE = "[{kind: resize, size: 64, longest: 96}]"


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_objects(tmp_path_factory.mktemp("coco"), 18, 2)


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a teacher of each family, with random weights."""
    folder = tmp_path_factory.mktemp("teachers")

    def file(family: str) -> Path:
        path = folder / f"{family}.safetensors"
        if not path.exists():
            options = REGIONS if family == "mask_rcnn" else SOLO
            weights.save_weights(zoo.create(f"detector/{family}", 5, **options), path)
        return path

    return file


def small(path: Path) -> list[str]:
    """Overrides for small images, and two batches of the 16 images that are left."""
    return [
        *SMALL,
        f"data.path={path}",
        f"data.transforms={RESIZE}",
        f"data.evaluation={RESIZE}",
        "data.holdout=2",
        "data.group_by_aspect=false",
        "train.epochs=1",
        "train.schedule={kind: constant}",
        "engine.log_every=1",
    ]


@pytest.mark.parametrize("name", TERMS)
def test_two_steps_on_files_like_those_of_coco(
    name: str, coco: Path, teachers: Callable[[str], Path], tmp_path: Path
) -> None:
    family = "mask_rcnn" if "rcnn" in name else "solov2"
    options = REGIONS if family == "mask_rcnn" else SOLO
    words = [
        f"student.options={options}",
        "student.pretrained=",
        f"teacher.options={options}",
        f"teacher.weights={teachers(family)}",
        "teacher.gate=false",
    ]
    recipe = load.load(f"{HERE}/{name}", [*small(coco), *words])
    lines = two_steps(recipe, tmp_path / "run", "ap")
    said = [key.removeprefix("term/") for key in lines[0] if key.startswith("term/")]
    assert set(said) == LABELS[family] | TERMS[name]


def test_two_steps_of_the_recipe_of_the_teacher(coco: Path, tmp_path: Path) -> None:
    """With published backbones and the grids of the paper."""
    backbone = random_weights("timm/resnet18", 3, tmp_path)
    head = "{width: 16, depth: 1, mask_width: 8, mask_channels: 8}"
    words = [
        "student.options.backbone=timm/resnet18",
        "student.options.neck.width=16",
        f"student.options.head={head}",
        f"student.pretrained={backbone}",
    ]
    recipe = load.load(f"{HERE}/coco_1x", [*small(coco), *words])
    lines = two_steps(recipe, tmp_path / "run", "ap")
    assert {"term/class", "term/mask"} <= set(lines[0])
