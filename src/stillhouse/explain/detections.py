"""The detections of several networks for the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

from torch import Tensor, nn

from stillhouse.batches import Batch, Objects
from stillhouse.errors import UserError
from stillhouse.explain.collect import collect_each, first_batches
from stillhouse.explain.compared import Compared
from stillhouse.explain.dense_maps import ComparesDense, DenseBatches, dense_batches
from stillhouse.explain.predictions import MAX_IMAGES
from stillhouse.explain.roles import TEACHER
from stillhouse.explain.subset import SubsetLoader, thin_out
from stillhouse.models.detectors.output import Dense
from stillhouse.models.dry_run import undisturbed
from stillhouse.tasks.meters.detection_rows import (
    ObjectRows,
    Rows,
    collect_rows,
    concatenate_rows,
    order_rows,
)
from stillhouse.types import Trace

PLACES = 100  # images whose predictions are compared place by place, at most


class Detects(ComparesDense, Protocol):
    """A task with detections."""

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
    dense: bool = True  # whether the network predicts at all places, in one stage

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.rows.images)


@dataclass(frozen=True)
class DetectionPredictions(Compared[DetectionOutputs]):
    """Detections of images; `image` takes the key of an image.

    `dense` computes the raw predictions of teacher and students again, for at most 100 images.
    """

    # None without a teacher, or with one of two stages
    dense: DenseBatches | None = field(default=None, kw_only=True)

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
    sample by its key: -> (C, H, W) uint8, in which boxes are. `loader` loads some images again, for
    what is too large to be kept of all. A network that fails is named in `missing`; the last one
    raises its error.
    """
    outputs, missing = collect_each(
        networks, lambda name, network: detections_of(name, network, task, batches(), limit)
    )
    dense = None
    if loader is not None and any(one.name == TEACHER and one.dense for one in outputs):
        keys = thin_out(outputs[-1].rows.images, PLACES)
        dense = partial(dense_batches, networks, task, loader, keys)
    return DetectionPredictions(outputs, tuple(classes), image, missing=missing, dense=dense)


def detections_of(
    name: str,
    network: nn.Module,
    task: Detects,
    batches: Iterable[Batch[Any]],
    limit: int = MAX_IMAGES,
) -> DetectionOutputs:
    """The detections of one network for at most `limit` images, in eval mode; it is not changed."""
    parts: list[Rows] = []
    finite, dense = True, True
    with undisturbed(network):
        for batch in first_batches(batches, limit):
            if batch.target is None:
                raise UserError("the images have no objects annotated, which the diagnoses need")
            trace = Trace(network(*task.inputs(batch)))
            finite = finite and bool(task.collect(trace).isfinite().all())
            dense = isinstance(trace.out, Dense)
            parts.append(collect_rows(task.detect(trace, batch), batch))
    if not parts:
        raise UserError(f"the split has no images for {name}; choose a split with images")
    return DetectionOutputs(name, order_rows(concatenate_rows(parts)), finite, dense)
