import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data.holdout import hold_out
from stillhouse.data.images import decode_image
from stillhouse.data.single.folder import FolderSource, read_folder
from stillhouse.data.source import targets_of
from stillhouse.errors import UserError


def pixels_of(seed: int, height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def paint(path: Path, seed: int = 0, **options: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels_of(seed)).save(path, **options)
    return path


def tensor_of(seed: int) -> Tensor:
    return torch.from_numpy(pixels_of(seed)).permute(2, 0, 1)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for seed, name in enumerate(("dog/b.png", "cat/deep/er/a.PNG", "cat/z.bmp", "dog/a.ppm")):
        paint(tmp_path / "set" / "train" / name, seed)
    return tmp_path / "set" / "train"


def test_keys_are_the_order_of_the_paths(root: Path) -> None:
    data = read_folder(root)
    assert data.classes == ("cat", "dog")
    assert data.paths == ("cat/deep/er/a.PNG", "cat/z.bmp", "dog/a.ppm", "dog/b.png")
    assert data.name == "set/train"
    assert data.skipped == ()
    for index, (seed, label) in enumerate(((1, 0), (2, 0), (3, 1), (0, 1))):
        sample = data[index]
        assert torch.equal(sample.image, tensor_of(seed))
        assert sample.image.dtype == torch.uint8
        assert sample.image.is_contiguous()
        assert (sample.target, sample.key) == (label, index)
    assert len(data) == len(list(data)) == 4  # ends, as a sequence does


@pytest.mark.parametrize("suffix", ["tif", "tiff", "png", "bmp", "ppm", "webp"])
def test_formats_without_loss_give_every_pixel(suffix: str, tmp_path: Path) -> None:
    paint(tmp_path / "a" / f"x.{suffix}", 3, **({"lossless": True} if suffix == "webp" else {}))
    assert torch.equal(read_folder(tmp_path)[0].image, tensor_of(3))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "JPG", "gif"])
def test_formats_with_loss_give_what_pillow_gives(suffix: str, tmp_path: Path) -> None:
    path = paint(tmp_path / "a" / f"x.{suffix}", 3)
    with Image.open(path) as image:
        wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_folder(tmp_path)[0].image, wanted)


def test_other_files_are_passed_over(root: Path) -> None:
    (root / "dog" / "note.txt").write_text("a note")
    (root / "list.csv").write_text("a,b")
    paint(root / "dog" / ".hidden.png")
    paint(root / ".cache" / "x.png")
    paint(root / "dog" / ".thumbs" / "x.png")
    assert len(read_folder(root)) == 4
    assert read_folder(root).classes == ("cat", "dog")


def test_links_are_followed(root: Path, tmp_path: Path) -> None:
    paint(tmp_path / "elsewhere" / "x.png")
    (root / "ape").symlink_to(tmp_path / "elsewhere")
    (root / "cat" / "more").symlink_to(tmp_path / "elsewhere")
    assert read_folder(root).paths[:3] == ("ape/x.png", "cat/deep/er/a.PNG", "cat/more/x.png")


def test_an_empty_class_keeps_its_place(root: Path) -> None:
    (root / "cow").mkdir()
    data = read_folder(root)
    assert data.classes == ("cat", "cow", "dog")
    assert data.targets.tolist() == [0, 0, 2, 2]


