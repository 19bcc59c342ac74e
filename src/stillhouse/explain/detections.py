"""The detections of several networks for the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.explain.collect import collect_each, first_batches
from stillhouse.explain.compared import Compared
from stillhouse.explain.predictions import MAX_IMAGES
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models.dry_run import undisturbed
from stillhouse.tasks.meters.detection_rows import (
    ObjectRows,
    Rows,
    collect_rows,
    concatenate_rows,
    order_rows,
)
from stillhouse.types import Trace


class Detects(Protocol):
    """A task with detections."""

    def inputs(self, batch: Batch[Objects], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network."""
        ...

    def collect(self, trace: Trace) -> Tensor:
        """Logits, which are finite if those of all predictions are."""
        ...

    def detect(self, trace: Trace, batch: Batch[Any]) -> Objects:
        """The detections in pixels of the batch's images, with scores."""
        ...


@dataclass(frozen=True, eq=False)
class DetectionOutputs:
    """The detections of one network, and the objects of the same images."""

    name: str  # teacher, control, student, or the name of a method or run
    rows: Rows  # in order, with boxes in pixels of the images as read
    finite: bool = True  # whether all logits are finite

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.rows.images)


@dataclass(frozen=True)
class DetectionPredictions(Compared[DetectionOutputs]):
    """Detections of images; `image` takes the key of an image."""

    @property
    def images(self) -> Tensor:
        """The keys of the images: -> (I,)."""
        return self.student.rows.images

    @property
    def objects(self) -> ObjectRows:
        """The objects of all images, in order of their keys."""
        return self.student.rows.objects


def collect_detections(
    networks: Mapping[str, nn.Module],
    task: Detects,
    batches: Callable[[], Iterable[Batch[Any]]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = MAX_IMAGES,
    loader: SubsetLoader | None = None,
) -> DetectionPredictions:
    """The detections of all networks for the first images of a split, the same at each call.

    The order of the networks is kept: teacher, control, students. `image` gives the pixels of a
    sample by its key: -> (C, H, W) uint8, in which boxes are. No image is needed a second time, so
    `loader` is not used. A network that fails is named in `missing`; the last one raises its error.
    """
    outputs, missing = collect_each(
        networks, lambda name, network: detections_of(name, network, task, batches(), limit)
    )
    return DetectionPredictions(outputs, tuple(classes), image, missing=missing)


def detections_of(
    name: str,
    network: nn.Module,
    task: Detects,
    batches: Iterable[Batch[Any]],
    limit: int = MAX_IMAGES,
) -> DetectionOutputs:
    """The detections of one network for at most `limit` images, in eval mode; it is not changed."""
    parts: list[Rows] = []
    finite = True
    with undisturbed(network):
        for batch in first_batches(batches, limit):
            if batch.target is None:
                raise UserError("the images have no objects annotated, which the diagnoses need")
            trace = Trace(network(*task.inputs(batch)))
            finite = finite and bool(task.collect(trace).isfinite().all())
            parts.append(collect_rows(task.detect(trace, batch), batch))
    if not parts:
        raise UserError(f"the split has no images for {name}; choose a split with images")
    return DetectionOutputs(name, order_rows(concatenate_rows(parts)), finite)
