import io
import os
import pickle
import struct
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stillhouse.data.single import cifar
from stillhouse.data.single.cifar import read_cifar10, read_cifar100
from stillhouse.errors import UserError

NAMES10 = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
NAMES100 = tuple(f"fine_{i}" for i in range(100))
READERS = {"cifar10": read_cifar10, "cifar100": read_cifar100}
ARCHIVES = {
    "cifar-10-batches-py": "cifar-10-python.tar.gz",
    "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
    "cifar-100-python": "cifar-100-python.tar.gz",
    "cifar-100-binary": "cifar-100-binary.tar.gz",
}
FORMS = [("cifar100" if "100" in name else "cifar10", name) for name in ARCHIVES]


class Old(pickle._Pickler):
    """Writes texts and bytes as the `str` of Python 2, which the originals are made of."""

    dispatch = pickle._Pickler.dispatch.copy()

    def save_old(self, value: str | bytes) -> None:
        data = value.encode("latin1") if isinstance(value, str) else value
        short = len(data) < 256
        head = struct.pack("<cB", b"U", len(data)) if short else struct.pack("<ci", b"T", len(data))
        self.write(head + data)
        self.memoize(value)

    dispatch[str] = save_old
    dispatch[bytes] = save_old


def old(value: object) -> bytes:
    file = io.BytesIO()
    Old(file, protocol=2).dump(value)
    return file.getvalue().replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def new(value: object) -> bytes:
    return pickle.dumps(value, protocol=2)


def keyed_by_bytes(value: dict[str, Any]) -> bytes:
    return new({key.encode(): content for key, content in value.items()})


def pixels_of(file: int, count: int = 3) -> np.ndarray:
    return np.random.default_rng(file).integers(0, 256, (count, 3072), dtype=np.uint8)


def labels_of(file: int, classes: int, count: int = 3) -> list[int]:
    return [(7 * file + 3 * i) % classes for i in range(count)]


