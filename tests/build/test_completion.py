"""A recipe from data and networks alone, for each task."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stillhouse.build.completion import complete_recipe
from stillhouse.engine.optimisers import AdamW
from stillhouse.errors import UserError
from stillhouse.recipes.schema import Recipe

NETWORKS = ("teacher=stillhouse/large", "student=stillhouse/small")


def image(path: Path, height: int = 72, width: int = 60) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(path)


def mask(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.zeros((72, 60), np.uint8)
    values[20:40, 10:30] = 1
    Image.fromarray(values).save(path)


def class_folders(root: Path, splits: tuple[str, ...] = ("train", "val"), side: int = 0) -> Path:
    for split in splits:
        for name in ("cat", "dog"):
            for i in range(10):
                size = (side + i, side) if side else (72, 60)
                image(root / split / name / f"{i}.png", *size)
    return root


def masks(root: Path, instances: bool = False) -> Path:
    for split in ("train", "val"):
        for i in range(10):
            image(root / split / "images" / f"{i}.png")
            mask(root / split / "masks" / f"{i}.png")
        if instances:
            rows = "".join(f"{i}.png,1,cat\n" for i in range(10))
            (root / split / "instances.csv").write_text(f"mask,value,class\n{rows}")
    (root / "classes.txt").write_text("cat\n" if instances else "sky\ncat\n")
    return root


def yolo(root: Path, val: bool = True) -> Path:
    for split in ("train", "val"):
        for i in range(10):
            image(root / "images" / split / f"{i}.png")
            text = root / "labels" / split / f"{i}.txt"
            text.parent.mkdir(parents=True, exist_ok=True)
            text.write_text("0 0.5 0.5 0.3 0.3\n")
    places = "train: images/train\n" + ("val: images/val\n" if val else "")
    (root / "data.yaml").write_text(f"names: [cat]\n{places}")
    return root


def labels(root: Path) -> Path:
    for split in ("train", "val"):
        for i in range(10):
            image(root / f"{split}{i}.png")
        rows = "".join(f"{split}{i}.png,cat;dog\n" for i in range(10))
        (root / f"{split}.csv").write_text(f"path,labels\n{rows}")
    return root


def complete(root: Path, *words: str) -> Recipe:
    return complete_recipe([f"data.path={root}", *words])


@pytest.mark.parametrize(
    ("make", "data", "task", "student", "method", "site"),
    [
        (class_folders, "folder", "classification", "stillhouse/small", "kd", "class"),
        (labels, "csv/labels", "multilabel", "stillhouse/small", "tld_dist", "class"),
        (yolo, "yolo/objects", "detection", "detector/gfocal", "tld_dist", "class"),
        (masks, "folder/semantic", "semantic", "segmenter/fpn", "dist", "pixel"),
        (
            lambda root: masks(root, instances=True),
            "folder/instances",
            "instance",
            "detector/solov2",
            "tld_dist",
            "class",
        ),
    ],
)
def test_each_task_is_found_and_its_first_step_can_be_made(
    tmp_path: Path, make, data: str, task: str, student: str, method: str, site: str
) -> None:
    from stillhouse.build.session import Session
    from stillhouse.runs.checks import TrainingChecks, check_run

    recipe = complete(make(tmp_path), *NETWORKS)
    assert (recipe.data.name, recipe.task.name, recipe.student.name) == (data, task, student)
    assert [(one.name, one.sites) for one in recipe.method] == [(method, (site,))]
    assert isinstance(recipe.train.optimiser, AdamW) and recipe.train.schedule.warmup > 0
    assert recipe.teacher is not None and recipe.teacher.train == recipe.train
    checked = check_run(recipe, TrainingChecks(recipe, Session.open(recipe)), tmp_path)
    assert len(checked.teachers) == 1 and checked.student.steps >= 100


@pytest.mark.parametrize("name", ["detector/fcos", "detector/faster_rcnn", "timm/resnet18"])
def test_a_detector_of_random_weights_is_not_frozen(tmp_path: Path, name: str) -> None:
    recipe = complete(yolo(tmp_path), f"student={name}", f"teacher={name}")
    assert recipe.student.options["frozen"] == 0
    assert recipe.teacher is not None and recipe.teacher.options["frozen_norms"] is False
    given = complete(yolo(tmp_path), f"student={name}", "student.options.frozen=2")
    assert given.student.options["frozen"] == 2
    begun = complete(yolo(tmp_path), f"student={name}", "student.pretrained=backbone.pt")
    assert "frozen" not in begun.student.options


def test_words_win_over_what_is_found(tmp_path: Path) -> None:
    words = ("train.epochs=3", "method=dkd", "data.batch=4", "train.optimiser.lr=0.5")
    recipe = complete(class_folders(tmp_path), *NETWORKS, *words)
    assert (recipe.train.epochs, recipe.method[0].name, recipe.data.batch) == (3, "dkd", 4)
    assert recipe.train.optimiser == AdamW(lr=0.5, weight_decay=0.05, decay_norms=False)
    assert recipe.train.schedule.warmup == pytest.approx(3 / 20)


def test_another_optimiser_takes_no_options_from_the_one_that_is_found(tmp_path: Path) -> None:
    words = ("train.optimiser={kind: sgd, lr: 0.01}", "train.schedule={kind: poly}")
    train = complete(class_folders(tmp_path), *NETWORKS, *words).train
    assert (train.optimiser.kind, train.optimiser.weight_decay) == ("sgd", 0)
    assert (train.schedule.kind, train.schedule.warmup) == ("poly", 0)


def test_without_a_teacher_the_student_is_trained_alone(tmp_path: Path) -> None:
    recipe = complete(class_folders(tmp_path), "student=stillhouse/small")
    assert recipe.teacher is None and not recipe.distils


def test_large_images_are_cropped_to_the_size_of_the_network(tmp_path: Path) -> None:
    root = class_folders(tmp_path, side=150)
    recipe = complete(root, "student=timm/vit_tiny_patch16_384")
    assert [t.kind for t in recipe.data.transforms] == ["resized_crop", "flip"]
    assert recipe.data.transforms[0].size == recipe.data.evaluation[1].size == 384
    assert complete(root, "student=timm/resnet18").data.transforms[0].size == 224


def test_validation_is_held_out_where_there_is_none(tmp_path: Path) -> None:
    assert complete(class_folders(tmp_path / "a", ("train",)), NETWORKS[1]).data.holdout == 2
    assert complete(class_folders(tmp_path / "b"), NETWORKS[1]).data.holdout == 0
    assert complete(yolo(tmp_path / "c", val=False), NETWORKS[1]).data.holdout == 1
    assert complete(yolo(tmp_path / "d"), NETWORKS[1]).data.holdout == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], r"has the layouts of voc/labels, voc/objects and voc/semantic; set data\.name to one"),
        (["task=classification"], r"has the layouts of voc/labels, voc/objects and voc/semantic"),
        (["student=detector/fcos"], "ImageSets"),  # read as boxes, of which there are none
        (["data.name=nosuch"], "there is no data set 'nosuch'"),
    ],
)
def test_a_folder_that_can_be_read_in_several_ways(
    tmp_path: Path, words: list[str], message: str
) -> None:
    for folder in ("JPEGImages", "Annotations", "SegmentationClass"):
        (tmp_path / folder).mkdir()
    with pytest.raises(UserError, match=message):
        complete(tmp_path, "student=timm/resnet18", *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["student=stillhouse/small"], r"needs data; add data\.path=FOLDER"),
        (["data=digits/raw"], r"needs a student; add student=NAME"),
        (["data=digits/raw", "student=stillhouse/small", "trian.epochs=1"], "unknown key trian"),
        (["data=digits/raw", "oops", "student=stillhouse/small"], "'oops' is not an override"),
    ],
)
def test_what_is_missing_or_wrong_is_one_sentence(words: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        complete_recipe(words)
