"""data.unlabelled: which images it gives, what it excludes, and which methods it refuses."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from quick import caller, quick
from stillhouse.build.data import make_training_loader, open_sources
from stillhouse.build.unlabelled import check_without_labels
from stillhouse.data.record import describe_sources, find_change
from stillhouse.data.sampler import aspect_groups
from stillhouse.data.source import FromTorch, Pixels
from stillhouse.data.unlabelled import PartlyLabelled
from stillhouse.errors import UserError
from stillhouse.methods.catalogue import published
from stillhouse.methods.control import Control
from stillhouse.objectives import presets
from stillhouse.recipes import load
from stillhouse.tasks.classification import Classification
from stillhouse.tasks.detection import Detection
from stillhouse.tasks.instance import Instance

CPU = torch.device("cpu")


def picture(path: Path, seed: int, size: tuple[int, int] = (12, 12)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, "PNG")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve labelled training images, and five without labels, flat and at some depth."""
    root = tmp_path / "photos"
    for split in ("train", "val"):
        for number, name in enumerate(("cat", "dog")):
            for i in range(6):
                picture(root / split / name / f"{i}.png", 10 * number + i)
    for i, name in enumerate(("a.png", "b.png", "deep/c.png", "deep/er/d.png", "z.png")):
        picture(tmp_path / "more" / name, 50 + i, (12, 16) if i == 2 else (12, 12))
    (tmp_path / "more" / "notes.txt").write_text("no image")
    return root


def words(photos: Path, *more: str) -> list[str]:
    data = f"data={{name: folder, path: {photos}, batch: 4}}"
    unlabelled = f"data.unlabelled={{path: {photos.parent / 'more'}}}"
    return [data, unlabelled, "data.transforms=[{kind: resize, size: 12, square: true}]", *more]


def opened(photos: Path, *more: str) -> Any:
    return open_sources(quick(*words(photos, *more)).data)


def test_images_of_a_folder_follow_the_labelled_ones(photos: Path) -> None:
    sources = opened(photos)
    training = sources.training
    assert isinstance(training, PartlyLabelled) and len(training) == 17 and len(sources.train) == 12
    samples = [training[i] for i in range(17)]
    assert [sample.key for sample in samples] == list(range(17))
    assert [sample.target for sample in samples] == [0] * 6 + [1] * 6 + [None] * 5
    names = ("a.png", "b.png", "deep/c.png", "deep/er/d.png", "z.png")
    for sample, name in zip(samples[12:], names, strict=True):
        image = np.asarray(Image.open(photos.parent / "more" / name))
        assert torch.equal(sample.image, torch.from_numpy(image.copy()).permute(2, 0, 1))
    assert sources.notes[0] == "training uses 12 images with labels and 5 without"
    wide = Pixels(torch.zeros(2, 3, 4, 8, dtype=torch.uint8), None, sources.classes, "", "wide")
    assert aspect_groups(PartlyLabelled(wide, sources.unlabelled)).tolist() == [1, 1, 0, 0, 1, 0, 0]
    loader = make_training_loader(quick(*words(photos)), sources, CPU)
    seen = {int(k): int(t) for b in loader.epoch(0) for k, t in zip(b.keys, labels(b), strict=True)}
    assert len(seen) == 16 and all((key >= 12) == (t == -1) for key, t in seen.items())


def labels(batch: Any) -> torch.Tensor:
    return torch.full((len(batch),), -1) if batch.target is None else batch.target


@pytest.mark.parametrize("workers", [0, 1])
def test_images_alone(photos: Path, workers: int) -> None:
    recipe = quick(
        *words(photos, "data.unlabelled.alone=true", f"engine.workers={workers}"),
        "teacher={name: stillhouse/small, weights: none.safetensors}",
    )
    sources = open_sources(recipe.data)
    assert sources.alone and sources.unlabelled is None and sources.classes == ("cat", "dog")
    assert sources.notes == ("all 5 training images are without labels",)
    (batch,) = make_training_loader(recipe, sources, CPU).epoch(0)
    assert batch.target is None and len(batch) == 4
    for part in (photos / "train").rglob("*.png"):
        part.unlink()
    assert len(open_sources(recipe.data).training) == 5  # labelled images are not needed


def test_a_subset_is_drawn_by_seed(photos: Path) -> None:
    chosen = {
        seed: [opened(photos, "data.unlabelled.subset=3", f"data.unlabelled.seed={seed}")]
        for seed in (0, 1, 2)
    }
    prints = {seed: found.training.fingerprint for seed, (found,) in chosen.items()}
    assert all(len(found.unlabelled) == 3 for (found,) in chosen.values())
    assert len(set(prints.values())) > 1
    again = opened(photos, "data.unlabelled.subset=3", "data.unlabelled.seed=1")
    assert again.training.fingerprint == prints[1]
    assert len(opened(photos, "data.unlabelled.subset=0.4").unlabelled) == 2
    assert len(opened(photos, "data.unlabelled.subset=5").unlabelled) == 5