def files_of(form: str, dump: Any = old) -> dict[str, bytes]:
    """The files of a published form, three images each; the last file is the test split."""
    many = "100" in form
    classes = 100 if many else 10
    names = ("train", "test")
    if not many:
        names = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
    fine = [labels_of(file, classes) for file in range(len(names))]
    coarse = [[label // 5 for label in row] for row in fine]
    if form.endswith(("bin", "binary")):
        files = {
            f"{name}.bin": b"".join(
                bytes([c, f] if many else [f]) + p.tobytes()
                for c, f, p in zip(coarse[i], fine[i], pixels_of(i), strict=True)
            )
            for i, name in enumerate(names)
        }
        meta = "fine_label_names.txt" if many else "batches.meta.txt"
        return {**files, meta: ("\n".join(NAMES100 if many else NAMES10) + "\n\n").encode()}
    files = {}
    for i, name in enumerate(names):
        labels = {"fine_labels": fine[i], "coarse_labels": coarse[i]} if many else {}
        batch = {"data": pixels_of(i), **(labels or {"labels": fine[i]})}
        files[name] = dump({**batch, "filenames": ["a.png"] * 3, "batch_label": "one of them"})
    if many:
        meta = {"fine_label_names": list(NAMES100), "coarse_label_names": ["x"] * 20}
        return {**files, "meta": dump(meta)}
    meta = {"label_names": list(NAMES10), "num_cases_per_batch": 10000, "num_vis": 3072}
    return {**files, "batches.meta": dump(meta)}


def unpack(root: Path, form: str, files: dict[str, bytes]) -> Path:
    (root / form).mkdir(parents=True)
    for name, data in files.items():
        (root / form / name).write_bytes(data)
    return root / form


def pack(root: Path, form: str, files: dict[str, bytes], prefix: str = "") -> Path:
    path = root / ARCHIVES[form]
    with tarfile.open(path, "w:gz") as archive:
        folder = tarfile.TarInfo(f"{prefix}{form}")
        folder.type = tarfile.DIRTYPE
        archive.addfile(folder)
        for name, data in files.items():
            info = tarfile.TarInfo(f"{prefix}{form}/{name}")
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def check(name: str, place: Path) -> None:
    read, classes = READERS[name], 100 if name == "cifar100" else 10
    last = 1 if name == "cifar100" else 5
    for split, files in (("train", range(last)), ("test", [last])):
        data = read(place, split)
        wanted = np.concatenate([pixels_of(file) for file in files])
        assert data.targets.tolist() == [y for file in files for y in labels_of(file, classes)]
        assert data.targets.dtype == torch.int64
        assert data.classes == (NAMES100 if name == "cifar100" else NAMES10)
        assert data.name == f"{name}/{split}"
        assert data.images.shape == (len(wanted), 3, 32, 32)
        for image, row in zip(data.images, wanted, strict=True):
            for channel in range(3):
                for y in range(32):
                    start = 1024 * channel + 32 * y
                    assert image[channel, y].tolist() == row[start : start + 32].tolist()


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_pixel_of_every_form(name: str, form: str, tmp_path: Path) -> None:
    own = unpack(tmp_path, form, files_of(form))
    check(name, tmp_path)
    check(name, own)
    renamed = own.rename(tmp_path / "mine")
    check(name, renamed)


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_every_form_packed(name: str, form: str, tmp_path: Path) -> None:
    archive = pack(tmp_path, form, files_of(form))
    for place in (archive, tmp_path, tmp_path / form):
        check(name, place)
    check(name, archive.rename(tmp_path / "mine.tgz"))
    archive = pack(tmp_path, form, files_of(form), prefix="./")
    check(name, tmp_path)
    check(name, archive.rename(tmp_path / "mine.tgz"))


@pytest.mark.parametrize("dump", [new, keyed_by_bytes])
@pytest.mark.parametrize(("name", "form"), [FORMS[0], FORMS[2]])
def test_archives_packed_again_by_python_3(name: str, form: str, dump: Any, tmp_path: Path) -> None:
    unpack(tmp_path, form, files_of(form, dump))
    check(name, tmp_path)


def test_both_forms_hold_the_same_data(tmp_path: Path) -> None:
    for name, text, binary in (("cifar10", *list(ARCHIVES)[:2]), ("cifar100", *list(ARCHIVES)[2:])):
        a = READERS[name](unpack(tmp_path, text, files_of(text)), "train")
        b = READERS[name](unpack(tmp_path, binary, files_of(binary)), "train")
        assert a.fingerprint == b.fingerprint
        assert a.fingerprint != READERS[name](tmp_path, "test").fingerprint


def test_labels_as_an_array_and_as_numbers_of_numpy(tmp_path: Path) -> None:
    files = files_of("cifar-100-python")
    numbers = [np.int64(y) for y in labels_of(0, 100)]
    for labels in (np.array(labels_of(0, 100)), numbers):
        files["train"] = old({"data": pixels_of(0), "fine_labels": labels})
        place = unpack(tmp_path / type(labels).__name__, "cifar-100-python", files)
        check("cifar100", place)


class Evil:
    def __init__(self, call: Any, *arguments: Any) -> None:
        self.made = call, arguments

    def __reduce__(self) -> tuple[Any, tuple[Any, ...]]:
        return self.made


@pytest.mark.parametrize("file", ["data_batch_2", "batches.meta"])
@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_pickle_that_calls_is_refused_and_not_run(
    file: str, protocol: int, tmp_path: Path
) -> None:
    mark = tmp_path / "mark"
    command = f"touch {mark}"
    evils = [Evil(os.system, command), Evil(eval, f"open({str(mark)!r}, 'w')"), Evil(getattr, 1, 2)]
    for i, evil in enumerate(evils):
        files = files_of("cifar-10-batches-py")
        files[file] = pickle.dumps({"data": evil, "labels": [], "label_names": evil}, protocol)
        place = unpack(tmp_path / str(i), "cifar-10-batches-py", files)
        with pytest.raises(UserError, match=f"{file} is not a CIFAR file: it asks for .*not exec"):
            read_cifar10(place, "train")
        assert not mark.exists()


@pytest.mark.parametrize("part", [0, 1, 100, -1])
def test_a_pickle_cut_short(part: int, tmp_path: Path) -> None:
    files = files_of("cifar-10-batches-py")
    files["data_batch_3"] = files["data_batch_3"][:part]
    with pytest.raises(UserError, match="data_batch_3 is damaged or truncated"):
        read_cifar10(unpack(tmp_path, "cifar-10-batches-py", files), "train")


@pytest.mark.parametrize("part", [0, 3072, -1])
@pytest.mark.parametrize(("name", "form"), [FORMS[1], FORMS[3]])
def test_a_binary_file_cut_short(name: str, form: str, part: int, tmp_path: Path) -> None:
    files = files_of(form)
    file = next(file for file in files if file.startswith("test"))
    files[file] = files[file][:part]
    with pytest.raises(UserError, match=f"{file} is truncated.* download {ARCHIVES[form]} again"):
        READERS[name](unpack(tmp_path, form, files), "test")


@pytest.mark.parametrize("keep", [1, 30, 0.5, 0.99])
def test_an_archive_cut_short(keep: float, tmp_path: Path) -> None:
    path = pack(tmp_path, "cifar-100-python", files_of("cifar-100-python"))
    data = path.read_bytes()
    path.write_bytes(data[: keep if isinstance(keep, int) else int(keep * len(data))])
    with pytest.raises(UserError, match="cifar-100-python.tar.gz is damaged or truncated"):
        read_cifar100(path, "test")


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_a_missing_file(name: str, form: str, tmp_path: Path) -> None:
    files = files_of(form)
    lost = next(file for file in files if file.startswith(("data_batch_4", "train")))
    del files[lost]
    for place in (unpack(tmp_path / "a", form, files), pack(tmp_path, form, files)):
        with pytest.raises(UserError, match=rf"{lost} is missing; unpack {ARCHIVES[form]}"):
            READERS[name](place, "train")
        READERS[name](place, "test")


@pytest.mark.parametrize(
    "change",
    [
        {"data": pixels_of(0)[:2]},
        {"data": pixels_of(0).astype(np.int64)},
        {"data": pixels_of(0)[:, :100]},
        {"labels": ["cat"] * 3},
    ],
)
def test_contents_that_do_not_fit(change: dict[str, Any], tmp_path: Path) -> None:
    files = files_of("cifar-10-batches-py")
    files["test_batch"] = old({"data": pixels_of(0), "labels": [0, 1, 2], **change})
    with pytest.raises(UserError, match=r"expected uint8 data of shape .* for 3 labels"):
        read_cifar10(unpack(tmp_path, "cifar-10-batches-py", files), "test")


@pytest.mark.parametrize(
    ("file", "content", "sentence"),
    [
        ("test_batch", {"data": "text", "labels": [1]}, "has no 'data' and 'labels'"),
        ("test_batch", {"labels": [1]}, "has no 'data' and 'labels'"),
        ("test_batch", [1, 2], "contains a list"),
        ("test_batch", {"data": pixels_of(0), "labels": [0, 1, 10]}, "do not fit the 10 class"),
        ("test_batch", {"data": pixels_of(0), "labels": [0, 1, -1]}, "do not fit the 10 class"),
        ("batches.meta", {"num_vis": 3072}, "has no 'label_names'"),
    ],
)
def test_a_file_of_another_kind(file: str, content: object, sentence: str, tmp_path: Path) -> None:
    files = {**files_of("cifar-10-batches-py"), file: old(content)}
    with pytest.raises(UserError, match=sentence):
        read_cifar10(unpack(tmp_path, "cifar-10-batches-py", files), "test")


@pytest.mark.parametrize(("name", "form"), FORMS)
def test_the_other_data_set_is_recognised(name: str, form: str, tmp_path: Path) -> None:
    other = "cifar10" if name == "cifar100" else "cifar100"
    unpack(tmp_path / "a", form, files_of(form))
    archive = pack(tmp_path, form, files_of(form))
    for place in (tmp_path / "a", tmp_path / "a" / form, tmp_path, archive):
        with pytest.raises(
            UserError, match=rf"{form[:8]}.* contains {name}, not {other}; set data.name"
        ):
            READERS[other](place, "train")


def test_wrong_places_and_words(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    (tmp_path / "note.txt").write_text("a note")
    with pytest.raises(
        UserError, match=r"pictures does not contain cifar-10-batches-py or cifar-10-python"
    ):
        read_cifar10(tmp_path / "pictures", "train")
    with pytest.raises(UserError, match=r"note.txt does not contain cifar-100-python or"):
        read_cifar100(tmp_path / "note.txt", "train")
    with pytest.raises(UserError, match=r"pictuers does not exist; did you mean 'pictures'"):
        read_cifar10(tmp_path / "pictuers", "train")
    with pytest.raises(UserError, match=r"no split 'tests', only 'train' and 'test'; did you mean"):
        read_cifar10(tmp_path, "tests")


# ----------------------------------------------------------------------- prepared by somebody else


@pytest.mark.parametrize("file", ["cifar-10-batches-py/data_batch_1", "other/notes.txt"])
def test_an_archive_that_grows_is_not_read(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read(*args: object) -> bytes:
        raise AssertionError("read")

    path = tmp_path / "cifar-10-python.tar.gz"
    with tarfile.open(path, "w:gz") as archive:
        info = tarfile.TarInfo(file)
        info.size = 10**12
        archive.addfile(info)  # only the header, which says how large it is
    monkeypatch.setattr(tarfile.ExFileObject, "read", read)
    said = f"damaged or truncated .{file} is larger than any file of CIFAR"
    with pytest.raises(UserError, match=said):
        read_cifar10(tmp_path, "train")


def test_an_archive_of_many_files_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cifar, "_ARCHIVE_LIMIT", 2000)
    with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as archive:
        for number in range(5):
            info = tarfile.TarInfo(f"other/{number}")
            info.size = 512
            archive.addfile(info, io.BytesIO(bytes(512)))
    with pytest.raises(UserError, match="other/3 is larger than any file of CIFAR"):
        read_cifar10(tmp_path, "train")


def test_a_file_that_is_too_large_or_no_file(tmp_path: Path) -> None:
    place = unpack(tmp_path, "cifar-10-batches-py", files_of("cifar-10-batches-py"))
    with (place / "data_batch_2").open("wb") as file:
        file.truncate(2**33)
    with pytest.raises(UserError, match="data_batch_2 cannot be read: it has more than"):
        read_cifar10(tmp_path, "train")
