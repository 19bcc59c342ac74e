"""What tasks with any number of objects per image have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor

from stillhouse.batches import (
    Batch,
    Objects,
    image_sizes,
    join_objects,
    read_batch,
    read_objects,
)
from stillhouse.errors import UserError
from stillhouse.models.detectors.object_output import ObjectOutput
from stillhouse.models.detectors.output import Suppression
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.spec import require, spec
from stillhouse.tasks.labelled import labelled_part
from stillhouse.types import Clock, Lesson, Sites, Terms, Trace

FOUND = 1.0  # percent of AP50 that a teacher must reach; a random detector has nearly none


@spec
class ObjectTaskSpec:
    """The options of a task with objects that replace those of the network.

    `threshold` is the least score of a detection, `iou` that of suppression, and `most` the number
    of detections per image.
    """

    threshold: float | None = None
    iou: float | None = None
    most: int | None = None
    storable: ClassVar[bool] = False  # predictions at every location of an image

    def __post_init__(self) -> None:
        for name in ("threshold", "iou"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, name, "in [0, 1]", value)
        require(self.most is None or self.most >= 1, "most", "at least 1", self.most)


@dataclass(frozen=True)
class ObjectTask:
    """Networks whose output assigns objects to predictions, and has loss terms of these.

    Crowds and difficult objects are not trained on. Images without labels add nothing to label
    terms. Subclasses check outputs, and name sites and scores.
    """

    classes: int | None = None
    threshold: float | None = None
    iou: float | None = None
    most: int | None = None
    headline: ClassVar[str] = "ap"
    chance: ClassVar[float] = 0.0

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for outputs that cannot be compared."""
        raise NotImplementedError

    def make_sites(
        self, student: Any, teacher: Any, assigned: Any, objects: Objects | None
    ) -> Sites:
        """The sites of two outputs, without labels if `objects` is None."""
        raise NotImplementedError

    def read(self, batch: Any) -> Batch[Objects]:
        """A batch of any loader, with `Objects` as target or as torchvision has it.

        That is a list of mappings with `boxes` (M, 4) and `labels` (M,), one per image, with images
        as a tensor (N, C, H, W) or a list of tensors of one size.
        """
        if not isinstance(batch, Batch | Mapping):
            images, target, *_ = batch
            batch = (stack_images(images), read_targets(target))
        return read_batch(batch)

    def inputs(self, batch: Batch[Objects], teacher: Trace | None = None) -> tuple[Tensor]:
        """The images: (N, C, H, W)."""
        return (batch.images,)

    def pair_sites(self, student: Any, teacher: Any) -> tuple[str, ...]:
        """The sites that two networks have in common, by their outputs."""
        return tuple(self.make_sites(student, teacher, None, None))

    def assign(self, student: Trace, batch: Batch[Objects]) -> Any:
        """The object of each prediction, or of sampled regions; None if no image has labels.

        Images without labels are like those without objects here, which is what methods see.
        """
        out: ObjectOutput = student.out
        return None if batch.target is None else out.assign(batch.target)

    def supervise(self, student: Trace, batch: Batch[Objects], assigned: Any = None) -> Terms:
        """The loss terms of the student's family, of the images with labels."""
        part, labelled = labelled_part(student, batch)
        out: Any = part.out
        if labelled is not batch or assigned is None:
            objects = objects_of_none(out) if labelled.target is None else labelled.target
            assigned = out.assign(objects)
        terms: Terms = out.terms(assigned)
        return terms

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Objects],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The sites of both networks, and the assignment of objects."""
        sites = Sites({})
        if teacher.out is not None:
            self.check_pair(student.out, teacher.out)
            sites = self.make_sites(student.out, teacher.out, assigned, batch.target)
        return Lesson(
            student,
            teacher,
            sites,
            clock,
            keys=batch.keys,
            objects=batch.target,
            sizes=image_sizes(batch),
            assigned=assigned,
        )

    def options_of(self, out: ObjectOutput) -> Suppression:
        """The options by which predictions become detections: the network's, or the task's."""
        known = {"threshold": self.threshold, "iou": self.iou, "most": self.most}
        given: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        return replace(out.family.suppression, **given)

    def check_counts(self, out: ObjectOutput, name: str, images: int) -> None:
        """Raise UserError for another number of images or of classes."""
        count, classes = len(out), out.classes
        if count != images or classes != (self.classes or classes):
            raise UserError(
                f"{name} gives scores of {classes} classes for {count} images; expected "
                f"{self.classes} classes and {images} images"
            )

    def select(self, output: ObjectOutput, index: Tensor) -> Tensor:
        """The highest logit of one class in each image: (N,) -> (N,)."""
        return output.class_logits().gather(1, index[:, None])[:, 0]

    def storable(self, output: Any) -> Tensor:
        """Raise UserError: the predictions of all places would fill a disk."""
        raise UserError(
            "the outputs of a detector are not cached; set teacher.store=false and "
            "teacher.remember=false"
        )

    def collect(self, trace: Trace) -> Tensor:
        """The highest logit of each class in each image: -> (N, C)."""
        highest: Tensor = trace.out.class_logits()
        return highest

    def collect_target(self, batch: Batch[Objects]) -> Tensor:
        """Which classes each image has, on the CPU: -> (N, C)."""
        hot = torch.zeros(len(batch), self.classes or 0)
        if batch.target is not None:
            hot[batch.target.image.cpu(), batch.target.labels.cpu()] = 1
        return hot

    def passes(self, summary: Mapping[str, float], images: int) -> bool:
        """Whether a teacher finds objects at all: AP at IoU 0.5 of at least 1 %."""
        return summary.get("ap50", summary[self.headline]) >= FOUND


def objects_of_none(out: ObjectOutput) -> Objects:
    """The objects of images without any."""
    scores = (out.proposal if isinstance(out, TwoStage) else out).scores
    none = torch.zeros(0, dtype=torch.int64, device=scores.device)
    return Objects(none.new_zeros(0, 4, dtype=torch.float32), none, none, len(out))


def stack_images(images: Any) -> Tensor:
    """Images as one tensor: a tensor, or a list of (C, H, W) of one size -> (N, C, H, W)."""
    if isinstance(images, Tensor):
        return images
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) != 1:
        raise UserError(
            f"the images of a batch have different sizes, {sorted(shapes)[:2]}; pad them to one "
            "size, and pass stillhouse.Batch(..., sizes=...)"
        )
    return torch.stack(tuple(images))


def read_targets(target: Any) -> Any:
    """`Objects` of a list with the boxes and labels of each image; anything else as it is.

    Masks are those of all images, or None.
    """
    if not isinstance(target, list | tuple):
        return target
    images = [
        read_objects(one, f"image {number} of the batch") for number, one in enumerate(target)
    ]
    if any(one.crowd is not None for one in images):
        images = [replace(one, crowd=one.ignored) for one in images]  # False where not given
    if any(one.masks is None for one in images):
        images = [replace(one, masks=None) for one in images]
    return join_objects(images)
