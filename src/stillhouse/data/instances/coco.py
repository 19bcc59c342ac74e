"""COCO, and data sets of one's own in its format, as objects with masks."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from stillhouse.batches import Objects
from stillhouse.data.instances.masked import masked_objects
from stillhouse.data.instances.outlines import Outlines, find_outlines
from stillhouse.data.objects.annotations import ObjectPolicy
from stillhouse.data.objects.build import build_with_rows
from stillhouse.data.objects.coco import open_instances, read_annotations
from stillhouse.data.objects.source import ObjectSource
from stillhouse.data.problems import check_choice
from stillhouse.data.source import Sample, fingerprint_of_recipe

NAME = "coco/instances"
MALFORMED = ("fail", "skip")


@dataclass(frozen=True, eq=False)
class OutlineSource:
    """Image files with objects whose outlines are drawn on access.

    Boxes of samples are those of the masks, and areas are those of the annotations. Objects whose
    mask is empty are left out. `targets` has the annotated boxes of all objects, and no masks.
    """

    annotated: ObjectSource
    outlines: Outlines
    positions: ClassVar[bool] = True

    @property
    def targets(self) -> Objects:
        """The annotated objects of all images, without masks."""
        return self.annotated.targets

    @property
    def shapes(self) -> Tensor:
        """Height and width of each image: -> (N, 2)."""
        return self.annotated.shapes

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of their indices."""
        return self.annotated.classes

    @property
    def name(self) -> str:
        """The name in messages and reports."""
        return self.annotated.name

    @property
    def notes(self) -> tuple[str, ...]:
        """What was skipped or changed, one sentence each."""
        return self.annotated.notes

    @cached_property
    def fingerprint(self) -> str:
        """A digest of the files, the objects and their outlines."""
        return fingerprint_of_recipe(
            {
                "annotated": self.annotated.fingerprint,
                "outlines": self.outlines.digest,
                "malformed": self.outlines.malformed,
            }
        )

    def __len__(self) -> int:
        return len(self.annotated)

    def __getitem__(self, index: int) -> Sample:
        image, own, key = self.annotated[index]
        assert isinstance(own, Objects) and own.crowd is not None
        first, last = torch.searchsorted(
            self.targets.image, torch.tensor([index, index + 1])
        ).tolist()
        masks = self.outlines.masks(first, last, (image.shape[1], image.shape[2]))
        target = masked_objects(torch.from_numpy(masks), own.labels, own.crowd, own.area)
        return Sample(image, target, key)


def read_coco(
    path: Path,
    split: str,
    *,
    year: int = 2017,
    images: str = "",
    annotations: str = "",
    malformed: str = "fail",
    **policy: str,
) -> OutlineSource:
    """The images of an instances file, sorted by file name, with their objects and masks.

    Files, classes and the options of `ObjectPolicy` are those of coco/objects. An outline is
    polygons, or run lengths as numbers or compressed; it is decoded when its image is read.
    `malformed` says what is done about objects without one, or with one that cannot be drawn.
    """
    check_choice("malformed", malformed, MALFORMED)
    checked = ObjectPolicy(**policy)
    content, folder = open_instances(NAME, path, split, year, annotations, images, outlines=True)
    found = read_annotations(content, f"{NAME}/{split}", folder)
    source, rows = build_with_rows(found, checked)
    return OutlineSource(source, find_outlines(content, rows, malformed))
