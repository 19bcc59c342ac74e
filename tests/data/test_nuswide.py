from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data.catalogue import open_source
from stillhouse.data.multilabel.nuswide import read_nuswide
from stillhouse.errors import UserError

CONCEPTS = ("airport", "animal", "beach", "sky")
LISTS = {
    "Train": ["actor\\0001_212.jpg", "zebra\\0002_14.jpg", "actor\\0003_9.jpg"],
    "Test": ["beach\\0004_3.jpg", "actor\\0005_77.jpg"],
}
MARKS = {
    "Train": [[0, 1, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]],
    "Test": [[0, 0, 1, 1], [0, 1, 0, 0]],
}


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def tensor_of(seed: int) -> Tensor:
    pixels = np.random.default_rng(seed).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    return torch.from_numpy(pixels).permute(2, 0, 1)


def marks_of(root: Path, concept: str, part: str = "Train") -> Path:
    return root / "Groundtruth" / "TrainTestLabels" / f"Labels_{concept}_{part}.txt"


def write(root: Path, images: str = "Flickr", end: str = "\n") -> Path:
    for folder in ("ConceptsList", "ImageList", "Groundtruth/TrainTestLabels"):
        (root / folder).mkdir(parents=True)
    (root / "ConceptsList" / "Concepts81.txt").write_text(end.join(CONCEPTS) + end)
    for part, paths in LISTS.items():
        (root / "ImageList" / f"{part}Imagelist.txt").write_bytes((end.join(paths) + end).encode())
        for column, concept in enumerate(CONCEPTS):
            lines = [str(row[column]) for row in MARKS[part]]
            marks_of(root, concept, part).write_bytes((end.join(lines) + end).encode())
        for seed, path in enumerate(paths):
            place = root / images / path.replace("\\", "/")
            place.parent.mkdir(parents=True, exist_ok=True)
            # Their names say jpg; what they hold here is without loss, so that it can be compared.
            image = Image.fromarray(
                tensor_of(seed + 10 * (part == "Test")).permute(1, 2, 0).numpy()
            )
            image.save(place, "PNG")
    return root


# ---------------------------------------------------------------------------------- what is there


@pytest.mark.parametrize("images", ["Flickr", "images", "."])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_images_have_the_concepts_of_their_line(images: str, end: str, tmp_path: Path) -> None:
    write(tmp_path, images, end)
    for split, part, seed in (("train", "Train", 0), ("test", "Test", 10)):
        data = read_nuswide(tmp_path, split)
        assert data.classes == CONCEPTS
        assert data.paths == tuple(path.replace("\\", "/") for path in LISTS[part])
        assert data.targets.tolist() == MARKS[part]
        assert (data.name, data.notes) == (f"nuswide/labels/{split}", ())
        for index in range(len(data)):
            assert torch.equal(data[index].image, tensor_of(seed + index))
    assert read_nuswide(tmp_path, "train").fingerprint != read_nuswide(tmp_path, "test").fingerprint


def test_the_folder_of_the_images_can_be_named(tmp_path: Path) -> None:
    write(tmp_path, "small/pictures")
    (tmp_path / "Flickr").mkdir()
    assert "3 of 3 images do not exist" in said(lambda: read_nuswide(tmp_path, "train"))
    data = open_source("nuswide/labels", tmp_path, "train", images="small/pictures")
    assert torch.equal(data[2].image, tensor_of(2))
    assert said(lambda: read_nuswide(tmp_path, "train", images="smal")) == (
        f"nuswide/labels: {tmp_path}/smal is not a folder; set `images` to the image folder"
    )


def test_concepts_keep_the_order_of_their_list(tmp_path: Path) -> None:
    write(tmp_path)
    file = tmp_path / "ConceptsList" / "Concepts81.txt"
    file.write_text("sky\nbeach\n")
    data = read_nuswide(tmp_path, "train")
    assert data.classes == ("sky", "beach")
    assert data.targets.tolist() == [[1, 0], [0, 0], [1, 1]]
    file.write_text("sky\nbeach\nsky\n")
    assert said(lambda: read_nuswide(tmp_path, "train")).startswith(
        f"{file}, line 3: 'sky' is already in"
    )


