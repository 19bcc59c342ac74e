"""The recipes of distilled detectors: methods, pairs and tables, and two steps of each method."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from albums import write_coco_objects
from stillhouse.methods.build import make_method
from stillhouse.methods.setting import Setting
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from stillhouse.recipes.schema import Recipe
from zoo_runs import SMALL, arm_of, folder_of, numbers_of, plan_of, two_steps

HERE = "detection"
FIVE = ("p3", "p4", "p5", "p6", "p7")


@cache
def loaded(name: str) -> Recipe:
    return load.load(f"{HERE}/{name}")


# ------------------------------------------------------------------------------------ the methods

LEVELS = {"pairs": "levels"}
RELATIONS = ("tld_dist", {"temperature": 1, "beta": 1, "gamma": 1, "sites": ("class",)})
CLASSES_OF_LD = (
    "kd",
    # 10 for a mean over 80 classes
    {"temperature": 2, "weight": 10 / 80, "sites": ("class_main",), "label_weight": 1},
)
METHODS: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "tld": [("tld", {"temperature": 0.5, "weight": 2.5, "sites": ("class",)})],
    "bcd": [("bcd", {"beta": 1, "weight": 1, "detach": False, "sites": ("class_gated",)})],
    "ild": [("ild", {"weight": 4, "variant": "reference"})],
    "bckd": [("bckd", {"weight": 1, "box_weight": 4, "detach": False, "variant": "reference"})],
    "ld": [
        ("ld", {"temperature": 10, "weight": 0.25, "rest": 0.25, "variant": "reference"}),
        CLASSES_OF_LD,
    ],
    "kd": [CLASSES_OF_LD],
    "rm": [("rm", {"weight": 1, "temperature": 1})],
    "dist": [RELATIONS],
    "dist_mimic": [RELATIONS, ("mimic", {"weight": 1, **LEVELS})],
    "dist_plus": [
        RELATIONS,
        ("channel_relation", {"weight": 1, **LEVELS}),
        ("spatial_relation", {"weight": 1, **LEVELS}),
        ("acclimation", {"rate": 0.1, "classes": "rest", "distance": "pearson"}),
    ],
    "cwd": [("cwd", {"temperature": 1, "weight": 10, "adapter": "none", **LEVELS})],
    "pkd": [("pkd", {"weight": 6, "pairs": tuple((p, p) for p in FIVE[:4])})],
    "mgd": [
        (
            "mgd",
            {
                "alpha": 2e-5,
                "masked": 0.65,
                "pairs": tuple((f"neck.{p}.conv", f"neck.{p}.conv") for p in FIVE),
            },
        )
    ],
    "mimic": [("mimic", {"weight": 1, "adapter": "pointwise", **LEVELS})],
    "crosskd": [("crosskd", {"after": None, "weight": None, "box_weight": None})],
    "fgd": [
        (
            "fgd",
            {
                "alpha": 1e-3,
                "beta": 5e-4,
                "gamma": 5e-4,
                "lam": 5e-6,
                "temperature": 0.5,
                "variant": "paper",
                "pairs": tuple((f"neck.{p}.conv", f"neck.{p}.conv") for p in FIVE),
            },
        )
    ],
    "fkd": [("fkd", {"alpha": 4.2e-4, "beta": 2.4e-2, "temperature": 0.1, "images": 2, **LEVELS})],
    "fgfi": [("fgfi", {"weight": 0.01, "share": 0.5, "variant": "paper", **LEVELS})],
    "defeat": [("defeat", {"foreground": 3, "background": 12, "finest": 56, **LEVELS})],
    "gid": [
        ("gid", {"weight": 0.005, "relation": 40, "classes": 0.1, "boxes": 0.1, **LEVELS}),
    ],
    "maskd": [("maskd", {"weight": 10, "tokens": 6, "variant": "paper", **LEVELS})],
}


def test_each_method_has_a_file() -> None:
    assert folder_of(f"{HERE}/methods") == set(METHODS)


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_its_weights_and_all_of_the_labels(name: str) -> None:
    recipe = loaded(f"methods/{name}")
    assert [one.name for one in recipe.method] == [known for known, _ in METHODS[name]]
    for one, (_, options) in zip(recipe.method, METHODS[name], strict=True):
        assert {key: getattr(one, key) for key in options} == options
        assert one.label_share == 1
    base = loaded("distil_1x")
    assert (recipe.data, recipe.train, recipe.teacher) == (base.data, base.train, base.teacher)
    assert recipe.student.inherit == (("neck", "head") if name in ("mgd", "fgd") else ())


# -------------------------------------------------------------------------------------- the pairs

SCHEDULES = {  # of the teachers
    "gfocal_resnet101-resnet50": "ms2x",
    "gfocal_resnet101-resnet34": "ms2x",
    "gfocal_resnet101-resnet18": "ms2x",
    "gfocal_resnet50-resnet18": "1x",
    "gfocal_resnet50-resnet50": "1x",
    "gfocal_resnet34-resnet34": "1x",
    "gfocal_resnet18-resnet18": "1x",
    "retinanet_resnext101-resnet50": "1x",
    "retinanet_resnet101-resnet50": "2x",
    "fcos_resnet101-resnet50": "ms2x",
    "atss_resnet50-resnet18": "1x",
    "atss_resnet101-resnet50": "1x",
    "reppoints_resnet101-resnet50": "2x",
    "faster_rcnn_resnext101-resnet50": "20e",
}
LONG = {"resnext101": "resnext101_64x4d"}


def test_every_pair_has_a_file() -> None:
    assert folder_of(f"{HERE}/pairs") == set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_pair_is_what_it_is_called(name: str) -> None:
    recipe, schedule = loaded(f"pairs/{name}"), SCHEDULES[name]
    family, _, networks = name.rpartition("_")
    taught = "cascade_rcnn" if family == "faster_rcnn" else family
    teacher, _, student = networks.partition("-")
    teacher = LONG.get(teacher, teacher)
    assert recipe.student.name == f"detector/{family}"
    assert recipe.teacher.name == f"detector/{taught}"
    assert recipe.student.options == {"backbone": f"timm/{student}"}
    assert recipe.student.pretrained == Path(f"{student}.safetensors")
    assert recipe.teacher.options == {"backbone": f"timm/{teacher}"}
    assert recipe.teacher.weights == Path(f"{taught}_{teacher}_{schedule}.safetensors")
    assert f"{HERE}/coco/{taught}_{schedule}" in load.zoo()  # which trains the teacher
    alone = loaded(f"coco/{family}_{'2x' if family == 'faster_rcnn' else '1x'}")
    assert (recipe.data, recipe.train, recipe.task) == (alone.data, alone.train, alone.task)


@pytest.mark.parametrize("order", [("pairs/{}", "methods/{}"), ("methods/{}", "pairs/{}")])
@pytest.mark.parametrize(
    ("pair", "method"),
    [
        ("fcos_resnet101-resnet50", "bckd"),
        ("retinanet_resnext101-resnet50", "dist_mimic"),
        ("gfocal_resnet101-resnet18", "mgd"),
    ],
)
def test_pairs_and_methods_combine_in_any_order(
    pair: str, method: str, order: tuple[str, str], tmp_path: Path
) -> None:
    names = [
        part.format(name)
        for part, name in zip(
            order, (pair, method) if order[0].startswith("pairs") else (method, pair), strict=True
        )
    ]
    path = tmp_path / "mine.yaml"
    path.write_text(f"extends: [{', '.join(f'{HERE}/{name}' for name in names)}]\n")
    recipe, alone, taught = load.load(path), loaded(f"pairs/{pair}"), loaded(f"methods/{method}")
    assert (recipe.teacher, recipe.train, recipe.paper) == (alone.teacher, alone.train, alone.paper)
    assert (recipe.student.name, recipe.student.options) == (
        alone.student.name,
        alone.student.options,
    )
    assert (recipe.method, recipe.student.inherit) == (taught.method, taught.student.inherit)


# ------------------------------------------------------------------------------------- the tables

NUMBERS: dict[str, dict[str, float | None]] = {
    "bckd_gfocal": {
        "none of gfocal_resnet101-resnet50": 40.1,
        "LD of gfocal_resnet101-resnet50": 42.1,
        "BCKD of gfocal_resnet101-resnet34": 42.0,
        "LD+BCKD of gfocal_resnet101-resnet18": 38.9,
    },
    "bckd_retinanet": {"none": 36.5, "MGD": 39.6, "PKD": 39.7, "PKD+BCKD": 40.1},
    "bckd_fcos": {"none": 36.6, "BCKD": 39.2, "MGD+BCKD": 40.0, "PKD+BCKD": 40.2},
    "bckd_components": {"LD-class": 40.4, "LD-box": 41.8, "BCKD-class": 42.0, "BCKD-box": 42.3},
    "bckd_class_weights": {"BCKD-class weight=0.25": 41.5, "BCKD-class weight=3": 41.2},
    "bckd_box_weights": {"none": 40.1, "BCKD-box weight=4": 42.3, "BCKD-box weight=5": None},
    "bckd_self": {
        "BCKD of gfocal_resnet50-resnet50": 40.9,
        "none of gfocal_resnet18-resnet18": 35.8,
    },
    "tld_gfocal": {
        "none of gfocal_resnet101-resnet50": 40.2,
        "KL of gfocal_resnet101-resnet34": 39.8,
        "BCE of gfocal_resnet101-resnet50": 40.7,
        "TLD of gfocal_resnet101-resnet18": 37.3,
    },
    "tld_methods": {
        "CWD of atss_resnet50-resnet18": 35.7,
        "RM of atss_resnet50-resnet18": 35.4,
        "DIST of gfocal_resnet50-resnet18": 36.4,
        "TLD of gfocal_resnet50-resnet18": 37.1,
    },
    "tld_detectors": {
        "none of atss_resnet101-resnet50": 39.4,
        "TLD of fcos_resnet101-resnet50": 37.9,
        "TLD of reppoints_resnet101-resnet50": 39.6,
        "TLD of retinanet_resnet101-resnet50": 38.4,
    },
    "tld_features": {
        "FitNet": 40.7,
        "MasKD": 40.4,
        "GID": 41.5,
        "FGD": 41.3,
        "PKD": 42.5,
        "TLD+FitNet": 42.4,
        "TLD+PKD": 43.4,
    },
    "tld_weights": {"none": 35.8, "TLD weight=0.5": 36.6, "TLD weight=2.5": 37.3},
    "tld_temperatures": {
        "KL temperature=4": 36.5,
        "KL temperature=10": None,
        "TLD temperature=0.25": 36.7,
        "TLD temperature=10": 36.3,
    },
    "dist_faster_rcnn": {"none": 38.4, "FKD": 41.5, "DIST+TA": 40.6, "DIST+": 42.1},
    "dist_retinanet": {
        "none": 37.4,
        "KD": 37.2,
        "FKD": 39.6,
        "CWD": 40.8,
        "DIST+mimic": 40.1,
        "DIST+": 41.0,
    },
}


@pytest.mark.parametrize("name", NUMBERS)
def test_the_numbers_of_the_papers_reach_the_table(name: str, tmp_path: Path) -> None:
    found = numbers_of(plan_of(f"{HERE}/tables/{name}"), tmp_path)
    assert {label: found[label] for label in NUMBERS[name]} == NUMBERS[name]


def test_every_table_is_looked_at() -> None:
    assert folder_of(f"{HERE}/tables") == set(NUMBERS)


@pytest.mark.parametrize("name", NUMBERS)
def test_all_arms_have_one_protocol(name: str) -> None:
    schedule = "2x" if name.startswith("dist_") else "1x"
    for arm in plan_of(f"{HERE}/tables/{name}").arms:
        recipe = arm.recipe
        alone = loaded(f"coco/{recipe.student.name.partition('/')[2]}_{schedule}")
        assert (recipe.data, recipe.task, recipe.train) == (alone.data, alone.task, alone.train)
        assert recipe.student.pretrained is not None and not recipe.student.inherit
        if not arm.is_control:
            kind = recipe.student.name.replace("faster", "cascade")
            assert recipe.teacher.name == kind and recipe.teacher.gate
            assert all(one.label_share == 1 for one in recipe.method)


@pytest.mark.parametrize(
    "name", [name for name in NUMBERS if plan_of(f"{HERE}/tables/{name}").recipe.study.pairs]
)
def test_the_pairs_of_tables_are_those_of_the_files(name: str) -> None:
    study = plan_of(f"{HERE}/tables/{name}").recipe.study
    for label, pair in study.pairs.items():
        alone = loaded(f"pairs/{label}")
        assert pair.student == alone.student
        if (name, label) == ("tld_detectors", "fcos_resnet101-resnet50"):  # 39.1 and not 40.8
            assert pair.teacher.weights == Path("fcos_resnet101_1x.safetensors")
        else:
            assert pair.teacher == alone.teacher
            shared = {key.lower(): value for key, value in pair.paper.items() if key != "none"}
            assert {k: v for k, v in alone.paper.items() if k in shared} == {
                k: v for k, v in shared.items() if k in alone.paper
            }


# what a table has otherwise than the files of methods
OTHER = {
    ("bckd_retinanet", "PKD"): {"weight": 10},
    ("bckd_retinanet", "PKD+BCKD"): {"weight": 10},
    ("tld_gfocal", "KL"): {"temperature": 10, "sites": ("class",), "weight": 0.125},
    ("tld_gfocal", "BCE"): {"temperature": 1},
    ("tld_features", "FitNet"): {"weight": 1, "adapter": "pointwise", **LEVELS},
    ("tld_features", "TLD+FitNet"): {"weight": 1, "adapter": "pointwise", **LEVELS},
    ("dist_retinanet", "KD"): {"temperature": 1, "sites": ("class",), "weight": 1},
}


def test_tables_have_the_weights_of_the_files_of_methods() -> None:
    known = [one for name in METHODS for one in loaded(f"methods/{name}").method]
    seen = set()
    for name in NUMBERS.keys() - {"dist_faster_rcnn"}:  # the files are for dense detectors
        plan = plan_of(f"{HERE}/tables/{name}")
        taught = [] if plan.recipe.study.grid else [arm for arm in plan.arms if not arm.is_control]
        for arm in taught:
            others = [one for one in arm.recipe.method if one not in known]
            seen |= {(name, arm.method)} if others else set()
            for one in others:
                options = OTHER[name, arm.method]
                assert {key: getattr(one, key) for key in options} == options
    assert seen == set(OTHER)


def test_two_stages_are_compared_at_proposals_and_four_levels() -> None:
    four = tuple((level, level) for level in ("p2", "p3", "p4", "p5"))
    weights = {"kd": 1, "mimic": 1, "cwd": 10, "channel_relation": 1, "spatial_relation": 1}
    for arm in plan_of(f"{HERE}/tables/dist_faster_rcnn").arms:
        for one in () if arm.is_control else arm.recipe.method:
            places = getattr(one, "sites", None) or one.pairs
            assert places in (("roi",), four)
            assert getattr(one, "weight", 1) == weights.get(one.name, 1)
    (fkd,) = arm_of(f"{HERE}/tables/dist_faster_rcnn", "FKD").method
    assert (fkd.alpha, fkd.beta, fkd.temperature, fkd.variant) == (7e-5, 4e-3, 0.5, "reference")


def test_grids_vary_one_option_of_one_loss() -> None:
    def methods(table: str) -> list[Any]:
        arms = plan_of(f"{HERE}/tables/{table}").arms
        return [one for arm in arms if not arm.is_control for one in arm.recipe.method]

    assert [(m.name, m.weight, m.sites) for m in methods("bckd_class_weights")] == [
        ("bcd", w, ("class_gated",)) for w in (0.25, 0.5, 1, 1.5, 2, 3)
    ]
    assert {(m.name, m.variant) for m in methods("bckd_box_weights")} == {("ild", "reference")}
    assert {(m.name, m.temperature) for m in methods("tld_weights")} == {("tld", 0.5)}
    assert {(m.name, m.weight) for m in methods("tld_temperatures")} == {
        ("tld", 2.5),
        ("kd", 0.125),
    }


# -------------------------------------------------------------------------- the methods as they run

OPTIONS: dict[str, Any] = {  # levels p3 to p7
    "backbone": "stillhouse/small",
    "strides": [8],
    "neck": {"width": 16, "extra": 4},
    "head": {"width": 16},
}
LABELS = {"class", "box", "edge"}
KD = "class_main/kd"
DIST = {"class/inter", "class/intra"}


def of(method: str, *terms: str) -> set[str]:
    return {f"{method}/{term}" for term in terms}


def at_levels(term: str, levels: tuple[str, ...] = FIVE) -> set[str]:
    return {f"{level}/{term}" for level in levels}


TERMS: dict[str, set[str]] = {
    "tld": {"class/tld"},
    "bcd": {"class_gated/bcd"},
    "ild": {"box/ild"},
    "bckd": {"bcd/class_gated/bcd", "ild/box/ild"},
    "ld": {*of("ld", "main", "rest"), *of("kd", KD)},
    "kd": {KD},
    "rm": {"rank"},
    "dist": DIST,
    "dist_mimic": of("tld_dist", *DIST) | of("mimic", *at_levels("mimic")),
    "dist_plus": of("tld_dist", *DIST)
    | of("channel_relation", *at_levels("cr"))
    | of("spatial_relation", *at_levels("sr"))
    | of("acclimation", "class/acclimation"),
    "cwd": at_levels("cwd"),
    "pkd": at_levels("pkd", FIVE[:4]),
    "mgd": {f"neck.{level}.conv" for level in FIVE},
    "mimic": at_levels("mimic"),
    "crosskd": {"class/crosskd", "box/crosskd"},
    "fgd": {"foreground", "background", "attention", "context"},
    "fkd": {"attention", "channel", "space", "relation"},
    "fgfi": {"imitation"},
    "defeat": at_levels("foreground") | at_levels("background"),
    "gid": {"instance", "relation", "class/gid", "box/gid"},
    "maskd": {"tokens", "diversity", "masked"},
}


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_coco_objects(tmp_path_factory.mktemp("coco"), 18, 2)


REGIONS: dict[str, Any] = {  # levels p2 to p5
    **OPTIONS,
    "strides": [4],
    "neck": {"width": 16, "extra": 3},
    "sampled": 32,
    "training_proposals": 32,
    "proposals": 32,
}


def options_of(family: str) -> dict[str, Any]:
    return REGIONS if "rcnn" in family else OPTIONS


def detector(family: str) -> torch.nn.Module:
    return zoo.create(f"detector/{family}", 5, **options_of(family))


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The file of a teacher of each family, with random weights."""
    folder = tmp_path_factory.mktemp("teachers")

    def file(family: str) -> Path:
        path = folder / f"{family}.safetensors"
        if not path.exists():
            weights.save_weights(detector(family), path)
        return path

    return file


