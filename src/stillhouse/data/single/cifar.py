"""CIFAR-10 and CIFAR-100, from the archives as their authors publish them."""

from __future__ import annotations

import codecs
import io
import pickle
import tarfile
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from stillhouse.data.source import Pixels, fingerprint_of_content
from stillhouse.errors import UserError, did_you_mean, quote
from stillhouse.files import read_limited

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]

_VALUES = 3 * 32 * 32
_SPLITS = ("train", "test")
_FILE_LIMIT = 2**28  # bytes of a file; the largest, of CIFAR-100, has 155 million
_ARCHIVE_LIMIT = 2**30  # bytes of all files in an archive; the largest has 187 million


class _Layout(NamedTuple):
    """One published form of one data set."""

    folder: str
    archive: str
    meta: str
    files: Mapping[str, tuple[str, ...]]  # by split
    names: str = ""  # key of the class names in a pickled meta file; a text file is all names
    labels: str = ""  # key of the labels in a pickled batch
    columns: int = 0  # label bytes before the pixels of a binary record; the last one counts


_BATCHES = tuple(f"data_batch_{i}" for i in range(1, 6))
_CIFAR10 = (
    _Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        meta="batches.meta",
        files={"train": _BATCHES, "test": ("test_batch",)},
        names="label_names",
        labels="labels",
    ),
    _Layout(
        folder="cifar-10-batches-bin",
        archive="cifar-10-binary.tar.gz",
        meta="batches.meta.txt",
        files={"train": tuple(f"{name}.bin" for name in _BATCHES), "test": ("test_batch.bin",)},
        columns=1,
    ),
)
_CIFAR100 = (
    _Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        meta="meta",
        files={"train": ("train",), "test": ("test",)},
        names="fine_label_names",
        labels="fine_labels",
    ),
    _Layout(
        folder="cifar-100-binary",
        archive="cifar-100-binary.tar.gz",
        meta="fine_label_names.txt",
        files={"train": ("train.bin",), "test": ("test.bin",)},
        columns=2,
    ),
)
_LAYOUTS = {"cifar10": _CIFAR10, "cifar100": _CIFAR100}


def read_cifar10(folder: str | Path, split: str) -> Pixels:
    """CIFAR-10 from its python or binary version, unpacked or not: (N, 3, 32, 32), 10 classes."""
    return _read("cifar10", Path(folder).expanduser(), split)


def read_cifar100(folder: str | Path, split: str) -> Pixels:
    """CIFAR-100 with its fine labels, as `read_cifar10`: (N, 3, 32, 32), 100 classes."""
    return _read("cifar100", Path(folder).expanduser(), split)


def _read(name: str, path: Path, split: str) -> Pixels:
    if split not in _SPLITS:
        hint = did_you_mean(split, _SPLITS)
        raise UserError(f"{name} has no split {quote(split)}, only 'train' and 'test'{hint}")
    layout, place = _locate(name, path)
    contents = _contents(layout, place, (layout.meta, *layout.files[split]))
    classes = _class_names(layout, place / layout.meta, contents.pop(layout.meta))
    parse = _parse_pickled if layout.labels else _parse_binary
    batches = [parse(layout, place / file, data) for file, data in contents.items()]
    pixels, targets = (np.concatenate(parts) for parts in zip(*batches, strict=True))
    if not len(targets) or not 0 <= targets.min() <= targets.max() < len(classes):
        names = f"the {len(classes)} class names of {layout.meta}"
        raise UserError(f"{place}: the labels do not fit {names}; download {layout.archive} again")
    images, labels = torch.from_numpy(pixels.reshape(-1, 3, 32, 32)), torch.from_numpy(targets)
    fingerprint = fingerprint_of_content([images, labels], classes)
    return Pixels(images, labels, classes, fingerprint, f"{name}/{split}")


def _locate(name: str, path: Path) -> tuple[_Layout, Path]:
    if match := _find(_LAYOUTS[name], path):
        return match
    for other, layouts in _LAYOUTS.items():
        if match := _find(layouts, path):
            raise UserError(f"{match[1]} contains {other}, not {name}; set data.name to {other}")
    if not path.exists():
        siblings = [entry.name for entry in path.parent.glob("*")]
        raise UserError(f"{name}: {path} does not exist{did_you_mean(path.name, siblings)}")
    wanted = " or ".join(f"{form.folder} or {form.archive}" for form in _LAYOUTS[name])
    raise UserError(f"{name}: {path} does not contain {wanted}; put one of them there")


def _find(layouts: Sequence[_Layout], path: Path) -> tuple[_Layout, Path] | None:
    """The layout found at, in or beside a path, and its folder or archive."""
    if path.is_file():
        return next(((form, path) for form in layouts if _is_archive(form, path)), None)
    for form in layouts:
        is_folder = path.name == form.folder or (path / form.meta).is_file()
        # A folder that is not unpacked yet stands for the archive beside it.
        folder, archive = (path, path.parent) if is_folder else (path / form.folder, path)
        if folder.is_dir():
            return form, folder
        if (archive / form.archive).is_file():
            return form, archive / form.archive
    return None


