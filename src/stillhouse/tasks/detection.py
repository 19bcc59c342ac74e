"""Object detection by dense detectors: boxes and classes of any number of objects per image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal, get_args

import torch
from torch import Tensor, nn

from stillhouse.batches import (
    Batch,
    Objects,
    image_sizes,
    join_objects,
    read_batch,
    read_objects,
)
from stillhouse.errors import UserError
from stillhouse.models.detectors.assign import Assignment
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.suppress import Detections, detect
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.detectors.two_stage import TwoStage, TwoStageAssignment
from stillhouse.spec import require, spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.dense_sites import SITES, dense_sites
from stillhouse.tasks.meters.box_precision import BoxPrecision
from stillhouse.tasks.region_sites import SITES as REGION_SITES
from stillhouse.tasks.region_sites import region_sites
from stillhouse.types import Clock, Lesson, Sites, Term, Terms, Trace

ScoreProtocol = Literal["coco", "voc", "voc07"]
SITE = "class"
FOUND = 1.0  # percent of AP50 that a teacher must reach; a random detector has nearly none


@spec
class DetectionSpec:
    """Objects with boxes, of any number of classes.

    `protocol` is how average precision is computed: coco (mean over IoU 0.5 to 0.95), voc (IoU
    0.5, area under the curve) or voc07 (its 11 points). `threshold`, `iou` and `most` replace those
    of the detector: the least score of a detection, the IoU of suppression, and the number of
    detections per image.
    """

    protocol: ScoreProtocol = "coco"
    threshold: float | None = None
    iou: float | None = None
    most: int | None = None
    name: Literal["detection"] = "detection"
    storable: ClassVar[bool] = False  # predictions at every location of an image

    def __post_init__(self) -> None:
        for name in ("threshold", "iou"):
            value = getattr(self, name)
            require(value is None or 0 <= value <= 1, name, "in [0, 1]", value)
        require(self.most is None or self.most >= 1, "most", "at least 1", self.most)

    def build(self, facts: Facts) -> Detection:
        """The task for the classes of the data."""
        if facts.validation is not None and not isinstance(facts.validation, Objects):
            raise UserError(
                f"task=detection needs images with boxes, but {facts.data} has none; choose a data "
                "set of objects (see `stillhouse datasets`), or another task"
            )
        return Detection(len(facts.classes), self.protocol, self.threshold, self.iou, self.most)


@dataclass(frozen=True)
class Detection:
    """Dense detectors, whose output is a `Dense`.

    The rows of the sites `class` are all priors of all images, N P of them, with C logits each, and
    those of `box` their decoded boxes. Their mass is the sum over images of max(positives, 1). The
    target of `class` is the class of each prior, -1 for background, and priors that are neither
    have weight 0. Those of `edge` are the four sides of each prior with their bins. See
    `dense_sites` for the regions. Crowds and difficult objects are not trained on. Images without
    labels add nothing to label terms.
    """

    classes: int | None = None
    protocol: ScoreProtocol = "coco"
    threshold: float | None = None
    iou: float | None = None
    most: int | None = None
    headline: ClassVar[str] = "ap"
    chance: ClassVar[float] = 0.0
    sites: ClassVar[tuple[str, ...]] = (*SITES, *REGION_SITES)
    examine: ClassVar[tuple[str, ...]] = (
        "detections",
        "box_precision",
        "detection_errors",
        "loss_maps",
        "score_errors",
    )

    def __post_init__(self) -> None:
        if self.protocol not in get_args(ScoreProtocol):
            raise ValueError(f"protocol must be coco, voc or voc07, got {self.protocol!r}")

    def adapt(self, network: nn.Module) -> nn.Module:
        """A RetinaNet or FCOS of torchvision as a dense detector, others as they are."""
        return adapt_detector(network)

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

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output that is not that of a detector of the task's classes."""
        if not isinstance(output, Detections):
            raise UserError(
                f"{name} gives an output of type {type(output).__name__}, which is not that of a "
                "detector; take detector/fcos or another one of `stillhouse models detector`"
            )
        count, classes = len(output), output.classes
        if count != images or classes != (self.classes or classes):
            raise UserError(
                f"{name} gives scores of {classes} classes for {count} images; expected "
                f"{self.classes} classes and {images} images"
            )

    def check_pair(self, student: Any, teacher: Any) -> None:
        """Raise UserError for two dense detectors whose predictions are not on one grid.

        A dense and a two-stage detector can be compared by their features only.
        """
        for output, name in ((student, "the student"), (teacher, "the teacher")):
            self.check_output(output, name, len(student))
        if not (isinstance(student, Dense) and isinstance(teacher, Dense)):
            return
        found = student.priors.differences(teacher.priors)
        if found:
            raise UserError(
                "the predictions of student and teacher cannot be compared, because their grids "
                f"differ (student and teacher, {'; '.join(found[:3])}); give both the same levels "
                "and the same number of priors per cell"
            )

    def pair_sites(self, student: Detections, teacher: Detections) -> tuple[str, ...]:
        """The sites that two networks have in common, by their outputs."""
        return tuple(make_sites(student, teacher, None, None))

    def assign(
        self, student: Trace, batch: Batch[Objects]
    ) -> Assignment | TwoStageAssignment | None:
        """The object of each prior, or of sampled regions; None for images without labels."""
        out: Detections = student.out
        return None if batch.target is None else out.assign(batch.target)

    def supervise(self, student: Trace, batch: Batch[Objects], assigned: Any = None) -> Terms:
        """The loss terms of the student's family; without labels, one term of mass 0."""
        out: Detections = student.out
        if assigned is None:
            first = out.proposal if isinstance(out, TwoStage) else out
            nothing = 0.0 * first.scores.sum()
            return {SITE: Term(nothing, torch.zeros_like(nothing))}
        return out.terms(assigned)

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Objects],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The sites of both networks, one row per prior, and the assignment of objects."""
        sites = Sites({})
        if teacher.out is not None:
            self.check_pair(student.out, teacher.out)
            sites = make_sites(student.out, teacher.out, assigned, batch.target)
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

    def detect(self, trace: Trace, batch: Batch[Any]) -> Objects:
        """The detections in pixels of the batch's images, with scores, the best first."""
        out: Detections = trace.out
        known = {"threshold": self.threshold, "iou": self.iou, "most": self.most}
        given: dict[str, Any] = {key: value for key, value in known.items() if value is not None}
        return detect(out, image_sizes(batch), replace(out.family.suppression, **given))

    def select(self, output: Detections, index: Tensor) -> Tensor:
        """The highest logit of one class in each image: (N,) -> (N,)."""
        return output.class_logits().gather(1, index[:, None])[:, 0]

    def storable(self, output: Any) -> Tensor:
        """Raise UserError: the predictions of all priors would fill a disk."""
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

    def meter(self) -> BoxPrecision:
        """A meter of average precision by the protocol."""
        return BoxPrecision(self.classes or 0, self.detect, self.protocol)


def make_sites(
    student: Detections, teacher: Detections, assigned: Any, objects: Objects | None
) -> Sites:
    """The sites of two detectors: of dense ones, of two-stage ones, or none."""
    if isinstance(student, Dense) and isinstance(teacher, Dense):
        return dense_sites(student, teacher, assigned, objects)
    if isinstance(student, TwoStage) and isinstance(teacher, TwoStage):
        return region_sites(student, teacher, objects)
    return Sites({})


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
    """`Objects` of a list with the boxes and labels of each image; anything else as it is."""
    if not isinstance(target, list | tuple):
        return target
    images = [
        read_objects(one, f"image {number} of the batch") for number, one in enumerate(target)
    ]
    if any(one.crowd is not None for one in images):
        images = [replace(one, crowd=one.ignored) for one in images]  # False where not given
    return join_objects(images)
