"""The YAML file of a YOLO data set: its classes, and where the images and labels are."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from stillhouse.data.formats.table import tidy_path
from stillhouse.data.formats.text import read_lines, read_text
from stillhouse.data.images import is_image_name, list_images
from stillhouse.data.problems import MissingSplit
from stillhouse.errors import UserError, quote

_REMEDY = "write `names`, `train` and `val` there"


@dataclass(frozen=True)
class Config:
    """The content of a YAML file."""

    file: Path
    root: Path  # its folder, to which paths of images are relative
    base: Path  # its `path`, below which the splits are looked for
    classes: tuple[str, ...]
    splits: Mapping[str, list[str]]  # folders or lists of each split


def read_config(file: Path) -> Config:
    """The classes and splits of a YAML file; `val` may be called `valid`."""
    content = _load(file)
    splits = {
        split: _places(file, split, content[key])
        for split, keys in {"train": ["train"], "val": ["val", "valid"], "test": ["test"]}.items()
        for key in keys
        if content.get(key)
    }
    base = file.parent / str(content.get("path") or ".")
    return Config(file, file.parent, base, _classes(file, content), splits)


def _load(file: Path) -> dict[str, Any]:
    import yaml

    from stillhouse.data.formats.yaml_limits import check_limits

    text = read_text(file, "put the YAML file of the data set there, or name it with config=FILE")
    try:
        check_limits(text)
        # All values as they are written: `names: [no, 1]` are two words.
        content = yaml.load(text, Loader=yaml.BaseLoader)
    except yaml.YAMLError as error:
        words = " ".join(str(error).split())
        raise UserError(f"{file} is not valid YAML ({words}); correct it") from error
    if not isinstance(content, dict):
        raise UserError(f"{file} must be a mapping; {_REMEDY}")
    return content


def _classes(file: Path, content: Mapping[str, Any]) -> tuple[str, ...]:
    """The names, of a list or of a mapping from 0 on."""
    names = content.get("names")
    if isinstance(names, dict):
        if sorted(names) != sorted(map(str, range(len(names)))):
            raise UserError(
                f"{file}: the keys of `names` must be 0 to {len(names) - 1}, got "
                f"{', '.join(names)[:60]}; number the classes"
            )
        names = [names[str(i)] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise UserError(f"{file}: `names` must be a list of classes, got {quote(names)}; {_REMEDY}")
    if repeated := next((name for i, name in enumerate(names) if name in names[:i]), None):
        raise UserError(f"{file}: `names` has {quote(repeated)} twice; rename one of them")
    return tuple(names)


def _places(file: Path, split: str, value: Any) -> list[str]:
    places = [value] if isinstance(value, str) else value
    if not isinstance(places, list) or not all(isinstance(place, str) for place in places):
        raise UserError(
            f"{file}: `{split}` must be a folder or a list of folders, got {quote(value)}"
        )
    return places


def find_images(config: Config, split: str) -> list[str]:
    """The images of a split, sorted: paths relative to the root, absolute if outside of it."""
    if split not in config.splits:
        message = f"{config.file} has no `{split}`; write its folder of images there"
        if split == "val":
            message += ", or hold out samples of train with data.holdout=COUNT"
        raise MissingSplit(message)
    places = [_existing(config, split, place) for place in config.splits[split]]
    paths = {path for place in places for path in _images(config, place)}
    if not paths:
        raise UserError(f"{places[0]} contains no images; put them there")
    return sorted(paths)


def _existing(config: Config, split: str, text: str) -> Path:
    """The folder or list of a split; a leading `..` is tried without, as some exports need it."""
    place = tidy_path(text)
    inner = "/".join(part for part in PurePosixPath(place).parts if part != "..")
    tried = [config.base / place, config.root / place, config.root / inner.lstrip("/")]
    if found := next((path for path in tried if path.exists()), None):
        return found
    raise UserError(
        f"{config.file}: `{split}` is {text}, but {tried[0]} does not exist; correct it"
    )


def _images(config: Config, place: Path) -> Iterator[str]:
    files = _listed(config, place) if place.is_file() else _below(place)
    for file in files:
        path = Path(file)
        inside = path.is_relative_to(config.root)
        yield (path.relative_to(config.root) if inside else path).as_posix()


def _below(place: Path) -> Iterator[Path]:
    place = place.resolve() if ".." in place.parts else place
    return (place / path for path in list_images(place, "."))


def _listed(config: Config, file: Path) -> Iterator[Path]:
    """The images in a text file, relative to its folder, or to that of the data set."""
    lines = read_lines(file, "write one image per line")
    parent = file.parent
    if first := next(iter(lines.values()), None):
        places = (file.parent, config.base, config.root)
        parent = next((p for p in places if (p / tidy_path(first)).is_file()), parent)
    for number, line in lines.items():
        if not is_image_name(Path(line).name):
            raise UserError(f"{file}, line {number}: {line[:60]!r} is not an image; correct it")
        yield parent / tidy_path(line)


def label_file(image: Path) -> Path:
    """The text file of an image: below `labels` instead of the last `images` of its path."""
    parts = list(image.parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts).with_suffix(".txt")
