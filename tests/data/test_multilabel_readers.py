"""What all readers of several labels share: the source, what is left out and how it is said."""

import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data.formats.text import read_lines, read_names, read_text, require_folder
from stillhouse.data.holdout import hold_out
from stillhouse.data.images import find_missing
from stillhouse.data.loader import BatchSampler, Loader
from stillhouse.data.mixing import Mix
from stillhouse.data.multilabel.file_source import FileSource, ScannedImages, build_source
from stillhouse.data.multilabel.skip_policy import SkipPolicy
from stillhouse.data.problems import check_bool, check_choice
from stillhouse.data.source import FromTorch, SourceSubset, targets_of
from stillhouse.data.transforms import Flip
from stillhouse.errors import UserError
from tiny import mixed, same

CLASSES = ("bus", "cat", "dog")
LABELS = {
    "a/1.png": ("dog", "bus"),
    "b/2.png": (),
    "a/3.png": ("cat",),
    "4.png": ("bus", "cat", "dog"),
    "b/5.png": ("dog", "dog"),
}
HOT = [[1, 0, 1], [0, 0, 0], [0, 1, 0], [1, 1, 1], [0, 0, 1]]


def said(make: Callable[[], object]) -> str:
    with pytest.raises(UserError) as error:
        make()
    return str(error.value)


