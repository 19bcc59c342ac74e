"""Images in tar shards as webdataset writes them, with random access."""

from __future__ import annotations

import io
import json
import re
import tarfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from itertools import compress
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stillhouse.data.images import decode_image
from stillhouse.data.problems import Problem, check_choice, settle
from stillhouse.data.single.folder import SPLIT_NAMES
from stillhouse.data.source import Sample, fingerprint_of_files
from stillhouse.errors import UserError, did_you_mean

IMAGES = ("png", "jpg", "jpeg", "webp")
CLASSES = "classes.txt"

_BROKEN = Problem("broken", "images cannot be read", "write the shard again")
_MAX_CLASSES = 1_000_000  # a larger number is an identifier, not a class index
_BLOCK = 512  # bytes; the block size of tar
_META = re.compile(r"__[^/]*__($|/)")  # members that webdataset skips


class _Member(NamedTuple):
    """The position of one file in its shard."""

    name: str
    offset: int
    size: int


class _Entry(NamedTuple):
    """The position of one image in the shards, and its class index."""

    shard: int
    member: _Member
    label: int


class ShardSource:
    """A source of the images in tar files, located by their offsets and decoded on access."""

    def __init__(
        self,
        paths: Sequence[Path],
        entries: Sequence[_Entry],
        classes: Sequence[str],
        name: str,
        notes: Sequence[str] = (),
    ) -> None:
        self.paths = tuple(paths)
        self.notes = tuple(notes)
        self.classes = tuple(classes)
        self.name = name
        # Tensors, since a list of objects would be copied into each worker on access.
        self._positions = torch.tensor([(e.shard, e.member.offset, e.member.size) for e in entries])
        self._names = tuple(entry.member.name for entry in entries)
        self.targets = torch.tensor([entry.label for entry in entries])  # (N,)

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the order, names, sizes and classes of the images, not of their content."""
        positions = zip(self._positions.tolist(), self._names, self.targets.tolist(), strict=True)
        files = (
            (f"{i:012d}/{self.paths[shard].name}/{name}", size, label)
            for i, ((shard, _, size), name, label) in enumerate(positions)
        )
        return fingerprint_of_files(files, self.classes)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Sample:
        shard, offset, size = self._positions[index].tolist()
        path, name = self.paths[shard], self._names[index]
        # Opened for each read: threads and forked workers cannot share a file position.
        try:
            with path.open("rb") as file:
                file.seek(offset)
                image = decode_image(io.BytesIO(file.read(size)))
        except Exception as error:  # The decoders of Pillow raise nearly anything.
            raise UserError(
                f"{path}: {name} cannot be read as an image ({error}); write the shard again"
            ) from error
        return Sample(image, int(self.targets[index]), index)


def read_shards(pattern: str | Path, broken: str = "fail") -> ShardSource:
    """The images of local tar shards in their order: `a-{0000..0003}.tar`, a folder, or one tar.

    A sample is an image (png, jpg, jpeg, webp) and, under the same name, its class index: in
    `.cls`, or under "label" in `.json`. Class names are the lines of `classes.txt` beside the
    shards or one folder above, else the indices. A damaged image raises when it is read, or with
    broken=skip all images are decoded at the start, and the damaged ones are left out.
    """
    check_choice("broken", broken, ("fail", "skip"))
    text = str(pattern)
    expand, split_name = _webdataset(text)
    paths = _paths(text, expand)
    entries = [entry for i, path in enumerate(paths) for entry in _entries(i, path, split_name)]
    if not entries:
        raise UserError(
            f"{text} contains no samples; a sample is an image and a .cls file of the same name"
        )
    classes = _class_names(paths, entries)
    place = Path(text)
    name = f"{place.parent.name}/{place.name}".strip("/")
    source = ShardSource(paths, entries, classes, name)
    if broken == "fail":
        return source
    readable = np.array([_is_readable(source, i) for i in range(len(source))], dtype=bool)
    kept, notes = settle(name, _BROKEN, ~readable, broken, lambda i: entries[i].member.name)
    if not kept.any():
        raise UserError(f"{text}: none of the {len(entries)} images can be read; copy them again")
    return ShardSource(paths, list(compress(entries, kept)), classes, name, notes)


def _is_readable(source: ShardSource, index: int) -> bool:
    try:
        source[index]
    except UserError:
        return False
    return True


Expand = Callable[[str], list[str]]
SplitName = Callable[[str], tuple[str | None, str | None]]


def _webdataset(pattern: str) -> tuple[Expand, SplitName]:
    try:
        from webdataset.shardlists import expand_urls
        from webdataset.tariterators import base_plus_ext
    except ImportError as error:
        raise UserError(
            f"{pattern}: reading shards needs webdataset; install stillhouse[stream]"
        ) from error
    return expand_urls, base_plus_ext


def _paths(pattern: str, expand: Expand) -> list[Path]:
    place = Path(pattern).expanduser()
    if place.is_dir():
        paths = sorted(path for path in place.glob("*.tar") if path.is_file())
        if not paths:
            raise UserError(f"{place} contains no .tar files; give the folder of the shards")
        _refuse_splits(place, paths)
        return paths
    paths = [Path(name).expanduser() for name in expand(pattern)]
    missing = [path for path in paths if not path.is_file()]
    if not missing:
        return paths
    siblings = [path.name for path in sorted(missing[0].parent.glob("*.tar"))]
    raise UserError(
        f"{pattern}: {len(missing)} of {len(paths)} shards do not exist, the first is "
        f"{missing[0]}; give a local folder of .tar files, one .tar, or a pattern such as "
        f"train-{{0000..0003}}.tar{did_you_mean(missing[0].name, siblings)}"
    )


def _refuse_splits(place: Path, paths: Sequence[Path]) -> None:
    words = {word for path in paths for word in re.split("[^a-z]+", path.stem.lower())}
    if len(splits := sorted(words.intersection(SPLIT_NAMES))) > 1:
        raise UserError(
            f"{place} contains shards of {', '.join(splits)}; choose one split with a pattern "
            f"such as {place}/{splits[0]}-{{0000..0003}}.tar"
        )


def _entries(shard: int, path: Path, split_name: SplitName) -> Iterator[_Entry]:
    with path.open("rb") as file:
        for base, parts in _grouped(path, split_name):
            images = [parts[kind] for kind in IMAGES if kind in parts]
            if len(images) != 1:
                raise UserError(
                    f"{path}: {base} has {len(images)} images among {', '.join(parts)}; each "
                    f"sample needs one of {', '.join(IMAGES)}"
                )
            label = next((kind for kind in ("cls", "json") if kind in parts), None)
            if label is None:
                raise UserError(
                    f"{path}: {base} has no label; write its class index into {base}.cls, "
                    f'or under "label" into {base}.json'
                )
            file.seek(parts[label].offset)
            data = file.read(parts[label].size)
            yield _Entry(shard, images[0], _label(f"{path}: {parts[label].name}", label, data))


def _grouped(path: Path, split_name: SplitName) -> Iterator[tuple[str, dict[str, _Member]]]:
    """The consecutive members of one name, by the suffix after the first dot."""
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
            raise UserError(f"{path}: {member.name} occurs twice; write the shard again")
        parts[suffix.lower()] = member
    if base is not None:
        yield base, parts


def _members(path: Path) -> list[_Member]:
    try:
        with tarfile.open(path, "r:") as archive:
            infos = archive.getmembers()
    except (tarfile.TarError, EOFError, OSError, ValueError) as error:
        raise UserError(
            f"{path} is not an intact, uncompressed tar ({error}); write the shard again"
        ) from error
    # tarfile takes a truncated or damaged header for the end, without an error.
    last = max((info.offset_data + info.size for info in infos), default=0)
    end = -(-last // _BLOCK) * _BLOCK
    with path.open("rb") as file:
        file.seek(end)
        if file.read(_BLOCK) != bytes(_BLOCK):
            raise UserError(
                f"{path} is truncated or damaged after {len(infos)} files; write the shard again"
            )
    return [_Member(info.name, info.offset_data, info.size) for info in infos if info.isreg()]


def _label(where: str, kind: str, data: bytes) -> int:
    value: object = None
    try:
        loaded = json.loads(data) if kind == "json" else int(data)
        value = loaded.get("label") if isinstance(loaded, Mapping) else loaded
    except (ValueError, RecursionError):
        pass  # refused below, with the value
    if type(value) is not int or not 0 <= value < _MAX_CLASSES:
        hint = 'under "label" ' if kind == "json" else ""
        raise UserError(
            f"{where}: expected {hint}a class index, counted from 0, got "
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
            f"{paths[worst.shard]}: {worst.member.name} has class {highest}, but {file} has only "
            f"{len(names)} classes; add the others there, one per line"
        )
    return names
