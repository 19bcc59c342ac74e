"""Two steps of the recipes for Pascal VOC, CamVid and ADE20K, on files like theirs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.io import savemat

from mask_albums import photo, save, save_palette, values
from stillhouse.models import weights, zoo
from stillhouse.recipes import load
from zoo_runs import SMALL, two_steps

SHAPE, TRAIN, TEST = (64, 80), 16, 2
CROP = "data.transforms=[{kind: random_scale}, {kind: flip}, {kind: random_crop, size: 64}]"


def write_voc(root: Path) -> None:
    """Half of the training images have masks of SBD only."""
    place, half = root / "VOC2012", TRAIN // 2 + 1
    for i in range(half, 2 * half):
        save(place / "JPEGImages" / f"2008_{i:06}.jpg", photo(i, SHAPE))
        content = {"Segmentation": values(i, (0, 3, 15), SHAPE), "Boundaries": np.zeros((20, 1))}
        (root / "sbd/cls").mkdir(parents=True, exist_ok=True)
        savemat(root / "sbd/cls" / f"2008_{i:06}.mat", {"GTcls": content})
    for split, first, count in (("train", 0, half), ("val", 50, TEST)):
        names = [f"2007_{first + i:06}" for i in range(count)]
        for i, name in enumerate(names):
            save(place / "JPEGImages" / f"{name}.jpg", photo(first + i, SHAPE))
            mask = values(first + i, (0, 3, 15, 255), SHAPE)
            save_palette(place / "SegmentationClass" / f"{name}.png", mask)
        listed = place / "ImageSets/Segmentation" / f"{split}.txt"
        listed.parent.mkdir(parents=True, exist_ok=True)
        listed.write_text("\n".join(names) + "\n")


def write_camvid(root: Path) -> None:
    for split, first, count in (("train", 0, TRAIN), ("val", 50, TEST), ("test", 70, TEST)):
        for i in range(first, first + count):
            save(root / split / f"{i}.png", photo(i, SHAPE))
            save(root / f"{split}annot" / f"{i}.png", values(i, range(12), SHAPE))


def write_ade20k(root: Path) -> None:
    for split, first, count in (("training", 0, TRAIN + 2), ("validation", 50, TEST)):
        for i in range(first, first + count):
            save(root / "images" / split / f"ADE_{i:08}.jpg", photo(i, SHAPE))
            save(root / "annotations" / split / f"ADE_{i:08}.png", values(i, range(151), SHAPE))
    header, names = "Idx\tRatio\tTrain\tVal\tStuff\tName", [f"thing {n}" for n in range(1, 151)]
    rows = [f"{n}\t0.1\t10\t1\t1\t{name}" for n, name in enumerate(names, 1)]
    (root / "objectInfo150.txt").write_text("\n".join([header, *rows]) + "\n")


def own_network(name: str) -> dict[str, Any]:
    return {"backbone": f"stillhouse/{name}", "backbone_options": None, "output_stride": 4}


def segformer(width: int) -> dict[str, Any]:
    sizes = [width, width, 2 * width, 2 * width]
    return {
        "hidden_sizes": sizes,
        "depths": [1] * 4,
        "num_attention_heads": [1, 1, 2, 2],
        "decoder_hidden_size": width,
    }


def two_steps_of(recipe: str, words: list[str], networks: list[Any], root: Path, of: int) -> None:
    """The student and the teacher of a recipe with other options; `of` classes."""
    student, teacher = networks
    known = load.load(f"semantic/{recipe}").teacher
    assert known is not None
    path = root / "teacher.safetensors"
    weights.save_weights(zoo.create(known.name, of, **teacher), path)
    words = [
        *SMALL,
        *words,
        f"data.path={root / 'data'}",
        f"student.options={json.dumps(student)}",
        "student.pretrained=",
        f"teacher.options={json.dumps(teacher)}",
        f"teacher.weights={path}",
        "teacher.gate=false",
        "train.epochs=1",
        "engine.log_every=1",
    ]
    two_steps(load.load(f"semantic/{recipe}", words), root / "run", "miou")


def test_two_steps_on_files_like_those_of_voc(tmp_path: Path) -> None:
    write_voc(tmp_path / "data")
    words = [CROP, "data.holdout=2", f"data.options.sbd={tmp_path}/data/sbd"]
    two_steps_of("voc_40k", words, [own_network("small"), own_network("medium")], tmp_path, 21)


def test_two_steps_on_files_like_those_of_camvid(tmp_path: Path) -> None:
    write_camvid(tmp_path / "data")
    networks = [own_network("small"), own_network("medium")]
    two_steps_of("camvid_40k", [CROP], networks, tmp_path, 11)


def test_two_steps_of_segformers_on_files_like_those_of_ade20k(tmp_path: Path) -> None:
    pytest.importorskip("transformers", reason="transformers is optional, and not installed")
    write_ade20k(tmp_path / "data")
    words = [CROP, "data.holdout=2", "train.schedule.warmup=0"]
    two_steps_of("ade20k_segformer", words, [segformer(8), segformer(16)], tmp_path, 150)
