"""Instance segmentation: a mask and a class for each of any number of objects per image."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from torch import nn

from stillhouse.batches import Batch, Objects, image_sizes
from stillhouse.errors import UserError
from stillhouse.models.detectors.cell_masks import CellMasks
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.spec import spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.mask_sites import (
    CELL_SITES,
    LABELLED_CELL_SITES,
    MASK,
    cell_sites,
    masked_region_sites,
)
from stillhouse.tasks.meters.mask_precision import MaskPrecision
from stillhouse.tasks.object_task import ObjectTask, ObjectTaskSpec
from stillhouse.tasks.region_sites import LABELLED_SITES as LABELLED_REGION_SITES
from stillhouse.tasks.region_sites import SITES as REGION_SITES
from stillhouse.types import Sites, Trace

SUPPORTED = "take detector/solov2, detector/mask_rcnn or detector/cascade_mask_rcnn"


@spec
class InstanceSpec(ObjectTaskSpec):
    """Objects with masks, of any number of classes.

    `boundary` adds the average precision of masks whose boundaries are compared to the scores.
    `iou` has no effect on detector/solov2, whose suppression has no limit of overlap.
    """

    boundary: bool = False
    name: Literal["instance"] = "instance"

    def build(self, facts: Facts) -> Instance:
        """The task for the classes of the data."""
        # some data sets draw masks when a sample is read, so their targets may have none
        if facts.validation is not None and not isinstance(facts.validation, Objects):
            raise UserError(
                f"task=instance needs images with masks of objects, but {facts.data} has none; "
                "choose a data set of instances (see `stillhouse datasets`), or another task"
            )
        return Instance(len(facts.classes), self.threshold, self.iou, self.most, self.boundary)


@dataclass(frozen=True)
class Instance(ObjectTask):
    """Networks whose output is a `CellMasks`, or a `TwoStage` with masks.

    See `mask_sites` for the sites. Crowds are not trained on. Images without labels add nothing to
    label terms.
    """

    boundary: bool = False
    sites: ClassVar[tuple[str, ...]] = (*CELL_SITES, *REGION_SITES, MASK)
    labelled_sites: ClassVar[tuple[str, ...]] = (
        *LABELLED_CELL_SITES,
        *LABELLED_REGION_SITES,
        MASK,
    )
    examine: ClassVar[tuple[str, ...]] = ("instances", "mask_precision", "cell_scores")

    def adapt(self, network: nn.Module) -> nn.Module:
        """A Mask R-CNN of torchvision as one of ours; others as they are."""
        return adapt_detector(network, masked=True)

    def read(self, batch: Any) -> Batch[Objects]:
        """A batch of any loader, as for detection, with `masks` (M, H, W) of each image."""
        found = super().read(batch)
        check_masks(found)
        return found

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output that has no masks, or not those of the task's classes."""
        if isinstance(output, TwoStage) and not output.family.masked:
            raise UserError(f"{name} is a detector without masks; {SUPPORTED}")
        if not isinstance(output, CellMasks | TwoStage):
            raise UserError(
                f"{name} gives an output of type {type(output).__name__}, which has no masks of "
                f"objects; {SUPPORTED}"
            )
        self.check_counts(output, name, images)

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for two outputs of cells whose grids or masks differ in size.

        Cells and regions can be compared by the features of their networks only.
        """
        for output, name in ((student, "the student"), (teacher, "the teacher")):
            self.check_output(output, name, len(student))
        if not (isinstance(student, CellMasks) and isinstance(teacher, CellMasks)):
            return
        found = student.differences(teacher)
        if found:
            raise UserError(
                "the predictions of student and teacher cannot be compared, because they differ "
                f"(student and teacher, {'; '.join(found[:3])}); give both the same `grids` and "
                "`strides`"
            )

    def make_sites(
        self, student: Any, teacher: Any, assigned: Any, objects: Objects | None
    ) -> Sites:
        """The sites of two outputs: of cells, of regions, or none."""
        if isinstance(student, CellMasks) and isinstance(teacher, CellMasks):
            return cell_sites(student, teacher, assigned)
        if isinstance(student, TwoStage) and isinstance(teacher, TwoStage):
            return masked_region_sites(student, teacher, assigned, objects)
        return Sites({})

    def segment(self, trace: Trace, batch: Batch[Any]) -> Iterator[Objects]:
        """The instances of each image in turn, with scores, the best first.

        Masks have the size of the batch's images, boxes are in their pixels.
        """
        out: CellMasks | TwoStage = trace.out
        options = self.options_of(out)
        for index, (height, width) in enumerate(image_sizes(batch).tolist()):
            yield out.segment(index, (height, width), options)

    def meter(self) -> MaskPrecision:
        """A meter of average precision of masks."""
        return MaskPrecision(self.classes or 0, self.segment, self.boundary)


def check_masks(batch: Batch[Objects]) -> None:
    """Raise UserError for objects without masks, or with masks of another size than the images."""
    target, size = batch.target, tuple(batch.images.shape[-2:])
    if not isinstance(target, Objects) or not len(target.labels):
        return
    if target.masks is None:
        raise UserError(
            "task=instance learns from masks, but the objects of the batch have none; pass `masks` "
            "of each image, or choose a data set of instances (see `stillhouse datasets`)"
        )
    if tuple(target.masks.shape[-2:]) != size:
        raise UserError(
            "the masks of objects have {} x {} pixels, but the images {} x {}; give both the same "
            "size".format(*target.masks.shape[-2:], *size)
        )