def pixels_of(seed: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def tensor_of(seed: int) -> Tensor:
    return torch.from_numpy(pixels_of(seed)).permute(2, 0, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, path in enumerate(LABELS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels_of(seed)).save(tmp_path / path)
    return tmp_path


def found(root: Path, labels: dict[str, Sequence[str]] = LABELS, **changes: Any) -> ScannedImages:
    made = ScannedImages("toy", root, list(labels), list(labels.values()), CLASSES, "rename them")
    return replace(made, **changes)


def opened(root: Path, **options: str) -> FileSource:
    return build_source(found(root), SkipPolicy(**options))


# -------------------------------------------------------------------------------------- the source


def test_samples_are_the_files_in_their_order(root: Path) -> None:
    data = opened(root)
    assert (data.name, data.classes, data.notes) == ("toy", CLASSES, ())
    assert data.paths == tuple(LABELS)
    assert data.targets.dtype == torch.float32 and data.targets.tolist() == HOT
    for index in range(5):
        sample = data[index]
        assert torch.equal(sample.image, tensor_of(index))
        assert isinstance(sample.target, Tensor) and sample.target.tolist() == HOT[index]
        assert sample.key == index
    assert len(data) == len(list(data)) == 5  # ends, as a sequence does


def test_labels_need_no_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.data.images.decode_image", None)
    data = opened(root)
    assert targets_of(data) is data.targets
    rest, held = hold_out(data, 2)
    assert isinstance(held, SourceSubset)
    both = torch.cat([targets_of(rest), targets_of(held)])
    assert sorted(both.tolist()) == sorted(map(list, HOT))
    assert (len(rest), len(held)) == (3, 2)


def test_a_damaged_image_is_named_when_it_is_read(root: Path) -> None:
    (root / "a/3.png").write_bytes((root / "a/3.png").read_bytes()[:-30])
    data = opened(root)
    message = said(lambda: data[2])
    assert message.startswith(f"{root}/a/3.png cannot be read as an image (")
    assert message.endswith("repair it, or skip such files with data.broken=skip")
    assert data[3].key == 3


def test_fingerprint_follows_order_paths_sizes_labels_and_classes(root: Path) -> None:
    first = opened(root).fingerprint
    assert opened(root).fingerprint == first
    turned = dict(reversed(LABELS.items()))
    others = [
        found(root, turned),  # keys are places, so a store of the one must not serve the other
        found(root, {**LABELS, "b/2.png": ("cat",)}),
        found(root, {**LABELS, "4.png": ("bus", "cat")}),
        found(root, {path: labels for path, labels in LABELS.items() if path != "b/5.png"}),
        found(root, classes=("bus", "cat", "dog", "emu")),
        found(root, classes=("cat", "bus", "dog")),
    ]
    prints = {build_source(other, SkipPolicy()).fingerprint for other in others}
    assert len(prints | {first}) == 7
    with (root / "4.png").open("ab") as file:
        file.write(b"x")
    assert opened(root).fingerprint not in prints | {first}
    lost = opened(root)
    (root / "4.png").unlink()
    assert said(lambda: lost.fingerprint).startswith(
        f"{root}/4.png is gone since the data set was scanned"
    )


def test_labels_are_told_apart_however_they_are_cut(root: Path) -> None:
    """The same indices in a row, given to other images, are other data."""
    one = {"a/1.png": ("bus",), "a/3.png": ("cat", "dog")}
    other = {"a/1.png": ("bus", "cat"), "a/3.png": ("dog",)}
    prints = {
        build_source(found(root, labels), SkipPolicy()).fingerprint for labels in (one, other)
    }
    assert len(prints) == 2


def test_it_travels_to_workers(root: Path) -> None:
    data: FileSource = pickle.loads(pickle.dumps(opened(root)))
    assert torch.equal(data[3].image, tensor_of(3)) and data.targets.tolist() == HOT
    assert data.fingerprint == opened(root).fingerprint


# -------------------------------------------------------------------------------- what is left out


def test_images_without_a_label_stay_unless_told_otherwise(root: Path) -> None:
    assert opened(root, unlabelled="keep").paths == tuple(LABELS)
    data = opened(root, unlabelled="skip")
    assert data.paths == tuple(path for path in LABELS if path != "b/2.png")
    assert data.targets.tolist() == [row for row in HOT if any(row)]
    assert [sample.key for sample in data] == [0, 1, 2, 3]
    assert torch.equal(data[1].image, tensor_of(2))
    assert data.notes == (
        f"toy: 1 of 5 images have no labels and are skipped; the first is {root}/b/2.png",
    )
    assert said(lambda: opened(root, unlabelled="fail")) == (
        f"toy: 1 of 5 images have no labels, the first is {root}/b/2.png; label them, keep them "
        "with unlabelled='keep', or skip them with unlabelled='skip'"
    )


def test_files_that_are_missing_fail_unless_told_otherwise(root: Path) -> None:
    (root / "b/5.png").unlink()
    (root / "a/3.png").unlink()
    assert said(lambda: opened(root)) == (
        f"toy: 2 of 5 images do not exist, the first is {root}/a/3.png; put them there, or skip "
        "them with missing='skip'"
    )
    data = opened(root, missing="skip")
    assert data.paths == ("a/1.png", "b/2.png", "4.png")
    assert data.targets.tolist() == [HOT[0], HOT[1], HOT[3]]
    assert data.notes == (
        f"toy: 2 of 5 images do not exist and are skipped; the first is {root}/a/3.png",
    )


def test_labels_of_no_class_fail_unless_told_otherwise(root: Path) -> None:
    labels = {**LABELS, "a/3.png": ("cat", "dgo", "emu"), "b/5.png": ("emu",)}
    assert said(lambda: build_source(found(root, labels), SkipPolicy())) == (
        f"toy: 3 labels are not among the 3 classes, the first is 'dgo' of {root}/a/3.png; rename "
        "them, or skip them with unknown='skip'; did you mean 'dog'?"
    )
    data = build_source(found(root, labels), SkipPolicy(unknown="skip"))
    assert data.targets.tolist() == [*HOT[:4], [0, 0, 0]]  # the image stays, without the label
    assert data.notes == (
        f"toy: 3 labels are not among the 3 classes, the first is 'dgo' of {root}/a/3.png; they "
        "are skipped",
    )


def test_an_image_whose_only_label_is_left_out_has_none(root: Path) -> None:
    labels = {**LABELS, "a/1.png": ("emu",)}
    data = build_source(found(root, labels), SkipPolicy(unknown="skip", unlabelled="skip"))
    assert data.paths == ("a/3.png", "4.png", "b/5.png")
    assert len(data.notes) == 2 and "2 of 5 images have no labels" in data.notes[1]


def test_damaged_images_can_be_left_out(root: Path) -> None:
    (root / "a/1.png").write_text("no image")
    data = opened(root, broken="skip")
    assert data.paths == tuple(LABELS)[1:]
    assert data.targets.tolist() == HOT[1:]
    assert data.notes == (
        f"toy: 1 of 5 images cannot be read and are skipped; the first is {root}/a/1.png",
    )


def test_all_that_is_left_out_is_noted_after_what_the_reader_says(root: Path) -> None:
    (root / "4.png").unlink()
    (root / "b/5.png").write_text("no image")
    labels = {**LABELS, "a/1.png": ("dog", "emu")}
    policy = SkipPolicy("skip", "skip", "skip", "skip")
    data = build_source(found(root, labels, notes=("toy: something",)), policy)
    assert data.paths == ("a/1.png", "a/3.png")
    assert data.targets.tolist() == [[0, 0, 1], [0, 1, 0]]
    words = ["something", "not among the 3 classes", "do not exist", "no labels", "cannot be read"]
    assert [word in note for word, note in zip(words, data.notes, strict=True)] == [True] * 5
    assert "1 of 4 images have no labels" in data.notes[3]  # of those that were still there


def test_nothing_left_is_a_mistake(root: Path) -> None:
    labels = {"b/2.png": (), "no.png": ()}
    message = said(lambda: build_source(found(root, labels), SkipPolicy("skip", missing="skip")))
    assert message.startswith(f"toy: no images are left in {root} (1 of 2 images do not exist")
    assert "; 1 of 1 images have no labels" in message
    assert (
        said(lambda: build_source(found(root, {}), SkipPolicy()))
        == f"toy: no images are left in {root}"
    )


@pytest.mark.parametrize(
    "options, message",
    [
        (
            {"unlabelled": "kep"},
            "`unlabelled` must be 'keep', 'skip' or 'fail', got 'kep'; did you mean 'keep'?",
        ),
        ({"unknown": "keep"}, "`unknown` must be 'skip' or 'fail', got 'keep'"),
        ({"missing": "Skip"}, "`missing` must be 'skip' or 'fail', got 'Skip'; did you mean "),
        ({"broken": True}, "`broken` must be 'skip' or 'fail', got True"),
        ({"missing": ["skip"]}, "`missing` must be 'skip' or 'fail', got ['skip']"),
    ],
    ids=str,
)
def test_wrong_words_are_refused(options: dict[str, Any], message: str) -> None:
    assert said(lambda: SkipPolicy(**options)).startswith(message)


def test_choices_and_switches() -> None:
    check_choice("year", 2014, (2014, 2017))
    assert said(lambda: check_choice("year", 2014.0, (2014, 2017))).startswith(
        "`year` must be 2014 or 2017, got 2014.0"
    )
    assert said(lambda: check_choice("year", 2041, (2014, 2017))) == (
        "`year` must be 2014 or 2017, got 2041; did you mean '2017' or '2014'?"
    )
    check_bool("crowd", False)
    assert said(lambda: check_bool("crowd", "no")) == "`crowd` must be true or false, got 'no'"
    assert said(lambda: check_bool("crowd", 1)) == "`crowd` must be true or false, got 1"


def test_each_folder_is_looked_into_once(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked: list[str] = []
    scan = os.scandir
    paths = ["a/1.png", "a/x.png", "4.png", "no/1.png", "b/2.png", "a/3.png", "4.png/1.png"]
    paths += [f"{root}/b/5.png", f"{root}/b/6.png"]
    with monkeypatch.context() as patched:
        patched.setattr(os, "scandir", lambda place: looked.append(str(place)) or scan(place))
        patched.setattr(os, "stat", None)
        bad = find_missing(root, paths)
    assert bad.tolist() == [False, True, False, True, False, False, True, False, True]
    assert sorted(looked) == sorted(
        str(root / place) for place in ("a", ".", "no", "b", "4.png", f"{root}/b")
    )


# ------------------------------------------------------------------------------------ text and path


def test_lines_and_names(tmp_path: Path) -> None:
    file = tmp_path / "a.txt"
    file.write_bytes("\ufeffcät\r\n\r\n  dog \nemu".encode())
    assert read_lines(file, "repair") == {1: "cät", 3: "dog", 4: "emu"}
    assert read_names(file, "repair") == ("cät", "dog", "emu")
    file.write_text("cat\ndog\n\ncat\n")
    assert said(lambda: read_names(file, "repair")) == (
        f"{file}, line 4: 'cat' is already in line 1; remove one of them"
    )
    file.write_text("\n")
    assert said(lambda: read_names(file, "name them")) == f"{file} is empty; name them"


def test_text_that_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_bytes("chät".encode("latin1"))
    message = said(lambda: read_text(tmp_path / "train.csv", "repair"))
    assert message.startswith(f"{tmp_path}/train.csv is not UTF-8 text (")
    assert said(lambda: read_text(tmp_path / "trian.csv", "write it")) == (
        f"{tmp_path}/trian.csv does not exist; write it; did you mean 'train.csv'?"
    )
    assert "Is a directory" in said(lambda: read_text(tmp_path, "repair"))


def test_places_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "coco").mkdir()
    (tmp_path / "file").touch()
    assert require_folder("x", tmp_path / "coco") == tmp_path / "coco"
    assert said(lambda: require_folder("x", tmp_path / "cocoa")) == (
        f"x: {tmp_path}/cocoa does not exist; did you mean 'coco'?"
    )
    assert said(lambda: require_folder("x", tmp_path / "file")).startswith(
        f"x: {tmp_path}/file is a fil"
    )


# ----------------------------------------------------------------------------------------- batches


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_carry_a_row_of_labels_for_each_image(root: Path, workers: int) -> None:
    data = opened(root)
    made = Loader(
        data,
        BatchSampler(5, 2, True, 3),
        (0.5,) * 3,
        (0.25,) * 3,
        transforms=[Flip()],
        workers=workers,
    )
    batches = list(made.epoch(0))
    assert [len(batch.keys) for batch in batches] == [2, 2]
    for batch in batches:
        assert batch.target.shape == (2, 3) and batch.target.dtype == torch.float32
        assert batch.target.tolist() == [HOT[key] for key in batch.keys.tolist()]
        for key, image in zip(batch.keys.tolist(), batch.images, strict=True):
            wanted = (tensor_of(key).double() / 255 - 0.5) / 0.25
            assert min((image - x).abs().max() for x in (wanted, wanted.flip(2))) < 1e-5


def test_workers_change_nothing(root: Path) -> None:
    def batches(workers: int) -> list[Any]:
        plan, looks = BatchSampler(5, 3), {"transforms": [Flip()], "workers": workers}
        return list(Loader(opened(root), plan, (0.5,) * 3, (0.2,) * 3, **looks).epoch(1))

    for ours, theirs in zip(batches(0), batches(2), strict=True):
        assert same(ours, theirs)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_image_stays_one_sentence_in_a_worker(root: Path, workers: int) -> None:
    (root / "a/3.png").write_text("no image")
    made = Loader(opened(root), BatchSampler(5, 5), (0.5,) * 3, (0.2,) * 3, workers=workers)
    message = said(lambda: list(made.epoch(0)))
    assert message.startswith(f"{root}/a/3.png cannot be read") and "\n" not in message


# ------------------------------------------------------------------------------------------ mixing


def several(n: int = 12, classes: int = 6) -> tuple[Tensor, Tensor]:
    labels = (torch.rand(n, classes) < 0.4).float()
    labels[0] = 0  # an image may have none
    return torch.randn(n, 3, 9, 14), labels


@pytest.mark.parametrize("seed", range(6))
def test_mixup_shares_all_labels_of_both_images(seed: int) -> None:
    images, labels = several()
    before = labels.clone()
    found, shares = mixed(images, labels, 6, Mix(mixup=0.8), seed)
    assert torch.equal(labels, before) and shares.dtype == torch.float32
    pixels = (found - images.roll(1, 0)) / (images - images.roll(1, 0))
    share = float(pixels.double().median())
    for i in range(12):
        wanted = share * labels[i].double() + (1 - share) * labels[i - 1].double()
        assert (shares[i] - wanted).abs().max() < 1e-3
    assert shares.min() >= 0 and shares.max() <= 1


@pytest.mark.parametrize("seed", range(6))
def test_cutmix_shares_labels_by_area(seed: int) -> None:
    images, labels = several()
    found, shares = mixed(images, labels, 6, Mix(cutmix=1.0), seed)
    own = 1 - float((found != images).any(1)[0].double().mean())
    for i in range(12):
        wanted = own * labels[i].double() + (1 - own) * labels[i - 1].double()
        assert (shares[i] - wanted).abs().max() < 1e-6


def test_no_mixing_leaves_several_labels_as_they_are() -> None:
    images, labels = several()
    found, shares = mixed(images, labels, 6, Mix(mixup=1.0, probability=0.0), 0)
    assert torch.equal(found, images) and torch.equal(shares, labels)


def test_a_loader_mixes_several_labels(root: Path) -> None:
    how = Mix(mixup=1.0)
    made = Loader(opened(root), BatchSampler(5, 4, True, 3), (0.5,) * 3, (0.2,) * 3, mixing=how)
    plain = Loader(opened(root), BatchSampler(5, 4, True, 3), (0.5,) * 3, (0.2,) * 3)
    (found,), (whole,) = made.epoch(0), plain.epoch(0)
    rest = whole.target.roll(1, 0)
    apart = whole.target != rest
    shares = ((found.target - rest) / (whole.target - rest))[apart]
    assert len(shares) and (shares - shares[0]).abs().max() < 1e-5 and 0 <= shares[0] <= 1
    assert torch.equal(found.target[~apart], whole.target[~apart])


# -------------------------------------------------------------------------------------- from torch


class Torch(list[Any]):
    """A torch data set of the map style, in as few words as there can be."""


def from_torch(*labels: object) -> FromTorch:
    image = torch.zeros(3, 4, 4, dtype=torch.uint8)
    return FromTorch(Torch((image, label) for label in labels), CLASSES, "toy")


@pytest.mark.parametrize(
    "label",
    [
        [1, 0, 1],
        (1, 0, 1),
        [True, False, True],
        [1.0, 0.0, 1.0],
        torch.tensor([1, 0, 1]),
        torch.tensor([1.0, 0.0, 1.0], dtype=torch.float64),
        torch.tensor([True, False, True]),
        np.array([1, 0, 1]),
        np.array([1, 0, 1], dtype=np.uint8),
        np.array([True, False, True]),
    ],
    ids=[
        *("list", "tuple", "bools", "floats", "tensor", "double", "tensor of bools"),
        *("array", "bytes", "array of bools"),
    ],
)
def test_several_labels_of_any_kind(label: object) -> None:
    sample = from_torch(label)[0]
    assert isinstance(sample.target, Tensor)
    assert sample.target.dtype == torch.float32 and sample.target.tolist() == [1, 0, 1]


def test_several_labels_are_read_where_nobody_knows_them() -> None:
    data = from_torch([1, 0, 1], [0, 0, 0], [0, 1, 0])
    labels = targets_of(data)
    assert labels.dtype == torch.float32
    assert labels.tolist() == [[1, 0, 1], [0, 0, 0], [0, 1, 0]]
    assert from_torch([1, 0, 1]).fingerprint != from_torch([1, 1, 1]).fingerprint
    assert from_torch([1, 0, 1]).fingerprint == from_torch(torch.tensor([1, 0, 1])).fingerprint


@pytest.mark.parametrize(
    "label, words",
    [
        ([1, 0], "3 numbers, 0 or 1 for each class, got 2"),
        ([1, 0, 1, 0], "3 numbers, 0 or 1 for each class, got 4"),
        ([], "3 numbers, 0 or 1 for each class, got 0"),
        ([1], "3 numbers, 0 or 1 for each class, got 1"),  # a list of indices is none
        ([0, 1, 2], "3 numbers, 0 or 1 for each class, got 3"),
        ([0, -1, 1], "3 numbers, 0 or 1 for each class, got 3"),
        ([0.5, 0.5, 0.0], "3 numbers, 0 or 1 for each class, got 3"),
        (torch.tensor([0.0, torch.nan, 1.0]), "3 numbers, 0 or 1 for each class, got 3"),
    ],
    ids=str,
)
def test_several_labels_that_are_none_are_refused(label: object, words: str) -> None:
    message = said(lambda: from_torch([0, 0, 0], label)[1])
    assert message.startswith("toy, sample 1: several labels must be ") and words in message


@pytest.mark.parametrize("label", [["cat", "dog"], [[0], [1, 0]], [None] * 3], ids=str)
def test_lists_of_something_else_are_refused_in_one_sentence(label: object) -> None:
    """Names of classes would be a fair guess, and are none."""
    message = said(lambda: from_torch(label)[0])
    assert message.startswith("toy, sample 0: ") and "0 or 1" in message
