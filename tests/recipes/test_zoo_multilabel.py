"""The recipes of L2D and TLD: what they say, what their tables plan, and two steps on each data."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import pytest

from albums import write_coco, write_nuswide, write_voc
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.recipes.schema import Network, Recipe, TeacherMember
from stillhouse.study.plan import Arm
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

HERE = "multilabel"
TABLES = [name for name in load.zoo() if name.startswith(f"{HERE}/tables/")]
COLUMNS = [
    *("RKD", "PKT", "ReviewKD", "MSE", "PS", "MLD", "CD+ID", "L2D"),
    *("TLD", "TLD-dagger", "TLD+L2D"),
]


@cache
def loaded(name: str) -> Recipe:
    return load.load(f"{HERE}/{name}")


# ------------------------------------------------------------------------------------ the recipes

PROTOCOL: dict[str, Any] = {
    "task.name": "multilabel",
    "task.loss.kind": "bce",
    "data.batch": 64,
    "data.transforms.0": {"kind": "resize", "size": 224, "square": True},
    "data.evaluation.0": {"kind": "resize", "size": 224, "square": True},
    "student.head.width": 768,
    "teacher.head.width": 768,
    "train.epochs": 80,
    "train.schedule_epochs": None,
    "train.optimiser.kind": "adam",
    "train.optimiser.lr": 1e-4,
    "train.optimiser.weight_decay": 1e-4,
    "train.optimiser.decay_norms": False,
    "train.schedule.kind": "one_cycle",
    "train.schedule.pct_start": 0.2,
    "teacher.train.epochs": 30,
    "teacher.train.schedule_epochs": 80,
    "teacher.train.optimiser.lr": 1e-4,
    "teacher.train.schedule.pct_start": 0.2,
    "engine.precision": "float16",
    "method.0.name": "l2d",
    "method.0.mld": 10,
    "method.0.cd": 100,
    "method.0.id": 1000,
}
CODE: dict[str, Any] = {
    "task.reduction": "sum",
    "method.0.variant": "reference",
    "data.mean": [0, 0, 0],
    "data.std": [1, 1, 1],
}
BASES: dict[str, dict[str, Any]] = {
    "l2d_reference": {"data.name": "coco/labels", "student.name": "torchvision/resnet34", **CODE},
    "l2d_paper": {
        "data.name": "coco/labels",
        "task.reduction": "batch",
        "method.0.variant": "paper",
        "data.mean": [0.485, 0.456, 0.406],
        "data.std": [0.229, 0.224, 0.225],
    },
    "voc": {"data.name": "voc/labels", "data.train.options": {"set": "trainval"}, **CODE},
    "nuswide": {"data.name": "nuswide/labels", "data.train.options": {}, **CODE},
}
CHANGES = {"l2d_paper": ["resize", "flip", "cutout", "rand_augment"]}


@pytest.mark.parametrize("name", BASES)
def test_bases_say_what_the_paper_and_its_code_say(name: str) -> None:
    content = load.to_dict(loaded(name))
    for one in (*content["data"]["transforms"], *content["data"]["evaluation"]):
        for option in ("interpolation", "longest", "range"):
            one.pop(option, None)
    wanted = PROTOCOL | BASES[name]
    assert {key: value_at(content, key) for key in wanted} == wanted
    kinds = [one["kind"] for one in content["data"]["transforms"]]
    assert kinds == CHANGES.get(name, ["resize", "cutout", "rand_augment"])
    assert content["data"]["holdout"] > 0  # the test images watch no training


WEIGHTS: dict[str, dict[str, Any]] = {
    "l2d": {"mld": 10, "cd": 100, "id": 1000, "variant": "reference"},
    "mld": {"weight": 10},
    "cd": {"weight": 100, "variant": "reference"},
    "id": {"weight": 1000, "variant": "reference"},
    "tld": {"temperature": 0.5, "weight": 64},
    "tld_dist": {"temperature": 0.5, "beta": 64, "gamma": 64, "variant": "paper"},
    "bcd": {"weight": 64, "beta": 1},
    "ps": {"weight": 10},
    "mse": {"weight": 1},
    "rkd": {"distance": 64 * 10, "angle": 10},
    "pkt": {"weight": 30000},
    "reviewkd": {"weight": 1, "width": 256},
    "kd": {"weight": 64, "temperature": 4},
    "dist": {"beta": 64, "gamma": 64, "temperature": 4},
}


def test_each_method_has_a_file_with_its_weights_and_all_of_the_labels() -> None:
    assert folder_of(f"{HERE}/methods") == {*WEIGHTS, "tld_l2d"}
    for name, options in WEIGHTS.items():
        (method,) = loaded(f"methods/{name}").method
        assert method.name == name and method.label_share == 1
        assert {key: getattr(method, key) for key in options} == options
    three = load.load(f"{HERE}/methods/tld_l2d").method
    alone = [loaded(f"methods/{name}").method[0] for name in ("tld", "cd", "id")]
    assert list(three) == alone


SHORT = {
    "mobilenetv2": "mobilenet_v2",
    "wrn_50_2": "wide_resnet50_2",
    "wrn_101_2": "wide_resnet101_2",
}
PAIRS = {
    "coco": "resnet101-resnet34 swin_t-mobilenetv2 repvgg_a2-repvgg_a0 wrn_101_2-wrn_50_2 "
    "swin_s-swin_t resnet101-repvgg_a0 swin_t-resnet34 resnet101-mobilenetv2",
    "voc": "resnet50-resnet18 swin_s-swin_t wrn_101_2-wrn_50_2 repvgg_a2-repvgg_a0 "
    "resnet50-repvgg_a0 swin_t-resnet18 resnet50-mobilenetv2 swin_t-mobilenetv2",
    "nuswide": "resnet101-resnet34 swin_t-mobilenetv2",
}
EVERY = [f"{data}_{pair}" for data, pairs in PAIRS.items() for pair in pairs.split()]


def check_network(spec: Network | TeacherMember, short: str) -> None:
    """A network is the one that it is called, from a file of weights of the same name."""
    leaf = spec.name.rpartition("/")[2]
    assert leaf == SHORT.get(short, short)
    assert spec.pretrained == Path(f"{leaf}.safetensors")
    assert spec.head is not None and spec.head.kind == "labelwise"


@pytest.mark.parametrize("name", EVERY)
def test_a_pair_is_what_it_is_called(name: str) -> None:
    recipe = loaded(f"pairs/{name}")
    data, _, pair = name.partition("_")
    teacher, _, student = pair.partition("-")
    assert recipe.data.name == f"{data}/labels"
    check_network(recipe.student, student)
    check_network(recipe.teacher, teacher)
    assert {"none", "mld", "l2d"} <= set(recipe.paper)
    (table,) = [t for t in TABLES if t.split("/")[2].startswith(data) and pair in pairs_of(t)]
    ours, theirs = pairs_of(table)[pair].student, pairs_of(table)[pair].teacher
    assert (ours, theirs) == (recipe.student, recipe.teacher)
    paper = pairs_of(table)[pair].paper
    labels = {"none": "none", "mld": "MLD", "l2d": "L2D", "tld": "TLD"}
    assert {n: recipe.paper[n] for n in labels if n in recipe.paper} == {
        n: paper[label] for n, label in labels.items() if label in paper
    }


def pairs_of(table: str) -> dict[str, Any]:
    return plan_of(table).recipe.study.pairs


def test_every_pair_has_a_file() -> None:
    assert folder_of(f"{HERE}/pairs") == set(EVERY)


def test_the_paper_goes_under_any_data_pair_and_method(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    parts = ("l2d_paper", "pairs/voc_swin_t-resnet18", "methods/l2d")
    path.write_text(f"extends: [{', '.join(f'{HERE}/{part}' for part in parts)}]\n")
    recipe = load.load(path)
    assert recipe.data.name == "voc/labels" and recipe.data.train.options == {"set": "trainval"}
    assert recipe.task.reduction == "batch" and recipe.data.mean == (0.485, 0.456, 0.406)
    assert recipe.method[0].name == "l2d" and recipe.method[0].variant == "paper"
    assert recipe.teacher.name == "torchvision/swin_t" and recipe.teacher.train.epochs == 30


# ------------------------------------------------------------------------------------- the tables

NUMBERS: dict[str, dict[str, float]] = {
    "coco_same_kind": {
        "none of resnet101-resnet34": 70.31,
        "TLD of resnet101-resnet34": 73.48,
        "TLD-dagger of resnet101-resnet34": 74.26,
        "RKD of repvgg_a2-repvgg_a0": 70.08,
        "TLD+L2D of wrn_101_2-wrn_50_2": 77.59,
    },
    "coco_cross_kind": {"PKT of resnet101-repvgg_a0": 69.99, "L2D of resnet101-mobilenetv2": 73.24},
    "coco_swin": {"PKT of swin_t-resnet34": 70.26, "RKD of swin_s-swin_t": 79.63},
    "voc_same_kind": {"RKD of resnet50-resnet18": 84.48, "TLD of resnet50-resnet18": 86.32},
    "voc_swin": {"none of swin_s-swin_t": 91.31, "L2D of swin_s-swin_t": 91.92},
    "voc_cross_kind": {"TLD of swin_t-mobilenetv2": 87.13, "CD+ID of resnet50-repvgg_a0": 85.94},
    "voc_l2d": {"MLD of wrn_101_2-wrn_50_2": 88.29, "L2D of repvgg_a2-repvgg_a0": 84.56},
    "nuswide_same_kind": {"CD+ID of resnet101-resnet34": 53.89, "L2D of resnet101-resnet34": 55.31},
    "nuswide_swin": {"MLD of swin_t-mobilenetv2": 55.36},
    "l2d_components": {"none": 70.31, "MLD+CD": 71.91, "MLD+ID": 71.79, "L2D": 72.87},
    "l2d_reversed": {"none": 73.98, "L2D": 75.51},
    "tld_distances": {"KL-softmax": 71.88, "BCE": 70.68, "BCE+BCKD": 73.41, "TLD+DIST": 74.26},
    "tld_temperatures": {"KL temperature=4": 72.57, "TLD temperature=0.75": 73.26},
    "tld_self": {"none of resnet34-resnet34": 70.40, "TLD of resnet50-resnet50": 75.74},
    "tld_teacher_size": {"none": 67.81, "TLD from resnet18": 69.28, "TLD from resnet152": 71.23},
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_the_papers_reach_the_table(name: str, tmp_path: Path) -> None:
    found = numbers_of(plan_of(f"{HERE}/tables/{name}"), tmp_path)
    assert {label: found[label] for label in NUMBERS[name]} == NUMBERS[name]


def test_every_table_is_looked_at() -> None:
    assert folder_of(f"{HERE}/tables") == set(NUMBERS)


@pytest.mark.parametrize("table", TABLES)
def test_all_arms_have_one_protocol(table: str) -> None:
    base = loaded("l2d_reference")
    for arm in plan_of(table).arms:
        recipe = arm.recipe
        assert (recipe.task, recipe.train) == (base.task, base.train)
        assert recipe.data.transforms == base.data.transforms
        assert recipe.student.head == base.student.head and recipe.student.pretrained
        if not arm.is_control:
            check_taught(arm)


def check_taught(arm: Arm) -> None:
    """One teacher's recipe everywhere, the weights of the method's file, no stages of a Swin."""
    base = loaded("l2d_reference")
    teacher = arm.recipe.teacher
    assert teacher.train == base.teacher.train and teacher.head == base.teacher.head
    assert teacher.pretrained == Path(f"{teacher.name.rpartition('/')[2]}.safetensors")
    networks = (arm.recipe.student.name, teacher.name)
    for method in arm.recipe.method:
        assert method.label_share == 1
        assert method.name != "reviewkd" or not any("swin" in name for name in networks)
        if arm.pair and method.name != "l2d":
            assert method == loaded(f"methods/{method.name}").method[0]


def test_the_columns_are_those_of_the_papers() -> None:
    def columns(table: str) -> list[str]:
        return plan_of(f"{HERE}/tables/{table}").methods()

    assert columns("coco_same_kind") == COLUMNS
    without = [name for name in COLUMNS if name != "TLD-dagger"]
    for table in ("coco_cross_kind", "voc_same_kind", "nuswide_same_kind"):
        assert columns(table) == without
    for table in ("coco_swin", "voc_swin", "nuswide_swin"):
        assert columns(table) == [name for name in without if name != "ReviewKD"]
    names = [m.name for m in arm_of(f"{HERE}/tables/coco_swin", "TLD+L2D of swin_s-swin_t").method]
    assert names == ["tld", "cd", "id"]


def test_ablations_leave_out_what_they_say() -> None:
    def method(table: str, label: str) -> Any:
        return arm_of(f"{HERE}/tables/{table}", label).method[0]

    parts = {label: method("l2d_components", label) for label in ("MLD", "MLD+CD", "MLD+ID", "L2D")}
    assert {label: (one.mld, one.cd, one.id) for label, one in parts.items()} == {
        "MLD": (10, 0, 0),
        "MLD+CD": (10, 100, 0),
        "MLD+ID": (10, 0, 1000),
        "L2D": (10, 100, 1000),
    }
    assert method("tld_distances", "KL-softmax").temperature == 10
    assert method("tld_distances", "DIST-sigmoid").temperature == 1
    assert method("tld_distances", "TLD+DIST") == presets.tld_dist(0.5, beta=64, gamma=64)
    found = [a.recipe.method[0] for a in plan_of(f"{HERE}/tables/tld_temperatures").arms[1:]]
    assert {(m.name, m.temperature, m.weight) for m in found} == {
        (name, tau, 64) for name in ("kd", "tld") for tau in (0.25, 0.5, 0.75, 2, 4, 10)
    }


def test_who_teaches_whom() -> None:
    weak = arm_of(f"{HERE}/tables/l2d_reversed", "L2D")
    check_network(weak.student, "resnet101")
    check_network(weak.teacher, "resnet34")
    for arm in plan_of(f"{HERE}/tables/tld_self").arms:
        if not arm.is_control:
            assert arm.recipe.teacher.name == arm.recipe.student.name
            assert arm.recipe.teacher.pretrained == arm.recipe.student.pretrained
    sizes = [a.recipe for a in plan_of(f"{HERE}/tables/tld_teacher_size").arms]
    assert {r.student.name for r in sizes} == {"torchvision/resnet18"}
    assert [r.teacher.name.removeprefix("torchvision/resnet") for r in sizes[1:]] == [
        *("18", "34", "50", "101", "152")
    ]


# -------------------------------------------------------------------------------------- two steps

WRITERS = {"coco": write_coco, "voc": write_voc, "nuswide": write_nuswide}
HEAD = "{kind: labelwise, width: 16, heads: 2, hidden: 16}"


@pytest.mark.parametrize(
    ("data", "parts", "terms"),
    [
        (
            "coco",
            ["l2d_reference"],
            {"class/mld", "embeddings/cd", "embeddings/id"},
        ),
        (
            "coco",
            ["l2d_paper", "pairs/coco_resnet101-resnet34"],
            {"class/mld", "embeddings/cd", "embeddings/id"},
        ),
        (
            "voc",
            ["pairs/voc_swin_t-resnet18", "methods/tld_l2d"],
            {"tld/class/tld", "cd/embeddings/cd", "id/embeddings/id"},
        ),
        (
            "nuswide",
            ["methods/tld_dist", "pairs/nuswide_resnet101-resnet34"],
            {"class/inter", "class/intra"},
        ),
    ],
    ids=["code", "paper", "voc", "nuswide"],
)
def test_two_steps_on_files_of_several_labels(
    data: str, parts: list[str], terms: set[str], tmp_path: Path
) -> None:
    root = WRITERS[data](tmp_path / data, 24, 10)
    path = tmp_path / "recipe.yaml"
    path.write_text(f"extends: [{', '.join(f'{HERE}/{part}' for part in parts)}]\n")
    words = [
        *SMALL,
        *shrunk(str(path), {224: 32}),
        f"data.path={root}",
        "data.holdout=8",
        "student=cifar/resnet8",
        f"student.pretrained={random_weights('cifar/resnet8', 1000, tmp_path)}",
        f"student.head={HEAD}",
        "teacher=cifar/resnet14",
        f"teacher.pretrained={random_weights('cifar/resnet14', 1000, tmp_path)}",
        f"teacher.head={HEAD}",
        "teacher.train.epochs=0.5",
        "teacher.gate=false",
        "train.epochs=1",
        "engine.precision=float32",
        "engine.log_every=1",
    ]
    lines = two_steps(load.load(path, words), tmp_path / "run", "map")
    said = {name.removeprefix("term/") for line in lines for name in line if "term/" in name}
    assert said == {"label", *terms}
