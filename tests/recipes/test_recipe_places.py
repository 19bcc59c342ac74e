"""Where a path of a recipe leads, and what an error in a recipe or an override is blamed on."""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_args, get_type_hints

import pytest

from stillhouse.data.transforms import Flip
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.paths import KEYS
from stillhouse.recipes.schema import Recipe

TEXT = """
data: {name: folder, path: photos, transforms: [flip]}
student: {name: timm/resnet18, pretrained: ../nets/a.pt}
teacher:
  name: timm/resnet50
  store: {path: cache}
  members:
    - {name: timm/resnet50, weights: b.pt, classes: names.txt}
    - {name: timm/resnet34, weights: /nets/c.pt, classes: [a, b]}
study: {teachers: {big: {name: timm/resnet101, weights: d.pt}}}
"""


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "recipe.yaml").write_text(TEXT)
    monkeypatch.chdir(tmp_path)
    return Path("work/recipe.yaml")


def test_paths_are_relative_to_the_file_they_stand_in(recipe: Path) -> None:
    found = load.load(recipe)
    assert found.data.path == Path("work/photos")
    assert found.student.pretrained == Path("nets/a.pt")
    assert found.teacher is not None and found.teacher.store is not None and found.study is not None
    first, second = found.teacher.members
    assert (first.weights, first.classes) == (Path("work/b.pt"), Path("work/names.txt"))
    assert (second.weights, second.classes) == (Path("/nets/c.pt"), ("a", "b"))
    assert found.teacher.store.path == Path("work/cache")
    assert found.study.teachers["big"].weights == Path("work/d.pt")


def test_those_of_the_command_line_are_relative_to_the_working_directory(recipe: Path) -> None:
    assert load.load(recipe, ["data.path=photos"]).data.path == Path("photos")


def test_a_base_in_another_folder_keeps_its_paths(recipe: Path) -> None:
    Path("other.yaml").write_text("extends: work/recipe.yaml\nstudent: {pretrained: x.pt}\n")
    found = load.load("other.yaml")
    assert found.data.path == Path("work/photos") and found.student.pretrained == Path("x.pt")


def test_the_recipe_of_a_run_and_those_of_the_package_are_as_they_were(recipe: Path) -> None:
    Path("run").mkdir()
    found = load.load(recipe)
    Path("run/recipe.yaml").write_text(load.to_yaml(found))
    assert load.load("run") == found
    weights = load.load("imagenet/tables/dist_strong_b2_swin").teacher
    assert weights is not None and weights.weights == Path("swin_large.safetensors")


def test_every_path_of_the_schema_is_known() -> None:
    seen: list[Any] = []
    names: set[str] = set()

    def visit(kind: Any) -> None:
        if not str(getattr(kind, "__module__", "")).startswith("stillhouse") or kind in seen:
            for part in get_args(kind):
                visit(part)
            return
        seen.append(kind)
        if is_dataclass(kind):
            hints = get_type_hints(kind, include_extras=True)
            names.update(f.name for f in fields(kind) if "pathlib" in str(hints[f.name]))
            for hint in hints.values():
                visit(hint)

    visit(Recipe)
    assert names == set(KEYS)


def test_a_transform_may_be_a_word(recipe: Path) -> None:
    assert load.load(recipe).data.transforms == (Flip(),)


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train.epochs=0"], "'train.epochs=0': train: `epochs` must be positive"),
        (["method.temperature=-4"], "'method.temperature=-4': method: `temperature` must be"),
        (["train={epochs: 0}"], "'train={epochs: 0}': train: `epochs` must be positive"),
        (["teacher=null"], "'teacher=null': method kd needs a teacher"),
        (["lr=0.1"], "'lr=0.1': unknown key lr; did you mean 'train.optimiser.lr'?"),
        (["epochs=3"], "'epochs=3': unknown key epochs; did you mean 'train.epochs'?"),
    ],
)
def test_an_override_is_blamed_for_what_it_sets(words: list[str], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        load.load("digits/raw", ["data.batch=8", *words])
    assert str(caught.value).startswith(sentence)


def test_a_file_is_blamed_for_what_no_override_sets(recipe: Path) -> None:
    recipe.write_text(TEXT + "train:\n  epochs: 0\n")
    with pytest.raises(UserError, match=r"^work/recipe.yaml:11: train: `epochs` must be positive"):
        load.load(recipe, ["train.clip=1"])
