"""Pascal VOC with the labels of each image, from the folders as its authors publish them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from xml.etree import ElementTree

from stillhouse.data.multilabel.album import Album, Found, absent, album
from stillhouse.data.multilabel.policy import Flaw, Policy, check_choice, check_switch, sift
from stillhouse.data.multilabel.text import bytes_of, existing, lines_of
from stillhouse.errors import UserError, did_you_mean

YEARS = (2007, 2012)
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

_NAME = "voc/labels"
_MEND = "fetch it again"
_UNDESCRIBED = Flaw(
    "missing",
    "images have no annotations (those of VOC 2012's test set are not public)",
    "put them there, name another list with set=val",
)


def voc(
    path: Path,
    split: str,
    *,
    year: int = 2007,
    set: str = "",
    difficult: bool = True,
    unlabelled: str = "keep",
    unknown: str = "fail",
    missing: str = "fail",
    broken: str = "fail",
) -> Album:
    """The images of a list of VOC, in its order: of the one called `set`, or as the split.

    An image has the classes of its objects; without `difficult` those that are marked as hard to
    see do not count.
    """
    policy = Policy(unlabelled, unknown, missing, broken)
    check_choice("year", year, YEARS)
    check_switch("difficult", difficult)
    root = _place(existing(_NAME, path), year)
    names = _listed(root, set or split)
    name, files = f"{_NAME}/{split}", [f"Annotations/{name}.xml" for name in names]
    kept, notes = sift(name, root, files, absent(root, files), _UNDESCRIBED, policy)
    found = Found(
        name=name,
        root=root,
        paths=[f"JPEGImages/{name}.jpg" for name in compress(names, kept)],
        labels=[_objects(root / file, difficult) for file in compress(files, kept)],
        classes=CLASSES,
        mend="mend the names of these objects",
        notes=notes,
    )
    return album(found, policy)


def _place(path: Path, year: int) -> Path:
    if found := _unpacked(path, year):
        return found
    other = next((other for other in YEARS if _unpacked(path, other)), None)
    hint = f"; there is VOC{other}: say year={other}" if other else ""
    raise UserError(f"{_NAME}: {path} holds no VOC{year}/JPEGImages; unpack it there{hint}")


def _unpacked(path: Path, year: int) -> Path | None:
    places = (path / f"VOC{year}", path / "VOCdevkit" / f"VOC{year}", path)
    return next((place for place in places if (place / "JPEGImages").is_dir()), None)


def _listed(root: Path, name: str) -> list[str]:
    lists = root / "ImageSets" / "Main"
    file = lists / f"{name}.txt"
    if not file.is_file():
        # The lists of single classes have their names in them, and are no choice.
        known = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        hint = did_you_mean(name, known) or (known and f"; there are {', '.join(known)}") or ""
        raise UserError(f"{file} is not there; name another list with set=NAME{hint}")
    lines = lines_of(file, _MEND)
    for number, line in lines.items():
        if len(line.split()) > 1:
            raise UserError(
                f"{file}, line {number}: {line!r} should be the name of one image; name a list "
                "that is not of a single class, such as set=trainval"
            )
    return list(lines.values())


class _Refused(Exception):
    """A file declares a document type, by which it could grow without end."""


class _Builder(ElementTree.TreeBuilder):
    """Makes the elements of a file that declares none of its own."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before anything that was declared is put in."""
        raise _Refused


def _objects(file: Path, difficult: bool) -> Sequence[str]:
    """The classes of the objects in an image."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(bytes_of(file, _MEND))
        annotation = parser.close()
    except _Refused:
        raise UserError(f"{file} declares a document type, which no file of VOC does") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged or cut short ({error}); {_MEND}") from error
    if annotation.tag != "annotation":
        raise UserError(f"{file} holds <{annotation.tag}>, and should hold <annotation>; {_MEND}")
    names = []
    for thing in annotation.findall("object"):
        # Parts of an object have names, too, which are not asked for: they lie deeper.
        if not (name := (thing.findtext("name") or "").strip()):
            raise UserError(f"{file} has an object without a name; give it that of its class")
        if difficult or (thing.findtext("difficult") or "0").strip() == "0":
            names.append(name)
    return names