def test_labels_need_no_decoding(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stillhouse.data.images.decode_image", None)
    data = read_folder(root)
    assert targets_of(data) is data.targets
    assert data.targets.tolist() == [0, 0, 1, 1]
    rest, held = hold_out(data, 2)
    assert targets_of(rest).tolist() == targets_of(held).tolist() == [0, 1]


def test_fingerprint_follows_paths_sizes_and_classes(root: Path) -> None:
    first = read_folder(root).fingerprint
    assert read_folder(root).fingerprint == first
    moved = (root / "dog" / "b.png").rename(root / "cat" / "b.png")
    assert read_folder(root).fingerprint != first
    moved.rename(root / "dog" / "b.png")
    assert read_folder(root).fingerprint == first
    with (root / "dog" / "b.png").open("ab") as file:
        file.write(b"x")
    assert read_folder(root).fingerprint != first
    lost = read_folder(root)
    (root / "dog" / "b.png").unlink()
    with pytest.raises(UserError, match=r"dog/b.png is gone since the data set was scanned"):
        _ = lost.fingerprint


def test_it_travels_to_workers(root: Path) -> None:
    data: FolderSource = pickle.loads(pickle.dumps(read_folder(root)))
    assert torch.equal(data[3].image, tensor_of(0))
    assert data.fingerprint == read_folder(root).fingerprint


@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation(orientation: int, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    paint(tmp_path / "a" / "x.png", 1, exif=exif)
    image, upright = read_folder(tmp_path)[0].image, tensor_of(1)
    # How a viewer turns what is stored, by the table of the EXIF standard.
    turns = {
        1: upright,
        2: upright.flip(2),
        3: upright.flip(1, 2),
        4: upright.flip(1),
        5: upright.transpose(1, 2),
        6: upright.flip(1).transpose(1, 2),
        7: upright.flip(1, 2).transpose(1, 2),
        8: upright.transpose(1, 2).flip(1),
    }
    assert torch.equal(image, turns[orientation])


def save(tmp_path: Path, image: Image.Image, name: str = "x.png", **options: Any) -> Tensor:
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / name, **options)
    return read_folder(tmp_path)[0].image


def test_grey_becomes_three_channels(tmp_path: Path) -> None:
    grey = pixels_of(0)[:, :, 0].copy()
    image = save(tmp_path, Image.fromarray(grey))
    assert torch.equal(image, torch.from_numpy(grey).expand(3, -1, -1))


def test_sixteen_bits_keep_their_upper_eight(tmp_path: Path) -> None:
    wide = np.random.default_rng(0).integers(0, 2**16, (5, 7)).astype(np.uint16)
    image = save(tmp_path, Image.fromarray(wide))
    assert torch.equal(image, torch.from_numpy((wide >> 8).astype(np.uint8)).expand(3, -1, -1))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    rgba = np.concatenate([pixels_of(0), np.full((5, 7, 1), 9, np.uint8)], axis=2)
    assert torch.equal(save(tmp_path, Image.fromarray(rgba)), tensor_of(0))


@pytest.mark.filterwarnings("error")
def test_a_palette_with_transparency(tmp_path: Path) -> None:
    image = Image.fromarray(pixels_of(0)).quantize(8)
    wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(save(tmp_path, image, transparency=bytes([0] * 8)), wanted)


def test_four_inks_become_three(tmp_path: Path) -> None:
    assert save(tmp_path, Image.new("CMYK", (6, 4)), "x.jpg").tolist() == [[[255] * 6] * 4] * 3


def test_decode_image_reads_an_open_file(root: Path) -> None:
    with (root / "dog" / "b.png").open("rb") as file:
        assert torch.equal(decode_image(file), tensor_of(0))


def damage(root: Path) -> tuple[Path, Path, Path]:
    cut, text, empty = root / "dog" / "b.png", root / "cat" / "text.jpg", root / "cat" / "empty.gif"
    cut.write_bytes(cut.read_bytes()[:-40])
    text.write_text("not an image")
    empty.touch()
    return empty, text, cut


def test_a_damaged_image_fails_when_it_is_read(root: Path) -> None:
    broken = damage(root)
    data = read_folder(root)
    for path in broken:
        index = data.paths.index(path.relative_to(root).as_posix())
        with pytest.raises(
            UserError, match=rf"{path} cannot be read as an image .*data.broken=skip"
        ):
            data[index]
    assert data[data.paths.index("dog/a.ppm")].target == 1


def test_damaged_images_can_be_left_out(root: Path) -> None:
    broken = damage(root)
    data = read_folder(root, broken="skip")
    assert data.skipped == broken
    assert data.paths == ("cat/deep/er/a.PNG", "cat/z.bmp", "dog/a.ppm")
    assert [sample.key for sample in data] == [0, 1, 2]
    assert data.fingerprint != read_folder(root).fingerprint


def test_nothing_but_damaged_images(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "x.png").touch()
    with pytest.raises(UserError, match="none of the 1 images can be read"):
        read_folder(tmp_path, broken="skip")


def test_a_wrong_path(root: Path) -> None:
    with pytest.raises(UserError, match=r"trian does not exist; did you mean 'train'"):
        read_folder(root.parent / "trian")
    with pytest.raises(UserError, match=r"b.png is a file; give a folder"):
        read_folder(root / "dog" / "b.png")
    with pytest.raises(UserError, match=r"there does not exist; give the folder that contains"):
        read_folder(root / "nowhere" / "there")


def test_a_folder_without_classes(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is empty; it needs one folder"):
        read_folder(tmp_path)
    paint(tmp_path / "x.png")
    with pytest.raises(UserError, match="contains no folders; put the images of each class"):
        read_folder(tmp_path)
    (tmp_path / "a").mkdir()
    with pytest.raises(UserError, match="has class folders, but no images in them"):
        read_folder(tmp_path)


@pytest.mark.parametrize("names", [("train", "val"), ("train", "test", "meta"), ("Val", "test")])
def test_the_parent_of_the_splits(names: tuple[str, ...], tmp_path: Path) -> None:
    for name in names:
        paint(tmp_path / name / "cat" / "x.png")
    inner = "train" if "train" in names else names[0]
    with pytest.raises(UserError, match=rf"contains the splits .*such as {tmp_path / inner}$"):
        read_folder(tmp_path)


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    for name in ("bus", "train", "car"):
        paint(tmp_path / name / "x.png")
    assert read_folder(tmp_path).classes == ("bus", "car", "train")


def test_a_wrong_option(root: Path) -> None:
    with pytest.raises(UserError, match="got 'skpi'; did you mean 'skip'"):
        read_folder(root, broken="skpi")
