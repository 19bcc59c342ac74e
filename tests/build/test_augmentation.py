"""What a recipe says of augmentation, down to the batches, out of files in their true format."""

from __future__ import annotations

import io
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from quick import quick
from stillhouse.build.data import (
    data_is_finite,
    make_filling_loader,
    make_training_loader,
    open_sources,
    strong_transforms,
)
from stillhouse.build.store import view_count
from stillhouse.build.teacher import check_storable
from stillhouse.data.loader import STRONG_SEED
from stillhouse.data.mixing import Mix
from stillhouse.data.random import derive_seed
from stillhouse.data.transforms import Crop, Cutout, Flip, RandAugment, Single, normalise
from stillhouse.errors import UserError
from stillhouse.recipes import load
from stillhouse.recipes.schema import Data, Recipe
from stillhouse.study.plan import make_plan

CPU = torch.device("cpu")
CLASSES = tuple(f"fine{i:02d}" for i in range(100))
STACK = """[
  {kind: resized_crop, size: 32, scale: [0.08, 1], ratio: [0.75, 1.33], interpolation: bicubic},
  {kind: flip},
  {kind: rand_augment, ops: 2, magnitude: 9, deviation: 0.5},
  {kind: color_jitter, brightness: 0.4, contrast: 0.4, saturation: 0.4, hue: 0.1},
  {kind: erasing, probability: 0.25}
]"""
WEAK = "data.transforms=[{kind: crop, padding: 2}, {kind: flip}]"
EVALUATION = """[
  {kind: resize, size: 36, interpolation: bicubic}, {kind: center_crop, size: 32}
]"""


def imagenet(path: Path, name: str, *words: str) -> Recipe:
    """The stack of the recipes for ImageNet and for transformers, at 32 pixels."""
    return quick(
        f"data={name}",
        f"data.path={path}",
        "data.batch=8",
        f"data.transforms={STACK}",
        f"data.evaluation={EVALUATION}",
        *words,
    )


def cifar_rows(seed: int, count: int = 40) -> tuple[np.ndarray, list[int]]:
    made = np.random.default_rng(seed)
    return made.integers(0, 256, (count, 3072), dtype=np.uint8), [i % 100 for i in range(count)]


