"""Real formats, written by the test: image folders, CIFAR archives, tar shards."""

from __future__ import annotations

import io
import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quick import quick
from stillhouse.build.data import make_loader, make_training_loader, open_sources
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Data
from stillhouse.recipes.splits import SplitSpec
from stillhouse.runs.execute import Result, execute

CLASSES = ("dark", "light")
BASE = """\
student: stillhouse/tiny
teacher:
  name: stillhouse/small
  gate: false
  train: {epochs: 1, optimiser: {kind: sgd, lr: 0.01}}
train: {epochs: 1, optimiser: {kind: sgd, lr: 0.01}}
engine: {device: cpu, tensorboard: false}
data:
"""


def picture(label: int, seed: int, size: tuple[int, int] = (40, 32)) -> Image.Image:
    noise = np.random.default_rng(seed).integers(0, 100, (*size, 3), dtype=np.uint8)
    return Image.fromarray(noise + np.uint8(150 * label))


def png(label: int, seed: int) -> bytes:
    file = io.BytesIO()
    picture(label, seed).save(file, "PNG")
    return file.getvalue()


def write_folder(root: Path, splits: tuple[str, ...] = ("train", "val")) -> Path:
    for split in splits:
        for label, name in enumerate(CLASSES):
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(8):
                seed = 100 * label + number
                picture(label, seed, (32 + number, 40)).save(place / f"{number}.png")
    return root


