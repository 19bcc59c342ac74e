"""What is written for readers runs, loads and leads somewhere."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

from stillhouse.methods.catalogue import published
from stillhouse.recipes import load

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, kind: str) -> list[str]:
    return [body for found, body in FENCE.findall(page.read_text("utf-8")) if found == kind]


def commands() -> list[tuple[str, str]]:
    """Every `stillhouse …` that is shown, in a block of text or between backticks."""
    found = []
    for page, name in zip(PAGES, NAMES, strict=True):
        text = page.read_text("utf-8")
        inline = re.findall(r"`(stillhouse [^`\n]+)`", FENCE.sub("", text))
        lines = [
            line
            for kind in ("text", "bash", "sh")
            for b in blocks(page, kind)
            for line in b.splitlines()
        ]
        shown = [line for line in lines if line.startswith("stillhouse ")]
        found += [(name, command.partition("  #")[0].strip()) for command in inline + shown]
    return found


def test_there_is_something_to_test() -> None:
    assert len(commands()) > 5
    assert sum(len(blocks(page, "python")) for page in PAGES) > 5


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_python_of_a_page_runs_in_its_order(
    page: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    space: dict[str, Any] = {"__name__": "page"}
    text = page.read_text("utf-8")
    for body in blocks(page, "python"):
        line = text[: text.index(body)].count("\n")
        exec(compile("\n" * line + body, str(page), "exec", dont_inherit=True), space)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_the_recipes_of_a_page_load(page: Path, tmp_path: Path) -> None:
    for number, body in enumerate(blocks(page, "yaml")):
        path = tmp_path / f"{number}.yaml"
        path.write_text(body)
        recipe = load.load(path)
        # and what it shows is what it says: nothing in it is passed over
        said = yaml.safe_load(body)
        assert recipe.train.epochs == said.get("train", {}).get("epochs", recipe.train.epochs)
        assert load.validate_recipe(yaml.safe_load(load.to_yaml(recipe)), path) == recipe


def test_the_page_on_recipes_shows_every_key() -> None:
    (body, *_) = blocks(ROOT / "docs" / "recipes.md", "yaml")
    said = yaml.safe_load(body)
    whole = load.to_dict(load.load("digits/numbers"))
    assert set(whole) - set(said) <= {"task", "paper"}
    assert set(whole["train"]) == set(said["train"])
    assert set(said["data"]) <= set(whole["data"]) and set(said["teacher"]) <= set(whole["teacher"])


@pytest.mark.parametrize(("page", "command"), commands(), ids=lambda value: str(value)[:60])
def test_every_command_that_is_shown_exists(page: str, command: str) -> None:
    from typer.main import get_command

    from stillhouse.cli.app import app

    words = shlex.split(command)[1:]
    group = get_command(app)
    here: Any = group.commands[words[0]] if not words[0].startswith("-") else group
    rest = words[1:]
    if hasattr(here, "commands") and here is not group and rest:
        here = here.commands[rest[0]]
        rest = rest[1:]
    known = {option for parameter in here.params for option in parameter.opts} | {
        "--help",
        "--debug",
    }
    assert {word for word in rest if word.startswith("-")} <= known
    if words[0] in ("run", "doctor") and rest and rest[0] in load.zoo():
        load.load(rest[0], [word for word in rest[1:] if "=" in word])


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_to_files(page: Path) -> None:
    text = FENCE.sub("", page.read_text("utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if not re.match(r"\w+:", target) and not target.startswith("#"):
            assert (page.parent / target.partition("#")[0]).exists(), target


def test_the_readme_names_every_method() -> None:
    table = (
        (ROOT / "README.md").read_text("utf-8").partition("\n## Methods\n")[2].partition("\n## ")[0]
    )
    rows = re.findall(r"^\| (`[^|]+`) \|", table, re.MULTILINE)
    named = {name for row in rows for name in re.findall(r"`(\w+)`", row)}
    assert named == set(published())
