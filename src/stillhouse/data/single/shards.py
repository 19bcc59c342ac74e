"""Images in tar shards as webdataset writes them, read in any order."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import torch

from stillhouse.data.single.folder import SPLITS, decode_image
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean

IMAGES = ("png", "jpg", "jpeg", "webp")
CLASSES = "classes.txt"

_MOST = 1_000_000  # classes; a larger number is an identifier that was taken for a class
_BLOCK = 512  # bytes, of which every tar is made
_META = re.compile(r"__[^/]*__($|/)")  # members that webdataset passes over


class _Member(NamedTuple):
    """Where one file lies in its shard."""

    name: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """Where one image lies in the shards, and its class."""

    shard: int
    member: _Member
    label: int


class Shards:
    """A source of the images in tar files, found by their offsets and decoded when asked for."""

    def __init__(
        self, paths: Sequence[Path], entries: Sequence[_Entry], classes: Sequence[str], name: str
    ) -> None:
        self.paths = tuple(paths)
        self.classes = tuple(classes)
        self.name = name
        # Tensors, since a list of objects would be copied into each worker as it is touched.
        self._spots = torch.tensor([(e.shard, e.member.offset, e.member.size) for e in entries])
        self._names = tuple(entry.member.name for entry in entries)
        self.targets = torch.tensor([entry.label for entry in entries])  # (N,)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, names, sizes and classes of the images, not of what they hold."""
        spots = zip(self._spots.tolist(), self._names, self.targets.tolist(), strict=True)
        files = (
            (f"{i:012d}/{self.paths[shard].name}/{name}", size, label)
            for i, ((shard, _, size), name, label) in enumerate(spots)
        )
        return fingerprint_of_files(files, self.classes)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        shard, offset, size = self._spots[index].tolist()
        path, name = self.paths[shard], self._names[index]
        # Opened for each read: threads and forked workers cannot share a position in a file.
        try:
            with path.open("rb") as file:
                file.seek(offset)
                image = decode_image(io.BytesIO(file.read(size)))
        except Exception as error:  # The decoders of Pillow raise nearly anything.
            raise UserError(
                f"{path}: {name} cannot be read as an image ({error}); write the shard again"
            ) from error
        return Sample(image, int(self.targets[index]), index)


def shards(pattern: str | Path) -> Shards:
    """The images of local tar shards in their order: `a-{0000..0003}.tar`, a folder, or one tar.

    A sample is an image (png, jpg, jpeg, webp) and, under the same name, its class: a number in
    `.cls`, or under "label" in `.json`. Classes are named by `classes.txt` beside the shards or
    one folder above, one a line, else by their numbers.
    """
    text = str(pattern)
    expand, split_name = _webdataset(text)
    paths = _paths(text, expand)
    entries = [entry for i, path in enumerate(paths) for entry in _entries(i, path, split_name)]
    if not entries:
        raise UserError(f"{text} holds no samples; write an image and a .cls for each of them")
    classes = _class_names(paths, entries)
    place = Path(text)
    return Shards(paths, entries, classes, f"{place.parent.name}/{place.name}".strip("/"))


Expand = Callable[[str], list[str]]
SplitName = Callable[[str], tuple[str | None, str | None]]


def _webdataset(pattern: str) -> tuple[Expand, SplitName]:
    try:
        from webdataset.shardlists import expand_urls
        from webdataset.tariterators import base_plus_ext
    except ImportError as error:
        raise UserError(
            f"{pattern}: shards are read with webdataset; install stillhouse[stream]"
        ) from error
    return expand_urls, base_plus_ext


def _paths(pattern: str, expand: Expand) -> list[Path]:
    place = Path(pattern).expanduser()
    if place.is_dir():
        found = sorted(path for path in place.glob("*.tar") if path.is_file())
        if not found:
            raise UserError(f"{place} holds no .tar files; give the folder that does")
        _refuse_splits(place, found)
        return found
    found = [Path(name).expanduser() for name in expand(pattern)]
    missing = [path for path in found if not path.is_file()]
    if not missing:
        return found
    siblings = [path.name for path in sorted(missing[0].parent.glob("*.tar"))]
    raise UserError(
        f"{pattern}: {len(missing)} of {len(found)} shards are not there, {missing[0]} is the "
        "first; give a local folder of .tar files, one .tar, or a pattern such as "
        f"train-{{0000..0003}}.tar{did_you_mean(missing[0].name, siblings)}"
    )


