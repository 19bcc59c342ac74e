"""Recipes that nobody writes by accident: too deep, too many, too long, or not of their tag."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.plain_yaml import parse_yaml

BASE = "data: {name: digits/raw}\nstudent: stillhouse/tiny\nmethod: none\n"


def doubled(first: str, each: str) -> str:
    """Thirty lines, each of which repeats the line before three times."""
    lines = (each.replace("OLD", f"*a{i}") for i in range(30))
    return f"a0: &a0 {first}\n" + "".join(f"a{i + 1}: &a{i + 1} {x}\n" for i, x in enumerate(lines))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("paper: " + "[" * 100_000, "more than 40 mappings and lists inside each other"),
        ("paper: " + "[" * 60 + "]" * 60, "more than 40 mappings and lists inside each other"),
        (doubled("[x]", "[OLD]").replace("[x]", "[" * 12 + "]" * 12), "more than 40 mappings"),
        (doubled("[x]", "[OLD, OLD, OLD]"), "more than 100,000 values"),
        (doubled("{x: 1}", "{<<: [OLD, OLD, OLD]}"), "more than 100,000 values"),
        (doubled(f"[{'x' * 4000}]", "[OLD, OLD]"), "more than 100,000 values"),
        ("paper: &a {b: *a}", r"alias \*a has no anchor before it"),
        ("paper: *a", r"alias \*a has no anchor before it"),
        ("title: " + "x" * 5000, "a text of more than 4096 letters"),
        ("seed: " + "9" * 5000, "a text of more than 4096 letters"),
        ("seed: " + "9" * 4000, "an integer of more than 64 bits"),
        ("seed: !!int x", "not a value of int"),
        ("seed: !!float x", "not a value of float"),
        ("seed: !!bool x", "not a value of bool"),
        ("title: !!timestamp x", "could not determine a constructor"),
        ("title: !!binary aGVsbG8=", "could not determine a constructor"),
        ("title: !!set {a, b}", "could not determine a constructor"),
        ("title: !!python/object:os.system {}", "could not determine a constructor"),
    ],
)
def test_a_value_that_cannot_be_right_names_its_line(
    text: str, reason: str, tmp_path: Path
) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE + text)
    with pytest.raises(UserError, match=rf"recipe\.yaml:\d+: not valid YAML: .*{reason}") as error:
        load.load(file)
    assert len(str(error.value)) < 400


def test_a_date_is_a_text(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE + "title: 2024-01-01\n")
    recipe = load.load(file)
    assert recipe.title == "2024-01-01"
    assert load.validate_recipe(parse_yaml(load.to_yaml(recipe)), file) == recipe


def test_anchors_and_merge_keys_are_read() -> None:
    text = "a: &a {x: 1, y: [2]}\nb: *a\nc: {<<: *a, x: 3}\n"
    assert parse_yaml(text) == yaml.safe_load(text)


def test_a_dollar_is_a_letter(tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE + "title: ${oc.env:HOME}\n")
    assert load.load(file, ["data.path=${x}"]).title == "${oc.env:HOME}"
    assert str(load.load(file, ["data.path=${x}"]).data.path) == "${x}"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("seed=" + "9" * 5000, "is not a valid YAML value"),
        ("seed=!!int x", "is not a valid YAML value"),
        ("paper=&a {b: *a}", "is not a valid YAML value"),
        ("data.options=" + "[" * 100_000, "is not a valid YAML value"),
        ("x" * 20_000, "is not an override"),
        ("x" * 20_000 + "=3", "unknown key x"),
        ("seed=" + "x" * 4000, "seed: input should be a valid integer"),
        ("method=" + "x" * 4000, "method: unknown name 'x"),
        ("train.epochs=[" + "[1, 2, 3], " * 300 + "]", "train.epochs: input should be a valid"),
        ("student.inherit=" + "x" * 4000, "student.inherit"),
    ],
)
def test_a_long_value_is_not_repeated(word: str, message: str, tmp_path: Path) -> None:
    file = tmp_path / "recipe.yaml"
    file.write_text(BASE)
    with pytest.raises(UserError) as error:
        load.load(file, [word])
    assert message in str(error.value) and len(str(error.value)) < 800


@pytest.mark.parametrize("name", ["x" * 300, "x" * 20_000, "a\0b", "x" * 300 + "/y"])
def test_a_name_that_no_file_system_takes(name: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="not found: neither a file nor listed") as error:
        load.load(name)
    assert len(str(error.value)) < 300
    (tmp_path / "recipe.yaml").write_text(f"extends: [{'x' * 300}]\n{BASE}")
    with pytest.raises(UserError, match="not found: neither a file nor listed"):
        load.load(tmp_path / "recipe.yaml")


# ----------------------------------------------------------------------------------------- extends


def test_files_that_are_extended_on_many_ways_are_read_once(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(BASE + "title: first\n")
    for i in range(1, 30):
        (tmp_path / f"{i}.yaml").write_text(f"extends: [{i - 1}.yaml, {i - 1}.yaml]\nseed: {i}\n")
    recipe = load.load(tmp_path / "29.yaml")  # 2 ** 29 ways lead to the first file
    assert recipe.title == "first" and recipe.seed == 29


def test_a_long_chain_of_files(tmp_path: Path) -> None:
    (tmp_path / "0.yaml").write_text(BASE)
    for i in range(1, 70):
        (tmp_path / f"{i}.yaml").write_text(f"extends: {i - 1}.yaml\n")
    with pytest.raises(UserError, match="more than 50 files extend each other"):
        load.load(tmp_path / "69.yaml")


def test_the_recipe_of_a_run_brings_in_no_other_file(tmp_path: Path) -> None:
    (tmp_path / "foreign.yaml").write_text(BASE + "title: secret\n")
    run = tmp_path / "run"
    run.mkdir()
    (run / "recipe.yaml").write_text("extends: ../foreign.yaml\n")
    with pytest.raises(UserError, match="extends other files"):
        load.load(run)
    assert load.load(run / "recipe.yaml").title == "secret"  # named as a recipe, not as a run
    (run / "recipe.yaml").unlink()
    (run / "recipe.yaml").symlink_to(tmp_path / "foreign.yaml")
    with pytest.raises(UserError, match="leads out of"):
        load.load(run)