def small(coco: Path, teacher: Path) -> list[str]:
    """Overrides for small networks and images, two batches, and a teacher that is not judged."""
    options = options_of(teacher.stem)
    resize = "[{kind: resize, size: 64, longest: 96}]"
    return [
        *SMALL,
        f"data.path={coco}",
        f"data.transforms={resize}",
        f"data.evaluation={resize}",
        "data.holdout=2",  # 16 images are left: two batches
        "data.group_by_aspect=false",
        f"student.options={options}",
        "student.pretrained=",
        f"teacher.options={options}",
        f"teacher.weights={teacher}",
        "teacher.gate=false",
        "train.epochs=1",
        "train.schedule={kind: constant}",
        "engine.log_every=1",
    ]


@pytest.mark.parametrize("name", METHODS)
def test_two_steps_of_each_method(
    name: str, coco: Path, teachers: Callable[[str], Path], tmp_path: Path
) -> None:
    recipe = load.load(f"{HERE}/methods/{name}", small(coco, teachers("gfocal")))
    lines = two_steps(recipe, tmp_path / "run", "ap")
    said = [key.removeprefix("term/") for key in lines[0] if key.startswith("term/")]
    assert set(said) == LABELS | TERMS[name]
    assert len(said) == len(LABELS) + len(TERMS[name])