def test_damaged_images_are_skipped_or_fail(photos: Path) -> None:
    (photos.parent / "more" / "b.png").write_bytes(b"no image")
    found = opened(photos, "data.unlabelled.broken=skip")
    assert len(found.unlabelled) == 4
    assert "1 of 5 images cannot be read and are skipped" in " ".join(found.notes)
    assert len(opened(photos, "data.broken=skip").unlabelled) == 4
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image"):
        [opened(photos).training[i] for i in range(17)]
    for path in (photos.parent / "more").rglob("*.png"):
        path.write_bytes(b"no image")
    with pytest.raises(UserError, match="none of the 5 images can be read"):
        opened(photos, "data.unlabelled.broken=skip")


def test_images_that_change_are_noticed(photos: Path) -> None:
    before = describe_sources(opened(photos).parts)
    picture(photos.parent / "more" / "new.png", 77)
    now = describe_sources(opened(photos).parts)
    assert find_change(before, now) == "unlabelled had 5 samples, and has 6 now"
    (photos.parent / "more" / "new.png").unlink()
    assert find_change(before, describe_sources(opened(photos).parts)) == ""
    (photos.parent / "more" / "a.png").rename(photos.parent / "more" / "aa.png")
    assert "unlabelled has as many samples as before, but other" in find_change(
        before, describe_sources(opened(photos).parts)
    )


WRONG = {
    "data.unlabelled={path: WHERE/nowhere}": r"nowhere does not exist; set it to a folder",
    "data.unlabelled={path: WHERE/more/a.png}": r"a\.png is no folder",
    "data.unlabelled={path: WHERE/empty}": r"empty has no images; image files end in",
    "data.unlabelled={path: WHERE/photos}": r"contains data\.path.*images of val and test",
    "data.unlabelled={path: WHERE}": r"contains data\.path.*set it to a folder of other images",
    "data.unlabelled.count=3": r"a folder of images has no option 'count'",
    "data.unlabelled.subset=9": r"subset=9 cannot be taken of 5 images",
    "data.unlabelled={name: digits/numbers, count: 4}": r"images of 1 channels, but",
    "data.unlabelled={name: cubes}": r"there is no data set 'cubes'",
}


@pytest.mark.parametrize("word", WRONG)
def test_wrong_folders(photos: Path, word: str) -> None:
    (photos.parent / "empty").mkdir()
    with pytest.raises(UserError, match=WRONG[word]):
        opened(photos, word.replace("WHERE", str(photos.parent)))


def test_a_folder_inside_that_of_the_data_is_taken(photos: Path) -> None:
    picture(photos / "unlabelled" / "1.png", 1)
    assert len(opened(photos, f"data.unlabelled={{path: {photos}/unlabelled}}").unlabelled) == 1


SCHEMA = {
    ("data.mix={mixup: 1.0}",): "mix joins images with their labels",
    ("data.mosaic={size: 32}",): "mosaic joins images with their labels",
    ("data.unlabelled.alone=true",): r"teacher\.train trains on labels.*set teacher\.weights",
    (
        "data.unlabelled.alone=true",
        "teacher={name: stillhouse/small, weights: a.safetensors}",
        "control=true",
    ): "control trains on labels",
}


@pytest.mark.parametrize("changes", SCHEMA)
def test_what_a_recipe_cannot_have_beside_it(photos: Path, changes: tuple[str, ...]) -> None:
    with pytest.raises(UserError, match=SCHEMA[changes]):
        quick(*words(photos, *changes))


def test_it_names_its_images() -> None:
    with pytest.raises(UserError, match="unlabelled names no images; set its path to a folder"):
        quick("data.unlabelled={}")


def test_paths_are_relative_to_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "inner" / "recipe.yaml"
    file.parent.mkdir()
    file.write_text("extends: digits/raw\ndata: {unlabelled: {path: ../more}}\n")
    found = load.load(file).data.unlabelled
    assert found is not None and found.path == tmp_path / "more"


def test_recipes_without_it_keep_their_hash() -> None:
    content = load.to_dict(quick())["data"]
    assert content["unlabelled"] is None
    with_it = quick("data.unlabelled={name: digits/raw}")
    assert load.digest(with_it) != load.digest(quick())


def test_embedded_images_stay_in_memory() -> None:
    sources = open_sources(quick("data.unlabelled={name: digits/raw, count: 300}").data)
    training = sources.training
    assert isinstance(training, Pixels) and len(training) == 500
    assert training.targets.tolist() == [*sources.train.targets.tolist(), *[-1] * 300]
    assert training.fingerprint != sources.train.fingerprint
    other = open_sources(quick("data.unlabelled={name: digits/raw, count: 301}").data).training
    assert other.fingerprint != training.fingerprint