@pytest.mark.parametrize(
    "text",
    ["0\n1\n1", "0 \n1 \n1 \n", " 0\n1\t\n1\n", "0\n1\n1\n\n\n", "0\r\n1\r\n1"],
    ids=["no end", "blanks after", "blanks", "empty lines at the end", "no end, two characters"],
)
def test_marks_may_be_written_less_neatly(text: str, tmp_path: Path) -> None:
    marks_of(write(tmp_path), "beach").write_bytes(text.encode())
    assert read_nuswide(tmp_path, "train").targets[:, 2].tolist() == [0, 1, 1]


# -------------------------------------------------------------------------------------- policies


def test_images_without_a_label_stay_as_in_the_papers(tmp_path: Path) -> None:
    write(tmp_path)
    assert len(read_nuswide(tmp_path, "train")) == 3
    data = read_nuswide(tmp_path, "train", unlabelled="skip")
    assert data.targets.tolist() == [MARKS["Train"][0], MARKS["Train"][2]]
    assert "1 of 3 images have no labels" in data.notes[0]


def test_missing_images(tmp_path: Path) -> None:
    """Many of NUS-WIDE's have been taken from where they were."""
    write(tmp_path)
    (tmp_path / "Flickr" / "actor" / "0001_212.jpg").unlink()
    assert said(lambda: read_nuswide(tmp_path, "train")) == (
        "nuswide/labels/train: 1 of 3 images do not exist, the first is "
        f"{tmp_path}/Flickr/actor/0001_212.jpg; put them there, or skip them with missing='skip'"
    )
    data = read_nuswide(tmp_path, "train", missing="skip")
    assert data.paths == ("zebra/0002_14.jpg", "actor/0003_9.jpg")
    assert data.targets.tolist() == MARKS["Train"][1:]
    assert "1 of 3 images do not exist" in data.notes[0]


def test_an_option_that_cannot_matter_is_none(tmp_path: Path) -> None:
    message = said(lambda: open_source("nuswide/labels", write(tmp_path), "train", unknown="skip"))
    assert message == "data.train: nuswide/labels has no option 'unknown'"


# -------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    "text, number, held",
    [
        ("0\n2\n1\n", 2, "2"),
        ("0\n1\nx\n", 3, "x"),
        ("01\n1\n1\n", 1, "01"),
        ("0\n\n1\n", 2, ""),
        ("-1\n1\n1\n", 1, "-1"),
        ("0\n1\n\xff\n", 3, "\xff"),
        ("0 1\n1\n1\n", 1, "0 1"),
    ],
)
def test_marks_of_another_kind(text: str, number: int, held: str, tmp_path: Path) -> None:
    file = marks_of(write(tmp_path), "beach")
    file.write_bytes(text.encode("latin1"))
    assert said(lambda: read_nuswide(tmp_path, "train")) == (
        f"{file}, line {number}: expected 0 or 1, got {held!r}; unpack that part of NUS-WIDE "
        "there again"
    )


@pytest.mark.parametrize("text, count", [("0\n1\n", 2), ("0\n1\n1\n0\n", 4), ("", 0), ("\n\n", 0)])
def test_other_counts_of_lines(text: str, count: int, tmp_path: Path) -> None:
    file = marks_of(write(tmp_path), "beach")
    file.write_text(text)
    assert said(lambda: read_nuswide(tmp_path, "train")) == (
        f"{file} has {count} lines, but {tmp_path}/ImageList/TrainImagelist.txt lists 3 images; "
        "unpack that part of NUS-WIDE there again"
    )


@pytest.mark.parametrize(
    "name",
    [
        "ConceptsList/Concepts81.txt",
        "ImageList/TestImagelist.txt",
        "Groundtruth/TrainTestLabels/Labels_sky_Test.txt",
    ],
)
def test_files_that_are_missing_are_asked_for(name: str, tmp_path: Path) -> None:
    (write(tmp_path) / name).unlink()
    assert said(lambda: read_nuswide(tmp_path, "test")).startswith(
        f"{tmp_path}/{name} does not exist; unpack that part of NUS-WIDE there"
    )


def test_wrong_words(tmp_path: Path) -> None:
    assert said(lambda: read_nuswide(tmp_path, "val")).startswith(
        "`split` must be 'train' or 'test', got 'val'"
    )
    assert said(lambda: read_nuswide(tmp_path / "no", "train")).endswith(
        "no does not exist; set data.path to the folder of the data set"
    )
    options: dict[str, Any] = {"missing": "skipp"}
    assert said(lambda: read_nuswide(tmp_path, "train", **options)).endswith("did you mean 'skip'?")