def arms_of_tables() -> dict[str, Recipe]:
    """An arm for each family and list of methods, but those of which each method has a test above.

    Pairs differ by networks, which are small here, and grids by a number.
    """
    alone = {tuple(known for known, _ in methods) for methods in METHODS.values()}
    arms = {}
    for table in NUMBERS:
        for arm in plan_of(f"{HERE}/tables/{table}").arms:
            family = arm.recipe.student.name.partition("/")[2]
            methods = tuple(one.name for one in arm.recipe.method)
            if not arm.is_control and not (family == "gfocal" and methods in alone):
                arms["-".join((family, *methods))] = arm.recipe
    return arms


ARMS = arms_of_tables()


@pytest.mark.parametrize("name", ARMS)
def test_two_steps_of_arms_of_tables(
    name: str, coco: Path, teachers: Callable[[str], Path], tmp_path: Path
) -> None:
    teacher = teachers(name.partition("-")[0].replace("faster", "cascade"))
    two_steps(load.replace_sections(ARMS[name], {}, small(coco, teacher)), tmp_path / "run", "ap")


@pytest.mark.parametrize("name", ["bckd_retinanet", "bckd_fcos", "tld_methods", "tld_features"])
def test_methods_of_tables_find_their_levels_in_each_family(name: str) -> None:
    for arm in plan_of(f"{HERE}/tables/{name}").arms:
        if arm.is_control:
            continue
        family = arm.recipe.student.name.partition("/")[2]
        setting = Setting(detector(family), detector(family), torch.zeros(2, 3, 64, 64))
        for one in arm.recipe.method:
            taps = make_method([one], setting).student_taps
            features = "features" in one.card.needs
            assert len(taps) == (0 if not features else 4 if one.name == "pkd" else 5)


def test_who_teaches_whom() -> None:
    for arm in plan_of(f"{HERE}/tables/bckd_self").arms:
        if not arm.is_control:
            assert arm.recipe.teacher.options == arm.recipe.student.options
    stronger = arm_of(f"{HERE}/tables/dist_retinanet", "DIST+")
    assert stronger.teacher.options == {"backbone": "timm/resnext101_64x4d"}
    assert stronger.train.epochs == 24