def write_python(root: Path) -> Path:
    """CIFAR-100 as its archive of pickles."""
    files = {"meta": {"fine_label_names": list(CLASSES), "coarse_label_names": ["c"] * 20}}
    for seed, name in enumerate(("train", "test")):
        pixels, labels = cifar_rows(seed)
        coarse = [label // 5 for label in labels]
        files[name] = {"data": pixels, "fine_labels": labels, "coarse_labels": coarse}
    with tarfile.open(root / "cifar-100-python.tar.gz", "w:gz") as archive:
        for name, content in files.items():
            data = pickle.dumps({k.encode(): v for k, v in content.items()}, protocol=2)
            info = tarfile.TarInfo(f"cifar-100-python/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return root


def write_binary(root: Path) -> Path:
    """CIFAR-100 as its binary files: coarse label, fine label, red, green and blue planes."""
    folder = root / "cifar-100-binary"
    folder.mkdir()
    for seed, name in enumerate(("train.bin", "test.bin")):
        pixels, labels = cifar_rows(seed)
        rows = (bytes([y // 5, y]) + x.tobytes() for x, y in zip(pixels, labels, strict=True))
        (folder / name).write_bytes(b"".join(rows))
    (folder / "fine_label_names.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def write_tree(root: Path) -> Path:
    """One folder a class below one a split, with photos of many sizes, colours and formats."""
    made = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in CLASSES[:5]:
            place = root / split / name
            place.mkdir(parents=True)
            for number in range(4):
                size = (40 + 7 * number, 60 - 5 * number)
                image = Image.fromarray(made.integers(0, 256, (*size, 3), dtype=np.uint8))
                image = image.convert("L") if number == 3 else image
                image.save(place / f"{number}.{'png' if number % 2 else 'jpeg'}")
    return root


WRITERS = {"cifar100": (write_python, write_binary), "folder": (write_tree,)}
FORMATS = [(name, writer) for name, writers in WRITERS.items() for writer in writers]


# ---------------------------------------------------------------------------------- the whole stack


@pytest.mark.parametrize("name, write", FORMATS, ids=lambda x: getattr(x, "__name__", x))
@pytest.mark.parametrize("workers", [0, 1])
def test_the_stack_of_imagenet_on_true_formats(
    name: str, write: object, workers: int, tmp_path: Path
) -> None:
    words = ["data.mix={mixup: 0.8, cutmix: 1.0}", f"engine.workers={workers}"]
    words += ["data.holdout=10"] if name == "cifar100" else []
    recipe = imagenet(write(tmp_path), name, *words)
    sources = open_sources(recipe.data)
    assert sources.size == (32, 32) and sources.channels == 3
    classes = 100 if name == "cifar100" else 5
    assert sources.classes == CLASSES[:classes]
    loader = make_training_loader(recipe, sources, CPU)
    first, second = (next(loader.epoch(0, start)) for start in (0, 1))
    for batch in (first, second):
        assert batch.images.shape == (8, 3, 32, 32) and batch.images.dtype == torch.float32
        assert batch.target.shape == (8, classes) and batch.target.dtype == torch.float32
        assert (batch.target.sum(1) - 1).abs().max() < 1e-6
        assert batch.images.isfinite().all() and batch.strong is None
        own = torch.tensor([sources.train[key].target for key in batch.keys.tolist()])
        for shares, *pair in zip(batch.target, own, own.roll(1), strict=True):
            assert abs(shares[torch.stack(pair).unique()].sum() - 1) < 1e-6
    assert not torch.equal(first.images, second.images)
    again = next(make_training_loader(recipe, sources, CPU).epoch(0, 1))
    assert torch.equal(again.images, second.images) and torch.equal(again.target, second.target)


def test_two_views_of_true_files(tmp_path: Path) -> None:
    recipe = imagenet(write_tree(tmp_path), "folder")
    sources = open_sources(recipe.data)
    loader = make_training_loader(recipe, sources, CPU, views=2)
    batches = list(loader.epoch(0))
    assert len(batches) == 2
    for batch in batches:
        assert batch.images.shape == batch.strong.shape == (8, 3, 32, 32)
        assert batch.target.tolist() == [sources.train[key].target for key in batch.keys.tolist()]
        assert not torch.equal(batch.images, batch.strong)


# ---------------------------------------------------------------------------------- the strong view


def test_the_strong_view_is_the_first_made_stronger_where_nothing_is_said() -> None:
    recipe = quick(WEAK)
    sources = open_sources(recipe.data)
    chain = (Crop(2), Flip(), RandAugment(2, uniform=True), Cutout(0.5))
    assert strong_transforms(recipe.data) == chain
    batch = next(make_training_loader(recipe, sources, CPU, views=2).epoch(3))
    single = Single(chain, derive_seed(recipe.seed, STRONG_SEED))
    wanted = torch.stack([single(sources.train[k].image, k, 3) for k in batch.keys.tolist()])
    mean, std = torch.tensor(sources.mean), torch.tensor(sources.std)
    assert torch.equal(batch.strong, normalise(wanted, mean, std))
    one = next(make_training_loader(recipe, sources, CPU).epoch(3))
    assert one.strong is None and torch.equal(one.images, batch.images)


def test_a_recipe_can_say_what_the_strong_view_is() -> None:
    recipe = quick(WEAK, "data.strong=[{kind: cutout, size: 1}]")
    assert strong_transforms(recipe.data) == (Cutout(1.0),)
    assert make_training_loader(recipe, open_sources(recipe.data), CPU, 2).views[1].transforms == (
        Cutout(1.0),
    )


def test_two_views_are_not_mixed() -> None:
    recipe = quick(WEAK, "data.mix={mixup: 1}")
    with pytest.raises(UserError, match=r"^data\.mix mixes one view of each image"):
        make_training_loader(recipe, open_sources(recipe.data), CPU, views=2)


# -------------------------------------------------------------------------- what is mixed, and kept


def test_only_training_is_mixed() -> None:
    recipe = quick(WEAK, "data.mix={cutmix: 1}", "data.views=1")
    sources = open_sources(recipe.data)
    filled = next(make_filling_loader(recipe, sources, CPU).epoch(0))
    learnt = next(make_training_loader(recipe, sources, CPU).epoch(0))
    assert filled.target.ndim == 1 and learnt.target.ndim == 2
    assert recipe.data.mix == Mix(cutmix=1.0)


@pytest.mark.parametrize(
    "words, finite",
    [
        ([], True),
        ([WEAK], False),
        ([WEAK, "data.views=2"], True),
        (["data.transforms=[{kind: cutout}]"], False),
        (["data.transforms=[{kind: resize, size: 8}]"], True),
        (["data.mix={mixup: 1}"], False),
        ([WEAK, "data.views=2", "data.mix={mixup: 1}"], False),
        (["data.repeats=2"], True),
        ([WEAK, "data.repeats=2"], False),
    ],
    ids=str,
)
def test_what_comes_back(words: list[str], finite: bool) -> None:
    assert data_is_finite(quick(*words).data) is finite


def test_copies_stand_in_one_step() -> None:
    recipe = quick(WEAK, "data.repeats=4", "data.batch=16")
    loader = make_training_loader(recipe, open_sources(recipe.data), CPU)
    plain = make_training_loader(quick(WEAK, "data.batch=16"), open_sources(recipe.data), CPU)
    assert len(loader) == len(plain) == 12
    for batch in loader.epoch(1):
        keys, counts = batch.keys.unique(return_counts=True)
        assert len(keys) == 4 and counts.tolist() == [4] * 4
        assert sorted(batch.views.tolist()) == [view for view in (4, 5, 6, 7) for _ in range(4)]


# ---------------------------------------------------------------------------------- what it may say


def test_all_of_it_comes_back_from_a_file(tmp_path: Path) -> None:
    words = [f"data.transforms={STACK}", "data.strong=[{kind: cutout}]", "data.mix={mixup: 0.8}"]
    recipe = quick(*words, "data.repeats=3")
    path = tmp_path / "recipe.yaml"
    path.write_text(load.to_yaml(recipe))
    assert load.load(path) == recipe


@pytest.mark.parametrize(
    "word, sentence",
    [
        ("data.repeats=0", "`repeats` must be at least 1, got 0"),
        ("data.mix={mixup: -1}", "mixup must be finite and at least 0, got -1"),
        ("data.mix={mixu: 1}", "mixu"),
        ("data.transforms=[{kind: rand_augment, magnitude: 30}]", r"must be in \[0, 10\], got 30"),
        ("data.strong=[{kind: cutot}]", "cutot"),
    ],
    ids=str,
)
def test_what_it_may_not_say(word: str, sentence: str) -> None:
    with pytest.raises(UserError, match=sentence) as caught:
        quick(word)
    assert "\n" not in str(caught.value)


def test_copies_have_no_numbered_views() -> None:
    with pytest.raises(UserError, match="repeats needs new augmentations, but views"):
        quick(WEAK, "data.views=2", "data.repeats=2")
    assert Data("digits/raw", repeats=2).views is None


def test_answers_to_mixed_images_are_not_kept() -> None:
    recipe = quick("data.mix={mixup: 1}", "teacher.remember=true")
    assert view_count(recipe.data) == 0 and view_count(quick(WEAK, "data.views=3").data) == 3
    with pytest.raises(UserError) as error:
        check_storable(recipe)
    assert str(error.value) == (
        "teacher.remember caches outputs of repeated images, but data.mix makes new images; "
        "leave one of them out"
    )
    plan = make_plan(quick("data.mix={mixup: 1}", "teacher.remember=false"), seeds=1)
    assert all(arm.recipe.teacher.store is None for arm in plan.arms if not arm.is_control)
