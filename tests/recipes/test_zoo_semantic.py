"""The recipes of semantic segmentation: weights, tables, and two steps of each arm."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from mask_albums import photo, save, values
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from zoo_runs import SMALL, folder_of, numbers_of, plan_of, two_steps

HERE = "semantic"
KD = ("kd", {"temperature": 1, "weight": 1, "label_share": 1, "sites": ("pixel",)})
CRITIC = {"adversarial": "hinge", "adversarial_weight": 0.001, "critic_weight": 0.1}
LAST = {"pairs": (("last", "last"),)}
RELATIONS = ("dist", {"temperature": 1, "beta": 1, "gamma": 1, "sites": ("pixel",)})
AUX = ("dist", {"temperature": 1, "beta": 0.4, "gamma": 0.4, "sites": ("aux",)})
METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "kd": [KD],
    "skd": [KD, ("skd", {"weight": 10, "grid": 2, **CRITIC})],
    "ifvd": [KD, ("ifvd", {"weight": 20, "variant": "paper"}), ("skd", {"weight": 0, **CRITIC})],
    "cwd": [
        KD,
        ("cwd", {"temperature": 4, "weight": 3, "pairs": (("logits", "logits"),)}),
        ("cwd", {"temperature": 4, "weight": 50, **LAST}),
        ("skd", {"weight": 0, **CRITIC}),
    ],
    "cirkd": [KD, ("cirkd", {"weight": 1, "pixel_weight": 0.1, "region_weight": 0.1})],
    "at": [KD, ("at", {"weight": 10000, **LAST})],
    "fitnet": [KD, ("fitnet", {"weight": 10, "adapter": "pointwise", **LAST})],
    "mgd": [("mgd", {"alpha": 2e-5, "masked": 0.75, "pairs": (("stage4", "stage4"),)})],
    "dist": [RELATIONS, AUX],
    "dist_plus": [
        RELATIONS,
        AUX,
        ("channel_relation", {"weight": 1, **LAST}),
        ("spatial_relation", {"weight": 1, **LAST}),
        ("acclimation", {"rate": 0.1, "sites": ("pixel",)}),
    ],
}
NUMBERS = {
    "dist_deeplabv3": {
        "none": 74.21,
        "SKD": 75.42,
        "IFVD": 75.59,
        "CWD": 75.55,
        "CIRKD": 76.38,
        "DIST": 77.1,
        "DIST+": 77.36,
    },
    "dist_pspnet": {
        "none": 72.55,
        "SKD": 73.29,
        "IFVD": 73.71,
        "CWD": 74.36,
        "CIRKD": 74.73,
        "DIST": 76.31,
        "DIST+": 76.52,
    },
}
PROTOCOLS = [
    ("voc_40k", 10582, 40000),
    ("camvid_40k", 367, 40000),
    ("ade20k_segformer", 20210, 160000),
]
FILES = {"SKD": "skd", "IFVD": "ifvd", "CWD": "cwd", "CIRKD": "cirkd", "DIST": "dist"}


@cache
def loaded(name: str) -> Recipe:
    return load.load(f"{HERE}/{name}")


def test_each_method_has_a_file() -> None:
    assert folder_of(f"{HERE}/methods") == set(METHODS)
    assert folder_of(f"{HERE}/tables") == set(NUMBERS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_weights(name: str) -> None:
    recipe, base = loaded(f"methods/{name}"), loaded("distil_40k")
    assert [one.name for one in recipe.method] == [known for known, _ in METHODS[name]]
    for one, (_, options) in zip(recipe.method, METHODS[name], strict=True):
        assert {key: getattr(one, key) for key in options} == options
        assert one.label_share == 1
    assert (recipe.data, recipe.teacher, recipe.student) == (base.data, base.teacher, base.student)


@pytest.mark.parametrize("name", NUMBERS)
def test_tables_have_the_numbers_of_the_papers_and_the_methods_of_the_files(
    name: str, tmp_path: Path
) -> None:
    plan = plan_of(f"{HERE}/tables/{name}")
    found = numbers_of(plan, tmp_path)
    assert {label: found[label] for label in NUMBERS[name]} == NUMBERS[name]
    arms = {arm.label: arm.recipe for arm in plan.arms}
    for label, file in {**FILES, "DIST+": "dist_plus"}.items():
        assert arms[label].method == loaded(f"methods/{file}").method
        assert arms[label].student.name == f"segmenter/{name.removeprefix('dist_')}"


def test_the_protocol_is_40000_steps() -> None:
    recipe = loaded("cityscapes_40k")
    images = 2975 - int(recipe.data.holdout)
    assert recipe.train.epochs * images / recipe.data.batch == pytest.approx(40000, rel=1e-3)
    assert recipe.train.sync_norms and recipe.train.schedule.kind == "poly"


@pytest.mark.parametrize(("name", "images", "steps"), PROTOCOLS)
def test_the_protocols_of_other_data(name: str, images: int, steps: int) -> None:
    recipe = loaded(name)
    found = recipe.train.epochs * (images - int(recipe.data.holdout)) / recipe.data.batch
    assert found == pytest.approx(steps, rel=2e-3)


@pytest.mark.usefixtures("unfilled")
def test_segformers_are_those_of_the_paper() -> None:
    pytest.importorskip("transformers", reason="transformers is optional, and not installed")
    recipe = loaded("ade20k_segformer")
    assert recipe.teacher is not None
    counts = [
        sum(p.numel() for p in zoo.create(spec.name, 150, **spec.options).parameters())
        for spec in (recipe.student, recipe.teacher)
    ]
    assert counts == [3752694, 64108374]  # the published 3.8 and 64.1 million


@pytest.mark.usefixtures("unfilled")
def test_networks_are_those_of_the_papers() -> None:
    """By the counts of parameters that are known of them."""
    recipe = loaded("distil_40k")
    assert recipe.teacher is not None
    counts = []
    for spec in (
        recipe.student,
        loaded("pairs/deeplabv3_resnet101-pspnet_resnet18").student,
        recipe.teacher,
    ):
        network = zoo.create(spec.name, 19, **spec.options)
        counts.append(sum(p.numel() for p in network.parameters()))
    assert counts == [13607974, 12919334, 61118950]


# ------------------------------------------------------------------------------------- two steps


@pytest.fixture(scope="module")
def cityscapes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """18 images for training and 2 for validation, of 24 x 48 pixels."""
    root = tmp_path_factory.mktemp("cityscapes")
    for split, count in (("train", 18), ("val", 2)):
        for i in range(count):
            name = f"town/town_{i:06}_000019"
            save(root / f"leftImg8bit/{split}/{name}_leftImg8bit.png", photo(i, (24, 48)))
            mask = values(i, (0, 3, 7, 8, 11, 26), (24, 48))  # of which 0 and 3 are ignored
            save(root / f"gtFine/{split}/{name}_gtFine_labelIds.png", mask)
    return root


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("teacher") / "teacher.safetensors"
    weights.save_weights(zoo.create("segmenter/deeplabv3", 19, **options("medium")), path)
    return path


def options(size: str) -> dict[str, Any]:
    return {"backbone": f"stillhouse/{size}", "backbone_options": None, "output_stride": 4}


def small(path: Path, teacher: Path) -> list[str]:
    return [
        *SMALL,
        f"data.path={path}",
        "data.transforms=[{kind: random_scale}, {kind: flip}, {kind: random_crop, size: [24, 32]}]",
        "data.holdout=2",  # 16 images are left: two batches
        f"student.options={json.dumps(options('small'))}",
        "student.pretrained=",
        f"teacher.options={json.dumps(options('medium'))}",
        f"teacher.weights={teacher}",
        "teacher.gate=false",
        "train.epochs=1",
        "engine.log_every=1",
    ]


@pytest.mark.parametrize("name", [name for name in METHODS if name != "mgd"])
def test_two_steps_of_each_method(
    name: str, cityscapes: Path, teacher: Path, tmp_path: Path
) -> None:
    recipe = load.load(f"{HERE}/methods/{name}", small(cityscapes, teacher))
    lines = two_steps(recipe, tmp_path / "run", "miou")
    said = {key.removeprefix("term/") for key in lines[0] if key.startswith("term/")}
    assert {"label", "aux"} < said and len(said) >= 3


def test_two_steps_of_mgd(cityscapes: Path, teacher: Path, tmp_path: Path) -> None:
    """The small networks have three stages."""
    words = [*small(cityscapes, teacher), "method.pairs=[[stage3, stage3]]"]
    two_steps(load.load(f"{HERE}/methods/mgd", words), tmp_path / "run", "miou")


@pytest.mark.parametrize("label", ["SKD", "DIST+"])
def test_two_steps_of_a_table(label: str, cityscapes: Path, teacher: Path, tmp_path: Path) -> None:
    """Of the PSPNet; the arms are those of the files of methods."""
    arms = plan_of(f"{HERE}/tables/dist_pspnet").arms
    recipe = next(arm.recipe for arm in arms if arm.label == label)
    recipe = load.replace_sections(recipe, {}, small(cityscapes, teacher))
    two_steps(recipe, tmp_path / "run", "miou")


def test_two_steps_of_the_control(cityscapes: Path, teacher: Path, tmp_path: Path) -> None:
    words = [word for word in small(cityscapes, teacher) if not word.startswith("teacher.")]
    two_steps(load.load(f"{HERE}/cityscapes_40k", words), tmp_path / "run", "miou")
