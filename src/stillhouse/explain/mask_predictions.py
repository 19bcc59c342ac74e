"""What several networks for semantic segmentation predict for the same images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stillhouse.batches import IGNORE, Batch, image_sizes
from stillhouse.errors import UserError
from stillhouse.explain.collect import collect_each, first_batches
from stillhouse.explain.compared import Compared
from stillhouse.explain.predictions import MAX_IMAGES
from stillhouse.explain.roles import TEACHER
from stillhouse.explain.subset import SubsetLoader
from stillhouse.models.dry_run import undisturbed
from stillhouse.tasks.base import run_network
from stillhouse.tasks.meters.mean_iou import count_pixels
from stillhouse.types import Clock, Lesson, Site, Trace


class Segments(Protocol):
    """A task whose networks predict a class for each pixel."""

    def inputs(self, batch: Batch[Tensor], teacher: Trace | None = None) -> tuple[Any, ...]:
        """The arguments of a network."""
        ...

    def collect(self, trace: Trace) -> Tensor:
        """Logits, which are finite if those of all pixels are."""
        ...

    def segment(self, trace: Trace, batch: Batch[Any]) -> Tensor:
        """The class of each pixel: -> (N, H, W)."""
        ...

    def lesson(
        self,
        student: Trace,
        teacher: Trace,
        batch: Batch[Tensor],
        clock: Clock,
        assigned: Any = None,
    ) -> Lesson:
        """The sites of both networks."""
        ...


@dataclass(frozen=True, eq=False)
class MaskOutputs:
    """What one network predicts, counted over the pixels with a class."""

    name: str  # teacher, control, student, or the name of a method or run
    keys: Tensor  # (I,) of the images, in order
    confusion: Tensor  # (C, C) pixels, labels in rows and predictions in columns
    wrong: Tensor  # (I,) share of wrong pixels of each image, 0 without labels
    finite: bool = True  # whether all logits are finite

    @property
    def count(self) -> int:
        """The number of images."""
        return len(self.keys)


@dataclass(frozen=True, eq=False)
class MaskBatch:
    """The outputs of networks for a batch of some images."""

    batch: Batch[Tensor]
    pixels: Tensor  # (N, C, H, W) uint8
    traces: Mapping[str, Trace]  # by network, the teacher among them
    task: Segments

    def sites(self, name: str) -> Mapping[str, Site]:
        """The sites of a student and the teacher."""
        traces = self.traces[name], self.traces[TEACHER]
        return self.task.lesson(*traces, self.batch, Clock(0, 1, 1)).sites

    def images(self) -> Iterator[ImageMasks]:
        """The images without padding, in their order."""
        found = {name: self.task.segment(one, self.batch) for name, one in self.traces.items()}
        for index, (height, width) in enumerate(image_sizes(self.batch).tolist()):
            part = (index, slice(height), slice(width))
            yield ImageMasks(
                self.pixels[index, :, :height, :width],
                self.batch.target[part].long().cpu(),
                {name: masks[part].cpu() for name, masks in found.items()},
            )


@dataclass(frozen=True, eq=False)
class ImageMasks:
    """One image, its labels, and what networks predict."""

    pixels: Tensor  # (C, H, W) uint8
    truth: Tensor  # (H, W) classes, 255 for none
    found: Mapping[str, Tensor]  # by network, (H, W) classes


MaskBatches = Callable[[Tensor], Iterator[MaskBatch]]  # of the images with these keys


@dataclass(frozen=True)
class MaskPredictions(Compared[MaskOutputs]):
    """Predicted masks of images; `again` computes the outputs for some of them again."""

    again: MaskBatches | None = field(default=None, kw_only=True)

    @property
    def images(self) -> Tensor:
        """The keys of the images: -> (I,)."""
        return self.student.keys


def collect_masks(
    networks: Mapping[str, nn.Module],
    task: Segments,
    batches: Callable[[], Iterable[Batch[Any]]],
    classes: Iterable[str],
    image: Callable[[int], Tensor],
    limit: int = MAX_IMAGES,
    loader: SubsetLoader | None = None,
) -> MaskPredictions:
    """The confusion matrices of all networks for the first images of a split.

    The order of the networks is kept: teacher, control, students. A network that fails is named in
    `missing`; the last one raises its error.
    """
    names = tuple(classes)
    outputs, missing = collect_each(
        networks,
        lambda name, network: masks_of(name, network, task, batches(), len(names), limit),
    )
    kept = {one.name: networks[one.name] for one in outputs}
    again = None if loader is None else partial(mask_batches, kept, task, loader)
    return MaskPredictions(outputs, names, image, missing=missing, again=again)


def masks_of(
    name: str,
    network: nn.Module,
    task: Segments,
    batches: Iterable[Batch[Any]],
    classes: int,
    limit: int = MAX_IMAGES,
) -> MaskOutputs:
    """The predictions of one network for at most `limit` images, in eval mode."""
    keys: list[Tensor] = []
    wrong: list[Tensor] = []
    confusion = torch.zeros(classes, classes, dtype=torch.double)
    finite = True
    with undisturbed(network):
        for batch in first_batches(batches, limit):
            if batch.target is None:
                raise UserError("the images have no masks, which the diagnoses need")
            trace = run_network(task, network, batch)
            finite = finite and bool(task.collect(trace).isfinite().all())
            truth, found = batch.target.long(), task.segment(trace, batch)
            known = truth != IGNORE
            confusion += count_pixels(truth[known], found[known], classes).cpu()
            missed = ((truth != found) & known).sum((1, 2)) / known.sum((1, 2)).clamp(min=1)
            keys.append(batch.keys.cpu())
            wrong.append(missed.cpu())
    if not keys:
        raise UserError(f"the split has no images for {name}; choose a split with images")
    return MaskOutputs(name, torch.cat(keys), confusion, torch.cat(wrong), finite)


def mask_batches(
    networks: Mapping[str, nn.Module], task: Segments, loader: SubsetLoader, keys: Tensor
) -> Iterator[MaskBatch]:
    """The outputs of networks, without gradients, for the images of some keys (M,)."""
    for batch in loader.batches(keys):
        with ExitStack() as stack:
            for network in networks.values():
                stack.enter_context(undisturbed(network))
            traces = {name: run_network(task, one, batch) for name, one in networks.items()}
        yield MaskBatch(batch, loader.pixels(batch.images).cpu(), traces, task)