def _is_archive(layout: _Layout, path: Path) -> bool:
    if path.name == layout.archive:
        return True
    try:
        with tarfile.open(path) as archive:
            first = archive.next()
    except (tarfile.TarError, EOFError, OSError, zlib.error):
        return False
    return first is not None and first.name.removeprefix("./").split("/")[0] == layout.folder


def _contents(layout: _Layout, place: Path, names: Sequence[str]) -> dict[str, bytes]:
    if place.is_file():
        contents = _unpack(layout, place, names)
    else:
        paths = {name: place / name for name in names}
        contents = {name: _read_file(path) for name, path in paths.items() if path.is_file()}
    if missing := [name for name in names if name not in contents]:
        remedy = f"unpack {layout.archive} again, or download it again"
        raise UserError(f"{place / missing[0]} is missing; {remedy}")
    return {name: contents[name] for name in names}


def _read_file(path: Path) -> bytes:
    try:
        return read_limited(path, _FILE_LIMIT)
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}; download it again") from error


def _unpack(layout: _Layout, path: Path, names: Sequence[str]) -> dict[str, bytes]:
    wanted = {f"{layout.folder}/{name}": name for name in names}
    contents, total = {}, 0
    try:
        # One pass in the order of the archive, since going back would decompress all of it again.
        with tarfile.open(path) as archive:
            for member in archive:
                total += member.size
                if member.size > _FILE_LIMIT or total > _ARCHIVE_LIMIT:
                    raise tarfile.TarError(f"{member.name[:100]} is larger than any file of CIFAR")
                name = wanted.get(member.name.removeprefix("./"))
                file = archive.extractfile(member) if name else None
                if name and file:
                    contents[name] = file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise UserError(f"{path} is damaged or truncated ({error}); download it again") from error
    return contents


def _class_names(layout: _Layout, path: Path, data: bytes) -> tuple[str, ...]:
    if not layout.names:
        return tuple(data.decode("latin1").split())  # no class name contains a space
    names = _unpickled(path, data).get(layout.names)
    if not isinstance(names, list) or not names:
        raise UserError(f"{path} has no {layout.names!r}; download {layout.archive} again")
    return tuple(_text(name) for name in names)


def _parse_pickled(layout: _Layout, path: Path, data: bytes) -> tuple[Bytes, Integers]:
    batch = _unpickled(path, data)
    pixels, labels = batch.get("data"), batch.get(layout.labels)
    if not isinstance(pixels, np.ndarray) or not isinstance(labels, list | np.ndarray):
        raise UserError(
            f"{path} has no 'data' and {layout.labels!r}; download {layout.archive} again"
        )
    shape = (len(labels), _VALUES)
    whole = all(isinstance(label, int | np.integer) for label in labels)
    if pixels.dtype != np.uint8 or pixels.shape != shape or not whole:
        raise UserError(
            f"{path}: expected uint8 data of shape {shape} for {len(labels)} labels, got "
            f"{pixels.dtype} of shape {pixels.shape}; download {layout.archive} again"
        )
    return pixels, np.asarray(labels, dtype=np.int64)


def _parse_binary(layout: _Layout, path: Path, data: bytes) -> tuple[Bytes, Integers]:
    record = layout.columns + _VALUES
    if not data or len(data) % record:
        raise UserError(
            f"{path} is truncated: {len(data)} bytes are not a multiple of the record of {record}; "
            f"download {layout.archive} again"
        )
    records = np.frombuffer(data, np.uint8).reshape(-1, record)
    return records[:, layout.columns :], records[:, layout.columns - 1].astype(np.int64)


# Taken from what numpy itself would write, since their module differs between its versions.
_ARRAYS = {"_reconstruct": np.empty(0).__reduce__()[0], "scalar": np.int64(0).__reduce__()[0]}
_ALLOWED: Mapping[str, Mapping[str, object]] = {
    "numpy.core.multiarray": _ARRAYS,
    "numpy._core.multiarray": _ARRAYS,
    "numpy": {"ndarray": np.ndarray, "dtype": np.dtype},
    "_codecs": {"encode": codecs.encode},
}


class _Refused(Exception):
    """A pickle names something that no CIFAR archive contains."""


class _Unpickler(pickle.Unpickler):
    """Creates arrays, numbers, strings and their containers, and calls nothing else."""

    def find_class(self, module: str, name: str) -> object:
        """One of the few callables that arrays are created with."""
        if name not in _ALLOWED.get(module, {}):
            raise _Refused(f"{module}.{name}")
        return _ALLOWED[module][name]


def _unpickled(path: Path, data: bytes) -> dict[str, object]:
    try:
        loaded = _Unpickler(io.BytesIO(data), encoding="latin1").load()
    except _Refused as error:
        raise UserError(
            f"{path} is not a CIFAR file: it asks for {error}, which was not executed; "
            "download it again from its authors"
        ) from error
    except Exception as error:  # A damaged pickle can raise nearly anything.
        raise UserError(f"{path} is damaged or truncated ({error}); download it again") from error
    if not isinstance(loaded, dict):
        raise UserError(f"{path} is not a CIFAR file: it contains a {type(loaded).__name__}")
    return {_text(key): value for key, value in loaded.items()}


def _text(value: object) -> str:
    # A `str` of Python 2 is loaded as bytes or str, depending on who repacked the archive.
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
