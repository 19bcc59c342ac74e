"""The folders of Pascal VOC: where they are, lists of images, and annotations in XML."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

from stillhouse.data.formats.text import read_bytes, read_lines
from stillhouse.errors import UserError, did_you_mean, quote

YEARS = (2007, 2012)
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
REMEDY = "download it again"


def find_root(name: str, path: Path, year: int) -> Path:
    """The folder with JPEGImages: VOC<year> below the path or its VOCdevkit, else the path."""
    if root := _unpacked(path, year):
        return root
    other = next((other for other in YEARS if _unpacked(path, other)), None)
    hint = f"; for VOC{other}, which is there, set year={other}" if other else ""
    raise UserError(f"{name}: {path} contains no VOC{year}/JPEGImages; unpack it there{hint}")


def _unpacked(path: Path, year: int) -> Path | None:
    places = (path / f"VOC{year}", path / "VOCdevkit" / f"VOC{year}", path)
    return next((place for place in places if (place / "JPEGImages").is_dir()), None)


def image_sets(root: Path, folder: str = "Main") -> list[str]:
    """The names of the image sets, without those of single classes."""
    # Files with an underscore are the image sets of single classes, which have other columns.
    return sorted(
        file.stem for file in (root / "ImageSets" / folder).glob("*.txt") if "_" not in file.stem
    )


def read_image_set(root: Path, name: str, folder: str = "Main") -> list[str]:
    """The images of an image set by name, without folder and suffix, in its order."""
    file = root / "ImageSets" / folder / f"{name}.txt"
    if not file.is_file():
        known = image_sets(root, folder)
        hint = did_you_mean(name, known) or (known and f"; known: {', '.join(known)}") or ""
        raise UserError(f"{file} does not exist; choose another image set with set=NAME{hint}")
    lines = read_lines(file, REMEDY)
    for number, line in lines.items():
        if len(line.split()) > 1:
            raise UserError(
                f"{file}, line {number}: expected the name of one image, got {quote(line)}; choose "
                "an image set that is not of a single class, such as set=trainval"
            )
    return list(lines.values())


class _Refused(Exception):
    """A file declares a document type, whose entities could expand without limit."""


class _Builder(ElementTree.TreeBuilder):
    """Builds elements, and refuses files with a document type declaration."""

    def doctype(self, name: str, public: str | None, system: str | None) -> None:
        """Called before any declared entity is expanded."""
        raise _Refused


def read_annotation(file: Path, remedy: str = REMEDY) -> ElementTree.Element:
    """The <annotation> of an XML file."""
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        parser.feed(read_bytes(file, remedy))
        annotation: ElementTree.Element = parser.close()
    except _Refused:
        raise UserError(
            f"{file} declares a document type, which VOC files do not; {remedy}"
        ) from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UserError(f"{file} is damaged or truncated ({error}); {remedy}") from error
    if annotation.tag != "annotation":
        raise UserError(f"{file}: expected <annotation>, got <{annotation.tag}>; {remedy}")
    return annotation


def class_of(file: Path, thing: ElementTree.Element) -> str:
    """The class of an object; parts of it have names too, at a deeper level."""
    if not (name := (thing.findtext("name") or "").strip()):
        raise UserError(f"{file} has an object without a name; name its class")
    return name


def is_difficult(thing: ElementTree.Element) -> bool:
    """Whether an object is marked as difficult."""
    return (thing.findtext("difficult") or "0").strip() != "0"
