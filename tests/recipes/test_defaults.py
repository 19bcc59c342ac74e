"""The method of a recipe that names none, and the site of a method that names none."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stillhouse.recipes import load
from stillhouse.recipes.save import save_recipe

SEMANTIC = "data: digits/semantic\nstudent: segmenter/fpn\nteacher: segmenter/fpn\n"
OBJECTS = "data: digits/objects\nstudent: detector/{0}\nteacher: detector/{0}\n"


def read(folder: Path, text: str):
    (folder / "recipe.yml").write_text(text)
    return load.load(folder / "recipe.yml")


@pytest.mark.parametrize(
    ("text", "method", "site"),
    [
        ("data: digits/raw\nstudent: stillhouse/tiny\nteacher: stillhouse/little\n", "kd", "class"),
        (SEMANTIC, "dist", "pixel"),
        (SEMANTIC + "method: kd\n", "kd", "pixel"),
        (SEMANTIC + "method: {name: kd, sites: [channel]}\n", "kd", "channel"),
        (OBJECTS.format("gfocal"), "tld_dist", "class"),
        (OBJECTS.format("faster_rcnn"), "dist", "roi"),
    ],
)
def test_a_method_is_compared_where_its_task_has_scores(
    tmp_path: Path, text: str, method: str, site: str
) -> None:
    (found,) = read(tmp_path, text).method
    assert (found.name, found.sites) == (method, (site,))


def test_methods_of_a_study_have_the_site_of_the_task(tmp_path: Path) -> None:
    study = "study: {methods: {kd: kd, both: [kd, {name: dist, sites: [channel]}], at: at}}\n"
    recipe = read(tmp_path, SEMANTIC + study)
    assert recipe.study is not None
    sites = {
        label: [getattr(m, "sites", ()) for m in all_]
        for label, all_ in recipe.study.methods.items()
    }
    assert sites["kd"] == [("pixel",)] and sites["both"] == [("pixel",), ("channel",)]


def test_a_saved_recipe_is_the_same_from_its_own_folder(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    text = "data: {name: folder, path: photos}\nstudent: stillhouse/small\nmethod: none\n"
    recipe = read(tmp_path, text)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    saved = tmp_path / "deep" / "er" / "saved.yaml"
    save_recipe(recipe, saved)
    assert yaml.safe_load(saved.read_text())["data"]["path"] == "../../photos"
    assert load.load(saved) == recipe
    save_recipe(recipe, saved)  # again, which changes nothing
    saved.write_text("mine")
    with pytest.raises(load.UserError, match="already exists; choose another file"):
        save_recipe(recipe, saved)
    with pytest.raises(load.UserError, match="there is no folder"):
        save_recipe(recipe, tmp_path / "nosuch" / "a.yaml")
    assert saved.read_text() == "mine"


@pytest.mark.parametrize(
    ("student", "kind"),
    [("stillhouse/tiny", "sgd"), ("cifar/resnet8", "sgd"), ("timm/vit_tiny_patch16_224", "adamw")],
)
def test_the_optimiser_follows_the_network(tmp_path: Path, student: str, kind: str) -> None:
    text = f"data: digits/raw\nstudent: {student}\nmethod: none\n"
    assert read(tmp_path, text).train.optimiser.kind == kind
    both = f"{text}teacher: {{name: timm/resnet18, train: {{epochs: 1}}}}\ntrain: {{epochs: 2}}\n"
    recipe = read(tmp_path, both)
    assert recipe.teacher is not None and recipe.teacher.train is not None
    assert recipe.teacher.train.optimiser.kind == "adamw" and recipe.train.epochs == 2
    assert recipe.train.optimiser.kind == kind
    chosen = f"{text}train: {{optimiser: {{kind: sgd, lr: 0.2}}}}\n"
    assert read(tmp_path, chosen).train.optimiser.lr == 0.2
