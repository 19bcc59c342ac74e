"""Images that change between two starts: no run, result or trained teacher takes them up."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from quick import WORDS
from stillhouse.data.record import describe_sources, find_change
from stillhouse.data.source import Pixels
from stillhouse.engine import train as training
from stillhouse.engine.interrupt import Stopped
from stillhouse.engine.run import Run
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.runs.execute import Result, execute
from stillhouse.runs.teacher import member_folder, member_recipe

CLASSES = ("cat", "dog", "emu")


def save(path: Path, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shades = 2 + 9 * (seed % 29)  # so that files differ in size, which the fingerprint reads
    pixels = np.random.default_rng(seed).integers(0, shades, (12, 12, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    root = tmp_path / "photos"
    for split in ("train", "val"):
        for number, name in enumerate(CLASSES):
            for i in range(4):
                save(root / split / name / f"{i}.png", 10 * number + i)
    return root


def words(photos: Path, *more: str) -> list[str]:
    data = f"data={{name: folder, path: {photos}, batch: 4}}"
    schedule = "train.schedule={kind: constant}"
    return [*WORDS, data, "train.epochs=1", "teacher.gate=false", schedule, *more]


ALONE = ("method=none", "teacher=null")


def train(photos: Path, folder: Path, *more: str) -> Result:
    recipe = load.load("digits/raw", words(photos, *more))
    return execute(recipe, folder, resume=True, say=lambda _: None)


def exchange(photos: Path) -> None:
    """Two classes have each other's images."""
    for split in ("train", "val"):
        (photos / split / "cat").rename(photos / split / "x")
        (photos / split / "dog").rename(photos / split / "cat")
        (photos / split / "x").rename(photos / split / "dog")


def rename(photos: Path) -> None:
    for split in ("train", "val"):
        (photos / split / "cat").rename(photos / split / "ape")


def add(photos: Path) -> None:
    save(photos / "train" / "cat" / "4.png", 99)


def remove(photos: Path) -> None:
    (photos / "train" / "emu" / "0.png").unlink()


def add_class(photos: Path) -> None:
    for split in ("train", "val"):
        save(photos / split / "gnu" / "0.png", 77)


CHANGES = {
    exchange: "train has as many samples as before, but other images or labels",
    rename: "class 0 was 'cat', and is 'ape' now",
    add: "train had 12 samples, and has 13 now",
    remove: "train had 12 samples, and has 11 now",
    add_class: "there were 3 classes, and are 4 now",
}


@pytest.mark.parametrize("change", CHANGES, ids=lambda change: change.__name__)
def test_a_finished_result_is_of_the_data_it_was_trained_on(change, photos, tmp_path) -> None:
    before = train(photos, tmp_path / "run", *ALONE)
    again = train(photos, tmp_path / "run", *ALONE)
    assert again.student == before.student
    change(photos)
    with pytest.raises(UserError) as caught:
        train(photos, tmp_path / "run", *ALONE)
    folder = tmp_path / "run"
    remedy = f"restore the data, or delete {folder} to train again"
    assert str(caught.value) == f"{folder} was trained on other data: {CHANGES[change]}; {remedy}"
    shutil.rmtree(folder)
    train(photos, folder, *ALONE)


def test_a_run_continues_with_the_data_it_was_started_with(photos, tmp_path, monkeypatch) -> None:
    update = training.update

    def stop_at_second(run: Run, clock) -> None:
        if clock.step == 1:
            training.state.save_run(run)
            raise Stopped
        update(run, clock)

    monkeypatch.setattr(training, "update", stop_at_second)
    with pytest.raises(Stopped):
        train(photos, tmp_path / "run", *ALONE)
    monkeypatch.undo()
    rename(photos)
    with pytest.raises(
        UserError, match=r"state\.pt was written with other data: class 0 was 'cat'"
    ):
        train(photos, tmp_path / "run", *ALONE)
    for split in ("train", "val"):
        (photos / split / "ape").rename(photos / split / "cat")
    assert train(photos, tmp_path / "run", *ALONE).student["steps"] == 3


def test_a_teacher_teaches_on_the_data_it_was_trained_on(photos, tmp_path) -> None:
    train(photos, tmp_path / "run")
    recipe = load.load("digits/raw", words(photos))
    assert recipe.teacher is not None
    folder = member_folder(member_recipe(recipe, recipe.teacher))
    save(photos / "val" / "cat" / "4.png", 98)  # which the teacher did not learn from
    train(photos, tmp_path / "more")
    rename(photos)
    with pytest.raises(UserError) as caught:
        train(photos, tmp_path / "other")
    assert str(caught.value).startswith(f"{folder} was trained on other data: class 0 was 'cat'")
    shutil.rmtree(folder)
    train(photos, tmp_path / "other")


def test_what_an_older_version_did_not_write_counts_as_equal() -> None:
    import torch

    def pixels(fingerprint: str, count: int = 2) -> Pixels:
        images = torch.zeros(count, 1, 4, 4, dtype=torch.uint8)
        return Pixels(images, torch.zeros(count, dtype=torch.long), ("a", "b"), fingerprint, "p")

    now = describe_sources({"train": pixels("new", 3), "val": pixels("same")})
    assert not find_change({}, now) and not find_change(now, now)
    old = {"data": {"train": "old", "val": "same"}}
    assert (
        find_change(old, now) == "train has as many samples as before, but other images or labels"
    )
    assert not find_change(old, now, ["val"])
