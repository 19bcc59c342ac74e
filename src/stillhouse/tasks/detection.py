"""Object detection: boxes and classes of any number of objects per image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, get_args

from torch import nn

from stillhouse.batches import Batch, Objects, image_sizes
from stillhouse.errors import UserError
from stillhouse.models.detectors.output import Dense
from stillhouse.models.detectors.suppress import Detections, detect
from stillhouse.models.detectors.torchvision.adapter import adapt_detector
from stillhouse.models.detectors.two_stage import TwoStage
from stillhouse.spec import spec
from stillhouse.tasks.base import Facts
from stillhouse.tasks.dense_sites import LABELLED_SITES, SITES, dense_sites
from stillhouse.tasks.meters.box_precision import BoxPrecision
from stillhouse.tasks.object_task import ObjectTask, ObjectTaskSpec
from stillhouse.tasks.region_sites import LABELLED_SITES as LABELLED_REGION_SITES
from stillhouse.tasks.region_sites import SITES as REGION_SITES
from stillhouse.tasks.region_sites import region_sites
from stillhouse.types import Sites, Trace

ScoreProtocol = Literal["coco", "voc", "voc07"]


@spec
class DetectionSpec(ObjectTaskSpec):
    """Objects with boxes, of any number of classes.

    `protocol` is how average precision is computed: coco (mean over IoU 0.5 to 0.95), voc (IoU
    0.5, area under the curve) or voc07 (its 11 points).
    """

    protocol: ScoreProtocol = "coco"
    name: Literal["detection"] = "detection"

    def build(self, facts: Facts) -> Detection:
        """The task for the classes of the data."""
        if facts.validation is not None and not isinstance(facts.validation, Objects):
            raise UserError(
                f"task=detection needs images with boxes, but {facts.data} has none; choose a data "
                "set of objects (see `stillhouse datasets`), or another task"
            )
        return Detection(len(facts.classes), self.threshold, self.iou, self.most, self.protocol)


@dataclass(frozen=True)
class Detection(ObjectTask):
    """Detectors, whose output is a `Dense` or a `TwoStage`.

    The rows of the sites `class` are all priors of all images, N P of them, with C logits each, and
    those of `box` their decoded boxes. Their mass is the sum over images of max(positives, 1). The
    target of `class` is the class of each prior, -1 for background, and priors that are neither
    have weight 0. Those of `edge` are the four sides of each prior with their bins. See
    `dense_sites` for the regions. Crowds and difficult objects are not trained on. Images without
    labels add nothing to label terms.
    """

    protocol: ScoreProtocol = "coco"
    sites: ClassVar[tuple[str, ...]] = (*SITES, *REGION_SITES)
    labelled_sites: ClassVar[tuple[str, ...]] = (*LABELLED_SITES, *LABELLED_REGION_SITES)
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
        """A detector of torchvision as one of ours, without masks; others as they are."""
        return adapt_detector(network)

    def check_output(self, output: Any, name: str, images: int) -> None:
        """Raise UserError for an output that is not that of a detector of the task's classes."""
        if not isinstance(output, Detections):
            raise UserError(
                f"{name} gives an output of type {type(output).__name__}, which is not that of a "
                "detector; take detector/fcos or another one of `stillhouse models detector`"
            )
        self.check_counts(output, name, images)

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

    def make_sites(
        self, student: Any, teacher: Any, assigned: Any, objects: Objects | None
    ) -> Sites:
        """The sites of two detectors: of dense ones, of two-stage ones, or none."""
        if isinstance(student, Dense) and isinstance(teacher, Dense):
            return dense_sites(student, teacher, assigned, objects)
        if isinstance(student, TwoStage) and isinstance(teacher, TwoStage):
            return region_sites(student, teacher, objects)
        return Sites({})

    def detect(self, trace: Trace, batch: Batch[Any]) -> Objects:
        """The detections in pixels of the batch's images, with scores, the best first."""
        out: Detections = trace.out
        return detect(out, image_sizes(batch), self.options_of(out))

    def meter(self) -> BoxPrecision:
        """A meter of average precision by the protocol."""
        return BoxPrecision(self.classes or 0, self.detect, self.protocol)
