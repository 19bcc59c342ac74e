import io
import pickle
import random
import sys
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from stillhouse.data.single.shards import ShardSource, read_shards
from stillhouse.data.source import targets_of
from stillhouse.errors import UserError

webdataset = pytest.importorskip("webdataset")

PER_SHARD = 3


def pixels_of(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)


def tensor_of(seed: int) -> Tensor:
    return torch.from_numpy(pixels_of(seed)).permute(2, 0, 1)


def encoded(seed: int, form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels_of(seed)).save(file, form)
    return file.getvalue()


def write(path: Path, *samples: dict[str, Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with webdataset.TarWriter(str(path), encoder=False) as writer:
        for sample in samples:
            writer.write(sample)
    return path


def sample_of(seed: int, label: int | None = None) -> dict[str, Any]:
    label = seed % 4 if label is None else label
    return {"__key__": f"{seed:06d}", "png": encoded(seed), "cls": str(label).encode()}


@pytest.fixture
def place(tmp_path: Path) -> Path:
    for shard in range(4):
        seeds = range(PER_SHARD * shard, PER_SHARD * (shard + 1))
        write(tmp_path / "set" / f"train-{shard:04d}.tar", *(sample_of(seed) for seed in seeds))
    return tmp_path / "set"


def check(data: ShardSource, seeds: list[int]) -> None:
    assert len(data) == len(seeds)
    assert data.targets.tolist() == [seed % 4 for seed in seeds]
    order = list(enumerate(seeds))
    random.Random(0).shuffle(order)
    for index, seed in order:
        sample = data[index]
        assert torch.equal(sample.image, tensor_of(seed))
        assert sample.image.dtype == torch.uint8
        assert (sample.target, sample.key) == (seed % 4, index)


def test_every_pixel_by_pattern_folder_and_file(place: Path) -> None:
    check(read_shards(f"{place}/train-{{0000..0003}}.tar"), list(range(12)))
    check(read_shards(f"{place}/train-{{0001,0003}}.tar"), [3, 4, 5, 9, 10, 11])
    check(read_shards(place), list(range(12)))
    check(read_shards(place / "train-0002.tar"), [6, 7, 8])


def test_what_it_tells_of_itself(place: Path) -> None:
    data = read_shards(place)
    assert data.name.endswith("/set")
    assert data.classes == ("0", "1", "2", "3")
    assert targets_of(data) is data.targets
    assert len(list(data)) == 12  # ends, as a sequence does


@pytest.mark.parametrize("above", [False, True])
def test_names_of_classes(above: bool, place: Path) -> None:
    file = (place.parent if above else place) / "classes.txt"
    file.write_text("cat\ndog\ngreat ape\ncow\n\n")
    assert read_shards(place).classes == ("cat", "dog", "great ape", "cow")
    file.write_text("cat\ndog\n")
    with pytest.raises(UserError, match=r"train-0001.tar: 000003.png has class 3, .*only 2"):
        read_shards(place)


def test_fingerprint_follows_order_sizes_and_classes(place: Path) -> None:
    first = read_shards(place).fingerprint
    assert read_shards(f"{place}/train-{{0000..0003}}.tar").fingerprint == first
    assert read_shards(f"{place}/train-{{0003..0000}}.tar").fingerprint != first
    assert read_shards(place / "train-0000.tar").fingerprint != first
    write(place / "train-0003.tar", *(sample_of(seed, 1) for seed in (9, 10, 11)))
    assert read_shards(place).fingerprint != first


def test_threads_and_pickled_copies_read_the_same(place: Path) -> None:
    data: ShardSource = pickle.loads(pickle.dumps(read_shards(place)))
    indices = [i % 12 for i in range(200)]
    with ThreadPoolExecutor(8) as pool:
        images = list(pool.map(lambda i: data[i].image, indices))
    for index, image in zip(indices, images, strict=True):
        assert torch.equal(image, tensor_of(index))


def test_labels_in_json(tmp_path: Path) -> None:
    path = write(
        tmp_path / "a.tar",
        {"__key__": "a", "json": b'{"label": 2, "text": "x"}', "png": encoded(2)},
        {"__key__": "b", "cls": b" 3\n", "json": b'{"label": 1}', "png": encoded(3)},
    )
    check(read_shards(path), [2, 3])


@pytest.mark.parametrize(("suffix", "form"), [("jpg", "JPEG"), ("jpeg", "JPEG"), ("webp", "WEBP")])
def test_other_formats(suffix: str, form: str, tmp_path: Path) -> None:
    data = encoded(5, form)
    path = write(tmp_path / "a.tar", {"__key__": "a", suffix: data, "cls": b"0"})
    with Image.open(io.BytesIO(data)) as image:
        wanted = torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1)
    assert torch.equal(read_shards(path)[0].image, wanted)


def test_grouping_as_webdataset_does(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    members = {
        "cat/x.y/a.png": encoded(0),
        "cat/x.y/a.seg.png": b"a mask, which is another part of the sample",
        "cat/x.y/a.CLS": b"0",
        "cat/README": b"without a dot",
        "__meta__/a.png": b"passed over",
        "dog/a.cls": b"1",
        "dog/a.png": encoded(1),
        "dog/" + 120 * "long" + ".png": encoded(2),
        "dog/" + 120 * "long" + ".cls": b"2",
    }
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        folder = tarfile.TarInfo("cat/x.y")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    check(read_shards(path), [0, 1, 2])
    stream = webdataset.WebDataset(str(path), shardshuffle=False)
    assert sum("png" in sample for sample in stream) == 3


@pytest.mark.parametrize("keep", [0, 100, 512, 700, 1600, -10240, 0.5])
def test_a_shard_cut_short(keep: float, place: Path) -> None:
    path = place / "train-0001.tar"
    data = path.read_bytes()
    path.write_bytes(data[: int(keep * len(data)) if isinstance(keep, float) else keep])
    with pytest.raises(UserError, match=r"train-0001.tar is .*write the shard again"):
        read_shards(place)


def test_a_cut_anywhere_is_noticed(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", sample_of(0), sample_of(1))
    whole = path.read_bytes()
    with tarfile.open(path) as archive:
        end = max(info.offset_data + info.size for info in archive)
    for size in range(0, end, 97):
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match="write the shard again"):
            read_shards(path)


def test_a_damaged_header_in_the_middle(place: Path) -> None:
    path = place / "train-0001.tar"
    with tarfile.open(path) as archive:
        middle = archive.getmembers()[3].offset
    data = bytearray(path.read_bytes())
    data[middle : middle + 512] = b"x" * 512
    path.write_bytes(data)
    with pytest.raises(UserError, match=r"train-0001.tar is .*write the shard again"):
        read_shards(place)


def test_a_compressed_or_foreign_file(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w:gz"):
        pass
    (tmp_path / "b.tar").write_text("a note" * 1000)
    for name in ("a.tar", "b.tar"):
        with pytest.raises(UserError, match=f"{name} is not an intact, uncompressed tar"):
            read_shards(tmp_path / name)


@pytest.mark.parametrize(
    ("sample", "sentence"),
    [
        ({"png": encoded(0)}, "a has no label; write its class index into a.cls"),
        ({"cls": b"0"}, "a has 0 images among cls"),
        ({"png": encoded(0), "jpg": b"", "cls": b"0"}, "a has 2 images"),
        ({"png": encoded(0), "cls": b"cat"}, "a.cls: expected a class index.*'cat'"),
        ({"png": encoded(0), "cls": b"-1"}, "a.cls: expected a class index"),
        ({"png": encoded(0), "cls": b"10000000"}, "a.cls: expected a class index"),
        ({"png": encoded(0), "cls": b"\xff\xfe"}, "a.cls: expected a class index"),
        ({"png": encoded(0), "json": b"{}"}, 'a.json: expected under "label" a class index'),
        ({"png": encoded(0), "json": b'{"label": true}'}, 'a.json: expected under "label"'),
        ({"png": encoded(0), "json": b"[1]"}, 'a.json: expected under "label"'),
        ({"png": encoded(0), "json": b"[" * 100000}, 'a.json: expected under "label"'),
        ({"png": encoded(0), "json": b"{"}, 'a.json: expected under "label"'),
    ],
)
def test_a_sample_that_lacks_something(
    sample: dict[str, Any], sentence: str, tmp_path: Path
) -> None:
    path = write(tmp_path / "some.tar", {"__key__": "a", **sample})
    with pytest.raises(UserError, match=rf"some.tar: {sentence}"):
        read_shards(path)


def test_a_member_twice(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar", sample_of(0), sample_of(0))
    with pytest.raises(UserError, match=r"a.tar: 000000.\w+ occurs twice"):
        read_shards(path)


def test_a_shard_without_samples(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"a.tar contains no samples"):
        read_shards(write(tmp_path / "a.tar"))


def test_a_damaged_image_is_named(tmp_path: Path) -> None:
    broken = {"__key__": "b", "png": encoded(1)[:-60], "cls": b"0"}
    data = read_shards(write(tmp_path / "a.tar", sample_of(0), broken))
    assert torch.equal(data[0].image, tensor_of(0))
    with pytest.raises(UserError, match=r"a.tar: b.png cannot be read as an image"):
        data[1]
    (tmp_path / "a.tar").unlink()
    with pytest.raises(UserError, match=r"a.tar: 000000.png cannot be read as an image"):
        data[0]


def test_shards_that_are_not_there(place: Path, tmp_path: Path) -> None:
    with pytest.raises(
        UserError, match=r"2 of 6 shards do not exist, the first is .*train-0004.tar;"
    ):
        read_shards(f"{place}/train-{{0000..0005}}.tar")
    with pytest.raises(
        UserError, match=r"the first is .*trian-0001.tar; .*did you mean 'train-0001"
    ):
        read_shards(place / "trian-0001.tar")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=r"empty contains no .tar files"):
        read_shards(tmp_path / "empty")


def test_remote_shards_are_not_fetched_and_commands_not_run(tmp_path: Path) -> None:
    for pattern in (f"pipe:touch {tmp_path}/mark", "https://example.org/{0..3}.tar"):
        with pytest.raises(UserError, match="give a local folder"):
            read_shards(pattern)
    assert not (tmp_path / "mark").exists()


def test_shards_of_several_splits_in_a_folder(place: Path) -> None:
    write(place / "val-0000.tar", sample_of(0))
    with pytest.raises(
        UserError, match=r"contains shards of train, val; .*set/train-\{0000..0003\}"
    ):
        read_shards(place)
    check(read_shards(place / "train-0000.tar"), [0, 1, 2])


def test_without_webdataset(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.shardlists", None)
    with pytest.raises(UserError, match=r"install stillhouse\[stream\]"):
        read_shards(place)
