"""The page on all keys is that of the schema."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from quick import caller
from stillhouse.recipes import load
from stillhouse.recipes.key_sentences import SENTENCES
from stillhouse.recipes.keys import SECTIONS, list_keys, write_reference

PAGE = Path(__file__).parents[2] / "docs" / "keys.md"


def test_the_page_is_what_the_command_prints(capsys: pytest.CaptureFixture[str]) -> None:
    call = caller(capsys)
    assert call("recipes", "keys").out == PAGE.read_text("utf-8") == write_reference()
    shown = call("recipes", "keys", "train").out
    assert "train.clip" in shown and "number, default 0.0. Largest norm" in " ".join(shown.split())
    assert "no section 'trian'; did you mean 'train'?" in call("recipes", "keys", "trian").error


def test_every_key_has_a_sentence_and_every_sentence_a_key() -> None:
    names = {f"{spec.__name__}.{f.name}" for spec in SECTIONS.values() for f in fields(spec)}
    assert names == set(SENTENCES)
    assert all(text[0].isupper() and text.endswith(".") for text in SENTENCES.values())


def test_every_key_of_a_whole_recipe_is_listed() -> None:
    listed = {key.path for section in SECTIONS for key in list_keys(section)}
    words = ["teacher.store=true", "data.mix={mixup: 0.5}", "teacher.remember=false"]
    whole = load.to_dict(load.load("digits/numbers", words))
    assert set(whole) <= listed
    for section in ("data", "student", "teacher", "train", "engine"):
        assert {f"{section}.{key}" for key in whole[section]} <= listed
    assert {"teacher.store.top", "data.mix.cutmix", "data.train.subset"} <= listed
    clip = next(key for key in list_keys("train") if key.path == "train.clip")
    assert (clip.type, clip.default) == ("number", "0.0")
    data = {key.path: (key.type, key.default) for key in list_keys("data")}
    assert data["data.pad"] == ("integer", "1") and data["data.holdout"] == (
        "integer or number",
        "0",
    )
    assert data["data.mean"] == ("list of numbers or null", "null")