@pytest.mark.parametrize("name", ["labels", "objects", "semantic", "instances"])
def test_scenes_of_every_kind(name: str) -> None:
    recipe = quick(
        f"data={{name: digits/{name}, batch: 4, train: {{count: 8}}, val: {{count: 8}}, "
        f"test: {{count: 8}}, unlabelled: {{name: digits/{name}, count: 12, seed: 1}}}}"
    )
    sources = open_sources(recipe.data)
    training = sources.training
    assert isinstance(training, Pixels)
    targets = [training[i].target for i in range(20)]
    assert [target is None for target in targets] == [False] * 8 + [True] * 12
    for moved in (False, True):
        words = ["data.transforms=[{kind: random_scale}, {kind: random_crop, size: 32}]"] * moved
        own = load.load("digits/raw", [f"data={{name: digits/{name}, batch: 4}}", *words])
        loader = make_training_loader(own, sources, CPU)
        absent = 0
        for batch in loader.epoch(0):
            for i, key in enumerate(batch.keys.tolist()):
                target = batch.rows(torch.tensor([i])).target
                absent += lacks(target)
                assert lacks(target) == (key >= 8)
        assert absent == 12


def lacks(target: Any) -> bool:
    if target is None:
        return True
    if isinstance(target, torch.Tensor):
        return bool((target < 0).any()) and target.dtype != torch.uint8
    return target.unlabelled is not None and bool(target.unlabelled.all())


def test_sources_of_a_program() -> None:
    pairs = [(torch.zeros(3, 8, 8), i % 2) for i in range(6)]
    split = FromTorch(pairs, "ab", "pairs")
    given = {"train": split, "val": split, "unlabelled": FromTorch(pairs[:3], "ab", "rest")}
    found = open_sources(quick().data, given)
    assert [found.training[i].target for i in range(9)] == [0, 1, 0, 1, 0, 1, None, None, None]
    del given["train"]
    assert open_sources(quick().data, given).alone


# ------------------------------------------------------------------------------------------ methods

REFUSED = {
    *("ats", "dkd", "ps", "acclimation", "crd", "cd", "id", "l2d"),
    *("ld", "rm", "fgd", "fgfi", "defeat", "maskd", "ild", "bckd", "ifvd", "cirkd"),
}
PAPER = {"ild", "bckd"}  # whose other variant reads no labels


@pytest.mark.parametrize("name", published())
def test_methods_that_read_labels_are_refused(name: str) -> None:
    specs, task = [presets.kd(), published()[name]()], Classification(5)
    if name not in REFUSED:
        return check_without_labels(specs, task, alone=True)
    remedy = ", set method.variant=paper, or" if name in PAPER else ", or choose a method"
    with pytest.raises(UserError, match=rf"method {name} needs the labels of every") as error:
        check_without_labels(specs, task, alone=False)
    assert f"leave data.unlabelled out{remedy}" in str(error.value)
    if name in PAPER:
        check_without_labels([published()[name](variant="paper")], task, alone=False)
    return None


def test_a_base_that_reads_labels_is_refused() -> None:
    spec = published()["lskd"](base=presets.dkd())
    with pytest.raises(UserError, match="method lskd needs the labels"):
        check_without_labels([spec], Classification(5), alone=False)


@pytest.mark.parametrize(
    ("task", "site"),
    [
        (Detection(5), "class_main"),
        (Detection(5), "edge"),
        (Detection(5), "roi_rest"),
        (Instance(5), "mask"),
        (Instance(5), "class_gated"),
    ],
)
def test_sites_that_labels_define_are_refused(task: Any, site: str) -> None:
    with pytest.raises(UserError, match=f"kd compares the networks at site '{site}'"):
        check_without_labels([presets.kd(sites=(site,))], task, alone=False)
    check_without_labels([presets.kd(sites=("class", "roi"))], task, alone=False)


def test_no_method_learns_from_images_without_labels_alone() -> None:
    check_without_labels([Control()], Classification(5), alone=False)
    with pytest.raises(UserError, match="method none trains on labels, but"):
        check_without_labels([Control()], SimpleNamespace(sites=("class",)), alone=True)


# ------------------------------------------------------------------------------------------ command


def test_the_command_refuses_in_one_sentence(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = caller(capsys)
    base = ["run", "digits/raw", *words(photos), "--out", str(tmp_path / "run")]
    assert "method dkd needs the labels" in call(*base, "method=dkd").error
    assert "does not exist" in call(*base, "data.unlabelled.path=nowhere").error
    assert not (tmp_path / "run").exists() or not list((tmp_path / "run").glob("*.safetensors"))