def _refuse_splits(place: Path, found: Sequence[Path]) -> None:
    words = {word for path in found for word in re.split("[^a-z]+", path.stem.lower())}
    if len(splits := sorted(words.intersection(SPLITS))) > 1:
        raise UserError(
            f"{place} holds shards of {', '.join(splits)}; give those of one split, by a pattern "
            f"such as {place}/{splits[0]}-{{0000..0003}}.tar"
        )


def _entries(shard: int, path: Path, split_name: SplitName) -> Iterator[_Entry]:
    with path.open("rb") as file:
        for base, parts in _grouped(path, split_name):
            images = [parts[kind] for kind in IMAGES if kind in parts]
            if len(images) != 1:
                raise UserError(
                    f"{path}: {base} has {len(images)} images, out of {', '.join(parts)}; each "
                    f"sample needs one of {', '.join(IMAGES)}"
                )
            label = next((kind for kind in ("cls", "json") if kind in parts), None)
            if label is None:
                raise UserError(
                    f"{path}: {base} has no label; write its class as a number into {base}.cls, "
                    f'or under "label" into {base}.json'
                )
            file.seek(parts[label].offset)
            data = file.read(parts[label].size)
            yield _Entry(shard, images[0], _label(f"{path}: {parts[label].name}", label, data))


def _grouped(path: Path, split_name: SplitName) -> Iterator[tuple[str, dict[str, _Member]]]:
    """The members under one name that follow each other, by what is behind the first dot."""
    base: str | None = None
    parts: dict[str, _Member] = {}
    for member in _members(path):
        prefix, suffix = split_name(member.name)
        if prefix is None or suffix is None or _META.match(member.name):
            continue
        if base is not None and prefix != base:
            yield base, parts
            parts = {}
        base = prefix
        if suffix.lower() in parts:
            raise UserError(f"{path}: {member.name} is in it twice; write the shard again")
        parts[suffix.lower()] = member
    if base is not None:
        yield base, parts


def _members(path: Path) -> list[_Member]:
    try:
        with tarfile.open(path, "r:") as archive:
            infos = archive.getmembers()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is no intact, uncompressed tar ({error}); write the shard again"
        ) from error
    # tarfile takes a header that is cut or damaged for the end, and says nothing.
    last = max((info.offset_data + info.size for info in infos), default=0)
    end = -(-last // _BLOCK) * _BLOCK
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise UserError(
                f"{path} is cut short or damaged after {len(infos)} files; write the shard again"
            )
    return [_Member(info.name, info.offset_data, info.size) for info in infos if info.isreg()]


def _label(where: str, kind: str, data: bytes) -> int:
    value: object = None
    try:
        loaded = json.loads(data) if kind == "json" else int(data)
        value = loaded.get("label") if isinstance(loaded, Mapping) else loaded
    except (ValueError, RecursionError):
        pass  # said below, with what stood there
    if type(value) is not int or not 0 <= value < _MOST:
        hint = 'under "label" ' if kind == "json" else ""
        raise UserError(
            f"{where} should hold {hint}the index of a class, counted from 0, not "
            f"{data[:40].decode('latin1')!r}"
        )
    return value


def _class_names(paths: Sequence[Path], entries: Sequence[_Entry]) -> tuple[str, ...]:
    highest = max(entry.label for entry in entries)
    # One folder above, so that the splits of a data set can share one.
    places = (paths[0].parent / CLASSES, paths[0].absolute().parent.parent / CLASSES)
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        return tuple(str(number) for number in range(highest + 1))
    lines = (line.strip() for line in file.read_text("utf-8", "replace").splitlines())
    names = tuple(line for line in lines if line)
    if highest >= len(names):
        worst = next(entry for entry in entries if entry.label == highest)
        raise UserError(
            f"{paths[worst.shard]}: {worst.member.name} is of class {highest}, and {file} names "
            f"{len(names)} classes; add the others there, one a line"
        )
    return names
