"""Pascal VOC as a multi-label data set, from the folders as its authors publish them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import compress
from pathlib import Path
from xml.etree import ElementTree

from stillhouse.data.multilabel.file_source import (
    FileSource,
    ScannedImages,
    build_source,
    find_missing,
)
from stillhouse.data.multilabel.skip_policy import (
    Problem,
    SkipPolicy,
    apply_policy,
    check_bool,
    check_choice,
)
from stillhouse.data.multilabel.text_files import read_bytes, read_lines, require_folder
from stillhouse.errors import UserError, did_you_mean

YEARS = (2007, 2012)
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)

_NAME = "voc/labels"
_REMEDY = "download it again"
_WITHOUT_ANNOTATIONS = Problem(
    "missing",
    "images have no annotations (those of VOC 2012's test set are not public)",
    "put them there, choose another image set with set=val",
)


def read_voc(
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
) -> FileSource:
    """The images of a VOC image set, in its order: the one named `set`, by default the split.

    An image has the classes of its objects; without `difficult`, objects marked as difficult do
    not count.
    """
    policy = SkipPolicy(unlabelled, unknown, missing, broken)
    check_choice("year", year, YEARS)
    check_bool("difficult", difficult)
    root = _place(require_folder(_NAME, path), year)
    names = _listed(root, set or split)
    name, files = f"{_NAME}/{split}", [f"Annotations/{name}.xml" for name in names]
    missing_files = find_missing(root, files)
    kept, notes = apply_policy(name, root, files, missing_files, _WITHOUT_ANNOTATIONS, policy)
    scanned = ScannedImages(
        name=name,
        root=root,
        paths=[f"JPEGImages/{name}.jpg" for name in compress(names, kept)],
        labels=[_objects(root / file, difficult) for file in compress(files, kept)],
        classes=CLASSES,
        remedy="correct the names of these objects",
        notes=notes,
    )
    return build_source(scanned, policy)


def _place(path: Path, year: int) -> Path:
    if root := _unpacked(path, year):
        return root
    other = next((other for other in YEARS if _unpacked(path, other)), None)
    hint = f"; for VOC{other}, which is there, set year={other}" if other else ""
    raise UserError(f"{_NAME}: {path} contains no VOC{year}/JPEGImages; unpack it there{hint}")


def _unpacked(path: Path, year: int) -> Path | None:
    places = (path / f"VOC{year}", path / "VOCdevkit" / f"VOC{year}", path)
    return next((place for place in places if (place / "JPEGImages").is_dir()), None)


def _listed(root: Path, name: str) -> list[str]:
    lists = root / "ImageSets" / "Main"
    file = lists / f"{name}.txt"
    if not file.is_file():
        # Files with an underscore are the image sets of single classes, which have other columns.
        known = sorted(p.stem for p in lists.glob("*.txt") if "_" not in p.stem)
        hint = did_you_mean(name, known) or (known and f"; known: {', '.join(known)}") or ""
        raise UserError(f"{file} does not exist; choose another image set with set=NAME{hint}")
    lines = read_lines(file, _REMEDY)
    for number, line in lines.items():
        if len(line.split()) > 1:
            raise UserError(
                f"{file}, line {number}: expected the name of one image, got {line!r}; choose an "
                "image set that is not of a single class, such as set=trainval"
            )
    return list(lines.values())


class _Refused(Exception):
    """A file declares a document type, whose entities could expand without limit."""


class _Builder(ElementTree.TreeBuilder):
    """Builds elements, and refuses files with a document type declaration."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before any declared entity is expanded."""
        raise _Refused


def _objects(file: Path, difficult: bool) -> Sequence[str]:
    """The class of each object in an annotation file."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(read_bytes(file, _REMEDY))
        annotation = parser.close()
    except _Refused:
        raise UserError(
            f"{file} declares a document type, which VOC files do not; {_REMEDY}"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged or truncated ({error}); {_REMEDY}") from error
    if annotation.tag != "annotation":
        raise UserError(f"{file}: expected <annotation>, got <{annotation.tag}>; {_REMEDY}")
    names = []
    for thing in annotation.findall("object"):
        # Parts of an object have names too, at a deeper level.
        if not (name := (thing.findtext("name") or "").strip()):
            raise UserError(f"{file} has an object without a name; name its class")
        if difficult or (thing.findtext("difficult") or "0").strip() == "0":
            names.append(name)
    return names