def write_cifar(root: Path) -> Path:
    """The archive as its authors publish it, of a few images."""
    made = np.random.default_rng(0)
    names = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]
    files = {"batches.meta": {b"label_names": [f"class{i}".encode() for i in range(10)]}}
    for name in names:
        pixels = made.integers(0, 256, (10, 3072), dtype=np.uint8)
        files[name] = {b"data": pixels, b"labels": list(range(10))}
    with tarfile.open(root / "cifar-10-python.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            data = pickle.dumps(content, protocol=2)
            info = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return root


def write_shards(root: Path) -> Path:
    import webdataset

    for split in ("train", "val", "test"):
        (root / split).mkdir(parents=True)
        for shard in range(2):
            with webdataset.TarWriter(str(root / split / f"{shard}.tar"), encoder=False) as writer:
                for number in range(8):
                    label, seed = number % 2, 10 * shard + number
                    sample = {"png": png(label, seed), "cls": str(label).encode()}
                    writer.write({"__key__": f"{shard}-{number}", **sample})
    (root / "classes.txt").write_text("dark\nlight\n")
    return root


def run(tmp_path: Path, data: str) -> Result:
    path = tmp_path / "recipe.yaml"
    path.write_text(BASE + data)
    return execute(load.load(path), tmp_path / "run", say=lambda _: None)


def check(result: Result, steps: int, classes: tuple[str, ...]) -> None:
    assert result.student["steps"] == steps
    assert 0 <= result.student[result.split]["top1"] <= 100
    contract = json.loads((result.folder / "student.safetensors.json").read_text())
    assert tuple(contract["classes"]) == classes and contract["channels"] == 3
    assert contract["size"] == [32, 32]


def test_a_folder_of_images(tmp_path: Path) -> None:
    write_folder(tmp_path / "images")
    result = run(
        tmp_path,
        f"""\
  name: folder
  path: {tmp_path}/images
  batch: 8
  transforms: [{{kind: resized_crop, size: 32}}, {{kind: flip}}]
  evaluation: [{{kind: resize, size: 36}}, {{kind: center_crop, size: 32}}]
""",
    )
    check(result, 2, CLASSES)
    assert result.student["split"] == "validation" and result.student["test"] == {}
    last = result.student["history"][-1]
    assert result.student["validation"] == {k: v for k, v in last.items() if k != "step"}


def test_a_test_split_of_a_folder_is_used(tmp_path: Path) -> None:
    write_folder(tmp_path, ("train", "val", "test"))
    (tmp_path / "test" / "dark" / "0.png").unlink()
    sources = open_sources(Data("folder", tmp_path, evaluation=crops()))
    assert [len(s) for s in (sources.train, sources.val, sources.test)] == [16, 16, 15]
    assert sources.size == (32, 32) and sources.channels == 3 and sources.classes == CLASSES


def crops():
    return quick(
        "data.evaluation=[{kind: resize, size: 36}, {kind: center_crop, size: 32}]"
    ).data.evaluation


def test_cifar_from_its_archive_with_a_held_out_val(tmp_path: Path) -> None:
    write_cifar(tmp_path)
    data = f"""\
  name: cifar10
  path: {tmp_path}
  holdout: 18
  batch: 16
  transforms: [{{kind: crop, padding: 4}}, {{kind: flip}}]
"""
    result = run(tmp_path, data)
    check(result, 2, tuple(f"class{i}" for i in range(10)))
    sources = open_sources(Data("cifar10", tmp_path, holdout=18))
    assert [len(s) for s in (sources.train, sources.val, sources.test)] == [32, 18, 10]
    images = torch.cat([sources.train.images, sources.val.images]).flatten(1)
    assert len(images.unique(dim=0)) == 50  # held out, not copied


def test_cifar_without_a_held_out_val_says_how(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cifar10 has no val split, .*data\.holdout=COUNT"):
        open_sources(Data("cifar10", write_cifar(tmp_path)))


def test_tar_shards(tmp_path: Path) -> None:
    pytest.importorskip("webdataset")
    write_shards(tmp_path / "shards")
    result = run(
        tmp_path,
        f"""\
  name: shards
  path: {tmp_path}/shards
  batch: 8
  transforms: [{{kind: resized_crop, size: 32}}]
  evaluation: [{{kind: resize, size: 32, square: true}}]
""",
    )
    check(result, 2, CLASSES)


def test_splits_of_other_classes_are_refused(tmp_path: Path) -> None:
    write_folder(tmp_path)
    (tmp_path / "val" / "dark").rename(tmp_path / "val" / "dim")
    with pytest.raises(UserError, match="the 2 classes of train differ from the 2 of val"):
        open_sources(Data("folder", tmp_path, evaluation=crops()))


def test_images_of_different_shapes_are_refused(tmp_path: Path) -> None:
    recipe = quick("data=folder", f"data.path={write_folder(tmp_path)}", "data.batch=8")
    sources = open_sources(recipe.data)
    loader = make_training_loader(recipe, sources, torch.device("cpu"))
    with pytest.raises(UserError, match=r"different shapes .* add transforms"):
        next(loader.epoch(0))


@pytest.mark.parametrize("workers", [0, 1])
def test_a_truncated_image_is_named(tmp_path: Path, workers: int) -> None:
    write_folder(tmp_path)
    broken = tmp_path / "train" / "light" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    words = ["data=folder", f"data.path={tmp_path}", "data.batch=16", f"engine.workers={workers}"]
    transforms = "[{kind: resize, size: 16, square: true}]"
    recipe = quick(*words, f"data.transforms={transforms}", f"data.evaluation={transforms}")
    sources = open_sources(recipe.data)
    with pytest.raises(UserError, match=r"light/3\.png") as caught:
        list(make_training_loader(recipe, sources, torch.device("cpu")).epoch(0))
    assert "\n" not in str(caught.value)


def test_what_is_asked_of_one_split_reaches_it_alone() -> None:
    sources = open_sources(Data("digits/raw", train=SplitSpec(50), val=SplitSpec(20)))
    assert [len(s) for s in (sources.train, sources.val, sources.test)] == [50, 20, 359]
    with pytest.raises(UserError, match=r"data\.train: digits/raw has no option 'colour'"):
        open_sources(Data("digits/raw", train=SplitSpec(options={"colour": 1})))


def test_measuring_takes_every_sample_once_and_learning_whole_batches() -> None:
    recipe = quick("data.batch=48")
    sources = open_sources(recipe.data)
    measured = list(make_loader(sources.val, recipe.data, sources, torch.device("cpu")).epoch(0))
    keys = torch.cat([batch.keys for batch in measured])
    assert keys.tolist() == list(range(360))
    learnt = list(make_training_loader(recipe, sources, torch.device("cpu")).epoch(0))
    assert [len(batch.target) for batch in learnt] == [48] * 4


def test_more_channels_than_numbers_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 channels, but data\.mean has 1 numbers"):
        open_sources(Data("folder", write_folder(tmp_path), evaluation=crops(), mean=(0.5,)))
