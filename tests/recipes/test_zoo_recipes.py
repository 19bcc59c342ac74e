"""The papers' recipes: what they say, what their tables plan, and two steps of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stillhouse.methods.catalogue import published
from stillhouse.models import zoo
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from zoo_runs import (
    SMALL,
    arm_of,
    folder_of,
    numbers_of,
    plan_of,
    random_weights,
    shrunk,
    two_steps,
    value_at,
)

FOLDERS = ("cifar100", "imagenet", "multilabel")
PAPERS = [name for name in load.zoo() if name.split("/")[0] in FOLDERS]
TABLES = [name for name in PAPERS if "/tables/" in name]
# of the published methods, those of other tasks
MULTI_LABEL = {"mld", "tld", "tld_dist", "ps", "cd", "id", "l2d"}
DENSE = {"dice", "bcd", "mimic", "pkd", "cwd", "skd", "ifvd", "cirkd"} | {
    name for name, spec in published().items() if "boxes" in spec.card.needs
}
NETWORKS_OF_32X4 = ("resnet8x4", "shufflenetv1", "shufflenetv2", "wrn_16_2", "wrn_40_2")
PAIRS = {
    *(f"resnet32x4-{name}" for name in NETWORKS_OF_32X4),
    *("vgg13-vgg8", "vgg13-mobilenetv2", "resnet50-mobilenetv2"),
    *(f"wrn_40_2-{n}" for n in ("wrn_40_1", "wrn_16_2", "resnet8x4", "mobilenetv2")),
    *("wrn_40_2-shufflenetv1", "resnet56-resnet20", "resnet110-resnet32", "resnet110-resnet20"),
}


def networks_of(recipe: Recipe) -> Iterator[str]:
    """Every network that a recipe names, those of its study among them."""
    pairs = recipe.study.pairs.values() if recipe.study else ()
    others = recipe.study.teachers.values() if recipe.study else ()
    teachers = [*others, *(pair.teacher for pair in pairs)]
    yield from (recipe.student.name, *(pair.student.name for pair in pairs))
    for teacher in [recipe.teacher, *teachers] if recipe.teacher else teachers:
        yield from (member.name for member in teacher.networks)


# ------------------------------------------------------------------------------------ the recipes


@pytest.mark.parametrize("name", PAPERS)
def test_each_loads_and_says_of_itself_what_it_is(name: str) -> None:
    recipe = load.load(name)
    own = load.read_yaml(load.zoo()[name])
    assert own["title"] == recipe.title
    assert (recipe.study is not None) == (name in TABLES)
    for network in set(networks_of(recipe)):
        assert network in zoo.list_models(network)


def test_every_method_of_single_labels_has_a_file() -> None:
    known = folder_of("cifar100/methods")
    assert known - set(published()) == {"dist_plus"}
    assert set(published()) - known == MULTI_LABEL | DENSE
    for name in known & set(published()):
        assert name in {method.name for method in load.load(f"cifar100/methods/{name}").method}


def test_every_standard_pair_has_a_file() -> None:
    assert folder_of("cifar100/pairs") == PAIRS
    assert folder_of("imagenet/pairs") == {"resnet34-resnet18", "resnet50-mobilenetv1"}
    for name in PAIRS:
        recipe = load.load(f"cifar100/pairs/{name}")
        teacher, _, student = name.partition("-")
        slow = student.startswith(("mobilenet", "shufflenet"))
        assert recipe.student.name == f"cifar/{student}"
        assert recipe.teacher.name == f"cifar/{teacher}"
        assert recipe.train.optimiser.lr == (0.01 if slow else 0.05)
        assert recipe.teacher.train.optimiser.lr == 0.05
        assert recipe.train.epochs == recipe.teacher.train.epochs == 240


BASES: dict[str, dict[str, Any]] = {
    "cifar100/base": {
        "data.name": "cifar100",
        "data.batch": 64,
        "data.mean": [0.5071, 0.4867, 0.4408],
        "data.std": [0.2675, 0.2565, 0.2761],
        "data.transforms.0.padding": 4,
        "data.transforms.1.kind": "flip",
        "train.epochs": 240,
        "train.optimiser.momentum": 0.9,
        "train.optimiser.weight_decay": 5e-4,
        "train.optimiser.nesterov": False,
        "train.optimiser.decay_norms": True,
        "train.schedule.milestones": [150, 180, 210],
        "teacher.train.schedule.milestones": [150, 180, 210],
        "teacher.train.epochs": 240,
        "method.0.temperature": 4,
        "method.0.weight": 0.9,
        "method.0.label_weight": 0.1,
    },
    "cifar100/vit": {
        "data.batch": 128,
        "data.transforms.0.interpolation": "bicubic",
        "data.transforms.2.magnitude": 9,
        "data.transforms.3.probability": 0.25,
        "data.mix": None,
        "task.label_smoothing": 0,
        "teacher.size": [32, 32],
        "teacher.name": "cifar/resnet56",
        "train.epochs": 300,
        "train.optimiser.kind": "adamw",
        "train.optimiser.lr": 5e-4,
        "train.optimiser.weight_decay": 0.05,
        "train.schedule.warmup": 20,
        "method.0.label_weight": 0.5,
        "method.0.weight": 10,
    },
    "cifar100/vit_teacher": {
        "teacher": None,
        "data.batch": 128,
        "train.epochs": 300,
        "train.optimiser.lr": 0.1,
        "train.optimiser.nesterov": True,
        "train.schedule.kind": "cosine",
    },
    "imagenet/b1": {
        "data.batch": 256,
        "data.transforms.0.size": 224,
        "data.evaluation.0.size": 256,
        "data.evaluation.1.size": 224,
        "train.epochs": 100,
        "train.optimiser.lr": 0.1,
        "train.optimiser.weight_decay": 1e-4,
        "train.optimiser.nesterov": True,
        "train.optimiser.decay_norms": False,
        "train.schedule.milestones": [30, 60, 90],
        "method.0.temperature": 1,
        "method.0.beta": 2,
        "method.0.gamma": 2,
    },
    "imagenet/mdistiller": {
        "data.batch": 512,
        "train.optimiser.lr": 0.2,
        "train.optimiser.weight_decay": 1e-4,
        "train.optimiser.nesterov": False,
        "train.optimiser.decay_norms": True,
        "train.schedule.milestones": [30, 60, 90],
        "method.0.weight": 0.5,
        "method.0.label_weight": 0.5,
    },
    "imagenet/b2": {
        "data.batch": 768,
        "data.transforms.2.kind": "rand_augment",
        "data.transforms.2.deviation": 0.5,
        "data.transforms.3.probability": 0.2,
        "data.transforms.3.mode": "pixel",
        "task.label_smoothing": 0.1,
        "student.options.drop_rate": 0.2,
        "train.epochs": 450,
        "train.ema_decay": 0.9999,
        "train.optimiser.kind": "rmsprop",
        "train.optimiser.lr": 0.048,
        "train.optimiser.eps": 1e-3,
        "train.optimiser.momentum": 0.9,
        "train.optimiser.weight_decay": 1e-5,
        "train.schedule.drop": 0.97,
        "train.schedule.every": 2.4,
        "train.schedule.warmup": 3,
    },
    "imagenet/b3": {
        "data.batch": 1024,
        "data.mix.mixup": 0.8,
        "data.mix.cutmix": 1.0,
        "data.transforms.3.kind": "color_jitter",
        "task.label_smoothing": 0.1,
        "train.epochs": 300,
        "train.optimiser.kind": "adamw",
        "train.optimiser.lr": 5e-4,
        "train.optimiser.weight_decay": 0.05,
        "train.schedule.kind": "cosine",
        "train.schedule.warmup": 20,
    },
}


@pytest.mark.parametrize("name", BASES)
def test_bases_say_what_the_papers_say(name: str) -> None:
    content = load.to_dict(load.load(name))
    assert {key: value_at(content, key) for key in BASES[name]} == BASES[name]


def test_rates_where_the_papers_name_them() -> None:
    b2, vit, base = (load.load(n).train for n in ("imagenet/b2", "cifar100/vit", "cifar100/base"))
    assert b2.optimiser.lr * b2.schedule.factor(0, 4500, 10) == pytest.approx(1e-6, rel=1e-4)
    end = vit.schedule.factor(300_000, 300_000, 1000) * vit.optimiser.lr
    assert end == pytest.approx(5e-6)
    rates = [base.schedule.factor(epoch * 10, 2400, 10) for epoch in (149, 150, 179, 180, 210)]
    assert rates == pytest.approx([1, 0.1, 0.1, 0.01, 0.001])


WEIGHTS = {
    "ttm": {"gamma": 0.1, "beta": 45},
    "ats": {"weight": 0.5, "temperature": 1, "label_weight": 0.5},
    "dkd": {"temperature": 4, "alpha": 1, "beta": 8, "warmup": 20},
    "dist": {"temperature": 4, "beta": 2, "gamma": 2, "variant": "reference"},
    "ctkd": {
        "lowest": 1,
        "span": 20,
        "initial": 1,
        "loops": 10,
        "base": presets.kd(weight=0.9, label_weight=0.1),
    },
    "fitnet": {"weight": 100},
    "at": {"weight": 1000, "power": 2},
    "ofd": {"weight": 1e-3},
    "ab": {"weight": 3e-3, "margin": 1, "init": 30 / 240},
    "ft": {"weight": 200, "share_of_width": 0.5, "init": 30 / 240},
    "vid": {"weight": 1, "variance": 5},
    "reviewkd": {"weight": 1, "warmup": 20},
    "simkd": {"weight": 1, "label_weight": 0},
    "catkd": {"beta": 15, "size": 2, "normalise": False},
    "rkd": {"distance": 25, "angle": 50},
    "pkt": {"weight": 30000},
    "cc": {"weight": 0.02, "dim": 128},
    "crd": {"weight": 0.8, "negatives": 16384, "temperature": 0.07, "dim": 128, "momentum": 0.5},
    "sp": {"weight": 3000},
    "nst": {"weight": 50},
    "fsp": {"weight": 50, "init": 30 / 240},
    "mgd": {"alpha": 7e-5, "masked": 0.15},
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_methods_have_the_weights_of_their_papers(name: str) -> None:
    (method,) = load.load(f"cifar100/methods/{name}").method
    assert {key: getattr(method, key) for key in WEIGHTS[name]} == WEIGHTS[name]


def test_standardised_logits_leave_the_labels_their_share() -> None:
    (method,) = load.load("cifar100/methods/lskd").method
    assert (method.temperature, method.weight, method.label_share) == (2, 9, 0.1)
    (large,) = load.load("imagenet/methods/lskd").method
    assert (large.temperature, large.weight, large.label_share) == (2, 9, 1)


def test_multi_level_distillation_is_slower() -> None:
    recipe = load.load("cifar100/methods/mlkd")
    (method,) = recipe.method
    assert recipe.train.optimiser.lr == 0.025 and recipe.teacher.train.optimiser.lr == 0.05
    assert (method.base.temperature, *method.temperatures) == (4, 3, 5, 2, 6)
    assert (method.base.weight, method.label_share) == (0.9, 0.1)


@pytest.mark.parametrize("reverse", [False, True])
def test_any_pair_goes_with_any_method(reverse: bool, tmp_path: Path) -> None:
    names = ["cifar100/pairs/vgg13-vgg8", "cifar100/methods/dkd"][:: -1 if reverse else 1]
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: [{', '.join(names)}]\nmethod: {{beta: 6}}\ntitle: mine\n")
    recipe = load.load(path)
    assert (recipe.student.name, recipe.teacher.name) == ("cifar/vgg8", "cifar/vgg13")
    assert recipe.teacher.train.epochs == 240 and recipe.method[0].warmup == 20
    assert recipe.method[0].name == "dkd" and recipe.method[0].beta == 6


def test_a_recipe_of_imagenet_goes_under_any_pair_and_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    parts = ("mdistiller", "pairs/resnet50-mobilenetv1", "methods/reviewkd")
    path.write_text(f"extends: [{', '.join(f'imagenet/{part}' for part in parts)}]\n")
    recipe = load.load(path)
    assert recipe.data.batch == 512 and recipe.train.optimiser.lr == 0.2
    assert recipe.student.name == "stillhouse/mobilenetv1"
    assert recipe.method[0].name == "reviewkd" and recipe.method[0].warmup == 1


# ------------------------------------------------------------------------------------- the tables


@pytest.mark.parametrize("name", TABLES)
def test_a_table_plans_an_arm_a_number_and_a_control_a_pair(name: str, tmp_path: Path) -> None:
    plan = plan_of(name)
    labels = [arm.label for arm in plan.arms]
    assert len(set(labels)) == len(labels) == len(set(plan.folders.values()))
    assert plan.notes == ()
    section = plan.recipe.study
    for pair in section.pairs:
        (control,) = (arm for arm in plan.controls if arm.pair == pair)
        taught = [arm for arm in plan.arms if arm.pair == pair and not arm.is_control]
        assert [arm.method for arm in taught] == [*section.methods]
        assert {arm.control for arm in taught} == {control.label}
        for arm in taught:
            assert arm.recipe.student == control.recipe.student == section.pairs[pair].student
            assert arm.recipe.teacher.name == section.pairs[pair].teacher.name
            assert arm.recipe.train == control.recipe.train
            assert arm.recipe.data == control.recipe.data
    if not section.pairs:
        (control,) = plan.controls
        assert {arm.control for arm in plan.arms} == {control.label}
    numbers = numbers_of(plan, tmp_path)
    taught = {arm.label for arm in plan.arms if not arm.is_control}
    assert {label for label in taught if numbers[label] is None} == set()
    said = {v for p in section.pairs.values() for k, v in p.paper.items() if k != "teacher"}
    said |= set(plan.recipe.paper.values()) if not section.pairs else set()
    assert said == set(numbers.values()) - {None}  # each number stands beside an arm


NUMBERS = {
    "cifar100/tables/lskd_same_family": {
        "none of resnet32x4-resnet8x4": 72.50,
        "KD of resnet32x4-resnet8x4": 73.33,
        "MLKD+Z of resnet32x4-resnet8x4": 78.28,
        "DKD+Z of wrn_40_2-wrn_16_2": 76.39,
        "SimKD of vgg13-vgg8": 74.89,
        "CTKD of resnet110-resnet20": 70.99,
    },
    "cifar100/tables/lskd_cross_family": {
        "none of wrn_40_2-mobilenetv2": 64.60,
        "AT of vgg13-mobilenetv2": 59.40,
        "KD+Z of resnet50-mobilenetv2": 69.02,
        "CAT-KD of resnet32x4-shufflenetv2": 78.41,
        "OFD of resnet32x4-wrn_40_2": 79.25,
    },
    "cifar100/tables/lskd_mlkd": {"MLKD+Z of resnet32x4-wrn_16_2": 77.53},
    "cifar100/tables/lskd_weights": {"KD weight=18": 63.45, "KD+Z weight=0.9": 74.14},
    "cifar100/tables/lskd_teachers": {"KD+Z from wrn_16_4": 76.72, "DKD from resnet50": 76.60},
    "cifar100/tables/lskd_transformers": {"KD+Z of resnet56-pit_tiny": 78.76},
    "cifar100/tables/dist_pairs": {
        "DIST+ of resnet32x4-shufflenetv1": 76.55,
        "FT of resnet50-mobilenetv2": 60.99,
        "DIST of wrn_40_2-wrn_40_1": 74.73,
    },
    "imagenet/tables/lskd_pairs": {"CTKD+Z of resnet50-mobilenetv1": 72.92},
    "imagenet/tables/dist_b1": {
        "DIST+ of resnet34-resnet18": 72.39,
        "CAT-KD of resnet50-mobilenetv1": 72.24,
        "ReviewKD of resnet34-resnet18": 71.61,
    },
    "imagenet/tables/dist_teacher_size": {"DIST+ of resnet152-resnet18": 72.55},
    "imagenet/tables/dist_strong_b2": {"SRRL of resnet50-mobilenetv2": 69.2},
    "imagenet/tables/dist_strong_b3": {"DIST": 82.3, "none": 81.3},
    "imagenet/tables/dist_components": {"CR+SR": 71.72, "DIST+TA": 72.21, "DIST+": 72.39},
    "imagenet/tables/dist_acclimation": {"TA-KL": 70.67, "TA-all": 72.18},
    "imagenet/tables/dist_without_labels": {"none": None, "KD": 68.12, "DIST": 70.65},
    "imagenet/tables/dist_feature_weights": {"DIST+0.5": 72.21, "DIST+4": 72.27},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_the_papers_reach_the_table(name: str, tmp_path: Path) -> None:
    found = numbers_of(plan_of(name), tmp_path)
    assert {label: found[label] for label in NUMBERS[name]} == NUMBERS[name]


@pytest.mark.parametrize(
    ("pair", "options"),
    [
        ("resnet32x4-resnet8x4", (2, 9, 8)),
        ("vgg13-vgg8", (2, 15, 2)),
        ("resnet56-resnet20", (3, 18, 2)),
        ("wrn_40_2-resnet8x4", (2, 18, 2)),
        ("vgg13-mobilenetv2", (3, 9, 2)),
        ("resnet32x4-wrn_40_2", (2, 9, 8)),
    ],
)
def test_standardised_methods_have_their_values_for_each_pair(
    pair: str, options: tuple[float, ...]
) -> None:
    (table,) = (t for t in TABLES if "family" in t and pair in plan_of(t).recipe.study.pairs)
    (method,) = arm_of(table, f"DKD+Z of {pair}").method
    assert (method.temperature, method.weight, method.base.beta) == options
    assert method.base.name == "dkd" and method.base.warmup == 20 and method.label_share == 1


def test_a_pair_has_its_own_rate_and_schedule() -> None:
    table = "cifar100/tables/lskd_cross_family"
    slow, quick = (
        arm_of(table, f"KD of {pair}") for pair in ("vgg13-mobilenetv2", "wrn_40_2-resnet8x4")
    )
    assert (slow.train.optimiser.lr, quick.train.optimiser.lr) == (0.01, 0.05)
    assert slow.teacher.train.optimiser.lr == 0.05
    long = arm_of("cifar100/tables/lskd_mlkd", "none of resnet32x4-shufflenetv2")
    assert long.train.epochs == 960 and long.train.schedule.milestones == (150, 180, 210)
    assert arm_of("cifar100/tables/lskd_mlkd", "MLKD+Z of vgg13-vgg8").method[0].base.weight == 6


def test_ablations_leave_out_what_they_say() -> None:
    def methods(table: str, label: str) -> Any:
        return arm_of(f"imagenet/tables/{table}", label).method

    assert {m.label_share for t in ("KD", "DIST") for m in methods("dist_without_labels", t)} == {0}
    assert methods("dist_relations", "KL-intra")[0].relations == "intra"
    assert [m.name for m in methods("dist_components", "CR+SR")] == [
        "channel_relation",
        "spatial_relation",
    ]
    assert methods("dist_acclimation", "TA-KL")[-1].distance == "kl"
    assert methods("dist_acclimation_b2", "TA-all")[-1].classes == "all"
    smoothed = arm_of("imagenet/tables/dist_distances_smoothed", "none")
    assert smoothed.task.label_smoothing == 0.1
    assert len(plan_of("imagenet/tables/dist_seeds").seeds) == 5


# -------------------------------------------------------------------------------------- two steps


@pytest.fixture(scope="module")
def cifar(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """CIFAR-100 as its binary files: coarse label, fine label, red, green and blue planes."""
    root, made = tmp_path_factory.mktemp("cifar"), np.random.default_rng(0)
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for name in ("train.bin", "test.bin"):
        rows = [bytes([i // 5, i]) + made.bytes(3072) for i in range(40)]
        (folder / name).write_bytes(b"".join(rows))
    names = "\n".join(f"fine{i:02d}" for i in range(100))
    (folder / "fine_label_names.txt").write_text(f"{names}\n")
    return root


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One folder a class below one a split, with photos of several sizes."""
    root, made = tmp_path_factory.mktemp("imagenet"), np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 2)):
        for name in ("n01440764", "n01443537", "n01484850", "n01491361", "n01494475"):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = made.integers(0, 256, (40 + number, 50 - number, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(place / f"{name}_{number}.JPEG")
    return root


CIFAR_WORDS = (
    *SMALL,
    "data.holdout=8",
    "student=cifar/resnet8",
    "teacher=cifar/resnet14",
    "teacher.train.epochs=0.25",
    "teacher.gate=false",
    "train.epochs=0.5",
    "engine.log_every=1",
)


@pytest.mark.parametrize("method", [None, "mlkd", "crd", "ofd"])
def test_two_steps_on_cifar(method: str | None, cifar: Path, tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    bases = ["cifar100/base"]
    if method:
        bases = [f"cifar100/methods/{method}", "cifar100/pairs/resnet56-resnet20"]
    path.write_text(f"extends: [{', '.join(bases)}]\n")
    recipe = load.load(path, [*CIFAR_WORDS, f"data.path={cifar}"])
    assert recipe.method[0].name == (method or "kd")
    two_steps(recipe, tmp_path / "run")


def test_two_steps_of_a_transformer(cifar: Path, tmp_path: Path) -> None:
    words = [
        *SMALL,
        *shrunk("cifar100/vit", {224: 64}),
        f"data.path={cifar}",
        "data.holdout=8",
        "student.options={img_size: 64, depth: 2}",
        "teacher=cifar/resnet14",
        f"teacher.weights={random_weights('cifar/resnet14', 100, tmp_path)}",
        "teacher.gate=false",
        "train.epochs=0.5",
    ]
    two_steps(load.load("cifar100/vit", words), tmp_path / "run")


STUDENTS = {"imagenet/b2": "timm/test_resnet"}  # which has dropout, as B2 asks


@pytest.mark.parametrize(
    "name", ["imagenet/b1", "imagenet/mdistiller", "imagenet/b2", "imagenet/b3"]
)
def test_two_steps_on_folders_like_imagenet(name: str, tree: Path, tmp_path: Path) -> None:
    words = [
        *SMALL,
        *shrunk(name, {224: 32, 256: 36}),
        f"data.path={tree}",
        f"student={STUDENTS.get(name, 'cifar/resnet8')}",
        "teacher=cifar/resnet14",
        f"teacher.weights={random_weights('cifar/resnet14', 5, tmp_path)}",
        "teacher.gate=false",
        "train.epochs=0.4",
    ]
    two_steps(load.load(name, words), tmp_path / "run")
